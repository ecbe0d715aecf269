"""Figures of end points: 6 (rule-OOD), the headline figure, and our own on evaluation protocols.

Paper: bars of single runs, no intervals. Ours: horizontal bars, so that numbers of any length have room beside them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from .. import published
from ..claims import statistics
from ..claims.claims import CLAIMS, cell_of
from ..claims.evidence import Evidence
from ..methods import INIT, METHODS
from ..tables import ends, select
from ..task import SPLITS, Task
from ..tasks import TASKS
from .curves import curve_caption, end_labels, panel, tasks_with_branches
from .style import (
    CLIPPED,
    GREY,
    INK,
    WIDTH,
    Drawing,
    NothingToDraw,
    Tables,
    axis_name,
    canvas,
    caption,
    clipped,
    flops_scale,
    handle,
    heldout_handle,
    in_lines,
    legend_below,
    methods_in,
    percent,
    points,
    record,
    styled,
)

OURS, PAPERS = 0.42, 0.24  # thickness of a bar of ours and of the paper's bar below it, of a row's height
COMPARED = ("init", "sft", "rl")


def end_bars(axes: Axes, rows: pd.DataFrame, paper: dict[str, float] | None) -> list[dict]:
    """A row per method: our bar (filled, with interval and seeds), the paper's (hatched) below, their numbers beside.

    rows: end rows of one task and split. paper: method -> printed level in percent. Returns the JSON records.
    """
    series, init, top = [], select(rows, method="init"), 0.0
    printed = [name for name in METHODS if name in (paper or {})]
    shown = [name for name in METHODS if name in printed or name in methods_in(rows)]
    for place, method in enumerate(shown):
        color, mine = METHODS[method].color, select(rows, method=method)
        if len(mine):
            estimate = statistics.level_of(mine)
            axes.barh(place, 100 * estimate.value, height=OURS, color=color, label=method)
            _interval(axes, place, estimate)
            if len(mine) > 1:
                shifts = np.linspace(-0.13, 0.13, len(mine))
                axes.scatter(100 * mine["value"], place + shifts, s=9, facecolor="white", edgecolor=INK,
                             linewidth=0.6, zorder=5)  # fmt: skip
            item = {"method": method, "split": rows["split"].iloc[0], "train_flops": mine["train_flops"].mean()}
            item |= percent(estimate)
            said = f"{100 * estimate.value:.1f}"
            if method != INIT.name and (gain := statistics.difference_of(mine, init)):
                item["minus_init"] = percent(gain)
                said += f"   {points(gain.value)} [{points(gain.low)}, {points(gain.high)}]"
            _beside(axes, place, said, color, "bold")
            top = max(top, 100 * estimate.high, 100 * mine["value"].max())
            series.append(item)
        if method in printed:
            level = paper[method]
            axes.barh(place + (OURS + PAPERS) / 2, level, height=PAPERS, facecolor="white", edgecolor=color,
                      linewidth=0.9, hatch="//////", label=f"paper {method}")  # fmt: skip
            more = "" if method == INIT.name else f"   {points((level - paper['init']) / 100)}"
            _beside(axes, place + 0.36, f"{level:.1f}{more}   (paper)", GREY, "normal")
            top = max(top, level)
    axes.set(ylim=(len(shown) - 0.35, -0.4), xlim=(0, min(1.05 * max(top, 1.0), 103)))
    axes.set_yticks(range(len(shown)), [METHODS[name].label for name in shown])
    in_lines(axes)
    return series


def _interval(axes: Axes, place: float, estimate: statistics.Estimate) -> None:
    """The interval as a line along the bar, with a triangle at an end that was cut at 0 or 100 %."""
    axes.plot([100 * estimate.low, 100 * estimate.high], [place] * 2, color=INK, linewidth=1.1, zorder=4,
              label="_interval")  # fmt: skip
    for end, cut, marker in zip((0, 100), clipped(estimate), (4, 5), strict=True):
        if cut:
            axes.plot(end, place, marker=marker, markersize=5, color=INK, zorder=5, clip_on=False, label="_clipped")


def _beside(axes: Axes, place: float, said: str, color: str, weight: str) -> None:
    axes.annotate(said, (1, place), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
                  va="center", fontsize=7, color=color, fontweight=weight, annotation_clip=False)  # fmt: skip


def clipped_remark(groups: list[pd.DataFrame]) -> str:
    """The caption's words on intervals cut at 0 or 100 %, if there is one in the groups, each a task and split."""
    levels = [statistics.level_of(part) for rows in groups for _, part in rows.groupby("method")]
    return CLIPPED if any(any(clipped(level)) for level in levels) else ""


