"""REPRODUCTION.md: what of the paper came out, cell by cell and in words, from whatever tables a profile has.

    python -m sftrl_lib.claims.reproduction --profile laptop

Everything in it that is a number comes from the tables, the manifest or `published`; the words are `narrative`'s, put
together by the verdicts, so that the file stays true when the tables change. The last notebook and `make figures` write
it too: at the top of the checkout for the laptop profile, beside the tables for any other.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from .. import paths, provenance, tables
from ..files import write_atomically
from ..profiles import LAPTOP
from . import beyond, comparison, designs, effort, paper
from .claims import ALL, CLAIMS, Cell, Claim, cell_of, evaluate, verdict_of
from .evidence import LEAST_SEEDS, Evidence, Part
from .narrative import NARRATIVES
from .report import cells_tally, tally
from .words import NUMBERS, WORDS, numbers, table

NAME = "REPRODUCTION.md"
MARKS = {"reproduced": "✓", "not_reproduced": "✗", "mixed": "±", "inconclusive": "○", "not_comparable": "–"}
ASSUMED = (
    "The paper prints no number of episodes, no seeds and no intervals beyond one standard error. Its numbers are "
    "given 95 % intervals here under four assumptions: n is that of its released evaluation scripts (234 hands, 48 "
    "routes, 18 routes under a new look); the episodes of a rate are independent, and so are two rates; the "
    "per-step accuracy of n routes counts as a rate of n; what is printed as a limit of an axis is taken at that "
    "limit, and what had to be measured in a picture is good to half a point.",
    "Levels have Wilson's interval and the p of the exact binomial test, differences Newcombe's and that of the score "
    "test, correlations over checkpoints Fisher's (statsmodels and SciPy, [paper.py](sftrl_lib/claims/paper.py)). "
    "*Separated* means that the interval lies on the claimed side of the threshold, by the finite number of episodes "
    "alone. How far a second run would have ended is not in it: by the rule used for our own numbers, one seed decides "
    "nothing.",
)


def markdown(metrics: pd.DataFrame, profile: str, figures: set[str] | None = None, runs: dict | None = None) -> str:
    """The whole report. figures: names of those that can be linked; runs: those of the manifest. Both: as they are."""
    figures = drawn(profile) if figures is None else figures
    runs = provenance.recorded(profile) if runs is None else runs
    evidence, records, further = Evidence(metrics), evaluate(metrics), beyond.evaluate(metrics)
    report = _Report(profile, evidence, {record["id"]: record for record in (*records, *further)}, figures)
    sections = [
        "# Reproduction report",
        "What of [SFT Memorizes, RL Generalizes](https://arxiv.org/abs/2501.17161) came out here, claim by claim. "
        f"Written by `python -m sftrl_lib.claims.reproduction --profile {profile}`: every number of ours comes from "
        f"the tables in [results/{profile}](results/{profile}), and the verdicts choose the words. "
        "[RESULTS.md](RESULTS.md) discusses the results task by task, [PROTOCOL.md](PROTOCOL.md) says how a cell is "
        "decided, and [CHECKLIST.md](CHECKLIST.md) answers the usual reproducibility checklists.",
        "## Which tables these are",
        *designs.told(evidence, profile),
        "## The claims, cell by cell",
        f"**{tally(records)}** {cells_tally(records)}",
        report.overview(),
        _legend(),
        "## What the paper's own numbers can carry",
        *ASSUMED,
        _separated(),
        "## The claims, one by one",
        *(text for claim in CLAIMS for text in report.claim(claim)),
        "## Beyond the paper",
        "What readers of the paper ask next, each a claim of this project's own, written down before its runs "
        "([claims/beyond.py](sftrl_lib/claims/beyond.py)); `make controls` runs them.",
        _controls(further, report),
        "## Which command reproduces which claim",
        "The ACM's badges ask for this table; which of them would apply is in "
        "[CHECKLIST.md](CHECKLIST.md#acm-badges). Every command also makes what it needs, stops and resumes, and "
        "ends with this report. Minutes are those of one thread, added up over the runs that the claim needs, as "
        "they were recorded with these tables; notebooks run side by side on as many cores as there are.",
        effort.table(metrics, profile, runs),
    ]
    return comparison.announced(profile, "\n\n".join(sections)) + "\n"


class _Report:
    """The parts of the report that look at one claim."""

    def __init__(self, profile: str, evidence: Evidence, records: dict, figures: set[str]) -> None:
        self.profile, self.records, self.figures = profile, records, figures
        self.cells = {c.id: [cell_of(c, evidence, variant) for variant in c.variants] for c in CLAIMS}

    def overview(self) -> str:
        """The claims as a table, a column per task variant."""
        rows = []
        for claim in CLAIMS:
            cells = {cell.variant: cell for cell in self.cells[claim.id]}
            shown = [_cell(claim, cells[name]) if name in cells else "" for name in ALL]
            verdict = self.records[claim.id]["verdict"]
            links = [self.figure(claim.figure), *map(_notebook, NARRATIVES[claim.id].notebooks)]
            row = [f"[{claim.id}](#{slug(_title(claim))})", claim.statement, *shown, _word(verdict), "<br>".join(links)]
            rows.append(row)
        return table(["#", "claim", *ALL, "in all", "see"], rows)

    def claim(self, claim: Claim) -> Iterator[str]:
        """The heading, the paragraphs and the table of one claim."""
        told, record = NARRATIVES[claim.id], self.records[claim.id]
        yield f"### {_title(claim)}"
        links = ", ".join([self.figure(claim.figure), *map(_notebook, told.notebooks)])
        cells = self.cells[claim.id]
        verdict = _word(record["verdict"]) if any(cell.parts for cell in cells) else "not decided"
        yield f"In all: {verdict}. {links}."
        yield f"**The paper.** {told.paper} {_own_numbers(claim, cells)}".strip()
        if any(part.estimate for cell in cells for part in cell.parts):
            yield _parts(claim, cells)
        yield f"**What it means.** {' '.join(self._meaning(claim, cells))}"
        if told.tried:
            yield f"**What was tried, and related controls.** {told.tried}{self._asked_further(told.controls)}"

    def figure(self, name: str) -> str:
        """A link to a figure, or its name if it is not drawn."""
        shown = re.sub("^fig0?", "Fig. ", name)
        return f"[{shown}](figures/{self.profile}/{name}.png)" if name in self.figures else shown

    def _meaning(self, claim: Claim, cells: list[Cell]) -> Iterator[str]:
        """What the verdicts say, group by group."""
        told, record = NARRATIVES[claim.id], self.records[claim.id]
        by_verdict: dict[str, list[Cell]] = {}
        for cell in cells:
            by_verdict.setdefault(cell.verdict, []).append(cell)
        if record["verdict"] == "not_comparable":
            yield f"Not judged: {claim.incomparable}."
        elif not any(cell.parts for cell in cells):
            yield "There is no number to decide it by."
        else:
            if found := by_verdict.get("reproduced"):
                yield f"Holds in {_names(found)}. {told.holds}"
            if found := by_verdict.get("not_reproduced"):
                yield f"Does not hold in {_names(found)}. {told.fails}"
            if found := by_verdict.get("mixed"):
                why = "" if "not_reproduced" in by_verdict else f" {told.fails}"
                yield f"In {_names(found)} some of its statements hold and others do not.{why}"
            for cell in by_verdict.get("inconclusive", ()):
                yield f"Open in {cell.variant}: {'; '.join(_why_open(cell))}."
            if found := by_verdict.get("not_run"):
                yield f"Not run: {_names(found)}."
        others = [c for c in record["cells"] if c["by_paper_lambda"] not in (None, "not_run", c["verdict"])]
        if others:
            would = ", ".join(f"{cell['variant']} would be {WORDS[cell['by_paper_lambda']]}" for cell in others)
            yield f"By the paper's account of compute, in which rollouts cost more and RL ends earlier, {would}."

    def _asked_further(self, controls: tuple[str, ...]) -> str:
        if not controls:
            return ""
        found = (self.records[name] for name in controls)
        asked = (f"{one['id']} ({one['statement'].rstrip('.')}: {WORDS[one['verdict']]})" for one in found)
        return f" Related controls: {'; '.join(asked)}."


def _cell(claim: Claim, cell: Cell) -> str:
    """A cell of the overview: verdict, effect with interval, and the paper's own."""
    if cell.verdict == "not_run":
        return "not run" if cell.parts else "no number"
    verdict = "not_comparable" if verdict_of(claim, [cell]) == "not_comparable" else cell.verdict
    part = deciding(cell)
    own = [published for published in paper.parts(claim.id, cell.variant) if published.part.what == part.what]
    lines = [_word(verdict), numbers(part), *(f"paper {numbers(one.part)}" for one in own)]
    return "<br>".join(line.removesuffix(" points") for line in lines)


