"""The paper's own scale.

Every number has its source: [P] the paper, [C] the released code and its scripts, and [-] for what neither says, which
is then ours. Where the two differ it is the code's, which made the numbers.
"""

from __future__ import annotations

from dataclasses import replace

from ..configs import EvaluationConfig, PPOConfig, SFTConfig
from ..experiments import ATTEMPTS, MAIN, NO_INIT, OVERFITTED, RL_TUNING, SFT_TUNING, SUBOPTIMAL, Arm
from ..tasks import TASKS
from .study import Profile, Study

_SFT = SFTConfig(
    examples=51_200,  # [-] GP-L's Init sees each once: 400 steps of 128
    batch_size=128,  # [C] 16 on each of 8 GPUs
    lr=1e-6,  # [C] GP-L, V-IRL-L
    warmup=0.03,  # [C], and a constant rate after it; ours is a cosine
    adam_betas=(0.9, 0.98),  # [C]
    adam_eps=1e-7,  # [C]
)
_PPO = PPOConfig(
    episodes=512,  # [C] 256 attempts on each of 8 GPUs, 2,048 in all; [-] four attempts to a hand
    attempts=5,  # [P] the verification steps of the main runs
    temperature=0.2,  # [C], with top-p 0.9, which ours has not
    max_new_tokens=512,  # [C]
    lr=1e-6,  # [C] all but V-IRL-VL
    value_lr=1e-6,  # [P] one learning rate for all components
    lr_end=1e-3,  # [C] down to 1e-9
    epochs=4,  # [C]
    minibatches=2,  # [C] nominally 1,024 attempts to a step: 128 accumulated on each of 8 GPUs
    clip=0.1,  # [C]
    ratio="sequence",  # [C] one half of the log-probability before the answer's key
    gamma=0.9,  # [C]
    gae_lambda=0.95,  # [C]
    value_coef=0.25,  # [C] 0.5, and 0.5 again inside the loss
    share_backbone=True,  # [C]
    max_grad_norm=0.01,  # [C]
    adam_eps=1e-7,  # [C]
    importance_cap=3.0,  # [-] TRL's; rollouts are by a bfloat16 copy of the weights, or by vLLM
)
_GP_L = Study(
    task=TASKS["gp-l"],
    foundation="meta-llama/Llama-3.2-11B-Vision-Instruct",  # [C] README; the paper leaves out "Instruct"
    fork_flops=1e19,  # [P] end of the x-axis of Fig. 5, where Init counts too
    init_steps=400,  # [C]
    checkpoints=5,  # [-]
    sft=_SFT,
    ppo=_PPO,
    evaluation=EvaluationConfig(
        episodes_end=234,  # [C]; the paper has no number
        episodes_curve=234,  # [C]
        attempts=5,  # [P]
        temperature=0.2,  # [-] that of the rollouts
        max_new_tokens=256,  # [C]
        episodes_greedy=234,  # [-]
    ),
    experiments=(
        MAIN,
        ATTEMPTS,  # [P] Fig. 10: 1, 3, 5, 10
        replace(NO_INIT, arms=(Arm("rl_no_init", tuple({"lr": lr} for lr in (5e-7, 1e-6, 2e-6))),)),  # [P] Fig. 9
        SUBOPTIMAL,  # [P] Fig. 15
    ),
)
_VIRL_L = replace(
    _GP_L,
    task=TASKS["virl-l"],
    fork_flops=4e18,  # [P] Fig. 5
    init_steps=25,  # [C]
    ppo=replace(_PPO, episodes=128, attempts=2),  # [-] 16 attempts to a route; [P]
    evaluation=replace(_GP_L.evaluation, episodes_end=48, episodes_curve=48, episodes_greedy=48, attempts=2),  # [C]
    experiments=(MAIN,),
)
_RATES = {"none": (1e-7, 5e-7, 1e-6, 1e-5, 1e-4), "vision": (1e-7, 1e-6), "vision+adapter": (1e-7, 5e-7, 1e-6)}
PAPER = Profile(
    name="paper",
    seeds=(0,),  # [P] says nothing of repeated runs
    studies=(
        _GP_L,
        _VIRL_L,
        replace(
            _GP_L,
            task=TASKS["gp-vl"],
            fork_flops=6e19,  # [P] Fig. 5
            init_steps=400,  # [-] as GP-L
            sft=replace(_SFT, lr=5e-7),  # [C]
            experiments=(
                MAIN,
                replace(  # [P] Fig. 16
                    SFT_TUNING,
                    arms=(Arm("sft", tuple({"lr": r, "frozen": f} for f, rates in _RATES.items() for r in rates)),),
                ),
                replace(RL_TUNING, arms=(Arm("rl", tuple({"lr": lr} for lr in (1e-6, 2e-6))),)),  # [P] Fig. 17
            ),
        ),
        replace(
            _VIRL_L,
            task=TASKS["virl-vl"],
            fork_flops=4e19,  # [P] Fig. 5
            init_steps=25,  # [-] as V-IRL-L
            sft=replace(_SFT, lr=5e-7),  # [C]
            ppo=replace(_VIRL_L.ppo, lr=1e-7, value_lr=1e-7, lr_end=1e-2),  # [C] down to 1e-9
            experiments=(
                MAIN,
                replace(  # Fig. 19; [-] the rate of the SFT that overfits
                    OVERFITTED,
                    arms=(
                        Arm("sft", ({"lr": 1e-5},), checkpoints=1),
                        Arm("rl", tuple({"lr": lr} for lr in (1e-7, 2e-7)), after=("sft", {"lr": 1e-5})),  # [P]
                    ),
                ),
            ),
        ),
    ),
    dtype="mixed",  # [C] bf16
    rollout_batch=64,  # on each GPU
    micro_batch_tokens=8_192,
    gradient_checkpointing=True,  # [C]
)
