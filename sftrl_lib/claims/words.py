"""Verdicts, numbers with their intervals, and tables, in the words of the documents."""

from __future__ import annotations

from collections.abc import Iterable

from .evidence import Part
from .statistics import Estimate

WORDS = {
    "reproduced": "reproduced",
    "not_reproduced": "not reproduced",
    "mixed": "mixed",
    "inconclusive": "open",
    "not_comparable": "not comparable",
    "not_run": "not run",
}
WIDE = 0.5  # an interval over the seeds that is wider than this says nothing; the seeds are shown instead
NUMBERS = (
    "† An end that is cut off at the limit of what is possible. In round brackets instead of an interval: the seeds, "
    "where their interval is wider than 50 points."
)


def shown(estimate: Estimate | None, sign: str) -> str:
    """A level in percent, or with the `sign` "+" a difference in points, and its interval; see `NUMBERS`."""
    if estimate is None:
        return "-"
    if estimate.seeds > 1 and estimate.high - estimate.low > WIDE:
        return f"{_number(estimate.value, sign)} ({', '.join(_number(value, sign) for value in estimate.by_seed)})"
    limits = {-1.0, 1.0} if sign else {0.0, 1.0}
    cut = limits if estimate.clipped else {}
    low, high = (_number(end, sign) + ("†" if end in cut else "") for end in (estimate.low, estimate.high))
    return f"{_number(estimate.value, sign)} [{low}, {high}]"


def _number(value: float, sign: str) -> str:
    return f"{round(100 * value, 1) + 0.0:{sign}.1f}"  # + 0.0 turns -0.0 into 0.0


def numbers(part: Part) -> str:
    """The number of a part with its interval and unit: "+3.9 [-7.0, +14.9] points"."""
    if "correlation" in part.what:
        return f"r = {part.estimate.value:+.2f} [{part.estimate.low:+.2f}, {part.estimate.high:+.2f}]"
    if "minus" in part.what:
        return f"{shown(part.estimate, '+')} points"
    return f"{shown(part.estimate, '')} %"


def table(heads: list[str], rows: Iterable[list]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in (heads, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(heads), *lines[1:]])
