"""Read, write and validate routes in the layout of the released data.

A folder of routes holds ``route_infos.json`` (``[[route, ...], cursor]``), ``gps_pano_mapping.pkl`` (a dict
of (latitude, longitude) to panorama id) and ``street_views/`` (used by the image modality only).

How they differ:
* paper: 1,000 routes in New York for training, 18 routes in nine cities ("VLN mini") for the visual-OOD test.
* official code: unpickles any file, queries Google for addresses, fails with an IndexError on short files.
* ours: the same files; the pickle may only hold a dict of float pairs to strings; no network; a bad file raises
  ValueError naming the file, the route and the key.
"""

from __future__ import annotations

import json
import math
import pickle
import pickletools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Geocode = tuple[float, float]  # latitude, longitude in degrees

ROUTES_FILE = "route_infos.json"
PANORAMAS_FILE = "gps_pano_mapping.pkl"
STREET_VIEWS = "street_views"
EXTRA_PARENT = "VIRL_routes"  # some copies of the released data have this folder in between
COMPASS = ("north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest")
NO_LANDMARK = "No landmark nearby"

_HEADING = re.compile(r"(\d{1,3})\s*\((\w+)\)")


@dataclass(frozen=True)
class Leg:
    """One straight stretch of a route, ending at a way-point."""

    landmark: str  # at its end, e.g. "Hotel Marlowe is on your left", or `NO_LANDMARK`
    heading: int  # degrees clockwise from north, 0 to 360
    compass: str  # the heading as one of `COMPASS`


@dataclass(frozen=True)
class Route:
    """What the environment needs of a route, and the full record from the file."""

    start: Geocode
    initial_heading: int  # degrees; 0 means random at every reset, as in the official code
    waypoints: tuple[Geocode, ...]  # the end of every leg; the last one is the destination
    legs: tuple[Leg, ...]
    record: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_record(cls, record: Any, where: str = "route") -> Route:
        """Validate one entry of ``route_infos.json``; `where` names file and route in the ValueError."""
        if not isinstance(record, dict):
            raise ValueError(f"{where} must be an object, got {type(record).__name__}.")
        start = _geocode(
            _get(record, "start_place.relocated_geocode", where), "start_place.relocated_geocode", where
        )
        listed = _get(record, "route_results.geocode_list", where, list)
        waypoints = tuple(
            _geocode(p, f"route_results.geocode_list[{i}]", where) for i, p in enumerate(listed)
        )
        legs = parse_milestones(_get(record, "milestone_info", where, str), where)
        if not waypoints or len(legs) != len(waypoints):
            raise ValueError(
                f"{where}: 'milestone_info' describes {len(legs)} legs but 'route_results.geocode_list' has "
                f"{len(waypoints)} way-points; they must be equally many, at least one."
            )
        _get(record, "route_results.landmark_list", where, list)
        _get(record, "dest_place", where, dict)
        heading = record.get("init_heading") or 0
        if isinstance(heading, bool) or not isinstance(heading, int | float) or not 0 <= heading <= 360:
            raise ValueError(f"{where}: 'init_heading' must be a number from 0 to 360, got {heading!r}.")
        return cls(start, int(heading), waypoints, legs, record)

    @property
    def destination(self) -> str:
        """Name of the destination; "" if the record has none."""
        return str(self.record["dest_place"].get("name", ""))


@dataclass(frozen=True)
class StreetMap:
    """A street plan with the landmarks at its crossings: the input for drawing street views."""

    name: str  # of the generated city
    seed: int
    crossings: tuple[Geocode, ...]
    streets: tuple[tuple[int, int], ...]  # pairs of crossings
    landmarks: Mapping[int, Mapping[str, Any]]  # crossing -> a place as in ``route_results.landmark_list``


@dataclass(frozen=True)
class City:
    """A set of routes with the panoramas along them, generated or read from a folder."""

    name: str
    routes: tuple[Route, ...]
    panoramas: Mapping[Geocode, str] = field(repr=False)
    cursor: int = 0  # second element of route_infos.json, unused: the official generator's list index
    # Source of the street views: maps of generated cities to draw them from, or a folder of pictures.
    images: tuple[StreetMap, ...] | Path = field(default=(), repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.routes)

    def __hash__(self) -> int:  # dicts are not hashable; needed to cache per-city results
        return hash((self.name, len(self.routes), len(self.panoramas)))


def read_city(folder: str | Path) -> City:
    """The routes and panoramas of a folder in the official layout.

    `folder` holds ``route_infos.json``, or is a parent of the one folder that does; ``VIRL_routes/`` may come
    in between. Raises ValueError naming the file, the route and the key of whatever is missing or malformed.
    """
    folder = find_routes(Path(folder))
    routes_file = folder / ROUTES_FILE
    content = _read_json(routes_file)
    if not isinstance(content, list) or len(content) != 2 or not isinstance(content[0], list):
        raise ValueError(f"{routes_file} must be a list [[route, ...], number].")
    records, cursor = content
    if not records:
        raise ValueError(f"{routes_file} holds no routes.")
    if isinstance(cursor, bool) or not isinstance(cursor, int):
        raise ValueError(f"{routes_file}: its second element must be a whole number, got {cursor!r}.")
    routes = tuple(Route.from_record(record, f"{routes_file}, route {i}") for i, record in enumerate(records))
    return City(folder.name, routes, read_panoramas(folder / PANORAMAS_FILE), cursor, folder / STREET_VIEWS)


def write_city(city: City, folder: str | Path) -> Path:
    """Write `city` in the official layout and return the folder; ``read_city`` gives the same city back.

    The city's name is the folder's name. ``street_views/`` is made but stays empty, because text needs no pictures;
    `sftrl_lib.virl.street_views.write_street_views` fills it.
    """
    folder = Path(folder)
    (folder / STREET_VIEWS).mkdir(parents=True, exist_ok=True)
    content = [[route.record for route in city.routes], city.cursor]
    (folder / ROUTES_FILE).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    (folder / PANORAMAS_FILE).write_bytes(pickle.dumps(dict(city.panoramas), protocol=4))
    return folder


def find_routes(folder: Path) -> Path:
    """The folder at, below or (through ``VIRL_routes/``) beside `folder` that holds ``route_infos.json``."""
    if (folder / ROUTES_FILE).is_file():
        return folder
    moved = folder.parent / EXTRA_PARENT / folder.name
    if not folder.exists() and (moved / ROUTES_FILE).is_file():
        return moved
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}; give the one that holds {ROUTES_FILE}.")
    found = sorted(path.parent for depth in ("*", "*/*") for path in folder.glob(f"{depth}/{ROUTES_FILE}"))
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{folder} holds several sets of routes; choose one of {', '.join(map(str, found))}."
        )
    raise ValueError(f"{folder} holds no {ROUTES_FILE}.")


def parse_milestones(text: str, where: str = "route") -> tuple[Leg, ...]:
    """The legs in a ``milestone_info`` string: brace blocks, one key per line, not quite JSON."""
    legs: list[Leg] = []
    block: dict[str, str] | None = None
    for line in map(str.strip, text.splitlines()):
        if line.startswith("}"):
            if block is None:
                raise ValueError(f"{where}: 'milestone_info' closes a block that was never opened.")
            legs.append(_leg(block, len(legs), where))
            block = None
            line = line.lstrip("} ,")
        if line.startswith("{"):
            block = {}
        elif line and block is not None:
            key, _, value = line.removesuffix(",").partition(":")
            block[key.strip().strip('"')] = value.strip().removeprefix('"').removesuffix('"')
        elif line:
            raise ValueError(f"{where}: 'milestone_info' has text outside its blocks: {line[:60]!r}.")
    if block is not None:
        raise ValueError(
            f"{where}: 'milestone_info' ends inside block {len(legs)}; the file may be truncated."
        )
    return tuple(legs)


