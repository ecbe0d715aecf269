"""What notebooks are made of: their first lines, what counts of them as code, what they show and to whom."""

import json
import shutil

import numpy as np
import pytest

from sftrl_lib import paths, tables
from sftrl_lib.claims import report
from sftrl_lib.evaluation import results, side_by_side
from sftrl_lib.jobs import Job, identity, keep
from sftrl_lib.profiles import TOY, get_profile
from sftrl_lib.runs import Run
from sftrl_lib.shown import picture

NUMBERED = sorted(paths.NOTEBOOKS.glob("0[0-7]_*.ipynb"))


def cells(path, kind):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_a_notebook_says_what_it_asks_what_it_needs_how_long_it_takes_and_what_comes_next(path):
    first, text = cells(path, "markdown")[0], "\n".join(cells(path, "markdown"))
    for line in ("**Question:**", "**Needs:**", "**Time:**", "**Next:**"):
        assert line in first, line
    assert "**Exercise: predict, then run.**" in text


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_papermill_can_read_the_parameters_by_its_own_pattern(path):
    """An equals sign in a comment hides a parameter from it."""
    from papermill import inspect_notebook

    notebook = json.loads(path.read_text(encoding="utf-8"))
    tagged = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", ())]
    named = [line.partition(":")[0] for cell in tagged for line in cell["source"]]
    assert list(inspect_notebook(str(path))) == named


def test_empty_cells_prose_and_outputs_do_not_make_a_job_due_again(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    path, job = tmp_path / "05_train.ipynb", Job("05_train", "05_train.ipynb", {})
    shutil.copy(NUMBERED[0].with_name("05_train.ipynb"), path)
    before, notebook = identity(job), json.loads(path.read_text())
    empty = {"cell_type": "code", "source": ["\n"], "outputs": [], "metadata": {}, "execution_count": None}
    notebook["cells"] += [empty, {"cell_type": "markdown", "source": ["# Notes"], "metadata": {}}]
    next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")["outputs"] = [{"output_type": "stream"}]
    path.write_text(json.dumps(notebook))
    assert identity(job) == before
    notebook["cells"][-2]["source"] = ["1 + 1"]
    path.write_text(json.dumps(notebook))
    assert identity(job) != before


def test_bars_do_not_stay_in_an_executed_notebook(tmp_path):
    bar = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": ["PPO:   0%|   | 0/100"]}
    other = {"application/vnd.jupyter.widget-view+json": {"model_id": "2"}, "text/plain": ["PointsPlayer()"]}
    outputs = [{"output_type": "display_data", "data": data, "metadata": {}} for data in (bar, other)]
    cell = {"cell_type": "code", "source": "", "outputs": outputs, "metadata": {}, "execution_count": 1}
    (tmp_path / "partial").write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4}))
    keep(tmp_path / "partial", "{}", tmp_path / "done.ipynb")
    [kept] = json.loads((tmp_path / "done.ipynb").read_text())["cells"]
    assert [output["data"] for output in kept["outputs"]] == [other]


def test_pictures_have_alternative_texts():
    grey = np.zeros((4, 6, 3), np.uint8)
    _, about = picture(grey, "Nothing but grey", 60)._repr_mimebundle_()
    assert about["image/png"]["alt"] == "Nothing but grey" and about["image/png"]["width"] == 60


def test_the_results_that_came_with_the_checkout_are_shown_and_left_alone(tmp_path, monkeypatch):
    """In a home of its own; where nothing came either, the error says what to run."""
    monkeypatch.setattr(paths, "HOME", tmp_path)
    shown = results.gather(get_profile("laptop"))
    assert not shown.here and "came with the checkout" in str(shown)
    committed = tables.read(paths.ROOT / "results" / "laptop" / "metrics.csv")
    assert shown.metrics.equals(committed)
    assert shown.comparison() == (paths.ROOT / "results" / "laptop" / "comparison.md").read_text()
    written = json.loads((paths.ROOT / "results" / "laptop" / "claims.json").read_text())
    assert shown.claims() == [record for record in written if isinstance(record["id"], int)]
    assert report.tally(shown.claims()) in (paths.ROOT / "RESULTS.md").read_text()
    for figure in shown.figures():
        assert figure.read_bytes() == (paths.ROOT / "figures" / "laptop" / figure.name).read_bytes()
        assert results.alternative(figure)
    assert len(shown.figures()) >= 23
    with pytest.raises(tables.TableError, match="There is no table"):
        results.gather(get_profile("smoke"))


def test_a_toy_run_is_called_one(tmp_path, monkeypatch):
    frame = tables.read(paths.ROOT / "results" / "laptop" / "metrics.csv")
    toy, real = (results.Results(get_profile(name), frame, here=False) for name in ("smoke", "laptop"))
    assert str(toy).startswith(TOY.upper()) and toy.comparison().startswith(f"> **{TOY.capitalize()}**")
    assert TOY not in str(real).lower() + real.comparison().lower()
    monkeypatch.setattr(paths, "HOME", tmp_path)
    tables.write(frame, tables.metrics_path("smoke"))
    for records in (toy.claims(), json.loads(report.claims_path("smoke").read_text())):  # the second with our own
        assert records and all(record["note"].startswith(TOY.capitalize()) for record in records)


@pytest.mark.parametrize("key", ["gp-l", "virl-l"])
def test_the_two_questions_differ_in_the_rule_alone(key):
    task = Run(get_profile("smoke"), key, "init").task
    before, after = (side_by_side.question(task, split).splitlines() for split in side_by_side.RULES)
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert changed and all(task.words.rule.search(line) for line in changed)
    rewards = side_by_side.rewards(task)
    assert rewards["correct"] == max(rewards) > 0 > rewards["illegal"] and "misread" not in rewards


def test_models_answer_the_same_question_until_they_are_right(tmp_path, monkeypatch):
    """A scripted model: wrong at first, right in its second attempt under the training rule, lost under the new one."""
    from sftrl_lib.evaluation.cast import Answer, Token
    from sftrl_lib.points.prompts import response

    run = Run(get_profile("smoke"), "gp-l", "rl")
    said = iter([*(response(["Q", "7", "8", "A"], [10, 7, 8, 1], f) for f in ("10+7+8+1", "10+7+8-1")), "?", "?"])
    monkeypatch.setattr(side_by_side, "_trained", lambda run: {"RL": None})
    monkeypatch.setattr(side_by_side, "answer", lambda *_: Answer((Token(next(said)),)))
    shown = side_by_side.compare(run).reset_index()
    assert list(shown["verdict"]) == ["wrong value", "correct", "illegal", "illegal"]
    assert shown["answer"][1] == "number [10, 7, 8, 1]; formula 10+7+8-1"
    assert list(shown["rule"]) == 2 * ["ID: the training rule"] + 2 * ["OOD: a new rule"]
