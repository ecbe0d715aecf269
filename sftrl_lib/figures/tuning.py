"""Figures with one curve per learning rate: 9 (RL without SFT), 16 and 17 (tuning SFT and RL), 19 (overfitted SFT).

Paper: single smoothed runs, of which only the axes can be read, each figure on one split. Ours: means over seeds with
95 % intervals, on every split that the tables hold, and for comparison the end of RL in the main experiment with the
same seeds.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .. import published
from ..claims import statistics
from ..methods import METHODS
from ..tables import ends, select, settings_of
from ..task import SPLITS, Task
from ..tasks import labelled
from .curves import PAPER_RANGE, curve_caption, draw_curve, draw_paper_range, draw_star, main_rows
from .style import (
    GREY,
    WIDTH,
    Drawing,
    NothingToDraw,
    Tables,
    canvas,
    flops_scale,
    handle,
    legend_below,
    record,
    shades,
    styled,
)

FROZEN = {
    "none": "all parts trained",
    "vision": "vision encoder frozen",
    "vision+adapter": "encoder and adapter frozen",
}
_PINKS = ["#7a3b60", "#cc79a7", "#3d1f30", "#e6b3cf"]  # shades of the colour of RL without SFT


def by_rate(rows: pd.DataFrame) -> dict[float, pd.DataFrame]:
    """Learning rate -> its rows, in ascending order."""
    rates = settings_of(rows, "lr")
    return {rate: rows[rates == rate] for rate in sorted(rates.unique())}


def looks(rates: list[float], colors: list[str]) -> dict[float, dict]:
    """Colour and marker of every rate."""
    return {
        rate: {"color": colors[i % len(colors)], "marker": "os^vd"[i % 5], "size": 4.6} for i, rate in enumerate(rates)
    }


def draw_rates(axes: Axes, rows: pd.DataFrame, start: pd.DataFrame, unit: float, look: dict[float, dict]) -> list:
    """One curve per learning rate, each starting at the `start` rows of its seeds. Returns the JSON records."""
    series = []
    for rate, branch in by_rate(rows).items():
        own = select(start, seed=sorted(branch["seed"].unique()))
        series.append({"lr": rate} | draw_curve(axes, branch, own, unit, branch["method"].iloc[0], **look[rate]))
        axes.lines[-1].set_label(f"learning rate {rate:g}")
    return series


def rate_handles(look: dict[float, dict]) -> list[Line2D]:
    return [
        Line2D([], [], color=one["color"], marker=one["marker"], markersize=5, markeredgecolor="white",
               markeredgewidth=0.5, label=f"lr {rate:g}")
        for rate, one in look.items()
    ]  # fmt: skip


def main_end(tables: Tables, rows: pd.DataFrame, task: Task, split: str) -> statistics.Estimate | None:
    """The end of RL in the main experiment, in the task's metric, with the seeds of `rows`; None if it was not run."""
    main = select(main_rows(tables, task), method="rl", split=split, seed=sorted(rows["seed"].unique()))
    return statistics.level_of(ends(main))


def level(axes: Axes, height: float, said: str, color: str, label: str, above: bool = True) -> None:
    """A dotted horizontal line, and what it is right of the axes, above or below it, if anything is said."""
    axes.axhline(height, color=color, linewidth=0.9, linestyle=":", zorder=1, label=label)
    if said:
        axes.annotate(said, (1, height), xycoords=("axes fraction", "data"), xytext=(4, 1 if above else -1),
                      textcoords="offset points", va="bottom" if above else "top", fontsize=7, color=color,
                      annotation_clip=False)  # fmt: skip


def _highest(series: list[dict]) -> float:
    return max((max(item["ci_high"]) for item in series), default=0.0)


def _splits(rows: pd.DataFrame) -> list[str]:
    """The splits in the rows, held-out instances left out, in the order of `SPLITS`."""
    return [split for split in SPLITS if split != "heldout" and len(select(rows, split=split))]


