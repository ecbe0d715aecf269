"""PPO: advantages, the clipped objective and its gradient, against numbers and formulas worked out elsewhere."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import (
    assert_same_gradients,
    gradients,
    played_hands,
    reference_logprobs,
    reference_values,
    tiny_policy,
    with_advantages,
)
from transformers.models.llama.modeling_llama import LlamaRMSNorm

import sftrl_lib  # noqa: F401  (registers the environments)
from sftrl_lib.configs import PPOConfig
from sftrl_lib.models.policy import Policy
from sftrl_lib.models.rollout import Attempt, Conversation, Episode
from sftrl_lib.training.batch import Step, key_weights, make_batch
from sftrl_lib.training.logprobs import token_logprobs
from sftrl_lib.training.ppo import (
    accumulate_gradient,
    explained_variance,
    gae,
    learn,
    ppo_loss,
)

CONFIG = PPOConfig(episodes=4, attempts=3, max_new_tokens=10)


# Advantages


def test_gae_by_hand():
    """Two attempts, gamma 0.5, lambda 0.5, values 1 and 2, rewards -1 and 5."""
    advantages, returns = gae([-1.0, 5.0], [1.0, 2.0], 0.5, 0.5)
    # delta_1 = 5 + 0 - 2 = 3; delta_0 = -1 + 0.5 * 2 - 1 = -1; advantage_0 = -1 + 0.25 * 3
    assert advantages.tolist() == [-0.25, 3.0]
    assert returns.tolist() == [0.75, 5.0]


def test_gae_is_cut_where_the_attempts_run_out():
    """Six failures, then another hand is solved: the official code's returns leak across, the right ones do not."""
    returns = gae([-1.0] * 6, [0.0] * 6, 0.9, 0.95)[1]
    assert returns == pytest.approx([-4.20, -3.74, -3.21, -2.59, -1.855, -1.00], abs=0.006)
    leaking = gae([-1.0] * 6 + [5.0], [0.0] * 7, 0.9, 0.95)[1]
    assert leaking == pytest.approx([-2.25, -1.46, -0.54, 0.54, 1.80, 3.28, 5.0], abs=0.006)


def test_gae_is_the_sum_of_its_definition():
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 9):
        rewards, values = rng.normal(size=n), rng.normal(size=n)
        gamma, lam = rng.uniform(0.5, 1, size=2)
        following = np.append(values[1:], 0.0)
        deltas = rewards + gamma * following - values
        expected = [sum((gamma * lam) ** k * deltas[t + k] for k in range(n - t)) for t in range(n)]
        advantages, returns = gae(list(rewards), list(values), gamma, lam)
        assert advantages == pytest.approx(expected)
        assert returns == pytest.approx(advantages + values)


def episode(*conversations, rewards=None):
    """An episode of conversations given as (ids, [(start, end), ...])."""
    made = []
    for ids, spans in conversations:
        made.append(Conversation(ids, [Attempt(a, b, [-1.0] * (b - a), 0.5) for a, b in spans]))
    result = Episode(made, {})
    for attempt, reward in zip(result.attempts, rewards or range(len(result.attempts)), strict=True):
        attempt.reward = float(reward)
    return result


def test_advantages_are_normalised_over_all_attempts():
    episodes = [
        episode((list(range(9)), [(2, 4), (6, 9)]), ([1, 2, 3], [(1, 3)]), rewards=[-1, -2, 5]),
        episode((list(range(5)), [(3, 5)]), rewards=[-3]),
    ]
    first, second = with_advantages(episodes, CONFIG)
    assert [conversation.ids for conversation, _ in (*first, *second)] == [list(range(9)), [1, 2, 3], list(range(5))]
    steps = [step for _, its_steps in (*first, *second) for step in its_steps]
    assert [step.attempt for step in steps] == [a for e in episodes for a in e.attempts]
    raw, returns = gae([-1, -2, 5], [0.5] * 3, CONFIG.gamma, CONFIG.gae_lambda)  # across the rewritten prompt
    raw = np.append(raw, -3 - 0.5)
    assert [s.return_ for s in steps] == pytest.approx([*returns, -3.0])
    assert [s.advantage for s in steps] == pytest.approx((raw - raw.mean()) / raw.std())


