"""The rollout engine: many episodes side by side, several attempts each, every token read once.

How they differ:
* official code: one episode at a time with `generate`. Every attempt reads the whole history again, and a second
  forward pass computes the log-probabilities.
* ours: a batch of environments advances attempt by attempt. The KV cache survives from one attempt to the next, so
  only the feedback is read; rows of finished episodes are dropped; log-probabilities and values are kept from sampling.
  When an environment rewrites its prompt (navigation after a correct step), a new sequence starts, and only the tokens
  after the prefix shared with the old one are read. A picture is read once, with the chunk that holds its image tokens;
  if it differs from the last one, the shared prefix ends before those tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch

from ..messages import message_text
from .pictures import Picture
from .policy import Policy, Prompt


@dataclass
class Attempt:
    """One answer of the model: ``ids[start:end]`` of its sequence, and its outcome."""

    start: int
    end: int
    logprobs: list[float]  # of the sampled tokens, at the sampling temperature
    value: float  # the critic's estimate at the last prompt token; 0 without a critic
    text: str = ""
    reward: float = 0.0
    outcome: str = ""
    feedback: str = ""
    sampled: list[float] | None = None  # what the engine said, where `logprobs` are by now the learner's own


@dataclass
class Conversation:
    """One token sequence: a prompt, an answer, feedback, an answer, ..."""

    ids: list[int]
    attempts: list[Attempt] = field(default_factory=list)
    picture: Picture | None = None  # the one whose image tokens are in `ids`


@dataclass
class Episode:
    """All attempts of one episode, in order, over one or more sequences."""

    conversations: list[Conversation]
    info: dict[str, Any]  # returned by reset
    terminated: bool = False
    truncated: bool = False
    tokens_read: int = 0  # tokens that went through the model

    @property
    def attempts(self) -> list[Attempt]:
        return [attempt for conversation in self.conversations for attempt in conversation.attempts]


def shared_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common prefix of two sequences."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def cached_prefix(read: Sequence[int], prompt: Prompt, same_picture: bool, image_token: int | None) -> int:
    """How many tokens of `prompt` the KV cache holds after `read`; for a new picture, only those before its tokens.

    The last prompt token is always fed again because we need its hidden state.
    """
    shared = prompt.ids[: shared_prefix(read, prompt.ids[:-1])]
    return len(shared) if same_picture or image_token not in shared else shared.index(image_token)


def random_draws(turns: Sequence[tuple[int, int]], longest: int) -> torch.Tensor:
    """Uniform numbers in [0, 1), (turns, longest), a stream per turn: (seed of the episode, number of its attempt).

    From NumPy's counter-based Philox generator, so that no stream depends on another.
    """
    streams = (np.random.Generator(np.random.Philox(key=turn)) for turn in turns)
    return torch.from_numpy(np.stack([stream.random(longest) for stream in streams]))


@torch.no_grad()
def rollout(
    policy: Policy,
    envs: Sequence[gymnasium.Env],
    resets: Sequence[dict[str, Any]],
    temperature: float,
    max_new_tokens: int,
    seeds: Sequence[int],
    ended: Callable[[Episode], None] | None = None,
) -> list[Episode]:
    """Play an episode per reset, as many side by side as there are environments; returns them in that order.

    `resets` holds the keyword arguments of ``reset`` (seed and options), `seeds` the seeds of the sampling: an answer
    depends on its own episode, attempt and seed, not on what is played beside it. `temperature` 0 is greedy. `ended` is
    called with each episode that has just ended.
    """
    if len(resets) > len(envs):
        parts = [slice(first, first + len(envs)) for first in range(0, len(resets), len(envs))]
        played = (
            rollout(policy, envs, resets[part], temperature, max_new_tokens, seeds[part], ended) for part in parts
        )
        return [episode for episodes in played for episode in episodes]
    policy.model.eval()
    episodes, chunks, known = [], [], []
    for env, reset in zip(envs, resets, strict=False):
        observation, info = env.reset(**reset)
        prompt = policy.prompt(observation)
        chunks.append(prompt.ids)
        episodes.append(Episode([Conversation(list(prompt.ids), picture=prompt.picture)], info))
        known.append(observation)
    decoding = policy.decoding
    decoding.begin(len(resets), max_new_tokens)
    active = list(range(len(resets)))
    while active:
        hidden = decoding.feed(chunks, [episodes[index].conversations[-1].picture for index in active])
        values = policy.value_head(hidden).tolist() if policy.value_head is not None else [0.0] * len(active)
        turns = [(seeds[index], len(episodes[index].attempts)) for index in active]
        answers, logprobs = decoding.answer(hidden, temperature, random_draws(turns, max_new_tokens).to(policy.device))
        kept, lengths, next_chunks = [], [], []
        for row, index in enumerate(active):
            episode = episodes[index]
            conversation = episode.conversations[-1]
            start = len(conversation.ids)
            conversation.ids += answers[row]
            closed = answers[row][-1] == policy.end_token
            text = policy.tokenizer.decode(answers[row][: -1 if closed else None], skip_special_tokens=True)
            observation, reward, terminated, truncated, info = envs[index].step(text)
            attempt = Attempt(start, len(conversation.ids), logprobs[row], values[row], text, float(reward))
            attempt.outcome, attempt.feedback = info["outcome"], info["feedback"]
            conversation.attempts.append(attempt)
            episode.terminated, episode.truncated = terminated, truncated
            episode.tokens_read += len(chunks[row]) + len(answers[row]) - 1
            if policy.picture_tokens and policy.image_token in chunks[row]:
                episode.tokens_read += policy.picture_tokens
            if terminated or truncated:
                if ended:
                    ended(episode)
                continue
            kept.append(row)
            messages = observation["messages"]
            same_picture = np.array_equal(observation.get("image"), known[index].get("image"))
            read = conversation.ids[:-1]  # the last sampled token has not been fed yet
            if same_picture and messages[:-2] == known[index]["messages"]:
                conversation.ids += [] if closed else [policy.end_token]
                conversation.ids += policy.continuation_ids(message_text(messages[-1]))
                lengths.append(len(read))
            else:
                prompt = policy.prompt(observation)
                conversation = Conversation(list(prompt.ids), picture=prompt.picture)
                episode.conversations.append(conversation)
                reusable = same_picture or not policy.crosses
                lengths.append(cached_prefix(read, prompt, same_picture, policy.image_token) if reusable else 0)
            next_chunks.append(conversation.ids[lengths[-1] :])
            known[index] = observation
        if kept:
            decoding.keep(kept, lengths)
        chunks = next_chunks
        active = [active[row] for row in kept]
    return episodes
