"""Fig. 20: a real failing episode without SFT, set as a page: the cards, what was asked and answered.

Paper: one printed answer of the untuned model (a brute-force Python program, no JSON). Ours: the first failing
episode under the new rule that the run kept. Model output is hostile text: it is drawn as plain characters (no
mathtext), control characters become visible, and it is cut at a fixed size.
"""

from __future__ import annotations

import textwrap
import unicodedata
from dataclasses import dataclass

import pandas as pd
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

WIDTH = 110  # characters of a line
TURNS = 5  # attempts shown
LONGEST = 8  # lines of one answer
LINE = 0.18  # inches, as every length on the page
CARDS = 0.85


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
    height = CARDS + sum(block.height for block in blocks)
    rule = "a new rule (J, Q, K = 11, 12, 13)" if episode["split"] == "rule_ood" else "the training rule"
    title = "Fig. 20 · What the model answers without SFT"
    subtitle = (
        f"Profile {tables.profile} · a real episode, unedited: {NAMES[episode['method']]}, seed {episode['seed']}, "
        f"step {episode['step']}, under {rule} · one episode of one seed, so no interval · "
        "paper: a Python program instead of the JSON"
    )
    figure = canvas(9.2, height, title, subtitle)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(0, 9.2), ylim=(height, 0))
    _draw_cards(
        axes, [str(card) for card in episode.get("cards", [])], [str(n) for n in episode.get("numbers", [])]
    )
    top = CARDS
    for block in blocks:
        _draw_block(axes, block, top)
        top += block.height
    shown = {key: value for key, value in episode.items() if key != "turns"} | {
        "turns": episode["turns"][:TURNS]
    }
    return Drawing(figure, record("fig20", title, subtitle, tables.profile, [shown], published.FIG20))


def _first_failure(transcripts: list[dict]) -> dict | None:
    """The first episode without a correct answer; RL without SFT before the bare foundation, new rule before old."""
    failing = [
        episode for episode in transcripts
        if episode["method"] in ("rl_no_init", "foundation") and episode["turns"]
        and all(turn.get("outcome") != "correct" for turn in episode["turns"])
    ]  # fmt: skip
    order = pd.Series([(e["method"] != "rl_no_init", e["split"] != "rule_ood", -e["step"]) for e in failing])
    return failing[min(order.index, key=lambda i: (order[i], i))] if failing else None


def _blocks(episode: dict) -> list[Block]:
    blocks = []
    for number, turn in enumerate(episode["turns"][:TURNS], start=1):
        if number == 1 and turn.get("prompt"):
            lines = wrapped(turn["prompt"])
            if len(lines) > LONGEST:
                lines = [*lines[:3], "[...]", *lines[3 - LONGEST :]]  # the task, and the hand at the end
            blocks.append(Block("asked", GREY, lines))
        speaker = NAMES[episode["method"]] if number == 1 else f"attempt {number}"
        color = COLORS["rl_no_init"]
        blocks.append(Block(speaker, color, cut(wrapped(turn.get("output", ""))), boxed=True))
        verdict = str(turn.get("outcome", "")).replace("_", " ")
        reward = turn.get("reward")
        said = verdict if reward is None else f"{verdict}, reward {reward:g}"
        blocks.append(Block("verifier", INK, wrapped(said)))
    return blocks


def wrapped(text: str) -> list[str]:
    """Printable lines of at most WIDTH characters: line ends kept, tabs expanded, other controls made visible."""
    text = str(text).replace("\r\n", "\n").expandtabs(4)
    plain = "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else "�" for c in text[:20_000])
    lines = [
        part
        for line in plain.split("\n")
        for part in textwrap.wrap(line, WIDTH, drop_whitespace=False) or [""]
    ]
    return lines if any(line.strip() for line in lines) else ["(nothing)"]


def cut(lines: list[str]) -> list[str]:
    """At most LONGEST lines, and how many there were."""
    if len(lines) <= LONGEST:
        return lines
    return [*lines[: LONGEST - 1], f"[... {len(lines) - LONGEST + 1} more lines]"]


def _draw_cards(axes: Axes, cards: list[str], numbers: list[str]) -> None:
    for index, card in enumerate(cards):
        box = FancyBboxPatch((0.15 + 0.55 * index, 0.08), 0.4, 0.52, boxstyle="round,pad=0,rounding_size=0.06",
                             facecolor="white", edgecolor=INK, linewidth=1.1)  # fmt: skip
        axes.add_patch(box)
        axes.text(0.35 + 0.55 * index, 0.35, card[:3], ha="center", va="center", fontsize=14, fontweight="bold",
                  parse_math=False)  # fmt: skip
    if numbers:
        axes.text(0.25 + 0.55 * len(cards), 0.35, f"count as {', '.join(numbers)[:40]}", va="center", color=GREY,
                  fontsize=9.5, parse_math=False)  # fmt: skip


def _draw_block(axes: Axes, block: Block, top: float) -> None:
    inner = LINE * len(block.lines)
    if block.boxed:
        box = FancyBboxPatch((1.25, top), 7.85, inner + 0.1, boxstyle="round,pad=0,rounding_size=0.05",
                             facecolor="#f6f1f4", edgecolor="none")  # fmt: skip
        axes.add_patch(box)
    axes.text(1.12, top + 0.075, block.speaker, ha="right", va="top", fontsize=8.6, fontweight="bold",
              color=block.color)  # fmt: skip
    for index, line in enumerate(block.lines):
        axes.text(1.36, top + 0.075 + LINE * index, line, va="top", family="DejaVu Sans Mono", fontsize=8,
                  color=GREY if block.speaker == "asked" else INK, parse_math=False)  # fmt: skip