# The loss


def manual(policy, rows, temperature=1.0):
    """Per-token log-probabilities of every attempt from a plain forward pass, with their gradient."""
    found = []
    for [(conversation, steps)] in rows:
        logits = policy.model(input_ids=torch.tensor([conversation.ids])).logits[0]
        logprobs = torch.log_softmax(logits / temperature, -1)
        for step in steps:
            a = step.attempt
            positions = torch.arange(a.start, a.end)
            found.append(logprobs[positions - 1, torch.tensor(conversation.ids)[positions]])
    return found


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_first_step_is_a_policy_gradient_step(policy, temperature):
    """With the policy that sampled, all ratios are one and the gradient is that of -E[advantage * log p]."""
    config = replace(CONFIG, temperature=temperature, value_coef=0.0)
    rows = with_advantages(played_hands(policy, temperature), config)
    loss, log = ppo_loss(policy, make_batch(rows, policy), config)
    advantages = [step.advantage for [(_, steps)] in rows for step in steps]
    tokens = sum(len(step.attempt.logprobs) for [(_, steps)] in rows for step in steps)
    mean = sum(s.advantage * len(s.attempt.logprobs) for [(_, steps)] in rows for s in steps)
    assert loss.item() == pytest.approx(-mean / tokens, abs=1e-3)
    assert log["clip_fraction"] == 0 and log["approx_kl"] == pytest.approx(0, abs=1e-6)
    expected = -sum(a * lp.sum() for a, lp in zip(advantages, manual(policy, rows, temperature), strict=True)) / tokens
    assert_same_gradients(gradients(policy, loss), gradients(policy, expected))


def test_the_sequence_ratio_weighs_and_sums(policy):
    """Off-policy, against the official formula on log-probabilities from a plain forward pass."""
    config = replace(CONFIG, ratio="sequence", value_coef=0.0, clip=0.1)
    rows = with_advantages(with_a_formula(policy), config)
    batch = make_batch(rows, policy, "formula")
    torch.manual_seed(1)
    batch.old_logprobs += 0.05 * torch.randn_like(batch.old_logprobs)
    loss, log = ppo_loss(policy, batch, config)
    terms, clipped = [], 0
    new = iter(manual(policy, rows))
    old = iter(batch.old_logprobs.split([len(s.attempt.logprobs) for [(_, steps)] in rows for s in steps]))
    for [(conversation, steps)] in rows:
        for step in steps:
            a = step.attempt
            weights = key_weights(conversation.ids[a.start : a.end], policy, "formula")
            ratio = ((weights * next(new)).sum() - (weights * next(old)).sum()).exp()
            clipped += abs(ratio.item() - 1) > 0.1
            terms.append(torch.minimum(ratio * step.advantage, ratio.clamp(0.9, 1.1) * step.advantage))
    assert 0 < clipped < len(terms), "the test should see clipped and unclipped attempts"
    expected = -torch.stack(terms).mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-4)
    assert log["clip_fraction"] == pytest.approx(clipped / len(terms))
    assert_same_gradients(gradients(policy, loss), gradients(policy, expected))


def with_a_formula(policy):
    """Episodes whose answers are those of a task, with the policy's own log-probabilities."""
    episodes = []
    for i in range(6):
        ids = policy.prompt_ids([{"role": "user", "content": f"hand {i}"}])
        attempts = []
        for n in range(2):
            answer = f'{{\n  "cards": [\'{i + 2}\'],\n  "number": [{n}],\n  "formula": "{i}+{n}=24",\n}}'
            start = len(ids)
            ids = [*ids, *policy.tokenizer(answer, add_special_tokens=False).input_ids, policy.end_token]
            attempts.append(Attempt(start, len(ids), [], 0.1 * n, answer, reward=float((i * 7 + n * 3) % 5)))
            ids = [*ids, *policy.continuation_ids("You failed.")]
        ids = ids[: attempts[-1].end]
        logprobs = reference_logprobs(policy, ids)
        for a in attempts:
            a.logprobs = logprobs[a.start - 1 : a.end - 1].tolist()
        episodes.append(Episode([Conversation(ids, attempts)], {}))
    return episodes


