"""Figures with one curve per learning rate: 9 (RL without SFT), 16 and 17 (tuning SFT and RL), 19 (overfitted SFT).

Paper: single smoothed runs, of which only the axes can be read. Ours: means over seeds with 95 % intervals, and for
comparison the end point of RL in the main experiment.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .. import published
from ..claims import statistics
from ..methods import METHODS
from ..tables import ends, select, settings_of
from ..task import Task
from ..tasks import labelled
from .curves import draw_curve, draw_paper_range, draw_star, main_rows, paper_axis_handle
from .style import (
    GREY,
    Drawing,
    NothingToDraw,
    Tables,
    canvas,
    caption,
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


def looks(rates: list[float], colors: list[str], shrink: bool = False) -> dict[float, dict]:
    """Colour and marker of every rate. `shrink`: vary marker sizes so that overlapping curves stay visible."""
    sizes = [9.5 - 2.4 * (i % 4) if shrink else 5.2 for i in range(len(rates))]
    return {
        rate: {"color": colors[i % len(colors)], "marker": "os^vd"[i % 5], "size": sizes[i]}
        for i, rate in enumerate(rates)
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
        Line2D([], [], color=one["color"], marker=one["marker"], markersize=5.5, markeredgecolor="white",
               markeredgewidth=0.6, label=f"learning rate {rate:g}")
        for rate, one in look.items()
    ]  # fmt: skip


def main_end(tables: Tables, task: Task, split: str) -> statistics.Estimate | None:
    """The end point of RL in the main experiment, in the task's metric; None if it was not run."""
    return statistics.level_of(ends(select(main_rows(tables, task), method="rl", split=split)))


def remarks(axes: Axes, limit: float, end: statistics.Estimate | None, begin: str) -> None:
    """Shade the axes up to the paper's limit (percent), and write the limit and the end point of RL above.

    end, begin: where RL of the main experiment ends (not written if None), and how it started.
    """
    axes.axhspan(0, limit, color="#f0f0f0", zorder=0)
    axes.axhline(limit, color=GREY, linewidth=0.8, linestyle=":", label="paper limit")
    if end is not None:
        axes.text(0.02, 0.97, f"{begin}, RL ends at {100 * end.value:.0f} % (Fig. 5).", va="top",
                  transform=axes.transAxes, fontsize=9, color=METHODS["rl"].color)  # fmt: skip
    axes.text(0.02, 0.90, f"Dotted: the paper's runs, never above {limit} %.", va="top",
              transform=axes.transAxes, fontsize=9, color=GREY)  # fmt: skip


def _highest(series: list[dict]) -> float:
    return max(max(item["ci_high"]) for item in series)


@styled
def without_sft(tables: Tables) -> Drawing:
    """Fig. 9: RL straight from the foundation model, one curve per learning rate."""
    task = labelled(published.FIGURE_OF[9])
    rows = select(
        tables.metrics, task=task.name, modality=task.modality, metric="success", split="id",
        experiment="no_init", method="rl_no_init",
    )  # fmt: skip
    if rows.empty:
        raise NothingToDraw("it needs GP-L rows of experiment 'no_init', method rl_no_init, split id")
    title = "Fig. 9 · RL without SFT first"
    subtitle = caption(tables.profile, rows, "bands", "GP-L, the training rule")
    figure = canvas(6.6, 3.5, title, subtitle)
    axes = figure.subplots()
    unit, label = flops_scale(rows["train_flops"].max())
    look = looks(list(by_rate(rows)), _PINKS, shrink=True)
    series = draw_rates(axes, rows, rows.iloc[:0], unit, look)
    remarks(axes, published.FIG09["highest_success"], main_end(tables, task, "id"), "With SFT first")
    axes.set_ylim(0, max(5.0, 1.15 * _highest(series)))
    axes.set(xlabel=label, ylabel="success rate (%)")
    legend_below(figure, rate_handles(look), 3)
    return Drawing(figure, record("fig09", title, subtitle, tables.profile, series, published.FIG09))


