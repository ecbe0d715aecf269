"""Who plays a task, and what they answer, token by token.

Loads no torch: games know models only through these records, so that they can be played and tested without any.
`players.py` makes them from trained checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

Observation = Mapping[str, Any]  # of an environment: its chat, "messages", and perhaps an "image"


@dataclass(frozen=True)
class Token:
    """One token of an answer."""

    text: str
    probability: float | None = None  # with which it was drawn; None if unknown
    others: tuple[tuple[str, float], ...] = ()  # the likeliest other tokens there, and their probabilities


@dataclass(frozen=True)
class Answer:
    """What a player answered."""

    tokens: tuple[Token, ...]

    @cached_property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    def likelihood(self, start: int, end: int) -> float | None:
        """The probability of the tokens that overlap ``text[start:end]``, given what precedes them; None if unknown."""
        found, here = [], 0
        for token in self.tokens:
            if here < end and here + len(token.text) > start:
                found.append(token.probability)
            here += len(token.text)
        return None if None in found or not found else prod(found)


@dataclass(frozen=True)
class Player:
    """A model, or a function, that answers an observation at a temperature, with a seed for its sampling."""

    name: str  # of its method, such as "RL"
    source: str  # where it comes from, such as "laptop, seed 0"
    answer: Callable[[Observation, float, int], Answer]

    @property
    def label(self) -> str:
        return f"{self.name} ({self.source})" if self.source else self.name


@dataclass(frozen=True)
class Cast:
    """The players of one task: those of each training seed."""

    seeds: tuple[int, ...]
    load: Callable[[int], Sequence[Player]]  # the players of a seed, in the order of the methods
    toy: bool = False  # whether they come from a profile of toy size
    note: str = ""  # what is missing, and how to get it; one sentence


def as_cast(players: Cast | Mapping[str, Callable[[list], str]] | None) -> Cast:
    """A cast of functions by name, from the chat so far to the text of the answer; a `Cast` is returned as it is."""
    if isinstance(players, Cast):
        return players
    found = [Player(name, "", _spoken(function)) for name, function in (players or {}).items()]
    return Cast((0,), lambda seed: found)


def _spoken(function: Callable[[list], str]) -> Callable[[Observation, float, int], Answer]:
    def answer(seen: Observation, temperature: float, seed: int) -> Answer:
        text = function(seen["messages"])
        if not isinstance(text, str):
            raise TypeError(f"A player answers with text, got {type(text).__name__}.")
        return Answer((Token(text),))

    return answer