def deciding(cell: Cell) -> Part:
    """The least favourable of the parts that made the verdict of a cell that was run."""
    against = {"mixed": "not_reproduced"}.get(cell.verdict, cell.verdict)
    measured = [part for part in cell.parts if part.estimate]
    return min([part for part in measured if part.verdict == against] or measured, key=lambda part: part.worst)


def _parts(claim: Claim, cells: list[Cell]) -> str:
    """What was measured for a claim, a line a part, beside the paper's own number of the same."""
    rows = []
    judged = verdict_of(claim, cells) != "not_comparable"
    for cell in cells:
        own = {one.part.what: one for one in paper.parts(claim.id, cell.variant)}
        for part in cell.parts:
            claimed = f"{'above' if part.side > 0 else 'below'} {_threshold(part)}"
            beside = _own(own[part.what]) if part.what in own else ""
            if part.estimate is None:
                rows.append([part.what, claimed, "not run", "", "", beside])
                continue
            size = f"{part.estimate.seeds}, {part.estimate.n:,}"
            verdict = WORDS[part.verdict] if judged else "not judged"
            rows.append([part.what, claimed, numbers(part), size, verdict, beside])
    return table(["measured here", "claimed", "number", "seeds, n", "verdict", "the paper's own"], rows)


def _threshold(part: Part) -> str:
    if not part.threshold:
        return "0"
    return f"{100 * part.threshold:g} " + ("points" if "minus" in part.what else "%")


