"""The forward pass of a Llama-type decoder for decoding, in fewer and cheaper operations than `transformers`' own.

At a million parameters a token costs as much in small operations as in matrix products. The weights and their modules
(with any LoRA adapters) are the model's own; what differs is what stands between them: one operation per norm, one mask
for all layers, and one attention over the heads that share a key, without copying keys. Same numbers up to rounding.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F
from transformers import LlamaModel

from .cache import RaggedCache


def is_llama(decoder: torch.nn.Module) -> bool:
    """Whether `forward` can take the place of the decoder's own."""
    return type(decoder) is LlamaModel and decoder.config.hidden_act == "silu"


def forward(
    decoder: LlamaModel, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor, cache: RaggedCache
) -> torch.Tensor:
    """Hidden states, (rows, tokens, hidden size), of tokens at `positions`, both (rows, tokens).

    `mask` is added to the scores, (rows, 1, tokens, slots); both as `RaggedCache.set_positions` makes them.
    """
    hidden = decoder.embed_tokens(ids)
    cos, sin = (part[:, :, None] for part in decoder.rotary_emb(hidden, positions))
    for layer, stored in zip(decoder.layers, cache.layers, strict=True):
        attention, mlp = layer.self_attn, layer.mlp
        shape = *ids.shape, -1, attention.head_dim
        x = _norm(hidden, layer.input_layernorm)
        query = _rotate(attention.q_proj(x).view(shape), cos, sin).transpose(1, 2)
        key = _rotate(attention.k_proj(x).view(shape), cos, sin).transpose(1, 2)
        keys, values = stored.update(key, attention.v_proj(x).view(shape).transpose(1, 2))
        hidden = hidden + attention.o_proj(attend(query, keys, values, mask, attention.scaling))
        x = _norm(hidden, layer.post_attention_layernorm)
        hidden = hidden + mlp.down_proj(F.silu(mlp.gate_proj(x)) * mlp.up_proj(x))
    return _norm(hidden, decoder.norm)


def attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scale: float
) -> torch.Tensor:
    """Grouped-query attention, (rows, heads, tokens, size) -> (rows, tokens, heads x size).

    The queries that share a key head are stacked along the tokens. On a CPU a single token is fastest as two products:
    PyTorch's fused attention is made for long queries.
    """
    rows, heads, tokens, size = query.shape
    groups = heads // keys.shape[1]
    stacked = query.reshape(rows, keys.shape[1], groups * tokens, size)
    if tokens == 1 and query.device.type == "cpu":
        scores = torch.matmul(stacked * scale, keys.transpose(-1, -2)).add_(mask)
        seen = torch.matmul(scores.softmax(-1), values)
    else:
        mask = mask.to(query.dtype).repeat(1, 1, groups, 1)
        seen = F.scaled_dot_product_attention(stacked, keys, values, mask, scale=scale)
    return seen.reshape(rows, heads, tokens, size).transpose(1, 2).reshape(rows, tokens, heads * size)


def _norm(x: torch.Tensor, module: torch.nn.Module) -> torch.Tensor:
    return F.rms_norm(x, x.shape[-1:], module.weight, module.variance_epsilon)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding of (rows, tokens, heads, size)."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin
