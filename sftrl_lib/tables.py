"""The tidy tables, one row per number. Runs write them; figures and claims read nothing else.

`results/<profile>/metrics.csv` is in long form, with the columns `COLUMNS`; `KEY` identifies a row. Rates are fractions
(0..1), `train_flops` are FLOPs by the paper's formulas (section C.3) and include those of Init. The columns of `ADDED`
came later; a table without them is read with their defaults, which say that nothing is known:

    paper_flops      the same compute with the paper's lambda in place of the counted tokens of rollouts
    measured_lambda  tokens of rollouts per trained token so far
    by_cluster       "3=0.5*16;..": the rate and the episodes of every puzzle or route, where those are a sample

One checkpoint may be tested on more and on fewer episodes, of which the fewer are the first: `ends` takes the more,
a curve the fewer (`along`).

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
from .task import PROBES, SPLITS
from .tasks import TASKS

COLUMNS = (
    "task", "modality", "method", "experiment", "setting", "seed", "step",
    "train_flops", "split", "metric", "value", "n",
)  # fmt: skip
ADDED = {"paper_flops": math.nan, "measured_lambda": math.nan, "by_cluster": ""}  # column -> value in an older table
BRANCH = ["task", "modality", "method", "experiment", "setting", "seed", "split", "metric"]  # identifies a curve
KEY = [*BRANCH, "step", "n"]
TRANSCRIPT_KEYS = (*BRANCH[:-1], "step", "episode", "turns")


def allowed() -> dict[str, tuple[str, ...]]:
    """Column -> its allowed values."""
    tasks = TASKS.values()
    return {
        "task": tuple(dict.fromkeys(task.name for task in tasks)),
        "modality": tuple(dict.fromkeys(task.modality for task in tasks)),
        "method": tuple(METHODS),
        "split": (*SPLITS, *PROBES),
    }


_CLUSTERS = r"(\d+=[\d.e-]+\*\d+(;\d+=[\d.e-]+\*\d+)*)?"
_TEXT = ("task", "modality", "method", "experiment", "setting", "split", "metric")
NO_RATES = ("kl_to_init", "distinct_formulas")  # metrics that are no fractions, but at least 0
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
    if unknown := [name for name in frame.columns if name not in (*COLUMNS, *ADDED)]:
        raise TableError(f"{source} has the unknown column {unknown[0]!r}; {expected}.")
    given, frame = frame, frame.reindex(columns=[*COLUMNS, *ADDED])
    for name in (*_TEXT, "by_cluster"):
        frame[name] = frame[name].astype(object).fillna("").astype(str)
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
    rate = ~frame["metric"].isin(NO_RATES)
    _demand(frame, "value", frame["value"].between(0, 1) | ~rate, "a fraction from 0 to 1", source)
    _demand(frame, "value", (frame["value"] >= 0) | rate, "a number of at least 0", source)
    for name in ("paper_flops", "measured_lambda"):
        found = pd.to_numeric(frame[name].replace("", math.nan), errors="coerce").astype(float)
        good = frame[name].isna() | (frame[name] == "") | (found.map(math.isfinite) & (found >= 0))
        _demand(frame, name, good, "a number of at least 0, or empty", source)
        frame[name] = found
    _demand(frame, "by_cluster", frame["by_cluster"].str.fullmatch(_CLUSTERS), "of the form 3=0.5*16;4=1*2", source)
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
        frame = pd.read_csv(path, dtype=dict.fromkeys((*_TEXT, "by_cluster"), str), keep_default_na=False)
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
    """The merged table of a profile, validated. Raises TableError, which says how to get it if there is none."""
    path, make = metrics_path(profile), "make smoke" if profile == "smoke" else f"make reproduce PROFILE={profile}"
    if not path.is_file():
        raise TableError(f"There is no table at {_short(path)}; `{make}` writes it.")
    return read(path)


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
    kept = None  # one mask: a frame for every condition would be copied as often
    for name, value in equals.items():
        if name not in (*COLUMNS, *ADDED):
            raise TableError(f"{name!r} is no column of the table; the columns are {', '.join((*COLUMNS, *ADDED))}.")
        fits = frame[name].isin(value) if isinstance(value, list | tuple) else frame[name] == value
        kept = fits if kept is None else kept & fits
    return frame if kept is None else frame[kept]


def ends(frame: pd.DataFrame) -> pd.DataFrame:
    """The last row of every branch, by train_flops per (task, ..., seed, split, metric), with the most episodes."""
    ordered = frame.sort_values([*BRANCH, "train_flops", "step", "n"], kind="stable")
    return ordered.drop_duplicates(BRANCH, keep="last").reset_index(drop=True)


def paper_ends(frame: pd.DataFrame) -> pd.DataFrame:
    """`ends` by the paper's lambda: the row of every branch whose paper_flops are nearest to its budget.

    Rollouts cost more by it, so RL ends earlier; a checkpoint is written there. Branches of which paper_flops are
    unknown are left out.
    """
    known = frame[frame["paper_flops"].notna()]
    budget = known.groupby(BRANCH)["train_flops"].transform("max")
    ordered = known.assign(_off=(known["paper_flops"] - budget).abs()).sort_values([*BRANCH, "_off"], kind="stable")
    nearest = ordered.drop_duplicates(BRANCH)[[*BRANCH, "step"]]
    return ends(known.merge(nearest, on=[*BRANCH, "step"]))


def along(frame: pd.DataFrame) -> pd.DataFrame:
    """The curve of every branch: each checkpoint once, on the episodes that all of them were tested on.

    Left out are checkpoints that were tested on more alone, except the last, which older tables have on more alone.
    """
    ordered = frame.sort_values([*BRANCH, "step", "n"], kind="stable").drop_duplicates([*BRANCH, "step"])
    by_branch = ordered.groupby(BRANCH)
    kept = (ordered["n"] == by_branch["n"].transform("min")) | (ordered["step"] == by_branch["step"].transform("max"))
    return ordered[kept].reset_index(drop=True)


def clusters(text: str) -> dict[int, tuple[float, int]]:
    """The rate and the episodes of every puzzle or route, from a row's `by_cluster`; {} if there is nothing in it."""
    pairs = [item.split("=") for item in text.split(";") if item]
    return {int(key): (float(cell.split("*")[0]), int(cell.split("*")[1])) for key, cell in pairs}


def clusters_text(rates: dict[int, tuple[float, int]]) -> str:
    """`clusters`, as they stand in the table."""
    return ";".join(f"{key}={value:.6g}*{n}" for key, (value, n) in sorted(rates.items()))


def settings_of(rows: pd.DataFrame, name: str) -> pd.Series:
    """The value of `name` in each row's setting. Raises TableError if a setting lacks it or cannot be parsed."""
    try:
        return rows["setting"].map(lambda setting: parse_setting(setting)[name])
    except (ValueError, KeyError) as error:
        raise TableError(f"A setting does not say what {name!r} is ({error}).") from None


def _short(path: Path) -> str:
    """A path for messages: relative to `paths.HOME` if it lies inside."""
    return str(path.relative_to(paths.HOME)) if path.is_relative_to(paths.HOME) else str(path)
