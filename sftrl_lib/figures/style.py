"""The look and the files of all figures: one palette, one header, one set of file formats.

A method has the colour and the marker of its entry in `methods.py` in every figure (red SFT, blue RL, as in the paper).
The paper's values are always hollow, ours filled. Every figure is drawn as wide as a printed page's text, so that its
letters have the size on paper that they have here.
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
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from PIL import Image

from .. import paths, published
from ..claims.statistics import CONFIDENCE, Estimate
from ..files import write_atomically
from ..methods import INIT, METHODS
from ..profiles import TOY, banner
from ..tables import select
from ..task import SPLITS, Task
from ..tasks import TASKS

WIDTH = 7.0  # inches, of the text on a printed page; no figure is wider
SMALLEST = 7.0  # points, of any letter

INK, GREY, PALE = "#222222", "#5c5c5c", "#d9d9d9"
RIGHT, WRONG, MARK = "#00795a", "#882255", "#ffe9a8"  # colours of verdicts; tint behind highlighted words

RC = {
    **sns.axes_style("ticks"),
    "font.size": 8, "axes.labelsize": 7.5, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7.5,
    "lines.linewidth": 1.5, "hatch.linewidth": 0.6,
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": "#8a8a8a", "axes.linewidth": 0.7,
    "xtick.color": GREY, "ytick.color": GREY, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
    "xtick.major.width": 0.7, "ytick.major.width": 0.7, "xtick.major.pad": 2.5, "ytick.major.pad": 2.5,
    "axes.labelpad": 3,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#ececec", "grid.linewidth": 0.6,
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 8, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 5,
    "legend.frameon": False, "legend.handlelength": 1.8, "legend.columnspacing": 1.4, "legend.handletextpad": 0.5,
    "figure.facecolor": "white", "figure.dpi": 100, "pdf.fonttype": 42,
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
    """A finished figure and the numbers in it. Displays itself in a notebook, with its alternative text."""

    figure: Figure
    data: dict

    def png(self, dpi: int = 300) -> bytes:
        """In 256 colours, which nobody can tell from all of them here, and which take a third of the bytes."""
        drawn = Image.open(io.BytesIO(_rendered(self.figure, "png", dpi=dpi, metadata={"Software": None})))
        buffer = io.BytesIO()
        drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(buffer, "png", dpi=(dpi, dpi), optimize=True)
        return buffer.getvalue()

    def pdf(self) -> bytes:
        return _rendered(self.figure, "pdf", metadata={"Creator": None, "Producer": None, "CreationDate": None})

    def json(self) -> str:
        return json.dumps(_stable(self.data), indent=1, ensure_ascii=False) + "\n"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> tuple[dict, dict]:
        about = {"alt": self.data["alt"], "width": round(126 * self.figure.get_figwidth())}
        return {"image/png": self.png(dpi=200), "text/plain": self.data["alt"]}, {"image/png": about}


def styled(draw: Callable[[Tables], Drawing]) -> Callable[[Tables], Drawing]:
    """Decorator: draw in the house style, whatever the caller's matplotlib settings are, and stamp what is a toy's."""

    @functools.wraps(draw)
    def wrapped(tables: Tables, **options: object) -> Drawing:
        with mpl.style.context(["default", RC]):
            drawing = draw(tables, **options)
            return _stamped(drawing) if banner(drawing.data.get("profile", "")) else drawing

    return wrapped


def _stamped(drawing: Drawing) -> Drawing:
    """The drawing of a toy run, with that written across it, so that no part of it goes without; and in its json."""
    figure, told = drawing.figure, TOY.capitalize()
    wide, high = figure.get_size_inches()
    slope = math.degrees(math.atan2(high, wide))
    figure.text(0.5, 0.5, told, ha="center", va="center", rotation=slope, fontsize=26, fontweight="bold", color=WRONG,
                alpha=0.3, zorder=100)  # fmt: skip
    return Drawing(figure, {**drawing.data, "toy": True, "alt": f"{told}. {drawing.data['alt']}"})


def save_figure(drawing: Drawing, name: str, profile: str) -> list:
    """Write `figures/<profile>/<name>.{png,pdf,json}` and return the paths. The same drawing gives the same bytes."""
    folder = paths.figures(profile)
    contents = {"png": drawing.png(), "pdf": drawing.pdf(), "json": drawing.json()}
    return [write_atomically(folder / f"{name}.{kind}", data) for kind, data in contents.items()]


def canvas(width: float, height: float, title: str, subtitle: str) -> Figure:
    """A figure of `width` x `height` inches below a header: bold title, grey wrapped subtitle."""
    titles = textwrap.wrap(title, int(width * 12.2), break_on_hyphens=False)
    lines = textwrap.wrap(subtitle, int(width * 19.2), break_on_hyphens=False)
    below = 0.09 + 0.17 * len(titles)
    header = below + 0.06 + 0.133 * len(lines) + 0.06
    total = height + header
    figure = Figure(figsize=(width, total), layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0, 1, height / total), w_pad=0.05, h_pad=0.05)
    left = 0.07 / width
    figure.text(left, 1 - 0.07 / total, "\n".join(titles), va="top", fontsize=10, fontweight="bold")
    figure.text(left, 1 - (below + 0.03) / total, "\n".join(lines), va="top", fontsize=SMALLEST + 0.1, color=GREY,
                linespacing=1.3)  # fmt: skip
    return figure


def made_by(profile: str) -> str:
    """The profile as captions name it; a toy run is called one."""
    return f"{TOY} (profile {profile})" if banner(profile) else f"profile {profile}"


def caption(profile: str, rows: pd.DataFrame, marks: str, *remarks: str) -> str:
    """The subtitle: profile, seeds, n per point and seed, which marks are the intervals, then the remarks."""
    low, high = rows["n"].min(), rows["n"].max()
    count = f"{low:,}" if low == high else f"{low:,}–{high:,}"
    of_each_task = rows.groupby(["task", "modality"])["seed"].nunique()
    fewest, most = of_each_task.min(), of_each_task.max()
    about = ", the wider of seeds and episodes" if most > 1 else " of this seed's episodes"
    facts = [
        made_by(profile),
        f"{most} seed{'s' if most > 1 else ''}" if fewest == most else f"{fewest}–{most} seeds per task",
        f"n = {count} episodes per point and seed",
        f"{marks}: {CONFIDENCE:.0%} CI{about}",
    ]
    return " · ".join([*facts, *filter(None, remarks)])


def record(name: str, title: str, subtitle: str, profile: str, series: list[dict], paper: object,
           picture: str = "") -> dict:  # fmt: skip
    """The JSON file of a figure: the values drawn (percent), intervals, n, seeds, and the paper's values.

    picture: what is to be seen, for `alt`, the text for those who do not see it.
    """
    return {
        "figure": name, "title": title, "caption": subtitle, "alt": alternative(title, picture, series),
        "profile": profile, "unit": "percent", "confidence": CONFIDENCE, "series": series, "paper": paper,
        "paper_source": published.PAPER,
    }  # fmt: skip


def alternative(title: str, picture: str, series: list[dict]) -> str:
    """The alternative text of a figure: its title, what is to be seen, and the numbers at the ends, 24 at most."""
    told = [said for item in series if (said := _told(item))]
    more = f"; and {len(told) - 24} more, which the json file lists" if len(told) > 24 else ""
    numbers = f" Values in percent: {'; '.join(told[:24])}{more}." if told else ""
    return f"{title.rstrip('.')}. {picture}{numbers}".strip()


def _told(item: dict) -> str:
    """One series in words: what it is, and from where to where it goes; "" if it has no value."""
    value = item.get("value")
    if isinstance(value, dict) or value is None:
        return ""
    names = [item.get(key) for key in ("variant", "panel", "frozen", "lr", "attempts", "temperature", "setting")]
    names += [METHODS[item["method"]].label if item.get("method") in METHODS else item.get("method")]
    if item.get("minus"):
        names[-1] = f"{names[-1]} minus {METHODS[item['minus']].label}"
    names += [SPLITS[item["split"]].short if item.get("split") in SPLITS else "", item.get("metric")]
    name = " ".join(f"{part:g}" if isinstance(part, float) else str(part).replace("_", " ") for part in names if part)
    if isinstance(value, list | tuple):
        return f"{name} from {value[0]:.1f} to {value[-1]:.1f}"
    return f"{name} {value:.1f}" + (f" [{item['ci_low']:.1f}, {item['ci_high']:.1f}]" if "ci_low" in item else "")


def percent(estimate: Estimate) -> dict:
    """An estimate as JSON fields in percent (points for a difference)."""
    return {
        "value": 100 * estimate.value, "ci_low": 100 * estimate.low, "ci_high": 100 * estimate.high,
        "n": estimate.n, "seeds": estimate.seeds, "interval": estimate.interval,
    }  # fmt: skip


def error_bar(axes: Axes, x: float, estimate: Estimate, color: str, **options: object) -> None:
    """The interval of an estimate as a thin vertical line, in percent."""
    options = {"linewidth": 1.1, "zorder": 4, "label": "_interval"} | options
    axes.plot([x, x], [100 * estimate.low, 100 * estimate.high], color=color, **options)


def in_lines(axes: Axes) -> None:
    """A panel whose values are read along x, line by line: a grid for x alone, and no ticks beside the names."""
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)


def clipped(estimate: Estimate) -> tuple[bool, bool]:
    """Whether the interval of a level was cut at 0 and at 100 %: Student's extends beyond them, which nothing can."""
    cut = estimate.interval == "t over seeds"
    return cut and estimate.low <= 0, cut and estimate.high >= 1


