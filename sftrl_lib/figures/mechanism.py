"""Own figure: which rule do answers follow under the new rule, the stated one or the one of training?

Paper: an example (Fig. 21) and a sentence (section 6); no number. Ours: both shares over training compute, side
by side for every task. In GeneralPoints a rule shows in the numbers that an answer gives the cards, in
navigation in its directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from .. import published
from ..tables import VARIANTS, numbers_metric, select
from .curves import draw_curve, draw_star, main_rows
from .style import (
    Drawing,
    NothingToDraw,
    Tables,
    canvas,
    caption,
    flops_scale,
    handle,
    line_handle,
    record,
    styled,
)


@dataclass(frozen=True)
class Reading:
    """How one task shows the rule that an answer follows: the title and the y label of each column."""

    titles: tuple[str, str]
    labels: tuple[str, str]


READINGS = {
    "general_points": Reading(
        ("numbers by the stated rule", "numbers by the training rule"),
        ("share of answers (%)", "share of answers (%)"),
    ),
    "navigation": Reading(
        ("actions that the prompt offers", "directions of the training rule"),
        ("share of answers (%)", "share of turns (%)"),
    ),
}


@styled
def mechanism(tables: Tables, smooth: bool = False) -> Drawing:
    """Under the new rule: answers by the stated rule (left; ID dashed) and still by the training rule (right)."""
    parts = {variant: _rows(tables, variant) for variant in VARIANTS}
    parts = {variant: rows for variant, rows in parts.items() if len(select(rows, method=["sft", "rl"]))}
    if not parts:
        raise NothingToDraw("it needs 'main' rows of the metric numbers, recognition, legal_action or training_rule")
    rows = pd.concat(parts.values())
    title = "The mechanism · Which rule do answers follow when the prompt has a new one?"
    remarks = ["GP: how the cards' numbers are read"] if _has(rows, "general_points") else []
    remarks += ["V-IRL: relative turns are offered, absolute ones were trained"] if _has(rows, "navigation") else []
    subtitle = caption(tables.profile, rows, "bands", *remarks)
    figure = canvas(8.8, 3.0 * len(parts), title, subtitle)
    grid = figure.subplots(len(parts), 2, squeeze=False)
    series = []
    for line, (variant, part) in zip(grid, parts.items(), strict=True):
        unit, label = flops_scale(part["train_flops"].max())
        reading = READINGS[VARIANTS[variant].task]
        for index, axes in enumerate(line):
            here = part[(part["metric"] == "training_rule") == bool(index)]
            if select(here, split="rule_ood").empty:
                axes.set_visible(False)
                continue
            series += [{"variant": variant} | item for item in _panel(axes, here, unit, smooth)]
            axes.set(xlabel=label, ylabel=reading.labels[index], ylim=(0, 103))
            axes.set_title(f"{variant} · {reading.titles[index]}")
    handles = [handle(method) for method in ("init", "sft", "rl") if len(select(rows, method=method))]
    handles.append(line_handle("OOD: a new rule"))
    if len(select(rows, split="id")):
        handles.append(line_handle("ID: the training rule", dashed=True))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    paper = {"note": "the paper shows the mechanism by an example, without numbers", "fig21": published.FIG21}
    return Drawing(figure, record("mechanism", title, subtitle, tables.profile, series, paper))


def _rows(tables: Tables, variant: str) -> pd.DataFrame:
    """What is drawn of a variant: both metrics under the new rule, the first under the training rule as well."""
    task = VARIANTS[variant]
    rows = select(tables.metrics, task=task.task, modality=task.modality)
    metric = "legal_action" if task.task == "navigation" else numbers_metric(rows)
    stated = select(main_rows(tables, variant, metric), split=["id", "rule_ood"])
    return pd.concat([stated, select(main_rows(tables, variant, "training_rule"), split="rule_ood")])


def _has(rows: pd.DataFrame, task: str) -> bool:
    return len(select(rows, task=task)) > 0


def _panel(axes, rows: pd.DataFrame, unit: float, smooth: bool) -> list[dict]:
    """SFT and RL from Init on, solid under the new rule; dashed, as a control, under the old."""
    series = []
    for split, line in (("id", (0, (4, 2))), ("rule_ood", "-")):
        here = select(rows, split=split)
        init = select(here, method="init")
        for method in ("sft", "rl"):
            branch = select(here, method=method)
            if len(branch):
                look = {"linestyle": line, "smooth": smooth and split == "rule_ood"}
                series.append(draw_curve(axes, branch, init, unit, method, **look))
        if len(init) and split == "rule_ood":
            draw_star(axes, init, unit)
    return series
