"""What the paper's own numbers can carry: the parts of its claims, with 95 % intervals from its published values.

Paper: one run per bar, no seeds, no n, one binomial standard error. Assumed here: n is that of the released evaluation
scripts (234 hands, 48 routes, 18 routes under a new look); a rate is a binomial proportion of n independent episodes,
and two rates are independent samples; a per-step accuracy counts routes, as ours do. A level then has Wilson's interval
and a difference Newcombe's (`statistics`), with the p value of the score test of statsmodels. Nothing of this says how
far another training run would have ended: that takes seeds, which the paper does not have.

A part has the words (`what`) of the same part in `evidence`, so that both stand side by side. What the paper prints as
a limit ("no curve above") is taken at that limit. Digitised values are good to about half a point.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scipy.stats import binomtest
from statsmodels.stats.proportion import test_proportions_2indep

from .. import published
from ..methods import METHODS
from ..published import EPISODES, VARIANTS, VISUAL_EPISODES
from ..task import SPLITS
from .evidence import BARELY, FAILURE, Part
from .statistics import Estimate, correlation, newcombe, wilson

ONE_SEED = 1


@dataclass(frozen=True)
class Published:
    """A part of a claim from published values."""

    part: Part
    p: float | None  # of the value at the threshold, two-sided; None for a correlation
    provenance: str

    @property
    def verdict(self) -> str:
        """separated, or "reversed" if the interval is on the other side, or "not separated"; by episodes alone."""
        if self.part.worst > 0:
            return "separated"
        ends = (self.part.estimate.low, self.part.estimate.high)
        return "reversed" if max(self.part.side * (end - self.part.threshold) for end in ends) < 0 else "not separated"


def parts(claim: int | str, variant: str) -> list[Published]:
    """The parts of a claim on a variant that published values decide; [] if the paper prints none."""
    return list(_PARTS[claim](variant)) if claim in _PARTS else []


def _change(v: str, levels: dict, a: str, b: str, split: str, side: int, where: str, metric: str = "") -> Published:
    """Method `a` minus method `b`, from `levels` in percent."""
    metric = (metric or VARIANTS[v].metric).replace("_", " ")
    what = f"{v}: {METHODS[a].label} minus {METHODS[b].label}, {SPLITS[split].short} {metric}"
    n = (VISUAL_EPISODES if split == "visual_ood" else EPISODES)[v]
    return _difference(what, levels[a], levels[b], n, side, 0.0, where)


def _difference(what: str, level: float, other: float, n: int, side: int, threshold: float, where: str) -> Published:
    """The part "`level` minus `other` (percent, of `n` episodes each) lies on `side` of `threshold`"."""
    rate, base = level / 100, other / 100
    low, high = newcombe(rate, n, base, n)
    test = test_proportions_2indep(rate * n, n, base * n, n, value=threshold, compare="diff", method="score")
    estimate = Estimate(rate - base, low, high, n, ONE_SEED, "newcombe")
    return Published(Part(what, estimate, side, threshold), float(test.pvalue), where)


def _level(what: str, level: float, n: int, side: int, threshold: float, where: str) -> Published:
    """The part "`level` (percent, of `n` episodes) lies on `side` of `threshold`"."""
    low, high = wilson(level / 100, n)
    p = binomtest(round(level / 100 * n), n, threshold).pvalue
    estimate = Estimate(level / 100, low, high, n, ONE_SEED, "wilson")
    return Published(Part(what, estimate, side, threshold), float(p), where)


_FIG06, _FIG07, _FIG08 = "Fig. 6, printed", "Fig. 7, printed", "Fig. 8, digitised"


def _rl_raises(v: str) -> Iterator[Published]:
    yield _change(v, published.FIG06[v], "rl", "init", "rule_ood", +1, _FIG06)


def _sft_lowers(v: str) -> Iterator[Published]:
    yield _change(v, published.FIG06[v], "sft", "init", "rule_ood", -1, _FIG06)


def _rl_beats(v: str) -> Iterator[Published]:
    yield _change(v, published.FIG06[v], "rl", "sft", "rule_ood", +1, _FIG06)


def _transfer(v: str) -> Iterator[Published]:
    """ID ends are recoverable of GP-VL alone."""
    if v == "GP-VL":
        yield _change(v, _fig08("id", 0), "rl", "init", "id", +1, _FIG08)
    yield from (*_rl_raises(v), *_sft_lowers(v))


def _visual(v: str) -> Iterator[Published]:
    yield _change(v, published.FIG07[v], "rl", "init", "visual_ood", +1, _FIG07, "success")
    yield _change(v, published.FIG07[v], "sft", "init", "visual_ood", -1, _FIG07, "success")


def _previous_best(v: str) -> Iterator[Published]:
    what, levels = f"{v}: RL on the official mini benchmark, success", published.FIG07[v]
    yield _level(what, levels["rl"], VISUAL_EPISODES[v], +1, levels["previous_best"] / 100, _FIG07)


def _recognition_drives(v: str) -> Iterator[Published]:
    for split, points in _checkpoints():
        both = [pair for method in points.values() for pair in method]
        pairs = [([recognition for _, recognition in both], [success for success, _ in both])]
        what = f"{v}: correlation of recognition and success over checkpoints, {SPLITS[split].short}"
        yield Published(Part(what, correlation(pairs, EPISODES[v]), +1), None, _FIG08)


def _recognition_scales(v: str) -> Iterator[Published]:
    for method, side in (("rl", +1), ("sft", -1)):
        for split, _ in _checkpoints():
            yield _change(v, _fig08(split, 1), method, "init", split, side, _FIG08, "recognition")
    for split, _ in _checkpoints():
        yield _change(v, _fig08(split, 0), "sft", "init", split, -1, _FIG08, "success")


def _checkpoints() -> Iterator[tuple[str, dict]]:
    """Split, and method -> (success, recognition) of its checkpoints, in percent."""
    yield from ((split, published.FIG08["rule"][split]) for split in ("id", "rule_ood"))
    yield "visual_ood", published.FIG08["visual"]["visual_ood"]


def _fig08(split: str, which: int) -> dict[str, float]:
    """The last checkpoint of every method on a split: its success (0) or its recognition (1)."""
    return {method: found[-1][which] for method, found in dict(_checkpoints())[split].items()}


def _fails_without_sft(v: str) -> Iterator[Published]:
    what, top = f"{v}: RL without SFT, ID success", published.FIG09["highest_success"]
    yield _level(what, top, EPISODES[v], -1, FAILURE, "Fig. 9, the top of its axis")


def _more_attempts(v: str) -> Iterator[Published]:
    for fewer, more in ((1, 3), (3, 5), (5, 10)):
        yield _attempts(v, more, fewer)


def _attempts(v: str, more: int, fewer: int) -> Published:
    what = f"{v}: {more} attempts minus {fewer}, rule-OOD success"
    init, grown = published.FIG06[v]["init"], published.FIG10["ood_growth"]
    return _difference(what, init + grown[more], init + grown[fewer], EPISODES[v], +1, 0.0, "Fig. 10, printed")


def _one_attempt(v: str) -> Iterator[Published]:
    init, grown = published.FIG06[v]["init"], published.FIG10["ood_growth"][1]
    what = f"{v}: RL with 1 attempt minus Init, rule-OOD success"
    yield _difference(what, init + grown, init, EPISODES[v], -1, BARELY, "Fig. 10, printed")


def _cannot_match(v: str) -> Iterator[Published]:
    rl, sft = _fig08("id", 0)["rl"], published.FIG16["highest_id_success"]
    where = "Fig. 8, digitised, and the limit that the text names for Fig. 16"
    yield _difference(f"{v}: RL minus SFT, ID success", rl, sft, EPISODES[v], +1, 0.0, where)


def _no_rescue(v: str) -> Iterator[Published]:
    what, top = (
        f"{v}: RL from an overfitted checkpoint, rule-OOD step accuracy",
        published.FIG19["highest_step_accuracy"],
    )
    yield _level(what, top, EPISODES[v], -1, FAILURE, "Fig. 19, the top of its axis")


def _middle(v: str) -> Iterator[Published]:
    yield from _rl_raises(v)
    yield from _fails_without_sft(v) if v == "GP-L" else _no_rescue(v)


def _whole_routes(v: str) -> Iterator[Published]:
    top = published.FIG18["rule_ood_success_axis"][1]
    for what in (f"{v}: {METHODS[method].label}, rule-OOD success" for method in ("rl", "sft")):
        yield _level(what, top, EPISODES[v], -1, FAILURE, "Fig. 18, the top of its axis")
    yield from _rl_raises(v)


def _more_steps(v: str) -> Iterator[Published]:
    yield from _rl_raises(v)
    if v == "GP-L":
        yield _attempts(v, 10, 1)


_PARTS = {
    1: _rl_raises, 2: _sft_lowers, 3: _rl_beats, 4: _transfer, 6: _visual, 7: _previous_best, 8: _recognition_drives,
    9: _recognition_scales, 10: _fails_without_sft, 12: _more_attempts, 13: _one_attempt, 15: _cannot_match,
    17: _no_rescue, 18: _middle, 19: _whole_routes, 21: _more_steps,
}  # fmt: skip
