"""The paper's fork: a short SFT makes Init, then more SFT or RL continue from it at equal training compute.

Every function takes a run (`runs.Run`) and writes to its folder. Finished work is not repeated, interrupted work is
resumed, and work with other settings is set aside (`fingerprint.claim`).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from datasets import Dataset

from .. import provenance
from ..configs import LoRAConfig
from ..files import disk_errors, seal, write_atomically
from ..fingerprint import claim
from ..foundation.teaching import provide
from ..methods import INIT
from ..models.policy import Policy, check_model, load_policy
from ..profiles import Profile, Study
from ..provenance import FINISHED
from ..runs import DATA_SEED, Run, data_folder, data_identity
from . import sft
from .branch import Branch
from .compute import Compute
from .data import make_dataset
from .processes import Processes
from .snapshots import Snapshot, snapshots, snapshots_of, write_snapshot
from .tracking import chosen


def demonstrations(profile: Profile, study: Study, kind: str = "expert", examples: int | None = None) -> Dataset:
    """The SFT data of a study, or another number of `examples`, generated on first use.

    Raises ValueError for a kind that its task does not have.
    """
    study.task.check_kind(kind)
    folder = claim(data_folder(profile, study, kind, examples), data_identity(study, kind, examples))
    return make_dataset(folder / "dataset", study.task, kind, examples or study.sft.examples, DATA_SEED)


def train(run: Run, processes: Processes | None = None) -> list[Snapshot]:
    """Train a run and return its snapshots by step. What it starts from is made first if necessary.

    `processes`: those that train it together, each of which calls this (`python -m sftrl_lib.training`); None: one.

    Raises CheckpointError if there is no such foundation model, ValueError for demonstrations that the task does not
    have or a tracker that is not there; nothing is written then. Raises FloatingPointError where training breaks down,
    OSError where the disk takes no more: what was saved until then stays, and training goes on from it.
    """
    processes = processes or Processes()
    with processes.main_first():
        provide(run.profile, run.study.foundation)
    check_model(run.study.foundation)
    chosen()
    if run.method.data:
        run.task.check_kind(run.method.data)
    with processes.main_first():
        folder = claim(run.folder, run.identity)
    if not (folder / FINISHED).exists():
        with disk_errors(folder):
            branch = _start(run, processes)
            if run.method is INIT:
                _make_init(run, branch)
            else:
                run.method.load_trainer()(branch)
            if processes.main:
                seal(folder)  # of the log; each snapshot has its own
                made_by = {**provenance.origin(), "device": str(branch.policy.device)}
                write_atomically(folder / FINISHED, json.dumps(made_by, indent=1) + "\n")
        if processes.main and not run.profile.keeps_training:
            shutil.rmtree(folder / "training", ignore_errors=True)
        processes.wait()
    return snapshots(folder)


def _start(run: Run, processes: Processes) -> Branch:
    """The branch of a run where it starts: the foundation model, Init, or the end of another run."""
    policy_from, compute = run.study.foundation, None
    if run.start:
        start = train(run.start, processes)[-1]
        policy_from = start.folder
        compute = start.compute if run.start.method is INIT else start.compute.as_init()
    policy, reference, data = _load(run.profile, policy_from, run.lora, trained=True), None, None
    if getattr(run.config, "kl_coef", 0.0):
        reference = policy.reference(start.folder) if run.lora else _load(run.profile, start.folder)
    if run.method.data:
        with processes.main_first():
            data = demonstrations(run.profile, run.study, run.method.data, run.examples)
    return Branch(
        policy=policy,
        task=run.task,
        config=run.config,
        folder=run.folder,
        compute=compute or Compute(policy.parameters_count),
        budget=run.study.fork_flops,
        checkpoints=run.checkpoints,
        seed=run.seed,
        data=data,
        reference=reference,
        rollout_batch=run.profile.rollout_batch,
        micro_batch_tokens=run.profile.micro_batch_tokens,
        processes=processes,
        engine=run.profile.engine,
        paper_lambda=run.task.paper_lambda if run.experiment.paper_end else None,
    )


def _make_init(run: Run, branch: Branch) -> None:
    """A few steps of SFT at a constant rate, which teach the answer format (paper C.2)."""
    branch.checkpoints = 0
    weights = sft.train_steps(branch, run.study.init_steps, schedule="constant_with_warmup")
    spent = Compute(branch.compute.parameters, init_tokens=branch.compute.trained_tokens)
    if branch.processes.main:
        write_snapshot(branch.policy, run.folder, 0, spent, weights)


def _load(profile: Profile, source: str | Path, lora: LoRAConfig | None = None, trained: bool = False) -> Policy:
    """A model on the profile's device, to be `trained` or not; with new adapters unless it has some."""
    policy = load_policy(source, profile.dtype, profile.device, lora=lora)
    if trained and profile.gradient_checkpointing:
        policy.model.gradient_checkpointing_enable()  # while it trains; rollouts and tests are not touched
    return policy


def final_policy(run: Run) -> Policy:
    """The end of a run, ready to play. Raises CheckpointError if it is not there."""
    return _load(run.profile, snapshots_of(run)[-1].folder)
