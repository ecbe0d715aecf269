"""A route of street navigation to walk: its state, without widgets.

A person chooses an action only; observation and instruction of the answer are filled in. A model must write the whole
answer, as in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..evaluation.cast import Answer, Player, Token
from ..tasks import task_of
from ..virl import ACTION_SPACES, City, Navigation, expert_response, load_city
from ..virl.street_views import StreetViews, open_street_views
from ..virl.verifier import LEGAL, read_answer

VIEW = 192  # width and height of a street view as shown, in pixels


@dataclass(frozen=True)
class Step:
    """One attempt at one position: the answer, the action and observation in it, and what was said to it."""

    position: int
    answer: Answer
    action: str | None  # None if the answer has none
    observation: str | None
    outcome: str
    reward: float
    feedback: str  # what a model hears
    verdict: str  # what a person hears


class Walk:
    """A route to walk, decision by decision; `actions`, `routes` and `max_attempts` as in the environment.

    `seed` fixes the routes that are drawn. With ``modality="image"`` models see the street views.
    """

    def __init__(
        self,
        actions: str = "absolute",
        routes: str | City = "nyc",
        route: int | None = None,
        max_attempts: int = 2,
        seed: int | None = None,
        modality: str = "text",
    ) -> None:
        self.max_attempts = max_attempts
        self.modality = modality
        self.task = task_of("navigation", modality)
        self._rng = np.random.default_rng(seed)
        self._begin(actions, routes, route)

    def new_route(self, route: int | None = None) -> None:
        """Go to the start of another route. Raises ValueError for one that the city does not have."""
        self._begin(self.actions, self.routes, route)

    def change(self, actions: str, routes: str | City) -> None:
        """Change the action space, which keeps route and position, or the city. Raises ValueError for unknown ones."""
        if routes != self.routes:
            self._begin(actions, routes, None)
        elif actions != self.actions:
            self._env, self._observation, self._info = self._at(actions, self.position)
            self.actions = actions
            self.history = [step for step in self.history if step.position < self.position]
            self._arrived = False

    def act(self, action: str) -> Step:
        """Answer with an action such as ``turn_direction(north)``. Raises ValueError if the walk is over."""
        if self.over:
            raise ValueError("This walk is over; take a new route.")
        info = self._info
        answer = Answer((Token(expert_response(info["expert_observation"], info["expert_instruction"], action)),))
        step, self._observation, self._info, _ = _step(self._env, info, answer)
        self._arrived = self._info["success"]
        self.history.append(step)
        return step

    def go_on(self) -> None:
        """Take the expert's step. Raises ValueError at the destination."""
        if self.position == self.positions - 1:
            raise ValueError("This is the destination; the right action here is stop().")
        self._env, self._observation, self._info = self._at(self.actions, self.position + 1)

    def hint(self) -> str:
        """The instruction that is to be followed here."""
        return f"Now: {self._info['expert_instruction']}"

    def watch(
        self, player: Player, temperature: float = 1.0, seed: int = 0, to_the_end: bool = False
    ) -> Iterator[Step]:
        """Let a model answer at this position, one attempt at a time; ``to_the_end``: walk the route from its start."""
        start = 0 if to_the_end else self.position
        env, observation, info = self._at(self.actions, start)
        number = 0
        while True:
            chance = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
            answer = player.answer(observation, temperature, chance)
            step, observation, info, over = _step(env, info, answer)
            yield step
            if over or (step.outcome == "correct" and not to_the_end):
                return
            number += 1

    @property
    def choices(self) -> tuple[str, ...]:
        """The actions that the prompt offers."""
        turns = (f"turn_direction({word})" for word in ACTION_SPACES[self.actions])
        return "forward()", *turns, "stop()"

    @property
    def position(self) -> int:
        """Index of the position on the rail."""
        return self._info["position"]

    @property
    def positions(self) -> int:
        return self._info["positions"]

    @property
    def attempts_left(self) -> int:
        return self._info["attempts_left"]

    @property
    def route(self) -> int:
        """The route's index in its city."""
        return self._info["route"]

    @property
    def heading(self) -> int:
        """Degrees clockwise from north."""
        return self._info["heading"]

    @property
    def instructions(self) -> tuple[str, ...]:
        return self._info["rail"].instructions

    @property
    def observation(self) -> str:
        """What is to be observed here, as the expert words it."""
        return self._info["expert_observation"]

    @property
    def right_action(self) -> str:
        return self._info["expert_action"]

    @property
    def arrived(self) -> bool:
        """Whether the walk has ended with ``stop()`` at the destination."""
        return self._arrived

    @property
    def stuck(self) -> bool:
        """Whether the attempts at this position are used up."""
        return not self.arrived and self.attempts_left == 0

    @property
    def over(self) -> bool:
        return self.arrived or self.stuck

    def views(self) -> np.ndarray:
        """The street views as the prompt orders them (front, right; back, left), uint8, (height, width, 3)."""
        return self._views.grid(self._info["geocode"], self.heading, VIEW, gap=6)

    def scene(self) -> dict[str, Any] | None:
        """The streets around the route, see `Task.scene`; landmarks that have not been passed yet are left out."""
        scene = self.task.scene({"city": self._city.name, "route": self.route, "path": self.path})
        if scene is None:
            return None
        passed = self.path[: self.position + 1]
        legs = [{**leg, "landmark": leg["landmark"] if leg["end"] in passed else None} for leg in scene["legs"]]
        return {**scene, "legs": legs}

    @property
    def path(self) -> list[list[float]]:
        """Latitude and longitude of every position of the route."""
        return [list(point.geocode) for point in self._info["rail"].points]

    @property
    def name(self) -> str:
        """The route in words."""
        return f"{self._city.name}, route {self.route}"

    def _begin(self, actions: str, routes: str | City, route: int | None) -> None:
        city = load_city(routes)
        views = open_street_views(city)  # in memory: nothing of a game is written to the disk
        env = self._make(actions, city, views)
        seed = int(self._rng.integers(2**31))
        observation, info = env.reset(seed=seed, options=None if route is None else {"route": route})
        self._env, self._observation, self._info, self._seed = env, observation, info, seed  # after all has worked
        self.actions, self.routes, self._city, self._views = actions, routes, city, views
        self.history: list[Step] = []
        self._arrived = False

    def _make(self, actions: str, city: City, views: StreetViews) -> Navigation:
        return Navigation(self.modality, actions, city, self.max_attempts, views=views)

    def _at(self, actions: str, position: int) -> tuple[Navigation, dict, dict]:
        """An environment of this route, where the expert has walked to `position`."""
        env = self._make(actions, self._city, self._views)
        observation, info = env.reset(seed=self._seed, options={"route": self.route})
        for point in self._info["rail"].points[:position]:
            answer = expert_response(point.observation, point.instruction, point.action(actions))
            observation, _, _, _, info = env.step(answer)
        return env, observation, info


def _step(env: Navigation, before: dict, answer: Answer) -> tuple[Step, dict, dict, bool]:
    """Let an answer be graded: the step, then observation, info and whether the episode is over."""
    observation, reward, terminated, truncated, info = env.step(answer.text)
    read = read_answer(answer.text)
    action, seen = read.get("action"), read.get("current observation")
    verdict = _verdict(info["outcome"], action, env.actions, terminated)
    step = Step(before["position"], answer, action, seen, info["outcome"], reward, info["feedback"], verdict)
    return step, observation, info, terminated or truncated


def _verdict(outcome: str, action: str | None, actions: str, arrived: bool) -> str:
    if outcome == "correct":
        return "arrived" if arrived else "right"
    if action is None:
        return "no action in the answer"
    if outcome == "wrong_observation":
        return "wrong action, and wrong about being at an intersection"
    return "not the right action here" if action in LEGAL[actions] else "not among the actions offered"
