"""Paths of any name, folders of an installed package, and make in a checkout with any name."""

import os
import runpy
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import gone, until

from sftrl_lib import paths, pipeline
from sftrl_lib.experiments import Arm, Experiment
from sftrl_lib.jobs import Job
from sftrl_lib.profiles import SMOKE
from sftrl_lib.runs import Run

ODD = """a;b=c|d"e~f`g #h%'i (j)&k\\l"""  # what a folder may be called and make, a shell or an URL reads otherwise
DOLLARS = "$HOME ${PATH} {x}"


# Names


@pytest.mark.parametrize("name", ["", ".", "..", "../evil", "a/b", "/", "a\0b", "a\\b"])
def test_no_name_leads_out_of_the_folders(name):
    for folder in (paths.build, paths.results, paths.figures, paths.data, paths.pictures):
        with pytest.raises(ValueError, match="cannot name"):
            folder(name)
    for folder in (paths.run_folder, paths.test_folder):
        with pytest.raises(ValueError, match="cannot name"):
            folder("smoke", name)


@pytest.mark.parametrize("seed", [-1, 2**32, 10**30, True, 1.5, "0", "0/../../../../evil", None])
def test_a_seed_that_numpy_does_not_take_is_refused_before_there_is_a_folder(home, seed):
    with pytest.raises(ValueError, match="A seed is a whole number from 0 to 2"):
        Run(SMOKE, "gp-l", "rl", seed=seed)
    assert not (home / "build").exists()


@pytest.mark.parametrize("lr", ["1e999", "nan", "-inf", "0"])
def test_a_setting_that_is_no_finite_number_is_refused(lr):
    with pytest.raises(ValueError, match="PPOConfig.lr must be"):
        Run(SMOKE, "gp-l", "rl_no_init", "no_init", f"lr={lr}")


def test_the_name_of_a_run_is_one_plain_folder_whatever_its_setting(home):
    """Models go by paths, which may have any character and length; two of them never share a name."""
    models = ["../../evil", "a:b", "a b", "a$b", "a`b", "é/ü", "x" * 300, "x" * 301, "/home/me/a;b"]
    other = Experiment("other", "", tuple(Arm("rl", ({"foundation": model},)) for model in models[:1]))
    study = replace(SMOKE.study("gp-l"), experiments=(*SMOKE.study("gp-l").experiments, other))
    profile = replace(SMOKE, name="others", studies=(study,))
    runs = [Run(profile, "gp-l", "rl", "other", f"foundation={m}") for m in models if not set(m) & set("=;")]
    runs += [Run(profile, "gp-l", "rl", "other", f"foundation={m}") for m in ("a_b", "a-b")]
    assert len({run.name for run in runs}) == len(runs)
    for run in runs:
        assert not set(run.name) - set("abcdefghijklmnopqrstuvwxyz0123456789_.+-") and len(run.name) < 200
        assert run.folder.resolve().parent == (home / "build" / "others" / "runs").resolve()


# Where everything is written


@pytest.mark.parametrize("given", ["", " "])
def test_an_empty_home_is_the_checkout(monkeypatch, given):
    monkeypatch.setenv("SFTRL_HOME", given)
    assert runpy.run_path(paths.__file__)["HOME"] == Path(paths.__file__).parents[1]


def test_what_came_with_the_checkout_is_brought_to_a_home_elsewhere_once(tmp_path, monkeypatch):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(paths, "ROOT", tmp_path / "here")
    monkeypatch.setattr(paths, "HOME", tmp_path / "there")
    came = tmp_path / "here" / "results" / "laptop"
    came.mkdir(parents=True)
    (came / "metrics.csv").write_text("came", encoding="utf-8")
    for _ in range(2):
        paths.bring("laptop")
        assert (paths.results("laptop") / "metrics.csv").read_text(encoding="utf-8") == "came"
        (came / "metrics.csv").write_text("newer", encoding="utf-8")
    paths.bring("smoke")
    assert not paths.results("smoke").exists() and not paths.figures("laptop").exists()


