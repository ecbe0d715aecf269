"""The navigation environment: prompts, attempts, both verifiers, hostile text, experts and speed."""

import json
import time
import warnings
from dataclasses import replace

import gymnasium
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import sftrl_lib  # noqa: F401  (registers the environments)
from sftrl_lib.virl import city_names, expert_pairs, expert_response, grade, load_city, task_prompt
from sftrl_lib.virl.prompts import shown_observation
from sftrl_lib.virl.rails import RailPoint
from sftrl_lib.virl.verifier import OUTCOMES

CORNER = RailPoint(
    (0.0, 0.0),
    90,
    "turn_direction(north)",
    "turn_direction(slightly left)",
    "Hotel 32One is on your right behind",
    True,
    3,
    "Turn slightly left to face north.",
)
ROAD = RailPoint((0.0, 0.0), 90, "forward()", "forward()", "No landmarks nearby", False, 2, "Move forward.")
RETRY = """ and try again in the same format:
[Output]
{{
  "current observation": latest observation from the streetview grid,
  "current instruction": analyze the full instruction and identify the sentence to be executed,
  "action": the action to be taken chosen from the action space,
}}."""
INFO_KEYS = {
    "expert_observation",
    "expert_instruction",
    "expert_action",
    "outcome",
    "feedback",
    "attempts_left",
}
INFO_KEYS |= {"position", "positions", "geocode", "heading", "route", "rail", "success"}


def make(**options):
    return gymnasium.make("sftrl/Navigation-v0", **{"routes": "mini", **options}).unwrapped


def answer(action, observation="No landmarks nearby;"):
    return expert_response(observation, "Move forward.", action)


def expert(info):
    return expert_response(info["expert_observation"], info["expert_instruction"], info["expert_action"])


def wrong(info):
    return answer("stop()" if info["expert_action"] != "stop()" else "forward()", info["expert_observation"])


@pytest.mark.parametrize("actions", ["absolute", "relative"])
@pytest.mark.parametrize("verifier", ["exact", "official"])
def test_check_env(actions, verifier):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(actions=actions, verifier=verifier), skip_render_check=True)


def test_the_prompt_is_the_papers():
    """Fig. 14, with Fig. 21's spelling and wording of instructions."""
    sentences = ["First, turn left to face east.", "Move forward until you reach next intersection."]
    observations = [
        "No landmarks nearby;",
        "Hotel 32One is on your right behind; You observe an intersection",
    ]
    assert task_prompt(sentences, observations, ["turn_direction(east)"]) == (
        "[Task Description]\n"
        "You are an expert in navigation. You will receive a sequence of instructions to follow. "
        "You are also provided with your observation and action history in text. "
        "Your goal is to first analyze the instruction and identify the next sentence to be executed. "
        "Then, you need to provide the action to be taken based on the current observation and instruction.\n"
        "\n[Instruction]\n1. First, turn left to face east.\n"
        "2. Move forward until you reach next intersection.\n"
        '\n[Action space]\n- "forward()": indicates moving forward for 1 step;\n'
        '- "turn_direction(x)": indicates turn direction to the target heading, where x∈'
        "['north', 'northeast', 'east', 'southeast', 'south', 'southwest', 'west', 'northwest'];\n"
        '- "stop()": indicates the navigation is finished;\n'
        "\n[Observations and actions sequence]\n"
        "O_1: No landmarks nearby;\nA_1: turn_direction(east)\n"
        "O_2: Hotel 32One is on your right behind; You observe an intersection\nA_2:\n"
        "\n[Output]\nYour response should be a valid json file in the following format:\n{\n"
        '  "current observation": latest observation from the street view grid,\n'
        '  "current instruction": analyze the full instruction and identify the sentence to be executed,\n'
        '  "action": the action to be taken chosen from the action space,\n}'
    )
    relative = task_prompt(sentences, observations[:1], [], "relative")
    assert (
        "x∈['left', 'right', 'slightly left', 'slightly right'];" in relative and "northeast" not in relative
    )
    with pytest.raises(ValueError, match="one action fewer"):
        task_prompt(sentences, observations, [])


