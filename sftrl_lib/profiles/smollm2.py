"""A real pretrained model, SmolLM2-135M, on one GPU of 80 GB, and once at toy size on any machine.

It is taught first (`foundation/taught.py`), and the same without that stage is reported beside it. Learning rates (SFT
1e-4, RL 3e-5) are near those of a probe and were not searched. Sizes are for half an hour of an H100, three seeds
together: an estimate, from times of that probe.
"""

from __future__ import annotations

from dataclasses import replace

from ..experiments import MAIN, foundations
from .laptop import GP_L, VIRL_L
from .study import Profile, Study

_CAP = 3.0  # rollouts are in float32, and what is learnt from them in bfloat16; TRL's

_SMOLLM2_GP_L = replace(
    GP_L,
    foundation="smollm2-gp-l",
    fork_flops=2e15,  # RL: about 12 updates of 256 hands; SFT: 130 steps of 64
    init_steps=20,
    checkpoints=3,
    init_lr=None,
    sft=replace(GP_L.sft, lr=1e-4),
    ppo=replace(GP_L.ppo, episodes=256, lr=3e-5, ratio="token", max_new_tokens=64, importance_cap=_CAP),
    evaluation=replace(GP_L.evaluation, episodes_end=256, episodes_curve=128, episodes_greedy=128, max_new_tokens=64),
    experiments=(MAIN, foundations("smollm2")),
    controls=(),
)
_SMOLLM2_VIRL_L = replace(
    VIRL_L,
    foundation="smollm2-virl-l",
    fork_flops=3e15,  # RL: about 12 updates of 32 routes; SFT: 400 steps of 16
    init_steps=40,
    checkpoints=3,
    init_lr=None,
    sft=replace(VIRL_L.sft, lr=1e-4),
    ppo=replace(VIRL_L.ppo, lr=3e-5, value_lr=1e-3, max_new_tokens=80, importance_cap=_CAP),
    evaluation=replace(VIRL_L.evaluation, episodes_end=128, episodes_curve=64, episodes_greedy=64, max_new_tokens=80),
    experiments=(MAIN, foundations("smollm2")),
    controls=(),
)
SMOLLM2 = Profile(
    name="smollm2",
    seeds=(0, 1, 2),
    studies=(_SMOLLM2_GP_L, _SMOLLM2_VIRL_L),
    dtype="mixed",
    micro_batch_tokens=16_384,  # a token takes 1 MB on its way back, 15 GB together
    keeps_training=False,  # 40 GB of models are enough
)


def _taught_smoke(study: Study) -> Study:
    """A study of SmolLM2 that goes through everything once, in minutes even on a CPU; answers are cut short."""
    return replace(
        study,
        foundation=f"{study.foundation}-smoke",
        fork_flops=1e11,
        init_steps=1,
        checkpoints=1,
        sft=replace(study.sft, examples=8, batch_size=1),
        ppo=replace(study.ppo, episodes=2, attempts=1, max_new_tokens=8, minibatches=1),
        evaluation=replace(
            study.evaluation, episodes_end=2, episodes_curve=2, episodes_greedy=1, attempts=1, max_new_tokens=8
        ),
        experiments=study.experiments if study is _SMOLLM2_GP_L else (MAIN,),
    )


SMOLLM2_SMOKE = Profile(
    name="smollm2_smoke",
    seeds=(0,),
    studies=tuple(_taught_smoke(study) for study in SMOLLM2.studies),
    device="cpu",
    keeps_training=False,
    toy=True,
)
