"""Atomic training checkpoints without pickle: tensors in safetensors, everything else in JSON.

A checkpoint is a folder that appears under its name only when it is complete, so a run that is killed at any moment
leaves either the previous checkpoint or the next one.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

State = dict[str, torch.nn.Module | torch.optim.Optimizer]


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or belongs to another configuration."""


def reason(error: Exception) -> str:
    """What an exception of another library says, short and on one line, to be quoted in a sentence of ours."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "..."


def _flatten(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], list[dict]]:
    saved = optimizer.state_dict()
    tensors = {
        f"{index}.{name}": torch.as_tensor(value).contiguous()
        for index, entry in saved["state"].items()
        for name, value in entry.items()
        if value is not None
    }
    return tensors, saved["param_groups"]


def save_state(folder: Path, state: State, progress: dict[str, Any], config: dict[str, Any]) -> None:
    """Write modules, optimisers, `progress` and the `config` they belong to; replaces what was there."""
    fresh = folder.with_name(folder.name + ".writing")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    meta = {"progress": progress, "config": config, "groups": {}}
    for name, part in state.items():
        if isinstance(part, torch.optim.Optimizer):
            tensors, meta["groups"][name] = _flatten(part)
        else:
            tensors = {key: value.contiguous().clone() for key, value in part.state_dict().items()}
        save_file(tensors, fresh / f"{name}.safetensors")
    (fresh / "progress.json").write_text(json.dumps(meta))
    replace_folder(fresh, folder)


def replace_folder(fresh: Path, folder: Path) -> None:
    """Put the complete folder `fresh` in the place of `folder`; after a crash in between, ``folder.old`` is left."""
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path, state: State, config: dict[str, Any]) -> dict[str, Any] | None:
    """Load a checkpoint of this very `config` into `state` and return its progress; None if there is none.

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
                part.load_state_dict(tensors)
    except CheckpointError:
        raise
    except Exception as error:  # json, safetensors and torch raise half a dozen kinds
        message = f"The checkpoint {folder} is damaged ({reason(error)}); remove it to start over."
        raise CheckpointError(message) from error
    return meta["progress"]


def mark_folder(folder: Path, name: str, content: dict[str, Any]) -> None:
    """Write ``folder/name`` with `content` if it is not there. Raises CheckpointError if it says something else."""
    path = folder / name
    wanted = json.dumps(content, sort_keys=True, indent=1)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{name}")
        fresh.write_text(wanted)
        os.replace(fresh, path)  # a kill must not leave half a mark, which would look like another configuration
    elif path.read_text() != wanted:
        raise CheckpointError(
            f"{folder} was made with another configuration or foundation model; move it away or run `make clean`."
        )
