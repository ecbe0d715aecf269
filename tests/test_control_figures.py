"""The figures of other rules and of variants: what they draw is what the table holds."""

import pytest
from synthetic_tables import everything

from sftrl_lib.figures.controls import controls, rules
from sftrl_lib.figures.style import NothingToDraw, Tables


@pytest.fixture(scope="module")
def tables():
    return Tables("laptop", everything(), [], None)


def test_every_rule_has_a_line_with_each_method(tables):
    """The paper's own new rule beside the probes; no list of numbers is held to the rule of Fake."""
    drawing = rules(tables)
    success, numbers = drawing.figure.axes
    lines = [label.get_text() for label in success.get_yticklabels()]
    assert [line for line in lines if line.startswith(("J", "stated"))] == [
        "J, Q, K = 5", "J, Q, K = 11", "J, Q, K = 11, 12, 13", "stated 11-13, scored 10",
    ]  # fmt: skip
    series = drawing.data["series"]
    assert {one["method"] for one in series} == {"init", "sft", "rl"}
    assert ("fake", "recognition") not in {(one["split"], one["metric"]) for one in series}
    [one] = [s for s in series if (s["split"], s["metric"], s["method"]) == ("all5", "success", "rl")]
    assert one["value"] == pytest.approx(50.0, abs=3) and one["seeds"] == 2


def test_variants_stand_below_init_sft_and_rl_of_their_seeds(tables):
    drawing = controls(tables)
    left, _ = drawing.figure.axes
    lines = [label.get_text() for label in left.get_yticklabels()]
    assert lines == ["Init", "SFT", "RL", "SFT with the DFT loss", "GRPO"]
    ends = {(one["setting"], one["split"]): one["value"] for one in drawing.data["series"]}
    assert len(ends) == 2 * len(lines)
    assert ends["GRPO", "rule_ood"] == pytest.approx(45, abs=3)
    assert ends["SFT with the DFT loss", "id"] == pytest.approx(35, abs=3)


@pytest.mark.parametrize(("figure", "experiments"), [(rules, "'rule_grid'"), (controls, "'wordings'")])
def test_without_the_experiments_there_is_nothing_to_draw(tables, figure, experiments):
    main = tables.metrics[tables.metrics["experiment"] == "main"]
    with pytest.raises(NothingToDraw, match=f"rows of experiment {experiments}"):
        figure(Tables("laptop", main, [], None))
