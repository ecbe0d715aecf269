"""Another engine's rollouts: a fake with the interface of TRL's VLLMGeneration, and what corrects for its errors."""

import importlib
import json
from dataclasses import replace

import gymnasium
import pytest
import torch
from tiny_models import played_hands, reference_logprobs, reference_values, tiny_policy, with_advantages

import sftrl_lib  # noqa: F401  (registers the environments)
from sftrl_lib.configs import PPOConfig
from sftrl_lib.models.rollout import rollout
from sftrl_lib.models.vllm import with_engine
from sftrl_lib.points.task import GP_L
from sftrl_lib.training import ppo, processes
from sftrl_lib.training.batch import make_batch
from sftrl_lib.training.branch import Branch
from sftrl_lib.training.compute import Compute
from sftrl_lib.training.logprobs import token_logprobs
from sftrl_lib.training.processes import Processes

CONFIG = PPOConfig(episodes=4, attempts=3, max_new_tokens=10, importance_cap=1.2)


class FakeGeneration:
    """Says what a model of its own finds likeliest, or samples from it; its log-probabilities are its own."""

    def __init__(self, learner, off=0.0):
        self.learner, self.off, self.policy = learner, off, tiny_policy(learner.tokenizer, critic=False)
        self.synced = 0
        self.generator = torch.Generator().manual_seed(0)
        self.sync_weights()

    @torch.no_grad()
    def sync_weights(self):
        self.synced += 1
        noise = torch.Generator().manual_seed(1)
        pairs = zip(self.policy.model.parameters(), self.learner.model.parameters(), strict=True)
        for own, new in pairs:
            own.copy_(new + self.off * torch.randn(new.shape, generator=noise))

    @torch.no_grad()
    def generate(self, prompts, images, num_generations):
        answers, logprobs = [], []
        for prompt in prompts:
            ids, said = list(prompt), []
            while len(said) < self.max_completion_length and (not said or ids[-1] != self.policy.end_token):
                logits = self.policy.model(torch.tensor([ids])).logits[0, -1] / (self.temperature or 1.0)
                log_p = torch.log_softmax(logits.float(), -1)
                drawn = torch.multinomial(log_p.exp(), 1, generator=self.generator).item()
                token = drawn if self.temperature else int(log_p.argmax())
                ids.append(token)
                said.append([log_p[token].item()])
            answers.append(ids[len(prompt) :])
            logprobs.append(said)
        return prompts, answers, logprobs, None


def hands(policy, temperature, attempts=(3, 1, 2, 3)):
    envs = [gymnasium.make("sftrl/GeneralPoints-v0", max_attempts=n).unwrapped for n in attempts]
    resets = [{"seed": i} for i in range(len(envs))]
    return rollout(policy, envs, resets, temperature, 10, range(len(envs)))


def test_the_same_model_behind_it_plays_the_same_games(policy):
    ours, theirs = hands(policy, 0.0), hands(with_engine(policy, FakeGeneration(policy)), 0.0)
    for one, other in zip(ours, theirs, strict=True):
        assert [c.ids for c in one.conversations] == [c.ids for c in other.conversations]
        assert one.tokens_read == other.tokens_read
        for a, b in zip(one.attempts, other.attempts, strict=True):
            assert (a.text, a.reward, a.outcome) == (b.text, b.reward, b.outcome)
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4) and b.value == 0.0


def test_the_learner_computes_its_own_probabilities_and_values(policy):
    played = hands(with_engine(policy, FakeGeneration(policy, off=0.01)), 1.0)
    episodes, logs = ppo.rescored(policy, played, CONFIG, "", 100, Processes())
    gaps = []
    for before, after in zip(played, episodes, strict=True):
        [conversation] = after.conversations
        expected, values = reference_logprobs(policy, conversation.ids), reference_values(policy, conversation.ids)
        for sampled, attempt in zip(before.attempts, after.attempts, strict=True):
            assert attempt.logprobs == pytest.approx(expected[attempt.start - 1 : attempt.end - 1].tolist(), abs=1e-4)
            assert attempt.value == pytest.approx(values[attempt.start - 1].item(), abs=1e-4)
            assert attempt.sampled == sampled.logprobs and attempt.reward == sampled.reward
            gaps += [a - b for a, b in zip(attempt.logprobs, sampled.logprobs, strict=True)]
    gaps = torch.tensor(gaps, dtype=torch.float64)
    assert logs["engine_gap"] == pytest.approx(gaps.abs().mean().item()) and logs["engine_gap"] > 1e-3
    assert logs["engine_kl"] == pytest.approx((gaps.exp() - 1 - gaps).mean().item(), rel=1e-6)
    assert logs["truncated"] == pytest.approx((gaps.exp() > 1.2).double().mean().item())


