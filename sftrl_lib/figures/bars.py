"""Figures of end points: 6 (rule-OOD bars), the headline figure, and our own on evaluation protocols."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from .. import published
from ..claims import statistics
from ..methods import INIT, METHODS
from ..tables import ends, select
from ..task import SPLITS, Task
from ..tasks import TASKS, labelled
from .curves import main_rows, panel, tasks_with_branches
from .style import (
    GREY,
    INK,
    Drawing,
    NothingToDraw,
    Tables,
    axis_name,
    canvas,
    caption,
    error_bar,
    flops_scale,
    handle,
    heldout_handle,
    legend_below,
    methods_in,
    percent,
    points,
    record,
    split_name,
    styled,
)

WIDTH = 0.66  # of a bar; narrow enough for the interval written above a low bar to fit between its neighbours
HEADLINE = ("GP-L", "V-IRL-L")


def bar_group(axes: Axes, rows: pd.DataFrame, paper: dict[str, float] | None) -> list[dict]:
    """Bars of this run (filled, with interval, seeds and difference to Init), and the paper's (hollow) beside them.

    rows: end rows of one task and split. paper: method -> printed level in percent. Returns the JSON records.
    """
    series, init = [], select(rows, method="init")
    top = 0.0
    # The paper's methods keep their places even if they were not run.
    printed = [name for name in paper or () if name in METHODS]
    ours = [name for name in METHODS if name in printed or name in methods_in(rows)]
    for position, method in enumerate(ours):
        mine = select(rows, method=method)
        if mine.empty:
            continue
        color = METHODS[method].color
        estimate = statistics.level_of(mine)
        axes.bar(position, 100 * estimate.value, width=WIDTH, color=color, label=method)
        error_bar(axes, position, estimate, INK)
        spread = [position - 0.22 + 0.44 * i / max(len(mine) - 1, 1) for i in range(len(mine))]
        if len(mine) > 1:
            axes.scatter(spread, 100 * mine["value"], s=13, facecolor="white", edgecolor=INK, linewidth=0.7, zorder=5)
        item = {"method": method, "split": rows["split"].iloc[0], "train_flops": mine["train_flops"].mean()}
        item |= percent(estimate)
        lines = [f"{100 * estimate.value:.1f}"]
        if method != "init" and (gain := statistics.difference_of(mine, init)):
            item["minus_init"] = percent(gain)
            lines += [points(gain.value), f"[{points(gain.low)}, {points(gain.high)}]"]
        height = max(100 * estimate.high, 100 * mine["value"].max())
        _label(axes, position, height, lines, color)
        top = max(top, height)
        series.append(item)
    theirs = range(len(ours) + 1, len(ours) + 1 + len(printed))
    for position, method in zip(theirs, printed, strict=True):
        color = METHODS[method].color
        axes.bar(position, paper[method], width=WIDTH, facecolor="white", edgecolor=color, linewidth=1.5,
                 hatch="////", label=f"paper {method}", alpha=0.85)  # fmt: skip
        lines = [f"{paper[method]:.1f}"]
        if method != "init":
            lines.append(points((paper[method] - paper["init"]) / 100))
        _label(axes, position, paper[method], lines, color)
        top = max(top, paper[method])
    axes.set_ylim(0, 1.28 * max(top, 1.0))
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 100])  # none in the space for labels
    axes.set_xticks([*range(len(ours)), *theirs], [METHODS[name].label for name in (*ours, *printed)])
    axes.tick_params(axis="x", length=0)
    centers = [((len(ours) - 1) / 2, "this run")]
    centers += [((theirs[0] + theirs[-1]) / 2, "paper")] if printed else []
    for center, text in centers:
        axes.annotate(text, (center, 0), xycoords=("data", "axes fraction"), xytext=(0, -21), color=GREY,
                      textcoords="offset points", ha="center", va="top", fontsize=9,
                      fontweight="bold")  # fmt: skip
    return series


def _label(axes: Axes, x: float, height: float, lines: list[str], color: str) -> None:
    """Write above a bar: the value, the difference to Init in bold, and the interval of the difference."""
    looks = ((8.5, "normal", GREY, 3), (9.5, "bold", color, 14), (6.8, "normal", color, 27))
    for text, (size, weight, ink, above) in zip(lines, looks, strict=False):
        axes.annotate(text, (x, height), xytext=(0, above), textcoords="offset points", ha="center",
                      color=ink, fontsize=size, fontweight=weight)  # fmt: skip


@styled
def rule_ood_bars(tables: Tables) -> Drawing:
    """Fig. 6: rule-OOD at the end of each branch, at equal compute, with the difference to Init."""
    groups = [(task, ends(select(rows, split="rule_ood"))) for task, rows in tasks_with_branches(tables)]
    groups = [(task, rows) for task, rows in groups if len(rows)]
    if not groups:
        raise NothingToDraw("it needs end rows of experiment 'main', setting 'sampled', split rule_ood")
    rows = pd.concat([part for _, part in groups])
    title = "Fig. 6 · Under a new rule, at equal training compute"
    remarks = (
        "bold: difference to Init in points, with its CI",
        "hatched: as printed in the paper, no intervals",
    )
    subtitle = caption(tables.profile, rows, "lines", "circles: single seeds", *remarks)
    columns = min(len(groups), 2)
    figure = canvas(6.6 if columns == 1 else 11.0, 3.4 * -(-len(groups) // columns), title, subtitle)
    grid = figure.subplots(-(-len(groups) // columns), columns, squeeze=False)
    for spare in grid.flat[len(groups) :]:
        spare.set_visible(False)
    series = []
    for axes, (task, part) in zip(grid.flat, groups, strict=False):
        drawn = bar_group(axes, part, published.FIG06.get(task.label))
        series += [{"variant": task.label} | item for item in drawn]
        axes.set_title(f"{task.label} · {SPLITS['rule_ood'].label}")
        axes.set_ylabel(axis_name(task.metric, task))
    return Drawing(figure, record("fig06", title, subtitle, tables.profile, series, published.FIG06))


@styled
def headline(tables: Tables) -> Drawing:
    """Figs. 5 and 6 combined, for the README and for talks: GP-L and V-IRL-L side by side, or one of them in a row."""
    blocks = []
    for task in map(labelled, HEADLINE):
        rows = main_rows(tables, task)
        if {"init", "sft", "rl"} <= set(select(ends(rows), split="rule_ood")["method"]):
            blocks.append((task, rows))
    if not blocks:
        raise NothingToDraw("it needs GP-L or V-IRL-L rows of experiment 'main' for init, sft and rl")
    rows = pd.concat([part for _, part in blocks])
    names = " and ".join(task.words.title for task, _ in blocks)
    title = f"Same start, same training compute: what SFT and RL do to {names}"
    remarks = (
        "bold: difference to Init in points, with its CI",
        "hatched: the paper's Llama-3.2-Vision-11B as printed, no intervals",
    )
    subtitle = caption(tables.profile, rows, "bands and lines", *remarks)
    if len(blocks) == 1:
        figure = canvas(13.2, 3.9, title, subtitle)
        places = [figure.subplots(1, 3, width_ratios=(1, 1, 1.5))]
    else:
        figure = canvas(13.6, 6.5, title, subtitle)
        grid = figure.add_gridspec(2, 4, height_ratios=(1, 1.05))
        places = [
            [figure.add_subplot(grid[0, 2 * i]), figure.add_subplot(grid[0, 2 * i + 1]),
             figure.add_subplot(grid[1, 2 * i : 2 * i + 2])]
            for i in range(len(blocks))
        ]  # fmt: skip
    series = []
    for axes, (task, part) in zip(places, blocks, strict=True):
        series += [{"variant": task.label} | item for item in _block(axes, part, task)]
    handles = [handle(method) for method in methods_in(rows)]
    if len(select(rows, split="heldout")):
        handles.append(heldout_handle(rows))
    handles.append(Patch(facecolor="white", edgecolor=GREY, hatch="////", label="paper"))
    legend_below(figure, handles, len(handles))
    paper = {task.label: published.FIG06[task.label] for task, _ in blocks}
    return Drawing(figure, record("headline", title, subtitle, tables.profile, series, paper))


def _block(places, rows: pd.DataFrame, task: Task) -> list[dict]:
    """One task: ID and rule-OOD over compute, and the end points beside the paper's. Returns the JSON records."""
    left, middle, right = places
    unit, label = flops_scale(rows["train_flops"].max())
    series = []
    for axes, split in ((left, "id"), (middle, "rule_ood")):
        series += panel(axes, rows, split, unit)
        axes.set_title(f"{task.label} · {SPLITS[split].label}")
        axes.set_xlabel(label)
    series += bar_group(right, ends(select(rows, split="rule_ood")), published.FIG06[task.label])
    right.set_title(f"{task.label} · OOD: the end points, and the paper's")
    for axes in (left, right):
        axes.set_ylabel(axis_name(task.metric, task))
    return series


