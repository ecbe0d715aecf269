"""The paper's fork: a short SFT makes Init, then more SFT or RL continue from it at equal training compute.

Every function takes a study and says what it makes in ``build/<profile>/runs/<run>``; what is already there is kept,
what was interrupted goes on.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, replace
from pathlib import Path

import gymnasium
from datasets import Dataset

from .. import paths
from ..models.checkpoint import mark_folder
from ..models.policy import Policy, check_model, load_policy, model_folder
from ..profiles import METHODS, Study
from ..tasks import Task
from .compute import Compute
from .data import check_kind, make_dataset
from .ppo import train_ppo
from .sft import FROZEN, steps_for, train_sft
from .snapshots import Snapshot, read_snapshot, snapshots, write_snapshot

EXPERIMENTS = {  # experiment -> the methods it compares and what its settings vary, in this order
    "main": (("sft", "rl"), ()),
    "attempts": (("rl",), ("attempts",)),
    "no_init": (("rl_no_init",), ("lr",)),
    "suboptimal": (("sft_suboptimal",), ()),
    "sft_tuning": (("sft",), ("lr", "frozen")),
    "rl_tuning": (("rl",), ("lr",)),
    "overfitted": (("sft", "rl"), ("lr",)),
}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?"
_PATTERNS = {"attempts": "[1-9][0-9]*", "lr": _NUMBER, "frozen": "|".join(map(re.escape, FROZEN))}
_EXAMPLES = {"attempts": "attempts=1", "lr": "lr=0.001", "frozen": "frozen=none"}
_DATA_SEED = 20_000  # demonstrations are the same for all runs; what varies is their order


def check_run(method: str, experiment: str, setting: str = "") -> dict[str, float | str]:
    """The setting as a dict, e.g. ``{"lr": 0.001, "frozen": "none"}``; ValueError if the three do not go together."""
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}; use one of {', '.join(METHODS)}.")
    if experiment not in EXPERIMENTS:
        raise ValueError(f"Unknown experiment {experiment!r}; use one of {', '.join(EXPERIMENTS)}.")
    methods, varied = EXPERIMENTS[experiment]
    if method not in methods:
        raise ValueError(f"Experiment {experiment!r} trains {' and '.join(methods)}, not {method!r}.")
    if not varied:
        if setting:
            raise ValueError(f"Experiment {experiment!r} has no setting, got {setting!r}.")
        return {}
    match = re.fullmatch(";".join(f"{name}=({_PATTERNS[name]})" for name in varied), setting)
    values = {name: _value(name, text) for name, text in zip(varied, match.groups(), strict=True)} if match else {}
    if not values or values.get("lr") == 0:
        example = ";".join(_EXAMPLES[name] for name in varied)
        raise ValueError(f"Experiment {experiment!r} needs a setting such as {example!r}, got {setting!r}.")
    return values


def _value(name: str, text: str) -> float | str:
    return text if name == "frozen" else float(text)


def init_folder(study: Study, seed: int) -> Path:
    """Where Init of a seed lives."""
    return paths.run_folder(study.profile, f"{study.task.slug}-init-s{seed}")


def branch_folder(study: Study, method: str, experiment: str, setting: str, seed: int) -> Path:
    """Where a branch lives."""
    parts = [study.task.slug, method, experiment, setting.replace("=", "").replace(";", "-"), f"s{seed}"]
    return paths.run_folder(study.profile, "-".join(part for part in parts if part))


def demonstrations(study: Study, kind: str = "expert") -> Dataset:
    """The SFT data of a study, generated on first use. Raises ValueError for a kind that its task does not have."""
    folder = paths.data(study.profile) / f"{study.task.slug}-{kind}"
    return make_dataset(folder, study.task, kind, study.sft.examples, _DATA_SEED)


def make_init(study: Study, seed: int) -> Snapshot:
    """Init: the foundation model after a short SFT that teaches the answer format (paper C.2)."""
    folder = init_folder(study, seed)
    final = folder / "step-00000"
    if not claim(folder, study):
        policy = load_policy(study.foundation, study.dtype)
        compute = Compute(policy.parameters_count)
        data = demonstrations(study)
        steps = study.sft.init_steps
        train_sft(policy, data, study.sft, compute, steps, 0, folder, seed, schedule="constant_with_warmup")
        write_snapshot(policy, folder, 0, Compute(policy.parameters_count, init_tokens=compute.trained_tokens))
        (folder / "finished").touch()
    return read_snapshot(final)


def claim(folder: Path, study: Study) -> bool:
    """Mark `folder` as made by this study and foundation model; returns whether it is already finished.

    Raises CheckpointError if it was made, or begun, with something else, or if there is no such foundation model: the
    mark of a model that is missing would not fit the one that is then made.
    """
    check_model(study.foundation)
    weights = Path(model_folder(study.foundation)) / "model.safetensors"
    made_with = {
        "foundation": hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else study.foundation,
        "training": asdict(study.task)["training"],
        "fork_flops": study.fork_flops,
        "sft": asdict(study.sft),
        "ppo": asdict(study.ppo),
    }
    mark_folder(folder, "made_with.json", made_with)
    return (folder / "finished").exists()


def training_env(task: Task, attempts: int) -> gymnasium.Env:
    """The environment of a task under the training rule, without what is held out."""
    return task.make_env(task.training, attempts)


def train_branch(study: Study, method: str, experiment: str, setting: str, seed: int) -> list[Snapshot]:
    """Train one branch for `study.fork_flops` after Init; its snapshots, by step. Makes Init if there is none.

    RL of the experiment "overfitted" begins at the end of its SFT. Raises CheckpointError if that is not there,
    ValueError for combinations that no experiment knows, and for demonstrations that the task does not have.
    """
    varied = check_run(method, experiment, setting)
    kind = check_kind(study.task, "suboptimal" if method == "sft_suboptimal" else "expert")
    folder = branch_folder(study, method, experiment, setting, seed)
    if claim(folder, study):
        return snapshots(folder)
    if method == "rl_no_init":
        policy, reference = load_policy(study.foundation, study.dtype), None
        compute = Compute(policy.parameters_count)
    elif (method, experiment) == ("rl", "overfitted"):
        start = snapshots(branch_folder(study, "sft", "overfitted", study.overfitted_setting, seed))[-1]
        policy, reference = load_policy(start.folder, study.dtype), None
        # All that came before counts as the paper's D_init, and RL gets as much again.
        spent = start.compute.init_tokens + start.compute.trained_tokens
        compute = Compute(policy.parameters_count, init_tokens=spent)
    else:
        init = make_init(study, seed)
        policy, compute = load_policy(init.folder, study.dtype), init.compute
        reference = load_policy(init.folder, study.dtype) if study.ppo.kl_coef else None
    if method.startswith("sft"):
        data = demonstrations(study, kind)
        sft = replace(study.sft, lr=varied.get("lr", study.sft.lr), frozen=varied.get("frozen", study.sft.frozen))
        steps = steps_for(policy, data, sft, study.fork_flops)
        checkpoints = 1 if experiment == "overfitted" else study.checkpoints  # the paper's figure begins at its end
        train_sft(policy, data, sft, compute, steps, checkpoints, folder, seed)
    else:
        ppo = replace(
            study.ppo,
            lr=varied.get("lr", study.ppo.lr),
            attempts=int(varied.get("attempts", study.ppo.attempts)),
        )
        train_ppo(
            policy,
            lambda: training_env(study.task, ppo.attempts),
            ppo,
            compute,
            study.fork_flops,
            study.checkpoints,
            folder,
            seed,
            reference,
            study.task.answer_key,
        )
    (folder / "finished").touch()
    return snapshots(folder)


def init_policy(study: Study, seed: int) -> Policy:
    """Init of a seed, ready to play."""
    return load_policy(init_folder(study, seed) / "step-00000", study.dtype)


def final_policy(study: Study, method: str, seed: int) -> Policy:
    """The end of a main branch, ready to play."""
    return load_policy(snapshots(branch_folder(study, method, "main", "", seed))[-1].folder, study.dtype)
