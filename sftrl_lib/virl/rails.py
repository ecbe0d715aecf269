"""Bearings, turn words and rails: the positions at which the agent must decide (paper appendix B.3).

How they differ:
* paper: relative directions mean turns of 90 ("left", "right") and 45 degrees ("slightly left", "slightly
  right").
* official code: the word comes from the raw difference of two headings, so that a turn from 350 to 10 degrees
  is called "left"; every reset draws a new rail from Python's global random state; a panorama may
  occur twice in a row.
* ours: ``verifier="exact"`` wraps the difference to (-180, 180] degrees and never repeats a panorama,
  ``"official"`` keeps the released words and repeats. A rail is a function of the seed and the route.
  Distances are great-circle (the official code: geodesic; they differ by less than 0.5 %). A point without a
  panorama within 20 m is dropped. A leg may cross 180 degrees of longitude.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from .schema import COMPASS, NO_LANDMARK, City, Geocode, Route

TURNS = ("left", "right", "slightly left", "slightly right")
SPATIAL = ("front", "right front", "right", "right behind", "behind", "left behind", "left", "left front")
NO_LANDMARKS = "No landmarks nearby"  # between way-points; the plural is the released data's
AT_INTERSECTION = "You observe an intersection"

EARTH_RADIUS = 6_371_000.0  # metres
STRAIGHT_LINE_LENGTH = 5  # points tried on each leg
DROP_RATE = 0.5  # share of them skipped at random
WAYPOINT_CLEARANCE = 8.0  # minimum distance in metres of a point from both ends of its leg
MIN_LEG = 5.0  # metres; a shorter leg has no points
MAPPING_RADIUS = 20.0  # metres within which a point snaps to a panorama


def bearing(origin: Geocode, target: Geocode) -> float:
    """Initial great-circle bearing from `origin` to `target`, in degrees clockwise from north, [0, 360)."""
    phi1, phi2 = math.radians(origin[0]), math.radians(target[0])
    east = math.radians(target[1] - origin[1])
    x = math.sin(east) * math.cos(phi2)
    y = math.cos(phi1) * math.sin(phi2) - math.sin(phi1) * math.cos(phi2) * math.cos(east)
    return math.degrees(math.atan2(x, y)) % 360.0


def distance(a: Geocode, b: Geocode) -> float:
    """Great-circle (haversine) distance in metres."""
    phi1, phi2 = math.radians(a[0]), math.radians(b[0])
    half = math.sin((phi2 - phi1) / 2) ** 2
    half += math.cos(phi1) * math.cos(phi2) * math.sin(math.radians(b[1] - a[1]) / 2) ** 2
    return 2 * EARTH_RADIUS * math.asin(math.sqrt(min(1.0, half)))


def wrap(degrees: float) -> float:
    """The same angle in (-180, 180]."""
    return 180.0 - (180.0 - degrees) % 360.0


def compass_word(heading: float) -> str:
    """The nearest of the eight compass directions."""
    return COMPASS[int((heading % 360.0) / 45.0 + 0.5) % 8]


def spatial_word(bearing_to: float, heading: float) -> str:
    """The direction of `bearing_to` relative to `heading`, both in degrees: one of `SPATIAL`."""
    return SPATIAL[int(((bearing_to - heading) % 360.0) / 45.0 + 0.5) % 8]


def turn_word(heading: float, previous: float, verifier: str = "exact") -> str:
    """The relative direction of a turn from `previous` to `heading`, both in degrees: one of `TURNS`.

    The thresholds are the official code's: beyond 45 degrees "left" or "right", otherwise "slightly"; no turn
    at all is "slightly left". ``verifier="official"`` does not wrap the difference.
    """
    turn = heading - previous if verifier == "official" else wrap(heading - previous)
    if abs(turn) > 45:
        return "left" if turn < 0 else "right"
    return "slightly left" if turn <= 0 else "slightly right"


@dataclass(frozen=True)
class RailPoint:
    """One position on a rail and what the expert does there."""

    geocode: Geocode
    heading: int  # degrees; the agent's heading on arrival
    absolute: str  # the expert's action with absolute directions
    relative: str  # the same with relative ones
    landmark: str  # the landmark part of the observation
    at_intersection: bool
    sentence: int  # number of the current instruction, from 1
    instruction: str  # its text, without the number

    @property
    def observation(self) -> str:
        """O_k in the prompt, e.g. ``"No landmarks nearby;"``."""
        return f"{self.landmark}; {AT_INTERSECTION}" if self.at_intersection else f"{self.landmark};"

    def action(self, actions: str) -> str:
        """The expert's action in the action space ``"absolute"`` or ``"relative"``."""
        return self.absolute if actions == "absolute" else self.relative


