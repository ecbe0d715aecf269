"""Which notebook runs with which parameters, in which order, and what each depends on.

A job is one notebook with one set of parameters; executed, it is ``build/<profile>/<job>.ipynb``, and that is the make
target. It is done again when its *identity* changes: the notebook's code, its parameters, and the settings that its
results depend on (see `fingerprint`). Prose and checkout times do not count.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import fingerprint, paths
from .experiments import Experiment
from .files import write_atomically
from .fingerprint import Identity
from .foundation import taught
from .methods import INIT
from .profiles import Profile, Study
from .runs import Run, data_identity, runs_of_arm, test_settings, training_runs

RESULTS = "07_results"  # the job that comes after all runs
_WIDGET = "application/vnd.jupyter.widget-view+json"
_STAMP = "sftrl"  # in the metadata of an executed notebook: what it was made with


@dataclass(frozen=True)
class Job:
    """One notebook with one set of parameters."""

    name: str  # of the executed notebook, without .ipynb
    notebook: str  # file in notebooks/
    parameters: dict  # what papermill injects
    needs: tuple[str, ...] = ()  # names of the jobs that come first
    depends: Identity = field(default_factory=dict)  # what it depends on besides its notebook and its parameters
    computes: str = ""  # data, foundation, run or sensitivity, which `grid` does without it; "": it shows what there is


def parse_seeds(text: str | None) -> tuple[int, ...]:
    """The seeds in ``"0 1 2"`` (commas do as well); empty for the profile's own. Raises ValueError."""
    words = (text or "").replace(",", " ").split()
    bad = [word for word in words if not (word.isascii() and word.isdigit() and len(word) < 99 and int(word) < 2**32)]
    if bad:
        raise ValueError(
            f'SEEDS={text!r}: {bad[0]!r} is not a seed; use whole numbers from 0 to 2**32 - 1, as in SEEDS="0 1 2".'
        )
    seeds = tuple(int(word) for word in words)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f'SEEDS={text!r} names a seed twice; use each once, as in SEEDS="0 1 2".')
    return seeds


def parse_tasks(profile: Profile, text: str | None) -> tuple[Study, ...]:
    """The studies of the tasks in ``"GP-L V-IRL-L"``; all of the profile's, if empty. Raises ValueError."""
    words = (text or "").replace(",", " ").split()
    by_name = {name: s for s in profile.studies for name in (s.task.label, s.task.key)}
    if unknown := [word for word in words if word not in by_name]:
        labels = " ".join(study.task.label for study in profile.studies)
        raise ValueError(
            f"TASKS={text!r}: the profile {profile.name!r} has no task {unknown[0]!r}; use some of {labels}."
        )
    wanted = [by_name[word] for word in words]
    return tuple(study for study in profile.studies if study in wanted) if words else profile.studies


def parse_experiments(studies: tuple[Study, ...], text: str | None) -> tuple[str, ...]:
    """The experiments in ``"dose dft"``, "controls" for all controls; empty for what a study always runs.

    Raises ValueError.
    """
    names: list[str] = []
    known = {e.name: e for study in studies for e in (*study.experiments, *study.controls)}
    for word in (text or "").replace(",", " ").split():
        if word != "controls" and word not in known:
            names = " ".join([*known, "controls"])
            raise ValueError(f"EXPERIMENTS={text!r}: there is no {word!r}; use some of {names}.")
        names += [e.name for study in studies for e in study.controls] if word == "controls" else [word]
    return tuple(dict.fromkeys(names))


def jobs(
    profile: Profile,
    seeds: tuple[int, ...] = (),
    studies: tuple[Study, ...] = (),
    experiments: tuple[str, ...] = (),
) -> list[Job]:
    """Every job of a profile, the long ones first where the order is free.

    `seeds` replaces the seeds of the main comparison; the ablations then take the first three of them. `studies` are
    those of the profile that are wanted, all if empty. `experiments` are run beside the main comparison in place of the
    studies' own, with all of its seeds.
    """
    studies = studies or profile.studies
    seeds, ablation = profile.chosen_seeds(seeds)
    if experiments:
        ablation = seeds
    found = [*_preparation(profile, studies)]
    found += [_init(Run(profile, s.task.key, "init", seed=seed)) for seed in (*seeds, *ablation) for s in studies]
    # RL of the main comparison is the longest chain, so it comes first; the ablations fill what is left.
    everything = [
        (study, e)
        for study in studies
        for e in (*study.experiments, *study.controls)
        if (e.name in ("main", *experiments) if experiments else e in study.experiments)
    ]
    main = [(study, e) for study, e in everything if e.name == "main"]
    for arm in range(max((len(e.arms) for _, e in main), default=0)):
        for seed in seeds:
            for study, e in main:
                found += [_train(run) for a in e.arms[arm : arm + 1] for run in runs_of_arm(profile, study, e, a, seed)]
    for study, experiment in everything:
        if experiment.name != "main":
            for seed in seeds if experiment.all_seeds else ablation:
                found += _experiment(profile, study, experiment, seed, seed in seeds)
    found = list({job.name: job for job in found}.values())
    names = {job.name for job in found}
    found = [replace(job, needs=tuple(need for need in job.needs if need in names)) for job in found]
    last, drawn_by = {"profile": profile.name, "seeds": list(seeds)}, {"code": _code("figures", "claims")}
    found.append(Job(RESULTS, f"{RESULTS}.ipynb", last, tuple(job.name for job in found), drawn_by))
    if any(e.name == "pictures_dropped" for _, e in everything):  # it reads the tables that the results write
        name, tells = "08_pictures_dropped", {"profile": profile.name}
        found.append(Job(name, f"{name}.ipynb", tells, (RESULTS,), drawn_by))
    return found


