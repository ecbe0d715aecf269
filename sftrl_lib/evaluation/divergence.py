"""How far a policy has moved from Init: the KL divergence between their answers.

How they differ:
* paper and official code: not measured.
* the literature ("RL's Razor", arXiv 2509.04259): KL between the models on prompts of the new task explains how much is
  forgotten, whatever the method.
* ours: KL(policy || Init) in nats per token, on the policy's own answers in its tests on the training rule, exact at
  every token (a sum over the vocabulary), at the temperature of the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..models.policy import Policy

if TYPE_CHECKING:
    from ..models.rollout import Conversation, Episode

_CONVERSATIONS = 128  # of the first episodes tested; several thousand answer tokens
_ROWS = 32  # conversations in a forward pass


@torch.no_grad()
def kl(policy: Policy, init: Policy, episodes: Sequence[Episode], temperature: float = 1.0) -> tuple[float, int]:
    """KL(policy || init), nats per answer token, over the first episodes' answers; and the number of those episodes.

    Text only. A `temperature` of 0 (greedy) counts as 1.
    """
    before = np.cumsum([0, *(len(episode.conversations) for episode in episodes)])
    chosen = [episode for episode, count in zip(episodes, before, strict=False) if count < _CONVERSATIONS]
    conversations = sorted((c for e in chosen for c in e.conversations), key=lambda c: len(c.ids))
    total, tokens = 0.0, 0
    for start in range(0, len(conversations), _ROWS):
        part = conversations[start : start + _ROWS]
        ours, theirs = (_log_probabilities(model, part, temperature or 1.0) for model in (policy, init))
        total += float((ours.exp() * (ours - theirs)).sum())
        tokens += len(ours)
    return max(0.0, total / tokens), len(chosen)


def _log_probabilities(policy: Policy, conversations: Sequence[Conversation], temperature: float) -> torch.Tensor:
    """(answer tokens, vocabulary): the distributions from which the answers' tokens come."""
    length = max(len(c.ids) for c in conversations)
    ids = torch.full((len(conversations), length), policy.tokenizer.pad_token_id)
    predictors = torch.zeros(len(conversations), length, dtype=torch.bool)  # no token attends to the padding behind it
    for row, conversation in enumerate(conversations):
        ids[row, : len(conversation.ids)] = torch.tensor(conversation.ids)
        for attempt in conversation.attempts:
            predictors[row, attempt.start - 1 : attempt.end - 1] = True
    policy.model.eval()
    hidden = policy.decoder(input_ids=ids.to(policy.device), use_cache=False).last_hidden_state
    return torch.log_softmax(policy.logits(hidden[predictors.to(policy.device)]) / temperature, dim=-1)
