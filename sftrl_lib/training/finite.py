"""Every trainer stops at the first loss, gradient or weight that is NaN or infinite, before anything of it is saved."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..models.checkpoint import not_finite


def check_number(number: float, what: str, config: Any, rate: str = "lr") -> None:
    """Raises FloatingPointError unless `number` is finite: ``SFT's loss is nan; lower lr (0.5).``

    `rate` is the field of `config` that is to be lowered.
    """
    if not math.isfinite(number):
        raise FloatingPointError(f"{what} is {number}; {_cure(config, rate)}.")


def check_weights(module: torch.nn.Module, whose: str, config: Any, rate: str = "lr") -> None:
    """Raises FloatingPointError unless all weights that learn are finite; `rate` as in `check_number`."""
    if name := not_finite((name, p) for name, p in module.named_parameters() if p.requires_grad):
        raise FloatingPointError(f"{whose}'s weights {name!r} are not finite; {_cure(config, rate)}.")


def _cure(config: Any, rate: str) -> str:
    value = getattr(config, rate, None)
    return "lower the learning rate" if value is None else f"lower {rate} ({value:g})"
