"""Figures over training compute: 1 and 18 (whole routes), 5 (main curves), 15 (sub-optimal SFT).

Paper: smoothed lines (Savitzky-Golay, order 3), raw values not shown. Ours: the mean over seeds at every
checkpoint with its 95 % interval as a band and each seed as a faint dot; `smooth=True` adds the paper's
smoothing as a guide. Compute includes that of Init, so every branch starts at the star.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from .. import published
from ..claims import statistics
from ..methods import METHODS
from ..tables import along, select
from ..task import SPLITS, Task
from ..tasks import TASKS, labelled
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
    heldout_handle,
    legend_below,
    line_handle,
    methods_in,
    paper_handle,
    record,
    styled,
)

STRIP = 0.946  # middle of the paper's strip, as a fraction of the axes' width
Curve = list[tuple[float, statistics.Estimate]]  # train FLOPs and estimate, checkpoint by checkpoint


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


def draw_curve(axes: Axes, rows: pd.DataFrame, start: pd.DataFrame, unit: float, method: str, **look) -> dict:
    """One branch starting at Init: band, line through the means, one dot per seed. Returns its JSON record."""
    look = {
        "color": METHODS[method].color,
        "linestyle": "-",
        "marker": METHODS[method].marker,
        "size": 4.6,
        "smooth": False,
        "band": False,  # of a dashed line; solid lines always have one
    } | look
    rows = along(rows)
    points = curve(rows, start)
    x = [flops / unit for flops, _ in points]
    y, low, high = ([100 * getattr(e, end) for _, e in points] for end in ("value", "low", "high"))
    solid = look["linestyle"] == "-"
    if solid or look["band"]:
        axes.fill_between(x, low, high, color=look["color"], alpha=0.14 if solid else 0.07, linewidth=0, zorder=2)
    if solid:
        axes.scatter(rows["train_flops"] / unit, 100 * rows["value"], s=7, color=look["color"], alpha=0.35,
                     linewidth=0, zorder=3)  # fmt: skip
    axes.plot(
        x, y, color=look["color"], linestyle=look["linestyle"], linewidth=1.9 if solid else 1.3, zorder=4,
        marker=look["marker"] if solid else "", markersize=look["size"], markeredgecolor="white",
        markeredgewidth=0.6, markevery=slice(len(points) - checkpoints(rows).nunique(), None),
        clip_on=False, label=f"{method} {look['linestyle']}",
    )  # fmt: skip
    if look["smooth"]:
        guide = statistics.smooth(y)
        axes.plot(x, guide, color=look["color"], linewidth=4, alpha=0.25, zorder=1, label="_guide")
    return {
        "method": method, "split": rows["split"].iloc[0], "metric": rows["metric"].iloc[0],
        "setting": rows["setting"].iloc[0], "train_flops": [flops for flops, _ in points], "value": y,
        "ci_low": low, "ci_high": high, "n": [e.n for _, e in points], "seeds": [e.seeds for _, e in points],
    }  # fmt: skip


def panel(axes: Axes, rows: pd.DataFrame, split: str, unit: float, smooth: bool = False) -> list[dict]:
    """Every branch and the Init star on one split; the ID panel also has held-out instances, dashed."""
    series = []
    for part in (split, "heldout") if split == "id" else (split,):
        here = select(rows, split=part)
        init = select(here, method="init")
        for method in branches_in(here):
            look = {
                "linestyle": "-" if part == split else (0, (4, 2)),
                "smooth": smooth and part == split,
            }
            series.append(draw_curve(axes, select(here, method=method), init, unit, method, **look))
        if part == split and len(init):
            draw_star(axes, init, unit)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.03)
    return series


def draw_star(axes: Axes, init: pd.DataFrame, unit: float) -> None:
    """Init, the checkpoint from which the branches start."""
    init = along(init)
    axes.scatter(init["train_flops"].mean() / unit, 100 * init["value"].mean(), marker="*", s=190, zorder=6,
                 color=METHODS["init"].color, edgecolor="white", linewidth=0.8, label="init")  # fmt: skip


def paper_strip(axes: Axes) -> None:
    """A strip on the right, centred on STRIP, for the paper's values, because its compute is on another scale."""
    left, right = axes.get_xlim()
    axes.set_xticks([tick for tick in axes.get_xticks() if left <= tick <= right])
    axes.set_xlim(left, right + 0.12 * (right - left))
    axes.axvspan(right, right + 0.12 * (right - left), color="#f4f4f4", linewidth=0, zorder=0)
    axes.text(STRIP, 0.985, "paper", transform=axes.transAxes, ha="center", va="top", fontsize=7, color=GREY)


def draw_paper_ends(axes: Axes, values: dict[str, float]) -> None:
    """The paper's end values (method -> percent), hollow, in a strip of their own."""
    paper_strip(axes)
    for method, value in values.items():
        axes.scatter(
            STRIP, value, transform=axes.get_yaxis_transform(), marker=METHODS[method].marker,
            s=100 if method == "init" else 30, facecolor="white", edgecolor=METHODS[method].color, linewidth=1.3,
            zorder=6, clip_on=False, label=f"paper {method}",
        )  # fmt: skip
    axes.set_ylim(top=max(axes.get_ylim()[1], 1.15 * max(values.values())))


def draw_paper_range(axes: Axes, values: list[float]) -> None:
    """The range of the paper's axis, for figures of which nothing else can be read, as a hollow bar in a strip."""
    paper_strip(axes)
    low, high = values
    axes.add_patch(Rectangle(
        (STRIP - 0.018, low), 0.036, high - low, transform=axes.get_yaxis_transform(), facecolor="white",
        edgecolor=GREY, hatch="////", linewidth=1.0, zorder=6, clip_on=False, label="paper axis",
    ))  # fmt: skip
    axes.set_ylim(top=max(axes.get_ylim()[1], 1.15 * high))


def tasks_with_branches(tables: Tables, metric: str = "") -> list[tuple[Task, pd.DataFrame]]:
    """The tasks that have at least one trained branch, with their main rows, the paper's first."""
    rows = [(task, main_rows(tables, task, metric)) for task in TASKS.values()]
    return [(task, part) for task, part in rows if branches_in(part)]


@styled
def whole_routes(tables: Tables) -> Drawing:
    """Fig. 1: V-IRL-L, the share of routes walked to the end; ID dashed, OOD solid; the paper's curves beside ours."""
    task = labelled(published.FIGURE_OF[1])
    rows = select(main_rows(tables, task, "success"), split=["id", "rule_ood"])
    if not branches_in(rows):
        raise NothingToDraw("it needs V-IRL-L rows of experiment 'main', metric success, method sft or rl")
    title = "Fig. 1 · Routes walked to the destination, over training compute"
    remark = "hollow: the paper's curves, digitised (about ±0.5 points), no intervals"
    subtitle = caption(tables.profile, rows, "bands", "V-IRL-L", remark)
    figure = canvas(9.8, 3.9, title, subtitle)
    ours, theirs = figure.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
    unit, label = flops_scale(rows["train_flops"].max())
    series = []
    for method in branches_in(rows):
        look = METHODS[method]
        for split, line in _ROUTE_LINES.items():
            here = select(rows, split=split)
            branch = select(here, method=method)
            if len(branch):
                init = select(here, method="init")
                series.append(draw_curve(ours, branch, init, unit, method, linestyle=line, band=True))
            if paper := published.FIG01.get(method):
                theirs.plot(
                    *zip(*paper[split], strict=True), color=look.color, linestyle=line, linewidth=1.3,
                    marker=look.marker, markersize=5, markerfacecolor="white", clip_on=False,
                    label=f"paper {method} {split}",
                )  # fmt: skip
    for split in _ROUTE_LINES:
        if len(init := select(rows, split=split, method="init")):
            draw_star(ours, init, unit)
    ours.set(xlabel=label, ylabel=axis_name("success", task), title="This run", ylim=(0, 103))
    theirs.set(xlabel=r"training compute ($10^{9}$ GFLOPs)", title="The paper", xlim=(0, None))
    handles = [handle(method) for method in methods_in(rows)]
    handles += [line_handle("ID: the training rule", dashed=True), line_handle("OOD: a new rule")]
    legend_below(figure, [*handles, paper_handle()], len(handles) + 1)
    return Drawing(figure, record("fig01", title, subtitle, tables.profile, series, published.FIG01))


_ROUTE_LINES = {"id": (0, (4, 2)), "rule_ood": "-"}  # as in the paper


@styled
def image_routes(tables: Tables) -> Drawing:
    """Fig. 18: V-IRL-VL, the share of routes walked to the end, under the training rule and under a new one.

    Paper: only the axes can be read, and that both methods end at 1 % or less under the new rule.
    """
    task = labelled(published.FIGURE_OF[18])
    rows = select(main_rows(tables, task, "success"), split=["id", "heldout", "rule_ood"])
    if not branches_in(rows):
        raise NothingToDraw("it needs V-IRL-VL rows of experiment 'main', metric success, method sft or rl")
    title = "Fig. 18 · Routes walked to the destination, seeing the streets"
    remark = "hatched: the range of the paper's axis, of which no values are printed"
    subtitle = caption(tables.profile, rows, "bands", "V-IRL-VL", "dots: single seeds", remark)
    figure = canvas(9.0, 3.4, title, subtitle)
    unit, label = flops_scale(rows["train_flops"].max())
    series = []
    for axes, split in zip(figure.subplots(1, 2), ("id", "rule_ood"), strict=True):
        series += panel(axes, rows, split, unit)
        axes.set_ylim(top=max(5.0, axes.get_ylim()[1]))
        draw_paper_range(axes, published.FIG18[f"{split}_success_axis"])
        axes.set(xlabel=label, title=SPLITS[split].label)
    figure.axes[0].set_ylabel(axis_name("success", task))
    legend(figure, rows, paper_axis_handle())
    return Drawing(figure, record("fig18", title, subtitle, tables.profile, series, published.FIG18))


