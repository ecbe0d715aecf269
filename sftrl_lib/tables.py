"""The tidy tables: one row a number. Runs write them, figures and claims read nothing else.

Long form, columns exactly `COLUMNS`, as `results/<profile>/metrics.csv`. A row is unique in `KEY`. Rates are
fractions (0..1), `train_flops` are FLOPs by the paper's formulas (section C.3) and include those of Init.
Transcripts are JSON lines (`results/<profile>/transcripts.jsonl`), one episode a line.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from . import paths

COLUMNS = (
    "task", "modality", "method", "experiment", "setting", "seed", "step",
    "train_flops", "split", "metric", "value", "n",
)  # fmt: skip
BRANCH = ["task", "modality", "method", "experiment", "setting", "seed", "split", "metric"]  # one curve
KEY = [*BRANCH, "step"]
TRANSCRIPT_KEYS = (*BRANCH[:-1], "step", "episode", "turns")

ALLOWED = {
    "task": ("general_points", "navigation"),
    "modality": ("text", "image"),
    "method": ("init", "sft", "rl", "rl_no_init", "sft_suboptimal", "foundation"),
    "split": ("id", "heldout", "rule_ood", "visual_ood"),
}
NUMBERS = ("lr", "attempts", "temperature")  # names in a setting whose value must be a number
_TEXT = ("task", "modality", "method", "experiment", "setting", "split", "metric")
_WHOLE = {"seed": 0, "step": 0, "n": 1}  # column -> smallest value


class TableError(ValueError):
    """A table is missing, unreadable or breaks the schema; the message says where and how in one sentence."""


@dataclass(frozen=True)
class Variant:
    """One of the paper's four task variants and the metric of its Figs. 5 and 6."""

    task: str
    modality: str
    metric: str


VARIANTS = {
    "GP-L": Variant("general_points", "text", "success"),
    "V-IRL-L": Variant("navigation", "text", "step_accuracy"),
    "GP-VL": Variant("general_points", "image", "success"),
    "V-IRL-VL": Variant("navigation", "image", "step_accuracy"),
}


def validate(frame: pd.DataFrame, source: str = "the table") -> pd.DataFrame:
    """Check the schema; return the frame with the columns in order, typed, sorted by `KEY` and a fresh index.

    Rows that repeat one another exactly are kept once. Raises TableError naming `source`, row and value.
    """
    expected = f"the columns must be {', '.join(COLUMNS)}"
    if missing := [name for name in COLUMNS if name not in frame.columns]:
        raise TableError(f"{source} lacks the column {missing[0]!r}; {expected}.")
    if unknown := [name for name in frame.columns if name not in COLUMNS]:
        raise TableError(f"{source} has the unknown column {unknown[0]!r}; {expected}.")
    given, frame = frame, frame[list(COLUMNS)].copy()
    for name in _TEXT:
        frame[name] = frame[name].fillna("").astype(str)
    for name, allowed in ALLOWED.items():
        _demand(frame, name, frame[name].isin(allowed), f"one of {', '.join(allowed)}", source)
    for name in ("experiment", "metric"):
        _demand(frame, name, frame[name].str.fullmatch(r"[a-z][a-z0-9_]*"), "a lower-case name", source)
    for name in (*_WHOLE, "train_flops", "value"):
        frame[name] = _numbers(frame, name, source)
    for name, least in _WHOLE.items():
        whole = (frame[name] % 1 == 0) & (frame[name] >= least)
        _demand(given, name, whole, f"a whole number of at least {least}", source)
        frame[name] = frame[name].astype("int64")
    _demand(frame, "train_flops", frame["train_flops"] >= 0, "a number of FLOPs of at least 0", source)
    _demand(frame, "value", frame["value"].between(0, 1), "a fraction from 0 to 1", source)
    frame = frame.drop_duplicates()
    if (twice := frame.duplicated(KEY)).any():
        row = frame[twice].iloc[0]
        name = ", ".join(f"{key}={row[key]}" for key in KEY)
        raise TableError(f"{source} holds two different rows for {name}.")
    return frame.sort_values(KEY, kind="stable", ignore_index=True)


def _numbers(frame: pd.DataFrame, name: str, source: str) -> pd.Series:
    numbers = pd.to_numeric(frame[name], errors="coerce").astype(float)
    _demand(frame, name, numbers.map(math.isfinite), "a finite number", source)
    return numbers


def _demand(frame: pd.DataFrame, name: str, good: pd.Series, what: str, source: str) -> None:
    if not good.all():
        position = int((~good).to_numpy().argmax())
        value = str(frame[name].iloc[position])
        raise TableError(f"{source}, row {position + 1}: {name} is {value!r} but must be {what}.")


