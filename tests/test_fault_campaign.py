"""A short form of the fault campaign (`fault_campaign.py`); the long one is run by hand.

A minute, so it runs with SFTRL_ALL_TESTS=1 only; `test_interrupted_training.py` kills at every file operation always.
"""

import os

import pytest
from fault_campaign import MOMENTS, SENTENCE, small_campaign

from sftrl_lib import paths

pytestmark = pytest.mark.skipif(not os.environ.get("SFTRL_ALL_TESTS"), reason="SFTRL_ALL_TESTS=1 runs it")


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    made = small_campaign(tmp_path_factory.mktemp("campaign"), paths.SHIPPED / "gp-l")
    made.rehearse()
    return made


def test_kill_9_changes_no_result(campaign):
    """While a dataset and while a training checkpoint is written; then the same bytes as without."""
    assert list(MOMENTS)[:2] == ["a dataset", "a training checkpoint"]
    assert campaign.kills(2) > 0


def test_a_full_disk_loses_nothing(campaign):
    """No file may grow beyond 20 kB: the run fails and, with room, ends in the same results."""
    assert campaign.full_disk(20_000)


def test_a_flipped_bit_in_a_weight_is_named(campaign):
    outcomes = campaign.flips("step/model.safetensors")
    assert len(outcomes) == 1 and outcomes["step/model.safetensors"].startswith(SENTENCE)


def test_a_campaign_goes_on_where_it_was_stopped(campaign):
    again = small_campaign(campaign.work, paths.SHIPPED / "gp-l")
    assert again.tally == campaign.tally and again.seconds == campaign.seconds
    assert again.kills(sum(again.tally.get("kills", {}).values())) == sum(campaign.tally.get("kills", {}).values())
    assert "kills (1 at a dataset, 1 at a training checkpoint)" in again.summary()
