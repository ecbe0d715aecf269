"""Fig. 20: a real failing episode without SFT, set as a page: the cards, what was asked and answered.

Paper: one printed answer of the untuned model (a brute-force Python program, no JSON). Ours: a failing
episode that the run kept. Model output is hostile text: it is drawn as plain characters (no mathtext),
control characters become visible, and it is cut at a fixed size.
"""

from __future__ import annotations

import textwrap
import unicodedata
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from sftrl_lib.analysis import published
from sftrl_lib.analysis.style import (
    COLORS,
    GREY,
    INK,
    NAMES,
    Drawing,
    NothingToDraw,
    Tables,
    canvas,
    record,
    styled,
)

PAGE = 9.2  # inches, as every length on the page
LINE = 0.18
CARDS = 0.85
WIDTH = 110  # characters of a line
TURNS = 5  # attempts shown
LONGEST = 8  # lines of one answer


@dataclass(frozen=True)
class Block:
    """A paragraph of the page: who speaks, in which colour, and the wrapped lines."""

    speaker: str
    color: str
    lines: list[str]
    boxed: bool = False

    @property
    def height(self) -> float:
        return LINE * len(self.lines) + (0.24 if self.boxed else 0.2)


@styled
def failure_without_sft(tables: Tables) -> Drawing:
    """Fig. 20: the model without SFT on a hand under the new rule."""
    episode = _first_failure(tables.transcripts)
    if episode is None:
        raise NothingToDraw("it needs a failing transcript of method foundation or rl_no_init")
    blocks = _blocks(episode)
    rule = "a new rule (J, Q, K = 11, 12, 13)" if episode["split"] == "rule_ood" else "the training rule"
    title = "Fig. 20 · What the model answers without SFT"
    facts = (
        f"profile {tables.profile}",
        f"a real episode: {NAMES[episode['method']]}, seed {episode['seed']}, step {episode['step']}, {rule}",
        "1 seed, n = 1: an example, so no 95% CI",
        "paper: a Python program instead of JSON",
    )
    subtitle = " · ".join(facts)
    height = CARDS + sum(block.height for block in blocks)
    figure = canvas(PAGE, height, title, subtitle)
    figure.set_layout_engine("none")  # the page is set by hand: inches from the top left
    axes = figure.add_axes((0, 0, 1, height / figure.get_figheight()))
    axes.set_axis_off()
    axes.set(xlim=(0, PAGE), ylim=(height, 0))
    _draw_cards(axes, list(map(str, episode.get("cards", []))), list(map(str, episode.get("numbers", []))))
    top = CARDS
    for block in blocks:
        _draw_block(axes, block, top)
        top += block.height
    shown = episode | {"turns": episode["turns"][:TURNS]}
    return Drawing(figure, record("fig20", title, subtitle, tables.profile, [shown], published.FIG20))


def _first_failure(transcripts: list[dict]) -> dict | None:
    """An episode without a correct answer: rather RL's than the foundation's, rather one whose answers cannot be read.

    That is the failure the paper shows: no formula in the asked format, so nothing to reward.
    """
    failing = [
        episode for episode in transcripts
        if episode["method"] in ("rl_no_init", "foundation") and episode["turns"]
        and all(turn.get("outcome") != "correct" for turn in episode["turns"])
    ]  # fmt: skip

    def rank(episode: dict) -> tuple:
        readable = sum(turn["outcome"] != "illegal" for turn in episode["turns"])
        return episode["method"] != "rl_no_init", readable, episode["split"] != "rule_ood", -episode["step"]

    return min(failing, key=rank, default=None)


def _blocks(episode: dict) -> list[Block]:
    """The page from top to bottom: the prompt, then each answer with its verdict."""
    turns = episode["turns"]
    asked = wrapped(_heard(turns[0]))
    if len(asked) > LONGEST:
        asked = [*asked[:3], "[...]", *asked[4 - LONGEST :]]  # the task, and the hand at the end
    blocks = [Block("asked", GREY, asked)]
    for number, turn in enumerate(turns[:TURNS], start=1):
        answer = cut(wrapped(turn.get("output", "")), LONGEST)
        blocks.append(Block(f"attempt {number}", COLORS["rl_no_init"], answer, boxed=True))
        said = str(turn.get("outcome", "")).replace("_", " ")
        if turn.get("reward") is not None:
            said += f", reward {turn['reward']:g}".replace("-", "−")
        feedback = " ".join(_heard(turns[number]).split()) if number < len(turns) else ""
        blocks.append(Block("verifier", INK, cut(wrapped(f"{said}. {feedback}".strip()), 2)))
    return blocks


def _heard(turn: dict) -> str:
    """What the model was told before it answered: the prompt at first, the verifier's feedback later."""
    return str(turn.get("prompt") or turn.get("feedback") or "")


def wrapped(text: str) -> list[str]:
    """Printable lines of at most WIDTH characters; line ends stay, tabs expand, other controls show as �."""
    text = str(text)[:20_000].replace("\r\n", "\n").expandtabs(4)
    plain = "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else "�" for c in text)
    lines = [part for line in plain.split("\n") for part in textwrap.wrap(line, WIDTH) or [""]]
    return lines if any(line.strip() for line in lines) else ["(nothing)"]


def cut(lines: list[str], most: int) -> list[str]:
    """At most `most` lines, the last one saying how many more there were."""
    return lines if len(lines) <= most else [*lines[: most - 1], f"[... {len(lines) - most + 1} more lines]"]


def _draw_cards(axes: Axes, cards: list[str], numbers: list[str]) -> None:
    for index, card in enumerate(cards):
        left = 0.2 + 0.55 * index
        axes.add_patch(_rounded_box(left, 0.1, 0.42, 0.56, facecolor="white", edgecolor=INK, linewidth=1.1))
        axes.text(left + 0.21, 0.385, card[:3], ha="center", va="center", fontsize=14, fontweight="bold",
                  parse_math=False)  # fmt: skip
    if numbers:
        count = f"count as {', '.join(numbers)[:40]}"
        left = 0.3 + 0.55 * len(cards)
        axes.text(left, 0.38, count, va="center", color=GREY, fontsize=9.5, parse_math=False)


def _draw_block(axes: Axes, block: Block, top: float) -> None:
    if block.boxed:
        inner = LINE * len(block.lines)
        box = _rounded_box(1.1, top, PAGE - 1.3, inner + 0.1, facecolor="#f6f1f4", edgecolor="none")
        axes.add_patch(box)
    axes.text(0.98, top + 0.07, block.speaker, ha="right", va="top", fontsize=8.6, fontweight="bold",
              color=block.color)  # fmt: skip
    for index, line in enumerate(block.lines):
        axes.text(1.2, top + 0.07 + LINE * index, line, va="top", family="DejaVu Sans Mono", fontsize=8,
                  color=GREY if block.speaker == "asked" else INK, parse_math=False)  # fmt: skip


def _rounded_box(left: float, top: float, width: float, height: float, **look: object) -> FancyBboxPatch:
    return FancyBboxPatch((left, top), width, height, boxstyle="round,pad=0,rounding_size=0.05", **look)
