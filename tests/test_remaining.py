"""What make says of how far it is, while it runs."""

import os

import pytest

from sftrl_lib import execution, remaining
from sftrl_lib.jobs import Job, identity_path, target


def job(name, *needs):
    return Job(name, "05_train.ipynb", {}, needs)


CHAIN = [job("03-a"), job("05-a-rl-s0", "03-a"), job("05-a-rl-s1", "03-a"), job("07", "05-a-rl-s0", "05-a-rl-s1")]


def touch(path, time):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, ns=(time, time))


def finish(*jobs, time=10):
    for each in jobs:
        touch(identity_path("smoke", each.name), 1)
        touch(target("smoke", each.name), time)


def left():
    return [each.name for each in remaining.due("smoke", CHAIN)]


def test_what_is_left_is_what_make_would_do(home):
    assert left() == ["03-a", "05-a-rl-s0", "05-a-rl-s1", "07"]
    finish(*CHAIN[:2])
    assert left() == ["05-a-rl-s1", "07"]
    finish(*CHAIN)
    assert left() == []
    touch(identity_path("smoke", "05-a-rl-s0"), 20)  # its settings changed
    assert left() == ["05-a-rl-s0", "07"]
    touch(identity_path("smoke", "05-a-rl-s0"), 1)
    touch(target("smoke", "03-a"), 20)
    assert left() == ["05-a-rl-s0", "05-a-rl-s1", "07"]


def test_a_job_takes_as_long_as_those_most_like_it():
    known = {"05-a-rl-s0": 100.0, "05-a-rl-s1": 120.0, "05-a-sft-s0": 40.0, "07": 3.0}
    assert remaining.likely("05-a-rl-s1", known) == 110, "seeds aside"
    assert remaining.likely("05-a-rl-lr0.1-s2", known) == 110
    assert remaining.likely("05-a-dft-s0", known) == pytest.approx(260 / 3)
    assert remaining.likely("04-b-s0", known) == pytest.approx(263 / 4)


@pytest.mark.parametrize(("workers", "seconds"), [(1, 10 + 60 + 60 + 5), (2, 10 + 60 + 5), (8, 10 + 60 + 5)])
def test_jobs_side_by_side_wait_for_what_they_need(workers, seconds):
    times = dict(zip([each.name for each in CHAIN], (10, 60, 60, 5), strict=True))
    assert remaining.lasting(CHAIN, times, workers) == seconds
    assert remaining.lasting(CHAIN[3:], {"07": 5}, workers) == 5, "what it needs is done"
    assert remaining.lasting([], {}, workers) == 0


@pytest.mark.parametrize(("flags", "workers"), [
    ("", 1), (" -j2 --jobserver-auth=3,4", 2), ("w -j12 --jobserver-auth=fifo:/tmp/x", 12),
    (" --jobserver-fds=3,4 -j", 7), ("-j1", 1), ("--no-print-directory", 1),
])  # fmt: skip
def test_the_number_side_by_side_is_makes(flags, workers, monkeypatch):
    monkeypatch.setenv("MAKEFLAGS", flags)
    assert remaining.at_once(7) == workers


@pytest.mark.parametrize(("seconds", "said"), [
    (1, "10 s"), (44, "40 s"), (100, "2 min"), (89 * 60, "89 min"), (100 * 60, "1 h 40 min"), (7_500, "2 h 00 min"),
])  # fmt: skip
def test_times_are_round(seconds, said):
    assert remaining._rounded(seconds) == said


def test_make_says_how_far_it_is(home, monkeypatch):
    monkeypatch.delenv("MAKEFLAGS", raising=False)
    finish(*CHAIN[:2])
    times = [{"run": name, "seconds": 60.0, "ok": True} for name in ("03-a", "05-a-rl-s0", "x")]
    assert remaining.words("smoke", CHAIN, times, 2) == "2 of 4, about 2 min left"
    assert remaining.words("smoke", CHAIN, times[:2], 2) == "2 of 4", "too little to go by"
    failed = [*times[:2], {**times[2], "ok": False}]
    assert remaining.words("smoke", CHAIN, failed, 2) == "2 of 4"
    finish(*CHAIN)
    assert remaining.words("smoke", CHAIN, times, 2) == "4 of 4"


def test_a_job_says_it_when_it_is_done(home, capsys):
    from test_execution import write_notebook

    write_notebook(home, "n.ipynb", "1")
    chosen = [Job("n", "n.ipynb", {}), Job("m", "n.ipynb", {})]
    touch(identity_path("smoke", "n"), 1)
    execution.execute(chosen[0], "smoke", chosen=chosen)
    assert "MB at its peak; 1 of 2\n" in capsys.readouterr().out
