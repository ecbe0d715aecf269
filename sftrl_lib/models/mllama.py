"""Pictures by cross attention, outside the sequence, as the paper's Llama-3.2-Vision (Mllama) takes them.

A picture is one image token in the text. Some layers attend to the picture's features in place of the text: the tokens
from the image token on to all tiles that the picture has. So a picture's keys and values, once computed, serve its row
until the row gets another picture, whatever is cut from the text behind the image token. (What a token before the image
token does there is transformers' own: it spreads its attention evenly over all tiles, and skips the layer's MLP.)

All rows of a batch have a picture, or none: a task has one modality.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import CacheLayerMixin

from .pictures import Picture

if TYPE_CHECKING:
    from .cache import RaggedCache

TILES = "aspect_ratio_mask"  # of a picture: which of its tiles there are, (1, 1, tiles)


def crossing_layers(config: PreTrainedConfig) -> tuple[int, ...]:
    """The layers that attend to pictures, by a text model's configuration; none for other architectures."""
    return tuple(getattr(config, "cross_attention_layers", None) or ())


def cross_mask(first: torch.Tensor, tiles: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """``cross_attention_mask``, (rows, tokens, 1, tiles): which tiles of its row's picture a token sees.

    `first`: position of the rows' image tokens, (rows,); `tiles`: which tiles there are, bool, (rows, tiles);
    `positions`: of the tokens, (rows, tokens).
    """
    return ((positions >= first[:, None])[:, :, None, None] & tiles[:, None, None]).float()


def cross_inputs(ids: torch.Tensor, image_token: int, pictures: Picture | None) -> dict[str, torch.Tensor]:
    """What the decoder needs beside the `pictures` of a whole batch, (rows, tokens); nothing where it sees none so."""
    if pictures is None or TILES not in pictures:
        return {}
    first = (ids == image_token).int().argmax(1)
    positions = torch.arange(ids.shape[1], device=ids.device)[None]
    return {"cross_attention_mask": cross_mask(first, pictures[TILES][:, 0].bool(), positions)}


class CrossedPictures:
    """The pictures of a cache's rows: keys and values per layer, where their image tokens are, and their tiles.

    Tensors are allocated once for all rows that there is memory for and changed in place, as the cache's own are.
    """

    def __init__(self, cache: RaggedCache, layers: int) -> None:
        self.cache = cache
        self.layers = [PictureLayer(self) for _ in range(layers)]
        self.shown = False  # whether the rows have pictures
        self.rows = 0  # those there is memory for
        self._seen: list[torch.Tensor] = []  # first, tiles

    def clear(self) -> None:
        """A new batch, without pictures so far."""
        self.shown = False

    def resize(self, kept: torch.Tensor, rows: int) -> None:
        """Drop all rows but `kept`, and make room for `rows`."""
        moves, self.rows = rows > self.rows, max(rows, self.rows)
        stores = [self._seen, *(layer.stored for layer in self.layers)]
        for store in stores:
            for i, old in enumerate(store):
                new = old.new_zeros(self.rows, *old.shape[1:]) if moves else old
                if self.shown and (moves or len(kept) < self.cache.count):
                    new[: len(kept)] = old[kept]
                store[i] = new

    def show(self, first: torch.Tensor, pictures: Picture) -> None:
        """The rows being fed get pictures; `first`: the positions of their image tokens."""
        new = first, pictures[TILES][:, 0].bool()
        self._seen = self._seen or [x.new_zeros(self.rows, *x.shape[1:]) for x in new]
        for stored, x in zip(self._seen, new, strict=True):
            stored[self.fed] = x
        self.shown = True

    def inputs(self, positions: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the decoder needs beside the tokens at `positions`, (rows, tokens), of the rows being fed."""
        if not self.shown:
            return {}
        first, tiles = (stored[self.fed] for stored in self._seen)
        return {"cross_attention_mask": cross_mask(first, tiles, positions)}

    @property
    def fed(self) -> torch.Tensor | slice:
        """The rows being fed."""
        return slice(self.cache.count) if self.cache.fed is None else self.cache.fed

    def set_aside_all_but(self, rows: torch.Tensor) -> None:
        """Keep only `rows` until `restore`."""
        self._aside = self._seen, [layer.stored for layer in self.layers]
        self._seen = [stored[rows] for stored in self._seen]
        for layer in self.layers:
            layer.stored = [stored[rows] for stored in layer.stored]

    def restore(self) -> None:
        """Put all rows back."""
        self._seen, whole = self._aside
        for layer, stored in zip(self.layers, whole, strict=True):
            layer.stored = stored


class PictureLayer(CacheLayerMixin):
    """Keys and values of pictures in one layer, (rows, heads, image tokens, head size)."""

    def __init__(self, owner: CrossedPictures) -> None:
        self.owner = owner
        self.stored: list[torch.Tensor] = []  # keys, values

    @property
    def is_initialized(self) -> bool:
        return bool(self.stored) and self.owner.shown

    @property
    def keys(self) -> torch.Tensor:
        return self.stored[0][self.owner.fed]

    @property
    def values(self) -> torch.Tensor:
        return self.stored[1][self.owner.fed]

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.stored = [x.new_zeros(self.owner.rows, *x.shape[1:]) for x in (key_states, value_states)]

    def update(self, key_states, value_states, *args, **kwargs):
        """Write the pictures of the rows being fed."""
        if not self.stored:
            self.lazy_initialization(key_states, value_states)
        for stored, new in zip(self.stored, (key_states, value_states), strict=True):
            stored[self.owner.fed] = new
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.stored[0].shape[2], 0

    def get_seq_length(self) -> int:
        return self.stored[0].shape[2] if self.is_initialized else 0

    def get_max_length(self) -> int:
        return -1