def test_the_experts_answer():
    observation = "Hotel 32One is on your right behind; You observe an intersection"
    text = expert_response(observation, "Turn right to face north.", "turn_direction(north)")
    assert text == (
        "{\n"
        '  "current observation": "Hotel 32One is on your right behind; You observe an intersection",\n'
        '  "current instruction": "Turn right to face north.",\n'
        '  "action": "turn_direction(north)",\n'
        "}"
    )
    quoted = expert_response('Joe\'s "Best" \\ Pizza', "Go.", "stop()")
    assert json.loads(quoted.replace(",\n}", "\n}"))["current observation"] == 'Joe\'s "Best" \\ Pizza'


AT_CORNER = CORNER.observation


@pytest.mark.parametrize(
    ("text", "outcome", "reward"),
    [
        (answer("turn_direction(north)", AT_CORNER), "correct", 1),
        (answer("turn_direction(north)"), "correct", 1),  # a right action is right whatever is observed
        (json.dumps({"action": "turn_direction(north)"}), "correct", 1),
        (json.dumps({"action": " turn_direction( north ) "}), "correct", 1),
        ('Sure!\n```json\n{"action" : "turn_direction(north)",\n}\n```', "correct", 1),
        (answer("turn_direction(south)", AT_CORNER), "wrong_action", -1),
        (answer("stop()", AT_CORNER), "wrong_action", -1),
        (json.dumps({"action": "stop()"}), "wrong_action", -1),
        (answer("turn_direction(south)"), "wrong_observation", -1.5),
        (answer("turn_direction(slightly left)", AT_CORNER), "illegal", -1),  # the other action space
        (answer("turn_direction(slightly left)"), "wrong_observation", -1.5),
        (answer("fly()", AT_CORNER), "illegal", -1),
        (json.dumps({"action": ["turn_direction(north)"]}), "illegal", -1),
        (json.dumps({"action": True}), "illegal", -1),
        ("turn_direction(north)", "illegal", -1),
        ("", "illegal", -1),
    ],
)
def test_exact_grades_at_an_intersection(text, outcome, reward):
    verdict = grade(text, CORNER)
    assert (verdict.outcome, verdict.reward) == (outcome, reward)
    assert verdict.feedback == "Correct solution." or verdict.feedback.startswith(
        "You failed this trial because "
    )


def test_exact_feedback_tells_the_truth_about_intersections():
    assert "you are at an intersection" in grade(answer("stop()"), CORNER).feedback
    assert "you are not at any intersection" in grade(answer("stop()", AT_CORNER), ROAD).feedback
    assert grade(answer("stop()"), ROAD).outcome == "wrong_action"
    assert grade(answer("turn_direction( slightly  left )"), CORNER, "relative").outcome == "correct"
    assert grade(answer("turn_direction(slightlyleft)", AT_CORNER), CORNER, "relative").outcome == "illegal"


@pytest.mark.parametrize("name", ["Intersection for the Arts", "The Observed Intersection"])
@pytest.mark.parametrize("modality", ["text", "image"])
def test_a_landmark_called_intersection_claims_none(name, modality):
    road = replace(ROAD, landmark=f"{name} is on your left")
    corner = replace(CORNER, landmark=f"{name} is on your left")
    for point, other in ((road, corner), (corner, road)):
        for shown in (point.observation, shown_observation(point, modality)):
            assert grade(answer("stop()", shown), point).outcome == "wrong_action"
        for shown in (other.observation, shown_observation(other, modality).upper().replace(" ", "  ")):
            assert grade(answer("stop()", shown), point).outcome == "wrong_observation"


@pytest.mark.parametrize(
    ("point", "text", "reward", "message"),
    [
        (CORNER, answer("turn_direction(north)"), 1, "Correct action."),
        (CORNER, json.dumps({"action": "turn_direction(north)"}), 1, "Correct action."),
        (CORNER, '{"action": "turn_direction(north)"', 1, "Correct action."),
        (
            CORNER,
            answer("turn_direction( north)"),
            -1,
            "you make incorrect action. Please avoid this action" + RETRY,
        ),
        (
            CORNER,
            '{"action" : "turn_direction(north)",}',
            -1,
            "you make incorrect action. Please avoid this action" + RETRY,
        ),
        # The released code looks for the word in the landmark's text: the truth is called an error ...
        (
            CORNER,
            answer("stop()", AT_CORNER),
            -1.5,
            "you are not at any intersection. Please avoid this observation" + RETRY,
        ),
        # ... and an error goes unnoticed.
        (CORNER, answer("stop()"), -1, "you make incorrect action. Please avoid this action" + RETRY),
        (
            ROAD,
            answer("stop()", AT_CORNER),
            -1.5,
            "you are not at any intersection. Please avoid this observation" + RETRY,
        ),
        (ROAD, "", -1, "you make incorrect action. Please avoid this action" + RETRY),
        (
            ROAD,
            '{"action": 1, "current observation": 2}',
            -1,
            "you make incorrect action. Please avoid this action" + RETRY,
        ),
    ],
)
def test_official_grades(point, text, reward, message):
    verdict = grade(text, point, verifier="official")
    assert (verdict.reward, verdict.feedback) == (reward, message)


