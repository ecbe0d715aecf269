"""Check that this machine is ready: one line per check, with a fix for each problem.

Uses only the standard library and also runs as a script under an old Python, because it is for when nothing else
works: ``python sftrl_lib/doctor.py``. With ``--packages`` the exit status alone tells whether every package of
requirements.lock is installed; the Makefile checks an active conda environment this way.
"""

from __future__ import annotations

import os
import platform
import runpy
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

PATHS = runpy.run_path(str(Path(__file__).resolve().with_name("paths.py")))  # a script cannot import its siblings
ROOT, HOME = PATHS["ROOT"], PATHS["HOME"]
GIB = 1 << 30


class Check(NamedTuple):
    """One line of the doctor's report."""

    status: str  # ok, warn or fail
    name: str
    found: str
    fix: str = ""  # how to fix it, unless ok


def cores() -> int:
    """CPU cores that this process may use, limited by its affinity and its container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _first_line("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        count = min(count, -(-int(quota[0]) // int(quota[1])))
    return max(1, count)


def memory() -> tuple[float, float]:
    """Total and free memory in GiB, within a container's limit; (0, 0) if unknown."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0.0, 0.0
    limit, used = _first_line("/sys/fs/cgroup/memory.max"), _first_line("/sys/fs/cgroup/memory.current")
    free = total
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    if limit.isdigit() and int(limit) < total:
        total, free = int(limit), min(free, int(limit) - int(used or 0))
    return total / GIB, free / GIB


def locked() -> dict:
    """Name -> version of every package in requirements.lock."""
    lines = (line.split("#")[0].strip() for line in _read(ROOT / "requirements.lock").splitlines())
    return dict(line.split("==") for line in lines if "==" in line)


def check_python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < (3, 11):  # noqa: UP036 - the only branch for an old Python
        return Check("fail", "Python", found, "install Python 3.11 or newer, or name it: make PYTHON=...")
    if util.find_spec("ensurepip") is None and not (ROOT / ".venv" / "ready").exists():
        found += ", without ensurepip"
        return Check("fail", "Python", found, "on Debian or Ubuntu: apt install python3-venv")
    return Check("ok", "Python", found)


def check_packages() -> Check:
    """The installed packages against requirements.lock."""
    pins, other, missing = locked(), [], []
    if not pins and not PATHS["is_checkout"]():
        fix = "clone the repository: its notebooks, which make runs, do not come with the installed package"
        return Check("warn", "packages", "unknown: not a checkout", fix)
    if not pins:
        return Check("fail", "packages", "requirements.lock is missing", "git checkout requirements.lock")
    for name, version in pins.items():
        try:
            have = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if have.split("+")[0] != version:
            other.append(f"{name} {have} (locked {version})")
    if missing:
        few = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
        return Check("fail", "packages", f"{len(missing)} of {len(pins)} are missing: {few}", "make env")
    if other:
        return Check("warn", "packages", "; ".join(other), "make env; with other versions the numbers may differ")
    return Check("ok", "packages", f"all {len(pins)} as locked")


def check_cores() -> Check:
    count, asked = cores(), os.environ.get("OMP_NUM_THREADS", "")
    found = f"{count} of {os.cpu_count()} usable" + (f", OMP_NUM_THREADS={asked}" if asked else "")
    if asked.isdigit() and int(asked) > count:
        return Check("warn", "cores", found, "unset OMP_NUM_THREADS: more threads than cores are slower")
    if count < 2:
        return Check("warn", "cores", found, "one core works; expect twice the time the README gives for two")
    return Check("ok", "cores", found)


def check_memory() -> Check:
    total, free = memory()
    found = f"{free:.1f} of {total:.1f} GB free"
    if not total:
        return Check("warn", "memory", "unknown on this system", "make sure that 6 GB are free for two cores")
    if free < 3:
        return Check("fail", "memory", found, "close other programs: a notebook can need 3 GB")
    if free < 6:
        return Check("warn", "memory", found, "run one notebook at a time (make -j1) or close other programs")
    return Check("ok", "memory", found)


