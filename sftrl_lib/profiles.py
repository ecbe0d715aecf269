"""Profiles: the scales at which the whole paper runs. No other module depends on which profile is in use.

A profile says which runs there are and on what they run. Its studies, one per task, say what each run does: the model,
the compute that both branches get, how they are trained and tested.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

from . import paths
from .configs import (
    HIGHEST_RATE,
    MICRO_BATCH_TOKENS,
    EvaluationConfig,
    LoRAConfig,
    PPOConfig,
    RejectionConfig,
    SFTConfig,
    check,
    check_choice,
    check_flag,
    check_number,
    check_whole,
)
from .experiments import (
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
    SEARCH_RATES,
    SEARCHED_AT,
    SEARCHES,
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
    search_budget,
    with_ratio,
)
from .methods import INIT, Method
from .registry import Registry
from .task import Task
from .tasks import TASKS

TOY = "toy run, numbers mean nothing"  # what stands on everything that a toy profile makes
DTYPES = ("float32", "bfloat16", "float16", "mixed")  # mixed: float32 weights, bfloat16 products in learning

ENGINES = ("ours", "vllm")


@dataclass(frozen=True)
class Study:
    """One task at one profile's scale: what its runs do."""

    task: Task
    foundation: str  # folder below sftrl_lib/foundation/shipped, or a Hugging Face model by path or hub name
    fork_flops: float  # training compute that each branch gets after Init, by the paper's formulas
    init_steps: int = 24  # of the short SFT that makes Init; official GP-L: 400 steps of 128
    checkpoints: int = 5  # tested along each branch, at equal steps of compute
    rank: int = 0  # of LoRA adapters that a branch trains on Init's weights; 0: what the profile trains
    sft: SFTConfig = field(default_factory=SFTConfig)  # of the SFT branch
    init_lr: float | None = None  # of Init, else trained as `sft` says; None: with its rate as well
    ppo: PPOConfig = field(default_factory=PPOConfig)
    more: tuple[Any, ...] = ()  # configurations of further methods
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    experiments: tuple[Experiment, ...] = (MAIN,)
    controls: tuple[Experiment, ...] = ()  # beyond the paper; run only when they are asked for by name

    def __post_init__(self) -> None:
        check(self, "foundation", bool(self.foundation), "a shipped model, a folder or a hub name")
        check_number(self, "fork_flops", high=1e30, above=True)
        check_whole(self, "init_steps", "checkpoints")
        check_whole(self, "rank", least=0)
        if self.init_lr is not None:
            check_number(self, "init_lr", high=HIGHEST_RATE, above=True)

    def config(self, method: Method) -> Any:
        """The configuration of a method: the study's of that class, or else the class's defaults."""
        if method is INIT and self.init_lr:
            return replace(self.sft, lr=self.init_lr)
        given = (config for config in (self.sft, self.ppo, *self.more) if isinstance(config, method.config))
        return next(given, None) or method.config()

    def experiment(self, name: str) -> Experiment:
        """The experiment of that name. Raises ValueError that lists those of the study."""
        for experiment in (*self.experiments, *self.controls):
            if experiment.name == name:
                return experiment
        known = ", ".join(experiment.name for experiment in (*self.experiments, *self.controls))
        raise ValueError(f"Unknown experiment {name!r} of {self.task.label}; use one of {known}.")


