"""GeneralPoints in a page, and what both games share, without a browser: states, clicks, keys, hostile models."""

import json
import re
import sys
from base64 import b64decode
from fractions import Fraction
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from sftrl_lib import paths
from sftrl_lib.evaluation.cast import Answer, Cast, Player, Token, as_cast
from sftrl_lib.models.checkpoint import CheckpointError
from sftrl_lib.play import Game, NavigationPlayer, PointsPlayer, Walk, __main__, page
from sftrl_lib.play.scores import YOU, Scores
from sftrl_lib.points import card_numbers, is_solvable, solve
from sftrl_lib.points.prompts import expert_response, response
from sftrl_lib.points.rules import FACES

HAND = ["4", "3", "2", "K"]
HOSTILE = "<img src=x onerror=alert(1)>&lt;\ud800\u202e\0"


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


def shown(widget):
    """All text of a widget and of those inside it."""
    own = [value for name in ("value", "description") if isinstance(value := getattr(widget, name, None), str)]
    return own + [text for child in getattr(widget, "children", ()) for text in shown(child)]


def picture_in(html):
    source = re.search(r'src="data:image/png;base64,([^"]+)"', html)[1]
    return np.asarray(Image.open(BytesIO(b64decode(source))).convert("RGB")).astype(int)


# A hand


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


def test_another_rule_keeps_the_cards_where_it_can_be_seen_on_them():
    state = Game(seed=0)
    for _ in range(30):
        before = list(state.cards)
        rule = "distinct" if state.rule.king == 10 else "ten"
        state.change(rule, 24)
        can_stay = is_solvable(card_numbers(before, rule)) and (rule == "ten" or set(before) & set(FACES))
        assert (state.cards == before) == bool(can_stay) or not can_stay
        assert state.numbers == list(card_numbers(state.cards, rule)) and is_solvable(state.numbers)
        state.new_hand()


@pytest.mark.parametrize("rule", ["distinct", (5, 6, 7)])
def test_every_hand_under_a_new_rule_shows_it(rule):
    state = Game(rule, seed=1)
    for _ in range(25):
        assert set(state.cards) & set(FACES)
        state.new_hand()


def test_a_change_that_changes_nothing_keeps_hand_and_attempts():
    state = game()
    state.submit("4+3+2+10")
    state.change((10, 10, 10), 24, "any")
    assert state.attempts_left == 4 and state.cards == HAND


@pytest.mark.parametrize(
    "typed",
    ["4×3+2+10", "4x3 + 2 + 10 = 24", "4·3+2+10", "4 X 3+2+10", "(10−4÷2)×3", "(10–4:2)x3"],
)
def test_signs_that_people_type_for_operators_are_understood(typed):
    state = game()
    assert state.submit(typed).outcome == "correct" and state.attempts_left == 4


@pytest.mark.parametrize("typed", ["", "  ", "9**9", "4*(3", "ten", "4*3+2+10)", "\0", "--4"])
def test_what_is_no_formula_costs_no_attempt(typed):
    state = game()
    with pytest.raises(ValueError, match="formula"):
        state.submit(typed)
    assert state.attempts_left == 5 and not state.history


@pytest.mark.parametrize(("formula", "verdict"), [
    ("4*3+2+10", "= 24"),
    ("4*3+10-2", "= 20, not 24"),
    ("10/4-3-2", "= −5/2, not 24"),
    ("10/(4-2*2)", "divides by zero, but not from 4, 3, 2, 10, each used once"),
    ("2*(10-3)+4", "= 18, not 24"),
    ("10+3", "= 13, but not from 4, 3, 2, 10, each used once"),
])  # fmt: skip
def test_a_verdict_says_what_the_formula_makes(formula, verdict):
    assert game().submit(formula).verdict == verdict


