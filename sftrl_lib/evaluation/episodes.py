"""Testing checkpoints as the paper does: sampled, several attempts with feedback (section 5, C.3).

How they differ:
* paper / official code: 234 hands or 48 routes, one seed, ID episodes drawn from the training distribution,
  temperature unstated.
* ours: more of them at the ends and fewer along the curves, several seeds, the rollout temperature; ID as theirs, plus
  hands and routes held out of all training. All checkpoints of a seed meet the same hands and routes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..models.policy import Policy
from ..models.rollout import Episode, rollout
from ..points.rules import card_numbers
from ..points.verifier import has_format, read_numbers, recognition
from ..profiles import EvaluationConfig
from ..tasks import Arguments, Task
from ..virl.verifier import FIELDS, LEGAL, TURNING, read_answer

Metrics = dict[str, tuple[float, int]]  # name -> (value, number of samples it is the mean of)

_EPISODES, _SAMPLING = 1, 2  # separate the random streams of the hands or routes and of the sampling


@dataclass(frozen=True)
class Protocol:
    """One way of testing: how many episodes, how many attempts each, at which temperature."""

    episodes: int
    attempts: int
    temperature: float
    max_new_tokens: int
    batch_size: int


def protocol(config: EvaluationConfig, end: bool = True, **changes: Any) -> Protocol:
    """The paper's protocol at the end of a branch, or along its curve; `changes` replaces single fields."""
    paper = Protocol(
        config.episodes_end if end else config.episodes_curve,
        config.attempts,
        config.temperature,
        config.max_new_tokens,
        config.batch_size,
    )
    return replace(paper, **changes)


def play(policy: Policy, task: Task, split: str, how: Protocol, seed: int, description: str = "") -> list[Episode]:
    """Play `how.episodes` hands or routes of `split`. They depend on (split, seed) alone, so checkpoints are paired.

    The episodes come without their pictures. Raises ValueError for an unknown split.
    """
    arguments = task.split(split)
    stream = [seed, list(task.splits).index(split)]
    seeds = np.random.SeedSequence([_EPISODES, *stream]).generate_state(how.episodes)
    generator = torch.Generator(policy.device).manual_seed(
        int(np.random.SeedSequence([_SAMPLING, *stream]).generate_state(1)[0])
    )
    size = min(how.batch_size, how.episodes)
    envs = [task.make_env(arguments, how.attempts) for _ in range(size)]
    episodes: list[Episode] = []
    with tqdm(total=how.episodes, desc=description or split, unit=task.unit, mininterval=10, leave=False) as bar:
        for start in range(0, how.episodes, size):
            resets = [{"seed": int(s)} for s in seeds[start : start + size]]
            episodes += rollout(
                policy,
                envs[: len(resets)],
                resets,
                how.temperature,
                how.max_new_tokens,
                generator,
                bar.update,
            )
            for conversation in (c for episode in episodes[start:] for c in episode.conversations):
                conversation.picture = None  # nothing that is measured needs it; those of 250 routes fill a gigabyte
    return episodes


def measure(task: Task, split: str, episodes: Sequence[Episode]) -> Metrics:
    """The metrics of episodes played on `split`: name -> (value, n); see `measure_hands` and `measure_routes`."""
    return _MEASURES[task.name](task, split, episodes)


def within(episodes: Sequence[Episode], attempts: int) -> tuple[float, int]:
    """Success with the first `attempts` attempts alone (at a hand; at each position of a route), and n."""
    return _mean([e.terminated and max(len(c.attempts) for c in e.conversations) <= attempts for e in episodes])


