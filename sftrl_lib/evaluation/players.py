"""The trained checkpoints as players: functions from chat messages to answer text, for `sftrl_lib.play`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..models.checkpoint import CheckpointError
from ..models.policy import Messages, Policy, load_policy, stack_pictures
from ..profiles import PROFILES, Profile, get_profile
from ..training.fork import final_policy
from .measurements import main_ends

Seen = Messages | Mapping[str, Any]  # a chat, or an environment's observation: a chat and perhaps an image
Player = Callable[[Seen], str]


@torch.no_grad()
def answer(policy: Policy, seen: Seen, temperature: float = 1.0, max_new_tokens: int = 48) -> str:
    """The model's next answer in a conversation; `temperature` 0 is greedy."""
    prompt = policy.prompt(seen if isinstance(seen, Mapping) else {"messages": seen})
    ids = torch.tensor([prompt.ids], device=policy.device)
    picture = stack_pictures([prompt.picture], policy.device) or {}
    sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    if policy.image_token is not None:
        sampling["suppress_tokens"] = [policy.image_token]  # as in `Policy.logits`
    output = policy.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens,
        eos_token_id=policy.end_token, pad_token_id=policy.tokenizer.pad_token_id, **picture, **sampling,
    )  # fmt: skip
    return policy.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def players(profile: Profile, key: str, seed: int, temperature: float = 1.0) -> dict[str, Player]:
    """Init and the ends of the main comparison of one seed, as far as they have been trained, by label."""
    study = profile.study(key)
    found: dict[str, Player] = {}
    for run in main_ends(profile, study, seed):
        try:
            found[run.method.label] = functools.partial(
                answer, final_policy(run), temperature=temperature, max_new_tokens=study.evaluation.max_new_tokens
            )
        except CheckpointError:
            continue
    return found


def find_players(profile: str = "", key: str = "gp-l", seed: int = 0, temperature: float = 1.0) -> dict[str, Player]:
    """The players of `profile`, or of the last profile that has any; the bare foundation model if none has.

    Raises ValueError for an unknown profile.
    """
    candidates = [get_profile(profile)] if profile else list(reversed(PROFILES.values()))
    candidates = [known for known in candidates if key in [study.task.key for study in known.studies]]
    for known in candidates:
        if found := players(known, key, seed, temperature):
            return found
    study = candidates[0].study(key)
    policy = load_policy(study.foundation, candidates[0].dtype, candidates[0].device)
    return {"Foundation (no SFT)": functools.partial(answer, policy, temperature=temperature)}
