"""Fig. 4: one real episode of V-IRL on a map: the route, the landmarks, the observations and the actions.

Paper: a hand-made picture of one route (The Dutch, Lola Taverna, Shuka). Ours: an episode from the transcripts. The
streets are those of the generated city, with panoramas about 10 m apart.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import matplotlib as mpl
import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

from .. import published
from ..methods import METHODS
from ..transcripts import exchanges, observation, picture_name
from ..virl.rails import SPATIAL
from ..virl.streets import METRES_PER_DEGREE
from ..virl.verifier import read_answer
from .page import feedback, heard, printable, source, wrapped
from .style import (
    GREY,
    INK,
    RC,
    RIGHT,
    SMALLEST,
    WIDTH,
    WRONG,
    Drawing,
    NothingToDraw,
    Tables,
    canvas,
    record,
    styled,
)

LAND, STREET, KERB = "#f3f1ec", "#ffffff", "#dfdbd3"
NEIGHBOURS = 13.0  # metres; panoramas closer than this are on the same street
MARGIN = 75.0  # metres around the route
CORNER = 20.0  # metres from a crossing to its landmark
SIZE = 3.35  # width of the map, inches
TEXT = 3.4  # width of the text column beside it, inches
TALLEST, SHORTEST = 5.2, 2.8  # heights of the map, which is as high as the text, inches
LINE = 0.132  # from line to line in that column, inches
CHARACTERS = 58  # in a line there


@dataclass(frozen=True)
class Step:
    """One row beside the map: a decision, or consecutive steps forward."""

    number: int  # of the decision, 0 for steps forward
    rail: tuple[int, ...]  # positions on the rail
    saw: str
    did: tuple[tuple[str, bool, str], ...]  # action, whether it was correct, the verifier's feedback


@styled
def route_on_a_map(tables: Tables) -> Drawing:
    """Fig. 4: the route of one episode in its city, its landmarks, instructions, observations and actions."""
    found = _mapped(tables)
    if found is None:
        raise NothingToDraw("it needs a transcript of experiment 'main' of which a map was stored")
    episode, scene = found
    steps = _steps(episode)
    title = f"Fig. 4 · A walk through a generated {scene['city'].split(':')[0].upper()}, instruction by instruction"
    outcome = "the destination reached" if episode.get("success") else "ended before the destination"
    subtitle = f"{source(tables.profile, episode)} · {outcome} · streets and landmarks are invented"
    rows = _rows(episode, steps)
    high = min(max(LINE * len(rows) + 0.05, SHORTEST), TALLEST)
    figure = canvas(WIDTH, high + 0.14, title, subtitle)
    figure.set_layout_engine("none")  # set by hand: inches from the bottom left
    width, height = figure.get_size_inches()
    map_axes = figure.add_axes((0.07 / width, 0.07 / height, SIZE / width, high / height))
    _draw_map(map_axes, episode, scene, steps, high)
    text_axes = figure.add_axes(((SIZE + 0.2) / width, 0.07 / height, TEXT / width, high / height))
    _draw_text(text_axes, rows, high)
    shown = [{key: value for key, value in episode.items() if key != "turns"} | {"steps": [vars(s) for s in steps]}]
    seen = (
        f"A map of the route, and beside it the instructions and what was answered. {' '.join(episode['instructions'])}"
    )
    return Drawing(figure, record("fig04", title, subtitle, tables.profile, shown, published.FIG04, seen))


def map_of(path: list, scene: dict, size: float = 4.2) -> Drawing:
    """A route on the map of its city, for notebooks: `path` in degrees, `scene` as from `Task.scene`."""
    with mpl.style.context(["default", RC]):
        figure = Figure(figsize=(size, size))
        axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
        steps = [Step(0, tuple(range(len(path))), "", ())]
        _draw_map(axes, {"path": path, "method": "rl"}, scene, steps, SIZE)
    names = [printable(leg["landmark"]) for leg in scene["legs"] if leg["landmark"]]
    alt = f"A map of {scene['city']} with a route of {len(path)} positions. Landmarks: {'; '.join(names)}."
    return Drawing(figure, {"alt": alt})


def _mapped(tables: Tables) -> tuple[dict, dict] | None:
    """The first transcript that has a stored map, and the map (see `Task.scene`); None if there is none."""
    if tables.pictures is None:
        return None
    for episode in tables.transcripts:
        path = tables.pictures / f"{picture_name(episode)}.json"
        if path.is_file():
            return episode, json.loads(path.read_text(encoding="utf-8"))
    return None


def _said(turn: dict) -> str:
    return read_answer(str(turn.get("output", ""))).get("action") or "(no action)"


def _steps(episode: dict) -> list[Step]:
    """The episode's exchanges: decisions are numbered, consecutive correct steps forward are merged."""
    steps: list[Step] = []
    decisions = 0
    for turns in exchanges(episode):
        here = int(turns[0].get("position") or 0)
        saw = observation(heard(turns[0]))
        did = tuple(
            (_said(turn), turn.get("outcome") == "correct", feedback(turns, index)) for index, turn in enumerate(turns)
        )
        if did == (("forward()", True, did[0][2]),):
            if steps and not steps[-1].number:
                steps[-1] = Step(0, (*steps[-1].rail, here), saw, did)
            else:
                steps.append(Step(0, (here,), saw, did))
        else:
            decisions += 1
            steps.append(Step(decisions, (here,), saw, did))
    return steps


