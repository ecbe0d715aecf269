"""The verdicts in a file, and in words: the sentence that counts them, and the claims as a table for documents."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from .. import paths, tables
from ..files import write_atomically
from ..profiles import banner
from . import beyond
from .claims import ALL, VERDICTS, evaluate
from .evidence import Part
from .statistics import CONFIDENCE, Estimate
from .words import WORDS, numbers, table


def tally(records: list[dict]) -> str:
    """A sentence that counts the claims by verdict."""
    return f"Of the paper's {len(records)} claims: {_counted([record['verdict'] for record in records])}."


def cells_tally(records: list[dict]) -> str:
    """The same of the cells that were run, without the claims that have no verdict."""
    decided = [record for record in records if record["verdict"] != "not_comparable"]
    found = [cell["verdict"] for record in decided for cell in record["cells"] if cell["verdict"] != "not_run"]
    return f"Of the {len(found)} cells (claim x task) that were run: {_counted(found)}."


def _counted(verdicts: list[str]) -> str:
    counts = {verdict: verdicts.count(verdict) for verdict in VERDICTS}
    kept = {verdict: count for verdict, count in counts.items() if count or verdict in VERDICTS[:2]}
    return ", ".join(f"{WORDS[verdict]} {count}" for verdict, count in kept.items())


def markdown(records: list[dict], profile: str) -> str:
    """The claims as a Markdown table, a column per task variant; the effect is in the words of `_effect`."""
    heads, rows = ["#", "claim", *ALL, "in all", "least favourable deciding part", "figure"], []
    for record in records:
        verdicts = {cell["variant"]: WORDS[cell["verdict"]] for cell in record["cells"]}
        shown = [verdicts.get(variant, "-").replace("not run", "-") for variant in ALL]
        if record["verdict"] == "not_comparable":
            shown = ["-"] * len(ALL)
        name = re.sub("^fig0?", "Fig. ", record["figure"])
        figure = f"[{name}](figures/{profile}/{record['figure']}.png)"
        rows.append([record["id"], record["statement"], *shown, WORDS[record["verdict"]], _effect(record), figure])
    return table(heads, rows)


def _effect(record: dict) -> str:
    """The reported effect with its interval, seeds and n: "+3.9 [-7.0, +14.9] points; what (3 seeds, n = 1,500)"."""
    if record["effect"] is None:
        return "-"
    parts = [part for cell in record["cells"] for part in cell["parts"]]
    [part] = [p for p in parts if p["what"] in record["note"] and p["effect"] == record["effect"]][:1]
    seeds = f"{part['seeds']} seed{'s' if part['seeds'] > 1 else ''}"
    estimate = Estimate(
        part["effect"], part["ci_low"], part["ci_high"], part["n"], part["seeds"], part["interval"], part["clipped"],
        tuple(part["by_seed"]),
    )  # fmt: skip
    return f"{numbers(Part(part['what'], estimate, 1))}; {part['what']} ({seeds}, n = {part['n']:,})"


def summary(records: list[dict]) -> pd.DataFrame:
    """The claims as a compact table for notebooks, with effects in percentage points and the verdict of every cell."""
    shown = pd.DataFrame(records)[["id", "statement", "verdict", "effect", "ci_low", "ci_high", "seeds", "figure"]]
    for variant in ALL:
        shown[variant] = [
            next((WORDS[cell["verdict"]] for cell in record["cells"] if cell["variant"] == variant), "")
            for record in records
        ]
    points = ["effect", "ci_low", "ci_high"]
    shown[points] = (100 * shown[points].astype(float)).round(1)
    names = {"effect": "effect (points)", "ci_low": f"{CONFIDENCE:.0%} from", "ci_high": "to"}
    return shown.rename(columns=names).set_index("id")


def write(profile: str) -> list[dict]:
    """Decide all claims on a profile's table, write `results/<profile>/claims.json`, return the paper's records.

    Claims beyond the paper follow in the file, those of which the table has rows. A toy's notes begin with its banner.
    """
    metrics = tables.read_metrics(profile)
    records = evaluate(metrics)
    found = [*records, *(record for record in beyond.evaluate(metrics) if record["verdict"] != "not_run")]
    if told := banner(profile):
        for record in found:
            record["note"] = f"{told.capitalize()}. {record['note']}"
    write_atomically(claims_path(profile), json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return records


def claims_path(profile: str) -> Path:
    return paths.results(profile) / "claims.json"
