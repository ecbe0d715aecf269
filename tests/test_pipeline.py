"""The command line, and that make does what is due and nothing else."""

import json
import os
import subprocess
import time
from dataclasses import replace

import nbformat
import pytest
from test_execution import SHOW_THREADS, write_notebook

from sftrl_lib import execution, pipeline, timings
from sftrl_lib.jobs import Job, identity, identity_path, keep, state, target
from sftrl_lib.profiles import SMOKE


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["rules", "--profile", "huge"], "'huge'"),
        (["rules", "--profile", "smoke", "--seeds", "0 one"], "'one'"),
        (["rules", "--profile", "smoke", "--seeds", "-1"], "'-1'"),
        (["rules", "--profile", "smoke", "--seeds", "1 1"], "twice"),
        (["rules", "--profile", "smoke", "--seeds", str(2**32)], "2**32 - 1"),
        (["rules", "--profile", "smoke", "--seeds", "9" * 5000], "2**32 - 1"),
        (["rules", "--profile", "smoke", "--seeds", "1.5"], "'1.5'"),
        (["rules", "--profile", "smoke", "--seeds", "0/../../evil"], "'0/../../evil'"),
        (["rules", "--profile", "../evil"], "'../evil'"),
        (["rules", "--profile", "smoke", "--threads", "0"], "as in THREADS=2"),
        (["rules", "--profile", "smoke", "--threads", "many"], "'many'"),
        (["rules", "--profile", "smoke", "--tasks", "GP-L V-IRL"], "'V-IRL'"),
        (["run", "05_train-gp-l-rl-man-s0", "--profile", "smoke"], "05_train-gp-l-rl-main-s0"),
        (["run", "--profile", "smoke"], "name of a run"),
        (["rules", "--profile", "smoke"], "notebooks/03_expert_data.ipynb does not exist"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_status_2(home, capsys, arguments, word):
    assert pipeline.main(arguments) == 2
    message = capsys.readouterr().err
    assert word in message and len(message.splitlines()) == 1


MINI = [
    Job("a", "a.ipynb", {}, depends={"lr": 1}),
    Job("b-lr0.1", "b.ipynb", {"seeds": [1]}, ("a",), {"lr": 1}),
]


def plan(chosen):
    pipeline.write_rules(SMOKE, chosen, SMOKE.studies)


@pytest.fixture
def planned(home):
    """Two jobs, planned and as good as executed."""
    write_notebook(home, "a.ipynb", "1")
    write_notebook(home, "b.ipynb", "2", "seeds: list = []")
    plan(MINI)
    for job in MINI:
        done(job)
    return home


def done(job):
    """Leave what a successful execution leaves."""
    cells = [nbformat.v4.new_code_cell(str(number), execution_count=number) for number in (1, 2)]
    finished = target("smoke", job.name).with_suffix(".partial")
    nbformat.write(nbformat.v4.new_notebook(cells=cells), finished)
    keep(finished, identity(job), target("smoke", job.name))
    finished.unlink()


def to_make(home):
    """The jobs that make would do."""
    command = ["make", "-n", "-f", "build/smoke/rules.mk"]
    said = subprocess.run(command, cwd=home, capture_output=True, encoding="utf-8", check=True).stdout
    return [line.split(" run ")[1].split()[0] for line in said.splitlines() if " run " in line]


def test_make_redoes_nothing_that_is_done(planned):
    assert to_make(planned) == []
    plan(MINI)
    assert to_make(planned) == []
    assert [state("smoke", job) for job in MINI] == ["done", "done"]


def test_make_redoes_a_job_without_target_and_those_that_need_it(planned):
    target("smoke", "a").unlink()
    assert to_make(planned) == ["a", "b-lr0.1"]
    assert [state("smoke", job) for job in MINI] == ["to do", "done"]


@pytest.mark.parametrize("change", ["code", "settings", "parameters"])
def test_make_redoes_a_job_whose_identity_changed(planned, change):
    chosen = MINI
    if change == "code":
        write_notebook(planned, "b.ipynb", "3", "seeds: list = []")
    elif change == "settings":
        chosen = [replace(job, depends={"lr": 2}) for job in MINI]
    else:
        chosen = [MINI[0], replace(MINI[1], parameters={"seeds": [2]})]
    again = ["a", "b-lr0.1"] if change == "settings" else ["b-lr0.1"]
    _age_everything(planned)
    assert [job.name for job in chosen if state("smoke", job) == "changed"] == again
    plan(chosen)
    assert to_make(planned) == again
    assert [job.name for job in chosen if state("smoke", job) == "changed"] == again, "until it is done"


def cut(path):
    path.write_text(path.read_text(encoding="utf-8")[:-40], encoding="utf-8")


def without_last_cell(path):
    notebook = nbformat.read(path, 4)
    notebook.cells.pop()
    nbformat.write(notebook, path)


def cleared(path):
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        cell.execution_count = None
    nbformat.write(notebook, path)


DAMAGES = {
    "emptied": lambda path: path.write_bytes(b""),
    "cut": cut,
    "no notebook": lambda path: path.write_text("[]", encoding="utf-8"),
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe{"),
    "without its last cell": without_last_cell,
    "cleared": cleared,
}
TOMORROW = time.time() + 86_400


@pytest.mark.parametrize("when", [None, TOMORROW], ids=["old", "of tomorrow"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_notebook_is_made_again_whatever_its_date(planned, damage, when, capsys):
    _age_everything(planned)
    DAMAGES[damage](target("smoke", "a"))
    if when:
        os.utime(target("smoke", "a"), (when, when))
    assert [state("smoke", job) for job in MINI] == ["damaged", "done"]
    plan(MINI)
    assert "a.ipynb is damaged" in capsys.readouterr().out
    assert to_make(planned) == ["a", "b-lr0.1"]
    done(MINI[0])
    done(MINI[1])
    plan(MINI)
    assert to_make(planned) == [] and state("smoke", MINI[0]) == "done"


def test_a_notebook_of_another_identity_is_made_again_although_it_is_newer(planned):
    """As after a change of settings under a wrong clock, or when a folder of another run is copied over."""
    done(replace(MINI[1], depends={"lr": 2}))
    for when in (time.time(), TOMORROW):
        os.utime(target("smoke", "b-lr0.1"), (when, when))
        assert [state("smoke", job) for job in MINI] == ["done", "changed"]
        plan(MINI)
        assert to_make(planned) == ["b-lr0.1"]


def test_dates_in_the_future_are_set_right(planned):
    _age_everything(planned)
    for job in MINI:
        os.utime(target("smoke", job.name), (TOMORROW, TOMORROW))
        os.utime(identity_path("smoke", job.name), (TOMORROW + 9, TOMORROW + 9))
    plan(MINI)
    assert to_make(planned) == [] and [state("smoke", job) for job in MINI] == ["done", "done"]
    assert all(path.stat().st_mtime <= time.time() for path in (planned / "build").rglob("*"))
    done(MINI[0])
    os.utime(target("smoke", "b-lr0.1"), (TOMORROW, TOMORROW))
    plan(MINI)
    assert to_make(planned) == ["b-lr0.1"], "what it needs was made after it"


def test_settings_that_were_changed_and_put_back_redo_nothing(planned):
    plan([replace(job, depends={"lr": 2}) for job in MINI])
    plan(MINI)
    assert to_make(planned) == [] and [state("smoke", job) for job in MINI] == ["done", "done"]


def test_notebooks_from_before_identities_were_kept_in_them_go_by_their_dates(planned):
    for job in MINI:
        path = target("smoke", job.name)
        notebook = json.loads(path.read_text(encoding="utf-8"))
        del notebook["metadata"]["sftrl"]
        path.write_text(json.dumps(notebook), encoding="utf-8")
    plan(MINI)
    assert to_make(planned) == [] and state("smoke", MINI[1]) == "done"
    os.utime(target("smoke", "b-lr0.1"), (TOMORROW, TOMORROW))
    changed = [MINI[0], replace(MINI[1], depends={"lr": 2})]
    plan(changed)
    assert to_make(planned) == ["b-lr0.1"] and state("smoke", changed[1]) == "changed"


@pytest.mark.parametrize("mark", ":;=|%~*(\\'\"`&")
def test_a_name_that_make_cannot_take_is_refused(home, mark):
    with pytest.raises(ValueError, match="which make cannot take"):
        pipeline.rules(SMOKE, [Job(f"a{mark}b", "a.ipynb", {"seeds": [0]})], SMOKE.studies)


def test_prose_and_other_tasks_redo_nothing(planned):
    path = planned / "notebooks" / "b.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells.append(nbformat.v4.new_markdown_cell("better prose"))
    nbformat.write(notebook, path)
    _age_everything(planned)
    pipeline.write_rules(SMOKE, MINI, SMOKE.studies[:1])
    assert to_make(planned) == []


def _age_everything(home):
    """Put all files an hour back, in their order, so that what is written now is newer."""
    for path in (home / "build").rglob("*"):
        os.utime(path, (path.stat().st_mtime - 3600,) * 2)


def test_another_number_of_threads_is_asked_for_and_recorded(home, capsys):
    write_notebook(home, "n.ipynb", SHOW_THREADS)
    executed = execution.execute(Job("n", "n.ipynb", {}), "smoke", threads=2)
    assert nbformat.read(executed, 4).cells[-1].outputs[0].text == "2 2\n"
    assert timings.timings("smoke")[0]["threads"] == 2
    assert "1 of them computed on another number of threads" in execution.report("smoke")
    write_notebook(home, "b.ipynb", "2", "seeds: list = []")
    chosen = [replace(MINI[1], needs=())]
    assert "--threads 2" in pipeline.rules(SMOKE, chosen, SMOKE.studies, 2)
    assert "--threads" not in pipeline.rules(SMOKE, chosen, SMOKE.studies)
    assert [execution.parse_threads(text) for text in ("", None, " 3 ")] == [1, 1, 3]
