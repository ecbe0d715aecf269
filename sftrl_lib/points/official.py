"""The released code's GeneralPoints verifier, reproduced exactly: reward values, messages and quirks.

Re-implemented from its behaviour (repository LeslieTrue/SFTvsRL, snapshot 5a6ea55). What the paper does not
describe:

* penalties accumulate: a number that is not in the hand costs -2 and leaves a card unused, another -2, so -4 in
  total; each grammar fault adds -3;
* any white space is an illegal character;
* values are compared as Python numbers, so that 8/(3-8/3) = 23.99... earns 0 and the message ".";
* the feedback on a wrong value quotes the longest prefix that the formula shares with a stored solution;
* an unclosed parenthesis is not a fault; such a formula earns +1 if it is a prefix of a stored solution;
* with pictures, a misread hand earns -1.5 and nothing else is graded; cards given in strict JSON always count
  as misread, because the list parser expects a string.

Where the released code crashes, this one returns a grade: a "formula" that is not a JSON string, or has a number
of more than 4,000 digits, is "illegal characters" (-3), and so is the formula of an answer of over 100,000
characters.

The released code has no outcomes. Ours: illegal for a grammar or character fault, else wrong_numbers for a number
fault, else wrong_value for any reward below +5 (-1, 0 or +1).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import permutations, product

from ..attempts import MAX_TEXT
from .formula import Token, evaluate

STEP_LIMIT = "step_limit_reached"  # message for the answer after the last graded attempt

_PARTIAL, _WRONG_VALUE, _MISREAD, _NUMBER_FAULT, _ILLEGAL = 1, -1, -1.5, -2, -3
_MAX_DIGITS = 4_000
_MAX_DEPTH = 200  # nested parentheses that Python's parser accepts

_FORMULA = re.compile(r'"formula": "(.*?)"')
_CARDS = re.compile(r'"cards": \[([^\]]{1,1000})\]')
_TOKEN = re.compile(r"\d+|[-+*/()]")  # \d: any Unicode digit, as in the released code

# Parentheses of the stored solutions, as (opening, closing) positions in a formula of seven tokens.
_SHAPES = ((), ((0, 3),), ((0, 5),), ((2, 5),), ((2, 7),), ((4, 7),), ((0, 3), (4, 7)))


def judge(
    text: str, cards: Sequence[str], numbers: Sequence[int], target: int = 24, modality: str = "text"
) -> tuple[float, str, str]:
    """(reward, outcome, message) of one answer (any string) to `cards` that count as `numbers`."""
    if modality == "image" and sorted(_read_cards(text)) != sorted(cards):
        return float(_MISREAD), "misread", "you recognized wrong cards"
    formula = _read_formula(text)
    tokens = _TOKEN.findall(formula)
    if "".join(tokens) != formula or any(len(token) > _MAX_DIGITS for token in tokens):
        return float(_ILLEGAL), "illegal", "illegal characters."
    grammar, wrong = _grammar_faults(tokens), _number_faults(tokens, numbers)
    if grammar or wrong:
        reward = _ILLEGAL * len(grammar) + _NUMBER_FAULT * len(wrong)
        return float(reward), "illegal" if grammar else "wrong_numbers", ", ".join(grammar + wrong) + "."
    reward, message = _value_reward(formula, tokens, numbers, target)
    return float(reward), "correct" if reward == 5 else "wrong_value", message + "."


def _read_formula(text: str) -> str:
    """The text before the first "=" of the "formula" field; the string "None" if there is no such field."""
    if len(text) > MAX_TEXT:
        return "None"
    try:
        formula = json.loads(text)["formula"]
    except (ValueError, RecursionError, KeyError, TypeError):
        found = _FORMULA.search(text)
        formula = found[1] if found else "None"
    return formula.split("=")[0] if isinstance(formula, str) else "None"


def _read_cards(text: str) -> list[str]:
    """The recognised cards: the four items of the bracketed "cards" field, or an empty list."""
    if len(text) > MAX_TEXT:
        return []
    try:
        cards = json.loads(text)["cards"]
    except (ValueError, RecursionError, KeyError, TypeError):
        found = _CARDS.search(text)
        cards = found[1] if found else "None"
        if _all_integers(cards.split(", ")):  # the released code turns them into a list
            return []
    if not isinstance(cards, str):  # a list cannot be split and counts as unread
        return []
    pieces = re.sub(r"[\[\]' ]", "", cards).split(",")
    return pieces if len(pieces) == 4 else []


def _all_integers(words: Sequence[str]) -> bool:
    try:
        return all(isinstance(int(word), int) for word in words)
    except ValueError:
        return False


def _grammar_faults(tokens: Sequence[str]) -> list[str]:
    """One message per token that may not follow its predecessor; unclosed parentheses are not reported."""
    faults = []
    unclosed = 0
    after_operand = False  # the previous token is a number or ")"
    for token in tokens:
        if token == "(":
            if after_operand:
                faults.append("invalid sequence before '('")
            else:
                unclosed += 1
            after_operand = False
        elif token == ")":
            if not after_operand:
                faults.append("invalid sequence after ')'")
            elif unclosed:
                unclosed -= 1
            else:
                faults.append("unmatched closing parenthesis")
            after_operand = True
        elif token in "+-*/":
            if not after_operand:
                faults.append("invalid sequence after operator")
            after_operand = False
        else:
            if after_operand:
                faults.append("invalid sequence after number")
            after_operand = True
    return faults


def _number_faults(tokens: Sequence[str], numbers: Sequence[int]) -> list[str]:
    """Messages for numbers that are not in the hand (or else overused), and for unused numbers."""
    used = Counter(int(token) for token in tokens if token not in "+-*/()")
    held = Counter(numbers)
    invalid = [number for number in used if number not in held]
    overused = [number for number in used if used[number] > held[number]]
    unused = [number for number in held if held[number] > used[number]]
    faults = []
    if invalid:
        faults.append(f"you used invalid numbers: {invalid}")
    elif overused:
        faults.append(f"you used numbers: {overused} too many times")
    if unused:
        faults.append(f"you didn't use numbers: {unused}")
    return faults


def _value_reward(formula: str, tokens: Sequence[str], numbers: Sequence[int], target: int) -> tuple[int, str]:
    """Reward and message of a formula that uses each number once and has no grammar fault."""
    stored = official_solutions(tuple(sorted(numbers)), target)
    value = _python_value(tokens)
    if value == target:
        return 5, "Correct solution"
    if value is None and any(solution.startswith(formula) for solution in stored):
        return _PARTIAL, "partial solution"
    prefix = ""
    for token in tokens:
        longer = prefix + token
        if not any(solution.startswith(longer) for solution in stored):
            break
        prefix = longer
    else:
        return 0, ""  # a stored solution whose floating-point value is off: no message
    if not prefix:
        return _WRONG_VALUE, "your formula does not match any solution"
    return _WRONG_VALUE, f"{prefix} is partially correct but the full formula does not match any solution"


def _python_value(tokens: Sequence[str]) -> float | None:
    """The formula's value in Python; None where Python raises (syntax, division by zero, depth)."""
    depth = deepest = 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        deepest = max(deepest, depth)
    whole = depth == 0 and tokens[-1] not in "+-*/"
    python_numbers = all(token.isascii() and token[0] != "0" for token in tokens)  # no leading zeros
    if not whole or not python_numbers or deepest > _MAX_DEPTH:
        return None
    return evaluate([token if token in "+-*/()" else int(token) for token in tokens], number=int)


def _formulas(numbers: Sequence[int]) -> Iterator[list[Token]]:
    """Every formula that the released solver tries: orders x operators x seven ways to place parentheses."""
    for order in sorted(set(permutations(numbers))):
        for operators in product("+-*/", repeat=3):
            plain = [order[0]]
            for operator, number in zip(operators, order[1:], strict=True):
                plain += [operator, number]
            for shape in _SHAPES:
                tokens: list[Token] = list(plain)
                for opening, closing in reversed(shape):
                    tokens.insert(closing, ")")
                    tokens.insert(opening, "(")
                yield tokens


@lru_cache(maxsize=10_000)
def official_solutions(numbers: tuple[int, ...], target: int = 24) -> tuple[str, ...]:
    """The released solver's solution strings for four numbers (94 for 4, 3, 2, 10); tens of milliseconds."""
    return tuple(
        "".join(map(str, tokens))
        for tokens in _formulas(numbers)
        if (value := evaluate(tokens, number=int)) is not None
        and abs(value - target) < 1e-6
        and evaluate(tokens) == target
    )
