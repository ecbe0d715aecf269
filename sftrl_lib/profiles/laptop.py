"""Everything on two CPU cores, from the tiny foundation models that come with the package; and its first task alone."""

from __future__ import annotations

from dataclasses import replace

from .. import paths
from ..configs import EvaluationConfig, PPOConfig, SFTConfig
from ..experiments import (
    ATTEMPTS,
    DFT,
    DIVERSITY,
    FAKE,
    GRPO,
    HABIT,
    KL_SFT,
    MAIN,
    NO_INIT,
    OVERFITTED,
    PASS_AT_K,
    PICTURES_DROPPED,
    RL_TUNING,
    RULE_GRID,
    RULE_GRID_INIT,
    RULE_PANEL,
    SENSITIVITY,
    SFT_DENSE,
    SFT_TUNING,
    STRICT,
    STRICT_ATTEMPTS,
    SUBOPTIMAL,
    WORDINGS,
    Arm,
    Experiment,
    dose,
    foundations,
    lora,
    rejection,
)
from ..tasks import TASKS
from .study import Profile, Study


def _again(*names: str) -> tuple[Experiment, ...]:
    """The main comparison from further foundation models, as far as they come with the package."""
    found = tuple(name for name in names if paths.shipped(name))
    return (foundations(*found),) if found else ()


# Its foundation models come first: python -m sftrl_lib.foundation.pretrain --models gp-l-habit-30 gp-l-habit-70
_HABIT = (HABIT,) if paths.named_model("gp-l-habit-30") and paths.named_model("gp-l-habit-70") else ()

GP_L = Study(
    task=TASKS["gp-l"],
    foundation="gp-l",
    fork_flops=1e13,  # this, both branches' rates and RL's ratio: chosen by the search, see results/search
    init_lr=1e-3,
    sft=SFTConfig(lr=2e-3),
    ppo=PPOConfig(lr=2e-4, ratio="sequence"),
    experiments=(MAIN, ATTEMPTS, NO_INIT, SUBOPTIMAL, SENSITIVITY, *_again("gp-l-1")),
    # RL plays some 70 updates of 128 hands, and solves about half of them.
    controls=(
        RULE_GRID, FAKE, RULE_PANEL, RULE_GRID_INIT, SFT_DENSE, WORDINGS, DFT, GRPO, rejection(8_960, 4_400), PASS_AT_K,
        KL_SFT, lora(2e-4, 2e-3), DIVERSITY, STRICT, STRICT_ATTEMPTS, dose(1e13), *_HABIT,
    ),
)  # fmt: skip
VIRL_L = Study(
    task=TASKS["virl-l"],
    foundation="virl-l",
    fork_flops=1e13,
    init_steps=48,
    init_lr=1e-3,
    sft=SFTConfig(lr=3e-4, batch_size=16, group_by_length=True),  # both branches' rates: chosen by the search
    ppo=PPOConfig(lr=6e-4, episodes=32, attempts=2, max_new_tokens=64, value_lr=1e-2),
    controls=(SFT_DENSE, DFT, GRPO, rejection(1_344)),
    evaluation=EvaluationConfig(
        episodes_end=250, episodes_curve=64, episodes_greedy=125, attempts=2, max_new_tokens=64, attempts_grid=(1, 2)
    ),
    experiments=(MAIN, *_again("virl-l-1")),
)
GP_VL = replace(
    GP_L,
    task=TASKS["gp-vl"],
    foundation="gp-vl",
    fork_flops=1.2e13,
    init_lr=None,
    sft=SFTConfig(),  # not searched yet
    ppo=PPOConfig(ratio="sequence"),
    experiments=(MAIN, SFT_TUNING, RL_TUNING),
    controls=(PICTURES_DROPPED,),
    evaluation=replace(GP_L.evaluation, episodes_end=500, episodes_curve=200, episodes_greedy=200),
)
VIRL_VL = replace(
    VIRL_L,
    task=TASKS["virl-vl"],
    foundation="virl-vl",
    fork_flops=1.5e13,
    init_lr=None,
    sft=replace(VIRL_L.sft, lr=1e-3, examples=5_000),  # not searched yet
    ppo=replace(VIRL_L.ppo, lr=3e-4),
    experiments=(MAIN, OVERFITTED),
    controls=(
        replace(PICTURES_DROPPED, arms=(Arm("sft", tuple({"pictures": "dropped", "lr": lr} for lr in (3e-4, 1e-3))),)),
    ),
    evaluation=replace(VIRL_L.evaluation, episodes_end=400, episodes_curve=64, episodes_greedy=64),
)
LAPTOP = Profile(
    name="laptop",
    seeds=(0, 1, 2),
    ablation_seeds=(0,),  # all of it in three hours on two cores; with SEEDS= the ablations have three
    studies=(GP_L, VIRL_L, GP_VL, VIRL_VL),
    device="cpu",
)

# GP-L alone (`make headline`), meant to take a quarter of an hour on two cores.
HEADLINE = Profile(
    name="headline",
    seeds=(0, 1, 2),
    studies=(
        replace(
            GP_L,
            fork_flops=5e12,
            checkpoints=3,
            experiments=(MAIN,),
            evaluation=replace(GP_L.evaluation, episodes_end=500, episodes_curve=100, episodes_greedy=100),
        ),
    ),
    device="cpu",
)
