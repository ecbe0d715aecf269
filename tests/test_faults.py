"""Training that a power cut has torn, or whose numbers break down: one sentence, and the next run is right again."""

import json
import os
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from test_sft import demonstrations
from tiny_models import tiny_profile, with_study

from sftrl_lib import configs, paths
from sftrl_lib.configs import LoRAConfig, PPOConfig, SFTConfig
from sftrl_lib.files import SEAL, seal
from sftrl_lib.models import checkpoint
from sftrl_lib.models.checkpoint import CheckpointError, load_state, save_state
from sftrl_lib.runs import Run
from sftrl_lib.tasks import GP_L
from sftrl_lib.training import fork, ppo, sft
from sftrl_lib.training.branch import Branch
from sftrl_lib.training.compute import Compute
from sftrl_lib.training.loop import train_by_updates
from sftrl_lib.training.snapshots import write_snapshot

NAN, INF = float("nan"), float("inf")


def one_sentence(error):
    message = str(error.value)
    assert message.endswith(".") and "\n" not in message and len(message) < 500, message
    return message


@pytest.fixture(scope="module")
def profile(tiny_folder):
    """Init takes 5 steps, and both branches a few."""
    return with_study(tiny_profile(tiny_folder, init_steps=5, checkpoints=1), fork_flops=5e8)


@pytest.fixture(scope="module")
def trained(profile, tmp_path_factory):
    """A home with an Init whose trainer saved a checkpoint after steps 2, 4 and 5, and kept the last two."""
    home = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "HOME", home)
        patch.setattr(sft, "train_steps", partial(sft.train_steps, save_every=2))
        fork.train(Run(profile, "gp-l", "init"))
    return home


@pytest.fixture
def home(trained, tmp_path, monkeypatch):
    """A copy of `trained`."""
    shutil.copytree(trained, tmp_path / "home")
    monkeypatch.setattr(paths, "HOME", tmp_path / "home")
    return tmp_path / "home"


# A trainer's checkpoint that a power cut has torn

TORN = {
    "empty state": lambda f: (f / "trainer_state.json").write_bytes(b""),
    "state of another kind": lambda f: (f / "trainer_state.json").write_text("[1]", encoding="utf-8"),
    "empty optimizer": lambda f: (f / "optimizer.pt").write_bytes(b""),
    "no optimizer": lambda f: (f / "optimizer.pt").unlink(),
    "half an optimizer": lambda f: os.truncate(f / "optimizer.pt", 5000),
    "holes in the optimizer": lambda f: holes(f / "optimizer.pt"),
    "empty scheduler": lambda f: (f / "scheduler.pt").write_bytes(b""),
    "no scheduler": lambda f: (f / "scheduler.pt").unlink(),
    "empty random state": lambda f: (f / "rng_state.pth").write_bytes(b""),
    "no random state": lambda f: (f / "rng_state.pth").unlink(),
    "empty weights": lambda f: (f / "model.safetensors").write_bytes(b""),
    "half the weights": lambda f: os.truncate(f / "model.safetensors", 5000),
    "no weights": lambda f: (f / "model.safetensors").unlink(),
    "empty config": lambda f: (f / "config.json").write_bytes(b""),
    "no config": lambda f: (f / "config.json").unlink(),
    "a shard is missing": lambda f: (f / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}), encoding="utf-8"
    ),
}


def holes(path):
    """Zeros in the middle, as in a file whose length was written but not all of its pages."""
    content = path.read_bytes()
    path.write_bytes(content[:20_000] + bytes(8192) + content[28_192:])


@pytest.mark.parametrize("kind", TORN)
def test_a_torn_checkpoint_falls_back_to_the_one_before(kind, profile, home, capsys):
    training = Run(profile, "gp-l", "init").folder / "training"
    before, newest = training / "checkpoint-4", training / "checkpoint-5"
    assert sft.last_complete(training) == newest and not capsys.readouterr().out
    for folder in (before, newest):  # as it is until all of it is written
        (folder / SEAL).unlink()
    TORN[kind](newest)
    assert sft.last_complete(training) == before
    said = capsys.readouterr().out
    assert str(newest) in said and said.endswith("; SFT goes on from checkpoint-4.\n") and said.count("\n") == 1
    TORN[kind](before)
    assert sft.last_complete(training) is None and capsys.readouterr().out.endswith("; SFT starts over.\n")
    assert not list(training.glob("checkpoint-*"))


@pytest.mark.parametrize("torn", [("checkpoint-5",), ("checkpoint-4", "checkpoint-5")])
def test_training_after_a_torn_checkpoint_is_the_same_training(torn, profile, home):
    run = Run(profile, "gp-l", "init")
    weights = run.folder / "step-00000" / "model.safetensors"
    expected = weights.read_bytes()
    (run.folder / "finished").unlink()
    weights.unlink()
    for name in torn:
        (run.folder / "training" / name / "optimizer.pt").write_bytes(b"")
    fork.train(run)
    assert weights.read_bytes() == expected


