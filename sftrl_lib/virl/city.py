"""Generated cities: streets at real latitudes and longitudes, landmarks, and routes in the official schema.

How they differ:
* paper: 1,000 routes in New York (2.2 GB of street views) and VLN mini, two routes in each of nine cities;
  every test on the training city samples the routes that were trained on.
* official code: no generator for the New York routes; V-IRL's generator queries Google Maps.
* ours: every city is a function of its name and a seed. ``nyc`` replaces the New York routes and has districts of
  all five geometries; ``nyc:heldout`` has routes to destinations of no training route; the nine cities of VLN
  mini have 20 routes each, with their own streets and landmarks. All landmarks are invented.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..attempts import check_choice
from .cities import CITIES, MINI, MINI_CITIES, CitySpec, city_names
from .folders import PANORAMAS_FILE, ROUTES_FILE, find_routes, read_city
from .landmarks import address, landmark_names
from .rails import bearing, compass_word, distance, spatial_word, wrap
from .schema import NO_LANDMARK, City, Geocode, Route, StreetMap
from .streets import METRES_PER_DEGREE, lay_out

PANORAMA_EVERY = 10.0  # metres along a street
LANDMARK_SHARE = 0.75  # share of crossings that have a landmark
HELDOUT_SHARE = 0.2  # share of landmarks that are destinations of held-out routes only
LEGS = (2, 6)  # fewest and most legs of a route
SHARPEST_TURN, STRAIGHTEST_TURN, STRAIGHT = 150.0, 25.0, 12.0  # degrees
KEEP_STRAIGHT = 0.35  # probability of passing one more crossing on the same leg
WALKING_SPEED = 1.3  # metres per second


SPLITS = ("train", "heldout")
HELDOUT_ROUTES = 200  # default number in a city's held-out split


def load_city(routes: str | os.PathLike[str] | City) -> City:
    """A city by name (generated with seed 0) or from a folder in the official layout; a `City` is returned as is.

    Raises ValueError if `routes` is none of these, or if the folder is malformed.
    """
    if isinstance(routes, City):
        return routes
    if isinstance(routes, str) and routes in city_names():
        return _named(routes)
    if not isinstance(routes, str | os.PathLike):
        raise ValueError(f"routes must be a city's name, a folder or a City, got {type(routes).__name__}.")
    try:
        folder = find_routes(Path(routes))
    except ValueError as error:
        if Path(routes).is_dir() or os.sep in str(routes):
            raise
        raise ValueError(
            f"routes={str(routes)!r} is neither a folder nor a known city; "
            f"the cities are {', '.join(city_names())}."
        ) from error
    files = (folder / ROUTES_FILE, folder / PANORAMAS_FILE)
    return _from_folder(folder.resolve(), tuple(file.stat().st_mtime_ns for file in files if file.is_file()))


@lru_cache(maxsize=64)
def _named(name: str) -> City:
    if name == MINI:
        return mini_benchmark()
    city, _, split = name.partition(":")
    return generate_city(city, split=split or "train")


@lru_cache(maxsize=8)
def _from_folder(folder: Path, _changed: tuple[int, ...]) -> City:
    return read_city(folder)


def mini_benchmark(seed: int = 0) -> City:
    """The counterpart of VLN mini: routes in each of nine cities, in the paper's order."""
    cities = [generate_city(name, seed=seed) for name in MINI_CITIES]
    routes = tuple(route for city in cities for route in city.routes)
    panoramas = {geocode: pano for city in cities for geocode, pano in city.panoramas.items()}
    maps = tuple(street_map for city in cities for street_map in city.images)
    return City(MINI, routes, panoramas, len(routes), maps)


def generate_city(name: str, routes: int | None = None, split: str = "train", seed: int = 0) -> City:
    """`routes` different routes of a city (by default 1,000, 200 for "heldout", 20 for a mini city).

    Streets and landmarks depend on (name, seed), the routes also on the split; asking for more routes only
    appends. Each landmark is a destination in one split only, so no route is in both. Raises ValueError for an
    unknown city or split, and if the city does not have that many routes.
    """
    specs = {**CITIES, **MINI_CITIES}
    spec = specs[check_choice("name", name, tuple(specs))]
    check_choice("split", split, SPLITS)
    if routes is None:
        routes = min(spec.routes, HELDOUT_ROUTES) if split == "heldout" else spec.routes
    if isinstance(routes, bool) or not isinstance(routes, int) or routes < 1:
        raise ValueError(f"routes must be a whole number of at least 1, got {routes!r}.")
    streets = _Streets(name, spec, seed)
    full_name = name if split == "train" else f"{name}:{split}"
    rng = random.Random(f"routes:{full_name}:{seed}")
    seen: set[tuple[int, ...]] = set()
    found: list[Route] = []
    for _ in range(1000 * routes):
        path = streets.walk(rng)
        if path and path not in seen and (path[-1] in streets.heldout) == (split == "heldout"):
            seen.add(path)
            found.append(Route.from_record(streets.record(path, rng), f"{full_name}, route {len(found)}"))
            if len(found) == routes:
                return City(full_name, tuple(found), streets.panoramas, routes, (streets.map,))
    raise ValueError(f"Found only {len(found)} different routes in {full_name}, not {routes}.")