def _preparation(profile: Profile, studies: tuple[Study, ...]) -> Iterator[Job]:
    """What comes before any training: demonstrations, and the notebooks that introduce the tasks and models."""
    for study in studies:
        data = {kind: data_identity(study, kind) for kind in study.task.kinds}
        yield _of_study(profile, study, "03_expert_data", data, "data")
    yield Job("00_start_here", "00_start_here.ipynb", {"profile": profile.name}, depends=fingerprint.plain(profile))
    for name in dict.fromkeys(study.task.notebook for study in studies if study.task.notebook):
        yield Job(name, f"{name}.ipynb", {})
    for study in studies:
        if not paths.shipped(study.foundation) and study.foundation not in taught.TAUGHT:
            continue  # the notebook shows how a model was made, or teaches it, and this one came as it is
        model = {"foundation": taught.identity(study.foundation)}
        model |= test_settings(study, "", tuple(study.task.splits))
        yield _of_study(profile, study, "02_foundation", model, "foundation")


def _of_study(profile: Profile, study: Study, notebook: str, depends: Identity, computes: str) -> Job:
    parameters = {"profile": profile.name, "task": study.task.key}
    return Job(f"{notebook}-{study.task.key}", f"{notebook}.ipynb", parameters, depends=depends, computes=computes)


def _needs_at_first(run: Run) -> list[str]:
    """The jobs that make what a run needs that no other run makes."""
    teaches = [f"02_foundation-{run.key}"] * (run.study.foundation == run.base.foundation in taught.TAUGHT)
    return [f"03_expert_data-{run.key}", *teaches]


def _init(run: Run) -> Job:
    parameters = {"profile": run.profile.name, "task": run.key, "seed": run.seed}
    if run.experiment_name != "main":
        parameters |= {"experiment": run.experiment_name, "setting": run.setting}
    depends = {"training": run.identity, "tests": run.tests_identity}
    needs = _needs_at_first(run)
    if run.trained_as is not run:
        needs.append(f"04_init-{run.trained_as.name}")
    return Job(f"04_init-{run.name}", "04_init.ipynb", parameters, tuple(needs), depends, "run")


def _train(run: Run) -> Job:
    """One training run and its tests."""
    parameters = {
        "profile": run.profile.name,
        "task": run.key,
        "method": run.method_name,
        "experiment": run.experiment_name,
        "setting": run.setting,
        "seed": run.seed,
    }
    needs, start = [], run.start
    if (same := run.trained_as) is not run:
        needs.append(_train(same).name if same.method is not INIT else f"04_init-{same.name}")
    while start is not None:  # what a start needs in turn, because a start that is no job of its own is made here
        needs.append(f"{'04_init' if start.method is INIT else start.experiment.notebook}-{start.name}")
        start = start.start
    needs = needs or _needs_at_first(run)
    depends, notebook = {"training": run.identity, "tests": run.tests_identity}, run.experiment.notebook
    return Job(f"{notebook}-{run.name}", f"{notebook}.ipynb", parameters, tuple(needs), depends, "run")


def _experiment(profile: Profile, study: Study, experiment: Experiment, seed: int, beside_main: bool) -> list[Job]:
    """The jobs of an experiment other than the main comparison; one without arms tests the ends of that comparison."""
    if experiment.arms:
        runs = training_runs(profile, study, experiment, seed, beside_main)
        branches = [run for run in runs if run.method is not INIT]
        inits = [run for run in runs if run.method is INIT] + [run.init for run in branches if run.init.setting]
        return [*map(_init, inits), *map(_train, branches)]
    ends = training_runs(profile, study, study.experiment("main"), seed)
    splits = experiment.tested(study.task.splits)
    depends = {run.method_name: run.identity for run in ends} | test_settings(study, experiment.name, splits)
    parameters = {"profile": profile.name, "task": study.task.key, "seed": seed}
    name = f"{experiment.notebook}-{study.task.key}-s{seed}"
    needs = tuple(_train(run).name for run in ends)
    return [Job(name, f"{experiment.notebook}.ipynb", parameters, needs, depends, "sensitivity")]


