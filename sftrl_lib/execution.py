"""Execute one run with papermill, in a kernel of this very interpreter, and keep account of its time and memory.

papermill alone runs on with a mistyped parameter and leaves a half-executed notebook where the finished one belongs.
Here an unknown parameter is an error before anything starts, the notebook is executed under a hidden name and gets its
own name only when its last cell has run, and a failed one is kept as ``<run>.failed.ipynb`` to look at.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import sys
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from . import doctor, paths

if TYPE_CHECKING:
    from .pipeline import Run

START_TIMEOUT = 180  # seconds a kernel may take to come up; several start at once on a slow disk
MEMORY_PER_JOB = 1.5  # GB that one run may need at its peak; bounds the number of runs side by side


class RunFailed(RuntimeError):
    """A run did not finish; the message says where and why, `code` is the exit status."""

    def __init__(self, message: str, code: int = 1):
        super().__init__(message)
        self.code = code


def jobs() -> int:
    """How many runs this machine can take side by side."""
    fitting = int(doctor.memory()[0] // MEMORY_PER_JOB)
    return max(1, min(doctor.cores(), fitting)) if fitting else 1


def threads(makeflags: str, cores: int) -> int:
    """Threads of one run: an equal share of the cores among make's jobs, all of them when it runs alone."""
    given = re.search(r"(?:^|\s)(?:-j|--jobs=?)\s?(\d*)", makeflags)
    if not given:
        return cores
    return max(1, cores // int(given[1])) if given[1] else 1


def check_parameters(run: Run) -> None:
    """Raises ValueError if the notebook of `run` is missing or does not declare every parameter that `run` sets."""
    from papermill import inspect_notebook

    path = paths.NOTEBOOKS / run.notebook
    if not path.is_file():
        raise ValueError(f"Run {run.name} needs notebooks/{run.notebook}, which does not exist.")
    try:
        declared = inspect_notebook(path)
    except ValueError as problem:
        raise ValueError(f"notebooks/{run.notebook} cannot be read as a Python notebook: {problem}") from None
    unknown = [name for name in run.parameters if name not in declared]
    if unknown:
        known = ", ".join(declared) or "none; its first cell tagged `parameters` declares them"
        raise ValueError(f"notebooks/{run.notebook} has no parameter {unknown[0]!r}; it has {known}.")


def execute(run: Run, profile: str) -> Path:
    """Execute `run` and return the path of the executed notebook.

    Raises ValueError before it starts if a parameter is unknown, RunFailed if a cell fails, the kernel dies, the run is
    interrupted, or another process is at the same run.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    check_parameters(run)
    folder = paths.build(profile)
    folder.mkdir(parents=True, exist_ok=True)
    done, failed = folder / f"{run.name}.ipynb", folder / f"{run.name}.failed.ipynb"
    partial = folder / f".{run.name}.partial.ipynb"
    share = int(os.environ.setdefault("OMP_NUM_THREADS", str(threads(os.environ.get("MAKEFLAGS", ""), doctor.cores()))))
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # else every kernel warns about frozen modules
    os.environ["SFTRL_HOME"] = str(paths.HOME)  # absolute: the kernel works in notebooks/
    manager = _kernel_manager()
    started, clock, failure = datetime.now(timezone.utc), time.monotonic(), None
    with open(partial, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFailed(f"{run.name} is being executed by another process; wait for it or stop it.") from None
        _say(f"{run.name} starts ({share} thread{'s' if share > 1 else ''})")
        try:
            papermill.execute_notebook(
                paths.NOTEBOOKS / run.notebook,
                partial,
                run.parameters,
                kernel_name="python3",
                language="python",
                kernel_manager_class=manager,
                start_timeout=START_TIMEOUT,
                progress_bar=False,
                cwd=paths.NOTEBOOKS,
            )
        except papermill.PapermillExecutionError as error:
            failure = RunFailed(f"{run.name} failed in cell {error.exec_count}: {error.ename}: {_one_line(error.evalue)}")
        except (DeadKernelError, KeyboardInterrupt, RuntimeError) as error:
            if manager.asked_to_stop or isinstance(error, KeyboardInterrupt):
                failure = RunFailed(f"{run.name} was interrupted; run the same command again to go on.", 130)
            elif isinstance(error, DeadKernelError):
                failure = RunFailed(
                    f"{run.name}: its Python process was killed, as a machine does that runs out of memory; close other"
                    " programs or run fewer at a time (make -j1), then run the same command again to go on.",
                    137,
                )
            else:
                failure = RunFailed(f"{run.name} could not be executed: {_one_line(str(error))}")
        seconds, memory = time.monotonic() - clock, _peak_memory()
        if failure:
            os.replace(partial, failed)
        else:
            failed.unlink(missing_ok=True)
            os.replace(partial, done)
    record = {"run": run.name, "ok": failure is None, "started": started.isoformat(timespec="seconds")}
    record |= {"seconds": round(seconds, 1), "peak_rss_mb": round(memory), "threads": share}
    with open(folder / "timings.jsonl", "a", encoding="utf-8") as log:
        log.write(json.dumps(record) + "\n")
    if failure:
        where = os.path.relpath(failed, paths.ROOT) if failed.is_relative_to(paths.ROOT) else failed
        raise RunFailed(f"{failure}\n  what it did until then: {where}", failure.code)
    _say(f"{run.name} done in {_clock(seconds)}, {memory:,.0f} MB at its peak")
    return done


def _kernel_manager() -> type:
    """A kernel manager class that starts this interpreter, whichever kernels are installed, and notes a wanted stop."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    class ThisInterpreter(AsyncKernelManager):
        asked_to_stop = False

        @property
        def kernel_spec(self) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python")

        async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
            type(self).asked_to_stop = True
            await super().shutdown_kernel(now, restart)

    return ThisInterpreter


def _peak_memory() -> float:
    """The most memory, in MB, that any process started here and now finished has held."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


def timings(profile: str) -> list[dict]:
    """The last finished execution of each run: run, ok, started (UTC), seconds, peak_rss_mb, threads."""
    path, last = paths.build(profile) / "timings.jsonl", {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with suppress(ValueError):  # a machine that loses power leaves half a line
            record = json.loads(line)
            last[record["run"]] = record
    return list(last.values())


def summary(profile: str) -> dict:
    """What all runs of a profile took: runs, wall_seconds (time in which at least one was running), run_seconds (summed),
    longest (name), longest_seconds, peak_rss_mb (largest run), peak_together_mb (largest sum of runs side by side)."""
    records = timings(profile)
    if not records:
        raise ValueError(f"No run of the profile {profile!r} has finished; there is nothing to summarise.")
    events, wall, together, now, since = [], 0.0, 0.0, 0.0, None
    for record in records:
        start = datetime.fromisoformat(record["started"]).timestamp()
        events += [(start + record["seconds"], -record["peak_rss_mb"], -1), (start, record["peak_rss_mb"], 1)]
    running = 0
    for moment, memory, change in sorted(events, key=lambda event: (event[0], -event[2])):
        since = moment if running == 0 else since
        running, now = running + change, now + memory
        wall += moment - since if running == 0 else 0.0
        together = max(together, now)
    longest = max(records, key=lambda record: record["seconds"])
    return {
        "runs": len(records),
        "wall_seconds": round(wall, 1),
        "run_seconds": round(sum(record["seconds"] for record in records), 1),
        "longest": longest["run"],
        "longest_seconds": longest["seconds"],
        "peak_rss_mb": max(record["peak_rss_mb"] for record in records),
        "peak_together_mb": round(together),
    }


def report(profile: str) -> str:
    """A few lines for the end of `make reproduce`: what it took and where everything is."""
    total = summary(profile)
    where = {
        "figures": paths.figures(profile),
        "tables and claims": paths.results(profile),
        "executed notebooks": paths.build(profile),
    }
    lines = [
        f"{total['runs']} notebooks in {_clock(total['wall_seconds'])} ({_clock(total['run_seconds'])} added up);"
        f" the longest, {total['longest']}, took {_clock(total['longest_seconds'])}.",
        f"Peak memory {total['peak_rss_mb']:,} MB for one, {total['peak_together_mb']:,} MB for those side by side.",
    ]
    for what, path in where.items():
        lines.append(f"  {what:19} {path.relative_to(paths.ROOT) if path.is_relative_to(paths.ROOT) else path}")
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    minutes = round(seconds) // 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes} min {round(seconds) % 60:02} s"


def _one_line(text: str) -> str:
    return (text.strip().splitlines() or ["(no message)"])[-1]


def _say(text: str) -> None:
    print(f"{datetime.now():%H:%M:%S}  {text}", flush=True)
