"""Own figure: the search of both branches, rate by rate: where each was chosen, and what the others would have done.

The chosen rate is ringed; it was chosen by the panel of held-out instances alone (`claims.selection`).
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ..claims import selection, statistics
from ..experiments import parse_setting
from ..methods import METHODS
from ..tables import ends, select
from ..task import SPLITS
from ..tasks import TASKS
from .style import (
    INK,
    WIDTH,
    Drawing,
    NothingToDraw,
    Tables,
    axis_name,
    canvas,
    caption,
    legend_below,
    percent,
    record,
    split_name,
    styled,
)

LINES = {"token": "-", "sequence": (0, (2, 1.5)), "": "-"}  # PPO's ratio


@styled
def search(tables: Tables) -> Drawing:
    """Success of every searched setting, a row per task, a column per split."""
    rows = ends(select(tables.metrics, experiment="search", metric="success"))
    if rows.empty:
        raise NothingToDraw("it needs rows of experiment 'search', metric success")
    tasks = [t for t in TASKS.values() if len(select(rows, task=t.name, modality=t.modality))]
    splits = [split for split in SPLITS if split in set(rows["split"])]
    title = "The search for learning rates: chosen by held-out success alone"
    subtitle = caption(tables.profile, rows, "lines", "ringed: chosen", "other splits were tested after the choice")
    figure = canvas(WIDTH, 2.1 * len(tasks) + 0.3, title, subtitle)
    grid = figure.subplots(len(tasks), len(splits), squeeze=False, sharey="row")
    chosen = selection.selected(tables.metrics)
    series = []
    for line, task in zip(grid, tasks, strict=True):
        here = select(rows, task=task.name, modality=task.modality)
        best = set(chosen[(chosen["task"] == task.label) & (chosen["experiment"] == "search")]["setting"])
        for axes, split in zip(line, splits, strict=True):
            axes.set(title=f"{task.label} · {split_name(split, task)}", xscale="log")
            if split not in set(here["split"]):
                axes.set_axis_off()
                axes.text(0.5, 0.5, "not tested yet", ha="center", color=INK, transform=axes.transAxes)
                continue
            series += [{"variant": task.label} | one for one in _panel(axes, select(here, split=split), best)]
        line[0].set(ylabel=axis_name("success", task), ylim=(0, None))  # after drawing, or it stops scaling
    for axes in grid[-1]:
        axes.set_xlabel("learning rate")
    handles = [
        Line2D([], [], color=METHODS[method].color, marker=METHODS[method].marker, linestyle=LINES[ratio], label=label,
               markersize=5)
        for method, ratio, label in (
            ("sft", "", "SFT"), ("rl", "token", "RL, ratio per token"), ("rl", "sequence", "RL, ratio per answer"),
        )
    ]  # fmt: skip
    legend_below(figure, handles, len(handles), handlelength=3.5)
    return Drawing(figure, record("search", title, subtitle, tables.profile, series, None))


def _panel(axes: Axes, rows: pd.DataFrame, chosen: set[str]) -> list[dict]:
    """One curve per method and ratio over the learning rates. Returns the JSON records."""
    series = []
    parsed = rows["setting"].map(parse_setting)
    rows = rows.assign(lr=parsed.map(lambda s: s["lr"]), ratio=parsed.map(lambda s: s.get("ratio", "")))
    for (method, ratio), here in rows.groupby(["method", "ratio"]):
        look, points = METHODS[method], []
        for lr, group in here.groupby("lr"):
            estimate = statistics.level_of(group)
            points.append((lr, 100 * estimate.value))
            axes.plot([lr, lr], [100 * estimate.low, 100 * estimate.high], color=look.color, linewidth=1, alpha=0.6,
                      clip_on=False)
            if group["setting"].iloc[0] in chosen:
                axes.plot(lr, 100 * estimate.value, "o", markersize=11, fillstyle="none", color=INK, zorder=6,
                          clip_on=False)
            series.append({"method": method, "setting": group["setting"].iloc[0], "split": group["split"].iloc[0]}
                          | percent(estimate))  # fmt: skip
        axes.plot(*zip(*points, strict=True), color=look.color, marker=look.marker, markersize=5,
                  linestyle=LINES[ratio], clip_on=False)  # fmt: skip
    return series
