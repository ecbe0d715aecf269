"""V-IRL navigation as a Gymnasium environment; an action is the model's raw text (paper 4.2, appendix B).

How they differ:
* paper: an episode ends when the agent stops at the destination or at 2 verification steps, the latter at -1.
* official code: grades two attempts at a position, then has the model generate a third time, ignores that
  text even if it is right, and gives -1 for it. ``verifier="official"`` does the same.
* ours (``verifier="exact"``): the last graded attempt at a position truncates the episode and keeps its own
  reward.

With images the paper and the official code agree on what is text: all but the latest observation (Fig. 13).

In all three a wrong action is never carried out, and a right one moves the agent to the next position of the
rail with a fresh prompt: earlier positions appear in its history as observation and expert action, not as
conversation.
"""

from __future__ import annotations

import os
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from ..messages import Message, messages_space, parts_message, text_message, text_space
from .city import load_city
from .prompts import ACTION_SPACES, MODALITIES, history_line, prompt_at, shown_observation, task_prefix
from .rails import VERIFIERS, Rail, rail_builder
from .schema import City, check_choice
from .verifier import EXCEEDED, grade

if TYPE_CHECKING:
    from .street_views import Look

LAYOUTS = ("prompt", "official")
_OFFICIAL_FEEDBACK = "You failed this trial because {}"