@dataclass(frozen=True)
class Rail:
    """The positions of one episode, in order, and the instructions that lead along them."""

    points: tuple[RailPoint, ...]
    instructions: tuple[str, ...]  # two sentences per leg: turn, move forward
    initial_heading: int  # degrees

    def __len__(self) -> int:
        return len(self.points)


TO_INTERSECTION = "Move forward until you reach next intersection"
TO_DESTINATION = "Move forward until you reach destination"


def turn_sentence(turn: str, compass: str, first: bool = False) -> str:
    """The instruction to turn; the first one of several legs is worded differently."""
    return f"{'First, t' if first else 'T'}urn {turn} to face {compass}."


def instruction_sentences(route: Route, initial_heading: int, verifier: str = "exact") -> tuple[str, ...]:
    """Two sentences per leg, worded as in the official code and Fig. 21."""
    sentences = []
    previous = initial_heading
    for i, leg in enumerate(route.legs):
        last = i == len(route.legs) - 1
        turn = turn_word(leg.heading, previous, verifier)
        sentences.append(turn_sentence(turn, leg.compass, first=i == 0 and not last))
        if last:
            sentences.append(f"{TO_DESTINATION} where {leg.landmark}.")
        elif leg.landmark == NO_LANDMARK:
            sentences.append(f"{TO_INTERSECTION}.")
        else:
            sentences.append(f"{TO_INTERSECTION} where {leg.landmark}.")
        previous = leg.heading
    return tuple(sentences)


class RailBuilder:
    """Rails for the routes of one city. Whatever does not depend on the seed is computed once per route."""

    def __init__(
        self, routes: Sequence[Route], panoramas: Mapping[Geocode, str], verifier: str = "exact"
    ) -> None:
        self._routes = routes
        self._grid = PanoramaGrid(panoramas)
        self._verifier = verifier
        self._candidates: dict[int, tuple[tuple[Geocode | None, ...], ...]] = {}

    def build(self, index: int, seed: int) -> Rail:
        """The rail of route `index` under `seed`; deterministic."""
        route = self._routes[index]
        rng = random.Random(f"{seed}:{index}")
        initial = route.initial_heading or rng.randrange(360)
        sentences = instruction_sentences(route, initial, self._verifier)
        points: list[RailPoint] = []
        here, heading, landmark = route.start, initial, NO_LANDMARKS
        for i, (leg, candidates) in enumerate(zip(route.legs, self._leg_points(index), strict=True)):
            points.append(
                RailPoint(
                    here,
                    heading,
                    f"turn_direction({leg.compass})",
                    f"turn_direction({turn_word(leg.heading, heading, self._verifier)})",
                    landmark,
                    i > 0,
                    2 * i + 1,
                    sentences[2 * i],
                )
            )
            forward = "forward()", "forward()", NO_LANDMARKS, False, 2 * i + 2, sentences[2 * i + 1]
            for candidate in candidates:
                # Draw first, so that a missing panorama does not shift later draws.
                if rng.random() < DROP_RATE or candidate is None:
                    continue
                if self._verifier == "exact" and candidate == points[-1].geocode:
                    continue
                points.append(RailPoint(candidate, leg.heading, *forward))
            here, heading, landmark = route.waypoints[i], leg.heading, leg.landmark
        points.append(
            RailPoint(here, heading, "stop()", "stop()", landmark, False, len(sentences), sentences[-1])
        )
        return Rail(tuple(points), sentences, initial)

    def places(self) -> tuple[Geocode, ...]:
        """Every possible rail point of these routes, without duplicates, in the order of the routes."""
        found: dict[Geocode, None] = {}
        for index, route in enumerate(self._routes):
            found[route.start] = None
            for waypoint, candidates in zip(route.waypoints, self._leg_points(index), strict=True):
                found.update(dict.fromkeys([*filter(None, candidates), waypoint]))
        return tuple(found)

    def _leg_points(self, index: int) -> tuple[tuple[Geocode | None, ...], ...]:
        """For each leg, the panoramas at which the agent may stand; None where a point has none."""
        if index not in self._candidates:
            route = self._routes[index]
            ends = (route.start, *route.waypoints)
            self._candidates[index] = tuple(
                tuple(self._points_between(*leg)) for leg in zip(ends[:-1], ends[1:], strict=True)
            )
        return self._candidates[index]

    def _points_between(self, start: Geocode, end: Geocode) -> Iterator[Geocode | None]:
        if distance(start, end) <= MIN_LEG:
            return
        for i in range(1, STRAIGHT_LINE_LENGTH + 1):
            snapped = self._grid.nearest(_between(start, end, i / STRAIGHT_LINE_LENGTH))
            clear = snapped and min(distance(snapped, start), distance(snapped, end)) > WAYPOINT_CLEARANCE
            yield snapped if clear else None


