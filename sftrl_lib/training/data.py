"""Expert demonstrations for SFT, as Hugging Face datasets in conversational prompt/completion form (paper C.1).

The official project released data for the text tasks but no script that makes it. Ours is generated. GeneralPoints:
``expert`` pairs the prompt of a training hand with one of the solver's solutions; ``suboptimal`` (Fig. 15) puts failed
attempts and the verifier's feedback between the two, as in the conversations that RL sees. Navigation: ``expert``
pairs the prompt at every position of a training route with the expert's answer.

With pictures, the environment of training itself is played: its messages (lists of parts), its pictures, drawn as RL
and the tests see them, and a column of images beside them, as TRL's trainer wants it.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from datasets import Dataset, Features, Image, List, Value, load_from_disk
from PIL.Image import fromarray

from ..messages import message_text, parts_message, text_message
from ..models.checkpoint import reason, replace_folder
from ..points.prompts import expert_response, response, task_prompt
from ..points.rules import Rule, card_numbers, deal, is_heldout
from ..points.solver import random_formula, solve
from ..points.verifier import grade, read_numbers
from ..tasks import Task
from ..virl import ACTION_SPACES, expert_pairs, load_city
from ..virl.prompts import expert_response as navigation_response
from ..virl.rails import rail_builder

# {"prompt": messages, "completion": messages} and, for the image modality, "images": [the one picture]
Example = dict[str, Any]

_CHAT = List({"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})})
FEATURES = {  # modality -> the columns' types; None: as they are found
    "text": None,
    "image": Features({"prompt": _CHAT, "completion": _CHAT, "images": List(Image())}),
}
_MISTAKES = 5  # most failed attempts before the right one, exclusive


class DatasetError(ValueError):
    """An SFT dataset is missing or damaged."""


def hands(task: Task, kind: str, rng: np.random.Generator) -> Iterator[Example]:
    """Demonstrations on fresh training hands, without end."""
    env = task.make_env(task.training, _MISTAKES) if task.modality == "image" else None
    while True:
        yield pictured_demonstration(env, rng, kind) if env else demonstration(rng, kind, task.training["rule"])


def demonstration(
    rng: np.random.Generator, kind: str = "expert", rule: str = "ten", attempts: int = _MISTAKES
) -> Example:
    """One training example on a hand of the training split, all in text."""
    cards, _ = deal(rng, rule, hands="train")
    choice = random.Random(int(rng.integers(2**63)))
    prompt = [text_message("user", task_prompt(cards, rule))]
    if kind == "suboptimal":
        for mistake, feedback in failures(choice, cards, rule, attempts):
            prompt += [text_message("assistant", mistake), text_message("user", feedback)]
    return {"prompt": prompt, "completion": [text_message("assistant", solution(choice, cards, rule))]}


def pictured_demonstration(env: gymnasium.Env, rng: np.random.Generator, kind: str = "expert") -> Example:
    """One training example on a hand that `env`, the environment of training, deals, shows and judges."""
    observation, info = env.reset(seed=int(rng.integers(2**32)))
    choice = random.Random(int(rng.integers(2**63)))
    if kind == "suboptimal":
        for mistake, _ in failures(choice, info["cards"], env.rule, env.max_attempts):
            observation, *_ = env.step(mistake)
    return pictured_example(observation, solution(choice, info["cards"], env.rule))


def pictured_example(observation: dict[str, Any], answer: str) -> Example:
    """The demonstration of an answer to what an environment shows."""
    return {
        "prompt": observation["messages"],
        "completion": [parts_message("assistant", answer)],
        "images": [fromarray(observation["image"])],
    }


def solution(choice: random.Random, cards: list[str], rule: str | Rule) -> str:
    """The expert's answer to a hand: one of the solver's formulas."""
    return expert_response(cards, choice.choice(solve(card_numbers(cards, rule))), rule)


def failures(choice: random.Random, cards: list[str], rule: str | Rule, attempts: int) -> Iterator[tuple[str, str]]:
    """Fewer than `attempts` failed answers to a hand, each with the verifier's feedback."""
    for _ in range(choice.randrange(attempts)):
        mistake = failed_answer(choice, cards, list(card_numbers(cards, rule)))
        verdict = grade(mistake, cards, rule)
        if verdict.outcome != "correct":
            yield mistake, verdict.feedback


