"""Which jobs there are, what each waits for, and which are due again when something changes."""

from dataclasses import dataclass, replace

import pytest

from sftrl_lib import execution, fingerprint
from sftrl_lib.configs import LoRAConfig, PPOConfig, SFTConfig
from sftrl_lib.experiments import (
    ATTEMPTS,
    MAIN,
    NO_INIT,
    OVERFITTED,
    RL_TUNING,
    SENSITIVITY,
    SFT_TUNING,
    SUBOPTIMAL,
    Arm,
)
from sftrl_lib.jobs import identity, jobs, parse_seeds, parse_tasks
from sftrl_lib.profiles import LAPTOP
from sftrl_lib.runs import Run

TASKS = ("gp-l", "virl-l", "gp-vl", "virl-vl")


def varied(experiment, *settings):
    """An experiment of one method with other settings."""
    return replace(experiment, arms=(replace(experiment.arms[0], settings=settings),))


FROZEN = "vision+adapter"
TUNED, AFTER = OVERFITTED.arms
EXPERIMENTS = {
    "gp-l": (
        MAIN,
        varied(ATTEMPTS, *({"attempts": n} for n in (1, 5, 10))),
        varied(NO_INIT, {"lr": 2e-4}, {"lr": 1e-3}),
        SUBOPTIMAL,
        SENSITIVITY,
    ),
    "virl-l": (MAIN,),
    "gp-vl": (
        MAIN,
        varied(SFT_TUNING, *({"lr": lr, "frozen": f} for lr, f in ((1e-3, "none"), (1e-3, FROZEN), (2e-3, FROZEN)))),
        varied(RL_TUNING, {"lr": 6e-4}),
    ),
    "virl-vl": (
        MAIN,
        replace(OVERFITTED, arms=(TUNED, replace(AFTER, settings=({"lr": 2e-4}, {"lr": 1e-3})))),
    ),
}
PROFILE = replace(
    LAPTOP,
    name="whole",
    ablation_seeds=(0,),
    studies=tuple(replace(s, init_lr=None, experiments=EXPERIMENTS[s.task.key]) for s in LAPTOP.studies),
)


def names(*arguments):
    return {job.name for job in jobs(*arguments)}


def test_jobs_are_unique_and_come_after_what_they_need():
    chosen = jobs(PROFILE)
    seen = set()
    for job in chosen:
        assert job.name not in seen and set(job.needs) <= seen
        seen.add(job.name)
    assert chosen[-1].name == "07_results" and set(chosen[-1].needs) == seen - {"07_results"}


def test_jobs_cover_the_main_comparison_and_each_ablation_once():
    training = {job.name: job.parameters for job in jobs(PROFILE) if job.notebook == "05_train.ipynb"}
    assert set(training) == {
        *(f"05_train-{task}-{method}-main-s{seed}" for task in TASKS for method in ("rl", "sft") for seed in (0, 1, 2)),
        "05_train-gp-l-rl-attempts-attempts1-s0",  # 5 attempts are the main comparison's
        "05_train-gp-l-rl-attempts-attempts10-s0",
        "05_train-gp-l-rl_no_init-no_init-lr0.0002-s0",
        "05_train-gp-l-rl_no_init-no_init-lr0.001-s0",
        "05_train-gp-l-sft_suboptimal-suboptimal-s0",
        "05_train-gp-vl-sft-sft_tuning-lr0.001-frozenvision+adapter-s0",  # with nothing frozen it is the main one's
        "05_train-gp-vl-sft-sft_tuning-lr0.002-frozenvision+adapter-s0",
        "05_train-gp-vl-rl-rl_tuning-lr0.0006-s0",
        "05_train-virl-vl-sft-overfitted-lr0.003-s0",
        "05_train-virl-vl-rl-overfitted-lr0.0002-s0",
        "05_train-virl-vl-rl-overfitted-lr0.001-s0",
    }
    tuned = training["05_train-gp-vl-sft-sft_tuning-lr0.001-frozenvision+adapter-s0"]
    assert tuned["setting"] == "lr=0.001;frozen=vision+adapter" and tuned["task"] == "gp-vl"
    given = training["05_train-gp-l-rl-attempts-attempts10-s0"]
    chosen = dict(method="rl", experiment="attempts", setting="attempts=10", seed=0)
    assert given == dict(profile="whole", task="gp-l", **chosen)
    assert training["05_train-virl-l-sft-main-s2"] == dict(
        profile="whole", task="virl-l", method="sft", experiment="main", setting="", seed=2
    )
    assert training["05_train-gp-l-rl_no_init-no_init-lr0.0002-s0"]["setting"] == "lr=0.0002"


