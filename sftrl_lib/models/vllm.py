"""Rollouts by vLLM, for models of billions of parameters on GPUs: an engine with the interface of `decoding.Decoding`.

TRL's `VLLMGeneration` runs vLLM in the training's own processes and brings it the learner's weights, in shards or not.
What is different from our engine:
* vLLM gives no hidden states, so there are no values, and its log-probabilities are not quite the learner's: with
  ``PPOConfig.importance_cap`` the learner computes both itself before it learns, and weights what it learns from.
* prefixes are reused by vLLM's own cache; every attempt hands over its whole sequence.
* what is sampled does not follow from the episodes' seeds, so a run cannot be repeated to the digit.
* text only: a conversation holds a picture as the processor made it, and vLLM wants the picture itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import torch

from .pictures import Picture

if TYPE_CHECKING:
    from accelerate import Accelerator

    from .policy import Policy

_MEMORY = 0.35  # share of a GPU's memory for vLLM's weights and cache, beside the learner


class Generation(Protocol):
    """What is used of TRL's `VLLMGeneration`."""

    temperature: float
    max_completion_length: int

    def sync_weights(self) -> None: ...

    def generate(self, prompts: list[list[int]], images: None, num_generations: int) -> tuple: ...


class VLLMDecoding:
    """A batch of sequences that `generation` continues."""

    def __init__(self, policy: Policy, generation: Generation) -> None:
        self.policy, self.generation = policy, generation

    def begin(self, rows: int, longest: int) -> None:
        """Start a batch of empty rows, with answers of at most `longest` tokens."""
        self._sequences: list[list[int]] = [[] for _ in range(rows)]
        self.generation.max_completion_length = longest

    def keep(self, rows: list[int], lengths: list[int]) -> None:
        """Drop all other rows, and cut each of these to its first `lengths` tokens."""
        self._sequences = [self._sequences[row][:length] for row, length in zip(rows, lengths, strict=True)]

    def feed(self, chunks: Sequence[list[int]], pictures: Sequence[Picture | None]) -> torch.Tensor:
        """Append a chunk of tokens to every row; no hidden states, (rows, 0). Raises ValueError for pictures."""
        if any(picture is not None for picture in pictures):
            raise ValueError("engine='vllm' plays text tasks only; use engine='ours' for tasks with pictures.")
        self._sequences = [[*read, *chunk] for read, chunk in zip(self._sequences, chunks, strict=True)]
        return torch.zeros(len(chunks), 0)

    def answer(
        self, hidden: torch.Tensor, temperature: float, draws: torch.Tensor
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Sample an answer for every row: token ids and their log-probabilities, as `Decoding.answer`."""
        self.generation.temperature = temperature
        _, answers, logprobs, *_ = self.generation.generate(self._sequences, None, 1)
        # As our engine does: the last token of an answer has not been fed yet.
        self._sequences = [[*read, *ids[:-1]] for read, ids in zip(self._sequences, answers, strict=True)]
        return [list(ids) for ids in answers], [[float(token[0]) for token in row] for row in logprobs]


def vllm_policy(policy: Policy, accelerator: Accelerator, longest: int) -> Policy:
    """A policy to play with, whose answers vLLM samples; its weights follow `policy` when `sync_weights` is called.

    `longest`: tokens of an answer, at most. Raises ValueError if vLLM is not installed.
    """
    from trl.import_utils import is_vllm_available

    if not is_vllm_available():
        raise ValueError("engine='vllm' needs vLLM, which is not installed: pip install 'trl[vllm]', or engine='ours'.")
    from trl.generation.vllm_generation import VLLMGeneration

    generation = VLLMGeneration(
        policy.model,
        accelerator,
        policy.tokenizer,
        gpu_memory_utilization=_MEMORY,
        max_completion_length=longest,
        generation_kwargs={"stop_token_ids": [policy.end_token]},
    )
    return with_engine(policy, generation)


def with_engine(policy: Policy, generation: Generation) -> Policy:
    """`policy` with the engine in place of our own."""
    actor = replace(policy, value_head=None)
    actor.decoding = VLLMDecoding(actor, generation)
    return actor
