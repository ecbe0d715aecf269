"""Attention masks for architectures of all kinds: layers that see a sliding window (Gemma, Mistral, some Qwen).

`transformers` derives them only where it makes the mask itself; one that is handed in, as for a ragged batch or a tree
of conversations, is taken for every layer as it is.
"""

from __future__ import annotations

import torch
from transformers import PretrainedConfig

Masks = torch.Tensor | dict[str, torch.Tensor]

LAYERS = ("full_attention", "sliding_attention")  # kinds of layers whose attention can be masked from outside


def window_of(config: PretrainedConfig) -> int | None:
    """How many tokens its sliding layers see, their own included; None if it has no such layers."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and "sliding_attention" not in kinds:
        return None
    return getattr(config, "sliding_window", None)


def masks_of_layers(config: PretrainedConfig, mask: torch.Tensor, tokens: torch.Tensor, slots: torch.Tensor) -> Masks:
    """What to pass as the attention mask of a decoder.

    `mask` is boolean (True: seen) or added to the scores, (rows, 1, tokens, slots); `tokens` and `slots` are the
    positions of both, (rows, tokens) and (rows or 1, slots).
    """
    if mask.dtype == torch.bool and config._attn_implementation == "eager":  # which adds it
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, torch.finfo(torch.float32).min)
    window = window_of(config)
    if window is None:
        return mask
    hidden = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
    far = tokens[:, :, None] - slots[:, None] >= window
    near = mask.masked_fill(far[:, None], hidden)
    return dict(zip(LAYERS, (mask, near), strict=True)) if getattr(config, "layer_types", None) else near