def test_how_a_model_was_made_is_shown_of_those_that_come_with_the_project():
    study = replace(PROFILE.study("gp-l"), foundation="someone/model")
    elsewhere = names(replace(PROFILE, studies=(study, *PROFILE.studies[1:])))
    assert names(PROFILE) - elsewhere == {"02_foundation-gp-l"} and elsewhere <= names(PROFILE)


def test_every_notebook_takes_what_its_jobs_give_it():
    for job in jobs(PROFILE):
        execution.check_parameters(job)


def test_a_job_waits_for_what_its_run_starts_from():
    needs = {job.name: job.needs for job in jobs(PROFILE)}
    assert needs["05_train-gp-l-rl_no_init-no_init-lr0.001-s0"] == ("03_expert_data-gp-l",)
    assert needs["05_train-gp-l-sft-main-s2"] == ("04_init-gp-l-init-s2",)
    assert needs["05_train-gp-l-sft_suboptimal-suboptimal-s0"] == ("04_init-gp-l-init-s0",)
    assert needs["04_init-gp-l-init-s2"] == ("03_expert_data-gp-l",)
    assert set(needs["06_sensitivity-gp-l-s1"]) == {"05_train-gp-l-rl-main-s1", "05_train-gp-l-sft-main-s1"}


def test_rl_of_an_overfitted_checkpoint_waits_for_it():
    needs = {job.name: job.needs for job in jobs(PROFILE)}
    init, overfitted = "04_init-virl-vl-init-s0", "05_train-virl-vl-sft-overfitted-lr0.003-s0"
    assert needs["05_train-virl-vl-rl-overfitted-lr0.001-s0"] == (overfitted, init)
    assert needs[overfitted] == (init,)


def test_an_experiment_that_varies_init_has_inits_of_its_own():
    steps = replace(SUBOPTIMAL, name="init_steps", arms=(Arm("sft", ({"init_steps": 24}, {"init_steps": 96})),))
    study = replace(PROFILE.study("gp-l"), experiments=(MAIN, steps))
    needs = {job.name: job.needs for job in jobs(replace(PROFILE, studies=(study,)))}
    init = "04_init-gp-l-init-init_steps-init_steps96-s0"
    assert needs["05_train-gp-l-sft-init_steps-init_steps96-s0"] == (init,) and needs[init] == ("03_expert_data-gp-l",)
    assert not any("init_steps24" in name for name in needs), "that is the main comparison's"


def test_given_seeds_replace_those_of_the_profile():
    """Ablations take the first three."""
    chosen = names(PROFILE, (7, 8, 9, 6))
    ablated = {f"05_train-gp-l-sft_suboptimal-suboptimal-s{seed}" for seed in (7, 8, 9)}
    assert {"05_train-gp-l-rl-main-s6", "06_sensitivity-gp-l-s6", *ablated} <= chosen
    assert not any(name.endswith(("s0", "s1", "s2")) for name in chosen)
    assert "05_train-gp-l-sft_suboptimal-suboptimal-s6" not in chosen
    assert jobs(PROFILE, (7, 8))[-1].parameters["seeds"] == [7, 8]


def test_a_main_run_stands_for_a_setting_of_fig_10_only_where_there_is_one():
    """The seed of the ablations may not be among those of the main comparison."""
    alone = "05_train-gp-l-rl-attempts-attempts5-s0"
    assert alone in names(replace(PROFILE, seeds=(1,)))
    assert alone not in names(replace(PROFILE, seeds=(0,))) and alone not in names(PROFILE)
    assert alone.replace("s0", "s7") not in names(PROFILE, (7,))


