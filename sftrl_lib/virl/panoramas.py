"""Read ``gps_pano_mapping.pkl``: a pickled dict of (latitude, longitude) to panorama id, and nothing else.

How they differ:
* official code: unpickles any file, which runs whatever code is in it.
* ours: only the few pickle opcodes of such a dict are interpreted. Size, entries, operations per entry and keys of the
  same hash are bounded, so that a small file cannot take minutes or gigabytes either.
"""

from __future__ import annotations

import math
import pickletools
from collections import Counter
from pathlib import Path
from typing import Any

from ..files import reason
from .schema import Geocode

MAX_BYTES = 64 * 2**20
MAX_PANORAMAS = 1_000_000
# Every pickle protocol writes an entry, which has two floats, in at most 8 operations; opening and closing take some.
_OPERATIONS_PER_FLOAT, _OTHER_OPERATIONS = 5, 1000
_EQUAL_HASHES = 16  # keys of one hash; a dict compares each of them with all others

_MARK = object()
_FLOATS = {"BINFLOAT", "FLOAT"}
_STRINGS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}
_IGNORED = {"PROTO", "FRAME"}


class _Entries(list[tuple[Geocode, str]]):
    """A dict that is still being read; only its keys' hashes are looked at before it becomes one."""


def read_panoramas(file: Path) -> dict[Geocode, str]:
    """``{(latitude, longitude): panorama id}`` from a pickle that holds exactly that.

    Raises ValueError for a missing, broken or oversized file and for any other content, which is never executed.
    """
    if not file.is_file():
        raise ValueError(f"{file} is missing.")
    if (size := file.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{file} has {size:,} bytes; keep only the panoramas along the routes, at most {MAX_BYTES:,}.")
    try:
        return _as_dict(_replay_pickle(file.read_bytes()))
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(
            f"{file} is not a pickled dict of (latitude, longitude) to panorama id: {reason(error)}."
        ) from error


def _as_dict(entries: _Entries) -> dict[Geocode, str]:
    """Raises ValueError before a dict of crafted keys would take quadratic time."""
    equal = max(Counter(hash(key) for key, _ in entries).values(), default=0)
    if equal > _EQUAL_HASHES:
        raise ValueError(f"{equal:,} of its coordinates have the same hash, as those of real places never do")
    return dict(entries)


def _replay_pickle(data: bytes) -> _Entries:
    """Interpret the few pickle opcodes that such a dict needs, and refuse all others.

    `pickle.Unpickler` with a closed `find_class` would not execute code either, but a file of some hundred bytes
    can still make it hash for hours or exhaust the memory.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    floats = 0

    def pop_to_mark() -> list[Any]:
        items = []
        while (item := stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def store(items: list[Any]) -> None:
        entries = stack[-1]
        if type(entries) is not _Entries:
            raise ValueError("it puts items into something that is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not tuple or type(value) is not str:
                raise ValueError("it holds an item that is not a pair of coordinates and a text")
            entries.append((key, value))

    def pair(items: list[Any]) -> Geocode:
        if len(items) != 2 or not all(type(x) is float and math.isfinite(x) for x in items):
            raise ValueError("it holds a tuple that is not a pair of finite floats")
        return items[0], items[1]

    for count, (operation, argument, _) in enumerate(pickletools.genops(data)):
        name = operation.name
        if name in _FLOATS:
            floats += 1
            if floats > 2 * MAX_PANORAMAS:
                raise ValueError(f"it holds more than {MAX_PANORAMAS:,} panoramas")
            stack.append(argument)
        elif count > _OTHER_OPERATIONS + _OPERATIONS_PER_FLOAT * floats:
            raise ValueError(f"it takes more than {count:,} operations for {floats // 2:,} coordinates")
        elif name in _STRINGS:
            stack.append(argument)
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("TUPLE2", "TUPLE"):
            items = pop_to_mark() if name == "TUPLE" else [stack.pop(-2), stack.pop()]
            stack.append(pair(items))
        elif name == "EMPTY_DICT" or name == "DICT":
            items = pop_to_mark() if name == "DICT" else []
            stack.append(_Entries())
            store(items)
        elif name == "SETITEM":
            store([stack.pop(-2), stack.pop()])
        elif name == "SETITEMS":
            store(pop_to_mark())
        elif name == "STOP":
            break
        elif name not in _IGNORED:
            raise ValueError(f"it uses the pickle opcode {name}")
    if len(stack) != 1 or type(stack[0]) is not _Entries:
        raise ValueError("it holds something else")
    return stack[0]
