"""The checkpoints of a branch that are evaluated: complete models with the compute they cost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from ..files import check_seal, fresh_folder, reason, replace_folder
from ..fingerprint import MADE_WITH, difference, made_with, plain
from ..models.checkpoint import CheckpointError, not_finite
from ..models.policy import Policy
from ..runs import Run
from .compute import Compute


@dataclass(frozen=True)
class Snapshot:
    """A saved model of a branch."""

    folder: Path
    step: int  # optimiser steps (SFT) or updates (PPO) since Init
    compute: Compute


def write_snapshot(
    policy: Policy, run: Path, step: int, compute: Compute, weights: dict[str, torch.Tensor] | None = None
) -> Path:
    """Write ``run/step-NNNNN``, which loads with the Auto classes; it appears only when it is complete.

    `weights`: the whole ones, ``model.*`` and ``value_head.*``, where the policy's own are in shards. Raises
    FloatingPointError if a weight is not finite.
    """
    folder = run / f"step-{step:05d}"
    modules = filter(None, (policy.model, policy.value_head))
    for tensors in (weights,) if weights else (module.state_dict() for module in modules):
        if bad := not_finite(tensors.items()):
            raise FloatingPointError(
                f"{bad!r} holds values that are not finite after step {step}, so {folder} is not written;"
                " lower the learning rate."
            )
    fresh = fresh_folder(folder)
    policy.save(fresh, weights)
    (fresh / "compute.json").write_text(json.dumps({"step": step, **compute.to_dict()}), encoding="utf-8")
    replace_folder(fresh, folder)
    return folder


def read_snapshot(folder: Path) -> Snapshot:
    """The snapshot in `folder`. Raises CheckpointError if it is missing or damaged."""
    try:
        check_seal(folder, "compute.json")  # `load_policy` looks at the model
        saved = json.loads((folder / "compute.json").read_text(encoding="utf-8"))
        return Snapshot(folder, saved.pop("step"), Compute(**saved))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{folder} holds no complete model ({reason(error)}); remove {folder.parent} and run the step that makes it"
            " again."
        ) from error


def snapshots_of(run: Run) -> list[Snapshot]:
    """The snapshots of a run. Raises CheckpointError if there is none, or if other settings made what is there."""
    before, now = made_with(run.folder), plain(run.identity)
    if before != now and (run.folder / MADE_WITH).exists():
        what = f"other settings ({difference(before, now)})" if before else "settings unknown"
        raise CheckpointError(f"{run.name} was made with {what}; train it first.")
    return snapshots(run.folder)


def snapshots(run: Path) -> list[Snapshot]:
    """All snapshots of a run, by step. Raises CheckpointError if there is none."""
    complete = [folder for folder in run.glob("step-*") if folder.name.removeprefix("step-").isdigit()]
    found = sorted(map(read_snapshot, complete), key=lambda snapshot: snapshot.step)
    if not found:
        raise CheckpointError(f"{run} holds no model yet; run the step that makes it first.")
    return found
