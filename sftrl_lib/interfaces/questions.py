"""Single questions of a task, as plain rows and as a play of several attempts: what other libraries are given.

A question is a prompt that does not change while it is answered: a hand of GeneralPoints, or one position of a route.
Adapters wrap these two and hold no rules of their own. Loads neither torch nor a library that is adapted to.

How they differ:
* here, in training and tests: an episode of navigation is a whole route, and its prompt is rewritten at every position.
* in most libraries a conversation only grows, so that there each position of a route is a question of its own.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from itertools import islice
from typing import Any

from PIL import Image

from ..attempts import check_whole
from ..messages import Message
from ..seeds import INTERFACE_QUESTIONS, resets, stream
from ..task import Arguments, Task
from ..tasks import TASKS

TRAIN = "train"  # name of the training environment among the splits
Row = dict[str, Any]


def arguments_of(task: Task, split: str) -> Arguments:
    """The environment's arguments in training (`TRAIN`), a split or a probe. Raises ValueError for another name."""
    try:
        return task.training if split == TRAIN else task.split(split)
    except ValueError as error:
        raise ValueError(f"{str(error).removesuffix('.')}, {TRAIN}.") from None


def questions(task: Task, split: str = TRAIN, count: int = 1_000, seed: int = 0) -> Iterator[Row]:
    """`count` questions, those of a split being the ones that checkpoints are tested on with that seed.

    A row has "prompt" (messages), "image" (uint8, height x width x 3) if there is one, "answer" (the expert's),
    `Task.columns`, and "info", from which `Play` makes the question again. Raises ValueError for an unknown split.
    """
    env = task.make_env(arguments_of(task, split), 1)
    check_whole("count", count, 1)
    if split == TRAIN:
        starts = ({"seed": one} for one in stream(INTERFACE_QUESTIONS, seed, count=count))
    else:
        starts = iter(resets(task, split, seed, count))
    every = (reset for start in starts for reset in task.questions(env, start))
    for reset in islice(every, count):
        observation, info = env.reset(**reset)
        yield {
            "prompt": observation["messages"],
            **({"image": observation["image"]} if "image" in observation else {}),
            "answer": task.expert(env, info),
            **task.columns(env, info),
            "info": {"task": task.key, "split": split, "reset": reset},
        }


class Play:
    """One question, answered until it is right or its attempts are used up."""

    def __init__(self, info: Mapping[str, Any], attempts: int = 0) -> None:
        """`info`: a row's. `attempts`: 0 for the paper's, 5 per hand and 2 per position.

        Raises ValueError for an `info` that is no question's.
        """
        try:
            task, split, reset = TASKS[info["task"]], info["split"], _present(info["reset"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{info!r} is no question's info; it needs 'task', 'split' and 'reset'.") from error
        self.attempts = attempts or task.attempts
        self._env = task.make_env(arguments_of(task, split), self.attempts)
        self.observation, self.info = self._env.reset(**reset)
        self.rewards: list[float] = []
        self.solved = self.done = False

    def answer(self, text: str) -> str:
        """Grade an answer; returns the feedback, which is the next message to whoever answers if it is not `done`."""
        *_, reward, terminated, truncated, self.info = self._env.step(text)
        self.rewards.append(float(reward))
        self.solved = self.info["outcome"] == "correct"
        self.done = self.solved or terminated or truncated
        return self.info["feedback"]


def _present(value: Any) -> Any:
    """Without the None that a table puts where rows have different keys."""
    if isinstance(value, Mapping):
        return {key: _present(item) for key, item in value.items() if item is not None}
    return value


def as_openai(messages: Sequence[Message], image: Any = None) -> list[dict[str, Any]]:
    """An observation's chat in OpenAI's form; its picture, uint8 (height, width, 3), as a PNG in the text."""
    if image is None:
        return [dict(message) for message in messages]
    file = BytesIO()
    Image.fromarray(image).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    shown = {"type": "image_url", "image_url": {"url": url}}
    parts = ([shown if part["type"] == "image" else part for part in message["content"]] for message in messages)
    return [{"role": m["role"], "content": content} for m, content in zip(messages, parts, strict=True)]
