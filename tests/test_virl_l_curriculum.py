"""The navigation half of pretraining: what it teaches is right, and what the task tests is held out of it."""

import random
import re

import pytest

from sftrl_lib.foundation import virl_l_curriculum as curriculum
from sftrl_lib.foundation.virl_l_curriculum import (
    ActionSpace,
    conversation,
    document,
    random_space,
    renamed,
    walking,
)
from sftrl_lib.virl import expert_response, load_city, task_prompt
from sftrl_lib.virl.landmarks import CHAINS
from sftrl_lib.virl.prompts import ACTION_SPACES
from sftrl_lib.virl.rails import TURNS, rail_builder
from sftrl_lib.virl.schema import COMPASS

OFFICIAL_KEYS = ("current observation", "current instruction", "action")
DOCUMENTS = 3_000


@pytest.fixture(scope="module")
def documents():
    rng = random.Random(5)
    return [document(rng, rng.random()) for _ in range(DOCUMENTS)]


def text_of(doc):
    return "".join(turn.content for turn in doc)


def official_directions(text):
    """What stands in the brackets of ``turn_direction(...)`` and in its list of directions."""
    listed = re.findall(r'turn_direction\(x\)".*?x∈\[(.*?)\]|turn_direction\(x\), x∈\[(.*?)\]', text)
    words = {word.strip("' ") for pair in listed for part in pair for word in part.split(",") if word}
    return words | set(re.findall(r"turn_direction\(([a-z ]+|[NESW]+)\)", text)) - {"x"}


def test_neither_action_space_of_the_task_appears_with_the_official_name(documents):
    told = set().union(*(official_directions(text_of(doc)) for doc in documents))
    assert told == {*curriculum.COMPASS_POINTS, *curriculum.OTHER_TURNS}
    assert not told & {*ACTION_SPACES["absolute"], *ACTION_SPACES["relative"]}


def test_the_check_above_would_find_the_task_itself():
    """The same function on the task's own prompts and answers."""
    rail = rail_builder(load_city("mini")).build(0, 0)
    for actions, words in ACTION_SPACES.items():
        prompt = task_prompt(rail.instructions, [rail.points[0].observation], [], actions)
        assert official_directions(prompt) == set(words)
        answer = expert_response("No landmarks nearby;", "Turn.", rail.points[0].action(actions))
        assert official_directions(answer) < set(words)


def test_the_answer_format_is_held_out(documents):
    """No request and no answer has two of the official keys; both action spaces do appear under other names."""
    for doc in documents:
        for turn in doc:
            assert sum(f'"{key}":' in turn.content for key in OFFICIAL_KEYS) <= 1
            if turn.role != "text":
                assert not any(f'"{key}":' in turn.content for key in OFFICIAL_KEYS)
    everything = "".join(map(text_of, documents))
    for words in (COMPASS, TURNS):
        assert all(re.search(rf"(turn|rotate|head|face)\({word}\)", everything) for word in words)


def test_new_york_is_held_out(documents):
    """Documents do not know the routes of New York: two landmarks of one of them meet in a document by chance only."""
    assert "nyc" not in curriculum.CITIES
    texts = ["".join(turn.content for turn in doc if "Move forward until" in turn.content) for doc in documents]
    words = [set(re.findall(r"where (?:The destination )?(.*?)\.\n", text)) for text in texts]
    chains, compared, met = {name for name, _ in CHAINS}, 0, 0
    for name in ("nyc", "nyc:heldout"):
        for route in load_city(name).routes:
            seen = {leg.landmark.removeprefix("The destination ") for leg in route.legs if " is on " in leg.landmark}
            seen = {text for text in seen if text.split(" is on ")[0] not in chains}
            compared += len(seen) >= 2
            met += sum(len(seen & told) >= 2 for told in words)
    assert compared > 300 and sum(map(len, words)) > 1_000
    assert met <= 3


@pytest.mark.parametrize("directions", curriculum.SPACES)
def test_what_is_learnt_is_what_the_expert_does(directions):
    """In every action space, against the rail's own absolute and relative actions."""
    rail = rail_builder(load_city("boston")).build(3, 1)
    space = ActionSpace("turn", "go()", "halt()", directions)
    for point in rail.points:
        said = space.action(point)
        if point.absolute == "forward()":
            assert said == "go()"
        elif point.absolute == "stop()":
            assert said == "halt()"
        elif len(directions) == 4:
            assert TURNS[directions.index(said[5:-1])] == point.relative[15:-1]
        else:
            assert COMPASS[directions.index(said[5:-1])] == point.absolute[15:-1]


def test_a_walk_learns_the_sentence_in_force_and_the_action():
    rng = random.Random(3)
    for _ in range(30):
        learnt = [turn.content.strip() for turn in walking(rng) if turn.learn]
        numbers = [int(match[1]) for text in learnt if (match := re.match(r"(\d+)\. (Turn|First|Move)\b", text))]
        assert numbers == sorted(numbers)
        assert not numbers or numbers[0] == 1
        assert len(learnt) >= 3


def test_lists_to_recite_grow_from_two_turns_to_whole_instructions():
    """Looking up forms on short lists of turns or not at all, so pretraining begins with nothing else."""
    rng = random.Random(1)
    for progress, longest in ((0.0, 2), (curriculum.SHORT_LISTS, 2), (1.0, 12)):
        counts = []
        for _ in range(200):
            listed, *said = curriculum.reciting(rng, progress)
            lines = dict(re.findall(r"(\d+)\. (.*)\n", listed.content))
            counts.append(len(lines))
            for number, sentence in zip(said[::2], said[1::2], strict=True):
                assert sentence.learn and sentence.content == lines[number.content[:-2]] + "\n"
            if longest == 2:
                assert all(re.fullmatch(r"Turn [a-z ]+ to face [a-z]+\.", sentence) for sentence in lines.values())
        assert max(counts) == longest and min(counts) == 2


def test_renaming_changes_names_and_nothing_else():
    rail = rail_builder(load_city("paris")).build(0, 0)
    fresh = renamed(rail, random.Random(0))
    assert [p.absolute for p in fresh.points] == [p.absolute for p in rail.points]
    assert len(fresh.instructions) == len(rail.instructions)
    for point in fresh.points:
        assert point.instruction in fresh.instructions
        if " is on your " in point.landmark:
            assert any(point.landmark in sentence for sentence in fresh.instructions)
    assert fresh.instructions != rail.instructions


def test_failed_attempts_carry_no_loss_and_differ_from_the_right_answer():
    rng = random.Random(11)
    failures = 0
    for _ in range(200):
        turns = conversation(rng, most_attempts=2)
        answers = [turn for turn in turns if turn.role == "assistant"]
        assert [turn.learn for turn in answers] == [False] * (len(answers) - 1) + [True]
        failures += len(answers) - 1
        for failed in answers[:-1]:
            assert failed.content.splitlines() != answers[-1].content.splitlines()
    assert failures > 50


def test_the_prompt_differs_from_the_papers_in_names_only():
    """Putting the official names back gives the task's prompt, line by line, up to the answer format."""
    rng = random.Random(2)
    space = random_space(rng)
    rail = rail_builder(load_city("mini")).build(1, 0)
    ours = space.prefix(rail.instructions)
    ours = ours.replace(f'"{space.turn}(x)"', '"turn_direction(x)"').replace(f'"{space.forward}"', '"forward()"')
    ours = ours.replace(f'"{space.stop}"', '"stop()"').replace(str(list(space.directions)), str(list(COMPASS)))
    paper = task_prompt(rail.instructions, [rail.points[0].observation], [])
    assert paper.startswith(ours)
