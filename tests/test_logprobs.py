"""Log-probabilities and entropies in chunks of tokens: those of the whole, with its gradient, in less memory."""

import weakref

import pytest
import torch
from tiny_models import tiny_policy
from torch.utils._python_dispatch import TorchDispatchMode

from sftrl_lib.models.policy import Policy
from sftrl_lib.training import logprobs
from sftrl_lib.training.logprobs import logprobs_and_entropies

TOKENS = 50


def states_and_tokens(policy, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    config = policy.model.config
    hidden = torch.randn(TOKENS, config.hidden_size, generator=generator, dtype=dtype)
    return hidden.requires_grad_(), torch.randint(config.vocab_size, (TOKENS,), generator=generator)


def whole(policy, hidden, token, temperature):
    """What is to come out, from all logits at once."""
    log_p = torch.log_softmax(policy.logits(hidden) / temperature, dim=-1)
    return log_p.gather(-1, token[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)


def in_chunks(tokens, monkeypatch, policy):
    monkeypatch.setattr(logprobs, "CHUNK", tokens * policy.model.config.vocab_size)


def with_gradients(function, policy, hidden, *rest):
    """What `function` returns, and the gradients of a sum that weighs every token differently."""
    found = function(policy, hidden, *rest)
    weights = torch.linspace(-1, 1, TOKENS, dtype=hidden.dtype)
    head = policy.model.get_output_embeddings().weight
    loss = (weights * found[0]).sum() + (weights.flip(0) * found[1]).sum()
    return [*found, *torch.autograd.grad(loss, [hidden, head])]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_one_chunk_is_the_whole_to_the_bit(policy, temperature):
    given = policy, *states_and_tokens(policy), temperature
    expected = with_gradients(whole, *given)
    for a, b in zip(expected, with_gradients(logprobs_and_entropies, *given, True), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("tokens", [1, 7, 25, 49])
def test_many_chunks_are_the_whole(policy, tokens, monkeypatch):
    given = *states_and_tokens(policy), 0.7
    expected = with_gradients(whole, policy, *given)
    in_chunks(tokens, monkeypatch, policy)
    for a, b in zip(expected, with_gradients(logprobs_and_entropies, policy, *given, True), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-6 * a.abs().max().item())
    with torch.no_grad():  # as for Init, in a KL penalty
        torch.testing.assert_close(logprobs_and_entropies(policy, *given)[0], expected[0])


class DoublePolicy(Policy):
    def logits(self, hidden):
        return self.model.get_output_embeddings()(hidden)


def test_the_gradient_by_finite_differences(policy, monkeypatch):
    double = DoublePolicy(policy.model.double(), policy.tokenizer)
    in_chunks(2, monkeypatch, double)
    hidden, token = (x.detach()[:5] for x in states_and_tokens(double, torch.float64))
    hidden.requires_grad_()
    assert torch.autograd.gradcheck(lambda h: logprobs_and_entropies(double, h, token, 0.7, True), (hidden,))


def test_entropies_carry_a_gradient_only_when_asked(policy, monkeypatch):
    hidden, token = states_and_tokens(policy)
    for tokens in (7, TOKENS):
        in_chunks(tokens, monkeypatch, policy)
        assert not logprobs_and_entropies(policy, hidden, token, 1.0)[1].requires_grad
        assert logprobs_and_entropies(policy, hidden, token, 1.0, entropy_gradient=True)[1].requires_grad


class MostLogits(TorchDispatchMode):
    """Watches every operation, those of the backward pass too: how many tokens' logits were alive at most."""

    def __init__(self, head):
        super().__init__()
        self.vocabulary, self.width = head.shape
        self.alive, self.most = {}, 0

    def is_logits(self, made):
        """Of another shape than the head's weight and its gradient, which are turned now and then."""
        turned = self.width, self.vocabulary
        return isinstance(made, torch.Tensor) and made.shape[1:] == (self.vocabulary,) and made.shape != turned

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for made in result if isinstance(result, tuple | list) else [result]:
            if self.is_logits(made):
                storage = made.untyped_storage()
                self.alive[storage.data_ptr()] = weakref.ref(storage), len(made)
        self.alive = {at: (storage, tokens) for at, (storage, tokens) in self.alive.items() if storage() is not None}
        self.most = max(self.most, sum(tokens for _, tokens in self.alive.values()))
        return result


@pytest.mark.parametrize("entropy_gradient", [False, True])
def test_only_a_chunk_of_logits_is_alive_at_a_time(tokenizer, entropy_gradient, monkeypatch):
    """A few copies of it, forward and backward; without chunks those of all tokens are."""
    most = {}
    for tokens in (5, TOKENS):
        policy = tiny_policy(tokenizer)
        in_chunks(tokens, monkeypatch, policy)
        hidden, token = states_and_tokens(policy)
        with MostLogits(policy.model.get_output_embeddings().weight) as watched:
            found, entropies = logprobs_and_entropies(policy, hidden, token, 0.7, entropy_gradient)
            (found.sum() + entropies.sum()).backward()
        most[tokens] = watched.most
    assert 2 * TOKENS <= most[TOKENS] <= 7 * TOKENS
    assert 2 * 5 <= most[5] <= 7 * 5
