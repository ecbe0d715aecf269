"""Which notebook runs with which parameters, and in which order. The Makefile calls this module:

    python -m sftrl_lib.pipeline list --profile laptop                  the runs, and which are done
    python -m sftrl_lib.pipeline rules --profile laptop --seeds "0 1"   check all, write build/laptop/rules.mk
    python -m sftrl_lib.pipeline rules --profile laptop --tasks GP-L    the same for some of the profile's tasks
    python -m sftrl_lib.pipeline run 05_train-gp-l-rl-main-s0 --profile laptop
    python -m sftrl_lib.pipeline report --profile laptop                time, memory and where the output is
    python -m sftrl_lib.pipeline draw --profile laptop               draw from the tables, no training

A run is one notebook with one set of parameters; executed, it is ``build/<profile>/<run>.ipynb``, and that is
the make target. It is made again when its *card* in ``build/<profile>/cards`` changes: the notebook's code,
the run's parameters, its study's numbers, the foundation model. Prose and checkout times do not count.
Library code counts for the last run, which only draws; `report` tells if the others were made by older code.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from . import paths
from .profiles import Profile, Study, get_profile


@dataclass(frozen=True)
class Run:
    """One notebook with one set of parameters."""

    name: str  # of the executed notebook, without .ipynb
    notebook: str  # file in notebooks/
    parameters: dict  # what papermill injects
    needs: tuple[str, ...] = ()  # names of the runs that come first
    library: tuple[str, ...] = ()  # folders of sftrl_lib whose change makes it run again
    studies: tuple[Study, ...] = ()  # whose numbers it depends on


def parse_seeds(text: str | None) -> tuple[int, ...] | None:
    """The seeds in ``"0 1 2"`` (commas do as well); None, the profile's own, if empty. Raises ValueError."""
    words = (text or "").replace(",", " ").split()
    bad = [word for word in words if not (word.isascii() and word.isdigit())]
    if bad:
        raise ValueError(f'SEEDS={text!r}: {bad[0]!r} is not a seed; use whole numbers from 0, as in SEEDS="0 1 2".')
    seeds = tuple(int(word) for word in words)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f'SEEDS={text!r} names a seed twice; use each once, as in SEEDS="0 1 2".')
    return seeds or None


def choose(profile: Profile, tasks: str | None) -> Profile:
    """The profile with the studies of the tasks named in ``"GP-L V-IRL-L"`` alone; all of them, if empty.

    Raises ValueError for a label that the profile does not have.
    """
    words = (tasks or "").replace(",", " ").split()
    labels = [study.task.label for study in profile.studies]
    if unknown := [word for word in words if word not in labels]:
        raise ValueError(
            f"TASKS={tasks!r}: the profile {profile.name!r} has no task {unknown[0]!r}; use some of {' '.join(labels)}."
        )
    return replace(profile, studies=tuple(s for s in profile.studies if s.task.label in words)) if words else profile


def runs(profile: Profile, seeds: tuple[int, ...] | None = None) -> list[Run]:
    """Every run of a profile, the long ones first where the order is free.

    `seeds` replaces the seeds of the main comparison; the ablations then take the first of them, as many as
    they have of their own.
    """
    ablation = seeds[: len(profile.ablation_seeds)] if seeds else profile.ablation_seeds
    seeds = seeds or profile.seeds
    shared, studies = {"profile": profile.name}, profile.studies
    tasks = dict.fromkeys(study.task.name for study in studies)
    yields = [
        *(_run("03_expert_data", study) for study in studies),
        Run("00_start_here", "00_start_here.ipynb", shared, studies=studies),
        *(Run(f"01_{task}", f"01_{task}.ipynb", {}) for task in tasks),
        *(_run("02_foundation", study) for study in studies),
    ]
    for seed in dict.fromkeys((*seeds, *ablation)):
        for study in studies:
            needs = (_name("03_expert_data", study),)
            yields.append(_run("04_init", study, f"s{seed}", needs=needs, seed=seed))
    # RL of the main comparison is the longest chain, so it comes first; the ablations fill what is left.
    for method in ("rl", "sft"):
        yields += [_train(study, method, "main", "", seed) for seed in seeds for study in studies]
    for study in studies:
        if "sensitivity" in study.experiments:
            for seed in seeds:
                needs = tuple(_name("05_train", study, method, "main", f"s{seed}") for method in ("rl", "sft"))
                yields.append(_run("06_sensitivity", study, f"s{seed}", needs=needs, seed=seed))
        for seed in ablation:
            shared_with_main = seed in seeds and seed in profile.ablation_seeds
            yields += _ablations(profile, study, seed, shared_with_main)
    needs = tuple(run.name for run in yields)
    last = Run("07_results", "07_results.ipynb", {**shared, "seeds": list(seeds)}, needs, ("claims", "figures"))
    return [*yields, last]


