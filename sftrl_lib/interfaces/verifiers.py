"""The tasks in verifiers 0.4: a taskset of questions, and an environment in which the verifier plays the user.

    eval sftrl-verifiers --env.taskset.key gp-l ...      # the module sftrl_verifiers exports both

How they differ: verifiers before 0.4 had a `MultiTurnEnv` and `load_environment`; 0.4 has tasks, a taskset, and an
`Env` whose `run` holds an interaction with the model open, turn by turn, as here. The episode's reward is the sum of
its attempts' rewards, without a discount, because verifiers has one reward for a conversation. Tested with 0.4.0 (MIT).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import verifiers.v1 as vf

from ..tasks import TASKS
from .questions import TRAIN, Play, as_openai, questions


class QuestionData(vf.TaskData):
    """A question on the wire."""

    answer: str  # the expert's
    info: dict[str, Any]  # of `questions`, for `Play`
    attempts: int


class QuestionTask(vf.Task[QuestionData, vf.State, vf.TaskConfig]):
    """A question; `QuestionsEnv` grades it."""


class QuestionsConfig(vf.TasksetConfig):
    """Which questions, and how often each may be answered."""

    key: str = "gp-l"  # of the task
    split: str = TRAIN
    count: int = 1_000
    attempts: int = 0  # 0: the paper's, 5 per hand and 2 per position
    seed: int = 0


class Questions(vf.Taskset[QuestionTask, QuestionsConfig]):
    """The questions of a task and split. Raises ValueError for one that does not exist."""

    def load(self) -> Iterator[QuestionTask]:
        config = self.config
        for number, row in enumerate(questions(TASKS[config.key], config.split, config.count, config.seed)):
            data = QuestionData(
                name=f"{config.key}-{config.split}-{config.seed}-{number}",
                prompt=as_openai(row["prompt"], row.get("image")),
                answer=row["answer"],
                info=row["info"],
                attempts=config.attempts,
            )
            yield QuestionTask(data, config.task)


class QuestionsEnvConfig(vf.EnvConfig):
    """The model that is trained or tested answers as `player`."""

    player: vf.AgentConfig = vf.AgentConfig()


class QuestionsEnv(vf.Env[QuestionsEnvConfig]):
    """The model answers; a failed attempt is followed by the verifier's feedback as the user's turn."""

    async def run(self, task: QuestionTask, agents: vf.Agents) -> None:
        play = Play(task.data.info, task.data.attempts)
        async with agents.player.interaction(task) as interaction:
            segment = await interaction.turn()
            while not segment.terminated:
                feedback = play.answer(segment.last_reply)
                if play.done:
                    break
                segment = await interaction.turn(feedback)
        interaction.trace.record_reward("verifier", sum(play.rewards))
        interaction.trace.record_metrics({"solved": float(play.solved), "attempts": len(play.rewards)})
