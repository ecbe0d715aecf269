"""What a profile consists of: its studies, one per task, which say what each run does."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from typing import Any

from ..configs import (
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
from ..experiments import MAIN, Experiment
from ..methods import INIT, Method
from ..task import Task
from ..tasks import TASKS

TOY = "toy run, numbers mean nothing"  # what stands on everything that a toy profile makes
ABLATIONS = 3  # seeds that the ablations take of those that are given: one would decide nothing
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
        """The configuration of a method: the study's of that class, or else the class's defaults.

        SFT on Init's own answers samples as the study's RL does and learns as its SFT does.
        """
        if method is INIT and self.init_lr:
            return replace(self.sft, lr=self.init_lr)
        given = next((c for c in (self.sft, self.ppo, *self.more) if isinstance(c, method.config)), None)
        if given is None and method.config is RejectionConfig:
            learns = {each.name: getattr(self.sft, each.name) for each in fields(SFTConfig)}
            samples = {name: getattr(self.ppo, name) for name in ("attempts", "temperature", "max_new_tokens")}
            return RejectionConfig(**learns, **samples)
        return given or method.config()

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
    ablation_seeds: tuple[int, ...] = (0,)  # of the other experiments, unless seeds are given
    device: str = "auto"  # cpu, cuda or mps; auto: the GPU if there is one
    dtype: str = "float32"  # of the weights, one of `DTYPES`
    lora: LoRAConfig | None = None  # train adapters in place of all weights
    engine: str = "ours"  # of the rollouts in training: ours, or vllm where it is installed
    rollout_batch: int = 256  # episodes decoded side by side; what they answer does not depend on it
    # How a gradient is computed, not which (only rounding differs, as between devices), so no part of any identity:
    micro_batch_tokens: int = MICRO_BATCH_TOKENS  # of a micro-batch of RL, padding included; a GPU takes more
    gradient_checkpointing: bool = False  # keep a layer's input only and compute the rest twice: a third more work
    keeps_training: bool = True  # resume checkpoints of finished runs: three times the model
    toy: bool = False  # too small for its numbers to mean anything, which figures and notebooks then say

    def __post_init__(self) -> None:
        check(self, "name", bool(re.fullmatch(r"[a-z][a-z0-9_]*", str(self.name))), "a lower-case name")
        # transformers' trainer takes the first GPU that it sees, whatever number is asked for
        check(self, "device", ":" not in self.device, "cpu, cuda, mps or auto; CUDA_VISIBLE_DEVICES says which GPU")
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
        """Seeds of the main comparison and of the ablations; of given ones, the ablations take the first three."""
        return (given, given[:ABLATIONS]) if given else (self.seeds, self.ablation_seeds)
