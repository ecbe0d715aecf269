"""Every setting is checked where it is made: one sentence that names the field and the value, before any work."""

import re
from dataclasses import replace

import numpy as np
import pytest
from tiny_models import tiny_profile, with_study

from sftrl_lib import paths
from sftrl_lib.configs import EvaluationConfig, LoRAConfig, PPOConfig, SFTConfig
from sftrl_lib.experiments import MAIN, Arm, Experiment, foundations, parse_setting, setting_text
from sftrl_lib.foundation.pretrain import FOUNDATIONS
from sftrl_lib.jobs import jobs
from sftrl_lib.methods import METHODS, Method
from sftrl_lib.profiles import LAPTOP, SMOKE, get_profile
from sftrl_lib.registry import Registry
from sftrl_lib.runs import Run, main_run
from sftrl_lib.training.data import read_dataset
from sftrl_lib.training.fork import train

BAD = [
    (SFTConfig, "examples", 0), (SFTConfig, "batch_size", -1), (SFTConfig, "batch_size", 2.5), (SFTConfig, "lr", 0.0),
    (SFTConfig, "lr", float("nan")), (SFTConfig, "lr", "fast"), (SFTConfig, "warmup", 1.0),
    (SFTConfig, "frozen", "ears"),
    (PPOConfig, "episodes", 0), (PPOConfig, "episodes", True), (PPOConfig, "attempts", 0), (PPOConfig, "epochs", 0),
    (PPOConfig, "minibatches", 0), (PPOConfig, "max_new_tokens", 0), (PPOConfig, "temperature", 0.0),
    (PPOConfig, "temperature", -1.0), (PPOConfig, "clip", 0.0), (PPOConfig, "ratio", "sequnce"),
    (PPOConfig, "gamma", 1.1),
    (PPOConfig, "gae_lambda", -0.1), (PPOConfig, "kl_coef", -0.1), (PPOConfig, "max_grad_norm", float("inf")),
    (EvaluationConfig, "episodes_end", 0), (EvaluationConfig, "temperature", -0.1),
    (EvaluationConfig, "temperatures", (0.5, -1.0)), (EvaluationConfig, "attempts_grid", (0, 1)),
    (EvaluationConfig, "temperatures", (0.5, "hot")), (EvaluationConfig, "temperatures", ()),
    (EvaluationConfig, "attempts_grid", 3), (EvaluationConfig, "attempts_grid", (1, 2.5)),
    (LoRAConfig, "rank", 0), (LoRAConfig, "dropout", 1.0),
    # What overflows in float32, or vanishes in it
    (SFTConfig, "lr", 1e38), (PPOConfig, "lr", 1e38), (PPOConfig, "value_lr", 1.5), (PPOConfig, "temperature", 1e-40),
    (EvaluationConfig, "temperature", 1e-40), (PPOConfig, "temperature", 1e38), (PPOConfig, "kl_coef", 1e38),
    (PPOConfig, "value_coef", 1e300), (PPOConfig, "clip", 1e300), (PPOConfig, "adam_eps", 1e-46),
    (SFTConfig, "adam_betas", (0.9, 1.0)), (PPOConfig, "adam_betas", 0.9), (SFTConfig, "adam_betas", (0.9, "x")),
    (PPOConfig, "episodes", 10**30), (LoRAConfig, "alpha", 1e38),
]  # fmt: skip


@pytest.mark.parametrize("kind, field, value", BAD)
def test_a_bad_value_is_one_sentence(kind, field, value):
    with pytest.raises(ValueError) as error:
        kind(**{field: value})
    message = str(error.value)
    assert message.startswith(f"{kind.__name__}.{field} must be ") and message.endswith(f"got {value!r}.")
    assert "\n" not in message


@pytest.mark.parametrize("field, value", [
    ("name", "My Profile"), ("name", "../laptop"), ("dtype", "float8"), ("rollout_batch", 0), ("seeds", (0, 0)),
    ("micro_batch_tokens", 0), ("gradient_checkpointing", 1), ("seeds", (-1,)), ("seeds", (2**32,)),
    ("ablation_seeds", (0.5,)),
])  # fmt: skip
def test_a_profile_checks_itself(field, value):
    with pytest.raises(ValueError, match=rf"^Profile\.{field} must be .*got {re.escape(repr(value))}\.$"):
        replace(SMOKE, **{field: value})


def test_numpys_numbers_count():
    assert SFTConfig(adam_betas=[np.float32(0.5), 0]).lr == 1e-3
    assert PPOConfig(episodes=np.int64(8), lr=np.float32(1e-3)).episodes == 8
    assert replace(SMOKE, name="mine", seeds=(np.int64(3),)).seeds == (3,)


