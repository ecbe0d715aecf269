"""The paper's released artefacts: SFT data, routes and checkpoints of the official project, for those who have them.

    from sftrl_lib.evaluation import released
    data = released.sft_data("SFT_data/gp-l/....json")                      # a dataset, as `Branch.data`
    task = released.navigation(TASKS["virl-l"], "SFTvsRL_Data")              # the task on the released routes
    released.test_checkpoints(profile, "gp-l", {"init": "...", "sft": "...", "rl": "..."})

Formats as the official code reads them (snapshot 5a6ea55). SFT data are a JSON list in LLaVA's form; every answer of a
conversation is trained on there, so that each becomes an example here, with what was said before it as the prompt.
Routes are ``nyc_1k_routes`` and ``VLN_mini`` below one root. A checkpoint is a folder as transformers writes it. None
of them is shipped here; tests read miniatures of the same form.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset
from PIL import Image

from .. import fingerprint, paths
from ..files import reason
from ..messages import parts_message, text_message
from ..profiles import Profile
from ..runs import Run, test_settings
from ..task import Example, Task
from ..training.compute import Compute
from ..training.data import as_dataset
from ..training.snapshots import Snapshot
from ..virl.folders import find_routes
from .episodes import play
from .measurements import Part, cell_of, policy_of

TRAINING_ROUTES, OTHER_CITIES = "nyc_1k_routes", "VLN_mini"
_ROLES = {"human": "user", "gpt": "assistant"}
_IMAGE = "<image>"  # where a picture stands in the text of the first message


def sft_data(file: str | Path, pictures: str | Path | None = None) -> Dataset:
    """The released SFT data as conversational prompt/completion rows; `pictures` is the folder of the picture files.

    Raises ValueError that names the file and the entry for anything of another form.
    """
    file = Path(file)
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(entries, list) or not entries:
            raise ValueError("it is no list of conversations")
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} holds no SFT data ({reason(error)}); give the released json file.") from error
    examples: list[Example] = []
    for number, entry in enumerate(entries):
        try:
            examples += _examples(entry, Path(pictures) if pictures else file.parent)
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise ValueError(f"{file}, entry {number} is no conversation ({reason(error)}).") from error
    kinds = {"image" if "images" in example else "text" for example in examples}
    if len(kinds) > 1:
        raise ValueError(f"{file} mixes conversations with and without pictures; split it.")
    return as_dataset(examples, kinds.pop())


def _examples(entry: Mapping[str, Any], folder: Path) -> Iterator[Example]:
    named = entry.get("image")
    if isinstance(named, list):
        [named] = named  # one picture a conversation, as in all of the paper's tasks
    picture = [Image.open(folder / named).convert("RGB")] if named else []
    before: list[dict[str, Any]] = []
    for turn in entry["conversations"]:
        role, text = _ROLES[turn["from"]], str(turn["value"])
        if picture:
            shown = not before
            if shown and _IMAGE not in text:
                raise ValueError(f"there is a picture, but no {_IMAGE} in the first message")
            message = parts_message(role, text.replace(f"{_IMAGE}\n", "").replace(_IMAGE, ""), image=shown)
        else:
            message = text_message(role, text)
        if role == "assistant":
            if not before:
                raise ValueError("it begins with an answer")
            yield {"prompt": list(before), "completion": [message], **({"images": picture} if picture else {})}
        before.append(message)


def navigation(task: Task, root: str | Path) -> Task:
    """Navigation on the released routes: New York in training and tests, VLN mini's cities for the new look.

    There are no held-out routes among them, so that split is left out. Raises ValueError if the routes are not there.
    """
    york = str(find_routes(Path(root) / TRAINING_ROUTES))
    splits = {name: {**task.split(name), "routes": york} for name in ("id", "rule_ood")}
    if task.modality == "image":
        mini = str(find_routes(Path(root) / OTHER_CITIES))
        splits["visual_ood"] = {**task.split("visual_ood"), "routes": mini}
    sampled = tuple(name for name in task.sampled if name in splits)
    return replace(task, training={**task.training, "routes": york}, splits=splits, sampled=sampled)


def test_checkpoints(
    profile: Profile, key: str, ends: Mapping[str, str | Path], splits: Sequence[str] = (), seed: int = 0
) -> pd.DataFrame:
    """Test folders of models as the ends of the profile's methods, into its tables, from which figures are drawn.

    `ends`: method (init, sft, rl) -> folder. Their training compute is unknown and written as 0, so that only figures
    without that axis say anything. Raises CheckpointError for a model that cannot be tested.
    """
    rows = []
    for method, folder in ends.items():
        run = Run(profile, key, method, seed=seed)
        chosen, how = tuple(splits) or run.splits, run.study.evaluation.protocol()
        identity = {"model": fingerprint.model(str(folder)), **test_settings(run.study, "main", chosen)}
        part = Part(paths.test_folder(profile.name, f"{run.name}-released"), identity)
        snapshot, cell = Snapshot(Path(folder), 0, Compute(0)), cell_of(run)
        policy = policy_of(profile, snapshot)
        for split in chosen:
            if not part.has(cell, snapshot, split):
                played = play(policy(), run.task, split, how, seed, profile.rollout_batch, f"{method}: {split}")
                part.add(cell.rows(snapshot, run.task, split, run.task.measure(split, played)))
        rows.append(part.frame)
    return pd.concat(rows)
