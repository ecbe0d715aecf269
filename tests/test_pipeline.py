"""The pipeline's promises: what runs there are, and that only a finished run looks finished."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import nbformat
import psutil
import pytest

from sftrl_lib import execution, paths, pipeline
from sftrl_lib.pipeline import Run, runs
from sftrl_lib.profiles import LAPTOP, SMOKE

PROFILE = replace(
    LAPTOP,
    seeds=(0, 1, 2),
    ablation_seeds=(0,),
    attempts=(1, 5, 10),
    no_init_lrs=(2e-4, 1e-3),
    sft_tuning=(("none", (1e-3,)), ("vision+adapter", (1e-3, 2e-3))),
    rl_tuning=(6e-4,),
    overfitted_rl=(2e-4, 1e-3),
)
TASKS = ("gp-l", "virl-l", "gp-vl", "virl-vl")


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


def test_runs_are_unique_and_come_after_what_they_need():
    chosen = runs(PROFILE)
    seen = set()
    for run in chosen:
        assert run.name not in seen and set(run.needs) <= seen
        seen.add(run.name)
    assert chosen[-1].name == "07_results" and set(chosen[-1].needs) == seen - {"07_results"}


def test_runs_cover_the_main_comparison_and_each_ablation_once():
    training = {run.name: run.parameters for run in runs(PROFILE) if run.notebook == "05_train.ipynb"}
    assert set(training) == {
        *(f"05_train-{task}-{method}-main-s{seed}" for task in TASKS for method in ("rl", "sft") for seed in (0, 1, 2)),
        "05_train-gp-l-rl-attempts-1-s0",  # 5 attempts are the main comparison's
        "05_train-gp-l-rl-attempts-10-s0",
        "05_train-gp-l-rl_no_init-lr0.0002-s0",
        "05_train-gp-l-rl_no_init-lr0.001-s0",
        "05_train-gp-l-sft_suboptimal-s0",
        "05_train-gp-vl-sft-lr0.001-frozenvision+adapter-s0",  # with nothing frozen it is the main comparison's
        "05_train-gp-vl-sft-lr0.002-frozenvision+adapter-s0",
        "05_train-gp-vl-rl-lr0.0006-s0",
        "05_train-virl-vl-sft-overfitted-lr0.003-s0",
        "05_train-virl-vl-rl-overfitted-lr0.0002-s0",
        "05_train-virl-vl-rl-overfitted-lr0.001-s0",
    }
    tuned = training["05_train-gp-vl-sft-lr0.001-frozenvision+adapter-s0"]
    assert tuned["setting"] == "lr=0.001;frozen=vision+adapter" and tuned["modality"] == "image"
    given = training["05_train-gp-l-rl-attempts-10-s0"]
    varied = dict(method="rl", experiment="attempts", setting="attempts=10", seed=0)
    assert given == dict(profile="laptop", task="general_points", modality="text", **varied)
    assert training["05_train-virl-l-sft-main-s2"]["task"] == "navigation"
    assert training["05_train-gp-l-rl_no_init-lr0.0002-s0"]["setting"] == "lr=0.0002"


def test_rl_without_init_waits_for_no_init():
    needs = {run.name: run.needs for run in runs(PROFILE)}
    assert needs["05_train-gp-l-rl_no_init-lr0.001-s0"] == ("03_expert_data-gp-l",)
    assert needs["05_train-gp-l-sft-main-s2"] == ("04_init-gp-l-s2",)


def test_rl_of_an_overfitted_checkpoint_waits_for_it():
    needs = {run.name: run.needs for run in runs(PROFILE)}
    assert needs["05_train-virl-vl-rl-overfitted-lr0.001-s0"] == ("05_train-virl-vl-sft-overfitted-lr0.003-s0",)
    assert needs["05_train-virl-vl-sft-overfitted-lr0.003-s0"] == ("04_init-virl-vl-s0",)


def test_given_seeds_replace_those_of_the_profile():
    names = {run.name for run in runs(PROFILE, (7, 8))}
    assert {"05_train-gp-l-rl-main-s7", "06_sensitivity-gp-l-s8", "05_train-gp-l-sft_suboptimal-s7"} <= names
    assert not any(name.endswith(("s0", "s1", "s2")) for name in names)
    assert runs(PROFILE, (7, 8))[-1].parameters["seeds"] == [7, 8]


def test_a_main_run_stands_for_a_setting_of_fig_10_only_where_it_is_measured_as_one():
    """Seed 7 is no ablation seed of the profile, so its main RL run has no rows of that experiment."""
    assert "05_train-gp-l-rl-attempts-5-s7" in {run.name for run in runs(PROFILE, (7,))}
    assert "05_train-gp-l-rl-attempts-5-s0" in {run.name for run in runs(replace(PROFILE, seeds=(1,)))}


def test_tasks_restrict_the_runs():
    everything = {run.name for run in runs(PROFILE)}
    labels = ("GP-L", "V-IRL-L", "GP-VL", "V-IRL-VL")
    names = {label: {run.name for run in runs(pipeline.choose(PROFILE, label))} for label in labels}
    assert set().union(*names.values()) == everything
    assert names["GP-L"] & names["V-IRL-L"] == {"00_start_here", "07_results"}
    assert "01_navigation" in names["V-IRL-L"] and not any("gp-l" in name for name in names["V-IRL-L"])
    assert "01_general_points" in names["GP-L"] & names["GP-VL"], "the game is the same"
    for text in (None, "", "V-IRL-L, GP-VL, GP-L V-IRL-VL"):
        assert pipeline.choose(PROFILE, text) == PROFILE
    with pytest.raises(ValueError, match="no task 'GP-XL'; use some of GP-L V-IRL-L GP-VL V-IRL-VL.$"):
        pipeline.choose(PROFILE, "GP-L GP-XL")


def test_navigation_has_the_main_comparison_alone():
    chosen = [run for run in runs(PROFILE) if "virl-l" in run.name]
    assert {run.parameters.get("experiment", "main") for run in chosen} == {"main"}
    assert not any(run.notebook == "06_sensitivity.ipynb" for run in chosen)
    [init] = {need for run in chosen if run.name == "05_train-virl-l-rl-main-s1" for need in run.needs}
    assert init == "04_init-virl-l-s1"


@pytest.mark.parametrize("text, seeds", [("0 1 2", (0, 1, 2)), ("3,4", (3, 4)), ("", None), (None, None)])
def test_seed_lists(text, seeds):
    assert pipeline.parse_seeds(text) == seeds


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["rules", "--profile", "huge"], "'huge'"),
        (["rules", "--profile", "smoke", "--seeds", "0 one"], "'one'"),
        (["rules", "--profile", "smoke", "--seeds", "-1"], "'-1'"),
        (["rules", "--profile", "smoke", "--seeds", "1 1"], "twice"),
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


def test_success_replaces_the_target_and_uses_this_interpreter(home):
    write_notebook(home, "n.ipynb", "import sys; print(sys.executable, seed)")
    target = pipeline.target("smoke", "n-s3")
    target.parent.mkdir(parents=True)
    target.write_text("an older one")
    target.with_suffix(".failed.ipynb").write_text("an older failure")
    assert execution.execute(Run("n-s3", "n.ipynb", {"seed": 3}), "smoke") == target
    assert nbformat.read(target, 4).cells[-1].outputs[0].text == f"{sys.executable} 3\n"
    assert sorted(path.name for path in target.parent.iterdir()) == ["n-s3.ipynb", "timings.jsonl"]
    (timing,) = execution.timings("smoke")
    assert timing["run"] == "n-s3" and timing["ok"] and timing["peak_rss_mb"] > 10


@pytest.mark.parametrize("declared, known", [("seed: int = 0", "seed"), (None, "none")])
def test_unknown_parameter_is_refused_before_anything_runs(home, declared, known):
    write_notebook(home, "n.ipynb", "open('ran', 'w')", declared)
    with pytest.raises(ValueError, match=f"no parameter 'sede'; it has {known}"):
        execution.execute(Run("n", "n.ipynb", {"sede": 3}), "smoke")
    assert not (home / "notebooks" / "ran").exists() and not (home / "build").exists()


def test_a_damaged_notebook_is_named(home):
    (home / "notebooks" / "n.ipynb").write_text("{")
    with pytest.raises(ValueError, match="notebooks/n.ipynb is not a Python notebook"):
        execution.check_parameters(Run("n", "n.ipynb", {}))


def test_a_failing_cell_leaves_no_target(home):
    write_notebook(home, "n.ipynb", "print('so far'); raise KeyError('the reason')")
    with pytest.raises(execution.RunFailed, match="KeyError: 'the reason'\n.*n.failed.ipynb") as failure:
        execution.execute(Run("n", "n.ipynb", {}), "smoke")
    assert failure.value.code == 1
    target = pipeline.target("smoke", "n")
    assert not target.exists() and "so far" in target.with_suffix(".failed.ipynb").read_text()
    assert not execution.timings("smoke")[0]["ok"]


def test_a_killed_kernel_is_explained(home):
    write_notebook(home, "n.ipynb", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(execution.RunFailed, match="out of memory") as failure:
        execution.execute(Run("n", "n.ipynb", {}), "smoke")
    assert failure.value.code == 137 and not pipeline.target("smoke", "n").exists()


def test_kill_9_in_the_middle_leaves_no_target_and_no_kernel(home):
    write_notebook(home, "n.ipynb", "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)")
    code = (
        "from sftrl_lib import execution, paths; from pathlib import Path; import sys;"
        "from sftrl_lib.pipeline import Run; paths.NOTEBOOKS = Path(sys.argv[1]);"
        "execution.execute(Run('n', 'n.ipynb', {}), 'smoke')"
    )
    environment = {**os.environ, "PYTHONPATH": str(paths.PACKAGE.parent)}
    child = subprocess.Popen([sys.executable, "-c", code, str(home / "notebooks")], env=environment)
    pid_file = home / "notebooks" / "pid"
    _wait_until(lambda: pid_file.exists() and pid_file.read_text())
    with pytest.raises(execution.RunFailed, match="by another process"):
        execution.execute(Run("n", "n.ipynb", {}), "smoke")
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not pipeline.target("smoke", "n").exists()
    _wait_until(lambda: not _alive(int(pid_file.read_text())))


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
    Run("a", "a.ipynb", {}, studies=SMOKE.studies[:1]),
    Run("b-lr0.1", "b.ipynb", {"seed": 1}, ("a",), studies=SMOKE.studies[:1]),
]


@pytest.fixture
def planned(home):
    """Two runs, planned and as good as executed."""
    write_notebook(home, "a.ipynb", "1")
    write_notebook(home, "b.ipynb", "2")
    pipeline.write_rules(SMOKE, MINI)
    for age, run in enumerate(MINI):
        target = pipeline.target("smoke", run.name)
        target.touch()
        os.utime(target, (time.time() + age, time.time() + age))
    return home


def to_make(home):
    """The runs that make would execute."""
    command = ["make", "-n", "-f", "build/smoke/rules.mk", "PYTHON=python"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=True)
    return [line.split(" run ")[1].split()[0] for line in done.stdout.splitlines() if " run " in line]


def test_make_redoes_nothing_that_is_done(planned):
    assert to_make(planned) == []
    pipeline.write_rules(SMOKE, MINI)
    assert to_make(planned) == []
    assert [pipeline.state(SMOKE, run) for run in MINI] == ["done", "done"]


def test_make_redoes_a_run_without_target_and_those_that_need_it(planned):
    pipeline.target("smoke", "a").unlink()
    assert to_make(planned) == ["a", "b-lr0.1"]


@pytest.mark.parametrize("change", ["code", "study", "parameters"])
def test_make_redoes_a_run_whose_card_changed(planned, change):
    chosen = MINI
    if change == "code":
        write_notebook(planned, "b.ipynb", "3")
    elif change == "study":
        chosen = [replace(run, studies=(replace(run.studies[0], fork_flops=1.0),)) for run in MINI]
    else:
        chosen = [MINI[0], replace(MINI[1], parameters={"seed": 2})]
    _age_everything(planned)
    pipeline.write_rules(SMOKE, chosen)
    assert to_make(planned) == (["a", "b-lr0.1"] if change == "study" else ["b-lr0.1"])


def test_prose_new_seeds_and_new_experiments_redo_nothing(planned):
    path = planned / "notebooks" / "b.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells.append(nbformat.v4.new_markdown_cell("better prose"))
    nbformat.write(notebook, path)
    _age_everything(planned)
    fewer = [replace(run, studies=(replace(run.studies[0], experiments=("main",)),)) for run in MINI]
    pipeline.write_rules(replace(SMOKE, seeds=(4, 5)), fewer)
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
    version = execution.library_version()
    lines = [json.dumps({**record, "library": version if record["run"] == "a" else "?"}) for record in records]
    log.write_text("\n".join(lines) + '\n{"run": "half a li')
    assert execution.summary("smoke") == {
        "runs": 3,
        "wall_seconds": 20.0,
        "run_seconds": 26.0,
        "longest": "a",
        "longest_seconds": 10.0,
        "peak_rss_mb": 700,
        "peak_together_mb": 800,
        "older": 2,
    }
    assert "results/smoke" in execution.report("smoke")


def test_runs_that_follow_one_another_do_not_count_as_three(home):
    """make begins a run when another ends, and the kernel's clock may put its start a little before that end."""
    started = {"a": 0.0, "b": 1.0, "c": 9.6}  # a ends at 10.0, b at 31.0
    seconds = {"a": 10.0, "b": 30.0, "c": 5.0}
    log = paths.build("smoke") / "timings.jsonl"
    log.parent.mkdir(parents=True)
    shared = {"ok": True, "peak_rss_mb": 2000, "library": "?"}
    lines = [json.dumps({"run": run, "started": started[run], "seconds": seconds[run], **shared}) for run in started]
    log.write_text("\n".join(lines))
    assert execution.summary("smoke")["peak_together_mb"] == 4000
    assert execution.summary("smoke")["wall_seconds"] == 31.0


@pytest.mark.parametrize(
    "makeflags, share",
    [("", 8), (" -j2 --jobserver-auth=3,4", 4), ("-j1", 8), ("s -j16", 1), (" -j --jobserver-fds=3,4", 1)],
)
def test_threads_share_the_cores(makeflags, share):
    assert execution.threads(makeflags, 8) == share