def test_tasks_restrict_the_jobs():
    labels = ("GP-L", "V-IRL-L", "GP-VL", "V-IRL-VL")
    chosen = {label: names(PROFILE, (), parse_tasks(PROFILE, label)) for label in labels}
    assert set().union(*chosen.values()) == names(PROFILE)
    assert chosen["GP-L"] & chosen["V-IRL-L"] == {"00_start_here", "07_results"}
    assert "01_navigation" in chosen["V-IRL-L"] and not any("gp-l" in name for name in chosen["V-IRL-L"])
    assert "01_general_points" in chosen["GP-L"] & chosen["GP-VL"], "the game is the same"
    for text in (None, "", "V-IRL-L, GP-VL, GP-L V-IRL-VL", "virl-l gp-vl gp-l virl-vl"):
        assert parse_tasks(PROFILE, text) == PROFILE.studies
    with pytest.raises(ValueError, match="no task 'GP-XL'; use some of GP-L V-IRL-L GP-VL V-IRL-VL.$"):
        parse_tasks(PROFILE, "GP-L GP-XL")


def test_navigation_has_the_main_comparison_alone():
    chosen = [job for job in jobs(PROFILE) if "virl-l" in job.name]
    assert {job.parameters.get("experiment", "main") for job in chosen} == {"main"}
    assert not any(job.notebook == "06_sensitivity.ipynb" for job in chosen)
    [init] = {need for job in chosen if job.name == "05_train-virl-l-rl-main-s1" for need in job.needs}
    assert init == "04_init-virl-l-init-s1"


@pytest.mark.parametrize("text, seeds", [("0 1 2", (0, 1, 2)), ("3,4", (3, 4)), ("", ()), (None, ())])
def test_seed_lists(text, seeds):
    assert parse_seeds(text) == seeds


# What is due again


def kind(job):
    """05 rl attempts: the number of a job's notebook, and what it trains."""
    given = (job.parameters.get(name) for name in ("method", "experiment"))
    return " ".join(filter(None, (job.notebook[:2], *given)))


def due(before, after):
    """The kinds of the jobs of `before` that are to be done again after a change, and the tasks that they are of."""
    again = {job.name: identity(job) for job in jobs(after)}
    changed = [job for job in jobs(before) if identity(job) != again[job.name]]
    return {kind(job) for job in changed}, {job.parameters.get("task") for job in changed} - {None}


INIT, ENDS = {"04"}, {"06"}  # of the main comparison, at several temperatures
SFT = {"05 sft main", "05 sft sft_tuning", "05 sft overfitted", "05 sft_suboptimal suboptimal"}
RL = {"05 rl main", "05 rl attempts", "05 rl rl_tuning", "05 rl overfitted"}
BARE = {"05 rl_no_init no_init"}  # starts at the foundation model
BRANCHES = SFT | RL | BARE
FROM_INIT = INIT | SFT | RL | ENDS


def of(part, **changes):
    """A change of one of a study's configurations."""
    return lambda study: replace(study, **{part: replace(getattr(study, part), **changes)})


def other_foundation(study):
    return replace(study, foundation="gp-l" if study.foundation == "virl-l" else "virl-l")


def split(name):
    """A change of one of a task's splits."""

    def change(study):
        splits = study.task.splits
        return replace(study, task=replace(study.task, splits={**splits, name: {**splits[name], "more": 1}}))

    return change