PROTOCOLS = {
    "sampled": "sampled,\nall attempts",
    "single": "sampled,\n1 attempt",
    "greedy": "greedy,\nall attempts",
}


@styled
def protocols(tables: Tables) -> Drawing:
    """Own figure: the same checkpoints under the paper's protocol, with greedy decoding, and with one attempt.

    The metric is success for every task (whole routes in navigation), because a single attempt has no other metric.
    """
    parts = [(task, _by_protocol(tables, task)) for task in TASKS.values()]
    parts = [(task, rows) for task, rows in parts if rows["setting"].nunique() > 1]
    if not parts:
        raise NothingToDraw("it needs end rows of setting 'greedy' or 'single' beside 'sampled'")
    rows = pd.concat([part for _, part in parts])
    splits = [split for split in SPLITS if len(select(rows, split=split))]
    title = "Evaluation protocols · The same checkpoints, sampled, greedy and with one attempt"
    subtitle = caption(tables.profile, rows, "lines", ", ".join(task.label for task, _ in parts))
    figure = canvas(3.0 * len(splits) + 0.6, 2.9 * len(parts) + 0.2, title, subtitle)
    grid = figure.subplots(len(parts), len(splits), squeeze=False)
    series = []
    for line, (task, part) in zip(grid, parts, strict=True):
        for axes, split in zip(line, splits, strict=True):
            here = select(part, split=split)
            if here.empty:
                axes.set_visible(False)
                continue
            series += [{"variant": task.label} | item for item in _protocol_panel(axes, here)]
            axes.set_title(f"{task.label} · {split_name(split, task)}")
        line[0].set_ylabel(axis_name("success", task))
    handles = [handle(method, linestyle="none") for method in methods_in(rows)]
    legend_below(figure, handles, len(handles))
    return Drawing(figure, record("protocols", title, subtitle, tables.profile, series, None))


