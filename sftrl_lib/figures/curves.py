"""Figures over training compute: 1 and 18 (whole routes), 5 (main curves), 15 (sub-optimal SFT).

Paper: smoothed lines (Savitzky-Golay, order 3), raw values not shown. Ours: the mean over seeds at every
checkpoint with its 95 % interval as a band and each seed as a faint dot; `smooth=True` adds the paper's
smoothing as a guide. Compute includes that of Init, so every branch starts at the star. Where two tests in a row had
different numbers of episodes, and so different ones, the line between them is dotted.
"""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes

from .. import published
from ..claims import statistics
from ..methods import METHODS
from ..tables import along, select
from ..task import SPLITS, Task
from ..tasks import TASKS, labelled
from .style import (
    CLIPPED,
    GREY,
    WIDTH,
    Drawing,
    NothingToDraw,
    Tables,
    axis_name,
    branches_in,
    canvas,
    caption,
    clipped,
    flops_scale,
    handle,
    heldout_handle,
    legend_below,
    line_handle,
    methods_in,
    paper_handle,
    power_of_ten,
    record,
    styled,
)

STRIP = 0.93  # middle of the paper's strip, as a fraction of the axes' width
STRIP_WIDTH = 0.16  # of that strip, as a fraction of the axes' width without it
DASHED = (0, (4, 2))
Curve = list[tuple[float, statistics.Estimate]]  # train FLOPs and estimate, checkpoint by checkpoint
_CURVE = ["task", "modality", "method", "experiment", "setting", "split", "metric"]  # columns that identify one


def main_rows(tables: Tables, task: Task, metric: str = "") -> pd.DataFrame:
    """Rows of one task under the paper's protocol (main experiment, sampled), in `metric` or the task's own."""
    return select(
        tables.metrics, task=task.name, modality=task.modality, experiment="main", setting="sampled",
        metric=metric or task.metric,
    )  # fmt: skip


def curve(rows: pd.DataFrame, start: pd.DataFrame | None = None) -> Curve:
    """Mean and interval over seeds at every checkpoint of `rows`, preceded by `start` (Init) if given."""
    rows = along(pd.concat([start, rows]) if start is not None and len(start) else rows)
    return [(group["train_flops"].mean(), statistics.level_of(group)) for _, group in rows.groupby(checkpoints(rows))]


def checkpoints(rows: pd.DataFrame) -> pd.Series:
    """The number of each row's checkpoint within its seed, because seeds reach equal compute at different steps."""
    return rows.groupby("seed")["step"].rank(method="dense")


def curve_caption(
    profile: str, rows: pd.DataFrame, marks: str, *remarks: str, banded: pd.DataFrame | None = None, dots: str = "dots"
) -> str:
    """The subtitle of curves, with what they need explained: dots, dotted lines, triangles.

    banded: those of the rows that are drawn with a band; all of them, if None. dots: what single seeds are drawn as.
    """
    at_ends, rows = rows["n"].max(), along(rows)
    more = f"the tables' ends are on up to {at_ends:,}" if at_ends > rows["n"].max() else ""
    curves = [part for _, part in rows.groupby(_CURVE)]
    dots = f"{dots}: single seeds" if any(part["seed"].nunique() > 1 for part in curves) else ""
    sizes = rows.groupby([*_CURVE[:2], "split"])["n"].nunique()
    dotted = "dotted: between tests of different size, so on other episodes" if (sizes > 1).any() else ""
    banded = rows if banded is None else along(banded)
    levels = (level for _, part in banded.groupby(_CURVE) for _, level in curve(part))
    beyond = CLIPPED if any(any(clipped(level)) for level in levels) else ""
    return caption(profile, rows, marks, *remarks, more, dots, dotted, beyond)


