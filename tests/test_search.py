"""The search: what it chooses and by what, and that nothing else is looked at before."""

import json
from dataclasses import replace

import pandas as pd
import pytest
from test_comparison import rows
from tiny_models import tiny_profile

from sftrl_lib import paths, tables
from sftrl_lib.claims import selection
from sftrl_lib.evaluation import measurements, search
from sftrl_lib.experiments import CHOSEN_ON, MAIN, SEARCHES, Arm, Experiment, setting_text
from sftrl_lib.figures import draw
from sftrl_lib.figures.search import search as search_figure
from sftrl_lib.figures.style import Tables
from sftrl_lib.profiles import LAPTOP, get_profile
from sftrl_lib.runs import Run, main_run, training_runs
from sftrl_lib.training import fork

PROFILE = get_profile("search")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "HOME", tmp_path)
    return tmp_path


def searched(method, experiment, rates, split="heldout", step=9):
    """Rows of a search on GP-L: setting -> one rate a seed."""
    frames = [
        rows({method: values}, split).assign(experiment=experiment, setting=setting, step=step)
        for setting, values in rates.items()
    ]
    return pd.concat(frames, ignore_index=True)


def test_every_rate_is_seen_in_its_panel():
    """A limit set before drawing had kept each axis at 1 %."""
    drawing = search_figure(Tables("search", table()))
    panels = [axes for axes in drawing.figure.axes if axes.lines]
    assert len(panels) == 2
    for axes in panels:
        heights = [value for line in axes.lines for value in line.get_ydata()]
        assert max(heights) > 15 and axes.get_ylim()[1] >= max(heights) and axes.get_ylim()[0] == 0


def test_text_tasks_search_everything_and_picture_tasks_the_rates():
    """As PROTOCOL.md has it: the ratio and Init's steps of a picture task are those of its game's text task."""
    settings = {
        study.task.key: {
            (e.name, arm.method): [setting_text(setting) for setting in arm.settings]
            for e in study.experiments
            if e.name in selection.SEARCHED
            for arm in e.arms
        }
        for study in PROFILE.studies
    }
    for key in ("gp-l", "virl-l"):
        assert len(settings[key]["search", "rl"]) == 10 and len(settings[key]["search_init", "sft"]) == 4
    for key in ("gp-vl", "virl-vl"):
        ratio = LAPTOP.study(key).ppo.ratio
        rates = [setting.partition(";")[0] for setting in settings["gp-l"]["search", "rl"][:5]]
        assert settings[key]["search", "rl"] == [f"{rate};ratio={ratio}" for rate in rates]
        assert ratio == LAPTOP.study(key.replace("vl", "l")).ppo.ratio
        assert settings[key]["search", "sft"] == settings["gp-l"]["search", "sft"]
        assert ("search_init", "rl") not in settings[key] and len(settings[key]["search_budget", "sft"]) == 3


RL = {"lr=0.0001;ratio=token": [0.2, 0.3], "lr=0.0003;ratio=sequence": [0.3, 0.3], "lr=0.001;ratio=token": [0.1, 0.1]}
SFT = {"lr=0.0001": [0.1, 0.1], "lr=0.001": [0.15, 0.2]}


def table():
    return tables.validate(pd.concat([
        searched("rl", "search", RL), searched("sft", "search", SFT),
        searched("rl", "search", dict.fromkeys(RL, [0.9, 0.1]), "id"),
        searched("rl", "search_init", {"init_steps=6": [0.2, 0.2], "init_steps=48": [0.3, 0.3]}),
        searched("sft", "search_init", {"init_steps=6": [0.2, 0.3], "init_steps=48": [0.1, 0.1]}),
    ], ignore_index=True))  # fmt: skip


def chosen(frame):
    found = selection.selected(frame)
    return {(row.experiment, row.method): row.setting for row in found.itertuples()}


def test_the_most_held_out_success_is_chosen_and_init_by_both_branches():
    assert chosen(table()) == {
        ("search", "rl"): "lr=0.0003;ratio=sequence",
        ("search", "sft"): "lr=0.001",
        ("search_init", "both"): "init_steps=6",
    }


def test_what_other_splits_say_changes_nothing():
    ood = searched("rl", "search", {"lr=0.001;ratio=token": [1.0, 1.0]}, "rule_ood")
    assert chosen(tables.validate(pd.concat([table(), ood]))) == chosen(table())


def test_a_budget_is_enough_where_the_curve_in_distribution_is_flat():
    def curve(budget, last):
        setting, steps = f"fork_flops={budget}", {1: 0.3, 2: 0.5, 3: 0.6, 4: 0.6 + last}
        return [searched("sft", "search_budget", {setting: [v, v]}, "id", step) for step, v in steps.items()]

    rising = pd.concat([*curve("5e+12", 0.05), *curve("1e+13", 0.005), *curve("2e+13", 0.0)])
    assert selection.flat_from(tables.validate(rising))["setting"].tolist() == ["fork_flops=1e+13"]
    never = pd.concat([*curve("5e+12", 0.05), *curve("1e+13", 0.02)])
    assert selection.flat_from(tables.validate(never))["setting"].tolist() == ["fork_flops=1e+13"]


def test_nothing_else_is_tested_before_the_choice_is_written_down(home, monkeypatch):
    monkeypatch.setattr(search, "play", lambda *args: pytest.fail("looked at the other splits"))
    tables.write(table(), tables.metrics_path("search"))
    points = (PROFILE.study("gp-l"),)
    with pytest.raises(selection.SelectionError, match="Nothing has been chosen from the search of GP-L"):
        search.test_other_splits(PROFILE, studies=points)
    selection.choose("search")
    selection.check_chosen("search", ["GP-L"])
    with pytest.raises(selection.SelectionError, match="Nothing has been chosen from the search of V-IRL-L"):
        search.test_other_splits(PROFILE)
    record = json.loads(selection.selected_path("search").read_text())["GP-L"]
    assert record["criterion"] == "success on heldout" and record["seeds"] == [0, 1]
    better = table()
    better.loc[better["setting"] == "lr=0.0001", "value"] = 0.9
    tables.write(better, tables.metrics_path("search"))
    with pytest.raises(selection.SelectionError, match="chosen for GP-L from other tables"):
        search.test_other_splits(PROFILE, studies=points)
    assert chosen(tables.read_metrics("search")) != chosen(table())


def test_the_whole_search_on_a_tiny_model(tiny_folder, home, capsys):
    """Trained and tested on the training rule; chosen; only then tested on the other splits, as rows of the search.

    What was not run, such as a budget larger than the rule asked for, is left out with a word.
    """
    arms = (Arm("sft", ({"lr": 1e-3}, {"lr": 2e-3}, {"lr": 5e-3}), checkpoints=1),)
    small = Experiment("search", "search", arms, splits=CHOSEN_ON, all_seeds=True)
    profile = tiny_profile(tiny_folder, "gp-l", experiments=(replace(MAIN, splits=CHOSEN_ON, paper_end=False), small))
    for rate in ("lr=0.001", "lr=0.002"):
        run = Run(profile, "gp-l", "sft", "search", rate)
        run = main_run(run) or run
        fork.train(run)
        assert set(measurements.evaluate(run)["split"]) == set(CHOSEN_ON)
    measurements.merge(profile)
    selection.choose(profile.name)
    search.test_other_splits(profile, (0,))
    assert "not run, so not tested: gp-l-sft-search-lr0.005-s0\n" in capsys.readouterr().out
    frame = measurements.merge(profile)
    found = tables.select(frame, experiment="search", metric="success")
    assert {*found["split"]} == {"id", "heldout", "rule_ood"} and {*found["setting"]} == {"lr=0.001", "lr=0.002"}
    selection.check_chosen(profile.name, ["GP-L"])
    assert "rule_ood" in selection.tried(frame)


