"""pass@k and the number of different right formulas, from many single answers to every hand.

How they differ:
* paper: neither; its success counts a hand whose right answer comes within five attempts with feedback.
* the literature: the unbiased estimator of Chen et al. (arXiv 2107.03374): with c right answers of n, pass@k is
  1 - C(n - c, k) / C(n, k), whose mean over samples is the probability that one of k answers is right.
* ours: the same. Formulas count as different if their texts are, spaces and the part from "=" on left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import TYPE_CHECKING

import numpy as np

from ..points.verifier import read_formula
from ..task import Metrics

if TYPE_CHECKING:
    from ..models.rollout import Episode


def pass_at_k(n: int, right: int, k: int) -> float:
    """The probability that at least one of `k` of `n` answers is right, if `right` of them are. `k` is 1 to `n`."""
    return 1.0 - comb(n - right, k) / comb(n, k)


def powers(n: int) -> list[int]:
    """1, 2, 4, ... up to `n`, and `n` itself."""
    return sorted({n, *(2**i for i in range(n.bit_length()) if 2**i <= n)})


def samples(episodes: Sequence[Episode], n: int) -> dict[int, Metrics]:
    """k -> pass_at_k and distinct_formulas, means over hands; `episodes` are `n` in a row of each hand, of one attempt.

    distinct_formulas: how many different right formulas k answers hold, as expected over which k of the n they are.
    """
    hands = [episodes[start : start + n] for start in range(0, len(episodes), n)]
    formulas = [_right_formulas(hand) for hand in hands]
    found: dict[int, Metrics] = {}
    for k in powers(n):
        solved = np.mean([pass_at_k(n, sum(counts.values()), k) for counts in formulas])
        distinct = np.mean([sum(pass_at_k(n, count, k) for count in counts.values()) for counts in formulas])
        found[k] = {"pass_at_k": (float(solved), len(hands)), "distinct_formulas": (float(distinct), len(hands))}
    return found


def _right_formulas(hand: Sequence[Episode]) -> dict[str, int]:
    """The right formulas among the answers to a hand, and how often each was given."""
    counts: dict[str, int] = {}
    for attempt in (episode.attempts[0] for episode in hand):
        if attempt.outcome == "correct":
            formula = "".join((read_formula(attempt.text) or "").partition("=")[0].split())
            counts[formula] = counts.get(formula, 0) + 1
    return counts