@pytest.mark.parametrize("advantage, shift, moves", [
    (1.0, -0.5, False),  # already much likelier than when sampled, and good: clipped
    (1.0, 0.5, True),  # less likely and good: pushed up
    (-1.0, 0.5, False),  # already much less likely, and bad: clipped
    (-1.0, -0.5, True),  # likelier and bad: pushed down
])  # fmt: skip
@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_clipping(policy, advantage, shift, moves, ratio):
    config = replace(CONFIG, value_coef=0.0, ratio=ratio)
    [[(conversation, [step])]] = with_advantages(played_hands(policy, attempts=(1,)), CONFIG)
    batch = make_batch([[(conversation, [Step(step.attempt, advantage, 0.0)])]], policy)
    batch.old_logprobs += shift
    loss, log = ppo_loss(policy, batch, config)
    norm = sum(g.norm() for g in gradients(policy, loss).values())
    assert (norm > 0) == moves
    assert log["clip_fraction"] == 1
    tokens = len(step.attempt.logprobs) if ratio == "sequence" else 1
    r = math.exp(min(-shift * tokens, 10))
    low, high = 1 - config.clip, 1 + config.clip
    assert loss.item() == pytest.approx(-min(r * advantage, min(max(r, low), high) * advantage), rel=1e-3)


class DoublePolicy(Policy):
    """The same policy in float64, so that finite differences are exact to many digits."""

    def logits(self, hidden):
        return self.model.get_output_embeddings()(hidden)


def double_norm(self, x):
    """RMS normalisation without the stock layer's detour through float32."""
    return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)


class DoubleHead(torch.nn.Module):
    def __init__(self, head):
        super().__init__()
        self.layers = head.layers.double()

    def forward(self, hidden):
        return self.layers(hidden).squeeze(-1)


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_gradient_by_finite_differences(policy, ratio, monkeypatch):
    """Policy, value, entropy and KL terms together, along random directions, off-policy."""
    monkeypatch.setattr(LlamaRMSNorm, "forward", double_norm)
    config = replace(CONFIG, ratio=ratio, share_backbone=True, entropy_coef=0.3, kl_coef=0.2, value_coef=0.7)
    rows = with_advantages(with_a_formula(policy), config)
    batch = make_batch(rows, policy, "formula")
    double = DoublePolicy(policy.model.double(), policy.tokenizer, DoubleHead(policy.value_head))
    torch.manual_seed(0)
    batch.old_logprobs = batch.old_logprobs.double() + 0.05 * torch.randn(batch.old_logprobs.shape).double()
    batch.advantages, batch.returns = batch.advantages.double(), batch.returns.double()
    batch.weights = batch.weights.double()
    reference = batch.old_logprobs + 0.1 * torch.randn(batch.old_logprobs.shape).double()
    parameters = [*double.model.parameters(), *double.value_head.parameters()]
    loss, _ = ppo_loss(double, batch, config, reference)
    loss.backward()
    for _ in range(3):
        directions = [torch.randn_like(p) for p in parameters]
        slope = sum((d * p.grad).sum() for d, p in zip(directions, parameters, strict=True)).item()
        ends, size = [], 1e-6
        for sign in (1, -1):
            with torch.no_grad():
                for p, d in zip(parameters, directions, strict=True):
                    p += sign * size * d
                ends.append(ppo_loss(double, batch, config, reference)[0].item())
                for p, d in zip(parameters, directions, strict=True):
                    p -= sign * size * d
        assert (ends[0] - ends[1]) / (2 * size) == pytest.approx(slope, rel=1e-4, abs=1e-5)


def test_the_value_loss_is_a_squared_error_at_the_prompts_end(policy):
    rows = with_advantages(played_hands(policy), CONFIG)
    _, log = ppo_loss(policy, make_batch(rows, policy), CONFIG)
    errors = []
    for [(conversation, steps)] in rows:
        values = reference_values(policy, conversation.ids)
        errors += [(values[s.attempt.start - 1].item() - s.return_) ** 2 for s in steps]
    assert log["value_loss"] == pytest.approx(np.mean(errors), rel=1e-4)


