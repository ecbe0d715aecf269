"""Log-probabilities and entropies of the answers' tokens, without the wall of logits.

Over 49,152 words the logits of a thousand answers of 48 tokens take 9 GB, several times over. So they are computed in
chunks of tokens, thrown away, and computed again, chunk by chunk, when the gradient is. A batch that fits into one
chunk, as it always does with our tiny models, costs nothing more. TRL has a fused kernel for the same
(``trl.kernels``), but it multiplies by the head's weight itself: adapters on the head and masked tokens would be lost.
"""

from __future__ import annotations

import torch
from torch.utils.checkpoint import checkpoint

from ..models.policy import Policy
from .batch import Batch, hidden_states

CHUNK = 2**24  # logits at once: 64 MiB in float32, a few copies of which are alive


def token_logprobs(policy: Policy, batch: Batch, temperature: float) -> torch.Tensor:
    """The log-probabilities of the answers' tokens, (T,)."""
    hidden = hidden_states(policy, batch)[batch.row, batch.predictor]
    return logprobs_and_entropies(policy, hidden, batch.token, temperature)[0]


def logprobs_and_entropies(
    policy: Policy, hidden: torch.Tensor, token: torch.Tensor, temperature: float, entropy_gradient: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of `token`, (T,), and entropies of the distributions that it was drawn from, both (T,).

    `hidden`: (T, hidden size), of the tokens before. Entropies are in nats, and carry no gradient unless asked to.
    """
    size = max(1, CHUNK // policy.model.config.get_text_config().vocab_size)
    if len(token) <= size:
        return _chunk(policy, hidden, token, temperature, entropy_gradient)
    more = {"use_reentrant": False, "preserve_rng_state": False}  # nothing here is random
    chunks = [
        checkpoint(_chunk, policy, states, tokens, temperature, entropy_gradient, **more)
        for states, tokens in zip(hidden.split(size), token.split(size), strict=True)
    ]
    logprobs, entropies = zip(*chunks, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def _chunk(
    policy: Policy, hidden: torch.Tensor, token: torch.Tensor, temperature: float, entropy_gradient: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = policy.logits(hidden)
    if temperature != 1.0:
        logits = logits / temperature
    log_p = torch.log_softmax(logits, dim=-1)
    logprobs = log_p.gather(-1, token[:, None])[:, 0]
    if not entropy_gradient:
        log_p = log_p.detach()
    return logprobs, -(log_p.exp() * log_p).sum(-1)
