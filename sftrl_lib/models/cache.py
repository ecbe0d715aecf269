"""A key-value cache for ragged batches: every row has its own length, and tokens are written at its own positions.

A query at position p attends to slots 0..p of its row, so neither padding nor holes are ever attended to.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from .mllama import CrossedPictures

HIDDEN = -1e30  # added to the score of a slot that a query may not see; finite, for a row of them must not give NaN


class RaggedLayer(CacheLayerMixin):
    """Keys and values of one layer, (rows, heads, slots, head size).

    This layout, not (rows, slots, heads, ...), because attention reads all slots of a head.
    """

    def __init__(self, owner: RaggedCache) -> None:
        super().__init__()
        self.owner = owner

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        shape = self.owner.rows, key_states.shape[1], self.owner.slots
        self.keys = key_states.new_zeros(*shape, key_states.shape[-1])
        self.values = value_states.new_zeros(*shape, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs):
        """Write tokens, (rows, heads, tokens, head size), where `owner.set_positions` says; returns what they see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        where = self.owner.where(key_states.shape[1])
        for stored, new in ((self.keys, key_states), (self.values, value_states)):
            stored.view(-1, stored.shape[-1]).index_copy_(0, where, new.reshape(-1, new.shape[-1]))
        return self._seen(self.keys), self._seen(self.values)

    def _seen(self, stored: torch.Tensor) -> torch.Tensor:
        fed, count, visible = self.owner.fed, self.owner.count, self.owner.visible
        return stored[:count, :, :visible] if fed is None else stored[fed, :, :visible]

    def move(self, kept: torch.Tensor, used: int) -> None:
        """Into larger tensors: the first `used` slots of the rows `kept`."""
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_empty(self.owner.rows, old.shape[1], self.owner.slots, old.shape[3])
            if used:
                new[: len(kept), :, :used] = old[kept, :, :used]
            new[: len(kept), :, used:] = 0.0  # not even a hidden slot may hold a NaN
            new[len(kept) :] = 0.0
            setattr(self, name, new)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.owner.visible, 0

    def get_seq_length(self) -> int:
        return self.owner.visible

    def get_max_length(self) -> int:
        return -1


class RaggedCache(Cache):
    """A key-value cache whose rows have their own lengths; the layers `crossing` hold pictures in place of text."""

    def __init__(self, layers: int, crossing: Sequence[int] = ()) -> None:
        self.count = 0  # rows in use: the first ones
        self.rows = self.slots = 0  # those there is memory for
        self.visible = 0  # slots that the tokens being fed can see at most
        self.fed: torch.Tensor | None = None  # rows being fed; None: all in use
        self._aside: tuple[torch.Tensor, int, int, list[tuple[torch.Tensor, torch.Tensor]]] | None = None
        self.ragged = [RaggedLayer(self) for _ in range(layers - len(crossing))]
        self.pictures = CrossedPictures(self, len(crossing)) if crossing else None
        text, crossed = iter(self.ragged), iter(self.pictures.layers if self.pictures else ())
        super().__init__(layers=[next(crossed if number in crossing else text) for number in range(layers)])

    def resize(self, kept: torch.Tensor, used: int, rows: int, slots: int) -> bool:
        """Drop all rows but `kept`, ascending indices, of which `used` slots hold tokens; make room for (rows, slots).

        The tensors stay where they are unless they are too small: allocating costs more than it saves, and CUDA graphs
        rely on the addresses. Returns whether they have moved.
        """
        self._aside = None
        moves = rows > self.rows or slots > self.slots
        if moves:
            self.rows, self.slots = max(rows, self.rows), max(slots, self.slots)
            for layer in self.ragged:
                if layer.is_initialized:
                    layer.move(kept, used)
        elif used and len(kept) < self.count:
            for stored in (tensor for layer in self.ragged for tensor in (layer.keys, layer.values)):
                stored[: len(kept), :, :used] = stored[kept, :, :used]
        if self.pictures:
            self.pictures.resize(kept, self.rows)
        self.count = len(kept)
        return moves

    def set_positions(self, positions: torch.Tensor, fed: torch.Tensor | None = None, visible: int = 0) -> torch.Tensor:
        """Set where the next tokens go, (rows, tokens), and in which rows: ascending indices, all if None.

        `visible`: how many slots the tokens may see; 0: as many as they need. Returns what to add to their attention
        scores, (rows, 1, tokens, visible slots).
        """
        self.fed, self.positions, self._where = fed, positions, {}
        self.visible = visible or int(positions.max()) + 1
        unseen = torch.arange(self.visible, device=positions.device) > positions[:, :, None]
        return torch.zeros(unseen.shape, device=unseen.device).masked_fill_(unseen, HIDDEN)[:, None]

    def where(self, heads: int) -> torch.Tensor:
        """Indices of the tokens being written among all (row, head, slot) of a layer, (rows x heads x tokens,)."""
        if heads not in self._where:
            device = self.positions.device
            rows = torch.arange(self.count, device=device) if self.fed is None else self.fed
            first = (rows[:, None] * heads + torch.arange(heads, device=device)) * self.slots
            self._where[heads] = (first[:, :, None] + self.positions[:, None]).flatten()
        return self._where[heads]

    def set_aside_all_but(self, rows: torch.Tensor, first: int) -> None:
        """Keep only `rows`, ascending indices, until `restore_rows`. They will write nothing before slot `first`."""
        self.restore_rows()
        self._aside = rows, first, self.count, [(layer.keys, layer.values) for layer in self.ragged]
        for layer in self.ragged:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
        if self.pictures:
            self.pictures.set_aside_all_but(rows)
        self.count = len(rows)

    def restore_rows(self) -> None:
        """Put all rows back; those kept by `set_aside_all_but` keep what they have written since."""
        if self._aside is None:
            return
        rows, first, self.count, whole = self._aside
        written = slice(first, self.visible)
        if self.pictures:
            self.pictures.restore()
        for layer, (keys, values) in zip(self.ragged, whole, strict=True):
            keys[rows, :, written], values[rows, :, written] = layer.keys[:, :, written], layer.values[:, :, written]
            layer.keys, layer.values = keys, values
        self._aside = None
