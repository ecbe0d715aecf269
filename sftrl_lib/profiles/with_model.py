"""A profile with a model of your own in the place of its foundation models, from what is known of that model.

`own_model.prepare` finds that out once and keeps it in ``results/<name>/model.json``, from which every process knows
the profile.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import paths
from ..experiments import Arm, Experiment
from ..files import reason
from .study import Profile, Study


@dataclass(frozen=True)
class OwnModel:
    """What ``model.json`` holds."""

    profile: str  # in which it takes the foundation models' place
    model: str  # a folder, a hub name, or a model by name
    parameters: int
    studies: dict[str, dict[str, float]]  # task -> its `fork_flops` and `max_new_tokens`
    left_out: dict[str, str]  # task -> why


def record_of(name: str) -> Path:
    """Where what is known of the model is kept."""
    return paths.results(name) / "model.json"


def find(name: str, profiles: Mapping[str, Profile]) -> Profile | None:
    """The profile of that name with a model of one's own; None if there is none. Raises ValueError if it is damaged.

    profiles: by name, in which the model takes the foundation models' place.
    """
    path = record_of(name)
    if not path.is_file():
        return None
    try:
        own = OwnModel(**json.loads(path.read_text(encoding="utf-8")))
        return with_model(profiles[own.profile], own, name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({reason(error)}); remove it and give MODEL= again.") from error


def with_model(profile: Profile, own: OwnModel, name: str) -> Profile:
    """`profile` with `own` as the foundation model of all of its studies but those that are left out."""
    studies = tuple(_study(study, own) for study in profile.studies if study.task.key in own.studies)
    return replace(profile, name=name, studies=studies)


def _study(study: Study, own: OwnModel) -> Study:
    numbers = own.studies[study.task.key]
    longest, times = int(numbers["max_new_tokens"]), numbers["fork_flops"] / study.fork_flops

    def longer(config: Any) -> Any:
        return replace(config, max_new_tokens=longest) if hasattr(config, "max_new_tokens") else config

    def kept(experiments: tuple[Experiment, ...]) -> tuple[Experiment, ...]:
        return tuple(_scaled(e, times) for e in experiments if not any("foundation" in arm.varied for arm in e.arms))

    return replace(
        study,
        foundation=own.model,
        fork_flops=numbers["fork_flops"],
        ppo=longer(study.ppo),
        more=tuple(map(longer, study.more)),
        evaluation=longer(study.evaluation),
        experiments=kept(study.experiments),
        controls=kept(study.controls),
    )


def _scaled(experiment: Experiment, times: float) -> Experiment:
    """An experiment that varies the compute of the fork, with `times` as much of it."""

    def arm(one: Arm) -> Arm:
        if "fork_flops" not in one.varied:
            return one
        more = tuple({**setting, "fork_flops": rounded(setting["fork_flops"] * times)} for setting in one.settings)
        return replace(one, settings=more)

    return replace(experiment, arms=tuple(map(arm, experiment.arms)))


def rounded(flops: float) -> float:
    """To three digits."""
    return float(f"{flops:.3g}")
