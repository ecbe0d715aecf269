"""Execute one job with papermill, in a kernel of this very interpreter, and account for its time and memory.

papermill alone carries on with a mistyped parameter and leaves a half-executed notebook where the finished one
belongs. Here an unknown parameter is an error before anything starts, the notebook is executed under a hidden
name and gets its own only when its last cell has run, and a failed one is kept as ``<job>.failed.ipynb``.
"""

from __future__ import annotations

import ast
import fcntl
import json
import logging
import os
import re
import resource
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from . import doctor, fingerprint, paths

if TYPE_CHECKING:
    from .jobs import Job

# papermill imports jsonschema, which would spend two seconds per job on compiling a grammar that no notebook needs.
sys.modules.setdefault("rfc3987_syntax", None)

START_TIMEOUT = 180  # seconds a kernel may take to come up; several start at once on a slow disk
MEMORY_PER_JOB = 3.0  # GB that one job may need at its peak (2.8 measured, laptop); bounds the jobs side by side


class RunFailed(RuntimeError):
    """A job did not finish; the message says where and why, `code` is the exit status."""

    def __init__(self, message: str, code: int = 1):
        super().__init__(message)
        self.code = code


def side_by_side() -> int:
    """How many jobs this machine can run at a time."""
    fitting = int(doctor.memory()[0] // MEMORY_PER_JOB)
    return max(1, min(doctor.cores(), fitting)) if fitting else 1


def threads(makeflags: str, cores: int) -> int:
    """Threads of one job: an equal share of the cores among make's jobs, all of them when it runs alone."""
    given = re.search(r"(?:^|\s)(?:-j|--jobs=?)\s?(\d*)", makeflags)
    if not given:
        return cores
    return max(1, cores // int(given[1])) if given[1] else 1


def check_parameters(job: Job) -> None:
    """Raises ValueError unless the notebook of `job` exists and declares every parameter that `job` sets."""
    declared = parameters(job.notebook)
    unknown = [name for name in job.parameters if name not in declared]
    if unknown:
        known = ", ".join(declared) or "none, for want of a cell tagged `parameters`"
        raise ValueError(f"notebooks/{job.notebook} has no parameter {unknown[0]!r}; it has {known}.")


def parameters(notebook: str) -> list[str]:
    """The names that a notebook's first cell tagged `parameters` assigns.

    Read from the syntax tree, because an equals sign in a comment defeats the pattern of
    `papermill.inspect_notebook`. Raises ValueError if the notebook is missing or damaged.
    """
    path = paths.NOTEBOOKS / notebook
    if not path.is_file():
        raise ValueError(f"notebooks/{notebook} does not exist.")
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", ())]
        tree = ast.parse("".join(tagged[0]["source"]) if tagged else "")
    except (ValueError, KeyError, SyntaxError) as problem:
        raise ValueError(f"notebooks/{notebook} is not a Python notebook: {_one_line(problem)}") from None
    targets = [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    targets += [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def execute(job: Job, profile: str, began: float | None = None) -> Path:
    """Execute `job` and return the path of the executed notebook.

    `began`: the time (seconds since the epoch) from which to count; now, if None. Raises ValueError before it
    starts if a parameter is unknown; RunFailed if a cell fails, the kernel dies, the job is interrupted, or
    another process is at the same job.
    """
    check_parameters(job)
    began = began or time.time()
    folder = paths.build(profile)
    folder.mkdir(parents=True, exist_ok=True)
    done, failed = folder / f"{job.name}.ipynb", folder / f"{job.name}.failed.ipynb"
    partial = folder / f".{job.name}.partial.ipynb"
    share = threads(os.environ.get("MAKEFLAGS", ""), doctor.cores())
    os.environ.setdefault("OMP_NUM_THREADS", str(share))
    os.environ["SFTRL_HOME"] = str(paths.HOME)  # absolute: the kernel works in notebooks/
    with open(partial, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFailed(f"{job.name} is being executed by another process; wait for it.") from None
        _say(f"{job.name} starts")
        failure = _papermill(job, partial)
        if failure:
            os.replace(partial, failed)
        else:
            failed.unlink(missing_ok=True)
            os.replace(partial, done)
    record = {
        "run": job.name,
        "ok": failure is None,
        "started": round(began, 1),
        "seconds": round(time.time() - began, 1),
        "peak_rss_mb": round(_peak_memory()),
        "threads": int(os.environ["OMP_NUM_THREADS"]),
        "library": fingerprint.library(),
    }
    with open(folder / "timings.jsonl", "a", encoding="utf-8") as log:
        log.write(json.dumps(record) + "\n")
    if failure:
        raise RunFailed(f"{failure}\n  what it did until then: {shorter(failed)}", failure.code)
    _say(f"{job.name} done in {_clock(record['seconds'])}, {record['peak_rss_mb']:,} MB at its peak")
    return done


def _papermill(job: Job, output: Path) -> RunFailed | None:
    """Execute the notebook of `job` into `output`; what went wrong, if something did."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    logging.getLogger("papermill").setLevel(logging.ERROR)  # what it warns of is an error in `check_parameters`
    try:
        papermill.execute_notebook(
            paths.NOTEBOOKS / job.notebook,
            output,
            job.parameters,
            kernel_name="python3",
            language="python",
            kernel_manager_class=_kernel_manager(),
            start_timeout=START_TIMEOUT,
            progress_bar=False,
            cwd=paths.NOTEBOOKS,
        )
    except papermill.PapermillExecutionError as error:
        place = f"{job.name} failed in [{error.exec_count}]"
        return RunFailed(f"{place}: {error.ename}: {_one_line(error.evalue)}")
    except KeyboardInterrupt:
        return RunFailed(f"{job.name} was interrupted; run the same command again to resume.", 130)
    except DeadKernelError:
        return RunFailed(
            f"{job.name}: its Python process was killed, as happens when a machine runs out of memory; close"
            " other programs or run fewer at a time (make -j1). Run the same command again to resume.",
            137,
        )
    except RuntimeError as error:  # the kernel did not come up
        return RunFailed(f"{job.name} could not be executed: {_one_line(error)}")
    return None


def _kernel_manager() -> type:
    """A kernel manager that starts this interpreter, whatever kernels are installed."""
    import zmq
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec
    from traitlets import default

    class ThisInterpreter(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(**get_kernel_dict(["--log-level=CRITICAL"]))

        @default("transport_encryption")
        def _encrypt(self) -> str:
            return "auto" if zmq.has("curve") else "disabled"

    return ThisInterpreter


def _peak_memory() -> float:
    """The most memory, in MB, that any process started here and now finished has held."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


def timings(profile: str) -> list[dict]:
    """The last execution of each run: run, ok, started (epoch), seconds, peak_rss_mb, threads, library."""
    path, last = paths.build(profile) / "timings.jsonl", {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with suppress(ValueError):  # a machine that loses power leaves half a line
            record = json.loads(line)
            last[record["run"]] = record
    return list(last.values())


def summary(profile: str) -> dict:
    """What the runs of a profile took.

    Returns runs, wall_seconds (time in which at least one was running), run_seconds (added up), longest (its
    name), longest_seconds, peak_rss_mb (the largest run), older (runs made by other library code than there is now).
    Raises ValueError if nothing has run.
    """
    records = timings(profile)
    if not records:
        raise ValueError(f"No run of the profile {profile!r} has finished; there is nothing to summarise.")
    wall, reached = 0.0, float("-inf")
    for record in sorted(records, key=lambda record: record["started"]):
        ended = record["started"] + record["seconds"]
        wall += max(0.0, ended - max(reached, record["started"]))
        reached = max(reached, ended)
    longest, version = max(records, key=lambda record: record["seconds"]), fingerprint.library()
    return {
        "runs": len(records),
        "wall_seconds": round(wall, 1),
        "run_seconds": round(sum(record["seconds"] for record in records), 1),
        "longest": longest["run"],
        "longest_seconds": longest["seconds"],
        "peak_rss_mb": max(record["peak_rss_mb"] for record in records),
        "older": sum(record["library"] != version for record in records),
    }


def report(profile: str) -> str:
    """A few lines for the end of `make reproduce`: what it took and where everything is."""
    if not timings(profile):
        return f"No notebook of the profile {profile!r} has been run by make: no times were taken."
    total = summary(profile)
    lines = [
        f"{total['runs']} notebooks in {_clock(total['wall_seconds'])}"
        f" ({_clock(total['run_seconds'])} added up, at most {_clock(total['longest_seconds'])} for one).",
        f"Peak memory {total['peak_rss_mb']:,} MB for one.",
        f"  figures             {shorter(paths.figures(profile))}",
        f"  tables and claims   {shorter(paths.results(profile))}",
        f"  executed notebooks  {shorter(paths.build(profile))}",
    ]
    if total["older"]:
        lines.append(
            f"Note: {total['older']} of them were made by other code than sftrl_lib holds now;"
            f" to make all anew, make clean PROFILE={profile} first."
        )
    return "\n".join(lines)


def shorter(path: Path) -> Path:
    """The path relative to the checkout, if it lies in it."""
    return path.relative_to(paths.ROOT) if path.is_relative_to(paths.ROOT) else path


def _clock(seconds: float) -> str:
    minutes = round(seconds) // 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes} min {round(seconds) % 60:02} s"


def _one_line(message: object) -> str:
    return (str(message).strip().splitlines() or ["(no message)"])[0]


def _say(text: str) -> None:
    try:
        print(f"{datetime.now():%H:%M:%S}  {text}", flush=True)
    except BrokenPipeError:  # stdout was closed (`make reproduce | head`); keep running
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
