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
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import doctor, paths, provenance, remaining
from .disks import disk_problem
from .jobs import Job, identity, keep, target
from .progress import say
from .timings import note_time, summary, timings

# papermill imports jsonschema, which would spend two seconds per job on compiling a grammar that no notebook needs.
sys.modules.setdefault("rfc3987_syntax", None)

START_TIMEOUT = 180  # seconds a kernel may take to come up; several start at once on a slow disk
MEMORY_PER_JOB = 3.0  # GB that one job may need at its peak (2.8 measured, laptop); bounds the jobs side by side
# Sums of floats depend on how they are split, so a job computes on as many threads however many jobs run.
THREADS = 1
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class RunFailed(RuntimeError):
    """A job did not finish; the message says where and why, `code` is the exit status."""

    def __init__(self, message: str, code: int = 1):
        super().__init__(message)
        self.code = code


def side_by_side() -> int:
    """How many jobs this machine can run at a time."""
    fitting = int(min(doctor.memory()) // MEMORY_PER_JOB)
    return max(1, min(doctor.cores(), fitting)) if fitting else 1


def parse_threads(text: str | None) -> int:
    """The number in ``"2"``, `THREADS` if empty. Raises ValueError."""
    word = (text or "").strip()
    if not word:
        return THREADS
    if not (word.isascii() and word.isdigit() and 1 <= int(word[:6]) <= 1024):
        raise ValueError(f"THREADS={text!r} is no number of threads; use a whole number from 1, as in THREADS=2.")
    return int(word)


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


def execute(
    job: Job, profile: str, began: float | None = None, threads: int = THREADS, chosen: Sequence[Job] = ()
) -> Path:
    """Execute `job` and return the path of the executed notebook.

    `began`: the time (seconds since the epoch) from which to count; now, if None. `threads`: on how many it computes.
    `chosen`: all jobs that are being done, to say how far they are.
    Raises ValueError before it starts if a parameter is unknown; RunFailed if a cell fails, the kernel dies, the job is
    interrupted, a disk does not take what it writes, or another process is at the same job.
    """
    check_parameters(job)
    began = began or time.time()
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    os.environ["SFTRL_HOME"] = str(paths.HOME)  # absolute: the kernel works in notebooks/
    made_by = provenance.origin()  # before it runs: code may be edited meanwhile
    try:
        failure = _to_target(job, profile)
    except OSError as error:
        failure = RunFailed(f"{job.name} stopped: {disk_problem(error) or _one_line(error)}")
    record = {
        "run": job.name,
        "ok": failure is None,
        "started": round(began, 1),
        "seconds": round(time.time() - began, 1),
        "peak_rss_mb": round(_peak_memory()),
        "threads": threads,
        **made_by,
    }
    note_time(record, profile)
    if failure:
        raise failure
    far = f"; {remaining.words(profile, chosen, timings(profile), side_by_side())}" if chosen else ""
    say(f"{job.name} done in {_clock(record['seconds'])}, {record['peak_rss_mb']:,} MB at its peak{far}")
    return target(profile, job.name)


def _to_target(job: Job, profile: str) -> RunFailed | None:
    """Execute `job` under a hidden name and give it its own when it has succeeded; what went wrong, if something did.

    Raises OSError, and RunFailed if another process is at the same job.
    """
    done = target(profile, job.name)
    done.parent.mkdir(parents=True, exist_ok=True)
    failed, partial = done.with_suffix(".failed.ipynb"), done.with_name(f".{job.name}.partial.ipynb")
    made_with = identity(job)  # as it is now: a notebook may be edited while it runs
    with open(partial, "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFailed(f"{job.name} is being executed by another process; wait for it.") from None
        say(f"{job.name} starts")
        failure = _papermill(job, partial)
        if failure:
            os.replace(partial, failed)
            return RunFailed(f"{failure}\n  what it did until then: {paths.shorter(failed)}", failure.code)
        keep(partial, made_with, done)
        failed.unlink(missing_ok=True)
        partial.unlink()
    return None


def _papermill(job: Job, output: Path) -> RunFailed | None:
    """Execute the notebook of `job` into `output`; what went wrong, if something did."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    logging.getLogger("papermill").setLevel(logging.ERROR)  # what it warns of is an error in `check_parameters`
    try:
        papermill.execute_notebook(
            _literal(paths.NOTEBOOKS / job.notebook),
            _literal(output),
            job.parameters,
            kernel_name="python3",
            language="python",
            kernel_manager_class=_kernel_manager(),
            start_timeout=START_TIMEOUT,
            progress_bar=False,
            cwd=paths.NOTEBOOKS,
        )
    except papermill.PapermillExecutionError as error:
        problem = disk_problem(str(error.evalue)) or f"{error.ename}: {_one_line(error.evalue)}"
        return RunFailed(f"{job.name} failed in [{error.exec_count}]: {problem}")
    except KeyboardInterrupt:
        return RunFailed(f"{job.name} was interrupted; run the same command again to resume.", 130)
    except DeadKernelError:
        return RunFailed(
            f"{job.name}: its Python process was killed, as happens when a machine runs out of memory; close"
            " other programs or run fewer at a time (make -j1, the numbers stay the same), and run the same command"
            " again to resume.",
            137,
        )
    except OSError as error:  # papermill saves the notebook after every cell
        return RunFailed(f"{job.name} stopped: {disk_problem(error) or _one_line(error)}")
    except RuntimeError as error:  # the kernel did not come up
        return RunFailed(f"{job.name} could not be executed: {_one_line(error)}")
    return None


def _literal(path: Path) -> str:
    """A path as papermill needs it, which takes braces for fields to fill in."""
    return str(path).replace("{", "{{").replace("}", "}}")


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


def report(profile: str) -> str:
    """A few lines for the end of `make reproduce`: what it took and where everything is."""
    if not timings(profile):
        return _recorded(profile)
    total = summary(profile)
    lines = [
        f"{total['runs']} notebooks in {_clock(total['wall_seconds'])}"
        f" ({_clock(total['run_seconds'])} in total; the longest took {_clock(total['longest_seconds'])}).",
        f"Peak memory {total['peak_rss_mb']:,} MB for one.",
        f"  figures             {paths.shorter(paths.figures(profile))}",
        f"  tables and claims   {paths.shorter(paths.results(profile))}",
        f"  executed notebooks  {paths.shorter(paths.build(profile))}",
    ]
    if total["older"]:
        lines.append(
            f"Note: {total['older']} of them were made by other code than sftrl_lib holds now;"
            f" to redo everything, run make clean PROFILE={profile} first."
        )
    if other := sum(record.get("threads", THREADS) != THREADS for record in timings(profile)):
        lines.append(
            f"Note: {other} of them computed on another number of threads than {THREADS};"
            " their numbers differ from the usual ones in the last digits."
        )
    return "\n".join(lines)


def _recorded(profile: str) -> str:
    """What the runs took by the manifest that came with their tables, where nothing was run here."""
    taken = [run.get("seconds") for run in provenance.recorded(profile).values()]
    taken = [seconds for seconds in taken if isinstance(seconds, int | float)]
    if not taken:
        return f"No notebook of the profile {profile!r} has been run by make, so there are no timings."
    return (
        f"Not run here. By the manifest of these tables, {len(taken)} runs took {_clock(sum(taken))} in total,"
        f" most of them on one thread; the longest took {_clock(max(taken))}."
    )


def _clock(seconds: float) -> str:
    minutes = round(seconds) // 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes} min {round(seconds) % 60:02} s"


def _one_line(message: object) -> str:
    return (str(message).strip().splitlines() or ["(no message)"])[0]