def test_a_home_is_taken_as_it_is_written(monkeypatch, tmp_path):
    for name in (ODD, DOLLARS):
        monkeypatch.setenv("SFTRL_HOME", str(tmp_path / name))
        assert runpy.run_path(paths.__file__)["HOME"] == tmp_path / name
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SFTRL_HOME", "~/x")
    assert runpy.run_path(paths.__file__)["HOME"] == tmp_path / "x"


def test_an_installed_package_writes_to_the_user_s_folder_and_asks_for_a_checkout(tmp_path):
    site = tmp_path / "site-packages"
    left_out = shutil.ignore_patterns("__pycache__", "shipped")
    shutil.copytree(paths.PACKAGE, site / "sftrl_lib", ignore=left_out)
    (site / "notebooks").mkdir()  # of another package
    before = sorted(site.rglob("*"))
    environment = {name: value for name, value in os.environ.items() if name not in ("SFTRL_HOME", "SFTRL_EXTENSIONS")}
    environment |= {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", "XDG_DATA_HOME": str(tmp_path / "data")}

    def python(*arguments):
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8")

    where = python("-c", "from sftrl_lib import paths, doctor; print(paths.HOME); print(doctor.check_packages())")
    assert where.stdout.splitlines()[0] == str(tmp_path / "data" / "sftrl") and "not a checkout" in where.stdout
    environment["XDG_DATA_HOME"] = "relative"
    environment["HOME"] = str(tmp_path / "me")
    home = python("-c", "from sftrl_lib import paths; print(paths.HOME)").stdout
    assert home.startswith(str(tmp_path / "me")) and home.endswith("sftrl\n")
    for command in (["list"], ["rules", "--profile", "smoke"], ["run", "07_results"]):
        refused = python("-m", "sftrl_lib.pipeline", *command)
        [message] = refused.stderr.splitlines()
        assert refused.returncode == 2 and "needs the notebooks" in message and "clone the repository" in message
    assert sorted(site.rglob("*")) == before


# make, in a checkout and with a home of any name


STUB = """#!/bin/sh
case "$*" in
*--packages*) exit 0 ;;
*"pipeline rules"*) mkdir -p "$SFTRL_HOME/build/smoke" && cp "$RULES" "$SFTRL_HOME/build/smoke/rules.mk" ;;
*"pipeline jobs"*) echo 2 ;;
*) { pwd; echo "$SFTRL_HOME"; for word; do echo "$word"; done; } >> "$SFTRL_HOME/said" ;;
esac
"""


def checkout(folder, rules="all:\n"):
    """A checkout with a conda environment whose python is a stub; the environment for make in it."""
    python = folder / "conda" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STUB, encoding="utf-8")
    python.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(Path(paths.__file__).parents[1] / name, folder)
    (folder / "rules").write_text(rules, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONDA", "MAKE", "SFTRL"))}
    return kept | {"CONDA_PREFIX": str(folder / "conda"), "RULES": str(folder / "rules")}


def make(folder, environment, *arguments):
    command = ["make", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8")


@pytest.mark.parametrize("apart", ["", f"{ODD}:{DOLLARS}"])
def test_every_job_runs_in_a_checkout_and_home_of_any_name(tmp_path, monkeypatch, apart):
    root = tmp_path / f"{ODD}{DOLLARS}"
    environment = checkout(root)
    home = tmp_path / apart if apart else root
    environment |= {"SFTRL_HOME": str(home)} if apart else {}
    for name, value in (("ROOT", root), ("HOME", home)):
        monkeypatch.setattr(paths, name, value)
    monkeypatch.setattr(sys, "executable", str(root / "conda" / "bin" / "python"))
    chosen = [Job("a-lr0.1", "a.ipynb", {}), Job("b $1#", "b.ipynb", {"seeds": [7]}, ("a-lr0.1",))]
    (root / "rules").write_text(pipeline.rules(SMOKE, chosen, SMOKE.studies), encoding="utf-8")
    for job in chosen:
        identity = home / "build" / "smoke" / "identities" / f"{job.name}.json"
        identity.parent.mkdir(parents=True, exist_ok=True)
        identity.touch()
    done = make(root, environment, "reproduce", "PROFILE=smoke", "-j1")
    assert done.returncode == 0, done.stderr
    said = (home / "said").read_text(encoding="utf-8").splitlines()
    tasks = " ".join(study.task.label for study in SMOKE.studies)
    options = ["--profile", "smoke", "--tasks", tasks, "--seeds", "7"]
    expected = []
    for words in (*(["run", job.name, *options] for job in chosen), ["report", "--profile", "smoke"]):
        expected += [str(root), str(home), "-m", "sftrl_lib.pipeline", *words]
    assert said == expected


@pytest.mark.parametrize("home", ["", " ", "out", f"{ODD}:{DOLLARS}"])
def test_clean_deletes_what_the_profile_built_there_and_nothing_else(tmp_path, home):
    root = tmp_path / "checkout"
    environment = checkout(root) | {"SFTRL_HOME": home}
    base = root / home if home.strip() else root
    for name in ("build/tested/x", "build/smoke/x", "results/tested/x"):
        (base / name).mkdir(parents=True)
    done = make(root, environment, "clean", "PROFILE=tested")
    assert done.returncode == 0 and str(Path(home or root) / "build" / "tested").strip() in done.stderr
    left = {str(path.relative_to(base)) for path in base.rglob("x")}
    assert left == {"build/smoke/x", "results/tested/x"}
    assert make(root, environment, "-n", "clean", "SFTRL_HOME=").stdout.count('"$SFTRL_HOME/build/laptop"') == 1


@pytest.mark.parametrize("name, target, word", [("a:b", "help", "a colon"), ("a$b", "env", "a dollar or a brace")])
def test_what_python_cannot_have_in_a_path_is_one_sentence(tmp_path, name, target, word):
    environment = checkout(tmp_path / name)
    done = make(tmp_path / name, environment | {"CONDA_PREFIX": "", "PYTHON": "false"}, target)
    [message] = done.stderr.splitlines()
    assert done.returncode == 2 and word in message and "rename" in message and name in message
    assert not (tmp_path / name / ".venv").exists()


def test_a_tilde_that_no_shell_has_expanded_is_refused(tmp_path):
    environment = checkout(tmp_path / "checkout")
    done = make(tmp_path / "checkout", environment | {"SFTRL_HOME": "~/x"}, "clean")
    assert done.returncode == 2 and "write the whole path" in done.stderr


def test_a_home_that_datasets_would_split_is_refused(home, monkeypatch, capsys):
    monkeypatch.setattr(paths, "HOME", home / "a::b")
    assert pipeline.main(["rules", "--profile", "smoke"]) == 2
    [message] = capsys.readouterr().err.splitlines()
    assert "a::b" in message and "rename the folder" in message and not (home / "a::b").exists()


@pytest.mark.parametrize("goal", ["reproduce", "smoke"])
def test_sigterm_to_make_ends_what_it_has_started(tmp_path, goal):
    rules = 'all: x\nx:\n\t@echo $$$$ > "$$SFTRL_HOME/pid"; exec sleep 60\n'
    environment = checkout(tmp_path / "checkout", rules) | {"PROFILE": "smoke"}
    pid = tmp_path / "checkout" / "pid"
    outer = subprocess.Popen(["make", goal], cwd=tmp_path / "checkout", env=environment, stderr=subprocess.DEVNULL)
    until(lambda: pid.exists() and pid.read_text(encoding="utf-8").strip())
    outer.send_signal(signal.SIGTERM)
    assert outer.wait() != 0
    until(lambda: gone(int(pid.read_text(encoding="utf-8"))))
