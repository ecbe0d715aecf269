"""The configuration of every stage, as frozen dataclasses that check themselves. The paper's values stand beside ours.

A bad value raises ValueError with one sentence that names the field, before any work is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

FROZEN = ("none", "vision", "vision+adapter")  # parts of a vision-language model that are not trained
RATIOS = ("token", "sequence")
HIGHEST_RATE = 1.0  # of learning: Adam moves every weight by about as much at each step
HIGHEST = 1e6  # of any number that has no narrower bounds, far below what overflows in float32
TEMPERATURES = 1e-3, 1e3  # logits divided by much less overflow
MICRO_BATCH_TOKENS = 1_024  # see `Profile.micro_batch_tokens`
PICTURES = ("shown", "dropped")
LOSSES = ("nll", "dft")
COUNTED = ("rollouts", "right")


def check(config: Any, name: str, good: bool, must: str) -> None:
    """Raise ValueError unless the field `name` of `config` is `good`; `must` says what it must be."""
    if not good:
        raise ValueError(f"{type(config).__name__}.{name} must be {must}, got {getattr(config, name)!r}.")


def check_whole(config: Any, *names: str, least: int = 1) -> None:
    """The fields are whole numbers of at least `least`; NumPy's count as well."""
    for name in names:
        good = is_whole(getattr(config, name), least)
        check(config, name, good, f"a whole number of at least {least}, below 2**31")


def is_whole(value: Any, least: int) -> bool:
    """Whether `value` is a whole number from `least` on that 32 bits hold; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= value < 2**31


def check_number(
    config: Any, *names: str, low: float = 0.0, high: float = HIGHEST, above: bool = False, below: bool = False
) -> None:
    """The fields are numbers from `low` to `high`; `above` and `below` leave out the ends themselves."""
    ends = f"{'above' if above else 'from'} {low:g}{', below' if below else ' to'} {high:g}"
    for name in names:
        value = getattr(config, name)
        inside = is_number(value, low, high) and not (above and value == low) and not (below and value == high)
        check(config, name, inside, f"a number {ends}")


def is_number(value: Any, low: float, high: float) -> bool:
    """Whether `value` is a number from `low` to `high`; True, False and NaN are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and low <= value <= high


def check_temperatures(config: Any, name: str, greedy: bool = False) -> None:
    """The field is a temperature, or a tuple of some; 0 is one if `greedy`."""
    value, (low, high) = getattr(config, name), TEMPERATURES
    given = value if isinstance(value, tuple | list) else (value,)
    good = all(is_number(t, low, high) or (greedy and is_number(t, 0.0, 0.0)) for t in given)
    several = "temperatures" if given is value else "a temperature"
    check(config, name, good and len(given) > 0, f"{several} from {low:g} to {high:g}{', or 0' if greedy else ''}")


def check_adam(config: Any) -> None:
    """The fields ``adam_betas`` and ``adam_eps``, which is not to vanish in float32."""
    betas = config.adam_betas
    good = isinstance(betas, tuple | list) and len(betas) == 2 and all(is_number(b, 0.0, 1.0) and b < 1 for b in betas)
    check(config, "adam_betas", good, "two numbers from 0, below 1")
    check_number(config, "adam_eps", low=1e-30, high=1.0)


def check_flag(config: Any, name: str) -> None:
    """The field is True or False."""
    check(config, name, isinstance(getattr(config, name), bool), "True or False")


def check_choice(config: Any, name: str, allowed: Sequence[str]) -> None:
    """The field is one of `allowed`."""
    check(config, name, getattr(config, name) in allowed, f"one of {', '.join(map(repr, allowed))}")


@dataclass(frozen=True)
class SFTConfig:
    """Supervised fine-tuning with TRL's `SFTTrainer`, loss on the answer only (paper C.1-C.2)."""

    examples: int = 8_000  # expert prompt-answer pairs to draw from
    batch_size: int = 64  # paper 128
    lr: float = 1e-3  # paper 1e-6 at 11 B parameters; small models need larger steps
    warmup: float = 0.03  # share of the steps, as in the official script
    group_by_length: bool = False  # examples of similar length in a batch: less padding where prompts grow
    frozen: str = "none"  # parts that are not trained, one of `FROZEN` (paper Fig. 16)
    adam_betas: tuple[float, float] = (0.9, 0.98)
    adam_eps: float = 1e-7
    pictures: str = "shown"  # or "dropped" from every batch, as the released code's collator does
    loss: str = "nll"  # or "dft": each token's loss weighted with its probability (arXiv 2508.05629)
    kl_coef: float = 0.0  # of KL(policy || Init) on the answers' tokens [0]

    def __post_init__(self) -> None:
        check_whole(self, "examples", "batch_size")
        check_number(self, "lr", high=HIGHEST_RATE, above=True)
        check_adam(self)
        check_number(self, "warmup", high=1.0, below=True)
        check_number(self, "kl_coef")
        check_choice(self, "frozen", FROZEN)
        check_choice(self, "pictures", PICTURES)
        check_choice(self, "loss", LOSSES)
        check(self, "loss", self.loss == "nll" or not self.kl_coef, "'nll' with a kl_coef")
        check_flag(self, "group_by_length")