def test_a_hint_is_how_a_solution_begins():
    """For every hand of a deal: doing the hinted step first leaves three numbers that still make 24."""
    state = Game(seed=2)
    signs = {"+": "__add__", "−": "__sub__", "×": "__mul__", "÷": "__truediv__"}
    for _ in range(40):
        count, a, sign, b = re.search(r"(one|\d+) solutions?;? .*? (\d+)(\D)(\d+)\.", state.hint()).groups()
        assert (1 if count == "one" else int(count)) == len(state.solutions())
        left = list(state.numbers)
        left.remove(int(a)), left.remove(int(b))
        result = getattr(Fraction(a), signs[sign])(Fraction(b))
        assert makes([*map(Fraction, left), result], 24)
        state.new_hand()


def makes(numbers, target):
    """Whether numbers make a target; brute force."""
    if len(numbers) == 1:
        return numbers[0] == target
    for i, a in enumerate(numbers):
        for j, b in enumerate(numbers):
            if i != j:
                rest = [n for k, n in enumerate(numbers) if k not in (i, j)]
                if any(makes([*rest, r], target) for r in (a + b, a - b, a * b, *([a / b] if b else []))):
                    return True
    return False


def test_three_kings_of_two_suits_are_dealt_anew():
    state = Game(seed=0, target=23)
    state.new_hand(["K", "K", "K", "7"])
    state.change(state.rule, 23, "red")
    assert state.cards != ["K", "K", "K", "7"] and state.suits == "red"
    with pytest.raises(ValueError, match="suits='blue'"):
        state.change(state.rule, 23, "blue")
    assert state.suits == "red"


def test_models_see_the_picture_that_is_shown():
    state = Game(seed=0, modality="image")
    seen = []

    def say(observation, temperature, seed):
        seen.append(observation["image"])
        return Answer((Token(state.wrap("1")),))

    list(state.watch(Player("RL", "", say)))
    assert len(seen) == 5 and all(np.array_equal(image, seen[0]) for image in seen)
    assert np.array_equal(state._env._observation_image(), seen[0])
    assert "read the cards as none" in next(state.watch(as_player(lambda messages: "?"))).verdict


# What a model read


def as_player(function):
    [player] = as_cast({"RL": function}).load(0)
    return player


def test_what_a_model_read_is_told_card_by_card():
    state = game(max_attempts=1)
    [turn] = state.watch(as_player(lambda messages: response(HAND, [4, 3, 2, 13], "4*3-2+13")))
    assert [(r.card, r.number, r.right) for r in turn.read] == [("4", 4, True), ("3", 3, True), ("2", 2, True),
                                                                ("K", 13, False)]  # fmt: skip
    assert turn.verdict == "= 23, but not from 4, 3, 2, 10, each used once"


@pytest.mark.parametrize("answer", ["", "{}", '{"cards": ["4"], "number": [1, 2]}', '{"number": [1]}', HOSTILE])
def test_an_answer_without_a_list_of_numbers_has_read_nothing(answer):
    assert next(game().watch(as_player(lambda messages: answer))).read == ()


def test_how_sure_a_model_was_of_a_number_is_the_product_of_its_tokens():
    tokens = [('{"cards": ["K", "A", "2", "3"], "number": [1', 0.5), ("3", 0.5), (", 1, ", 1.0), ("2", 0.25),
              (', 3], "formula": "1"}', 1.0)]  # fmt: skip
    spoken = Answer(tuple(Token(text, probability) for text, probability in tokens))
    state = Game("distinct", seed=0, max_attempts=1)
    state.new_hand(["K", "A", "2", "3"])
    [turn] = state.watch(Player("RL", "", lambda *_: spoken))
    assert [r.probability for r in turn.read] == [0.25, 1.0, 0.25, 1.0]
    assert Answer((Token("ab"), Token("c", 0.5))).likelihood(1, 3) is None


# The page of a hand


def test_clicking_through_a_won_game():
    player = PointsPlayer(game=game())
    assert "<b>5</b> of 5" in player.attempts.value and player.numbers[3].description == "K = 10"
    play(player, "4*3+2-10")
    assert "= 4, not 24" in player.verdict.value and "<b>4</b> of 5" in player.attempts.value
    assert player.formula.value == ""
    play(player, "4*3+2+10")
    assert "= 24" in player.verdict.value and "Solved with attempt 2" in player.verdict.value
    assert player.submit.disabled and player.formula.disabled
    player.new_hand.click()
    assert not player.submit.disabled and player.history.value == ""


