"""The environment: nonsense is refused, seeds decide, hands are well formed, experts win, the wrong lose."""

import warnings
from itertools import product

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import sftrl_lib  # noqa: F401  (registers the environments)
from sftrl_lib.messages import message_text, messages_space, text_space
from sftrl_lib.points import SUITS, card_numbers, is_heldout, is_solvable, solve
from sftrl_lib.points.cards import TIDY, Look, draw_hand
from sftrl_lib.points.environment import GeneralPoints
from sftrl_lib.points.prompts import FEEDBACK, expert_response, response, task_prompt
from sftrl_lib.points.rules import FACES

HAND = ["4", "3", "2", "K"]
WRONG = response(HAND, [4, 3, 2, 10], "4*3+2-10=24")
RIGHT = expert_response(HAND, "4*3+2+10")
INFO_KEYS = {"cards", "numbers", "outcome", "feedback", "attempts_left"}


def make(**options):
    return gymnasium.make("sftrl/GeneralPoints-v0", **options).unwrapped


def hands(env, count, seed=0):
    infos = [env.reset(seed=seed)[1]] + [env.reset()[1] for _ in range(count - 1)]
    return [(tuple(info["cards"]), tuple(info["numbers"])) for info in infos]


@pytest.mark.parametrize(
    "options, named",
    [
        ({"modality": "sound"}, "modality='sound'"),
        ({"image_size": (64, 128, 3)}, "image size"),
        ({"image_size": (4, 128)}, "image size"),
        ({"look": "dark"}, "look must be a Look, got 'dark'"),
        ({"rule": "eleven"}, "'eleven'"),
        ({"rule": (10, 10)}, "three values"),
        ({"rule": (0, 10, 10)}, "got 0"),
        ({"rule": 10}, "three values"),
        ({"deal": "ood"}, "deal='ood'"),
        ({"suits": "blue"}, "suits='blue'"),
        ({"target": 24.5}, "got 24.5"),
        ({"target": True}, "got True"),
        ({"max_attempts": 0}, "at least 1, got 0"),
        ({"max_attempts": 2.5}, "at least 1, got 2.5"),
        ({"verifier": "strict"}, "verifier='strict'"),
        ({"hands": "test"}, "hands='test'"),
    ],
)
def test_nonsense_is_refused_and_named(options, named):
    with pytest.raises(ValueError, match=named):
        make(**options)


@pytest.mark.parametrize(
    "options, named",
    [
        ({"hand": ["4", "3", "2"]}, "four cards"),
        ({"hand": 24}, "four cards"),
        ({"hand": ["4", "3", "2", "11"]}, "'11'"),
        ({"hand": ["A", "A", "A", "A"]}, "cannot make 24"),
        ({"cards": HAND}, "Unknown reset option 'cards'"),
        ({"suits": ["spades"] * 4}, "goes with 'hand'"),
        ({"hand": HAND, "suits": ["spades"] * 3}, "list of four"),
        ({"hand": HAND, "suits": ["spades"] * 3 + ["stars"]}, "suit='stars'"),
    ],
)
def test_bad_hands_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        make().reset(options=options)


def test_impossible_dealing_says_so():
    with pytest.raises(ValueError, match="No solvable hand for target=1000000"):
        make(target=1_000_000, suits="black").reset(seed=0)