def _ablations(profile: Profile, study: Study, seed: int, shared_with_main: bool) -> Iterator[Run]:
    """The training runs of the study's experiments beside the main comparison.

    `shared_with_main`: the main runs are settings of Figs. 10, 16 and 17 (see `analysis.measurements`).
    """
    settings = {
        "attempts": ("rl", [f"attempts={attempts}" for attempts in profile.attempts]),
        "no_init": ("rl_no_init", [f"lr={lr:g}" for lr in profile.no_init_lrs]),
        "suboptimal": ("sft_suboptimal", [""]),
        "sft_tuning": ("sft", [f"lr={lr:g};frozen={part}" for part, rates in profile.sft_tuning for lr in rates]),
        "rl_tuning": ("rl", [f"lr={lr:g}" for lr in profile.rl_tuning]),
        "overfitted": ("rl", [f"lr={lr:g}" for lr in profile.overfitted_rl]),
    }
    done = study.main_settings if shared_with_main else {}
    if "overfitted" in study.experiments:
        yield _train(study, "sft", "overfitted", study.overfitted_setting, seed)
    for experiment, (method, choices) in settings.items():
        if experiment in study.experiments:
            yield from (_train(study, method, experiment, s, seed) for s in choices if s != done.get(experiment))


def _train(study: Study, method: str, experiment: str, setting: str, seed: int) -> Run:
    """One training run: 05_train-gp-l-rl-main-s0, 05_train-gp-l-rl-attempts-3-s0."""
    short = setting.replace("=", "").replace(";", "-")
    what = {
        "main": "main",
        "attempts": setting.replace("=", "-"),
        "suboptimal": "",
        "overfitted": f"overfitted-{short}",
    }
    needs = (_name("04_init", study, f"s{seed}"),)
    if method == "rl_no_init":
        needs = (_name("03_expert_data", study),)
    elif (method, experiment) == ("rl", "overfitted"):
        needs = (_train(study, "sft", "overfitted", study.overfitted_setting, seed).name,)
    parameters = dict(method=method, experiment=experiment, setting=setting, seed=seed)
    return _run("05_train", study, method, what.get(experiment, short), f"s{seed}", needs=needs, **parameters)


def _run(notebook: str, study: Study, *apart: str, needs: tuple[str, ...] = (), **parameters: object) -> Run:
    """A run of one study; `apart` is what sets it apart from others of the notebook."""
    shared = {"profile": study.profile, "task": study.task.name, "modality": study.task.modality}
    name = _name(notebook, study, *apart)
    return Run(name, f"{notebook}.ipynb", {**shared, **parameters}, needs, studies=(study,))


def _name(notebook: str, study: Study, *apart: str) -> str:
    return "-".join(filter(None, (notebook, study.task.slug, *apart)))


def find(name: str, known: list[Run]) -> Run:
    """The run called `name`. Raises ValueError that names the nearest ones."""
    by_name = {run.name: run for run in known}
    if name not in by_name:
        near = difflib.get_close_matches(name, by_name, 4, 0.3) or list(by_name)
        raise ValueError(f"Unknown run {name!r}; there are {len(by_name)}, among them {', '.join(near)}.")
    return by_name[name]


def target(profile: str, run: str) -> Path:
    """The executed notebook of a run; it exists only if the run succeeded."""
    return paths.build(profile) / f"{run}.ipynb"


def card_path(profile: str, run: str) -> Path:
    return paths.build(profile) / "cards" / f"{run}.json"


