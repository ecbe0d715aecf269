"""Confidence intervals of a level, a paired difference and a correlation; and the paper's smoothing.

Paper: bars are +- one binomial standard error of a single run, N not printed, no seeds (section C.3).
Official code: none. Ours: 95 % intervals over seeds, by one rule everywhere.

The interval rule. A number over several seeds gets the *wider* of two intervals:
  (a) Student's t over the seeds' values (for a difference: over the paired differences per seed), which covers
      the variation between training runs, and
  (b) the binomial interval of all episodes pooled (Wilson for a level, Newcombe's hybrid score for a
      difference), which covers the finite number of episodes behind each rate.
With 2-3 seeds (a) alone can be absurdly narrow by chance (three seeds at exactly 0 %), and (b) alone ignores
training noise; the wider one is conservative. With one seed there is only (b), which says nothing about other
seeds. Newcombe treats the two arms as independent although they may share hands, which is conservative too.
`n` counts episodes, also for per-step accuracy, because the steps of an episode are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy.signal import savgol_filter
from scipy.stats import t as student_t
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval. Rates and differences of rates are fractions."""

    value: float
    low: float
    high: float
    n: int  # episodes pooled over the seeds; for a difference, those of the smaller arm
    seeds: int
    interval: str  # wilson, newcombe, t over seeds, fisher

    def as_dict(self) -> dict:
        return asdict(self)


