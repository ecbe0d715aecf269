"""Figures that show one episode: examples with their pictures (4, 11 to 14 and 21), by what is written on the page."""

import numpy as np
import pytest
from synthetic_tables import example_transcripts, points_transcript, route_transcript
from test_figures import line, texts

from sftrl_lib.figures import draw, page, transcripts
from sftrl_lib.figures.style import NothingToDraw, Tables


@pytest.fixture(scope="module")
def drawn():
    data = Tables("laptop", None, example_transcripts())
    return {number: draw.FIGURES[number](data) for number in (4, 11, 12, 13, 14, 21)}


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


def test_examples_prefer_a_correction_to_a_plain_success():
    plain = route_transcript(wrong=(), episode=0)
    mended = route_transcript("id", method="init", episode=1)
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
    lines = page.wrapped("see: " + "x" * 8 + " 'slightly left', 'right'", transcripts.OFFERED, width=24)
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


def test_the_map_of_a_failure_keeps_the_rest_of_the_route_apart():
    failed = route_transcript(method="sft", wrong=(), stuck=(1,))
    axes = draw.FIGURES[4](Tables("laptop", None, [failed])).figure.axes[0]
    assert len(line(axes, "walked").get_xdata()) == 2
    assert len(line(axes, "not reached").get_xdata()) == len(failed["path"]) - 1


def test_maps_need_a_known_city_and_its_own_route():
    elsewhere = [route_transcript() | change for change in ({"city": "atlantis"}, {"route": 10**6}, {"route": 4})]
    with pytest.raises(NothingToDraw, match="generated city"):
        draw.FIGURES[4](Tables("laptop", None, elsewhere))


@pytest.mark.parametrize("output", ["", "\x00\x1b[31m" * 50, "$\\frac{", "九" * 500, "a" * 2_000_000, "\ud800"])
def test_hostile_answers_are_drawn_everywhere(output):
    route, hand = route_transcript(), points_transcript()
    for record in (route, hand):
        record["turns"] = [turn | {"output": output, "outcome": "illegal"} for turn in record["turns"]]
    old = route_transcript(method="sft", wrong=(), stuck=(1,))
    for turn in old["turns"]:
        turn["output"] += output
    hostile = Tables("laptop", None, [route, hand, old])
    for number in (4, 12, 14, 21):
        drawing = draw.FIGURES[number](hostile)
        drawing.png(dpi=20)
        assert "\x1b" not in texts(drawing.figure)