def card(run: Run) -> str:
    """What a run depends on besides other runs, as JSON; while it is the same, the run is not repeated."""
    notebook = json.loads((paths.NOTEBOOKS / run.notebook).read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    models = sorted({paths.SHIPPED / study.foundation for study in run.studies})
    model = [path for shipped in models for path in sorted(shipped.glob("*")) if path.is_file()]
    library = [path for folder in run.library for path in sorted((paths.PACKAGE / folder).rglob("*.py"))]
    content = {
        "parameters": run.parameters,
        # Which experiments there are decides which runs there are, not what any one of them does.
        "studies": [asdict(replace(study, experiments=())) for study in run.studies],
        "code cells": _digest(cell.encode() for cell in cells),
        "foundation model": _digest(path.read_bytes() for path in model),
        "library": _digest(path.read_bytes() for path in library),
    }
    return json.dumps(content, indent=1)


def update_card(run: Run, profile: Profile) -> Path:
    """Write the card of `run` if it has changed; its time is then newer than that of the target."""
    path, content = card_path(profile.name, run.name), card(run)
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return path


def _digest(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def write_rules(profile: Profile, chosen: list[Run]) -> Path:
    """Check the notebooks, bring the cards up to date and write build/<profile>/rules.mk for make.

    Raises ValueError if a notebook is missing or lacks a parameter that a run would set.
    """
    from .execution import check_parameters

    for run in {run.notebook: run for run in chosen}.values():
        check_parameters(run)
    for run in chosen:
        update_card(run, profile)
    path = paths.build(profile.name) / "rules.mk"
    path.write_text(rules(profile, chosen), encoding="utf-8")
    return path


def rules(profile: Profile, chosen: list[Run]) -> str:
    """The make rules of `chosen`: a run's target needs its card and the targets of the runs it needs."""
    seeds = " ".join(str(seed) for seed in chosen[-1].parameters.get("seeds", ()))
    tasks = " ".join(study.task.label for study in profile.studies)
    final = [_make_path(target(profile.name, run.name)) for run in chosen]
    lines = [
        "# Written by `python -m sftrl_lib.pipeline rules`.",
        ".DELETE_ON_ERROR:",
        f"all: {' '.join(final)}",
    ]
    for run in chosen:
        before = [card_path(profile.name, run.name), *(target(profile.name, need) for need in run.needs)]
        lines.append(f"{_make_path(target(profile.name, run.name))}: {' '.join(map(_make_path, before))}")
        command = f'@"$(PYTHON)" -m sftrl_lib.pipeline run {run.name} --profile {profile.name} --tasks "{tasks}"'
        lines.append(f"\t{command}" + (f' --seeds "{seeds}"' if seeds else ""))
    return "\n".join(lines) + "\n"


def _make_path(path: Path) -> str:
    """A path as make wants it: relative to the checkout where it can be, blanks and dollars escaped."""
    from .execution import shorter

    return str(shorter(path)).replace("$", "$$").replace(" ", "\\ ").replace("#", "\\#")


def state(profile: Profile, run: Run) -> str:
    """done, failed, changed (its card differs from what it ran with) or to do."""
    path, past = target(profile.name, run.name), card_path(profile.name, run.name)
    if path.with_suffix(".failed.ipynb").exists():
        return "failed"
    if not path.exists():
        return "to do"
    same = past.exists() and past.read_text(encoding="utf-8") == card(run)
    return "done" if same and past.stat().st_mtime <= path.stat().st_mtime else "changed"


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
        print(execution.jobs())
        return 0
    profile = choose(get_profile(options.profile), options.tasks)
    chosen = runs(profile, parse_seeds(options.seeds))
    if options.command == "list":
        for run in chosen:
            given = " ".join(f"{name}={value}" for name, value in run.parameters.items())
            print(f"{state(profile, run):8} {run.name:42} {given}")
    elif options.command == "rules":
        write_rules(profile, chosen)
    elif options.command == "run":
        if options.run is None:
            raise ValueError("The command run needs the name of a run; `list` shows them.")
        run = find(options.run, chosen)
        execution.check_parameters(run)
        update_card(run, profile)
        began = psutil.Process().create_time()  # start-up counts as well
        try:
            execution.execute(run, profile.name, began)
        except execution.RunFailed as failure:
            print(failure, file=sys.stderr)
            return failure.code
    elif options.command == "report":
        print(execution.report(profile.name))
    elif options.command == "figures":
        from .figures import draw

        draw.draw_all(profile.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
