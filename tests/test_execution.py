"""Executing a notebook: only a finished run looks finished, and its time and threads are recorded."""

import json
import os
import signal
import subprocess
import sys

import nbformat
import pytest
from waiting import gone, until

from sftrl_lib import execution, fingerprint, paths, timings
from sftrl_lib.jobs import Job, target


def write_notebook(home, name, code, parameters="seed: int = 0  # of the run"):
    cells = [nbformat.v4.new_code_cell(code)]
    if parameters:
        cells.insert(0, nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    kernel = {"name": "no-such-kernel", "language": "python", "display_name": "Python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, home / "notebooks" / name)


def test_success_replaces_the_target_and_uses_this_interpreter(home):
    write_notebook(home, "n.ipynb", "import sys; print(sys.executable, seed)")
    executed = target("smoke", "n-s3")
    executed.parent.mkdir(parents=True)
    executed.write_text("an older one", encoding="utf-8")
    executed.with_suffix(".failed.ipynb").write_text("an older failure", encoding="utf-8")
    assert execution.execute(Job("n-s3", "n.ipynb", {"seed": 3}), "smoke") == executed
    assert nbformat.read(executed, 4).cells[-1].outputs[0].text == f"{sys.executable} 3\n"
    assert sorted(path.name for path in executed.parent.iterdir()) == ["n-s3.ipynb", "timings.jsonl"]
    (timing,) = timings.timings("smoke")
    assert timing["run"] == "n-s3" and timing["ok"] and timing["peak_rss_mb"] > 10


@pytest.mark.parametrize("declared, known", [("seed: int = 0", "seed"), (None, "none")])
def test_unknown_parameter_is_refused_before_anything_runs(home, declared, known):
    write_notebook(home, "n.ipynb", "open('ran', 'w')", declared)
    with pytest.raises(ValueError, match=f"no parameter 'sede'; it has {known}"):
        execution.execute(Job("n", "n.ipynb", {"sede": 3}), "smoke")
    assert not (home / "notebooks" / "ran").exists() and not (home / "build").exists()


def test_a_damaged_notebook_is_named(home):
    (home / "notebooks" / "n.ipynb").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="notebooks/n.ipynb is not a Python notebook"):
        execution.check_parameters(Job("n", "n.ipynb", {}))


def test_a_failing_cell_leaves_no_target(home):
    write_notebook(home, "n.ipynb", "print('so far'); raise KeyError('the reason')")
    with pytest.raises(execution.RunFailed, match="KeyError: 'the reason'\n.*n.failed.ipynb") as failure:
        execution.execute(Job("n", "n.ipynb", {}), "smoke")
    assert failure.value.code == 1
    executed = target("smoke", "n")
    assert not executed.exists() and "so far" in executed.with_suffix(".failed.ipynb").read_text(encoding="utf-8")
    assert not timings.timings("smoke")[0]["ok"]


def test_a_killed_kernel_is_explained(home):
    write_notebook(home, "n.ipynb", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(execution.RunFailed, match="out of memory") as failure:
        execution.execute(Job("n", "n.ipynb", {}), "smoke")
    assert failure.value.code == 137 and not target("smoke", "n").exists()


def test_kill_9_in_the_middle_leaves_no_target_and_no_kernel(home):
    write_notebook(home, "n.ipynb", "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)")
    code = (
        "from sftrl_lib import execution, paths; from pathlib import Path; import sys;"
        "from sftrl_lib.jobs import Job; paths.NOTEBOOKS = Path(sys.argv[1]);"
        "execution.execute(Job('n', 'n.ipynb', {}), 'smoke')"
    )
    environment = {**os.environ, "PYTHONPATH": str(paths.PACKAGE.parent)}
    child = subprocess.Popen([sys.executable, "-c", code, str(home / "notebooks")], env=environment)
    pid_file = home / "notebooks" / "pid"
    until(lambda: pid_file.exists() and pid_file.read_text(encoding="utf-8"), 60)
    with pytest.raises(execution.RunFailed, match="by another process"):
        execution.execute(Job("n", "n.ipynb", {}), "smoke")
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not target("smoke", "n").exists()
    until(lambda: gone(int(pid_file.read_text(encoding="utf-8"))), 60)


def test_a_run_outlives_its_reader():
    """``make reproduce | head`` must not turn a finished run into a failed one."""
    code = "from sftrl_lib.progress import say; import time; time.sleep(1); say('starts'); say('done')"
    environment = {**os.environ, "PYTHONPATH": str(paths.PACKAGE.parent)}
    child = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    child.stdout.close()
    assert child.wait() == 0


def test_timings_add_up(home):
    records = [  # a and b side by side, a pause, then c
        {"run": "a", "ok": True, "started": 100.0, "seconds": 10.0, "peak_rss_mb": 300},
        {"run": "b", "ok": True, "started": 104.0, "seconds": 10.0, "peak_rss_mb": 500},
        {"run": "c", "ok": False, "started": 200.0, "seconds": 1.0, "peak_rss_mb": 900},
        {"run": "c", "ok": True, "started": 300.0, "seconds": 6.0, "peak_rss_mb": 700},
    ]
    log = paths.build("smoke") / "timings.jsonl"
    log.parent.mkdir(parents=True)
    version = fingerprint.library()
    lines = [json.dumps({**record, "library": version if record["run"] == "a" else "?"}) for record in records]
    log.write_text("\n".join(lines) + '\n{"run": "half a li', encoding="utf-8")
    assert timings.summary("smoke") == {
        "runs": 3,
        "wall_seconds": 20.0,
        "run_seconds": 26.0,
        "longest": "a",
        "longest_seconds": 10.0,
        "peak_rss_mb": 700,
        "older": 2,
    }
    assert "results/smoke" in execution.report("smoke")


@pytest.mark.parametrize("line", ["1", "null", "[]", '"a"', "{}", '{"run": "a"}', '{"run": 1, "library": "?"}', "\0\0"])
def test_a_stray_line_among_the_timings_is_passed_over(home, line):
    record = {"run": "a", "ok": True, "started": 1.0, "seconds": 2.0, "peak_rss_mb": 3, "library": "?"}
    log = paths.build("smoke") / "timings.jsonl"
    log.parent.mkdir(parents=True)
    odd = json.dumps({**record, "run": "b", "seconds": "long"})
    log.write_bytes(f"{line}\n{json.dumps(record)}\n{odd}\n{line}\n".encode() + b"\xff{")
    assert timings.timings("smoke") == [record] and "1 notebooks" in execution.report("smoke")
    timings.note_time({**record, "run": "c"}, "smoke")
    assert [timing["run"] for timing in timings.timings("smoke")] == ["a", "c"], "after half a line comes a new one"


SHOW_THREADS = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])"


@pytest.mark.parametrize("makeflags", ["-j1", " -j2 --jobserver-auth=3,4"])
def test_a_job_computes_on_one_thread_however_many_run(home, monkeypatch, makeflags):
    """Sums of floats, and with them the numbers, depend on the number of threads."""
    monkeypatch.setenv("MAKEFLAGS", makeflags)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "2")
    write_notebook(home, "n.ipynb", SHOW_THREADS)
    executed = execution.execute(Job("n", "n.ipynb", {}), "smoke")
    assert nbformat.read(executed, 4).cells[-1].outputs[0].text == "1 1\n"
    assert timings.timings("smoke")[0]["threads"] == 1 and "threads" not in execution.report("smoke")


def test_what_was_not_run_here_is_told_by_the_manifest(home, monkeypatch):
    assert "so there are no timings" in execution.report("smoke")
    runs = {"a": {"seconds": 60.0}, "b": {"seconds": "unknown"}, "c": {"seconds": 90.0}}
    monkeypatch.setattr(execution.provenance, "read", lambda profile: {"runs": runs})
    assert "2 runs took 2 min 30 s in total" in execution.report("smoke")
