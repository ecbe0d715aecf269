"""The map of a walk: the streets, the way walked so far, and where one stands and looks. North is up."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ..figures.maps import LAND, street_map
from ..figures.style import INK
from .walk import Walk

SIDE, DPI = 4.2, 110  # of the map, inches and pixels per inch
WALKED, HERE = "#0072b2", "#d55e00"


def draw_map(walk: Walk) -> np.ndarray | None:
    """The map, uint8, (height, width, 3); None if the city has no streets to draw. The way ahead is not on it."""
    scene = walk.scene()
    if scene is None:
        return None
    figure = Figure(figsize=(SIDE, SIDE), facecolor=LAND)
    axes = figure.add_axes((0, 0, 1, 1))
    path = street_map(axes, walk.path, scene, walk.position, WALKED, SIDE, ahead=walk.arrived)
    x, y = path[walk.position]
    axes.plot(x, y, marker="o", markersize=21, color="white", markeredgecolor=INK, markeredgewidth=1.2, zorder=11)
    axes.plot(x, y, marker=(3, 0, -walk.heading), markersize=15, color=HERE, markeredgecolor=INK, zorder=12)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return np.asarray(Image.open(file).convert("RGB"))