def draw_curve(axes: Axes, rows: pd.DataFrame, start: pd.DataFrame, unit: float, method: str, **look) -> dict:
    """One branch starting at Init: band, line through the means, one dot per seed. Returns its JSON record."""
    look = {
        "color": METHODS[method].color,
        "linestyle": "-",
        "marker": METHODS[method].marker,
        "size": 4,
        "smooth": False,
        "dots": True,
    } | look
    rows = along(rows)
    points = curve(rows, start)
    x = [flops / unit for flops, _ in points]
    y, low, high = ([100 * getattr(e, end) for _, e in points] for end in ("value", "low", "high"))
    color, solid = look["color"], look["linestyle"] == "-"
    if solid:
        axes.fill_between(x, low, high, color=color, alpha=0.13, linewidth=0, zorder=2)
        for edge in (low, high):  # so that one band can be told from another where they overlap
            axes.plot(x, edge, color=color, linewidth=0.5, alpha=0.6, zorder=2, label="_edge")
        _draw_clipped(axes, x, [estimate for _, estimate in points], color)
        if look["dots"] and rows["seed"].nunique() > 1:
            axes.scatter(rows["train_flops"] / unit, 100 * rows["value"], s=5, color=color, alpha=0.45, linewidth=0,
                         zorder=3)  # fmt: skip
    width = 1.6 if solid else 1.1
    same = [a.n / a.seeds == b.n / b.seeds for (_, a), (_, b) in zip(points, points[1:], strict=False)]
    for index, alike in enumerate(same):
        axes.plot(x[index : index + 2], y[index : index + 2], color=color, linewidth=width, zorder=4,
                  linestyle=look["linestyle"] if alike else (0, (1, 1.4)), label="_piece")  # fmt: skip
    axes.plot(
        x, y, color=color, linestyle=look["linestyle"], linewidth=0, zorder=4, marker=look["marker"] if solid else "",
        markersize=look["size"], markeredgecolor="white", markeredgewidth=0.5, clip_on=False,
        markevery=slice(len(points) - checkpoints(rows).nunique(), None), label=f"{method} {look['linestyle']}",
    )  # fmt: skip
    if look["smooth"]:
        guide = statistics.smooth(y)
        axes.plot(x, guide, color=color, linewidth=4, alpha=0.25, zorder=1, label="_guide")
    return {
        "method": method, "split": rows["split"].iloc[0], "metric": rows["metric"].iloc[0],
        "setting": rows["setting"].iloc[0], "train_flops": [flops for flops, _ in points], "value": y,
        "ci_low": low, "ci_high": high, "n": [e.n for _, e in points], "seeds": [e.seeds for _, e in points],
    }  # fmt: skip


def _draw_clipped(axes: Axes, x: list[float], estimates: list[statistics.Estimate], color: str) -> None:
    """Triangles where a band was cut at 0 or 100 %."""
    for side, height, marker in ((0, 0.0, 7), (1, 100.0, 6)):  # carets that point away from what is inside
        there = [place for place, estimate in zip(x, estimates, strict=True) if clipped(estimate)[side]]
        if there:  # constrained layout cannot measure a line without points
            axes.plot(there, [height] * len(there), linestyle="none", marker=marker, markersize=4, color=color,
                      zorder=5, clip_on=False, label="_clipped")  # fmt: skip


def panel(axes: Axes, rows: pd.DataFrame, split: str, unit: float, smooth: bool = False) -> list[dict]:
    """Every branch and the Init star on one split; the ID panel also has held-out instances, dashed."""
    series = []
    for part in (split, "heldout") if split == "id" else (split,):
        here = select(rows, split=part)
        init = select(here, method="init")
        for method in branches_in(here):
            look = {
                "linestyle": "-" if part == split else DASHED,
                "smooth": smooth and part == split,
            }
            series.append(draw_curve(axes, select(here, method=method), init, unit, method, **look))
        if part == split and len(init):
            draw_star(axes, init, unit)
    set_floor(axes, series)
    axes.margins(x=0.03)
    return series


def set_floor(axes: Axes, series: list[dict]) -> None:
    """Begin the y axis at 0; higher, with a mark that says so, if nothing is drawn in its lower half."""
    lowest = min((min(*item["ci_low"], *item["value"]) for item in series), default=0)
    if lowest < 40:
        axes.set_ylim(bottom=0, top=_headroom(axes))
        return
    axes.set_ylim(bottom=10 * math.floor((lowest - 2) / 10), top=_headroom(axes))
    axes.plot([0, 0], [0.03, 0.075], transform=axes.transAxes, linestyle="none", marker=[(-1, -0.6), (1, 0.6)],
              markersize=6, color=axes.spines["left"].get_edgecolor(), markeredgewidth=0.9, clip_on=False, zorder=9,
              label="_broken axis")  # fmt: skip