def read(path: Path) -> pd.DataFrame:
    """Read and validate one table. Raises TableError if it is missing, unreadable or breaks the schema."""
    path = Path(path)
    if not path.is_file():
        raise TableError(f"There is no table at {_short(path)}; run the experiments that write it first.")
    try:
        frame = pd.read_csv(path, dtype=dict.fromkeys(_TEXT, str), keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:  # pandas' parser errors are ValueErrors
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TableError(f"{_short(path)} is not a readable CSV table ({reason}).") from error
    return validate(frame, _short(path))


def write(frame: pd.DataFrame, path: Path) -> Path:
    """Validate and write one table atomically: a reader sees the old file or the whole new one."""
    frame = validate(frame, _short(Path(path)))
    return write_atomically(path, frame.to_csv(index=False, lineterminator="\n"))


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Write `content` beside `path`, then rename: no half-written file ever carries the final name."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A lone surrogate in model output becomes \uXXXX, which is its JSON escape, instead of an error.
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)  # mkstemp's 0600 would make committed results unreadable for others
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def metrics_path(profile: str) -> Path:
    return paths.results(profile) / "metrics.csv"


def transcripts_path(profile: str) -> Path:
    return paths.results(profile) / "transcripts.jsonl"


def read_metrics(profile: str) -> pd.DataFrame:
    """The merged table of a profile, validated."""
    return read(metrics_path(profile))


def read_transcripts(profile: str) -> list[dict]:
    """The merged transcripts of a profile; an empty list if none were kept."""
    path = transcripts_path(profile)
    return _transcripts(path) if path.is_file() else []


def _transcripts(path: Path) -> list[dict]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise TableError(f"{_short(path)}, line {number} is not JSON ({error}).") from error
        missing = [key for key in TRANSCRIPT_KEYS if not isinstance(record, dict) or key not in record]
        if missing:
            raise TableError(f"{_short(path)}, line {number} lacks the key {missing[0]!r}.")
        found.append(record)
    return found


def merge(profile: str, seeds: Sequence[int] = ()) -> pd.DataFrame:
    """Join what the runs of a profile wrote (`build/<profile>/runs/*/metrics.csv` and `transcripts.jsonl`).

    Writes `results/<profile>/metrics.csv` (and `transcripts.jsonl` where there are any) in an order that does
    not depend on which run finished first. `seeds` keeps only those,
    all if empty. Returns the table. Raises TableError if there is no part or two parts disagree.
    """
    runs = paths.build(profile) / "runs"
    parts = sorted(runs.glob("*/metrics.csv"))
    if not parts:
        raise TableError(f"No run of profile {profile!r} has written {_short(runs)}/*/metrics.csv yet.")
    frame = validate(pd.concat(map(read, parts), ignore_index=True), f"The runs' table in {_short(runs)}")
    if seeds:
        frame = frame[frame["seed"].isin(seeds)].reset_index(drop=True)
    write(frame, metrics_path(profile))
    records = [record for part in sorted(runs.glob("*/transcripts.jsonl")) for record in _transcripts(part)]
    records = [record for record in records if not seeds or record["seed"] in seeds]
    if records:
        records.sort(key=lambda record: [record[key] for key in TRANSCRIPT_KEYS[:-1]])
        lines = [json.dumps(record, ensure_ascii=False, sort_keys=True) for record in records]
        write_atomically(transcripts_path(profile), "\n".join(lines) + "\n")
    return frame


def select(frame: pd.DataFrame, **equals: object) -> pd.DataFrame:
    """Rows in which every named column equals the value (or is in it, for a list or tuple)."""
    for name, value in equals.items():
        if name not in COLUMNS:
            raise TableError(f"{name!r} is no column of the table; the columns are {', '.join(COLUMNS)}.")
        frame = frame[frame[name].isin(value) if isinstance(value, list | tuple) else frame[name] == value]
    return frame


def ends(frame: pd.DataFrame) -> pd.DataFrame:
    """The last row of every branch: per (task, ..., seed, split, metric) the one with most train_flops."""
    ordered = frame.sort_values([*BRANCH, "train_flops", "step"], kind="stable")
    return ordered.drop_duplicates(BRANCH, keep="last").reset_index(drop=True)


def parse_setting(setting: str) -> dict[str, float | str]:
    """`"lr=0.001;frozen=vision+adapter"` -> `{"lr": 0.001, "frozen": "vision+adapter"}`, or TableError.

    A value that is no number stays a string, except where only a number makes sense (`NUMBERS`).
    """
    try:
        pairs = [item.split("=") for item in setting.split(";")]
        return {name.strip(): _number_or_word(name.strip(), value.strip()) for name, value in pairs}
    except ValueError:
        raise TableError(f"The setting {setting!r} is not of the form 'name=number;name=word'.") from None


def _number_or_word(name: str, value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        if name in NUMBERS:
            raise
        return value


def numbers_metric(rows: pd.DataFrame) -> str:
    """Which metric of a GeneralPoints variant's rows counts the answers with the numbers of the stated rule.

    That is `numbers`; where cards are seen, `recognition` is of their ranks. A table of GP-L without `numbers` has
    them as `recognition`: in text the cards are given, so nothing else is left to recognise.
    """
    text = set(rows["modality"]) == {"text"}
    return "recognition" if text and "numbers" not in set(rows["metric"]) else "numbers"


def _short(path: Path) -> str:
    """A path as seen from the folder that everything is written below, where it lies inside."""
    return str(path.relative_to(paths.HOME)) if path.is_relative_to(paths.HOME) else str(path)