def paper_axis_handle() -> Patch:
    return Patch(facecolor="white", edgecolor=GREY, hatch="////", label="the paper's axis")


@styled
def main_curves(tables: Tables, smooth: bool = False) -> Drawing:
    """Fig. 5: ID (top) and rule-OOD (bottom) over training compute, one column per task variant."""
    columns = tasks_with_branches(tables)
    if not columns:
        raise NothingToDraw("it needs rows of experiment 'main', setting 'sampled', method sft or rl")
    rows = pd.concat([part for _, part in columns])
    title = "Fig. 5 · In and out of distribution over training compute"
    remark = "hollow: where the paper's runs end (its compute is on another scale)"
    subtitle = caption(tables.profile, rows, "bands", "dots: single seeds", remark)
    figure = canvas(max(6.4, 0.9 + 3.1 * len(columns)), 5.6, title, subtitle)
    grid = figure.subplots(2, len(columns), squeeze=False, sharex="col")
    series = []
    for index, (task, part) in enumerate(columns):
        unit, label = flops_scale(part["train_flops"].max())
        for row, split in enumerate(("id", "rule_ood")):
            axes = grid[row, index]
            drawn = panel(axes, part, split, unit, smooth)
            series += [{"variant": task.label} | item for item in drawn]
            axes.set_title(f"{task.label} · {SPLITS[split].label}")
            axes.set_ylabel(axis_name(task.metric, task))
        if paper := published.FIG06.get(task.label):
            draw_paper_ends(grid[1, index], paper)
        grid[1, index].set_xlabel(label)
    legend(figure, rows, paper_handle())
    paper = {"end_of_curve": published.FIG06, "axes": published.FIG05}
    return Drawing(figure, record("fig05", title, subtitle, tables.profile, series, paper))


def legend(figure, rows: pd.DataFrame, *more) -> None:
    """One legend below all panels, with the methods and splits in the rows, then `more`."""
    handles = [handle(method) for method in methods_in(rows)]
    if len(select(rows, split="heldout")):
        handles.append(heldout_handle(rows))
    legend_below(figure, [*handles, *more], len(handles) + len(more))


@styled
def suboptimal(tables: Tables) -> Drawing:
    """Fig. 15: SFT on trajectories with errors and corrections; the main experiment's SFT beside it."""
    task = labelled(published.FIGURE_OF[15])
    rows = select(
        tables.metrics, task=task.name, modality=task.modality, experiment="suboptimal", method="sft_suboptimal",
        metric="success",
    )  # fmt: skip
    if rows.empty:
        raise NothingToDraw("it needs GP-L rows of experiment 'suboptimal', method sft_suboptimal")
    main = select(main_rows(tables, task), seed=sorted(rows["seed"].unique()))
    title = "Fig. 15 · SFT on sub-optimal, error-correcting trajectories"
    remark = "the paper prints its conclusion (ID rises, OOD falls) but no values"
    subtitle = caption(tables.profile, rows, "bands", "GP-L", remark)
    figure = canvas(8.2, 3.2, title, subtitle)
    grid = figure.subplots(1, 2)
    shown = pd.concat([rows, select(main, method=["init", "sft"])])
    unit, label = flops_scale(shown["train_flops"].max())
    series = []
    for axes, split in zip(grid, ("id", "rule_ood"), strict=True):
        init = select(main, method="init", split=split)
        for method, source in (("sft", main), ("sft_suboptimal", rows)):
            branch = select(source, method=method, split=split)
            if len(branch):
                series.append(draw_curve(axes, branch, init, unit, method))
        if len(init):
            draw_star(axes, init, unit)
        axes.set_title(SPLITS[split].label)
        axes.set_xlabel(label)
        axes.set_ylim(bottom=0)
    grid[0].set_ylabel("success rate (%)")
    names = {"sft": "SFT on expert answers"}
    handles = [handle(name, label=names.get(name, METHODS[name].label)) for name in methods_in(shown)]
    legend_below(figure, handles, len(handles))
    return Drawing(figure, record("fig15", title, subtitle, tables.profile, series, published.FIG15))