def test_a_formula_is_clicked_together():
    player = PointsPlayer(game=game())
    plus, minus, times, over, opening, closing = player.operators
    for button in (player.numbers[0], times, player.numbers[1], plus, player.numbers[2], plus):
        button.click()
    assert player.formula.value == "4×3+2+" and [b.disabled for b in player.numbers] == [True, True, True, False]
    player.numbers[3].click()
    player.back.click()
    assert player.formula.value == "4×3+2+" and not player.numbers[3].disabled
    player.numbers[3].click()
    player.submit.click()
    assert player.game.won and all(button.disabled for button in (*player.numbers, *player.operators, player.back))


def test_a_number_that_is_there_twice_is_offered_twice():
    player = PointsPlayer(game=game())
    player.deal(["6", "6", "Q", "2"])
    player.numbers[0].click()
    assert [b.disabled for b in player.numbers] == [True, False, False, False]
    player.formula.value = "6+6"
    assert [b.disabled for b in player.numbers] == [True, True, False, False]


def test_running_out_of_attempts_tells_a_solution():
    player = PointsPlayer(game=game(max_attempts=2))
    play(player, "4*3", "4*(", "4+3+2+10")
    assert [turn.outcome for turn in player.game.history] == ["wrong_numbers", "wrong_value"]
    assert "<b>0</b> of 2" in player.attempts.value and player.submit.disabled
    assert page.plain(solve([4, 3, 2, 10])[0].translate(str.maketrans("*/-", "×÷−"))) in player.verdict.value
    play(player, "4*3+2+10")
    assert "over" in player.verdict.value and not player.game.won


def test_the_enter_key_submits():
    player = PointsPlayer(game=game())
    player.formula.value = "4*3+2+10"
    player.formula._handle_custom_msg({"event": "submit"}, [])
    assert player.game.won


def test_verdicts_are_read_out():
    player = PointsPlayer(game=game())
    play(player, "1")
    assert 'role="alert" aria-live="polite"' in player.verdict.value


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


def test_own_values_that_are_the_rule_already_cost_nothing():
    player = PointsPlayer(game=game())
    play(player, "4+3+2+10")
    player.rule.value = "custom"
    assert player.game.attempts_left == 4 and player.game.cards == HAND and player.custom.layout.display == ""


def test_target_switch_and_an_impossible_target():
    player = PointsPlayer(game=game())
    player.target.value = 10
    assert player.game.target == 10 and is_solvable(player.game.numbers, 10)
    before = list(player.game.cards)
    said = []
    player.verdict.observe(lambda change: said.append(change["new"]), names="value")
    player.rule.value, player.target.value = "ten", 983
    assert "Looking for a hand that makes 983" in said[0] and "No solvable hand for target=983" in said[-1]
    assert (player.target.value, player.game.target, player.game.cards) == (10, 10, before)


def test_solutions_are_shown_on_request():
    player = PointsPlayer(game=game())
    assert player.help.value == ""
    player.show_solutions.value = True
    assert player.help.value.count("= 24") == len(player.game.solutions()) == 5
    player.show_solutions.value = False
    assert player.help.value == ""
    player.deal(["2", "3", "4", "6"])
    player.show_solutions.value = True
    more = len(player.game.solutions()) - 6
    assert player.help.value.count("= 24") == 6 and f"and {more} more" in player.help.value and more > 0
    player.hint.click()
    assert "one begins with" in player.help.value
    player.new_hand.click()
    assert player.help.value == "" and not player.show_solutions.value


def test_drawn_cards():
    player = PointsPlayer(game=game())
    assert 'alt="Four cards: 4, 3, 2, K; they count as 4, 3, 2, 10"' in player.cards.value
    assert abs(picture_in(player.cards.value) - player.game.picture()).mean() < 2  # as drawn, but for the palette
    assert len(player.cards.value) < 60_000


