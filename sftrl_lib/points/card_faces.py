"""The face of one playing card, drawn from our own curves: suits, pips, corner indices (paper Fig. 11, A.1).

How they differ:
* paper and official code: 52 ready-made pictures of cards, which have no licence in the released repository.
* ours: nothing is copied. Suits, pips and court figures are polygons defined here and in `courts.py`; ranks are
  set in fonts that ship with matplotlib: DejaVu (Bitstream Vera licence) and STIX (SIL Open Font Licence).

A card is 250 x 350 units, origin at its top left, y downwards. Shapes are drawn without anti-aliasing at several times
the final size, then scaled down.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 250.0, 350.0  # of a card, in units; the ratio is that of the official pictures (270 x 378)
CORNER = 15.0  # radius of a card's corners, in units
FONTS = {
    "serif": "DejaVuSerif-Bold.ttf",
    "sans": "DejaVuSans-Bold.ttf",
    "mono": "DejaVuSansMono-Bold.ttf",
    "times": "STIXGeneralBol.ttf",
}

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]

_PIP_X = {"l": 82.0, "c": 125.0, "r": 168.0}
# Pip positions on the number cards: columns and heights. Pips below the middle are upside down.
_TOP, _BOTTOM = 63.0, 287.0
_MIDDLE = (_TOP + _BOTTOM) / 2
_THIRD = (_BOTTOM - _TOP) / 3
_PIPS = {
    "2": [("c", _TOP), ("c", _BOTTOM)],
    "3": [("c", _TOP), ("c", _MIDDLE), ("c", _BOTTOM)],
    "4": [("lr", _TOP), ("lr", _BOTTOM)],
    "5": [("lr", _TOP), ("c", _MIDDLE), ("lr", _BOTTOM)],
    "6": [("lr", _TOP), ("lr", _MIDDLE), ("lr", _BOTTOM)],
    "7": [("lr", _TOP), ("c", (_TOP + _MIDDLE) / 2), ("lr", _MIDDLE), ("lr", _BOTTOM)],
    "8": [
        ("lr", _TOP),
        ("c", (_TOP + _MIDDLE) / 2),
        ("lr", _MIDDLE),
        ("c", (_MIDDLE + _BOTTOM) / 2),
        ("lr", _BOTTOM),
    ],
    "9": [("lr", _TOP), ("lr", _TOP + _THIRD), ("c", _MIDDLE), ("lr", _BOTTOM - _THIRD), ("lr", _BOTTOM)],
    "10": [
        ("lr", _TOP),
        ("c", _TOP + _THIRD / 2),
        ("lr", _TOP + _THIRD),
        ("lr", _BOTTOM - _THIRD),
        ("c", _BOTTOM - _THIRD / 2),
        ("lr", _BOTTOM),
    ],
}


def curve(*points: tuple[float, float], steps: int = 24) -> list[tuple[float, float]]:
    """A chain of cubic Bezier curves as a polygon: a start point, then two control points and an end per curve."""
    t = np.linspace(0, 1, steps)[:, None]
    drawn = [points[0]]
    for i in range(0, len(points) - 1, 3):
        a, b, c, d = (np.array(point) for point in points[i : i + 4])
        path = (1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t**2 * (1 - t) * c + t**3 * d
        drawn += [(float(x), float(y)) for x, y in path[1:]]
    return drawn


def mirrored(half: Points) -> list[tuple[float, float]]:
    """The polygon of `half` and its mirror image about x = 0."""
    return [*half, *((-x, y) for x, y in reversed(half))]


def _circle(cx: float, cy: float, radius: float) -> list[tuple[float, float]]:
    angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    return [(cx + radius * math.cos(a), cy + radius * math.sin(a)) for a in angles]


_STEM = mirrored(curve((0.03, 0.1), (0.03, 0.3), (0.07, 0.42), (0.18, 0.5)))
# Each suit is a list of polygons, centred at (0, 0) and of height 1.
_SUITS = {
    "hearts": [
        mirrored(
            curve(
                (0, 0.5), (0.12, 0.28), (0.5, 0.08), (0.5, -0.22), (0.5, -0.4), (0.38, -0.5), (0.25, -0.5),
                (0.13, -0.5), (0.03, -0.42), (0, -0.28),
            )
        )  # fmt: skip
    ],
    "diamonds": [
        mirrored(curve((0, -0.5), (0.1, -0.3), (0.26, -0.1), (0.38, 0), (0.26, 0.1), (0.1, 0.3), (0, 0.5)))
    ],
    "spades": [
        mirrored(
            curve(
                (0, -0.5), (0.1, -0.3), (0.47, -0.1), (0.47, 0.14), (0.47, 0.3), (0.35, 0.37), (0.24, 0.37),
                (0.13, 0.37), (0.04, 0.3), (0, 0.2),
            )
        ),
        _STEM,
    ],  # fmt: skip
    "clubs": [
        _circle(0, -0.265, 0.235),
        _circle(-0.265, 0.115, 0.235),
        _circle(0.265, 0.115, 0.235),
        [(-0.1, -0.15), (0.1, -0.15), (0.2, 0.1), (0.1, 0.2), (-0.1, 0.2), (-0.2, 0.1)],
        _STEM,
    ],
}  # fmt: skip


class Sheet:
    """A drawing surface of 250 x 350 units, `width` pixels wide. No anti-aliasing: draw large, then scale down."""

    def __init__(self, width: int, paper: Colour) -> None:
        self.scale = width / WIDTH
        self.image = Image.new("RGB", (width, round(HEIGHT * self.scale)), paper)
        self._draw = ImageDraw.Draw(self.image)

    def shape(self, points: Points, fill: Colour | None, line: Colour | None = None, width: float = 1.5) -> None:
        """A filled polygon, with an outline of `width` units in colour `line` if one is given."""
        pixels = self._pixels(points)
        if fill is not None:
            self._draw.polygon(pixels, fill=fill)
        if line is not None:
            self.stroke([*points, points[0], points[1]], line, width)

    def stroke(self, points: Points, line: Colour, width: float = 1.5) -> None:
        """An open line of `width` units."""
        self._draw.line(self._pixels(points), fill=line, width=max(1, round(width * self.scale)), joint="curve")

    def dot(self, cx: float, cy: float, radius: float, fill: Colour, line: Colour | None = None) -> None:
        """A disc."""
        self.shape(_circle(cx, cy, radius), fill, line)

    def suit(
        self, suit: str, cx: float, cy: float, height: float, fill: Colour, hanging: bool = False, stem: bool = True
    ) -> None:
        """One suit symbol, `height` units high, centred at (cx, cy); upside down if `hanging`, with or without stem."""
        size = -height if hanging else height
        for polygon in _SUITS[suit]:
            if polygon is _STEM and not stem:
                continue
            self.shape([(cx + size * x, cy + size * y) for x, y in polygon], fill)

    def rank(self, rank: str, font: str, cx: float, cy: float, width: float, height: float, fill: Colour) -> None:
        """The rank, `height` units high and centred at (cx, cy); condensed if it would be wider than `width`."""
        letters = _letters(rank, font)
        high = max(1, round(height * self.scale))
        wide = min(letters.width * high / letters.height, width * self.scale)
        letters = letters.resize((max(1, round(wide)), high), Image.Resampling.BOX)
        corner = round(cx * self.scale - letters.width / 2), round(cy * self.scale - letters.height / 2)
        self.image.paste(fill, corner, letters)

    def turn(self) -> None:
        """Rotate the sheet by 180 degrees."""
        self.image = self.image.transpose(Image.Transpose.ROTATE_180)
        self._draw = ImageDraw.Draw(self.image)

    def _pixels(self, points: Points) -> list[tuple[float, float]]:
        return [(x * self.scale, y * self.scale) for x, y in points]


@lru_cache(maxsize=128)
def _letters(rank: str, font: str) -> Image.Image:
    """The rank as a large greyscale mask, cropped to its ink."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / FONTS[font]
    face = ImageFont.truetype(str(path), 400, layout_engine=ImageFont.Layout.BASIC)
    mask = Image.new("L", (1200, 800))
    pen, x = ImageDraw.Draw(mask), 100.0
    for letter in rank:
        pen.text((x, 100), letter, fill=255, font=face)
        x += face.getlength(letter) * (0.86 if len(rank) > 1 else 1)  # tight kerning for the 10, as on real cards
    return mask.crop(mask.getbbox())


