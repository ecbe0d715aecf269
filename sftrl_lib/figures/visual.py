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
from ..tables import along, clusters, ends, select
from ..task import SPLITS, Task
from ..tasks import labelled
from .bars import end_bars
from .curves import checkpoints, curve_caption, end_labels, main_rows, panel, tasks_with_branches
from .style import (
    GREY,
    INK,
    WIDTH,
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
    remarks = [
        "with a sign: difference from Init in points, with its CI",
        "hatched: as printed in the paper, no intervals",
    ]
    remarks += [f"{task.label}: {where}" for task, part in blocks if (where := _where(task, part))]
    subtitle = curve_caption(tables.profile, rows, "bands and lines", *remarks, dots="dots, circles")
    figure = canvas(WIDTH, 2.15 * len(blocks), title, subtitle)
    grid = figure.subplots(len(blocks), 2, squeeze=False, width_ratios=(1, 1))
    series = []
    for (left, right), (task, part) in zip(grid, blocks, strict=True):
        unit, label = flops_scale(part["train_flops"].max())
        paper = published.FIG07.get(task.label)
        lines = panel(left, part, "visual_ood", unit)
        end_labels(left, lines)
        series += [{"variant": task.label} | item for item in (*lines, *end_bars(right, ends(part), paper))]
        left.set(xlabel=label, ylabel=axis_name("success", task))
        left.set_title(f"{task.label} · {SPLITS['visual_ood'].label}")
        right.set_xlabel(axis_name("success", task))
        right.set_title(f"{task.label} · the end points, and the paper's")
        if "previous_best" in (paper or {}):
            _draw_previous_best(right, paper["previous_best"])
    handles = [handle(method) for method in methods_in(rows)]
    legend_below(figure, handles, len(handles))
    seen = "For each task lines over training compute, and horizontal bars for the ends, the paper's hatched below."
    return Drawing(figure, record("fig07", title, subtitle, tables.profile, series, published.FIG07, seen))


def _where(task: Task, rows: pd.DataFrame) -> str:
    """On which routes a navigation task was tested under a new look, and on which the paper's model was."""
    if not task.splits.get("visual_ood", {}).get("routes") or task.label not in published.VARIANTS:
        return ""
    routes = {route for text in select(rows, split="visual_ood")["by_cluster"] for route in clusters(text)}
    many = f"{len(routes)} " if routes else ""  # earlier tables do not tell
    return f"n counts walks, on {many}routes of generated cities; the paper's are 18 real ones"


def _draw_previous_best(axes: Axes, best: float) -> None:
    """The previous best result, at the height of the paper's bars only, because ours are measured on other routes."""
    for bar in (bar.patches[0] for bar in axes.containers if bar.get_label().startswith("paper")):
        axes.plot([best, best], [bar.get_y() - 0.02, bar.get_y() + bar.get_height() + 0.02], color=INK, linewidth=1.2,
                  linestyle=(0, (2, 1)), zorder=6, label="paper best")  # fmt: skip
    said = f"dashed: {best:.1f}, the previous best on\nthe official mini benchmark"
    axes.annotate(said, (1, 0), xycoords="axes fraction", xytext=(6, -8), textcoords="offset points", va="top",
                  fontsize=7, color=GREY, annotation_clip=False)  # fmt: skip


PANELS = {"rule": ("rule_ood", "A new rule"), "visual": ("visual_ood", "A new look")}
SIZES = {"*": 9.5, "o": 5}  # marker -> size; stars are ID, circles OOD


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
    remarks = ("GP-VL, means over the seeds", "a line joins the ID and OOD points of a checkpoint")
    remarks += ("hollow: the paper's checkpoints, digitised (about ±0.5 points), no intervals",)
    subtitle = caption(tables.profile, rows, "crosses at the ends", *remarks)
    figure = canvas(WIDTH, 4.9, title, subtitle)
    grid = figure.subplots(2, len(panels), squeeze=False, sharex=True, sharey=True)
    series = []
    for (ours, theirs), (name, ood) in zip(grid.T, panels.items(), strict=True):
        series += [{"panel": name} | item for item in _draw_checkpoints(ours, rows, ood)]
        _draw_paper(theirs, published.FIG08[name], ood)
        ours.set_title(f"{PANELS[name][1]} · ours")
        theirs.set(title=f"{PANELS[name][1]} · the paper", xlabel="success rate (%)")
    for axes in grid.flat:
        axes.grid(True, axis="both")
        axes.set_xlim(left=0)
    for axes in grid[:, 0]:
        axes.set_ylabel("cards recognised (%)")
    handles = [_point("*", "ID"), _point("o", "OOD")]
    shown = [METHODS[name] for name in methods_in(rows)]
    handles += [Line2D([], [], color=method.color, linewidth=4, label=method.label) for method in shown]
    greys = [
        Line2D([], [], marker="o", markersize=5, color=tint, markeredgecolor="white", linestyle="none")
        for tint in shades(GREY, 9)[:5:2]
    ]
    legend_below(figure, [*handles, tuple(greys)], len(handles) + 1)
    seen = "Points of cards recognised against hands solved, above ours, below the paper's, left rule, right look."
    return Drawing(figure, record("fig08", title, subtitle, tables.profile, series, published.FIG08, seen))


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
