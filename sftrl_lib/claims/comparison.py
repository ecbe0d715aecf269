"""The main comparison as Markdown tables: Init, SFT and RL, their differences, and the paper's numbers.

Every cell is a mean over seeds with its 95 % interval (see `statistics`): levels in percent, differences in points. A
mean over seeds of which some fall and others do not says little, so the tables count those that fell, and show the
seeds themselves where an interval over them says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .. import paths, published, tables
from ..files import write_atomically
from ..methods import INIT, METHODS
from ..profiles import banner
from ..task import SPLITS, Task
from ..tasks import TASKS
from .evidence import FALL, Evidence, rl_raises_ood, sft_lowers_ood
from .statistics import difference_of, fell
from .words import NUMBERS, WORDS, shown, table

COMPARED = ("init", "sft", "rl")  # the paper's methods, listed even if they were not run
LEGEND = (
    f"{NUMBERS} Seeds that fell: those more than 10 points below Init, which a seed whose Init is below 10 % cannot be."
)


@dataclass(frozen=True)
class Column:
    """One metric on one split; `paper` maps methods to the levels that the paper prints, in percent."""

    title: str
    split: str
    metric: str
    paper: dict[str, float] | None = None


def columns_of(task: Task, metrics: tuple[str, ...]) -> tuple[Column, ...]:
    """The first metric on every split, with the paper's levels where it prints them; the others on rule-OOD only."""
    metric, *more = metrics
    columns = []
    for name, split in SPLITS.items():
        paper = None
        if name == "rule_ood" and metric == task.metric:
            paper = published.FIG06.get(task.label)
        elif name == "visual_ood" and metric == "success":
            paper = published.FIG07.get(task.label)
        columns.append(Column(split.column or task.words.heldout, name, metric, paper))
    return (*columns, *(Column(task.words.new_rule_only[name], "rule_ood", name) for name in more))


def markdown(metrics: pd.DataFrame) -> str:
    """The tables of all tasks that were run as Markdown, with one heading per task.

    Where it is known at which checkpoint the paper's lambda ends RL, there is a second set of tables with that end.
    """
    counted, paper = Evidence(metrics), Evidence(metrics, by_paper_lambda=True)
    parts = []
    for task in TASKS.values():
        wanted = {title: columns_of(task, names) for title, names in task.words.tables.items()}
        made = [text for title, columns in wanted.items() if (text := levels_and_gains(counted, task, title, columns))]
        if made and task.paper_lambda and len(paper.rows(task, "rl", "id")):
            made.append(_accounts(counted, paper, task))
            titled = ((f"{title}, by the paper's lambda", columns) for title, columns in wanted.items())
            made += [text for about in titled if (text := levels_and_gains(paper, task, *about))]
        made += [text for text in [_foundations(counted, task)] if made and text]
        parts += [f"## {task.label}", *made] if made else []
    return "\n\n".join([*parts, LEGEND] if parts else parts) + "\n"


def _foundations(evidence: Evidence, task: Task) -> str:
    """The differences under the new rule from every foundation model, a line each; "" if there is only one."""
    others = evidence.settings(task, "foundations", "rl")
    if not others:
        return ""
    pairs = differences([name for name in COMPARED if name in METHODS])
    heads = ["new rule (rule-OOD), from", *(f"{METHODS[a].label} - {METHODS[b].label}" for a, b in pairs)]
    rows = []
    for setting in ("", *others):
        where = {"experiment": "foundations", "setting": setting} if setting else {}
        ends = {name: evidence.rows(task, name, "rule_ood", **where) for name in COMPARED}
        cells = [shown(difference_of(ends[a], ends[b]), "+") for a, b in pairs]
        name = f"another foundation model ({setting.partition('=')[2]})" if setting else "the foundation model above"
        rows.append([name, *cells])
    return table(heads, rows)


def _accounts(counted: Evidence, paper: Evidence, task: Task) -> str:
    """One sentence on what the two accounts of compute are."""
    end, earlier = (evidence.rows(task, "rl", "id") for evidence in (counted, paper))
    return (
        f"Compute: RL's rollouts took {end['measured_lambda'].mean():.2f} tokens per trained token (lambda; the paper "
        f"estimates {task.paper_lambda:g}). With the paper's lambda RL would have stopped after "
        f"{earlier['step'].mean():.0f} of {end['step'].mean():.0f} updates:"
    )


