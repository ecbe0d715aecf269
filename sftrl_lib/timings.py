"""How long runs took and how much memory: one record per execution, in ``build/<profile>/timings.jsonl``."""

from __future__ import annotations

import json
import math
from typing import Any

from . import fingerprint, paths
from .disks import disk_problem
from .files import reason
from .progress import say


def note_time(record: dict, profile: str) -> None:
    """Append a record (see `timings`); a disk that does not take it is no reason for a run to fail."""
    try:
        with open(paths.build(profile) / "timings.jsonl", "ab+") as log:
            log.seek(max(0, log.tell() - 1))
            cut = log.read() not in (b"", b"\n")  # a machine that lost power left half a line
            log.write(b"\n" * cut + json.dumps(record).encode() + b"\n")
    except OSError as error:
        say(f"The time of {record['run']} is not recorded: {disk_problem(error) or reason(error)}")


def timings(profile: str) -> list[dict]:
    """The last execution of each run: run, ok, started (epoch), seconds, peak_rss_mb, threads, and its `origin`."""
    path, last = paths.build(profile) / "timings.jsonl", {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # a machine that loses power leaves half a line
            continue
        if _is_timing(record):
            last[record["run"]] = record
    return list(last.values())


def _is_timing(record: Any) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("run"), str) or "library" not in record:
        return False
    numbers = [record.get(name) for name in ("started", "seconds", "peak_rss_mb")]
    return all(type(number) in (int, float) and math.isfinite(number) for number in numbers)


def summary(profile: str) -> dict:
    """What the runs of a profile took.

    Returns runs, wall_seconds (time in which at least one was running), run_seconds (added up), longest (its
    name), longest_seconds, peak_rss_mb (the largest run), older (runs made by other library code than there is now).
    Raises ValueError if nothing has run.
    """
    records = [record for record in timings(profile) if not record["run"].startswith("grid-")]
    if not records:
        raise ValueError(f"No run of the profile {profile!r} has finished; there is nothing to summarise.")
    wall, reached = 0.0, float("-inf")
    for record in sorted(records, key=lambda record: record["started"]):
        ended = record["started"] + record["seconds"]
        wall += max(0.0, ended - max(reached, record["started"]))
        reached = max(reached, ended)
    longest, version = max(records, key=lambda record: record["seconds"]), fingerprint.library()
    return {
        "runs": len(records),
        "wall_seconds": round(wall, 1),
        "run_seconds": round(sum(record["seconds"] for record in records), 1),
        "longest": longest["run"],
        "longest_seconds": longest["seconds"],
        "peak_rss_mb": max(record["peak_rss_mb"] for record in records),
        "older": sum(record["library"] != version for record in records),
    }