@styled
def rule_ood_bars(tables: Tables) -> Drawing:
    """Fig. 6: rule-OOD at the end of each branch, at equal compute, with the difference from Init."""
    groups = [(task, ends(select(rows, split="rule_ood"))) for task, rows in tasks_with_branches(tables)]
    groups = [(task, rows) for task, rows in groups if len(rows)]
    if not groups:
        raise NothingToDraw("it needs end rows of experiment 'main', setting 'sampled', split rule_ood")
    rows = pd.concat([part for _, part in groups])
    title = "Fig. 6 · Under a new rule, at equal training compute"
    remarks = (
        "circles: single seeds" if rows["seed"].nunique() > 1 else "",
        "with a sign: difference from Init in points, with its CI",
        "hatched: as printed in the paper, no intervals",
        clipped_remark([part for _, part in groups]),
    )
    subtitle = caption(tables.profile, rows, "lines", *remarks)
    columns = min(len(groups), 2)
    lines = -(-len(groups) // columns)
    figure = canvas(WIDTH, 1.75 * lines, title, subtitle)
    grid = figure.subplots(lines, columns, squeeze=False)
    for spare in grid.flat[len(groups) :]:
        spare.set_visible(False)
    series = []
    for axes, (task, part) in zip(grid.flat, groups, strict=False):
        drawn = end_bars(axes, part, published.FIG06.get(task.label))
        series += [{"variant": task.label} | item for item in drawn]
        axes.set_title(f"{task.label} · {SPLITS['rule_ood'].label}")
        axes.set_xlabel(axis_name(task.metric, task))
    seen = "For each task a horizontal bar per method, with its interval, and the paper's hatched bar below it."
    return Drawing(figure, record("fig06", title, subtitle, tables.profile, series, published.FIG06, seen))


@styled
def headline(tables: Tables) -> Drawing:
    """Figs. 5 and 6 combined, for the README and for talks: a column for each of the paper's task variants.

    From above: under the training rule, under a new one, and the change from Init under the new one with its verdict.
    """
    columns = [
        (task, rows)
        for task, rows in tasks_with_branches(tables)
        if task.label in published.VARIANTS and set(COMPARED) <= set(select(ends(rows), split="rule_ood")["method"])
    ]
    if not columns:
        raise NothingToDraw("it needs rows of the paper's tasks, experiment 'main', for init, sft and rl")
    rows = select(pd.concat([part for _, part in columns]), split=["id", "heldout", "rule_ood"], method=list(COMPARED))
    title = "Same start, same compute: what SFT and RL do when the prompt states a new rule"
    remarks = ("above: ID, the training rule", "middle: OOD, a new rule", "below: change from Init under the new rule",
               "hollow: the paper's Llama-3.2-Vision-11B as printed, no intervals")  # fmt: skip
    banded = select(rows, split=["id", "rule_ood"])
    subtitle = curve_caption(tables.profile, rows, "bands and lines", *remarks, banded=banded, dots="dots, circles")
    figure = canvas(WIDTH, 5.0, title, subtitle)
    grid = figure.subplots(3, len(columns), squeeze=False, height_ratios=(1, 1, 1.5))
    series = []
    for (above, middle, below), (task, part) in zip(grid.T, columns, strict=True):
        part = select(part, method=list(COMPARED))
        unit, label = flops_scale(part["train_flops"].max())
        for axes, split in ((above, "id"), (middle, "rule_ood")):
            drawn = panel(axes, part, split, unit)
            end_labels(axes, drawn)
            series += [{"variant": task.label} | item for item in drawn]
            axes.set_title(f"{task.label} · {SPLITS[split].short.removeprefix('rule-')}")
            axes.set_ylabel(axis_name(task.metric, task))
        above.tick_params(labelbottom=False)
        middle.set_xlabel(label if len(columns) < 3 else label.replace("training ", ""))
        series += [{"variant": task.label} | item for item in _changes(below, part, task, verdicts(tables, task))]
    handles = [handle(method) for method in COMPARED]
    if len(select(rows, split="heldout")):
        handles.append(heldout_handle(rows))
    legend_below(figure, handles, len(handles))
    paper = {task.label: published.FIG06[task.label] for task, _ in columns}
    seen = (
        "A column for each task: lines over training compute under the training rule, lines under a new rule, and the "
        "change from Init under the new rule with its interval and verdict, beside the paper's."
    )
    return Drawing(figure, record("headline", title, subtitle, tables.profile, series, paper, seen))


_VERDICTS = {"reproduced": "reproduced", "not_reproduced": "not reproduced"}  # any other: open


def verdicts(tables: Tables, task: Task) -> dict[str, str]:
    """RL and SFT -> whether its change from Init under the new rule came out, as the claims decide."""
    evidence, claims = Evidence(tables.metrics), {claim.id: claim for claim in CLAIMS}
    return {method: cell_of(claims[id_], evidence, task.label).verdict for method, id_ in (("rl", 1), ("sft", 2))}


def _changes(axes: Axes, rows: pd.DataFrame, task: Task, verdict: dict[str, str]) -> list[dict]:
    """The changes from Init under the new rule by RL and by SFT, in points: ours, the paper's, and the verdict."""
    last, series = ends(select(rows, split="rule_ood")), []
    init, paper = select(last, method="init"), published.FIG06[task.label]
    for place, method in enumerate(("rl", "sft")):
        axes.plot([0, 0], [place - 0.14, place + 0.3], color=GREY, linewidth=0.8, zorder=1, label="_zero")
        color, mine = METHODS[method].color, select(last, method=method)
        gain = statistics.difference_of(mine, init)
        printed = paper[method] - paper["init"]
        axes.plot(printed, place + 0.18, marker=METHODS[method].marker, markersize=5, markerfacecolor="white",
                  markeredgecolor=color, linestyle="none", label=f"paper {method}", zorder=5)  # fmt: skip
        said = f"{METHODS[method].label} (paper {points(printed / 100)})"
        if gain is not None:
            axes.plot([100 * gain.low, 100 * gain.high], [place] * 2, color=color, linewidth=1.4, label="_interval")
            axes.plot(100 * gain.value, place, marker=METHODS[method].marker, markersize=5.5, color=color,
                      markeredgecolor="white", markeredgewidth=0.5, zorder=6, label=method)  # fmt: skip
            each = mine.merge(init, on="seed", suffixes=("", "_init"))
            if len(each) > 1:
                axes.scatter(100 * (each["value"] - each["value_init"]), [place] * len(each), s=9, facecolor="white",
                             edgecolor=color, linewidth=0.7, zorder=5)  # fmt: skip
            said = (
                f"{METHODS[method].label} {points(gain.value)} [{points(gain.low)}, {points(gain.high)}]\n"
                f"paper {points(printed / 100)} · {_VERDICTS.get(verdict[method], 'open')}"
            )
            series.append({"method": method, "minus": "init", "split": "rule_ood", "verdict": verdict[method]}
                          | percent(gain))  # fmt: skip
        axes.annotate(said, (0, place - 0.2), xycoords=("axes fraction", "data"), va="bottom", fontsize=7,
                      color=color, fontweight="bold" if verdict[method] != "inconclusive" else "normal",
                      linespacing=1.15)  # fmt: skip
    axes.set(ylim=(1.4, -0.75), yticks=[], xlabel="change from Init (points)")
    axes.margins(x=0.08)
    axes.spines["left"].set_visible(False)
    axes.grid(False)
    axes.set_title(f"{task.label} · change")
    return series


PROTOCOLS = {
    "sampled": "sampled,\nall",
    "single": "sampled,\n1",
    "greedy": "greedy,\nall",
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
    groups = [select(part, split=split, setting=how) for _, part in parts for split in splits for how in PROTOCOLS]
    remarks = ("dots: single seeds" if rows["seed"].nunique() > 1 else "", "all, 1: attempts",
               clipped_remark([group for group in groups if len(group)]))  # fmt: skip
    subtitle = caption(tables.profile, rows, "lines", *remarks)
    figure = canvas(WIDTH, 1.6 * len(parts) + 0.2, title, subtitle)
    grid = figure.subplots(len(parts), len(splits), squeeze=False, sharey="row")
    series = []
    for line, (task, part) in zip(grid, parts, strict=True):
        for axes, split in zip(line, splits, strict=True):
            here = select(part, split=split)
            if here.empty:
                axes.set_axis_off()
                said = "no pictures,\nso no new look" if split == "visual_ood" else "not tested"
                axes.text(0.5, 0.5, said, ha="center", va="center", fontsize=7, color=GREY,
                          transform=axes.transAxes)  # fmt: skip
                continue
            axes.set_title(f"{task.label} · {SPLITS[split].short}")
            series += [{"variant": task.label} | item for item in _protocol_panel(axes, here)]
        line[0].set_ylabel(axis_name("success", task))
        line[0].set_ylim(0, min(line[0].get_ylim()[1], 103))
    handles = [handle(method, linestyle="none") for method in methods_in(rows)]
    legend_below(figure, handles, len(handles))
    seen = "A row of panels for each task, one for each split, in which each method is a point with its interval."
    return Drawing(figure, record("protocols", title, subtitle, tables.profile, series, None, seen))


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
    shifts = np.linspace(-0.26, 0.26, len(methods)) if len(methods) > 1 else [0.0]
    for place, setting in enumerate(shown):
        for shift, method in zip(shifts, methods, strict=True):
            color, marker = METHODS[method].color, METHODS[method].marker
            estimate = statistics.level_of(select(rows, setting=setting, method=method))
            if estimate is None:
                continue
            each = select(rows, setting=setting, method=method)["value"]
            axes.plot([place + shift] * 2, [100 * estimate.low, 100 * estimate.high], color=color, linewidth=1.5,
                      zorder=4, label="_interval")  # fmt: skip
            for end, cut, pointing in zip((0, 100), clipped(estimate), (7, 6), strict=True):
                if cut:
                    axes.plot(place + shift, end, marker=pointing, markersize=3.5, color=color, clip_on=False,
                              label="_clipped")  # fmt: skip
            if len(each) > 1:
                axes.scatter([place + shift + 0.07] * len(each), 100 * each, s=4, color=color, linewidth=0, zorder=5)
            axes.plot(place + shift, 100 * estimate.value, marker=marker, color=color,
                      markersize=7.5 if method == INIT.name else 4.5, markeredgecolor="white",
                      markeredgewidth=0.5, zorder=6, label=f"{method} {setting}", clip_on=False)  # fmt: skip
            item = {"method": method, "setting": setting, "split": rows["split"].iloc[0]}
            series.append(item | percent(estimate))
    axes.set_xticks(range(len(shown)), [PROTOCOLS[name] for name in shown])
    axes.set_xlim(-0.5, len(shown) - 0.5)
    return series
