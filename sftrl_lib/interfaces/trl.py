"""GeneralPoints in TRL's `GRPOTrainer`: a reward for one answer, and episodes of several attempts with feedback.

Several attempts, decoded by this project's engine:

    hands = Episodes(TASKS["gp-l"], hands=512, attempts=5)
    trainer = GRPOTrainer(
        model=policy.model, processing_class=policy.tokenizer, args=args,
        train_dataset=hands.dataset, rollout_func=hands.rollout_func, reward_funcs=hands.reward,
    )

One attempt, decoded by TRL, needs nothing but `hands.dataset` and ``reward_funcs=hands.grade``.

How they differ: GRPO's advantage is that of the whole episode, for every answer in it; multi-turn PPO (see
`training/ppo.py`) gives each attempt its own. TRL's `rollout_func` is experimental; tested with TRL 1.16. A task that
rewrites its prompt, as navigation does, is no single prompt and completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from ..messages import Message, message_text
from ..models.policy import Policy
from ..models.rollout import Episode, rollout
from ..seeds import INTERFACE_QUESTIONS, INTERFACE_SAMPLING, stream
from ..task import Task


class Episodes:
    """Questions of a text task for TRL, and how to play and reward them."""

    def __init__(
        self, task: Task, hands: int, attempts: int = 5, max_new_tokens: int = 48, gamma: float = 0.9, seed: int = 0
    ) -> None:
        """`hands`: how many questions; `max_new_tokens`: per attempt; `gamma`: discount of an episode's rewards.

        Raises ValueError for a task with pictures.
        """
        if task.modality != "text":
            raise ValueError(f"TRL's rollout_func gets no pictures from an environment; {task.label} has some.")
        self.task, self.attempts, self.max_new_tokens, self.gamma = task, attempts, max_new_tokens, gamma
        seeds = stream(INTERFACE_QUESTIONS, seed, count=hands)
        self._env = task.training_env(attempts)
        prompts = [self._env.reset(seed=reset)[0]["messages"] for reset in seeds]
        self._resets = {_key(prompt): reset for prompt, reset in zip(prompts, seeds, strict=True)}
        self._policy: Policy | None = None
        self._sampling = np.random.default_rng([INTERFACE_SAMPLING, seed])
        self.dataset = Dataset.from_dict({"prompt": prompts})

    def rollout_func(self, prompts: Sequence[list[Message]], trainer: Any) -> dict[str, list]:
        """Play the prompts' questions, one episode each, with the trainer's model and temperature.

        `env_mask` is 0 where the feedback stands, which is not trained on.
        """
        model = trainer.accelerator.unwrap_model(trainer.model)
        if self._policy is None or self._policy.model is not model:
            self._policy = Policy(model, trainer.processing_class)
        training = model.training
        episodes = rollout(
            self._policy,
            [self.task.training_env(self.attempts) for _ in prompts],
            [{"seed": self._resets[_key(prompt)]} for prompt in prompts],
            trainer.args.temperature,
            self.max_new_tokens,
            self._sampling.integers(2**32, size=len(prompts)).tolist(),
        )
        model.train(training)
        rows = [self._row(episode) for episode in episodes]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _row(self, episode: Episode) -> dict[str, Any]:
        if len(episode.conversations) > 1:
            raise ValueError(f"{self.task.label} rewrites its prompt, which TRL has no place for.")
        [conversation] = episode.conversations
        start, end = episode.attempts[0].start, episode.attempts[-1].end
        mask, logprobs = [0] * (end - start), [0.0] * (end - start)
        for attempt in episode.attempts:
            answer = slice(attempt.start - start, attempt.end - start)
            mask[answer], logprobs[answer] = [1] * len(attempt.logprobs), attempt.logprobs
        return {
            "prompt_ids": conversation.ids[:start],
            "completion_ids": conversation.ids[start:end],
            "logprobs": logprobs,
            "env_mask": mask,
            "episode_return": sum(a.reward * self.gamma**k for k, a in enumerate(episode.attempts)),
            "solved": episode.terminated,
        }

    def reward(self, prompts: Any, completions: Any, episode_return: list[float], **_: Any) -> list[float]:
        """The discounted rewards of the episodes that `rollout_func` played."""
        return episode_return

    def grade(self, prompts: Sequence[list[Message]], completions: Sequence[list[Message]], **_: Any) -> list[float]:
        """The verifier's reward of one answer to each prompt, however it was sampled."""
        rewards = []
        for prompt, completion in zip(prompts, completions, strict=True):
            self._env.reset(seed=self._resets[_key(prompt)])
            rewards.append(float(self._env.step(message_text(completion[-1]))[1]))
        return rewards


def _key(prompt: Sequence[Message]) -> str:
    """Questions with the same prompt are the same question."""
    return "\n".join(message_text(message) for message in prompt)
