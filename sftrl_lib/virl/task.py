"""Navigation as a task: V-IRL-L and V-IRL-VL, their splits, demonstrations, metrics and labels."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from PIL.Image import Image, fromarray

from ..messages import message_text
from ..task import Arguments, Example, Metrics, Reading, Task, Words, in_turn
from .city import load_city
from .demonstrations import demonstration
from .prompts import ACTION_SPACES, expert_response
from .schema import NO_LANDMARK
from .streets import METRES_PER_DEGREE
from .verifier import FIELDS, LEGAL, REWARDS, TURNING, read_answer

if TYPE_CHECKING:
    from ..models.rollout import Episode

VIEW_SIZE, GAP = 448, 6  # pixels: a street view in a figure, and the gap between views
AROUND = 250.0  # metres around a route shown on its map


@dataclass(frozen=True)
class NavigationTask(Task):
    """Street navigation in one modality."""

    def make_env(self, arguments: Arguments, max_attempts: int) -> gymnasium.Env:
        """The unwrapped environment.

        All environments of a city share one source of street views, so that a view is cached once per process (up to
        320 MB); the disk cache is shared by all processes.
        """
        if self.modality == "image":
            from .street_views import shared_street_views  # imported here because text needs no drawing

            views = shared_street_views(load_city(arguments["routes"]), arguments.get("look"))
            arguments = {**arguments, "views": views}
        return super().make_env(arguments, max_attempts)

    def demonstrations(self, kind: str, rng: np.random.Generator) -> Iterator[Example]:
        """One position of every training route, endlessly: in random order, another position and rail in every pass.

        So any number of examples is drawn from all routes alike, as RL's rollouts are.
        """
        city = load_city(self.training["routes"])
        env = self.training_env(1)
        while True:
            for route in map(int, rng.permutation(len(city))):
                yield demonstration(env, route, rng)

    def expert(self, env: gymnasium.Env, info: Mapping[str, Any]) -> str:
        """The expert's answer at the position."""
        return expert_response(*(info[f"expert_{key}"] for key in ("observation", "instruction", "action")))

    def columns(self, env: gymnasium.Env, info: Mapping[str, Any]) -> dict[str, Any]:
        """The expert's action and the name of the action space."""
        return {"action": info["expert_action"], "actions": env.actions}

    def questions(self, env: gymnasium.Env, reset: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Every position of the route."""
        _, info = env.reset(**reset)
        for position in range(info["positions"]):
            yield {"seed": reset["seed"], "options": {"route": info["route"], "position": position}}

    def resets(self, split: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """Every route of the split in turn."""
        routes = in_turn(len(load_city(self.split(split)["routes"])), seeds)
        return [{"seed": seed, "options": {"route": route}} for seed, route in zip(seeds, routes, strict=True)]

    def cluster(self, episode: Episode) -> int:
        """The index of its route."""
        return episode.info["route"]

    def shows_held_out(self, example: Example) -> bool:
        """Whether the answer uses a direction of another action space.

        Another look cannot be detected from an answer; the training environment draws none.
        """
        known = ACTION_SPACES[self.training["actions"]]
        answer = message_text(example["completion"][0])
        return any(word not in known for word in re.findall(r"turn_direction\((.*?)\)", answer))

    def measure(self, split: str, episodes: Sequence[Episode]) -> Metrics:
        """n is the number of routes, because the answers on one route are not independent of each other.

        step_accuracy: share of graded answers, including retries, with the expert's action (the paper's metric).
        success: share of routes completed. first_attempt: share of positions reached whose first answer is correct.
        format: share of those first answers in which all three fields can be read. legal_action: share of answers
        whose action is in the stated action space. training_rule: share of answers at turning positions that turn as
        in the training action space (Fig. 21; only where another one is stated).
        """
        stated, trained = (a["actions"] for a in (self.split(split), self.training))
        first = [conversation.attempts[0] for episode in episodes for conversation in episode.conversations]
        graded = [
            (point, attempt)
            for episode in episodes
            for point, conversation in zip(episode.info["rail"].points, episode.conversations, strict=False)
            for attempt in conversation.attempts
        ]
        actions = [(point, read_answer(attempt.text).get("action")) for point, attempt in graded]
        metrics = {
            "step_accuracy": [attempt.outcome == "correct" for _, attempt in graded],
            "success": [episode.terminated for episode in episodes],
            "first_attempt": [attempt.outcome == "correct" for attempt in first],
            "format": [len(read_answer(attempt.text)) == len(FIELDS) for attempt in first],
            "legal_action": [action in LEGAL[stated] for _, action in actions],
        }
        if stated != trained:
            at_turns = [action for point, action in actions if point.action(stated) in TURNING[stated]]
            metrics["training_rule"] = [action in TURNING[trained] for action in at_turns]
        return {name: (float(np.mean(values)), len(episodes)) for name, values in metrics.items()}

    def about(self, split: str, episode: Episode) -> tuple[dict[str, Any], Sequence[dict[str, Any]]]:
        """The route and its rail; each position of the rail is a question."""
        arguments, rail = self.split(split), episode.info["rail"]
        actions = arguments["actions"]
        about = {
            "city": arguments["routes"],
            "actions": actions,
            "route": episode.info["route"],
            "instructions": list(rail.instructions),
            "path": [list(point.geocode) for point in rail.points],
            "headings": [point.heading for point in rail.points],
        }
        return about, [{"position": i, "expert_action": point.action(actions)} for i, point in enumerate(rail.points)]

    def picture(self, episode: Mapping[str, Any], turn: Mapping[str, Any]) -> Image | None:
        """The street views at a position, drawn at display size."""
        if self.modality == "text" or "headings" not in episode:
            return None
        from .street_views import open_street_views

        place, heading = episode["path"][turn["position"]], episode["headings"][turn["position"]]
        try:
            views = open_street_views(load_city(episode["city"]))
        except ValueError:  # a city that is not known any more
            return None
        return fromarray(views.grid(tuple(place), heading, VIEW_SIZE, gap=GAP))

    def scene(self, episode: Mapping[str, Any]) -> dict[str, Any] | None:
        """The panoramas around a route and the landmarks on it; None if the city is not the transcript's."""
        try:
            city = load_city(str(episode["city"]))
            route = city.routes[int(episode["route"])]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
        path = [tuple(point) for point in episode.get("path", [])]
        if not {route.start, *route.waypoints} <= set(path):
            return None
        (south, north), (west, east) = ((min(axis), max(axis)) for axis in zip(*path, strict=True))
        middle, squeeze = ((south + north) / 2, (west + east) / 2), math.cos(math.radians((south + north) / 2))
        # A map is square: the streets beside a long narrow route belong to it.
        reach = max(north - south, (east - west) * squeeze) / 2 + AROUND / METRES_PER_DEGREE
        near = [
            [lat, lon]
            for lat, lon in city.panoramas
            if abs(lat - middle[0]) < reach and abs(lon - middle[1]) * squeeze < reach
        ]
        legs = []
        for leg, end in zip(route.legs, route.waypoints, strict=True):
            landmark = None if leg.landmark == NO_LANDMARK else leg.landmark
            legs.append({"end": list(end), "heading": leg.heading, "landmark": landmark})
        return {"city": city.name, "panoramas": near, "legs": legs}


