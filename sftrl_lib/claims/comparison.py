"""The main comparison as Markdown tables: Init, SFT and RL, the differences between them, the paper's numbers beside.

Every cell is a mean over seeds with its 95 % interval (see `statistics`), in percent, differences in points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .. import paths, published, tables
from ..figures.style import HELDOUT, NAMES
from .evidence import Evidence
from .statistics import Estimate

METHODS = ("init", "sft", "rl")
DIFFERENCES = (("rl", "init"), ("sft", "init"), ("rl", "sft"))


@dataclass(frozen=True)
class Column:
    """One metric on one split; `paper` are the printed levels of the three methods, in percent."""

    title: str
    split: str
    metric: str
    paper: dict[str, float] | None = None


def _columns(variant: str, metric: str) -> tuple[Column, ...]:
    """A metric on every split that a variant may have, with what the paper prints of it."""
    task = tables.VARIANTS[variant]
    is_own = task.metric == metric
    return (
        Column("training rule (ID)", "id", metric),
        Column(HELDOUT[task.task], "heldout", metric),
        Column("new rule (rule-OOD)", "rule_ood", metric, published.FIG06[variant] if is_own else None),
        Column(
            "new look (visual-OOD)", "visual_ood", metric, published.FIG07.get(variant) if metric == "success" else None
        ),
    )


_OLD_TURNS = Column("turns by the old rule", "rule_ood", "training_rule")

TABLES = {  # variant -> title and columns of each of its tables
    "GP-L": {"success": _columns("GP-L", "success")},
    "V-IRL-L": {
        "per-step accuracy": _columns("V-IRL-L", "step_accuracy"),
        "whole routes": (*_columns("V-IRL-L", "success"), _OLD_TURNS),
    },
    "GP-VL": {
        "success": _columns("GP-VL", "success"),
        "all four cards read right": _columns("GP-VL", "recognition"),
    },
    "V-IRL-VL": {
        "per-step accuracy": _columns("V-IRL-VL", "step_accuracy"),
        "whole routes": (*_columns("V-IRL-VL", "success"), _OLD_TURNS),
    },
}


def markdown(metrics: pd.DataFrame) -> str:
    """The tables of all variants that were run, each below a heading, as Markdown."""
    evidence = Evidence(metrics)
    parts = []
    for variant, wanted in TABLES.items():
        made = [text for title, columns in wanted.items() if (text := table(evidence, variant, title, columns))]
        parts += [f"## {variant}", *made] if made else []
    return "\n\n".join(parts) + "\n"


def table(evidence: Evidence, variant: str, title: str, columns: tuple[Column, ...]) -> str:
    """One table; columns that nothing was measured for are left out. Empty if that is all of them."""
    columns = tuple(c for c in columns if any(evidence.level(variant, m, c.split, c.metric) for m in METHODS))
    if not columns:
        return ""
    heads = list(_heads(f"{title}, %", columns))
    rows = [[NAMES[method], *_levels(evidence, variant, method, columns)] for method in METHODS]
    rows += [[f"{NAMES[a]} - {NAMES[b]}", *_gains(evidence, variant, a, b, columns)] for a, b in DIFFERENCES]
    lines = [f"| {' | '.join(row)} |" for row in (heads, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(heads), *lines[1:]])


def _heads(title: str, columns: tuple[Column, ...]) -> Iterator[str]:
    yield title
    for column in columns:
        yield column.title
        if column.paper:
            yield f"paper, {column.title.partition('(')[2].rstrip(')')}"


def _levels(evidence: Evidence, variant: str, method: str, columns: tuple[Column, ...]) -> Iterator[str]:
    for column in columns:
        yield _cell(evidence.level(variant, method, column.split, column.metric), "")
        if column.paper:
            yield f"{column.paper[method]:.1f}"


def _gains(evidence: Evidence, variant: str, a: str, b: str, columns: tuple[Column, ...]) -> Iterator[str]:
    for column in columns:
        yield _cell(evidence.gain(variant, a, b, column.split, column.metric), "+")
        if column.paper:
            yield f"{column.paper[a] - column.paper[b]:+.1f}"


def _cell(estimate: Estimate | None, sign: str) -> str:
    if estimate is None:
        return "-"
    numbers = (estimate.value, estimate.low, estimate.high)
    value, low, high = (f"{round(100 * number, 1) + 0.0:{sign}.1f}" for number in numbers)  # never -0.0
    return f"{value} [{low}, {high}]"


def write(profile: str) -> str:
    """Write the tables of a profile to `comparison_path` and return them."""
    text = markdown(tables.read_metrics(profile))
    tables.write_atomically(comparison_path(profile), text)
    return text


def comparison_path(profile: str) -> Path:
    return paths.results(profile) / "comparison.md"