def test_suits_switch_changes_the_picture_and_keeps_the_ranks():
    player = PointsPlayer(game=game())
    for suits, red in (("red", True), ("black", False)):
        player.suits.value = suits
        assert player.game.suits == suits and player.game.cards == HAND
        drawn = picture_in(player.cards.value)
        assert ((drawn[..., 0] - drawn[..., 1:].max(axis=-1)) > 90).any() == red


# The models beside it


def test_models_answer_the_same_hand_attempt_by_attempt():
    asked = []
    player = PointsPlayer(
        {"RL": solver, "SFT": lambda messages: asked.append(len(messages)) or "no <b>idea</b>"},
        game=game(max_attempts=3),
    )
    play(player, "4*3+2-10")
    player.models.ask.click()
    columns = player.models.columns
    assert columns["RL"].value.count('class="turn"') == 2 and "✓ = 24" in columns["RL"].value
    assert asked == [1, 3, 5]
    assert columns["SFT"].value.count("✗ no formula") == 3
    assert "no &lt;b&gt;idea" in columns["SFT"].value  # model text is never markup
    assert player.game.attempts_left == 2 and not player.models.ask.disabled  # the person's game is untouched
    assert "<th>solved</th><th>J, Q, K = 10</th>" in player.score.value and "<td>1 of 1</td>" in player.score.value
    assert player.scores.of("J, Q, K = 10", "RL") == (1, 1) and player.scores.of("J, Q, K = 10", YOU) == (0, 1)
    player.new_hand.click()
    assert 'class="turn"' not in columns["RL"].value


def test_temperature_sampling_and_training_seed_reach_the_models():
    asked = []

    def cast_of(seed):
        return [Player("RL", f"seed {seed}", lambda *given: asked.append((seed, *given[1:])) or Answer((Token("?"),)))]

    player = PointsPlayer(Cast((3, 5), cast_of), game=game(max_attempts=2))
    player.models.ask.click()
    player.models.temperature.value = 0.0
    player.models.seed.value = 5
    player.models.ask.click()
    player.models.ask.click()
    assert [(seed, temperature) for seed, temperature, _ in asked] == [(3, 1.0)] * 2 + [(5, 0.0)] * 4
    samplings = [sampling for *_, sampling in asked]
    assert samplings[:2] == samplings[2:4] and len({*samplings[2:]}) == 4, "as before; each attempt and ask its own"
    assert "seed 5" in player.models.columns["RL"].value


@pytest.mark.parametrize("broken", [lambda messages: 1 / 0, lambda messages: None, lambda messages: messages.clear()])
def test_a_failing_model_is_shown_not_raised(broken):
    player = PointsPlayer({"broken": broken, "RL": solver}, game=game())
    player.models.ask.click()
    assert "Error:" in player.models.columns["broken"].value
    assert "✓ = 24" in player.models.columns["RL"].value and not player.models.ask.disabled


def test_a_checkpoint_that_cannot_be_loaded_is_shown_not_raised():
    def load(seed):
        if seed == 5:
            raise CheckpointError("build/<b> is damaged")
        return [Player("RL", f"seed {seed}", lambda *_: Answer((Token("?"),)))]

    player = PointsPlayer(Cast((3, 5), load), game=game())
    player.models.seed.value = 5
    assert "CheckpointError: build/&lt;b&gt; is damaged" in player.models.notice.value and not player.models.columns
    player.models.ask.click()
    player.models.seed.value = 3
    assert "damaged" not in player.models.notice.value and "RL" in player.models.columns


def test_the_list_of_numbers_that_counts_is_the_one_that_is_shaded():
    """Not a list of that name within another field, however long its numbers are."""
    inner = '{"x": {"number": [' + "1" * 5_000 + "]},"
    outer = response(HAND, [4, 3, 2, 10], "4*3+2+10").removeprefix("{")
    tokens = (Token(inner, 0.9), Token(outer, 0.5))
    [turn] = game(max_attempts=1).watch(Player("RL", "", lambda *_: Answer(tokens)))
    assert [(reading.number, reading.probability) for reading in turn.read] == [(n, 0.5) for n in (4, 3, 2, 10)]


