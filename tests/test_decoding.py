"""Decoding: what an answer may depend on, the fast forward pass, static shapes, and sampling by inversion."""

import pytest
import torch
from tiny_models import tiny_policy, tiny_vision_policy
from transformers import LlamaConfig, LlamaModel

from sftrl_lib.models import decoding, llama
from sftrl_lib.models.cache import RaggedCache
from sftrl_lib.models.policy import load_policy
from sftrl_lib.models.rollout import random_draws, rollout
from sftrl_lib.points.task import GP_L, GP_VL


@pytest.fixture(scope="module")
def shipped():
    return load_policy("gp-l")


def answers(policy, seeds, side_by_side, task=GP_L, attempts=3, longest=24, temperature=1.0):
    envs = [task.training_env(attempts) for _ in range(min(side_by_side, len(seeds)))]
    episodes = rollout(policy, envs, [{"seed": seed} for seed in seeds], temperature, longest, seeds)
    return [[attempt.text for attempt in episode.attempts] for episode in episodes]


def test_an_answer_does_not_depend_on_what_is_played_beside_it(shipped):
    """Nor on the order, nor on how many episodes there are."""
    seeds = list(range(30))
    all_at_once = answers(shipped, seeds, 30)
    for side_by_side in (1, 8):
        assert answers(shipped, seeds, side_by_side) == all_at_once
    assert answers(shipped, seeds[::-1], 8) == all_at_once[::-1]
    assert len({text for texts in all_at_once for text in texts}) > 60, "all answers should differ"


def test_attempts_and_episodes_have_random_streams_of_their_own():
    draws = random_draws([(0, 0), (0, 1), (1, 0), (0, 0)], 6)
    assert torch.equal(draws[0], draws[3]) and len({tuple(row.tolist()) for row in draws}) == 3
    assert torch.equal(random_draws([(1, 0)], 3)[0], draws[2, :3])
    many = random_draws([(seed, 0) for seed in range(2_000)], 1)
    assert 0 <= many.min() and many.max() < 1 and abs(many.mean() - 0.5) < 0.03


@pytest.mark.parametrize("task", [GP_L, GP_VL])
def test_static_shapes_change_nothing(tokenizer, task, monkeypatch):
    """The path of CUDA graphs, without graphs: more rows and slots than needed, ended rows go on unseen."""
    policy = tiny_policy(tokenizer) if task is GP_L else tiny_vision_policy(tokenizer)
    expected = [answers(policy, range(n), n, task) for n in (7, 13, 2)]
    policy.decoding.static = True
    assert [answers(policy, range(n), n, task) for n in (7, 13, 2)] == expected
    monkeypatch.setattr(decoding, "_SLOTS", 1)
    monkeypatch.setattr(decoding, "_LOOK", 1)
    assert [answers(policy, range(n), n, task) for n in (7, 13, 2)] == expected


def test_static_shapes_are_few_and_not_much_larger():
    shapes = {count: decoding._static_rows(count) for count in range(1, 5_000)}
    assert all(count <= rows and (rows <= 1.5 * count or rows <= 8) for count, rows in shapes.items())
    assert len(set(shapes.values())) < 25


@pytest.mark.parametrize("sizes", [[1, 1, 1], [5, 5, 5], [1, 4, 9]])
@pytest.mark.parametrize("heads", [(4, 2), (4, 4), (3, 1)])
def test_the_fast_forward_pass_is_that_of_transformers(heads, sizes):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=48, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=heads[0], num_key_value_heads=heads[1], head_dim=16,
    )  # fmt: skip
    decoder = LlamaModel(config).eval()
    ids = torch.randint(50, (3, sum(sizes)))
    cache, found, first = RaggedCache(2), [], 0
    cache.resize(torch.arange(3), 0, 3, sum(sizes))
    with torch.no_grad():
        for size in sizes:
            positions = torch.arange(first, first + size).expand(3, -1)
            mask = cache.set_positions(positions)
            found.append(llama.forward(decoder, ids[:, first : first + size], positions, mask, cache))
            first += size
        expected = decoder(ids).last_hidden_state
    torch.testing.assert_close(torch.cat(found, 1), expected, atol=1e-5, rtol=1e-5)


def test_sampling_inverts_the_cumulated_probabilities():
    torch.manual_seed(0)
    for size in (5, 64, 65, 500):
        probabilities = torch.softmax(3 * torch.randn(200, size), -1)
        probabilities[:, ::3] = 0.0  # as an image token's
        draws = torch.rand(200, 1, dtype=torch.double)
        cumulated = probabilities.double().cumsum(-1)
        expected = (cumulated <= draws * cumulated[:, -1:]).sum(-1, keepdim=True)
        found = decoding._invert(probabilities, draws)
        assert torch.equal(found, expected) and probabilities.gather(1, found).min() > 0
        ends = torch.tensor([[0.0], [1 - 2**-53]], dtype=torch.double).repeat(100, 1)
        assert probabilities.gather(1, decoding._invert(probabilities, ends)).min() > 0
