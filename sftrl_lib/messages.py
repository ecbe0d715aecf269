"""Gymnasium spaces of both environments: raw model text, and lists of chat messages.

In the text modality contents are plain strings. In the image modality every content is a list of parts:

    [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "You are ..."}]},
     {"role": "assistant", "content": [{"type": "text", "text": "..."}]}, ...]

The chat templates of vision-language models accept this form, TRL's trainers expect it beside a column of images, and
Arrow tables need one type throughout. Do not mix the two forms: TRL puts a missing image into the first plain-text user
message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

ROLES = ("system", "user", "assistant")
Part = dict[str, str]  # {"type": "image"} or {"type": "text", "text": any text}
Message = dict[str, str | list[Part]]  # {"role": one of ROLES, "content": any text, or a list of parts}


def text_message(role: str, text: str) -> Message:
    """A message of the text modality."""
    return {"role": role, "content": text}


def parts_message(role: str, text: str, image: bool = False) -> Message:
    """A message of the image modality; ``image=True`` puts an image placeholder before the text."""
    text_part = {"type": "text", "text": text}
    return {"role": role, "content": [{"type": "image"}, text_part] if image else [text_part]}


def message_text(message: Message) -> str:
    """All the text of a message of either form."""
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)


def copied(messages: Sequence[Message]) -> list[Message]:
    """A copy that shares nothing that can be changed; three times as fast as `copy.deepcopy`."""
    contents = (message["content"] for message in messages)
    copies = (content if isinstance(content, str) else [dict(part) for part in content] for content in contents)
    return [{"role": message["role"], "content": copy} for message, copy in zip(messages, copies, strict=True)]


class RawText(spaces.Text):
    """Any Python string; `gymnasium.spaces.Text` only admits a fixed alphabet.

    Samples are short random strings of letters and digits, like the answers of an untrained model.
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
    tuple). With ``parts=True`` every content is a list of parts, else every content is a string."""

    def __init__(self, seed: int | np.random.Generator | None = None, parts: bool = False) -> None:
        super().__init__(shape=None, dtype=None, seed=seed)
        self.parts = parts
        self._text = RawText()

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def seed(self, seed: int | None = None) -> int | list[int]:
        self._text.seed(seed)
        return super().seed(seed)

    def sample(self, mask: Any = None, probability: Any = None) -> list[Message]:
        """One user message of random text (with ``parts=True``, after an image placeholder)."""
        text = self._text.sample()
        return [parts_message("user", text, image=True) if self.parts else text_message("user", text)]

    def contains(self, x: Any) -> bool:
        return isinstance(x, list) and all(
            isinstance(message, dict)
            and message.keys() == {"role", "content"}
            and message["role"] in ROLES
            and (_is_parts(message["content"]) if self.parts else isinstance(message["content"], str))
            for message in x
        )

    def __repr__(self) -> str:
        return f"Messages(parts={self.parts})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Messages) and self.parts == other.parts


def _is_parts(content: Any) -> bool:
    return isinstance(content, list) and all(
        isinstance(part, dict)
        and (
            part == {"type": "image"}
            or (part.keys() == {"type", "text"} and part["type"] == "text" and isinstance(part["text"], str))
        )
        for part in content
    )


def messages_space(parts: bool = False) -> Messages:
    """The space of ``observation["messages"]``: plain strings, or lists of parts in the image modality."""
    return Messages(parts=parts)


def text_space() -> RawText:
    """The action space: any raw model text."""
    return RawText()
