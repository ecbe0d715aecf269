"""The trained checkpoints as players: functions from chat messages to answer text, for `sftrl_lib.play`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..models.checkpoint import CheckpointError
from ..models.policy import Messages, Policy, load_policy, stack_pictures
from ..profiles import Study, get_profile
from ..training.branches import final_policy, init_policy

Seen = Messages | Mapping[str, Any]  # a chat, or an environment's observation: a chat and perhaps an image
Player = Callable[[Seen], str]


@torch.no_grad()
def answer(policy: Policy, seen: Seen, temperature: float = 1.0, max_new_tokens: int = 48) -> str:
    """What the model says next in a conversation; `temperature` 0 is greedy."""
    prompt = policy.prompt(seen if isinstance(seen, Mapping) else {"messages": seen})
    ids = torch.tensor([prompt.ids], device=policy.device)
    picture = stack_pictures([prompt.picture], policy.device) or {}
    sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    if policy.image_token is not None:
        sampling["suppress_tokens"] = [policy.image_token]  # as in `Policy.logits`
    said = policy.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens,
        pad_token_id=policy.tokenizer.pad_token_id, **picture, **sampling,
    )  # fmt: skip
    return policy.tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True)


def players(study: Study, seed: int, temperature: float = 1.0) -> dict[str, Player]:
    """Init, SFT and RL of one seed, as far as they have been trained."""
    found: dict[str, Player] = {}
    for name, load in (
        ("Init", lambda: init_policy(study, seed)),
        ("SFT", lambda: final_policy(study, "sft", seed)),
        ("RL", lambda: final_policy(study, "rl", seed)),
    ):
        try:
            found[name] = functools.partial(answer, load(), temperature=temperature)
        except CheckpointError:
            continue
    return found


def find_players(profile: str = "", seed: int = 0, temperature: float = 1.0) -> dict[str, Player]:
    """The GP-L players of `profile`, or of the first profile that has any; the bare foundation model if none has.

    Raises ValueError for an unknown profile.
    """
    names = [profile] if profile else ["laptop", "smoke"]
    studies = [get_profile(name).study("general_points", "text") for name in names]
    for study in studies:
        if found := players(study, seed, temperature):
            return found
    policy = load_policy(studies[0].foundation, studies[0].dtype)
    return {"Foundation (no SFT)": functools.partial(answer, policy, temperature=temperature)}
