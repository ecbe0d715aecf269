"""Navigation in a page, without a browser: the walk's state, and clicks on its widgets."""

import pytest
from test_play import as_player, picture_in

from sftrl_lib.evaluation.cast import Answer, Cast, Player, Token
from sftrl_lib.play import NavigationPlayer, Walk, page
from sftrl_lib.play.scores import YOU
from sftrl_lib.virl import expert_response as expert_step

# A walk


def test_a_walk_along_the_right_actions_arrives():
    walk = Walk(seed=0)
    assert walk.choices[0] == "forward()" and walk.choices[-1] == "stop()" and len(walk.choices) == 10
    for position in range(walk.positions):
        assert walk.position == position and walk.right_action in walk.choices and not walk.arrived
        assert walk.act(walk.right_action).outcome == "correct"
    assert walk.arrived and walk.over and not walk.stuck
    with pytest.raises(ValueError, match="over"):
        walk.act("forward()")


def test_same_seed_same_walks():
    first, second = Walk(seed=5), Walk(seed=5)
    for _ in range(3):
        assert (first.route, first.path, first.heading) == (second.route, second.path, second.heading)
        first.new_route(), second.new_route()


def test_attempts_run_out_and_the_expert_goes_on():
    walk = Walk(seed=0)
    wrong = next(action for action in walk.choices if action != walk.right_action)
    assert walk.act(wrong).verdict == "not the right action here" and walk.attempts_left == 1
    walk.act(wrong)
    assert walk.stuck and walk.over and walk.position == 0
    walk.go_on()
    assert walk.position == 1 and not walk.over and walk.attempts_left == 2
    while walk.position < walk.positions - 1:
        walk.go_on()
    with pytest.raises(ValueError, match="destination"):
        walk.go_on()
    assert walk.act("stop()").outcome == "correct" and walk.arrived


def test_another_action_space_keeps_the_place():
    walk = Walk(seed=0)
    walk.act(walk.right_action), walk.act(walk.right_action)
    before = walk.route, walk.position, walk.path, walk.heading
    walk.change("relative", walk.routes)
    assert (walk.route, walk.position, walk.path, walk.heading) == before
    assert "turn_direction(left)" in walk.choices and "turn_direction(north)" not in walk.choices
    assert walk.act("turn_direction(north)").verdict == "not among the actions offered"


def test_another_city_and_an_unknown_route():
    walk = Walk(seed=0)
    walk.change("absolute", "mini")
    assert walk.name.startswith("mini, route ")
    before = walk.name
    with pytest.raises(ValueError, match="route=999 is not known"):
        walk.new_route(999)
    assert walk.name == before and Walk("relative", route=7, seed=3).name == "nyc, route 7"


def expert_of(walk):
    """A player that knows the rail, and says on which prompts it was asked."""
    seen = []

    def say(observation, temperature, seed):
        prompt = observation["messages"][0]["content"]
        prompt = prompt if isinstance(prompt, str) else prompt[-1]["text"]
        position = prompt.count("\nA_") - 1
        seen.append((position, len(observation["messages"])))
        point = walk._info["rail"].points[position]
        return Answer((Token(expert_step(point.observation, point.instruction, point.action(walk.actions))),))

    return Player("expert", "", say), seen


@pytest.mark.parametrize("modality", ["text", "image"])
def test_models_answer_at_the_same_position_or_walk_the_route(modality):
    walk = Walk(seed=0, modality=modality)
    walk.act(walk.right_action)
    player, seen = expert_of(walk)
    [step] = walk.watch(player)
    assert seen == [(1, 1)] and step.position == 1 and step.outcome == "correct" and walk.position == 1
    steps = list(walk.watch(player, to_the_end=True))
    assert [step.position for step in steps] == list(range(walk.positions)) and steps[-1].verdict == "arrived"
    lost = list(walk.watch(as_player(lambda messages: '{"action": "stop()"}')))
    assert [(step.position, step.verdict) for step in lost] == [(1, "not the right action here")] * 2


def test_the_map_holds_no_more_than_was_walked():
    walk = Walk(seed=0)
    marks = [sum(leg["landmark"] is not None for leg in walk.scene()["legs"])]
    while not walk.arrived:
        walk.act(walk.right_action)
        marks.append(sum(leg["landmark"] is not None for leg in walk.scene()["legs"]))
    assert marks[0] == 0 and marks == sorted(marks) and marks[-1] > 0


# The page of a walk


def test_walking_by_clicks():
    player = NavigationPlayer(walk=Walk(seed=0))
    walk = player.walk
    assert set(player.buttons) == set(walk.choices) and len(player.rose.children) == len(walk.choices)
    assert "north up: position 1 of" in player.map.value and "Street views: front, right, back" in player.views.value
    first = player.map.value
    wrong = next(action for action in walk.choices if action != walk.right_action)
    player.buttons[wrong].click()
    assert "✗ not the right action here" in player.verdict.value and "1 attempt left" in player.verdict.value
    player.buttons[walk.right_action].click()
    assert "✓ right" in player.verdict.value and walk.position == 1
    assert (picture_in(player.map.value) != picture_in(first)).any()
    while walk.position < walk.positions - 1:
        walk.go_on()
    player.buttons[walk.right_action].click()
    assert "destination" in player.verdict.value and player.buttons["stop()"].disabled
    assert player.scores.of("compass directions", YOU) == (1, 2), "the first one was wrong"
    player.new_route.click()
    assert walk.position == 0 and not player.buttons["stop()"].disabled


def test_stuck_and_shown_the_way():
    player = NavigationPlayer(walk=Walk(seed=0))
    walk = player.walk
    wrong = next(action for action in walk.choices if action != walk.right_action)
    player.buttons[wrong].click(), player.buttons[wrong].click()
    assert walk.stuck and walk.right_action in player.verdict.value and player.buttons["forward()"].disabled
    player.hint.click()
    assert player.help.value == page.plain(walk.hint())
    player.go_on.click()
    assert walk.position == 1 and "You are there now" in player.verdict.value and player.help.value == ""


def test_stuck_at_the_destination():
    player = NavigationPlayer(walk=Walk(seed=0))
    walk = player.walk
    while walk.position < walk.positions - 1:
        walk.go_on()
    player.buttons["forward()"].click(), player.buttons["forward()"].click()
    assert walk.stuck and player.go_on.disabled
    assert "stop() was right. This was the destination; press “New route”." in player.verdict.value


def test_switches_of_words_city_and_route():
    player = NavigationPlayer(walk=Walk(seed=0))
    player.actions.value = "relative"
    assert set(player.buttons) == set(player.walk.choices) and "turn_direction(left)" in player.buttons
    player.city.value = "mini"
    assert player.walk.routes == "mini" and player.walk.actions == "relative"
    player.route.value = 3
    assert player.walk.route == 3
    player.route.value = 500
    assert "route=500 is not known" in player.verdict.value and player.route.value == 3


def test_models_beside_a_walk():
    walk = Walk(seed=0)
    expert, _ = expert_of(walk)
    player = NavigationPlayer(Cast((0,), lambda seed: [expert]), walk)
    here, route = player.models.buttons
    here.click()
    assert "position 1" in player.models.columns["expert"].value
    route.click()
    assert player.scores.of("compass directions", "expert") == (walk.positions, walk.positions)
    assert walk.position == 0, "the person's walk is untouched"
    player.buttons[walk.right_action].click()
    assert 'class="turn"' not in player.models.columns["expert"].value