@dataclass(frozen=True)
class RejectionConfig(SFTConfig):
    """SFT on the right ones of Init's own answers, which are sampled as RL's rollouts are; `examples` has no effect."""

    counted: str = "rollouts"  # what `count` counts: "rollouts", or the "right" answers in them
    count: int = 4_480  # sampled in all; RL of GP-L plays so many hands at the laptop's budget
    attempts: int = 5  # per hand, as in RL; failed ones and their feedback stay in the prompt
    temperature: float = 1.0
    max_new_tokens: int = 48

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "counted", COUNTED)
        check_whole(self, "count", "attempts", "max_new_tokens")
        check_temperatures(self, "temperature")


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
    clip: float = 0.2  # [0.1]
    ratio: str = "token"  # or "sequence", the official weighted sequence-level ratio
    gamma: float = 0.9  # per attempt [0.9]
    gae_lambda: float = 0.95  # [0.95]
    value_coef: float = 0.5  # [0.5]
    entropy_coef: float = 0.0  # [0.01, but unused by the official loss]
    kl_coef: float = 0.0  # of the KL to Init [0: the official code has none]
    share_backbone: bool = False  # let the value loss reach the backbone [True]
    max_grad_norm: float = 1.0  # [0.01]
    adam_betas: tuple[float, float] = (0.9, 0.999)
    adam_eps: float = 1e-7
    importance_cap: float = 0.0  # truncated importance weights for rollouts by another engine [none; TRL 3]; 0: none
    group: int = 0  # GRPO: so many rollouts of every hand, whose mean return is the baseline; 0: PPO's critic

    def __post_init__(self) -> None:
        check_whole(self, "episodes", "attempts", "max_new_tokens", "epochs", "minibatches")
        check_temperatures(self, "temperature")
        check_number(self, "lr", "value_lr", high=HIGHEST_RATE, above=True)
        check_number(self, "clip", "max_grad_norm", above=True)
        check_adam(self)
        check_number(self, "lr_end", "gamma", "gae_lambda", high=1.0)
        check_number(self, "value_coef", "entropy_coef", "kl_coef", "importance_cap")
        check_choice(self, "ratio", RATIOS)
        check_flag(self, "share_backbone")
        check_whole(self, "group", least=0)
        check(self, "group", self.group != 1 and self.episodes % (self.group or 1) == 0, "0 or a divisor of episodes")
        check(self, "group", not (self.group and self.share_backbone), "0 with share_backbone: GRPO has no critic")


@dataclass(frozen=True)
class Protocol:
    """One way of testing."""

    episodes: int  # per split
    attempts: int  # per hand, or per position of a route
    temperature: float  # 0 is greedy
    max_new_tokens: int  # per attempt


@dataclass(frozen=True)
class EvaluationConfig:
    """How checkpoints are tested (paper C.3: sampled, several attempts with feedback)."""

    episodes_end: int = 1_000  # per split for Init and the end of a branch [234]
    episodes_curve: int = 250  # per split for checkpoints along a curve
    attempts: int = 5
    temperature: float = 1.0  # the rollout temperature, fixed before looking at results; 0 is greedy
    max_new_tokens: int = 48  # [256]
    episodes_greedy: int = 500  # per split, greedy decoding beside the main protocol
    episodes_sensitivity: int = 250  # per split and temperature, with the longest number of attempts
    temperatures: tuple[float, ...] = (0.0, 0.5, 1.0)
    attempts_grid: tuple[int, ...] = (1, 2, 3, 5)
    episodes_samples: int = 100  # per split, for pass@k
    samples: int = 256  # single answers to each of them: the largest k

    def __post_init__(self) -> None:
        counts = ("episodes_end", "episodes_curve", "episodes_greedy", "episodes_sensitivity")
        counts += ("episodes_samples", "samples")
        check_whole(self, *counts, "attempts", "max_new_tokens")
        for name in ("temperature", "temperatures"):
            check_temperatures(self, name, greedy=True)
        grid = self.attempts_grid
        good = isinstance(grid, tuple | list) and len(grid) > 0 and all(is_whole(k, 1) for k in grid)
        check(self, "attempts_grid", good, "whole numbers of at least 1, below 2**31")

    def protocol(self, end: bool = True, **changes: Any) -> Protocol:
        """The paper's protocol at the end of a branch, or along its curve; `changes` replaces single fields."""
        episodes = self.episodes_end if end else self.episodes_curve
        return replace(Protocol(episodes, self.attempts, self.temperature, self.max_new_tokens), **changes)


@dataclass(frozen=True)
class LoRAConfig:
    """Low-rank adapters in place of full fine-tuning, with peft. The paper trains all weights."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0  # with dropout the log-probabilities of rollouts and of learning differ
    targets: str | tuple[str, ...] = "all-linear"  # peft's `target_modules`

    def __post_init__(self) -> None:
        check_whole(self, "rank")
        check_number(self, "alpha", above=True)
        check_number(self, "dropout", high=1.0, below=True)