def test_check_env_is_silent():
    for verifier, modality in product(("exact", "official"), ("text", "image")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_env(make(verifier=verifier, modality=modality))


def test_spaces_admit_any_text():
    assert "\0é٤\ud800" * 1000 in text_space()
    assert [{"role": "user", "content": "\0é"}] in messages_space()
    assert [{"role": "nobody", "content": ""}] not in messages_space()
    text, picture = messages_space(), messages_space(parts=True)
    assert text != picture and text.sample() in text and picture.sample() in picture
    assert text.sample() not in picture and picture.sample() not in text
    for part in ({"type": "image", "text": ""}, {"type": "text"}, {"type": "sound"}, {"type": "text", "text": 5}, "a"):
        assert [{"role": "user", "content": [part]}] not in picture


def test_same_seed_same_hands():
    assert hands(make(), 20, seed=3) == hands(make(), 20, seed=3)
    assert hands(make(), 20, seed=3) != hands(make(), 20, seed=4)


@pytest.mark.parametrize("deal", ["any", "face"])
@pytest.mark.parametrize("rule", ["ten", "distinct", (5, 6, 7)])
def test_dealt_hands_are_well_formed(rule, deal):
    for cards, numbers in hands(make(rule=rule, deal=deal), 200):
        assert numbers == card_numbers(cards, rule) and is_solvable(numbers)
        assert deal == "any" or any(card in FACES for card in cards)
        assert all(cards.count(card) <= 4 for card in cards)


def test_half_a_deck_holds_two_of_each_rank():
    for suits in ("black", "red"):
        assert max(cards.count(card) for cards, _ in hands(make(suits=suits), 300) for card in cards) == 2


@pytest.mark.parametrize("rule", ["ten", "distinct"])
def test_heldout_hands_never_occur_in_training(rule):
    train = {tuple(sorted(numbers)) for _, numbers in hands(make(rule=rule, hands="train"), 1500)}
    heldout = {tuple(sorted(numbers)) for _, numbers in hands(make(rule=rule, hands="heldout"), 500)}
    assert len(train) > 300 and len(heldout) > 20
    assert not train & heldout
    assert all(map(is_heldout, heldout)) and not any(map(is_heldout, train))


@pytest.mark.parametrize("verifier", ["exact", "official"])
@pytest.mark.parametrize(
    "rule, target", [("ten", 24), ("distinct", 24), ((3, 8, 9), 24), ("ten", 10), ("distinct", 36)]
)
def test_the_expert_wins_at_once(verifier, rule, target):
    env = make(rule=rule, target=target, verifier=verifier)
    for seed in range(15):
        _, info = env.reset(seed=seed)
        formulas = solve(info["numbers"], target)
        # The official verifier compares floats, so its expert avoids divisions.
        whole = [formula for formula in formulas if "/" not in formula]
        if verifier == "official" and not whole:
            continue
        answer = expert_response(info["cards"], (whole or formulas)[0], rule, target)
        _, reward, terminated, truncated, info = env.step(answer)
        assert (reward, terminated, truncated, info["outcome"]) == (5, True, False, "correct")


@pytest.mark.parametrize(
    "answer, reward, outcome",
    [
        (WRONG, -1, "wrong_value"),
        (response(HAND, [4, 3, 2, 10], "4*3+2+11"), -2, "wrong_numbers"),
        (response(HAND, [4, 3, 2, 10], "4*3+2+"), -3, "illegal"),
        ("", -3, "illegal"),
    ],
)
def test_failures_are_graded_and_answered(answer, reward, outcome):
    env = make()
    env.reset(seed=0, options={"hand": HAND})
    observation, got, terminated, truncated, info = env.step(answer)
    assert (got, terminated, truncated) == (reward, False, False)
    assert info["outcome"] == outcome and info["feedback"] == FEEDBACK[outcome]
    assert observation["messages"][1:] == [
        {"role": "assistant", "content": answer},
        {"role": "user", "content": FEEDBACK[outcome]},
    ]


def test_the_chat_grows_and_earlier_observations_stay():
    env = make()
    first, info = env.reset(seed=0, options={"hand": HAND})
    assert info == {
        "cards": HAND,
        "numbers": [4, 3, 2, 10],
        "outcome": None,
        "feedback": None,
        "attempts_left": 5,
    }
    assert first == {"messages": [{"role": "user", "content": task_prompt(HAND)}]}
    second, *_, info = env.step(WRONG)
    assert info["attempts_left"] == 4 and info.keys() == INFO_KEYS
    third, reward, terminated, _, info = env.step(RIGHT)
    assert (reward, terminated, info["attempts_left"]) == (5, True, 3)
    assert [len(observation["messages"]) for observation in (first, second, third)] == [1, 3, 4]
    assert third["messages"][:3] == second["messages"]
    third["messages"][0]["content"] = "changed by the caller"
    assert env.reset(options={"hand": HAND})[0] == first  # a new hand begins a new chat


def test_the_last_graded_attempt_truncates_and_keeps_its_reward():
    env = make(max_attempts=3)
    env.reset(seed=0, options={"hand": HAND})
    ends = [env.step(answer)[1:4] for answer in (WRONG, WRONG, "")]
    assert ends == [(-1, False, False), (-1, False, False), (-3, False, True)]
    with pytest.raises(ResetNeeded, match="reset"):
        env.step(WRONG)
    env.reset(options={"hand": HAND})
    assert [env.step(answer)[1:4] for answer in (WRONG, WRONG, RIGHT)][-1] == (5, True, False)


def test_the_official_episode_has_a_sixth_ungraded_answer():
    env = make(verifier="official")
    env.reset(seed=0, options={"hand": HAND})
    for left in (4, 3, 2, 1, 0):
        observation, reward, terminated, truncated, info = env.step(WRONG)
        assert (reward, terminated, truncated, info["attempts_left"]) == (-1, False, False, left)
    message = "4*3+2 is partially correct but the full formula does not match any solution."
    assert info["feedback"] == message
    assert observation["messages"][-1]["content"] == "You failed this trial because " + message
    _, reward, terminated, truncated, info = env.step(RIGHT)  # ignored although right
    assert (reward, terminated, truncated, info["feedback"]) == (-1, False, True, "step_limit_reached")


def test_the_prompt_states_rule_and_target():
    for rule, words in [("ten", "count as '10'"), ("distinct", "'11', '12', and '13' respectively")]:
        prompt = make(rule=rule, target=36).reset(seed=0)[0]["messages"][0]["content"]
        assert words in prompt and "evaluates to 36" in prompt


def test_an_action_that_is_no_text_is_named():
    env = make()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="got bytes"):
        env.step(b"4*3+2+10")