def find(name: str, known: list[Job]) -> Job:
    """The job called `name`. Raises ValueError that names the nearest ones."""
    by_name = {job.name: job for job in known}
    if name not in by_name:
        near = difflib.get_close_matches(name, by_name, 4, 0.3) or list(by_name)
        raise ValueError(f"Unknown run {name!r}; there are {len(by_name)}, among them {', '.join(near)}.")
    return by_name[name]


def target(profile: str, job: str) -> Path:
    """The executed notebook of a job; it exists only if the job succeeded."""
    return paths.build(profile) / f"{job}.ipynb"


def identity_path(profile: str, job: str) -> Path:
    """What a job was last due for, as JSON; make compares its time with the target's."""
    return paths.build(profile) / "identities" / f"{job}.json"


def identity(job: Job) -> str:
    """What a job depends on besides other jobs, as JSON; while it is the same, the job is not repeated."""
    notebook = json.loads((paths.NOTEBOOKS / job.notebook).read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]).strip() for cell in notebook["cells"] if cell["cell_type"] == "code"]
    cells = [cell for cell in cells if cell]  # JupyterLab adds an empty one at the end
    content = {"parameters": job.parameters, "depends": job.depends, "code cells": fingerprint.digest(cells)}
    return json.dumps(fingerprint.plain(content), indent=1, sort_keys=True)


def keep(finished: Path, made_with: str, executed: Path) -> None:
    """Put a notebook that was executed to its end at `executed`, with the identity that it was made with in it.

    Raises OSError.
    """
    notebook = json.loads(finished.read_bytes())
    for cell in notebook["cells"]:
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell["outputs"] if not _is_bar(output)]
    stamp = {"identity": fingerprint.digest(made_with), "cells": _cells_run(notebook), "finished": time.time_ns()}
    notebook["metadata"][_STAMP] = stamp
    write_atomically(executed, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def _is_bar(output: dict) -> bool:
    """Whether an output is a progress bar, which is closed when a notebook has been executed, and left empty."""
    data = output.get("data", {})
    return _WIDGET in data and bool(re.search(r"\d+%\|", "".join(data.get("text/plain", ""))))


def _cells_run(notebook: dict) -> int:
    return sum(cell.get("execution_count") is not None for cell in notebook["cells"])


def _stamped(executed: Path) -> dict | None:
    """What `keep` wrote into a notebook; {} if that is older than stamps, None if cells that were run are missing.

    Raises OSError.
    """
    try:
        notebook = json.loads(executed.read_bytes())
        made = notebook["metadata"].get(_STAMP, {})
        return made if _cells_run(notebook) >= made.get("cells", 1) else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def update_identity(job: Job, profile: str, now: int | None = None) -> Path:
    """Write the identity of `job`, and see that make, which goes by times, finds due what is due by its content.

    A job is due if its notebook is not whole or was made with another identity. `now`: ns since the epoch, beyond which
    times are not believed. Raises OSError.
    """
    path, executed, content = identity_path(profile, job.name), target(profile, job.name), identity(job)
    changed = not path.exists() or path.read_bytes() != content.encode()
    if changed:
        write_atomically(path, content)
    if not executed.exists():
        return path
    made, now = _stamped(executed), now or time.time_ns()
    if _time(executed) > now:
        _set_time(executed, min(now, made.get("finished", now) if made else now))
    if made and made.get("identity") == fingerprint.digest(content):
        _set_time(path, min(_time(path), _time(executed)))
    elif changed or made != {} or _time(path) > now:
        _set_time(executed, min(_time(executed), now - 10**9))
        _set_time(path, now)
    return path


def _time(path: Path) -> int:
    return path.stat().st_mtime_ns


def _set_time(path: Path, time: int) -> None:
    if time != _time(path):
        os.utime(path, ns=(time, time))


def state(profile: str, job: Job) -> str:
    """done, failed, damaged (it is not whole), changed (it depends on something else than when it ran) or to do."""
    path, past = target(profile, job.name), identity_path(profile, job.name)
    if path.with_suffix(".failed.ipynb").exists():
        return "failed"
    if not path.exists():
        return "to do"
    made = _stamped(path)
    if made is None:
        return "damaged"
    content = identity(job)
    if made:
        return "done" if made.get("identity") == fingerprint.digest(content) else "changed"
    same = past.exists() and past.read_bytes() == content.encode()
    return "done" if same and _time(past) <= _time(path) else "changed"


def _code(*folders: str) -> str:
    """A digest of the modules in some folders of the library."""
    files = [path for folder in folders for path in sorted((paths.PACKAGE / folder).rglob("*.py"))]
    return fingerprint.digest([path.read_text(encoding="utf-8") for path in files])
