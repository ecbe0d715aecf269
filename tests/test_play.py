"""The GeneralPoints player: clicks and typing without a browser."""

import json
import re
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from sftrl_lib.play import Game, PointsPlayer, cards_html
from sftrl_lib.points import card_numbers, is_solvable
from sftrl_lib.points.prompts import expert_response, response

HAND = ["4", "3", "2", "K"]


def game(**options):
    state = Game(seed=0, **options)
    state.new_hand(HAND)
    return state


def play(player, *formulas):
    for formula in formulas:
        player.formula.value = formula
        player.submit.click()


def solver(messages):
    """Fails once, reads the feedback, then solves: shows that a model sees the chat."""
    if len(messages) == 1:
        return response(HAND, [4, 3, 2, 10], "4*3+2-10")
    assert messages[-1]["content"].startswith("You failed this trial")
    return expert_response(HAND, "4*3+2+10")


def test_a_formula_is_wrapped_in_the_answer_format():
    state = game()
    assert json.loads(state.wrap('a"b')) == {"cards": HAND, "number": [4, 3, 2, 10], "formula": 'a"b'}
    assert state.submit("4*3 + 2+10").outcome == "correct"
    assert state.won and state.over and state.attempts_left == 4


def test_same_seed_same_hands():
    first, second = Game(seed=5), Game(seed=5)
    for _ in range(5):
        assert first.cards == second.cards
        first.new_hand(), second.new_hand()


def test_another_rule_keeps_the_cards_where_it_can():
    state = Game(seed=0)
    for _ in range(30):
        before = list(state.cards)
        rule = "distinct" if state.rule.king == 10 else "ten"
        state.change(rule, 24)
        kept = is_solvable(card_numbers(before, rule))
        assert (state.cards == before) or not kept
        assert state.numbers == list(card_numbers(state.cards, rule)) and is_solvable(state.numbers)
        state.new_hand()


def test_clicking_through_a_won_game():
    player = PointsPlayer(game=game())
    assert "Attempts left: 5 of 5" in player.attempts.value and "counts as 10" in player.cards.value
    play(player, "4*3+2-10")
    assert "wrong value" in player.answer.value and "Attempts left: 4 of 5" in player.attempts.value
    assert player.formula.value == ""
    play(player, "4*3+2+10")
    assert "correct" in player.answer.value and "Solved" in player.attempts.value
    assert player.submit.disabled and player.formula.disabled
    player.new_hand.click()
    assert not player.submit.disabled and player.answer.value == "<ol></ol>"


def test_running_out_of_attempts():
    player = PointsPlayer(game=game(max_attempts=2))
    play(player, "4*3", "9**9**9", "4*3+2+10")
    assert [turn.outcome for turn in player.game.history] == ["wrong_numbers", "illegal"]
    assert "Attempts left: 0 of 2" in player.attempts.value and player.submit.disabled


@pytest.mark.parametrize(
    "typed",
    ["4×3+2+10", "4x3 + 2 + 10 = 24", "4·3+2+10", "4 X 3+2+10", "(10−4÷2)×3", "(10–4:2)x3"],
)
def test_signs_that_people_type_for_operators_are_understood(typed):
    state = game()
    assert state.submit(typed).outcome == "correct" and state.attempts_left == 4


def test_an_empty_box_costs_no_attempt():
    player = PointsPlayer(game=game())
    play(player, "  ")
    assert "Type a formula" in player.answer.value and player.game.attempts_left == 5


def test_the_enter_key_submits():
    player = PointsPlayer(game=game())
    player.formula.value = "4*3+2+10"
    player.formula._handle_custom_msg({"event": "submit"}, [])
    assert player.game.won


def test_rule_switches():
    player = PointsPlayer(game=game())
    assert player.rule.value == "ten" and player.custom.layout.display == "none"
    player.rule.value = "distinct"
    assert player.game.rule.values == (11, 12, 13) and [box.value for box in player.values] == [11, 12, 13]
    player.rule.value = "custom"
    assert player.custom.layout.display == "" and player.game.rule.values == (11, 12, 13)
    player.values[2].value = 10
    assert player.game.rule.values == (11, 12, 10) and player.rule.value == "custom"
    player.rule.value = "ten"
    assert player.game.rule.values == (10, 10, 10) and player.custom.layout.display == "none"


def test_target_switch_and_an_impossible_target():
    player = PointsPlayer(game=game())
    player.target.value = 10
    assert player.game.target == 10 and is_solvable(player.game.numbers, 10)
    before = list(player.game.cards)
    player.rule.value, player.target.value = "ten", 983
    assert "No solvable hand for target=983" in player.answer.value
    assert (player.target.value, player.game.target, player.game.cards) == (10, 10, before)