CLIPPED = "triangles: the interval extends beyond 0 or 100 %"


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
        "markersize": 9 if is_init else 5,
    } | options
    return Line2D([], [], marker=method.marker, markeredgecolor="white", markeredgewidth=0.6, **options)


def split_name(split: str, task: Task) -> str:
    """Label of a split; held-out instances are named in the task's own words."""
    return task.words.heldout if split == "heldout" else SPLITS[split].label


def line_handle(label: str, dashed: bool = False) -> Line2D:
    """Legend entry of a line style, in grey because it applies to all methods."""
    look = {"linestyle": (0, (4, 2)), "linewidth": 1.1} if dashed else {"linestyle": "-", "linewidth": 1.6}
    return Line2D([], [], color=GREY, label=label, **look)


def heldout_handle(rows: pd.DataFrame) -> Line2D:
    """Legend entry of the dashed held-out lines: hands, routes or both, depending on the tasks in the rows."""
    shown = set(select(rows, split="heldout")["task"])
    words = [task.words.heldout for task in TASKS.values() if task.name in shown]
    names = dict.fromkeys(word.removeprefix("held-out ") for word in words)
    return line_handle(f"held-out {' and '.join(names)} (dashed)", dashed=True)


SHADING = "less to more compute"  # legend of handles in several shades


