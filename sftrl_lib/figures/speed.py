"""Figure of the bench: tokens per second of every engine beside the machine's limit, and the phases of a PPO update.

Drawn from the rows in ``results/bench/MACHINE.json`` (see `bench/card.py`), not from the tables of a profile.
"""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..bench.card import ENGINES, PHASES, Row, runs, title
from .style import GREY, INK, PALE, RIGHT, WIDTH, WRONG, Drawing, canvas, in_lines, legend_below, shades, styled

_SHADES = shades(GREY, len(PHASES))
_LIMIT = {"marker": "|", "color": WRONG, "markeredgewidth": 2.0}


@styled
def speed(rows: list[Row]) -> Drawing:
    """One line of panels a run: its engines on the left, where a PPO update's time goes on the right."""
    parts = runs(rows)
    bars = [len(part) for part in parts]
    first = parts[0][0]
    heading = f"Speed of rollouts · {first['processor']}"
    subtitle = (
        f"median of {first['repeats']} repeats in turns, whiskers: slowest and fastest · the machine's limit: measured "
        "matrix and read rates, useful work only · same weights, episodes, stop rule and threads in one process"
    )
    figure = canvas(WIDTH, sum(0.95 + 0.36 * count for count in bars), heading, subtitle)
    grid = figure.subplots(len(parts), 2, squeeze=False, width_ratios=(2.4, 1), height_ratios=[1.2 + c for c in bars])
    series = []
    for (left, right), part in zip(grid, parts, strict=True):
        _engines(left, part)
        if part[0]["update"]:
            _phases(right, part[0]["update"])
        else:  # it did not fit into the memory
            right.set_visible(False)
        left.set_title(title(part[0]))
        series += [{key: value for key, value in row.items() if key != "made"} for row in part]
    handles = [
        Line2D([], [], linestyle="none", markersize=10, label="machine's limit", **_LIMIT),
        *(Patch(color=color, label=phase) for phase, color in zip(PHASES, _SHADES, strict=True)),
    ]
    legend_below(figure, handles, len(handles))
    record = {"figure": "speed", "title": heading, "caption": subtitle, "unit": "tokens per second", "series": series}
    return Drawing(figure, record)


def _engines(axes: Axes, part: list[Row]) -> None:
    """Bars of one run, slowest on top as in the tables, on a logarithmic axis."""
    most = max(max(row["limit_tokens_per_s"], row["tokens_per_s_high"]) for row in part)
    least = min(row["tokens_per_s_low"] for row in part)
    left, right = least / 3, most * 3
    for place, row in enumerate(part):
        rate = row["tokens_per_s"]
        axes.barh(place, rate, height=0.62, color=RIGHT if row["engine"] == "ours" else PALE)
        axes.plot([row["tokens_per_s_low"], row["tokens_per_s_high"]], [place, place], color=INK, linewidth=1.3)
        axes.plot(row["limit_tokens_per_s"], place, markersize=13, **_LIMIT)
        label = f" {rate:,.0f}  ({100 * row['share_of_limit']:.2g} %) "
        inside = math.log(rate / left) > 0.5 * math.log(right / left)  # beside a long bar it would meet the limit
        x, side = (row["tokens_per_s_low"], "right") if inside else (row["tokens_per_s_high"], "left")
        color = "white" if inside and row["engine"] == "ours" else INK
        axes.annotate(label, (x, place), va="center", ha=side, fontsize=8.4, color=color)
    axes.set(xscale="log", xlim=(left, right), ylim=(len(part) - 0.4, -0.6))
    axes.set(xlabel="tokens sampled per second (share of the limit)", yticks=range(len(part)))
    axes.set_yticklabels([f"{ENGINES[row['engine']]}, n = {row['n']:,}" for row in part])
    in_lines(axes)


def _phases(axes: Axes, update: Row) -> None:
    """One bar: the shares of the phases of a PPO update."""
    total, start = sum(update["seconds"].values()), 0.0
    for phase, color in zip(PHASES, _SHADES, strict=True):
        share = 100 * update["seconds"][phase] / total
        axes.barh(0, share, left=start, height=0.5, color=color, label=phase)
        if share >= 15:
            axes.text(start + share / 2, 0, f"{share:.0f} %", ha="center", va="center", fontsize=8.4, color="white")
        start += share
    axes.set(xlim=(0, 100), ylim=(-0.7, 0.7), yticks=[], xlabel=f"% of the time, {update['episodes']:,} episodes")
    axes.set_title(f"PPO update: {total:.2g} s")
    axes.spines["left"].set_visible(False)
    axes.grid(False)