def test_solutions_are_shown_on_request():
    player = PointsPlayer(game=game())
    assert player.solutions.value == ""
    player.show_solutions.value = True
    assert len(player.solutions.value.split("<br>")) == len(player.game.solutions()) > 3
    assert "= 24" in player.solutions.value
    player.show_solutions.value = False
    assert player.solutions.value == ""


def test_models_answer_the_same_hand_attempt_by_attempt():
    asked = []
    player = PointsPlayer(
        players={"RL": solver, "SFT": lambda messages: asked.append(len(messages)) or "no <b>idea</b>"},
        game=game(max_attempts=3),
    )
    play(player, "4*3+2-10")
    player.ask.click()
    assert player.answers["RL"].value.count("<li>") == 2 and "correct" in player.answers["RL"].value
    assert asked == [1, 3, 5]
    assert player.answers["SFT"].value.count("illegal</b>") == 3
    assert "no &lt;b&gt;idea" in player.answers["SFT"].value  # model text is never markup
    assert player.game.attempts_left == 2 and not player.ask.disabled  # the person's game is untouched
    player.new_hand.click()
    assert "<li>" not in player.answers["RL"].value


@pytest.mark.parametrize("broken", [lambda messages: 1 / 0, lambda messages: None, lambda messages: messages.clear()])
def test_a_failing_model_is_shown_not_raised(broken):
    player = PointsPlayer(players={"broken": broken, "RL": solver}, game=game())
    player.ask.click()
    assert "Error:" in player.answers["broken"].value
    assert "correct" in player.answers["RL"].value and not player.ask.disabled


def test_hostile_text_in_the_box_and_on_the_page():
    player = PointsPlayer(game=game())
    play(player, '<script>alert("x")</script>', '4*3+2+10"}', "\0")
    assert "<script>" not in player.answer.value
    assert [turn.outcome for turn in player.game.history] == ["illegal"] * 3


HOSTILE = "<img src=x onerror=alert(1)>&lt;\ud800"


def shown(widget):
    """All text of a widget and of those inside it."""
    own = [value for name in ("value", "description") if isinstance(value := getattr(widget, name, None), str)]
    return own + [text for child in getattr(widget, "children", ()) for text in shown(child)]


def raises(messages):
    raise ValueError(HOSTILE)


@pytest.mark.parametrize("answerer", [
    lambda messages: HOSTILE,
    lambda messages: json.dumps({"formula": HOSTILE}),
    lambda messages: response([HOSTILE], [HOSTILE], HOSTILE),
    raises,
])  # fmt: skip
def test_no_widget_shows_the_text_of_a_model_as_html(answerer):
    player = PointsPlayer(players={HOSTILE: answerer}, game=game())
    player.ask.click()
    page = "".join(shown(player))
    assert page.count("&lt;img src=x onerror=alert(1)&gt;&amp;lt;?") > 1  # the name and what was said
    assert "<img src=x" not in page
    page.encode()  # as it must be to reach a browser


def picture_in(html):
    source = re.search(r'src="data:image/png;base64,([^"]+)"', html)[1]
    return np.asarray(Image.open(BytesIO(b64decode(source))).convert("RGB")).astype(int)


def test_drawn_cards():
    state = game()
    drawn = cards_html(state.picture(), ["A", "10", "K", "K"], [1, 10, 13, 13])
    assert drawn.count("counts as 13") == 2 and 'alt="Four cards: A, 10, K, K"' in drawn
    assert abs(picture_in(drawn) - state.picture()).mean() < 2  # as drawn, but for the smaller palette
    assert len(drawn) < 60_000


def test_suits_switch_changes_the_picture_and_keeps_the_ranks():
    player = PointsPlayer(game=game())
    for suits, red in (("red", True), ("black", False)):
        player.suits.value = suits
        assert player.game.suits == suits and player.game.cards == HAND
        shown = picture_in(player.cards.value)
        assert ((shown[..., 0] - shown[..., 1:].max(axis=-1)) > 90).any() == red


def test_three_kings_of_two_suits_are_dealt_anew():
    state = Game(seed=0, target=23)
    state.new_hand(["K", "K", "K", "7"])
    state.change(state.rule, 23, "red")
    assert state.cards != ["K", "K", "K", "7"] and state.suits == "red"
    with pytest.raises(ValueError, match="suits='blue'"):
        state.change(state.rule, 23, "blue")
    assert state.suits == "red"
