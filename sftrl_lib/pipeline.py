"""The command line that the Makefile calls:

    python -m sftrl_lib.pipeline list --profile laptop                  the jobs, and which are done
    python -m sftrl_lib.pipeline rules --profile laptop --seeds "0 1"   check all, write build/laptop/rules.mk
    python -m sftrl_lib.pipeline rules --profile laptop --tasks GP-L    the same for some of the profile's tasks
    python -m sftrl_lib.pipeline rules --profile laptop --model PATH    the same from a model of your own
    python -m sftrl_lib.pipeline run 05_train-gp-l-rl-main-s0 --profile laptop
    python -m sftrl_lib.pipeline report --profile laptop                time, memory and where the output is
    python -m sftrl_lib.pipeline figures --profile laptop               figures and report from the tables, no training
    python -m sftrl_lib.pipeline verify --profile laptop                tables and figures against their manifest
    python -m sftrl_lib.pipeline name --profile laptop --model PATH     what the profile with that model is called
    python -m sftrl_lib.pipeline jobs                                   how many jobs this machine runs side by side

`jobs` says what there is to do, `execution` does it.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import time
from pathlib import Path

from . import paths
from .disks import disk_problem
from .execution import THREADS, RunFailed, check_parameters, execute, parse_threads, report, side_by_side
from .files import write_atomically
from .jobs import (
    Job,
    find,
    identity_path,
    jobs,
    parse_experiments,
    parse_seeds,
    parse_tasks,
    state,
    target,
    update_identity,
)
from .own_model import name_of, prepare
from .profiles import Profile, Study, get_profile


def write_rules(
    profile: Profile,
    chosen: list[Job],
    studies: tuple[Study, ...],
    threads: int = THREADS,
    experiments: tuple[str, ...] = (),
) -> Path:
    """Check the notebooks, bring the identities up to date and write build/<profile>/rules.mk for make.

    Raises ValueError if a notebook is missing or lacks a parameter that a job would set, or if make cannot take a name.
    """
    for job in {job.notebook: job for job in chosen}.values():
        check_parameters(job)
    text = rules(profile, chosen, studies, threads, experiments)
    now = time.time_ns()
    for job in chosen:
        if state(profile.name, job) == "damaged":
            print(f"{target(profile.name, job.name)} is damaged; the notebook is executed again.")
        update_identity(job, profile.name, now)
    # A path may be no UTF-8, and goes into the file as it is.
    return write_atomically(paths.build(profile.name) / "rules.mk", text.encode(errors="surrogateescape"))


def rules(
    profile: Profile,
    chosen: list[Job],
    studies: tuple[Study, ...],
    threads: int = THREADS,
    experiments: tuple[str, ...] = (),
) -> str:
    """The make rules of `chosen`: a job's target needs its identity and the targets of the jobs it needs.

    Paths are relative to `paths.HOME`, where make runs them. Raises ValueError if make cannot take the name of a job.
    """
    seeds = " ".join(str(seed) for job in chosen for seed in job.parameters.get("seeds", ()))
    options = ["--profile", profile.name, "--tasks", " ".join(study.task.label for study in studies), "--seeds", seeds]
    options += ["--experiments", " ".join(experiments)] if experiments else []
    options += ["--threads", str(threads)] if threads != THREADS else []
    final = [_make_path(target(profile.name, job.name)) for job in chosen]
    lines = [
        "# Written by `python -m sftrl_lib.pipeline rules`.",
        ".DELETE_ON_ERROR:",
        f"all: {' '.join(final)}",
    ]
    for job in chosen:
        before = [identity_path(profile.name, job.name), *(target(profile.name, need) for need in job.needs)]
        lines.append(f"{_make_path(target(profile.name, job.name))}: {' '.join(map(_make_path, before))}")
        words = [sys.executable, "-m", "sftrl_lib.pipeline", "run", job.name, *options]
        command = f"cd {shlex.quote(str(paths.ROOT))} && exec {shlex.join(words)}"
        lines.append("\t@" + command.replace("$", "$$"))
    return "\n".join(lines) + "\n"


def _make_path(path: Path) -> str:
    """A path as make needs it: relative to `paths.HOME`, with blanks, dollars and hashes escaped."""
    name = path.relative_to(paths.HOME).as_posix()
    if bad := re.search(r"[^\w ./$#+,@-]", name):
        raise ValueError(f"{name!r} has {bad[0]!r} in its name, which make cannot take; name the notebook otherwise.")
    return name.replace("$", "$$").replace(" ", "\\ ").replace("#", "\\#")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sftrl_lib.pipeline", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("list", "rules", "run", "report", "figures", "verify", "jobs", "name"))
    parser.add_argument("run", nargs="?", help="name of the run, for the command run")
    parser.add_argument("--profile", default="laptop", help="default: laptop")
    parser.add_argument("--model", help="a folder or a hub name, in the place of the profile's foundation models")
    parser.add_argument("--seeds", help='as in "0 1 2"; default: those of the profile')
    parser.add_argument("--tasks", help='as in "GP-L V-IRL-L"; default: all that the profile has')
    parser.add_argument("--experiments", help='beside main, as in "dose dft" or "controls"; default: the profile\'s')
    parser.add_argument("--threads", help=f"of one job; numbers differ in their last digits; default: {THREADS}")
    options = parser.parse_args(arguments)
    try:
        status = _command(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `pipeline list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at its end
        return 0
    except KeyboardInterrupt:
        return 130
    except RunFailed as failure:
        print(failure, file=sys.stderr)
        return failure.code
    except (ValueError, OSError) as problem:
        print((isinstance(problem, OSError) and disk_problem(problem)) or problem, file=sys.stderr)
        return 2


def _check_place(command: str) -> None:
    if not paths.is_checkout():
        raise ValueError(
            f"The command {command} needs the notebooks, which an installed package does not have;"
            " clone the repository and run it there."
        )
    if "::" in str(paths.HOME):
        raise ValueError(
            f"{paths.HOME} has '::' in it, where `datasets` splits addresses; rename the folder, or set SFTRL_HOME."
        )


def _command(options: argparse.Namespace) -> int:
    if options.command == "jobs":
        print(side_by_side())
        return 0
    if options.command == "name":
        print(name_of(options.profile, options.model) if options.model else options.profile)
        return 0
    if options.command == "verify":
        from . import provenance

        return provenance.check(options.profile)
    if options.command in ("list", "rules", "run"):
        _check_place(options.command)
    profile = get_profile(options.profile)
    if options.model:
        profile = prepare(profile, options.model)
    studies, threads = parse_tasks(profile, options.tasks), parse_threads(options.threads)
    experiments = parse_experiments(studies, options.experiments)
    chosen = jobs(profile, parse_seeds(options.seeds), studies, experiments)
    if options.command == "list":
        for job in chosen:
            given = " ".join(f"{name}={value}" for name, value in job.parameters.items())
            print(f"{state(profile.name, job):8} {job.name:42} {given}")
    elif options.command == "rules":
        write_rules(profile, chosen, studies, threads, experiments)
        if threads != THREADS:
            print(f"THREADS={threads}: the numbers will differ in their last digits from those of {THREADS} thread.")
    elif options.command == "run":
        if options.run is None:
            raise ValueError("The command run needs the name of a run; `list` shows them.")
        import psutil

        job = find(options.run, chosen)
        check_parameters(job)
        update_identity(job, profile.name)
        began = psutil.Process().create_time()  # start-up counts as well
        execute(job, profile.name, began, threads, chosen)
    elif options.command == "report":
        print(report(profile.name))
    elif options.command == "figures":
        from . import provenance
        from .claims import reproduction
        from .figures.draw import draw_all

        paths.bring(profile.name)
        draw_all(profile.name)
        print(f"written  {reproduction.write(profile.name).relative_to(paths.HOME)}")
        if provenance.manifest_path(profile.name).is_file():
            provenance.drawn(profile.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