def legend_below(figure: Figure, handles: list, columns: int, **options: object) -> None:
    """One legend below all panels, with up to `columns` columns as far as they fit the figure's width.

    A tuple of handles is one entry, for `SHADING`; `options` are matplotlib's.
    """
    labels = [SHADING if isinstance(one, tuple) else one.get_label() for one in handles]
    spread = {tuple: HandlerTuple(ndivide=None, pad=0.3)}
    for count in range(columns, 0, -1):
        place = {"loc": "outside lower center", "ncols": count, "handler_map": spread}
        legend = figure.legend(handles, labels, **place, **options)
        if count == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def paper_handle(label: str = "paper (hollow)") -> Line2D:
    return Line2D([], [], marker="D", linestyle="none", markersize=5, markerfacecolor="white", markeredgecolor=GREY,
                  label=label)  # fmt: skip


def flops_scale(largest: float) -> tuple[float, str]:
    """Divisor and label of an axis that shows training compute up to `largest` FLOPs."""
    power = math.floor(math.log10(largest)) if largest > 0 else 0
    return 10.0**power, f"training compute ({power_of_ten(power)} FLOPs)"


def power_of_ten(power: int) -> str:
    """10¹² for 12, in letters of full size."""
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


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
    with mpl.style.context(["default", RC]), warnings.catch_warnings():
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