@dataclass(frozen=True)
class Profile:
    """One scale: which runs there are, and on what they run."""

    name: str  # everything is kept below build/, results/ and figures/ of this name
    seeds: tuple[int, ...]  # of the main comparison
    studies: tuple[Study, ...]
    ablation_seeds: tuple[int, ...] = (0,)  # of the other experiments
    device: str = "auto"  # cpu, cuda, mps, cuda:1, ...; auto: the GPU if there is one
    dtype: str = "float32"  # of the weights, one of `DTYPES`
    lora: LoRAConfig | None = None  # train adapters in place of all weights
    engine: str = "ours"  # of the rollouts in training: ours, or vllm where it is installed
    rollout_batch: int = 256  # episodes decoded side by side; what they answer does not depend on it
    # How a gradient is computed, not which (only rounding differs, as between devices), so no part of any identity:
    micro_batch_tokens: int = MICRO_BATCH_TOKENS  # that RL learns from at once, padding included; a GPU takes more
    gradient_checkpointing: bool = False  # keep a layer's input only and compute the rest twice: a third more work
    keeps_training: bool = True  # what a finished run would go on from: three times its model
    toy: bool = False  # too small for its numbers to mean anything, which figures and notebooks then say

    def __post_init__(self) -> None:
        check(self, "name", bool(re.fullmatch(r"[a-z][a-z0-9_]*", str(self.name))), "a lower-case name")
        check_choice(self, "dtype", DTYPES)
        check_choice(self, "engine", ENGINES)
        check_whole(self, "rollout_batch", "micro_batch_tokens")
        check_flag(self, "gradient_checkpointing")
        check_flag(self, "keeps_training")
        for name in ("seeds", "ablation_seeds"):
            seeds = getattr(self, name)
            good = all(isinstance(s, Integral) and not isinstance(s, bool) and 0 <= s < 2**32 for s in seeds)
            check(self, name, good and len(set(seeds)) == len(seeds), "different whole numbers from 0 to 2**32 - 1")
        keys = [study.task.key for study in self.studies]
        if len(set(keys)) < len(keys):
            raise ValueError(f"The profile {self.name!r} has two studies of one task: {', '.join(keys)}.")

    def study(self, key: str) -> Study:
        """The study of a task. Raises ValueError if there is no such task, or the profile does not run it."""
        for study in self.studies:
            if study.task.key == key:
                return study
        known = ", ".join(study.task.key for study in self.studies)
        raise ValueError(f"The profile {self.name!r} has no study of {TASKS[key].key!r}; it has {known}.")

    def chosen_seeds(self, given: tuple[int, ...] = ()) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Seeds of the main comparison and of the ablations; of given ones, the ablations take the first few."""
        if not given:
            return self.seeds, self.ablation_seeds
        return given, given[: len(self.ablation_seeds)]


def _again(*names: str) -> tuple[Experiment, ...]:
    """The main comparison from further foundation models, as far as they come with the package."""
    found = tuple(name for name in names if paths.shipped(name))
    return (foundations(*found),) if found else ()


# Its foundation models come first: python -m sftrl_lib.foundation.pretrain --models gp-l-habit-30 gp-l-habit-70
_HABIT = (HABIT,) if paths.named_model("gp-l-habit-30") and paths.named_model("gp-l-habit-70") else ()

_GP_L = Study(
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
_VIRL_L = Study(
    task=TASKS["virl-l"],
    foundation="virl-l",
    fork_flops=1e13,
    init_steps=48,
    init_lr=1e-3,
    sft=SFTConfig(lr=3e-4, batch_size=16, group_by_length=True),  # both branches' rates: chosen by the search
    ppo=PPOConfig(lr=6e-4, episodes=32, attempts=2, max_new_tokens=64, value_lr=1e-2),
    more=(RejectionConfig(batch_size=16, group_by_length=True, attempts=2, max_new_tokens=64),),
    controls=(SFT_DENSE, DFT, GRPO, rejection(1_344)),
    evaluation=EvaluationConfig(
        episodes_end=250, episodes_curve=64, episodes_greedy=125, attempts=2, max_new_tokens=64, attempts_grid=(1, 2)
    ),
    experiments=(MAIN, *_again("virl-l-1")),
)
_GP_VL = replace(
    _GP_L,
    task=TASKS["gp-vl"],
    foundation="gp-vl",
    fork_flops=1.2e13,
    init_lr=None,
    sft=SFTConfig(),  # not searched yet
    ppo=PPOConfig(ratio="sequence"),
    experiments=(MAIN, SFT_TUNING, RL_TUNING),
    controls=(PICTURES_DROPPED,),
    evaluation=replace(_GP_L.evaluation, episodes_end=500, episodes_curve=200, episodes_greedy=200),
)
_VIRL_VL = replace(
    _VIRL_L,
    task=TASKS["virl-vl"],
    foundation="virl-vl",
    fork_flops=1.5e13,
    init_lr=None,
    sft=replace(_VIRL_L.sft, lr=1e-3, examples=5_000),  # not searched yet
    ppo=replace(_VIRL_L.ppo, lr=3e-4),
    experiments=(MAIN, OVERFITTED),
    controls=(
        replace(PICTURES_DROPPED, arms=(Arm("sft", tuple({"pictures": "dropped", "lr": lr} for lr in (3e-4, 1e-3))),)),
    ),
    evaluation=replace(_VIRL_L.evaluation, episodes_end=400, episodes_curve=64, episodes_greedy=64),
)
LAPTOP = Profile(
    name="laptop",
    seeds=(0, 1, 2),
    ablation_seeds=(0, 1, 2),  # one seed would decide nothing
    studies=(_GP_L, _VIRL_L, _GP_VL, _VIRL_VL),
    device="cpu",
)

# Few attempts: the wall time of a test is set by its longest episode, not by the number of episodes.
_SMOKE_GP_L = replace(
    _GP_L,
    fork_flops=1e11,
    init_steps=4,
    checkpoints=1,
    sft=replace(_GP_L.sft, examples=256),
    ppo=replace(_GP_L.ppo, episodes=16, attempts=2),
    evaluation=replace(
        _GP_L.evaluation,
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
    _VIRL_L,
    fork_flops=4e10,
    init_steps=4,
    checkpoints=1,
    sft=replace(_VIRL_L.sft, examples=128, batch_size=8),
    ppo=replace(_VIRL_L.ppo, episodes=4),
    experiments=(MAIN,),
    evaluation=replace(_VIRL_L.evaluation, episodes_end=6, episodes_curve=6, episodes_greedy=4, attempts=1),
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
            task=_GP_VL.task,
            foundation=_GP_VL.foundation,
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
            task=_VIRL_VL.task,
            foundation=_VIRL_VL.foundation,
            sft=replace(_SMOKE_VIRL_L.sft, examples=64),
            evaluation=replace(_SMOKE_VIRL_L.evaluation, episodes_end=4, episodes_curve=4),
        ),
    ),
    device="cpu",
    toy=True,
)

# GP-L alone (`make headline`), meant to take a quarter of an hour on two cores.
HEADLINE = Profile(
    name="headline",
    seeds=(0, 1, 2),
    studies=(
        replace(
            _GP_L,
            fork_flops=5e12,
            checkpoints=3,
            experiments=(MAIN,),
            evaluation=replace(_GP_L.evaluation, episodes_end=500, episodes_curve=100, episodes_greedy=100),
        ),
    ),
    device="cpu",
)


_EARLIER_FLOPS = {"gp-l": 5e12, "virl-l": 1e13, "gp-vl": 1.2e13, "virl-vl": 1.5e13}


def _searched(study: Study) -> Study:
    """A study that tests nothing but the training rule, at the numbers of the earlier design and around them.

    The budget is searched for at the rate that the search has chosen for SFT.
    """
    main = replace(MAIN, splits=SEARCH_RATES.splits, paper_end=False)
    searches = SEARCHES if study.task.modality == "text" else (SEARCH_RATES,)
    ratio = "token" if study.task.modality == "text" else study.ppo.ratio  # of the same game's text task
    fork_flops = _EARLIER_FLOPS[study.task.key]
    return replace(
        study,
        fork_flops=fork_flops,
        checkpoints=1,
        init_lr=None,
        sft=replace(study.sft, lr=SEARCHED_AT),
        ppo=replace(study.ppo, lr=PPOConfig.lr, ratio=ratio),
        experiments=(main, *(with_ratio(e, ratio) for e in searches), search_budget(fork_flops, study.sft.lr)),
        evaluation=replace(study.evaluation, episodes_greedy=16),
    )


# Development seeds, which no result uses. See PROTOCOL.md.
SEARCH = Profile(
    name="search", seeds=(91, 92), studies=tuple(_searched(study) for study in LAPTOP.studies), device="cpu"
)

# A real pretrained model, on one GPU of 80 GB. It is taught first (`foundation/taught.py`), and the same without that
# stage is reported beside it. Learning rates as in a probe (SFT 2e-4, RL 1e-5 and 3e-5), not searched. Sizes are for
# half an hour of an H100, three seeds together: an estimate, from times of that probe.
_SMOLLM2_GP_L = replace(
    _GP_L,
    foundation="smollm2-gp-l",
    fork_flops=2e15,  # RL: about 12 updates of 256 hands; SFT: 130 steps of 64
    init_steps=20,
    checkpoints=3,
    init_lr=None,
    sft=replace(_GP_L.sft, lr=1e-4),
    ppo=replace(_GP_L.ppo, episodes=256, lr=3e-5, ratio="token", max_new_tokens=64),  # answers have up to 60 tokens
    evaluation=replace(_GP_L.evaluation, episodes_end=256, episodes_curve=128, episodes_greedy=128, max_new_tokens=64),
    experiments=(MAIN, foundations("smollm2")),
    controls=(),
)
_SMOLLM2_VIRL_L = replace(
    _VIRL_L,
    foundation="smollm2-virl-l",
    fork_flops=3e15,  # RL: about 12 updates of 32 routes; SFT: 400 steps of 16
    init_steps=40,
    checkpoints=3,
    init_lr=None,
    sft=replace(_VIRL_L.sft, lr=1e-4),
    ppo=replace(_VIRL_L.ppo, lr=3e-5, value_lr=1e-3, max_new_tokens=80),
    evaluation=replace(_VIRL_L.evaluation, episodes_end=128, episodes_curve=64, episodes_greedy=64, max_new_tokens=80),
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


# The paper's own scale. Every number has its source: [P] the paper, [C] the released code and its scripts, and [-] for
# what neither says, which is then ours. Where the two differ it is the code's, which made the numbers.
_PAPER_SFT = SFTConfig(
    examples=51_200,  # [-] GP-L's Init sees each once: 400 steps of 128
    batch_size=128,  # [C] 16 on each of 8 GPUs
    lr=1e-6,  # [C] GP-L, V-IRL-L
    warmup=0.03,  # [C], and a constant rate after it; ours is a cosine
    adam_betas=(0.9, 0.98),  # [C]
    adam_eps=1e-7,  # [C]
)
_PAPER_PPO = PPOConfig(
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
_PAPER_GP_L = Study(
    task=TASKS["gp-l"],
    foundation="meta-llama/Llama-3.2-11B-Vision-Instruct",  # [C] README; the paper leaves out "Instruct"
    fork_flops=1e19,  # [P] end of the x-axis of Fig. 5, where Init counts too
    init_steps=400,  # [C]
    checkpoints=5,  # [-]
    sft=_PAPER_SFT,
    ppo=_PAPER_PPO,
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
_PAPER_VIRL_L = replace(
    _PAPER_GP_L,
    task=TASKS["virl-l"],
    fork_flops=4e18,  # [P] Fig. 5
    init_steps=25,  # [C]
    ppo=replace(_PAPER_PPO, episodes=128, attempts=2),  # [-] 16 attempts to a route; [P]
    evaluation=replace(
        _PAPER_GP_L.evaluation, episodes_end=48, episodes_curve=48, episodes_greedy=48, attempts=2
    ),  # [C]
    experiments=(MAIN,),
)
_PAPER_RATES = {"none": (1e-7, 5e-7, 1e-6, 1e-5, 1e-4), "vision": (1e-7, 1e-6), "vision+adapter": (1e-7, 5e-7, 1e-6)}
PAPER = Profile(
    name="paper",
    seeds=(0,),  # [P] says nothing of repeated runs
    studies=(
        _PAPER_GP_L,
        _PAPER_VIRL_L,
        replace(
            _PAPER_GP_L,
            task=TASKS["gp-vl"],
            fork_flops=6e19,  # [P] Fig. 5
            init_steps=400,  # [-] as GP-L
            sft=replace(_PAPER_SFT, lr=5e-7),  # [C]
            experiments=(
                MAIN,
                replace(  # [P] Fig. 16
                    SFT_TUNING,
                    arms=(
                        Arm("sft", tuple({"lr": r, "frozen": f} for f, rates in _PAPER_RATES.items() for r in rates)),
                    ),
                ),
                replace(RL_TUNING, arms=(Arm("rl", tuple({"lr": lr} for lr in (1e-6, 2e-6))),)),  # [P] Fig. 17
            ),
        ),
        replace(
            _PAPER_VIRL_L,
            task=TASKS["virl-vl"],
            fork_flops=4e19,  # [P] Fig. 5
            init_steps=25,  # [-] as V-IRL-L
            sft=replace(_PAPER_SFT, lr=5e-7),  # [C]
            ppo=replace(_PAPER_VIRL_L.ppo, lr=1e-7, value_lr=1e-7, lr_end=1e-2),  # [C] down to 1e-9
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


_ALL = SMOKE, LAPTOP, HEADLINE, SEARCH, SMOLLM2, SMOLLM2_SMOKE
PROFILES: Registry[Profile] = Registry("profile", (*map(_placed, _ALL), PAPER))


def get_profile(name: str) -> Profile:
    """The profile called `name`, also one with a model of your own. Raises ValueError that lists the known ones."""
    from . import own_model  # which needs the profiles

    return PROFILES.get(name) or (own_model.find(name) if re.fullmatch(r"[a-z0-9_]+", name) else None) or PROFILES[name]


def banner(profile: str) -> str:
    """`TOY` for the name of a toy profile, "" for any other, known or not."""
    try:
        return TOY if get_profile(profile).toy else ""
    except ValueError:
        return ""
