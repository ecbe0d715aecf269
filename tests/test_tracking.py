"""Trackers get both branches' logs, under the documented names, while they are made; and nothing unless asked for."""

import json
import sys

import pytest
from tiny_models import tiny_profile
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from sftrl_lib import paths
from sftrl_lib.runs import Run
from sftrl_lib.training.fork import train
from sftrl_lib.training.tracking import METRICS, VARIABLE, chosen

HEARD = []


class Tracker(TrainerCallback):
    """What a tracker of transformers is: a callback. It writes down what it hears."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        HEARD.append((args.run_name, "begin", model is not None))

    def on_log(self, args, state, control, logs=None, **kwargs):
        HEARD.append((args.run_name, state.global_step, dict(logs)))

    def on_train_end(self, args, state, control, **kwargs):
        HEARD.append((args.run_name, "end", True))


@pytest.fixture
def profile(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "HOME", tmp_path)
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "tests", Tracker)
    HEARD.clear()
    return tiny_profile(tiny_folder)


def test_both_branches_are_tracked_under_the_same_names(profile, monkeypatch):
    monkeypatch.setenv(VARIABLE, "tests")
    for method in ("sft", "rl"):
        run = Run(profile, "gp-l", method)
        train(run)
        heard = [what for who, step, what in HEARD if who == run.name and isinstance(step, int)]
        assert HEARD.count((run.name, "begin", True)) == HEARD.count((run.name, "end", True)) == 1
        logs = [entry for entry in heard if "loss" in entry or "reward" in entry]
        written = json.loads((run.folder / "log.json").read_text())
        assert len(logs) == len(written) > 2
        for entry, line in zip(logs, written, strict=True):
            assert set(entry) <= {*METRICS, "update"}
            for name in set(line) & set(entry):
                assert float(entry[name]) == pytest.approx(line[name])
    assert {"grad_norm", "entropy"} <= set(logs[0])


def test_nothing_is_tracked_by_default(profile, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    train(Run(profile, "gp-l", "rl"))
    assert not HEARD and not list(paths.HOME.rglob("tracking"))


def test_a_tracker_that_is_not_there_is_named_before_training(profile, monkeypatch):
    monkeypatch.setenv(VARIABLE, "notebook")
    with pytest.raises(ValueError, match="SFTRL_REPORT_TO='notebook' is not known; use some of .*tensorboard"):
        train(Run(profile, "gp-l", "init"))
    monkeypatch.setitem(sys.modules, "comet_ml", None)
    monkeypatch.setenv(VARIABLE, "comet_ml")
    with pytest.raises(ValueError, match="needs a package that is not here .*; pip install comet_ml, or unset"):
        chosen()
    assert not list(paths.HOME.iterdir())
