"""Navigation as a study: what SFT is shown, which routes are tested, what is counted, and the fork end to end."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from tiny_models import tiny_profile

from sftrl_lib import paths, tables
from sftrl_lib.configs import Protocol
from sftrl_lib.evaluation import measurements
from sftrl_lib.evaluation.episodes import play, transcript, within
from sftrl_lib.experiments import MAIN, SUBOPTIMAL, setting_text
from sftrl_lib.models.rollout import Attempt, Conversation, Episode
from sftrl_lib.profiles import LAPTOP, SMOKE
from sftrl_lib.runs import Run, main_run
from sftrl_lib.tasks import TASKS, VIRL_L, labelled, task_of
from sftrl_lib.training import fork, ppo
from sftrl_lib.virl import expert_response, grade, load_city
from sftrl_lib.virl.rails import Rail, RailPoint, rail_builder

# The tasks


def test_tasks_are_found_by_key_label_and_columns():
    assert task_of("navigation", "text") is VIRL_L is TASKS["virl-l"] is labelled("V-IRL-L")
    assert list(TASKS) == [task.key for task in TASKS.values()] == ["gp-l", "virl-l", "gp-vl", "virl-vl"]
    for wrong in (("navigation", "smell"), ("chess", "text")):
        with pytest.raises(ValueError, match="'general_points', 'text'.*'navigation', 'text'"):
            task_of(*wrong)
    with pytest.raises(ValueError, match="'chess'; use one of gp-l, virl-l, gp-vl, virl-vl.$"):
        TASKS["chess"]
    with pytest.raises(ValueError, match="'Chess-L'; use one of GP-L, V-IRL-L, GP-VL, V-IRL-VL.$"):
        labelled("Chess-L")
    with pytest.raises(ValueError, match="'ood' of V-IRL-L; use one of id, heldout, rule_ood"):
        VIRL_L.split("ood")


def test_every_environment_of_a_task_can_be_made():
    for task in TASKS.values():
        for arguments in (task.training, *task.splits.values()):
            env = task.make_env(arguments, 2)
            assert env.max_attempts == 2 and env.modality == task.modality
    assert VIRL_L.training_env(2).actions == "absolute"


def test_the_studies_of_a_profile():
    for profile in (SMOKE, LAPTOP):
        assert {study.task.key for study in profile.studies} == set(TASKS)
        assert profile.study("virl-l").task is VIRL_L
    alone = replace(LAPTOP, studies=LAPTOP.studies[:1])
    with pytest.raises(ValueError, match="'laptop' has no study of 'virl-l'; it has gp-l.$"):
        alone.study("virl-l")
    with pytest.raises(ValueError, match="two studies of one task: gp-l, gp-l.$"):
        replace(LAPTOP, studies=LAPTOP.studies[:1] * 2)


def main_settings(key):
    """(experiment, setting) of what is the very training of the main comparison."""
    arms = [(e.name, arm) for e in LAPTOP.study(key).experiments for arm in e.arms if e.name != "main"]
    runs = [Run(LAPTOP, key, arm.method, name, setting_text(setting)) for name, arm in arms for setting in arm.settings]
    return [(run.experiment_name, run.setting) for run in runs if main_run(run)]


def test_the_main_comparison_is_a_setting_of_what_is_varied():
    """What it stands for is among the profile's settings, so that nothing is trained twice and nothing is missing."""
    assert main_settings("gp-vl") == [("sft_tuning", "lr=0.001;frozen=none"), ("rl_tuning", "lr=0.0003")]
    [tuned] = LAPTOP.study("gp-vl").experiment("sft_tuning").arms
    assert len(tuned.settings) == 10, "as many runs as in Fig. 16"
    assert main_settings("gp-l") == [("attempts", "attempts=5")]
    assert main_settings("virl-l") == main_settings("virl-vl") == []


