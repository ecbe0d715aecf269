"""The paper's 21 claims, decided from the tables cell by cell; `report` writes the verdicts down.

A cell is a claim on one task variant. It has parts (`evidence`); a part is a number with its 95 % interval
(`statistics`) and a claimed side of a threshold. A part holds if its whole interval lies on the claimed side; it fails
if that lies on the other side, at the level at which all parts of its cell hold together (Bonferroni); else it is open.
A part from a single seed is open. A cell is
  reproduced      if every part holds,
  not_reproduced  if any part fails (mixed if others hold, where parts are statements of their own),
  inconclusive    otherwise, also if the tables lack a part,
  not_run         if the tables hold nothing about it.
A claim is mixed if one cell holds and another fails, not_reproduced if some fail and none holds, reproduced if all that
were run hold, inconclusive otherwise. A claim about a level that depends on the model's size is not_comparable, with
the reason; its numbers are shown. The reported effect (a fraction) is that of the least favourable part among those
that decided the verdict.

RL's end is where its budget is spent with every rollout token counted. Where the tables also have the checkpoint at
which the paper's lambda would end it, the cell says what it would be by that account (PROTOCOL.md has the rules).
Paper: no intervals and no seeds; several of its differences are within one standard error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import pandas as pd

from .. import published
from . import evidence as e
from .evidence import BARELY, FAILURE, LEAST_SEEDS, Evidence, Part

VERDICTS = ("reproduced", "not_reproduced", "mixed", "inconclusive", "not_comparable", "not_run")
UNEQUAL = 0.05  # a larger relative difference in training compute is noted


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: the figure that shows it, its task variants, and the function that decides it."""

    id: int | str
    statement: str
    figure: str
    variants: tuple[str, ...]
    parts: Callable[[Evidence, str], list[Part]]  # evidence and variant -> the claim's parts
    note: str = ""
    incomparable: str = ""  # why its number cannot be compared with the paper's; such a claim has no verdict
    unless_run: bool = False  # but it has one where its parts, which need other runs than ours, are in the tables
    several: bool = False  # its parts are statements of their own, of which some may hold and some fail


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
          GP_VL + VIRL_VL, e.visual, several=True),
    Claim(7, "End-to-end multi-turn RL beats the previous best V-IRL mini-benchmark result (44.0 %).",
          "fig07", VIRL_VL, e.beats_previous_best, incomparable="the previous best is a result on the official "
          "mini-benchmark's routes and photographs, which were not used", unless_run=True),
    Claim(8, "Recognition accuracy strongly drives task success.", "fig08", GP_VL,
          e.recognition_drives_success, "Split by split, because splits differ in difficulty.", several=True),
    Claim(9, "Scaling RL raises card recognition, ID and OOD; scaling SFT lowers recognition and success.",
          "fig08", GP_VL, e.recognition_scales, several=True),
    Claim(10, "Without SFT first, RL fails at every learning rate tried.", "fig09", GP_L,
          e.rl_fails_without_sft, f"Fails: ID success below {FAILURE:.0%} at the end of every run."),
    Claim(11, "SFT's useful role is to stabilise the output format so that RL can work.", "fig09", GP_L,
          e.sft_gives_format),
    Claim(12, "More verification attempts in RL give a larger OOD gain at equal compute (1 < 3 < 5 < 10).",
          "fig10", GP_L, e.attempts_help),
    Claim(13, "With one verification attempt RL barely generalises.", "fig10", GP_L, e.one_attempt,
          f"Barely: gains less than {100 * BARELY:.0f} points on rule-OOD.",
          "how much is little depends on how high the model starts and how much it can gain"),
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
          "fig18", VIRL_VL, e.whole_routes, f"About 1 %: below {FAILURE:.0%}.",
          "it says how hard the routes are; here Init walks a fifth of them before any branch begins"),
    Claim(20, "Memorisation is meant behaviourally: near-copies of training outputs when prompted.", "fig21",
          ALL, e.nothing, "Claims 2 and 5 test the behaviour.",
          "it is a definition, which no number can decide"),
    Claim(21, "RL on outcome rewards generalises, and more attempts improve it.", "fig10", ALL, e.more_steps),
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A claim on one task variant."""

    variant: str
    parts: tuple[Part, ...]
    several: bool

    @property
    def verdict(self) -> str:
        if not any(part.estimate for part in self.parts):
            return "not_run"
        verdicts = {part.verdict for part in self.parts}
        if "not_reproduced" in verdicts:
            return "mixed" if self.several and "reproduced" in verdicts else "not_reproduced"
        return "reproduced" if verdicts == {"reproduced"} else "inconclusive"


def evaluate(metrics: pd.DataFrame) -> list[dict]:
    """Decide every claim on a validated table: one record per claim, in the paper's order."""
    counted = Evidence(metrics)
    paper = Evidence(metrics, by_paper_lambda=True) if metrics["paper_flops"].notna().any() else None
    return [decide(claim, counted, paper) for claim in CLAIMS]


