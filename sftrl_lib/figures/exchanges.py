"""Reading a transcript: its exchanges (one question and the attempts at it), and what prompts hold.

In GeneralPoints an episode is one exchange. In navigation it is one a position: the first attempt there has the
whole prompt, a retry only the verifier's feedback.
"""

from __future__ import annotations

import itertools
import re

_HEADING = re.compile(r"^\[([A-Z][A-Za-z ]*)\]\s*$", re.MULTILINE)
_OBSERVATION = re.compile(r"^O_\d+: ?(.*)$", re.MULTILINE)


def exchanges(episode: dict) -> list[list[dict]]:
    """The turns of an episode, grouped by the question that they answer."""
    if episode["task"] != "navigation":
        return [episode["turns"]] if episode["turns"] else []
    return [list(turns) for _, turns in itertools.groupby(episode["turns"], key=lambda turn: turn.get("position"))]


def sections(prompt: str) -> dict[str, str]:
    """The paragraphs of a paper prompt by their headings, e.g. "Action space"."""
    pieces = _HEADING.split(str(prompt))
    return {name: text.strip("\n") for name, text in zip(pieces[1::2], pieces[2::2], strict=False)}


def observation(prompt: str) -> str:
    """The latest observation that a navigation prompt states; "" if there is none."""
    found = _OBSERVATION.findall(str(prompt))
    return found[-1].strip() if found else ""
