"""What a set of routes consists of, and the validation of one route of the released data.

How they differ:
* official code: IndexError or KeyError on a short record; skips the lines of ``milestone_info`` that it cannot read, so
  that a landmark with a line break loses all after it; never compares a heading's number with its word.
* ours: a bad record raises ValueError naming the file, the route and the key. A landmark is shown as written, U+2028,
  U+0085 and form feeds included. One with a line feed, a carriage return or a lone surrogate is refused: it would write
  lines of its own into the prompt, such as "[Action space]", or could not be written at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Geocode = tuple[float, float]  # latitude, longitude in degrees

COMPASS = ("north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest")
NO_LANDMARK = "No landmark nearby"

_HEADING = re.compile(r"(\d{1,3})\s*\((\w+)\)")
# Half of the 45 degrees between two words, and one for a heading that was cut to a whole number after it was named.
_OFF = 22.5 + 1


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
            raise ValueError(f"{where}: 'init_heading' must be a number from 0 to 360, got {repr(heading)[:60]}.")
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


def parse_milestones(text: str, where: str = "route") -> tuple[Leg, ...]:
    """The legs in a ``milestone_info`` string: brace blocks, one key per line, not quite JSON.

    Only line feeds and carriage returns end a line; U+2028, U+0085 and other separators are part of a landmark's name.
    Raises ValueError, which begins with `where` and names the block, for anything else than such blocks.
    """
    legs: list[Leg] = []
    block: dict[str, str] | None = None
    for line in map(str.strip, re.split(r"\r\n?|\n", text)):
        if line.startswith("}"):
            if block is None:
                raise ValueError(f"{where}: 'milestone_info' closes a block that was never opened.")
            legs.append(_leg(block, len(legs), where))
            block = None
            line = line.lstrip("} ,")
        if line.startswith("{"):
            if block is not None:
                raise ValueError(f"{where}: 'milestone_info' opens a block inside block {len(legs)}.")
            block = {}
            line = line.removeprefix("{").strip()
        if line and block is None:
            raise ValueError(f"{where}: 'milestone_info' has text outside its blocks: {line[:60]!r}.")
        if line:
            _add_line(block, line, f"{where}: 'milestone_info' block {len(legs)}")
    if block is not None:
        raise ValueError(
            f"{where}: 'milestone_info' ends inside block {len(legs)}; the file may be truncated."
        )
    return tuple(legs)


def _add_line(block: dict[str, str], line: str, where: str) -> None:
    """Put one ``"key": "value",`` into `block`."""
    key, colon, value = line.removesuffix(",").partition(":")
    key, value = key.strip().strip('"'), value.strip()
    if not colon or value.startswith('"') and not (len(value) > 1 and value.endswith('"')):
        raise ValueError(f"{where} has a line without a key and a value (or a value with a line break): {line[:60]!r}.")
    if key in block:
        raise ValueError(f"{where} has {key[:60]!r} twice; the second is {value[:60]!r}.")
    block[key] = value.removeprefix('"').removesuffix('"')


def _leg(block: Mapping[str, str], index: int, where: str) -> Leg:
    where = f"{where}: 'milestone_info' block {index},"
    landmark = block.get("landmarks", NO_LANDMARK)
    if any("\ud800" <= character <= "\udfff" for character in landmark):
        raise ValueError(f"{where} 'landmarks' has a lone surrogate, which no text can hold: {landmark[:60]!r}.")
    where += " 'to_next_intersection_heading'"
    text = block.get("to_next_intersection_heading")
    if text is None:
        raise ValueError(f"{where} is missing.")
    match = _HEADING.fullmatch(text.strip())
    if not match or int(match[1]) > 360 or match[2] not in COMPASS:
        raise ValueError(f"{where} must look like '177 (south)', got {text[:60]!r}.")
    heading = int(match[1])
    if abs((heading - 45 * COMPASS.index(match[2]) + 180) % 360 - 180) > _OFF:
        raise ValueError(f"{where} is {text[:60]!r}, but {match[2]} is {45 * COMPASS.index(match[2])} degrees.")
    return Leg(landmark, heading, match[2])


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
    numbers = isinstance(value, list) and len(value) == 2
    if not numbers or not all(isinstance(x, int | float) and not isinstance(x, bool) for x in value):
        raise ValueError(f"{where}: '{path}' must be [latitude, longitude] in degrees, got {repr(value)[:60]}.")
    check_range(tuple(value), f"{where}: '{path}'")
    return float(value[0]), float(value[1])


def check_range(place: tuple[float, float], where: str) -> None:
    """Raise ValueError, which begins with `where`, unless `place` is a latitude and a longitude in degrees."""
    if not _on_earth(*place):
        swapped = "; the two look swapped" if _on_earth(*place[::-1]) else ""
        raise ValueError(f"{where} must be [latitude, longitude] in degrees, got {str(list(place))[:60]}{swapped}.")


def _on_earth(latitude: float, longitude: float) -> bool:
    return -90 <= latitude <= 90 and -180 <= longitude <= 180
