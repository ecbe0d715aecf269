"""From trained branches to rows of the tidy table: what is tested, how often, and where it is kept.

A run's rows go to ``build/<profile>/runs/<run>/metrics.csv`` after every snapshot, so an interrupted evaluation
goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..models.checkpoint import mark_folder
from ..models.policy import Policy, load_policy
from ..profiles import EvaluationConfig, Profile
from ..training.branches import branch_folder, check_run, init_folder
from ..training.rollout import Episode
from ..training.snapshots import Snapshot, read_snapshot, snapshots
from . import tables
from .evaluation import SPLITS, measure, play, protocol, transcript

TASK, MODALITY = "general_points", "text"
KEPT_TRANSCRIPTS = 4  # per split, of the ends of branches
ABLATION_SPLITS = ("id", "rule_ood")


@dataclass(frozen=True)
class Cell:
    """What identifies a group of rows."""

    method: str
    experiment: str
    setting: str
    seed: int

    def key(self, snapshot: Snapshot, split: str) -> dict[str, Any]:
        """The columns that a row of the table and a transcript share."""
        tested = {"step": snapshot.step, "split": split}
        return {"task": TASK, "modality": MODALITY, **asdict(self), **tested}

    def rows(self, snapshot: Snapshot, split: str, metrics: dict[str, tuple[float, int]]) -> list[dict[str, Any]]:
        shared = {**self.key(snapshot, split), "train_flops": snapshot.compute.flops}
        return [{**shared, "metric": name, "value": value, "n": n} for name, (value, n) in metrics.items()]


class Part:
    """One run's part of the tables, written after every addition."""

    def __init__(self, folder: Path, config: EvaluationConfig) -> None:
        mark_folder(folder, "tested_with.json", asdict(config))
        self.path = folder / "metrics.csv"
        self.transcripts = folder / "transcripts.jsonl"
        self.frame = tables.read(self.path) if self.path.exists() else pd.DataFrame(columns=list(tables.COLUMNS))

    def has(self, cell: Cell, snapshot: Snapshot, split: str) -> bool:
        found = self.frame
        same = (
            (found.method == cell.method)
            & (found.experiment == cell.experiment)
            & (found.setting == cell.setting)
            & (found.seed == cell.seed)
            & (found.step == snapshot.step)
            & (found.split == split)
        )
        return bool(same.any())

    def add(self, rows: list[dict[str, Any]], records: Sequence[dict[str, Any]] = ()) -> None:
        if records:
            known = self.transcripts.read_text() if self.transcripts.exists() else ""
            lines = [json.dumps(record, ensure_ascii=False, sort_keys=True) for record in records]
            fresh = [line for line in lines if line not in known]
            tables.write_atomically(self.transcripts, known + "".join(line + "\n" for line in fresh))
        fresh_rows = pd.DataFrame(rows, columns=list(tables.COLUMNS))
        self.frame = pd.concat([self.frame, fresh_rows], ignore_index=True) if len(self.frame) else fresh_rows
        tables.write(self.frame, self.path)


def _within(episodes: Sequence[Episode], attempts: int) -> float:
    """Share of episodes with a correct answer among their first `attempts`."""
    return sum(any(a.outcome == "correct" for a in e.attempts[:attempts]) for e in episodes) / len(episodes)


def _test(
    part: Part,
    cell: Cell,
    snapshot: Snapshot,
    policy: Policy,
    profile: Profile,
    end: bool,
    splits: Sequence[str],
) -> None:
    """The paper's protocol on every split; at the ends also single attempts and greedy decoding."""
    config = profile.evaluation
    for split in splits:
        label = f"{cell.method} step {snapshot.step}: {split}"
        if not part.has(cell, snapshot, split):
            episodes = play(policy, split, protocol(config, end), cell.seed, label)
            rows = cell.rows(snapshot, split, measure(episodes))
            if end and cell.experiment == "main":
                single = Cell(cell.method, cell.experiment, "single", cell.seed)
                rows += single.rows(snapshot, split, {"success": (_within(episodes, 1), len(episodes))})
            part.add(rows, _records(cell, snapshot, split, policy, episodes) if end else ())
        greedy = Cell(cell.method, cell.experiment, "greedy", cell.seed)
        if end and cell.experiment == "main" and not part.has(greedy, snapshot, split):
            how = protocol(config, temperature=0.0, episodes=config.episodes_greedy)
            episodes = play(policy, split, how, cell.seed, f"{label}, greedy")
            part.add(greedy.rows(snapshot, split, measure(episodes)))


