"""What the tiny vision-language model sees of streets: walks through other cities, looked at and written down.

As `navigation_curriculum.py`, whose documents these are with street views in the place of observations. Held out of
every document are what is held out there (both action spaces of the task under the official name, its answer format,
New York's routes) and the looks of the visual tests: the walks lead through the pretraining cities in these cities'
own looks, never in those of the nine cities of the visual-OOD test, nor in New York's. Shops keep their names here,
for they are written on the signs.

Walks come from a pool, for drawing a view takes longer than reading it. `tests/test_streets_curriculum.py` checks the
hold-outs.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..tasks import street_views
from ..virl.city import load_city
from ..virl.prompts import shown_observation
from ..virl.rails import Rail, RailPoint, rail_builder
from .documents import Document, Turn
from .navigation_curriculum import CITIES, Situation, random_position, random_space
from .navigation_curriculum import conversation as conversation_at
from .navigation_curriculum import records as records_at

POOL = 400  # walks, of thirteen views on average


@dataclass(frozen=True, eq=False)
class Walk:
    """A rail and the street views along it, one a position."""

    rail: Rail
    pictures: tuple[np.ndarray, ...]
    look: str


@cache
def pictured_walk(index: int, look: str | None) -> Walk:
    """The walk of that number in the pool. `look`, another city's, is for testing the model on what it never saw."""
    rng = random.Random(f"walk {index}")
    city = load_city(rng.choice(CITIES))
    look = look or rng.choice(CITIES)
    rail = rail_builder(city).build(rng.randrange(len(city)), rng.randrange(2**31))
    views = street_views(city, look)
    return Walk(rail, tuple(views.grid(point.geocode, point.heading) for point in rail.points), look)


def random_walk(rng: random.Random, look: str | None = None) -> Walk:
    return pictured_walk(rng.randrange(POOL), look)


def random_situation(rng: random.Random, look: str | None = None) -> Situation:
    """Any position on any walk, seen, in any action space."""
    walk = random_walk(rng, look)
    position = random_position(rng, walk.rail)
    return Situation(random_space(rng), walk.rail, position, walk.pictures[position])


def seen_as(point: RailPoint) -> str:
    """What a view shows, told without the names on the signs: they cannot be guessed from a view alone."""
    _, sign, where = point.landmark.partition(" is on your ")
    landmark = f"a sign on your {where}" if sign else "no sign"
    return f"a crossing, {landmark}" if sign or point.at_intersection else "a street"


def looking(rng: random.Random, look: str | None = None) -> Document:
    """Four views of one walk, each told in words."""
    walk = random_walk(rng, look)
    turns = []
    for position in (random_position(rng, walk.rail) for _ in range(4)):
        turns += [
            Turn("text", "View: ", picture=walk.pictures[position]),
            Turn("text", f"{seen_as(walk.rail.points[position])}\n", learn=True),
        ]
    return turns


def walking(rng: random.Random) -> Document:
    """A whole walk in the paper's prompt: everywhere what is seen, which instruction is in force, what to do."""
    space, walk = random_space(rng), random_walk(rng)
    turns = [Turn("text", space.prefix(walk.rail.instructions, "image"))]
    for k, (point, picture) in enumerate(zip(walk.rail.points, walk.pictures, strict=True), 1):
        turns += [
            Turn("text", f"O_{k}: {shown_observation(point, 'image')}\n", picture=picture),
            Turn("text", f"L_{k}: "),
            Turn("text", f"{point.observation}\n", learn=True),
            Turn("text", f"A_{k}: "),
            Turn("text", f"{space.action(point)}\n", learn=True),
        ]
    return turns


def records(rng: random.Random) -> Document:
    """A pictured position as three records, one official key each, in a random order."""
    return records_at(rng, random_situation(rng))


def conversation(rng: random.Random, most_attempts: int = 1, look: str | None = None) -> Document:
    """The paper's prompt for street views with another answer format; failed attempts as in the text curriculum."""
    return conversation_at(rng, most_attempts, random_situation(rng, look))


SKILLS = (looking, walking, records)  # the single ones


def document(rng: random.Random, progress: float) -> Document:
    """One document. `progress` (0..1) moves the mixture from single skills to conversations and retries."""
    kinds = (looking, walking, records, conversation, lambda r: conversation(r, most_attempts=2))
    early, late = (0.55, 0.20, 0.05, 0.20, 0.0), (0.10, 0.10, 0.10, 0.40, 0.30)
    weights = [(1 - progress) * a + progress * b for a, b in zip(early, late, strict=True)]
    return rng.choices(kinds, weights)[0](rng)
