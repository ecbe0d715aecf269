"""A batch of token sequences on one model: feed tokens, sample answers, every token read once.

A batch is ragged: each row has its own length. Tokens are written at each row's own positions, and a query at
position p attends to slots 0..p, so neither padding nor an attention mask over holes is needed. Answers differ in
length too: once half of the rows have ended theirs, the finished rows are dropped and the others continue alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from .policy import Picture, Policy, stack_pictures

_GROWTH = 64  # slots by which the cache grows
_FEED = 4096  # tokens per forward pass, in rows with chunks of similar length: less padding, fewer cache misses
_DROP = 0.5  # share of the rows still answering at which the finished rows are dropped


class RaggedLayer(CacheLayerMixin):
    """Keys and values of one layer, (rows, heads, slots, head size), written at each row's own positions.

    This layout, not (rows, slots, heads, ...), because attention reads all slots of a head: 1.6 times as fast on CPU.
    """

    def __init__(self, owner: RaggedCache) -> None:
        super().__init__()
        self.owner = owner

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        shape = self.owner.count, key_states.shape[1], self.owner.slots
        self.keys = key_states.new_zeros(*shape, key_states.shape[-1])
        self.values = value_states.new_zeros(*shape, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.keys.shape[2] < self.owner.slots:
            missing = self.owner.slots - self.keys.shape[2]
            self.keys = torch.nn.functional.pad(self.keys, (0, 0, 0, missing))
            self.values = torch.nn.functional.pad(self.values, (0, 0, 0, missing))
        rows, visible = self.owner.rows, self.owner.visible
        where = rows[:, None], slice(None), self.owner.positions
        self.keys[where] = key_states.transpose(1, 2)
        self.values[where] = value_states.transpose(1, 2)
        if len(rows) < len(self.keys):
            return self.keys[rows, :, :visible], self.values[rows, :, :visible]
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
        self.count = self.slots = self.visible = 0
        self._dropped: tuple[torch.Tensor, int, list[tuple[torch.Tensor, torch.Tensor]]] | None = None
        super().__init__(layers=[RaggedLayer(self) for _ in range(layers)])

    def reserve(self, slots: int) -> None:
        """Make room for sequences of `slots` tokens; layers grow when the next tokens are written."""
        if slots > self.slots:
            self.slots = -(-slots // _GROWTH) * _GROWTH

    def set_positions(self, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Set where the next tokens go, (rows, tokens); returns their attention mask, (rows, 1, tokens, slots)."""
        self.rows, self.positions = rows, positions
        self.visible = int(positions.max()) + 1
        self.reserve(self.visible)
        slots = torch.arange(self.visible, device=positions.device)
        return (slots <= positions[:, :, None])[:, None]

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all other rows."""
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]

    def drop_finished(self, rows: torch.Tensor, first: int) -> None:
        """Keep only `rows`, indices into the whole batch, until `restore_rows`.

        They write nothing before slot `first`, and only where room has been reserved.
        """
        self.restore_rows()
        self._dropped = rows, first, [(layer.keys, layer.values) for layer in self.layers]
        self.keep(rows)

    def restore_rows(self) -> None:
        """Put all rows back; those kept by `drop_finished` keep what they have written since."""
        if self._dropped is None:
            return
        rows, first, whole = self._dropped
        written = slice(first, self.visible)
        for layer, (keys, values) in zip(self.layers, whole, strict=True):
            keys[rows, :, written], values[rows, :, written] = layer.keys[:, :, written], layer.values[:, :, written]
            layer.keys, layer.values = keys, values
        self._dropped = None


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
        """Drop all other rows, and cut each of these to its first `lengths` tokens."""
        if len(rows) < len(self.lengths):
            self.cache.keep(torch.tensor(rows, device=self.policy.device))
        self.lengths = torch.tensor(lengths, device=self.policy.device)

    def feed(self, chunks: Sequence[list[int]], pictures: Sequence[Picture | None]) -> torch.Tensor:
        """Append a chunk of tokens to every row; returns the hidden state at each chunk's end, (rows, hidden size).

        `pictures` has one item per row; a picture is used only if its image tokens are in the chunk.
        """
        device, count = self.policy.device, len(chunks)
        if not len(self.lengths):
            self.lengths = torch.zeros(count, dtype=torch.long, device=device)
            self.cache.count = count
        sizes = torch.tensor([len(chunk) for chunk in chunks], device=device)
        by_length = sizes.argsort(stable=True).tensor_split(-(-int(sizes.sum()) // _FEED))
        parts, ends = [rows.sort().values for rows in by_length], []
        for rows in parts:
            part = [chunks[row] for row in rows.tolist()]
            longest = max(map(len, part))
            padded = torch.tensor([[*chunk, *[0] * (longest - len(chunk))] for chunk in part], device=device)
            # Padding writes past a row's end; the row's next tokens overwrite it before anything can attend to it.
            positions = self.lengths[rows, None] + torch.arange(longest, device=device)
            shown = (pictures[row] for row in rows.tolist() if self.policy.image_token in chunks[row])
            hidden = self._forward(padded, positions, rows, stack_pictures(shown, device))
            ends.append(hidden[torch.arange(len(part), device=device), sizes[rows] - 1])
        self.lengths = self.lengths + sizes
        return torch.cat(ends)[torch.cat(parts).argsort()]

    def _forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        rows: torch.Tensor | None = None,
        pictures: Picture | None = None,
    ) -> torch.Tensor:
        """Hidden states of tokens at `positions`, both (rows, tokens); `rows` are ascending indices, all if None."""
        rows = torch.arange(len(ids), device=ids.device) if rows is None else rows
        return self.policy.decoder(
            input_ids=ids,
            position_ids=positions,
            attention_mask=self.cache.set_positions(rows, positions),
            past_key_values=self.cache,
            use_cache=True,
            **(pictures or {}),
        ).last_hidden_state

    def answer(self, hidden: torch.Tensor) -> tuple[list[list[int]], list[list[float]]]:
        """Sample from the hidden states at the prompts' ends until every row has ended its answer.

        Returns token ids (the end token, if it came, is last) and their log-probabilities, per row. The last token of
        an answer has not been fed yet: it belongs to the next chunk.
        """
        device, count = hidden.device, len(hidden)
        ids: list[list[int]] = [[] for _ in range(count)]
        logprobs: list[list[float]] = [[] for _ in range(count)]
        rows = torch.arange(count, device=device)  # indices of the rows being decoded
        active = torch.ones(count, dtype=torch.bool, device=device)  # which of them have not ended their answer
        columns = []
        self.cache.reserve(int(self.lengths.max()) + self.max_new_tokens)
        for step in range(self.max_new_tokens):
            tokens, token_logprobs = self._sample(self.policy.logits(hidden), rows, count)
            columns.append((rows, tokens, token_logprobs, active))
            active = active & (tokens != self.policy.end_token)
            left = int(active.sum())
            if step + 1 == self.max_new_tokens or not left:
                break
            # Decode one token for all rows first, so that every layer has allocated its cache.
            if step and left <= len(rows) * _DROP:
                rows, tokens, active = rows[active], tokens[active], active[active]
                self.cache.drop_finished(rows, int(self.lengths[rows].min()))
            hidden = self._forward(tokens[:, None], self.lengths[rows, None])[:, 0]
            self.lengths[rows] += active
        self.cache.restore_rows()
        for column in columns:
            for row, token, logprob, was_active in zip(*(tensor.tolist() for tensor in column), strict=True):
                if was_active:
                    ids[row].append(token)
                    logprobs[row].append(logprob)
        return ids, logprobs

    def _sample(self, logits: torch.Tensor, rows: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A token and its log-probability for each of `rows`, (rows,) each.

        Each of the `count` rows draws its own random number, so results do not depend on which rows are still active.
        """
        logprobs = torch.log_softmax(logits / (self.temperature or 1.0), dim=-1)
        if self.temperature:
            # Inverse transform sampling: one random number per row, where multinomial draws one per token.
            cumulated = logprobs.double().exp().cumsum(-1)
            where = torch.rand(count, 1, generator=self.generator, device=logits.device, dtype=torch.double)[rows]
            tokens = torch.searchsorted(cumulated, where * cumulated[:, -1:], right=True)
            tokens = tokens.clamp(max=logits.shape[-1] - 1)
        else:
            tokens = logprobs.argmax(-1, keepdim=True)
        return tokens[:, 0], logprobs.gather(-1, tokens)[:, 0]
