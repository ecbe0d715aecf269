"""The training methods that are compared, one entry each: its name and look, where it starts, what trains it.

A further method is a `Method` added to `METHODS`, a trainer (a function of a `training.branch.Branch`) and, if need be,
a configuration of its own; figures draw whatever methods the tables hold. `trainer` is a path and not the function, so
that figures need not load torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .configs import PPOConfig, RejectionConfig, SFTConfig
from .registry import Registry

STARTS = ("foundation", "init")

SFT_PANELS = {"loss": "loss on answers"}
RL_PANELS = {
    "success": "success of rollouts",
    "entropy": "entropy (nats per token)",
    "value_loss": "value loss",
    "clip_fraction": "clip fraction",
}


@dataclass(frozen=True)
class Method:
    """One way to train, and how figures show it."""

    name: str  # in the tables
    label: str  # in figures and sentences
    color: str  # from the Okabe-Ito palette, safe for colour-blind readers
    marker: str  # so that no figure depends on colour alone
    config: type  # class of its configuration; its defaults apply if a study gives none
    trainer: str = ""  # module:function; "" for Init, which `training.fork` makes
    start: str = "init"  # one of `STARTS`
    data: str = ""  # the kind of demonstrations it is given, if any
    panels: Mapping[str, str] = field(default_factory=dict)  # columns of its training log -> y label

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise ValueError(f"Method {self.name!r} cannot start at {self.start!r}; use one of {', '.join(STARTS)}.")

    def load_trainer(self) -> Callable:
        """The function that trains a branch."""
        module, _, function = self.trainer.partition(":")
        return getattr(importlib.import_module(module), function)


_SFT, _PPO = "sftrl_lib.training.sft:train", "sftrl_lib.training.ppo:train"
METHODS: Registry[Method] = Registry(
    "method",
    (
        Method("init", "Init", "#5f5f5f", "*", SFTConfig, start="foundation", data="expert", panels=SFT_PANELS),
        Method("sft", "SFT", "#d55e00", "o", SFTConfig, _SFT, data="expert", panels=SFT_PANELS),
        Method("rl", "RL", "#0072b2", "D", PPOConfig, _PPO, panels=RL_PANELS),
        Method(
            "sft_suboptimal", "SFT on sub-optimal trajectories", "#e69f00", "s", SFTConfig, _SFT, data="suboptimal",
            panels=SFT_PANELS,
        ),
        Method(
            "rejection", "SFT on its own right answers", "#009e73", "P", RejectionConfig,
            "sftrl_lib.training.rejection:train", panels=SFT_PANELS,
        ),
        Method("rl_no_init", "RL without SFT", "#cc79a7", "^", PPOConfig, _PPO, "foundation", panels=RL_PANELS),
    ),
)  # fmt: skip
INIT = METHODS["init"]
