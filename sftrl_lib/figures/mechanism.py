"""Own figure: under the new rule, do answers follow the stated rule or the training rule?

Paper: an example (Fig. 21) and a sentence (section 6); no number. Ours: both shares over training compute, side
by side for every task that has such metrics (`Words.stated`, `Words.trained`). In GeneralPoints the rule shows in the
numbers that an answer assigns to the cards, in navigation in its directions.
"""

from __future__ import annotations

import pandas as pd

from .. import published
from ..tables import select
from ..task import Task
from ..tasks import TASKS
from .curves import draw_curve, draw_star, main_rows
from .style import (
    Drawing,
    NothingToDraw,
    Tables,
    branches_in,
    canvas,
    caption,
    flops_scale,
    handle,
    legend_below,
    line_handle,
    methods_in,
    record,
    styled,
)


@styled
def mechanism(tables: Tables, smooth: bool = False) -> Drawing:
    """Answers under the new rule: by the stated rule (left, with ID dashed) and by the training rule (right)."""
    parts = [(task, _rows(tables, task)) for task in TASKS.values() if task.words.stated and task.words.trained]
    parts = [(task, rows) for task, rows in parts if branches_in(rows)]
    if not parts:
        raise NothingToDraw("it needs 'main' rows of the metric numbers, recognition, legal_action or training_rule")
    rows = pd.concat([part for _, part in parts])
    title = "The mechanism · Which rule do answers follow when the prompt has a new one?"
    remarks = dict.fromkeys(task.words.remark for task, _ in parts)
    subtitle = caption(tables.profile, rows, "bands", *remarks)
    figure = canvas(8.8, 3.0 * len(parts), title, subtitle)
    grid = figure.subplots(len(parts), 2, squeeze=False)
    series = []
    for line, (task, part) in zip(grid, parts, strict=True):
        unit, label = flops_scale(part["train_flops"].max())
        for axes, reading in zip(line, (task.words.stated, task.words.trained), strict=True):
            here = select(part, metric=reading.metric)
            if select(here, split="rule_ood").empty:
                axes.set_visible(False)
                continue
            series += [{"variant": task.label} | item for item in _panel(axes, here, unit, smooth)]
            axes.set(xlabel=label, ylabel=reading.label, ylim=(0, 103))
            axes.set_title(f"{task.label} · {reading.title}")
    handles = [handle(method) for method in methods_in(rows)]
    handles.append(line_handle("OOD: a new rule"))
    if len(select(rows, split="id")):
        handles.append(line_handle("ID: the training rule", dashed=True))
    legend_below(figure, handles, len(handles))
    paper = {"note": "the paper shows the mechanism by an example, without numbers", "fig21": published.FIG21}
    return Drawing(figure, record("mechanism", title, subtitle, tables.profile, series, paper))


def _rows(tables: Tables, task: Task) -> pd.DataFrame:
    """The rows drawn for a task: both metrics under the new rule, and the first under the training rule."""
    stated = select(main_rows(tables, task, task.words.stated.metric), split=["id", "rule_ood"])
    return pd.concat([stated, select(main_rows(tables, task, task.words.trained.metric), split="rule_ood")])


def _panel(axes, rows: pd.DataFrame, unit: float, smooth: bool) -> list[dict]:
    """Every branch starting at Init: solid under the new rule, dashed under the training rule as a control."""
    series = []
    for split, line in (("id", (0, (4, 2))), ("rule_ood", "-")):
        here = select(rows, split=split)
        init = select(here, method="init")
        for method in branches_in(here):
            look = {"linestyle": line, "smooth": smooth and split == "rule_ood"}
            series.append(draw_curve(axes, select(here, method=method), init, unit, method, **look))
        if len(init) and split == "rule_ood":
            draw_star(axes, init, unit)
    return series
