"""Pictures as a vision-language model's processor gives them: tensors beside the token ids."""

from __future__ import annotations

from collections.abc import Iterable

import torch

Picture = dict[str, torch.Tensor]  # model inputs besides the ids, e.g. {"pixel_values": (1, 3, height, width)}


def stack_pictures(pictures: Iterable[Picture | None], device: torch.device) -> Picture | None:
    """The pictures of a batch's rows, in their order, stacked along dimension 0; None if no row has one."""
    shown = [picture for picture in pictures if picture is not None]
    if not shown:
        return None
    return {name: torch.cat([picture[name] for picture in shown]).to(device) for name in shown[0]}
