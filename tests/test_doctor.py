"""The doctor finds what is wrong, says how to fix it, and runs where nothing is installed."""

import os
import subprocess
import sys
from collections import namedtuple
from importlib import metadata

import pytest

from sftrl_lib import doctor, paths

usage = namedtuple("usage", "total used free", defaults=(0, 0, 0))


def test_runs_without_any_package():
    """-S and -I hide site-packages, as on a machine that has only Python."""
    command = [sys.executable, "-I", "-S", doctor.__file__]
    report = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=doctor.ROOT)
    assert report.returncode == 1 and "Traceback" not in report.stderr
    (packages,) = (line for line in report.stdout.splitlines() if line.split()[1] == "packages")
    assert packages.startswith("fail") and "-> make env" in report.stdout
    only = subprocess.run([*command, "--packages"], capture_output=True, encoding="utf-8")
    assert only.returncode == 1 and not only.stdout


def test_every_line_is_ok_or_says_how_to_fix_it():
    for check in (check() for check in doctor.CHECKS):
        assert check.status in ("ok", "warn", "fail") and check.name and check.found
        assert bool(check.fix) == (check.status != "ok")


def test_exit_status_counts_failures_only(monkeypatch, capsys):
    good, poor = doctor.Check("ok", "a", "fine"), doctor.Check("warn", "b", "meh", "do this")
    bad = doctor.Check("fail", "c", "broken", "do that")
    for checks, status in (((good,), 0), ((good, poor), 0), ((good, bad), 1)):
        monkeypatch.setattr(doctor, "CHECKS", [lambda check=check: check for check in checks])
        assert doctor.main([]) == status
    assert "-> do that" in capsys.readouterr().out
    assert doctor.main(["--help-me"]) == 2


def test_packages_missing_or_of_another_version(monkeypatch):
    monkeypatch.setattr(doctor, "locked", lambda: {"pytest": metadata.version("pytest")})
    assert doctor.check_packages().status == "ok"
    monkeypatch.setattr(doctor, "locked", lambda: {"pytest": "0.1"})
    check = doctor.check_packages()
    assert check.status == "warn" and "locked 0.1" in check.found
    monkeypatch.setattr(doctor, "locked", lambda: {"no-such-package-here": "1.0"})
    assert doctor.check_packages().status == "fail"


def test_a_local_version_counts_as_the_locked_one(monkeypatch):
    monkeypatch.setattr(doctor, "locked", lambda: {"torch": "2.13.0"})
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "2.13.0+cpu")
    assert doctor.check_packages().status == "ok"


@pytest.mark.parametrize("free, status", [(8.0, "ok"), (2.0, "fail"), (5.0, "warn"), (0.5, "fail")])
def test_memory(monkeypatch, free, status):
    monkeypatch.setattr(doctor, "memory", lambda: (8.0, free))
    assert doctor.check_memory().status == status


def test_more_threads_than_cores(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", str(doctor.cores() + 1))
    assert "unset OMP_NUM_THREADS" in doctor.check_cores().fix


def test_an_old_python(monkeypatch):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 9, 1))
    assert doctor.check_python().status == "fail"


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "build").write_text("a file where the folder belongs", encoding="utf-8")
    monkeypatch.setattr(doctor, "HOME", tmp_path)
    check = doctor.check_writing()
    assert check.status == "fail" and str(tmp_path / "build") in check.found


def test_gpu_that_torch_cannot_use(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho Some GPU\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "2.13.0+cpu")
    assert doctor.check_gpu().status == "warn" and "Some GPU" in doctor.check_gpu().found
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "2.13.0+cu130")
    assert doctor.check_gpu().status == "ok"


def test_the_shipped_models_are_found(monkeypatch, tmp_path):
    assert doctor.check_model() == doctor.Check("ok", "foundation", "gp-l, gp-vl, virl-l, virl-vl")
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    missing = doctor.check_model()
    assert (missing.status, missing.fix) == ("fail", "make foundation") and "gp-l is missing" in missing.found


def test_home_and_checkout_are_those_of_the_library():
    assert (doctor.HOME, doctor.ROOT) == (paths.HOME, paths.ROOT)


def test_a_home_that_does_not_exist_yet_counts_as_the_disk_it_will_be_on(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: seen.append(folder) or usage(free=9 << 30))
    monkeypatch.setattr(doctor, "HOME", tmp_path / "not" / "yet")
    assert doctor.check_disk().status == "ok" and seen == [str(tmp_path)]


def test_an_installed_package_is_told_to_use_a_checkout(monkeypatch):
    monkeypatch.setattr(doctor, "locked", lambda: {})
    assert doctor.check_packages().fix == "git checkout requirements.lock"
    monkeypatch.setitem(doctor.PATHS, "is_checkout", lambda: False)
    check = doctor.check_packages()
    assert check.status == "warn" and "clone the repository" in check.fix