@pytest.mark.parametrize("lora", [None, LoRAConfig(rank=2)], ids=["all weights", "adapters"])
def test_a_checkpoint_that_lacks_a_tensor_is_not_trained_on(lora, profile, tmp_path, monkeypatch):
    """transformers would go on with what it has, and peft with adapters that have learnt nothing."""
    monkeypatch.setattr(paths, "HOME", tmp_path)
    monkeypatch.setattr(sft, "train_steps", partial(sft.train_steps, save_every=2))
    run = Run(replace(profile, lora=lora), "gp-l", "init")
    fork.train(run)
    newest = run.folder / "training" / "checkpoint-5"
    [file] = newest.glob("*.safetensors")
    tensors = load_file(file)
    name = min(tensors)
    save_file({other: tensor for other, tensor in tensors.items() if other != name}, file, metadata={"format": "pt"})
    seal(newest)
    (run.folder / "finished").unlink()
    with pytest.raises(CheckpointError, match="lacks tensors .*; remove it, and training goes on from the") as error:
        fork.train(run)
    assert str(newest) in one_sentence(error)
    shutil.rmtree(newest)
    fork.train(run)


# Numbers that are none


def all_saved_is_finite(folder):
    """Read with the libraries themselves: weights, optimizers and trainers' states."""
    tensors = [t for path in folder.rglob("*.safetensors") for t in load_file(path).values()]
    for path in folder.rglob("optimizer.pt"):
        states = torch.load(path, weights_only=True)["state"].values()
        tensors += [value for state in states for value in state.values() if isinstance(value, torch.Tensor)]
    return all(torch.isfinite(tensor).all() for tensor in tensors)


@pytest.mark.parametrize(("method", "config", "field", "words"), [
    ("sft", "sft", "lr", "SFT's"), ("rl", "ppo", "lr", "PPO's"), ("rl", "ppo", "value_lr", "PPO's"),
])  # fmt: skip
def test_a_rate_far_too_high_stops_training_and_spoils_nothing(
    method, config, field, words, profile, home, monkeypatch
):
    monkeypatch.setattr(sft, "train", partial(sft.train, save_every=1))
    monkeypatch.setattr(ppo, "train", partial(ppo.train, save_every=1))
    monkeypatch.setattr(configs, "HIGHEST_RATE", 1e30)  # such a rate is refused, and lower ones may break down too
    init = profile.study("gp-l")
    bad = with_study(profile, **{config: replace(getattr(init, config), **{field: 1e30})})
    start = replace(Run(bad, "gp-l", "init"), profile=profile)  # Init learns at the usual rate
    monkeypatch.setattr(Run, "start", property(lambda run: None if run.method_name == "init" else start))
    sentence = rf"^(Step|Update) \d+: .*{words}.*; lower {field} \(1e\+30\)\.$"
    for _ in range(2):  # the second time from where the first one stopped
        with pytest.raises(FloatingPointError, match=sentence) as error:
            fork.train(Run(bad, "gp-l", method))
        one_sentence(error)
    folder = Run(bad, "gp-l", method).folder
    assert not (folder / "finished").exists() and not (folder / "log.json").exists() and all_saved_is_finite(folder)
    good = Run(profile, "gp-l", method)
    fork.train(good)
    assert all_saved_is_finite(good.folder) and (good.folder / "finished").exists()


@pytest.fixture
def broken(policy):
    """A policy with one weight that is no number."""
    with torch.no_grad():
        policy.model.get_input_embeddings().weight[:, 3] = NAN
    return policy


def sft_branch(policy, folder):
    config = SFTConfig(examples=8, batch_size=4, lr=1e-3)
    return Branch(policy, GP_L, config, folder, Compute(1), 0.0, data=Dataset.from_list(demonstrations("expert", 8)))


def ppo_branch(policy, folder, **changes):
    config = PPOConfig(episodes=2, attempts=1, max_new_tokens=4, minibatches=1, **changes)
    return Branch(policy, GP_L, config, folder, Compute(policy.parameters_count), 1e8)


def test_a_model_with_a_weight_that_is_no_number_is_not_trained(broken, tmp_path):
    with pytest.raises(FloatingPointError, match=r"^Step 1: SFT's loss is nan; lower lr \(0.001\)\.$"):
        sft.train_steps(sft_branch(broken, tmp_path / "sft"), 4, save_every=1)
    with pytest.raises(FloatingPointError, match=r"^Update 1: PPO's log-probability .* is nan; lower lr \(0.0003\)\.$"):
        ppo.train(ppo_branch(broken, tmp_path / "rl"), save_every=1)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_gradient_that_is_infinite_stops_sft(policy, tmp_path):
    """The loss itself is finite."""
    policy.model.get_input_embeddings().weight.register_hook(lambda gradient: gradient * INF)
    with pytest.raises(FloatingPointError, match=r"^Step 1: SFT's gradient is (nan|inf); lower lr"):
        sft.train_steps(sft_branch(policy, tmp_path), 4)


