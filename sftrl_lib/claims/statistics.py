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

Where the puzzles or routes of a split stand for others (held-out ones, cities never seen), episodes on the same one
are not independent either. (b) is then clustered by puzzle or route over all seeds together: for a level Wilson's with
the effective number of episodes, for a difference Student's t over the paired differences of the puzzles (routes).
An end of an interval that would lie beyond what is possible is cut off there, and the estimate says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.signal import savgol_filter
from scipy.stats import norm
from scipy.stats import t as student_t
from statsmodels.regression.linear_model import WLS
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from .. import tables

CONFIDENCE = 0.95
Clusters = Mapping[int, tuple[float, int]]  # puzzle or route -> rate and episodes


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval. Rates and differences of rates are fractions."""

    value: float
    low: float
    high: float
    n: int  # episodes pooled over the seeds; for a difference, those of the smaller arm
    seeds: int
    interval: str  # wilson, newcombe, by cluster, t over seeds, fisher
    clipped: bool = False  # an end would lie beyond what is possible
    by_seed: tuple[float, ...] = ()  # what it is the mean of
    correlation: bool = False  # its interval is symmetric around Fisher's z, not around r

    def among(self, statements: int) -> tuple[float, float]:
        """The interval (low, high) at which `statements` of its kind hold together with 95 %, after Bonferroni.

        The 95 % interval widened by the ratio of the quantiles.
        """
        quantile = student_t(self.seeds - 1).ppf if self.interval == "t over seeds" else norm.ppf
        factor = quantile(1 - (1 - CONFIDENCE) / 2 / statements) / quantile((1 + CONFIDENCE) / 2)
        low, middle, high = (np.arctanh(end) if self.correlation else end for end in (self.low, self.value, self.high))
        wider = middle - factor * (middle - low), middle + factor * (high - middle)
        low, high = np.tanh(wider) if self.correlation else wider
        return float(low), float(high)


def wilson(value: float, n: float) -> tuple[float, float]:
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


def pooled(clusters: Sequence[Clusters]) -> Clusters:
    """The rate and the episodes of every puzzle (route) over all seeds together."""
    found: dict[int, tuple[float, int]] = {}
    for seed in clusters:
        for key, (rate, n) in seed.items():
            before, count = found.get(key, (0.0, 0))
            found[key] = (before * count + rate * n) / (count + n), count + n
    return found


def effective_n(clusters: Clusters) -> float:
    """How many independent episodes say as much about the mean rate as these do, by a cluster-robust variance.

    As many as there are puzzles (routes) if all have the same rate. Raises ValueError for fewer than two of them.
    """
    if len(clusters) < 2:
        raise ValueError(f"A clustered interval needs at least 2 puzzles or routes, not {len(clusters)}.")
    rates, ns = (np.array(column, float) for column in zip(*clusters.values(), strict=True))
    fit = WLS(rates, np.ones(len(rates)), weights=ns).fit(cov_type="HC1")
    mean, variance = float(fit.params[0]), float(fit.bse[0]) ** 2
    return min(mean * (1 - mean) / variance, ns.sum()) if variance > 1e-12 else float(len(clusters))


def paired_by_cluster(ours: Clusters, others: Clusters) -> float:
    """Half of the 95 % interval of a difference of rates, by Student's t over the differences of puzzles (routes).

    Raises ValueError for fewer than two that both have.
    """
    shared = [key for key in ours if key in others]
    if len(shared) < 2:
        raise ValueError(f"A clustered interval needs at least 2 puzzles or routes in both, not {len(shared)}.")
    apart = np.array([ours[key][0] - others[key][0] for key in shared])
    weights = np.array([min(ours[key][1], others[key][1]) for key in shared], float)
    fit = WLS(apart, np.ones(len(apart)), weights=weights).fit(cov_type="HC1", use_t=True)
    return float(student_t.ppf((1 + CONFIDENCE) / 2, len(shared) - 1) * fit.bse[0])


def level(values: Sequence[float], ns: Sequence[int], clusters: Sequence[Clusters] = ()) -> Estimate:
    """Mean of one rate per seed, with its interval by the interval rule.

    values, ns: (seeds,) each, rates as fractions and numbers of episodes; clusters: the rates by puzzle (route), one
    per seed, if those are a sample. Raises ValueError if they are empty, differ in length or are out of range.
    """
    values, ns = _checked(values, ns)
    n, name = float(ns.sum()), "wilson"
    if clusters:
        together = pooled(clusters)
        n, name = effective_n(together) if len(together) > 1 else 1.0, "by cluster"  # one says what an episode does
    return _wider(values, wilson(_pooled(values, ns), n), name, int(ns.sum()), bounds=(0.0, 1.0))


def difference(
    values: Sequence[float],
    ns: Sequence[int],
    others: Sequence[float],
    other_ns: Sequence[int],
    clusters: tuple[Sequence[Clusters], Sequence[Clusters]] | None = None,
) -> Estimate:
    """Mean over seeds of the paired differences `values - others`, with its interval by the interval rule.

    All arguments: (seeds,), as for `level`; index i is the same seed in all of them; clusters: those of both. Raises
    ValueError as `level` does.
    """
    values, ns = _checked(values, ns)
    others, other_ns = _checked(others, other_ns)
    if len(values) != len(others):
        raise ValueError(f"Paired differences need equally many seeds, not {len(values)} and {len(others)}.")
    n, other_n = int(ns.sum()), int(other_ns.sum())
    rates, name = (_pooled(values, ns), _pooled(others, other_ns)), "by cluster" if clusters else "newcombe"
    ours, theirs = map(pooled, clusters or ((), ()))
    if not clusters:
        binomial = newcombe(rates[0], n, rates[1], other_n)
    elif len(ours.keys() & theirs.keys()) > 1:
        half, middle = paired_by_cluster(ours, theirs), float((values - others).mean())
        binomial = middle - half, middle + half
    else:  # a single puzzle (route) says what one episode does
        binomial = newcombe(rates[0], 1, rates[1], 1)
    return _wider(values - others, binomial, name, min(n, other_n), bounds=(-1.0, 1.0))


def level_of(rows: pd.DataFrame) -> Estimate | None:
    """`level` of table rows, one per seed; None if there are none. Raises ValueError if a seed occurs twice.

    Of one checkpoint that was tested on more and on fewer episodes, the more count.
    """
    if rows.empty:
        return None
    rows = _one_row_a_seed(rows)
    return level(rows["value"].to_numpy(), rows["n"].to_numpy(), _clusters(rows["by_cluster"]))


def difference_of(rows: pd.DataFrame, others: pd.DataFrame) -> Estimate | None:
    """`difference` of table rows paired by seed, over the seeds in both; None if they share none.

    Raises ValueError if a seed occurs twice.
    """
    rows, others = _one_row_a_seed(rows), _one_row_a_seed(others)
    pairs = rows.merge(others, on="seed", suffixes=("", "_other")).sort_values("seed")
    if pairs.empty:
        return None
    both = _clusters(pairs["by_cluster"]), _clusters(pairs["by_cluster_other"])
    numbers = (pairs[name].to_numpy() for name in ("value", "n", "value_other", "n_other"))
    return difference(*numbers, clusters=both if all(both) else None)


def fell(rows: pd.DataFrame, others: pd.DataFrame, by: float) -> tuple[int, int]:
    """How many seeds of `rows` lie below `others` by more than `by`, and how many seeds both have."""
    estimate = difference_of(rows, others)
    return (sum(value < -by for value in estimate.by_seed), estimate.seeds) if estimate else (0, 0)


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
        half = norm.ppf((1 + CONFIDENCE) / 2) / math.sqrt(len(usable[0][0]) - 3)
        (low, high), name = (z[0] - half, z[0] + half), "fisher"
    value, low, high = (float(end) for end in np.tanh([z.mean(), low, high]))
    return Estimate(value, low, high, n, len(z), name, by_seed=tuple(map(float, np.tanh(z))), correlation=True)


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
    clipped = low < bounds[0] or high > bounds[1]
    low, high = min(max(low, bounds[0]), mean), max(min(high, bounds[1]), mean)
    return Estimate(mean, low, high, n, len(values), name, clipped, tuple(map(float, values)))


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


def _clusters(column: pd.Series) -> list[Clusters]:
    """The rates by puzzle (route) of every row; [] if they are not known of all."""
    found = [tables.clusters(text) for text in column]
    return found if all(found) else []


def _one_row_a_seed(rows: pd.DataFrame) -> pd.DataFrame:
    if "by_cluster" not in rows:
        rows = rows.assign(by_cluster="")
    if "step" in rows:  # the same checkpoint on more episodes
        rows = rows.sort_values("n", kind="stable").drop_duplicates(["seed", "step"], keep="last").sort_values("seed")
    if (twice := rows["seed"].duplicated()).any():
        raise ValueError(f"Seed {rows['seed'][twice].iloc[0]} occurs twice among the selected rows.")
    return rows
