"""Ablation figures: 10 (verification attempts) and our own on sensitivity to temperature and attempts.

Paper, Fig. 10: OOD growth against ID growth, transparency for compute, no intervals. Ours: the same plane, with the
path over checkpoints and 95 % intervals at the end points; beside it, OOD growth by attempts with the paper's values.
"""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

from .. import published
from ..claims import statistics
from ..methods import METHODS
from ..tables import along, ends, select, settings_of
from ..task import SPLITS, Task
from ..tasks import labelled
from .curves import checkpoints, main_rows
from .style import (
    GREY,
    INK,
    WIDTH,
    Drawing,
    NothingToDraw,
    Tables,
    canvas,
    caption,
    error_bar,
    methods_in,
    paper_handle,
    percent,
    points,
    record,
    styled,
)

SHADES = {1: "#9ecae1", 3: "#4f9fd1", 5: "#0072b2", 10: "#08306b"}  # number of attempts -> colour


@styled
def attempts(tables: Tables) -> Drawing:
    """Fig. 10: growth over Init of RL with 1, 3, 5 or 10 verification attempts, at equal compute.

    Beside the paper's plane: OOD growth with the paper's values, and whether answers keep the requested format.
    """
    task = labelled(published.FIGURE_OF[10])
    found = select(tables.metrics, task=task.name, modality=task.modality, experiment="attempts", method="rl")
    found = found.assign(attempts=settings_of(found, "attempts").astype(int))
    rows = select(found, metric="success")
    init = select(main_rows(tables, task), method="init")
    counts = sorted(rows["attempts"].unique())
    if not counts or init.empty:
        raise NothingToDraw("it needs rows of experiment 'attempts' and GP-L rows of method init")
    title = "Fig. 10 · More verification attempts in RL, equal training compute"
    remarks = (
        "GP-L, growth over Init",
        _tested_with(tables.transcripts),
        "numbers: attempts in training, thin lines: the way there",
        "hollow: as printed in the paper",
    )
    subtitle = caption(tables.profile, rows, "lines", *remarks)
    formats = ends(select(found, metric="format", split="id")) if len(found) else found
    figure = canvas(WIDTH, 2.7, title, subtitle)
    widths = (1.25, 1, 0.75)[: 3 if len(formats) else 2]
    plane, ladder, *rest = figure.subplots(1, len(widths), width_ratios=widths)
    series = []
    for place, count in enumerate(counts):
        here, color = rows[rows["attempts"] == count], SHADES.get(count, GREY)
        growth = {split: _growth(here, init, split) for split in ("id", "rule_ood")}
        if any(value is None for value in growth.values()):
            raise NothingToDraw(f"attempts={count} shares no seed with Init on both splits")
        _draw_growth(plane, _path(here, init), growth, color, f"{count}", _LINES[place % len(_LINES)])
        error_bar(ladder, place - 0.1, growth["rule_ood"], color, linewidth=1.6)
        ladder.plot(place - 0.1, 100 * growth["rule_ood"].value, "o", color=color, markersize=6,
                    markeredgecolor="white", zorder=5, label=f"attempts={count}")  # fmt: skip
        if count in published.FIG10["ood_growth"]:
            ladder.plot(place + 0.16, published.FIG10["ood_growth"][count], "D", color=GREY, markersize=5,
                        markerfacecolor="white", zorder=5, label=f"paper attempts={count}")  # fmt: skip
        names = {"id": "id_growth", "rule_ood": "ood_growth"}
        item = {"attempts": count, "method": "rl", "train_flops": ends(here)["train_flops"].mean()}
        item |= {names[split]: percent(value) for split, value in growth.items()}
        kept = statistics.level_of(formats[formats["attempts"] == count]) if len(formats) else None
        if kept is not None:
            error_bar(rest[0], place, kept, color, linewidth=1.6)
            rest[0].plot(place, 100 * kept.value, "o", color=color, markersize=6, markeredgecolor="white", zorder=5)
            item["format"] = percent(kept)
        series.append(item)
    for axes in (plane, ladder):
        axes.axhline(0, color=GREY, linewidth=0.8, zorder=1)
    plane.axvline(0, color=GREY, linewidth=0.8, zorder=1)
    plane.grid(True, axis="both")
    plane.set(xlabel="OOD growth (points)", ylabel="ID growth (points)", title="Growth over Init")
    ladder.set(ylabel="OOD growth (points)", title="OOD growth")
    for axes in rest:
        axes.set(ylabel="first answers (%)", ylim=(0, 103), title="Format kept, ID")
    for axes in (ladder, *rest):
        axes.set_xlabel("attempts in RL")
        axes.set_xticks(range(len(counts)), counts)
        axes.set_xlim(-0.5, len(counts) - 0.5)
    ladder.legend(handles=[paper_handle("paper")], loc="best")
    seen = " ".join(
        f"RL with {item['attempts']} attempts grows by {item['ood_growth']['value']:.1f} points under the new rule and "
        f"by {item['id_growth']['value']:.1f} under the training rule."
        for item in series
    )
    return Drawing(figure, record("fig10", title, subtitle, tables.profile, series, published.FIG10, seen))


