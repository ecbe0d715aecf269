"""The outcome verifier of navigation: grades an answer's text with a reward, an outcome and feedback.

How they differ:
* paper (appendix B.3): +1 correct action, -1 wrong action, -1.5 failed detection of landmarks.
* official code: a correct action earns +1 whatever the observation. A wrong one costs -1.5 instead of -1 if the
  claim of an intersection disagrees with the *landmark text*, which does not contain that word even at a real
  intersection; the feedback there is "you are not at any intersection". Only exact strings match.
* ours (``verifier="exact"``): the same rewards, but the claim is compared with whether there is an intersection.
  Only the task's own sentence claims one, not a landmark whose name has the word. Spaces inside an action are
  ignored. An action outside the stated action space (unless the claim is wrong too), or no readable action, is
  "illegal" (-1).

Strict JSON and the official template (trailing comma) are read alike, see `answers.py`. Answers are untrusted: nothing
is evaluated as code, and grading takes time linear in a bounded length.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ..answers import read_fields
from ..attempts import VERIFIERS, Grade, check_choice
from .prompts import ACTION_SPACES, FEEDBACK, OFFICIAL_FEEDBACK
from .rails import AT_INTERSECTION, RailPoint

OUTCOMES = ("correct", "wrong_action", "wrong_observation", "illegal")
REWARDS = {"correct": 1.0, "wrong_action": -1.0, "wrong_observation": -1.5, "illegal": -1.0}

FIELDS = dict.fromkeys(("current observation", "current instruction", "action"), str)
_OFFICIAL = {key: re.compile(rf'"{key}": "(.*?)"') for key in ("current observation", "action")}
TURNING = {actions: {f"turn_direction({word})" for word in words} for actions, words in ACTION_SPACES.items()}
LEGAL = {actions: {"forward()", "stop()", *turns} for actions, turns in TURNING.items()}  # per action space


def _grades(sentences: dict[str, str], outcomes: dict[str, str]) -> dict[str, Grade]:
    return {key: Grade(REWARDS[outcomes.get(key, key)], outcomes.get(key, key), sentences[key]) for key in sentences}


_CLAIMS = {"no_intersection": "wrong_observation", "intersection": "wrong_observation"}
_EXACT = _grades(FEEDBACK, {**_CLAIMS, "unreadable": "illegal"})
_RELEASED = _grades(OFFICIAL_FEEDBACK, {**_CLAIMS, "exceeded": "wrong_action"})
EXCEEDED = _RELEASED["exceeded"]  # the released code's grade after the last attempt


def grade(text: str, point: RailPoint, actions: str = "absolute", verifier: str = "exact") -> Grade:
    """Grade one answer at `point` of a rail in the action space ``"absolute"`` or ``"relative"``.

    Accepts any text. Raises ValueError for an unknown action space or verifier.
    """
    check_choice("actions", actions, tuple(ACTION_SPACES))
    check_choice("verifier", verifier, VERIFIERS)
    if verifier == "official":
        return _RELEASED[_released_verdict(text, point, actions)]
    return _EXACT[_verdict(text, point, actions)]


def _verdict(text: str, point: RailPoint, actions: str) -> str:
    """The exact verifier's key into `FEEDBACK`."""
    answer = read_answer(text)
    if "action" not in answer:
        return "unreadable"
    action = answer["action"]
    if action == point.action(actions):
        return "correct"
    observation = answer.get("current observation")
    if observation is not None:
        claims = AT_INTERSECTION.lower() in " ".join(observation.lower().split())
        if claims != point.at_intersection:
            return "no_intersection" if claims else "intersection"
    return "wrong_action" if action in LEGAL[actions] else "illegal"


def _released_verdict(text: str, point: RailPoint, actions: str) -> str:
    """The released code's key into `OFFICIAL_FEEDBACK`, except that no answer crashes it."""
    answer = _parse(text)
    fields = {}
    for key, pattern in _OFFICIAL.items():
        match = pattern.search(text)
        fields[key] = answer[key] if key in answer else match[1] if match else "None"
    if fields["action"] == point.action(actions):
        return "correct"
    observation = fields["current observation"]
    claims = isinstance(observation, str | list | dict) and "intersection" in observation
    truth = "intersection" in point.landmark  # the released code's bug: it checks the landmark, not the intersection
    if claims != truth:
        return "no_intersection" if claims else "intersection"
    return "wrong_action"


def read_answer(text: str) -> dict[str, str]:
    """Those of `FIELDS` that are strings in the answer, found as `answers.py` says.

    Spaces inside the action are normalised. Any text is accepted; one longer than `MAX_TEXT` has no fields.
    """
    fields = read_fields(text, FIELDS)
    if "action" in fields:
        fields["action"] = " ".join(fields["action"].split()).replace(" (", "(").replace("( ", "(").replace(" )", ")")
    return fields


def _parse(text: str) -> dict[str, Any]:
    """`text` as a JSON object, as the released code reads it; empty if it is anything else."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}