def test_a_kl_penalty_needs_init(tiny_folder):
    """RL that starts at the foundation, or at the end of another run, has no Init to stay close to."""
    profile = with_study(tiny_profile(tiny_folder), ppo=PPOConfig(kl_coef=0.1))
    assert Run(profile, "gp-l", "rl").config.kl_coef == 0.1
    for method, experiment, setting in (("rl_no_init", "no_init", "lr=0.001"), ("rl", "overfitted", "lr=0.0003")):
        with pytest.raises(ValueError, match="kl_coef needs Init as the reference"):
            Run(profile, "gp-l", method, experiment, setting)


def test_a_changed_profile_cannot_write_into_the_folders_of_the_one_it_came_from():
    changed = replace(LAPTOP, rollout_batch=8)
    with pytest.raises(ValueError, match="Another profile is called 'laptop'; give this one a name of its own"):
        Run(changed, "gp-l", "rl")
    assert "laptop" not in str(Run(replace(changed, name="mine"), "gp-l", "rl").folder)


def test_settings_are_written_and_read_alike():
    for setting in ({}, {"lr": 0.001}, {"lr": 5e-5, "frozen": "vision+adapter"}, {"attempts": 3.0}):
        assert parse_setting(setting_text(setting)) == setting
    for text in ("lr", "lr=fast", "=;", "a=1=2"):
        with pytest.raises(ValueError, match="is not of the form 'name=number;name=word'"):
            parse_setting(text)


def test_a_setting_keeps_all_digits():
    """A run is named after its setting, so two rates that differ must not share a name."""
    assert setting_text({"lr": 3e-5}) == "lr=3e-05" and setting_text({"lr": 0.00012345678}) == "lr=0.00012345678"
    assert parse_setting("lr=0.00012345678") == {"lr": 0.00012345678}


def test_an_experiment_may_vary_how_many_demonstrations_there_are(tiny_folder, tmp_path, monkeypatch):
    """SFT then draws from data of its own; Init, and the other runs, keep theirs."""
    monkeypatch.setattr(paths, "HOME", tmp_path)
    fewer = Experiment("fewer", "none", (Arm("sft", ({"examples": 8},)),))
    profile = with_study(tiny_profile(tiny_folder), fork_flops=1e8, experiments=(MAIN, fewer))
    run = Run(profile, "gp-l", "sft", "fewer", "examples=8")
    train(run)
    sizes = {folder.name: len(read_dataset(folder / "dataset")) for folder in paths.data("tiny").iterdir()}
    assert sizes == {"gp-l-expert": 64, "gp-l-expert-8": 8}
    assert run.identity["data"]["examples"] == 8 and run.init == Run(profile, "gp-l", "init")


def test_flags_can_be_set():
    arms = (Arm("rl", ({"share_backbone": True}, {"share_backbone": False})),)
    studies = (replace(SMOKE.studies[0], experiments=(Experiment("backbone", "none", arms),)),)
    profile = replace(SMOKE, name="mine", studies=studies)
    runs = [Run(profile, "gp-l", "rl", "backbone", f"share_backbone={flag}") for flag in (True, False)]
    assert [run.config.share_backbone for run in runs] == [True, False]
    with pytest.raises(ValueError, match="PPOConfig.share_backbone must be True or False, got 'yes'."):
        Run(profile, "gp-l", "rl", "backbone", "share_backbone=yes")


def test_a_study_gives_a_subclass_of_a_configuration_too():
    class Mine(PPOConfig):
        pass

    study = replace(SMOKE.studies[0], ppo=Mine(lr=0.5))
    assert study.config(METHODS["rl"]).lr == 0.5


def test_init_belongs_to_the_main_comparison_unless_it_varies():
    for experiment, setting in (("attempts", ""), ("main", "init_steps=48")):
        with pytest.raises(ValueError, match="has no Init of its own with the setting"):
            Run(SMOKE, "gp-l", "init", experiment, setting)
    with pytest.raises(ValueError, match="Init depends on foundation and init_steps, not on 'lr'"):
        Run(SMOKE, "gp-l", "init", "main", "lr=1")


