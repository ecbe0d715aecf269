"""The form of a pretraining document: turns of text, some of which carry loss; and of the answers in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Turn:
    """One message of a document. `role` is user, assistant, or text for a document that is no conversation.

    `picture` (uint8, height x width x 3) is seen before the text; `learn` puts a loss on every token of the text.
    """

    role: str
    content: str
    learn: bool = False
    picture: np.ndarray | None = None


Document = list[Turn]


def render(keys: Sequence[str], values: Mapping[tuple[str, ...], str]) -> str:
    """An answer, or the request for one, in the paper's JSON-like form. `values` is keyed by the synonyms of a key."""
    lines = (f'  "{key}": {next(value for synonyms, value in values.items() if key in synonyms)},\n' for key in keys)
    return "{\n" + "".join(lines) + "}"
