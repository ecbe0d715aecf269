"""SFT data on disk: a task's demonstrations as Hugging Face datasets in conversational prompt/completion form.

With pictures there is a column of images beside the messages (lists of parts), as TRL's trainer expects. Further
columns say what a reward function needs of the question (GeneralPoints: cards, rule, target).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Image, List, Value, disable_caching, load_from_disk

from ..files import check_seal, fresh_folder, reason, replace_folder
from ..task import Example, Task

disable_caching()  # what a trainer makes of the data would be kept beside it, and used again without a check

_CHAT = List({"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})})
_PICTURED = {"prompt": _CHAT, "completion": _CHAT, "images": List(Image())}  # whose types cannot be inferred
LEARNT = ("prompt", "completion", "images")  # the columns that SFT reads; others are for rewards


class DatasetError(ValueError):
    """An SFT dataset is missing or damaged."""


def make_dataset(folder: Path, task: Task, kind: str, examples: int, seed: int) -> Dataset:
    """Generate `examples` demonstrations and save them with `datasets.Dataset.save_to_disk`; reuse what is there.

    Raises ValueError for a kind that the task does not have.
    """
    task.check_kind(kind)
    if folder.exists():
        return read_dataset(folder)
    source = task.demonstrations(kind, np.random.default_rng(seed))
    dataset = as_dataset(list(islice(source, examples)), task.modality)
    fresh = fresh_folder(folder)
    dataset.save_to_disk(fresh)
    replace_folder(fresh, folder)
    return read_dataset(folder)


def as_dataset(examples: Sequence[Example], modality: str) -> Dataset:
    """Examples of one modality as a dataset, a column for each of their keys."""
    if modality == "text":
        return Dataset.from_list(list(examples))
    others = Dataset.from_list([{key: row[key] for key in row.keys() - _PICTURED.keys()} for row in examples])
    types = {key: _PICTURED.get(key) or others.features[key] for key in examples[0]}
    return Dataset.from_list(list(examples), features=Features(types))


def read_dataset(folder: Path) -> Dataset:
    """The demonstrations in `folder`. Raises DatasetError if they are missing or damaged."""
    try:
        check_seal(folder)
        dataset = load_from_disk(str(folder))
        if not {"prompt", "completion"} <= set(dataset.column_names) or not len(dataset):
            raise ValueError(f"columns {dataset.column_names}, {len(dataset)} rows")
        dataset[0]
    except Exception as error:  # pyarrow and datasets raise many kinds
        raise DatasetError(
            f"{folder} is not a dataset of demonstrations ({reason(error)}); remove it and make it again."
        ) from error
    return dataset
