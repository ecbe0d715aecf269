"""Figures that show one episode: examples with their pictures (4, 11 to 14 and 21), by what is written on the page."""

import numpy as np
import pytest
from synthetic_tables import example_transcripts, illustrated, points_transcript, route_transcript
from test_figures import line, texts

from sftrl_lib import paths, tables
from sftrl_lib.evaluation.episodes import resets
from sftrl_lib.evaluation.illustrations import illustrate, seen_picture
from sftrl_lib.figures import draw, failures, page
from sftrl_lib.figures.style import NothingToDraw, Tables
from sftrl_lib.points.cards import draw_hand
from sftrl_lib.points.task import GP_VL
from sftrl_lib.virl import expert_response, load_city
from sftrl_lib.virl.street_views import open_street_views
from sftrl_lib.virl.task import VIRL_L, VIRL_VL


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    transcripts = example_transcripts()
    return Tables("laptop", None, transcripts, illustrated(tmp_path_factory.mktemp("home"), transcripts))


@pytest.fixture(scope="module")
def drawn(data):
    return {number: draw.FIGURES[number](data) for number in (2, 3, 4, 11, 12, 13, 14, 21)}


def page_text(drawing):
    return "\n".join(text.get_text() for text in drawing.figure.axes[0].texts)


def test_examples_show_an_error_its_feedback_and_the_correction(drawn):
    for number, wrong, right in ((12, '"(12+7)+8-2=24"', '"12*(8-7+1)=24"'), (14, "(southeast)", "(right)")):
        text = page_text(drawn[number])
        parts = [text.index(part) for part in ("[Task Description]", wrong, "✗", "You failed this trial", right, "✓")]
        assert parts == sorted(parts), number
        assert "tinted: the rule" in texts(drawn[number].figure)
    assert "x∈['left', 'right'" in page_text(drawn[14])
    assert {drawn[number].data["series"][0]["modality"] for number in (11, 13)} == {"image"}


def test_examples_show_the_picture_that_the_question_was_about(drawn):
    """The hand and the four street views, drawn here once more from what the transcripts say."""
    hand, walk = (drawn[number].data["series"][0] for number in (11, 13))
    [shown] = drawn[11].figure.axes[0].images
    assert np.array_equal(shown.get_array(), draw_hand(hand["cards"], hand["suits"], (360, 720)))
    [shown] = drawn[13].figure.axes[0].images
    position = walk["turns"][0]["position"]
    views = open_street_views(load_city("nyc"))
    place, heading = tuple(walk["path"][position]), walk["headings"][position]
    assert np.array_equal(shown.get_array(), views.grid(place, heading, 448, gap=6))
    assert "tidier than the model saw it" in texts(drawn[11].figure)
    assert not drawn[12].figure.axes[0].images and not drawn[14].figure.axes[0].images


def test_a_hand_is_also_shown_as_the_model_saw_it(tmp_path):
    """In the environment's own pixels; not if the environment deals other cards today than the transcript has."""
    dealt = resets(GP_VL, "rule_ood", 5, 3)[2]
    env = GP_VL.make_env(GP_VL.split("rule_ood"), max_attempts=2)
    observation, info = env.reset(**dealt)
    turn = {"prompt": "24?", "output": "?", "outcome": "illegal", "reward": -3.0}
    key = {"task": "general_points", "modality": "image", "method": "rl", "experiment": "main", "setting": "sampled",
           "seed": 5, "step": 40, "split": "rule_ood", "episode": 2}  # fmt: skip
    episode = key | {"cards": info["cards"], "numbers": info["numbers"], "suits": info["suits"], "turns": [turn]}
    for record, count in ((episode, 2), (episode | {"seed": 6}, 1)):
        folder = illustrated(tmp_path / str(count), [record])
        images = draw.FIGURES[11](Tables("laptop", None, [record], folder)).figure.axes[0].images
        assert len(images) == count
        if count == 2:
            assert np.array_equal(images[1].get_array(), observation["image"])


