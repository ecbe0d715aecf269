"""The rollout engine: many episodes side by side, several attempts each, every token read once.

How they differ:
* official code: one episode at a time with `generate`, the whole history read again for every attempt, then a second
  forward pass to get the log-probabilities.
* ours: a batch of environments advances attempt by attempt. The key-value cache survives from one attempt to the
  next and only the feedback is read; rows of finished episodes are dropped; log-probabilities and values are kept as
  they are sampled. An environment that rewrites its prompt (navigation after a correct step) starts a new sequence, of
  which only what follows the common beginning with the old one is read. A picture is read once, with the chunk that
  holds its image tokens; where it differs from the last one, the common beginning ends before them.

A batch is ragged: each row has its own length. Tokens are written at each row's own positions, and a query at
position p sees the slots 0..p, so neither padding nor an attention mask over holes is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from ..messages import message_text
from ..models.policy import Picture, Policy, Prompt, stack_pictures

_GROWTH = 64  # slots by which the cache grows


@dataclass
class Attempt:
    """One answer of the model: ``ids[start:end]`` of its sequence, and what came of it."""

    start: int
    end: int
    logprobs: list[float]  # of the sampled tokens, at the sampling temperature
    value: float  # the critic's estimate at the last prompt token; 0 without a critic
    text: str = ""
    reward: float = 0.0
    outcome: str = ""
    feedback: str = ""


@dataclass
class Conversation:
    """One token sequence: a prompt, an answer, feedback, an answer, ..."""

    ids: list[int]
    attempts: list[Attempt] = field(default_factory=list)
    picture: Picture | None = None  # of the image tokens among the ids


@dataclass
class Episode:
    """All attempts of one episode, in order, over one or more sequences."""

    conversations: list[Conversation]
    info: dict[str, Any]  # of the reset
    terminated: bool = False
    truncated: bool = False
    tokens_read: int = 0  # tokens that went through the model

    @property
    def attempts(self) -> list[Attempt]:
        return [attempt for conversation in self.conversations for attempt in conversation.attempts]


class RaggedLayer(CacheLayerMixin):
    """Keys and values of one layer, (rows, heads, slots, head size), written at each row's own positions.

    This layout, not (rows, slots, heads, ...), because attention reads all slots of a head: 1.6 times as fast on CPU.
    """

    def __init__(self, owner: RaggedCache) -> None:
        super().__init__()
        self.owner = owner

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        rows, heads, _, size = key_states.shape
        self.keys = key_states.new_zeros(rows, heads, self.owner.slots, size)
        self.values = value_states.new_zeros(rows, heads, self.owner.slots, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.keys.shape[2] < self.owner.slots:
            missing = self.owner.slots - self.keys.shape[2]
            self.keys = torch.nn.functional.pad(self.keys, (0, 0, 0, missing))
            self.values = torch.nn.functional.pad(self.values, (0, 0, 0, missing))
        where = self.owner.rows, slice(None), self.owner.positions
        self.keys[where] = key_states.transpose(1, 2)
        self.values[where] = value_states.transpose(1, 2)
        visible = self.owner.visible
        return self.keys[:, :, :visible], self.values[:, :, :visible]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.owner.visible, 0

    def get_seq_length(self) -> int:
        return self.owner.visible

    def get_max_length(self) -> int:
        return -1


class RaggedCache(Cache):
    """A key-value cache whose rows have their own lengths."""

    def __init__(self, layers: int) -> None:
        self.slots = self.visible = 0
        super().__init__(layers=[RaggedLayer(self) for _ in range(layers)])

    def place(self, positions: torch.Tensor) -> torch.Tensor:
        """Say where the next tokens go, (rows, tokens); returns their attention mask, (rows, 1, tokens, slots)."""
        self.positions = positions
        self.rows = torch.arange(len(positions), device=positions.device)[:, None]
        self.visible = int(positions.max()) + 1
        if self.visible > self.slots:
            self.slots = -(-self.visible // _GROWTH) * _GROWTH
        slots = torch.arange(self.visible, device=positions.device)
        return (slots <= positions[:, :, None])[:, None]

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all other rows."""
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]


