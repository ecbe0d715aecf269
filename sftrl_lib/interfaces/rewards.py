"""Reward functions for TRL's trainers, which need nothing but a dataset's columns.

    GRPOTrainer(..., train_dataset=demonstrations, reward_funcs=points_reward)

They are called as TRL calls them: with the completions of a batch and, by name, the columns of its rows. Anything that
takes ``f(completions=..., **columns) -> list[float]`` can use them; torch is not loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..messages import Message, message_text
from ..points.verifier import grade
from .questions import Play


def points_reward(
    completions: Sequence[str | Sequence[Message]],
    cards: Sequence[Sequence[str]],
    rule: Sequence[str],
    target: Sequence[int],
    images: Sequence[Any] | None = None,
    **_: Any,
) -> list[float]:
    """GeneralPoints: the verifier's reward of each answer, 5 if it is right and -1 to -3 if not.

    The columns `cards`, `rule` and `target` are those of the demonstrations and of `questions`; with `images` the
    answer's cards are checked as well. A completion is a text, or a list of messages whose last one counts.
    """
    modality = "text" if images is None else "image"
    rows = zip(completions, cards, rule, target, strict=True)
    return [grade(text_of(said), hand, by, aim, modality).reward for said, hand, by, aim in rows]


def question_reward(
    completions: Sequence[str | Sequence[Message]], info: Sequence[Mapping[str, Any]], **_: Any
) -> list[float]:
    """Any task: the reward of one answer to the question that the column `info` describes."""
    rewards = []
    for said, about in zip(completions, info, strict=True):
        play = Play(about, attempts=1)
        play.answer(text_of(said))
        rewards += play.rewards
    return rewards


def text_of(completion: str | Sequence[Message]) -> str:
    """What was said; "" where there is no message."""
    if isinstance(completion, str):
        return completion
    return message_text(completion[-1]) if completion else ""
