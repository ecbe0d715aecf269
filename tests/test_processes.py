"""Two processes do what one does: the same episodes, the same update, one writer, and they resume.

They run on CPUs and talk through gloo, replicated (DDP) and in shards (FSDP 2).
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from tiny_models import tiny_profile
from two_processes import CONFIG, branch_of, train_all

from sftrl_lib import paths
from sftrl_lib.models.policy import load_policy
from sftrl_lib.profiles import PROFILES
from sftrl_lib.training import ppo
from sftrl_lib.training.__main__ import main
from sftrl_lib.training.processes import Processes, launched

KINDS = ("ddp", "fsdp")


def processes(count, *arguments):
    """Run two_processes.py in so many processes, with the environment that `accelerate launch` gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    script = [sys.executable, str(Path(__file__).with_name("two_processes.py")), *map(str, arguments)]
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    running = [
        subprocess.Popen(script, env={**os.environ, **common, **rank}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for rank in ranks
    ]
    said = [process.communicate()[0].decode() for process in running]
    assert [process.returncode for process in running] == [0] * count, said[0][-3000:] + said[-1][-3000:]
    return said


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory):
    """The folder in which one process and two have trained the same, and what the two said."""
    folder = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sftrl_lib.paths.HOME", folder)
        train_all(folder / "one", tiny_folder, Processes())
        train_all(folder / "one-corrected", tiny_folder, Processes(), importance_cap=2.0)
    return folder, processes(2, folder, tiny_folder)


def alone(folder, kind):
    return folder / ("one" if kind == "ddp" else "one-corrected")


def changes(folder, before):
    """How far training has moved each weight of a model."""
    start, end = load_file(Path(before) / "model.safetensors"), load_file(folder / "model.safetensors")
    assert start.keys() == end.keys()
    return {name: end[name] - start[name] for name in start}


def assert_same_changes(found, expected, tolerance):
    """To within a share of the largest change of the tensor."""
    for name, change in expected.items():
        far = (found[name] - change).abs().max()
        assert far <= tolerance * change.abs().max() + 1e-9, f"{name}: {far:g} of {change.abs().max():g}"


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_is_the_same_whatever_the_number_of_processes(trained, tiny_folder, kind):
    folder, _ = trained
    one, two = (changes(home / "update/step-00001", tiny_folder) for home in (alone(folder, kind), folder / kind))
    assert max(change.abs().max() for change in one.values()) > 1e-3  # it has learnt something
    assert_same_changes(two, one, 1e-3)
    [log], [same] = (
        json.loads((home / "update/log.json").read_text()) for home in (alone(folder, kind), folder / kind)
    )
    assert log.keys() == same.keys() and log["flops"] == same["flops"]  # compute is counted over all processes
    assert same == pytest.approx(log, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_training_of_two_processes_is_gone_on_with(trained, kind):
    folder, _ = trained
    whole, resumed = folder / kind / "whole", folder / kind / "resumed"
    assert json.loads((resumed / "log.json").read_text()) == json.loads((whole / "log.json").read_text())
    [last] = whole.glob("step-*")
    one, other = load_file(last / "model.safetensors"), load_file(resumed / last.name / "model.safetensors")
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_sft_in_two_processes_makes_the_same_init(trained, tiny_folder, kind):
    folder, _ = trained
    init = "build/tiny/runs/gp-l-init-s0/step-00000"
    one, two = (changes(home / init, tiny_folder) for home in (folder / "one", folder / kind))
    assert max(change.abs().max() for change in one.values()) > 1e-3
    assert_same_changes(two, one, 1e-3)
    spent = [json.loads((home / init / "compute.json").read_text()) for home in (folder / "one", folder / kind)]
    assert spent[0] == spent[1]


@pytest.mark.parametrize("kind", KINDS)
def test_what_two_processes_write_loads_as_any_model_does(trained, kind):
    folder, _ = trained
    policy = load_policy(folder / kind / "update/step-00001")
    assert policy.value_head is not None


def test_weights_in_shards_are_checkpointed_in_shards(trained):
    folder, _ = trained
    kept = folder / "fsdp/whole/training"
    assert len(list(kept.glob("pytorch_model_fsdp_0/*.distcp"))) == 2  # one for each process
    assert json.loads((kept / "progress.json").read_text())["config"]["processes"] == 2


def test_more_processes_than_episodes_are_refused(tiny_folder, tmp_path, monkeypatch):
    several = Processes()
    monkeypatch.setattr(several, "count", CONFIG.episodes + 1)
    with pytest.raises(ValueError, match="6 processes cannot share PPOConfig.episodes = 5"):
        ppo.train(branch_of(tmp_path, tiny_folder, several))


def test_without_accelerate_launch_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launched("cpu").accelerator is None and launched("cpu").main
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr("accelerate.utils.is_deepspeed_available", lambda: False)
    with pytest.raises(ValueError, match="DeepSpeed, which is not installed: pip install deepspeed"):
        launched("cpu")


def test_the_command_trains_a_run(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PROFILES, "tiny", tiny_profile(tiny_folder))
    monkeypatch.setattr(paths, "HOME", tmp_path)
    assert main(["--profile", "tiny", "--task", "gp-l", "--method", "init"]) == 0
    assert "gp-l-init-s0: 1 models in" in capsys.readouterr().out
    assert (tmp_path / "build/tiny/runs/gp-l-init-s0/finished").exists()
    assert main(["--profile", "tiny", "--task", "gp-l", "--method", "rl", "--setting", "lr=1"]) == 2
    assert "Experiment 'main' has no setting" in capsys.readouterr().err


@pytest.mark.parametrize("name, kind", [("ddp", "MULTI_GPU"), ("fsdp", "FSDP"), ("zero2", "DEEPSPEED")])
def test_the_configuration_files_are_accelerates(name, kind):
    config = load_config_from_file(str(paths.ROOT / "cluster" / f"{name}.yaml"))
    assert config.distributed_type == kind and config.num_processes == 8 and config.mixed_precision == "no"
    assert name != "fsdp" or config.fsdp_config["fsdp_version"] == 2
    assert name != "zero2" or config.deepspeed_config["zero_stage"] == 2


def test_the_slurm_script_starts_the_run_it_is_given():
    script, words = str(paths.ROOT / "cluster/train.slurm"), ["paper", "gp-l", "rl", "0", "--experiment", "attempts"]
    said = subprocess.run(
        ["bash", script, *words], env={**os.environ, "PYTHON": "echo", "SLURM_GPUS_ON_NODE": "4"}, cwd=paths.ROOT,
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert said.split() == [
        "-m", "accelerate.commands.launch", "--config_file", "cluster/fsdp.yaml", "--num_processes", "4", "-m",
        "sftrl_lib.training", "--profile", "paper", "--task", "gp-l", "--method", "rl", "--seed", "0", "--experiment",
        "attempts",
    ]  # fmt: skip