def test_a_choice_after_the_test_is_refused(home):
    """The splits have been seen, so a search that has grown since cannot be told from one that was helped."""
    ood = searched("rl", "search", {"lr=0.001;ratio=token": [1.0, 1.0]}, "rule_ood")
    tables.write(table(), tables.metrics_path("search"))
    selection.choose("search")
    tables.write(pd.concat([table(), ood]), tables.metrics_path("search"))
    selection.choose("search")  # the same choice
    more = searched("sft", "search", {"lr=0.005": [0.4, 0.4]})
    tables.write(pd.concat([table(), ood, more]), tables.metrics_path("search"))
    with pytest.raises(selection.SelectionError, match="of GP-L has rows on rule_ood, and the choice before that was"):
        selection.choose("search")
    routes = searched("rl", "search", {"lr=0.0001;ratio=token": [0.2, 0.3]}).assign(task="navigation")
    tables.write(pd.concat([table(), ood, routes]), tables.metrics_path("search"))
    selection.choose("search")  # another task's search may come later
    selection.check_chosen("search", ["GP-L", "V-IRL-L"])


def test_a_search_without_rows_says_what_to_run(home):
    tables.write(rows({"init": [0.1]}), tables.metrics_path("search"))
    with pytest.raises(selection.SelectionError, match="run `make search` first"):
        selection.choose("search")


def test_the_runs_of_a_search_see_the_training_rule_alone():
    assert not set(PROFILE.seeds) & set(LAPTOP.seeds), "development seeds"
    for study in PROFILE.studies:
        for experiment in study.experiments:
            assert experiment.tested(study.task.splits) == CHOSEN_ON, experiment.name


def test_both_branches_get_five_rates():
    arms = {arm.method: arm for arm in SEARCHES[0].arms}
    rates = {method: {setting["lr"] for setting in arm.settings} for method, arm in arms.items()}
    assert {method: len(found) for method, found in rates.items()} == {"rl": 5, "sft": 5}
    assert {setting["ratio"] for setting in arms["rl"].settings} == {"token", "sequence"}
    study = PROFILE.study("gp-l")
    run = Run(PROFILE, "gp-l", "rl", "search", setting_text({"lr": study.ppo.lr, "ratio": study.ppo.ratio}), 91)
    assert main_run(run) == Run(PROFILE, "gp-l", "rl", seed=91), "the rate in use is not trained twice"
    assert len(training_runs(PROFILE, study, SEARCHES[0], 91)) == 13


def test_the_figure_shows_every_setting_and_rings_the_chosen(home):
    tables.write(table(), tables.metrics_path("search"))
    drawing = draw.draw("search", "search")
    drawn = {(item["method"], item["setting"], item["split"]) for item in drawing.data["series"]}
    assert ("rl", "lr=0.0003;ratio=sequence", "heldout") in drawn and len(drawn) == 8
    rings = [line for axes in drawing.figure.axes for line in axes.lines if line.get_markersize() == 11]
    assert len(rings) == 3  # RL's on both splits, SFT's on the one that it was tested on


@pytest.mark.skipif(not selection.selected_path("search").is_file(), reason="no search has been committed yet")
def test_the_laptop_profile_has_the_numbers_that_were_chosen():
    """Rates, ratio and Init's steps; a budget may stay below what was chosen (PROTOCOL.md)."""
    record = json.loads(selection.selected_path("search").read_text(encoding="utf-8"))
    for study, one in ((s, one) for s in LAPTOP.studies for one in record.get(s.task.label, {"chosen": []})["chosen"]):
        if one["experiment"] == "search_budget":
            continue
        method = {"both": "sft"}.get(one["method"], one["method"])
        run = Run(PROFILE, study.task.key, method, one["experiment"], one["setting"])
        for name, value in run.overrides.items():
            owner = study if hasattr(study, name) else study.ppo if method == "rl" else study.sft
            assert getattr(owner, name) == value, f"{study.task.label}, {one['experiment']}: {name}"
