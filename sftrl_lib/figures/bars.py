"""Figures of the end points: 6 (rule-OOD bars), the protocols beside the paper's, and the headline figure."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from .. import published
from ..claims import statistics
from ..tables import VARIANTS, ends, select
from .curves import main_rows, panel, variants_with
from .style import (
    COLORS,
    GREY,
    INK,
    MARKERS,
    NAMES,
    SPLITS,
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
    percent,
    points,
    record,
    split_name,
    styled,
)

METHODS = ("init", "sft", "rl")
WIDTH = 0.66  # of a bar: an interval written above a low one must pass between its neighbours
TASK_NAMES = {"general_points": "GeneralPoints", "navigation": "street navigation (V-IRL)"}


def bar_group(axes: Axes, rows: pd.DataFrame, paper: dict[str, float]) -> list[dict]:
    """Init, SFT and RL of this run (filled; interval, seeds, difference to Init), and the paper's hollow.

    rows: end rows of one task variant and split. Returns the json records of what is drawn.
    """
    series, init = [], select(rows, method="init")
    top = 0.0
    for position, method in enumerate(METHODS):
        mine = select(rows, method=method)
        if mine.empty:
            continue
        estimate = statistics.level_of(mine)
        axes.bar(position, 100 * estimate.value, width=WIDTH, color=COLORS[method], label=method)
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
        _label(axes, position, height, lines, COLORS[method])
        top = max(top, height)
        series.append(item)
    for position, method in enumerate(METHODS, start=4):
        axes.bar(position, paper[method], width=WIDTH, facecolor="white", edgecolor=COLORS[method],
                 linewidth=1.5, hatch="////", label=f"paper {method}", alpha=0.85)  # fmt: skip
        lines = [f"{paper[method]:.1f}"]
        if method != "init":
            lines.append(points((paper[method] - paper["init"]) / 100))
        _label(axes, position, paper[method], lines, COLORS[method])
        top = max(top, paper[method])
    axes.set_ylim(0, 1.28 * max(top, 1.0))
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 100])  # the room above is for labels
    axes.set_xticks([0, 1, 2, 4, 5, 6], [NAMES[method] for method in METHODS] * 2)
    axes.tick_params(axis="x", length=0)
    for center, text in ((1, "this run"), (5, "paper")):
        axes.annotate(text, (center, 0), xycoords=("data", "axes fraction"), xytext=(0, -21), color=GREY,
                      textcoords="offset points", ha="center", va="top", fontsize=9,
                      fontweight="bold")  # fmt: skip
    return series


def _label(axes: Axes, x: float, height: float, lines: list[str], color: str) -> None:
    """Above a bar: the value, in bold the difference to Init, and that difference's interval."""
    looks = ((8.5, "normal", GREY, 3), (9.5, "bold", color, 14), (6.8, "normal", color, 27))
    for text, (size, weight, ink, above) in zip(lines, looks, strict=False):
        axes.annotate(text, (x, height), xytext=(0, above), textcoords="offset points", ha="center",
                      color=ink, fontsize=size, fontweight=weight)  # fmt: skip


@styled
def rule_ood_bars(tables: Tables) -> Drawing:
    """Fig. 6: rule-OOD at the end of each branch, equal compute, with the difference to Init."""
    groups = {name: ends(select(rows, split="rule_ood")) for name, rows in variants_with(tables).items()}
    groups = {name: rows for name, rows in groups.items() if len(rows)}
    if not groups:
        raise NothingToDraw("it needs end rows of experiment 'main', setting 'sampled', split rule_ood")
    rows = pd.concat(groups.values())
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
    for axes, (variant, part) in zip(grid.flat, groups.items(), strict=False):
        series += [{"variant": variant} | item for item in bar_group(axes, part, published.FIG06[variant])]
        axes.set_title(f"{variant} · {SPLITS['rule_ood']}")
        axes.set_ylabel(axis_name(VARIANTS[variant].metric, VARIANTS[variant].task))
    return Drawing(figure, record("fig06", title, subtitle, tables.profile, series, published.FIG06))


