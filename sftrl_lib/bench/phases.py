"""Where the time of one PPO update goes: reading, decoding, verifying, learning.

The engine knows nothing of it: its entry points are wrapped while an update is timed. The device is waited for at
every border, so on a GPU an update takes a little longer here than in training. Every moment belongs to one phase:

* reading: text to tokens, and `Decoding.feed`: prompts and feedback through the model.
* verifying: `reset` and `step` of the environments.
* learning: `ppo.learn`, its optimizer steps included.
* decoding: what is left of the rollout: sampling the answers, and the engine's own bookkeeping.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from unittest.mock import patch

import gymnasium
import torch

from ..configs import MICRO_BATCH_TOKENS, PPOConfig, Protocol
from ..models.decoding import Decoding
from ..models.policy import Policy
from ..training.ppo import learn
from .card import PHASES
from .engines import SEED, play
from .limits import timed


class Clock:
    """Seconds spent in each phase."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PHASES, 0.0)

    def __call__(self, phase: str, call: Callable) -> Callable:
        """`call` with its time counted for `phase`, without what is counted for others inside of it."""

        def counted(*arguments: object, **options: object) -> object:
            before = sum(self.seconds.values())
            result, seconds = timed(lambda: call(*arguments, **options), self.device)
            inside = sum(self.seconds.values()) - before
            self.seconds[phase] += seconds - inside
            return result

        return counted


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    envs: Sequence[gymnasium.Env],
    how: Protocol,
    config: PPOConfig,
    answer_key: str,
    micro_batch_tokens: int = MICRO_BATCH_TOKENS,
) -> dict[str, float]:
    """Do one PPO update, one episode in each of `envs`; seconds of each of the `PHASES`."""
    clock = Clock(policy.device)
    with ExitStack() as wrapped:
        for owner, name, phase in (
            (Decoding, "feed", "reading"),
            (policy, "prompt", "reading"),
            (policy, "continuation_ids", "reading"),
            *((env, name, "verifying") for env in envs for name in ("reset", "step")),
        ):
            wrapped.enter_context(patch.object(owner, name, clock(phase, getattr(owner, name))))
        episodes = clock("decoding", play)(policy, envs, how)
    options = {"answer_key": answer_key, "micro_batch_tokens": micro_batch_tokens}
    clock("learning", learn)(policy, optimizer, episodes, config, SEED, **options)
    return clock.seconds


def still_optimizer(policy: Policy, config: PPOConfig) -> torch.optim.Optimizer:
    """PPO's optimizer at learning rate 0: the same work, but every update starts from the same weights."""
    parts = [p for p in policy.model.parameters() if p.requires_grad], list(policy.value_head.parameters())
    groups = [{"params": part} for part in parts]
    return torch.optim.AdamW(groups, lr=0.0, betas=config.adam_betas, eps=config.adam_eps, weight_decay=0.0)
