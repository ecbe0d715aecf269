"""The tables of the main comparison, with numbers worked out by hand."""

import subprocess
from pathlib import Path

import pandas as pd
import pytest
from synthetic_tables import main_table, register_toys, with_toys

from sftrl_lib import paths, tables
from sftrl_lib.claims import comparison, statistics


def committed(file, folder):
    """A copy in `folder` of a file as it was committed: `make reproduce` puts the user's own tables in its place."""
    shown = subprocess.run(["git", "show", f"HEAD:{file}"], cwd=paths.ROOT, capture_output=True)
    if shown.returncode:
        pytest.skip("this is not a git checkout with results in it")
    copy = folder / Path(file).name
    copy.write_bytes(shown.stdout)
    return copy


def rows(values, split="rule_ood", metric="success", task="general_points", modality="text"):
    """Rows of the main comparison: method -> one rate a seed, of 1,000 episodes each."""
    where = dict(task=task, modality=modality, split=split, metric=metric)
    shared = dict(where, experiment="main", setting="sampled", train_flops=1e9, n=1000)
    return tables.validate(pd.DataFrame(
        [
            dict(shared, method=method, seed=seed, step=0 if method == "init" else 9, value=value)
            for method, rates in values.items() for seed, value in enumerate(rates)
        ],
        columns=list(tables.COLUMNS),
    ))  # fmt: skip


def cells(text, name):
    [line] = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_a_table_by_hand():
    """Two seeds: half of the t interval is 12.706 times their standard error, 6.35 times their distance."""
    text = comparison.markdown(rows({"init": [0.1, 0.12], "sft": [0.04, 0.04], "rl": [0.2, 0.23]}))
    assert text.splitlines()[0] == "## GP-L" and "V-IRL" not in text
    assert text.splitlines()[2] == "| success, % | new rule (rule-OOD) | paper, rule-OOD |"
    assert cells(text, "Init") == ["11.0 [0.0†, 23.7]", "11.5"] and text.strip().endswith(comparison.LEGEND)
    assert cells(text, "RL") == ["21.5 [2.4, 40.6]", "15.0"]
    assert cells(text, "RL - Init") == ["+10.5 [+4.1, +16.9]", "+3.5"]
    low, high = statistics.wilson(0.04, 2000)  # both seeds alike: only the episodes' own interval is left
    assert cells(text, "SFT") == [f"4.0 [{100 * low:.1f}, {100 * high:.1f}]", "3.4"]


def test_the_table_of_the_front_page_by_hand():
    """SFT loses 6 and 8 points: half of the interval is 12.706 times one point, so that it holds 0."""
    table = rows({"init": [0.1, 0.12], "sft": [0.04, 0.04], "rl": [0.2, 0.23]})
    _, _, *lines = comparison.front(table).splitlines()
    assert lines == [
        "| GP-L, success, 2 seeds | +10.5 [+4.1, +16.9] | +3.5 | -7.0 [-19.7, +5.7] | -8.1 | RL reproduced; SFT open |"
    ]


def test_what_was_not_measured_is_left_out():
    text = comparison.markdown(rows({"init": [0.5], "rl": [0.5]}, "id", "step_accuracy", "navigation"))
    assert cells(text, "SFT") == cells(text, "RL - SFT") == ["-"]
    assert cells(text, "RL - Init")[0].startswith("+0.0 [-")
    assert "whole routes" not in text and "rule-OOD" not in text
    assert comparison.markdown(rows({})).strip() == ""


def test_seeds_that_fell_are_counted_and_shown_where_their_interval_says_nothing():
    text = comparison.markdown(rows({"init": [0.8, 0.8, 0.8], "sft": [0.27, 0.69, 0.88], "rl": [0.85, 0.85, 0.85]}))
    assert cells(text, "SFT")[0] == "61.3 (27.0, 69.0, 88.0)"
    assert cells(text, "SFT - Init")[0] == "-18.7 (-53.0, -11.0, +8.0)"
    assert cells(text, "SFT: seeds that fell")[0] == "2 of 3" and cells(text, "RL: seeds that fell")[0] == "0 of 3"


def test_every_foundation_model_has_its_line():
    main = rows({"init": [0.1, 0.1], "sft": [0.1, 0.1], "rl": [0.3, 0.3]})
    other = rows({"init": [0.2, 0.2], "sft": [0.1, 0.1], "rl": [0.2, 0.2]})
    other = other.assign(experiment="foundations", setting="foundation=gp-l-1")
    text = comparison.markdown(tables.validate(pd.concat([main, other])))
    assert "| new rule (rule-OOD), from | RL - Init | SFT - Init | RL - SFT |" in text
    shown = [cell.split(" ")[0] for cell in cells(text, "another foundation model (gp-l-1)")]
    assert shown == ["+0.0", "-10.0", "+10.0"]
    assert [cell.split(" ")[0] for cell in cells(text, "the foundation model above")] == ["+20.0", "+0.0", "+20.0"]
    assert "foundation model" not in comparison.markdown(main)


def test_both_accounts_of_compute_have_their_tables():
    """The second has RL's checkpoint at which its compute by the paper's lambda is the budget."""
    table = rows({"init": [0.1, 0.1], "sft": [0.1, 0.1], "rl": [0.3, 0.3]}, "id")
    earlier = table[table.method == "rl"].assign(step=4, value=0.2, train_flops=4.4e8)
    table = pd.concat([table, earlier], ignore_index=True)
    table["paper_flops"] = table["train_flops"].where(table.method != "rl", table["train_flops"] / 0.44)
    table["measured_lambda"] = 0.99
    counted, paper = comparison.markdown(tables.validate(table)).split("Compute: ")
    assert cells(counted, "RL")[0].startswith("30.0 [") and cells(paper, "RL")[0].startswith("20.0 [")
    assert paper.startswith("RL's rollouts took 0.99 tokens per trained token (lambda; the paper estimates 6).")
    assert "RL would have stopped after 4 of 9 updates" in paper and "by the paper's lambda" in paper


def test_a_further_task_and_method_have_tables_and_lines(monkeypatch):
    """The paper's tables keep their lines; beside the toy task nothing is the paper's, nor in the toy method's line."""
    table = tables.validate(main_table(("GP-L", "V-IRL-L"), steps=2))
    before = comparison.markdown(table)
    register_toys(monkeypatch)
    after = comparison.markdown(with_toys(table))
    paper, toy = after.split("\n\n## Toy\n")
    left = [line for line in paper.splitlines() if "Toy method" not in line]
    assert left == before.removesuffix(f"\n\n{comparison.LEGEND}\n").splitlines()
    assert "paper" not in toy and comparison.front(with_toys(table)) == comparison.front(table)
    assert cells(toy, "Toy method") == cells(toy, "RL") and cells(toy, "Toy method - Init") == cells(toy, "RL - Init")
    first = paper.partition("## V-IRL-L")[0]
    assert cells(first, "RL")[-1] == "15.0" and cells(first, "Toy method")[-1] == "-"
    assert cells(first, "Toy method")[:-1] == cells(first, "RL")[:-1]
