"""The tasks in other libraries: an oracle plays an episode through each; an exported file brings it back."""

import asyncio
import base64
import json
from contextlib import asynccontextmanager
from io import BytesIO
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import stand_ins
from PIL import Image

from sftrl_lib.interfaces import export
from sftrl_lib.interfaces.questions import Play, questions
from sftrl_lib.interfaces.rewards import points_reward, question_reward
from sftrl_lib.seeds import resets
from sftrl_lib.tasks import TASKS

stand_ins.provide("skyrl_gym")
stand_ins.provide("verifiers")

WRONG = '{"formula": "1+1=24", "action": "fly()"}'
PLACES = [(key, split) for key, task in TASKS.items() for split in ("train", *task.splits) if task.modality == "text"]
PLACES += [("gp-vl", "rule_ood"), ("gp-vl", "visual_ood"), ("virl-vl", "visual_ood")]


def first(key, split="train"):
    return next(questions(TASKS[key], split, 1))


@pytest.mark.parametrize(("key", "split"), PLACES)
def test_the_expert_answers_every_kind_of_question(key, split):
    for row in questions(TASKS[key], split, 3, seed=5):
        play = Play(json.loads(json.dumps(row["info"])), attempts=2)
        assert play.observation["messages"] == row["prompt"]
        play.answer(WRONG)
        assert not play.solved and not play.done
        play.answer(row["answer"])
        assert play.solved and play.done and play.rewards[0] < 0 < play.rewards[1]
        if "image" in row:
            assert np.array_equal(play.observation["image"], row["image"])


def test_attempts_end():
    play = Play(first("gp-l")["info"], attempts=2)
    assert "failed this trial" in play.answer(WRONG) and not play.done
    play.answer(WRONG)
    assert play.done and not play.solved and len(play.rewards) == 2


@pytest.mark.parametrize(("key", "attempts"), [("gp-l", 5), ("virl-l", 2)])
def test_a_question_has_the_papers_attempts(key, attempts):
    play = Play(first(key)["info"])
    for _ in range(attempts):
        assert not play.done
        play.answer(WRONG)
    assert play.done


def test_questions_of_a_split_are_those_of_the_tests():
    task = TASKS["gp-l"]
    rows = questions(task, "heldout", 20, seed=3)
    assert [row["info"]["reset"] for row in rows] == resets(task, "heldout", 3, 20)


def test_a_route_is_a_question_for_every_position():
    rows = list(questions(TASKS["virl-l"], "id", 12))
    places = [row["info"]["reset"]["options"] for row in rows]
    ends = [i for i, row in enumerate(rows) if row["action"] == "stop()"]
    assert [place["position"] for place in places[: ends[0] + 1]] == list(range(ends[0] + 1))
    assert places[ends[0] + 1]["position"] == 0 and places[ends[0] + 1]["route"] != places[0]["route"]


def test_what_is_no_question_is_named():
    with pytest.raises(ValueError, match="Unknown split 'chess' of GP-L; use one of id, .*, train"):
        next(questions(TASKS["gp-l"], "chess"))
    with pytest.raises(ValueError, match="count must be a whole number of at least 1, got 0"):
        next(questions(TASKS["gp-l"], count=0))
    for info in ({}, None, {"task": "gp-l", "split": "id"}):
        with pytest.raises(ValueError, match="is no question's info; it needs 'task', 'split' and 'reset'"):
            Play(info)