def failed_answer(choice: random.Random, cards: list[str], numbers: list[int]) -> str:
    """An answer in the right format that most likely fails: a random formula, a wrong number, or a broken formula."""
    read = list(numbers)
    kind = choice.choice(("value", "value", "numbers", "illegal"))
    while kind == "numbers" and (read == numbers or is_heldout(read)):
        read = list(numbers)
        read[choice.randrange(len(read))] = choice.randint(1, 13)
    formula = random_formula(read, choice)[1]
    if kind == "illegal":
        formula = formula[:-1] + choice.choice("+*/(")
    return response(cards, read, f"{formula}=24")


def positions(task: Task, kind: str, rng: np.random.Generator) -> Iterator[Example]:
    """Every position of every training route, without end: routes in random order, other rails in every pass."""
    city = load_city(task.training["routes"])
    walk = pictured_walk if task.modality == "image" else text_walk
    env = task.make_env(task.training, 1)
    while True:
        seed = int(rng.integers(2**31))
        for route in map(int, rng.permutation(len(city))):
            yield from walk(env, route, seed)


def text_walk(env: gymnasium.Env, route: int, seed: int) -> Iterator[Example]:
    """The expert's answers along a route, from the prompts alone."""
    for prompt, answer in expert_pairs(rail_builder(env.city).build(route, seed), env.actions):
        yield {"prompt": [text_message("user", prompt)], "completion": [text_message("assistant", answer)]}


def pictured_walk(env: gymnasium.Env, route: int, seed: int) -> Iterator[Example]:
    """The expert's answers along a route of `env`; a street is drawn when its example is asked for."""
    observation, info = env.reset(seed=seed, options={"route": route})
    over = False
    while not over:
        wanted = (info[f"expert_{key}"] for key in ("observation", "instruction", "action"))
        answer = navigation_response(*wanted)
        yield pictured_example(observation, answer)
        observation, _, over, _, info = env.step(answer)


KINDS = {"general_points": ("expert", "suboptimal"), "navigation": ("expert",)}
SOURCES = {"general_points": hands, "navigation": positions}


def shows_held_out(task: Task, example: Example) -> bool:
    """Whether the answer holds what only tests may: a held-out hand, or a turn of another action space.

    What a picture shows (red suits, other cities) cannot be told from it; the environment of training draws none.
    """
    answer = message_text(example["completion"][0])
    if task.name == "general_points":
        return is_heldout(read_numbers(answer))
    known = ACTION_SPACES[task.training["actions"]]
    return any(word not in known for word in re.findall(r"turn_direction\((.*?)\)", answer))


def check_kind(task: Task, kind: str) -> str:
    """`kind`, or a ValueError if there are no such demonstrations of the task."""
    kinds = KINDS[task.name]
    if kind not in kinds:
        raise ValueError(f"There are no {kind!r} demonstrations of {task.name}; use one of {', '.join(kinds)}.")
    return kind


def make_dataset(folder: Path, task: Task, kind: str, examples: int, seed: int) -> Dataset:
    """Generate `examples` demonstrations and save them with `datasets.Dataset.save_to_disk`; reuse what is there.

    Raises ValueError for a kind that the task does not have.
    """
    check_kind(task, kind)
    if folder.exists():
        return read_dataset(folder)
    source = SOURCES[task.name](task, kind, np.random.default_rng(seed))
    dataset = Dataset.from_list(list(islice(source, examples)), features=FEATURES[task.modality])
    fresh = folder.with_name("." + folder.name)
    shutil.rmtree(fresh, ignore_errors=True)
    dataset.save_to_disk(fresh)
    replace_folder(fresh, folder)
    return read_dataset(folder)


def read_dataset(folder: Path) -> Dataset:
    """The demonstrations in `folder`. Raises DatasetError if they are missing or damaged."""
    try:
        dataset = load_from_disk(str(folder))
        if set(dataset.column_names) - {"images"} != {"prompt", "completion"} or not len(dataset):
            raise ValueError(f"columns {dataset.column_names}, {len(dataset)} rows")
        dataset[0]
    except Exception as error:  # pyarrow and datasets raise many kinds
        raise DatasetError(
            f"{folder} is no dataset of demonstrations ({reason(error)}); remove it and make it again."
        ) from error
    return dataset