def test_a_start_that_is_the_main_run_is_that_run():
    """RL after an SFT at the main comparison's own rate starts from the main SFT, which is not trained twice."""
    rate = {"lr": LAPTOP.study("gp-l").sft.lr}
    later = Experiment("later", "none", (Arm("sft", (rate,)), Arm("rl", ({"lr": 1e-4},), after=("sft", rate))))
    study = replace(LAPTOP.study("gp-l"), experiments=(*LAPTOP.study("gp-l").experiments, later))
    profile = replace(LAPTOP, name="mine", studies=(study,))
    run = Run(profile, "gp-l", "rl", "later", "lr=0.0001")
    assert run.start == Run(profile, "gp-l", "sft")
    found = {job.name: job.needs for job in jobs(profile)}
    assert found[f"05_train-{run.name}"] == ("05_train-gp-l-sft-main-s0", "04_init-gp-l-init-s0")
    assert set().union(*found.values()) <= set(found), "make has a rule for every need"


def test_a_setting_reaches_the_configuration_or_the_study():
    """As its own type; anything that is no field is refused."""
    arms = (Arm("rl", ({"attempts": 3, "init_steps": 48},)),)
    profile = with_study(
        replace(SMOKE, name="mine", studies=SMOKE.studies[:1]), experiments=(Experiment("steps", "none", arms),)
    )
    run = Run(profile, "gp-l", "rl", "steps", "attempts=3;init_steps=48")
    assert (run.config.attempts, run.study.init_steps) == (3, 48) and type(run.config.attempts) is int
    assert run.init.name == "gp-l-init-steps-init_steps48-s0" and run.init.study.init_steps == 48
    assert run.name == "gp-l-rl-steps-attempts3-init_steps48-s0"
    wrong = with_study(profile, experiments=(Experiment("steps", "none", (Arm("rl", ({"atempts": 3},)),)),))
    with pytest.raises(ValueError, match="'atempts', which is no field of"):
        Run(wrong, "gp-l", "rl", "steps", "atempts=3")


def test_the_main_comparison_runs_again_from_a_further_foundation_model():
    """Its runs have an Init and a name of their own; until the model is shipped, the profile leaves them out."""
    study = replace(LAPTOP.study("gp-l"), experiments=(MAIN, foundations("gp-l-1")))
    profile = replace(LAPTOP, name="mine", studies=(study,))
    run = Run(profile, "gp-l", "rl", "foundations", "foundation=gp-l-1", 100)
    assert run.study.foundation == "gp-l-1" and run.experiment.paper_end
    assert run.name == "gp-l-rl-foundations-foundationgp-l-1-s100"
    assert run.init.name == "gp-l-init-foundations-foundationgp-l-1-s100" and main_run(run) is None
    assert run.init.identity["start"] != Run(profile, "gp-l", "init", seed=100).identity["start"]
    arms = [e.arms[0] for study in LAPTOP.studies for e in study.experiments if e.name == "foundations"]
    assert all(paths.shipped(setting["foundation"]) for arm in arms for setting in arm.settings)


def test_a_further_foundation_model_differs_by_its_seed_alone():
    for name in ("gp-l", "virl-l"):
        assert replace(FOUNDATIONS[f"{name}-1"], seed=0) == FOUNDATIONS[name]


def test_registries_name_what_they_have():
    things = Registry("thing", (METHODS["sft"],))
    assert things.add(METHODS["sft"]) is METHODS["sft"] and list(things) == ["sft"]
    with pytest.raises(ValueError, match="There is already a thing 'sft'; choose another name."):
        things.add(replace(METHODS["sft"], color="#000000"))
    with pytest.raises(ValueError, match="Unknown thing 'x'; use one of sft."):
        things["x"]
    with pytest.raises(ValueError, match="'huge'.*smoke, laptop"):
        get_profile("huge")
    with pytest.raises(ValueError, match="cannot start at 'nowhere'"):
        Method("m", "M", "#000000", "o", SFTConfig, start="nowhere")


@pytest.mark.parametrize("key", ["gp-l", "virl-l"])
def test_sft_on_own_answers_learns_as_the_study_s_sft_and_samples_as_its_rl(key):
    study = LAPTOP.study(key)
    config = study.config(METHODS["rejection"])
    assert config.lr == study.sft.lr and config.group_by_length == study.sft.group_by_length
    assert (config.attempts, config.max_new_tokens) == (study.ppo.attempts, study.ppo.max_new_tokens)


def test_a_numbered_gpu_is_refused():
    """transformers' trainer would take the first one that it sees all the same."""
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES says which GPU"):
        replace(LAPTOP, device="cuda:1")


def test_grpo_has_no_critic_to_share_the_backbone_with():
    with pytest.raises(ValueError, match="0 with share_backbone"):
        PPOConfig(group=8, share_backbone=True)