def _headroom(axes: Axes) -> float:
    """The top of the y axis: a percentage goes to 100 and hardly beyond."""
    return min(axes.get_ylim()[1], 103)


def draw_star(axes: Axes, init: pd.DataFrame, unit: float) -> None:
    """Init, the checkpoint from which the branches start."""
    init = along(init)
    axes.scatter(init["train_flops"].mean() / unit, 100 * init["value"].mean(), marker="*", s=95, zorder=6,
                 color=METHODS["init"].color, edgecolor="white", linewidth=0.6, label="init")  # fmt: skip


def end_labels(axes: Axes, series: list[dict]) -> None:
    """The methods' names right of the ends of their solid lines, moved apart where the lines end close together."""
    ends = sorted((item["value"][-1], item["method"]) for item in series if item["split"] != "heldout")
    low, high = axes.get_ylim()
    inches = axes.get_figure().get_figheight() * axes.get_subplotspec().get_position(axes.get_figure()).height
    least = 0.14 * (high - low) / max(0.75 * inches, 0.5)  # the height of a letter, in percent
    placed: list[float] = []
    for height, _ in ends:
        placed.append(max(height, placed[-1] + least) if placed else height)
    shift = sum(placed) / len(placed) - sum(height for height, _ in ends) / len(ends) if placed else 0
    shift = min(shift, placed[0] - low) if placed else 0  # not below the axis, where its numbers are
    right = max((item["train_flops"][-1] for item in series), default=0) and axes.dataLim.x1
    for place, (_, method) in zip(placed, ends, strict=True):
        axes.annotate(METHODS[method].label, (right, place - shift), xytext=(5, 0), textcoords="offset points",
                      va="center", fontsize=7, fontweight="bold", color=METHODS[method].color,
                      annotation_clip=False)  # fmt: skip


def paper_strip(axes: Axes) -> None:
    """A strip on the right, centred on STRIP, for the paper's values, because its compute is on another scale."""
    left, right = axes.get_xlim()
    axes.set_xticks([tick for tick in axes.get_xticks() if left <= tick <= right])
    axes.set_xlim(left, right + STRIP_WIDTH * (right - left))
    axes.axvspan(right, right + STRIP_WIDTH * (right - left), color="#f4f4f4", linewidth=0, zorder=0)
    axes.text(STRIP, 1.0, "paper", transform=axes.transAxes, ha="center", va="bottom", fontsize=7, color=GREY)


def draw_paper_ends(axes: Axes, values: dict[str, float]) -> None:
    """The paper's Init and end values (method -> percent), hollow, in a strip of their own."""
    paper_strip(axes)
    for method, value in values.items():
        axes.scatter(
            STRIP, value, transform=axes.get_yaxis_transform(), marker=METHODS[method].marker,
            s=60 if method == "init" else 20, facecolor="white", edgecolor=METHODS[method].color, linewidth=1.1,
            zorder=6, clip_on=False, label=f"paper {method}",
        )  # fmt: skip
    low, high = axes.get_ylim()
    if min(values.values()) < low:  # then the axis begins at 0 after all
        low = 0
        for line in [line for line in axes.lines if line.get_label() == "_broken axis"]:
            line.remove()
    axes.set_ylim(low, max(high, 1.08 * max(values.values())))


def draw_paper_range(axes: Axes, values: list[float]) -> None:
    """The range of the paper's axis, for figures of which nothing else can be read: a bracket, no data."""
    paper_strip(axes)
    low, high = values
    look = {"color": GREY, "linewidth": 0.9, "transform": axes.get_yaxis_transform(), "clip_on": False, "zorder": 6}
    axes.plot([STRIP, STRIP], [low, high], label="paper axis", **look)
    for end in (low, high):
        axes.plot([STRIP - 0.02, STRIP + 0.02], [end, end], label="_paper axis", **look)
    axes.set_ylim(top=max(axes.get_ylim()[1], 1.08 * high))


PAPER_RANGE = "bracket: the range of the paper's axis, of which no values are printed"


def tasks_with_branches(tables: Tables, metric: str = "") -> list[tuple[Task, pd.DataFrame]]:
    """The tasks that have at least one trained branch, with their main rows, the paper's first."""
    rows = [(task, main_rows(tables, task, metric)) for task in TASKS.values()]
    return [(task, part) for task, part in rows if branches_in(part)]