def verdict_of(claim: Claim, cells: list[Cell]) -> str:
    """The verdict of a claim from those of its cells."""
    found = {cell.verdict for cell in cells} - {"not_run"}
    if claim.incomparable and not (claim.unless_run and found):
        return "not_comparable"
    if not found:
        return "not_run"
    if "mixed" in found or {"reproduced", "not_reproduced"} <= found:
        return "mixed"
    if "not_reproduced" in found:
        return "not_reproduced"
    return "reproduced" if found == {"reproduced"} else "inconclusive"


def cell_of(claim: Claim, evidence: Evidence, variant: str) -> Cell:
    """A claim on one task variant, or on another task."""
    parts = claim.parts(evidence, variant)
    return Cell(variant, tuple(replace(part, among=len(parts)) for part in parts), claim.several)


def _cells(claim: Claim, evidence: Evidence) -> list[Cell]:
    return [cell_of(claim, evidence, variant) for variant in claim.variants]


def decide(claim: Claim, counted: Evidence, paper: Evidence | None = None) -> dict:
    """The record of one claim; `paper` is the evidence by the paper's lambda, if the tables have it."""
    cells = _cells(claim, counted)
    by_paper = {cell.variant: cell.verdict for cell in _cells(claim, paper)} if paper else {}
    verdict = verdict_of(claim, cells)
    parts = [part for cell in cells if cell.verdict != "not_run" for part in cell.parts]
    measured = [part for part in parts if part.estimate]
    against = {"mixed": "not_reproduced"}.get(verdict, verdict)
    deciding = min([p for p in measured if p.verdict == against] or measured, key=lambda part: part.worst, default=None)
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
        "note": " ".join(_notes(claim, cells, deciding, counted, by_paper)),
        "cells": [
            {
                "variant": cell.variant,
                "verdict": cell.verdict,
                "by_paper_lambda": by_paper.get(cell.variant),
                "parts": [_record(part) for part in cell.parts if part.estimate],
            }
            for cell in cells
        ],
    }


def _notes(
    claim: Claim, cells: list[Cell], deciding: Part | None, evidence: Evidence, by_paper: dict[str, str]
) -> Iterable[str]:
    if claim.note:
        yield claim.note
    if claim.incomparable:
        yield f"Not comparable: {claim.incomparable}."
    if claim.parts is e.nothing:
        return
    covered = [cell.variant for cell in cells if cell.verdict != "not_run"]
    absent = [cell.variant for cell in cells if cell.verdict == "not_run"]
    if not covered:
        yield f"Not run: {', '.join(absent)}."
        return
    beyond = f" (not run: {', '.join(absent)})" if absent else ""
    yield f"Covers {', '.join(covered)}{beyond}."
    yield f"Effect: {deciding.what}."
    parts = [part for cell in cells if cell.variant in covered for part in cell.parts]
    if missing := [part.what for part in parts if part.estimate is None]:
        yield f"Not in the tables: {'; '.join(missing)}."
    if alone := [part for part in parts if part.estimate and part.estimate.seeds < LEAST_SEEDS]:
        yield f"From a single seed, which decides nothing: {len(alone)} of {len(parts)} parts."
    verdicts = {cell.variant: cell.verdict for cell in cells}
    known = [(name, verdict) for name, verdict in by_paper.items() if verdict != "not_run"]
    if changed := [f"{name} {verdict}" for name, verdict in known if verdict != verdicts[name]]:
        yield f"By the paper's lambda instead: {', '.join(changed)}."
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
        "clipped": part.estimate.clipped,
        "by_seed": [_rounded(value) for value in part.estimate.by_seed],
        "seeds": part.estimate.seeds,
        "n": part.estimate.n,
        "interval": part.estimate.interval,
    }


def _rounded(value: float | None) -> float | None:
    """Round to six decimals, because the last bits of a quantile differ between machines and the file must not."""
    return None if value is None else round(float(value), 6) + 0.0