@pytest.mark.parametrize("share", [False, True])
def test_the_critic_leaves_the_backbone_alone_unless_asked(policy, share):
    config = replace(CONFIG, share_backbone=share, value_coef=1.0)
    rows = with_advantages(played_hands(policy), config)
    batch = make_batch(rows, policy)
    batch.advantages.zero_()  # what is left is the value loss
    loss, _ = ppo_loss(policy, batch, config)
    norms = [g.abs().max().item() for g in gradients(policy, loss).values()]
    assert (max(norms) > 0) == share
    assert policy.value_head.layers[0].weight.grad.abs().max() > 0


def test_the_entropy_bonus_flattens(policy):
    config = replace(CONFIG, value_coef=0.0)
    batch = make_batch(with_advantages(played_hands(policy), config), policy)
    batch.advantages.zero_()
    before, after = one_step(policy, batch, replace(config, entropy_coef=1.0))
    assert after["entropy"] > before["entropy"] > 0


def test_the_kl_penalty_pulls_to_init(policy, tokenizer):
    init = tiny_policy(tokenizer, seed=3)
    config = replace(CONFIG, value_coef=0.0, kl_coef=1.0)
    batch = make_batch(with_advantages(played_hands(policy), config), policy)
    batch.advantages.zero_()
    with torch.no_grad():
        reference, itself = (token_logprobs(one, batch, config.temperature) for one in (init, policy))
    surprise = (reference - itself).double()
    before, after = one_step(policy, batch, config, reference)
    assert before["kl_to_init"] == pytest.approx((surprise.exp() - 1 - surprise).mean().item(), rel=1e-4)
    assert 0 < after["kl_to_init"] < before["kl_to_init"]
    itself = token_logprobs(policy, batch, config.temperature)
    assert ppo_loss(policy, batch, config, itself)[1]["kl_to_init"] == pytest.approx(0, abs=1e-6)


def one_step(policy, batch, config, reference=None):
    """What is logged before and after one small gradient step."""
    loss, before = ppo_loss(policy, batch, config, reference)
    optimizer = torch.optim.SGD(policy.model.parameters(), lr=1e-4)
    loss.backward()
    optimizer.step()
    return before, ppo_loss(policy, batch, config, reference)[1]


@torch.no_grad()
def test_reference_logprobs_are_those_of_a_forward_pass(policy):
    rows = with_advantages(played_hands(policy), CONFIG)
    batch = make_batch(rows, policy)
    found = token_logprobs(policy, batch, 0.7)
    for row, [(conversation, _)] in enumerate(rows):
        expected = reference_logprobs(policy, conversation.ids, 0.7)
        here = batch.row == row
        assert found[here].numpy() == pytest.approx(expected[batch.predictor[here]].numpy(), abs=1e-4)


# An update


def updated(policy, config, seed=3):
    optimizer = torch.optim.AdamW([
        {"params": list(policy.model.parameters()), "lr": config.lr},
        {"params": policy.value_head.parameters(), "lr": config.value_lr},
    ])  # fmt: skip
    episodes = with_a_formula(policy)
    return episodes, *learn(policy, optimizer, episodes, config, seed, answer_key="formula")


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_an_update_makes_good_answers_likelier(policy, ratio):
    config = replace(CONFIG, ratio=ratio, lr=1e-3, epochs=3, minibatches=2)
    episodes, log, _ = updated(policy, config)
    gains, advantages = [], []
    for [(conversation, steps)] in with_advantages(episodes, config):
        logprobs = reference_logprobs(policy, conversation.ids)
        for step in steps:
            a = step.attempt
            gains.append((logprobs[a.start - 1 : a.end - 1] - torch.tensor(a.logprobs)).mean().item())
            advantages.append(step.advantage)
    assert np.corrcoef(gains, advantages)[0, 1] > 0.3
    assert all(map(math.isfinite, log.values()))


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_a_minibatch_in_parts_has_the_gradient_of_the_whole(policy, ratio):
    """And the same log: the means are over the minibatch, not over its parts."""
    config = replace(CONFIG, ratio=ratio, entropy_coef=0.01, kl_coef=0.1)
    rows = with_advantages(with_a_formula(policy), config)
    reference, found = tiny_policy(policy.tokenizer, seed=5), []
    for tokens in (10_000, 2 * len(rows[0][0][0].ids) + 10):
        policy.model.zero_grad()
        log = accumulate_gradient(policy, rows, config, reference, "formula", tokens)
        found.append((log, {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}))
    (whole, gradient), (parts, same) = found
    assert parts == pytest.approx(whole, rel=1e-4, abs=1e-6)
    assert_same_gradients(gradient, same)