def _why_open(cell: Cell) -> Iterator[str]:
    """Why a cell is open: parts that were not run, parts of one seed, parts whose interval holds the threshold."""
    measured = [part for part in cell.parts if part.estimate]
    if absent := len(cell.parts) - len(measured):
        yield f"{absent} of {len(cell.parts)} parts {'was' if absent == 1 else 'were'} not run"
    if alone := [part for part in measured if part.estimate.seeds < LEAST_SEEDS]:
        yield f"{len(alone)} of {len(cell.parts)} parts rest on one seed, which decides nothing"
    undecided = [p for p in measured if p.estimate.seeds >= LEAST_SEEDS and p.verdict == "inconclusive"]
    for part in sorted(undecided, key=lambda part: part.worst)[:2]:
        what = part.what.removeprefix(f"{cell.variant}: ")
        yield f"{what}, is {numbers(part)}, which does not exclude {_threshold(part)}"
    if len(undecided) > 2:
        yield f"and {len(undecided) - 2} parts more are as uncertain"


def _own_numbers(claim: Claim, cells: list[Cell]) -> str:
    """What the paper's own numbers carry: how many are separated, and those that no part of ours stands beside."""
    found = [one for variant in claim.variants for one in paper.parts(claim.id, variant)]
    if not found:
        return "" if claim.id == 20 else "It prints no number that an interval could be put around."
    separated = sum(one.verdict == "separated" for one in found)
    sources = "; ".join(dict.fromkeys(one.provenance for one in found))
    beside = {part.what for cell in cells for part in cell.parts}
    alone = "".join(f" {one.part.what}: {_own(one)}." for one in found if one.part.what not in beside)
    return f"By its own numbers ({sources}), {separated} of {len(found)} {_is(separated)} separated.{alone}"


