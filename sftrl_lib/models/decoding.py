"""A batch of token sequences on one model: feed tokens, sample answers, every token read once.

A batch is ragged: each row has its own length, see `cache.py`. Answers differ in length too: once half of the rows have
ended theirs, the finished rows are set aside and the others continue alone.

A sampled token depends on its row's random number for that step alone, not on the rows beside it.

On a GPU shapes are static instead: numbers of rows and slots are rounded up, rows that have ended go on unseen, and the
step is a CUDA graph; the host looks only every few steps whether all answers have ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from . import llama
from .cache import RaggedCache
from .graphs import Graphs
from .masks import masks_of_layers
from .mllama import crossing_layers
from .pictures import Picture, stack_pictures

if TYPE_CHECKING:
    from .policy import Policy

Columns = list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]

# Tokens per forward pass, in rows with chunks of similar length: less padding; on a CPU fewer cache misses.
_FEED, _FEED_STATIC = 2_048, 32_768
_DROP = 0.5  # share of the rows still answering at which the finished rows are set aside
_BLOCK = 64  # tokens of the vocabulary whose probabilities are summed first
_LOOK = 8  # static shapes: steps between two looks at which answers have ended
_SLOTS = 64  # static shapes: the number of visible slots is a multiple of this


class Decoding:
    """A batch of sequences on one model: feed tokens, sample answers. May be used again after `begin`."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        config = policy.model.config.get_text_config()
        self.cache = RaggedCache(config.num_hidden_layers, crossing_layers(config))
        self.lengths = torch.zeros(0, dtype=torch.long)
        self.static = policy.device.type == "cuda"
        self._graphs = Graphs()

    def begin(self, rows: int, longest: int) -> None:
        """Start a batch of empty rows, with answers of at most `longest` tokens."""
        self.lengths = torch.zeros(rows, dtype=torch.long, device=self.policy.device)
        self._kept, self._longest = torch.arange(rows, device=self.policy.device), longest
        if self.cache.pictures:
            self.cache.pictures.clear()

    def keep(self, rows: list[int], lengths: list[int]) -> None:
        """Drop all other rows, and cut each of these to its first `lengths` tokens."""
        self._kept = torch.tensor(rows, device=self.policy.device)
        self.lengths = torch.tensor(lengths, device=self.policy.device)

    def feed(self, chunks: Sequence[list[int]], pictures: Sequence[Picture | None]) -> torch.Tensor:
        """Append a chunk of tokens to every row; returns the hidden state at each chunk's end, (rows, hidden size).

        `pictures` has one item per row; a picture is used only if its image tokens are in the chunk.
        """
        device, count = self.policy.device, len(chunks)
        sizes = torch.tensor([len(chunk) for chunk in chunks], device=device)
        most = _FEED_STATIC if self.static else _FEED
        by_length = sizes.argsort(stable=True).tensor_split(-(-int(sizes.sum()) // most))
        parts, ends = [rows.sort().values for rows in by_length], []
        if self.cache.pictures:  # a forward pass shows pictures to all its rows, or to none
            new = torch.tensor([self.policy.image_token in chunk for chunk in chunks], device=device)
            parts = [some for rows in parts for some in (rows[new[rows]], rows[~new[rows]]) if len(some)]
        # Padding writes past a row's end; the row's next tokens overwrite it before anything can attend to it.
        reach = max(int(self.lengths[rows].max() + sizes[rows].max()) for rows in parts)
        rows, slots = _static_rows(count) if self.static else count, _rounded(reach + self._longest)
        if self.cache.resize(self._kept, int(self.lengths.max()), rows, slots):
            self._graphs = Graphs()  # those that were recorded read where the tensors were
        for rows in parts:
            part = [chunks[row] for row in rows.tolist()]
            longest = max(map(len, part))
            padded = torch.tensor([[*chunk, *[0] * (longest - len(chunk))] for chunk in part], device=device)
            positions = self.lengths[rows, None] + torch.arange(longest, device=device)
            shown = (pictures[row] for row in rows.tolist() if self.policy.image_token in chunks[row])
            mask = self.cache.set_positions(positions, rows if len(parts) > 1 else None)
            stacked = stack_pictures(shown, device)
            if self.cache.pictures and stacked:
                at = self.lengths[rows] + (padded == self.policy.image_token).int().argmax(1)
                self.cache.pictures.show(at, stacked)
            hidden = self._forward(padded, positions, mask, stacked)
            ends.append(hidden[torch.arange(len(part), device=device), sizes[rows] - 1])
        self.lengths = self.lengths + sizes
        return torch.cat(ends)[torch.cat(parts).argsort()]

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, pictures: Picture | None = None
    ) -> torch.Tensor:
        """Hidden states of tokens at `positions`, both (rows, tokens)."""
        decoder = self.policy.decoder
        text = getattr(decoder, "language_model", decoder)
        if pictures is None and llama.is_llama(text):
            return llama.forward(text, ids, positions, mask, self.cache)
        slots = torch.arange(mask.shape[-1], device=mask.device)[None]
        return decoder(
            input_ids=ids,
            position_ids=positions,
            attention_mask=masks_of_layers(text.config, mask.to(self.policy.model.dtype), positions, slots),
            past_key_values=self.cache,
            use_cache=True,
            **(self.cache.pictures.inputs(positions) if self.cache.pictures else {}),
            **(pictures or {}),
        ).last_hidden_state

    def answer(
        self, hidden: torch.Tensor, temperature: float, draws: torch.Tensor
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Sample from the hidden states at the prompts' ends until every row has ended its answer.

        `draws`: the rows' random numbers, uniform in [0, 1), float64, (rows, longest answer). Returns token ids (the
        end token, if it came, is last) and their log-probabilities, per row. The last token of an answer has not been
        fed yet: it belongs to the next chunk.
        """
        device, (count, longest) = hidden.device, draws.shape
        reach = int(self.lengths.max())
        if self.static:
            hidden, draws, self.lengths = (_padded(x, _static_rows(count)) for x in (hidden, draws, self.lengths))
            self.cache.count = len(hidden)
        rows = torch.arange(len(hidden), device=device)  # indices of the rows being decoded
        active = rows < count  # which of them have not ended their answer
        columns = []
        tokens, logprobs = self.sample(hidden, temperature, draws[:, 0])
        for step in range(1, longest + 1):
            columns.append((rows, tokens, logprobs, active))
            active = active & (tokens != self.policy.end_token)
            if step == longest or (not self.static or step % _LOOK == 0) and not active.any():
                break
            if not self.static and int(active.sum()) <= len(rows) * _DROP:
                self.cache.restore_rows()
                rows, tokens, active = rows[active], tokens[active], active[active]
                self.cache.set_aside_all_but(rows, int(self.lengths[rows].min()))
            positions = self.lengths[rows, None]
            visible = _rounded(reach + step) if self.static else 0
            tokens, logprobs = self._step(tokens, positions, draws[rows, step], temperature, visible)
            self.lengths[rows] += active
        self.cache.restore_rows()
        self.lengths, self.cache.count = self.lengths[:count], count
        return _answers(columns, count)

    def _step(
        self, tokens: torch.Tensor, positions: torch.Tensor, draws: torch.Tensor, temperature: float, visible: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Feed a token per row and sample the next."""

        def step(*inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            tokens, positions, draws = inputs
            mask = self.cache.set_positions(positions, visible=visible)
            hidden = self._forward(tokens[:, None], positions, mask)[:, 0]
            return self.sample(hidden, temperature, draws)

        inputs = tokens, positions, draws
        key = len(tokens), visible, temperature, self.cache.pictures and self.cache.pictures.shown
        return self._graphs(key, step, *inputs) if self.static else step(*inputs)

    def sample(
        self, hidden: torch.Tensor, temperature: float, draws: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A token after each hidden state, (rows, hidden size), and its log-probability, (rows,) each.

        `temperature` 0 is greedy; else by inverse transform sampling, one of the `draws`, (rows,), for each row.
        """
        logprobs = torch.log_softmax(self.policy.logits(hidden) / (temperature or 1.0), dim=-1)
        tokens = _invert(logprobs.exp(), draws[:, None]) if temperature else logprobs.argmax(-1, keepdim=True)
        return tokens[:, 0], logprobs.gather(-1, tokens)[:, 0]


def _invert(probabilities: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """The first token at which the cumulated probabilities, (rows, vocabulary), exceed the draws, (rows, 1).

    First a block of the vocabulary, then a token in it: cumulated sums over all of it would be slow and inexact.
    """
    size = probabilities.shape[-1]
    blocks = torch.nn.functional.pad(probabilities, (0, -size % _BLOCK)).unflatten(-1, (-1, _BLOCK))
    ends = blocks.sum(-1).cumsum(-1, dtype=torch.double)
    draws = draws * ends[:, -1:]
    block = torch.searchsorted(ends, draws, right=True).clamp(max=ends.shape[1] - 1)
    inside = blocks.gather(1, block[:, :, None].expand(-1, 1, _BLOCK))[:, 0].cumsum(-1, dtype=torch.double)
    before = ends.gather(1, block) - inside[:, -1:]
    # Not below 0, which would take a token of probability 0 where a block begins with one.
    token = torch.searchsorted(inside, (draws - before).clamp(min=0.0), right=True)
    return (block * _BLOCK + token).clamp(max=size - 1)


def _rounded(slots: int) -> int:
    return -(-slots // _SLOTS) * _SLOTS


def _static_rows(count: int) -> int:
    """`count` rounded up to 2 or 3 times a power of two: few different shapes, at most half more rows."""
    power = 1 << max(count - 1, 3).bit_length()
    return power * 3 // 4 if count <= power * 3 // 4 else power


def _padded(x: torch.Tensor, rows: int) -> torch.Tensor:
    return torch.cat([x, x.new_zeros(rows - len(x), *x.shape[1:])])


def _answers(columns: Columns, count: int) -> tuple[list[list[int]], list[list[float]]]:
    """Token ids and log-probabilities per row, from those of each step: rows, tokens, log-probabilities, active."""
    ids: list[list[int]] = [[] for _ in range(count)]
    all_logprobs: list[list[float]] = [[] for _ in range(count)]
    rows, tokens, logprobs, active = (torch.cat(parts) for parts in zip(*columns, strict=True))
    for row, token, logprob in zip(*(x[active].tolist() for x in (rows, tokens, logprobs)), strict=True):
        ids[row].append(token)
        all_logprobs[row].append(logprob)
    return ids, all_logprobs
