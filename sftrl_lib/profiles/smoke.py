"""Everything once, at toy size, in minutes: to see that it works."""

from __future__ import annotations

from dataclasses import replace

from ..experiments import (
    ATTEMPTS,
    DFT,
    FAKE,
    GRPO,
    MAIN,
    NO_INIT,
    PASS_AT_K,
    PICTURES_DROPPED,
    SENSITIVITY,
    SFT_TUNING,
    SUBOPTIMAL,
    Arm,
)
from .laptop import GP_L, GP_VL, VIRL_L, VIRL_VL
from .study import Profile

# Few attempts: the wall time of a test is set by its longest episode, not by the number of episodes.
_SMOKE_GP_L = replace(
    GP_L,
    fork_flops=1e11,
    init_steps=4,
    checkpoints=1,
    sft=replace(GP_L.sft, examples=256),
    ppo=replace(GP_L.ppo, episodes=16, attempts=2),
    evaluation=replace(
        GP_L.evaluation,
        episodes_end=32,
        episodes_curve=16,
        attempts=2,
        episodes_greedy=16,
        episodes_sensitivity=16,
        temperatures=(0.0, 1.0),
        attempts_grid=(1, 2),
        episodes_samples=4,
        samples=16,
    ),
    controls=(FAKE, PASS_AT_K, DFT, GRPO),
    experiments=(
        MAIN,
        replace(ATTEMPTS, arms=(Arm("rl", ({"attempts": 2},)),)),  # that of the main comparison: no run of its own
        replace(NO_INIT, arms=(Arm("rl_no_init", ({"lr": 1e-3},)),)),
        SUBOPTIMAL,
        SENSITIVITY,
    ),
)
_SMOKE_VIRL_L = replace(
    VIRL_L,
    fork_flops=4e10,
    init_steps=4,
    checkpoints=1,
    sft=replace(VIRL_L.sft, examples=128, batch_size=8),
    ppo=replace(VIRL_L.ppo, episodes=4),
    experiments=(MAIN,),
    evaluation=replace(VIRL_L.evaluation, episodes_end=6, episodes_curve=6, episodes_greedy=4, attempts=1),
    controls=(),
)
SMOKE = Profile(
    name="smoke",
    seeds=(0,),
    studies=(
        _SMOKE_GP_L,
        _SMOKE_VIRL_L,
        replace(
            _SMOKE_GP_L,
            task=GP_VL.task,
            foundation=GP_VL.foundation,
            controls=(replace(PICTURES_DROPPED, arms=(Arm("sft", ({"pictures": "dropped", "lr": 1e-3},)),)),),
            experiments=(
                MAIN,
                replace(
                    SFT_TUNING, arms=(Arm("sft", tuple({"lr": 1e-3, "frozen": part} for part in ("none", "vision"))),)
                ),
            ),
        ),
        replace(
            _SMOKE_VIRL_L,
            task=VIRL_VL.task,
            foundation=VIRL_VL.foundation,
            sft=replace(_SMOKE_VIRL_L.sft, examples=64),
            evaluation=replace(_SMOKE_VIRL_L.evaluation, episodes_end=4, episodes_curve=4),
        ),
    ),
    device="cpu",
    toy=True,
)
