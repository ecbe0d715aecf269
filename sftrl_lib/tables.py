"""The tidy tables, one row per number. Runs write them; figures and claims read nothing else.

`results/<profile>/metrics.csv` is in long form, with exactly the columns `COLUMNS`; `KEY` identifies a row. Rates are
fractions (0..1), `train_flops` are FLOPs by the paper's formulas (section C.3) and include those of Init.
Transcripts are JSON lines (`results/<profile>/transcripts.jsonl`), one episode per line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from . import paths
from .experiments import parse_setting
from .files import write_atomically
from .methods import METHODS
from .task import SPLITS
from .tasks import TASKS

COLUMNS = (
    "task", "modality", "method", "experiment", "setting", "seed", "step",
    "train_flops", "split", "metric", "value", "n",
)  # fmt: skip
BRANCH = ["task", "modality", "method", "experiment", "setting", "seed", "split", "metric"]  # identifies a curve
KEY = [*BRANCH, "step"]
TRANSCRIPT_KEYS = (*BRANCH[:-1], "step", "episode", "turns")


def allowed() -> dict[str, tuple[str, ...]]:
    """Column -> its allowed values."""
    tasks = TASKS.values()
    return {
        "task": tuple(dict.fromkeys(task.name for task in tasks)),
        "modality": tuple(dict.fromkeys(task.modality for task in tasks)),
        "method": tuple(METHODS),
        "split": tuple(SPLITS),
    }


_TEXT = ("task", "modality", "method", "experiment", "setting", "split", "metric")
_WHOLE = {"seed": 0, "step": 0, "n": 1}  # column -> smallest allowed value


class TableError(ValueError):
    """A table is missing, unreadable or breaks the schema; the message is one sentence that says where and how."""


def validate(frame: pd.DataFrame, source: str = "the table") -> pd.DataFrame:
    """Check the schema; return the frame with ordered, typed columns, sorted by `KEY`, with a fresh index.

    Exact duplicates are dropped. Raises TableError naming `source`, row and value.
    """
    expected = f"the columns must be {', '.join(COLUMNS)}"
    if missing := [name for name in COLUMNS if name not in frame.columns]:
        raise TableError(f"{source} lacks the column {missing[0]!r}; {expected}.")
    if unknown := [name for name in frame.columns if name not in COLUMNS]:
        raise TableError(f"{source} has the unknown column {unknown[0]!r}; {expected}.")
    given, frame = frame, frame[list(COLUMNS)].copy()
    for name in _TEXT:
        frame[name] = frame[name].fillna("").astype(str)
    for name, values in allowed().items():
        _demand(frame, name, frame[name].isin(values), f"one of {', '.join(values)}", source)
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
    """Validate and write one table atomically: readers get the old file or the whole new one."""
    return write_atomically(path, as_csv(frame, _short(Path(path))))


def as_csv(frame: pd.DataFrame, source: str) -> bytes:
    """The content of a table's file, validated. Raises TableError naming `source`."""
    return validate(frame, source).to_csv(index=False, lineterminator="\n").encode("utf-8")


def metrics_path(profile: str) -> Path:
    return paths.results(profile) / "metrics.csv"


def transcripts_path(profile: str) -> Path:
    return paths.results(profile) / "transcripts.jsonl"


def read_metrics(profile: str) -> pd.DataFrame:
    """The merged table of a profile, validated. Raises TableError."""
    return read(metrics_path(profile))


def read_transcripts(profile: str) -> list[dict]:
    """The merged transcripts of a profile; an empty list if none were kept. Raises TableError for a bad line."""
    path = transcripts_path(profile)
    return _transcripts(path) if path.is_file() else []


def read_parts(files: Iterable[Path]) -> list[dict]:
    """The transcripts in several files; missing files are skipped. Raises TableError for a bad line."""
    return [record for path in files if path.is_file() for record in _transcripts(path)]


def write_transcripts(records: list[dict], profile: str) -> None:
    """Write `results/<profile>/transcripts.jsonl`, in an order that does not depend on which run finished first."""
    if records:
        records = sorted(records, key=lambda record: [record[key] for key in TRANSCRIPT_KEYS[:-1]])
        write_atomically(transcripts_path(profile), b"".join(map(transcript_line, records)))


def transcript_line(record: dict) -> bytes:
    """A transcript as it stands in a file, with its line end."""
    # A lone surrogate in model output becomes \uXXXX, which is its JSON escape.
    return json.dumps(record, ensure_ascii=False, sort_keys=True).encode("utf-8", "backslashreplace") + b"\n"


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


def select(frame: pd.DataFrame, **equals: object) -> pd.DataFrame:
    """Rows in which every named column equals the value (or is in it, for a list or tuple).

    Raises TableError for an unknown column.
    """
    for name, value in equals.items():
        if name not in COLUMNS:
            raise TableError(f"{name!r} is no column of the table; the columns are {', '.join(COLUMNS)}.")
        frame = frame[frame[name].isin(value) if isinstance(value, list | tuple) else frame[name] == value]
    return frame


def ends(frame: pd.DataFrame) -> pd.DataFrame:
    """The last row of every branch: the one with the most train_flops per (task, ..., seed, split, metric)."""
    ordered = frame.sort_values([*BRANCH, "train_flops", "step"], kind="stable")
    return ordered.drop_duplicates(BRANCH, keep="last").reset_index(drop=True)


def settings_of(rows: pd.DataFrame, name: str) -> pd.Series:
    """The value of `name` in each row's setting. Raises TableError if a setting lacks it or cannot be parsed."""
    try:
        return rows["setting"].map(lambda setting: parse_setting(setting)[name])
    except (ValueError, KeyError) as error:
        raise TableError(f"A setting does not say what {name!r} is ({error}).") from None


def _short(path: Path) -> str:
    """A path for messages: relative to `paths.HOME` if it lies inside."""
    return str(path.relative_to(paths.HOME)) if path.is_relative_to(paths.HOME) else str(path)