@styled
def without_sft(tables: Tables) -> Drawing:
    """Fig. 9: RL straight from the foundation model, one curve per learning rate.

    Ours also shows success under the new rule, and how many answers have the requested format.
    """
    task = labelled(published.FIGURE_OF[9])
    rows = select(
        tables.metrics, task=task.name, modality=task.modality, metric=["success", "format"],
        experiment="no_init", method="rl_no_init", split=["id", "rule_ood"],
    )  # fmt: skip
    parts = {
        (metric, split): select(rows, metric=metric, split=split)
        for metric, split in (("success", "id"), ("success", "rule_ood"), ("format", "id"))
    }
    if parts["success", "id"].empty:
        raise NothingToDraw("it needs GP-L rows of experiment 'no_init', method rl_no_init, split id")
    parts = {key: part for key, part in parts.items() if len(part)}
    title = "Fig. 9 · RL without SFT first"
    remark = "format: first answers with all three fields"
    subtitle = curve_caption(tables.profile, pd.concat(parts.values()), "bands", "GP-L", remark)
    figure = canvas(WIDTH, 2.5, title, subtitle)
    unit, label = flops_scale(rows["train_flops"].max())
    look = looks(list(by_rate(rows)), _PINKS)
    names = {("success", "id"): "Success, ID", ("success", "rule_ood"): "Success, rule-OOD"}
    names["format", "id"] = "Format, ID"
    series, paper = [], published.FIG09["highest_success"]
    panels = figure.subplots(1, len(parts), squeeze=False)[0]
    for axes, ((metric, split), part) in zip(panels, parts.items(), strict=True):
        drawn = draw_rates(axes, part, part.iloc[:0], unit, look)
        series += drawn
        end = main_end(tables, part, task, split) if metric == "success" else None
        top = max(5.0, 1.12 * _highest(drawn), 118 * end.value if end else 0.0)
        if end:
            level(axes, 100 * end.value, f"RL from\nInit: {100 * end.value:.0f} %", METHODS["rl"].color, "rl end")
        if (metric, split) == ("success", "id"):
            axes.axhline(paper, color=GREY, linewidth=0.9, linestyle=":", label="paper limit")
            axes.annotate(f"the paper's runs:\nat most {paper} %", (0.02, 0.94), xycoords="axes fraction", va="top",
                          fontsize=7, color=GREY)  # fmt: skip
            top *= 1.1
        axes.set(xlabel=label, title=names[metric, split], ylim=(0, min(top, 103)))
        axes.set_xlim(left=0)
    figure.axes[0].set_ylabel("share of hands (%)")
    legend_below(figure, rate_handles(look), 4)
    seen = "Panels of lines over training compute, one line per learning rate, from the model without SFT."
    return Drawing(figure, record("fig09", title, subtitle, tables.profile, series, published.FIG09, seen))


