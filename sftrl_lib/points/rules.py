"""GeneralPoints cards, face-card rules, dealing and the held-out hands (paper section 4.1, appendix A).

How they differ:
* paper: hands come from a 52-card deck; J, Q, K all count 10 (training) or 11, 12, 13 (rule-OOD, with at
  least one face card in every hand); only solvable hands are dealt.
* official code: four independent ranks *with* replacement, drawn from Python's global random state, so that a
  seed has no effect; for OOD one of the four is forced to be a face card; no held-out hands.
* ours: a 52-card deck without replacement, all randomness from Gymnasium's ``np_random``; "face" deals are
  the same deals conditioned on holding a face card; one number multiset in ten is held out of every training
  phase.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations_with_replacement

import numpy as np

from ..attempts import check_choice
from .solver import is_solvable

RANKS = ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K")
FACES = ("J", "Q", "K")
SUITS = {
    "black": ("spades", "clubs"),
    "red": ("hearts", "diamonds"),
    "any": ("spades", "clubs", "hearts", "diamonds"),
}
DEALS = ("any", "face")
HANDS = ("any", "train", "heldout")
HELDOUT_ONE_IN = 10  # one number multiset in ten is never used in training
_MAX_DEALS = 10_000


@dataclass(frozen=True)
class Rule:
    """What J, Q and K count as. The paper uses (10, 10, 10) and (11, 12, 13); any values 1-99 are allowed.

    A prompt states three equal values once, unless the rule is `spelt_out`: "count as '10', '10', and '10'
    respectively".
    """

    jack: int
    queen: int
    king: int
    spelt_out: bool = False

    def __post_init__(self) -> None:
        for value in self.values:
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 99:
                raise ValueError(f"J, Q and K must count as whole numbers from 1 to 99, got {value!r}.")

    @property
    def values(self) -> tuple[int, int, int]:
        return self.jack, self.queen, self.king


RULES = {"ten": Rule(10, 10, 10), "distinct": Rule(11, 12, 13)}
KEPT_FOR_TESTS = (Rule(5, 5, 5), Rule(7, 7, 7))  # not among the rules of diverse training


def as_rule(rule: str | Rule | Sequence[int]) -> Rule:
    """The `Rule` for ``"ten"``, ``"distinct"``, a `Rule` or three values for J, Q, K, as in ``(5, 6, 7)`` or
    ``"5,6,7"``. Raises ValueError otherwise."""
    if isinstance(rule, Rule):
        return rule
    if isinstance(rule, str):
        if rule not in RULES and not re.fullmatch(r"[0-9]{1,2}(,[0-9]{1,2}){2}", rule):
            raise ValueError(f"Unknown rule {rule!r}; use {' or '.join(RULES)}, or three values for J, Q, K.")
        return RULES[rule] if rule in RULES else Rule(*map(int, rule.split(",")))
    values = tuple(rule) if isinstance(rule, Sequence) else ()
    if len(values) != 3:
        raise ValueError(f"A rule is one of {', '.join(RULES)} or three values for J, Q, K, got {rule!r}.")
    return Rule(*values)


def rule_name(rule: str | Rule | Sequence[int]) -> str:
    """The text from which `as_rule` makes a rule that counts alike: ``"ten"``, ``"distinct"`` or ``"5,6,7"``."""
    values = as_rule(rule).values
    names = {known.values: name for name, known in RULES.items()}
    return names.get(values) or ",".join(map(str, values))


def card_numbers(cards: Sequence[str], rule: str | Rule | Sequence[int] = "ten") -> tuple[int, ...]:
    """The number each card counts as under `rule` (A counts 1). Raises ValueError for an unknown rank."""
    faces = dict(zip(FACES, as_rule(rule).values, strict=True))
    numbers = []
    for card in cards:
        if card not in RANKS:
            raise ValueError(f"Unknown card {card!r}; the ranks are {', '.join(RANKS)}.")
        numbers.append(faces[card] if card in faces else 1 if card == "A" else int(card))
    return tuple(numbers)


def another_rule(rng: np.random.Generator) -> Rule:
    """A rule for diverse training: J, Q and K count 1 to 10, equal in half of the draws.

    Never the training rule, one of `KEPT_FOR_TESTS`, or a number above 10: what is tested on numbers above 10 is then
    another rule on unseen numbers, however diverse the rules were.
    """
    while True:
        values = [int(rng.integers(1, 11))] * 3 if rng.random() < 0.5 else [int(n) for n in rng.integers(1, 11, 3)]
        if (rule := Rule(*values)) not in (RULES["ten"], *KEPT_FOR_TESTS):
            return rule


def vary(rule: Rule, rng: np.random.Generator, diversity: float = 0.0, spelt_out: float = 0.0) -> Rule:
    """The rule of one hand: `rule`, or another one in a share `diversity` of hands.

    A share `spelt_out` of the hands whose rule is stated in short has it spelt out. Shares of 0 draw nothing.
    """
    if diversity and rng.random() < diversity:
        rule = another_rule(rng)
    if spelt_out and rng.random() < spelt_out:
        rule = replace(rule, spelt_out=True)
    return rule


def is_heldout(numbers: Sequence[int]) -> bool:
    """Whether this multiset of numbers is kept out of every training phase (a fixed pseudo-random tenth)."""
    key = ",".join(map(str, sorted(numbers)))
    return zlib.crc32(key.encode()) % HELDOUT_ONE_IN == 0


def in_split(numbers: Sequence[int], hands: str) -> bool:
    """Whether `numbers` belongs to ``hands`` = "any", "train" or "heldout"."""
    return hands == "any" or is_heldout(numbers) == (hands == "heldout")


@lru_cache
def puzzles(hands: str = "any", rule: str | Rule = "ten", suits: str = "any", target: int = 24) -> tuple[tuple, ...]:
    """Every solvable multiset of four numbers that can be dealt and belongs to ``hands``, in ascending order."""
    counts = Counter(card_numbers(RANKS, rule))
    most = {number: ranks * len(SUITS[suits]) for number, ranks in counts.items()}  # cards of that number
    found = combinations_with_replacement(sorted(most), 4)
    return tuple(
        numbers
        for numbers in found
        if in_split(numbers, hands)
        and all(numbers.count(number) <= most[number] for number in set(numbers))
        and is_solvable(numbers, target)
    )


def deal_numbers(
    rng: np.random.Generator, numbers: Sequence[int], rule: str | Rule = "ten", suits: str = "any"
) -> tuple[list[str], list[str]]:
    """A hand of these numbers, ranks and suits in random order, as drawn from a deck of the chosen suits.

    Raises ValueError if the deck does not hold four such cards.
    """
    deck = [(rank, suit) for rank in RANKS for suit in SUITS[suits]]
    dealt: list[tuple[str, str]] = []
    for number in sorted(set(numbers)):
        cards = [card for card in deck if card_numbers(card[:1], rule) == (number,)]
        if len(cards) < (count := list(numbers).count(number)):
            raise ValueError(f"A deck of {suits} suits does not hold {count} cards that count {number}.")
        dealt += [cards[int(i)] for i in rng.choice(len(cards), size=count, replace=False)]
    order = rng.permutation(len(dealt))
    return [dealt[i][0] for i in order], [dealt[i][1] for i in order]


_COUNTS = {4: "four", 5: "five"}  # cards in a hand


def check_hand(cards: Sequence[str], rule: str | Rule | Sequence[int], target: int, count: int = 4) -> list[str]:
    """`cards` as a list. Raises ValueError unless they are `count` known ranks with a solution."""
    if not isinstance(cards, Sequence) or len(cards) != count:
        example = ["4", "3", "2", "K", "A"][:count]
        raise ValueError(f"A hand is a list of {_COUNTS[count]} cards such as {example}, got {cards!r}.")
    cards = [str(card) for card in cards]
    numbers = card_numbers(cards, rule)
    if not is_solvable(numbers, target):
        raise ValueError(f"The hand {cards} counts {list(numbers)}, which cannot make {target}.")
    return cards


def check_suits(suits: Sequence[str], count: int = 4) -> list[str]:
    """`suits` as a list. Raises ValueError unless they are `count` known suits."""
    if not isinstance(suits, (list, tuple)) or len(suits) != count:
        raise ValueError(f"The suits of a hand are a list of {_COUNTS[count]} such as 'spades', got {suits!r}.")
    return [check_choice("suit", suit, SUITS["any"]) for suit in suits]


def deal_suits(rng: np.random.Generator, cards: Sequence[str], suits: str = "any") -> list[str]:
    """A random suit per card. No card occurs twice, unless a rank occurs more often than there are suits.

    Raises ValueError for unknown ``suits``.
    """
    check_choice("suits", suits, tuple(SUITS))
    dealt: list[tuple[str, str]] = []
    for card in cards:
        free = [suit for suit in SUITS[suits] if (card, suit) not in dealt] or list(SUITS[suits])
        dealt.append((card, free[int(rng.integers(len(free)))]))
    return [suit for _, suit in dealt]


def deal(
    rng: np.random.Generator,
    rule: str | Rule | Sequence[int] = "ten",
    deal: str = "any",
    hands: str = "any",
    suits: str = "any",
    target: int = 24,
    cards: int = 4,
) -> tuple[list[str], list[str]]:
    """A solvable hand: `cards` ranks (four) and their suits.

    Cards are drawn without replacement from a deck of the chosen suits. Raises ValueError for unknown options, or
    if 10,000 deals yield no solvable hand of the requested kind.
    """
    check_choice("deal", deal, DEALS)
    check_choice("hands", hands, HANDS)
    check_choice("suits", suits, tuple(SUITS))
    rule = as_rule(rule)
    colours = SUITS[suits]
    for _ in range(_MAX_DEALS):
        drawn = rng.choice(len(RANKS) * len(colours), size=cards, replace=False)
        hand = [RANKS[int(card) % len(RANKS)] for card in drawn]
        if deal == "face" and not any(card in FACES for card in hand):
            continue
        numbers = card_numbers(hand, rule)
        if in_split(numbers, hands) and is_solvable(numbers, target):
            return hand, [colours[int(card) // len(RANKS)] for card in drawn]
    raise ValueError(
        f"No solvable hand for target={target}, rule={rule.values}, deal={deal!r}, hands={hands!r} "
        f"in {_MAX_DEALS} deals."
    )