class Navigation(gym.Env):
    """Follow a route through a city, one decision a position, with the verifier's feedback after an error.

    ## Description
    A route leads over two to six legs to a destination. The agent sees the instructions, its observations and
    actions so far, and answers with JSON: what it observes, which instruction is in force, and the action. A
    verifier compares the action with the expert's. After an error its feedback is appended and the agent
    tries again in place.

    ## Action Space
    Any string: the model's raw answer. No string raises; a wrong type raises ValueError.

    ## Observation Space
    A dict with `messages`: the chat at this position as a list of `{"role": ..., "content": ...}`. It begins
    with the paper's prompt for the position; a failed answer and its feedback are appended. With
    `modality="image"`, contents are lists of parts (see `sftrl_lib.messages`), the prompt has the image's place
    before its text, and the dict also has `image`: the 2x2 grid of street views, uint8,
    (2 * view_size, 2 * view_size, 3). The landmark of the latest observation is then in the image only.

    ## Starting State
    The start of a route drawn by `np_random`, or of the one given by `options={"route": index}`. Which
    positions lie on the rail depends only on the route and on the seed last given to `reset`.

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
    `heading` (degrees), `route` (its index), `rail` (the episode's `Rail`) and `success` (True once the whole rail
    was passed, if need be at second attempts, as in the official code).

    ## Arguments
    * `modality`: "text", or "image".
    * `actions`: "absolute" (eight compass directions; training) or "relative" (left, right, slightly ...;
      rule-OOD).
    * `routes`: the name of a generated city (see `sftrl_lib.virl.city_names()`), a folder in the layout of
      the released data, or a `City`.
    * `max_attempts`: graded attempts at a position, at least 1.
    * `verifier`: "exact" or "official".
    * `render_mode`: None, or "rgb_array" (the street views at a size for people).

    For the image modality and `render()`:
    * `view_size`: pixels of each of the four views.
    * `layout`: "prompt" (front, right / back, left) or "official" (the released order, which the prompt belies).
    * `look`: the name of a generated city, or a `Look`, to draw the streets in instead of the city's own look.

    An unknown value raises ValueError here, not at the first step; a street view that a folder lacks is named when
    the agent comes to it.

    ## Version History
    * v0: first version.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}

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
        render_mode: str | None = None,
    ) -> None:
        check_choice("modality", modality, MODALITIES)
        if isinstance(max_attempts, bool) or not isinstance(max_attempts, int) or max_attempts < 1:
            raise ValueError(f"max_attempts must be a whole number of at least 1, got {max_attempts!r}.")
        if isinstance(view_size, bool) or not isinstance(view_size, int) or not 8 <= view_size <= 1024:
            raise ValueError(f"view_size must be a whole number of pixels from 8 to 1024, got {view_size!r}.")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode!r} is not known; use None or 'rgb_array'.")
        self.modality = modality
        self.view_size = view_size
        self.layout = check_choice("layout", layout, LAYOUTS)
        self.actions = check_choice("actions", actions, tuple(ACTION_SPACES))
        self.verifier = check_choice("verifier", verifier, VERIFIERS)
        self.max_attempts = max_attempts
        self.city = load_city(routes)
        self.action_space = text_space()
        pictured = modality == "image"
        self.observation_space = spaces.Dict({"messages": messages_space(parts=pictured)})
        if pictured:
            shape = (2 * view_size, 2 * view_size, 3)
            self.observation_space.spaces["image"] = spaces.Box(0, 255, shape, np.uint8)
        self.render_mode = render_mode
        self._views = None
        if pictured or render_mode or look is not None:
            from .street_views import open_street_views  # text needs no drawing, so it is not imported above

            self._views = open_street_views(self.city, look)
        self._rails = rail_builder(self.city, self.verifier)
        self._done = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Go to the start of a route. ``options={"route": index}`` fixes which.

        Raises ValueError for an unknown option or a route that the city does not have.
        """
        super().reset(seed=seed)
        options = options or {}
        if unknown := set(options) - {"route"}:
            raise ValueError(
                f"Unknown reset option {sorted(map(str, unknown))[0]!r}; the one option is 'route'."
            )
        route = options.get("route")
        if route is None:
            route = int(self.np_random.integers(len(self.city)))
        self._route = self._check_route(route)
        self._rail = self._rails.build(self._route, self.np_random_seed)
        self._prefix = task_prefix(self._rail.instructions, self.actions, self.modality)
        self._position = 0
        self._success = False
        self._done = False
        self._arrive()
        return self._observation(), self._info(None, None)

    def step(self, action: str) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Grade one answer. Raises ValueError if it is not text, ResetNeeded after the end of an episode."""
        if self._done:
            raise ResetNeeded("The episode is over (or has not begun); call reset() before step().")
        if not isinstance(action, str):
            raise ValueError(f"An action is the model's answer as text, got {type(action).__name__}.")
        official = self.verifier == "official"
        point = self._rail.points[self._position]
        if official and self._attempts_left == 0:
            verdict = EXCEEDED
            truncated = True
        else:
            verdict = grade(action, point, self.actions, self.verifier)
            self._attempts_left -= 1
            truncated = not official and self._attempts_left == 0 and verdict.outcome != "correct"
        correct = verdict.outcome == "correct"
        self._success = correct and self._position == len(self._rail) - 1
        if correct and not self._success:
            self._prefix += history_line(self._position + 1, point.observation, point.action(self.actions))
            self._position += 1
            self._arrive()
        else:
            self._messages.append(self._message("assistant", action))
            if not correct:
                sentence = _OFFICIAL_FEEDBACK.format(verdict.feedback) if official else verdict.feedback
                self._messages.append(self._message("user", sentence))
        self._done = self._success or truncated
        info = self._info(verdict.outcome, verdict.feedback)
        return self._observation(), verdict.reward, self._success, truncated, info

    def render(self) -> np.ndarray | None:
        """With ``render_mode="rgb_array"`` the street views at the present position, 1,028 pixels square."""
        if self.render_mode is None:
            return None
        if not hasattr(self, "_rail"):
            raise ResetNeeded("There is nothing to see before reset().")
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

    def _arrive(self) -> None:
        shown = shown_observation(self._rail.points[self._position], self.modality)
        prompt = prompt_at(self._prefix, self._position + 1, shown)
        self._messages = [self._message("user", prompt, image=True)]
        self._attempts_left = self.max_attempts

    def _message(self, role: str, text: str, image: bool = False) -> Message:
        return parts_message(role, text, image) if self.modality == "image" else text_message(role, text)

    def _observation(self) -> dict[str, Any]:
        if self.modality == "text":
            return {"messages": [dict(message) for message in self._messages]}
        return {"messages": deepcopy(self._messages), "image": self._grid(self.view_size).copy()}

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