@styled
def headline(tables: Tables) -> Drawing:
    """Figs. 5 and 6 in one picture, for the README and for talks: GP-L alone in a row, or beside V-IRL-L."""
    blocks = {}
    for variant in ("GP-L", "V-IRL-L"):
        rows = main_rows(tables, variant)
        if set(METHODS) <= set(select(ends(rows), split="rule_ood")["method"]):
            blocks[variant] = rows
    if not blocks:
        raise NothingToDraw("it needs GP-L or V-IRL-L rows of experiment 'main' for init, sft and rl")
    rows = pd.concat(blocks.values())
    names = " and ".join(TASK_NAMES[VARIANTS[variant].task] for variant in blocks)
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
    for axes, (variant, part) in zip(places, blocks.items(), strict=True):
        series += [{"variant": variant} | item for item in _block(axes, part, variant)]
    handles = [handle(method) for method in METHODS]
    if len(select(rows, split="heldout")):
        handles.append(heldout_handle(rows))
    handles.append(Patch(facecolor="white", edgecolor=GREY, hatch="////", label="paper"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    paper = {variant: published.FIG06[variant] for variant in blocks}
    return Drawing(figure, record("headline", title, subtitle, tables.profile, series, paper))


def _block(places, rows: pd.DataFrame, variant: str) -> list[dict]:
    """One task: ID and rule-OOD over compute, and the end points beside the paper's."""
    left, middle, right = places
    unit, label = flops_scale(rows["train_flops"].max())
    series = []
    for axes, split in ((left, "id"), (middle, "rule_ood")):
        series += panel(axes, rows, split, unit)
        axes.set_title(f"{variant} · {SPLITS[split]}")
        axes.set_xlabel(label)
    series += bar_group(right, ends(select(rows, split="rule_ood")), published.FIG06[variant])
    right.set_title(f"{variant} · OOD: the end points, and the paper's")
    for axes in (left, right):
        axes.set_ylabel(axis_name(VARIANTS[variant].metric, VARIANTS[variant].task))
    return series


PROTOCOLS = {
    "sampled": "sampled,\nall attempts",
    "single": "sampled,\n1 attempt",
    "greedy": "greedy,\nall attempts",
}


@styled
def protocols(tables: Tables) -> Drawing:
    """Own figure: the same checkpoints by the paper's protocol, greedy, and with one attempt.

    In success for every task, whole routes in navigation: a single attempt has no other metric.
    """
    parts = {variant: _by_protocol(tables, variant) for variant in VARIANTS}
    parts = {variant: rows for variant, rows in parts.items() if rows["setting"].nunique() > 1}
    if not parts:
        raise NothingToDraw("it needs end rows of setting 'greedy' or 'single' beside 'sampled'")
    rows = pd.concat(parts.values())
    splits = [split for split in SPLITS if len(select(rows, split=split))]
    title = "Evaluation protocols · The same checkpoints, sampled, greedy and with one attempt"
    subtitle = caption(tables.profile, rows, "lines", ", ".join(parts))
    figure = canvas(3.0 * len(splits) + 0.6, 2.9 * len(parts) + 0.2, title, subtitle)
    grid = figure.subplots(len(parts), len(splits), squeeze=False)
    series = []
    for line, (variant, part) in zip(grid, parts.items(), strict=True):
        for axes, split in zip(line, splits, strict=True):
            here = select(part, split=split)
            if here.empty:
                axes.set_visible(False)
                continue
            series += [{"variant": variant} | item for item in _protocol_panel(axes, here)]
            axes.set_title(f"{variant} · {split_name(split, VARIANTS[variant].task)}")
        line[0].set_ylabel(axis_name("success", VARIANTS[variant].task))
    handles = [handle(method, linestyle="none") for method in METHODS]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return Drawing(figure, record("protocols", title, subtitle, tables.profile, series, None))


def _by_protocol(tables: Tables, variant: str) -> pd.DataFrame:
    """The end rows of a variant under every protocol, in the metric that all of them have."""
    task = VARIANTS[variant]
    return ends(select(
        tables.metrics, task=task.task, modality=task.modality, experiment="main", metric="success",
        method=list(METHODS), setting=list(PROTOCOLS),
    ))  # fmt: skip


def _protocol_panel(axes: Axes, rows: pd.DataFrame) -> list[dict]:
    """Init, SFT and RL of one split under each protocol that was run."""
    series = []
    shown = [name for name in PROTOCOLS if len(select(rows, setting=name))]
    for place, setting in enumerate(shown):
        for shift, method in zip((-0.22, 0, 0.22), METHODS, strict=True):
            estimate = statistics.level_of(select(rows, setting=setting, method=method))
            if estimate is None:
                continue
            error_bar(axes, place + shift, estimate, COLORS[method], linewidth=2)
            axes.plot(place + shift, 100 * estimate.value, marker=MARKERS[method], color=COLORS[method],
                      markersize=9 if method == "init" else 5.5, markeredgecolor="white",
                      markeredgewidth=0.6, zorder=5, label=f"{method} {setting}", clip_on=False)  # fmt: skip
            item = {"method": method, "setting": setting, "split": rows["split"].iloc[0]}
            series.append(item | percent(estimate))
    axes.set_xticks(range(len(shown)), [PROTOCOLS[name] for name in shown])
    axes.set_xlim(-0.5, len(shown) - 0.5)
    axes.set_ylim(bottom=0)
    return series
