"""Which command reproduces which claim, and how many minutes its runs took when the tables were made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from .. import provenance
from ..profiles import LAPTOP, PROFILES
from ..published import VARIANTS
from ..tables import select
from ..tasks import labelled
from . import words
from .claims import CLAIMS, Claim
from .narrative import NARRATIVES


def table(metrics: pd.DataFrame, profile: str, runs: dict[str, dict]) -> str:
    """A line a command: the claims that it reproduces, the minutes of its runs and their machine."""
    claims: dict[str, list[Claim]] = {}
    for claim in CLAIMS:
        if claim.id not in (7, 20):  # a record on other routes, and a definition
            claims.setdefault(command(claim, metrics, profile), []).append(claim)
    rows = []
    for text, found in claims.items():
        needed = sorted({name for claim in found for name in names(claim, metrics)})
        numbers = ", ".join(f"{claim.id}" for claim in found)
        rows.append([numbers, text, minutes(needed, runs), machine(needed, runs)])
    return words.table(["claims", "command", "thread-minutes", "machine"], rows)


def command(claim: Claim, metrics: pd.DataFrame, profile: str) -> str:
    """What makes the runs of a claim again, with the seeds of the tables, and decides it.

    Tasks with other seeds have a command of their own. Ablations with fewer seeds than the main comparison come with
    all others of their task, because `make reproduce` gives them the first of its seeds.
    """
    more, own = NARRATIVES[claim.id].experiments, PROFILES[profile].seeds if profile in PROFILES else ()
    groups: dict[tuple, list[str]] = {}
    for variant in claim.variants:
        groups.setdefault(tuple(_seeds(metrics, variant, ["main"])), []).append(variant)
    commands = []
    for seeds, variants in groups.items():
        parts = ["make reproduce"] + ([] if profile == LAPTOP.name else [f"PROFILE={profile}"])
        if set(variants) != set(VARIANTS):
            parts.append(f"TASKS={_quoted(variants)}")
        if seeds and seeds != own:
            parts.append(f"SEEDS={_quoted(map(str, seeds))}")
        chosen = _experiments(profile, variants, more)
        here = {tuple(found) for variant in variants if (found := _seeds(metrics, variant, chosen))}
        if here <= {seeds}:
            parts.append(f"EXPERIMENTS={_quoted(chosen)}")
        commands.append(f"`{' '.join(parts)}`")
    return ", ".join(commands)


def _experiments(profile: str, variants: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Those of the `wanted` experiments that the profile has for some of these tasks; the main one if there is none."""
    studies = PROFILES[profile].studies if profile in PROFILES else ()
    known = {e.name for s in studies if s.task.label in variants for e in (*s.experiments, *s.controls)}
    return [name for name in wanted if name in known or not studies] or ["main"]


def _seeds(metrics: pd.DataFrame, variant: str, experiments: Sequence[str]) -> list[int]:
    about = VARIANTS[variant]
    rows = select(metrics, task=about.task, modality=about.modality, experiment=list(experiments))
    return sorted(map(int, rows["seed"].unique()))


def _quoted(words: Iterable[str]) -> str:
    text = " ".join(words)
    return f'"{text}"' if " " in text else text


def _of(claim: Claim, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a claim's tasks."""
    parts = (select(rows, task=VARIANTS[v].task, modality=VARIANTS[v].modality) for v in claim.variants)
    return pd.concat(list(parts))


def names(claim: Claim, metrics: pd.DataFrame) -> Iterator[str]:
    """The beginnings of the names of the runs behind a claim's rows: method and experiment, and the seed."""
    wanted = ["main", *NARRATIVES[claim.id].experiments]
    rows = _of(claim, select(metrics, experiment=wanted))
    keys = {(VARIANTS[name].task, VARIANTS[name].modality): labelled(name).key for name in claim.variants}
    which = rows[["task", "modality", "method", "experiment", "setting", "seed"]].drop_duplicates()
    for row in which.itertuples():
        parts = [keys[row.task, row.modality], row.method]
        if row.method != "init" or row.experiment != "main":
            parts.append(row.experiment)
        if row.experiment != "main" and row.setting:
            parts.append(row.setting.replace("=", "").replace(";", "-").replace("/", "_"))
        yield f"{'-'.join(parts)}-s{row.seed}"


def minutes(needed: list[str], runs: dict[str, dict]) -> str:
    """What the runs took together; how many of them are recorded, if not all are."""
    found = [runs[name]["seconds"] for name in needed if isinstance(runs.get(name, {}).get("seconds"), int | float)]
    if not needed:
        return "not run"
    if not found:
        return "not recorded"
    told = f"{sum(found) / 60:.0f}"
    return told if len(found) == len(needed) else f"{told} ({len(found)} of {len(needed)} runs recorded)"


def machine(needed: list[str], runs: dict[str, dict]) -> str:
    """On what the runs were made."""
    found = dict.fromkeys(str(runs[name].get("machine", provenance.UNKNOWN)) for name in needed if name in runs)
    return "; ".join(found) or "not recorded"
