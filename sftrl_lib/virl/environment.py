"""V-IRL navigation as a Gymnasium environment; an action is the model's raw text (paper 4.2, appendix B).

An episode ends when the agent stops at the destination or when the attempts at a position are used up (paper: 2
verification steps); `attempts.py` says how paper, official code and ours differ there. In all three a wrong action is
never executed, and a correct one moves the agent to the next position of the rail with a fresh prompt. Earlier
positions appear in its history as observation and expert action, not as chat turns.

With images, in the paper as in the official code, all but the latest observation is text (Fig. 13).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.error import ResetNeeded

from ..attempts import AttemptsEnv, Grade, check_choice, check_whole
from .city import load_city
from .prompts import ACTION_SPACES, history_line, prompt_at, shown_observation, task_prefix
from .rails import Rail, rail_builder
from .schema import City
from .verifier import EXCEEDED, grade

if TYPE_CHECKING:
    from .street_views import Look, StreetViews

LAYOUTS = ("prompt", "official")


class Navigation(AttemptsEnv):
    """Follow a route through a city, one decision per position, with the verifier's feedback after an error.

    ## Description
    A route leads over two to six legs to a destination. The prompt holds the instructions and the observations
    and actions so far; the agent answers with JSON: its observation, the current instruction and the action. A
    verifier compares the action with the expert's. After an error its feedback is appended and the agent tries
    again at the same position.

    ## Action Space
    Any string: the model's raw answer. No string raises; a wrong type raises ValueError.

    ## Observation Space
    A dict with `messages`: the chat at this position as a list of `{"role": ..., "content": ...}`. It starts
    with the paper's prompt for the position; a failed answer and its feedback are appended. With
    `modality="image"`, contents are lists of parts (see `sftrl_lib.messages`), the prompt has the image placeholder
    before its text, and the dict also has `image`: the 2x2 grid of street views, uint8,
    (2 * view_size, 2 * view_size, 3). The landmark of the latest observation is then in the image only.

    ## Starting State
    The start of a route drawn by `np_random`, or of the one given by `options={"route": index}`; with
    `options={"position": k}` position k of its rail, reached by the expert. The positions on the rail depend only on
    the route and on the seed last given to `reset`.

    ## Rewards
    +1 correct action, -1 wrong action, -1.5 wrong action together with a wrong claim about being at an
    intersection. With `verifier="official"`, -1 for the ungraded answer after the last attempt.

    ## Episode Termination
    Terminated by the correct `stop()` at the destination. Truncated when the attempts at a position are used
    up: with `verifier="exact"` by the last graded attempt, with `verifier="official"` by one more, ungraded
    answer.

    ## Information
    `expert_observation`, `expert_instruction`, `expert_action` (what the expert answers at this position),
    `outcome` (None at reset, then `correct`, `wrong_action`, `wrong_observation` or `illegal`; the ungraded
    official answer counts as `wrong_action`), `feedback` (None at reset), `attempts_left` (at this position),
    `position` (index on the rail), `positions` (length of the rail), `geocode` (latitude, longitude),
    `heading` (degrees), `route` (its index), `rail` (the episode's `Rail`) and `success` (True once the rail is
    completed, even with retries, as in the official code).

    ## Arguments
    * `modality`: "text", or "image".
    * `actions`: "absolute" (eight compass directions; training) or "relative" (left, right, slightly ...;
      rule-OOD).
    * `routes`: the name of a generated city (see `sftrl_lib.virl.city_names()`), a folder in the layout of
      the released data, or a `City`.
    * `max_attempts`: graded attempts per position, at least 1.
    * `verifier`: "exact" or "official".
    * `render_mode`: None, or "rgb_array" (the street views at display size).

    For the image modality and `render()`:
    * `view_size`: width and height of each of the four views in pixels.
    * `layout`: "prompt" (front, right / back, left) or "official" (the released order, contrary to the prompt).
    * `look`: a `Look`, or the name of a generated city, to draw the streets in instead of the city's own look.
    * `views`: an open `StreetViews` of the city, shared between environments; instead of `look`.

    Invalid values raise ValueError in the constructor, not at the first step. A street view missing from a folder
    raises ValueError when the agent gets there.

    ## Version History
    * v0: first version.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}
    exceeded = EXCEEDED

    def __init__(
        self,
        modality: str = "text",
        actions: str = "absolute",
        routes: str | os.PathLike[str] | City = "nyc",
        max_attempts: int = 2,
        verifier: str = "exact",
        view_size: int = 64,
        layout: str = "prompt",
        look: str | Look | None = None,
        views: StreetViews | None = None,
        render_mode: str | None = None,
    ) -> None:
        if not 8 <= check_whole("view_size", view_size) <= 1024:
            raise ValueError(f"view_size must be a whole number of pixels from 8 to 1024, got {view_size!r}.")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode!r} is not known; use None or 'rgb_array'.")
        super().__init__(modality, max_attempts, verifier, (2 * view_size, 2 * view_size))
        self.view_size = view_size
        self.layout = check_choice("layout", layout, LAYOUTS)
        self.actions = check_choice("actions", actions, tuple(ACTION_SPACES))
        self.city = load_city(routes)
        self.render_mode = render_mode
        self._views = views
        if views is None and (modality == "image" or render_mode or look is not None):
            from .street_views import open_street_views  # imported here because text needs no drawing

            self._views = open_street_views(self.city, look)
        self._rails = rail_builder(self.city, self.verifier)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Go to the start of a route, or to another position. ``options={"route": index, "position": k}`` fixes them.

        Raises ValueError for an unknown option, a route that the city does not have, or a position that its rail does
        not have.
        """
        super().reset(seed=seed)
        options = options or {}
        if unknown := set(options) - {"route", "position"}:
            raise ValueError(
                f"Unknown reset option {sorted(map(str, unknown))[0]!r}; use 'route' and 'position'."
            )
        route = options.get("route")
        if route is None:
            route = int(self.np_random.integers(len(self.city)))
        self._route = self._check_route(route)
        self._rail = self._rails.build(self._route, self.np_random_seed)
        self._prefix = task_prefix(self._rail.instructions, self.actions, self.modality)
        self._position = self._check_position(options.get("position", 0))
        for k, point in enumerate(self._rail.points[: self._position], 1):
            self._prefix += history_line(k, point.observation, point.action(self.actions))
        self._success = False
        self._arrive()
        return self._observation(), self._info(None, None)

    def render(self) -> np.ndarray | None:
        """The street views at the current position, uint8, (1028, 1028, 3). None without ``render_mode="rgb_array"``.

        Raises ResetNeeded before the first reset.
        """
        if self.render_mode is None:
            return None
        if not hasattr(self, "_rail"):
            raise ResetNeeded("There is nothing to show; call reset() before render().")
        return self._grid(512, gap=4).copy()

    @property
    def rail(self) -> Rail:
        """The rail of the current episode: every position and what the expert does there."""
        return self._rail

    def _check_route(self, route: Any) -> int:
        if (
            isinstance(route, bool)
            or not isinstance(route, int | np.integer)
            or not 0 <= route < len(self.city)
        ):
            raise ValueError(
                f"route={route!r} is not known; {self.city.name} has routes 0 to {len(self.city) - 1}."
            )
        return int(route)

    def _check_position(self, position: Any) -> int:
        whole = isinstance(position, int | np.integer) and not isinstance(position, bool)
        if not whole or not 0 <= position < len(self._rail):
            raise ValueError(f"position={position!r} is not on the rail, which has 0 to {len(self._rail) - 1}.")
        return int(position)

    def _arrive(self) -> None:
        shown = shown_observation(self._rail.points[self._position], self.modality)
        self._ask(prompt_at(self._prefix, self._position + 1, shown))

    def _grade(self, action: str) -> Grade:
        return grade(action, self._rail.points[self._position], self.actions, self.verifier)

    def _advance(self, action: str, grade: Grade) -> bool:
        """A correct action leads to the next position; at the last one the episode is solved."""
        point, last = self._rail.points[self._position], self._position == len(self._rail) - 1
        if grade.outcome != "correct" or last:
            self._success = super()._advance(action, grade)
            return self._success
        self._prefix += history_line(self._position + 1, point.observation, point.action(self.actions))
        self._position += 1
        self._arrive()
        return False

    def _observation_image(self) -> np.ndarray:
        return self._grid(self.view_size).copy()

    def _grid(self, view_size: int, gap: int = 0) -> np.ndarray:
        point = self._rail.points[self._position]
        return self._views.grid(point.geocode, point.heading, view_size, self.layout, gap=gap)

    def _info(self, outcome: str | None, feedback: str | None) -> dict[str, Any]:
        point = self._rail.points[self._position]
        return {
            "expert_observation": point.observation,
            "expert_instruction": point.instruction,
            "expert_action": point.action(self.actions),
            "outcome": outcome,
            "feedback": feedback,
            "attempts_left": self._attempts_left,
            "position": self._position,
            "positions": len(self._rail),
            "geocode": point.geocode,
            "heading": point.heading,
            "route": self._route,
            "rail": self._rail,
            "success": self._success,
        }