def test_a_critic_that_breaks_down_stops_ppo(policy, tmp_path, monkeypatch):
    """Its gradient, and a critic that is no number before it has learnt; both name its own rate."""
    broken_gradient = lambda module, gradients, _: tuple(g if g is None else g * NAN for g in gradients)  # noqa: E731
    original = ppo.ValueHead

    def head(*args, hurt):
        made = original(*args)
        if hurt:
            made.layers[0].register_full_backward_hook(broken_gradient)
            torch.nn.init.ones_(made.layers[-1].weight)
            made.layers[2].register_full_backward_hook(broken_gradient)
        else:
            torch.nn.init.constant_(made.layers[-1].bias, NAN)
        return made

    for hurt, what in ((True, "the gradient of PPO's critic"), (False, "PPO's estimate of a value")):
        monkeypatch.setattr(ppo, "ValueHead", partial(head, hurt=hurt))
        with pytest.raises(FloatingPointError, match=rf"^Update 1: {what} is nan; lower value_lr \(0.001\)\.$"):
            ppo.train(ppo_branch(policy, tmp_path), save_every=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("entry", "hurt", "words"), [
    ({"success": 0.5, "loss": NAN}, None, "TRY's loss is nan; lower lr"),
    ({"success": 0.5}, "model", r"TRY's weights 'model.norm.weight' are not finite; lower lr"),
    ({"success": 0.5}, "value_head", "TRY's critic's weights 'layers.0.weight' are not finite; lower value_lr"),
])  # fmt: skip
def test_the_loop_stops_any_method_and_keeps_the_last_good_state(policy, tmp_path, entry, hurt, words):
    branch = ppo_branch(policy, tmp_path)
    optimizer = torch.optim.SGD(policy.model.parameters(), lr=0.1)
    broken = {"model": policy.model.model.norm, "value_head": policy.value_head.layers[0], None: None}[hurt]

    def update(progress):
        branch.compute.trained_tokens += 1
        if progress.update < 2:
            return {"success": 0.5}
        if broken is not None:
            torch.nn.init.constant_(broken.weight, INF)
        return entry

    with pytest.raises(FloatingPointError, match=rf"^Update 3: {words}"):
        train_by_updates(branch, optimizer, update, "TRY", save_every=1)
    assert json.loads((tmp_path / "training" / "progress.json").read_bytes())["progress"]["update"] == 2
    assert all_saved_is_finite(tmp_path)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_nothing_that_is_not_finite_is_saved_or_goes_on(policy, tmp_path, value):
    """Not the weights, not the critic, not what an optimizer remembers; what was saved before stays."""
    optimizer = torch.optim.AdamW(policy.model.parameters())
    sum(p.sum() for p in policy.model.parameters()).backward()
    optimizer.step()
    state = {"model": policy.model, "value_head": policy.value_head, "optimizer": optimizer}
    save_state(tmp_path / "training", state, {"update": 1}, {})
    snapshot = write_snapshot(policy, tmp_path, 1, Compute(1))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    moments = next(iter(optimizer.state.values()))["exp_avg_sq"]
    for tensor in (policy.model.model.norm.weight.data, policy.value_head.layers[2].bias.data, moments):
        good, tensor.view(-1)[-1] = tensor.view(-1)[-1].item(), value
        with pytest.raises(FloatingPointError, match="not finite.*lower the learning rate") as error:
            save_state(tmp_path / "training", state, {"update": 2}, {})
        one_sentence(error)
        if tensor is not moments:
            with pytest.raises(FloatingPointError, match="not finite after step 1.*lower the learning rate") as error:
                write_snapshot(policy, tmp_path, 1, Compute(2))
            assert str(snapshot) in one_sentence(error)
        tensor.view(-1)[-1] = good
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    path = tmp_path / "training" / "value_head.safetensors"  # as older versions have saved it, unsealed
    (tmp_path / "training" / SEAL).unlink()
    save_file({name: torch.full_like(tensor, value) for name, tensor in load_file(path).items()}, path)
    with pytest.raises(CheckpointError, match="damaged .value_head.* not finite.; remove it to start over") as error:
        load_state(tmp_path / "training", state, {})
    assert str(tmp_path) in one_sentence(error)


def test_the_check_sees_every_value_and_nothing_else():
    assert checkpoint.not_finite({"a": torch.zeros(0), "b": torch.tensor([2**62]), "c": torch.ones(3)}.items()) is None
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        for value in (NAN, INF, -INF):
            for place in (0, 3, 6):
                tensor = torch.linspace(-9, 9, 7, dtype=dtype)
                assert checkpoint.not_finite([("x", tensor)]) is None
                tensor[place] = value
                assert checkpoint.not_finite([("first", torch.ones(2)), ("x", tensor)]) == "x"
