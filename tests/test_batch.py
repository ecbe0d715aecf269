"""What PPO learns from: where answers stand in their rows, and what conversations that share a row see."""

from dataclasses import replace
from itertools import islice

import gymnasium
import numpy as np
import pytest
import torch
from tiny_models import assert_same_gradients, gradients, played_hands, reference_logprobs, tiny_policy, with_advantages

import sftrl_lib  # noqa: F401  (registers the environments)
from sftrl_lib.configs import PPOConfig
from sftrl_lib.models.rollout import Attempt, Conversation, Episode
from sftrl_lib.training.batch import by_length, key_weights, lay_out, make_batch, pack, row_length
from sftrl_lib.training.logprobs import token_logprobs
from sftrl_lib.training.ppo import ppo_loss
from sftrl_lib.virl import expert_pairs

CONFIG = PPOConfig(episodes=4, attempts=3, max_new_tokens=10)


def test_a_batch_marks_exactly_the_sampled_tokens(policy):
    episodes = played_hands(policy)
    rows = with_advantages(episodes, CONFIG)
    batch = make_batch(rows, policy)
    assert batch.attention_mask is batch.position_ids is None, "every row is one conversation"
    said = iter(zip(batch.row, batch.predictor, batch.token, batch.attempt, batch.old_logprobs, strict=True))
    number = 0
    for row, [(conversation, steps)] in enumerate(rows):
        for step in steps:
            a = step.attempt
            for position in range(a.start, a.end):  # the token at `position` is predicted one place before it
                *where, old = next(said)
                assert where == [row, position - 1, conversation.ids[position], number]
                assert old == pytest.approx(a.logprobs[position - a.start])
            assert (batch.prompt_row[number], batch.prompt_end[number]) == (row, a.start - 1)
            assert batch.advantages[number] == pytest.approx(step.advantage)
            assert batch.returns[number] == pytest.approx(step.return_)
            number += 1
        padding = batch.input_ids[row, len(conversation.ids) :]
        assert (padding == policy.tokenizer.pad_token_id).all()
        assert batch.input_ids[row, : len(conversation.ids)].tolist() == conversation.ids
    assert next(said, None) is None


def walked(policy, routes=3):
    """Routes of text navigation, answered by the expert with some mistakes: a prompt of its own at every position."""
    episodes = []
    for seed in range(routes):
        env = gymnasium.make("sftrl/Navigation-v0", max_attempts=2, routes="nyc").unwrapped
        observation, info = env.reset(seed=seed)
        conversations = []
        for k, (_, answer) in enumerate(islice(expert_pairs(info["rail"]), 5)):
            ids, attempts = policy.prompt_ids(observation["messages"]), []
            for text in (["no", answer] if k % 2 else [answer]):
                start = len(ids)
                ids = [*ids, *policy.tokenizer(text, add_special_tokens=False).input_ids, policy.end_token]
                attempts.append(Attempt(start, len(ids), [], 0.3 * k, text, reward=float(len(text) % 3 - k)))
                observation, *_ = env.step(text)
                ids = [*ids, *policy.continuation_ids("You failed.")] if text == "no" else ids
            logprobs = reference_logprobs(policy, ids)
            for a in attempts:
                a.logprobs = logprobs[a.start - 1 : a.end - 1].tolist()
            conversations.append(Conversation(ids, attempts))
        episodes.append(Episode(conversations, info))
    return episodes


def test_the_prompts_of_a_route_share_a_row(policy):
    """Each conversation can be read off its row; a hand that begins like another one does not join it."""
    for episode in with_advantages(walked(policy), CONFIG):
        [row] = pack(episode)
        ids, columns = lay_out(row)
        assert [np.array(ids)[own].tolist() for own in columns] == [conversation.ids for conversation, _ in episode]
        assert len(ids) == row_length(row) < 0.6 * sum(len(conversation.ids) for conversation, _ in episode)
        assert sorted(set(np.concatenate(columns).tolist())) == list(range(len(ids))), "nothing is there for nobody"
    conversations = [[1, 2, 3, 4, 5], [1, 2, 3, 6], [1, 7, 8, 9], [1, 7, 8, 9, 4]]
    rows = pack([(Conversation(ids), []) for ids in conversations])
    assert [[conversation.ids for conversation, _ in row] for row in rows] == [conversations[:2], conversations[2:]]
    assert lay_out(rows[0])[0] == [1, 2, 3, 4, 5, 6]
    seen = [{"pixel_values": torch.zeros(1)}] * 2
    assert len(pack([(Conversation([9, 9, 1], picture=picture), []) for picture in seen])) == 2


@pytest.mark.parametrize("ratio", ["token", "sequence"])
def test_a_shared_row_has_the_gradient_of_its_conversations(policy, ratio):
    """Loss, log and gradient are those of a row each, off-policy, beside rows of other lengths; prompts are shared."""
    config = replace(CONFIG, ratio=ratio, share_backbone=True, entropy_coef=0.1, kl_coef=0.1)
    episodes, init, found = with_advantages(walked(policy), config), tiny_policy(policy.tokenizer, seed=5), []
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    packed = [row for episode in episodes for row in pack(episode)]
    apart = [[played] for episode in episodes for played in episode]
    for rows in (packed, apart):
        batch = make_batch(rows, policy, "action")
        with torch.no_grad():
            init_logprobs = token_logprobs(init, batch, config.temperature)
        loss, log = ppo_loss(policy, batch, config, init_logprobs)
        found.append((log, gradients(policy, loss)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-3, abs=1e-5)
    assert_same_gradients(found[0][1], found[1][1])


def test_micro_batches_hold_rows_of_like_length_within_a_number_of_tokens():
    rows = [[(Conversation([0] * length), [])] for length in (7, 3, 12, 3, 5, 4, 30)]
    lengths = [[row_length(row) for row in part] for part in by_length(rows, 12)]
    assert lengths == [[3, 3, 4], [5], [7], [12], [30]], "padding counts: 3 + 3 + 4 + 5 tokens take 4 x 5"
    assert by_length(rows, 10_000) == [sorted(rows, key=row_length)]


@pytest.mark.parametrize("text", [
    '{\n  "cards": [\'A\', \'2\'],\n  "formula": "x",\n  "formula": "1+2=24",\n}',
    'I see {"cards": ["A"]}. {"formula": "1+2"} or {"formula": "2+1"}',
    'é日"formula":1',  # a token ends exactly where the key begins; some tokens are parts of a character
])  # fmt: skip
def test_the_official_ratio_halves_what_comes_before_the_formula(policy, text):
    ids = policy.tokenizer(text, add_special_tokens=False).input_ids
    key = len(text[: text.index('"formula"')].encode())  # the first one counts, as for the verifier
    read, expected = 0, []
    for token in policy.tokenizer.convert_ids_to_tokens(ids):
        byte_level = len(token) == 1 or not token.isascii()
        read += len(token) if byte_level else len(token.encode())
        expected.append(1.0 if read > key else 0.5)
    assert read == len(text.encode())
    weights = key_weights(ids, policy, "formula").tolist()
    assert weights == expected and {0.5, 1.0} == set(weights)
    assert set(key_weights(ids, policy, "absent").tolist()) == {1.0}