def test_a_main_run_appears_under_the_settings_it_stands_for(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "HOME", tmp_path)
    profile = replace(LAPTOP, name="tuning")
    run = Run(profile, "gp-vl", "sft")
    part = measurements.Part(run.tests, run.tests_identity)
    shared = dict(task="general_points", modality="image", method="sft", experiment="main", seed=0, step=1)
    row = {**shared, "setting": "sampled", "train_flops": 1.0, "metric": "success", "value": 0.5, "n": 10}
    splits = ("id", "rule_ood", "visual_ood")
    part.add([{**row, "split": split} for split in splits])
    part.add([{**row, "split": split, "setting": "greedy"} for split in splits])
    for seeds in ((), (0,), ()):  # merging again adds nothing
        frame = measurements.merge(profile, seeds)
        tuned = tables.select(frame, experiment="sft_tuning")
        assert set(tuned.setting) == {"lr=0.001;frozen=none"} and list(tuned.split) == list(splits)
        assert list(tuned.value) == [0.5] * 3 and len(frame) == 9
        assert not len(tables.select(frame, experiment="rl_tuning"))
    assert len(tables.read(part.path)) == 6, "it is kept once"


# The demonstrations


def test_demonstrations_are_the_experts_answers():
    """Right at their position of the rail, in the training action space."""
    examples = list(islice(VIRL_L.demonstrations("expert", np.random.default_rng(3)), 400))
    rng, city = np.random.default_rng(3), load_city("nyc")
    positions = set()
    for route, example in zip(map(int, rng.permutation(len(city))), examples, strict=False):
        rail = rail_builder(city).build(route, int(rng.integers(2**31)))
        position = int(rng.integers(len(rail)))
        [said], [asked] = example["completion"], example["prompt"]
        shown = rail.points[position]
        assert grade(said["content"], shown).outcome == "correct" and not VIRL_L.shows_held_out(example)
        assert asked["content"].startswith("[Task Description]") and "northwest" in asked["content"]
        assert f"O_{position + 1}: {shown.observation}" in asked["content"]
        positions.add(position)
    assert {0, 5, 10} <= positions


def test_demonstrations_draw_from_every_route_alike():
    """Whatever their number, as the rollouts of RL do; so the data of the two branches are the same."""
    walked = []
    city = replace(load_city("nyc"), name="some", routes=load_city("nyc").routes[:50])
    task = replace(VIRL_L, training={**VIRL_L.training, "routes": city})
    for example in islice(task.demonstrations("expert", np.random.default_rng(0)), 150):
        prompt = example["prompt"][0]["content"]
        walked.append(prompt[: prompt.index("[Action space]")])  # the instructions of a route
    for begin in (0, 50, 100):
        assert len(set(walked[begin : begin + 50])) == 50
    assert set(walked[:50]) == set(walked[50:100])


def test_a_relative_turn_would_be_noticed():
    turn = {"completion": [{"role": "assistant", "content": expert_response("", "", "turn_direction(slightly left)")}]}
    assert VIRL_L.shows_held_out(turn)


def test_another_pass_has_other_positions():
    city = replace(load_city("nyc"), name="few", routes=load_city("nyc").routes[:4])
    task = replace(VIRL_L, training={**VIRL_L.training, "routes": city})
    examples = list(islice(task.demonstrations("expert", np.random.default_rng(0)), 40))
    assert len({example["prompt"][0]["content"] for example in examples}) > 30


# The tests


