"""The command line that the Makefile calls:

    python -m sftrl_lib.pipeline list --profile laptop                  the jobs, and which are done
    python -m sftrl_lib.pipeline rules --profile laptop --seeds "0 1"   check all, write build/laptop/rules.mk
    python -m sftrl_lib.pipeline rules --profile laptop --tasks GP-L    the same for some of the profile's tasks
    python -m sftrl_lib.pipeline run 05_train-gp-l-rl-main-s0 --profile laptop
    python -m sftrl_lib.pipeline report --profile laptop                time, memory and where the output is
    python -m sftrl_lib.pipeline figures --profile laptop               figures from the tables, no training

`jobs` says what there is to do, `execution` does it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import paths
from .jobs import Job, find, identity_path, jobs, parse_seeds, parse_tasks, state, target, update_identity
from .profiles import Profile, Study, get_profile


def write_rules(profile: Profile, chosen: list[Job], studies: tuple[Study, ...]) -> Path:
    """Check the notebooks, bring the identities up to date and write build/<profile>/rules.mk for make.

    Raises ValueError if a notebook is missing or lacks a parameter that a job would set.
    """
    from .execution import check_parameters

    for job in {job.notebook: job for job in chosen}.values():
        check_parameters(job)
    for job in chosen:
        update_identity(job, profile.name)
    path = paths.build(profile.name) / "rules.mk"
    path.write_text(rules(profile, chosen, studies), encoding="utf-8")
    return path


def rules(profile: Profile, chosen: list[Job], studies: tuple[Study, ...]) -> str:
    """The make rules of `chosen`: a job's target needs its identity and the targets of the jobs it needs."""
    seeds = " ".join(str(seed) for seed in chosen[-1].parameters["seeds"])
    tasks = " ".join(study.task.label for study in studies)
    final = [_make_path(target(profile.name, job.name)) for job in chosen]
    lines = [
        "# Written by `python -m sftrl_lib.pipeline rules`.",
        ".DELETE_ON_ERROR:",
        f"all: {' '.join(final)}",
    ]
    for job in chosen:
        before = [identity_path(profile.name, job.name), *(target(profile.name, need) for need in job.needs)]
        lines.append(f"{_make_path(target(profile.name, job.name))}: {' '.join(map(_make_path, before))}")
        command = f'@"$(PYTHON)" -m sftrl_lib.pipeline run {job.name} --profile {profile.name} --tasks "{tasks}"'
        lines.append(f'\t{command} --seeds "{seeds}"')
    return "\n".join(lines) + "\n"


def _make_path(path: Path) -> str:
    """A path as make needs it: relative to the checkout if possible, with blanks, dollars and hashes escaped."""
    from .execution import shorter

    return str(shorter(path)).replace("$", "$$").replace(" ", "\\ ").replace("#", "\\#")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sftrl_lib.pipeline", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("list", "rules", "run", "report", "figures", "jobs"))
    parser.add_argument("run", nargs="?", help="name of the run, for the command run")
    parser.add_argument("--profile", default="laptop", help="default: laptop")
    parser.add_argument("--seeds", help='as in "0 1 2"; default: those of the profile')
    parser.add_argument("--tasks", help='as in "GP-L V-IRL-L"; default: all that the profile has')
    options = parser.parse_args(arguments)
    try:
        return _command(options)
    except (ValueError, FileNotFoundError) as problem:
        print(problem, file=sys.stderr)
        return 2


def _command(options: argparse.Namespace) -> int:
    import psutil

    from . import execution

    if options.command == "jobs":
        print(execution.side_by_side())
        return 0
    profile = get_profile(options.profile)
    studies = parse_tasks(profile, options.tasks)
    chosen = jobs(profile, parse_seeds(options.seeds), studies)
    if options.command == "list":
        for job in chosen:
            given = " ".join(f"{name}={value}" for name, value in job.parameters.items())
            print(f"{state(profile.name, job):8} {job.name:42} {given}")
    elif options.command == "rules":
        write_rules(profile, chosen, studies)
    elif options.command == "run":
        if options.run is None:
            raise ValueError("The command run needs the name of a run; `list` shows them.")
        job = find(options.run, chosen)
        execution.check_parameters(job)
        update_identity(job, profile.name)
        began = psutil.Process().create_time()  # start-up counts as well
        try:
            execution.execute(job, profile.name, began)
        except execution.RunFailed as failure:
            print(failure, file=sys.stderr)
            return failure.code
    elif options.command == "report":
        print(execution.report(profile.name))
    elif options.command == "figures":
        from .figures.draw import draw_all

        draw_all(profile.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