@pytest.mark.parametrize(("key", "split"), [("gp-l", "rule_ood"), ("virl-l", "train"), ("gp-vl", "visual_ood")])
def test_a_file_of_questions_holds_all_that_is_needed(key, split, tmp_path):
    file = tmp_path / "questions.jsonl"
    assert export.main(["--task", key, "--split", split, "-n", "4", "--out", str(file)]) == 0
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 4 and all(question_reward([row["answer"], WRONG], 2 * [row["info"]])[0] > 0 for row in rows)
    if key == "gp-l":
        columns = {name: [row[name] for row in rows] for name in ("answer", "cards", "rule", "target")}
        assert points_reward(columns.pop("answer"), **columns) == [5.0] * 4 and set(columns["rule"]) == {"distinct"}
    if key == "gp-vl":
        url = rows[0]["prompt"][0]["content"][0]["image_url"]["url"]
        shown = np.asarray(Image.open(BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,")))))
        assert np.array_equal(shown, Play(rows[0]["info"]).observation["image"])


def test_an_export_that_cannot_be_made_says_why(capsys):
    for wrong, words in ((["--task", "chess"], "Unknown task 'chess'"), (["--split", "x"], "Unknown split 'x'")):
        assert export.main([*wrong, "-n", "1"]) == 1 and words in capsys.readouterr().err


@pytest.mark.parametrize("said", [str, lambda text: [{"role": "assistant", "content": text}]])
def test_rewards_come_from_the_columns_alone(said):
    """Also for a rule of one's own, and for a completion without a message."""
    hand = {"cards": [["K", "3", "3", "2"]], "rule": ["5,6,7"], "target": [24]}  # 7, 3, 3, 2
    for formula, reward in (("7*3+3*2=24", -1.0), ("7+3=24", -2.0), ("13+3*3+2=24", -2.0), ("", -3.0)):
        assert points_reward([said(f'{{"formula": "{formula}"}}')], prompts=["?"], **hand) == [reward]
    assert points_reward([said('{"formula": "7*3+3*2=27"}')], **{**hand, "target": [27]}) == [5.0]
    assert points_reward([[]], **hand) == [-3.0]


def test_pictures_are_read_before_they_are_reckoned_with():
    row = first("gp-vl")
    columns = {name: [row[name]] for name in ("cards", "rule", "target")}
    assert points_reward([row["answer"]], images=[row["image"]], **columns) == [5.0]
    assert points_reward(['{"cards": ["A"]}'], images=[row["image"]], **columns) == [-1.5]


@pytest.mark.parametrize("key", ["gp-l", "virl-l"])
def test_an_oracle_plays_through_skyrl_gym(key):
    import skyrl_gym

    import sftrl_lib.interfaces.skyrl_gym  # noqa: F401  (registers)

    row = first(key)
    env = skyrl_gym.make("sftrl", extras={"info": row["info"], "attempts": 3})
    assert env.init(row["prompt"]) == (row["prompt"], {})
    failed = env.step(WRONG)
    assert failed["reward"] < 0 and not failed["done"] and failed["metadata"]["outcome"] != "correct"
    [feedback] = failed["observations"]
    assert feedback["role"] == "user" and "failed this trial" in feedback["content"]
    solved = env.step(row["answer"])
    assert solved["reward"] > 0 and solved["done"] and not solved["observations"]
    assert env.get_metrics() == {"attempts": 2, "solved": 1.0}
    with pytest.raises(ValueError, match="is no question's info"):
        skyrl_gym.make("sftrl", extras={})


class Player:
    """An agent of verifiers with scripted answers: `interaction(task)`, whose `turn` gives the next one."""

    def __init__(self, *answers):
        self.answers, self.heard, self.rewards, self.metrics = list(answers), [], {}, {}

    @asynccontextmanager
    async def interaction(self, task):
        trace = SimpleNamespace(record_reward=self.rewards.__setitem__, record_metrics=self.metrics.update)
        yield SimpleNamespace(turn=self.turn, trace=trace)

    async def turn(self, message=None):
        self.heard.append(message)
        reply = self.answers.pop(0) if self.answers else ""
        return SimpleNamespace(last_reply=reply, terminated=not reply)


@pytest.mark.parametrize("key", ["gp-l", "gp-vl", "virl-l"])
def test_an_oracle_plays_through_verifiers(key):
    import sftrl_verifiers

    config = _taskset(key, split="id", count=2, attempts=3)
    task, other = sftrl_verifiers.Questions(config)
    assert task.data.prompt != other.data.prompt and task.data.attempts == 3
    player = Player(WRONG, task.data.answer, "never asked for")
    env = sftrl_verifiers.QuestionsEnv.__new__(sftrl_verifiers.QuestionsEnv)  # whose __init__ loads harnesses
    asyncio.run(env.run(task, SimpleNamespace(player=player)))
    assert player.heard[0] is None and "failed this trial" in player.heard[1] and len(player.heard) == 2
    assert player.metrics == {"solved": 1.0, "attempts": 2}
    play = Play(task.data.info)
    play.answer(WRONG), play.answer(task.data.answer)
    assert player.rewards == {"verifier": sum(play.rewards)}


def test_a_player_who_stops_early_is_rewarded_for_what_was_said():
    import sftrl_verifiers

    [task] = sftrl_verifiers.Questions(_taskset("gp-l", count=1))
    player, env = Player(WRONG), sftrl_verifiers.QuestionsEnv.__new__(sftrl_verifiers.QuestionsEnv)
    asyncio.run(env.run(task, SimpleNamespace(player=player)))
    assert player.metrics == {"solved": 0.0, "attempts": 1}


def _taskset(key, **options):
    from sftrl_lib.interfaces.verifiers import QuestionsConfig

    return QuestionsConfig(id="sftrl-verifiers", key=key, **options)


def test_gymnasium_finds_the_environments_by_the_name_of_the_package():
    env = gymnasium.make("sftrl_lib:sftrl/GeneralPoints-v0", max_attempts=2)
    _, info = env.reset(seed=0)
    answer = TASKS["gp-l"].expert(env.unwrapped, info)
    assert env.step(answer)[1:4] == (5.0, True, False)


@pytest.mark.parametrize("name", ["GeneralPoints", "Navigation"])
def test_environments_run_side_by_side_in_processes_of_their_own(name):
    """Texts have no fixed length, so that they do not fit into shared memory: shared_memory=False."""
    from gymnasium.vector import AsyncVectorEnv

    def make():
        return gymnasium.make(f"sftrl_lib:sftrl/{name}-v0", max_attempts=2)

    envs = AsyncVectorEnv([make, make], shared_memory=False)
    try:
        observations, _ = envs.reset(seed=[1, 2])
        alone = [make().reset(seed=seed)[0]["messages"] for seed in (1, 2)]
        assert list(observations["messages"]) == alone
        observations, rewards, terminated, truncated, _ = envs.step((WRONG, "?"))
        assert (rewards < 0).all() and not terminated.any() and not truncated.any()
        assert all("failed this trial" in chat[-1]["content"] for chat in observations["messages"])
    finally:
        envs.close()
