"""How every figure looks and how it is saved: one palette, one header, one file format.

Colours are Okabe and Ito's, which stay apart for colour-blind readers; a method has the same colour in every
figure (red SFT, blue RL, as in the paper) and its own marker, so that no figure depends on colour alone.
What the paper printed is always hollow and drawn beside ours, which is filled.
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

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .. import paths, published
from ..claims.statistics import CONFIDENCE, Estimate
from ..tables import write_atomically

INK, GREY, PALE = "#222222", "#6b6b6b", "#d9d9d9"
RIGHT, WRONG, MARK = "#00795a", "#882255", "#ffe9a8"  # a verdict's colours; the tint behind words to look at
COLORS = {
    "init": "#5f5f5f", "sft": "#d55e00", "rl": "#0072b2", "sft_suboptimal": "#e69f00",
    "rl_no_init": "#cc79a7", "foundation": "#999999",
}  # fmt: skip
MARKERS = {"init": "*", "sft": "o", "rl": "D", "sft_suboptimal": "s", "rl_no_init": "^", "foundation": "P"}
NAMES = {
    "init": "Init", "sft": "SFT", "rl": "RL", "sft_suboptimal": "SFT on sub-optimal trajectories",
    "rl_no_init": "RL without SFT", "foundation": "foundation",
}  # fmt: skip
SPLITS = {
    "id": "ID: the training rule",
    "heldout": "held-out instances",
    "rule_ood": "OOD: a new rule",
    "visual_ood": "OOD: a new look",
}
HELDOUT = {"general_points": "held-out hands", "navigation": "held-out routes"}
METRICS = {
    "success": "success rate",
    "step_accuracy": "per-step accuracy",
}

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
    "text.hinting": "none",  # every letter as wide as its font says, so that a tint lies behind its word
}  # fmt: skip


class NothingToDraw(ValueError):
    """The tables hold no rows for a figure; the message says which rows it needs."""


@dataclass(frozen=True)
class Tables:
    """All that a figure may read: the tidy table, the transcripts, and the profile's name for the caption."""

    profile: str
    metrics: pd.DataFrame
    transcripts: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class Drawing:
    """A finished figure and the numbers in it. Shows itself in a notebook."""

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
    """Draw under the house style whatever the caller's matplotlib settings are."""

    @functools.wraps(draw)
    def wrapped(tables: Tables, **options: object) -> Drawing:
        with mpl.style.context(["default", _RC]):
            return draw(tables, **options)

    return wrapped


def save_figure(drawing: Drawing, name: str, profile: str) -> list:
    """Write `figures/<profile>/<name>.{png,pdf,json}`, the same bytes for the same drawing."""
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
    """One line that says profile, seeds, n per point and seed, and which marks are the intervals."""
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
    """The json beside a figure: what is drawn (percent), intervals, n, seeds, and the paper's values."""
    return {
        "figure": name, "title": title, "caption": subtitle, "profile": profile, "unit": "percent",
        "confidence": CONFIDENCE, "series": series, "paper": paper, "paper_source": published.PAPER,
    }  # fmt: skip


def percent(estimate: Estimate) -> dict:
    """An estimate as json fields in percent (points, for a difference)."""
    return {
        "value": 100 * estimate.value, "ci_low": 100 * estimate.low, "ci_high": 100 * estimate.high,
        "n": estimate.n, "seeds": estimate.seeds, "interval": estimate.interval,
    }  # fmt: skip


def error_bar(axes: Axes, x: float, estimate: Estimate, color: str, **options: object) -> None:
    """The interval of an estimate as a thin vertical line, in percent."""
    options = {"linewidth": 1.3, "zorder": 4, "label": "_interval"} | options
    axes.plot([x, x], [100 * estimate.low, 100 * estimate.high], color=color, **options)


def handle(method: str, **options: object) -> Line2D:
    """A legend entry of a method, as its curves are drawn."""
    size = 11 if method == "init" else 5.5
    line = "none" if method == "init" else "-"
    options = {
        "color": COLORS[method],
        "label": NAMES[method],
        "linestyle": line,
        "markersize": size,
    } | options
    return Line2D([], [], marker=MARKERS[method], markeredgecolor="white", markeredgewidth=0.6, **options)


def split_name(split: str, task: str) -> str:
    """What a split holds, in the task's own words."""
    return HELDOUT[task] if split == "heldout" else SPLITS[split]


def line_handle(label: str, dashed: bool = False) -> Line2D:
    """A legend entry for what the line's style says, whatever the method."""
    look = {"linestyle": (0, (4, 2)), "linewidth": 1.3} if dashed else {"linestyle": "-", "linewidth": 1.9}
    return Line2D([], [], color=GREY, label=label, **look)


def heldout_handle(rows: pd.DataFrame) -> Line2D:
    """The dashed lines' legend entry: hands, routes, or both, as the rows' tasks have it."""
    names = [HELDOUT[task].removeprefix("held-out ") for task in HELDOUT if task in set(rows["task"])]
    return line_handle(f"held-out {' and '.join(names)} (dashed)", dashed=True)


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
    """The divisor and the axis label that show training compute up to `largest` FLOPs in plain numbers."""
    power = math.floor(math.log10(largest)) if largest > 0 else 0
    return 10.0**power, rf"training compute ($10^{{{power}}}$ FLOPs)"


def axis_name(metric: str, task: str) -> str:
    """The y label of a metric; a route is completed where a hand is a success."""
    routes = (metric, task) == ("success", "navigation")
    return "routes completed (%)" if routes else f"{METRICS[metric]} (%)"


def shades(color: str, count: int) -> list[str]:
    """`count` shades of a colour, light to dark; the colour itself if there is one."""
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
        warnings.filterwarnings("ignore", "Glyph .* missing")  # model output may hold any character: shown as a box
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def _stable(value: object) -> object:
    """Plain json types, floats to 6 significant digits: the last bits differ between machines."""
    if isinstance(value, dict):
        return {str(key): _stable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_stable(item) for item in value]
    if hasattr(value, "item"):  # NumPy scalars
        value = value.item()
    return float(f"{value:.6g}") if isinstance(value, float) else value