class Decoding:
    """A batch of sequences on one model: feed tokens, sample answers."""

    def __init__(self, policy: Policy, temperature: float, max_new_tokens: int, generator: torch.Generator) -> None:
        self.policy = policy
        self.temperature = temperature
        self.max_new_tokens = max_new_tokens
        self.generator = generator
        self.cache = RaggedCache(policy.model.config.get_text_config().num_hidden_layers)
        self.lengths = torch.zeros(0, dtype=torch.long, device=policy.device)

    def keep(self, rows: list[int], lengths: list[int]) -> None:
        """Drop all other rows, and of these rows what follows their first `lengths` tokens."""
        if len(rows) < len(self.lengths):
            self.cache.keep(torch.tensor(rows, device=self.policy.device))
        self.lengths = torch.tensor(lengths, device=self.policy.device)

    def feed(self, chunks: Sequence[list[int]], pictures: Sequence[Picture | None]) -> torch.Tensor:
        """Append a chunk of tokens to every row; returns the hidden state at each chunk's end, (rows, hidden size).

        `pictures` are those of the rows' conversations; a picture is shown if its image tokens are in the chunk.
        """
        device = self.policy.device
        if not len(self.lengths):
            self.lengths = torch.zeros(len(chunks), dtype=torch.long, device=device)
        longest = max(map(len, chunks))
        padded = torch.tensor([[*chunk, *[0] * (longest - len(chunk))] for chunk in chunks], device=device)
        sizes = torch.tensor([len(chunk) for chunk in chunks], device=device)
        # What is written past a row's end is overwritten by its next tokens before anything can see it.
        positions = self.lengths[:, None] + torch.arange(longest, device=device)
        image_token = self.policy.image_token
        shown = [picture for chunk, picture in zip(chunks, pictures, strict=True) if picture and image_token in chunk]
        hidden = self._forward(padded, positions, stack_pictures(shown, device))
        self.lengths = self.lengths + sizes
        return hidden[torch.arange(len(chunks), device=device), sizes - 1]

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, pictures: Picture | None = None) -> torch.Tensor:
        mask = self.cache.place(positions)
        return self.policy.decoder(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            **(pictures or {}),
        ).last_hidden_state

    def answer(self, hidden: torch.Tensor) -> tuple[list[list[int]], list[list[float]]]:
        """Sample from the hidden states at the prompts' ends until every row has ended its answer.

        Returns token ids (the end token, if it came, is last) and their log-probabilities, per row. The last token of
        an answer has not been fed yet: it belongs to the next chunk.
        """
        rows = len(hidden)
        ids: list[list[int]] = [[] for _ in range(rows)]
        logprobs: list[list[float]] = [[] for _ in range(rows)]
        active = torch.ones(rows, dtype=torch.bool, device=hidden.device)
        sampled, scores, alive = [], [], []
        for step in range(self.max_new_tokens):
            tokens, token_logprobs = self._sample(self.policy.logits(hidden))
            sampled.append(tokens)
            scores.append(token_logprobs)
            alive.append(active)
            active = active & (tokens != self.policy.end_token)
            if step + 1 == self.max_new_tokens or not active.any():
                break
            hidden = self._forward(tokens[:, None], self.lengths[:, None])[:, 0]
            self.lengths = self.lengths + active
        columns = zip(
            torch.stack(sampled).tolist(),
            torch.stack(scores).tolist(),
            torch.stack(alive).tolist(),
            strict=True,
        )
        for tokens, token_logprobs, was_active in columns:
            for row in range(rows):
                if was_active[row]:
                    ids[row].append(tokens[row])
                    logprobs[row].append(token_logprobs[row])
        return ids, logprobs

    def _sample(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logprobs = torch.log_softmax(logits / (self.temperature or 1.0), dim=-1)
        if self.temperature:
            # By the inverse of the distribution function: one random number a row, where multinomial draws one a token.
            cumulated = logprobs.double().exp().cumsum(-1)
            where = torch.rand(len(logits), 1, generator=self.generator, device=logits.device, dtype=torch.double)
            tokens = torch.searchsorted(cumulated, where * cumulated[:, -1:], right=True)
            tokens = tokens.clamp(max=logits.shape[-1] - 1)
        else:
            tokens = logprobs.argmax(-1, keepdim=True)
        return tokens[:, 0], logprobs.gather(-1, tokens)[:, 0]


def common_beginning(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences share from the start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def reusable(read: Sequence[int], prompt: Prompt, same_picture: bool, image_token: int | None) -> int:
    """How many tokens of `prompt` need not be read again after `read`; another picture has other image tokens.

    The last token is always read again, for the state at it is where the answer begins.
    """
    shared = prompt.ids[: common_beginning(read, prompt.ids[:-1])]
    return len(shared) if same_picture or image_token not in shared else shared.index(image_token)


@torch.no_grad()
def rollout(
    policy: Policy,
    envs: Sequence[gymnasium.Env],
    resets: Sequence[dict[str, Any]],
    temperature: float,
    max_new_tokens: int,
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
) -> list[Episode]:
    """Play one episode in every environment and return them in that order.

    `resets` holds the keyword arguments of each environment's ``reset`` (its seed and options). `temperature` 0 is
    greedy. `progress` is called with the number of episodes that have just ended.
    """
    policy.model.eval()
    episodes, chunks, known = [], [], []
    for env, reset in zip(envs, resets, strict=True):
        observation, info = env.reset(**reset)
        prompt = policy.prompt(observation)
        chunks.append(prompt.ids)
        episodes.append(Episode([Conversation(list(prompt.ids), picture=prompt.picture)], info))
        known.append(observation)
    decoding = Decoding(policy, temperature, max_new_tokens, generator)
    active = list(range(len(envs)))
    while active:
        hidden = decoding.feed(chunks, [episodes[index].conversations[-1].picture for index in active])
        values = policy.value_head(hidden).tolist() if policy.value_head is not None else [0.0] * len(active)
        answers, logprobs = decoding.answer(hidden)
        going_on, lengths, next_chunks = [], [], []
        for row, index in enumerate(active):
            episode = episodes[index]
            conversation = episode.conversations[-1]
            start = len(conversation.ids)
            conversation.ids += answers[row]
            ended = answers[row][-1] == policy.end_token
            text = policy.tokenizer.decode(answers[row][: -1 if ended else None], skip_special_tokens=True)
            observation, reward, terminated, truncated, info = envs[index].step(text)
            attempt = Attempt(start, len(conversation.ids), logprobs[row], values[row], text, float(reward))
            attempt.outcome, attempt.feedback = info["outcome"], info["feedback"]
            conversation.attempts.append(attempt)
            episode.terminated, episode.truncated = terminated, truncated
            episode.tokens_read += len(chunks[row]) + len(answers[row]) - 1
            if terminated or truncated:
                if progress:
                    progress(1)
                continue
            going_on.append(row)
            messages = observation["messages"]
            same_picture = np.array_equal(observation.get("image"), known[index].get("image"))
            read = conversation.ids[:-1]  # the last token sampled has not been fed yet
            if same_picture and messages[:-2] == known[index]["messages"]:
                conversation.ids += [] if ended else [policy.end_token]
                conversation.ids += policy.continuation_ids(message_text(messages[-1]))
                lengths.append(len(read))
            else:
                prompt = policy.prompt(observation)
                conversation = Conversation(list(prompt.ids), picture=prompt.picture)
                episode.conversations.append(conversation)
                lengths.append(reusable(read, prompt, same_picture, policy.image_token))
            next_chunks.append(conversation.ids[lengths[-1] :])
            known[index] = observation
        if going_on:
            decoding.keep(going_on, lengths)
        chunks = next_chunks
        active = [active[row] for row in going_on]
    return episodes