def test_notes_and_the_banner_of_toys_are_shown():
    player = PointsPlayer(Cast((0,), lambda seed: [], toy=True, note="Not here: <RL>"))
    assert "means nothing" in player.models.notice.value and "Not here: &lt;RL&gt;" in player.models.notice.value
    assert PointsPlayer().models.layout.display == "none"


def test_scores_count_a_question_once_for_each_player():
    scores = Scores()
    for solved in (False, True):
        scores.record("ten", "RL", 1, solved)
    scores.record("ten", "RL", 2, False)
    scores.record("distinct", YOU, 2, True)
    assert scores.of("ten", "RL") == (1, 2) and scores.of("distinct", YOU) == (1, 1) and scores.of("x", YOU) == (0, 0)
    assert scores.players == [YOU, "RL"] and scores.rules == ["ten", "distinct"]
    assert "<td>1 of 2</td>" in page.table(scores, "solved")


# Hostile text


def raises(messages):
    raise ValueError(HOSTILE)


HOSTILE_PLAYERS = [
    lambda messages: HOSTILE,
    lambda messages: json.dumps({"formula": HOSTILE}),
    lambda messages: response([HOSTILE], [HOSTILE], HOSTILE),
    lambda messages: json.dumps({"cards": [HOSTILE] * 4, "number": [1, 2, 3, 4], "formula": HOSTILE}),
    lambda messages: json.dumps({"action": HOSTILE, "current observation": HOSTILE}),
    lambda messages: HOSTILE * 50_000,
    raises,
]


@pytest.mark.parametrize("answerer", HOSTILE_PLAYERS)
@pytest.mark.parametrize("start", [
    lambda players: PointsPlayer(players, game()),
    lambda players: NavigationPlayer(players, Walk(seed=0)),
])  # fmt: skip
def test_no_widget_shows_the_text_of_a_model_as_html(start, answerer):
    player = start({HOSTILE: answerer})
    player.models.ask.click()
    whole = "".join(shown(player)) + player.snapshot().data
    assert whole.count("&lt;img src=x onerror=alert(1)&gt;&amp;lt;���") > 1  # the name and what was said
    assert "<img src=x" not in whole and "\u202e" not in whole and "\0" not in whole
    assert len(whole) < 1_000_000
    whole.encode()  # as it must be to reach a browser


def test_hostile_tokens_are_escaped_with_what_else_might_have_been_said():
    html = page.said(Answer((Token('"><script>', 0.25, ((HOSTILE, 0.5),)), Token("\n", 1.0))))
    assert "<script>" not in html and "<img" not in html and 'title="&quot;&gt;&lt;script&gt; 25%' in html
    assert "rgba(230,120,0,0.56)" in html and html.count("style=") == 1, "what is sure has no shade"


def test_hostile_text_in_the_box():
    player = PointsPlayer(game=game())
    play(player, '<script>alert("x")</script>', '4*3+2+10"}', "\0")
    assert "<script>" not in "".join(shown(player)) and player.game.attempts_left == 5


# make play


def test_playing_is_done_on_copies(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "HOME", tmp_path)
    started = []
    monkeypatch.setattr(__main__.os, "execv", lambda program, command: started.append((program, command)))
    copy = tmp_path / "build" / "play" / "10_play_points.ipynb"
    for _ in range(2):
        __main__.main(["--no-browser"])
        assert copy.read_bytes() == (paths.NOTEBOOKS / copy.name).read_bytes()
        copy.write_text("changed")
    [program, command] = started[-1]
    assert program == sys.executable and command[3] == str(copy) and command[-1] == "--no-browser"
    assert f"--ServerApp.root_dir={tmp_path}" in command


@pytest.mark.parametrize(("user", "told"), [(0, True), (1000, False)])
def test_root_needs_no_flag_of_his_own(user, told, monkeypatch, tmp_path):
    monkeypatch.setattr(__main__.os, "geteuid", lambda: user)
    assert ("--allow-root" in __main__.command(tmp_path, [])) == told


def test_a_home_that_cannot_be_written_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "build").write_text("a file")
    monkeypatch.setattr(paths, "HOME", tmp_path)
    assert __main__.main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1
