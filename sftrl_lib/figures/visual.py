"""Figures on visual input: 7 (visual OOD, the image tasks) and 8 (recognition against success, GP-VL).

Paper, Fig. 7: smoothed curves and bars, no intervals; V-IRL-VL on the 18 official mini-benchmark routes. Ours: the
mean over seeds with 95 % intervals; the street views and the mini benchmark's cities are generated.
Paper, Fig. 8: single checkpoints, recognition measured without verification. Ours: means over seeds, recognition in
the first attempt, intervals only at the last checkpoints; the paper's points are in separate panels.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .. import published
from ..claims import statistics
from ..methods import METHODS
from ..tables import along, ends, select
from ..task import SPLITS
from ..tasks import labelled
from .bars import bar_group
from .curves import checkpoints, main_rows, panel, tasks_with_branches
from .style import (
    GREY,
    Drawing,
    NothingToDraw,
    Tables,
    axis_name,
    branches_in,
    canvas,
    caption,
    flops_scale,
    handle,
    legend_below,
    methods_in,
    percent,
    record,
    shades,
    styled,
)


@styled
def visual_ood(tables: Tables) -> Drawing:
    """Fig. 7: success on a new look, rules unchanged, over training compute and at the end beside the paper's."""
    blocks = [(task, select(rows, split="visual_ood")) for task, rows in tasks_with_branches(tables, "success")]
    blocks = [(task, rows) for task, rows in blocks if branches_in(rows)]
    if not blocks:
        raise NothingToDraw("it needs GP-VL or V-IRL-VL rows of experiment 'main', metric success, split visual_ood")
    rows = pd.concat([part for _, part in blocks])
    title = "Fig. 7 · Under a new look, at equal training compute"
    remarks = ["dots and circles: single seeds", "bold: difference to Init in points, with its CI"]
    remarks += ["hatched: as printed in the paper, no intervals"]
    if "V-IRL-VL" in [task.label for task, _ in blocks]:
        remarks.append("V-IRL-VL: ours on generated cities, the paper's on the official mini benchmark")
    subtitle = caption(tables.profile, rows, "bands and lines", *remarks)
    figure = canvas(10.4, 3.5 * len(blocks), title, subtitle)
    grid = figure.subplots(len(blocks), 2, squeeze=False, width_ratios=(1, 1.35))
    series = []
    for (left, right), (task, part) in zip(grid, blocks, strict=True):
        unit, label = flops_scale(part["train_flops"].max())
        paper = published.FIG07.get(task.label)
        drawn = panel(left, part, "visual_ood", unit) + bar_group(right, ends(part), paper)
        series += [{"variant": task.label} | item for item in drawn]
        left.set(xlabel=label, ylabel=axis_name("success", task))
        left.set_title(f"{task.label} · {SPLITS['visual_ood'].label}")
        right.set_title(f"{task.label} · the end points, and the paper's")
        if "previous_best" in (paper or {}):
            _draw_previous_best(right, paper["previous_best"])
    handles = [handle(method) for method in methods_in(rows)]
    legend_below(figure, handles, len(handles))
    return Drawing(figure, record("fig07", title, subtitle, tables.profile, series, published.FIG07))


def _draw_previous_best(axes: Axes, best: float) -> None:
    """The previous best result, drawn across the paper's bars only, because ours are measured on other routes."""
    bars = [bar.patches[0] for bar in axes.containers if bar.get_label().startswith("paper")]
    left, right = bars[0].get_x() - 0.07, bars[-1].get_x() + bars[-1].get_width() + 0.07
    axes.plot([left, right], [best, best], color=GREY, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1,
              label="paper best")  # fmt: skip
    axes.annotate("previous best on the\nofficial mini benchmark", (left, best), xytext=(0, 3),
                  textcoords="offset points", fontsize=7, color=GREY)  # fmt: skip
    axes.annotate(f"{best:.1f} (paper)", (left, best), xytext=(0, -10), textcoords="offset points", fontsize=8,
                  color=GREY)  # fmt: skip


PANELS = {"rule": ("rule_ood", "A new rule"), "visual": ("visual_ood", "A new look")}
SIZES = {"*": 12.5, "o": 6.8}  # marker -> size; stars are ID, circles OOD