class _Ground:
    """Converts latitudes and longitudes to metres east and north of the middle of a route."""

    def __init__(self, path: list) -> None:
        self._start = float(path[0][1])
        points = self._continued(path)
        self._middle = (points.min(axis=0) + points.max(axis=0)) / 2
        self._scale = np.array([METRES_PER_DEGREE * math.cos(math.radians(self._middle[0])), METRES_PER_DEGREE])

    def metres(self, geocodes: object) -> np.ndarray:
        return (self._continued(geocodes) - self._middle)[:, ::-1] * self._scale

    def _continued(self, geocodes: object) -> np.ndarray:
        """(points, 2): longitudes beyond 180 degrees go on from the route's start, not around the globe."""
        points = np.array(geocodes, float).reshape(-1, 2)
        east = points[:, 1] - self._start
        points[:, 1] -= np.where(np.abs(east) > 180, np.copysign(360.0, east), 0.0)
        return points


def _draw_map(axes: Axes, episode: dict, scene: dict, steps: list[Step], high: float) -> None:
    color, reached = METHODS[episode["method"]].color, max(place for step in steps for place in step.rail)
    path = street_map(axes, episode["path"], scene, reached, color, high=high)
    for step in steps:
        if step.number:
            x, y = path[step.rail[0]]
            clean = all(right for _, right, _ in step.did)
            axes.text(x, y, f"{step.number}", ha="center", va="center", fontsize=7, fontweight="bold",
                      color="white", zorder=8,
                      bbox={"boxstyle": "circle,pad=0.2", "facecolor": color if clean else WRONG,
                            "edgecolor": "white", "linewidth": 1.2})  # fmt: skip


def street_map(
    axes: Axes,
    route: list,
    scene: dict,
    reached: int,
    color: str,
    side: float = SIZE,
    high: float | None = None,
    ahead: bool = True,
) -> np.ndarray:
    """Draw the streets around a route, the route and its landmarks; returns the route in metres, (points, 2).

    route: latitude and longitude of every position. scene: see `Task.scene`. reached: index of the last position walked
    to. side, high: width and height of the map in inches; square by default. ahead: whether to draw what is beyond it.
    """
    ground = _Ground(route)
    path = ground.metres(route)
    reach, tall = np.abs(path).max(axis=0), (high or side) / side
    half = max(110.0, reach[0] + MARGIN, (reach[1] + MARGIN) / tall)
    axes.set(xlim=(-half, half), ylim=(-half * tall, half * tall), xticks=[], yticks=[], facecolor=LAND)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=KERB)
    street = 11.0 * 72 * side / (2 * half)  # points: 11 m, kerb to kerb
    _draw_streets(axes, ground.metres(scene["panoramas"]), half * max(tall, 1.0), street)
    if ahead:
        axes.plot(*path[reached:].T, color=color, linestyle=(0, (1.5, 1.5)), linewidth=1.4, zorder=3,
                  label="not reached")  # fmt: skip
    axes.plot(*path[: reached + 1].T, color=color, linewidth=3.2, alpha=0.9, zorder=4, solid_joinstyle="round",
              solid_capstyle="round", label="walked")  # fmt: skip
    _draw_arrows(axes, path[: reached + 1], color)
    shown = path if ahead else path[: reached + 1]
    axes.plot(*shown.T, linestyle="none", marker="o", markersize=2.8, markerfacecolor="white", markeredgecolor=color,
              markeredgewidth=1.0, zorder=6, label="positions")  # fmt: skip
    _draw_landmarks(axes, ground, path, scene["legs"], half, half * tall, side)
    _draw_scale(axes, path, half, half * tall)
    return path


