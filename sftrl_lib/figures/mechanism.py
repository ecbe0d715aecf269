"""Own figure: under the new rule, do answers follow the stated rule or the training rule?

Paper: an example (Fig. 21) and a sentence (section 6); no number. Ours: both shares over training compute, one above
the other, for every task that has such metrics (`Words.stated`, `Words.trained`). In GeneralPoints the rule shows in
the numbers that an answer assigns to the cards, in navigation in its directions.
"""

from __future__ import annotations

import textwrap

import pandas as pd

from .. import published
from ..tables import select
from ..task import Reading, Task
from ..tasks import TASKS
from .curves import DASHED, curve_caption, draw_curve, draw_star, main_rows
from .style import (
    WIDTH,
    Drawing,
    NothingToDraw,
    Tables,
    branches_in,
    canvas,
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
    """Answers under the new rule: by the stated rule (above, with ID dashed) and by the training rule (below)."""
    parts = [(task, _rows(tables, task)) for task in TASKS.values() if task.words.stated and task.words.trained]
    parts = [(task, rows) for task, rows in parts if branches_in(select(rows, split="rule_ood"))]
    if not parts:
        raise NothingToDraw(
            "it needs 'main' rows of the metric numbers, recognition, legal_action or training_rule, split rule_ood"
        )
    rows = pd.concat([part for _, part in parts])
    title = "The mechanism · Which rule do answers follow when the prompt states a new one?"
    remarks = dict.fromkeys(task.words.remark for task, _ in parts)
    banded = select(rows, split="rule_ood")
    subtitle = curve_caption(tables.profile, rows, "bands", *remarks, banded=banded)
    readings = [
        [reading for reading in (task.words.stated, task.words.trained) if len(_read(part, reading))]
        for task, part in parts
    ]
    lines = max(map(len, readings))
    figure = canvas(WIDTH, 0.5 + 1.75 * lines, title, subtitle)
    grid = figure.subplots(lines, len(parts), squeeze=False, sharex="col", sharey=True)
    series = []
    for column, (task, part), shown in zip(grid.T, parts, readings, strict=True):
        unit, label = flops_scale(part["train_flops"].max())
        for axes in column[len(shown) :]:
            axes.set_visible(False)
        for axes, reading in zip(column, shown, strict=False):
            here = select(part, metric=reading.metric)
            series += [{"variant": task.label} | item for item in _panel(axes, here, unit, smooth)]
            axes.set(ylim=(0, 103))
            name = f"{task.label} · {reading.title}"
            axes.set_title(name if len(parts) < 3 else "\n".join(textwrap.wrap(name, 19)), fontsize=7.5)
            axes.set_ylabel(reading.label)
        column[len(shown) - 1].set_xlabel(label if len(parts) < 3 else label.replace("training ", ""))
        column[len(shown) - 1].tick_params(labelbottom=True)
    handles = [handle(method) for method in methods_in(rows)]
    handles.append(line_handle("OOD: a new rule"))
    if len(select(rows, split="id")):
        handles.append(line_handle("ID: the training rule", dashed=True))
    legend_below(figure, handles, len(handles))
    paper = {"note": "the paper shows the mechanism by an example, without numbers", "fig21": published.FIG21}
    seen = "A column for each task: above the share of answers by the stated rule, below by the training rule."
    return Drawing(figure, record("mechanism", title, subtitle, tables.profile, series, paper, seen))


def _read(rows: pd.DataFrame, reading: Reading) -> pd.DataFrame:
    return select(rows, metric=reading.metric, split="rule_ood")


def _rows(tables: Tables, task: Task) -> pd.DataFrame:
    """The rows drawn for a task: both metrics under the new rule, and the first under the training rule."""
    stated = select(main_rows(tables, task, task.words.stated.metric), split=["id", "rule_ood"])
    return pd.concat([stated, select(main_rows(tables, task, task.words.trained.metric), split="rule_ood")])


def _panel(axes, rows: pd.DataFrame, unit: float, smooth: bool) -> list[dict]:
    """Every branch starting at Init: solid under the new rule, dashed under the training rule as a control."""
    series = []
    for split, line in (("id", DASHED), ("rule_ood", "-")):
        here = select(rows, split=split)
        init = select(here, method="init")
        for method in branches_in(here):
            look = {"linestyle": line, "smooth": smooth and split == "rule_ood"}
            series.append(draw_curve(axes, select(here, method=method), init, unit, method, **look))
        if len(init) and split == "rule_ood":
            draw_star(axes, init, unit)
    return series
