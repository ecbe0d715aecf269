"""The surroundings of a place in a generated city: streets, house fronts, signs and trees (in metres).

A street is a strip around the line between two crossings, and each crossing is a disc. Everything else is built up, so
a house front is where a ray from the camera leaves the union of strips and discs. Streets thus run towards the next
panorama on their true bearing, and a crossing appears as an open place with several exits.

A landmark's sign stands at its true azimuth from its crossing. Its distance is the landmark's, moved off the roadway if
necessary and kept within the open crossing, so that no house hides it from the crossing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..rails import bearing
from ..schema import Geocode, StreetMap
from ..streets import METRES_PER_DEGREE

ROAD, KERB, HOUSES = 4.4, 4.6, 8.0  # metres from the middle of a street
CORNER, OPEN = 6.6, 11.0  # radius of the roadway and of the open ground at a crossing
ZEBRA = (7.4, 10.4)  # metres from the middle of a crossing
REACH = 150.0  # metres; nothing farther away is drawn
SIGN_DISTANCE = (7.6, 10.2)  # metres from the middle of the crossing
SIGN_WIDTH = math.radians(28.0)  # radians, from there
TREE_EVERY, TREE_CLEARANCE, TREE_LINE = 13.0, 17.0, 5.7  # metres along, from a crossing, from the street's middle

_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def scatter(*keys: np.ndarray | int) -> np.ndarray:
    """Pseudo-random float32 numbers in [0, 1): a hash of integer `keys` (broadcast together)."""
    state = np.uint64(0x243F6A8885A308D3)
    with np.errstate(over="ignore"):
        for key in keys:
            state = (state ^ np.asarray(key).astype(np.int64).astype(np.uint64)) * np.uint64(_MULTIPLIERS[0])
            state = (state ^ (state >> np.uint64(29))) * np.uint64(_MULTIPLIERS[1])
            state = (state ^ (state >> np.uint64(32))) * np.uint64(_MULTIPLIERS[2])
    return (state >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)


@dataclass(frozen=True)
class Sign:
    """A landmark's sign: an upright board over `ground` whose front is visible from its crossing."""

    name: str
    types: tuple[str, ...]
    ground: np.ndarray  # (2,) middle of its foot, metres east and north of the viewer
    facing: np.ndarray  # (2,) unit vector from the crossing towards the sign
    width: float  # metres, for ``sign_scale=1``


@dataclass(frozen=True)
class Scene:
    """The surroundings of one panorama; positions in metres east and north of the viewer."""

    starts: np.ndarray  # (streets, 2)
    ends: np.ndarray  # (streets, 2)
    streets: np.ndarray  # (streets,) indices, the same from every panorama
    discs: np.ndarray  # (crossings, 2)
    crossings: np.ndarray  # (crossings,) indices
    signs: tuple[Sign, ...]
    trees: np.ndarray  # (trees, 3): position and a number in [0, 1) for its size and kind


@dataclass(frozen=True)
class HouseLine:
    """Where each ray meets the houses; all arrays are (rays,)."""

    distance: np.ndarray  # metres; `REACH` where there is nothing
    along: np.ndarray  # metres along the front, from a fixed origin per front
    front: np.ndarray  # number of the front: a side of a street, or a crossing
    facing: np.ndarray  # cosine between the ray and the front's normal