@styled
def whole_routes(tables: Tables) -> Drawing:
    """Fig. 1: V-IRL-L, the share of routes walked to the end under the training rule and a new one, and the paper's."""
    task = labelled(published.FIGURE_OF[1])
    rows = select(main_rows(tables, task, "success"), split=["id", "rule_ood"])
    if not branches_in(rows):
        raise NothingToDraw("it needs V-IRL-L rows of experiment 'main', metric success, method sft or rl")
    title = "Fig. 1 · Routes walked to the destination, over training compute"
    remark = "hollow: the paper's curves, digitised (about ±0.5 points), no intervals"
    subtitle = curve_caption(tables.profile, rows, "bands", "V-IRL-L", remark)
    figure = canvas(WIDTH, 2.5, title, subtitle)
    left, middle, theirs = figure.subplots(1, 3, sharey=True, width_ratios=(1, 1, 1.05))
    unit, label = flops_scale(rows["train_flops"].max())
    series = []
    for axes, split in ((left, "id"), (middle, "rule_ood")):
        series += panel(axes, rows, split, unit)
        axes.set(xlabel=label, title=SPLITS[split].label)
        end_labels(axes, [item for item in series if item["split"] == split])
    for method in (name for name in METHODS if name in published.FIG01):
        look, paper = METHODS[method], published.FIG01[method]
        for split, line in _ROUTE_LINES.items():
            x, y = zip(*paper[split], strict=True)
            theirs.plot(x, y, color=look.color, linestyle=line, linewidth=1.1, marker=look.marker, markersize=4,
                        markerfacecolor="white", clip_on=False, label=f"paper {method} {split}")  # fmt: skip
    left.set(ylabel=axis_name("success", task), ylim=(0, 103))
    theirs.set(xlabel=f"training compute ({power_of_ten(18)} FLOPs)", title="The paper: both", xlim=(0, None))
    handles = [handle(method) for method in methods_in(rows)]
    handles += [line_handle("paper, ID", dashed=True), line_handle("paper, OOD")]
    legend_below(figure, [*handles, paper_handle()], len(handles) + 1)
    seen = "Three panels of lines: ours under the training rule, ours under a new rule, and the paper's four curves."
    return Drawing(figure, record("fig01", title, subtitle, tables.profile, series, published.FIG01, seen))


_ROUTE_LINES = {"id": DASHED, "rule_ood": "-"}  # as in the paper


@styled
def image_routes(tables: Tables) -> Drawing:
    """Fig. 18: V-IRL-VL, the share of routes walked to the end, under the training rule and under a new one.

    Paper: only the axes can be read, and that both methods end at 1 % or less under the new rule.
    """
    task = labelled(published.FIGURE_OF[18])
    rows = select(main_rows(tables, task, "success"), split=["id", "heldout", "rule_ood"])
    if not branches_in(rows):
        raise NothingToDraw("it needs V-IRL-VL rows of experiment 'main', metric success, method sft or rl")
    title = "Fig. 18 · Routes walked to the destination, from street-view images"
    subtitle = curve_caption(tables.profile, rows, "bands", "V-IRL-VL", PAPER_RANGE,
                             banded=select(rows, split=["id", "rule_ood"]))  # fmt: skip
    figure = canvas(WIDTH, 2.6, title, subtitle)
    unit, label = flops_scale(rows["train_flops"].max())
    series = []
    for axes, split in zip(figure.subplots(1, 2), ("id", "rule_ood"), strict=True):
        series += panel(axes, rows, split, unit)
        axes.set_ylim(top=max(5.0, axes.get_ylim()[1]))
        draw_paper_range(axes, published.FIG18[f"{split}_success_axis"])
        axes.set(xlabel=label, title=SPLITS[split].label)
    figure.axes[0].set_ylabel(axis_name("success", task))
    legend(figure, rows)
    seen = "Two panels of lines over training compute, with a bracket for the paper's axis beside each."
    return Drawing(figure, record("fig18", title, subtitle, tables.profile, series, published.FIG18, seen))