class _Streets:
    """Crossings, landmarks and panoramas of one city, and walks along its streets."""

    def __init__(self, name: str, spec: CitySpec, seed: int) -> None:
        rng = random.Random(f"streets:{name}:{seed}")
        plan = lay_out(spec.districts, rng)
        self._name, self._spec = name, spec
        middle = (
            sum(x for x, _ in plan.nodes) / len(plan.nodes),
            sum(y for _, y in plan.nodes) / len(plan.nodes),
        )
        east_scale = METRES_PER_DEGREE * math.cos(math.radians(spec.latitude))

        def geocode(x: float, y: float) -> Geocode:
            # Seven decimals (1 cm), as Google gives them.
            return (
                round(spec.latitude + (y - middle[1]) / METRES_PER_DEGREE, 7),
                round(spec.longitude + (x - middle[0]) / east_scale, 7),
            )

        self.nodes = [geocode(x, y) for x, y in plan.nodes]
        # For every crossing, the (bearing, next crossing) of each street that leaves it.
        self._ways: list[list[tuple[float, int]]] = [[] for _ in self.nodes]
        self.panoramas: dict[Geocode, str] = {}
        for node in self.nodes:
            self._add_panorama(node)
        for i, j in plan.edges:
            (x, y), (x2, y2) = plan.nodes[i], plan.nodes[j]
            for start, end in ((i, j), (j, i)):
                self._ways[start].append((bearing(self.nodes[start], self.nodes[end]), end))
            steps = int(math.dist((x, y), (x2, y2)) / PANORAMA_EVERY)
            for k in range(1, steps):
                self._add_panorama(geocode(x + (x2 - x) * k / steps, y + (y2 - y) * k / steps))
        self._place_landmarks(rng, plan.nodes, geocode)
        self.map = StreetMap(name, seed, tuple(self.nodes), plan.edges, self.places)

    def _add_panorama(self, geocode: Geocode) -> None:
        self.panoramas.setdefault(geocode, f"{self._name}_{len(self.panoramas):06d}")

    def _place_landmarks(
        self, rng: random.Random, metres: tuple[tuple[float, float], ...], geocode: Any
    ) -> None:
        """At most one landmark per crossing, between two neighbouring streets."""
        names = landmark_names(rng, self._spec.words)
        self.places: dict[int, dict[str, Any]] = {}
        for i, (x, y) in enumerate(metres):
            if rng.random() > LANDMARK_SHARE:
                continue
            bearings = sorted(way[0] for way in self._ways[i])
            corner = rng.randrange(len(bearings))
            gap = (bearings[(corner + 1) % len(bearings)] - bearings[corner]) % 360 or 360.0
            angle = math.radians(bearings[corner] + gap * rng.uniform(0.15, 0.85))
            away = rng.uniform(9.0, 16.0)
            name, types = next(names)
            where = geocode(x + away * math.sin(angle), y + away * math.cos(angle))
            self.places[i] = {
                "name": name,
                "geocode": list(where),
                "relocated_geocode": list(self.nodes[i]),
                "rating": round(rng.uniform(3.0, 5.0), 1),
                "place_id": f"{self._name}_place_{i:05d}",
                "distance": round(distance(self.nodes[i], where), 1),
                "n_reviews": int(10 * 10 ** rng.uniform(0, 2.5)),
                "heading": int(bearing(self.nodes[i], where)),
                "photo_reference": None,
                "place_types": list(types),
                "plus_code": None,
                "vicinity": f"{address(rng)}, {self._spec.title}",
            }
        order = sorted(self.places)
        rng.shuffle(order)
        self.heldout = frozenset(order[: round(HELDOUT_SHARE * len(order))])

    def walk(self, rng: random.Random) -> tuple[int, ...] | None:
        """Start and way-points of a random route with a turn at every way-point; None if the walk failed."""
        n_legs = rng.randint(*LEGS)
        here, heading = rng.randrange(len(self.nodes)), None
        path, passed = [here], {here}
        while len(path) <= n_legs:
            ways = [
                (angle, node)
                for angle, node in self._ways[here]
                if node not in passed
                and (heading is None or STRAIGHTEST_TURN <= abs(wrap(angle - heading)) <= SHARPEST_TURN)
            ]
            if not ways:
                return None
            angle, here = rng.choice(ways)
            passed.add(here)
            while rng.random() < KEEP_STRAIGHT:
                ahead = [way for way in self._ways[here] if abs(wrap(way[0] - angle)) < STRAIGHT]
                if not ahead or ahead[0][1] in passed:
                    break
                here = ahead[0][1]
                passed.add(here)
            heading = bearing(self.nodes[path[-1]], self.nodes[here])
            path.append(here)
        return tuple(path) if here in self.places else None

    def record(self, path: tuple[int, ...], rng: random.Random) -> dict[str, Any]:
        """A route in the official schema, with every key of the released files."""
        nodes = [self.nodes[i] for i in path]
        headings = [bearing(a, b) for a, b in zip(nodes[:-1], nodes[1:], strict=True)]
        lengths = [round(distance(a, b)) for a, b in zip(nodes[:-1], nodes[1:], strict=True)]
        seen = [self._seen(i, heading) for i, heading in zip(path[1:], headings, strict=True)]
        destination = seen[-1]
        expressions = [place["expression"] if place else NO_LANDMARK for place in seen]
        expressions[-1] = f"The destination {expressions[-1]}"
        initial = rng.randrange(1, 360)  # never 0, which means a random one at every reset
        before = [initial, *map(int, headings)]
        steps = [
            f"Head {compass_word(heading)} for {length} m"
            for heading, length in zip(headings, lengths, strict=True)
        ]
        times = [round(length / WALKING_SPEED) for length in lengths]
        return {
            "start_place": {
                "name": self.places.get(path[0], {}).get("name", f"{address(rng)}, {self._spec.title}"),
                "geocode": list(nodes[0]),
                "relocated_geocode": list(nodes[0]),
            },
            "dest_place": destination,
            "init_heading": initial,
            "route_results": {
                "geocode_list": [list(node) for node in nodes[1:]],
                "landmark_list": seen[:-1],
                "polyline": encode_polyline(nodes),
                "instructions": steps,
                "distance_list": lengths,
                "time_list": times,
                "time": sum(times),
                "distance": sum(lengths),
                "n_landmarks": sum(place is not None for place in seen[:-1]),
            },
            "milestone_info": "".join(
                _MILESTONE.format(
                    i + 1, expressions[i], lengths[i], before[i], int(headings[i]), compass_word(headings[i])
                )
                for i in range(len(lengths))
            ),
            "instruction": _spoken(steps, expressions),
        }

    def _seen(self, node: int, heading: float) -> dict[str, Any] | None:
        """The landmark of a crossing as it lies for someone who arrives along `heading`."""
        place = self.places.get(node)
        if place is None:
            return None
        relation = spatial_word(bearing(self.nodes[node], tuple(place["geocode"])), heading)
        return {**place, "spatial_relation": relation, "expression": f"{place['name']} is on your {relation}"}


_MILESTONE = """{{
"intersection_idx": "{}",
"landmarks": "{}",
"distance": "{} meters",
"human_heading": "{}",
"to_next_intersection_heading": "{} ({})",
}}
"""


def _spoken(steps: list[str], expressions: list[str]) -> str:
    """The route as one paragraph of natural language."""
    clauses = [
        step if text == NO_LANDMARK else f"{step} until {text.replace('The dest', 'the dest', 1)}"
        for step, text in zip(steps, expressions, strict=True)
    ]
    return ". ".join(clauses) + "."


def encode_polyline(points: list[Geocode]) -> str:
    """Google's encoded polyline, precision 5, as in ``route_results.polyline``."""
    return "".join(_polyline_characters(points))


def _polyline_characters(points: list[Geocode]) -> Iterator[str]:
    last = [0, 0]
    for point in points:
        for axis in (0, 1):
            value = round(point[axis] * 1e5)
            change, last[axis] = value - last[axis], value
            bits = ~(change << 1) if change < 0 else change << 1
            while bits >= 0x20:
                yield chr((0x20 | bits & 0x1F) + 63)
                bits >>= 5
            yield chr(bits + 63)
