"""A hand of GeneralPoints to play: its state, without widgets.

A person types a formula only; the rest of the answer format is filled in, and what is no formula costs no attempt. A
model must write the whole answer, as in training, and loses an attempt for whatever the verifier cannot read.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..answers import find_key
from ..attempts import check_choice
from ..evaluation.cast import Answer, Player, Token
from ..points import RANKS, SUITS, Rule, is_solvable, solve
from ..points.environment import GeneralPoints
from ..points.formula import evaluate, parse_formula
from ..points.rules import FACES, as_rule, card_numbers, check_hand, deal, deal_suits
from ..points.verifier import read_cards, read_formula, read_numbers

# What people type for an operator; a model must write the operators that its prompt names.
_TYPED = str.maketrans(dict.fromkeys("×✕xX·⋅∙", "*") | dict.fromkeys("÷∕∶:", "/") | dict.fromkeys("−–", "-"))
_PRINTED = str.maketrans("*/-", "×÷−")
# Two numbers that a formula combines before anything else: a product or quotient, or a sum within brackets.
_PRODUCT = re.compile(r"(?<![\d*/])(\d+)([*/])(\d+)")
_LIST = re.compile(r'"number"\s*+:\s*+\[([^\]]*+)\]')
_SUM = re.compile(r"(?:^|(?<=\())(\d+)([-+])(\d+)(?![\d*/])")


@dataclass(frozen=True)
class Reading:
    """What a model wrote that a card counts as."""

    card: str
    number: int | None
    right: bool  # whether the rule says so
    probability: float | None = None  # that it wrote this number there


@dataclass(frozen=True)
class Turn:
    """One attempt: the answer, the formula in it (None if there is none) and what was said to it."""

    answer: Answer
    formula: str | None
    outcome: str
    reward: float
    feedback: str  # what a model hears
    verdict: str  # what a person hears
    read: tuple[Reading, ...] = ()  # a model's list of numbers; empty if it wrote none


def printed(formula: str) -> str:
    """A formula as people write it, with × ÷ −, without the result that it claims."""
    return formula.partition("=")[0].strip().translate(_PRINTED)


class Game:
    """A player's hand of GeneralPoints; `rule`, `target` and `suits` as in the environment, `seed` fixes the hands.

    With ``modality="image"`` models see the picture of the cards, which `picture` then returns at display size.
    """

    def __init__(
        self,
        rule: str | Rule | Sequence[int] = "ten",
        target: int = 24,
        max_attempts: int = 5,
        seed: int | None = None,
        suits: str = "any",
        modality: str = "text",
    ) -> None:
        self.max_attempts, self.modality = max_attempts, modality
        self._rng = np.random.default_rng(seed)
        self.hands = 0  # dealt so far
        self._begin(as_rule(rule), target, suits, None)

    def new_hand(self, hand: Sequence[str] | None = None) -> None:
        """Deal a fresh hand, or take `hand`. Raises ValueError for a hand without a solution."""
        self._begin(self.rule, self.target, self.suits, hand)

    def change(self, rule: str | Rule | Sequence[int], target: int, suits: str | None = None) -> None:
        """Change the rule, target or suits; nothing happens if none of them is another than before.

        Keeps the ranks if they have a solution, the suits have enough of each, and a rule other than the training rule
        finds a face card to show itself on; deals a fresh hand otherwise. Raises ValueError, and changes nothing, for a
        bad rule, target or suits or a target that no hand can make.
        """
        rule = as_rule(rule)
        suits = self.suits if suits is None else check_choice("suits", suits, tuple(SUITS))
        if (rule, target, suits) == (self.rule, self.target, self.suits):
            return
        enough = max(Counter(self.cards).values()) <= len(SUITS[suits])
        shows = _deal(rule) == "any" or any(card in FACES for card in self.cards)
        keep = enough and shows and is_solvable(card_numbers(self.cards, rule), target)
        self._begin(rule, target, suits, self.cards if keep else None)

    def submit(self, formula: str) -> Turn:
        """Grade a typed formula, in which × and ÷ are understood.

        Raises ValueError, which costs no attempt, if it is no formula, or if the hand is over.
        """
        typed = formula.translate(_TYPED).strip()
        if self.over:
            raise ValueError("This hand is over; deal a new one.")
        if not typed:
            raise ValueError("Type a formula first.")
        if parse_formula(typed) is None:
            raise ValueError("That is no formula of numbers, + − × ÷ and brackets. It cost no attempt.")
        answer = Answer((Token(self.wrap(typed)),))
        _, reward, _, _, info = self._env.step(answer.text)
        turn = self._turn(answer, reward, info)
        self.attempts_left = info["attempts_left"]
        self.history.append(turn)
        return turn

    def wrap(self, formula: str) -> str:
        """The whole answer for a formula: the cards, their numbers and the formula, as JSON."""
        return json.dumps({"cards": self.cards, "number": self.numbers, "formula": formula}, indent=2)

    def picture(self) -> np.ndarray:
        """The hand at display size: uint8, (height, width, 3)."""
        return self._env.render()

    def solutions(self) -> tuple[str, ...]:
        """Every formula that solves the hand."""
        return solve(self.numbers, self.target)

    def hint(self) -> str:
        """How many solutions there are, and how the shortest one begins."""
        found = self.solutions()
        first = _PRODUCT.search(found[0]) or _SUM.search(found[0])
        ways = "There is one solution" if len(found) == 1 else f"There are {len(found)} solutions"
        return f"{ways}; one begins with {printed(''.join(first.groups()))}."

    def watch(self, player: Player, temperature: float = 1.0, seed: int = 0) -> Iterator[Turn]:
        """Let a model play the same hand from the start, one attempt at a time."""
        env = self._make(self.rule, self.target, self.suits)
        observation, _ = env.reset(**self._reset)
        over, attempt = False, 0
        while not over:
            chance = int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])
            answer = player.answer(observation, temperature, chance)
            observation, reward, terminated, truncated, info = env.step(answer.text)
            yield self._turn(answer, reward, info, self._readings(answer))
            over, attempt = terminated or truncated, attempt + 1

    @property
    def rule_name(self) -> str:
        """The rule in words, with the target if it is not 24."""
        values = self.rule.values
        what = f"{values[0]}" if len(set(values)) == 1 else ", ".join(map(str, values))
        return f"J, Q, K = {what}" + (f"; make {self.target}" if self.target != 24 else "")

    @property
    def won(self) -> bool:
        return any(turn.outcome == "correct" for turn in self.history)

    @property
    def over(self) -> bool:
        return self.won or self.attempts_left == 0

    def _turn(self, answer: Answer, reward: float, info: dict, read: tuple[Reading, ...] = ()) -> Turn:
        formula, outcome = read_formula(answer.text), info["outcome"]
        verdict = self._verdict(outcome, formula, read_cards(answer.text))
        return Turn(answer, formula, outcome, reward, info["feedback"], verdict, read)

    def _verdict(self, outcome: str, formula: str | None, cards: list[str] | None) -> str:
        if outcome == "misread":
            seen = ", ".join(cards) if cards else "none"
            return f"read the cards as {seen}; they are {', '.join(self.cards)}"
        tokens = parse_formula(formula or "")
        if tokens is None:
            return "no formula that can be read" if formula else "no formula"
        value = evaluate(tokens)
        equals = "divides by zero" if value is None else f"= {str(value).replace('-', '−')}"
        if outcome == "wrong_numbers":
            return f"{equals}, but not from {', '.join(map(str, self.numbers))}, each used once"
        return equals if outcome == "correct" else f"{equals}, not {self.target}"

    def _readings(self, answer: Answer) -> tuple[Reading, ...]:
        """A model's list of numbers beside its list of cards."""
        cards, numbers = read_cards(answer.text), read_numbers(answer.text)
        if not cards or not numbers or len(cards) != len(numbers):
            return ()
        spans = _spans(answer.text, numbers)
        read = []
        for index, (card, number) in enumerate(zip(cards, numbers, strict=True)):
            known = card_numbers([card], self.rule)[0] if card in RANKS else None
            read.append(Reading(card, number, number == known, answer.likelihood(*spans[index]) if spans else None))
        return tuple(read)

    def _make(self, rule: Rule, target: int, suits: str) -> GeneralPoints:
        return GeneralPoints(
            modality=self.modality, rule=rule, target=target, suits=suits, max_attempts=self.max_attempts,
            render_mode="rgb_array",
        )  # fmt: skip

    def _begin(self, rule: Rule, target: int, suits: str, hand: Sequence[str] | None) -> None:
        env = self._make(rule, target, suits)
        if hand is None:
            cards, drawn = deal(self._rng, rule, _deal(rule), "any", suits, target)
        else:
            cards = check_hand(hand, rule, target)
            drawn = deal_suits(self._rng, cards, suits)
        # Given like this, the same cards lie in the same picture again when models play them.
        reset = {"seed": int(self._rng.integers(2**31)), "options": {"hand": cards, "suits": drawn}}
        _, info = env.reset(**reset)
        self._env, self._reset = env, reset  # only after all of it has worked
        self.rule, self.target, self.suits = env.rule, env.target, suits
        self.cards, self.numbers = info["cards"], info["numbers"]
        self.attempts_left = info["attempts_left"]
        self.history: list[Turn] = []
        self.hands += 1


def _deal(rule: Rule) -> str:
    """A rule that differs from the training rule needs a face card to be seen."""
    return "any" if rule == as_rule("ten") else "face"


def _spans(text: str, numbers: Sequence[int]) -> list[tuple[int, int]] | None:
    """Where the numbers of the answer stand in its text; None if that is not plain."""
    begin = find_key(text, "number", list)
    found = _LIST.match(text, begin) if begin >= 0 else None
    spans = [match.span() for match in re.finditer(r"-?\d+", found[1])] if found else []
    spans = [(start + found.start(1), end + found.start(1)) for start, end in spans]
    return spans if [text[start:end] for start, end in spans] == list(map(str, numbers)) else None