def _between(start: Geocode, end: Geocode, share: float) -> Geocode:
    """The point at `share` of the way, linear in degrees, and across 180 degrees where that is the short way."""
    east = end[1] - start[1]
    longitude = start[1] + share * (east if abs(east) <= 180 else wrap(east))
    # Wrapped only where needed, because it rounds.
    return start[0] + share * (end[0] - start[0]), longitude if abs(longitude) <= 180 else wrap(longitude)


@lru_cache(maxsize=32)
def rail_builder(city: City, verifier: str = "exact") -> RailBuilder:
    """The `RailBuilder` shared by all environments of a city."""
    return RailBuilder(city.routes, city.panoramas, verifier)


class PanoramaGrid:
    """Finds the nearest panorama within `MAPPING_RADIUS` by searching nine cells instead of all panoramas.

    Latitudes and longitudes are in degrees; a panorama just across 180 degrees is also found.
    """

    def __init__(self, panoramas: Mapping[Geocode, str]) -> None:
        self._step = math.degrees(
            MAPPING_RADIUS / EARTH_RADIUS
        )  # of latitude; longitudes are scaled to match
        self._scale = math.cos(math.radians(max((abs(lat) for lat, _ in panoramas), default=0.0)))
        self._cells: dict[tuple[int, int], list[Geocode]] = {}
        for geocode in panoramas:
            self._cells.setdefault(self._cell(geocode), []).append(geocode)
            latitude, longitude = geocode
            if (180 - abs(longitude)) * self._scale < 2 * self._step:
                beyond = latitude, longitude - math.copysign(360, longitude)  # the same place, seen from across
                self._cells.setdefault(self._cell(beyond), []).append(geocode)

    def _cell(self, geocode: Geocode) -> tuple[int, int]:
        return math.floor(geocode[0] / self._step), math.floor(geocode[1] * self._scale / self._step)

    def nearest(self, point: Geocode) -> Geocode | None:
        row, column = self._cell(point)
        around = [
            geocode
            for i in (row - 1, row, row + 1)
            for j in (column - 1, column, column + 1)
            for geocode in self._cells.get((i, j), ())
        ]
        best = min(around, key=lambda geocode: distance(point, geocode), default=None)
        return best if best is not None and distance(point, best) < MAPPING_RADIUS else None
