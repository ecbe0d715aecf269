"""What a search chooses: of every setting tried, the one with the most success on held-out instances, and nothing else.

Paper: learning rates were searched, how they were chosen is not said. Ours (PROTOCOL.md): both branches alike, on
development seeds, by success on instances that no training phase shows, under the training rule. The choice is written
to `results/<profile>/selected.json` before any other split may be tested (`evaluation.search`), so that what SFT and RL
do under a new rule can have no part in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from .. import fingerprint, paths, tables
from ..experiments import CHOSEN_ON, SEARCHED_AT, parse_setting
from ..files import reason, write_atomically
from ..tasks import task_of

SEARCHED = ("search", "search_init", "search_budget")  # experiments of `experiments.py`
CRITERION = "heldout"
FLAT = 0.01  # a curve in distribution is flat if it rises by less over the last quarter of the compute


class SelectionError(ValueError):
    """Nothing has been chosen yet, or not from these tables; the message is one sentence."""


def tried(metrics: pd.DataFrame) -> pd.DataFrame:
    """Every setting that was tried: its success at the end on the splits of the choice, as means over the seeds.

    The columns: task (its label), experiment, method, setting, seeds, id, heldout; more splits once they are tested.
    """
    searched, cell = _searched(metrics), ["task", "experiment", "method", "setting"]
    ends = tables.ends(searched.assign(task=searched["label"]))
    means = ends.pivot_table(index=cell, columns="split", values="value", aggfunc="mean")
    return means.assign(seeds=ends.groupby(cell)["seed"].nunique()).reset_index().rename_axis(columns=None)


def selected(metrics: pd.DataFrame) -> pd.DataFrame:
    """The chosen settings, from the splits of the choice alone: task, experiment, method, setting, heldout.

    The rates (and RL's ratio) by the branch's own success; Init's steps by the mean of both branches, method "both";
    the budget by `flat_from` at the rate chosen for SFT. Of equals the first, by the text of the setting.
    """
    found = tried(tables.select(metrics, split=list(CHOSEN_ON)))
    rates = found[found["experiment"] == "search"]
    steps = found[found["experiment"] == "search_init"]
    steps = steps.groupby(["task", "experiment", "setting"], as_index=False)[CRITERION].mean().assign(method="both")
    best = pd.concat([rates, steps], ignore_index=True).sort_values([CRITERION, "setting"], ascending=[False, True])
    best = best.drop_duplicates(["task", "experiment", "method"])
    columns = ["task", "experiment", "method", "setting", CRITERION]
    rates = {
        task: parse_setting(setting)["lr"]
        for task, experiment, method, setting in best[columns[:4]].itertuples(index=False)
        if (experiment, method) == ("search", "sft")
    }
    chosen = pd.concat([best[columns], flat_from(metrics, rates)], ignore_index=True)
    return chosen.sort_values(columns[:3], ignore_index=True)


def flat_from(metrics: pd.DataFrame, rates: Mapping[str, float] = {}) -> pd.DataFrame:
    """For every task the least compute with which SFT's curve in distribution is flat, else the most that was tried.

    Flat: success under the training rule rises by less than `FLAT` from three quarters of the compute to the end, in
    the mean over the seeds. Of a task in `rates` only runs at that rate count, without a name `SEARCHED_AT`.
    """
    rows = tables.along(tables.select(metrics, experiment="search_budget", split="id", metric="success"))
    chosen: dict[str, list] = {}
    for (name, modality, setting), here in rows.groupby(["task", "modality", "setting"]):
        task, tried = task_of(name, modality).label, parse_setting(setting)
        rate = tried.get("lr", SEARCHED_AT)
        if rate != rates.get(task, rate):
            continue
        curve = here.groupby(here.groupby("seed")["step"].rank(method="dense"))["value"].mean()
        compute = tried["fork_flops"]
        flat = len(curve) > 1 and curve.iloc[-1] - curve.iloc[-2] < FLAT
        chosen.setdefault(task, []).append((not flat, compute if flat else -compute, setting))
    picked = [(task, "search_budget", "sft", min(options)[2], None) for task, options in chosen.items()]
    return pd.DataFrame(picked, columns=["task", "experiment", "method", "setting", CRITERION])


def choose(profile: str) -> pd.DataFrame:
    """Write `results/<profile>/selected.json` and return `selected`.

    Raises SelectionError if another split of a task was tested although nothing had been chosen, or something else had.
    """
    metrics = tables.read_metrics(profile)
    searched = _searched(metrics)
    if searched.empty:
        raise SelectionError(f"The tables of profile {profile!r} hold no search; run `make search` first.")
    record, before = _record(metrics), _written(profile) or {}
    looked = searched[~searched["split"].isin(CHOSEN_ON)]
    for task, split in zip(looked["label"], looked["split"], strict=True):
        if before.get(task) != record[task]:
            raise SelectionError(
                f"The search of {task} has rows on {split}, and the choice before that was another one; "
                "a search that grows after the test must be run anew, under another profile's name."
            )
    write_atomically(selected_path(profile), json.dumps(record, indent=1) + "\n")
    return selected(metrics)


def check_chosen(profile: str, tasks: Iterable[str]) -> None:
    """Raises SelectionError unless the choice for these tasks (labels) from the tables as they are is written down."""
    written, now = _written(profile) or {}, _record(tables.read_metrics(profile))
    for task in tasks:
        if task not in written:
            raise SelectionError(f"Nothing has been chosen from the search of {task} in profile {profile!r} yet.")
        if written[task] != now.get(task):
            raise SelectionError(f"{selected_path(profile)} was chosen for {task} from other tables; choose again.")


def selected_path(profile: str) -> Path:
    return paths.results(profile) / "selected.json"


def _searched(metrics: pd.DataFrame) -> pd.DataFrame:
    """The rows of all searches, with the tasks' labels."""
    rows = tables.select(metrics, experiment=list(SEARCHED), metric="success")
    labels = [task_of(*pair).label for pair in zip(rows["task"], rows["modality"], strict=True)]
    return rows.assign(label=labels)


def _record(metrics: pd.DataFrame) -> dict:
    """For every task what was chosen, by what, and the digest of the rows that it was chosen from."""
    seen, record = tables.select(_searched(metrics), split=list(CHOSEN_ON)), {}
    chosen = selected(metrics).round(6).astype(object)
    for task, rows in seen.groupby("label"):
        cells = [[*row[:-1], round(row[-1], 9)] for row in rows[[*tables.KEY, "value"]].to_numpy().tolist()]
        mine = chosen[chosen["task"] == task].drop(columns="task")
        record[task] = {
            "criterion": f"success on {CRITERION}",
            "seeds": sorted(map(int, rows["seed"].unique())),
            "digest": fingerprint.digest(cells),
            "chosen": mine.where(mine.notna(), None).to_dict("records"),
        }
    return record


def _written(profile: str) -> dict | None:
    path = selected_path(profile)
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SelectionError(f"{path} is damaged ({reason(error)}); remove it and choose again.") from error
