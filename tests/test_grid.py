"""Runs on several workers: what comes after what, and what becomes of failures, deadlines and devices."""

import json
import subprocess
import sys
import time

import pytest

from sftrl_lib import executors, grid, paths, timings
from sftrl_lib.executors import Forks, Ray, Resources, Submitit
from sftrl_lib.jobs import jobs, parse_tasks
from sftrl_lib.profiles import SMOKE
from sftrl_lib.runs import Run


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "HOME", tmp_path)
    return tmp_path


def chosen():
    return jobs(SMOKE, studies=parse_tasks(SMOKE, "GP-L"))


def forks():
    return Forks(grid.perform, "smoke", Resources())


def perform_by(monkeypatch, home, action):
    """Every run notes that it began and ended; `action` does what it does between."""

    def perform(job):
        with open(home / "order", "a") as file:
            file.write(f"begin {job.name}\n")
        action(job)
        with open(home / "order", "a") as file:
            file.write(f"end {job.name}\n")

    monkeypatch.setattr(grid, "perform", perform)


def test_every_run_comes_after_what_it_needs_and_others_run_beside_it(home, monkeypatch):
    perform_by(monkeypatch, home, lambda job: time.sleep(0.2))
    assert grid.work(forks(), chosen(), workers=3) == []
    lines = (home / "order").read_text().splitlines()
    runs = {job.name: job for job in chosen() if job.computes}
    assert sorted(line.removeprefix("end ") for line in lines if line.startswith("end")) == sorted(runs)
    for job in runs.values():
        for need in set(job.needs) & set(runs):
            assert lines.index(f"end {need}") < lines.index(f"begin {job.name}")
    beside = [line.split()[0] for line in lines]
    assert any(pair == ("begin", "begin") for pair in zip(beside, beside[1:], strict=False))


def test_what_needs_a_failed_run_is_not_begun_and_the_log_says_why(home, monkeypatch, capfd):
    def fails(job):
        if job.notebook == "04_init.ipynb":
            raise ValueError("no such thing")

    perform_by(monkeypatch, home, fails)
    left = grid.work(forks(), chosen(), workers=2)
    assert left[0] == "04_init-gp-l-init-s0" and "06_sensitivity-gp-l-s0" in left
    assert "05_train-gp-l-rl-main-s0" not in (home / "order").read_text()
    assert "no such thing" in (paths.build("smoke") / "logs" / "04_init-gp-l-init-s0.log").read_text()
    assert "04_init-gp-l-init-s0 FAILED" in capfd.readouterr().out


def test_at_the_deadline_workers_are_stopped(home, monkeypatch):
    perform_by(monkeypatch, home, lambda job: time.sleep(60))
    began = time.time()
    left = grid.work(forks(), chosen(), workers=2, deadline=began + 1)
    assert time.time() - began < 20
    assert set(left) == {job.name for job in chosen() if job.computes}


def test_times_are_noted_beside_those_of_notebooks(home, monkeypatch):
    perform_by(monkeypatch, home, lambda job: None)
    grid.work(forks(), chosen(), workers=2)
    noted = {record["run"]: record for record in timings.timings("smoke")}
    assert noted["grid-gp-l-rl-main-s0"]["ok"] and noted["grid-gp-l-rl-main-s0"]["threads"] == 1
    with pytest.raises(ValueError, match="No run"):
        timings.summary("smoke")  # which counts notebooks


def test_a_look_at_a_finished_run_leaves_its_time(home, monkeypatch):
    """A grid that goes on finds most of its runs done, in no time."""
    monkeypatch.setattr(executors, "LOOKED", 0.2)
    [job] = [job for job in chosen() if job.name == "05_train-gp-l-rl-main-s0"]
    for seconds in (0.4, 0.0):
        executors.noted(lambda job, seconds=seconds: time.sleep(seconds), job, "smoke", 1)
    [record] = timings.timings("smoke")
    assert record["seconds"] >= 0.4


def test_a_run_says_which_machine_and_device_finished_it(home):
    """And a test of the whole: Init of GP-L at toy size, trained and tested by a worker."""
    job = next(job for job in chosen() if job.name == "04_init-gp-l-init-s0")
    grid.perform(job)
    run = Run(SMOKE, "gp-l", "init")
    assert (run.tests / "metrics.csv").exists()
    finished = json.loads((run.folder / "finished").read_text())
    assert finished["device"] == "cpu" and "cores" in finished["machine"]


def test_a_profile_is_moved_to_the_device_that_is_asked_for():
    code = (
        "from sftrl_lib.profiles import LAPTOP, get_profile; from sftrl_lib.runs import Run;"
        "p, paper = (Run(get_profile(name), 'gp-l', 'rl').profile for name in ('laptop', 'paper'));"
        "print(p.device, paper.device, LAPTOP.device)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], env={"SFTRL_DEVICE": "cuda", "PATH": ""}, cwd=paths.ROOT, capture_output=True
    )
    assert shown.stdout.decode().split() == ["cuda", "cuda", "cpu"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "laptop", "--tasks", "GP-X"], "no task 'GP-X'"),
        (["--profile", "smoke", "--workers", "0"], "--workers"),
        (["--profile", "smoke", "--minutes", "-1"], "--minutes"),
        (["--profile", "smoke", "--hours", "0"], "hours"),
        (["--profile", "smoke", "--only", "04_init-gp-l-init-s7"], "Unknown run"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments, message, capsys):
    assert grid.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def note(job):
    """What a worker elsewhere does in place of a run: leaves a file, or fails."""
    if job.notebook == "04_init.ipynb":
        raise ValueError("no such thing")
    (paths.HOME / job.name).touch()


@pytest.mark.parametrize("engine", ["submitit", "ray"])
def test_a_cluster_s_engine_performs_runs_in_processes_of_its_own(engine, home, monkeypatch):
    package = pytest.importorskip(engine)
    monkeypatch.setenv("SFTRL_HOME", str(home))
    monkeypatch.setenv("PYTHONPATH", ":".join([str(paths.ROOT), str(paths.ROOT / "tests"), *filter(None, sys.path)]))
    executor = (
        Submitit(note, "smoke", Resources(), "local") if engine == "submitit" else Ray(note, "smoke", Resources())
    )
    try:
        left = grid.work(executor, chosen(), workers=2)
    finally:
        if engine == "ray":
            package.shutdown()
    assert left[0] == "04_init-gp-l-init-s0" and "05_train-gp-l-rl-main-s0" in left
    assert (home / "03_expert_data-gp-l").exists() and not (home / "05_train-gp-l-rl-main-s0").exists()
    assert (home / "05_train-gp-l-rl_no_init-no_init-lr0.001-s0").exists()
    assert {record["run"] for record in timings.timings("smoke") if record["ok"]} >= {"grid-gp-l"}


@pytest.mark.parametrize("engine", ["submitit", "ray"])
def test_an_engine_that_is_not_installed_is_named(engine, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, engine, None)
    assert grid.main(["--profile", "smoke", "--executor", engine]) == 2
    assert f"pip install {engine}" in capsys.readouterr().err
