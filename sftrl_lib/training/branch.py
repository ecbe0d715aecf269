"""The input of a trainer: the starting policy, the task, a configuration, a compute budget and a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..configs import MICRO_BATCH_TOKENS
from ..fingerprint import Identity, settings
from ..models.policy import Policy
from ..task import Task
from .compute import Compute
from .processes import Processes

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass
class Branch:
    """One branch of the fork. A trainer is a function of it: ``train(branch) -> None``.

    It trains `policy` in place until `compute.fork_flops` reaches `budget`, writes `checkpoints` snapshots into
    `folder` at equal shares of the budget (with rollouts one more, where the budget is spent by `paper_lambda`) and
    ``log.json`` at the end, and resumes where an earlier call was killed.
    """

    policy: Policy
    task: Task
    config: Any  # of the method's own class
    folder: Path
    compute: Compute  # spent so far; the trainer adds to it
    budget: float  # FLOPs after Init
    checkpoints: int = 1
    seed: int = 0
    data: Dataset | None = None  # demonstrations, if the method has any
    reference: Policy | None = None  # Init, for a KL penalty
    rollout_batch: int = 256  # episodes decoded side by side
    micro_batch_tokens: int = MICRO_BATCH_TOKENS  # that RL learns from at once, padding included
    processes: Processes = field(default_factory=Processes)  # that train it together
    engine: str = "ours"  # of the rollouts, see `Profile.engine`
    paper_lambda: float | None = None  # the paper's D_buffer / D_RL; with it a snapshot where it spends the budget

    @property
    def identity(self) -> Identity:
        """What a training checkpoint of this branch belongs to."""
        return {
            "config": settings(self.config),
            "seed": self.seed,
            "budget": self.budget,
            "checkpoints": self.checkpoints,
        }
