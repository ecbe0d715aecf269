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
from ..points.prompts import FEEDBACK
from ..tasks import task_of
from .style import GREY, INK, MARK, RIGHT, SMALLEST, WIDTH, WRONG, canvas, made_by

PAGE = WIDTH  # of the page, inches as all lengths on it
LINE = 0.132  # from line to line
LEFT = 0.95  # left edge of the text
SIZE = SMALLEST  # of the font, points
CHARACTER = 0.602 * SIZE / 72  # the advance width of DejaVu Sans Mono
CHARACTERS = 100  # in a line
CARDS = 0.62  # height of the row of playing cards
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
        return LINE * len(self.lines) + (0.19 if self.box else 0.14)


def printable(text: object) -> str:
    """Plain characters: newlines are kept, tabs expanded, other control characters shown as �."""
    text = str(text)[:LONGEST_TEXT].replace("\r\n", "\n").expandtabs(4)
    return "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else "�" for c in text)


def wrapped(text: object, mark: re.Pattern | None = None, width: int = CHARACTERS) -> list[Line]:
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


def sections_cut(lines: list[Line], head: int, tail: int) -> list[Line]:
    """The same for each section of a prompt, so that none is lost, and without the blank lines before headings."""
    lines = [line for line in lines if line.text.strip()]
    starts = [index for index, line in enumerate(lines) if HEADING.fullmatch(line.text)]
    bounds = sorted({0, *starts, len(lines)})
    parts = (lines[start:end] for start, end in zip(bounds, bounds[1:], strict=False))
    return [line for part in parts for line in middle_cut(part, head, tail)]


def heard(turn: dict) -> str:
    """The input of a turn: the prompt in the first one, the verifier's feedback in later ones."""
    return str(turn.get("prompt") or "")


def feedback(turns: Sequence[dict], index: int) -> str:
    """The verifier's feedback on attempt `index` of one exchange; "" if the transcript lacks it.

    Transcripts of old have it only as the next prompt; the verifier of cards says the same about the same outcome.
    """
    if said := turns[index].get("feedback"):
        return str(said)
    if index + 1 < len(turns):
        return heard(turns[index + 1])
    return "" if "position" in turns[index] else FEEDBACK.get(str(turns[index].get("outcome")), "")


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
    tests = {"rule_ood": f"a new rule ({new})", "visual_ood": "a new look, the training rule"}
    rule = tests.get(episode["split"], "the training rule")
    who = f"{METHODS[episode['method']].label}, seed {episode['seed']}, step {episode['step']}, {rule}"
    return f"{made_by(profile)} · one real episode (n = 1), {who}"


def set_page(
    title: str, subtitle: str, blocks: Sequence[Block], episode: dict | None = None,
    pictures: Sequence[np.ndarray] = (),
) -> Figure:  # fmt: skip
    """The blocks in one column; above them the pictures, (height, width, 3), or else the cards of `episode`, if any.

    A second picture is the first as the model saw it, and its pixels stay visible.
    """
    cards = [str(card) for card in (episode or {}).get("cards", [])] if not pictures else []
    top = CARDS if cards else 0.08
    sizes = []
    for picture, share in zip(pictures, (1.0, 0.62), strict=False):
        wide = share * (2.7 if picture.shape[1] > picture.shape[0] else 1.5)
        sizes.append((wide, wide * picture.shape[0] / picture.shape[1]))
    if sizes:
        top = max(high for _, high in sizes) + 0.2
    height = top + sum(block.height for block in blocks)
    figure = canvas(PAGE, height, title, subtitle)
    figure.set_layout_engine("none")  # layout by hand, in inches from the top left
    axes = figure.add_axes((0, 0, 1, height / figure.get_figheight()))
    axes.set_axis_off()
    if cards:
        draw_cards(axes, cards, [str(number) for number in episode.get("numbers", [])])
    left = LEFT - 0.1
    for picture, (wide, high), how in zip(pictures, sizes, ("antialiased", "nearest"), strict=False):
        axes.imshow(picture, extent=(left, left + wide, 0.06 + high, 0.06), interpolation=how, aspect="auto")
        left += wide + 0.15
    if len(pictures) > 1:
        height_seen, width_seen = pictures[1].shape[:2]
        axes.text(left, 0.06, f"left: drawn large\nright: as the model saw it,\n{height_seen} × {width_seen} pixels",
                  va="top", fontsize=SIZE, color=GREY, linespacing=1.35)  # fmt: skip
    axes.set(xlim=(0, PAGE), ylim=(height, 0))
    for block in blocks:
        draw_block(axes, block, top)
        top += block.height
    return figure


def draw_block(axes: Axes, block: Block, top: float) -> None:
    """Draw one block at `top`, in axes whose unit is the inch and whose y axis points down."""
    if block.box:
        inner = LINE * len(block.lines)
        axes.add_patch(rounded_box(LEFT - 0.08, top, PAGE - LEFT, inner + 0.1, facecolor=block.box, edgecolor="none"))
    axes.text(LEFT - 0.16, top + 0.055, block.speaker, ha="right", va="top", fontsize=7.2, fontweight="bold",
              color=block.color)  # fmt: skip
    for index, line in enumerate(block.lines):
        here = top + 0.055 + LINE * index
        for start, end in line.marks:
            left, width = LEFT + CHARACTER * start - 0.015, CHARACTER * (end - start) + 0.03
            tint = rounded_box(left, here - 0.02, width, LINE - 0.01, facecolor=block.mark, edgecolor="none")
            axes.add_patch(tint)
        heading = bool(HEADING.fullmatch(line.text))
        axes.text(LEFT, here, line.text, va="top", family="DejaVu Sans Mono", fontsize=SIZE, parse_math=False,
                  color=GREY if heading else block.ink, fontweight="bold" if heading else "normal")  # fmt: skip


def draw_cards(axes: Axes, cards: list[str], numbers: list[str], left: float = LEFT - 0.08, top: float = 0.06) -> None:
    """A row of playing cards from `left` and `top` on, in inches, and what they count as."""
    for index, card in enumerate(cards[:8]):
        here = left + 0.4 * index
        axes.add_patch(rounded_box(here, top, 0.32, 0.43, facecolor="white", edgecolor=INK, linewidth=0.9))
        axes.text(here + 0.16, top + 0.22, card[:3], ha="center", va="center", fontsize=10.5, fontweight="bold",
                  parse_math=False)  # fmt: skip
    if numbers:
        count = f"count as {', '.join(numbers)[:40]}"
        axes.text(left + 0.08 + 0.4 * len(cards[:8]), top + 0.22, count, va="center", color=GREY, fontsize=7.5,
                  parse_math=False)  # fmt: skip


def rounded_box(left: float, top: float, width: float, height: float, **look: object) -> FancyBboxPatch:
    """A box with rounded corners, in the units of the axes."""
    return FancyBboxPatch((left, top), width, height, boxstyle="round,pad=0,rounding_size=0.04", **look)
