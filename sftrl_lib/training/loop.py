"""The training loop of every method that learns from rollouts: budget, schedule, checkpoints, snapshots, log.

A method hands in one update as a function; PPO's is in `ppo.py`. SFT has TRL's loop.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..files import write_atomically
from ..models.checkpoint import State
from ..progress import progress_bar
from ..seeds import TRAINING, stream
from .branch import Branch
from .compute import Compute
from .finite import check_number, check_weights
from .snapshots import write_snapshot
from .tracking import tracked


@dataclass(frozen=True)
class Progress:
    """How far training has got, for an update."""

    update: int  # number of updates done so far
    spent: float  # share of the budget spent, 0 to 1

    def cosine(self, end: float) -> float:
        """Share of the peak learning rate: a cosine from 1 to `end` over the budget."""
        return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * self.spent))

    def seeds(self, seed: int, count: int) -> list[int]:
        """`count` random seeds that depend on the run's seed and the number of the update alone."""
        return stream(TRAINING, seed, self.update, count=count)


Update = Callable[[Progress], dict[str, float]]  # trains, adds to the branch's compute, returns what to log


def train_by_updates(
    branch: Branch, optimizer: torch.optim.Optimizer, update: Update, name: str, save_every: int = 5
) -> list[dict[str, float]]:
    """Call `update` until the branch's budget is spent; returns the log, one entry per update.

    Saves the policy, its critic, the optimizer and the log every `save_every` updates and at the end, and
    resumes from what was saved: an interrupted run gives the same result. Raises FloatingPointError if what an update
    returns, or a weight after it, is not finite; `name` is the method's, for messages.
    """
    policy, processes = branch.policy, branch.processes
    state: State = {"model": policy.model, "optimizer": optimizer}
    if policy.value_head is not None:
        state["value_head"] = policy.value_head
    saved = processes.load(branch.folder / "training", state, branch.identity)
    saved = saved or {"update": 0, "written": 0, "paper_end": False, "compute": branch.compute.to_dict(), "history": []}
    branch.compute = compute = Compute(**saved["compute"])
    history = saved["history"]
    processes.sync_actor(policy)
    bar = progress_bar(100, f"{name} seed {branch.seed}", "%", shown=processes.main)
    with tracked(branch) as report:
        while compute.fork_flops < branch.budget:
            try:
                entry = update(Progress(saved["update"], compute.fork_flops / branch.budget))
                _check_finite(branch, entry, name)
            except FloatingPointError as error:
                raise FloatingPointError(f"Update {saved['update'] + 1}: {error}") from None
            processes.sync_actor(policy)
            saved["update"] += 1
            history.append({"update": saved["update"], "flops": compute.flops, **entry})
            report(saved["update"], history[-1])
            saved["compute"] = compute.to_dict()
            spent = min(1.0, compute.fork_flops / branch.budget)
            bar.update(round(100 * spent) - bar.n)
            bar.set_postfix(success=f"{entry['success']:.2f}", update=saved["update"])
            due, paper_end = int(spent * branch.checkpoints), _paper_end(branch)
            if due > saved["written"] or paper_end > saved["paper_end"]:
                saved["written"], saved["paper_end"] = due, paper_end
                weights = processes.whole_weights()
                if processes.main:
                    write_snapshot(policy, branch.folder, saved["update"], compute, weights)
            if due == branch.checkpoints or saved["update"] % save_every == 0:
                processes.save(branch.folder / "training", state, saved, branch.identity)
    bar.close()
    if processes.main:
        write_atomically(branch.folder / "log.json", json.dumps(history))
    processes.wait()
    return history


def _paper_end(branch: Branch) -> bool:
    """Whether the budget is spent by the paper's lambda, where that is to be tested."""
    compute, factor = branch.compute, branch.paper_lambda
    return factor is not None and compute.by_lambda(factor) - compute.init_flops >= branch.budget


def _check_finite(branch: Branch, entry: dict[str, float], name: str) -> None:
    for what, number in entry.items():
        check_number(number, f"{name}'s {what}", branch.config)
    check_weights(branch.policy.model, name, branch.config)
    if branch.policy.value_head is not None:
        check_weights(branch.policy.value_head, f"{name}'s critic", branch.config, "value_lr")
