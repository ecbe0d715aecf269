"""A task: an environment with its splits, demonstrations, metrics and figure labels.

Training, evaluation, tables and figures use a task only through this class. `points/task.py` and `virl/task.py` define
the paper's four, and `tasks.py` lists them. To add a task, subclass `Task` and add an instance to `tasks.TASKS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from PIL.Image import Image, fromarray

from .messages import parts_message, text_message

if TYPE_CHECKING:  # an episode is a plain record, but its module imports torch
    from .models.rollout import Episode

Arguments = Mapping[str, Any]  # of an environment
Metrics = dict[str, tuple[float, int]]  # name -> (mean, number of samples)
# {"prompt": messages, "completion": messages} and, in the image modality, "images": [the picture]; then `Task.columns`
Example = dict[str, Any]


@dataclass(frozen=True)
class Split:
    """The labels of a split in figures and tables."""

    name: str  # in the tables
    short: str  # in a sentence
    label: str  # on a panel
    column: str  # column header; "" stands for the task's `Words.heldout`


_NUMBERS = {"low": "numbers to 10", "high": "numbers above 10"}
SPLITS = {
    split.name: split
    for split in (
        Split("id", "ID", "ID: the training rule", "training rule (ID)"),
        Split("heldout", "held-out", "held-out instances", ""),
        Split("rule_ood", "rule-OOD", "OOD: a new rule", "new rule (rule-OOD)"),
        Split("visual_ood", "visual-OOD", "OOD: a new look", "new look (visual-OOD)"),
    )
}


# Tests of single experiments, beyond those four: `Task.probes`.
PROBES = {
    split.name: split
    for split in (
        *(
            Split(
                f"grid_{rule}_{sentence}_{numbers}",
                f"{rule} rule, {sentence} sentence, {_NUMBERS[numbers]}",
                f"{rule} rule, {sentence}, {_NUMBERS[numbers]}",
                f"{rule}, {sentence}, {_NUMBERS[numbers]}",
            )
            for rule, numbers in (("old", "low"), ("new", "low"), ("new", "high"))
            for sentence in ("short", "long")
        ),
        Split("fake", "fake rule", "Fake: 11, 12, 13 stated, 10 scored", "stated 11-13, scored 10"),
        Split("all5", "all 5", "J = Q = K = 5", "5, 5, 5"),
        Split("all7", "all 7", "J = Q = K = 7", "7, 7, 7"),
        Split("all12", "all 12", "J = Q = K = 12", "12, 12, 12"),
        Split("large", "large", "J, Q, K = 14, 17, 19", "14, 17, 19"),
        Split("five", "five cards", "five cards, J = Q = K = 10", "five cards"),
    )
}


@dataclass(frozen=True)
class Reading:
    """A metric of how often answers follow one of the two rules, with the labels of its panel."""

    metric: str
    title: str
    label: str  # of the y axis


@dataclass(frozen=True)
class Words:
    """The labels of a task in figures and tables."""

    title: str  # of the task, in a sentence
    heldout: str  # what is held out: "held-out hands"
    new_rule: str  # the rule of the OOD test
    metrics: Mapping[str, str]  # metric -> y-axis label; the first is the main metric
    tables: Mapping[str, tuple[str, ...]]  # title -> its metric, then metrics of the rule-OOD test only
    new_rule_only: Mapping[str, str] = field(default_factory=dict)  # those metrics -> column headers
    stated: Reading | None = None  # answers that follow the rule stated in the prompt
    trained: Reading | None = None  # answers that follow the training rule under the new one
    remark: str = ""  # caption text on the two readings
    rule: re.Pattern[str] | None = None  # matches the part of a prompt that states the rule
    picture: str = "the picture is drawn larger than the model saw it"


@dataclass(frozen=True)
class Task:
    """One variant of a task, in text or with pictures. Subclasses override the methods below."""

    key: str  # name of runs, folders, study, curriculum and shipped model: gp-l
    label: str  # the paper's short name: GP-L
    name: str  # column `task` of the tables, shared by both modalities
    modality: str  # text or image
    env: str  # Gymnasium id
    training: Arguments  # of the environment in training and for demonstrations
    splits: Mapping[str, Arguments]  # of the environment in each split of the main comparison
    answer_key: str  # JSON key of the answer; from there on tokens have full weight in the official sequence ratio
    unit: str  # what an episode is called
    words: Words
    notebook: str = ""  # that introduces it, before any training
    rewards: Mapping[str, float] = field(default_factory=dict)  # outcome -> what the verifier pays, to be shown
    example: Mapping[str, Any] = field(default_factory=dict)  # options of the `reset` that makes notebook 05's question
    kinds: tuple[str, ...] = ("expert",)  # of demonstrations
    attempts: int = 5  # at a question, in the paper
    sampled: tuple[str, ...] = ()  # splits whose puzzles or routes stand for others: see `cluster`
    probes: Mapping[str, Arguments] = field(default_factory=dict)  # further splits, for experiments that name them
    options: Arguments = field(default_factory=dict)  # what experiments vary in `training`, with the values there
    paper_lambda: float | None = None  # the paper's D_buffer / D_RL; None for a task that is not the paper's
    version: int = 1  # increase it when demonstrations or metrics change, so that runs are redone

    @property
    def metric(self) -> str:
        """The main metric: the one in the paper's Figs. 5 and 6."""
        return next(iter(self.words.metrics))

    def split(self, name: str) -> Arguments:
        """The environment's arguments in a split or probe. Raises ValueError listing the known ones."""
        known = {**self.splits, **self.probes}
        if name not in known:
            raise ValueError(f"Unknown split {name!r} of {self.label}; use one of {', '.join(known)}.")
        return known[name]

    def trained_with(self, options: Arguments) -> Task:
        """The task with some of `options` changed in training; the tests stay."""
        changed = {name: value for name, value in options.items() if value != self.options[name]}
        return replace(self, training={**self.training, **changed}) if changed else self

    def check_kind(self, kind: str) -> str:
        """`kind` itself. Raises ValueError if the task has no such demonstrations."""
        if kind not in self.kinds:
            raise ValueError(f"{self.label} has no {kind!r} demonstrations; use one of {', '.join(self.kinds)}.")
        return kind

    def make_env(self, arguments: Arguments, max_attempts: int) -> gymnasium.Env:
        """The unwrapped environment; `arguments` are `training` or those of a split."""
        chosen = {"modality": self.modality, "max_attempts": max_attempts, **arguments}
        return gymnasium.make(self.env, disable_env_checker=True, **chosen).unwrapped

    def training_env(self, max_attempts: int) -> gymnasium.Env:
        """The training environment, without held-out instances."""
        return self.make_env(self.training, max_attempts)

    def demonstrations(self, kind: str, rng: np.random.Generator) -> Iterator[Example]:
        """Endless SFT examples of one of `kinds`."""
        raise NotImplementedError(f"{type(self).__name__} has no demonstrations.")

    def expert(self, env: gymnasium.Env, info: Mapping[str, Any]) -> str:
        """The expert's answer to the question that `env` asks; `info` is the last that it gave."""
        raise NotImplementedError(f"{type(self).__name__} has no expert.")

    def columns(self, env: gymnasium.Env, info: Mapping[str, Any]) -> dict[str, Any]:
        """What a dataset's row says of the question beside its prompt, enough for a reward of the task's own."""
        return {}

    def questions(self, env: gymnasium.Env, reset: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The arguments of ``reset`` for every question of the episode that `reset` begins; here there is one."""
        yield dict(reset)

    def shows_held_out(self, example: Example) -> bool:
        """Whether an example leaks something reserved for tests."""
        return False

    def resets(self, split: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """What the environment's `reset` is called with in a test of `split`, one for each of `seeds`."""
        return [{"seed": seed} for seed in seeds]

    def cluster(self, episode: Episode) -> int:
        """The number of an episode's puzzle or route, on a split in `sampled`: episodes of one are not independent."""
        raise NotImplementedError(f"{type(self).__name__} has no clusters of episodes.")

    def measure(self, split: str, episodes: Sequence[Episode]) -> Metrics:
        """The metrics of episodes on a split, including `success`."""
        return {"success": mean([episode.terminated for episode in episodes])}

    def about(self, split: str, episode: Episode) -> tuple[dict[str, Any], Sequence[dict[str, Any]]]:
        """A transcript's fields for an episode, and for each question in it."""
        return {}, [{}]

    def picture(self, episode: Mapping[str, Any], turn: Mapping[str, Any]) -> Image | None:
        """The picture at a turn of a transcript's episode, at display size; None in text."""
        return None

    def scene(self, episode: Mapping[str, Any]) -> dict[str, Any] | None:
        """JSON data for a map of a transcript's episode; None for a task without maps."""
        return None


def mean(values: Sequence[bool]) -> tuple[float, int]:
    """A rate and its number of samples."""
    return float(np.mean(values)), len(values)


def in_turn(count: int, seeds: Sequence[int]) -> list[int]:
    """For every seed one of the numbers below `count`: all of them in a random order, which then begins again."""
    order = np.random.default_rng(seeds[0]).permutation(count) if len(seeds) else []
    return [int(order[i % count]) for i in range(len(seeds))]


def text_example(prompt: str, answer: str) -> Example:
    """An SFT example in text."""
    return {"prompt": [text_message("user", prompt)], "completion": [text_message("assistant", answer)]}


def pictured_example(observation: Mapping[str, Any], answer: str) -> Example:
    """An SFT example of an answer to an environment's observation with an image."""
    return {
        "prompt": observation["messages"],
        "completion": [parts_message("assistant", answer)],
        "images": [fromarray(observation["image"])],
    }
