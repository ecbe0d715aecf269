"""pyproject.toml, requirements.lock and environment.yml describe one environment, and make builds it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from waiting import until

from sftrl_lib import __version__, doctor, paths

PROJECT = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = [
    Requirement(line)
    for name, group in {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}.items()
    for line in group
    if name != "book"
]
LOCKED = doctor.locked()


def test_lock_is_pins_only_and_portable():
    lines = (paths.ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in pins)
    assert pins == sorted(pins, key=lambda line: line.split("==")[0]) and len(LOCKED) == len(pins)
    assert LOCKED["torch"] == "2.13.0"
    assert not [name for name in LOCKED if name.startswith(("nvidia", "triton", "cuda"))]


def test_lock_satisfies_every_declared_dependency():
    for needed in DECLARED:
        assert needed.specifier.contains(LOCKED[canonicalize_name(needed.name)]), needed


def test_lock_installs_on_every_python_that_is_declared():
    """On the first of them as well: a distribution's own Python 3.11 may be 3.11.0."""
    first = PROJECT["requires-python"].removeprefix(">=") + ".0"
    for name in LOCKED:
        needed = metadata.metadata(name)["Requires-Python"] or ""
        assert SpecifierSet(needed).contains(first), f"{name} {LOCKED[name]} needs Python {needed}"


def test_what_only_the_book_needs_is_pinned_where_it_is_declared():
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", line) for line in PROJECT["optional-dependencies"]["book"])


def test_lock_is_complete():
    """What the installed packages of the lock need is in the lock too."""
    for name in LOCKED:
        extras = {extra for needed in DECLARED if needed.name == name for extra in needed.extras}
        for line in metadata.requires(name) or ():
            needed = Requirement(line)
            environments = [{"extra": extra} for extra in ("", *extras)]
            if needed.marker is None or any(needed.marker.evaluate(one) for one in environments):
                assert canonicalize_name(needed.name) in LOCKED, f"{name} needs {needed}"


def test_conda_environment_installs_the_lock():
    conda = yaml.safe_load((paths.ROOT / "environment.yml").read_text(encoding="utf-8"))
    (python,) = (item for item in conda["dependencies"] if str(item).startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))
    (pip,) = (item["pip"] for item in conda["dependencies"] if isinstance(item, dict))
    assert pip == ["-r requirements.lock", "-e ."] and conda["channels"] == ["conda-forge"]


def test_uv_installs_the_same_versions_from_the_same_index():
    text = (paths.ROOT / "uv.lock").read_text(encoding="utf-8")
    versions, packages = {}, tomllib.loads(text)["package"]
    [own] = [package["metadata"] for package in packages if package["name"] == PROJECT["name"]]
    assert set(own["provides-extras"]) == set(PROJECT["optional-dependencies"]), "run uv lock"
    listed = {needed["name"] for needed in own["requires-dist"]}
    assert listed >= {canonicalize_name(needed.name) for needed in DECLARED}, "run uv lock"
    for package in packages:
        versions.setdefault(package["name"], set()).add(package.get("version"))
    assert {name: versions[name] for name in LOCKED} == {name: {version} for name, version in LOCKED.items()}
    assert set(re.findall(r'registry = "([^"]*)"', text)) == {"https://pypi.org/simple"}


def test_containers_run_a_python_that_is_declared():
    for file in ("Dockerfile", ".devcontainer/Dockerfile"):
        [image] = re.findall(r"^FROM (.*)$", (paths.ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
        version = re.fullmatch(r"python:(\d+\.\d+)-slim-bookworm", image)[1]
        assert SpecifierSet(PROJECT["requires-python"]).contains(version)
    settings = json.loads((paths.ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert (paths.ROOT / ".devcontainer" / settings["build"]["dockerfile"]).is_file()


def test_versions_and_licences_agree():
    citation = yaml.safe_load((paths.ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["version"] == citation["version"] == __version__
    assert PROJECT["license"] == citation["license"] == "Apache-2.0"
    assert "Apache License" in (paths.ROOT / "LICENSE").read_text(encoding="utf-8")


@pytest.fixture
def checkout(tmp_path):
    """A checkout as `make env` sees it, with a pip that only notes what it is asked, and no conda."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(paths.ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(
        """#!/bin/sh
case "$*" in
*version_info*) exit ${OLD:-0} ;;
*ensurepip*) exit ${BARE:-0} ;;
*"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
*fcntl*) exec "$REAL" "$@" ;;
*"-m pip"*) echo "$*" >> pip.log; sleep ${SLOW:-0}; case "$*" in *"$FAIL_AT"*) exit ${FAIL:-0} ;; esac ;;
esac
""",
        encoding="utf-8",
    )
    python.chmod(0o755)
    return tmp_path


def start_env(checkout, **extra):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CONDA", "MAKE"))}
    environment |= {"FAIL_AT": "-", "REAL": sys.executable, **extra}
    command = ["make", "env", f"PYTHON={checkout / 'python'}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    return subprocess.Popen(command, cwd=checkout, env=environment, start_new_session=True, **pipes)


def make_env(checkout, **extra):
    process = start_env(checkout, **extra)
    said, complained = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, said, complained)


def pip_calls(checkout):
    log = checkout / "pip.log"
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def test_env_installs_torch_first_then_the_lock_then_the_package_once(checkout):
    assert make_env(checkout).returncode == 0
    first, second, third = pip_calls(checkout)
    assert first.endswith("-c requirements.lock torch") and second.endswith("-r requirements.lock")
    assert "--no-deps" in third and third.endswith("-e .")
    assert make_env(checkout).returncode == 0 and len(pip_calls(checkout)) == 3


def test_env_is_brought_up_to_date_when_the_lock_changes(checkout):
    make_env(checkout)
    later = (checkout / ".venv" / "ready").stat().st_mtime + 10
    os.utime(checkout / "requirements.lock", (later, later))
    make_env(checkout)
    assert len(pip_calls(checkout)) == 6


def test_half_made_env_is_thrown_away(checkout):
    failed = make_env(checkout, FAIL_AT="requirements.lock", FAIL="1")
    assert failed.returncode == 2 and "is PyPI in reach" in failed.stderr
    assert not (checkout / ".venv" / "ready").exists()
    (checkout / ".venv" / "half a package").touch()
    assert make_env(checkout).returncode == 0
    assert (checkout / ".venv" / "ready").exists() and not (checkout / ".venv" / "half a package").exists()


@pytest.mark.parametrize("lack, sentence", [("OLD", "Python 3.11 or newer"), ("BARE", "apt install python3-venv")])
def test_unfit_python_is_explained(checkout, lack, sentence):
    done = make_env(checkout, **{lack: "1"})
    assert done.returncode == 2 and sentence in done.stderr and not (checkout / ".venv").exists()


def test_of_two_that_build_at_once_one_waits_and_finds_it_done(checkout):
    first = start_env(checkout, SLOW="0.5")
    until(lambda: pip_calls(checkout))
    second = make_env(checkout)
    assert second.returncode == 0 and "Another make is building .venv: waiting" in second.stdout
    assert first.wait() == 0 and "waiting" not in first.communicate()[0]
    assert len(pip_calls(checkout)) == 3 and (checkout / ".venv" / "ready").exists()


def test_the_lock_of_one_that_was_killed_holds_nobody_up(checkout):
    killed = start_env(checkout, SLOW="30")
    until(lambda: pip_calls(checkout))
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    after = make_env(checkout)
    assert after.returncode == 0 and "waiting" not in after.stdout
    assert len(pip_calls(checkout)) == 4 and (checkout / ".venv" / "ready").exists()
