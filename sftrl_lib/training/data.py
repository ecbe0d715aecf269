"""Expert demonstrations for SFT, as Hugging Face datasets in conversational prompt/completion form (paper C.1).

The official project released data for the text tasks but no script that makes it. Ours is generated. GeneralPoints:
``expert`` pairs the prompt of a training hand with one of the solver's solutions; ``suboptimal`` (Fig. 15) puts failed
attempts and the verifier's feedback between the two, as in the conversations that RL sees. Navigation: ``expert``
pairs the prompt at every position of a training route with the expert's answer.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from datasets import Dataset, load_from_disk

from ..models.checkpoint import reason, replace_folder
from ..models.policy import Messages
from ..points.prompts import expert_response, response, task_prompt
from ..points.rules import card_numbers, deal, is_heldout
from ..points.solver import random_formula, solve
from ..points.verifier import grade, read_numbers
from ..tasks import Task
from ..virl import ACTION_SPACES, expert_pairs, load_city
from ..virl.rails import rail_builder


class DatasetError(ValueError):
    """An SFT dataset is missing or damaged."""


def hands(task: Task, kind: str, rng: np.random.Generator) -> Iterator[dict[str, Messages]]:
    """Demonstrations on fresh training hands, without end."""
    while True:
        yield demonstration(rng, kind, task.training["rule"])


def demonstration(
    rng: np.random.Generator, kind: str = "expert", rule: str = "ten", attempts: int = 5
) -> dict[str, Messages]:
    """One training example ``{"prompt": messages, "completion": messages}`` on a hand of the training split."""
    cards, _ = deal(rng, rule, hands="train")
    numbers = list(card_numbers(cards, rule))
    choice = random.Random(int(rng.integers(2**63)))
    prompt = [{"role": "user", "content": task_prompt(cards, rule)}]
    if kind == "suboptimal":
        for _ in range(choice.randrange(attempts)):
            mistake = failed_answer(choice, cards, numbers)
            verdict = grade(mistake, cards, rule)
            if verdict.outcome == "correct":
                continue
            prompt += [
                {"role": "assistant", "content": mistake},
                {"role": "user", "content": verdict.feedback},
            ]
    formula = choice.choice(solve(numbers))
    return {
        "prompt": prompt,
        "completion": [{"role": "assistant", "content": expert_response(cards, formula, rule)}],
    }


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


def positions(task: Task, kind: str, rng: np.random.Generator) -> Iterator[dict[str, Messages]]:
    """Every position of every training route, without end: routes in random order, other rails in every pass."""
    city = load_city(task.training["routes"])
    rails = rail_builder(city)
    while True:
        seed = int(rng.integers(2**31))
        for route in map(int, rng.permutation(len(city))):
            for prompt, answer in expert_pairs(rails.build(route, seed), task.training["actions"]):
                yield {
                    "prompt": [{"role": "user", "content": prompt}],
                    "completion": [{"role": "assistant", "content": answer}],
                }


KINDS = {"general_points": ("expert", "suboptimal"), "navigation": ("expert",)}
SOURCES = {"general_points": hands, "navigation": positions}


def shows_held_out(task: Task, example: dict[str, Messages]) -> bool:
    """Whether the answer holds what only tests may: a held-out hand, or a turn of another action space."""
    answer = example["completion"][0]["content"]
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
    dataset = Dataset.from_list(list(islice(source, examples)))
    fresh = folder.with_name("." + folder.name)
    shutil.rmtree(fresh, ignore_errors=True)
    dataset.save_to_disk(fresh)
    replace_folder(fresh, folder)
    return read_dataset(folder)


def read_dataset(folder: Path) -> Dataset:
    """The demonstrations in `folder`. Raises DatasetError if they are missing or damaged."""
    try:
        dataset = load_from_disk(str(folder))
        if set(dataset.column_names) != {"prompt", "completion"} or not len(dataset):
            raise ValueError(f"columns {dataset.column_names}, {len(dataset)} rows")
        dataset[0]
    except Exception as error:  # pyarrow and datasets raise many kinds
        raise DatasetError(
            f"{folder} is no dataset of demonstrations ({reason(error)}); remove it and make it again."
        ) from error
    return dataset
