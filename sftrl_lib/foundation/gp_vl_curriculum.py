"""Pretraining documents about pictures of cards for the tiny vision-language model: hands read under many rules.

The documents are those of `gp_l_curriculum.py` with a picture in place of the list of cards. Every document holds out
the same things (the OOD rule, the task's answer format, the held-out hands) and the look of the visual-OOD test:
hearts and diamonds are never shown, and no ink is red, orange or pink.

Pictures come from a pool, because drawing one takes longer than training on it. `tests/test_gp_vl_curriculum.py` checks
the hold-outs.
"""

from __future__ import annotations

import colorsys
import random
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from ..points.cards import UNTIDY, Look, draw_hand
from ..points.prompts import FEEDBACK, rule_sentence, task_prompt
from ..points.rules import FACES, RANKS, SUITS, Rule, card_numbers, is_heldout
from .documents import Document, Turn, mixture
from .gp_l_curriculum import failed_attempt, random_format, random_rule, solved

POOL = 8_000  # pictures
RED_HUES = 50.0  # degrees of hue on either side of pure red that no ink uses


@dataclass(frozen=True, eq=False)
class Hand:
    """Four cards and a picture of them."""

    cards: list[str]
    suits: list[str]
    picture: np.ndarray


def random_look(rng: random.Random) -> Look:
    """The environment's look or, half of the time, one with another ink (never reddish), paper and table."""
    if rng.random() < 0.5:
        return UNTIDY
    hue = rng.uniform(RED_HUES, 360 - RED_HUES)
    ink = _colour(hue, rng.uniform(0.3, 1.0), rng.uniform(0.1, 0.75))
    paper = _colour(rng.uniform(0, 360), rng.uniform(0.0, 0.12), rng.uniform(0.88, 1.0))
    table = _colour(rng.uniform(RED_HUES, 360 - RED_HUES), rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.6))
    return replace(UNTIDY, black=ink, paper=paper, table=table)


def _colour(hue: float, saturation: float, value: float) -> str:
    channels = colorsys.hsv_to_rgb(hue / 360, saturation, value)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)


@cache
def pictured_hand(index: int, suits: str = "black") -> Hand:
    """The hand of that number in the pool, with more face cards than in a deck.

    `suits` other than black test the model on what pretraining never shows.
    """
    rng = random.Random(f"hand {index}")
    cards = [rng.choice(FACES) if rng.random() < 0.35 else rng.choice(RANKS) for _ in range(4)]
    suits = rng.choices(SUITS[suits], k=4)
    return Hand(cards, suits, draw_hand(cards, suits, look=random_look(rng), rng=np.random.default_rng(index)))


def random_hand(rng: random.Random, rule: Rule, suits: str = "black") -> tuple[Hand, list[int]]:
    """A pictured hand and its numbers under `rule`; the numbers are not a held-out hand."""
    while True:
        hand = pictured_hand(rng.randrange(POOL), suits)
        numbers = list(card_numbers(hand.cards, rule))
        if not is_heldout(numbers):
            return hand, numbers


def reading(rng: random.Random, suits: str = "black") -> Document:
    """Two pictures, each read as a list of cards, then as numbers under a stated rule."""
    rule = random_rule(rng)
    turns = [Turn("text", f"Note that {rule_sentence(rule)}.\n")]
    for _ in range(2):
        hand, numbers = random_hand(rng, rule, suits)
        turns += [
            Turn("text", "Cards: ", picture=hand.picture),
            Turn("text", f"{hand.cards}\n", learn=True),
            Turn("text", f"{numbers}\n", learn=True),
        ]
    return turns


def records(rng: random.Random) -> Document:
    """A pictured hand as three records, one official key each, in random order."""
    rule = random_rule(rng)
    hand, numbers = random_hand(rng, rule)
    formula, target = solved(rng, numbers)
    lines = [f'"cards": {hand.cards},', f'"number": {numbers},', f'"formula": "{formula}={target}",']
    rng.shuffle(lines)
    question = f"Note that {rule_sentence(rule)}.\nTarget: {target}\n"
    prompt = Turn("text", question, picture=hand.picture)
    return [prompt, *(Turn("text", f"{{\n  {line}\n}}\n", learn=True) for line in lines)]


def conversation(rng: random.Random, most_attempts: int = 1, rule: Rule | None = None) -> Document:
    """The paper's prompt for pictures with another answer format; failed attempts as in the text curriculum."""
    rule = rule or random_rule(rng)
    hand, numbers = random_hand(rng, rule)
    formula, target = solved(rng, numbers)
    form = random_format(rng)
    prompt = task_prompt(hand.cards, rule, target, "image")
    prompt = prompt[: prompt.index("{\n")] + form.request(rule, target)
    turns = [Turn("user", prompt, picture=hand.picture)]
    for _ in range(rng.randrange(most_attempts)):
        outcome, read, attempt = failed_attempt(rng, hand.cards, numbers, target)
        cards = hand.cards
        if rng.random() < 0.3:  # a misread card
            outcome, cards = "misread", [rng.choice(RANKS) if rng.random() < 0.4 else card for card in hand.cards]
            outcome = "misread" if sorted(cards) != sorted(hand.cards) else "wrong_value"
        turns += [
            Turn("assistant", form.answer(cards, read, f"{attempt}={target}")),
            Turn("user", FEEDBACK[outcome]),
        ]
    return [*turns, Turn("assistant", form.answer(hand.cards, numbers, f"{formula}={target}"), learn=True)]


SKILLS = (reading, records)  # the single skills


def document(rng: random.Random, progress: float) -> Document:
    """One document. `progress` (0..1) moves the mixture from single skills to conversations and retries."""
    return mixture(
        rng,
        progress,
        (reading, 0.70, 0.20),
        (records, 0.15, 0.10),
        (conversation, 0.15, 0.42),
        (lambda r: conversation(r, most_attempts=5), 0.00, 0.28),
    )