_LINES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1.5, 1, 1.5)))  # of the ways there


def _tested_with(transcripts: list[dict]) -> str:
    """With how many attempts all of these runs were tested, by their transcripts; "" without any."""
    counts = [len(episode["turns"]) for episode in transcripts if episode["experiment"] == "attempts"]
    return f"all tested with up to {max(counts)} attempts" if counts else ""


def _growth(rows: pd.DataFrame, init: pd.DataFrame, split: str) -> statistics.Estimate | None:
    return statistics.difference_of(ends(select(rows, split=split)), select(init, split=split))


def _path(rows: pd.DataFrame, init: pd.DataFrame) -> list[tuple[float, float]]:
    """Mean (OOD, ID) growth at every checkpoint in points, starting with (0, 0) for Init."""
    path, rows, init = [(0.0, 0.0)], along(rows), along(init)
    for _, step in rows.groupby(checkpoints(rows)):
        growth = [_growth(step, init, split) for split in ("rule_ood", "id")]
        if all(growth):
            path.append(tuple(100 * value.value for value in growth))
    return path


def _draw_growth(axes: Axes, path: list, growth: dict, color: str, label: str, line: object) -> None:
    x, y = growth["rule_ood"], growth["id"]
    axes.plot(*zip(*path, strict=True), color=color, alpha=0.75, linewidth=0.8, linestyle=line, marker=".",
              markersize=3, zorder=2, label="_path")  # fmt: skip
    axes.plot([100 * x.low, 100 * x.high], [100 * y.value] * 2, color=color, linewidth=1.3, label="_interval")
    error_bar(axes, 100 * x.value, y, color)
    dark = np.dot(mpl.colors.to_rgb(color), (0.3, 0.59, 0.11)) < 0.6
    axes.plot(100 * x.value, 100 * y.value, "o", color=color, markersize=12.5, markeredgecolor="white", zorder=6,
              label=f"attempts={label}")  # fmt: skip
    axes.annotate(label, (100 * x.value, 100 * y.value), ha="center", va="center_baseline", zorder=7, fontsize=7.5,
                  color="white" if dark else INK, fontweight="bold")  # fmt: skip


@styled
def sensitivity(tables: Tables) -> Drawing:
    """Own figure: Init, SFT, RL and RL's lead over both, at every temperature and number of attempts."""
    task = labelled(published.FIGURE_OF["sensitivity"])
    rows = ends(select(tables.metrics, task=task.name, modality=task.modality, experiment="sensitivity",
                       metric="success"))  # fmt: skip
    if rows.empty:
        raise NothingToDraw("it needs rows of experiment 'sensitivity'")
    rows = rows.assign(temperature=settings_of(rows, "temperature"), attempts=settings_of(rows, "attempts").astype(int))
    splits = {name: split.short for name, split in SPLITS.items()}
    splits = {split: name for split, name in splits.items() if len(select(rows, split=split))}
    columns = [(method, None) for method in methods_in(rows)] + _leads(rows)
    title = "Sensitivity · The same checkpoints at every temperature and number of attempts"
    remarks = ("GP-L success in percent, differences in points", "bold: the CI of a difference leaves 0 out",
               _same_point(tables, task, rows))  # fmt: skip
    subtitle = caption(tables.profile, rows, "±, half the width", *remarks)
    figure = canvas(WIDTH, 1.22 * len(columns) + 0.35, title, subtitle)
    grid = figure.subplots(len(columns), len(splits), squeeze=False, sharex=True, sharey=True)
    limit = _largest_difference(rows)
    series = []
    for line, (split, name) in zip(grid.T, splits.items(), strict=True):
        for axes, (method, other) in zip(line, columns, strict=True):
            series += _heat(axes, select(rows, split=split), method, other, limit)
            names = " minus ".join(METHODS[name].label for name in (method, other) if name)
            axes.set_title(f"{names} · {name}")
            if axes is line[-1]:
                axes.set_xlabel("attempts")
            if split == next(iter(splits)):
                axes.set_ylabel("temperature")
    seen = "Heat maps of temperature against attempts: the levels of each method, then the differences."
    return Drawing(figure, record("sensitivity", title, subtitle, tables.profile, series, None, seen))