def test_what_is_cut_with_one_ratio_per_answer_is_what_the_loss_weights(policy):
    """The answer's tokens count by where the key of the formula stands, as in the official ratio."""
    config = replace(CONFIG, ratio="sequence")
    played = hands(with_engine(policy, FakeGeneration(policy, off=0.01)), 1.0)
    for key in ("", "formula"):
        episodes, logs = ppo.rescored(policy, played, config, key, 10_000, Processes())
        batch = make_batch(with_advantages(episodes, config), policy, key)
        cut = ppo.importance(batch, batch.old_logprobs, config).exp() > config.importance_cap
        assert logs["truncated"] == pytest.approx(cut.double().mean().item())


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_the_objective_is_weighted_with_the_truncated_ratio(policy, ratio):
    """Against the first step's gradient written out: advantage times weight times grad log p."""
    config = replace(CONFIG, ratio=ratio, value_coef=0.0)
    played = hands(with_engine(policy, FakeGeneration(policy, off=0.01)), 1.0)
    episodes, _ = ppo.rescored(policy, played, config, "", 10_000, Processes())
    batch = make_batch([row for row in with_advantages(episodes, config)], policy)
    loss, _ = ppo.ppo_loss(policy, batch, config)
    found = torch.autograd.grad(loss, policy.model.lm_head.weight)[0]
    weights, advantages = (batch.old_logprobs - batch.sampled_logprobs).exp(), batch.advantages[batch.attempt]
    actions = len(batch.token)
    if ratio == "sequence":
        gap = torch.zeros(len(batch.advantages)).index_add(
            0, batch.attempt, batch.old_logprobs - batch.sampled_logprobs
        )
        weights, actions = gap.exp()[batch.attempt], len(batch.advantages)
    assert (weights > 1.2).any() and (weights < 1.2).any()
    logprobs = token_logprobs(policy, batch, 1.0)
    expected = -(weights.clamp(max=1.2) * advantages * logprobs).sum() / actions
    [expected] = torch.autograd.grad(expected, policy.model.lm_head.weight)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_the_weight_is_one_where_the_engine_is_exact(policy):
    played = played_hands(policy)
    episodes, logs = ppo.rescored(policy, played, CONFIG, "", 10_000, Processes())
    assert logs["engine_gap"] < 1e-5 and logs["truncated"] == 0
    [own], [again] = (
        [ppo.ppo_loss(policy, make_batch(with_advantages(e, CONFIG), policy), c)[0].item()]
        for e, c in ((played, replace(CONFIG, importance_cap=0.0)), (episodes, CONFIG))
    )
    assert own == pytest.approx(again, abs=1e-4)


def test_training_with_the_engine(policy, tmp_path, monkeypatch):
    """An update of PPO: the engine gets the weights before it plays, and after the update."""
    engines = []

    def fake(policy, accelerator, longest):
        engines.append(FakeGeneration(policy, off=0.01))
        return with_engine(policy, engines[-1])

    monkeypatch.setattr(processes, "vllm_policy", fake)
    branch = Branch(policy, GP_L, CONFIG, tmp_path, Compute(policy.parameters_count), 1.0, engine="vllm")
    ppo.train(branch)
    [entry] = json.loads((tmp_path / "log.json").read_text())
    assert entry["engine_gap"] > 1e-3 and entry["engine_kl"] > 0
    assert [engine.synced for engine in engines] == [3]  # made, before the first update, after it


def test_an_engine_without_correction_is_refused(policy, tmp_path):
    config = replace(CONFIG, importance_cap=0.0)
    with pytest.raises(ValueError, match="engine='vllm' needs PPOConfig.importance_cap above 0, such as 3"):
        ppo.train(Branch(policy, GP_L, config, tmp_path, Compute(1), 1.0, engine="vllm"))


def test_vllm_that_is_not_installed_is_one_clear_sentence(policy, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("trl.import_utils"), "is_vllm_available", lambda *args, **kw: False)
    with pytest.raises(ValueError, match="needs vLLM, which is not installed: pip install"):
        ppo.train(Branch(policy, GP_L, CONFIG, tmp_path, Compute(1), 1.0, engine="vllm"))


def test_pictures_are_refused(policy):
    engine = with_engine(policy, FakeGeneration(policy)).decoding
    engine.begin(1, 4)
    with pytest.raises(ValueError, match="engine='vllm' plays text tasks only"):
        engine.feed([[1, 2]], [{"pixel_values": torch.zeros(1)}])
