"""Profiles that train LoRA adapters: they alone learn, and their checkpoints load and are tested as others are."""

from dataclasses import replace

import pytest
import torch
from tiny_models import tiny_profile, with_study

from sftrl_lib import paths
from sftrl_lib.configs import LoRAConfig
from sftrl_lib.evaluation.measurements import evaluate
from sftrl_lib.experiments import MAIN, Arm, Experiment
from sftrl_lib.models.checkpoint import CheckpointError
from sftrl_lib.models.policy import Policy, load_policy, pick_device
from sftrl_lib.runs import Run, main_run
from sftrl_lib.training.fork import final_policy, train
from sftrl_lib.training.snapshots import snapshots_of

LORA = LoRAConfig(rank=2, alpha=4.0)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "HOME", tmp_path)
    return tmp_path


def weights(policy, adapters):
    state = policy.model.state_dict()
    return {name: value.clone() for name, value in state.items() if ("lora_" in name) == adapters}


@pytest.mark.parametrize("which", ["tiny_folder", "vision_folder"])
def test_new_adapters_change_nothing_yet_and_learn_alone(which, request):
    plain = load_policy(request.getfixturevalue(which))
    adapted = load_policy(request.getfixturevalue(which), lora=LORA)
    ids = torch.arange(40, 60)[None]
    with torch.no_grad():
        assert torch.equal(plain.model(input_ids=ids).logits, adapted.model(input_ids=ids).logits)
        again = weights(load_policy(request.getfixturevalue(which), lora=LORA), adapters=True)
        assert all(torch.equal(again[name], value) for name, value in weights(adapted, adapters=True).items())
        assert torch.equal(plain.decoder(input_ids=ids)[0], adapted.decoder(input_ids=ids)[0])
    assert all("lora_" in name for name, p in adapted.model.named_parameters() if p.requires_grad)
    assert adapted.parameters_count > plain.parameters_count


def test_the_fork_with_adapters(tiny_folder, home):
    """Init, SFT and RL train the same adapters on; the model below them stays as it was, and is not saved again."""
    profile = replace(tiny_profile(tiny_folder), lora=LORA)
    base = weights(load_policy(tiny_folder, lora=LORA), adapters=False)
    init, *branches = (Run(profile, "gp-l", method) for method in ("init", "sft", "rl"))
    for run in branches:
        [*_, end] = train(run)
        assert not (end.folder / "model.safetensors").exists() and (end.folder / "adapter_config.json").exists()
        trained = final_policy(run)
        assert all(torch.equal(value, base[name]) for name, value in weights(trained, adapters=False).items())
        before = weights(final_policy(init), adapters=True)
        after = weights(trained, adapters=True)
        moved = [name for name in after if not torch.equal(after[name], before[name])]
        assert len(moved) == len(before) > 0
        assert set(evaluate(run).method) == {run.method_name}
    assert final_policy(branches[1]).value_head is not None
    assert Run(profile, "gp-l", "sft").identity != Run(tiny_profile(tiny_folder), "gp-l", "sft").identity


@pytest.mark.parametrize("which", ["tiny_folder", "vision_folder"])
def test_saved_adapters_are_the_same_again_and_again(which, request, tmp_path):
    policy = load_policy(request.getfixturevalue(which), lora=LORA)
    for name, parameter in policy.model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    policy.save(tmp_path / "once")
    load_policy(tmp_path / "once").save(tmp_path / "twice")
    config = (tmp_path / "once" / "adapter_config.json").read_text()
    assert (tmp_path / "twice" / "adapter_config.json").read_text() == config
    assert str(request.getfixturevalue(which)) in config
    loaded = load_policy(tmp_path / "twice")
    for adapters in (True, False):
        before, after = weights(policy, adapters), weights(loaded, adapters)
        assert before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)
    learning = [{name for name, p in m.model.named_parameters() if p.requires_grad} for m in (policy, loaded)]
    assert learning[0] == learning[1] == weights(policy, adapters=True).keys()


@pytest.fixture
def two(tiny_folder, tmp_path):
    """A policy that has moved from its Init, and Init's folder."""
    init = load_policy(tiny_folder, lora=LORA)
    for scale, folder in ((0.3, "init"), (0.1, "now")):
        for name, parameter in init.model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=scale)
        init.save(tmp_path / folder)
    return load_policy(tmp_path / "now"), tmp_path / "init"


def test_a_reference_on_the_same_model_says_what_a_second_model_says(two, tmp_path):
    policy, init = two
    ids = torch.arange(40, 60)[None]
    with torch.no_grad():
        before, expected = (p.model(input_ids=ids).logits for p in (policy, load_policy(init)))
        count, learning = policy.parameters_count, [p for p in policy.model.parameters() if p.requires_grad]
        reference = policy.reference(init)
        assert torch.equal(policy.model(input_ids=ids).logits, before) and not torch.equal(before, expected)
        with reference.adapters_active():
            assert torch.equal(reference.logits(reference.decoder(input_ids=ids)[0]), expected)
        assert torch.equal(policy.model(input_ids=ids).logits, before)
    assert policy.parameters_count == count
    assert [p for p in policy.model.parameters() if p.requires_grad] == learning
    policy.save(tmp_path / "again")
    assert not (tmp_path / "again" / "init").exists()
    assert load_policy(tmp_path / "again").parameters_count == count


