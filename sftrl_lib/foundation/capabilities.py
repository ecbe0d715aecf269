"""What a foundation model can do: greedy accuracy on fresh documents, and on what pretraining holds out."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..models.decoding import Decoding
from ..models.policy import Policy
from ..points.formula import evaluate as formula_value
from ..points.formula import parse_formula
from ..points.rules import RULES
from ..virl.rails import TURNS
from . import gp_l_curriculum, gp_vl_curriculum, virl_l_curriculum, virl_vl_curriculum
from .encoding import IGNORED, encode_for, pictures


@torch.no_grad()
def capabilities(
    policy: Policy, curricula: tuple[str, ...], samples: int = 256, seed: int = 1_000_000
) -> dict[str, float]:
    """Greedy accuracy (0 to 1) per kind of fresh document, and on what pretraining holds out in a known format.

    An answer is correct if it matches the document's or, where several formulas are valid, if it makes the target.
    """
    rng = random.Random(seed)
    relative = virl_l_curriculum.ActionSpace(virl_l_curriculum.OFFICIAL_TURN, "forward()", "stop()", TURNS)

    def held_out(here: virl_l_curriculum.Situation) -> virl_l_curriculum.Situation:
        return replace(here, space=relative)

    kinds = {
        "gp-l": {
            "calculation": gp_l_curriculum.calculation,
            "reading cards, random rules": gp_l_curriculum.reading,
            "making 24 or another target": gp_l_curriculum.making,
            "conversation, random rules": gp_l_curriculum.conversation,
            "conversation after failures": lambda r: gp_l_curriculum.conversation(r, most_attempts=5),
            "conversation, rule 11/12/13": lambda r: gp_l_curriculum.conversation(r, rule=RULES["distinct"]),
        },
        "virl-l": {
            "turning, any action space": virl_l_curriculum.turning,
            "reciting an instruction": virl_l_curriculum.reciting,
            "conversation, any action space": virl_l_curriculum.conversation,
            "conversation after a failure": lambda r: virl_l_curriculum.conversation(r, most_attempts=2),
            "conversation, turn_direction(left)": lambda r: virl_l_curriculum.conversation(
                r, here=held_out(virl_l_curriculum.random_situation(r))
            ),
        },
        "virl-vl": {
            "looking": virl_vl_curriculum.looking,
            "looking, Hong Kong": lambda r: virl_vl_curriculum.looking(r, "hong_kong"),
            "street views, any action space": virl_vl_curriculum.conversation,
            "street views, turn_direction(left)": lambda r: virl_l_curriculum.conversation(
                r, here=held_out(virl_vl_curriculum.random_situation(r))
            ),
            "text, any action space": virl_l_curriculum.conversation,
            "street views, Hong Kong": lambda r: virl_vl_curriculum.conversation(r, look="hong_kong"),
        },
        "gp-vl": {
            "reading a picture": gp_vl_curriculum.reading,
            "reading a picture of red cards": lambda r: gp_vl_curriculum.reading(r, "red"),
            "picture, random rules": gp_vl_curriculum.conversation,
            "picture, rule 11/12/13": lambda r: gp_vl_curriculum.conversation(r, rule=RULES["distinct"]),
        },
    }
    scores = {}
    for name, kind in [item for curriculum in dict.fromkeys(curricula) for item in kinds[curriculum].items()]:
        prompts, answers, shown = [], [], []
        for _ in range(samples):
            doc = kind(rng)
            ids, labels = encode_for(policy, doc)
            shown += pictures(doc)[:1]  # only the picture before the first answer
            first = next(i for i, label in enumerate(labels) if label != IGNORED)
            last = next((i for i in range(first, len(ids)) if labels[i] == IGNORED), len(ids))
            prompts.append(ids[:first])
            answers.append(policy.tokenizer.decode(ids[first:last], skip_special_tokens=True))
        outputs = greedy(policy, prompts, max(len(policy.tokenizer(a).input_ids) for a in answers) + 1, shown)
        right = [is_right(text, first_line(answer)) for text, answer in zip(outputs, answers, strict=True)]
        scores[name] = sum(right) / samples
    return scores


def capability_table(record: Mapping[str, Any]) -> pd.DataFrame:
    """What the record of a foundation model says that it can do, in percent; of a taught one before and after."""
    found = record["capabilities"]
    columns = found if "after" in found else {"right, of 256 fresh documents": found}
    return pd.DataFrame(columns).map("{:.1%}".format)


@torch.no_grad()
def greedy(policy: Policy, prompts: list[list[int]], tokens: int, shown: list[np.ndarray]) -> list[str]:
    """Greedy continuations of `prompts` (token ids), each cut at its first line end unless it is JSON.

    `shown` holds one picture per prompt (uint8, height x width x 3), or nothing for text prompts.
    """
    read = (policy.processor.image_processor(picture, return_tensors="pt") for picture in shown)
    decoding = Decoding(policy)
    decoding.begin(len(prompts), tokens)
    hidden = decoding.feed(prompts, [dict(one) for one in read] or [None] * len(prompts))
    answers, _ = decoding.answer(hidden, 0.0, torch.zeros(len(prompts), tokens, device=policy.device))
    return [first_line(text) for text in policy.tokenizer.batch_decode(answers, skip_special_tokens=True)]


def first_line(text: str) -> str:
    """The first line of an answer, or all of it if it is JSON."""
    return text if text.startswith("{") else text.split("\n")[0] + "\n"


_NUMBER = re.compile(r'(?<=": ")\d+\. ')  # optional instruction number
_EQUATION = re.compile(r"([-+*/()\d]+)=(\d+)")


def is_right(text: str, expected: str) -> bool:
    """Whether `text` equals `expected`, up to an instruction's number and to formulas of the same numbers and value."""
    text, expected = _NUMBER.sub("", text), _NUMBER.sub("", expected)
    ours, theirs = _EQUATION.search(text), _EQUATION.search(expected)
    if not ours or not theirs:
        return text == expected
    same_frame = _EQUATION.sub("", text) == _EQUATION.sub("", expected) and ours[2] == theirs[2]
    tokens = parse_formula(ours[1])
    if not same_frame or tokens is None:
        return False
    numbers = sorted(re.findall(r"\d+", ours[1]))
    return numbers == sorted(re.findall(r"\d+", theirs[1])) and formula_value(tokens) == int(theirs[2])
