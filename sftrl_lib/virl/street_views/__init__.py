"""Street views: panoramas of generated cities and of official folders, and the 2x2 grids shown to the model."""

from .look import LOOKS, Look, look_of
from .panorama import FOV, LAYOUTS, Panorama, crop, grid
from .signs import code_colours, draw_sign, initials
from .sources import StreetViews, open_street_views, shared_street_views, write_street_views

__all__ = [
    "FOV",
    "LAYOUTS",
    "LOOKS",
    "Look",
    "Panorama",
    "StreetViews",
    "code_colours",
    "crop",
    "draw_sign",
    "grid",
    "initials",
    "look_of",
    "open_street_views",
    "shared_street_views",
    "write_street_views",
]
