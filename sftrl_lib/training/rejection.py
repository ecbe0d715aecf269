"""Rejection sampling: SFT on the model's own right answers. Is it RL that generalises, or is it data of one's own?

How they differ:
* paper and official code: none.
* the literature (RFT, STaR; for this question arXiv 2510.18874 and OpenReview oOIBhwU9Gh): sample from the model that
  is to be trained, keep the right answers, fine-tune on them; matched to RL by the number of right answers, or by that
  of all rollouts.
* ours: one round. Init plays training hands as RL does, with several attempts and feedback; each right answer, after
  the failed ones before it, is one example with the loss on it alone. Sampling costs what it costs in RL (2 N a token),
  and SFT gets what is left of the branch's budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from datasets import Dataset
from tqdm import tqdm

from ..files import fresh_folder, replace_folder
from ..messages import text_message
from ..models.rollout import Episode, rollout
from ..seeds import OWN_ANSWERS
from ..task import Example, pictured_example
from . import sft
from .branch import Branch
from .data import as_dataset, read_dataset

_MOST = 20  # rollouts per right answer that is asked for, before it gives up


def train(branch: Branch) -> None:
    """Sample, keep what is right, and train on it; see `Branch` for what it writes.

    Raises ValueError if too few answers are right, or if sampling alone spends the budget.
    """
    folder = branch.folder / "own-answers"
    with branch.processes.main_first():
        if not folder.exists():
            dataset, tokens = sample(branch)
            fresh = fresh_folder(folder)
            dataset.save_to_disk(fresh / "dataset")
            (fresh / "tokens").write_text(str(tokens), encoding="utf-8")
            replace_folder(fresh, folder)
    branch.data = read_dataset(folder / "dataset")
    branch.compute.buffer_tokens = int((folder / "tokens").read_text(encoding="utf-8"))
    if branch.compute.fork_flops >= branch.budget:
        raise ValueError(f"Sampling {len(branch.data)} right answers has spent the whole budget; ask for fewer.")
    sft.train(branch)


def sample(branch: Branch) -> tuple[Dataset, int]:
    """The right answers of `branch.policy` to training hands as SFT data, and the tokens that were read for them."""
    config, task = branch.config, branch.task
    *envs, again = (task.training_env(config.attempts) for _ in range(min(config.count, branch.rollout_batch) + 1))
    rng = np.random.default_rng([OWN_ANSWERS, branch.seed])
    examples: list[Example] = []
    done = played = tokens = 0
    with tqdm(total=config.count, desc="sampling", unit=config.counted, mininterval=10, leave=False) as bar:
        while done < config.count:
            if played >= _MOST * config.count:
                few = f"{played} hands gave only {len(examples)} right answers"
                raise ValueError(f"{few}; {config.count} were asked for.")
            size = min(len(envs), config.count - done) if config.counted == "rollouts" else len(envs)
            hands, sampling = rng.integers(2**32, size=(2, size)).tolist()
            resets = [{"seed": seed} for seed in hands]
            episodes = rollout(branch.policy, envs, resets, config.temperature, config.max_new_tokens, sampling)
            for reset, episode in zip(resets, episodes, strict=True):
                examples += right_answers(again, reset, episode)
            tokens += sum(episode.tokens_read for episode in episodes)
            played += size
            done = played if config.counted == "rollouts" else len(examples)
            bar.update(min(done, config.count) - bar.n)
    if not examples:
        raise ValueError(f"{played} hands gave no right answer, so there is nothing to train on.")
    if config.counted == "right":
        examples = examples[: config.count]
    return as_dataset(examples, task.modality), tokens


def right_answers(env: gymnasium.Env, reset: dict[str, Any], episode: Episode) -> Iterator[Example]:
    """The right answers of an episode as SFT examples, each with what was asked and answered before it.

    The episode is played again in `env`, which remembers the chat in words.
    """
    observation, _ = env.reset(**reset)
    for attempt in episode.attempts:
        if attempt.outcome == "correct":
            yield _example(observation, attempt.text)
        observation, *_ = env.step(attempt.text)


def _example(observation: dict[str, Any], answer: str) -> Example:
    if "image" in observation:
        return pictured_example(observation, answer)
    return {"prompt": observation["messages"], "completion": [text_message("assistant", answer)]}