def test_every_route_is_tested_before_any_twice():
    """On every split; the routes of fewer episodes are the first of more."""
    seeds = list(range(400))
    for split, routes in (("id", 1000), ("heldout", 200), ("visual_ood", 180)):
        resets = TASKS["virl-vl"].resets(split, seeds)
        chosen = [reset["options"]["route"] for reset in resets]
        count = min(routes, 400)
        assert len(set(chosen[:count])) == count and max(chosen) < routes
        assert max(chosen.count(route) for route in set(chosen)) == -(-400 // routes)
        assert [r["seed"] for r in resets] == seeds and TASKS["virl-vl"].resets(split, seeds[:48]) == resets[:48]


# The metrics

NORTH, LEFT = "turn_direction(north)", "turn_direction(left)"
TURN = RailPoint((40.0, -74.0), 90, NORTH, LEFT, "No landmarks nearby", False, 1, "Turn")
ROAD = RailPoint((40.1, -74.0), 0, "forward()", "forward()", "No landmarks nearby", False, 2, "Move")
END = RailPoint((40.2, -74.0), 0, "stop()", "stop()", "The destination is here", False, 2, "Move")
RAIL = Rail((TURN, ROAD, END), ("Turn left to face north.", "Move forward."), 90)


def episode(actions, *positions, terminated=False):
    """An episode on `RAIL`; for every position the texts of its answers, graded as in the action space `actions`."""
    conversations = []
    for point, texts in zip(RAIL.points, positions, strict=False):
        verdicts = [grade(text, point, actions) for text in texts]
        pairs = zip(texts, verdicts, strict=True)
        attempts = [Attempt(0, 0, [], 0.0, text, v.reward, v.outcome, v.feedback) for text, v in pairs]
        conversations.append(Conversation([], attempts))
    return Episode(conversations, {"rail": RAIL, "route": 5}, terminated, not terminated)


def says(action):
    return expert_response("No landmarks nearby;", "Move", action)


RIGHT = says(LEFT), says("forward()"), says("stop()")
OLD = says(NORTH)
TWO_KEYS = '{"current observation": "No landmarks nearby;", "action": "stop()"}'
EPISODES = [
    episode("relative", *([text] for text in RIGHT), terminated=True),
    episode("relative", [OLD, RIGHT[0]], [TWO_KEYS, "no answer at all"]),
]


def test_metrics_by_hand():
    assert VIRL_L.measure("rule_ood", EPISODES) == {
        "step_accuracy": (4 / 7, 2),  # 3 of 3, then wrong, right, wrong, wrong
        "success": (1 / 2, 2),
        "first_attempt": (3 / 5, 2),
        "format": (4 / 5, 2),  # the instruction is missing once
        "legal_action": (5 / 7, 2),
        "training_rule": (1 / 3, 2),  # three answers at turning positions
    }
    assert within(EPISODES, 1) == within(EPISODES, 2) == (0.5, 2)
    retried = episode("relative", [OLD, RIGHT[0]], [RIGHT[1]], [RIGHT[2]], terminated=True)
    assert within([retried], 1) == (0.0, 1) and within([retried], 2) == (1.0, 1)


def test_metrics_under_the_training_rule():
    spaced = episode("absolute", [OLD.replace("(north)", "( north )")], [RIGHT[1]], [RIGHT[2]], terminated=True)
    found = VIRL_L.measure("id", [spaced])
    assert "training_rule" not in found, "nothing sets it apart here"
    assert found["legal_action"] == found["step_accuracy"] == (1.0, 1)
    lost = VIRL_L.measure("heldout", [episode("absolute", [RIGHT[0], '{"action": 3}'])])
    assert lost["legal_action"] == lost["step_accuracy"] == (0.0, 1) and lost["format"] == (1.0, 1)


# What is tested

FEW = Protocol(episodes=12, attempts=2, temperature=1.0, max_new_tokens=2)


def test_splits_obey_their_rules(policy):
    seen = {split: play(policy, VIRL_L, split, FEW, 3, batch=8) for split in VIRL_L.splits}
    destinations = {name: {route.waypoints[-1] for route in load_city(name).routes} for name in ("nyc", "nyc:heldout")}
    for split, episodes in seen.items():
        ends = {e.info["rail"].points[-1].geocode for e in episodes}
        assert ends <= destinations["nyc:heldout" if split == "heldout" else "nyc"]
        for played in episodes:
            prompt = policy.tokenizer.decode(played.conversations[0].ids)
            space = prompt.partition("[Action space]")[2].partition("[Observations")[0]
            assert ("slightly right" in space) == (split == "rule_ood")
            assert played.info["expert_action"] == played.info["rail"].points[0].action(
                "relative" if split == "rule_ood" else "absolute"
            )
    routes = [e.info["route"] for e in seen["id"]]
    assert routes == [e.info["route"] for e in play(policy, VIRL_L, "id", replace(FEW, temperature=0.0), 3)]
    assert routes != [e.info["route"] for e in seen["rule_ood"]] and len(set(routes)) > 8


def test_a_transcript_shows_the_route_and_what_was_said(policy):
    [played] = play(policy, VIRL_L, "rule_ood", replace(FEW, episodes=1), 0)
    shown, rail = transcript(VIRL_L, "rule_ood", played, policy, 4), played.info["rail"]
    assert shown | {"turns": []} == {
        "episode": 4,
        "success": False,
        "city": "nyc",
        "actions": "relative",
        "route": played.info["route"],
        "instructions": list(rail.instructions),
        "path": [list(point.geocode) for point in rail.points],
        "headings": [point.heading for point in rail.points],
        "turns": [],
    }
    assert len(shown["turns"]) == 2
    for turn, attempt in zip(shown["turns"], played.attempts, strict=True):
        assert turn["output"] == attempt.text and turn["feedback"] == attempt.feedback != ""
        assert (turn["position"], turn["expert_action"]) == (0, rail.points[0].relative)
    assert shown["turns"][0]["prompt"].startswith("[Task Description]")
    assert shown["turns"][1]["prompt"] == shown["turns"][0]["feedback"]


# The fork


def test_the_fork_end_to_end(tiny_folder, tmp_path, monkeypatch):
    """Init, both branches and their tests on a tiny random model."""
    monkeypatch.setattr(paths, "HOME", tmp_path)
    profile = tiny_profile(tiny_folder, "virl-l", experiments=(MAIN, SUBOPTIMAL))
    keys, original = [], ppo.learn
    monkeypatch.setattr(ppo, "learn", lambda *args: keys.append(args[6]) or original(*args))
    [init] = fork.train(Run(profile, "virl-l", "init"))
    measurements.evaluate(Run(profile, "virl-l", "init"))
    for method in ("sft", "rl"):
        run = Run(profile, "virl-l", method)
        found = fork.train(run)
        assert len(found) == run.study.checkpoints + (method == "rl") == 2 + (method == "rl")
        assert found[-1].compute.init_tokens == init.compute.init_tokens > 0
        measurements.evaluate(run)
    assert set(keys) == {"action"}
    assert Run(profile, "virl-l", "rl").folder.name == "virl-l-rl-main-s0"
    runs = {"virl-l-init-s0", "virl-l-sft-main-s0", "virl-l-rl-main-s0"}

    def built(folder):
        return {path.name for path in (paths.build("tiny") / folder).iterdir()}

    assert built("runs") == built("tests") == runs and built("data") == {"virl-l-expert"}
    assert len(fork.demonstrations(profile, profile.study("virl-l"))) == 64
    frame = measurements.merge(profile)
    assert set(frame.task) == {"navigation"} and set(frame.experiment) == {"main"}
    assert set(frame.split) == set(VIRL_L.splits) and set(frame.method) == {"init", "sft", "rl"}
    counted = {"step_accuracy", "success", "first_attempt", "format", "legal_action", "training_rule", "kl_to_init"}
    assert set(frame.metric) == counted
    assert set(frame[frame.metric == "kl_to_init"].split) == {"id"}
    assert set(frame[frame.metric == "training_rule"].split) == {"rule_ood"}
    records = tables.read_transcripts("tiny")
    assert {record["actions"] for record in records if record["split"] == "rule_ood"} == {"relative"}
    with pytest.raises(ValueError, match="V-IRL-L has no 'suboptimal' demonstrations; use one of expert.$"):
        fork.train(Run(profile, "virl-l", "sft_suboptimal", "suboptimal"))
    assert built("runs") == runs
