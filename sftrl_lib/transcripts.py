"""Transcripts, the episodes that runs stored: how they split into exchanges, and which ones figures show.

An exchange is one question and the attempts at it. In GeneralPoints an episode is one exchange; in navigation it has
one per position. The first attempt has the whole prompt, each retry only the verifier's feedback.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .task import Task

Episode = dict[str, Any]  # has `tables.TRANSCRIPT_KEYS` and what `Task.about` adds
Turn = dict[str, Any]  # one attempt: prompt, output, outcome, reward, feedback, and what `Task.about` adds

SHOWN = ("rl", "init", "sft")  # methods that examples are taken from, in order of preference
_HEADING = re.compile(r"^\[([A-Z][A-Za-z ]*)\]\s*$", re.MULTILINE)
_OBSERVATION = re.compile(r"^O_\d+: ?(.*)$", re.MULTILINE)


def exchanges(episode: Mapping[str, Any]) -> list[list[Turn]]:
    """The turns of an episode, grouped by exchange."""
    return [list(turns) for _, turns in itertools.groupby(episode["turns"], key=lambda turn: turn.get("position"))]


def sections(prompt: str) -> dict[str, str]:
    """The sections of a paper prompt by heading, e.g. "Action space"."""
    pieces = _HEADING.split(str(prompt))
    return {name: text.strip("\n") for name, text in zip(pieces[1::2], pieces[2::2], strict=False)}


def observation(prompt: str) -> str:
    """The latest observation that a navigation prompt states; "" if there is none."""
    found = _OBSERVATION.findall(str(prompt))
    return found[-1].strip() if found else ""


def best_example(transcripts: list[Episode], task: Task) -> tuple[Episode, list[Turn]] | None:
    """The exchange of a task that is shown as an example; None if there is none.

    Preferred, in this order: solved; answers without stray characters; by RL; after an error; under the new rule; in
    navigation at a turn; few attempts.
    """
    found = min(_examples(transcripts, task), key=lambda item: item[0], default=None)
    return found and found[1:]


def _examples(transcripts: list[Episode], task: Task) -> Iterator[tuple[tuple, Episode, list[Turn]]]:
    """(rank, episode, turns) of every exchange of a task; the lowest rank is best."""
    for number, episode in main_episodes(transcripts, task.name, task.modality):
        for place, turns in enumerate(exchanges(episode)):
            solved = turns[-1].get("outcome") == "correct"
            straight = not str(turns[0].get("expert_action", "turn")).startswith("turn")
            rank = (not solved, not _tidy(turns), SHOWN.index(episode["method"]), len(turns) == 1,
                    episode["split"] != "rule_ood", straight, len(turns), place == 0, place, number)  # fmt: skip
            yield rank, episode, turns


def _tidy(turns: list[Turn]) -> bool:
    """Whether every answer is one object in braces with three fields, of characters that can be printed."""
    answers = [str(turn.get("output", "")).strip() for turn in turns]
    return all(
        said.startswith("{")
        and said.endswith("}")
        and said.count("{") == 1
        and said.count('":') == 3
        and "\N{REPLACEMENT CHARACTER}" not in said
        for said in answers
    )


def best_revision(transcripts: list[Episode], task: Task) -> tuple[Episode, list[Turn]] | None:
    """The exchange in which RL corrects itself that shows most: solved, after the most kinds of error, in few attempts.

    None if RL corrected itself in none.
    """
    ranked = []
    for _, episode, turns in _examples(transcripts, task):
        if episode["method"] == "rl" and len(turns) > 1 and turns[-1].get("outcome") == "correct":
            kinds = len({turn.get("outcome") for turn in turns})
            rank = (not _tidy(turns), -kinds, len(turns), episode["split"] != "rule_ood")
            ranked.append((rank, episode, turns))
    return min(ranked, key=lambda item: item[0], default=(None,))[1:] or None


def main_episodes(transcripts: list[Episode], name: str, modality: str = "") -> Iterator[tuple[int, Episode]]:
    """(index, episode) of the main comparison's episodes that examples are taken from."""
    wanted = {"task": name, "experiment": "main", "setting": "sampled"}
    wanted |= {"modality": modality} if modality else {}
    for number, episode in enumerate(transcripts):
        if all(episode[key] == value for key, value in wanted.items()) and episode["method"] in SHOWN:
            yield number, episode


def picture_name(episode: Mapping[str, Any], turn: Mapping[str, Any] | None = None, seen: bool = False) -> str:
    """Name, without extension, of the file with an episode's map or, given a turn, with that turn's picture.

    seen: the picture as the model saw it, in its few pixels.
    """
    kind = "-".join(str(episode[key]) for key in ("task", "modality", "method", "experiment", "setting"))
    where = f"s{episode['seed']}-step{episode['step']}-{episode['split']}-{episode['episode']}"
    position = "" if turn is None else f"-{turn.get('position', 0)}"
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", f"{kind}-{where}{position}{'-seen' if seen else ''}")
