"""The configuration of every stage, as frozen dataclasses, and the profiles that fill them in.

A profile says which runs there are. Its studies, one a task, say what each run does: the model, the compute both
branches get, how they are trained and tested. Nothing else in the project knows which profile it serves. The paper's
values are named where ours differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .tasks import GP_L, GP_VL, VIRL_L, VIRL_VL, Task, get_task

METHODS = ("sft", "rl", "rl_no_init", "sft_suboptimal")


@dataclass(frozen=True)
class SFTConfig:
    """Supervised fine-tuning with TRL's `SFTTrainer`, loss on the answer only (paper C.1-C.2)."""

    examples: int = 8_000  # expert prompt-answer pairs to draw from
    batch_size: int = 64  # paper 128
    lr: float = 1e-3  # paper 1e-6 at 11 B parameters; small models need larger steps
    init_steps: int = 24  # the short SFT that makes Init; official GP-L: 400 steps of 128
    warmup: float = 0.03  # share of the steps, as in the official script
    group_by_length: bool = False  # examples of like length in a batch: less padding where prompts grow
    frozen: str = "none"  # parts that do not learn: none, vision, or vision+adapter (paper Fig. 16)


@dataclass(frozen=True)
class PPOConfig:
    """Multi-turn PPO (paper section 3, official hyper-parameters in brackets)."""

    episodes: int = 128  # hands or routes per update [2,048 attempts]
    attempts: int = 5  # graded attempts per hand, or per position of a route
    temperature: float = 1.0  # of the rollouts [0.2]
    max_new_tokens: int = 48  # per attempt [512]
    lr: float = 3e-4  # [1e-6 at 11 B parameters]
    value_lr: float = 1e-3  # of the value head
    lr_end: float = 0.1  # cosine schedule, final share of lr [1e-3]
    epochs: int = 1  # passes over each batch [4]
    minibatches: int = 4  # optimiser steps per pass [2]
    micro_batches: int = 1  # parts, by length, in which a minibatch's gradient is accumulated: less padding
    clip: float = 0.2  # [0.1]
    ratio: str = "token"  # or "sequence", the official weighted sequence-level ratio
    gamma: float = 0.9  # per attempt [0.9]
    gae_lambda: float = 0.95  # [0.95]
    value_coef: float = 0.5  # [0.5]
    entropy_coef: float = 0.0  # [0.01, but unused by the official loss]
    kl_coef: float = 0.0  # of the KL to Init [0: the official code has none]
    share_backbone: bool = False  # let the value loss reach the backbone [True]
    max_grad_norm: float = 1.0  # [0.01]


@dataclass(frozen=True)
class EvaluationConfig:
    """How checkpoints are tested (paper C.3: sampled, several attempts with feedback)."""

    episodes_end: int = 1_000  # per split for Init and the end of a branch [234]
    episodes_curve: int = 250  # per split for checkpoints along a curve
    attempts: int = 5
    temperature: float = 1.0  # the rollout temperature, fixed before looking at results
    max_new_tokens: int = 48  # [256]
    batch_size: int = 256  # episodes decoded side by side
    episodes_greedy: int = 500  # per split, greedy decoding beside the main protocol
    episodes_sensitivity: int = 250  # per split and temperature, with the longest number of attempts
    temperatures: tuple[float, ...] = (0.0, 0.5, 1.0)
    attempts_grid: tuple[int, ...] = (1, 2, 3, 5)


