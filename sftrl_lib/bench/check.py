"""Whether the engines agree, before they are timed: the speed of wrong answers is of no interest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import gymnasium
import torch

from ..configs import Protocol
from ..models.pictures import stack_pictures
from ..models.policy import Policy
from ..models.rollout import shared_prefix
from .engines import Turn, hf, ours

# How far two computations of a token's log-probability may be apart, in nats, by the dtype of the weights.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.5, "float16": 0.1}


class WrongAnswers(RuntimeError):
    """Our engine says something else than `generate`, or than a plain forward pass; the message has the numbers."""


@dataclass(frozen=True)
class Agreement:
    """What was compared, and how well it agreed."""

    answers: int  # greedy ones that are `generate`'s, token for token
    ties: int  # episodes that part where two tokens are equally likely, but for the tolerance
    logprob_error: float  # the largest in sampled answers against a forward pass over the whole history, nats
    tolerance: float


def compare(policy: Policy, envs: Sequence[gymnasium.Env], how: Protocol) -> Agreement:
    """Play `envs` greedily with both engines, and sampled with ours. Raises WrongAnswers."""
    dtype = policy.model.get_output_embeddings().weight.dtype
    tolerance = TOLERANCE[str(dtype).removeprefix("torch.")]
    greedy = replace(how, temperature=0.0)
    answers = ties = 0
    for episode, theirs in zip(ours(policy, envs, greedy), hf(policy, envs, greedy), strict=True):
        for mine, other in zip(episode, theirs, strict=False):  # after a tie one may need more attempts
            if mine.answer != other.answer:
                _check_tie(policy, mine, other, tolerance)
                ties += 1
                break
            answers += 1
    error = max(logprob_error(policy, turn, how.temperature) for turns in ours(policy, envs, how) for turn in turns)
    if not error <= tolerance:
        raise WrongAnswers(
            f"A log-probability of our engine is {error:.2g} nats from a forward pass's; {tolerance:g} is allowed."
        )
    return Agreement(answers, ties, error, tolerance)


def _check_tie(policy: Policy, mine: Turn, other: Turn, tolerance: float) -> None:
    """Raises WrongAnswers unless the first tokens in which two answers differ are equally likely."""
    where = shared_prefix(mine.answer, other.answer)
    logprobs = forward_logprobs(policy, mine, 1.0)[where]
    gap = abs(logprobs[mine.answer[where]] - logprobs[other.answer[where]]).item()
    if not gap <= tolerance:
        raise WrongAnswers(
            f"Token {where + 1} of a greedy answer is {mine.answer[where]} with our engine and {other.answer[where]} "
            f"with generate, {gap:.2g} nats apart; {tolerance:g} is allowed."
        )


def logprob_error(policy: Policy, turn: Turn, temperature: float) -> float:
    """The largest error of an answer's log-probabilities, in nats."""
    expected = forward_logprobs(policy, turn, temperature)
    tokens = torch.tensor(turn.answer, device=expected.device)[:, None]
    found = torch.tensor(turn.logprobs, device=expected.device)
    return (expected.gather(-1, tokens)[:, 0] - found).abs().max().item()


@torch.no_grad()
def forward_logprobs(policy: Policy, turn: Turn, temperature: float) -> torch.Tensor:
    """(answer's tokens, vocabulary): log-probabilities by one plain forward pass over history and answer."""
    ids = torch.tensor([turn.prompt + turn.answer], device=policy.device)
    pictures = stack_pictures([turn.picture], policy.device) or {}
    logits = policy.model(input_ids=ids, **pictures).logits[0, len(turn.prompt) - 1 : -1].float()
    if policy.image_token is not None:
        logits[:, policy.image_token] = -torch.inf
    return torch.log_softmax(logits / temperature, dim=-1)