def _same_point(tables: Tables, task: Task, rows: pd.DataFrame) -> str:
    """What the main comparison has, on all its hands, where this figure has temperature 1 and 5 attempts."""
    last = ends(select(main_rows(tables, task), split="rule_ood"))
    rl, init = (select(last, method=name) for name in ("rl", "init"))
    gain = statistics.difference_of(rl, init) if len(rl) and len(init) else None
    if gain is None or not ((rows["temperature"] == 1) & (rows["attempts"] == 5)).any():
        return ""
    return (
        f"at T = 1 with 5 attempts these are the first {rows['n'].max():,} of the {int(last['n'].max()):,} hands of "
        f"the main comparison, in which RL minus Init, rule-OOD, is {points(gain.value)} "
        f"[{points(gain.low)}, {points(gain.high)}]"
    )


def _leads(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """The differences shown: every method other than Init and SFT, minus Init and minus SFT."""
    baselines = [name for name in ("init", "sft") if name in methods_in(rows)]
    return [(method, other) for method in methods_in(rows) if method not in baselines for other in baselines]


def _cells(rows: pd.DataFrame, method: str, other: str | None) -> list[tuple[float, int, statistics.Estimate]]:
    cells = []
    for (temperature, count), cell in rows.groupby(["temperature", "attempts"]):
        mine = cell[cell["method"] == method]
        rest = None if other is None else cell[cell["method"] == other]
        estimate = statistics.level_of(mine) if rest is None else statistics.difference_of(mine, rest)
        if estimate is not None:
            cells.append((temperature, count, estimate))
    return cells


def _largest_difference(rows: pd.DataFrame) -> float:
    """Limit of the colour scale that all differences share: the largest of them in points, at least 1."""
    cells = [_cells(part, *lead) for _, part in rows.groupby("split") for lead in _leads(rows)]
    return max([1.0, *[abs(100 * estimate.value) for group in cells for *_, estimate in group]])


def _heat(axes: Axes, rows: pd.DataFrame, method: str, other: str | None, limit: float) -> list[dict]:
    """Heat map of temperature x attempts with the numbers in its cells. Returns the JSON records."""
    temperatures, counts = sorted(rows["temperature"].unique()), sorted(rows["attempts"].unique())
    cells = _cells(rows, method, other)
    values = np.full((len(temperatures), len(counts)), np.nan)
    for temperature, count, estimate in cells:
        values[temperatures.index(temperature), counts.index(count)] = 100 * estimate.value
    if other is None:
        look = {
            "cmap": LinearSegmentedColormap.from_list("level", ["white", METHODS[method].color]),
            "vmin": 0,
            "vmax": 100,
        }
    else:
        scale = [METHODS[other].color, "white", METHODS[method].color]
        look = {
            "cmap": LinearSegmentedColormap.from_list("lead", scale),
            "norm": TwoSlopeNorm(0, -limit, limit),
        }
    image = axes.pcolormesh(values, edgecolors="white", linewidth=2, alpha=1, **look, label=f"{method} {other}")
    for temperature, count, estimate in cells:
        x, y = counts.index(count) + 0.5, temperatures.index(temperature) + 0.5
        clear = estimate.low > 0 or estimate.high < 0
        dark = np.dot(image.to_rgba([100 * estimate.value])[0][:3], (0.3, 0.59, 0.11)) < 0.5
        main = f"{100 * estimate.value:.1f}" if other is None else points(estimate.value)
        axes.text(x, y, f"{main} ±{50 * (estimate.high - estimate.low):.0f}", ha="center", va="center", fontsize=7,
                  color="white" if dark else INK, fontweight="bold" if clear and other else "normal")  # fmt: skip
    axes.set_xticks([i + 0.5 for i in range(len(counts))], counts)
    axes.set_yticks([i + 0.5 for i in range(len(temperatures))], [f"{value:g}" for value in temperatures])
    axes.tick_params(length=0)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    common = {"method": method, "minus": other, "split": rows["split"].iloc[0]}
    return [common | {"temperature": t, "attempts": count} | percent(e) for t, count, e in cells]
