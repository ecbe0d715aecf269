"""The outcome verifier of GeneralPoints: grades an answer's text with a reward, an outcome and feedback.

How they differ:
* paper (appendix A): +5 correct; -1 legal but the wrong value; -2 numbers that are not on the cards; -3 any
  other illegal equation; with pictures, an *extra* -1.5 when the cards are misread.
* official code: penalties accumulate, the value is compared in floating point, spaces are illegal, cards in
  strict JSON count as misread, and the feedback quotes a prefix of a stored solution. A misread hand
  *replaces* the reward by -1.5. All of this is in `official.py` (``verifier="official"``).
* ours (``verifier="exact"``): the paper's values and one outcome per answer, the first that applies of
  misread, illegal, wrong_numbers, wrong_value, correct. Exact fractions. A misread hand replaces the reward,
  as in the official code, because the sum of two rewards would not correspond to one outcome. A card left out
  or used twice is wrong_numbers, as in the official code; a division by zero is a wrong value; a unary minus
  is illegal.

Strict JSON and the official template (single quotes, trailing comma) are read alike, see `answers.py`. Answers are
untrusted: nothing is evaluated as code, and grading takes time linear in a bounded length.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..answers import read_fields
from ..attempts import MODALITIES, VERIFIERS, Grade, check_choice
from . import official
from .formula import evaluate, parse_formula
from .prompts import FEEDBACK
from .rules import Rule, card_numbers

OUTCOMES = ("correct", "wrong_value", "wrong_numbers", "illegal", "misread")
REWARDS = {"correct": 5.0, "wrong_value": -1.0, "wrong_numbers": -2.0, "illegal": -3.0, "misread": -1.5}

FIELDS = {"cards": list, "number": list, "formula": str}
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,6}")

_GRADES = {outcome: Grade(REWARDS[outcome], outcome, FEEDBACK[outcome]) for outcome in OUTCOMES}


def grade(
    text: str,
    cards: Sequence[str],
    rule: str | Rule | Sequence[int] = "ten",
    target: int = 24,
    modality: str = "text",
    verifier: str = "exact",
) -> Grade:
    """Grade one answer (any string) to the hand `cards` (ranks such as "A", "10", "K").

    With ``modality="image"`` the answer's "cards" field is checked first: it must name the four ranks, in any
    order; an answer without a readable one counts as misread. Raises ValueError for an unknown card, rule,
    modality or verifier.
    """
    check_choice("verifier", verifier, VERIFIERS)
    check_choice("modality", modality, MODALITIES)
    numbers = card_numbers(cards, rule)
    if verifier == "official":
        return Grade(*official.judge(text, cards, numbers, target, modality))
    return _GRADES[_outcome(text, cards, numbers, target, modality)]


def _outcome(text: str, cards: Sequence[str], numbers: Sequence[int], target: int, modality: str) -> str:
    answer = read_fields(text, FIELDS)
    if modality == "image":
        seen = _cards(answer)
        if seen is None or sorted(seen) != sorted(cards):
            return "misread"
    tokens = parse_formula(answer.get("formula", ""))
    if tokens is None:
        return "illegal"
    if sorted(token for token in tokens if isinstance(token, int)) != sorted(numbers):
        return "wrong_numbers"
    return "correct" if evaluate(tokens) == target else "wrong_value"


def read_cards(text: str) -> list[str] | None:
    """The ranks in the answer's "cards" field; None if it has no such list."""
    return _cards(read_fields(text, FIELDS))


def recognition(text: str, cards: Sequence[str]) -> float:
    """The share of the hand `cards` that the answer's "cards" field names, in any order; 1.0 only if all is right.

    Surplus cards also count as errors. The paper's recognition accuracy (section 5.3, Fig. 8) is the share
    of answers with 1.0, as in the official code, which counts those not graded as misread.
    """
    seen = read_cards(text) or []
    return sum((Counter(seen) & Counter(cards)).values()) / max(len(seen), len(cards), 1)


def read_numbers(text: str) -> list[int] | None:
    """The values in the answer's "number" field; None if it has no such list."""
    return _numbers(read_fields(text, FIELDS))


def read_formula(text: str) -> str | None:
    """The answer's "formula" field, its escapes decoded; None if it has no such string."""
    return read_fields(text, FIELDS).get("formula")


def has_format(text: str) -> bool:
    """Whether all three fields of the answer format (`FIELDS`) can be read."""
    answer = read_fields(text, FIELDS)
    return None not in (_cards(answer), _numbers(answer), answer.get("formula"))


def _cards(answer: dict[str, Any]) -> list[str] | None:
    """Accepts ranks as strings, JSON integers or bare words."""
    cards = []
    for item in answer.get("cards", ()):
        if type(item) is int and 0 <= item <= 99:
            item = str(item)
        if type(item) is not str or not item:
            return None
        cards.append(item)
    return cards or None


def _numbers(answer: dict[str, Any]) -> list[int] | None:
    """Accepts values as JSON integers or digits, quoted or not; not booleans or fractions."""
    numbers = []
    for item in answer.get("number", ()):
        if type(item) is str and _WHOLE_NUMBER.fullmatch(item):
            item = int(item)
        if type(item) is not int:
            return None
        numbers.append(item)
    return numbers or None