_WORDS = Words(
    title="street navigation (V-IRL)",
    heldout="held-out routes",
    new_rule="relative directions",
    metrics={"step_accuracy": "per-step accuracy", "success": "routes completed"},
    tables={"per-step accuracy": ("step_accuracy",), "whole routes": ("success", "training_rule")},
    new_rule_only={"training_rule": "turns by the old rule"},
    stated=Reading("legal_action", "actions that the prompt offers", "share of answers (%)"),
    trained=Reading("training_rule", "directions of the training rule", "share of turns (%)"),
    remark="V-IRL: relative turns are offered, absolute ones were trained",
    rule=re.compile(r"x ?∈ ?\[[^\]\n]*\]"),
)

VIRL_L = NavigationTask(
    key="virl-l",
    label="V-IRL-L",
    name="navigation",
    modality="text",
    env="sftrl/Navigation-v0",
    training={"actions": "absolute", "routes": "nyc"},
    splits={
        "id": {"actions": "absolute", "routes": "nyc"},
        "heldout": {"actions": "absolute", "routes": "nyc:heldout"},
        "rule_ood": {"actions": "relative", "routes": "nyc"},
    },
    answer_key="action",
    unit="route",
    words=_WORDS,
    notebook="01_navigation",
    rewards=REWARDS,
    example={"route": 3},
    attempts=2,
    sampled=("heldout", "visual_ood"),
    paper_lambda=5.1,
)

# V-IRL-VL trains in one city. The visual-OOD test (paper 4.2) keeps the rule and changes the cities: routes in each of
# the nine cities of VLN mini.
VIRL_VL = replace(
    VIRL_L,
    key="virl-vl",
    label="V-IRL-VL",
    modality="image",
    splits={**VIRL_L.splits, "visual_ood": {"actions": "absolute", "routes": "mini"}},
)