def _tuned(tables: Tables, task: Task, method: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """ID success of a method's tuning runs on a task, and of Init with the same seeds."""
    rows = select(
        tables.metrics, task=task.name, modality=task.modality, metric="success", split="id",
        experiment=f"{method}_tuning", method=method,
    )  # fmt: skip
    if rows["setting"].nunique() < 2:  # the main comparison counts as one of them
        wanted = f"{task.label} rows of experiment '{method}_tuning', method {method}, split id"
        raise NothingToDraw(f"it needs {wanted}, at two settings or more")
    init = select(main_rows(tables, task), method="init", split="id", seed=sorted(rows["seed"].unique()))
    return rows, init


@styled
def sft_tuning(tables: Tables) -> Drawing:
    """Fig. 16: SFT on GP-VL at several learning rates, with all parts trained or some frozen."""
    task = labelled(published.FIGURE_OF[16])
    rows, init = _tuned(tables, task, "sft")
    frozen = settings_of(rows, "frozen")
    panels = {name: rows[frozen == name] for name in FROZEN if (frozen == name).any()}
    title = "Fig. 16 · SFT of GP-VL, whatever the learning rate and the parts trained"
    subtitle = caption(tables.profile, rows, "bands", "in distribution", "dots: single seeds")
    figure = canvas(max(7.6, 2.0 + 3.1 * len(panels)), 3.4, title, subtitle)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    unit, label = flops_scale(rows["train_flops"].max())
    rates = list(by_rate(rows))
    look = looks(rates, shades(METHODS["sft"].color, len(rates)))
    limit, end = published.FIG16["highest_id_success"], main_end(tables, task, "id")
    series = []
    for axes, (name, part) in zip(grid, panels.items(), strict=True):
        series += [{"frozen": name} | item for item in draw_rates(axes, part, init, unit, look)]
        if len(init):
            draw_star(axes, init, unit)
        _level(axes, limit, GREY, "paper limit")
        if end is not None:
            _level(axes, 100 * end.value, METHODS["rl"].color, "rl end")
        axes.set(xlabel=label, title=FROZEN[name])
    top = max(limit, _highest(series), 100 * end.value if end else 0)
    grid[0].set(ylabel="success rate (%)", ylim=(0, 1.1 * top))
    above = end is None or 100 * end.value < limit
    _beside(grid[-1], limit, f"the paper's runs:\nnever above {limit} %", GREY, above)
    if end is not None:
        color = METHODS["rl"].color
        _beside(grid[-1], 100 * end.value, f"RL ends at {100 * end.value:.0f} %\n(Fig. 5)", color, not above)
    handles = [handle("init")] if len(init) else []
    handles += rate_handles(look)
    legend_below(figure, handles, 2 * len(panels))
    return Drawing(figure, record("fig16", title, subtitle, tables.profile, series, published.FIG16))


def _level(axes: Axes, height: float, color: str, label: str) -> None:
    axes.axhline(height, color=color, linewidth=0.9, linestyle=":", zorder=1, label=label)


def _beside(axes: Axes, height: float, text: str, color: str, above: bool) -> None:
    """Text right of the axes, above or below a horizontal line in them, because two lines may lie close together."""
    axes.annotate(text, (1, height), xycoords=("axes fraction", "data"), xytext=(5, 2 if above else -2),
                  textcoords="offset points", va="bottom" if above else "top", fontsize=8, color=color)  # fmt: skip


@styled
def rl_tuning(tables: Tables) -> Drawing:
    """Fig. 17: RL on GP-VL at several learning rates."""
    rows, init = _tuned(tables, labelled(published.FIGURE_OF[17]), "rl")
    title = "Fig. 17 · RL of GP-VL, whatever the learning rate"
    remark = "hatched: the range of the paper's axis (two rates, both rise; no values printed)"
    subtitle = caption(tables.profile, rows, "bands", "in distribution", "dots: single seeds", remark)
    figure = canvas(7.6, 3.5, title, subtitle)
    axes = figure.subplots()
    unit, label = flops_scale(rows["train_flops"].max())
    rates = list(by_rate(rows))
    look = looks(rates, shades(METHODS["rl"].color, len(rates)))
    series = draw_rates(axes, rows, init, unit, look)
    if len(init):
        draw_star(axes, init, unit)
    axes.set(xlabel=label, ylabel="success rate (%)", ylim=(0, None))
    draw_paper_range(axes, published.FIG17["id_success_axis"])
    handles = [handle("init")] if len(init) else []
    handles += [*rate_handles(look), paper_axis_handle()]
    legend_below(figure, handles, 4)
    return Drawing(figure, record("fig17", title, subtitle, tables.profile, series, published.FIG17))


@styled
def overfitted(tables: Tables) -> Drawing:
    """Fig. 19: RL on V-IRL-VL from an overfitted SFT checkpoint, under the new rule.

    Ours also shows that checkpoint (method sft of the same experiment), which the paper only describes.
    """
    task = labelled(published.FIGURE_OF[19])
    found = select(
        tables.metrics, task=task.name, modality=task.modality, metric=task.metric, split="rule_ood",
        experiment="overfitted",
    )  # fmt: skip
    rows = select(found, method="rl")
    if rows.empty:
        raise NothingToDraw("it needs V-IRL-VL rows of experiment 'overfitted', method rl, metric step_accuracy")
    start = _start(select(found, method="sft"), rows)
    title = "Fig. 19 · RL from an overfitted SFT checkpoint"
    subtitle = caption(tables.profile, rows, "bands", "V-IRL-VL, a new rule", "dots: single seeds")
    figure = canvas(6.6, 3.5, title, subtitle)
    axes = figure.subplots()
    unit, label = flops_scale(rows["train_flops"].max())
    rates = list(by_rate(rows))
    look = looks(rates, shades(METHODS["rl"].color, len(rates)), shrink=True)
    series = draw_rates(axes, rows, start, unit, look)
    handles = rate_handles(look)
    if len(start):
        axes.plot(start["train_flops"].mean() / unit, 100 * start["value"].mean(), marker=METHODS["sft"].marker,
                  zorder=7, color=METHODS["sft"].color, markersize=9, markeredgecolor="white", label="start",
                  clip_on=False)  # fmt: skip
        handles.insert(0, handle("sft", linestyle="none", markersize=8, label="overfitted SFT, where RL begins"))
    remarks(axes, published.FIG19["highest_step_accuracy"], main_end(tables, task, "rule_ood"), "From Init")
    axes.set_ylim(0, max(5.0, 1.3 * _highest(series)))
    axes.set(xlabel=label, ylabel="per-step accuracy (%)")
    legend_below(figure, handles, len(handles))
    return Drawing(figure, record("fig19", title, subtitle, tables.profile, series, published.FIG19))


def _start(sft: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The SFT checkpoint that RL starts from, one row per seed, with step -1 so that it sorts before RL's.

    The table may hold it once, or once per setting of RL; these are the same checkpoint.
    """
    last = ends(sft).drop_duplicates("seed")
    return last[last["seed"].isin(rows["seed"])].assign(step=-1)
