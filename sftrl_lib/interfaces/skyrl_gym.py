"""The tasks as a skyrl-gym environment: one question, several attempts, the verifier's feedback as the user's turn.

    import sftrl_lib.interfaces.skyrl_gym   # registers "sftrl"
    env = skyrl_gym.make("sftrl", extras={"info": row["info"], "attempts": 5})
    prompt, _ = env.init(row["prompt"])

`row` is one of `interfaces.questions.questions`, or a line of `interfaces.export`; SkyRL hands a row's columns on as
`extras`. Written for skyrl-gym 0.4 (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import skyrl_gym
from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput

from ..messages import Message, text_message
from .questions import Play

NAME = "sftrl"


class QuestionEnv(BaseTextEnv):
    """A question of `extras["info"]`, with `extras["attempts"]` attempts; the paper's if that is 0 or missing."""

    def __init__(self, env_config: Any = None, extras: Mapping[str, Any] | None = None) -> None:
        """Raises ValueError if there is no question in `extras`."""
        super().__init__()
        extras = extras or {}
        self._play = Play(extras.get("info", {}), int(extras.get("attempts", 0)))
        self.max_turns = self._play.attempts

    def init(self, prompt: Sequence[Message]) -> tuple[list[Message], dict[str, Any]]:
        """The prompt as the row has it."""
        return list(prompt), {}

    def step(self, action: str) -> BaseTextEnvStepOutput:
        """Grade an answer; its feedback is the observation unless the question is over."""
        self.turns += 1
        feedback = self._play.answer(action)
        return BaseTextEnvStepOutput(
            observations=[] if self._play.done else [text_message("user", feedback)],
            reward=self._play.rewards[-1],
            done=self._play.done,
            metadata={"outcome": self._play.info["outcome"]},
        )

    def get_metrics(self) -> dict[str, Any]:
        """Of the episode so far; skyrl-gym averages them."""
        return {"attempts": self.turns, "solved": float(self._play.solved)}


if NAME not in skyrl_gym.registry:
    skyrl_gym.register(id=NAME, entry_point=f"{__name__}:QuestionEnv")
