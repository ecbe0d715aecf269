"""Atomic training checkpoints without pickle: tensors in safetensors, everything else in JSON.

A checkpoint is a folder that appears under its name only when it is complete, so a run that is killed at any moment
leaves either the previous checkpoint or the next one. What is not finite is neither saved nor loaded, and what has
changed since it was sealed is not loaded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ..files import BrokenSeal, check_seal, fresh_folder, reason, replace_folder

State = dict[str, torch.nn.Module | torch.optim.Optimizer]


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or belongs to another configuration."""


@torch.no_grad()
def not_finite(tensors: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """The name of the first tensor with NaN or an infinite value; None if all values are finite."""
    for name, tensor in tensors:
        tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor  # of a sharded one, what is here
        # The extremes are infinite or NaN if any value is, and take a quarter of the time of looking at each value.
        if tensor.is_floating_point() and tensor.numel() and not all(end.isfinite() for end in tensor.aminmax()):
            return name
    return None


def damaged_file(folder: Path) -> tuple[Path, Exception] | None:
    """The first file of a model or checkpoint that is not what its name or seal says, and why; None if all are sound.

    Without a seal, weights are checked by their header and length, what torch has saved by its checksums.
    """
    try:
        check_seal(folder)
    except BrokenSeal as error:
        return error.path, error
    for path in sorted(folder.iterdir()):
        try:
            if path.suffix == ".json":
                content = json.loads(path.read_text(encoding="utf-8"))
                if path.name.endswith("config.json") and not isinstance(content, dict):
                    raise TypeError("it is not a JSON object")
            elif path.suffix == ".safetensors":
                with safe_open(path, framework="pt"):
                    pass
            elif path.suffix in (".pt", ".pth"):
                with ZipFile(path) as archive:
                    if broken := archive.testzip():
                        raise BadZipFile(f"{broken} is broken")
        except (OSError, ValueError, TypeError, RecursionError, SafetensorError, BadZipFile) as error:
            return path, error
    return None


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
    """Write modules, optimisers, `progress` and the `config` they belong to; replaces what was there.

    Raises FloatingPointError for NaN or infinite values; what was there stays.
    """
    contents: dict[str, dict[str, torch.Tensor]] = {}
    groups: dict[str, list[dict]] = {}
    for name, part in state.items():
        if isinstance(part, torch.optim.Optimizer):
            contents[name], groups[name] = _flatten(part)
        else:
            whole = part.state_dict()
            contents[name] = {key: whole[key] for key in sorted(whole.keys() - _fixed(part))}
        if bad := not_finite(contents[name].items()):
            raise FloatingPointError(
                f"{bad!r} of the {name} holds values that are not finite, so {folder} is not written;"
                " lower the learning rate."
            )
    fresh = fresh_folder(folder)
    for name, tensors in contents.items():
        whole = {key: tensor.contiguous().clone() for key, tensor in tensors.items()}  # tied weights share memory
        save_file(whole, fresh / f"{name}.safetensors")
    save_progress(fresh, progress, config, groups)
    replace_folder(fresh, folder)


def save_progress(folder: Path, progress: dict[str, Any], config: dict[str, Any], groups: Any = None) -> None:
    """Write what is not a tensor: `progress`, the `config` it belongs to, the optimisers' `groups` of parameters."""
    meta = {"progress": progress, "config": config, "groups": groups or {}}
    (folder / "progress.json").write_text(json.dumps(meta), encoding="utf-8")


def load_progress(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The progress in `folder`. Raises CheckpointError if it is damaged or of another `config`."""
    try:
        return _meta(folder, config)["progress"]
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"The checkpoint {folder} is damaged ({reason(error)}); remove it to start over."
        raise CheckpointError(message) from error


def _meta(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    meta = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
    if meta["config"] != json.loads(json.dumps(config)):
        raise CheckpointError(f"{folder} was made with another configuration; remove it or choose another folder.")
    return meta


def restore(folder: Path) -> bool:
    """Put back what a kill has left half replaced; returns whether there is a checkpoint in `folder`."""
    old = folder.with_name(folder.name + ".old")
    if not folder.exists() and old.exists():
        os.replace(old, folder)
    return folder.exists()


def load_state(folder: Path, state: State, config: dict[str, Any]) -> dict[str, Any] | None:
    """Load a checkpoint of exactly this `config` into `state` and return its progress; None if there is none.

    Raises CheckpointError if the checkpoint is damaged or was made with another configuration.
    """
    if not restore(folder):
        return None
    try:
        check_seal(folder)
        meta = _meta(folder, config)
        for name, part in state.items():
            tensors = load_file(folder / f"{name}.safetensors")
            if bad := not_finite(tensors.items()):
                raise ValueError(f"{name}.safetensors: {bad!r} holds values that are not finite")
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
