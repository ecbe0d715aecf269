"""From trained branches to rows of the tidy table: what is tested, how often, and where it is kept.

A run's rows go to ``build/<profile>/runs/<run>/metrics.csv`` after every snapshot, so an interrupted evaluation
goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from .. import paths, tables
from ..models.checkpoint import mark_folder
from ..models.policy import load_policy
from ..models.rollout import Episode
from ..profiles import EvaluationConfig, Study
from ..tasks import Task
from ..training.branches import EXPERIMENTS, branch_folder, check_run, init_folder
from ..training.snapshots import Snapshot, read_snapshot, snapshots
from .episodes import Metrics, measure, play, protocol, transcript, within

KEPT_TRANSCRIPTS = {"id": 2, "heldout": 2, "rule_ood": 4, "visual_ood": 4}  # of the ends of branches
ABLATION_SPLITS = ("id", "rule_ood", "visual_ood")  # as far as the task has them
TUNING = ("sft_tuning", "rl_tuning")  # experiments that the paper shows on the training distribution alone


def tested(task: Task, experiment: str) -> tuple[str, ...]:
    """The splits of a task that an experiment is tested on."""
    wanted = {"main": tuple(task.splits)} | dict.fromkeys(TUNING, ("id",))
    return tuple(split for split in wanted.get(experiment, ABLATION_SPLITS) if split in task.splits)


@dataclass(frozen=True)
class Cell:
    """What identifies a group of rows; the fields are columns of the table."""

    task: str
    modality: str
    method: str
    experiment: str
    setting: str
    seed: int

    def key(self, snapshot: Snapshot, split: str) -> dict[str, Any]:
        """The columns that a row of the table and a transcript share."""
        return {**asdict(self), "step": snapshot.step, "split": split}

    def rows(self, snapshot: Snapshot, split: str, metrics: Metrics) -> list[dict[str, Any]]:
        shared = {**self.key(snapshot, split), "train_flops": snapshot.compute.flops}
        return [{**shared, "metric": name, "value": value, "n": n} for name, (value, n) in metrics.items()]


def _cell(study: Study, method: str, experiment: str, setting: str, seed: int) -> Cell:
    return Cell(study.task.name, study.task.modality, method, experiment, setting, seed)


class Part:
    """One run's part of the tables, written after every addition."""

    def __init__(self, folder: Path, config: EvaluationConfig) -> None:
        mark_folder(folder, "tested_with.json", asdict(config))
        self.path = folder / "metrics.csv"
        self.transcripts = folder / "transcripts.jsonl"
        self.frame = tables.read(self.path) if self.path.exists() else pd.DataFrame(columns=list(tables.COLUMNS))

    def has(self, cell: Cell, snapshot: Snapshot, split: str) -> bool:
        return len(tables.select(self.frame, **cell.key(snapshot, split))) > 0

    def add(self, rows: list[dict[str, Any]], records: Sequence[dict[str, Any]] = ()) -> None:
        if records:
            known = self.transcripts.read_text() if self.transcripts.exists() else ""
            lines = [json.dumps(record, ensure_ascii=False, sort_keys=True) for record in records]
            fresh = [line for line in lines if line not in known]
            tables.write_atomically(self.transcripts, known + "".join(line + "\n" for line in fresh))
        fresh_rows = pd.DataFrame(rows, columns=list(tables.COLUMNS))
        self.frame = pd.concat([self.frame, fresh_rows], ignore_index=True) if len(self.frame) else fresh_rows
        tables.write(self.frame, self.path)


def _test(part: Part, study: Study, cell: Cell, snapshot: Snapshot, end: bool, splits: Sequence[str]) -> None:
    """The paper's protocol on every split; at the ends of main also single attempts and greedy decoding.

    The model is loaded only if something is left to play.
    """
    policy = cache(lambda: load_policy(snapshot.folder, study.dtype))
    both = end and cell.experiment == "main"
    for split in splits:
        label = f"{cell.method} step {snapshot.step}: {split}"
        if not part.has(cell, snapshot, split):
            episodes = play(policy(), study.task, split, protocol(study.evaluation, end), cell.seed, label)
            rows = cell.rows(snapshot, split, measure(study.task, split, episodes))
            if both:
                single = replace(cell, setting="single")
                rows += single.rows(snapshot, split, {"success": within(episodes, 1)})
            records = []
            for number in kept(episodes, KEPT_TRANSCRIPTS[split]) if end else ():
                shown = transcript(study.task, split, episodes[number], policy(), number)
                records.append({**cell.key(snapshot, split), **shown})
            part.add(rows, records)
        greedy = replace(cell, setting="greedy")
        if both and not part.has(greedy, snapshot, split):
            how = protocol(study.evaluation, temperature=0.0, episodes=study.evaluation.episodes_greedy)
            episodes = play(policy(), study.task, split, how, cell.seed, f"{label}, greedy")
            part.add(greedy.rows(snapshot, split, measure(study.task, split, episodes)))


