"""Profiles: the scales at which the whole paper runs. No other module depends on which profile is in use.

A profile says which runs there are and on what they run. Its studies, one per task, say what each run does: the model,
the compute that both branches get, how they are trained and tested.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace

from ..configs import MICRO_BATCH_TOKENS
from ..registry import Registry
from . import with_model
from .laptop import HEADLINE, LAPTOP
from .paper import PAPER
from .search import SEARCH
from .smoke import SMOKE
from .smollm2 import SMOLLM2, SMOLLM2_SMOKE
from .study import TOY, Profile, Study

__all__ = [
    "HEADLINE",
    "LAPTOP",
    "PAPER",
    "PROFILES",
    "SEARCH",
    "SMOKE",
    "SMOLLM2",
    "SMOLLM2_SMOKE",
    "TOY",
    "Profile",
    "Study",
    "banner",
    "get_profile",
]


def _placed(profile: Profile) -> Profile:
    """The profile on the device that SFTRL_DEVICE names (make DEVICE=cuda), if it is set.

    A GPU takes more at once. No identity depends on either: only rounding differs.
    """
    device = os.environ.get("SFTRL_DEVICE", "").strip()
    if not device:
        return profile
    tokens = profile.micro_batch_tokens  # of a model that is not tiny: as many as a GPU takes of it
    if device == "cpu":
        tokens = MICRO_BATCH_TOKENS
    elif tokens == MICRO_BATCH_TOKENS:
        tokens = 65_536
    return replace(profile, device=device, micro_batch_tokens=tokens)


_ALL = SMOKE, LAPTOP, HEADLINE, SEARCH, SMOLLM2, SMOLLM2_SMOKE, PAPER
PROFILES: Registry[Profile] = Registry("profile", _ALL)


def get_profile(name: str) -> Profile:
    """The profile called `name`, also one with a model of your own, on the device that was asked for.

    Raises ValueError that lists the known ones.
    """
    own = with_model.find(name, PROFILES) if name not in PROFILES and re.fullmatch(r"[a-z0-9_]+", name) else None
    return _placed(own or PROFILES[name])


def banner(profile: str) -> str:
    """`TOY` for the name of a toy profile, "" for any other, known or not."""
    try:
        return TOY if get_profile(profile).toy else ""
    except ValueError:
        return ""
