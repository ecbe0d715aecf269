"""The paper's GeneralPoints prompts, answer format and feedback (Figs. 3, 11 and 12).

How they differ:
* paper: Fig. 12 (text) still mentions an image, and its output template keeps the 10-rule under the 11/12/13
  rule.
* official code: fixes both, and drops "Your response should be a valid json file in the following format:".
* ours: the paper's wording with both slips fixed, so the prompt always states the current rule, twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from .rules import Rule, as_rule, card_numbers

_TASK = """[Task Description]
You are an expert {target} points card game player. {cards_are} \
Note that {rule}, and each card must be used once. \
Your goal is to output a formula that evaluates to {target} using numbers from the cards and operators \
such as '+', '-', '*', '/', '(', ')', and '='.

{input}[Output]
Your response should be a valid json file in the following format:
{{
  "cards": [x, y, z, w], where {rule},
  "number": [a, b, c, d], where a, b, c, and d are the numbers on the cards,
  "formula": "an equation that equals {target}",
}}"""

_CARDS_ARE = {
    "text": "You will receive a set of {count} cards.",
    "image": "You are observing these four cards in the image.",
}

FEEDBACK = {
    "correct": "Correct solution.",
    "wrong_value": "You failed this trial because your formula is incorrect.",
    "wrong_numbers": "You failed this trial because your formula does not use each number on the cards once.",
    "illegal": "You failed this trial because your formula is illegal.",
    "misread": "You failed this trial because you recognized wrong cards.",
}


def rule_sentence(rule: str | Rule | Sequence[int]) -> str:
    """The clause that states what J, Q and K count as, in the paper's words."""
    rule = as_rule(rule)
    values = rule.values
    if len(set(values)) == 1 and not rule.spelt_out:
        return f"'J', 'Q', and 'K' count as '{values[0]}'"
    return "'J', 'Q', and 'K' count as '{}', '{}', and '{}' respectively".format(*values)


def task_prompt(
    cards: Sequence[str], rule: str | Rule | Sequence[int] = "ten", target: int = 24, modality: str = "text"
) -> str:
    """The whole prompt for one hand. For ``modality="image"`` (Fig. 11) the cards are not in the text."""
    shown = f"[Input]\nCards: {list(cards)}\n\n" if modality == "text" else ""
    # The template keeps its four places for five cards too: its lines are single tokens of the tiny models, and another
    # wording would test how they read letters.
    cards_are = _CARDS_ARE[modality].format(count=len(cards))
    return _TASK.format(target=target, rule=rule_sentence(rule), cards_are=cards_are, input=shown)


def response(cards: Sequence[str], numbers: Sequence[int], formula: str) -> str:
    """An answer in the official format (single quotes and a trailing comma, so not strict JSON)."""
    return f'{{\n  "cards": {list(cards)},\n  "number": {list(numbers)},\n  "formula": "{formula}",\n}}'


def expert_response(
    cards: Sequence[str], formula: str, rule: str | Rule | Sequence[int] = "ten", target: int = 24
) -> str:
    """The expert's answer: the cards, their numbers under `rule`, and ``formula=target``."""
    return response(cards, card_numbers(cards, rule), f"{formula}={target}")
