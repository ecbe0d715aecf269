"""How far a make is, in words: "7 of 28, about 2 min left".

What is left is what make would still do, by the times of its files. How long that takes is estimated from what the same
notebooks took when they were last executed for this profile, or else those that are most like them by name, and from
how many run side by side.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import mean

from .jobs import Job, identity_path, target

FEWEST = 3  # times that an estimate needs


def words(profile: str, chosen: Sequence[Job], timings: Iterable[Mapping], side_by_side: int) -> str:
    """How many of the jobs are done, and how long the others will take, as far as that can be told.

    timings: of notebooks that were executed, `run`, `ok` and `seconds`. side_by_side: jobs that this machine runs at a
    time, for a make that does not say.
    """
    left = list(due(profile, chosen))
    told = f"{len(chosen) - len(left)} of {len(chosen)}"
    known = {record["run"]: record["seconds"] for record in timings if record.get("ok", True)}
    if not left or len(known) < FEWEST:
        return told
    seconds = {job.name: likely(job.name, known) for job in left}
    return f"{told}, about {_rounded(lasting(left, seconds, at_once(side_by_side)))} left"


def due(profile: str, chosen: Sequence[Job]) -> Iterator[Job]:
    """The jobs that make would do: those without a target, with one older than what it needs, or that need such a job.

    chosen: in an order in which each comes after those that it needs.
    """
    waiting: set[str] = set()
    for job in chosen:
        made = _time(target(profile, job.name))
        before = [identity_path(profile, job.name), *(target(profile, need) for need in job.needs)]
        if not made or waiting & set(job.needs) or any(_time(path) > made for path in before):
            waiting.add(job.name)
            yield job


def likely(name: str, known: Mapping[str, float]) -> float:
    """How long a job will take: the mean of those whose names begin like its own for the longest, seeds aside."""
    parts = _parts(name)
    for length in range(len(parts), -1, -1):
        if alike := [seconds for other, seconds in known.items() if _parts(other)[:length] == parts[:length]]:
            return mean(alike)
    raise ValueError("There are no times to go by.")


def lasting(left: Sequence[Job], seconds: Mapping[str, float], workers: int) -> float:
    """How long `workers` take for jobs of so many `seconds`, each after those of them that it needs."""
    waiting, running, clock = {job.name: set(job.needs) & seconds.keys() for job in left}, [], 0.0
    while waiting or running:
        for name in [name for name, needs in waiting.items() if not needs][: workers - len(running)]:
            heapq.heappush(running, (clock + seconds[name], name))
            del waiting[name]
        clock, done = heapq.heappop(running)
        for needs in waiting.values():
            needs.discard(done)
    return clock


def at_once(side_by_side: int) -> int:
    """How many jobs the make that started this one runs at a time; older makes do not tell a job their number."""
    found = re.search(r"(?:^|\s)-j(\d*)", os.environ.get("MAKEFLAGS", ""))
    if found is None:
        return 1
    return int(found[1]) if found[1] else side_by_side


def _parts(name: str) -> list[str]:
    return re.sub(r"-s\d+$", "", name).split("-")


def _time(path: os.PathLike) -> int:
    """When a file was last written, in ns; 0 if it is not there."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _rounded(seconds: float) -> str:
    if seconds < 90:
        return f"{max(10, 10 * round(seconds / 10))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60 // 10 * 10:02} min"
