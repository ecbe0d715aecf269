"""The new look of GP-VL, and the measure that it was chosen by."""

import pytest

from sftrl_lib.foundation import visual_shift
from sftrl_lib.foundation.visual_shift import CANDIDATES, TRAINING, share_read
from sftrl_lib.models.policy import load_policy
from sftrl_lib.points.cards import TIDY
from sftrl_lib.points.task import GP_VL


def test_the_new_look_is_one_of_the_candidates_and_the_training_look_the_first():
    chosen = GP_VL.split("visual_ood")
    assert (chosen["suits"], chosen["look"]) == CANDIDATES["red suits, blue paper"]
    assert next(iter(CANDIDATES.values())) == ("black", TRAINING)
    assert TRAINING == GP_VL.training["look"]
    for suits, look in list(CANDIDATES.values())[1:]:
        assert suits == "red" and look.jitter == TRAINING.jitter, "pretraining and training show none of them"


@pytest.fixture(scope="module")
def foundation():
    return load_policy("gp-vl")


def test_what_the_foundation_model_reads(foundation):
    """Straight rows nearly always, cards in another print never, the new look between; and the same every time."""
    blue, faces = CANDIDATES["red suits, blue paper"], CANDIDATES["red suits, classic faces"]
    straight, new, classic = (share_read(foundation, *look, hands=24) for look in (("black", TIDY), blue, faces))
    assert straight > 0.9 > new > 0.2 and classic == 0
    assert share_read(foundation, *blue, hands=24) == new


def test_the_table_of_the_candidates(monkeypatch, capsys, foundation):
    monkeypatch.setattr(visual_shift, "CANDIDATES", {"only": ("black", TIDY)})
    visual_shift.main(["--hands", "4"])
    assert capsys.readouterr().out.startswith("only ")