class Surroundings:
    """Builds the `Scene` at any place of one generated city."""

    def __init__(self, street_map: StreetMap) -> None:
        self.map = street_map
        self._origin = street_map.crossings[0]
        self._scale = METRES_PER_DEGREE * math.cos(math.radians(self._origin[0]))
        self._nodes = self._metres(np.array(street_map.crossings))
        self._edges = np.array(street_map.streets)

    def _metres(self, geocodes: np.ndarray) -> np.ndarray:
        shifted = geocodes - np.array(self._origin)
        return np.stack([shifted[..., 1] * self._scale, shifted[..., 0] * METRES_PER_DEGREE], -1)

    def scene(self, geocode: Geocode) -> Scene:
        """What stands within `REACH` of `geocode`."""
        here = self._metres(np.array(geocode))
        starts, ends = self._nodes[self._edges[:, 0]] - here, self._nodes[self._edges[:, 1]] - here
        near = np.flatnonzero(distance_to_segments(np.zeros(2), starts, ends) < REACH)
        crossings = np.unique(self._edges[near])
        signs = [self._sign(int(node)) for node in crossings if int(node) in self.map.landmarks]
        return Scene(
            starts[near],
            ends[near],
            near,
            self._nodes[crossings] - here,
            crossings,
            tuple(Sign(s.name, s.types, s.ground - here, s.facing, s.width) for s in signs),
            self._trees(near, starts, ends),
        )

    @lru_cache(maxsize=4096)  # noqa: B019 (a city lives as long as the process)
    def _sign(self, node: int) -> Sign:
        """The sign of the landmark at crossing `node`, in metres from the city's origin."""
        place = self.map.landmarks[node]
        target = tuple(place["geocode"])
        angle = math.radians(bearing(self.map.crossings[node], target))
        facing = np.array([math.sin(angle), math.cos(angle)])
        near = np.flatnonzero((self._edges == node).any(1))
        starts, ends = (self._nodes[self._edges[near, i]] - self._nodes[node] for i in (0, 1))
        away = min(max(float(place["distance"]), SIGN_DISTANCE[0]), SIGN_DISTANCE[1])
        while away < SIGN_DISTANCE[1] and distance_to_segments(away * facing, starts, ends).min() < KERB + 0.5:
            away += 0.2
        width = 2 * away * math.tan(SIGN_WIDTH / 2)
        return Sign(place["name"], tuple(place["place_types"]), self._nodes[node] + away * facing, facing, width)

    def _trees(self, streets: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        found = []
        for street in streets:
            start, way = starts[street], ends[street] - starts[street]
            length = float(np.hypot(*way))
            along = np.arange(TREE_CLEARANCE, length - TREE_CLEARANCE + 0.1, TREE_EVERY)
            if not len(along):
                continue
            unit = way / length
            normal = np.array([unit[1], -unit[0]])
            for side in (-1, 1):
                chance = scatter(self.seed, 7, street, side, np.arange(len(along)))
                places = start + along[:, None] * unit + side * TREE_LINE * normal
                found.append(np.column_stack([places, chance]))
        trees = np.concatenate(found) if found else np.zeros((0, 3))
        return trees[np.hypot(trees[:, 0], trees[:, 1]) < 90]

    @property
    def seed(self) -> int:
        """The seed of the city for `scatter`."""
        return sum(ord(letter) * 31**i for i, letter in enumerate(self.map.name)) % 2**31 + self.map.seed


def distance_to_segments(points: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(..., segments) metres from `points` (..., 2) to each segment, given by `starts` and `ends` (segments, 2)."""
    way = ends - starts
    offset = points[..., None, :] - starts
    share = np.clip((offset * way).sum(-1) / (way * way).sum(-1), 0, 1)
    return np.hypot(*np.moveaxis(offset - share[..., None] * way, -1, 0))


def house_line(scene: Scene, azimuths: np.ndarray) -> HouseLine:
    """Where rays from the viewer at `azimuths` (rays,), radians clockwise from north, leave the open ground."""
    rays = np.stack([np.sin(azimuths), np.cos(azimuths)])  # (2, rays)
    way = scene.ends - scene.starts
    length = np.hypot(way[:, 0], way[:, 1])
    unit = way / length[:, None]
    normal = np.stack([unit[:, 1], -unit[:, 0]], 1)
    along_rate, along_zero = unit @ rays, -(unit * scene.starts).sum(1)[:, None]
    across_rate, across_zero = normal @ rays, -(normal * scene.starts).sum(1)[:, None]
    enter_a, leave_a = _between(along_rate, along_zero, np.zeros((len(unit), 1)), length[:, None])
    enter_b, leave_b = _between(across_rate, across_zero, np.full((len(unit), 1), -HOUSES), HOUSES)
    nearest = scene.discs @ rays
    half = OPEN**2 - (scene.discs**2).sum(1)[:, None] + nearest**2
    chord = np.sqrt(np.maximum(half, 0))
    enter = np.concatenate([np.maximum(enter_a, enter_b), np.where(half > 0, nearest - chord, np.inf)])
    leave = np.concatenate([np.minimum(leave_a, leave_b), np.where(half > 0, nearest + chord, -np.inf)])
    enter = np.where(leave > enter, enter, np.inf)
    reached = np.zeros(len(azimuths))
    which = np.zeros(len(azimuths), int)
    while True:
        ends = np.where(enter <= reached + 1e-6, leave, 0.0)
        best = ends.argmax(0)
        farther = np.take_along_axis(ends, best[None], 0)[0]
        moved = farther > reached + 1e-6
        if not moved.any():
            break
        which, reached = np.where(moved, best, which), np.where(moved, farther, reached)
    return _fronts(scene, rays, np.minimum(reached, REACH), which, unit, normal)


def _fronts(
    scene: Scene, rays: np.ndarray, reached: np.ndarray, which: np.ndarray, unit: np.ndarray, normal: np.ndarray
) -> HouseLine:
    """The second half of `house_line`: which front each ray meets, and where along it."""
    hits = rays * reached
    strip = np.minimum(which, len(unit) - 1)
    offset = hits - scene.starts[strip].T
    along = (unit[strip].T * offset).sum(0)
    across = (normal[strip].T * offset).sum(0)
    front = scene.streets[strip] * 2 + (across > 0)
    facing = np.abs((normal[strip].T * rays).sum(0))
    disc = np.maximum(which - len(unit), 0)
    arm = hits - scene.discs[disc].T
    angle = np.arctan2(arm[0], arm[1]) % (2 * np.pi)
    on_disc = which >= len(unit)
    along = np.where(on_disc, OPEN * angle, along)
    front = np.where(on_disc, -1 - scene.crossings[disc], front)
    facing = np.where(on_disc, np.abs((arm * rays).sum(0)) / OPEN, facing)
    return HouseLine(reached, along, front, facing)


def _between(
    rate: np.ndarray, zero: np.ndarray, low: np.ndarray, high: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """The interval of t in which ``zero + t * rate`` lies between `low` and `high`: its start and its end."""
    rate = np.where(np.abs(rate) < 1e-9, 1e-9, rate)
    a, b = (low - zero) / rate, (high - zero) / rate
    return np.minimum(a, b), np.maximum(a, b)
