"""Mllama, the paper's architecture: pictures by cross attention, against transformers' own generate and forward."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_pictures_training import Album, Guided, hand_environments, play_in
from test_rollout import environments
from test_rollout import play as play_text
from tiny_models import forward_inputs, reference_logprobs, reference_values, tiny_mllama_policy, with_advantages

from sftrl_lib.configs import PPOConfig, SFTConfig
from sftrl_lib.messages import message_text
from sftrl_lib.models import decoding
from sftrl_lib.models.policy import load_policy
from sftrl_lib.models.rollout import rollout
from sftrl_lib.tasks import GP_VL
from sftrl_lib.training import collators, ppo, sft
from sftrl_lib.training.batch import make_batch
from sftrl_lib.training.branch import Branch
from sftrl_lib.training.compute import Compute
from sftrl_lib.training.data import make_dataset
from sftrl_lib.training.logprobs import token_logprobs
from sftrl_lib.training.ppo import accumulate_gradient

CONFIG = PPOConfig(episodes=4, attempts=2, max_new_tokens=8)
TRAINING = SFTConfig(examples=8, batch_size=4, lr=1e-3)


@pytest.fixture
def policy(tokenizer):
    return tiny_mllama_policy(tokenizer)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "gp-vl-expert", GP_VL, "expert", 8, seed=3)


def check_against_forward(policy, episodes, temperature=1.0):
    for conversation in (c for episode in episodes for c in episode.conversations):
        pictures = conversation.ids.count(policy.image_token)
        assert pictures == (conversation.picture is not None)
        logprobs = reference_logprobs(policy, conversation.ids, temperature, conversation.picture)
        values = reference_values(policy, conversation.ids, conversation.picture)
        for attempt in conversation.attempts:
            expected = logprobs[attempt.start - 1 : attempt.end - 1]
            assert torch.tensor(attempt.logprobs) == pytest.approx(expected.numpy(), abs=1e-4)
            assert attempt.value == pytest.approx(values[attempt.start - 1].item(), abs=1e-4)


def check_against_generate(policy, episodes, longest=8):
    for conversation in (c for episode in episodes for c in episode.conversations):
        for attempt in conversation.attempts:
            inputs = forward_inputs(policy, conversation.ids[: attempt.start], conversation.picture)
            said = policy.model.generate(
                **inputs, attention_mask=torch.ones_like(inputs["input_ids"]), do_sample=False, max_new_tokens=longest,
                eos_token_id=policy.end_token, pad_token_id=policy.tokenizer.pad_token_id,
            )  # fmt: skip
            assert conversation.ids[attempt.start : attempt.end] == said[0, attempt.start :].tolist()


def test_hands_are_seen_and_answered_as_transformers_does(policy):
    """Rows of several lengths, feedback read from the cache, rows that end apart."""
    greedy = play_in(policy, hand_environments([3, 1, 4, 2]), 0.0)
    assert [len(episode.attempts) for episode in greedy] == [3, 1, 4, 2]
    check_against_generate(policy, greedy)
    check_against_forward(policy, greedy, 0.0)
    check_against_forward(policy, play_in(policy, hand_environments([3, 1, 2])))


def test_a_gpus_path_sees_the_same(policy, monkeypatch):
    """Static shapes, with rows beyond those in use, and prompts read in several parts."""
    monkeypatch.setattr(decoding, "_FEED_STATIC", 64)
    policy.decoding.static = True
    check_against_forward(policy, play_in(policy, hand_environments([3, 1, 2])))


def test_streets_are_seen_as_in_a_forward_pass(policy):
    """Another picture at every position, of one tile where a hand has two."""
    envs = [Guided("image", routes="chicago", max_attempts=2, view_size=16) for _ in range(2)]
    envs[1].answers = 1
    resets = [{"seed": 1, "options": {"route": route}} for route in (189, 44)]
    episodes = rollout(policy, envs, resets, 1.0, 8, range(len(envs)))
    check_against_forward(policy, episodes)
    assert [len(episode.conversations) for episode in episodes] == [5, 5]
    hand, _ = GP_VL.make_env(GP_VL.training, 1).reset(seed=0)
    tiles = [p["aspect_ratio_mask"].sum() for p in (policy.prompt(hand).picture, episodes[0].conversations[0].picture)]
    assert tiles == [2, 1]


def test_another_picture_is_read_with_all_that_stands_before_it(policy):
    """In transformers' Mllama even the tokens before a picture depend on it; with the same one the cache serves."""
    pages = [("Look: 1+2=3. ", 1, "a"), ("Look: 1+2=3. ", 2, "a"), ("Look: 1+2=3. ", 2, "b, c"), ("Now ", 2, "b")]
    episodes = play_in(policy, [Album(pages), Album(pages[::-1]), Album(pages[1:])])
    check_against_forward(policy, episodes)
    first, _, third, _ = episodes[0].conversations
    read = episodes[0].tokens_read - 3 * 4  # two pictures, one of them twice, of four patches
    assert read < sum(len(c.ids) - 1 for c in episodes[0].conversations), "what is shared is spared"
    assert not torch.equal(first.picture["pixel_values"], third.picture["pixel_values"])