def _tuned(tables: Tables, task: Task, method: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Success of a method's tuning runs on a task, and of Init with the same seeds."""
    rows = select(
        tables.metrics, task=task.name, modality=task.modality, metric="success", experiment=f"{method}_tuning",
        method=method,
    )  # fmt: skip
    if select(rows, split="id")["setting"].nunique() < 2:  # the main comparison counts as one of them
        wanted = f"{task.label} rows of experiment '{method}_tuning', method {method}, split id"
        raise NothingToDraw(f"it needs {wanted}, at two settings or more")
    init = select(main_rows(tables, task), method="init", seed=sorted(rows["seed"].unique()))
    return rows, init


@styled
def sft_tuning(tables: Tables) -> Drawing:
    """Fig. 16: SFT on GP-VL at several learning rates, with all parts trained or some frozen; a row for each split."""
    task = labelled(published.FIGURE_OF[16])
    rows, init = _tuned(tables, task, "sft")
    splits = _splits(rows)
    rows = select(rows, split=splits)
    frozen = settings_of(rows, "frozen")
    parts = [name for name in FROZEN if (frozen == name).any()]
    title = "Fig. 16 · SFT of GP-VL, by learning rate and by the parts trained"
    limit = published.FIG16["highest_id_success"]
    where = SPLITS[splits[0]].label if len(splits) == 1 else ""
    subtitle = curve_caption(tables.profile, rows, "bands", "success rate", where)
    figure = canvas(WIDTH, 0.5 + 1.95 * len(splits), title, subtitle)
    grid = figure.subplots(len(splits), len(parts), sharey="row", sharex=True, squeeze=False)
    unit, label = flops_scale(rows["train_flops"].max())
    rates = list(by_rate(rows))
    look = looks(rates, shades(METHODS["sft"].color, len(rates)))
    series = []
    for line, split in zip(grid, splits, strict=True):
        end, start = main_end(tables, rows, task, split), select(init, split=split)
        drawn = []
        for axes, name in zip(line, parts, strict=True):
            here = rows[(frozen == name) & (rows["split"] == split)]
            drawn += [{"frozen": name} | item for item in draw_rates(axes, here, start, unit, look)]
            if len(start):
                draw_star(axes, start, unit)
            axes.set_title(FROZEN[name] if len(splits) == 1 else f"{SPLITS[split].short} · {FROZEN[name]}")
        above = end is None or 100 * end.value < limit
        for axes in line:
            if split == "id":
                said = f"the paper's\nruns: at\nmost {limit} %" if axes is line[-1] else ""
                level(axes, limit, said, GREY, "paper limit", above)
            if end is not None:
                said = f"RL ends\nat {100 * end.value:.0f} %" if axes is line[-1] else ""
                level(axes, 100 * end.value, said, METHODS["rl"].color, "rl end", not above or split != "id")
        top = max(limit, _highest(drawn), 100 * end.value if end else 0)
        line[0].set(ylabel="success rate (%)", ylim=(0, min(1.1 * top, 103)))
        series += drawn
    for axes in grid[-1]:
        axes.set_xlabel(label)
    handles = [handle("init")] if len(init) else []
    handles += rate_handles(look)
    legend_below(figure, handles, 2 * len(parts))
    seen = "Panels of lines over training compute, one for each part frozen, a line for each learning rate."
    return Drawing(figure, record("fig16", title, subtitle, tables.profile, series, published.FIG16, seen))


@styled
def rl_tuning(tables: Tables) -> Drawing:
    """Fig. 17: RL on GP-VL at several learning rates; a panel for each split."""
    task = labelled(published.FIGURE_OF[17])
    rows, init = _tuned(tables, task, "rl")
    splits = _splits(rows)
    rows = select(rows, split=splits)
    title = "Fig. 17 · RL of GP-VL at several learning rates"
    remark = f"{PAPER_RANGE} (two rates, both rise)"
    subtitle = curve_caption(tables.profile, rows, "bands", "success rate", remark)
    figure = canvas(WIDTH, 2.6, title, subtitle)
    unit, label = flops_scale(rows["train_flops"].max())
    rates = list(by_rate(rows))
    look = looks(rates, shades(METHODS["rl"].color, len(rates)))
    series = []
    for axes, split in zip(figure.subplots(1, len(splits), squeeze=False)[0], splits, strict=True):
        start = select(init, split=split)
        series += draw_rates(axes, select(rows, split=split), start, unit, look)
        if len(start):
            draw_star(axes, start, unit)
        axes.set(xlabel=label, title=SPLITS[split].label, ylim=(0, None))
        if split == "id":
            draw_paper_range(axes, published.FIG17["id_success_axis"])
    figure.axes[0].set_ylabel("success rate (%)")
    handles = [handle("init")] if len(init) else []
    legend_below(figure, [*handles, *rate_handles(look)], 5)
    seen = "Lines over training compute, one for each learning rate, and a bracket for the paper's axis."
    return Drawing(figure, record("fig17", title, subtitle, tables.profile, series, published.FIG17, seen))


@styled
def overfitted(tables: Tables) -> Drawing:
    """Fig. 19: RL on V-IRL-VL from an overfitted SFT checkpoint, under the training rule and under the new one.

    Ours also shows that checkpoint (method sft of the same experiment), which the paper only describes, and the
    training rule, under which RL does improve it.
    """
    task = labelled(published.FIGURE_OF[19])
    found = select(
        tables.metrics, task=task.name, modality=task.modality, metric=task.metric, split=["id", "rule_ood"],
        experiment="overfitted",
    )  # fmt: skip
    rows = select(found, method="rl")
    if select(rows, split="rule_ood").empty:
        raise NothingToDraw("it needs V-IRL-VL rows of experiment 'overfitted', method rl, metric step_accuracy")
    splits = _splits(rows)
    title = "Fig. 19 · RL from an overfitted SFT checkpoint"
    subtitle = curve_caption(tables.profile, rows, "bands", "V-IRL-VL")
    figure = canvas(WIDTH, 2.6, title, subtitle)
    unit, label = flops_scale(rows["train_flops"].max())
    rates = list(by_rate(rows))
    look = looks(rates, shades(METHODS["rl"].color, len(rates)))
    handles, series, limit = rate_handles(look), [], published.FIG19["highest_step_accuracy"]
    for axes, split in zip(figure.subplots(1, len(splits), squeeze=False)[0], splits, strict=True):
        here = select(rows, split=split)
        start = _start(select(found, method="sft", split=split), here)
        drawn = draw_rates(axes, here, start, unit, look)
        if len(start):
            axes.plot(start["train_flops"].mean() / unit, 100 * start["value"].mean(), marker=METHODS["sft"].marker,
                      zorder=7, color=METHODS["sft"].color, markersize=7, markeredgecolor="white", label="start",
                      clip_on=False)  # fmt: skip
        end = main_end(tables, rows, task, split)
        if end:
            level(axes, 100 * end.value, f"RL from\nInit: {100 * end.value:.0f} %", METHODS["rl"].color, "rl end")
        if split == "rule_ood":
            axes.axhline(limit, color=GREY, linewidth=0.9, linestyle=":", label="paper limit")
            axes.text(0.02, 0.72 if end else 0.94, f"dotted below: the paper's runs, at most {limit} %", va="top",
                      transform=axes.transAxes, fontsize=7, color=GREY)  # fmt: skip
        top = max(5.0, 1.2 * _highest(drawn), 115 * end.value if end else 0.0)
        axes.set(xlabel=label, title=SPLITS[split].label, ylim=(0, min(top, 103)))
        series += drawn
    figure.axes[0].set_ylabel("per-step accuracy (%)")
    if len(select(found, method="sft")):
        handles.insert(0, handle("sft", linestyle="none", markersize=7, label="overfitted SFT, where RL begins"))
    legend_below(figure, handles, len(handles))
    seen = "Lines over training compute, one for each learning rate, from the overfitted checkpoint on."
    return Drawing(figure, record("fig19", title, subtitle, tables.profile, series, published.FIG19, seen))


def _start(sft: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The SFT checkpoint that RL starts from, one row per seed, with step -1 so that it sorts before RL's.

    The table may hold it once, or once per setting of RL; these are the same checkpoint.
    """
    last = ends(sft).drop_duplicates("seed")
    return last[last["seed"].isin(rows["seed"])].assign(step=-1)
