"""The task variants: everything that training and testing must know of a task, in one object.

A *task* is an environment, the arguments it is trained with, and the splits it is tested on. A new variant is a new
entry of `TASKS`; what is specific to a task's text (its demonstrations, its metrics) is looked up by the task's name in
`training.data` and `analysis.evaluation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import gymnasium

from . import paths
from .points.cards import UNTIDY
from .virl.schema import City

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """One of the paper's four task variants."""

    name: str  # general_points or navigation
    modality: str  # text or image
    label: str  # the paper's short name
    env: str  # Gymnasium id
    training: Arguments  # of the environment in training; demonstrations are drawn with them as well
    splits: Mapping[str, Arguments]  # of the environment in each test
    answer_key: str  # of the answer's JSON, from which the official sequence-level ratio counts fully
    unit: str  # what an episode is called

    @property
    def slug(self) -> str:
        """The label in names of runs and folders: gp-l, virl-l."""
        return self.label.replace("V-IRL", "VIRL").lower()

    def split(self, name: str) -> Arguments:
        """The environment's arguments in a split. Raises ValueError that lists the known ones."""
        if name not in self.splits:
            raise ValueError(f"Unknown split {name!r} of {self.label}; use one of {', '.join(self.splits)}.")
        return self.splits[name]

    def make_env(self, arguments: Arguments, max_attempts: int) -> gymnasium.Env:
        """The bare environment: `arguments` are those of training or of a split.

        All environments of a city share one source of street views, so that a view is kept once in a process (up to
        320 MB); on disk it is kept for all of them.
        """
        chosen = {"modality": self.modality, "max_attempts": max_attempts, **arguments}
        env = gymnasium.make(self.env, disable_env_checker=True, **chosen).unwrapped
        if self.name == "navigation" and self.modality == "image":
            env._views = street_views(env.city, arguments.get("look"))
        return env


@lru_cache(maxsize=32)  # pretraining shows four cities in four looks
def street_views(city: City, look: Any = None) -> Any:
    """The one `StreetViews` of a city, in its own look or in another one."""
    from .virl.street_views import open_street_views  # text needs no drawing, so it is not imported above

    return open_street_views(city, look, paths.views())


GP_L = Task(
    name="general_points",
    modality="text",
    label="GP-L",
    env="sftrl/GeneralPoints-v0",
    training={"rule": "ten", "hands": "train"},
    splits={
        "id": {"rule": "ten", "hands": "train"},
        "heldout": {"rule": "ten", "hands": "heldout"},
        "rule_ood": {"rule": "distinct", "deal": "face"},
    },
    answer_key="formula",
    unit="hand",
)
VIRL_L = Task(
    name="navigation",
    modality="text",
    label="V-IRL-L",
    env="sftrl/Navigation-v0",
    training={"actions": "absolute", "routes": "nyc"},
    splits={
        "id": {"actions": "absolute", "routes": "nyc"},
        "heldout": {"actions": "absolute", "routes": "nyc:heldout"},
        "rule_ood": {"actions": "relative", "routes": "nyc"},
    },
    answer_key="action",
    unit="route",
)

# Cards lie a little more untidily than in any picture that the foundation model has seen, so that Init misreads some.
_UNTIDIER = replace(UNTIDY, jitter=0.6)

# With pictures, training deals black cards and walks through one city. The visual tests (paper 4.1, 4.2) change nothing
# but what is seen: red cards of the hands that training deals, and two routes in each of the nine cities of VLN mini.
GP_VL = Task(
    name="general_points",
    modality="image",
    label="GP-VL",
    env="sftrl/GeneralPoints-v0",
    training={"rule": "ten", "hands": "train", "suits": "black", "look": _UNTIDIER},
    splits={
        "id": {"rule": "ten", "hands": "train", "suits": "black", "look": _UNTIDIER},
        "heldout": {"rule": "ten", "hands": "heldout", "suits": "black", "look": _UNTIDIER},
        "rule_ood": {"rule": "distinct", "deal": "face", "suits": "black", "look": _UNTIDIER},
        "visual_ood": {"rule": "ten", "hands": "train", "suits": "red", "look": _UNTIDIER},
    },
    answer_key="formula",
    unit="hand",
)
VIRL_VL = Task(
    name="navigation",
    modality="image",
    label="V-IRL-VL",
    env="sftrl/Navigation-v0",
    training={"actions": "absolute", "routes": "nyc"},
    splits={
        "id": {"actions": "absolute", "routes": "nyc"},
        "heldout": {"actions": "absolute", "routes": "nyc:heldout"},
        "rule_ood": {"actions": "relative", "routes": "nyc"},
        "visual_ood": {"actions": "absolute", "routes": "mini"},
    },
    answer_key="action",
    unit="route",
)

TASKS = {task.label: task for task in (GP_L, VIRL_L, GP_VL, VIRL_VL)}


def get_task(name: str, modality: str) -> Task:
    """The task called `name` in a modality. Raises ValueError that lists the known ones."""
    for task in TASKS.values():
        if (task.name, task.modality) == (name, modality):
            return task
    known = ", ".join(f"({task.name!r}, {task.modality!r})" for task in TASKS.values())
    raise ValueError(f"Unknown task ({name!r}, {modality!r}); use one of {known}.")
