"""The paper's 21 claims, decided from the tables; the verdicts go to `results/<profile>/claims.json`.

The decision rule was fixed before any run. A claim has parts (`evidence`); a part is a number with its 95 % interval
(`statistics`) and a claimed side of a threshold. A part holds if its whole interval lies on the claimed side, fails if
its whole interval lies on the other side, and is open otherwise. A claim is
  reproduced      if every part holds,
  not_reproduced  if any part fails,
  inconclusive    otherwise, also if the tables lack a part for a task variant that was run,
  not_run         if the tables hold nothing about it.
A claim about several of the four task variants is decided on those that were run; its note names them. The reported
effect (a fraction) is that of the least favourable part among those that decided the verdict.
Paper: no intervals and no seeds; several of its differences are within one standard error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .. import paths, published, tables
from ..files import write_atomically
from . import evidence as e
from .evidence import BARELY, FAILURE, Evidence, Part
from .statistics import CONFIDENCE

VERDICTS = ("reproduced", "not_reproduced", "inconclusive", "not_run")
UNEQUAL = 0.05  # a larger relative difference in training compute is noted


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: the figure that shows it, its task variants, and the function that decides it."""

    id: int
    statement: str
    figure: str
    variants: tuple[str, ...]
    parts: Callable[[Evidence, str], list[Part]]  # evidence and variant -> the claim's parts
    note: str = ""


ALL = tuple(published.VARIANTS)  # the paper's four, even if the tables hold other tasks
GP_L, GP_VL, VIRL_VL = ("GP-L",), ("GP-VL",), ("V-IRL-VL",)
CLAIMS = (
    Claim(1, "RL raises rule-OOD performance above Init.", "fig06", ALL, e.rl_raises_ood),
    Claim(2, "Continued SFT at equal compute lowers rule-OOD performance below Init.", "fig06", ALL,
          e.sft_lowers_ood),
    Claim(3, "At equal compute RL is better than SFT on rule-OOD.", "fig06", ALL, e.rl_beats_sft),
    Claim(4, "RL's ID gains transfer to the unseen rule; SFT's ID gains do not.", "fig05", ALL, e.transfer),
    Claim(5, "SFT fails by applying the training rule although the prompt states another.", "mechanism", ALL,
          e.old_rule,
          "By the training rule: in GeneralPoints J, Q and K read as 10, in navigation absolute directions."),
    Claim(6, "RL raises visual-OOD performance and SFT lowers it, rules fixed.", "fig07",
          GP_VL + VIRL_VL, e.visual),
    Claim(7, "End-to-end multi-turn RL beats the previous best V-IRL mini-benchmark result (44.0 %).",
          "fig07", VIRL_VL, e.beats_previous_best, "Decided only on the official mini-benchmark routes."),
    Claim(8, "Recognition accuracy strongly drives task success.", "fig08", GP_VL,
          e.recognition_drives_success),
    Claim(9, "Scaling RL raises card recognition, ID and OOD; scaling SFT lowers recognition and success.",
          "fig08", GP_VL, e.recognition_scales),
    Claim(10, "Without SFT first, RL fails at every learning rate tried.", "fig09", GP_L,
          e.rl_fails_without_sft, f"Fails: ID success below {FAILURE:.0%} at the end of every run."),
    Claim(11, "SFT's useful role is to stabilise the output format so that RL can work.", "fig09", GP_L,
          e.sft_gives_format),
    Claim(12, "More verification attempts in RL give a larger OOD gain at equal compute (1 < 3 < 5 < 10).",
          "fig10", GP_L, e.attempts_help),
    Claim(13, "With one verification attempt RL barely generalises.", "fig10", GP_L, e.one_attempt,
          f"Barely: gains less than {100 * BARELY:.0f} points on rule-OOD."),
    Claim(14, "SFT on error-containing multi-turn data does not mend SFT's OOD loss.", "fig15", GP_L,
          e.suboptimal),
    Claim(15, "SFT cannot match RL even in distribution, at any learning rate or freezing tried.", "fig16",
          GP_VL, e.sft_cannot_match),
    Claim(16, "RL is easy to tune: every learning rate tried raises ID success.", "fig17", GP_VL,
          e.easy_to_tune),
    Claim(17, "RL cannot rescue a heavily overfitted SFT checkpoint.", "fig19", VIRL_VL, e.no_rescue,
          f"Not rescued: rule-OOD per-step accuracy stays below {FAILURE:.0%}."),
    Claim(18, "RL helps only from checkpoints that are neither badly under- nor overfitted.", "fig19",
          GP_L + VIRL_VL, e.middle_checkpoints, "Underfitted: GP-L without SFT; overfitted: V-IRL-VL."),
    Claim(19, "Neither method gets whole-route rule-OOD success above about 1 %, though RL's steps improve.",
          "fig18", VIRL_VL, e.whole_routes, f"About 1 %: below {FAILURE:.0%}."),
    Claim(20, "Memorisation is meant behaviourally: near-copies of training outputs when prompted.", "fig21",
          ALL, e.nothing, "A definition, which no number can decide; claims 2 and 5 test the behaviour."),
    Claim(21, "RL on outcome rewards generalises, and more attempts improve it.", "fig10", ALL, e.more_steps),
)  # fmt: skip


