"""The pipeline's promises: what runs there are, and that only a finished run looks finished."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import nbformat
import psutil
import pytest

from sftrl_lib import execution, fingerprint, paths, pipeline
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
from sftrl_lib.jobs import Job, identity, identity_path, jobs, keep, parse_seeds, parse_tasks, state, target
from sftrl_lib.profiles import LAPTOP, SMOKE
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
    studies=tuple(replace(study, experiments=EXPERIMENTS[study.task.key]) for study in LAPTOP.studies),
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty checkout with a blank in its name, and the environment for a child process that works in it."""
    root = tmp_path / "a checkout"
    (root / "notebooks").mkdir(parents=True)
    for name, value in (("ROOT", root), ("HOME", root), ("NOTEBOOKS", root / "notebooks")):
        monkeypatch.setattr(paths, name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SFTRL_HOME", str(root))
    return root


def write_notebook(home, name, code, parameters="seed: int = 0  # of the run"):
    cells = [nbformat.v4.new_code_cell(code)]
    if parameters:
        cells.insert(0, nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    kernel = {"name": "no-such-kernel", "language": "python", "display_name": "Python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, home / "notebooks" / name)


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
    chosen = names(PROFILE, (7, 8))
    assert {
        "05_train-gp-l-rl-main-s7", "06_sensitivity-gp-l-s8", "05_train-gp-l-sft_suboptimal-suboptimal-s7"
    } <= chosen  # fmt: skip
    assert not any(name.endswith(("s0", "s1", "s2")) for name in chosen)
    assert "05_train-gp-l-sft_suboptimal-suboptimal-s8" not in chosen
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
    "split rule_ood": (split("rule_ood"), {"02"} | INIT | (BRANCHES - {"05 sft sft_tuning", "05 rl rl_tuning"}) | ENDS),
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


# The command line


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["rules", "--profile", "huge"], "'huge'"),
        (["rules", "--profile", "smoke", "--seeds", "0 one"], "'one'"),
        (["rules", "--profile", "smoke", "--seeds", "-1"], "'-1'"),
        (["rules", "--profile", "smoke", "--seeds", "1 1"], "twice"),
        (["rules", "--profile", "smoke", "--seeds", str(2**32)], "2**32 - 1"),
        (["rules", "--profile", "smoke", "--seeds", "9" * 5000], "2**32 - 1"),
        (["rules", "--profile", "smoke", "--seeds", "1.5"], "'1.5'"),
        (["rules", "--profile", "smoke", "--seeds", "0/../../evil"], "'0/../../evil'"),
        (["rules", "--profile", "../evil"], "'../evil'"),
        (["rules", "--profile", "smoke", "--threads", "0"], "as in THREADS=2"),
        (["rules", "--profile", "smoke", "--threads", "many"], "'many'"),
        (["rules", "--profile", "smoke", "--tasks", "GP-L V-IRL"], "'V-IRL'"),
        (["run", "05_train-gp-l-rl-man-s0", "--profile", "smoke"], "05_train-gp-l-rl-main-s0"),
        (["run", "--profile", "smoke"], "name of a run"),
        (["rules", "--profile", "smoke"], "notebooks/03_expert_data.ipynb does not exist"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_status_2(home, capsys, arguments, word):
    assert pipeline.main(arguments) == 2
    message = capsys.readouterr().err
    assert word in message and len(message.splitlines()) == 1


# Execution


def test_success_replaces_the_target_and_uses_this_interpreter(home):
    write_notebook(home, "n.ipynb", "import sys; print(sys.executable, seed)")
    executed = target("smoke", "n-s3")
    executed.parent.mkdir(parents=True)
    executed.write_text("an older one", encoding="utf-8")
    executed.with_suffix(".failed.ipynb").write_text("an older failure", encoding="utf-8")
    assert execution.execute(Job("n-s3", "n.ipynb", {"seed": 3}), "smoke") == executed
    assert nbformat.read(executed, 4).cells[-1].outputs[0].text == f"{sys.executable} 3\n"
    assert sorted(path.name for path in executed.parent.iterdir()) == ["n-s3.ipynb", "timings.jsonl"]
    (timing,) = execution.timings("smoke")
    assert timing["run"] == "n-s3" and timing["ok"] and timing["peak_rss_mb"] > 10


@pytest.mark.parametrize("declared, known", [("seed: int = 0", "seed"), (None, "none")])
def test_unknown_parameter_is_refused_before_anything_runs(home, declared, known):
    write_notebook(home, "n.ipynb", "open('ran', 'w')", declared)
    with pytest.raises(ValueError, match=f"no parameter 'sede'; it has {known}"):
        execution.execute(Job("n", "n.ipynb", {"sede": 3}), "smoke")
    assert not (home / "notebooks" / "ran").exists() and not (home / "build").exists()


def test_a_damaged_notebook_is_named(home):
    (home / "notebooks" / "n.ipynb").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="notebooks/n.ipynb is not a Python notebook"):
        execution.check_parameters(Job("n", "n.ipynb", {}))


def test_a_failing_cell_leaves_no_target(home):
    write_notebook(home, "n.ipynb", "print('so far'); raise KeyError('the reason')")
    with pytest.raises(execution.RunFailed, match="KeyError: 'the reason'\n.*n.failed.ipynb") as failure:
        execution.execute(Job("n", "n.ipynb", {}), "smoke")
    assert failure.value.code == 1
    executed = target("smoke", "n")
    assert not executed.exists() and "so far" in executed.with_suffix(".failed.ipynb").read_text(encoding="utf-8")
    assert not execution.timings("smoke")[0]["ok"]


def test_a_killed_kernel_is_explained(home):
    write_notebook(home, "n.ipynb", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(execution.RunFailed, match="out of memory") as failure:
        execution.execute(Job("n", "n.ipynb", {}), "smoke")
    assert failure.value.code == 137 and not target("smoke", "n").exists()


def test_kill_9_in_the_middle_leaves_no_target_and_no_kernel(home):
    write_notebook(home, "n.ipynb", "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)")
    code = (
        "from sftrl_lib import execution, paths; from pathlib import Path; import sys;"
        "from sftrl_lib.jobs import Job; paths.NOTEBOOKS = Path(sys.argv[1]);"
        "execution.execute(Job('n', 'n.ipynb', {}), 'smoke')"
    )
    environment = {**os.environ, "PYTHONPATH": str(paths.PACKAGE.parent)}
    child = subprocess.Popen([sys.executable, "-c", code, str(home / "notebooks")], env=environment)
    pid_file = home / "notebooks" / "pid"
    _wait_until(lambda: pid_file.exists() and pid_file.read_text(encoding="utf-8"))
    with pytest.raises(execution.RunFailed, match="by another process"):
        execution.execute(Job("n", "n.ipynb", {}), "smoke")
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not target("smoke", "n").exists()
    _wait_until(lambda: not _alive(int(pid_file.read_text(encoding="utf-8"))))


def test_a_run_outlives_its_reader():
    """``make reproduce | head`` must not turn a finished run into a failed one."""
    code = "from sftrl_lib.execution import _say; import time; time.sleep(1); _say('starts'); _say('done')"
    environment = {**os.environ, "PYTHONPATH": str(paths.PACKAGE.parent)}
    child = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    child.stdout.close()
    assert child.wait() == 0


def _wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited a minute in vain"
        time.sleep(0.1)


def _alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


MINI = [
    Job("a", "a.ipynb", {}, depends={"lr": 1}),
    Job("b-lr0.1", "b.ipynb", {"seeds": [1]}, ("a",), {"lr": 1}),
]


def plan(chosen):
    pipeline.write_rules(SMOKE, chosen, SMOKE.studies)


@pytest.fixture
def planned(home):
    """Two jobs, planned and as good as executed."""
    write_notebook(home, "a.ipynb", "1")
    write_notebook(home, "b.ipynb", "2", "seeds: list = []")
    plan(MINI)
    for job in MINI:
        done(job)
    return home


def done(job):
    """Leave what a successful execution leaves."""
    cells = [nbformat.v4.new_code_cell(str(number), execution_count=number) for number in (1, 2)]
    finished = target("smoke", job.name).with_suffix(".partial")
    nbformat.write(nbformat.v4.new_notebook(cells=cells), finished)
    keep(finished, identity(job), target("smoke", job.name))
    finished.unlink()


def to_make(home):
    """The jobs that make would do."""
    command = ["make", "-n", "-f", "build/smoke/rules.mk"]
    said = subprocess.run(command, cwd=home, capture_output=True, encoding="utf-8", check=True).stdout
    return [line.split(" run ")[1].split()[0] for line in said.splitlines() if " run " in line]


def test_make_redoes_nothing_that_is_done(planned):
    assert to_make(planned) == []
    plan(MINI)
    assert to_make(planned) == []
    assert [state("smoke", job) for job in MINI] == ["done", "done"]


def test_make_redoes_a_job_without_target_and_those_that_need_it(planned):
    target("smoke", "a").unlink()
    assert to_make(planned) == ["a", "b-lr0.1"]
    assert [state("smoke", job) for job in MINI] == ["to do", "done"]


@pytest.mark.parametrize("change", ["code", "settings", "parameters"])
def test_make_redoes_a_job_whose_identity_changed(planned, change):
    chosen = MINI
    if change == "code":
        write_notebook(planned, "b.ipynb", "3", "seeds: list = []")
    elif change == "settings":
        chosen = [replace(job, depends={"lr": 2}) for job in MINI]
    else:
        chosen = [MINI[0], replace(MINI[1], parameters={"seeds": [2]})]
    again = ["a", "b-lr0.1"] if change == "settings" else ["b-lr0.1"]
    _age_everything(planned)
    assert [job.name for job in chosen if state("smoke", job) == "changed"] == again
    plan(chosen)
    assert to_make(planned) == again
    assert [job.name for job in chosen if state("smoke", job) == "changed"] == again, "until it is done"


def cut(path):
    path.write_text(path.read_text(encoding="utf-8")[:-40], encoding="utf-8")


def without_last_cell(path):
    notebook = nbformat.read(path, 4)
    notebook.cells.pop()
    nbformat.write(notebook, path)


def cleared(path):
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        cell.execution_count = None
    nbformat.write(notebook, path)


DAMAGES = {
    "emptied": lambda path: path.write_bytes(b""),
    "cut": cut,
    "no notebook": lambda path: path.write_text("[]", encoding="utf-8"),
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe{"),
    "without its last cell": without_last_cell,
    "cleared": cleared,
}
TOMORROW = time.time() + 86_400


@pytest.mark.parametrize("when", [None, TOMORROW], ids=["old", "of tomorrow"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_notebook_is_made_again_whatever_its_date(planned, damage, when, capsys):
    _age_everything(planned)
    DAMAGES[damage](target("smoke", "a"))
    if when:
        os.utime(target("smoke", "a"), (when, when))
    assert [state("smoke", job) for job in MINI] == ["damaged", "done"]
    plan(MINI)
    assert "a.ipynb is damaged" in capsys.readouterr().out
    assert to_make(planned) == ["a", "b-lr0.1"]
    done(MINI[0])
    done(MINI[1])
    plan(MINI)
    assert to_make(planned) == [] and state("smoke", MINI[0]) == "done"


def test_a_notebook_of_another_identity_is_made_again_although_it_is_newer(planned):
    """As after a change of settings under a wrong clock, or when a folder of another run is copied over."""
    done(replace(MINI[1], depends={"lr": 2}))
    for when in (time.time(), TOMORROW):
        os.utime(target("smoke", "b-lr0.1"), (when, when))
        assert [state("smoke", job) for job in MINI] == ["done", "changed"]
        plan(MINI)
        assert to_make(planned) == ["b-lr0.1"]


def test_dates_in_the_future_are_set_right(planned):
    _age_everything(planned)
    for job in MINI:
        os.utime(target("smoke", job.name), (TOMORROW, TOMORROW))
        os.utime(identity_path("smoke", job.name), (TOMORROW + 9, TOMORROW + 9))
    plan(MINI)
    assert to_make(planned) == [] and [state("smoke", job) for job in MINI] == ["done", "done"]
    assert all(path.stat().st_mtime <= time.time() for path in (planned / "build").rglob("*"))
    done(MINI[0])
    os.utime(target("smoke", "b-lr0.1"), (TOMORROW, TOMORROW))
    plan(MINI)
    assert to_make(planned) == ["b-lr0.1"], "what it needs was made after it"


def test_settings_that_were_changed_and_put_back_redo_nothing(planned):
    plan([replace(job, depends={"lr": 2}) for job in MINI])
    plan(MINI)
    assert to_make(planned) == [] and [state("smoke", job) for job in MINI] == ["done", "done"]


def test_notebooks_from_before_identities_were_kept_in_them_go_by_their_dates(planned):
    for job in MINI:
        path = target("smoke", job.name)
        notebook = json.loads(path.read_text(encoding="utf-8"))
        del notebook["metadata"]["sftrl"]
        path.write_text(json.dumps(notebook), encoding="utf-8")
    plan(MINI)
    assert to_make(planned) == [] and state("smoke", MINI[1]) == "done"
    os.utime(target("smoke", "b-lr0.1"), (TOMORROW, TOMORROW))
    changed = [MINI[0], replace(MINI[1], depends={"lr": 2})]
    plan(changed)
    assert to_make(planned) == ["b-lr0.1"] and state("smoke", changed[1]) == "changed"


@pytest.mark.parametrize("mark", ":;=|%~*(\\'\"`&")
def test_a_name_that_make_cannot_take_is_refused(home, mark):
    with pytest.raises(ValueError, match="which make cannot take"):
        pipeline.rules(SMOKE, [Job(f"a{mark}b", "a.ipynb", {"seeds": [0]})], SMOKE.studies)


def test_prose_and_other_tasks_redo_nothing(planned):
    path = planned / "notebooks" / "b.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells.append(nbformat.v4.new_markdown_cell("better prose"))
    nbformat.write(notebook, path)
    _age_everything(planned)
    pipeline.write_rules(SMOKE, MINI, SMOKE.studies[:1])
    assert to_make(planned) == []


def _age_everything(home):
    """Put all files an hour back, in their order, so that what is written now is newer."""
    for path in (home / "build").rglob("*"):
        os.utime(path, (path.stat().st_mtime - 3600,) * 2)


def test_timings_add_up(home):
    records = [  # a and b side by side, a pause, then c
        {"run": "a", "ok": True, "started": 100.0, "seconds": 10.0, "peak_rss_mb": 300},
        {"run": "b", "ok": True, "started": 104.0, "seconds": 10.0, "peak_rss_mb": 500},
        {"run": "c", "ok": False, "started": 200.0, "seconds": 1.0, "peak_rss_mb": 900},
        {"run": "c", "ok": True, "started": 300.0, "seconds": 6.0, "peak_rss_mb": 700},
    ]
    log = paths.build("smoke") / "timings.jsonl"
    log.parent.mkdir(parents=True)
    version = fingerprint.library()
    lines = [json.dumps({**record, "library": version if record["run"] == "a" else "?"}) for record in records]
    log.write_text("\n".join(lines) + '\n{"run": "half a li', encoding="utf-8")
    assert execution.summary("smoke") == {
        "runs": 3,
        "wall_seconds": 20.0,
        "run_seconds": 26.0,
        "longest": "a",
        "longest_seconds": 10.0,
        "peak_rss_mb": 700,
        "older": 2,
    }
    assert "results/smoke" in execution.report("smoke")


@pytest.mark.parametrize("line", ["1", "null", "[]", '"a"', "{}", '{"run": "a"}', '{"run": 1, "library": "?"}', "\0\0"])
def test_a_stray_line_among_the_timings_is_passed_over(home, line):
    record = {"run": "a", "ok": True, "started": 1.0, "seconds": 2.0, "peak_rss_mb": 3, "library": "?"}
    log = paths.build("smoke") / "timings.jsonl"
    log.parent.mkdir(parents=True)
    odd = json.dumps({**record, "run": "b", "seconds": "long"})
    log.write_bytes(f"{line}\n{json.dumps(record)}\n{odd}\n{line}\n".encode() + b"\xff{")
    assert execution.timings("smoke") == [record] and "1 notebooks" in execution.report("smoke")
    execution._record({**record, "run": "c"}, "smoke")
    assert [timing["run"] for timing in execution.timings("smoke")] == ["a", "c"], "after half a line comes a new one"


SHOW_THREADS = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])"


@pytest.mark.parametrize("makeflags", ["-j1", " -j2 --jobserver-auth=3,4"])
def test_a_job_computes_on_one_thread_however_many_run(home, monkeypatch, makeflags):
    """Sums of floats, and with them the numbers, depend on the number of threads."""
    monkeypatch.setenv("MAKEFLAGS", makeflags)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "2")
    write_notebook(home, "n.ipynb", SHOW_THREADS)
    executed = execution.execute(Job("n", "n.ipynb", {}), "smoke")
    assert nbformat.read(executed, 4).cells[-1].outputs[0].text == "1 1\n"
    assert execution.timings("smoke")[0]["threads"] == 1 and "threads" not in execution.report("smoke")


def test_another_number_of_threads_is_asked_for_and_recorded(home, capsys):
    write_notebook(home, "n.ipynb", SHOW_THREADS)
    executed = execution.execute(Job("n", "n.ipynb", {}), "smoke", threads=2)
    assert nbformat.read(executed, 4).cells[-1].outputs[0].text == "2 2\n"
    assert execution.timings("smoke")[0]["threads"] == 2
    assert "1 of them computed on another number of threads" in execution.report("smoke")
    write_notebook(home, "b.ipynb", "2", "seeds: list = []")
    chosen = [replace(MINI[1], needs=())]
    assert "--threads 2" in pipeline.rules(SMOKE, chosen, SMOKE.studies, 2)
    assert "--threads" not in pipeline.rules(SMOKE, chosen, SMOKE.studies)
    assert [execution.parse_threads(text) for text in ("", None, " 3 ")] == [1, 1, 3]