def wilson(value: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval (low, high) of a rate `value` measured on `n` episodes."""
    low, high = proportion_confint(_count(value, n), n, alpha=1 - CONFIDENCE, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))


def newcombe(value: float, n: int, other: float, other_n: int) -> tuple[float, float]:
    """Newcombe's 95 % interval (low, high) of the difference `value - other` of two independent rates."""
    counts = (_count(value, n), n, _count(other, other_n), other_n)
    low, high = confint_proportions_2indep(*counts, compare="diff", method="newcomb", alpha=1 - CONFIDENCE)
    return float(low), float(high)


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's 95 % interval (low, high) of the mean of `values`, one per seed. Raises ValueError for fewer than 2."""
    values = np.asarray(values, float)
    if len(values) < 2:
        raise ValueError(f"An interval over seeds needs at least 2 seeds, not {len(values)}.")
    half = student_t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def level(values: Sequence[float], ns: Sequence[int]) -> Estimate:
    """Mean of one rate per seed, with its interval by the interval rule.

    values, ns: (seeds,) each, rates as fractions and numbers of episodes. Raises ValueError if they are empty, differ
    in length or are out of range.
    """
    values, ns = _checked(values, ns)
    binomial = wilson(_pooled(values, ns), int(ns.sum()))
    return _wider(values, binomial, "wilson", int(ns.sum()), bounds=(0.0, 1.0))


def difference(
    values: Sequence[float], ns: Sequence[int], others: Sequence[float], other_ns: Sequence[int]
) -> Estimate:
    """Mean over seeds of the paired differences `values - others`, with its interval by the interval rule.

    All arguments: (seeds,), as for `level`; index i is the same seed in all of them. Raises ValueError as `level` does.
    """
    values, ns = _checked(values, ns)
    others, other_ns = _checked(others, other_ns)
    if len(values) != len(others):
        raise ValueError(f"Paired differences need equally many seeds, not {len(values)} and {len(others)}.")
    n, other_n = int(ns.sum()), int(other_ns.sum())
    binomial = newcombe(_pooled(values, ns), n, _pooled(others, other_ns), other_n)
    return _wider(values - others, binomial, "newcombe", min(n, other_n), bounds=(-1.0, 1.0))


def level_of(rows: pd.DataFrame) -> Estimate | None:
    """`level` of table rows, one per seed; None if there are none. Raises ValueError if a seed occurs twice."""
    if rows.empty:
        return None
    _one_row_a_seed(rows)
    return level(rows["value"].to_numpy(), rows["n"].to_numpy())


def difference_of(rows: pd.DataFrame, others: pd.DataFrame) -> Estimate | None:
    """`difference` of table rows paired by seed, over the seeds in both; None if they share none.

    Raises ValueError if a seed occurs twice.
    """
    _one_row_a_seed(rows), _one_row_a_seed(others)
    pairs = rows.merge(others, on="seed", suffixes=("", "_other")).sort_values("seed")
    if pairs.empty:
        return None
    return difference(*(pairs[name].to_numpy() for name in ("value", "n", "value_other", "n_other")))


def correlation(pairs: Sequence[tuple[Sequence[float], Sequence[float]]], n: int) -> Estimate | None:
    """Pearson correlation over checkpoints, one (x, y) pair of sequences per seed, averaged as Fisher's z.

    The interval is Student's t over the seeds' z; with one seed it is Fisher's, which treats checkpoints as independent
    and is therefore optimistic. None if no seed has 4 checkpoints that vary. `n`: episodes per point, passed through.
    """
    usable = [(np.asarray(x, float), np.asarray(y, float)) for x, y in pairs if len(x) >= 4]
    usable = [(x, y) for x, y in usable if x.std() > 0 and y.std() > 0]
    if not usable:
        return None
    limit = 1 - 1e-9  # arctanh(1) is infinite
    z = np.arctanh([np.clip(np.corrcoef(x, y)[0, 1], -limit, limit) for x, y in usable])
    if len(z) > 1:
        (low, high), name = t_interval(z), "t over seeds"
    else:
        half = 1.959963984540054 / math.sqrt(len(usable[0][0]) - 3)
        (low, high), name = (z[0] - half, z[0] + half), "fisher"
    return Estimate(float(np.tanh(z.mean())), float(np.tanh(low)), float(np.tanh(high)), n, len(z), name)


def smooth(values: Sequence[float]) -> np.ndarray:
    """Savitzky-Golay smoothing of order 3, as for the paper's lines (section C.3; window not printed, ours 5 or 7).

    values: (points,), evenly spaced; fewer than 5 are returned unchanged. A guide for the eye beside the points, never
    a replacement for them.
    """
    values = np.asarray(values, float)
    return values if len(values) < 5 else savgol_filter(values, 7 if len(values) >= 12 else 5, polyorder=3)


def _wider(values: np.ndarray, binomial: tuple[float, float], name: str, n: int, bounds: tuple) -> Estimate:
    low, high = binomial
    if len(values) > 1:
        t_low, t_high = t_interval(values)
        if t_high - t_low > high - low:
            low, high, name = t_low, t_high, "t over seeds"
    mean = float(values.mean())  # not the pooled rate if n differs between seeds; the interval must contain it
    low, high = min(max(low, bounds[0]), mean), max(min(high, bounds[1]), mean)
    return Estimate(mean, low, high, n, len(values), name)


def _pooled(values: np.ndarray, ns: np.ndarray) -> float:
    return float((values * ns).sum() / ns.sum())


def _count(value: float, n: int) -> float:
    """Number of successes: whole for a rate of episodes, fractional for per-step accuracy."""
    count = value * n
    return round(count) if abs(count - round(count)) < 1e-6 else count


def _checked(values: Sequence[float], ns: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    values, ns = np.asarray(values, float), np.asarray(ns, int)
    if not len(values) or values.shape != ns.shape:
        raise ValueError(f"Rates and episodes must be equally many, 1 or more, not {len(values)} and {len(ns)}.")
    if not ((values >= 0) & (values <= 1)).all() or (ns < 1).any():
        raise ValueError(f"Rates must lie in 0..1 and episodes in 1.., not {values.tolist()} and {ns.tolist()}.")
    return values, ns


def _one_row_a_seed(rows: pd.DataFrame) -> None:
    if (twice := rows["seed"].duplicated()).any():
        raise ValueError(f"Seed {rows['seed'][twice].iloc[0]} occurs twice among the selected rows.")