def _draw_streets(axes: Axes, panoramas: np.ndarray, half: float, width: float) -> None:
    """Join neighbouring panoramas by wide pale lines, first for the kerb, then for the street."""
    near = panoramas[(np.abs(panoramas) < half + 60).all(axis=1)]
    pairs = cKDTree(near).query_pairs(NEIGHBOURS, output_type="ndarray")
    pairs = pairs[np.lexsort(pairs.T[::-1])]  # the tree guarantees no order, but files must match to the byte
    for extra, color in ((2.0, KERB), (0.0, STREET)):
        lines = LineCollection(near[pairs], colors=color, linewidths=width + extra, capstyle="round", zorder=1)
        axes.add_collection(lines)


def _draw_arrows(axes: Axes, path: np.ndarray, color: str) -> None:
    """A small arrow head in the middle of every segment that is long enough."""
    for start, end in zip(path[:-1], path[1:], strict=True):
        if np.hypot(*(end - start)) > 24:
            middle, way = (start + end) / 2, (end - start) / np.hypot(*(end - start))
            axes.annotate("", middle + 5 * way, middle - 5 * way, zorder=5,
                          arrowprops={"arrowstyle": "-|>,head_width=0.32,head_length=0.5", "color": "white",
                                      "linewidth": 0, "shrinkA": 0, "shrinkB": 0})  # fmt: skip


def _draw_landmarks(
    axes: Axes, ground: _Ground, path: np.ndarray, legs: list[dict], half: float, top: float, side: float
) -> None:
    """Each landmark with its name, at the corner where it is visible on arrival at the crossing."""
    halo = [effects.withStroke(linewidth=2.4, foreground=LAND)]
    taken: list[tuple] = []
    for leg, crossing in zip(legs, ground.metres([leg["end"] for leg in legs]), strict=True):
        if leg["landmark"] is None:
            continue
        last = leg is legs[-1]
        name, _, relation = printable(leg["landmark"]).removeprefix("The destination ").partition(" is on your ")
        turn = 45 * SPATIAL.index(relation) if relation in SPATIAL else 0
        angle = math.radians(leg["heading"] + turn)
        way = np.array([math.sin(angle), math.cos(angle)])
        place = crossing + CORNER * way
        look = {"marker": "*", "markersize": 12} if last else {"marker": "s", "markersize": 5}
        axes.plot(*place, color="#d98e00" if last else "#8c6d46", markeredgecolor="white", zorder=7,
                  label="destination" if last else "landmark", **look)  # fmt: skip
        x, y, box = _room_for(name[:40], place, way, path, half, top, side, taken)
        taken.append(box)
        axes.text(x, y, name[:40], ha="center", va="center", fontsize=7.4, fontweight="bold", zorder=9,
                  path_effects=halo, parse_math=False, color="#a86f00" if last else "#6b5233")  # fmt: skip


def _room_for(
    name: str,
    place: np.ndarray,
    way: np.ndarray,
    path: np.ndarray,
    half: float,
    top: float,
    side: float,
    taken: list,
) -> tuple:
    """Where to write a name: (x, y, box) in metres, centred on (x, y), beside, above or below its marker.

    Preferred: inside the map, then clear of other names, then clear of the route, then beside the marker, then away
    from the crossing.
    """
    unit = 2 * half / side  # metres per inch
    wide, high = 0.033 * unit * len(name), 0.075 * unit  # half of the text's width and height
    samples = np.linspace(path[:-1], path[1:], 12).reshape(-1, 2)
    options = []
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        x, y = place[0] + dx * (wide + 0.13 * unit), place[1] + dy * 0.25 * unit
        box = (x - wide, x + wide, y - high, y + high)
        outside = max(abs(box[0]), abs(box[1])) > 0.99 * half or max(abs(box[2]), abs(box[3])) > 0.99 * top
        clash = sum(box[0] < b[1] and box[1] > b[0] and box[2] < b[3] and box[3] > b[2] for b in taken)
        near = 0.15 * unit  # margin for the route's width and its numbers
        hidden = (np.abs(samples - (x, y)) < (wide + near, high + near)).all(axis=1).sum()
        options.append(((outside, clash, hidden, dx == 0, -(dx * way[0] + dy * way[1])), x, y, box))
    return min(options)[1:]


