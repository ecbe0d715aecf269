"""Pretraining documents: turns of text, some of which carry loss, and the format of the answers in them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Turn:
    """One message of a document. `role` is user, assistant, or text in a document that is not a conversation.

    `picture` (uint8, height x width x 3) precedes the text; with `learn`, every token of the text carries loss.
    """

    role: str
    content: str
    learn: bool = False
    picture: np.ndarray | None = None


Document = list[Turn]
Kind = Callable[[random.Random], Document]


def mixture(rng: random.Random, progress: float, *kinds: tuple[Kind, float, float]) -> Document:
    """A document of a random kind. `kinds` are (kind, share at the beginning, share at the end); `progress` is 0..1."""
    shares = [(1 - progress) * early + progress * late for _, early, late in kinds]
    return rng.choices(kinds, shares)[0][0](rng)


def render(keys: Sequence[str], values: Mapping[tuple[str, ...], str]) -> str:
    """An answer, or the request for one, in the paper's JSON-like form. `values` maps a key's synonyms to its value."""
    lines = (f'  "{key}": {next(value for synonyms, value in values.items() if key in synonyms)},\n' for key in keys)
    return "{\n" + "".join(lines) + "}"
