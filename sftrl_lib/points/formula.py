"""Parse and evaluate untrusted formulas without `eval`, without recursion, in linear time."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from numbers import Rational

MAX_FORMULA = 200  # characters; four numbers, three operators and sensible brackets need fewer than 50

_TOKEN = re.compile(r"[0-9]+|[-+*/()]")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,5}")
_STRENGTH = {"+": 1, "-": 1, "*": 2, "/": 2}
Token = int | str
Value = Rational | float


def parse_formula(formula: str) -> list[Token] | None:
    """The tokens of a legal formula (the text before the first "="); None for an illegal one.

    Legal: whole numbers of up to six ASCII digits without leading zeros, one of + - * / between two of them,
    matching parentheses, spaces and tabs between tokens, `MAX_FORMULA` characters at most.
    """
    text = formula.split("=", 1)[0].strip(" \t") if len(formula) <= 2 * MAX_FORMULA else ""
    if not 0 < len(text) <= MAX_FORMULA:
        return None
    tokens: list[Token] = []
    position, depth, operand_next = 0, 0, True
    while position < len(text):
        if text[position] in " \t":
            position += 1
            continue
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        token, position = match[0], match.end()
        is_number = token not in _STRENGTH and token not in "()"
        if (is_number or token == "(") != operand_next:
            return None
        if is_number:
            if _NUMBER.fullmatch(token) is None:
                return None
            operand_next = False
        elif token in _STRENGTH:
            operand_next = True
        else:
            depth += 1 if token == "(" else -1
            if depth < 0:
                return None
        tokens.append(int(token) if is_number else token)
    return tokens if depth == 0 and not operand_next else None


def evaluate(tokens: Sequence[Token], number: Callable[[int], Rational] = Fraction) -> Value | None:
    """The value of a legal formula's tokens; None if it divides by zero.

    ``number=Fraction`` is exact; ``number=int`` follows Python's arithmetic, where ``/`` gives a float.
    """
    values: list = []
    waiting: list[str] = []

    def apply_last() -> bool:
        operator, right, left = waiting.pop(), values.pop(), values.pop()
        if operator == "+":
            values.append(left + right)
        elif operator == "-":
            values.append(left - right)
        elif operator == "*":
            values.append(left * right)
        elif right:
            values.append(left / right)
        else:
            return False
        return True

    for token in (*tokens, ")"):  # the final ")" applies all pending operators
        if token == "(":
            waiting.append(token)
            continue
        if isinstance(token, int):
            values.append(number(token))
            continue
        strength = _STRENGTH.get(token, 0)
        while waiting and waiting[-1] != "(" and _STRENGTH[waiting[-1]] >= strength:
            if not apply_last():
                return None
        if strength:
            waiting.append(token)
        elif waiting:
            waiting.pop()
    return values[0]