def _own(one: paper.Published) -> str:
    p = "" if one.p is None else f", p {'< 0.001' if one.p < 0.001 else f'= {one.p:.2g}'}"
    return f"{numbers(one.part)}{p}, {one.verdict}"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _separated() -> str:
    """How many of the paper's numbers are separated, counting one that several claims use once."""
    found = {(one.part.what, one.part.side): one for c in CLAIMS for v in c.variants for one in paper.parts(c.id, v)}
    separated = sum(one.verdict == "separated" for one in found.values())
    rises = [one for v in ALL for one in paper.parts(1, v)]
    falls = [one for v in ALL for one in paper.parts(2, v)]
    counts = [sum(one.verdict == "separated" for one in group) for group in (rises, falls)]
    return (
        f"Of {len(found)} such numbers behind the 21 claims, {separated} are separated. Of RL's four gains over Init "
        f"under a new rule {counts[0]} {_is(counts[0])}, of SFT's four losses {counts[1]}."
    )


def _controls(records: list[dict], report: _Report) -> str:
    rows = []
    for record in records:
        cells = ", ".join(f"{cell['variant']} {WORDS[cell['verdict']]}" for cell in record["cells"])
        verdict = _word(record["verdict"])
        row = [record["id"], record["statement"], record["asks"], cells, verdict, report.figure(record["figure"])]
        rows.append(row)
    return table(["#", "claim", "what asks", "cells", "in all", "figure"], rows)


def _legend() -> str:
    return (
        "In a cell: the verdict, the least favourable of the numbers that made it with its 95 % interval (with a sign: "
        "a difference in points), and the paper's own number of the same with the interval that its episodes give it "
        "(next section). ✓ the whole interval is on the claimed side; ✗ a number lies on the other side; ± some "
        f"statements hold and others do not; ○ open; – not comparable. {NUMBERS}"
    )


def _title(claim: Claim) -> str:
    return f"Claim {claim.id}. {claim.statement}"


def slug(heading: str) -> str:
    """A heading as GitHub's and MyST's anchor."""
    return re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")


def _word(verdict: str) -> str:
    return f"{MARKS[verdict]} **{WORDS[verdict]}**" if verdict in MARKS else WORDS[verdict]


def _names(cells: list[Cell]) -> str:
    return " and ".join(filter(None, (", ".join(c.variant for c in cells[:-1]), cells[-1].variant)))


def _notebook(name: str) -> str:
    return f"[{name}](notebooks/{name}.ipynb)"


def drawn(profile: str) -> set[str]:
    """The names of the figures that are there."""
    return {path.stem for path in paths.figures(profile).glob("*.png")}


def report_path(profile: str) -> Path:
    """At the top of the checkout for the laptop profile, whose tables are committed; beside the tables for others."""
    return paths.HOME / NAME if profile == LAPTOP.name else paths.results(profile) / NAME


def write(profile: str, runs: dict | None = None) -> Path:
    """Write the report of a profile; `runs` as for `markdown`. Raises TableError if it has no tables."""
    text, path = markdown(tables.read_metrics(profile), profile, runs=runs), report_path(profile)
    up = "../" * len(path.parent.relative_to(paths.HOME).parts)
    return write_atomically(path, re.sub(r"\]\((?!https?:|#)", f"]({up}", text))


def main(arguments: list[str] | None = None) -> int:
    about = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m sftrl_lib.claims.reproduction", description=about)
    parser.add_argument("--profile", default=LAPTOP.name, help="whose tables; default: laptop")
    options = parser.parse_args(arguments)
    try:
        print(f"written  {write(options.profile).relative_to(paths.HOME)}")
    except (ValueError, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