def measure_hands(task: Task, split: str, episodes: Sequence[Episode]) -> Metrics:
    """GeneralPoints; n is the number of hands.

    success: at least one attempt is correct (the paper's metric). first_attempt: the first one is. format: it has all
    three fields. numbers: its "number" field holds the numbers that the stated rule gives the cards (in any order).
    training_rule: it holds those of the training rule instead (only where the two differ for some hand).

    recognition, with pictures: the first attempt's "cards" field holds the four ranks (in any order), as in the paper
    (section 5.3). In text the cards are given, and what is left to recognise is what they count as: there recognition
    is numbers, under its older name.
    """
    first = [episode.attempts[0] for episode in episodes]
    read = [sorted(read_numbers(a.text) or ()) for a in first]
    stated = [sorted(episode.info["numbers"]) for episode in episodes]
    trained = [sorted(card_numbers(episode.info["cards"], task.training["rule"])) for episode in episodes]
    metrics = {
        "success": [episode.terminated for episode in episodes],
        "first_attempt": [a.outcome == "correct" for a in first],
        "recognition": [ours == theirs for ours, theirs in zip(read, stated, strict=True)],
        "format": [has_format(a.text) for a in first],
    }
    if task.modality == "image":
        metrics["numbers"] = metrics["recognition"]
        seen = zip(first, episodes, strict=True)
        metrics["recognition"] = [recognition(a.text, episode.info["cards"]) == 1.0 for a, episode in seen]
    if stated != trained:
        metrics["training_rule"] = [ours == theirs for ours, theirs in zip(read, trained, strict=True)]
    return {name: _mean(values) for name, values in metrics.items()}


def measure_routes(task: Task, split: str, episodes: Sequence[Episode]) -> Metrics:
    """Navigation; n is the number of routes, for the answers on one route are not independent of each other.

    step_accuracy: share of the graded answers, retries included, that name the expert's action (the paper's metric).
    success: share of the routes of which every position was passed. first_attempt: share of the positions reached
    whose first answer is right. format: share of those first answers in which all three fields can be read.
    legal_action: share of the answers whose action is in the stated action space. training_rule: share of the answers
    at turning positions that turn as in the training action space (Fig. 21; only where another one is stated).
    """
    stated, trained = (a["actions"] for a in (task.split(split), task.training))
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


_MEASURES = {"general_points": measure_hands, "navigation": measure_routes}


def _mean(values: Sequence[bool]) -> tuple[float, int]:
    return float(np.mean(values)), len(values)


def transcript(task: Task, split: str, episode: Episode, policy: Policy, number: int) -> dict[str, Any]:
    """An episode as it can be shown: what it was about, then each prompt, the answer and the verifier's verdict."""
    about, positions = _ABOUT[task.name](task.split(split), episode)
    turns = []
    for position, conversation in zip(positions, episode.conversations, strict=False):
        shown = 0
        for attempt in conversation.attempts:
            before = policy.tokenizer.decode(conversation.ids[shown : attempt.start], skip_special_tokens=True)
            verdict = {"outcome": attempt.outcome, "reward": attempt.reward, "feedback": attempt.feedback}
            turns.append({"prompt": before, "output": attempt.text, **verdict, **position})
            shown = attempt.end
    return {"episode": number, "success": episode.terminated, **about, "turns": turns}


def _about_hand(arguments: Arguments, episode: Episode) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a transcript says of the episode, and of each of its positions."""
    info = episode.info
    about = {"cards": list(info["cards"]), "numbers": list(map(int, info["numbers"]))}
    return about | ({"suits": list(info["suits"])} if "suits" in info else {}), [{}]


def _about_route(arguments: Arguments, episode: Episode) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    rail, actions = episode.info["rail"], arguments["actions"]
    about = {
        "city": arguments["routes"],
        "actions": actions,
        "route": episode.info["route"],
        "instructions": list(rail.instructions),
        "path": [list(point.geocode) for point in rail.points],
        "headings": [point.heading for point in rail.points],
    }
    return about, [{"position": i, "expert_action": point.action(actions)} for i, point in enumerate(rail.points)]


_ABOUT = {"general_points": _about_hand, "navigation": _about_route}