ANOTHER = replace(ATTEMPTS, name="another", arms=(Arm("rl", ({"clip": 0.3},)),))
CHANGES = {  # of a study -> the kinds of jobs that are to be done again
    "ppo.clip": (of("ppo", clip=0.1), RL | BARE | ENDS),
    "sft.lr": (of("sft", lr=7e-4), FROM_INIT),
    "sft.examples": (of("sft", examples=77), {"03"} | FROM_INIT),
    "init_steps": (lambda study: replace(study, init_steps=7), FROM_INIT),
    "init_lr": (lambda study: replace(study, init_lr=7e-4), FROM_INIT),
    "foundation": (other_foundation, {"02"} | FROM_INIT | BARE),
    "fork_flops": (lambda study: replace(study, fork_flops=1e12), BRANCHES | ENDS),
    "checkpoints": (lambda study: replace(study, checkpoints=7), (BRANCHES - {"05 sft overfitted"}) | ENDS),
    "episodes_greedy": (of("evaluation", episodes_greedy=77), INIT | {"05 sft main", "05 rl main"}),
    "episodes_end": (of("evaluation", episodes_end=77), {"02"} | INIT | BRANCHES),
    "episodes_curve": (of("evaluation", episodes_curve=77), {"02"} | INIT | BRANCHES),
    "episodes_sensitivity": (of("evaluation", episodes_sensitivity=77), ENDS),
    "temperatures": (of("evaluation", temperatures=(0.0, 0.7)), ENDS),
    "attempts_grid": (of("evaluation", attempts_grid=(1, 7)), ENDS),
    "max_new_tokens": (of("evaluation", max_new_tokens=77), {"02"} | INIT | BRANCHES | ENDS),
    "split heldout": (split("heldout"), {"02"} | INIT | {"05 sft main", "05 rl main"}),
    "split rule_ood": (split("rule_ood"), {"02"} | INIT | BRANCHES | ENDS),
    "training": (of("task", training={}), {"03"} | INIT | BRANCHES | ENDS),
    "version": (of("task", version=2), {"03"} | INIT | BRANCHES | ENDS),
    "experiments": (lambda study: replace(study, experiments=(*study.experiments, ANOTHER)), set()),
}


@pytest.mark.parametrize("field", CHANGES)
@pytest.mark.parametrize("task", TASKS)
def test_what_depends_on_a_field_of_a_study_is_due_again_and_nothing_else(task, field):
    """And nothing of the other tasks. The first notebook prints the profile, so it always is."""
    change, again = CHANGES[field]
    changed = tuple(change(study) if study.task.key == task else study for study in PROFILE.studies)
    there = {kind(job) for job in jobs(PROFILE) if job.parameters.get("task") == task}
    found, tasks = due(PROFILE, replace(PROFILE, studies=changed))
    assert found == (again & there) | {"00"}
    assert tasks == ({task} if again & there else set())


@pytest.mark.parametrize("change, again", [
    ({"dtype": "bfloat16"}, INIT | BRANCHES | ENDS),
    ({"dtype": "mixed"}, INIT | BRANCHES | ENDS),
    ({"micro_batch_tokens": 7}, set()),
    ({"gradient_checkpointing": True}, set()),
    ({"lora": LoRAConfig()}, INIT | BRANCHES | ENDS),
    ({"device": "cuda"}, set()),
    ({"rollout_batch": 7}, set()),
    ({"seeds": (0, 1, 2, 3)}, {"07"}),  # there is another seed to draw
])  # fmt: skip
def test_what_depends_on_a_field_of_the_profile_is_due_again_and_nothing_else(change, again):
    assert due(PROFILE, replace(PROFILE, **change))[0] == again | {"00"}


def test_the_tasks_chosen_make_nothing_due():
    chosen = {job.name: identity(job) for job in jobs(PROFILE, (), PROFILE.studies[:1])}
    assert chosen.items() <= {job.name: identity(job) for job in jobs(PROFILE)}.items()


def test_other_tests_are_no_other_training():
    greedy = of("evaluation", episodes_greedy=77)(PROFILE.study("gp-l"))
    for method in ("init", "sft", "rl"):
        before, after = (Run(p, "gp-l", method) for p in (PROFILE, replace(PROFILE, studies=(greedy,))))
        assert before.identity == after.identity and before.tests_identity != after.tests_identity


@pytest.mark.parametrize("config", [SFTConfig(lr=7e-4), PPOConfig(clip=0.1), PROFILE.study("gp-l")])
def test_a_new_field_with_a_default_makes_nothing_due(config):
    @dataclass(frozen=True)
    class Wider(type(config)):
        novelty: float = 0.5

    values = {name: getattr(config, name) for name in config.__dataclass_fields__}
    assert fingerprint.settings(Wider(**values)) == fingerprint.settings(config) != {}
    assert fingerprint.settings(Wider(**values, novelty=0.6)) == fingerprint.settings(config) | {"novelty": 0.6}