HOSTILE = [
    "",
    "\0" * 1000,
    "\ud800\udfff",
    "[" * 200_000,
    '{"action":' * 50_000,
    '{"action": "' * 50_000,
    '{"action": "\\' * 50_000,
    '"action"' + " " * 1_000_000,
    "9" * 1_000_000,
    '{"action": ' + "9" * 5000 + "}",
    '{"action": NaN}',
    '{"action": null}',
    '{"action": {"action": "forward()"}}',
    '{"action": "\\ud800"}',
    '{"action": "\\x", "current observation": "\\q"',
    '{"action": "__import__(\'os\').system(\'true\')", "current observation": []}',
    '{"action": "stop()", "current observation": {"intersection": 1}}',
    "nörth ٣ 北" * 10_000,
    "x" * 5_000_000,
]


@pytest.mark.parametrize("verifier", ["exact", "official"])
@pytest.mark.parametrize("actions", ["absolute", "relative"])
def test_any_text_is_survived(verifier, actions):
    env = make(verifier=verifier, actions=actions)
    before = time.process_time()
    for text in HOSTILE:
        env.reset(seed=0)
        observation, reward, terminated, _, info = env.step(text)
        assert info["outcome"] in OUTCOMES[1:] and reward in (-1.0, -1.5) and not terminated
        assert observation["messages"][1] == {"role": "assistant", "content": text}
        assert info["position"] == 0
    assert time.process_time() - before < 5


def test_an_action_is_text():
    env = make()
    env.reset(seed=0)
    for action in (None, 3, b"forward()", ["forward()"]):
        with pytest.raises(ValueError, match="text"):
            env.step(action)


def test_a_right_step_brings_a_fresh_prompt_with_history():
    env = make()
    first, info = env.reset(seed=1, options={"route": 4})
    assert info.keys() == INFO_KEYS and info["outcome"] is None and info["feedback"] is None
    assert [message["role"] for message in first["messages"]] == ["user"]
    action = info["expert_action"]
    env.step(wrong(info))
    second, reward, terminated, truncated, info = env.step(expert(info))
    assert (reward, terminated, truncated, info["outcome"]) == (1.0, False, False, "correct")
    assert (info["position"], info["attempts_left"], info["success"]) == (1, 2, False)
    assert len(second["messages"]) == 1
    assert f"O_1: No landmarks nearby;\nA_1: {action}\nO_2: " in second["messages"][0]["content"]
    assert len(first["messages"]) == 1 and "O_2" not in first["messages"][0]["content"]


def test_an_error_is_answered_and_tried_again_in_place():
    env = make()
    first, start = env.reset(seed=1)
    observation, reward, terminated, truncated, info = env.step(wrong(start))
    assert (reward, terminated, truncated) == (-1.0, False, False)
    assert (info["position"], info["attempts_left"], info["expert_action"]) == (0, 1, start["expert_action"])
    assert observation["messages"] == [
        *first["messages"],
        {"role": "assistant", "content": wrong(start)},
        {"role": "user", "content": "You failed this trial because your action is incorrect."},
    ]
    _, reward, terminated, truncated, info = env.step(wrong(start))
    assert (reward, terminated, truncated, info["attempts_left"], info["success"]) == (
        -1.0,
        False,
        True,
        0,
        False,
    )
    with pytest.raises(ResetNeeded):
        env.step(wrong(start))


def test_the_official_episode_reads_one_more_answer_without_grading_it():
    env = make(verifier="official")
    _, start = env.reset(seed=1)
    for _ in range(2):
        observation, _, terminated, truncated, _ = env.step(wrong(start))
        assert not terminated and not truncated
    assert observation["messages"][-1]["content"].startswith(
        "You failed this trial because you make incorrect action."
    )
    _, reward, terminated, truncated, info = env.step(expert(start))
    assert (reward, terminated, truncated, info["success"], info["position"]) == (-1.0, False, True, False, 0)
    assert info["feedback"] == "Exceed maximum verify steps"


