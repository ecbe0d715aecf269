"""Streams of random seeds that never meet, one per purpose: what is trained on is not what is tested on.

NumPy fills the entropy of a `SeedSequence` up with zeros, so that [5] and [5, 0] are one stream. Every stream here
begins with the number of its purpose, which is not zero and which no other purpose has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .task import Task

TEST_EPISODES, TEST_SAMPLING, TRAINING, INTERFACE_QUESTIONS, INTERFACE_SAMPLING, OWN_ANSWERS = 1, 2, 3, 4, 5, 6


def stream(purpose: int, *numbers: int, count: int) -> list[int]:
    """The first `count` seeds (32 bits) of the stream that belongs to a purpose and some numbers of one's own."""
    return [int(seed) for seed in np.random.SeedSequence([purpose, *numbers]).generate_state(count)]


def of_split(purpose: int, task: Task, split: str, seed: int, count: int) -> list[int]:
    """The seeds of a split or probe of a task."""
    return stream(purpose, seed, [*task.splits, *task.probes].index(split), count=count)


def resets(task: Task, split: str, seed: int, count: int) -> list[dict[str, Any]]:
    """The arguments of ``reset`` for the hands or routes of a split that every player is tested on."""
    return task.resets(split, of_split(TEST_EPISODES, task, split, seed, count))
