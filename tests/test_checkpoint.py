"""Training checkpoints: whole or absent, bit-exact, and one clear sentence when something is wrong."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import TINY, tiny_policy

from sftrl_lib.files import fresh_folder, replace_folder
from sftrl_lib.foundation.pretrain import new_model, optimizers
from sftrl_lib.models import checkpoint
from sftrl_lib.models.checkpoint import CheckpointError, load_state, save_state
from sftrl_lib.models.policy import load_policy
from sftrl_lib.training.compute import Compute
from sftrl_lib.training.snapshots import read_snapshot, snapshots, write_snapshot

CONFIG = {"lr": 0.1, "betas": (0.9, 0.95)}  # tuples come back from JSON as lists; that is no other configuration


def net(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))


def train(model, optims, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        loss = model(torch.randn(8, 6, generator=generator)).square().mean()
        loss.backward()
        for optim in optims:
            optim.step()
            optim.zero_grad()


def made(kind, seed=0):
    """A model and its optimiser, and both as the state of a checkpoint."""
    model = net(seed)
    if kind == "adamw":
        groups = [{"params": model[0].parameters(), "lr": 0.01}, {"params": model[2].parameters(), "lr": 0.02}]
        optims = [torch.optim.AdamW(groups, eps=1e-7, weight_decay=0.0)]
    else:
        matrices = [p for p in model.parameters() if p.ndim == 2]
        rest = [p for p in model.parameters() if p.ndim != 2]
        optims = [torch.optim.Muon(matrices, lr=0.02, momentum=0.95), torch.optim.AdamW(rest, lr=0.01)]
    return model, optims, {"model": model, **{f"optimizer{i}": o for i, o in enumerate(optims)}}


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def one_sentence(error):
    message = str(error.value)
    assert message.endswith(".") and "\n" not in message and len(message) < 500
    return True


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_training_goes_on_bit_for_bit(kind, tmp_path):
    model, optims, state = made(kind)
    train(model, optims, 5)
    optims[0].param_groups[0]["lr"] = 0.0123456789  # a schedule has been at work
    save_state(tmp_path / "training", state, {"step": 5, "losses": [0.1, 1 / 3]}, CONFIG)
    other, other_optims, other_state = made(kind, seed=1)
    assert load_state(tmp_path / "training", other_state, CONFIG) == {"step": 5, "losses": [0.1, 1 / 3]}
    assert same(model, other) and other_optims[0].param_groups[0]["lr"] == 0.0123456789
    for mine, its in zip(optims, other_optims, strict=True):
        for a, b in zip(mine.state_dict()["state"].values(), its.state_dict()["state"].values(), strict=True):
            assert a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)
    train(model, optims, 5, seed=9)
    train(other, other_optims, 5, seed=9)
    assert same(model, other)


def test_the_foundation_model_and_its_optimizers_come_back(tokenizer, tmp_path):
    """Tied embeddings, Muon for matrices and AdamW for the rest."""

    def fresh(seed):
        model = tiny_policy(tokenizer, critic=False, seed=seed).model if seed else new_model(TINY, tokenizer)
        optims = optimizers(model, TINY)
        return model, optims, {"model": model, **{f"optimizer{i}": o for i, o in enumerate(optims)}}

    def steps(model, optims):
        for i in range(2):
            ids = torch.arange(24).reshape(2, 12) + i
            model(input_ids=ids, labels=ids).loss.backward()
            for optim in optims:
                optim.step()
                optim.zero_grad()

    model, optims, state = fresh(0)
    covered = [p for optim in optims for group in optim.param_groups for p in group["params"]]
    assert sorted(map(id, covered)) == sorted(map(id, model.parameters()))
    steps(model, optims)
    save_state(tmp_path / "training", state, {}, CONFIG)
    other, other_optims, other_state = fresh(2)
    load_state(tmp_path / "training", other_state, CONFIG)
    assert same(model, other)
    steps(model, optims)
    steps(other, other_optims)
    assert same(model, other)


def test_an_optimizer_that_has_not_stepped(tmp_path):
    model, optims, state = made("adamw")
    save_state(tmp_path / "training", state, {}, CONFIG)
    other, other_optims, other_state = made("adamw", seed=1)
    assert load_state(tmp_path / "training", other_state, CONFIG) == {}
    train(model, optims, 3)
    train(other, other_optims, 3)
    assert same(model, other)


def test_what_does_not_learn_is_not_saved_and_stays_as_it_was_loaded(tmp_path):
    """As the weights below LoRA adapters: the model that goes on has them already."""
    model, other = net(), net()
    for one in (model, other):
        one[0].requires_grad_(False)
    optims = [torch.optim.AdamW(model[2].parameters(), lr=0.01)]
    train(model, optims, 3)
    save_state(tmp_path / "training", {"model": model}, {}, CONFIG)
    assert sorted(load_file(tmp_path / "training" / "model.safetensors")) == ["2.bias", "2.weight"]
    assert not same(model, other)
    load_state(tmp_path / "training", {"model": other}, CONFIG)
    assert same(model, other)
    with pytest.raises(CheckpointError, match="holds another model"):  # here all of it learns
        load_state(tmp_path / "training", {"model": net()}, CONFIG)


def test_nothing_there(tmp_path):
    assert load_state(tmp_path / "training", made("adamw")[2], CONFIG) is None


class Killed(BaseException):
    """Stands for kill -9: nothing in the library may catch it."""


@pytest.mark.parametrize("dies_at", range(1, 12))
def test_a_kill_between_any_two_writes_leaves_a_whole_checkpoint(dies_at, tmp_path, monkeypatch):
    """Die before the n-th file operation of the second save: the first or the second checkpoint is there, whole."""
    folder = tmp_path / "training"
    model, optims, state = made("adamw")
    train(model, optims, 1)
    save_state(folder, state, {"step": 1}, CONFIG)
    first = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, optims, 1)
    operations = 0

    def mortal(function):
        def call(*args, **kwargs):
            nonlocal operations
            operations += 1
            if operations == dies_at:
                raise Killed
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", mortal(checkpoint.save_file))
        patch.setattr(checkpoint.Path, "write_text", mortal(checkpoint.Path.write_text))
        patch.setattr(checkpoint.Path, "mkdir", mortal(checkpoint.Path.mkdir))
        patch.setattr(os, "replace", mortal(os.replace))
        patch.setattr(shutil, "rmtree", mortal(shutil.rmtree))
        try:
            save_state(folder, state, {"step": 2}, CONFIG)
            assert operations < dies_at, "the save was not interrupted although it did more"
        except Killed:
            pass
    other, _, other_state = made("adamw", seed=1)
    step = load_state(folder, other_state, CONFIG)["step"]
    expected = first if step == 1 else model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in other.state_dict().items())
    save_state(folder, other_state, {"step": 3}, CONFIG)  # what was left lying about does not hinder the next save
    assert load_state(folder, made("adamw")[2], CONFIG) == {"step": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["training"]


def test_a_half_written_save_is_not_loaded(tmp_path):
    _, _, state = made("adamw")
    save_state(tmp_path / "training", state, {"step": 1}, CONFIG)
    os.replace(tmp_path / "training", tmp_path / ".training.writing")
    assert load_state(tmp_path / "training", state, CONFIG) is None


def test_another_configuration(tmp_path):
    _, _, state = made("adamw")
    save_state(tmp_path / "training", state, {}, CONFIG)
    load_state(tmp_path / "training", state, {**CONFIG, "betas": [0.9, 0.95]})
    for other in ({**CONFIG, "lr": 0.2}, {"lr": 0.1}, {}):
        with pytest.raises(CheckpointError, match="another configuration") as error:
            load_state(tmp_path / "training", state, other)
        assert one_sentence(error) and "training" in str(error.value)


DAMAGE = {
    "no progress": lambda f: (f / "progress.json").unlink(),
    "empty progress": lambda f: (f / "progress.json").write_text(""),
    "binary progress": lambda f: (f / "progress.json").write_bytes(bytes(range(128, 256))),
    "progress is a list": lambda f: (f / "progress.json").write_text("[1, 2]"),
    "progress is null": lambda f: (f / "progress.json").write_text("null"),
    "progress lacks its parts": lambda f: (f / "progress.json").write_text(json.dumps({"config": CONFIG})),
    "progress is half a file": lambda f: (f / "progress.json").write_text((f / "progress.json").read_text()[:-20]),
    "no model": lambda f: (f / "model.safetensors").unlink(),
    "empty model": lambda f: (f / "model.safetensors").write_bytes(b""),
    "half a model": lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-50]),
    "noise for a model": lambda f: (f / "model.safetensors").write_bytes(os.urandom(400)),
    "a pickle for a model": lambda f: torch.save({"a": torch.zeros(1)}, f / "model.safetensors"),
    "half an optimizer": lambda f: (f / "optimizer0.safetensors").write_bytes(b"\x08" + bytes(20)),
    "another model's optimizer": lambda f: shutil.copy(f / "model.safetensors", f / "optimizer0.safetensors"),
    "an optimizer for a model": lambda f: shutil.copy(f / "optimizer0.safetensors", f / "model.safetensors"),
    "a file for a folder": lambda f: (shutil.rmtree(f), f.write_text("?")),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named(kind, tmp_path):
    folder = tmp_path / "training"
    model, optims, state = made("adamw")
    train(model, optims, 1)
    save_state(folder, state, {"step": 1}, CONFIG)
    DAMAGE[kind](folder)
    with pytest.raises(CheckpointError, match="damaged") as error:
        load_state(folder, made("adamw")[2], CONFIG)
    assert one_sentence(error) and str(folder) in str(error.value)


def test_a_checkpoint_of_another_shape(tmp_path):
    _, _, state = made("adamw")
    save_state(tmp_path / "training", state, {}, CONFIG)
    wider = torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.ReLU(), torch.nn.Linear(9, 3))
    with pytest.raises(CheckpointError) as error:
        load_state(tmp_path / "training", {"model": wider}, CONFIG)
    assert one_sentence(error)


def test_replacing_a_folder(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "what").write_text(name)
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "what").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_fresh_folder_is_empty_and_beside_the_one_it_replaces(tmp_path):
    (fresh_folder(tmp_path / "run" / "training") / "half").touch()  # killed while it was being written
    fresh = fresh_folder(tmp_path / "run" / "training")
    assert fresh.parent == tmp_path / "run" and fresh.name == ".training.writing" and not list(fresh.iterdir())


# Snapshots: complete models


def test_a_snapshot_comes_back(policy, tmp_path):
    compute = Compute(1000, 1, 2, 3)
    folder = write_snapshot(policy, tmp_path, 7, compute)
    again = write_snapshot(policy, tmp_path, 7, compute)
    assert folder == again and [path.name for path in tmp_path.iterdir()] == ["step-00007"]
    [found] = snapshots(tmp_path)
    assert (found.folder, found.step, found.compute) == (folder, 7, compute)
    loaded = load_policy(folder)
    assert same(loaded.model, policy.model) and same(loaded.value_head, policy.value_head)
    chat = [{"role": "user", "content": "1+1"}]
    assert loaded.prompt_ids(chat) == policy.prompt_ids(chat)


def test_snapshots_are_in_order_and_left_overs_are_none(policy, tmp_path):
    for step in (20, 3, 100_000):
        write_snapshot(policy, tmp_path, step, Compute(1))
    shutil.copytree(tmp_path / "step-00003", tmp_path / "step-00003.old")  # killed while it was being replaced
    (tmp_path / ".step-00030.writing").mkdir()  # killed while it was being written
    assert [found.step for found in snapshots(tmp_path)] == [3, 20, 100_000]


def test_missing_and_damaged_models(policy, tmp_path):
    with pytest.raises(CheckpointError, match="no model yet") as error:
        snapshots(tmp_path / "nowhere")
    assert one_sentence(error)
    for content in (None, "", "[]", '{"step": 1}', '{"step": 1, "parameters": 2, "more": 3}', "null"):
        folder = write_snapshot(policy, tmp_path, 1, Compute(1))
        (folder / "compute.json").unlink() if content is None else (folder / "compute.json").write_text(content)
        with pytest.raises(CheckpointError, match="no complete model") as error:
            read_snapshot(folder)
        assert one_sentence(error) and f"remove {tmp_path} and run" in str(error.value)


@pytest.mark.parametrize("name, damage", [
    ("config.json", None), ("config.json", b"{"), ("model.safetensors", None), ("model.safetensors", bytes(64)),
    ("tokenizer.json", b"{}"), ("value_head.safetensors", bytes(64)),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_a_damaged_model_is_named(policy, tmp_path, name, damage):
    folder = tmp_path / "model"
    policy.save(folder)
    (folder / name).unlink() if damage is None else (folder / name).write_bytes(damage)
    with pytest.raises(CheckpointError) as error:
        load_policy(folder)
    assert one_sentence(error) and str(folder) in str(error.value)


def test_no_such_model(tmp_path):
    with pytest.raises(CheckpointError) as error:
        load_policy(tmp_path / "nothing")
    assert one_sentence(error)


def test_a_model_without_a_chat_template(policy, tmp_path):
    policy.tokenizer.chat_template, template = None, policy.tokenizer.chat_template
    try:
        policy.save(tmp_path / "model")
    finally:
        policy.tokenizer.chat_template = template
    with pytest.raises(CheckpointError, match="no chat template") as error:
        load_policy(tmp_path / "model")
    assert one_sentence(error)
