"""What `test_processes.py` runs in each of two processes: python two_processes.py FOLDER MODEL."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from accelerate import DistributedType, PartialState
from tiny_models import tiny_profile, with_study

from sftrl_lib import paths
from sftrl_lib.configs import PPOConfig
from sftrl_lib.models.policy import load_policy
from sftrl_lib.points.task import GP_L
from sftrl_lib.runs import Run
from sftrl_lib.training import fork, ppo
from sftrl_lib.training.branch import Branch
from sftrl_lib.training.compute import Compute
from sftrl_lib.training.processes import launched

# Five episodes for two processes, micro-batches of one row, and steps in proportion to the gradient, as SGD's: Adam's
# own first step is the gradient's sign, which any rounding flips where there is none.
CONFIG = PPOConfig(
    episodes=5, attempts=3, max_new_tokens=8, epochs=2, minibatches=2, lr=0.3, value_lr=0.3, adam_eps=1.0
)  # fmt: skip


def branch_of(folder, model, processes, budget=1.0, **changes):
    """A branch that ends after one update, if `budget` is not set."""
    policy = load_policy(model)
    config = replace(CONFIG, **changes)
    compute = Compute(policy.parameters_count)
    return Branch(
        policy, GP_L, config, folder, compute, budget, seed=3, micro_batch_tokens=200, processes=processes
    )  # fmt: skip


def profile_of(model):
    profile = tiny_profile(model)
    [study] = profile.studies
    return with_study(profile, sft=replace(study.sft, lr=0.3, adam_eps=1.0), ppo=CONFIG, checkpoints=1)


def interrupted(folder, model, processes, budget, **changes):
    """The same training, but the third update is interrupted and gone on with."""
    calls, play = [], ppo.rollout

    def rollout(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return play(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ppo, "rollout", rollout)
        with pytest.raises(KeyboardInterrupt):
            ppo.train(branch_of(folder, model, processes, budget, **changes), save_every=1)
        ppo.train(branch_of(folder, model, processes, budget, **changes), save_every=1)


def train_all(home, model, processes, **changes):
    """One update of PPO, three and a half with and without an interruption, and Init by SFT, each in a folder."""
    branch = branch_of(home / "update", model, processes, **changes)
    ppo.train(branch)
    budget = 3.5 * branch.compute.fork_flops
    ppo.train(branch_of(home / "whole", model, processes, budget, **changes), save_every=1)
    if processes.count > 1:
        interrupted(home / "resumed", model, processes, budget, **changes)
    paths.HOME = home
    fork.train(Run(profile_of(model), "gp-l", "init"), processes)


def as_accelerators(self, *args, start=PartialState.__init__, **kwargs):
    """`PartialState` that takes CPUs for accelerators."""
    start(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def main(folder, model):
    train_all(folder / "ddp", model, launched("cpu"))
    # accelerate knows FSDP on accelerators only; told that the CPUs are some, it shards over them through gloo.
    with pytest.MonkeyPatch.context() as patch:
        settings = {
            "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
            "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT", "FSDP_RESHARD_AFTER_FORWARD": "true",
        }  # fmt: skip
        for name, value in settings.items():
            patch.setenv(name, value)
        patch.setattr(PartialState, "__init__", as_accelerators)
        train_all(folder / "fsdp", model, launched("cpu"), importance_cap=2.0)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