@pytest.mark.parametrize("method", ["sft", "rl"])
def test_kl_to_init_needs_no_second_model(method, tiny_folder, home, monkeypatch):
    """Training with both kinds of reference gives the same adapters, and other ones than without a penalty."""
    kl = Experiment("kl", "losses", (Arm(method, ({"kl_coef": 0.0}, {"kl_coef": 5.0})),))
    profile = with_study(replace(tiny_profile(tiny_folder), lora=LORA), experiments=(MAIN, kl))
    shared = weights(final_policy_of(profile, method, "kl_coef=5"), adapters=True)
    monkeypatch.setattr(paths, "HOME", home / "again")
    monkeypatch.setattr(Policy, "reference", lambda self, folder: load_policy(folder))
    second = weights(final_policy_of(profile, method, "kl_coef=5"), adapters=True)
    assert shared.keys() == second.keys() and all(torch.equal(shared[name], second[name]) for name in shared)
    free = weights(final_policy_of(profile, method, "kl_coef=0"), adapters=True)
    assert not all(torch.equal(shared[name], free[name]) for name in shared)


def test_a_rank_trains_adapters_on_inits_weights(tiny_folder, home):
    """Rank 0 is the main comparison's run; KL to Init is that with the adapters switched off."""
    arms = (Arm("rl", ({"kl_coef": 5.0, "rank": 2},)), Arm("sft", ({"lr": 1e-3, "rank": 0}, {"lr": 1e-3, "rank": 2})))
    profile = with_study(tiny_profile(tiny_folder), experiments=(MAIN, Experiment("lora", "lora", arms)))
    for method, setting in (("sft", "lr=0.001;rank=2"), ("rl", "kl_coef=5;rank=2")):
        run = Run(profile, "gp-l", method, "lora", setting)
        [*_, end] = train(run)
        assert (end.folder / "adapter_config.json").exists() and run.lora == LoRAConfig(rank=2, alpha=4.0)
        trained, init = final_policy(run), final_policy(run.init)
        ids = torch.arange(40, 60)[None]
        reference = trained.reference(snapshots_of(run.init)[-1].folder)
        with torch.no_grad(), reference.adapters_active():
            said = reference.logits(reference.decoder(input_ids=ids)[0])
            assert torch.equal(said, init.logits(init.decoder(input_ids=ids)[0]))
        with torch.no_grad():
            assert not torch.equal(trained.logits(trained.decoder(input_ids=ids)[0]), said)
    assert main_run(Run(profile, "gp-l", "sft", "lora", "lr=0.001;rank=0")) is not None
    with pytest.raises(ValueError, match="rank=2 of .* needs an Init whose weights are all trained"):
        Run(replace(profile, name="other", lora=LORA), "gp-l", "sft", "lora", "lr=0.001;rank=2")


def final_policy_of(profile, method, setting):
    run = Run(profile, "gp-l", method, "kl", setting)
    train(run)
    return final_policy(run)


def test_merged_adapters_are_an_ordinary_model(two, tmp_path):
    policy, _ = two
    ids = torch.arange(40, 60)[None]
    with torch.no_grad():
        expected = policy.model(input_ids=ids).logits
        merged = policy.merged()
        merged.save(tmp_path / "merged")
        found = load_policy(tmp_path / "merged").model(input_ids=ids).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    assert merged.merged() is merged


def test_adapters_whose_model_is_gone_are_named(tiny_folder, tmp_path):
    policy = load_policy(tiny_folder, lora=LORA)
    policy.save(tmp_path / "adapted")
    assert load_policy(tmp_path / "adapted").parameters_count == policy.parameters_count
    for content in ("{}", "{"):
        (tmp_path / "adapted" / "adapter_config.json").write_text(content)
        with pytest.raises(CheckpointError, match="does not name its base model"):
            load_policy(tmp_path / "adapted")


def test_adapters_that_do_not_fit_are_not_blamed_on_the_model(tiny_folder):
    with pytest.raises(CheckpointError, match=r"Cannot add adapters .*'nope'.*; change LoRAConfig\(.*nope") as error:
        load_policy(tiny_folder, lora=LoRAConfig(rank=2, targets=("nope",)))
    assert str(tiny_folder) in str(error.value) and "\n" not in str(error.value)


def test_devices(tiny_folder):
    assert pick_device("cpu").type == "cpu" and pick_device("auto").type in ("cpu", "cuda")
    for wrong in ("gpu", "cuda:77"):
        with pytest.raises(ValueError, match=f"device='{wrong}' is not available here") as error:
            load_policy(tiny_folder, device=wrong)
        assert "use 'cpu' or 'auto'" in str(error.value) and "\n" not in str(error.value)