@dataclass(frozen=True)
class Study:
    """One task at one profile's scale: what its runs do."""

    profile: str  # name of the profile, below which everything is kept
    task: Task
    foundation: str  # folder below sftrl_lib/foundation/shipped, or a Hugging Face model by path or hub name
    fork_flops: float  # training compute that each branch gets after Init, by the paper's formulas
    checkpoints: int = 5  # evaluated along each branch, at equal steps of compute
    sft: SFTConfig = field(default_factory=SFTConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    dtype: str = "float32"
    overfit_lr: float = 3e-3  # of the SFT that overfits, from whose end RL begins in Fig. 19
    experiments: tuple[str, ...] = ("main",)  # those of `training.branches.EXPERIMENTS` that are run, and "sensitivity"

    @property
    def overfitted_setting(self) -> str:
        """The setting of the SFT branch that overfits, in the experiment "overfitted"."""
        return f"lr={self.overfit_lr:g}"

    @property
    def main_settings(self) -> dict[str, str]:
        """The experiments of which the main comparison is one setting, and which setting that is."""
        settings = {
            "attempts": f"attempts={self.ppo.attempts}",
            "rl_tuning": f"lr={self.ppo.lr:g}",
            "sft_tuning": f"lr={self.sft.lr:g};frozen={self.sft.frozen}",
        }
        return {experiment: setting for experiment, setting in settings.items() if experiment in self.experiments}


@dataclass(frozen=True)
class Profile:
    """One scale at which the whole paper runs: which runs there are."""

    name: str
    seeds: tuple[int, ...]  # of the main comparison
    studies: tuple[Study, ...]
    ablation_seeds: tuple[int, ...] = (0,)  # of Figs. 9, 10, 15 to 17 and 19
    attempts: tuple[int, ...] = (1, 3, 5, 10)  # Fig. 10
    no_init_lrs: tuple[float, ...] = (1e-4, 3e-4, 1e-3)  # Fig. 9; paper 5e-7, 1e-6, 2e-6
    sft_tuning: tuple[tuple[str, tuple[float, ...]], ...] = (  # Fig. 16: what is frozen, and learning rates
        ("none", (1e-4, 3e-4, 1e-3, 2e-3, 5e-3)),  # paper 1e-7 to 1e-4
        ("vision", (3e-4, 1e-3)),  # paper 1e-7, 1e-6
        ("vision+adapter", (3e-4, 1e-3, 2e-3)),  # paper 1e-7, 5e-7, 1e-6
    )
    rl_tuning: tuple[float, ...] = (3e-4, 6e-4)  # Fig. 17; paper 1e-6, 2e-6
    overfitted_rl: tuple[float, ...] = (3e-4, 6e-4)  # Fig. 19; paper 1e-7, 2e-7

    def study(self, task: str, modality: str = "text") -> Study:
        """The study of a task. Raises ValueError if there is no such task, or the profile does not run it."""
        for study in self.studies:
            if (study.task.name, study.task.modality) == (task, modality):
                return study
        known = ", ".join(study.task.label for study in self.studies)
        wanted = get_task(task, modality).label
        raise ValueError(f"The profile {self.name!r} has no study of {wanted}; it has {known}.")


_POINTS = Study(
    profile="laptop",
    task=GP_L,
    foundation="gp-l",
    fork_flops=5e12,
    experiments=("main", "attempts", "no_init", "suboptimal", "sensitivity"),
)
_NAVIGATION = Study(
    profile="laptop",
    task=VIRL_L,
    foundation="virl-l",
    fork_flops=1e13,
    sft=SFTConfig(batch_size=16, init_steps=48, group_by_length=True),
    ppo=PPOConfig(episodes=32, attempts=2, max_new_tokens=64, value_lr=1e-2, micro_batches=4),
    evaluation=EvaluationConfig(
        episodes_end=250, episodes_curve=64, episodes_greedy=125, attempts=2, max_new_tokens=64, attempts_grid=(1, 2)
    ),
)
_CARDS = replace(
    _POINTS,
    task=GP_VL,
    foundation="gp-vl",
    fork_flops=1.2e13,
    experiments=("main", "sft_tuning", "rl_tuning"),
    evaluation=replace(_POINTS.evaluation, episodes_end=500, episodes_curve=200, episodes_greedy=200),
)
_STREETS = replace(
    _NAVIGATION,
    task=VIRL_VL,
    foundation="virl-vl",
    fork_flops=1.5e13,
    sft=replace(_NAVIGATION.sft, examples=5_000),
    experiments=("main", "overfitted"),
    evaluation=replace(_NAVIGATION.evaluation, episodes_end=150, episodes_curve=48, episodes_greedy=64),
)
LAPTOP = Profile(name="laptop", seeds=(0, 1, 2), studies=(_POINTS, _NAVIGATION, _CARDS, _STREETS))

# Few attempts, for decoding takes as long as its longest episode however few there are.
_SMOKE_POINTS = replace(
    _POINTS,
    profile="smoke",
    fork_flops=1e11,
    checkpoints=1,
    sft=replace(_POINTS.sft, examples=256, init_steps=4),
    ppo=replace(_POINTS.ppo, episodes=16, attempts=2),
    evaluation=replace(
        _POINTS.evaluation,
        episodes_end=32,
        episodes_curve=16,
        attempts=2,
        episodes_greedy=16,
        episodes_sensitivity=16,
        temperatures=(0.0, 1.0),
        attempts_grid=(1, 2),
    ),
)
_SMOKE_NAVIGATION = replace(
    _NAVIGATION,
    profile="smoke",
    fork_flops=4e10,
    checkpoints=1,
    sft=replace(_NAVIGATION.sft, examples=128, batch_size=8, init_steps=4),
    ppo=replace(_NAVIGATION.ppo, episodes=4),
    evaluation=replace(_NAVIGATION.evaluation, episodes_end=6, episodes_curve=6, episodes_greedy=4, attempts=1),
)
SMOKE = Profile(
    name="smoke",
    seeds=(0,),
    studies=(
        _SMOKE_POINTS,
        _SMOKE_NAVIGATION,
        replace(
            _SMOKE_POINTS,
            task=_CARDS.task,
            foundation=_CARDS.foundation,
            experiments=("main", "sft_tuning"),
        ),
        replace(
            _SMOKE_NAVIGATION,
            task=_STREETS.task,
            foundation=_STREETS.foundation,
            sft=replace(_SMOKE_NAVIGATION.sft, examples=64),
            evaluation=replace(_SMOKE_NAVIGATION.evaluation, episodes_end=4, episodes_curve=4),
        ),
    ),
    attempts=(2,),  # that of the main comparison, so that Fig. 10 has one point without a run of its own
    no_init_lrs=(1e-3,),
    sft_tuning=(("vision", (1e-3,)),),
)

PROFILES = {profile.name: profile for profile in (SMOKE, LAPTOP)}


def get_profile(name: str) -> Profile:
    """The profile called `name`. Raises ValueError that lists the known ones."""
    if name not in PROFILES:
        raise ValueError(f"Unknown profile {name!r}; use one of {', '.join(PROFILES)}.")
    return PROFILES[name]
