"""Intervals against formulas written out here and against SciPy, not the library that computes them."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sftrl_lib import tables
from sftrl_lib.claims import statistics

Z = stats.norm.ppf(0.975)


def wilson_by_hand(p, n):
    center = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return center - half, center + half


def newcombe_by_hand(p, n, q, m):
    (l1, u1), (l2, u2) = wilson_by_hand(p, n), wilson_by_hand(q, m)
    return p - q - math.hypot(p - l1, u2 - q), p - q + math.hypot(u1 - p, q - l2)


@pytest.mark.parametrize(("value", "n"), [(0.0, 250), (0.004, 250), (0.3, 1000), (0.333, 100), (1.0, 50)])
def test_wilson(value, n):
    assert statistics.wilson(value, n) == pytest.approx(wilson_by_hand(value, n), abs=1e-12)


@pytest.mark.parametrize(("p", "n", "q", "m"), [(0.2, 1000, 0.1, 1000), (0, 300, 0.05, 250), (1, 40, 1, 40)])
def test_newcombe(p, n, q, m):
    assert statistics.newcombe(p, n, q, m) == pytest.approx(newcombe_by_hand(p, n, q, m), abs=1e-12)


def test_newcombe_published_example():
    # Newcombe (1998), table II, method 10: 56/70 against 48/80.
    assert statistics.newcombe(56 / 70, 70, 48 / 80, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_t_interval_against_scipy():
    values = [0.10, 0.16, 0.13, 0.11]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert statistics.t_interval(values) == pytest.approx(expected)
    with pytest.raises(ValueError, match="at least 2 seeds, not 1"):
        statistics.t_interval([0.5])


def test_level_takes_the_wider_interval():
    agreeing = statistics.level([0.2, 0.2, 0.2], [300, 300, 300])
    assert agreeing.interval == "wilson"
    assert (agreeing.low, agreeing.high) == pytest.approx(wilson_by_hand(0.2, 900))
    scattered = statistics.level([0.1, 0.2, 0.3], [300, 300, 300])
    assert scattered.interval == "t over seeds"
    assert scattered.low == 0  # -4.8 % clipped
    assert scattered.high == pytest.approx(0.2 + 4.302653 * 0.1 / math.sqrt(3), abs=1e-6)
    assert (scattered.n, scattered.seeds) == (900, 3)


def test_all_zero_seeds_do_not_look_certain():
    nothing = statistics.level([0.0, 0.0, 0.0], [1000] * 3)
    assert nothing.value == 0
    assert 0.001 < nothing.high < 0.0014


def test_one_seed_has_the_binomial_interval():
    one = statistics.level([0.15], [1000])
    assert (one.interval, one.seeds) == ("wilson", 1)
    assert (one.low, one.high) == pytest.approx(wilson_by_hand(0.15, 1000))


def test_difference_is_paired_over_seeds():
    # The seeds differ by far more than the methods: pairing removes that.
    rl, init = [0.21, 0.41, 0.31], [0.11, 0.31, 0.21]
    gain = statistics.difference(rl, [1000] * 3, init, [1000] * 3)
    assert gain.value == pytest.approx(0.1)
    assert gain.interval == "newcombe"
    assert (gain.low, gain.high) == pytest.approx(newcombe_by_hand(0.31, 3000, 0.21, 3000))
    uneven = statistics.difference([0.2, 0.5, 0.3], [1000] * 3, init, [1000] * 3)
    expected = stats.t.interval(0.95, 2, loc=np.mean([0.09, 0.19, 0.09]), scale=stats.sem([0.09, 0.19, 0.09]))
    assert (uneven.low, uneven.high) == pytest.approx(expected)
    assert uneven.interval == "t over seeds"


def test_rows_are_paired_by_seed_and_only_shared_seeds_count():
    rl = pd.DataFrame({"seed": [2, 0, 1], "value": [0.3, 0.1, 0.2], "n": [100, 100, 100]})
    init = pd.DataFrame({"seed": [1, 2, 7], "value": [0.1, 0.1, 0.9], "n": [100, 100, 100]})
    gain = statistics.difference_of(rl, init)
    assert (gain.value, gain.seeds) == (pytest.approx(0.15), 2)
    assert statistics.difference_of(rl, init[init["seed"] == 7]) is None
    assert statistics.level_of(rl.iloc[:0]) is None
    with pytest.raises(ValueError, match="Seed 0 occurs twice"):
        statistics.level_of(pd.concat([rl, rl.iloc[[1]]]))


@pytest.mark.parametrize("values, ns", [([], []), ([0.1], [10, 20]), ([1.2], [10]), ([0.5], [0])])
def test_impossible_rates_are_refused(values, ns):
    with pytest.raises(ValueError):
        statistics.level(values, ns)


def test_coverage_of_the_house_rule_is_at_least_nominal():
    random = np.random.default_rng(sum(map(ord, "coverage")))
    hits = 0
    for _ in range(400):
        truth = np.clip(0.15 + 0.02 * random.standard_normal(3), 0, 1)  # seeds differ
        estimate = statistics.level(random.binomial(500, truth) / 500, [500] * 3)
        hits += estimate.low <= 0.15 <= estimate.high
    assert hits / 400 > 0.93


def test_correlation_one_seed_is_scipys():
    x, y = [0.9, 0.8, 0.6, 0.5, 0.3], [0.5, 0.45, 0.2, 0.25, 0.1]
    ours, scipys = statistics.correlation([(x, y)], 100), stats.pearsonr(x, y)
    interval = scipys.confidence_interval(0.95)
    assert (ours.value, ours.low, ours.high) == pytest.approx((scipys.statistic, interval.low, interval.high))
    assert statistics.correlation([(x[:3], y[:3])], 100) is None
    assert statistics.correlation([(x, [0.1] * 5)], 100) is None


def test_smoothing_keeps_cubics_and_leaves_short_curves_alone():
    x = np.linspace(-1, 1, 9)
    cubic = 2 * x**3 - x + 1
    assert statistics.smooth(cubic) == pytest.approx(cubic)
    assert statistics.smooth([0.1, 0.9, 0.2]).tolist() == [0.1, 0.9, 0.2]


def test_an_interval_that_is_cut_off_says_so():
    assert statistics.level([0.1, 0.2, 0.3], [300] * 3).clipped  # -4.8 % to 44.8 %
    assert not statistics.level([0.2, 0.2, 0.2], [300] * 3).clipped
    assert statistics.difference([0.9, 0.2], [99] * 2, [0.1, 0.1], [99] * 2).clipped


def test_more_statements_at_once_need_a_wider_interval():
    alone = statistics.level([0.4, 0.5, 0.6], [300] * 3)
    low, high = alone.among(1)
    assert (low, high) == pytest.approx((alone.low, alone.high))
    ratio = stats.t.ppf(1 - 0.025 / 5, 2) / stats.t.ppf(0.975, 2)
    assert alone.among(5) == pytest.approx((0.5 - ratio * (0.5 - alone.low), 0.5 + ratio * (alone.high - 0.5)))


def test_a_correlation_among_several_is_widened_in_fishers_z():
    """In r itself its ends would leave what a correlation can be."""
    falling = [3.0, 2.1, 1.0, 0.1], [3.0, 1.0, 2.0, 0.2], [3.0, 2.0, 1.0, 1.2]
    alone = statistics.correlation([([0, 1, 2, 3], y) for y in falling], 100)
    low, high = alone.among(3)
    assert -1 < low < alone.low and alone.high < high < 1
    factor = stats.t.ppf(1 - 0.025 / 3, 2) / stats.t.ppf(0.975, 2)
    middle = np.arctanh(alone.value)
    assert np.arctanh(high) - middle == pytest.approx(factor * (np.arctanh(alone.high) - middle))


def clustered(rates, n=16):
    return {key: (rate, n) for key, rate in enumerate(rates)}


def test_effective_n_of_puzzles_that_are_all_right_or_all_wrong_is_their_number():
    """Sixteen hands on one puzzle that all end alike say no more than one hand."""
    assert statistics.effective_n(clustered([1, 0] * 30)) == pytest.approx(60, rel=0.02)
    assert statistics.effective_n(clustered([0.0] * 40)) == 40
    random = np.random.default_rng(5)
    independent = random.binomial(16, 0.3, 400) / 16
    assert statistics.effective_n(clustered(independent)) == pytest.approx(16 * 400, rel=0.15)


def test_coverage_of_the_clustered_interval_is_nominal():
    """Puzzles of difficulties from 0 to 1; the plain binomial interval covers the mean far too seldom."""
    random = np.random.default_rng(sum(map(ord, "clusters")))
    hits = plain = 0
    for _ in range(300):
        hard = random.beta(0.4, 1.6, 60)  # mean 0.2
        rates = random.binomial(16, hard) / 16
        found = statistics.level([rates.mean()], [960], [clustered(rates)])
        hits += found.low <= 0.2 <= found.high
        low, high = statistics.wilson(rates.mean(), 960)
        plain += low <= 0.2 <= high
    assert found.interval == "by cluster" and hits / 300 > 0.92 and plain / 300 < 0.75


def test_a_difference_is_paired_by_puzzle():
    """Two methods on the same puzzles: what makes a puzzle hard cancels."""
    random = np.random.default_rng(3)
    hard = random.beta(0.4, 1.6, 60)
    ours, others = (random.binomial(16, np.clip(hard + gain, 0, 1)) / 16 for gain in (0.1, 0.0))
    both = [clustered(ours)], [clustered(others)]
    found = statistics.difference([ours.mean()], [960], [others.mean()], [960], both)
    expected = stats.t.interval(0.95, 59, loc=(ours - others).mean(), scale=stats.sem(ours - others))
    assert (found.low, found.high) == pytest.approx(expected) and found.interval == "by cluster"
    apart = math.hypot(*(0.5 * np.subtract(*statistics.wilson(x.mean(), statistics.effective_n(clustered(x))))
                         for x in (ours, others)))  # fmt: skip
    assert (found.high - found.low) / 2 < apart
    with pytest.raises(ValueError, match="at least 2 puzzles"):
        statistics.effective_n(clustered([0.5]))


def test_the_table_carries_the_puzzles_and_the_more_episodes_count():
    text = tables.clusters_text(clustered([1, 0] * 10))
    rows = pd.DataFrame({"seed": [0, 0], "step": [4, 4], "value": [0.5, 0.25], "n": [320, 16]})
    rows["by_cluster"] = text, ""
    found = statistics.level_of(rows)
    assert (found.n, found.value, found.interval) == (320, 0.5, "by cluster")
    assert found.high - found.low > 0.35 > np.diff(statistics.wilson(0.5, 320))[0]


def test_seeds_that_fell():
    init = pd.DataFrame({"seed": [0, 1, 2], "value": [0.8, 0.8, 0.8], "n": [100] * 3})
    sft = init.assign(value=[0.27, 0.69, 0.88])
    assert statistics.fell(sft, init, 0.1) == (2, 3) and statistics.fell(sft, init.iloc[:0], 0.1) == (0, 0)


def test_a_single_puzzle_says_what_one_episode_does():
    """A toy test may meet only one; its interval is as wide as can be, and nothing breaks."""
    one = [{3: (1.0, 4)}]
    level = statistics.level([1.0], [4], one)
    assert (level.low, level.high) == pytest.approx(statistics.wilson(1.0, 1)) and level.n == 4
    apart = statistics.difference([1.0], [4], [0.5], [4], (one, [{3: (0.5, 4)}]))
    assert apart.interval == "by cluster" and apart.high - apart.low > 1.0
    elsewhere = statistics.difference([1.0], [4], [0.5], [4], (one, [{7: (0.5, 4)}]))
    assert (elsewhere.low, elsewhere.high) == (apart.low, apart.high)
