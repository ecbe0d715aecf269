"""The quick look: trained models on fresh hands, with miniature models in the place of those that are shipped."""

from dataclasses import replace

import pytest
from test_players import home, profile, trained  # noqa: F401 (fixtures)

from sftrl_lib import paths, tables
from sftrl_lib.evaluation import quick_look
from sftrl_lib.evaluation.players import export
from sftrl_lib.profiles import PROFILES


@pytest.fixture
def shipped(profile, tokenizer, monkeypatch):  # noqa: F811
    """Init, SFT and RL beside the package, of the only profile that there is, and nothing trained here."""
    for name in [name for name in PROFILES if name != "tiny"]:
        monkeypatch.delitem(PROFILES, name)
    trained(profile, tokenizer, seed=3)
    export(profile, (3,))
    (paths.HOME / "build").rename(paths.HOME / "gone")


def test_shipped_models_are_tested_under_both_rules_and_the_headline_is_drawn(shipped, capsys):
    assert quick_look.main(["--episodes", "6"]) == 0
    said = capsys.readouterr().out
    assert "tiny, seed 3, shipped" in said and "figures/quicklook/headline.png" in said
    rows = tables.read_metrics(quick_look.NAME)
    success = tables.select(rows, metric="success")
    assert set(zip(success["method"], success["split"], strict=True)) == {
        (method, rule) for method in ("init", "sft", "rl") for rule in ("id", "rule_ood")
    }
    assert set(success["n"]) == {6} and set(rows["seed"]) == {3} and set(rows["step"]) == {7}
    assert (rows["train_flops"] > 0).all(), "where the models stand on their branches is in their records"
    for kind in ("png", "pdf", "json"):
        assert (paths.figures(quick_look.NAME) / f"headline.{kind}").stat().st_size > 1000


def test_the_table_has_a_row_a_model_and_a_column_a_rule(shipped):
    table = quick_look.look(episodes=4).table
    assert [name for _, name in table.index] == ["Init", "SFT", "RL"] and table.shape == (3, 2)
    assert table.map(lambda cell: "[" in cell).all().all()


@pytest.mark.parametrize("methods", [(), ("init", "sft")])
def test_without_trained_models_one_sentence_says_how_to_get_some(methods, profile, tokenizer, capsys):  # noqa: F811
    trained(profile, tokenizer, methods)
    assert quick_look.main([]) == 2
    said = capsys.readouterr().err
    assert "make reproduce TASKS=GP-L" in said and "players export" in said and said.count("\n") == 1
    assert not paths.results(quick_look.NAME).exists()


def test_toys_show_nothing(profile, tokenizer, monkeypatch):  # noqa: F811
    profile = replace(profile, toy=True)
    monkeypatch.setitem(PROFILES, "tiny", profile)
    for name in [name for name in PROFILES if name != "tiny"]:
        monkeypatch.delitem(PROFILES, name)
    trained(profile, tokenizer)
    with pytest.raises(quick_look.NoModels, match="no trained models of GP-L"):
        quick_look.look()


def test_an_unknown_task_is_told_with_the_known_ones(capsys):
    assert quick_look.main(["--tasks", "GP"]) == 2 and "GP-VL" in capsys.readouterr().err


def test_the_quick_look_of_this_checkout_says_what_there_is():
    """Models, or how to get some; never an error of another kind."""
    try:
        assert isinstance(quick_look.trained("GP-L"), list)
    except quick_look.NoModels as lack:
        assert "make reproduce" in str(lack)