@styled
def main_curves(tables: Tables, smooth: bool = False) -> Drawing:
    """Fig. 5: ID (top) and rule-OOD (bottom) over training compute, one column per task variant."""
    columns = tasks_with_branches(tables)
    if not columns:
        raise NothingToDraw("it needs rows of experiment 'main', setting 'sampled', method sft or rl")
    rows = pd.concat([part for _, part in columns])
    title = "Fig. 5 · In and out of distribution over training compute"
    remark = "hollow: the paper's Init (star) and ends, whose compute is on another scale"
    shown = select(rows, split=["id", "heldout", "rule_ood"])
    subtitle = curve_caption(tables.profile, shown, "bands", remark, banded=select(shown, split=["id", "rule_ood"]))
    figure = canvas(WIDTH, 3.5, title, subtitle)
    grid = figure.subplots(2, len(columns), squeeze=False, sharex="col")
    series = []
    for index, (task, part) in enumerate(columns):
        unit, label = flops_scale(part["train_flops"].max())
        for row, split in enumerate(("id", "rule_ood")):
            axes = grid[row, index]
            drawn = panel(axes, part, split, unit, smooth)
            series += [{"variant": task.label} | item for item in drawn]
            axes.set_title(f"{task.label} · {SPLITS[split].short.removeprefix('rule-')}")
            axes.set_ylabel(axis_name(task.metric, task))
        end_labels(grid[0, index], [item for item in series if item["variant"] == task.label and item["split"] == "id"])
        if paper := published.FIG06.get(task.label):
            draw_paper_ends(grid[1, index], paper)
        grid[1, index].set_xlabel(label.replace("training ", "") if len(columns) > 2 else label)
    legend(figure, rows, paper_handle())
    paper = {"end_of_curve": published.FIG06, "axes": published.FIG05}
    seen = "A column of two panels of lines for each task: above under the training rule, below under a new one."
    return Drawing(figure, record("fig05", title, subtitle, tables.profile, series, paper, seen))


def legend(figure, rows: pd.DataFrame, *more) -> None:
    """One legend below all panels, with the methods and splits in the rows, then `more`."""
    handles = [handle(method) for method in methods_in(rows)]
    if len(select(rows, split="heldout")):
        handles.append(heldout_handle(rows))
    legend_below(figure, [*handles, *more], len(handles) + len(more))


@styled
def suboptimal(tables: Tables) -> Drawing:
    """Fig. 15: SFT on trajectories with errors and corrections; SFT and RL of the main experiment beside it."""
    task = labelled(published.FIGURE_OF[15])
    rows = select(
        tables.metrics, task=task.name, modality=task.modality, experiment="suboptimal", method="sft_suboptimal",
        metric="success", split=["id", "rule_ood"],
    )  # fmt: skip
    if rows.empty:
        raise NothingToDraw("it needs GP-L rows of experiment 'suboptimal', method sft_suboptimal")
    main = select(main_rows(tables, task), method=["init", "sft", "rl"], split=["id", "rule_ood"])
    title = "Fig. 15 · SFT on sub-optimal, error-correcting trajectories"
    remark = "the paper prints its conclusion (ID rises, OOD falls) but no values"
    shown = pd.concat([rows, main])
    subtitle = curve_caption(tables.profile, shown, "bands", "GP-L", remark)
    figure = canvas(WIDTH, 2.6, title, subtitle)
    grid = figure.subplots(1, 2)
    unit, label = flops_scale(shown["train_flops"].max())
    series = []
    for axes, split in zip(grid, ("id", "rule_ood"), strict=True):
        init = select(main, method="init", split=split)
        for method, source in (("sft", main), ("rl", main), ("sft_suboptimal", rows)):
            branch = select(source, method=method, split=split)
            if len(branch):
                own = select(init, seed=sorted(branch["seed"].unique()))
                series.append(draw_curve(axes, branch, own, unit, method))
        if len(init):
            draw_star(axes, init, unit)
        axes.set_title(SPLITS[split].label)
        axes.set_xlabel(label)
        axes.set_ylim(0, _headroom(axes))
    grid[0].set_ylabel("success rate (%)")
    names = {"sft": "SFT on expert answers"}
    counts = {name: select(shown, method=name)["seed"].nunique() for name in methods_in(shown)}
    handles = [
        handle(name, label=f"{names.get(name, METHODS[name].label)} ({count} seed{'s' * (count > 1)})")
        for name, count in counts.items()
    ]
    legend_below(figure, handles, len(handles))
    seen = "Two panels of lines over training compute, under the training rule and under a new rule."
    return Drawing(figure, record("fig15", title, subtitle, tables.profile, series, published.FIG15, seen))
