"""A profile with a model of your own in the place of its foundation models: make reproduce MODEL=path-or-hub-name.

Everything is kept below the names of profile and model together, as in laptop_qwen2_5_0_5b_instruct. What has to be
found out about the model is found out once, before any work, and kept in ``results/<name>/model.json``, from which
every process knows the profile. Besides the foundation model, this changes:

* tasks: those with pictures are left out for a model that takes none, and those that its context is too short for;
* the longest answer, which is the expert's in the tokens of the model, and half as long again;
* the compute of the fork, which grows with the parameters, so that training sees about as many tokens;
* experiments between foundation models, which are left out.

Learning rates stay the profile's: those of `laptop` are for a million parameters, those of `smollm2` for a hundred.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from . import paths
from .files import write_atomically
from .plan import parameters_of
from .profiles import PROFILES, Profile, Study
from .profiles.with_model import OwnModel, find, record_of, rounded
from .runs import DATA_SEED
from .task import Task

if TYPE_CHECKING:
    from .models.policy import Policy

EXAMPLES = 100  # demonstrations of which the longest prompt and answer are measured


def name_of(profile: str, model: str) -> str:
    """The name of a profile with a model: ``laptop_qwen2_5_0_5b_instruct``. Raises ValueError if the model has none."""
    plain = re.sub(r"[^a-z0-9]+", "_", Path(_source(model)).name.lower()).strip("_")
    if not plain:
        raise ValueError(f"MODEL={model!r} has no letter or digit in its last part; give its folder or its hub name.")
    return f"{profile}_{plain[:60]}"


def _source(model: str) -> str:
    """A folder by its whole path, because notebooks work elsewhere; any other name as it is."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def prepare(profile: Profile, model: str) -> Profile:
    """The profile with `model`, which is loaded and measured the first time. Says which tasks are left out, and why.

    Raises CheckpointError if there is no such model or it is refused, ValueError if it fits none of the tasks, or if
    another model of the same name was there before.
    """
    source = _source(model)
    name = name_of(profile.name, source)
    path = record_of(name)
    made = find(name, PROFILES)
    if made is None:
        own = _measured(profile, source)
        if not own.studies:
            raise ValueError(f"MODEL={model!r} fits no task of {profile.name}: {_told(own.left_out)}.")
        write_atomically(path, json.dumps(asdict(own), indent=1) + "\n")
        made = find(name, PROFILES)
    own = OwnModel(**json.loads(path.read_text(encoding="utf-8")))
    if own.model != source:
        raise ValueError(
            f"{name} is of another model, {own.model!r}; rename the folder of {source!r}, or remove {path.parent} "
            f"and {paths.build(name)}."
        )
    print(f"Profile {name}: {own.parameters:,} parameters" + f"; left out: {_told(own.left_out)}" * bool(own.left_out))
    return made


def _told(left_out: dict[str, str]) -> str:
    return "; ".join(f"{task}, because {why}" for task, why in left_out.items())


def _measured(profile: Profile, source: str) -> OwnModel:
    from .foundation.teaching import provide
    from .models.policy import load_policy

    provide(profile, source)
    policy = load_policy(source, profile.dtype, profile.device)
    studies, left_out = {}, {}
    for study in profile.studies:
        if study.task.modality == "image" and policy.processor is None:
            left_out[study.task.label] = "it needs a vision-language model"
            continue
        longest, needed = _lengths(policy, study)
        context = getattr(policy.model.config.get_text_config(), "max_position_embeddings", None)
        if context and needed > context:
            left_out[study.task.label] = f"a chat takes {needed:,} tokens and the model's context is {context:,}"
            continue
        times = policy.parameters_count / parameters_of(study.foundation)
        numbers = {"fork_flops": rounded(study.fork_flops * times), "max_new_tokens": longest}
        studies[study.task.key] = numbers
    return OwnModel(profile.name, source, policy.parameters_count, studies, left_out)


def _lengths(policy: Policy, study: Study) -> tuple[int, int]:
    """The longest answer that is allowed, and the longest conversation that can come of it, in tokens."""
    import numpy as np

    from .messages import message_text

    task: Task = study.task
    source = task.demonstrations(task.kinds[0], np.random.default_rng(DATA_SEED))
    rows = list(islice(source, EXAMPLES))
    answers = [message_text(row["completion"][0]) for row in rows]
    longest = max(len(policy.tokenizer(text, add_special_tokens=False).input_ids) for text in answers) + 1
    allowed = -(-longest * 3 // 2 // 8) * 8
    prompt = max(len(policy.prompt_ids(row["prompt"])) for row in rows)
    env = task.training_env(2)
    observation, _ = env.reset(seed=0)
    prompt += len(policy.prompt(observation).ids) - len(policy.prompt_ids(observation["messages"]))  # a picture's
    reply = len(policy.continuation_ids(message_text(env.step("?")[0]["messages"][-1])))
    return allowed, prompt + _most_attempts(study) * (allowed + reply)


def _most_attempts(study: Study) -> int:
    varied = [s["attempts"] for e in study.experiments for arm in e.arms for s in arm.settings if "attempts" in s]
    return max(study.ppo.attempts, study.evaluation.attempts, *study.evaluation.attempts_grid, *varied)