def test_attempts_count_anew_at_every_position():
    env = make(max_attempts=3)
    _, info = env.reset(seed=2)
    rewards, done = [], False
    while not done:
        for _ in range(2):
            _, reward, done, truncated, info = env.step(wrong(info))
            rewards.append(reward)
            assert not truncated
        _, reward, done, _, info = env.step(expert(info))
        rewards.append(reward)
    assert info["success"] and rewards.count(1.0) == info["positions"] == len(rewards) / 3


@pytest.mark.parametrize("name", city_names())
def test_the_expert_scores_one_on_every_route_under_both_verifiers(name):
    """Rewards all 1, success everywhere; the two action spaces take turns over the routes."""
    for verifier, order in (("exact", ("absolute", "relative")), ("official", ("relative", "absolute"))):
        envs = [make(routes=name, verifier=verifier, actions=actions) for actions in order]
        for route in range(len(load_city(name))):
            env = envs[route % 2]
            _, info = env.reset(seed=route, options={"route": route})
            terminated, steps = False, 0
            while not terminated:
                _, reward, terminated, truncated, info = env.step(expert(info))
                assert reward == 1.0 and not truncated, (verifier, route)
                steps += 1
            assert info["success"] and steps == info["positions"] and info["expert_action"] == "stop()"


def test_expert_pairs_are_what_the_environment_shows():
    for actions in ("absolute", "relative"):
        env = make(actions=actions)
        observation, info = env.reset(seed=5, options={"route": 7})
        for prompt, response in expert_pairs(env.rail, actions):
            assert observation["messages"] == [{"role": "user", "content": prompt}]
            assert response == expert(info)
            observation, *_, info = env.step(response)
        assert info["success"]


def test_actions_change_only_the_action_space():
    absolute, relative = make(), make(actions="relative")
    first, info = absolute.reset(seed=3)
    second, other = relative.reset(seed=3)
    differing = [
        pair
        for pair in zip(
            first["messages"][0]["content"].split("\n"),
            second["messages"][0]["content"].split("\n"),
            strict=True,
        )
        if pair[0] != pair[1]
    ]
    assert len(differing) == 1 and "turn_direction(x)" in differing[0][0]
    assert info["expert_action"] != other["expert_action"]
    assert absolute.step(expert(other))[4]["outcome"] == "illegal"


def test_seeds_decide():
    def episodes(seed):
        env = make(routes="boston")
        starts = [env.reset(seed=seed), env.reset(), env.reset()]
        return [(observation["messages"], info["route"], info["positions"]) for observation, info in starts]

    assert episodes(1) == episodes(1) != episodes(2)
    env = make(routes="boston")
    env.reset(seed=8, options={"route": 5})
    rail = env.rail
    env.reset()
    env.reset(options={"route": 5})
    assert env.rail == rail
    env.reset(seed=9, options={"route": 5})
    assert env.rail != rail


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"modality": "sound"}, "sound.*text"),
        ({"actions": "both"}, "both.*relative"),
        ({"verifier": "kind"}, "kind.*official"),
        ({"max_attempts": 0}, "max_attempts.*0"),
        ({"max_attempts": 2.0}, "max_attempts"),
        ({"routes": "atlantis"}, "atlantis.*nyc"),
    ],
)
def test_bad_arguments(options, words):
    with pytest.raises(ValueError, match=words):
        make(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"route": 180}, {"route": -1}, {"route": "0"}, {"route": True}, {"position": 99}, {"position": -1},
        {"position": True}, {"hand": [1]},
    ],
)
def test_bad_reset_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        make().reset(options=options)


def test_more_than_ten_thousand_steps_a_second():
    """Resets and expert answers included, on one core; half of that is asked of a machine that is busy."""
    env = gymnasium.make("sftrl/Navigation-v0", routes="nyc")
    _, info = env.reset(seed=0)
    best = 0.0
    for _ in range(5):
        before = time.process_time()
        for _ in range(4000):
            _, _, terminated, _, info = env.step(expert(info))
            if terminated:
                _, info = env.reset()
        best = max(best, 4000 / (time.process_time() - before))
    print(f"{best:,.0f} steps a second")
    assert best > 5_000