@styled
def recognition(tables: Tables) -> Drawing:
    """Fig. 8: GP-VL, cards recognised against hands solved; lines join the ID and OOD points of a checkpoint."""
    task = labelled(published.FIGURE_OF[8])
    rows = _measured_both(pd.concat([main_rows(tables, task, metric) for metric in ("success", "recognition")]))
    panels = {name: ood for name, (ood, _) in PANELS.items() if branches_in(select(rows, split=ood))}
    if not panels:
        raise NothingToDraw(
            "it needs GP-VL rows of experiment 'main' in both metrics, success and recognition, on an OOD split"
        )
    rows = select(rows, split=["id", *panels.values()])
    title = "Fig. 8 · Recognising the cards and solving the hand"
    remarks = ("GP-VL, means over the seeds", "lighter to darker: less to more training compute")
    remarks += ("hollow: the paper's checkpoints, digitised (about ±0.5 points), no intervals",)
    subtitle = caption(tables.profile, rows, "crosses at the ends", *remarks)
    figure = canvas(max(6.6, 0.6 + 4.7 * len(panels)), 6.6, title, subtitle)
    grid = figure.subplots(2, len(panels), squeeze=False, sharex=True, sharey="row", height_ratios=(1.25, 1))
    series = []
    for (ours, theirs), (name, ood) in zip(grid.T, panels.items(), strict=True):
        series += [{"panel": name} | item for item in _draw_checkpoints(ours, rows, ood)]
        _draw_paper(theirs, published.FIG08[name], ood)
        ours.set_title(f"{PANELS[name][1]} · this run")
        theirs.set(title=f"{PANELS[name][1]} · the paper", xlabel="success rate (%)")
    for axes in grid.flat:
        axes.grid(True, axis="both")
        axes.set_xlim(left=0)
    for axes in grid[:, 0]:
        axes.set_ylabel("cards recognised (%)")
    handles = [_point("*", "ID"), _point("o", "OOD")]
    shown = [METHODS[name] for name in methods_in(rows)]
    handles += [Line2D([], [], color=method.color, linewidth=5, label=method.label) for method in shown]
    legend_below(figure, handles, len(handles))
    return Drawing(figure, record("fig08", title, subtitle, tables.profile, series, published.FIG08))


def _point(marker: str, label: str) -> Line2D:
    return Line2D([], [], marker=marker, markersize=SIZES[marker], color=GREY, markeredgecolor="white",
                  linestyle="none", label=label)  # fmt: skip


def _measured_both(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of checkpoints and splits that have both metrics."""
    return rows[rows.groupby(["method", "seed", "step", "split"])["metric"].transform("nunique") == 2]


def _draw_checkpoints(axes: Axes, rows: pd.DataFrame, ood: str) -> list[dict]:
    """Every checkpoint's mean over seeds, ID and OOD joined by a line. Returns the JSON records."""
    series = []
    for method in methods_in(rows):
        mine = along(select(rows, method=method))
        numbers = checkpoints(mine)
        tints = shades(METHODS[method].color, 2 * int(numbers.max()) - 1)[: int(numbers.max())]
        for tint, (_, checkpoint) in zip(tints, mine.groupby(numbers), strict=True):
            points = {split: _estimates(select(checkpoint, split=split)) for split in ("id", ood)}
            points = {split: point for split, point in points.items() if point}
            at = [[100 * estimate.value for estimate in point] for point in points.values()]
            axes.plot(*zip(*at, strict=True), color=tint, linewidth=1.1, zorder=2, label=f"{method} pair")
            for (split, point), (x, y) in zip(points.items(), at, strict=True):
                marker = "*" if split == "id" else "o"
                axes.plot(x, y, marker=marker, markersize=SIZES[marker], color=tint, markeredgecolor="white",
                          markeredgewidth=0.6, zorder=5, clip_on=False, label=f"{method} {split}")  # fmt: skip
                if tint == tints[-1]:
                    _cross(axes, *point, tint)
                series.append({
                    "method": method, "split": split, "train_flops": checkpoint["train_flops"].mean(),
                    "success": percent(point[0]), "recognition": percent(point[1]),
                })  # fmt: skip
    return series


def _estimates(rows: pd.DataFrame) -> list[statistics.Estimate]:
    """[success, recognition] of one checkpoint on one split; empty if it was not tested there."""
    found = [statistics.level_of(select(rows, metric=metric)) for metric in ("success", "recognition")]
    return [estimate for estimate in found if estimate is not None]


def _cross(axes: Axes, x: statistics.Estimate, y: statistics.Estimate, color: str) -> None:
    look = {"color": color, "linewidth": 1.0, "alpha": 0.7, "zorder": 3, "label": "_interval"}
    axes.plot([100 * x.low, 100 * x.high], [100 * y.value] * 2, **look)
    axes.plot([100 * x.value] * 2, [100 * y.low, 100 * y.high], **look)


def _draw_paper(axes: Axes, paper: dict, ood: str) -> None:
    """The paper's digitised checkpoints, hollow, ordered by compute."""
    for method in (name for name in METHODS if name in paper["id"]):
        pairs = list(zip(paper["id"][method], paper[ood][method], strict=True))
        tints = shades(METHODS[method].color, 2 * len(pairs) - 1)[: len(pairs)]
        for tint, pair in zip(tints, pairs, strict=True):
            axes.plot(*zip(*pair, strict=True), color=tint, linewidth=0.9, zorder=2, label="_pair")
            for marker, (x, y) in zip("*o", pair, strict=True):
                axes.plot(x, y, marker=marker, markersize=SIZES[marker], color=tint, markerfacecolor="white",
                          zorder=5, label=f"paper {method} {'id' if marker == '*' else ood}")  # fmt: skip