def evaluate(metrics: pd.DataFrame) -> list[dict]:
    """Decide every claim on a validated table: one record per claim, in the paper's order."""
    evidence = Evidence(metrics)
    return [_decide(claim, evidence) for claim in CLAIMS]


def _decide(claim: Claim, evidence: Evidence) -> dict:
    by_variant = {variant: claim.parts(evidence, variant) for variant in claim.variants}
    covered = [name for name, parts in by_variant.items() if any(part.estimate for part in parts)]
    run = [part for name in covered for part in by_variant[name]]
    missing = [part.what for part in run if part.estimate is None]
    verdicts = {part.verdict for part in run}
    if not run:
        verdict = "not_run"
    elif "not_reproduced" in verdicts:
        verdict = "not_reproduced"
    else:
        verdict = "reproduced" if verdicts == {"reproduced"} else "inconclusive"
    open_parts = [part for part in run if part.verdict == verdict]
    deciding = min(open_parts or [part for part in run if part.estimate], key=lambda part: part.worst, default=None)
    estimate = deciding.estimate if deciding else None
    return {
        "id": claim.id,
        "statement": claim.statement,
        "verdict": verdict,
        "effect": _rounded(estimate and estimate.value),
        "ci_low": _rounded(estimate and estimate.low),
        "ci_high": _rounded(estimate and estimate.high),
        "seeds": estimate.seeds if estimate else 0,
        "n": estimate.n if estimate else 0,
        "figure": claim.figure,
        "note": " ".join(_notes(claim, covered, missing, deciding, evidence)),
        "parts": [_record(part) for part in run if part.estimate],
    }


def _notes(claim: Claim, covered: list, missing: list, deciding: Part | None, evidence: Evidence) -> Iterable[str]:
    if claim.note:
        yield claim.note
    if claim.parts is e.nothing:
        return
    absent = [name for name in claim.variants if name not in covered]
    if not covered:
        yield f"Not run: {', '.join(absent)}."
        return
    beyond = f" (not run: {', '.join(absent)})" if absent else ""
    yield f"Covers {', '.join(covered)}{beyond}."
    yield f"Effect: {deciding.what}."
    if missing:
        yield f"Not in the tables: {'; '.join(missing)}."
    if "equal compute" in claim.statement.lower():
        yield from (remark for name in covered if (remark := _compute_remark(evidence, name)))


def _compute_remark(evidence: Evidence, variant: str) -> str:
    sft, rl = (evidence.rows(variant, name, "rule_ood")["train_flops"].mean() for name in ("sft", "rl"))
    if not rl > 0 or not abs(sft / rl - 1) > UNEQUAL:
        return ""
    return f"{variant}: SFT had {sft / rl:.2f} times RL's training compute."


def _record(part: Part) -> dict:
    numbers = {"effect": part.estimate.value, "ci_low": part.estimate.low, "ci_high": part.estimate.high}
    return {
        "what": part.what,
        "verdict": part.verdict,
        "claimed": "above" if part.side > 0 else "below",
        "threshold": part.threshold,
        **{name: _rounded(value) for name, value in numbers.items()},
        "seeds": part.estimate.seeds,
        "n": part.estimate.n,
        "interval": part.estimate.interval,
    }


def _rounded(value: float | None) -> float | None:
    """Round to six decimals, because the last bits of a quantile differ between machines and the file must not."""
    return None if value is None else round(float(value), 6) + 0.0


def write(profile: str) -> list[dict]:
    """Decide all claims on a profile's table, write `results/<profile>/claims.json`, return the records."""
    records = evaluate(tables.read_metrics(profile))
    write_atomically(claims_path(profile), json.dumps(records, indent=2, ensure_ascii=False) + "\n")
    return records


def claims_path(profile: str) -> Path:
    return paths.results(profile) / "claims.json"


def tally(records: list[dict]) -> str:
    """A sentence that counts the claims by verdict."""
    counts = {verdict: sum(record["verdict"] == verdict for record in records) for verdict in VERDICTS}
    return (
        f"Of the paper's {len(records)} claims {counts['reproduced']} are reproduced, "
        f"{counts['not_reproduced']} are not, {counts['inconclusive']} are open and {counts['not_run']} were not run."
    )


def summary(records: list[dict]) -> pd.DataFrame:
    """The claims as a compact table for notebooks, with effects in percentage points."""
    shown = pd.DataFrame(records)[["id", "statement", "verdict", "effect", "ci_low", "ci_high", "seeds", "figure"]]
    points = ["effect", "ci_low", "ci_high"]
    shown[points] = (100 * shown[points].astype(float)).round(1)
    names = {"effect": "effect (points)", "ci_low": f"{CONFIDENCE:.0%} from", "ci_high": "to"}
    return shown.rename(columns=names).set_index("id")
