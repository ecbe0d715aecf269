"""Pretraining documents about street views for the tiny vision-language model: walks through other cities.

The documents are those of `virl_l_curriculum.py` with street views in place of observations. Every document holds out
the same things (both action spaces of the task under the official name, its answer format, New York's routes) and the
looks of the visual tests: walks lead through the pretraining cities in these cities' own looks, never in those of the
nine cities of the visual-OOD test or New York's. Shops keep their names here, because the names are on the signs.

Walks come from a pool, because drawing a view takes longer than training on it. `tests/test_virl_vl_curriculum.py`
checks the hold-outs.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..virl.city import load_city
from ..virl.prompts import shown_observation
from ..virl.rails import SPATIAL, Rail, RailPoint, rail_builder
from ..virl.street_views import StreetViews, shared_street_views
from . import virl_l_curriculum
from .documents import Document, Turn, mixture
from .virl_l_curriculum import CITIES, Situation, random_position, random_space
from .virl_l_curriculum import conversation as conversation_at
from .virl_l_curriculum import records as records_at

POOL = 400  # walks, thirteen views each on average
LOOKING = 0.2  # first share of pretraining, in which all documents are of the kind `looking`


@dataclass(frozen=True, eq=False)
class Walk:
    """A rail and the street views along it."""

    rail: Rail
    views: StreetViews
    look: str

    def picture(self, position: int) -> np.ndarray:
        """The 2 x 2 grid of views at a position, uint8, height x width x 3. Shared: do not write into it."""
        point = self.rail.points[position]
        return self.views.grid(point.geocode, point.heading)


@cache
def pictured_walk(index: int, look: str | None) -> Walk:
    """The walk of that number in the pool; `look`, another city's, tests on a look held out of pretraining."""
    rng = random.Random(f"walk {index}")
    city = load_city(rng.choice(CITIES))
    look = look or rng.choice(CITIES)
    rail = rail_builder(city).build(rng.randrange(len(city)), rng.randrange(2**31))
    return Walk(rail, shared_street_views(city, look), look)


def random_walk(rng: random.Random, look: str | None = None) -> Walk:
    """A random walk of the pool; with `look` one of the first 40, because each must be drawn again in that look."""
    return pictured_walk(rng.randrange(POOL if look is None else min(POOL, 40)), look)


def random_situation(rng: random.Random, look: str | None = None) -> Situation:
    """A random position on a random walk, with its picture, in a random action space."""
    walk = random_walk(rng, look)
    position = random_position(rng, walk.rail)
    return Situation(random_space(rng), walk.rail, position, walk.picture(position))


def seen_as(point: RailPoint) -> str:
    """The one-word label of a view: "street", "crossing" or, if there is a sign, its direction (one of `SPATIAL`)."""
    _, sign, where = point.landmark.partition(" is on your ")
    return where if sign else "crossing" if point.at_intersection else "street"


def turned(picture: np.ndarray, quarters: int) -> np.ndarray:
    """`picture` as seen after `quarters` quarter turns to the right; both are (height, width, 3)."""
    half = len(picture) // 2
    views = [picture[row : row + half, column : column + half] for row in (0, half) for column in (0, half)]
    ahead, right, back, left = (views[(i + quarters) % 4] for i in range(4))
    return np.vstack([np.hstack([ahead, right]), np.hstack([back, left])])


def looking(rng: random.Random, look: str | None = None) -> Document:
    """Four views with their one-word labels; most have a sign, because learning to locate one takes many examples.

    Quarter turns of a view move its sign at no cost. No view is from the start of a walk, where a crossing may not be
    marked as one.
    """
    turns = []
    for wanted in rng.choices((SPATIAL, ("crossing",), ("street",)), (3, 1, 1), k=4):
        places: list[int] = []
        while not places:
            walk = random_walk(rng, look)
            places = [i for i, point in enumerate(walk.rail.points) if i and seen_as(point) in wanted]
        place, quarters = rng.choice(places), rng.randrange(4)
        label = seen_as(walk.rail.points[place])
        if label in SPATIAL:
            label = SPATIAL[(SPATIAL.index(label) - 2 * quarters) % len(SPATIAL)]
        turns += [
            Turn("text", "View: ", picture=turned(walk.picture(place), quarters)),
            Turn("text", f"{label}\n", learn=True),
        ]
    return turns


def walking(rng: random.Random) -> Document:
    """A whole walk in the paper's prompt: per position the views, the observation in words and the action."""
    space, walk = random_space(rng), random_walk(rng)
    turns = [Turn("text", space.prefix(walk.rail.instructions, "image"))]
    for k, point in enumerate(walk.rail.points, 1):
        turns += [
            Turn("text", f"O_{k}: {shown_observation(point, 'image')}\n", picture=walk.picture(k - 1)),
            Turn("text", f"L_{k}: "),
            Turn("text", f"{point.observation}\n", learn=True),
            Turn("text", f"A_{k}: "),
            Turn("text", f"{space.action(point)}\n", learn=True),
        ]
    return turns


def records(rng: random.Random) -> Document:
    """A position with its picture as three records, one official key each, in random order."""
    return records_at(rng, random_situation(rng))


def conversation(rng: random.Random, most_attempts: int = 1, look: str | None = None) -> Document:
    """The paper's prompt for street views with another answer format; failed attempts as in the text curriculum."""
    return conversation_at(rng, most_attempts, random_situation(rng, look))


SKILLS = (looking, walking, records)  # the single skills


def document(rng: random.Random, progress: float) -> Document:
    """One document. `progress` (0..1) moves the mixture from single views to conversations and retries.

    Text-only navigation stays in the mixture to avoid forgetting.
    """
    if progress < LOOKING:
        return looking(rng)
    return mixture(
        rng,
        progress,
        (looking, 0.15, 0.10),
        (walking, 0.35, 0.20),
        (records, 0.05, 0.10),
        (conversation, 0.25, 0.25),
        (lambda r: conversation(r, most_attempts=2), 0.00, 0.15),
        (lambda r: virl_l_curriculum.document(r, 1.0), 0.20, 0.20),
    )