def test_street_views_are_also_shown_as_the_model_saw_them():
    """The environment is taken through the answers, the wrong one as well, to the position that is asked about."""
    [dealt] = resets(VIRL_VL, "id", 0, 1)
    env = VIRL_VL.make_env(VIRL_VL.split("id"), max_attempts=2)
    observation, info = env.reset(**dealt)
    episode = route_transcript("id", route=info["route"], modality="image")
    rail, turns = info["rail"], []
    for said in ("?", rail.points[0].absolute, rail.points[1].absolute):
        point = rail.points[info["position"]]
        output = expert_response(point.observation, point.instruction, said)
        turns.append({"output": output, "position": info["position"]})
        observation, *_, info = env.step(output)
        turns[-1]["outcome"] = info["outcome"]
    asked = {"output": "", "position": info["position"]}
    path = [list(point.geocode) for point in rail.points]
    episode |= {"path": path, "seed": 0, "episode": 0, "turns": [*turns, asked]}
    assert np.array_equal(np.asarray(seen_picture(VIRL_VL, episode, asked)), observation["image"])
    turns[0]["outcome"] = "correct"  # which today's verifier does not say
    assert seen_picture(VIRL_VL, episode, asked) is None


def test_a_revision_has_the_real_rewards_beside_the_cartoons(drawn):
    text = page_text(drawn[2])
    order = ("A conversation with RL", "(12+7)+8-2=24", "12*(8-7+1)=24", "The paper's cartoon")
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)
    for said in ("−2", "+5", "10+7+4+5", "−5", "+10", "as in the paper's text: correct +5"):
        assert said in text
    failed = points_transcript() | {"turns": points_transcript()["turns"][:1]}
    with pytest.raises(NothingToDraw, match="an error and its correction"):
        draw.FIGURES[2](Tables("laptop", None, [failed]))


def test_the_prompt_grows_by_answers_and_verdicts(drawn):
    text = page_text(drawn[3])
    parts = ("v_in 0: the task", "v_out 0", "v_ver 0: the verifier, added to v_in 1", "v_out 1", "v_ver 1: the ")
    for column in text.split("V-IRL-L: street navigation")[0], text.split("V-IRL-L: street navigation")[1]:
        places = [column.index(part) for part in parts]
        assert places == sorted(places)
    assert "a right action: a fresh v_in 0" in text and "A_3:" in text


@pytest.mark.parametrize("missing", ["no folder", "an empty folder"])
def test_without_stored_pictures_examples_are_text_alone(data, drawn, tmp_path, missing):
    bare = Tables("laptop", None, data.transcripts, tmp_path if missing == "an empty folder" else None)
    for number in (11, 12, 13, 14):
        drawing = draw.FIGURES[number](bare)
        assert not drawing.figure.axes[0].images
        assert drawing.data == drawn[number].data
    with pytest.raises(NothingToDraw, match="of which a map was stored"):
        draw.FIGURES[4](bare)


def test_pictures_are_those_of_the_transcripts_and_the_same_again(tmp_path, monkeypatch):
    """What no figure needs any more goes; a profile without transcripts has none."""
    monkeypatch.setattr(paths, "HOME", tmp_path)
    assert illustrate("laptop") == []
    tables.write_transcripts(example_transcripts(), "laptop")
    names = illustrate("laptop")
    assert sorted(name.rpartition(".")[2] for name in names) == ["json", "png", "png"]
    folder = paths.pictures("laptop")
    (folder / "old.png").touch()
    before = {name: (folder / name).read_bytes() for name in names}
    assert illustrate("laptop") == names
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_examples_prefer_a_correction_to_a_plain_success():
    plain = route_transcript(wrong=(), episode=0)
    mended = route_transcript("id", episode=1)
    data = draw.FIGURES[14](Tables("laptop", None, [plain, mended])).data
    assert data["series"][0]["episode"] == 1 and len(data["series"][0]["turns"]) == 2
    alone = draw.FIGURES[14](Tables("laptop", None, [plain]))
    assert "answer" in page_text(alone) and "attempt" not in page_text(alone)


