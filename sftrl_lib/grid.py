"""The runs of a profile on many workers, without notebooks: the same trainings and tests, kept in the same places.

    python -m sftrl_lib.grid --profile laptop --seeds "100 101" --tasks GP-L --workers 16
    python -m sftrl_lib.grid --profile search --device cuda --minutes 8

`make reproduce` with the same profile, tasks and seeds then finds every run done, and only executes the notebooks, in
which it shows. For a machine with many cores or a GPU: a worker is a fork of one process that has imported everything,
so a run starts in a fraction of a second, and notebooks need not be installed there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import datetime
from multiprocessing.connection import wait

from . import paths, provenance
from .execution import note_time, parse_threads, side_by_side
from .jobs import Job, find, jobs, parse_experiments, parse_seeds, parse_tasks
from .profiles import Profile, get_profile
from .runs import Run


def is_run(job: Job) -> bool:
    """Whether a job makes data, trains or tests; the others only show what there is."""
    return "seed" in job.parameters or job.notebook.startswith("03_")


def perform(job: Job) -> None:
    """What the notebook of a job computes, without the notebook. Raises what training and tests raise."""
    from .evaluation.measurements import evaluate, evaluate_sensitivity, main_ends
    from .training.fork import demonstrations, train

    given = job.parameters
    profile = get_profile(given["profile"])
    study = profile.study(given["task"])
    if "seed" not in given:
        for kind in study.task.kinds:
            demonstrations(profile, study, kind)
    elif "method" not in given and job.notebook.startswith("06_"):
        for run in main_ends(profile, study, given["seed"]):
            train(run)
        evaluate_sensitivity(profile, given["task"], given["seed"])
    else:
        run = Run(
            profile,
            given["task"],
            given.get("method", "init"),
            given.get("experiment", "main"),
            given.get("setting", ""),
            given["seed"],
        )
        train(run)
        evaluate(run)


def preload() -> None:
    """Import all that runs need, once for all workers, without touching the GPU, which would not survive a fork."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    from .evaluation import measurements  # noqa: F401
    from .training import fork, ppo, sft  # noqa: F401


def work(
    profile: Profile, chosen: Sequence[Job], workers: int, threads: int, deadline: float | None = None
) -> list[str]:
    """Perform all runs among `chosen`, each after what it needs; the names of those that failed or were not reached.

    A run that needs a failed one is not begun. At the `deadline` (seconds since the epoch) workers are stopped where
    they are; what they have saved is kept, and the next call goes on from there.
    """
    context = multiprocessing.get_context("fork")
    waiting = {job.name: job for job in chosen if is_run(job)}
    done, failed, running = {job.name for job in chosen if not is_run(job)}, [], {}
    runs = set(waiting)
    while (waiting or running) and not (deadline and time.time() >= deadline):
        for job in [job for job in waiting.values() if set(job.needs) <= done][: workers - len(running)]:
            del waiting[job.name]
            process = context.Process(target=_worker, args=(job, profile.name, threads))
            process.start()
            running[process.sentinel] = (job, process)
        if not running:
            break  # what is left needs what has failed
        for sentinel in wait(list(running), timeout=max(0.0, deadline - time.time()) if deadline else None):
            job, process = running.pop(sentinel)
            process.join()
            (failed.append if process.exitcode else done.add)(job.name)
            _say(f"{len(done & runs)} of {len(runs)}  {job.name} {_ended(process.exitcode)}")
    for job, process in running.values():
        process.terminate()
        process.join()
        _say(f"{job.name} is stopped where it is")
    return [*failed, *(job.name for job, _ in running.values()), *waiting]


def _worker(job: Job, profile: str, threads: int) -> None:
    """Perform one job in a process of its own, with its output in ``build/<profile>/logs``."""
    import torch

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    log = paths.build(profile) / "logs" / f"{job.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    torch.set_num_threads(threads)
    began, code = time.time(), 0
    try:
        perform(job)
    except Exception:
        os.write(2, traceback.format_exc().encode())
        code = 1
    record = {
        "run": f"grid-{job.name.partition('-')[2]}",
        "ok": code == 0,
        "started": round(began, 1),
        "seconds": round(time.time() - began, 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "threads": threads,
        **provenance.origin(),
    }
    note_time(record, profile)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)  # the parent's open files and exit handlers are its own


def _ended(code: int | None) -> str:
    return "is done" if code == 0 else f"FAILED (exit status {code}); its log says why"


def _say(text: str) -> None:
    print(f"{datetime.now():%H:%M:%S}  {text}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sftrl_lib.grid", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="laptop", help="default: laptop")
    parser.add_argument("--seeds", help='as in "100 101"; default: those of the profile')
    parser.add_argument("--tasks", help='as in "GP-L V-IRL-L"; default: all that the profile has')
    parser.add_argument("--experiments", help="beside the main comparison, as for make; default: those of the studies")
    parser.add_argument("--only", nargs="*", help="jobs by name, with what they need")
    parser.add_argument("--workers", type=int, default=side_by_side(), help="default: as many as this machine can run")
    parser.add_argument("--threads", help="of each worker; default: 1")
    parser.add_argument("--fresh", action="store_true", help="every run imports for itself, if CUDA survives no fork")
    parser.add_argument("--minutes", type=float, help="stop then; the next call goes on from there")
    options = parser.parse_args(arguments)
    try:
        profile, threads = get_profile(options.profile), parse_threads(options.threads)
        if options.workers < 1 or (options.minutes is not None and options.minutes <= 0):
            raise ValueError("--workers is a whole number from 1, and --minutes is above 0.")
        studies = parse_tasks(profile, options.tasks)
        experiments = parse_experiments(studies, options.experiments)
        chosen = jobs(profile, parse_seeds(options.seeds), studies, experiments)
        if options.only:
            chosen = _with_needs([find(name, chosen) for name in options.only], chosen)
    except ValueError as problem:
        print(problem, file=sys.stderr)
        return 2
    if not options.fresh:
        preload()
    deadline = time.time() + 60 * options.minutes if options.minutes else None
    left = work(profile, chosen, options.workers, threads, deadline)
    shown = ", ".join(left[:5]) + ", ..." * (len(left) > 5)
    print(f"{len(left)} runs are left: {shown}" if left else "All runs are done.")
    return int(bool(left))


def _with_needs(wanted: Sequence[Job], known: Sequence[Job]) -> list[Job]:
    names, by_name = [job.name for job in wanted], {job.name: job for job in known}
    for name in names:  # grows while it is read
        names += [need for need in by_name[name].needs if need not in names]
    return [job for job in known if job.name in names]


if __name__ == "__main__":
    sys.exit(main())
