"""What both tasks share: a verifier's grade, and an environment that gives several attempts with feedback in between.

How they differ:
* paper: exceeding the budget of attempts costs -1.
* official code: after the last graded attempt the model answers once more; that text is ignored, even if it is right,
  and earns -1. ``verifier="official"`` does the same.
* ours (``verifier="exact"``): the last graded attempt truncates the episode and keeps its own reward. The paper's -1
  would either score an answer that nothing reads, or replace the reward of the last attempt.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from .messages import Message, copied, messages_space, parts_message, text_message, text_space

VERIFIERS = ("exact", "official")
MODALITIES = ("text", "image")
MAX_TEXT = 100_000  # characters; longer answers are not parsed
OFFICIAL_FEEDBACK = "You failed this trial because {}"


@dataclass(frozen=True)
class Grade:
    """A verifier's grade of one answer.

    reward: the reward of the attempt. outcome: one of the task's outcomes. feedback: the whole sentence for the chat
    with ``verifier="exact"``; with ``verifier="official"`` the bare message (the released code's "Verify Info"),
    which the chat shows as "You failed this trial because {message}".
    """

    reward: float
    outcome: str
    feedback: str


def check_choice(name: str, value: Any, allowed: Sequence[str]) -> Any:
    """`value` itself. Raises ValueError naming the argument, the value and the allowed ones if it is not allowed."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not known; use one of {', '.join(map(repr, allowed))}.")
    return value


def check_whole(name: str, value: Any, least: int | None = None) -> int:
    """`value` as an int; NumPy integers are accepted. Raises ValueError if it is not an integer or is below `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or (least is not None and value < least):
        at_least = "" if least is None else f" of at least {least}"
        raise ValueError(f"{name} must be a whole number{at_least}, got {value!r}.")
    return int(value)


class AttemptsEnv(gym.Env):
    """An environment whose actions are raw text, graded by a verifier, with `max_attempts` per question.

    A subclass implements `_grade`, `_observation_image` and `_info`, and starts each question with `_ask`. A correct
    answer ends the episode unless `_advance` is overridden.
    """

    exceeded: Grade  # the released code's grade of the answer after the last attempt

    def __init__(self, modality: str, max_attempts: int, verifier: str, image_shape: tuple[int, int]) -> None:
        self.modality = check_choice("modality", modality, MODALITIES)
        self.max_attempts = check_whole("max_attempts", max_attempts, 1)
        self.verifier = check_choice("verifier", verifier, VERIFIERS)
        self.action_space = text_space()
        self.observation_space = spaces.Dict({"messages": messages_space(parts=modality == "image")})
        if modality == "image":
            self.observation_space["image"] = spaces.Box(0, 255, (*image_shape, 3), np.uint8)
        self._done = True

    def step(self, action: str) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Grade one answer. Raises ValueError if it is not text, ResetNeeded after the end of an episode."""
        if self._done:
            raise ResetNeeded("The episode is over (or has not begun); call reset() before step().")
        if not isinstance(action, str):
            raise ValueError(f"An action is the model's answer as text, got {type(action).__name__}.")
        official = self.verifier == "official"
        if official and self._attempts_left == 0:
            grade, truncated = self.exceeded, True
        else:
            grade = self._grade(action)
            self._attempts_left -= 1
            truncated = not official and self._attempts_left == 0 and grade.outcome != "correct"
        terminated = self._advance(action, grade)
        self._done = terminated or truncated
        return self._observation(), grade.reward, terminated, truncated, self._info(grade.outcome, grade.feedback)

    def _ask(self, prompt: str) -> None:
        """Start a chat with `prompt` and all attempts left."""
        self._messages = [self._message("user", prompt, image=True)]
        self._attempts_left = self.max_attempts
        self._done = False

    def _advance(self, action: str, grade: Grade) -> bool:
        """Append the answer and, if it failed, the feedback; returns whether the episode is solved."""
        self._messages.append(self._message("assistant", action))
        correct = grade.outcome == "correct"
        if not correct:
            official = self.verifier == "official"
            sentence = OFFICIAL_FEEDBACK.format(grade.feedback) if official else grade.feedback
            self._messages.append(self._message("user", sentence))
        return correct

    def _message(self, role: str, text: str, image: bool = False) -> Message:
        return parts_message(role, text, image) if self.modality == "image" else text_message(role, text)

    def _observation(self) -> dict[str, Any]:
        observation: dict[str, Any] = {"messages": copied(self._messages)}
        if self.modality == "image":
            observation["image"] = self._observation_image()
        return observation

    @abstractmethod
    def _grade(self, action: str) -> Grade:
        """The verifier's grade of an answer to the current question."""

    @abstractmethod
    def _info(self, outcome: str | None, feedback: str | None) -> dict[str, Any]:
        """Gymnasium's info, including `outcome` and `feedback` (both None at reset)."""

    def _observation_image(self) -> np.ndarray:
        """A copy of the current question's picture, uint8, (height, width, 3)."""
        raise NotImplementedError(f"{type(self).__name__} has no pictures.")
