"""Disks that take nothing, and processes that are killed: one sentence, and nothing stays behind."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from waiting import gone, until

from sftrl_lib import disks, execution, paths, pipeline
from sftrl_lib.figures import draw
from sftrl_lib.jobs import Job, target


@pytest.mark.parametrize(
    "error, place, cure",
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), "/data/x", "free some space"),
        (OSError(errno.ENOSPC, "No space left on device"), "HOME", "free some space"),
        (OSError(errno.EROFS, "Read-only file system", "/data/.x.tmp"), "/data", "make it writable"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/data/x"), "/data/x", "delete files of yours"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "/data/x", "owner or mode"),
        (OSError(errno.EFBIG, "File too large"), "HOME", "ulimit"),
        (FileExistsError(errno.EEXIST, "File exists", "/data/x"), "/data/x", "where a folder belongs"),
        ('Read-only file system (os error 30) at path "/data/x"', "/data/x", "make it writable"),  # safetensors
        ("Error while serializing: I/O error: No space left on device (os error 28)", "HOME", "free some space"),
        ("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space", "HOME", "free some space"),  # pyarrow
        ("500000 requested and 38384 written", "HOME", "free some space"),  # NumPy
    ],
)  # fmt: skip
def test_what_a_disk_does_not_take_is_a_sentence_with_the_path_and_the_cure(home, error, place, cure):
    message = disks.disk_problem(error)
    assert message.startswith(f"{home if place == 'HOME' else place}: ") and cure in message
    assert message.count("\n") == 0 and message.endswith("run the same command again.")


@pytest.mark.parametrize(
    "error", [OSError("There is no table."), "[Errno 13] Permission denied", "KeyError: 28", "[Errno 2] No such file"]
)
def test_other_errors_are_not_of_the_disk(error):
    assert disks.disk_problem(error) is None


def write_notebook(home, *code):
    cells = [nbformat.v4.new_code_cell(line) for line in code]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), home / "notebooks" / "n.ipynb")


def test_a_full_disk_in_a_cell_is_a_sentence(home):
    write_notebook(home, "raise OSError(28, 'No space left on device', '/data/x')")
    with pytest.raises(execution.RunFailed) as failure:
        execution.execute(Job("n", "n.ipynb", {}), "smoke")
    sentence, kept = str(failure.value).splitlines()
    assert sentence.startswith("n failed in [1]: /data/x: no space left on device; free some space there")
    assert kept.endswith("n.failed.ipynb") and not target("smoke", "n").exists()


def test_a_disk_that_fills_up_outside_of_cells_is_a_sentence_and_leaves_no_target(home, monkeypatch):
    import papermill

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(papermill, "execute_notebook", full)
    write_notebook(home, "1")
    with pytest.raises(execution.RunFailed, match=f"^n stopped: {home}: no space left"):
        execution.execute(Job("n", "n.ipynb", {}), "smoke")
    assert not target("smoke", "n").exists()


def test_a_run_counts_although_its_time_cannot_be_recorded(home, capsys):
    write_notebook(home, "1")
    (paths.build("smoke") / "timings.jsonl").mkdir(parents=True)
    assert execution.execute(Job("n", "n.ipynb", {}), "smoke").exists()
    assert "The time of n is not recorded" in capsys.readouterr().out


def test_commands_end_in_one_sentence_where_they_cannot_write(home, capsys, monkeypatch):
    def full(*arguments):
        raise OSError(errno.EROFS, "Read-only file system", str(home / "build"))

    for source in (Path(paths.__file__).parents[1] / "notebooks").glob("*.ipynb"):
        shutil.copy(source, home / "notebooks")
    (home / "build").write_text("a file where the folder belongs", encoding="utf-8")
    assert pipeline.main(["rules", "--profile", "smoke"]) == 2
    [message] = capsys.readouterr().err.splitlines()
    assert message.startswith(str(home / "build")) and "where a folder belongs" in message
    monkeypatch.setattr(draw, "read", full)
    assert pipeline.main(["figures", "--profile", "smoke"]) == 2
    [message] = capsys.readouterr().err.splitlines()
    assert message.startswith(f"{home / 'build'}: read-only file system; make it writable")


def test_a_list_that_nobody_reads_to_its_end_is_no_error(tmp_path):
    command = f'"{sys.executable}" -m sftrl_lib.pipeline list --profile smoke | true'
    environment = {**os.environ, "PYTHONPATH": str(paths.PACKAGE.parent), "SFTRL_HOME": str(tmp_path)}
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, encoding="utf-8")
    assert done.stderr == ""


# Processes that draw


def test_figures_are_drawn_in_one_process_where_there_is_no_shared_memory(monkeypatch, capsys):
    def none(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(draw, "ProcessPoolExecutor", none)
    monkeypatch.setattr(draw, "FIGURES", {5: None, "headline": None})
    monkeypatch.setattr(draw, "read", lambda profile: None)
    monkeypatch.setattr(draw, "_draw_if_possible", lambda number, data: (draw.file_name(number), None))
    assert draw.draw_all("smoke") == ["fig05", "headline"]
    assert "one after another, for want of shared memory" in capsys.readouterr().out


def test_workers_that_draw_end_with_the_process_they_draw_for(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path; from sftrl_lib.figures import draw\n"
        "def slow(number, data): (Path(sys.argv[1]) / str(os.getpid())).touch(); time.sleep(60)\n"
        "draw.doctor.cores, draw.read, draw._draw_if_possible = lambda: 2, lambda profile: None, slow\n"
        "draw.draw_all('smoke')\n"
    )
    script = tmp_path / "drawing.py"
    script.write_text(code, encoding="utf-8")
    workers = tmp_path / "workers"
    workers.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(paths.PACKAGE.parent)}
    parent = subprocess.Popen([sys.executable, str(script), str(workers)], env=environment)
    until(lambda: len(list(workers.iterdir())) == 2)
    parent.kill()
    parent.wait()
    until(lambda: all(gone(int(worker.name)) for worker in workers.iterdir()))
