"""Figures of one curve a learning rate: 9 (RL without SFT), 16 and 17 (tuning SFT and RL), 19 (overfitted SFT).

Paper: single runs, smoothed; only the axes can be read. Ours: means over seeds with 95 % intervals, and, for
comparison, where RL of the main experiment ends.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .. import published
from ..claims import statistics
from ..tables import ends, parse_setting, select
from .curves import draw_curve, draw_paper_range, draw_star, main_rows, paper_axis_handle
from .style import (
    COLORS,
    GREY,
    MARKERS,
    Drawing,
    NothingToDraw,
    Tables,
    canvas,
    caption,
    flops_scale,
    handle,
    record,
    shades,
    styled,
)

FROZEN = {
    "none": "all parts trained",
    "vision": "vision encoder frozen",
    "vision+adapter": "encoder and adapter frozen",
}
_PINKS = ["#7a3b60", "#cc79a7", "#3d1f30", "#e6b3cf"]  # of RL without SFT's own hue


def by_rate(rows: pd.DataFrame) -> dict[float, pd.DataFrame]:
    """The rows of every learning rate, ascending."""
    rates = rows["setting"].map(lambda setting: parse_setting(setting)["lr"])
    return {rate: rows[rates == rate] for rate in sorted(rates.unique())}


def looks(rates: list[float], colors: list[str], shrink: bool = False) -> dict[float, dict]:
    """Colour and marker of every rate. `shrink`: curves that fail alike lie on one another, and all stay visible."""
    sizes = [9.5 - 2.4 * (i % 4) if shrink else 5.2 for i in range(len(rates))]
    return {
        rate: {"color": colors[i % len(colors)], "marker": "os^vd"[i % 5], "size": sizes[i]}
        for i, rate in enumerate(rates)
    }


def draw_rates(axes: Axes, rows: pd.DataFrame, start: pd.DataFrame, unit: float, look: dict[float, dict]) -> list:
    """One curve a learning rate, each from the start of its own seeds on. Returns the json records."""
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


def main_end(tables: Tables, variant: str, split: str) -> statistics.Estimate | None:
    """Where RL of the main experiment ends, in the variant's metric; None if it was not run."""
    return statistics.level_of(ends(select(main_rows(tables, variant), method="rl", split=split)))


def remarks(axes: Axes, limit: float, end: statistics.Estimate | None, begin: str) -> None:
    """The paper's limit as a shaded strip at the bottom; in words above it, and where RL ends that began well."""
    axes.axhspan(0, limit, color="#f0f0f0", zorder=0)
    axes.axhline(limit, color=GREY, linewidth=0.8, linestyle=":", label="paper limit")
    if end is not None:
        axes.text(0.02, 0.97, f"{begin}, RL ends at {100 * end.value:.0f} % (Fig. 5).", va="top",
                  transform=axes.transAxes, fontsize=9, color=COLORS["rl"])  # fmt: skip
    axes.text(0.02, 0.90, f"Dotted: the paper's runs, never above {limit} %.", va="top",
              transform=axes.transAxes, fontsize=9, color=GREY)  # fmt: skip


def _highest(series: list[dict]) -> float:
    return max(max(item["ci_high"]) for item in series)