def test_over_trained_sft_is_shown_with_its_heading(drawn):
    text = page_text(drawn[21])
    assert "turn_direction(southeast)" in text and "'slightly right'" in text
    words = drawn[21].data["series"][0]["turns"]
    assert [turn["outcome"] for turn in words] == ["illegal", "illegal"]
    none = [route_transcript(), route_transcript("id", method="sft", wrong=(), stuck=(1,))]
    with pytest.raises(NothingToDraw, match="absolute heading"):
        draw.FIGURES[21](Tables("laptop", None, none))


def test_marks_lie_behind_their_words_across_line_ends():
    lines = page.wrapped("see: " + "x" * 8 + " 'slightly left', 'right'", failures.OFFERED, width=24)
    found = [line.text[start:end] for line in lines for start, end in line.marks]
    assert found == ["'slightly", "left'", "'right'"]


def test_the_map_shows_path_landmarks_and_actions(drawn):
    episode = drawn[4].data["series"][0]
    assert episode["route"] == 3 and episode["success"]
    words = texts(drawn[4].figure)
    for needed in ("Crescent Shoes", "Olive Dragon Gallery", "1. First, turn slightly right", "✗ turn_direction",
                   "✓ turn_direction(right)", "✓ forward() × 2", "✓ stop()", "100 m"):  # fmt: skip
        assert needed in words, needed
    axes = drawn[4].figure.axes[0]
    assert len(line(axes, "positions").get_xdata()) == len(episode["path"])
    x, y = line(axes, "walked").get_data()
    assert np.hypot(x[1] - x[0], y[1] - y[0]) == pytest.approx(224, abs=3)  # metres


def test_the_map_of_a_failure_keeps_the_rest_of_the_route_apart(tmp_path):
    failed = route_transcript(method="sft", wrong=(), stuck=(1,))
    axes = draw.FIGURES[4](Tables("laptop", None, [failed], illustrated(tmp_path, [failed]))).figure.axes[0]
    assert len(line(axes, "walked").get_xdata()) == 2
    assert len(line(axes, "not reached").get_xdata()) == len(failed["path"]) - 1


def test_maps_need_a_known_city_and_its_own_route(tmp_path):
    elsewhere = [route_transcript() | change for change in ({"city": "atlantis"}, {"route": 10**6}, {"route": 4})]
    with pytest.raises(NothingToDraw, match="of which a map was stored"):
        draw.FIGURES[4](Tables("laptop", None, elsewhere, illustrated(tmp_path, elsewhere)))


def test_a_map_has_the_streets_at_both_sides_of_a_long_narrow_route():
    """Every panorama of the city that lies on the square map, by arithmetic of its own."""
    episode = route_transcript(route=988, wrong=())
    path, streets = np.array(episode["path"]), np.array([*load_city("nyc").panoramas])
    middle = (path.min(axis=0) + path.max(axis=0)) / 2
    metres = 111_320 * np.array([1, np.cos(np.radians(middle[0]))])
    half = np.abs((path - middle) * metres).max() + 75
    assert half > 400
    inside = streets[(np.abs((streets - middle) * metres) < half).all(axis=1)]
    stored = VIRL_L.scene(episode)["panoramas"]
    assert {tuple(place) for place in inside} <= {tuple(place) for place in stored} < {*map(tuple, streets)}


@pytest.mark.parametrize("output", ["", "\x00\x1b[31m" * 50, "$\\frac{", "九" * 500, "a" * 2_000_000, "\ud800"])
def test_hostile_answers_are_drawn_everywhere(output, tmp_path):
    route, hand = route_transcript(), points_transcript()
    for record in (route, hand):
        record["turns"] = [turn | {"output": output, "outcome": "illegal"} for turn in record["turns"]]
    old = route_transcript(method="sft", wrong=(), stuck=(1,))
    for turn in old["turns"]:
        turn["output"] += output
    records = [route, hand, old]
    hostile = Tables("laptop", None, records, illustrated(tmp_path, records))
    for number in (4, 12, 14, 21):
        drawing = draw.FIGURES[number](hostile)
        drawing.png(dpi=20)
        assert "\x1b" not in texts(drawing.figure)
