"""Gymnasium spaces for what both environments speak: raw model text, and lists of chat messages."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

ROLES = ("system", "user", "assistant")
Message = dict[str, str]  # {"role": one of ROLES, "content": any text}


class RawText(spaces.Text):
    """Any Python string. `gymnasium.spaces.Text` admits only a fixed alphabet; models do not keep to one.

    Samples are short strings of letters and digits: random noise, as an untrained model would answer.
    """

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(max_length=64, min_length=0, seed=seed)

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)

    def __repr__(self) -> str:
        return "RawText()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RawText)


class Messages(spaces.Space[list[Message]]):
    """A chat: a list of ``{"role": ..., "content": ...}``, as chat templates expect it (a list, not a
    tuple)."""

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(shape=None, dtype=None, seed=seed)
        self._text = RawText()

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def seed(self, seed: int | None = None) -> int | list[int]:
        self._text.seed(seed)
        return super().seed(seed)

    def sample(self, mask: Any = None, probability: Any = None) -> list[Message]:
        """One user message of random text."""
        return [{"role": "user", "content": self._text.sample()}]

    def contains(self, x: Any) -> bool:
        return isinstance(x, list) and all(
            isinstance(message, dict)
            and message.keys() == {"role", "content"}
            and message["role"] in ROLES
            and isinstance(message["content"], str)
            for message in x
        )

    def __repr__(self) -> str:
        return "Messages()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Messages)


def messages_space() -> Messages:
    """The space of ``observation["messages"]``."""
    return Messages()


def text_space() -> RawText:
    """The action space: the model's raw text, whatever it is."""
    return RawText()
