"""The street views of pretraining: documents say what their pictures show, and the looks of the tests are held out."""

import random
import re

import numpy as np
import pytest
from test_virl_l_curriculum import OFFICIAL_KEYS, official_directions, text_of

from sftrl_lib.foundation import virl_l_curriculum, virl_vl_curriculum
from sftrl_lib.foundation.virl_vl_curriculum import conversation, document, pictured_walk, turned, walking
from sftrl_lib.virl.cities import MINI_CITIES
from sftrl_lib.virl.city import load_city
from sftrl_lib.virl.prompts import IMAGE_OBSERVATION
from sftrl_lib.virl.rails import SPATIAL
from sftrl_lib.virl.street_views import shared_street_views
from sftrl_lib.virl.task import VIRL_VL

WALKS = 10  # drawing is slow


@pytest.fixture(scope="module", autouse=True)
def small_pool():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(virl_vl_curriculum, "POOL", WALKS)
        yield


@pytest.fixture(scope="module")
def documents():
    rng = random.Random(4)
    return [document(rng, rng.random()) for _ in range(500)]


def positions():
    """Every picture of the pool, by identity, with its walk and its place on it."""
    walks = [pictured_walk(index, None) for index in range(WALKS)]
    return {id(walk.picture(i)): (walk, i) for walk in walks for i in range(len(walk.rail))}


def test_the_looks_of_training_and_of_the_visual_test_are_held_out():
    assert not {"nyc", "new_york", *MINI_CITIES} & {*virl_l_curriculum.CITIES}
    for index in range(WALKS):
        assert pictured_walk(index, None).look in virl_l_curriculum.CITIES


def test_both_action_spaces_and_the_answer_format_are_held_out(documents):
    told = set().union(*(official_directions(text_of(doc)) for doc in documents))
    assert told == {*virl_l_curriculum.COMPASS_POINTS, *virl_l_curriculum.OTHER_TURNS}
    for doc in documents:
        for turn in doc:
            assert sum(f'"{key}":' in turn.content for key in OFFICIAL_KEYS) <= (0 if turn.role != "text" else 1)


def test_a_picture_is_of_the_place_that_the_document_is_about():
    """Against the views themselves, drawn at the rail's places and headings."""
    for index in range(3):
        walk = pictured_walk(index, None)
        city = next(c for c in virl_l_curriculum.CITIES if walk.rail.points[0].geocode in load_city(c).panoramas)
        views = shared_street_views(load_city(city), walk.look)
        for i, point in enumerate(walk.rail.points):
            assert np.array_equal(walk.picture(i), views.grid(point.geocode, point.heading))


def quarters_of(picture):
    """The four views of a grid, as bytes, from the front on to the right."""
    return [
        np.ascontiguousarray(picture[r : r + 64, c : c + 64]).tobytes() for r, c in ((0, 0), (0, 64), (64, 0), (64, 64))
    ]


def test_views_are_told_as_they_are(documents):
    """Found again in the pool by their four quarters, and told as there, the direction turned the other way."""
    known = {}
    for walk in (pictured_walk(index, None) for index in range(WALKS)):
        for i, point in enumerate(walk.rail.points):
            quarters = quarters_of(walk.picture(i))
            known.setdefault(frozenset(quarters), []).append((point, quarters[0]))
    told = []
    for doc in documents:
        for picture, answer in zip(doc, doc[1:], strict=False):
            if picture.content == "View: ":
                quarters = quarters_of(picture.picture)
                expected = set()
                for point, ahead in known[frozenset(quarters)]:
                    away = (4 - quarters.index(ahead)) % 4  # quarter turns that the looker has made to the right
                    _, sign, where = point.landmark.partition(" is on your ")
                    bare = "crossing" if point.at_intersection else "street"
                    expected.add(SPATIAL[(SPATIAL.index(where) - 2 * away) % 8] if sign else bare)
                assert answer.learn and answer.content.removesuffix("\n") in expected
                told.append(answer.content.removesuffix("\n"))
    assert len(told) > 400
    assert {"street", "crossing", *SPATIAL} == {*told}
    assert 0.5 < sum(word in SPATIAL for word in told) / len(told) < 0.7


def test_turning_round_is_what_the_street_views_show_there():
    """Against the views themselves, drawn again for the other headings."""
    walk = pictured_walk(0, None)
    city = next(c for c in virl_l_curriculum.CITIES if walk.rail.points[0].geocode in load_city(c).panoramas)
    views = shared_street_views(load_city(city), walk.look)
    for i, point in enumerate(walk.rail.points[:3]):
        for quarters in range(4):
            there = views.grid(point.geocode, point.heading + 90 * quarters)
            assert np.abs(turned(walk.picture(i), quarters).astype(int) - there).max() <= 1


def test_pretraining_begins_with_looking_alone():
    rng = random.Random(2)
    for progress in (0.0, virl_vl_curriculum.LOOKING - 0.01):
        assert all(len(document(rng, progress)) == 8 for _ in range(5))


def test_the_latest_observation_is_in_the_picture_alone():
    """As in the task: the prompt does not name the landmark of the present position, the answer does."""
    known, rng, named = positions(), random.Random(8), 0
    for _ in range(60):
        prompt, answer = conversation(rng)
        walk, position = known[id(prompt.picture)]
        latest = re.search(rf"O_{position + 1}: (.*)\n", prompt.content)[1]
        assert latest.startswith(IMAGE_OBSERVATION) and f"O_{position + 2}:" not in prompt.content
        landmark = walk.rail.points[position].landmark
        if '"view"' in answer.content or '"what you see"' in answer.content:
            assert f'"{landmark};' in answer.content
            named += " is on your " in landmark
    assert named > 5


def test_a_walk_shows_every_position_once():
    known, rng = positions(), random.Random(1)
    doc = walking(rng)
    seen = [known[id(turn.picture)] for turn in doc if turn.picture is not None]
    assert [position for _, position in seen] == list(range(len(seen[0][0].rail)))
    observations = [turn.content for turn in doc if turn.learn][0::2]
    assert observations == [f"{point.observation}\n" for point in seen[0][0].rail.points]


def test_the_task_trains_and_tests_on_looks_that_pretraining_never_shows():
    for arguments in (VIRL_VL.training, *VIRL_VL.splits.values()):
        assert str(arguments["routes"]).partition(":")[0] not in virl_l_curriculum.CITIES