def check_disk() -> Check:
    there = next(folder for folder in (HOME, *HOME.parents) if os.path.exists(folder))
    free = shutil.disk_usage(str(there)).free / GIB
    if free < 3:
        return Check("fail", "disk", f"{free:.1f} GB free", "free 3 GB, or set SFTRL_HOME to a folder with more space")
    return Check("ok", "disk", f"{free:.0f} GB free")


def check_gpu() -> Check:
    """A GPU is optional; the smoke and laptop profiles need none."""
    names = ""
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        try:
            names = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=20).stdout
            names = names.strip()
        except (OSError, subprocess.SubprocessError):
            names = ""
    if not names:
        return Check("ok", "GPU", "none; smoke and laptop need none")
    found = ", ".join(names.splitlines())
    try:
        build = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return Check("ok", "GPU", found)
    if "cpu" in build:
        found += f", but torch {build} cannot use it"
        return Check("warn", "GPU", found, f"install the CUDA build of torch {locked().get('torch', build)} into .venv")
    return Check("ok", "GPU", found)


def check_tools() -> Check:
    missing = [tool for tool in ("git", "make") if shutil.which(tool) is None]
    if missing:
        return Check("fail", "tools", f"no {' and no '.join(missing)}", "install " + " and ".join(missing))
    version = subprocess.run(["git", "--version"], capture_output=True, encoding="utf-8").stdout.strip()
    return Check("ok", "tools", f"{version}, make")


def check_writing() -> Check:
    for name in ("build", "results", "figures"):
        folder = HOME / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=str(folder)).close()
        except OSError as problem:
            fix = "change the folder's owner or mode, or set SFTRL_HOME to a writable folder"
            return Check("fail", "writing", f"{folder}: {problem.strerror}", fix)
    return Check("ok", "writing", f"build, results and figures in {HOME}")


def check_malloc() -> Check:
    """By default glibc returns large blocks to the system at once, so every update page-faults its tensors again."""
    if platform.libc_ver()[0] != "glibc":
        return Check("ok", "malloc", "not glibc, nothing to set")
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ or "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        fix = "run through make, or export the MALLOC_ lines of the Makefile; otherwise training is slower"
        return Check("warn", "malloc", "glibc without the MALLOC_ thresholds", fix)
    return Check("ok", "malloc", "glibc keeps large blocks")


def check_model() -> Check:
    shipped = ROOT / "sftrl_lib" / "foundation" / "shipped"
    found = sorted(path.parent.name for path in shipped.glob("*/config.json"))
    if missing := sorted({"gp-l", "gp-vl", "virl-l", "virl-vl"} - set(found)):
        return Check("fail", "foundation", f"the shipped model {missing[0]} is missing", "make foundation")
    return Check("ok", "foundation", ", ".join(found))


CHECKS = (
    check_python,
    check_packages,
    check_cores,
    check_memory,
    check_disk,
    check_gpu,
    check_tools,
    check_writing,
    check_malloc,
    check_model,
)


def main(arguments: list | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--packages"]:
        return int(check_packages().status == "fail")
    if arguments:
        print(f"Unknown option {arguments[0]!r}; use --packages or none.", file=sys.stderr)
        return 2
    results = [check() for check in CHECKS]
    for check in results:
        print(f"{check.status:5} {check.name:11} {check.found}")
        if check.fix:
            print(f"{'':17} -> {check.fix}")
    failed = sum(check.status == "fail" for check in results)
    warned = sum(check.status == "warn" for check in results)
    print("Ready." if not failed + warned else f"{failed} failed, {warned} with a warning.")
    return int(failed > 0)


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def _first_line(path: str) -> str:
    return (_read(path).splitlines() or [""])[0].strip()


if __name__ == "__main__":
    sys.exit(main())