def _draw_scale(axes: Axes, path: np.ndarray, half: float, top: float) -> None:
    """A scale bar and a north arrow in the corner farthest from the route."""
    corners = [(x, y) for x in (-1, 1) for y in (-1, 1)]
    x, y = max(corners, key=lambda corner: np.hypot(*(path - 0.85 * np.array((half, top)) * corner).T).min())
    length = 100.0 if half > 160 else 50.0
    left, base = (x * 0.92 * half - (length if x > 0 else 0)), y * 0.86 * top - 0.04 * half
    box = {"facecolor": LAND, "alpha": 0.85, "edgecolor": "none", "zorder": 9}
    pad = 0.04 * half
    axes.fill_between([left - pad, left + length + pad], base - pad, base + 0.17 * half, **box)
    axes.plot([left, left + length], [base, base], color=INK, linewidth=2, solid_capstyle="butt", zorder=10)
    axes.text(left, base + 0.015 * half, f"{length:.0f} m", va="bottom", fontsize=7, zorder=10)
    north = left + length
    axes.annotate("", (north, base + 0.1 * half), (north, base + 0.015 * half), zorder=10,
                  arrowprops={"arrowstyle": "-|>", "color": INK, "shrinkA": 0, "shrinkB": 0})  # fmt: skip
    axes.text(north, base + 0.105 * half, "N", ha="center", va="bottom", fontsize=7, zorder=10)


def _rows(episode: dict, steps: list[Step]) -> list[tuple]:
    """The lines beside the map: the instructions, then the steps with observations, actions and feedback."""
    rows: list[tuple] = [(0, "Instructions", INK, "bold", "")]
    for number, sentence in enumerate(episode.get("instructions", []), start=1):
        for index, line in enumerate(wrapped(f"{number}. {sentence}", width=CHARACTERS)):
            rows.append((0 if index == 0 else 0.15, line.text, INK, "normal", ""))
    rows += [(0, "", INK, "normal", ""), (0, "What the model saw, and what it answered", INK, "bold", "")]
    color = METHODS[episode["method"]].color
    for step in steps:
        rows += _rows_of(step, color)
    room = int(TALLEST / LINE)
    if len(rows) > room:
        rows = [*rows[: room - 1], (0.22, f"[... {len(rows) - room + 1} more lines]", GREY, "normal", "")]
    return rows


def _draw_text(axes: Axes, rows: list[tuple], high: float) -> None:
    axes.set_axis_off()
    axes.set(xlim=(0, TEXT), ylim=(high, 0))
    for index, (indent, text, ink, weight, badge) in enumerate(rows):
        y = 0.02 + LINE * index
        if badge:
            axes.text(0.08, y + 0.42 * LINE, badge, ha="center", va="center", fontsize=SMALLEST, color="white",
                      fontweight="bold",
                      bbox={"boxstyle": "circle,pad=0.12", "facecolor": ink, "edgecolor": "none"})  # fmt: skip
            ink = INK
        axes.text(indent, y, text, va="top", fontsize=SMALLEST, color=ink, fontweight=weight, parse_math=False)


def _rows_of(step: Step, color: str) -> list[tuple]:
    """The lines of one step, each as (indent in inches, text, colour, weight, badge)."""
    if not step.number:
        times = f" × {len(step.rail)}" if len(step.rail) > 1 else ""
        return [(0.22, f"✓ forward(){times}", RIGHT, "normal", "")]
    clean = all(right for _, right, _ in step.did)
    seen = [line.text for line in wrapped(f"saw  {step.saw.rstrip(';')}", width=CHARACTERS - 6)][:2]
    rows = [(0.22, seen[0], color if clean else WRONG, "normal", f"{step.number}")]
    rows += [(0.22, text, INK, "normal", "") for text in seen[1:]]
    for did, right, said in step.did:
        weight, ink = "bold" if right and not clean else "normal", RIGHT if right else WRONG
        rows.append((0.22, wrapped(f"{'✓' if right else '✗'} {did}", width=CHARACTERS - 6)[0].text, ink, weight, ""))
        if said and not right:
            heard_back = wrapped(f"“{' '.join(said.split())}”", width=CHARACTERS - 8)[:2]
            rows += [(0.36, line.text, GREY, "normal", "") for line in heard_back]
    return rows