def index(sheet: Sheet, rank: str, suit: str, font: str, ink: Colour) -> None:
    """Rank and suit in the top left corner."""
    sheet.rank(rank, font, 25, 33, 33, 36, ink)
    sheet.suit(suit, 25, 70, 27, ink)


def number_face(sheet: Sheet, rank: str, suit: str, font: str, ink: Colour, paper: Colour) -> None:
    """An ace or a number card: pips in their traditional positions, and both corner indices."""
    for _ in range(2):  # once per corner: the sheet is rotated in between
        index(sheet, rank, suit, font, ink)
        sheet.turn()
    if rank == "A":
        for height, fill in ((150, ink), (112, paper), (80, ink)):
            sheet.suit(suit, WIDTH / 2, HEIGHT / 2, height, fill, stem=fill == ink)
        return
    for column, y in _pips(rank):
        sheet.suit(suit, _PIP_X[column], y, 48, ink, hanging=y > _MIDDLE + 1)


def _pips(rank: str) -> Iterable[tuple[str, float]]:
    return ((column, y) for columns, y in _PIPS[rank] for column in columns)


def jumbo_face(sheet: Sheet, rank: str, suit: str, font: str, ink: Colour) -> None:
    """A card for small pictures: only the rank, as large as possible, and the suit beneath it."""
    tail = 14 if rank in ("J", "Q") else 0  # descender below the baseline
    sheet.rank(rank, font, WIDTH / 2, 116 + tail / 2, 206, 176 + tail, ink)
    sheet.suit(suit, WIDTH / 2, 272, 104, ink)
