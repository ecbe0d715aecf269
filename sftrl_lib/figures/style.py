"""The look and the files of all figures: one palette, one header, one set of file formats.

A method has the colour and the marker of its entry in `methods.py` in every figure (red SFT, blue RL, as in the paper).
The paper's values are always hollow, ours filled.
"""

from __future__ import annotations

import functools
import io
import json
import math
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .. import paths, published
from ..claims.statistics import CONFIDENCE, Estimate
from ..files import write_atomically
from ..methods import INIT, METHODS
from ..tables import select
from ..task import SPLITS, Task
from ..tasks import TASKS

INK, GREY, PALE = "#222222", "#6b6b6b", "#d9d9d9"
RIGHT, WRONG, MARK = "#00795a", "#882255", "#ffe9a8"  # colours of verdicts; tint behind highlighted words

_RC = {
    **sns.axes_style("ticks"),
    **sns.plotting_context("notebook", font_scale=0.82),
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": "#8a8a8a", "axes.linewidth": 0.8,
    "xtick.color": GREY, "ytick.color": GREY, "xtick.major.size": 3.0, "ytick.major.size": 3.0,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#ececec", "grid.linewidth": 0.8,
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 8,
    "legend.frameon": False, "figure.facecolor": "white", "figure.dpi": 100, "pdf.fonttype": 42,
    "text.hinting": "none",  # exact letter widths, so that a tint lines up with its word
}  # fmt: skip


class NothingToDraw(ValueError):
    """The tables hold no rows for a figure; the message says which rows it needs."""


@dataclass(frozen=True)
class Tables:
    """All inputs of a figure: the tidy table, the transcripts, their pictures, and the profile's name."""

    profile: str
    metrics: pd.DataFrame
    transcripts: list[dict] = field(default_factory=list)
    pictures: Path | None = None  # folder written by `evaluation.illustrations`


@dataclass(frozen=True)
class Drawing:
    """A finished figure and the numbers in it. Displays itself in a notebook."""

    figure: Figure
    data: dict

    def png(self, dpi: int = 160) -> bytes:
        return _rendered(self.figure, "png", dpi=dpi, metadata={"Software": None})

    def pdf(self) -> bytes:
        return _rendered(self.figure, "pdf", metadata={"Creator": None, "Producer": None, "CreationDate": None})

    def json(self) -> str:
        return json.dumps(_stable(self.data), indent=1, ensure_ascii=False) + "\n"

    def _repr_png_(self) -> bytes:
        return self.png(dpi=110)


def styled(draw: Callable[[Tables], Drawing]) -> Callable[[Tables], Drawing]:
    """Decorator: draw in the house style, whatever the caller's matplotlib settings are."""

    @functools.wraps(draw)
    def wrapped(tables: Tables, **options: object) -> Drawing:
        with mpl.style.context(["default", _RC]):
            return draw(tables, **options)

    return wrapped


def save_figure(drawing: Drawing, name: str, profile: str) -> list:
    """Write `figures/<profile>/<name>.{png,pdf,json}` and return the paths. The same drawing gives the same bytes."""
    folder = paths.figures(profile)
    contents = {"png": drawing.png(), "pdf": drawing.pdf(), "json": drawing.json()}
    return [write_atomically(folder / f"{name}.{kind}", data) for kind, data in contents.items()]


def canvas(width: float, height: float, title: str, subtitle: str) -> Figure:
    """A figure of `width` x `height` inches below a header: bold title, grey wrapped subtitle."""
    lines = textwrap.wrap(subtitle, int(width * 15.8), break_on_hyphens=False)
    header = 0.44 + 0.18 * len(lines)
    total = height + header
    figure = Figure(figsize=(width, total), layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0, 1, height / total), w_pad=0.08, h_pad=0.06)
    left = 0.1 / width
    figure.text(left, 1 - 0.09 / total, title, va="top", fontsize=12.5, fontweight="bold")
    figure.text(left, 1 - 0.37 / total, "\n".join(lines), va="top", fontsize=8.6, color=GREY, linespacing=1.35)
    return figure


def caption(profile: str, rows: pd.DataFrame, marks: str, *remarks: str) -> str:
    """The subtitle: profile, seeds, n per point and seed, which marks are the intervals, then the remarks."""
    seeds, low, high = rows["seed"].nunique(), rows["n"].min(), rows["n"].max()
    count = f"{low:,}" if low == high else f"{low:,}–{high:,}"
    about = "over the seeds" if seeds > 1 else "of this seed's episodes"
    facts = [
        f"profile {profile}",
        f"{seeds} seed{'s' if seeds > 1 else ''}",
        f"n = {count} episodes per point and seed",
        f"{marks}: {CONFIDENCE:.0%} CI {about}",
    ]
    return " · ".join([*facts, *remarks])


