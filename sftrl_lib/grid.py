"""The runs of a profile on many workers, without notebooks: the same trainings and tests, kept in the same places.

    python -m sftrl_lib.grid --profile laptop --seeds "100 101" --tasks GP-L --workers 16
    python -m sftrl_lib.grid --profile search --minutes 8
    python -m sftrl_lib.grid --profile laptop --executor submitit --workers 64 --partition short

`make runs` calls it. `make reproduce` with the same profile, tasks and seeds then finds every run done, and only
executes the notebooks, in which it shows. For a machine with many cores or a GPU, or a cluster (`executors`): a run
starts in a fraction of a second here, and notebooks need not be installed there.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from .execution import parse_threads, side_by_side
from .executors import Executor, Forks, Ray, Resources, Submitit
from .jobs import Job, find, jobs, parse_experiments, parse_seeds, parse_tasks
from .own_model import prepare
from .profiles import get_profile
from .progress import say
from .runs import Run

EXECUTORS = ("local", "submitit", "ray")


def perform(job: Job) -> None:
    """What the notebook of a job computes, without the notebook. Raises what training and tests raise."""
    from .evaluation.measurements import evaluate, evaluate_sensitivity, main_ends
    from .foundation.teaching import provide
    from .training.fork import demonstrations, train

    given = job.parameters
    profile = get_profile(given["profile"])
    study = profile.study(given["task"])
    if job.computes == "foundation":
        provide(profile, study.foundation)
    elif job.computes == "data":
        for kind in study.task.kinds:
            demonstrations(profile, study, kind)
    elif job.computes == "sensitivity":
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


def work(executor: Executor, chosen: Sequence[Job], workers: int, deadline: float | None = None) -> list[str]:
    """Perform all runs among `chosen`, each after what it needs; the names of those that failed or were not reached.

    At most `workers` at a time. A run that needs a failed one is not begun. At the `deadline` (seconds since the epoch)
    workers are stopped where they are; what they have saved is kept, and the next call goes on from there.
    """
    waiting = {job.name: job for job in chosen if job.computes}
    runs, failed = set(waiting), []
    done = {job.name for job in chosen if not job.computes}
    running: list[tuple[Job, object]] = []
    while (waiting or running) and not (deadline and time.time() >= deadline):
        for job in [job for job in waiting.values() if set(job.needs) <= done][: workers - len(running)]:
            del waiting[job.name]
            running.append((job, executor.start(job)))
        if not running:
            break  # what is left needs what has failed
        timeout = max(0.0, deadline - time.time()) if deadline else None
        for handle, succeeded in executor.ended([handle for _, handle in running], timeout):
            [job] = [job for job, its_handle in running if its_handle is handle]
            running.remove((job, handle))
            (done.add if succeeded else failed.append)(job.name)
            say(f"{len(done & runs)} of {len(runs)}  {job.name} {'is done' if succeeded else 'FAILED; see its log'}")
    for job, handle in running:
        executor.stop(handle)
        say(f"{job.name} is stopped where it is")
    return [*failed, *(job.name for job, _ in running), *waiting]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sftrl_lib.grid", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="laptop", help="default: laptop")
    parser.add_argument("--model", help="a folder or a hub name, in the place of the profile's foundation models")
    parser.add_argument("--seeds", help='as in "100 101"; default: those of the profile')
    parser.add_argument("--tasks", help='as in "GP-L V-IRL-L"; default: all that the profile has')
    parser.add_argument("--experiments", help="beside the main comparison, as for make; default: those of the studies")
    parser.add_argument("--only", nargs="*", help="jobs by name, with what they need")
    parser.add_argument("--workers", type=int, default=side_by_side(), help="default: as many as this machine can run")
    parser.add_argument("--threads", help="of each run; default: 1")
    parser.add_argument("--executor", choices=EXECUTORS, default="local", help="default: processes of this machine")
    parser.add_argument("--cluster", default="", help="of submitit: slurm or local; default: what is there")
    parser.add_argument("--address", default="", help="of a Ray cluster; default: one that is started here")
    parser.add_argument("--partition", default="", help="of Slurm")
    parser.add_argument("--gpus", type=int, default=0, help="of each run, on a cluster")
    parser.add_argument("--hours", type=float, default=4.0, help="that a cluster gives each run; default: 4")
    parser.add_argument("--fresh", action="store_true", help="every run imports for itself, if CUDA survives no fork")
    parser.add_argument("--minutes", type=float, help="stop then; the next call goes on from there")
    options = parser.parse_args(arguments)
    try:
        profile, threads = get_profile(options.profile), parse_threads(options.threads)
        if options.model:
            profile = prepare(profile, options.model)
        if options.workers < 1 or (options.minutes is not None and options.minutes <= 0):
            raise ValueError("--workers is a whole number from 1, and --minutes is above 0.")
        studies = parse_tasks(profile, options.tasks)
        experiments = parse_experiments(studies, options.experiments)
        chosen = jobs(profile, parse_seeds(options.seeds), studies, experiments)
        if options.only:
            chosen = _with_needs([find(name, chosen) for name in options.only], chosen)
        if options.executor == "local" and not options.fresh:
            preload()
        executor = _executor(options, profile.name, threads)
    except ValueError as problem:
        print(problem, file=sys.stderr)
        return 2
    deadline = time.time() + 60 * options.minutes if options.minutes else None
    left = work(executor, chosen, options.workers, deadline)
    shown = ", ".join(left[:5]) + ", ..." * (len(left) > 5)
    print(f"{len(left)} runs are left: {shown}" if left else "All runs are done.")
    return int(bool(left))


def _executor(options: argparse.Namespace, profile: str, threads: int) -> Executor:
    resources = Resources(threads, options.gpus, options.hours, options.partition)
    if options.executor == "submitit":
        return Submitit(perform, profile, resources, options.cluster)
    if options.executor == "ray":
        return Ray(perform, profile, resources, options.address)
    return Forks(perform, profile, resources)


def _with_needs(wanted: Sequence[Job], known: Sequence[Job]) -> list[Job]:
    names, by_name = [job.name for job in wanted], {job.name: job for job in known}
    for name in names:  # grows while it is read
        names += [need for need in by_name[name].needs if need not in names]
    return [job for job in known if job.name in names]


if __name__ == "__main__":
    sys.exit(main())
