"""Pictures in training: what is drawn reaches the model, in rollouts, in SFT and in PPO, and nothing else does."""

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from datasets import load_from_disk
from tiny_models import (
    IMAGE_TOKENS,
    reference_logprobs,
    reference_values,
    tiny_policy,
    tiny_vision_policy,
    with_advantages,
)

from sftrl_lib import paths
from sftrl_lib.configs import PPOConfig, Protocol, SFTConfig
from sftrl_lib.evaluation.episodes import play, transcript
from sftrl_lib.evaluation.players import answer
from sftrl_lib.messages import message_text, parts_message
from sftrl_lib.models.policy import Prompt, load_policy
from sftrl_lib.models.rollout import cached_prefix, rollout
from sftrl_lib.points import card_numbers, grade, is_heldout
from sftrl_lib.points.environment import GeneralPoints
from sftrl_lib.points.verifier import read_cards
from sftrl_lib.tasks import GP_VL, VIRL_L, VIRL_VL
from sftrl_lib.training import ppo, sft
from sftrl_lib.training.batch import make_batch
from sftrl_lib.training.branch import Branch
from sftrl_lib.training.compute import Compute
from sftrl_lib.training.data import make_dataset
from sftrl_lib.training.logprobs import token_logprobs
from sftrl_lib.training.ppo import accumulate_gradient, ppo_loss
from sftrl_lib.training.sft import tokens_per_example, train_steps
from sftrl_lib.virl.environment import Navigation
from sftrl_lib.virl.prompts import expert_pairs, expert_response
from sftrl_lib.virl.street_views import shared_street_views
from sftrl_lib.virl.street_views.sources import DrawnStreetViews

MAX_NEW = 8
CONFIG = PPOConfig(episodes=4, attempts=2, max_new_tokens=MAX_NEW)
TRAINING = SFTConfig(examples=16, batch_size=8, lr=1e-3)


@pytest.fixture
def policy(tokenizer):
    return tiny_vision_policy(tokenizer)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data") / "gp-vl-expert", GP_VL, "expert", 16, seed=3)


def hand_environments(attempts):
    return [GP_VL.training_env(n) for n in attempts]


def play_in(policy, envs, temperature=1.0, seed=0):
    resets, seeds = [{"seed": i} for i in range(len(envs))], [100 * seed + i for i in range(len(envs))]
    return rollout(policy, envs, resets, temperature, MAX_NEW, seeds)


# Rollouts


def test_the_model_never_says_a_picture(policy):
    """Even one that likes nothing better: there would be a token without its features."""
    with torch.no_grad():
        policy.model.get_input_embeddings().weight[policy.image_token, 0] += 100
    for episode in play_in(policy, hand_environments([3, 2])):
        for conversation in episode.conversations:
            assert conversation.ids.count(policy.image_token) == IMAGE_TOKENS