def record(name: str, title: str, subtitle: str, profile: str, series: list[dict], paper: object) -> dict:
    """The JSON file of a figure: the values drawn (percent), intervals, n, seeds, and the paper's values."""
    return {
        "figure": name, "title": title, "caption": subtitle, "profile": profile, "unit": "percent",
        "confidence": CONFIDENCE, "series": series, "paper": paper, "paper_source": published.PAPER,
    }  # fmt: skip


def percent(estimate: Estimate) -> dict:
    """An estimate as JSON fields in percent (points for a difference)."""
    return {
        "value": 100 * estimate.value, "ci_low": 100 * estimate.low, "ci_high": 100 * estimate.high,
        "n": estimate.n, "seeds": estimate.seeds, "interval": estimate.interval,
    }  # fmt: skip


def error_bar(axes: Axes, x: float, estimate: Estimate, color: str, **options: object) -> None:
    """The interval of an estimate as a thin vertical line, in percent."""
    options = {"linewidth": 1.3, "zorder": 4, "label": "_interval"} | options
    axes.plot([x, x], [100 * estimate.low, 100 * estimate.high], color=color, **options)


def methods_in(rows: pd.DataFrame) -> list[str]:
    """The methods in the rows, in the order of `METHODS`."""
    return [name for name in METHODS if len(select(rows, method=name))]


def branches_in(rows: pd.DataFrame) -> list[str]:
    """The methods in the rows, without Init."""
    return [name for name in methods_in(rows) if name != INIT.name]


def handle(name: str, **options: object) -> Line2D:
    """Legend entry of a method, in the style of its curves."""
    method, is_init = METHODS[name], name == INIT.name
    options = {
        "color": method.color,
        "label": method.label,
        "linestyle": "none" if is_init else "-",
        "markersize": 11 if is_init else 5.5,
    } | options
    return Line2D([], [], marker=method.marker, markeredgecolor="white", markeredgewidth=0.6, **options)


def split_name(split: str, task: Task) -> str:
    """Label of a split; held-out instances are named in the task's own words."""
    return task.words.heldout if split == "heldout" else SPLITS[split].label


def line_handle(label: str, dashed: bool = False) -> Line2D:
    """Legend entry of a line style, in grey because it applies to all methods."""
    look = {"linestyle": (0, (4, 2)), "linewidth": 1.3} if dashed else {"linestyle": "-", "linewidth": 1.9}
    return Line2D([], [], color=GREY, label=label, **look)


def heldout_handle(rows: pd.DataFrame) -> Line2D:
    """Legend entry of the dashed held-out lines: hands, routes or both, depending on the tasks in the rows."""
    shown = set(select(rows, split="heldout")["task"])
    words = [task.words.heldout for task in TASKS.values() if task.name in shown]
    names = dict.fromkeys(word.removeprefix("held-out ") for word in words)
    return line_handle(f"held-out {' and '.join(names)} (dashed)", dashed=True)


def legend_below(figure: Figure, handles: list, columns: int) -> None:
    """One legend below all panels, with up to `columns` columns as far as they fit the figure's width."""
    for count in range(columns, 0, -1):
        legend = figure.legend(handles=handles, loc="outside lower center", ncols=count)
        if count == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def paper_handle(label: str = "paper (hollow)") -> Line2D:
    return Line2D(
        [],
        [],
        marker="D",
        linestyle="none",
        markersize=5.5,
        markerfacecolor="white",
        markeredgecolor=GREY,
        label=label,
    )


def flops_scale(largest: float) -> tuple[float, str]:
    """Divisor and label of an axis that shows training compute up to `largest` FLOPs."""
    power = math.floor(math.log10(largest)) if largest > 0 else 0
    return 10.0**power, rf"training compute ($10^{{{power}}}$ FLOPs)"


def axis_name(metric: str, task: Task) -> str:
    """The y label of a metric, in the task's own words."""
    return f"{task.words.metrics.get(metric, metric.replace('_', ' '))} (%)"


def shades(color: str, count: int) -> list[str]:
    """`count` shades of a colour, light to dark; the colour itself if `count` is 1."""
    light, dark = (mpl.colors.to_hex(_mixed(color, other)) for other in ("white", "black"))
    return sns.blend_palette([light, color, dark], count).as_hex() if count > 1 else [color]


def _mixed(color: str, other: str) -> np.ndarray:
    return 0.5 * np.array(mpl.colors.to_rgb(color)) + 0.5 * np.array(mpl.colors.to_rgb(other))


def points(value: float) -> str:
    """A difference in percentage points as the paper prints it, with a real minus sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def _rendered(figure: Figure, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    with mpl.style.context(["default", _RC]), warnings.catch_warnings():
        # Model output may contain any character; those that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def _stable(value: object) -> object:
    """Plain JSON types, floats with 6 significant digits because the last bits differ between machines."""
    if isinstance(value, dict):
        return {str(key): _stable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_stable(item) for item in value]
    if hasattr(value, "item"):  # NumPy scalars
        value = value.item()
    return float(f"{value:.6g}") if isinstance(value, float) else value