def _leg(block: Mapping[str, str], index: int, where: str) -> Leg:
    key = f"'milestone_info' block {index}, 'to_next_intersection_heading'"
    text = block.get("to_next_intersection_heading")
    if text is None:
        raise ValueError(f"{where}: {key} is missing.")
    match = _HEADING.fullmatch(text.strip())
    if not match or int(match[1]) > 360 or match[2] not in COMPASS:
        raise ValueError(f"{where}: {key} must look like '177 (south)', got {text[:60]!r}.")
    return Leg(block.get("landmarks", NO_LANDMARK), int(match[1]), match[2])


def read_panoramas(file: Path) -> dict[Geocode, str]:
    """``{(latitude, longitude): panorama id}`` from a pickle that holds exactly that.

    Raises ValueError for a missing or broken file and for any other content, which is never executed.
    """
    if not file.is_file():
        raise ValueError(f"{file} is missing.")
    try:
        return _replay_pickle(file.read_bytes())
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(
            f"{file} is not a pickled dict of (latitude, longitude) to panorama id: {error}."
        ) from error


_MARK = object()
_FLOATS = {"BINFLOAT", "FLOAT"}
_STRINGS = {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}
_IGNORED = {"PROTO", "FRAME"}


def _replay_pickle(data: bytes) -> dict[Geocode, str]:
    """Interpret the few pickle opcodes that such a dict needs, and refuse all others.

    `pickle.Unpickler` with a closed `find_class` would not execute code either, but a file of some hundred bytes
    can still make it hash for hours or exhaust the memory.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def pop_to_mark() -> list[Any]:
        items = []
        while (item := stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def store(items: list[Any]) -> None:
        mapping = stack[-1]
        if type(mapping) is not dict:
            raise ValueError("it puts items into something that is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not tuple or type(value) is not str:
                raise ValueError(f"it maps a {type(key).__name__} to a {type(value).__name__}")
            mapping[key] = value

    def pair(items: list[Any]) -> Geocode:
        if len(items) != 2 or not all(type(x) is float and math.isfinite(x) for x in items):
            raise ValueError("it holds a tuple that is not a pair of finite floats")
        return items[0], items[1]

    for operation, argument, _ in pickletools.genops(data):
        name = operation.name
        if name in _FLOATS or name in _STRINGS:
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
            stack.append({})
            store(items)
        elif name == "SETITEM":
            store([stack.pop(-2), stack.pop()])
        elif name == "SETITEMS":
            store(pop_to_mark())
        elif name == "STOP":
            break
        elif name not in _IGNORED:
            raise ValueError(f"it uses the pickle opcode {name}")
    if len(stack) != 1 or type(stack[0]) is not dict:
        raise ValueError("it holds something else")
    return stack[0]


def _read_json(file: Path) -> Any:
    if not file.is_file():
        raise ValueError(f"{file} is missing.")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON; it may be truncated: {error}.") from error


def _get(record: Mapping[str, Any], path: str, where: str, kind: type | None = None) -> Any:
    """The value at a dotted `path`. Raises ValueError if it is missing or not of type `kind`."""
    value: Any = record
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            raise ValueError(f"{where}: key '{path}' is missing.")
        value = value[key]
    if kind is not None and not isinstance(value, kind):
        raise ValueError(f"{where}: '{path}' must be a {kind.__name__}, got {type(value).__name__}.")
    return value


def _geocode(value: Any, path: str, where: str) -> Geocode:
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in value)
        or not (-90 <= value[0] <= 90 and -180 <= value[1] <= 180)
    ):
        raise ValueError(
            f"{where}: '{path}' must be [latitude, longitude] in degrees, got {str(value)[:60]}."
        )
    return float(value[0]), float(value[1])