def check_against_forward(policy, episodes, temperature=1.0):
    for conversation in (c for episode in episodes for c in episode.conversations):
        assert conversation.ids.count(policy.image_token) == IMAGE_TOKENS
        logprobs = reference_logprobs(policy, conversation.ids, temperature, conversation.picture)
        values = reference_values(policy, conversation.ids, conversation.picture)
        for attempt in conversation.attempts:
            expected = logprobs[attempt.start - 1 : attempt.end - 1]
            assert torch.tensor(attempt.logprobs) == pytest.approx(expected.numpy(), abs=1e-4)
            assert attempt.value == pytest.approx(values[attempt.start - 1].item(), abs=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_hands_are_seen_as_in_a_forward_pass(policy, temperature):
    envs = hand_environments([3, 1, 4, 2])
    episodes = play_in(policy, envs, temperature)
    check_against_forward(policy, episodes, temperature)
    assert [len(episode.attempts) for episode in episodes] == [3, 1, 4, 2]
    for env, episode in zip(envs, episodes, strict=True):
        shown = policy.prompt(env._observation())
        assert torch.equal(episode.conversations[0].picture["pixel_values"], shown.picture["pixel_values"])


class Guided(Navigation):
    """Navigation that takes every second answer for the expert's, so that any model sees many positions."""

    def step(self, action):
        self.answers = getattr(self, "answers", 0) + 1
        point = self.rail.points[self._position]
        right = expert_response(point.observation, point.instruction, point.action(self.actions))
        return super().step(right if self.answers % 2 == 0 else action)


def test_streets_are_seen_as_in_a_forward_pass(policy):
    """Every position is a new prompt with a picture of its own; rows are at different positions, and end apart."""
    envs = [Guided("image", routes="chicago", max_attempts=2, view_size=16) for _ in range(3)]
    envs[1].answers = 1  # right at its first answer, wrong at its second
    resets = [{"seed": 1, "options": {"route": route}} for route in (189, 44, 18)]
    episodes = rollout(policy, envs, resets, 1.0, MAX_NEW, range(len(envs)))
    check_against_forward(policy, episodes)
    assert all(e.terminated for e in episodes) and [len(e.conversations) for e in episodes] == [5, 5, 7]
    pictures = [c.picture["pixel_values"] for c in episodes[0].conversations]
    assert not torch.equal(pictures[0], pictures[-1])


class Album:
    """Shows one chat after the other, each with the picture of that number, whatever is answered."""

    def __init__(self, pages):
        self.pages = [self.page(*page) for page in pages]

    def page(self, before, number, after):
        parts = [{"type": "text", "text": before}, {"type": "image"}, {"type": "text", "text": after}]
        image = np.random.default_rng(number).integers(0, 255, (64, 128, 3), dtype=np.uint8)
        return {"messages": [{"role": "user", "content": parts}], "image": image}

    def reset(self, seed=None, options=None):
        self.shown = 0
        return self.pages[0], {}

    def step(self, text):
        self.shown += 1
        over = self.shown == len(self.pages)
        page = self.pages[self.shown - over]
        return page, -1.0, False, over, {"outcome": "wrong_value", "feedback": ""}


def test_what_was_read_is_reused_up_to_another_picture(policy):
    """Same text, another picture; same picture, another ending; another beginning, same picture."""
    beginning, pages = "Look: 1+2=3. ", []
    for picture, ending in ((1, "a"), (2, "a"), (2, "b"), (2, "c, d")):
        pages.append((beginning, picture, ending))
    pages.append(("And now ", 2, "c, d"))
    episodes = play_in(policy, [Album(pages), Album(pages[2:]), Album(pages[::-1])])
    check_against_forward(policy, episodes)
    read = sum(len(c.ids) - 1 for c in episodes[0].conversations)
    before = policy.prompt(episodes_page(pages[0])).ids.index(policy.image_token)
    assert before > 5
    spared = before + 2 * (before + IMAGE_TOKENS) + 1  # another picture; twice the same one; the user's token
    assert episodes[0].tokens_read == read - spared


def episodes_page(page):
    return Album([page]).pages[0]


def test_the_cached_prefix_by_hand():
    prompt = Prompt([1, 2, 9, 9, 3, 4])
    assert cached_prefix([1, 2, 9, 9, 3, 5], prompt, True, 9) == 5
    assert cached_prefix([1, 2, 9, 9, 3, 5], prompt, False, 9) == 2
    assert cached_prefix([1, 5], prompt, False, 9) == 1
    assert cached_prefix([1, 2, 9, 9, 3, 4, 7], prompt, True, 9) == 5, "the last token is read again"


# PPO


def ppo_rows(policy, attempts=(2, 1, 3, 2)):
    return with_advantages(play_in(policy, hand_environments(attempts)), CONFIG)


def vision_gradient(policy):
    return sum(p.grad.norm() for p in policy.decoder.vision_tower.parameters() if p.grad is not None)


def test_ppo_sees_the_pictures(policy):
    """The wrong pictures change the loss; with the right ones every ratio is one, and gradients reach the tower."""
    batch = make_batch(ppo_rows(policy), policy)
    assert batch.pictures["pixel_values"].shape == (4, 3, 128, 128)
    loss, log = ppo_loss(policy, batch, CONFIG)
    assert log["clip_fraction"] == 0 and log["approx_kl"] == pytest.approx(0, abs=1e-6)
    loss.backward()
    assert vision_gradient(policy) > 0
    batch.pictures = {name: pixels.roll(1, 0) for name, pixels in batch.pictures.items()}
    shuffled, log = ppo_loss(policy, batch, CONFIG)
    assert abs(shuffled.item() - loss.item()) > 1e-3 and log["approx_kl"] > 1e-4


def test_logprobs_of_a_batch_are_those_of_a_forward_pass(policy):
    rows = ppo_rows(policy)
    batch = make_batch(rows, policy)
    found = token_logprobs(policy, batch, 0.7).detach()
    for row, [(conversation, _)] in enumerate(rows):
        expected = reference_logprobs(policy, conversation.ids, 0.7, conversation.picture)
        here = batch.row == row
        assert found[here].numpy() == pytest.approx(expected[batch.predictor[here]].numpy(), abs=1e-4)


def test_parts_of_a_minibatch_keep_their_pictures(policy):
    found, rows = [], ppo_rows(policy)
    for tokens in (10_000, 1):
        policy.model.zero_grad()
        accumulate_gradient(policy, rows, CONFIG, micro_batch_tokens=tokens)
        found.append([p.grad.clone() for p in policy.model.parameters() if p.grad is not None])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=2e-3, atol=2e-5)


