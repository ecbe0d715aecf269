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

Answers are untrusted: nothing is evaluated as code, and grading takes time linear in a bounded length.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence

from ..attempts import MAX_TEXT, MODALITIES, VERIFIERS, Grade, check_choice
from . import official
from .formula import evaluate, parse_formula
from .prompts import FEEDBACK
from .rules import Rule, card_numbers

OUTCOMES = ("correct", "wrong_value", "wrong_numbers", "illegal", "misread")
REWARDS = {"correct": 5.0, "wrong_value": -1.0, "wrong_numbers": -2.0, "illegal": -3.0, "misread": -1.5}

# The official template (single quotes, trailing comma) is not JSON, so each field is searched for separately.
_FORMULA = re.compile(r'"formula"\s*:\s*"([^"]*)"')
_LISTS = {key: re.compile(rf'"{key}"\s*:\s*\[([^\[\]]{{0,400}})\]') for key in ("cards", "number")}
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
    document = _document(text)
    if modality == "image":
        seen = _cards(text, document)
        if seen is None or sorted(seen) != sorted(cards):
            return "misread"
    formula = _formula(text, document)
    tokens = None if formula is None else parse_formula(formula)
    if tokens is None:
        return "illegal"
    if sorted(token for token in tokens if isinstance(token, int)) != sorted(numbers):
        return "wrong_numbers"
    return "correct" if evaluate(tokens) == target else "wrong_value"


def read_cards(text: str) -> list[str] | None:
    """The ranks in the answer's "cards" field; None if it has no such list."""
    return _cards(text, _document(text))


def recognition(text: str, cards: Sequence[str]) -> float:
    """The share of the hand `cards` that the answer's "cards" field names, in any order; 1.0 only if all is right.

    Surplus cards also count as errors. The paper's recognition accuracy (section 5.3, Fig. 8) is the share
    of answers with 1.0, as in the official code, which counts those not graded as misread.
    """
    seen = read_cards(text) or []
    return sum((Counter(seen) & Counter(cards)).values()) / max(len(seen), len(cards), 1)


def read_numbers(text: str) -> list[int] | None:
    """The values in the answer's "number" field; None if it has no such list."""
    return _numbers(text, _document(text))


def read_formula(text: str) -> str | None:
    """The answer's "formula" field, verbatim; None if it has no such string."""
    return _formula(text, _document(text))


def has_format(text: str) -> bool:
    """Whether all three fields of the answer format ("cards", "number", "formula") can be read."""
    document = _document(text)
    fields = _cards(text, document), _numbers(text, document), _formula(text, document)
    return all(field is not None for field in fields)


def _document(text: str) -> dict | None:
    """The answer as a JSON object; None if it is not one (its fields are then searched for in the text)."""
    if len(text) > MAX_TEXT:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _formula(text: str, document: dict | None) -> str | None:
    if document is not None and "formula" in document:
        formula = document["formula"]
        return formula if isinstance(formula, str) else None
    found = _FORMULA.search(text) if len(text) <= MAX_TEXT else None
    return found[1] if found else None


def _list(text: str, document: dict | None, key: str) -> list | None:
    if document is not None and key in document:
        return document[key] if isinstance(document[key], list) else None
    found = _LISTS[key].search(text) if len(text) <= MAX_TEXT else None
    return [item.strip(" \t\r\n'\"") for item in found[1].split(",")] if found else None


def _cards(text: str, document: dict | None) -> list[str] | None:
    """Accepts ranks as JSON strings, JSON integers or bare words."""
    cards = []
    for item in _list(text, document, "cards") or ():
        if type(item) is int and 0 <= item <= 99:
            item = str(item)
        if type(item) is not str or not item:
            return None
        cards.append(item)
    return cards or None


def _numbers(text: str, document: dict | None) -> list[int] | None:
    """Accepts values as JSON integers or digits, quoted or not; not booleans or fractions."""
    numbers = []
    for item in _list(text, document, "number") or ():
        if type(item) is str and _WHOLE_NUMBER.fullmatch(item):
            item = int(item)
        if type(item) is not int:
            return None
        numbers.append(item)
    return numbers or None