def _records(
    cell: Cell, snapshot: Snapshot, split: str, policy: Policy, episodes: Sequence[Episode]
) -> list[dict[str, Any]]:
    shared = cell.key(snapshot, split)
    return [{**shared, **transcript(episode, policy, i)} for i, episode in enumerate(episodes[:KEPT_TRANSCRIPTS])]


def evaluate_init(profile: Profile, seed: int) -> pd.DataFrame:
    """Test Init of a seed on every split; its rows."""
    folder = init_folder(profile, seed)
    snapshot = read_snapshot(folder / "step-00000")
    part = Part(folder, profile.evaluation)
    _test(
        part,
        Cell("init", "main", "sampled", seed),
        snapshot,
        load_policy(snapshot.folder),
        profile,
        True,
        tuple(SPLITS),
    )
    return part.frame


def evaluate_branch(profile: Profile, method: str, experiment: str, setting: str, seed: int) -> pd.DataFrame:
    """Test every snapshot of a branch, the last one with more hands; its rows."""
    check_run(method, experiment, setting)
    folder = branch_folder(profile, method, experiment, setting, seed)
    part = Part(folder, profile.evaluation)
    cell = Cell(method, experiment, "sampled" if experiment == "main" else setting, seed)
    splits = tuple(SPLITS) if experiment == "main" else ABLATION_SPLITS
    found = snapshots(folder)
    for snapshot in found:
        _test(part, cell, snapshot, load_policy(snapshot.folder), profile, snapshot is found[-1], splits)
    if (method, experiment) == ("rl", "main") and seed in profile.ablation_seeds:
        _share_with_attempts(part, profile.ppo.attempts)
    return part.frame


def _share_with_attempts(part: Part, attempts: int) -> None:
    """The main RL run is also one setting of Fig. 10, which is not trained twice: its rows appear there as well."""
    if (part.frame.experiment == "attempts").any():
        return
    rows = tables.select(part.frame, experiment="main", setting="sampled", split=list(ABLATION_SPLITS))
    part.add(rows.assign(experiment="attempts", setting=f"attempts={attempts}").to_dict("records"))


def evaluate_sensitivity(profile: Profile, seed: int) -> pd.DataFrame:
    """Temperature x number of attempts for Init and both ends: one long rollout per temperature, counted at every k."""
    config = profile.evaluation
    part = Part(init_folder(profile, seed).with_name(f"sensitivity-s{seed}"), config)
    ends = {"init": read_snapshot(init_folder(profile, seed) / "step-00000")}
    for method in ("sft", "rl"):
        ends[method] = snapshots(branch_folder(profile, method, "main", "", seed))[-1]
    most = max(config.attempts_grid)
    for method, snapshot in ends.items():
        policy = load_policy(snapshot.folder)
        for temperature in config.temperatures:
            cells = {
                k: Cell(method, "sensitivity", f"temperature={temperature:g};attempts={k}", seed)
                for k in config.attempts_grid
            }
            for split in ABLATION_SPLITS:
                if part.has(cells[most], snapshot, split):
                    continue
                how = protocol(config, attempts=most, temperature=temperature, episodes=config.episodes_sensitivity)
                episodes = play(policy, split, how, seed, f"{method}, T={temperature:g}: {split}")
                rows = []
                for k, cell in cells.items():
                    rows += cell.rows(snapshot, split, {"success": (_within(episodes, k), len(episodes))})
                part.add(rows)
    return part.frame