@pytest.mark.parametrize("change", ["gradient_checkpointing", "mixed"])
def test_how_a_gradient_is_computed_does_not_change_which(policy, change):
    """With less kept between the passes it is the same to the bit; bfloat16 products leave its direction."""
    config, found, kept = replace(CONFIG, entropy_coef=0.01), [], []
    rows = with_advantages(with_a_formula(policy), config)
    policy.model.train()
    for on in (False, True):
        policy.model.zero_grad()
        if on and change == "mixed":
            policy.mixed = True
        elif on:
            policy.model.gradient_checkpointing_enable()
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: s.append(x.nbytes) or x, lambda x: x):
            loss, log = ppo_loss(policy, make_batch(rows, policy), config)
        loss.backward()
        kept.append(sum(sizes))
        found.append((log, torch.cat([p.grad.flatten() for p in policy.model.parameters()])))
    (before, gradient), (after, same) = found
    assert kept[1] < kept[0] and {p.dtype for p in policy.model.parameters()} == {torch.float32}
    if change == "mixed":
        assert after != before and after == pytest.approx(before, rel=0.05, abs=0.02)
        assert 0.99 < torch.cosine_similarity(gradient, same, dim=0) < 1
    else:
        assert after == before and torch.equal(gradient, same)


def test_explained_variance_by_hand():
    assert explained_variance([1.0, 2.0, 6.0], [1.0, 2.0, 6.0]) == 1
    assert explained_variance([4.0, 4.0, 4.0], [1.0, 2.0, 6.0]) == 0
    # returns 0, 4: variance 4; errors 1, -1: variance 1
    assert explained_variance([-1.0, 5.0], [0.0, 4.0]) == 0.75
    assert explained_variance([3.0, -3.0], [1.0, 1.0]) == 0, "there is nothing to explain"


def test_an_update_logs_how_well_the_critic_foresaw(policy):
    episodes, log, _ = updated(policy, CONFIG)
    steps = [step for row in with_advantages(episodes, CONFIG) for _, steps in row for step in steps]
    left = np.var([step.return_ - step.attempt.value for step in steps])
    assert log["explained_variance"] == pytest.approx(1 - left / np.var([step.return_ for step in steps]))


def test_an_update_counts_the_tokens_it_trains_on(policy):
    config = replace(CONFIG, epochs=3, minibatches=4)
    episodes, _, tokens = updated(policy, config)
    assert tokens == 3 * sum(len(e.conversations[0].ids) for e in episodes)


def test_an_update_is_deterministic(tokenizer):
    first, second = tiny_policy(tokenizer), tiny_policy(tokenizer)
    assert updated(first, CONFIG)[1] == updated(second, CONFIG)[1]
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_no_number_stops_the_run(policy):
    with torch.no_grad():
        policy.model.get_input_embeddings().weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"PPO's policy_loss is nan; lower lr \(0.0003\)\.$"):
        optimizer = torch.optim.AdamW([
            {"params": list(policy.model.parameters())}, {"params": policy.value_head.parameters()},
        ])  # fmt: skip
        ids = [0, 1, 2, 0, 5]
        broken = [Episode([Conversation(ids, [Attempt(2, 5, [-1.0] * 3, 0.0)])], {})]
        learn(policy, optimizer, broken, CONFIG, 0, answer_key="formula")
