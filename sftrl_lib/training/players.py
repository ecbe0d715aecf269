"""The trained checkpoints as players: functions from chat messages to answer text, for `sftrl_lib.play`."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from ..models.checkpoint import CheckpointError
from ..models.policy import Messages, Policy, load_policy
from ..profiles import Study, get_profile
from .branches import final_policy, init_policy

Player = Callable[[Messages], str]


@torch.no_grad()
def answer(policy: Policy, messages: Messages, temperature: float = 1.0, max_new_tokens: int = 48) -> str:
    """What the model says next in a conversation; `temperature` 0 is greedy."""
    ids = torch.tensor([policy.prompt_ids(messages)], device=policy.device)
    sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    said = policy.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens,
        pad_token_id=policy.tokenizer.pad_token_id, **sampling,
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
