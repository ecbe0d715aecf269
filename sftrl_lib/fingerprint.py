"""The identity of a result: what it depends on, as JSON beside it. A result is made again only if its identity changes.

    demonstrations  <- the task
    Init            <- the foundation model, the demonstrations, the SFT settings
    a branch        <- where it starts, its demonstrations, its own settings
    a test          <- the checkpoints, the evaluation settings, the splits

`runs.Run` puts these together. Fields at their default are left out, so a new field with a default changes nothing. The
price: a changed default, or code that computes something else, goes unnoticed. Raise `VERSION` then (`Task.version` for
one task alone).

A folder's ``made_with.json`` holds the identity of its content. Content with another identity is set aside, never mixed
with the new and never deleted; it is restored when the settings are.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from itertools import chain, count
from pathlib import Path
from typing import Any

from . import paths
from .files import SEAL, sha256, write_atomically

VERSION = 2  # of what all stages compute
MADE_WITH = "made_with.json"
_LARGE = 256 * 2**20  # bytes; of larger files only both ends are read
_END = 2**20  # bytes

Identity = dict[str, Any]


def settings(config: Any) -> Identity:
    """The fields of a dataclass that are not at their default, as JSON values."""
    changed = {}
    for field in fields(config):
        value = getattr(config, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if default is MISSING or value != default:
            changed[field.name] = plain(value)
    return changed


def plain(value: Any) -> Any:
    """`value` in JSON's own types; dataclasses by their settings, anything unknown by its text."""
    if is_dataclass(value):
        return {"type": type(value).__name__, **settings(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):  # NumPy scalars
        value = value.item()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def digest(content: Any) -> str:
    """Sixteen hexadecimal digits that stand for a JSON value."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def model(name: str) -> str:
    """The identity of a model: a digest of the files in its folder (shipped or a path), or else its hub name."""
    folder = paths.named_model(name) or Path(name)
    if not os.path.isdir(folder):  # which says no to a name that no path can have
        return name
    found = sorted(path for path in folder.glob("*") if path.is_file() and path.name not in ("record.json", SEAL))
    return digest([[path.name, _file(path, path.stat().st_size, path.stat().st_mtime_ns)] for path in found])


@lru_cache
def _file(path: Path, size: int, changed: int) -> str:
    if size <= _LARGE:
        return sha256(path)
    with path.open("rb") as file:
        begin = file.read(_END)
        file.seek(-_END, os.SEEK_END)
        return f"{size} {hashlib.sha256(begin + file.read()).hexdigest()}"


def library() -> str:
    """A digest of the code that numbers depend on: all but what draws, decides and plays; comments do not count.

    Runs are not made again for it; `pipeline report` says how many were made by other code.
    """
    aside = {"figures", "claims", "play", "doctor.py", "published.py", "pipeline.py", "jobs.py", "execution.py"}
    aside |= {"provenance.py", "progress.py", "shown.py", "timings.py", "disks.py"}
    modules = (p for p in sorted(paths.PACKAGE.rglob("*.py")) if p.relative_to(paths.PACKAGE).parts[0] not in aside)
    return digest([_code(path) for path in modules])


def _code(path: Path) -> str:
    """A module's syntax tree without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    return ast.dump(tree)


def made_with(folder: Path) -> Identity | None:
    """The identity of what is in `folder`; None if it has none, or one that is damaged."""
    try:
        identity = json.loads((folder / MADE_WITH).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return identity if isinstance(identity, dict) else None


def claim(folder: Path, identity: Identity) -> Path:
    """Reserve `folder` for results with `identity`, and return it.

    Content with another identity is moved to ``build/<profile>/replaced``, with a message; content with `identity` that
    was moved there earlier is restored.
    """
    identity = plain(identity)
    before = made_with(folder)
    if before == identity:
        return folder
    shelf = folder.parent.parent / "replaced"
    if folder.exists() and any(folder.iterdir()):
        kept = _free(shelf / f"{folder.name}-{digest(before)}")
        shelf.mkdir(parents=True, exist_ok=True)
        os.replace(folder, kept)
        why = f"with other settings ({difference(before, identity)})" if before else "with settings unknown"
        print(f"{folder.name} was made {why}; it is kept in {kept}.")
    earlier = shelf / f"{folder.name}-{digest(identity)}"
    if made_with(earlier) == identity:
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(earlier, folder)
        print(f"{folder.name} of these settings was there from before and is used again.")
    else:
        write_atomically(folder / MADE_WITH, json.dumps(identity, indent=1, sort_keys=True) + "\n")
    return folder


def _free(path: Path) -> Path:
    """`path`, or the first of path-2, path-3 ... that is not taken: what has no identity has one name in common."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(place for place in chain([path], numbered) if not place.exists())


def difference(before: Any, now: Any, name: str = "") -> str:
    """The first setting in which two identities differ: ``config.lr: 0.001 -> 0.002``."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                return difference(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))
    shown = (re.sub(r"\s+", " ", json.dumps(value)) for value in (before, now))
    first, second = (text if len(text) <= 60 else text[:57] + "..." for text in shown)
    unset = "default"
    return f"{name}: {unset if before is None else first} -> {unset if now is None else second}"