def kept(episodes: Sequence[Episode], most: int) -> list[int]:
    """Numbers of the episodes to show: the first ones, but a success and a failure among them where there are any."""
    outcomes = [episode.terminated for episode in episodes]
    either = [outcomes.index(outcome) for outcome in (True, False) if outcome in outcomes]
    return sorted(list(dict.fromkeys((*either, *range(len(episodes)))))[:most])


def evaluate_init(study: Study, seed: int) -> pd.DataFrame:
    """Test Init of a seed on every split; its rows."""
    folder = init_folder(study, seed)
    snapshot = read_snapshot(folder / "step-00000")
    part = Part(folder, study.evaluation)
    _test(part, study, _cell(study, "init", "main", "sampled", seed), snapshot, True, tuple(study.task.splits))
    return part.frame


def evaluate_branch(
    study: Study, method: str, experiment: str, setting: str, seed: int, ablation_seeds: Sequence[int] = ()
) -> pd.DataFrame:
    """Test every snapshot of a branch, the last one with more episodes; its rows.

    For `ablation_seeds` a main run is a setting of Figs. 10, 16 or 17 as well.
    """
    check_run(method, experiment, setting)
    folder = branch_folder(study, method, experiment, setting, seed)
    found = snapshots(folder)
    part = Part(folder, study.evaluation)
    cell = _cell(study, method, experiment, "sampled" if experiment == "main" else setting, seed)
    for snapshot in found:
        _test(part, study, cell, snapshot, snapshot is found[-1], tested(study.task, experiment))
    if experiment == "main" and seed in ablation_seeds:
        _share(part, study, method)
    return part.frame


def _share(part: Part, study: Study, method: str) -> None:
    """A main run is one setting of what varies its method, and not trained twice: its rows appear there as well."""
    for shared, setting in study.main_settings.items():
        if method not in EXPERIMENTS[shared][0] or (part.frame.experiment == shared).any():
            continue
        rows = tables.select(part.frame, experiment="main", setting="sampled", split=list(tested(study.task, shared)))
        part.add(rows.assign(experiment=shared, setting=setting).to_dict("records"))


def evaluate_sensitivity(study: Study, seed: int) -> pd.DataFrame:
    """Temperature x number of attempts for Init and both ends: one long rollout per temperature, counted at every k."""
    config = study.evaluation
    ends = {"init": read_snapshot(init_folder(study, seed) / "step-00000")}
    for method in ("sft", "rl"):
        ends[method] = snapshots(branch_folder(study, method, "main", "", seed))[-1]
    part = Part(sensitivity_folder(study, seed), config)
    most = max(config.attempts_grid)
    for method, snapshot in ends.items():
        policy = cache(lambda folder=snapshot.folder: load_policy(folder, study.dtype))
        for temperature in config.temperatures:
            cells = {
                k: _cell(study, method, "sensitivity", f"temperature={temperature:g};attempts={k}", seed)
                for k in config.attempts_grid
            }
            for split in tested(study.task, "sensitivity"):
                if part.has(cells[most], snapshot, split):
                    continue
                how = protocol(config, attempts=most, temperature=temperature, episodes=config.episodes_sensitivity)
                episodes = play(policy(), study.task, split, how, seed, f"{method}, T={temperature:g}: {split}")
                rows = []
                for k, cell in cells.items():
                    rows += cell.rows(snapshot, split, {"success": within(episodes, k)})
                part.add(rows)
    return part.frame


def sensitivity_folder(study: Study, seed: int) -> Path:
    """Where the measurements of `evaluate_sensitivity` live."""
    return paths.run_folder(study.profile, f"{study.task.slug}-sensitivity-s{seed}")