@styled
def without_sft(tables: Tables) -> Drawing:
    """Fig. 9: RL straight from the foundation model, one curve a learning rate."""
    rows = select(
        tables.metrics, task="general_points", modality="text", metric="success", split="id",
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
    remarks(axes, published.FIG09["highest_success"], main_end(tables, "GP-L", "id"), "With SFT first")
    axes.set_ylim(0, max(5.0, 1.15 * _highest(series)))
    axes.set(xlabel=label, ylabel="success rate (%)")
    figure.legend(handles=rate_handles(look), loc="outside lower center", ncols=3)
    return Drawing(figure, record("fig09", title, subtitle, tables.profile, series, published.FIG09))


def _gp_vl(tables: Tables, method: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """ID success of GP-VL's runs with a method at several rates, and of Init in the same seeds."""
    rows = select(
        tables.metrics, task="general_points", modality="image", metric="success", split="id",
        experiment=f"{method}_tuning", method=method,
    )  # fmt: skip
    if rows["setting"].nunique() < 2:  # the main comparison is one of them
        wanted = f"GP-VL rows of experiment '{method}_tuning', method {method}, split id"
        raise NothingToDraw(f"it needs {wanted}, at two settings or more")
    init = select(main_rows(tables, "GP-VL"), method="init", split="id", seed=sorted(rows["seed"].unique()))
    return rows, init


@styled
def sft_tuning(tables: Tables) -> Drawing:
    """Fig. 16: SFT of GP-VL at several learning rates, with all parts trained or some frozen."""
    rows, init = _gp_vl(tables, "sft")
    frozen = rows["setting"].map(lambda setting: parse_setting(setting)["frozen"])
    panels = {name: rows[frozen == name] for name in FROZEN if (frozen == name).any()}
    title = "Fig. 16 · SFT of GP-VL, whatever the learning rate and the parts trained"
    subtitle = caption(tables.profile, rows, "bands", "in distribution", "dots: single seeds")
    figure = canvas(max(7.6, 2.0 + 3.1 * len(panels)), 3.4, title, subtitle)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    unit, label = flops_scale(rows["train_flops"].max())
    rates = list(by_rate(rows))
    look = looks(rates, shades(COLORS["sft"], len(rates)))
    limit, end = published.FIG16["highest_id_success"], main_end(tables, "GP-VL", "id")
    series = []
    for axes, (name, part) in zip(grid, panels.items(), strict=True):
        series += [{"frozen": name} | item for item in draw_rates(axes, part, init, unit, look)]
        if len(init):
            draw_star(axes, init, unit)
        _level(axes, limit, GREY, "paper limit")
        if end is not None:
            _level(axes, 100 * end.value, COLORS["rl"], "rl end")
        axes.set(xlabel=label, title=FROZEN[name])
    top = max(limit, _highest(series), 100 * end.value if end else 0)
    grid[0].set(ylabel="success rate (%)", ylim=(0, 1.1 * top))
    above = end is None or 100 * end.value < limit
    _beside(grid[-1], limit, f"the paper's runs:\nnever above {limit} %", GREY, above)
    if end is not None:
        _beside(grid[-1], 100 * end.value, f"RL ends at {100 * end.value:.0f} %\n(Fig. 5)", COLORS["rl"], not above)
    handles = [handle("init")] if len(init) else []
    handles += rate_handles(look)
    figure.legend(handles=handles, loc="outside lower center", ncols=2 * len(panels))
    return Drawing(figure, record("fig16", title, subtitle, tables.profile, series, published.FIG16))


def _level(axes: Axes, height: float, color: str, label: str) -> None:
    axes.axhline(height, color=color, linewidth=0.9, linestyle=":", zorder=1, label=label)


def _beside(axes: Axes, height: float, text: str, color: str, above: bool) -> None:
    """Words at the right of the axes, on a line in them or hanging from it: two lines may lie close together."""
    axes.annotate(text, (1, height), xycoords=("axes fraction", "data"), xytext=(5, 2 if above else -2),
                  textcoords="offset points", va="bottom" if above else "top", fontsize=8, color=color)  # fmt: skip


@styled
def rl_tuning(tables: Tables) -> Drawing:
    """Fig. 17: RL of GP-VL at several learning rates."""
    rows, init = _gp_vl(tables, "rl")
    title = "Fig. 17 · RL of GP-VL, whatever the learning rate"
    remark = "hatched: the range of the paper's axis (two rates, both rise; no values printed)"
    subtitle = caption(tables.profile, rows, "bands", "in distribution", "dots: single seeds", remark)
    figure = canvas(7.6, 3.5, title, subtitle)
    axes = figure.subplots()
    unit, label = flops_scale(rows["train_flops"].max())
    rates = list(by_rate(rows))
    look = looks(rates, shades(COLORS["rl"], len(rates)))
    series = draw_rates(axes, rows, init, unit, look)
    if len(init):
        draw_star(axes, init, unit)
    axes.set(xlabel=label, ylabel="success rate (%)", ylim=(0, None))
    draw_paper_range(axes, published.FIG17["id_success_axis"])
    handles = [handle("init")] if len(init) else []
    handles += [*rate_handles(look), paper_axis_handle()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return Drawing(figure, record("fig17", title, subtitle, tables.profile, series, published.FIG17))


@styled
def overfitted(tables: Tables) -> Drawing:
    """Fig. 19: RL of V-IRL-VL from an SFT checkpoint that is overfitted, under the new rule.

    Ours adds that checkpoint itself (method sft of the same experiment), which the paper only describes.
    """
    found = select(
        tables.metrics, task="navigation", modality="image", metric="step_accuracy", split="rule_ood",
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
    look = looks(rates, shades(COLORS["rl"], len(rates)), shrink=True)
    series = draw_rates(axes, rows, start, unit, look)
    handles = rate_handles(look)
    if len(start):
        axes.plot(start["train_flops"].mean() / unit, 100 * start["value"].mean(), marker=MARKERS["sft"], zorder=7,
                  color=COLORS["sft"], markersize=9, markeredgecolor="white", label="start", clip_on=False)  # fmt: skip
        handles.insert(0, handle("sft", linestyle="none", markersize=8, label="overfitted SFT, where RL begins"))
    remarks(axes, published.FIG19["highest_step_accuracy"], main_end(tables, "V-IRL-VL", "rule_ood"), "From Init")
    axes.set_ylim(0, max(5.0, 1.3 * _highest(series)))
    axes.set(xlabel=label, ylabel="per-step accuracy (%)")
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return Drawing(figure, record("fig19", title, subtitle, tables.profile, series, published.FIG19))


def _start(sft: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The SFT checkpoint of every seed that RL begins at, as one row a seed before RL's first step.

    It may stand in the table once, or once a setting of RL; these are the same checkpoint.
    """
    last = ends(sft).drop_duplicates("seed")
    return last[last["seed"].isin(rows["seed"])].assign(step=-1)