def test_ppo_from_end_to_end(policy, tmp_path):
    """Two updates on GP-VL, the tower among what is trained; what is written can be loaded and tested."""
    tower = [p.detach().clone() for p in policy.decoder.vision_tower.parameters()]
    compute, budget = Compute(policy.parameters_count), 8.0 * policy.parameters_count * 4 * 2 * 110
    ppo.train(Branch(policy, GP_VL, replace(CONFIG, lr=1e-3), tmp_path, compute, budget))
    history = json.loads((tmp_path / "log.json").read_text())
    assert len(history) == 2 and all(np.isfinite(list(entry.values())).all() for entry in history)
    assert any(not torch.equal(a, b) for a, b in zip(tower, policy.decoder.vision_tower.parameters(), strict=True))
    [folder] = tmp_path.glob("step-*")
    check_against_forward(load_policy(folder), play_in(load_policy(folder), hand_environments([2])))


# SFT


def branch(policy, data, folder, config=TRAINING, compute=None, checkpoints=0):
    """What SFT is given; its steps are said apart, so there is no budget."""
    return Branch(policy, GP_VL, config, folder, compute or Compute(1), 0.0, checkpoints, data=data)


@pytest.fixture
def trainers(monkeypatch):
    """The trainers that SFT makes."""
    made = []

    class Watched(sft._Trainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(sft, "_Trainer", Watched)
    return made


def test_sft_sees_the_pictures(policy, dataset, tmp_path, trainers):
    """Through the very collator and model of SFT: the wrong pictures, and nothing else, change the loss."""
    tower = [p.detach().clone() for p in policy.decoder.vision_tower.parameters()]
    train_steps(branch(policy, dataset, tmp_path, checkpoints=1), 2)
    assert any(not torch.equal(a, b) for a, b in zip(tower, policy.decoder.vision_tower.parameters(), strict=True))
    [trainer] = trainers
    assert trainer.model is policy.model

    def loss(images):
        rows = [{**dataset[i], "images": images[i]} for i in range(8)]
        inputs = trainer.data_collator(rows)
        return trainer.compute_loss(policy.model, dict(inputs)), inputs

    images = dataset["images"][:8]
    (right, inputs), (again, _), (wrong, others) = (loss(i) for i in (images, images, images[1:] + images[:1]))
    assert right.item() == again.item() and abs(wrong.item() - right.item()) > 1e-4
    assert all(torch.equal(inputs[key], others[key]) for key in ("input_ids", "labels", "attention_mask"))
    policy.model.zero_grad()
    right.backward()
    assert vision_gradient(policy) > 0


def test_sft_reads_what_rl_reads(policy, dataset, tmp_path, trainers):
    """The collator's batch is the policy's own prompt and picture, then the answer, on which alone the loss falls."""
    compute = Compute(policy.parameters_count)
    train_steps(branch(policy, dataset, tmp_path, compute=compute), 2)
    batch, lengths = trainers[0].data_collator([dataset[i] for i in range(16)]), []
    rows = zip(batch["input_ids"], batch["labels"], batch["attention_mask"], batch["pixel_values"], strict=True)
    for example, (ids, labels, mask, pixels) in zip(dataset, rows, strict=True):
        prompt = policy.prompt({"messages": example["prompt"], "image": np.asarray(example["images"][0])})
        said = policy.tokenizer(message_text(example["completion"][0]), add_special_tokens=False).input_ids
        said.append(policy.end_token)
        assert ids[mask.bool()].tolist() == prompt.ids + said
        assert labels[mask.bool()].tolist() == [-100] * len(prompt.ids) + said and (labels[~mask.bool()] == -100).all()
        assert torch.equal(pixels, prompt.picture["pixel_values"][0])
        lengths.append(len(prompt.ids) + len(said))
    assert tokens_per_example(policy, dataset) == pytest.approx(np.mean(lengths))
    assert compute.trained_tokens == sum(lengths), "one pass over the examples"


@pytest.mark.parametrize("what, learns", [
    ("none", {"vision_tower", "multi_modal_projector", "language_model"}),
    ("vision", {"multi_modal_projector", "language_model"}),
    ("vision+adapter", {"language_model"}),
])  # fmt: skip
def test_frozen_parts_do_not_learn(policy, dataset, tmp_path, what, learns):
    before = {name: p.detach().clone() for name, p in policy.decoder.named_parameters()}
    train_steps(branch(policy, dataset, tmp_path, replace(TRAINING, frozen=what)), 2)
    changed = {name for name, p in policy.decoder.named_parameters() if not torch.equal(p, before[name])}
    assert {name.split(".")[0] for name in changed} == learns
    assert all(p.requires_grad for p in policy.model.parameters()), "frozen for SFT alone"


def test_freezing_what_is_not_there(policy, dataset, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="frozen must be one of 'none', 'vision', 'vision.adapter', got 'head'.$"):
        replace(TRAINING, frozen="head")
    with pytest.raises(ValueError, match="no vision"):
        train_steps(branch(tiny_policy(tokenizer), dataset, tmp_path, replace(TRAINING, frozen="vision")), 1)
    with pytest.raises(ValueError, match="'head'.*'vision'"), sft.frozen(policy, "head"):
        pass


def test_tied_embeddings_stay_tied(vision_folder, dataset, tmp_path):
    """Through loading, training, saving and loading again."""
    policy = load_policy(vision_folder)
    train_steps(branch(policy, dataset, tmp_path / "run"), 1)
    policy.save(tmp_path / "again")
    for model in (policy.model, load_policy(tmp_path / "again").model):
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    parameters = sum(p.numel() for p in load_policy(vision_folder).model.parameters())
    assert policy.parameters_count == parameters


def test_examples_of_like_length_share_a_batch(policy, tmp_path, trainers):
    data = make_dataset(tmp_path / "data", GP_VL, "suboptimal", 32, seed=0)
    config = replace(TRAINING, group_by_length=True, batch_size=2)
    train_steps(branch(policy, data, tmp_path / "run", config), 1)
    [trainer] = trainers
    spread = [sizes.max() - sizes.min() for sizes in (
        batch["attention_mask"].sum(1).float() for batch in trainer.get_train_dataloader()
    )]  # fmt: skip
    every = torch.cat([batch["attention_mask"].sum(1) for batch in trainer.get_train_dataloader()])
    assert len(every) == 32 and np.mean(spread) < (every.max() - every.min()) / 2


# The demonstrations


def test_demonstrations_are_hands_of_the_environment():
    """Black cards of training hands; messages in parts; the picture is the environment's, dealt with the same seed."""
    rng, env = np.random.default_rng(7), GeneralPoints("image", **GP_VL.training)
    assert (env.hands, env.suits) == ("train", "black")
    for example in islice(GP_VL.demonstrations("expert", np.random.default_rng(7)), 20):
        observation, info = env.reset(seed=int(rng.integers(2**32)))
        rng.integers(2**63)
        assert example["prompt"] == observation["messages"]
        assert np.array_equal(np.asarray(example["images"][0]), observation["image"])
        [completion] = example["completion"]
        assert completion == parts_message("assistant", message_text(completion))
        text = message_text(completion)
        assert sorted(read_cards(text)) == sorted(info["cards"])
        assert grade(text, info["cards"], modality="image").outcome == "correct"
        assert set(info["suits"]) <= {"spades", "clubs"} and not is_heldout(card_numbers(info["cards"]))
        assert not GP_VL.shows_held_out(example)


def test_failed_attempts_before_the_right_one():
    examples = list(islice(GP_VL.demonstrations("suboptimal", np.random.default_rng(0)), 40))
    assert {len(example["prompt"]) for example in examples} == {1, 3, 5, 7, 9}
    for example in examples:
        cards = read_cards(message_text(example["completion"][0]))
        for mistake, feedback in zip(example["prompt"][1::2], example["prompt"][2::2], strict=True):
            verdict = grade(message_text(mistake), cards, modality="image")
            assert verdict.outcome not in ("correct", "misread") and feedback == parts_message("user", verdict.feedback)
        places = [part["type"] for message in example["prompt"] for part in message["content"]]
        assert places.count("image") == 1 and places[0] == "image"


def test_shows_held_out_is_about_the_answer():
    shown = {"completion": [parts_message("assistant", '"number": [1, 1, 1, 8],')]}
    assert GP_VL.shows_held_out(shown) == is_heldout([1, 1, 1, 8])
    for direction, held_out in (("north", False), ("slightly left", True)):
        turn = {"completion": [parts_message("assistant", f'"action": "turn_direction({direction})"')]}
        assert VIRL_VL.shows_held_out(turn) == held_out


def test_a_data_set_with_pictures_survives_the_disk(dataset, tmp_path):
    made = list(islice(GP_VL.demonstrations("expert", np.random.default_rng(3)), 16))
    assert dataset.column_names == ["prompt", "completion", "images", "cards", "rule", "target"]
    for example, kept in zip(made, dataset, strict=True):
        assert np.array_equal(np.asarray(example["images"][0]), np.asarray(kept["images"][0]))
        assert [message_text(m) for m in example["prompt"]] == [message_text(m) for m in kept["prompt"]]
        assert example["completion"] == kept["completion"]
    dataset.save_to_disk(tmp_path / "copy")
    assert load_from_disk(str(tmp_path / "copy"))[0]["images"][0].size == (128, 64)


# Navigation


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Every panorama that is drawn, from an empty cache on."""
    shared_street_views.cache_clear()
    monkeypatch.setattr(paths, "HOME", tmp_path)  # nothing is kept there yet
    places, original = [], DrawnStreetViews._make

    def make(self, place, panorama_id, *how):
        places.append(panorama_id)
        return original(self, place, panorama_id, *how)

    monkeypatch.setattr(DrawnStreetViews, "_make", make)
    return places


def test_demonstrations_of_navigation_are_drawn_as_they_are_asked_for(drawn):
    """The text task's routes, positions and answers; the views of the environment; nothing drawn twice in a process."""
    text = list(islice(VIRL_L.demonstrations("expert", np.random.default_rng(2)), 6))
    examples = VIRL_VL.demonstrations("expert", np.random.default_rng(2))
    first = next(examples)
    assert len(drawn) == 1, "only what was asked for"
    shown = [first, *islice(examples, 5)]
    assert [message_text(e["completion"][0]) for e in shown] == [e["completion"][0]["content"] for e in text]
    rng, env = np.random.default_rng(2), VIRL_VL.training_env(2)
    for example, route in zip(shown, map(int, rng.permutation(1000)), strict=False):
        seed = int(rng.integers(2**31))
        _, info = env.reset(seed=seed, options={"route": route})
        position = int(rng.integers(len(info["rail"])))
        observation, _ = env.reset(seed=seed, options={"route": route, "position": position})
        prompt, _ = list(expert_pairs(info["rail"], "absolute", "image"))[position]
        assert example["prompt"] == observation["messages"] == [parts_message("user", prompt, image=True)]
        assert np.array_equal(np.asarray(example["images"][0]), observation["image"])
    assert len(drawn) == len(set(drawn)), "another environment of the city draws nothing again"


def test_rollouts_and_tests_of_navigation(policy, drawn):
    """On the nine other cities; transcripts are plain JSON, from which the pictures can be drawn again."""
    check_against_forward(policy, play_in(policy, [VIRL_VL.make_env(VIRL_VL.split("visual_ood"), 2) for _ in range(3)]))
    how = Protocol(episodes=6, attempts=2, temperature=1.0, max_new_tokens=MAX_NEW)
    episodes = play(policy, VIRL_VL, "visual_ood", how, seed=0, batch=3)
    assert len(drawn) == len(set(drawn))
    assert all(c.picture is None for episode in episodes for c in episode.conversations), "they would fill the memory"
    metrics = VIRL_VL.measure("visual_ood", episodes)
    assert set(metrics) == {"step_accuracy", "success", "first_attempt", "format", "legal_action"}
    shown = transcript(VIRL_VL, "visual_ood", episodes[0], policy, 0)
    assert shown["city"] == "mini" and shown["turns"][0]["position"] == 0
    assert shown["turns"][0]["prompt"].startswith("[Task Description]"), "image tokens are no text"


# Playing


def test_a_player_sees_the_picture(policy):
    observation, _ = GP_VL.training_env(2).reset(seed=1)
    other, _ = GP_VL.training_env(2).reset(seed=2)
    assert observation["messages"] == other["messages"]
    said = [answer(policy, seen, temperature=0.0, max_new_tokens=MAX_NEW).text for seen in (observation, other)]
    assert said[0] != said[1]
    [episode] = rollout(policy, hand_environments([1]), [{"seed": 1}], 0.0, MAX_NEW, [0])
    assert episode.attempts[0].text == said[0]
    assert answer(policy, {"messages": [{"role": "user", "content": "Hello"}]}).tokens
