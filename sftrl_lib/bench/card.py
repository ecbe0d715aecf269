"""What a result looks like: its file, the card that is printed, and the tables of SPEED.md. Loads no torch.

A file ``results/bench/MACHINE.json`` is a list of rows, as `measure.py` describes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from .. import paths
from ..files import reason, write_atomically

Row = dict[str, Any]

FOLDER = "bench"  # below results/ and figures/
ENGINES = {"official": "official pattern", "hf": "HF generate", "trl": "TRL generation", "ours": "ours"}
PHASES = ("reading", "decoding", "verifying", "learning")  # of a PPO update, see `phases.py`
SETTING = ("device", "model", "task", "dtype", "threads")  # what the rows of one run share
NEEDED = {*SETTING, "engine", "n", "tokens_per_s", "attempts_per_s", "share_of_limit", "repeats", "update", "made"}
BEGIN, END = "<!-- from results/bench: python -m sftrl_lib.bench --document -->", "<!-- end -->"
NONE_YET = "No machine's numbers are committed yet; `make bench` measures yours.\n"


class BenchError(ValueError):
    """A file of results is damaged, or SPEED.md has no place for them; the message is one sentence."""


def slug(processor: str) -> str:
    """The name of a machine's file: "Intel(R) Xeon(R) Processor" -> "intel-xeon-processor"."""
    plain = re.sub(r"\((r|tm)\)|@.*", " ", processor.lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "machine"


def path(name: str, folder: str = FOLDER) -> Path:
    """Where the rows of a machine are. Raises ValueError for a name that is no file name."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ValueError(f"--name={name!r} cannot name a file; use lowercase letters, digits, hyphens and underscores.")
    return paths.results(folder) / f"{name}.json"


def read(file: Path) -> list[Row]:
    """The rows in a file. Raises BenchError if it holds none."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        lacking = sorted({name for row in rows for name in NEEDED - row.keys()})
        if not isinstance(rows, list) or not rows or lacking:
            raise ValueError(f"no rows with {', '.join(lacking or sorted(NEEDED))}")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        problem = f"{file} holds no results of the bench ({reason(error)}); remove it and measure again."
        raise BenchError(problem) from error
    return rows


def merge(rows: list[Row], file: Path) -> list[Row]:
    """Write rows in place of those of the same setting in a file, beside the others; returns all. Raises BenchError."""
    kept = [row for row in (read(file) if file.exists() else []) if setting(row) != setting(rows[0])]
    merged = sorted([*kept, *rows], key=setting)
    write_atomically(file, json.dumps(merged, indent=1) + "\n")
    return merged


def setting(row: Row) -> tuple[str, ...]:
    """What a row shares with those that were measured with it."""
    return tuple(str(row[name]) for name in SETTING)


def runs(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows of each run, in the order of `ENGINES` and n."""
    order = list(ENGINES)
    ordered = sorted(rows, key=lambda row: (setting(row), order.index(row["engine"]), row["n"]))
    return [list(group) for _, group in groupby(ordered, key=setting)]


def title(row: Row) -> str:
    """The setting of a run in words."""
    threads = f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}"
    where = {"cpu": threads, "cuda": "GPU"}.get(row["device"], row["device"])
    return f"{row['model']}, {row['parameters'] / 1e6:,.1f} M parameters in {row['dtype']}, {where}"


def cells(row: Row) -> list[str]:
    """One row of a table."""
    low, high = row["tokens_per_s_low"], row["tokens_per_s_high"]
    return [
        ENGINES[row["engine"]],
        f"{row['n']:,}",
        f"{row['tokens_per_s']:,.0f}",
        f"{low:,.0f} to {high:,.0f}",
        f"{row['attempts_per_s']:,.1f}",
        f"{100 * row['share_of_limit']:.2g} %",
        gigabytes(row["memory_gb"]),
    ]


def gigabytes(number: float) -> str:
    """A memory size in words."""
    return f"{number:.1f} GB" if number >= 1 else f"{1000 * number:.0f} MB"


HEADER = ["engine", "side by side", "tokens/s", "from, to", "attempts/s", "share of the limit", "memory"]


def sentences(run: list[Row]) -> list[str]:
    """What a table of a run does not say."""
    row = next((row for row in run if row["engine"] == "ours"), run[0])
    limits, update, agreement, made = row["limits"], row["update"], row["agreement"], row["made"]
    protocol = row["protocol"]
    ties = f", {agreement['ties']} more part at a tie" if agreement["ties"] else ""
    lines = [
        f"Task {row['task']}: {protocol['attempts']} attempts, at most {protocol['max_new_tokens']} tokens each, "
        f"temperature {protocol['temperature']:g}; medians of {row['repeats']} repeats.",
        f"Limit: {limits['flops_per_s'] / 1e9:,.0f} GFLOP/s in matrix products and {limits['bytes_per_s'] / 1e9:,.0f} "
        f"GB/s read, measured in the same run, allow {row['limit_tokens_per_s']:,.0f} tokens/s at {row['n']:,} side by "
        f"side ({row['limited_by']} is what limits).",
        phases(update) if update else "A PPO update does not fit into the memory of this GPU.",
        f"Checked: {agreement['answers']} greedy answers are HF's to the token{ties}; log-probabilities within "
        f"{agreement['logprob_error']:.1e} of a forward pass.",
        f"Made by commit {str(made['commit'])[:12]}{', with changes' if made['clean'] is False else ''}; "
        f"{made['machine']}; {made['versions']}.",
    ]
    if row["device"] == "cpu" and row["load_before"] > 0.5:
        lines.append(f"Other programs were running (load {row['load_before']:.1f}): these numbers are too low.")
    return lines


def phases(update: Row) -> str:
    """Where the time of a PPO update goes, in words."""
    total = sum(update["seconds"].values())
    shares = ", ".join(f"{phase} {100 * update['seconds'][phase] / total:.0f} %" for phase in PHASES)
    size = gigabytes(update["memory_gb"])
    return f"A PPO update of {update['episodes']} episodes: {total:.3g} s and {size}; {shares}."


def faster(run: list[Row]) -> str:
    """How our engine at its best compares, in words; "" if there is nothing to compare it with."""
    rate = {row["engine"]: row["tokens_per_s"] for row in sorted(run, key=lambda row: row["tokens_per_s"])}
    if len(rate) < 2 or "ours" not in rate:
        return ""
    times = (f"{ratio(rate['ours'] / rate[name])} times the {ENGINES[name]}'s" for name in rate if name != "ours")
    return f"Our tokens a second are {', '.join(times)}."


def ratio(number: float) -> str:
    """A ratio with as many digits as it deserves."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def card(rows: Iterable[Row]) -> str:
    """All runs as plain text, to read at a glance."""
    blocks = []
    for run in runs(rows):
        table = [HEADER, *(cells(row) for row in run)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        aligned = "   ".join(f"{{:{'>' if place else '<'}{width}}}" for place, width in enumerate(widths))
        lines = [title(run[0]), "", *(f"  {aligned.format(*line)}" for line in table), ""]
        blocks.append("\n".join([*lines, *filter(None, [faster(run), *sentences(run)])]))
    return "\n\n".join(blocks) + "\n"


def markdown(rows: Iterable[Row]) -> str:
    """All runs of a machine as tables of SPEED.md."""
    blocks = []
    for run in runs(rows):
        lines = [HEADER, ["---", *["---:"] * (len(HEADER) - 1)], *(cells(row) for row in run)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        text = " ".join(filter(None, [faster(run), *sentences(run)]))
        blocks.append(f"**{title(run[0])}**\n\n{table}\n\n{text}")
    return "\n\n".join(blocks) + "\n"


def results() -> str:
    """The results of all machines in ``results/bench``, as SPEED.md shows them. Raises BenchError."""
    parts = []
    for file in sorted(paths.results(FOLDER).glob("*.json")):
        figure = f"![{file.stem}](figures/{FOLDER}/{file.stem}.png)"
        parts.append(f"### {file.stem}\n\n{figure}\n\n{markdown(read(file))}")
    return "\n".join(parts) or NONE_YET


def document(file: Path) -> str:
    """SPEED.md with the results of today between its two marks. Raises BenchError."""
    text = file.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"{file.name} has no place for results; put the lines {BEGIN!r} and {END!r} into it.")
    return f"{head}{BEGIN}\n\n{results()}\n{END}{tail}"
