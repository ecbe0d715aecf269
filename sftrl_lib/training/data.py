"""Expert demonstrations for SFT, as Hugging Face datasets in conversational prompt/completion form (paper C.1).

The official project released data for the text tasks but no script that makes it. Ours is generated from the solver:
``expert`` pairs the prompt of a training hand with one of its solutions; ``suboptimal`` (Fig. 15) puts failed
attempts and the verifier's feedback between the two, as in the conversations that RL sees.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
from datasets import Dataset, load_from_disk

from ..models.checkpoint import reason, replace_folder
from ..models.policy import Messages
from ..points.prompts import expert_response, response, task_prompt
from ..points.rules import card_numbers, deal, is_heldout
from ..points.solver import random_formula, solve
from ..points.verifier import grade

KINDS = ("expert", "suboptimal")


class DatasetError(ValueError):
    """An SFT dataset is missing or damaged."""


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


def make_dataset(folder: Path, kind: str, examples: int, seed: int) -> Dataset:
    """Generate `examples` demonstrations and save them with `datasets.Dataset.save_to_disk`; reuse what is there."""
    if kind not in KINDS:
        raise ValueError(f"Unknown kind of demonstrations {kind!r}; use one of {', '.join(KINDS)}.")
    if folder.exists():
        return read_dataset(folder)
    rng = np.random.default_rng(seed)
    dataset = Dataset.from_list([demonstration(rng, kind) for _ in range(examples)])
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
