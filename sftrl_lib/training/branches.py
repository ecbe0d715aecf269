"""The paper's fork: a short SFT makes Init, then more SFT or RL continue from it at equal training compute.

Every function takes a profile and says what it makes in ``build/<profile>/runs/<run>``; what is already there is
kept, what was interrupted goes on.
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
from ..profiles import METHODS, Profile
from .compute import Compute
from .data import make_dataset
from .ppo import train_ppo
from .sft import steps_for, train_sft
from .snapshots import Snapshot, read_snapshot, snapshots, write_snapshot

EXPERIMENTS = {  # experiment -> the methods it compares and the one thing its settings vary
    "main": (("sft", "rl"), None),
    "attempts": (("rl",), "attempts"),
    "no_init": (("rl_no_init",), "lr"),
    "suboptimal": (("sft_suboptimal",), None),
}
_DATA_SEED = 20_000  # demonstrations are the same for all runs; what varies is their order


def check_run(method: str, experiment: str, setting: str = "") -> dict[str, float]:
    """The setting as a dict, e.g. ``{"attempts": 3.0}``; ValueError if the three do not go together."""
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
    match = re.fullmatch(rf"{varied}=([0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?)", setting)
    number = float(match[1]) if match else 0.0
    if not number or (varied == "attempts" and not number.is_integer()):
        raise ValueError(f"Experiment {experiment!r} needs a setting such as '{varied}=1', got {setting!r}.")
    return {varied: number}


def init_folder(profile: Profile, seed: int) -> Path:
    """Where Init of a seed lives."""
    return paths.run_folder(profile.name, f"init-s{seed}")


def branch_folder(profile: Profile, method: str, experiment: str, setting: str, seed: int) -> Path:
    """Where a branch lives."""
    parts = [method, experiment, setting.replace("=", ""), f"s{seed}"]
    return paths.run_folder(profile.name, "-".join(part for part in parts if part))


def demonstrations(profile: Profile, kind: str = "expert") -> Dataset:
    """The SFT data of a profile, generated on first use."""
    folder = paths.data(profile.name) / f"general_points-{kind}"
    return make_dataset(folder, kind, profile.sft.examples, _DATA_SEED)


def make_init(profile: Profile, seed: int) -> Snapshot:
    """Init: the foundation model after a short SFT that teaches the answer format (paper C.2)."""
    folder = init_folder(profile, seed)
    final = folder / "step-00000"
    if not claim(folder, profile):
        policy = load_policy(profile.foundation, profile.dtype)
        compute = Compute(policy.parameters_count)
        data = demonstrations(profile)
        steps = profile.sft.init_steps
        train_sft(policy, data, profile.sft, compute, steps, 0, folder, seed, schedule="constant_with_warmup")
        write_snapshot(policy, folder, 0, Compute(policy.parameters_count, init_tokens=compute.trained_tokens))
        (folder / "finished").touch()
    return read_snapshot(final)


def claim(folder: Path, profile: Profile) -> bool:
    """Mark `folder` as made by this profile and foundation model; returns whether it is already finished.

    Raises CheckpointError if it was made, or begun, with something else, or if there is no such foundation model: the
    mark of a model that is missing would not fit the one that is then made.
    """
    check_model(profile.foundation)
    weights = Path(model_folder(profile.foundation)) / "model.safetensors"
    made_with = {
        "foundation": hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else profile.foundation,
        "fork_flops": profile.fork_flops,
        "sft": asdict(profile.sft),
        "ppo": asdict(profile.ppo),
    }
    mark_folder(folder, "made_with.json", made_with)
    return (folder / "finished").exists()


def training_env(attempts: int) -> gymnasium.Env:
    """GeneralPoints under the training rule, without the held-out hands."""
    made = gymnasium.make(
        "sftrl/GeneralPoints-v0", rule="ten", hands="train", max_attempts=attempts, disable_env_checker=True
    )
    return made.unwrapped


def train_branch(profile: Profile, method: str, experiment: str, setting: str, seed: int) -> list[Snapshot]:
    """Train one branch for `profile.fork_flops` after Init; its snapshots, by step. Makes Init if there is none.

    Raises ValueError for combinations that no experiment knows.
    """
    varied = check_run(method, experiment, setting)
    folder = branch_folder(profile, method, experiment, setting, seed)
    if claim(folder, profile):
        return snapshots(folder)
    if method == "rl_no_init":
        policy, reference = load_policy(profile.foundation, profile.dtype), None
        compute = Compute(policy.parameters_count)
    else:
        init = make_init(profile, seed)
        policy, compute = load_policy(init.folder, profile.dtype), init.compute
        reference = load_policy(init.folder, profile.dtype) if profile.ppo.kl_coef else None
    if method.startswith("sft"):
        data = demonstrations(profile, "suboptimal" if method == "sft_suboptimal" else "expert")
        steps = steps_for(policy, data, profile.sft, profile.fork_flops)
        train_sft(policy, data, profile.sft, compute, steps, profile.checkpoints, folder, seed)
    else:
        ppo = replace(
            profile.ppo,
            lr=varied.get("lr", profile.ppo.lr),
            attempts=int(varied.get("attempts", profile.ppo.attempts)),
        )
        train_ppo(
            policy,
            lambda: training_env(ppo.attempts),
            ppo,
            compute,
            profile.fork_flops,
            profile.checkpoints,
            folder,
            seed,
            reference,
        )
    (folder / "finished").touch()
    return snapshots(folder)


def init_policy(profile: Profile, seed: int) -> Policy:
    """Init of a seed, ready to play."""
    return load_policy(init_folder(profile, seed) / "step-00000", profile.dtype)


def final_policy(profile: Profile, method: str, seed: int) -> Policy:
    """The end of a main branch, ready to play."""
    return load_policy(snapshots(branch_folder(profile, method, "main", "", seed))[-1].folder, profile.dtype)
