"""Which design the tables are of, as far as tables can tell: the earlier one, the study of PROTOCOL.md, or another."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from ..profiles import LAPTOP, banner
from ..task import SPLITS
from ..tasks import labelled
from .claims import ALL
from .comparison import COMPARED
from .evidence import Evidence
from .words import table

# The seeds that PROTOCOL.md fixes for the study; 0, 1 and 2 are everybody's.
STUDY_SEEDS = {
    "GP-L": range(100, 110),
    "V-IRL-L": range(100, 110),
    "GP-VL": range(100, 108),
    "V-IRL-VL": range(100, 108),
}


_WHY = {
    "earlier": "the earlier design, which PROTOCOL.md replaces: RL was tuned by the new rule, SFT was not tuned, and "
    "[RESULTS.md](RESULTS.md#known-faults-of-these-tables) lists known faults",
    "own seeds": "today's design, with seeds other than the study's",
    "toy": "a toy run, which shows that everything works and nothing else",
}


def told(evidence: Evidence, profile: str) -> Iterator[str]:
    """The design of the tables of every task, in a sentence and a table."""
    found = {name: _main(evidence, name) for name in ALL}
    designs = {name: _design(name, main, profile) for name, main in found.items()}
    shown = [design for design in dict.fromkeys(designs.values()) if design != "not run"]
    if not shown:
        yield "**Nothing of the main comparison has been run.**"
    elif len(shown) == 1:
        name, _, why = _WHY.get(shown[0], shown[0]).partition(": ")
        yield f"**All of them are of {name}**" + (f": {why}." if why else ".")
    else:
        yield "**The tasks are of different designs**, so their numbers are not those of one study."
        yield "\n".join(f"* *{design}*: {_WHY[design]}." for design in shown if design in _WHY)
    heads = ["task", "design", "seeds", "episodes per seed at the end", "compute of RL and SFT, FLOPs", "lambda"]
    yield table(heads, ([name, designs[name], *_sizes(evidence, name, found[name])] for name in ALL))
    yield "Lambda: tokens of rollouts per trained token (the paper estimates 6 and 5.1)."


def _main(evidence: Evidence, variant: str) -> pd.DataFrame:
    """The end rows of the main comparison's methods under the training rule."""
    return pd.concat([evidence.rows(variant, method, "id") for method in COMPARED])


def _sizes(evidence: Evidence, variant: str, main: pd.DataFrame) -> list[str]:
    """Seeds, episodes on every split, compute and measured lambda of a variant."""
    if main.empty:
        return [""] * 4
    counts = {}
    for name in labelled(variant).splits:
        n = pd.concat([evidence.rows(variant, method, name)["n"] for method in COMPARED])
        counts |= {SPLITS[name].short: f"{int(n.min()):,}"} if len(n) else {}
    flops = [main[main["method"] == method]["train_flops"].mean() for method in ("rl", "sft")]
    measured = main[main["method"] == "rl"]["measured_lambda"].mean()
    return [
        _seeds(main["seed"]),
        ", ".join(f"{name} {count}" for name, count in counts.items()),
        ", ".join("not run" if pd.isna(number) else f"{number:.2e}" for number in flops),
        "not recorded" if pd.isna(measured) else f"{measured:.2f}",
    ]


def _design(variant: str, main: pd.DataFrame, profile: str) -> str:
    """earlier (its tables do not know the paper's compute), the study's with how many of its seeds, or today's."""
    if main.empty:
        return "not run"
    if banner(profile):
        return "toy"
    if main["paper_flops"].isna().all():
        return "earlier"
    if profile != LAPTOP.name:
        return f"the profile {profile}"
    planned = set(STUDY_SEEDS[variant])
    seeds = set(main["seed"])
    if not seeds <= planned:
        return "own seeds"
    return "the study of PROTOCOL.md" + (f", so far {len(seeds)} of {len(planned)} seeds" if seeds != planned else "")


def _seeds(column: pd.Series) -> str:
    seeds = sorted(map(int, column.unique()))
    run = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return f"{len(seeds)}: {seeds[0]} to {seeds[-1]}" if run else f"{len(seeds)}: {', '.join(map(str, seeds))}"
