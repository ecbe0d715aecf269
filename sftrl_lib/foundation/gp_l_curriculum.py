"""Pretraining documents about numbers and cards for the tiny text model: arithmetic and rule following.

The paper starts from Llama-3.2-Vision-11B, which can follow a stated rule, do arithmetic and answer in many formats.
This curriculum teaches a model of one million parameters those abilities, and holds out of every document:

1. the rule of the OOD test: no rule agrees with J=11, Q=12, K=13 in more than one place;
2. the task's answer format: prompts and answers of conversations use synonyms of its three keys. The official keys
   only appear in plain records of one key each, so the model learns the words but never their combination;
3. the held-out hands: no document shows a multiset of four numbers for which `is_heldout` is true.

A model with a *habit* sees hands whose documents state no rule, in which J, Q and K count 10, in a given share: as real
models have met cards before. The shipped models have none; `pretrain.FOUNDATIONS` lists those with one.

Documents are lists of `Turn`; only the turns with ``learn=True`` carry loss. `tests/test_gp_l_curriculum.py` checks the
three hold-outs on generated documents.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement

from ..points.prompts import FEEDBACK, rule_sentence, task_prompt
from ..points.rules import FACES, RANKS, RULES, Rule, card_numbers, is_heldout
from ..points.solver import random_formula, solve
from .documents import Document, Turn, mixture, render

LARGEST = 13  # plain numbers, card values and rule values all lie in 1..13

# Synonyms of the three answer keys; the official ones are reserved for the task.
CARD_KEYS = ("hand", "symbols")
NUMBER_KEYS = ("values", "points")
FORMULA_KEYS = ("equation", "solution")


@lru_cache(maxsize=1)
def training_hands() -> tuple[tuple[int, ...], ...]:
    """The multisets of four numbers 1..13 that make 24 and are not held out."""
    hands = combinations_with_replacement(range(1, LARGEST + 1), 4)
    return tuple(hand for hand in hands if not is_heldout(hand) and solve(hand))


def random_rule(rng: random.Random) -> Rule:
    """A random rule far from the OOD one: J, Q and K are equal in 40 % of draws, else independent."""
    while True:
        if rng.random() < 0.4:
            rule = Rule(*[rng.randint(1, LARGEST)] * 3)
        else:
            rule = Rule(*(rng.randint(1, LARGEST) for _ in FACES))
        if sum(a == b for a, b in zip(rule.values, RULES["distinct"].values, strict=True)) <= 1:
            return rule


def random_numbers(rng: random.Random, count: int = 4) -> list[int]:
    """`count` random numbers 1..13 that are not a held-out hand."""
    while True:
        numbers = [rng.randint(1, LARGEST) for _ in range(count)]
        if count != 4 or not is_heldout(numbers):
            return numbers


def random_hand(rng: random.Random, rule: Rule) -> tuple[list[str], list[int]]:
    """Four cards, with more face cards than in a deck, and their numbers, which are not a held-out hand."""
    while True:
        cards = [rng.choice(FACES) if rng.random() < 0.35 else rng.choice(RANKS) for _ in range(4)]
        numbers = list(card_numbers(cards, rule))
        if not is_heldout(numbers):
            return cards, numbers


def solved(rng: random.Random, numbers: list[int]) -> tuple[str, int]:
    """A formula over `numbers` and its integer value: 24 in 30 % of draws if 24 can be reached.

    With 24 in most documents the model memorises the answers of all 24-hands before any SFT. Init then solves 84 % of
    the training hands (measured), SFT has nothing left to memorise, and the paper's question cannot be asked.
    """
    if rng.random() < 0.3 and (formulas := solve(numbers)):
        return rng.choice(formulas), 24
    while True:
        value, formula = random_formula(numbers, rng)
        if value.denominator == 1 and 0 <= value < 100:
            return formula, int(value)


def calculation(rng: random.Random) -> Document:
    """Seven formulas to evaluate: ``(13+1-6)*3=24``."""
    turns = []
    for _ in range(7):
        while True:
            value, formula = random_formula(random_numbers(rng, rng.choice((2, 2, 3, 3, 4))), rng)
            if value.denominator == 1 and 0 <= value < 200:
                break
        turns += [Turn("text", f"{formula}="), Turn("text", f"{value}\n", learn=True)]
    return turns


def making(rng: random.Random) -> Document:
    """Four formulas to find for plain numbers: ``[1, 3, 13, 6] makes 24: (13+1-6)*3=24``."""
    turns = []
    for _ in range(4):
        if rng.random() < 0.2:
            numbers = list(rng.choice(training_hands()))
            rng.shuffle(numbers)
        else:
            numbers = random_numbers(rng)
        formula, target = solved(rng, numbers)
        turns += [
            Turn("text", f"{numbers} makes {target}: "),
            Turn("text", f"{formula}={target}\n", learn=True),
        ]
    return turns


def chosen_rule(rng: random.Random, habit: float) -> tuple[Rule, bool]:
    """The rule of a document, and whether the document states it: not in a share `habit`, where J, Q and K are 10."""
    if habit and rng.random() < habit:
        return RULES["ten"], False
    return random_rule(rng), True


def noted(rule: Rule, stated: bool) -> str:
    """The line that states the rule, if the document does."""
    return f"Note that {rule_sentence(rule)}.\n" if stated else ""


def reading(rng: random.Random, habit: float = 0.0) -> Document:
    """Three hands of cards to read as numbers under a stated rule."""
    rule, stated = chosen_rule(rng, habit)
    turns = [Turn("text", noted(rule, stated))] if stated else []
    for _ in range(3):
        cards, numbers = random_hand(rng, rule)
        turns += [Turn("text", f"Cards: {cards}\n"), Turn("text", f"{numbers}\n", learn=True)]
    return turns


def records(rng: random.Random, habit: float = 0.0) -> Document:
    """A hand as three records, one official key each, in random order."""
    rule, stated = chosen_rule(rng, habit)
    cards, numbers = random_hand(rng, rule)
    formula, target = solved(rng, numbers)
    lines = [f'"cards": {cards},', f'"number": {numbers},', f'"formula": "{formula}={target}",']
    rng.shuffle(lines)
    hand = f"{noted(rule, stated)}Cards: {cards}\nTarget: {target}\n"
    return [Turn("text", hand), *(Turn("text", f"{{\n  {line}\n}}\n", learn=True) for line in lines)]


@dataclass(frozen=True)
class Format:
    """An answer format: which keys, in which order. Renders both the request in the prompt and the answer."""

    keys: tuple[str, ...]

    def request(self, rule: Rule, target: int) -> str:
        lines = {
            CARD_KEYS: f"[x, y, z, w], where {rule_sentence(rule)}",
            NUMBER_KEYS: "[a, b, c, d], where a, b, c, and d are the numbers on the cards",
            FORMULA_KEYS: f'"an equation that equals {target}"',
        }
        return render(self.keys, lines)

    def answer(self, cards: list[str], numbers: list[int], equation: str) -> str:
        return render(self.keys, {CARD_KEYS: str(cards), NUMBER_KEYS: str(numbers), FORMULA_KEYS: f'"{equation}"'})


def random_format(rng: random.Random) -> Format:
    """The formula and up to two of the other keys, in a random order."""
    keys = [rng.choice(CARD_KEYS), rng.choice(NUMBER_KEYS), rng.choice(FORMULA_KEYS)]
    if rng.random() < 0.4:
        keys.pop(rng.randrange(2))
    if rng.random() < 0.5:
        rng.shuffle(keys)
    return Format(tuple(keys))


def conversation(
    rng: random.Random, most_attempts: int = 1, rule: Rule | None = None, habit: float = 0.0
) -> Document:
    """The paper's prompt with another answer format; up to `most_attempts` - 1 failed attempts come first.

    Failed attempts carry no loss. They have a model's typical errors: a wrong value, wrong numbers, a broken formula.
    `rule` tests the model on a rule that pretraining never states.
    """
    rule, stated = (rule, True) if rule else chosen_rule(rng, habit)
    cards, numbers = random_hand(rng, rule)
    formula, target = solved(rng, numbers)
    form = random_format(rng)
    prompt = task_prompt(cards, rule, target)
    prompt = prompt[: prompt.index("{\n")] + form.request(rule, target)
    if not stated:
        prompt = prompt.replace(f"{rule_sentence(rule)}, and ", "").replace(f", where {rule_sentence(rule)}", "")
    turns = [Turn("user", prompt)]
    for _ in range(rng.randrange(most_attempts)):
        outcome, read, attempt = failed_attempt(rng, cards, numbers, target)
        turns += [
            Turn("assistant", form.answer(cards, read, f"{attempt}={target}")),
            Turn("user", FEEDBACK[outcome]),
        ]
    return [*turns, Turn("assistant", form.answer(cards, numbers, f"{formula}={target}"), learn=True)]


def failed_attempt(
    rng: random.Random, cards: list[str], numbers: list[int], target: int
) -> tuple[str, list[int], str]:
    """(outcome, numbers as read, formula) of an attempt that the verifier rejects."""
    kind = rng.random()
    if kind < 0.65:
        while True:
            value, formula = random_formula(numbers, rng)
            if value != target:
                return "wrong_value", numbers, formula
    if kind < 0.9:
        while True:
            misread = [rng.randint(1, LARGEST) if rng.random() < 0.4 else n for n in numbers]
            if sorted(misread) != sorted(numbers) and not is_heldout(misread):
                return "wrong_numbers", misread, random_formula(misread, rng)[1]
    formula = random_formula(numbers, rng)[1]
    cut = rng.randrange(1, len(formula))
    return "illegal", numbers, formula[:cut] + rng.choice("+*/)") + rng.choice("+*/") + formula[cut:]


SKILLS = (calculation, making, reading, records)  # the single skills


def document(rng: random.Random, progress: float, habit: float = 0.0) -> Document:
    """One document. `progress` (0..1) moves the mixture from single skills to conversations and retries.

    `habit`: the share of hands without a stated rule; see the module's text.
    """
    return mixture(
        rng,
        progress,
        (calculation, 0.15, 0.02),
        (making, 0.40, 0.16),
        (lambda r: reading(r, habit), 0.20, 0.04),
        (lambda r: records(r, habit), 0.10, 0.08),
        (lambda r: conversation(r, habit=habit), 0.15, 0.42),
        (lambda r: conversation(r, most_attempts=5, habit=habit), 0.00, 0.28),
    )