def test_the_picture_and_the_prompt_of_the_image_modality():
    env = make(modality="image", image_size=(96, 192), look=TIDY)
    observation, info = env.reset(seed=0, options={"hand": HAND, "suits": ["clubs", "hearts", "spades", "diamonds"]})
    assert info["cards"] == HAND and info["suits"] == ["clubs", "hearts", "spades", "diamonds"]
    assert observation in env.observation_space
    assert (observation["image"] == draw_hand(HAND, info["suits"], (96, 192))).all()
    (message,) = observation["messages"]
    image, text = message["content"]
    assert image == {"type": "image"} and text == {"type": "text", "text": task_prompt(HAND, modality="image")}
    assert "in the image" in text["text"] and "Cards:" not in text["text"] and "'4'" not in text["text"]
    assert message_text(message) == text["text"]


def test_the_picture_stays_while_the_chat_grows():
    env = make(modality="image")
    first, _ = env.reset(seed=0, options={"hand": HAND})
    before = first["image"].copy()
    first["image"][:] = 0  # the caller's copy
    first["messages"][0]["content"][1]["text"] = "changed by the caller"
    second, *_, info = env.step(WRONG)
    assert (second["image"] == before).all() and info["suits"]
    assert [message_text(message) for message in second["messages"]] == [
        task_prompt(HAND, modality="image"),
        WRONG,
        FEEDBACK["wrong_value"],
    ]
    assert second in env.observation_space


def test_trl_finds_one_place_for_one_picture():
    """TRL's own preparation fills the picture in, also once feedback has been given."""
    from trl.data_utils import prepare_multimodal_messages

    env = make(modality="image")
    env.reset(seed=0, options={"hand": HAND})
    observation, *_ = env.step(WRONG)
    filled = prepare_multimodal_messages(observation["messages"], [observation["image"]])
    images = [part for message in filled for part in message["content"] if part["type"] == "image"]
    assert len(images) == 1 and images[0]["image"] is observation["image"]


@pytest.mark.parametrize("suits", SUITS)
def test_suits_are_honoured(suits):
    """By what is dealt, by a fixed hand, and by the colours in the picture."""
    env = make(modality="image", suits=suits, look=Look(jitter=0.5))
    seen = set()
    for seed in range(25):
        for options in (None, {"hand": HAND}):
            observation, info = env.reset(seed=seed, options=options)
            image = observation["image"].astype(int)
            has_red = ((image[..., 0] - image[..., 1:].max(axis=-1)) > 90).any()
            assert has_red == any(suit in SUITS["red"] for suit in info["suits"])
            assert len(set(zip(info["cards"], info["suits"], strict=True))) == 4
            seen.update(info["suits"])
    assert seen == set(SUITS[suits])


def test_a_seed_fixes_the_picture_and_gives_both_modalities_the_same_hand():
    pictures = []
    for _ in range(2):
        env = make(modality="image")
        pictures.append([env.reset(seed=5)[0]["image"], env.reset()[0]["image"]])
    (first, second), again = pictures
    assert (first == again[0]).all() and (second == again[1]).all() and (first != second).any()
    for seed in range(5):
        assert make(modality="image").reset(seed=seed)[1]["cards"] == make().reset(seed=seed)[1]["cards"]


@pytest.mark.parametrize("verifier", ["exact", "official"])
def test_a_misread_hand_is_answered(verifier):
    env = make(modality="image", verifier=verifier)
    env.reset(seed=0, options={"hand": HAND})
    misread = expert_response(["4", "3", "2", "Q"], "4*3+2+10")
    observation, reward, terminated, _, info = env.step(misread)
    assert (reward, terminated, info["outcome"]) == (-1.5, False, "misread")
    assert message_text(observation["messages"][-1]).startswith(
        "You failed this trial because you recognized wrong cards"
    )
    assert env.step(RIGHT)[1:3] == (5, True)


@pytest.mark.parametrize("modality", ["text", "image"])
def test_rendering(modality):
    assert make(modality=modality).render() is None
    env = make(modality=modality, render_mode="rgb_array")
    with pytest.raises(ResetNeeded):
        env.render()
    env.reset(seed=0, options={"hand": HAND})
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.shape == (420, 1200, 3) and (picture == env.render()).all()
    with pytest.raises(ValueError, match="render_mode='human'"):
        GeneralPoints(modality=modality, render_mode="human")