def _by_protocol(tables: Tables, task: Task) -> pd.DataFrame:
    """The end rows of a task under every protocol, in success, the metric that all of them have."""
    return ends(select(
        tables.metrics, task=task.name, modality=task.modality, experiment="main", metric="success",
        setting=list(PROTOCOLS),
    ))  # fmt: skip


def _protocol_panel(axes: Axes, rows: pd.DataFrame) -> list[dict]:
    """The methods on one split under each protocol that was run, side by side in the order of `METHODS`."""
    series = []
    shown = [name for name in PROTOCOLS if len(select(rows, setting=name))]
    methods = methods_in(rows)
    shifts = np.linspace(-0.22, 0.22, len(methods)) if len(methods) > 1 else [0.0]
    for place, setting in enumerate(shown):
        for shift, method in zip(shifts, methods, strict=True):
            color, marker = METHODS[method].color, METHODS[method].marker
            estimate = statistics.level_of(select(rows, setting=setting, method=method))
            if estimate is None:
                continue
            error_bar(axes, place + shift, estimate, color, linewidth=2)
            axes.plot(place + shift, 100 * estimate.value, marker=marker, color=color,
                      markersize=9 if method == INIT.name else 5.5, markeredgecolor="white",
                      markeredgewidth=0.6, zorder=5, label=f"{method} {setting}", clip_on=False)  # fmt: skip
            item = {"method": method, "setting": setting, "split": rows["split"].iloc[0]}
            series.append(item | percent(estimate))
    axes.set_xticks(range(len(shown)), [PROTOCOLS[name] for name in shown])
    axes.set_xlim(-0.5, len(shown) - 0.5)
    axes.set_ylim(bottom=0)
    return series
