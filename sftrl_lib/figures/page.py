"""A page of text as a figure: labels on the left, text on the right, in chronological order.

Model output is untrusted: it is drawn as plain characters (no mathtext), control characters are made visible, and its
length is limited.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from ..methods import METHODS
from ..tasks import task_of
from .style import GREY, INK, MARK, RIGHT, WRONG, canvas

PAGE = 9.2  # width of the page, inches as all lengths on it
LINE = 0.185  # from line to line
LEFT = 1.2  # left edge of the text
SIZE = 8.4  # of the font, points
CHARACTER = 0.602 * SIZE / 72  # the advance width of DejaVu Sans Mono
WIDTH = 106  # characters per line
CARDS = 0.85  # height of the row of playing cards
LONGEST_TEXT = 20_000  # characters; the rest of a text is ignored

PROMPT, ANSWER = "#f4f4f4", "#f6f1f4"  # colours of the boxes
HEADING = re.compile(r"\[[A-Z][A-Za-z ]*\]")  # of a section in the paper's prompts


@dataclass(frozen=True)
class Line:
    """One wrapped line and the (start, end) of the words to highlight in it."""

    text: str
    marks: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Block:
    """A paragraph of the page: its label and the label's colour, the lines, and the colour of the box behind them."""

    speaker: str
    color: str
    lines: Sequence[Line]
    ink: str = INK
    box: str = ""
    mark: str = MARK

    @property
    def height(self) -> float:
        """Inches, with the gap below."""
        return LINE * len(self.lines) + (0.24 if self.box else 0.2)


def printable(text: object) -> str:
    """Plain characters: newlines are kept, tabs expanded, other control characters shown as �."""
    text = str(text)[:LONGEST_TEXT].replace("\r\n", "\n").expandtabs(4)
    return "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else "�" for c in text)


def wrapped(text: object, mark: re.Pattern | None = None, width: int = WIDTH) -> list[Line]:
    """Printable lines of at most `width` characters; matches of `mark` within a line of the text are highlighted."""
    lines = []
    for line in printable(text).split("\n"):
        spans = [match.span() for match in mark.finditer(line)] if mark else []
        end = 0
        for part in textwrap.wrap(line, width) or [""]:
            start = line.find(part, end)
            end = start + len(part)
            inside = [(max(a, start) - start, min(b, end) - start) for a, b in spans if a < end and b > start]
            lines.append(Line(part, tuple(inside)))
    return lines if any(line.text.strip() for line in lines) else [Line("(nothing)")]


def cut(lines: list[Line], most: int) -> list[Line]:
    """At most `most` lines; if some were cut, the last one says how many."""
    return lines if len(lines) <= most else [*lines[: most - 1], Line(f"[... {len(lines) - most + 1} more lines]")]


def middle_cut(lines: list[Line], head: int, tail: int) -> list[Line]:
    """The first `head` and the last `tail` lines, with "[...]" between them if lines were left out."""
    if len(lines) <= head + tail + 1:
        return lines
    return [*lines[:head], Line("[...]"), *lines[len(lines) - tail :]]


def heard(turn: dict) -> str:
    """The input of a turn: the prompt in the first one, the verifier's feedback in later ones."""
    return str(turn.get("prompt") or "")


def feedback(turns: Sequence[dict], index: int) -> str:
    """The verifier's feedback on attempt `index` of one exchange; "" if the transcript lacks it."""
    if said := turns[index].get("feedback"):
        return str(said)
    return heard(turns[index + 1]) if index + 1 < len(turns) else ""


def verdict(turns: Sequence[dict], index: int) -> Block:
    """The verifier's verdict on attempt `index` of one exchange: outcome, reward, feedback."""
    turn = turns[index]
    right = turn.get("outcome") == "correct"
    said = f"{'✓' if right else '✗'} " + str(turn.get("outcome", "")).replace("_", " ")
    if turn.get("reward") is not None:
        said += f", reward {turn['reward']:g}".replace("-", "−")
    text = f"{said}. {' '.join(feedback(turns, index).split())}".strip()
    return Block("verifier", RIGHT if right else WRONG, cut(wrapped(text), 3), ink=RIGHT if right else WRONG)


