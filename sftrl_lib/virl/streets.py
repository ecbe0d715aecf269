"""Street plans in metres: crossings and the streets that join them.

Five geometries, so that headings, turns and distances differ between districts: ``grid`` (rectangular
blocks), ``diagonal`` (a grid cut by avenues at 45 degrees), ``radial`` (rings and spokes), ``hex`` (three
streets at every crossing) and ``organic`` (irregular blocks). No street is shorter than 40 m.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np

Point = tuple[float, float]  # metres east, metres north
METRES_PER_DEGREE = 111_320.0


@dataclass(frozen=True)
class District:
    """A part of a city with one street plan, turned by `rotation` degrees clockwise."""

    geometry: str  # one of `GEOMETRIES`
    rotation: float = 0.0
    size: int = 8  # crossings along one side, or rings


@dataclass(frozen=True)
class StreetPlan:
    """Crossings and the streets between them."""

    nodes: tuple[Point, ...]
    edges: tuple[tuple[int, int], ...]


def lay_out(districts: tuple[District, ...], rng: random.Random) -> StreetPlan:
    """The districts side by side from west to east, 300 m apart and not connected."""
    nodes: list[Point] = []
    edges: list[tuple[int, int]] = []
    west = 0.0
    for district in districts:
        plan = GEOMETRIES[district.geometry](district.size, rng)
        turned = [_rotate(point, district.rotation) for point in plan.nodes]
        shift = west - min(x for x, _ in turned)
        edges += [(i + len(nodes), j + len(nodes)) for i, j in plan.edges]
        nodes += [(x + shift, y) for x, y in turned]
        west = max(x for x, _ in nodes) + 300.0
    return StreetPlan(tuple(nodes), tuple(edges))


def _rotate(point: Point, degrees: float) -> Point:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return point[0] * cos + point[1] * sin, point[1] * cos - point[0] * sin


def _grid(size: int, rng: random.Random) -> StreetPlan:
    width, height = rng.uniform(70, 95), rng.uniform(95, 130)
    nodes = tuple((column * width, row * height) for row in range(size) for column in range(size))
    return StreetPlan(nodes, tuple(_grid_edges(size)))


def _diagonal(size: int, rng: random.Random) -> StreetPlan:
    block = rng.uniform(75, 100)
    nodes = tuple((column * block, row * block) for row in range(size) for column in range(size))
    avenues = set()
    for i in range(size - 1):
        avenues.add((i * size + i, (i + 1) * size + i + 1))
        avenues.add((i * size + size - 1 - i, (i + 1) * size + size - 2 - i))
        if i < size // 2:
            avenues.add(((i + size // 2 - 1) * size + i, (i + size // 2) * size + i + 1))
    return StreetPlan(nodes, (*_grid_edges(size), *sorted(avenues)))


def _grid_edges(size: int) -> list[tuple[int, int]]:
    across = [(r * size + c, r * size + c + 1) for r in range(size) for c in range(size - 1)]
    along = [(r * size + c, (r + 1) * size + c) for r in range(size - 1) for c in range(size)]
    return across + along


def _radial(size: int, rng: random.Random) -> StreetPlan:
    spokes, ring_gap = rng.choice((8, 9, 11, 12)), rng.uniform(85, 105)
    nodes: list[Point] = [(0.0, 0.0)]
    edges: list[tuple[int, int]] = []
    for ring in range(1, size + 1):
        radius = ring_gap * (ring + 0.3)  # wide enough to keep the streets of the innermost ring above 40 m
        for spoke in range(spokes):
            angle = 2 * math.pi * spoke / spokes
            nodes.append((radius * math.sin(angle), radius * math.cos(angle)))
            here = len(nodes) - 1
            edges.append((max(0, here - spokes), here))
            edges.append((here, here + 1 if spoke < spokes - 1 else here - spokes + 1))
    return StreetPlan(tuple(nodes), tuple(edges))


def _hex(size: int, rng: random.Random) -> StreetPlan:
    side = rng.uniform(75, 95)
    corners: dict[tuple[int, int], int] = {}  # rounded to 5 m, because neighbours share corners
    nodes: list[Point] = []
    edges = set()
    for row in range(size):
        for column in range(size):
            centre = (side * math.sqrt(3) * (column + row % 2 / 2), side * 1.5 * row)
            ring = []
            for k in range(6):
                angle = math.pi / 3 * k
                point = (centre[0] + side * math.sin(angle), centre[1] + side * math.cos(angle))
                key = (round(point[0] / 5), round(point[1] / 5))
                if key not in corners:
                    corners[key] = len(nodes)
                    nodes.append(point)
                ring.append(corners[key])
            edges |= {tuple(sorted(pair)) for pair in zip(ring, ring[1:] + ring[:1], strict=True)}
    return StreetPlan(tuple(nodes), tuple(sorted(edges)))


def _organic(size: int, rng: random.Random) -> StreetPlan:
    """Scattered crossings joined by their Gabriel graph: no third crossing within the circle whose
    diameter is a street."""
    spacing, scatter = 95.0, 27.0
    nodes = tuple(
        (column * spacing + rng.uniform(-scatter, scatter), row * spacing + rng.uniform(-scatter, scatter))
        for row in range(size)
        for column in range(size)
    )
    points = np.array(nodes)
    squared = ((points[:, None] - points[None]) ** 2).sum(-1)
    # crowded[i, j]: some k has d(i,k)^2 + d(j,k)^2 < d(i,j)^2; k = i and k = j give equality, never less.
    crowded = (squared[:, None, :] + squared[None, :, :] < squared[:, :, None] - 1e-6).any(-1)
    joined = np.argwhere(np.triu(~crowded, 1))
    return StreetPlan(nodes, tuple((int(i), int(j)) for i, j in joined))


GEOMETRIES = {"grid": _grid, "diagonal": _diagonal, "radial": _radial, "hex": _hex, "organic": _organic}
