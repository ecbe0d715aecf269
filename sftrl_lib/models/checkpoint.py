"""Atomic training checkpoints without pickle: tensors in safetensors, everything else in JSON.

A checkpoint is a folder that appears under its name only when it is complete, so a run that is killed at any moment
leaves either the previous checkpoint or the next one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ..files import fresh_folder, reason, replace_folder

State = dict[str, torch.nn.Module | torch.optim.Optimizer]


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or belongs to another configuration."""


def _flatten(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], list[dict]]:
    saved = optimizer.state_dict()
    tensors = {
        f"{index}.{name}": torch.as_tensor(value).contiguous()
        for index, entry in saved["state"].items()
        for name, value in entry.items()
        if value is not None
    }
    return tensors, saved["param_groups"]


def _fixed(module: torch.nn.Module) -> set[str]:
    """Names of the frozen parameters, such as those below LoRA adapters, which checkpoints leave out."""
    return {name for name, parameter in module.named_parameters() if not parameter.requires_grad}


def save_state(folder: Path, state: State, progress: dict[str, Any], config: dict[str, Any]) -> None:
    """Write modules, optimisers, `progress` and the `config` they belong to; replaces what was there."""
    fresh = fresh_folder(folder)
    meta = {"progress": progress, "config": config, "groups": {}}
    for name, part in state.items():
        if isinstance(part, torch.optim.Optimizer):
            tensors, meta["groups"][name] = _flatten(part)
        else:
            whole = part.state_dict()
            tensors = {key: whole[key].contiguous().clone() for key in sorted(whole.keys() - _fixed(part))}
        save_file(tensors, fresh / f"{name}.safetensors")
    (fresh / "progress.json").write_text(json.dumps(meta))
    replace_folder(fresh, folder)


def load_state(folder: Path, state: State, config: dict[str, Any]) -> dict[str, Any] | None:
    """Load a checkpoint of exactly this `config` into `state` and return its progress; None if there is none.

    Raises CheckpointError if the checkpoint is damaged or was made with another configuration.
    """
    if not folder.exists():
        old = folder.with_name(folder.name + ".old")
        if not old.exists():
            return None
        os.replace(old, folder)
    try:
        meta = json.loads((folder / "progress.json").read_text())
        if meta["config"] != json.loads(json.dumps(config)):
            raise CheckpointError(f"{folder} was made with another configuration; remove it or choose another folder.")
        for name, part in state.items():
            tensors = load_file(folder / f"{name}.safetensors")
            if isinstance(part, torch.optim.Optimizer):
                entries: dict[int, dict[str, torch.Tensor]] = {}
                for key, value in tensors.items():
                    index, field = key.split(".", 1)
                    entries.setdefault(int(index), {})[field] = value
                part.load_state_dict({"state": entries, "param_groups": meta["groups"][name]})
            else:
                missing, unexpected = part.load_state_dict(tensors, strict=False)
                if unexpected or set(missing) - _fixed(part):
                    raise ValueError(f"{name}.safetensors holds another model")
    except CheckpointError:
        raise
    except Exception as error:  # json, safetensors and torch raise half a dozen types
        message = f"The checkpoint {folder} is damaged ({reason(error)}); remove it to start over."
        raise CheckpointError(message) from error
    return meta["progress"]