def source(profile: str, episode: dict) -> str:
    """The caption of an example: where it comes from, and that it is only an example."""
    new = task_of(episode["task"], episode["modality"]).words.new_rule
    rule = f"a new rule ({new})" if episode["split"] == "rule_ood" else "the training rule"
    facts = (
        f"profile {profile}",
        f"a real episode: {METHODS[episode['method']].label}, seed {episode['seed']}, step {episode['step']}, {rule}",
        "1 seed, n = 1: an example, so no 95% CI",
    )
    return " · ".join(facts)


def set_page(
    title: str, subtitle: str, blocks: Sequence[Block], episode: dict | None = None, picture: np.ndarray | None = None
) -> Figure:
    """The blocks in one column; above them `picture`, (height, width, 3), or else the cards of `episode`, if any."""
    cards = [str(card) for card in (episode or {}).get("cards", [])] if picture is None else []
    top = CARDS if cards else 0.1
    if picture is not None:
        wide = (PAGE - LEFT) * (0.5 if picture.shape[1] > picture.shape[0] else 0.45)
        high = wide * picture.shape[0] / picture.shape[1]
        top = high + 0.3
    height = top + sum(block.height for block in blocks)
    figure = canvas(PAGE, height, title, subtitle)
    figure.set_layout_engine("none")  # layout by hand, in inches from the top left
    axes = figure.add_axes((0, 0, 1, height / figure.get_figheight()))
    axes.set_axis_off()
    if cards:
        _draw_cards(axes, cards, [str(number) for number in episode.get("numbers", [])])
    if picture is not None:
        extent = (LEFT - 0.1, LEFT - 0.1 + wide, 0.1 + high, 0.1)
        axes.imshow(picture, extent=extent, interpolation="antialiased", aspect="auto")
    axes.set(xlim=(0, PAGE), ylim=(height, 0))
    for block in blocks:
        draw_block(axes, block, top)
        top += block.height
    return figure


def draw_block(axes: Axes, block: Block, top: float) -> None:
    """Draw one block at `top`, in axes whose unit is the inch and whose y axis points down."""
    if block.box:
        inner = LINE * len(block.lines)
        axes.add_patch(
            rounded_box(LEFT - 0.1, top, PAGE - LEFT - 0.1, inner + 0.1, facecolor=block.box, edgecolor="none")
        )
    axes.text(LEFT - 0.22, top + 0.07, block.speaker, ha="right", va="top", fontsize=8.8, fontweight="bold",
              color=block.color)  # fmt: skip
    for index, line in enumerate(block.lines):
        here = top + 0.07 + LINE * index
        for start, end in line.marks:
            left, width = LEFT + CHARACTER * start - 0.02, CHARACTER * (end - start) + 0.04
            tint = rounded_box(left, here - 0.03, width, LINE - 0.01, facecolor=block.mark, edgecolor="none")
            axes.add_patch(tint)
        heading = bool(HEADING.fullmatch(line.text))
        axes.text(LEFT, here, line.text, va="top", family="DejaVu Sans Mono", fontsize=SIZE, parse_math=False,
                  color=GREY if heading else block.ink, fontweight="bold" if heading else "normal")  # fmt: skip


def _draw_cards(axes: Axes, cards: list[str], numbers: list[str]) -> None:
    for index, card in enumerate(cards[:8]):
        left = 0.2 + 0.55 * index
        axes.add_patch(rounded_box(left, 0.1, 0.42, 0.56, facecolor="white", edgecolor=INK, linewidth=1.1))
        axes.text(left + 0.21, 0.385, card[:3], ha="center", va="center", fontsize=14, fontweight="bold",
                  parse_math=False)  # fmt: skip
    if numbers:
        count = f"count as {', '.join(numbers)[:40]}"
        left = 0.3 + 0.55 * len(cards[:8])
        axes.text(left, 0.38, count, va="center", color=GREY, fontsize=9.5, parse_math=False)


def rounded_box(left: float, top: float, width: float, height: float, **look: object) -> FancyBboxPatch:
    """A box with rounded corners, in the units of the axes."""
    return FancyBboxPatch((left, top), width, height, boxstyle="round,pad=0,rounding_size=0.05", **look)
