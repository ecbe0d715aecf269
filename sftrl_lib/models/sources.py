"""Finding a model, and checking what was read of it, so that nothing incomplete or broken is trained on or tested."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from ..files import BrokenSeal, reason
from ..paths import named_model
from .checkpoint import CheckpointError, damaged_file, not_finite
from .masks import LAYERS

MADE = ("smollm2",)  # models by name that `make model` fetches
LoadingReport = dict[str, Any]  # names of tensors; from_pretrained(..., output_loading_info=True) returns it


def model_folder(name: str) -> str:
    """The folder of that name, shipped or made by `make model`, if there is one, else `name` (a path or a hub name)."""
    return str(named_model(name) or name)


def base_model(source: str) -> str:
    """The base model of the adapters in a folder; `source` itself if it has none. Raises CheckpointError."""
    adapters = Path(source) / "adapter_config.json"
    if not adapters.is_file():
        return source
    try:
        name = json.loads(adapters.read_text(encoding="utf-8"))["base_model_name_or_path"]
        if not isinstance(name, str):
            raise TypeError(f"base_model_name_or_path is {name!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{adapters} does not name its base model ({reason(error)}); {cure(source)}.") from error
    return model_folder(name)


def check_model(name: str | Path) -> PreTrainedConfig:
    """The configuration of a model, without its weights. Raises CheckpointError if it is missing or not supported."""
    source = base_model(model_folder(str(name)))
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # transformers raises half a dozen kinds here
        raise cannot_load(source, error) from error
    return check_config(config, source)


def check_config(config: PreTrainedConfig, source: str) -> PreTrainedConfig:
    """The configuration of a model that is loaded already. Raises CheckpointError if it is not supported."""
    if unknown := set(getattr(config.get_text_config(), "layer_types", None) or ()) - set(LAYERS):
        raise CheckpointError(
            f"{source!r} has layers of {' and '.join(sorted(unknown))}, for which rollouts have no cache; choose a "
            f"model whose layers are {' or '.join(LAYERS)}."
        )
    return config


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the GPU if there is one. Raises ValueError if it is not available."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={name!r} is not available here ({reason(error)}); use 'cpu' or 'auto'.") from error


def check_tensors(report: LoadingReport, source: str) -> None:
    """Raises CheckpointError unless the tensors in the files of a model were exactly those of its architecture.

    transformers only warns, and trains on with random numbers in place of what is missing. Tied weights are not
    missing, nor unexpected what the architecture itself ignores, such as old buffers (``rotary_emb.inv_freq``).
    """
    misfits = {entry[0] for entry in report.get("mismatched_keys", ())}
    found = {"lacks": report["missing_keys"], "has unknown": report["unexpected_keys"], "has misshapen": misfits}
    for what, names in found.items():
        if names:
            shown = ", ".join(sorted(names)[:3]) + ", ..." * (len(names) > 3)
            raise CheckpointError(f"The model in {source!r} {what} tensors ({shown}); {cure(source)}.")


def check_finite(tensors: Iterable[tuple[str, torch.Tensor]], source: str) -> None:
    """Raises CheckpointError if one of a model's named tensors holds NaN or an infinite value."""
    named = dict(tensors)
    if name := not_finite(named.items()):
        kind = str(named[name].dtype).removeprefix("torch.")
        raise CheckpointError(
            f"The model in {source!r} has values that are not finite in {kind} ({name}); {cure(source)}."
        )


def cannot_load(source: str, error: Exception) -> CheckpointError:
    """What to raise if other libraries cannot read a model, with the file that is to blame and the cure."""
    folder = Path(source)
    if isinstance(error, BrokenSeal):
        return CheckpointError(f"{error.path} is damaged ({reason(error)}); {cure(str(error.path.parent))}.")
    if "trust_remote_code" in str(error):
        return CheckpointError(
            f"{source!r} needs Python code of its own, which is never run here; choose a model that transformers "
            "has the code of."
        )
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return CheckpointError(
            f"The model in {source!r} does not fit into memory ({reason(error)}); choose a smaller one, or another "
            "dtype or device."
        )
    if not folder.is_dir():
        return CheckpointError(_not_found(source, error))
    if damaged := damaged_file(folder):
        path, why = damaged
        return CheckpointError(f"{path} is damaged ({reason(why)}); {cure(source)}.")
    return CheckpointError(f"Cannot load a model from {source!r} ({reason(error)}); {cure(source)}.")


def cure(source: str) -> str:
    """What to do about a model that is incomplete or broken, as the end of a sentence."""
    folder = Path(source)
    if (folder / "compute.json").is_file():  # a snapshot of a run
        return f"remove {str(folder.parent)!r} and run the step that makes it again"
    if (folder / "trainer_state.json").is_file():  # the trainer's own checkpoint
        return "remove it, and training goes on from the one before"
    return "restore the file, or make or download the model again"


def _not_found(source: str, error: Exception) -> str:
    if source in MADE:
        return f"The model {source!r} has not been fetched yet: make model MODEL={source}"
    variables = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    on = [name for name in variables if os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}]
    if on and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
        return (
            f"There is no model {source!r}, neither a folder nor downloaded before, and {on[0]}={os.environ[on[0]]} "
            f"forbids downloads; allow them, as in `{' '.join(f'{name}=0' for name in on)} make ...`, or give a folder."
        )
    return f"There is no model in {source!r} ({reason(error)}); give a shipped model, a folder or a hub name."