def levels_and_gains(evidence: Evidence, task: Task, title: str, columns: tuple[Column, ...]) -> str:
    """One Markdown table without the columns that have no measurements; "" if none has any."""
    found = [name for name in METHODS if any(len(evidence.rows(task, name, c.split, c.metric)) for c in columns)]
    columns = tuple(c for c in columns if any(len(evidence.rows(task, m, c.split, c.metric)) for m in found))
    if not columns:
        return ""
    methods = [name for name in METHODS if name in found or name in COMPARED]
    heads = list(_heads(f"{title}, %", columns))
    rows = [[METHODS[name].label, *_levels(evidence, task, name, columns)] for name in methods]
    for a, b in differences(methods):
        rows.append([f"{METHODS[a].label} - {METHODS[b].label}", *_gains(evidence, task, a, b, columns)])
    rows += [[f"{METHODS[a].label}: seeds that fell", *_fallen(evidence, task, a, columns)] for a in _branches(methods)]
    return table(heads, rows)


def differences(methods: list[str]) -> list[tuple[str, str]]:
    """Pairs (a, b), shown as a minus b: every branch minus Init, the last one first; then the others minus SFT."""
    branches = _branches(methods)
    return [(name, INIT.name) for name in reversed(branches)] + [(name, "sft") for name in branches if name != "sft"]


def _branches(methods: list[str]) -> list[str]:
    return [name for name in methods if name != INIT.name]


def front(metrics: pd.DataFrame) -> str:
    """The README's table: the change from Init under the new rule by RL and by SFT, in points, and the paper's."""
    evidence = Evidence(metrics)
    heads = ["under the new rule, points", "RL - Init", "paper", "SFT - Init", "paper", "verdict"]
    rows = []
    for label, variant in published.VARIANTS.items():
        parts = [part for find in (rl_raises_ood, sft_lowers_ood) for part in find(evidence, label)]
        if any(part.estimate for part in parts):
            paper = published.FIG06[label]
            seeds = max(part.estimate.seeds for part in parts if part.estimate)
            cells = [f"{label}, {variant.metric.replace('_', ' ')}, {seeds} seed{'s' * (seeds > 1)}"]
            for part, method in zip(parts, ("rl", "sft"), strict=True):
                cells += [shown(part.estimate, "+"), f"{paper[method] - paper['init']:+.1f}"]
            cells.append("; ".join(f"{name} {WORDS[p.verdict]}" for name, p in zip(("RL", "SFT"), parts, strict=True)))
            rows.append(cells)
    return table(heads, rows)


def _heads(title: str, columns: tuple[Column, ...]) -> Iterator[str]:
    yield title
    for column in columns:
        yield column.title
        if column.paper:
            yield f"paper, {column.title.partition('(')[2].rstrip(')')}"


def _levels(evidence: Evidence, task: Task, method: str, columns: tuple[Column, ...]) -> Iterator[str]:
    for column in columns:
        yield shown(evidence.level(task, method, column.split, column.metric), "")
        if column.paper:
            yield f"{column.paper[method]:.1f}" if method in column.paper else "-"


def _gains(evidence: Evidence, task: Task, a: str, b: str, columns: tuple[Column, ...]) -> Iterator[str]:
    for column in columns:
        yield shown(evidence.gain(task, a, b, column.split, column.metric), "+")
        if column.paper:
            yield f"{column.paper[a] - column.paper[b]:+.1f}" if {a, b} <= column.paper.keys() else "-"


def _fallen(evidence: Evidence, task: Task, method: str, columns: tuple[Column, ...]) -> Iterator[str]:
    for column in columns:
        rows = (evidence.rows(task, name, column.split, column.metric) for name in (method, INIT.name))
        count, seeds = fell(*rows, by=FALL)
        yield f"{count} of {seeds}" if seeds else "-"
        if column.paper:
            yield ""


def write(profile: str) -> str:
    """Write the tables of a profile to `comparison_path` and return them; those of a toy begin with its banner."""
    text = announced(profile, markdown(tables.read_metrics(profile)))
    write_atomically(comparison_path(profile), text)
    return text


def announced(profile: str, text: str) -> str:
    """A text in Markdown about the tables of a profile, below the banner of a toy."""
    told = banner(profile)
    return f"> **{told.capitalize()}** (profile {profile}).\n\n{text}" if told else text


def comparison_path(profile: str) -> Path:
    return paths.results(profile) / "comparison.md"