def test_text_alone_after_pictures_sees_none(policy):
    """GP-L and GP-VL by the same model, one after the other with one cache."""
    play_in(policy, hand_environments([2, 1, 2]))
    check_against_forward(policy, play_text(policy, environments([2, 1, 3]), 1.0), 1.0)
    check_against_forward(policy, play_in(policy, hand_environments([2, 1])))


def test_a_batch_in_training_sees_what_rollouts_saw(policy):
    rows = with_advantages(play_in(policy, hand_environments([2, 1, 3])), CONFIG)
    batch = make_batch(rows, policy)
    found = token_logprobs(policy, batch, 1.0).detach()
    assert found.numpy() == pytest.approx(batch.old_logprobs.numpy(), abs=1e-4)
    accumulate_gradient(policy, rows, CONFIG, micro_batch_tokens=1)
    assert sum(p.grad.norm() for p in policy.decoder.vision_model.parameters() if p.grad is not None) > 0
    batch.pictures["pixel_values"] = batch.pictures["pixel_values"].roll(1, 0)
    assert (token_logprobs(policy, batch, 1.0) - found).abs().max() > 1e-3


def test_an_update_of_ppo_and_what_it_writes(policy, tmp_path):
    before = [p.detach().clone() for p in policy.decoder.vision_model.parameters()]
    branch = Branch(policy, GP_VL, replace(CONFIG, lr=1e-3), tmp_path, Compute(policy.parameters_count), 1.0)
    ppo.train(branch)
    assert branch.compute.trained_tokens > 4 * 4 + branch.compute.buffer_tokens / 2
    assert any(not torch.equal(a, b) for a, b in zip(before, policy.decoder.vision_model.parameters(), strict=True))
    [folder] = tmp_path.glob("step-*")
    check_against_forward(load_policy(folder), play_in(load_policy(folder), hand_environments([2, 1])))


def test_sft_reads_what_rl_reads(policy, dataset, tmp_path):
    """The batch is the policy's own prompt and picture, then the answer, on which alone the loss falls."""
    batch = collators.mllama_collator(policy.processor)([dataset[i] for i in range(4)])
    for i, example in enumerate(dataset.select(range(4))):
        prompt = policy.prompt({"messages": example["prompt"], "image": np.asarray(example["images"][0])})
        said = policy.tokenizer(message_text(example["completion"][0]), add_special_tokens=False).input_ids
        ids, labels, mask = (batch[name][i] for name in ("input_ids", "labels", "attention_mask"))
        whole = [*prompt.ids, *said, policy.end_token]
        assert ids[mask.bool()].tolist() == whole
        assert labels[mask.bool()].tolist() == [-100] * len(prompt.ids) + whole[len(prompt.ids) :]
        expected = forward_inputs(policy, whole, prompt.picture)
        assert torch.equal(batch["pixel_values"][i], expected["pixel_values"][0])
        assert torch.equal(batch["cross_attention_mask"][i][: len(whole)], expected["cross_attention_mask"][0])
    compute = Compute(policy.parameters_count)
    before = [p.detach().clone() for p in policy.decoder.vision_model.parameters()]
    sft.train_steps(Branch(policy, GP_VL, TRAINING, tmp_path, compute, 0.0, 0, data=dataset), 2)
    assert any(not torch.equal(a, b) for a, b in zip(before, policy.decoder.vision_model.parameters(), strict=True))
    # A picture counts as the four patches of a tile, beside its one token.
    assert compute.trained_tokens == pytest.approx(8 * (sft.tokens_per_example(policy, dataset) + 4))


def test_frozen_vision_does_not_learn(policy, dataset, tmp_path):
    before = {name: p.detach().clone() for name, p in policy.decoder.named_parameters()}
    branch = Branch(policy, GP_VL, replace(TRAINING, frozen="vision"), tmp_path, Compute(1), 0.0, 0, data=dataset)
    sft.train_steps(branch, 2)
    changed = {n.split(".")[0] for n, p in policy.decoder.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"multi_modal_projector", "language_model"}
