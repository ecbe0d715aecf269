"""The signs of landmarks: a name for people to read and an emblem that a tiny model can read.

How they differ:
* paper, official code: photographs of real shop fronts, read by a model of 11 billion parameters.
* ours: in a view of 64 pixels a sign is about 16 pixels wide, too small for a name of 15 letters. So each sign has an
  emblem that can be derived *from the name in the instructions*, even for names and cities not in the training data:
  the initials of the first two words (7 pixels each) on two colour fields, the upper one encoding the first initial,
  the lower one the second. The code is the same in every city. Twelve colours encode 26 letters (A, M and Y share
  one), so the colours alone distinguish about 80 signs; with the letters, all signs with different initials differ.
  A badge on top has a shape and a pictogram per kind of place. ``Look.emblems`` and ``Look.sign_scale`` reduce this
  help gradually.

Letters and pictograms are from DejaVu Sans Bold, which ships with Matplotlib (free licence).
"""

from __future__ import annotations

import importlib.util
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .look import Colour, Look

WIDTH, HEIGHT = 256, 400  # pixels of a sign's picture
CODE = (  # by letter number modulo 12; neighbouring letters have distant colours
    (214, 39, 40), (31, 119, 214), (255, 196, 0), (122, 40, 150), (44, 160, 44), (255, 122, 14),
    (20, 190, 207), (226, 74, 170), (120, 72, 40), (24, 36, 110), (164, 214, 40), (128, 128, 128),
)  # fmt: skip
_KINDS = {  # Google's place type: pictogram and shape of the badge
    "cafe": ("☕", "round"),
    "restaurant": ("♨", "round"),
    "bar": ("♪", "diamond"),
    "lodging": ("☾", "square"),
    "clothing_store": ("♛", "hexagon"),
    "convenience_store": ("☰", "hexagon"),
    "store": ("★", "hexagon"),
    "pharmacy": ("✚", "square"),
    "bakery": ("❂", "round"),
    "museum": ("♜", "diamond"),
    "park": ("♣", "round"),
    "school": ("✎", "square"),
    "church": ("✝", "diamond"),
    "gym": ("♞", "hexagon"),
    "movie_theater": ("▶", "diamond"),
    "hair_care": ("✂", "hexagon"),
    "bank": ("¤", "square"),
    "post_office": ("✉", "square"),
    "gas_station": ("⚙", "hexagon"),
}
_OTHER = ("●", "round")
_SMALL_WORDS = {"the", "of", "and", "a", "at", "la", "le", "de"}


def initials(name: str) -> str:
    """One or two capitals: the initials of the first two significant words, e.g. "RB" for "Ramona's Books"."""
    words = ["".join(filter(str.isalnum, word)) for word in name.split()]
    words = [word for word in words if word] or ["?"]
    telling = [word for word in words if word.lower() not in _SMALL_WORDS] or words
    return "".join(word[0].upper() for word in telling[:2])


def code_colours(name: str) -> tuple[Colour, Colour]:
    """The colours of the upper and the lower field of a sign: one for each initial."""
    letters = [unicodedata.normalize("NFD", letter)[0] for letter in initials(name)]
    first, second = ((ord(letter) - ord("A")) % 12 for letter in (letters[0], letters[-1]))
    return CODE[first], CODE[second]


@lru_cache(maxsize=2048)
def draw_sign(name: str, types: tuple[str, ...], look: Look) -> Image.Image:
    """The front of a sign, RGBA, `WIDTH` x `HEIGHT` pixels, transparent around the badge."""
    image = Image.new("RGBA", (WIDTH, HEIGHT), (*look.plate, 0))
    draw = ImageDraw.Draw(image)
    top = 76
    draw.rounded_rectangle((0, top, WIDTH - 1, HEIGHT - 1), 18, fill=(*look.plate, 255))
    pictogram, shape = next((_KINDS[kind] for kind in types if kind in _KINDS), _OTHER)
    _draw_badge(draw, pictogram, shape, look)
    if look.emblems == "name":
        _write(draw, _lines(name, 4), (16, top + 20, WIDTH - 16, HEIGHT - 20), look.ink)
        return image
    upper, lower = code_colours(name) if look.emblems == "coded" else (look.awnings[0], look.awnings[-1])
    edge = 10
    draw.rectangle((edge, top + 18, WIDTH - edge - 1, 248), fill=(*upper, 255))
    draw.rectangle((edge, 248, WIDTH - edge - 1, 298), fill=(*lower, 255))
    _write(draw, [initials(name)], (edge + 12, top + 26, WIDTH - edge - 12, 242), _contrast(upper), heaviest=170)
    _write(draw, _lines(name, 2), (14, 302, WIDTH - 14, HEIGHT - 8), look.ink)
    return image


@lru_cache(maxsize=64)
def draw_back(look: Look) -> Image.Image:
    """The back of any sign of a city: the bare plate with its struts."""
    image = Image.new("RGBA", (WIDTH, HEIGHT), (*look.plate, 0))
    draw = ImageDraw.Draw(image)
    grey = tuple(int(0.5 * channel + 60) for channel in look.plate)
    draw.rounded_rectangle((0, 76, WIDTH - 1, HEIGHT - 1), 18, fill=(*grey, 255))
    for y in (150, 320):
        draw.rectangle((14, y, WIDTH - 15, y + 12), fill=(*(int(0.7 * channel) for channel in grey), 255))
    return image


def _draw_badge(draw: ImageDraw.ImageDraw, pictogram: str, shape: str, look: Look) -> None:
    centre, radius = (WIDTH / 2, 48), 46
    if shape == "round":
        draw.ellipse((centre[0] - radius, 2, centre[0] + radius, 2 + 2 * radius), fill=(*look.plate, 255))
    else:
        sides, turn = {"diamond": (4, 45), "square": (4, 0), "hexagon": (6, 0)}[shape]
        draw.regular_polygon((*centre, radius * (1 if turn else 1.1)), sides, turn, fill=(*look.plate, 255))
    font = _font(54)
    left, top, right, bottom = draw.textbbox((0, 0), pictogram, font=font)
    place = (centre[0] - (left + right) / 2, centre[1] - (top + bottom) / 2)
    draw.text(place, pictogram, font=font, fill=(*look.ink, 255))


def _contrast(ground: Colour) -> Colour:
    """White or near-black, whichever is easier to read on `ground`."""
    return (255, 255, 255) if np.dot(ground, (0.299, 0.587, 0.114)) < 165 else (24, 24, 28)


def _lines(name: str, most: int) -> list[str]:
    """`name` broken between words into at most `most` lines, the longest as short as possible."""
    words = name.split()
    best = [name]
    for breaks in range(1, 1 << (len(words) - 1)) if len(words) <= 8 else ():
        lines = [words[0]]
        for i, word in enumerate(words[1:]):
            if breaks >> i & 1:
                lines.append(word)
            else:
                lines[-1] += f" {word}"
        if len(lines) <= most and max(map(len, lines)) < max(map(len, best)):
            best = lines
    return best


def _write(
    draw: ImageDraw.ImageDraw, lines: Sequence[str], box: tuple[int, int, int, int], ink: Colour, heaviest: int = 90
) -> None:
    """`lines` centred in `box` (left, top, right, bottom), as large as fits, at most `heaviest` pixels."""
    left, top, right, bottom = box
    size = heaviest
    while size > 8:
        boxes = [draw.textbbox((0, 0), line, font=_font(size)) for line in lines]
        height = boxes[0][3] - boxes[0][1] if len(lines) == 1 else 1.12 * size * len(lines)
        if max(b[2] - b[0] for b in boxes) <= right - left and height <= bottom - top:
            break
        size -= 2
    middle = (top + bottom) / 2
    for i, (line, extent) in enumerate(zip(lines, boxes, strict=True)):
        y = middle - (extent[1] + extent[3]) / 2 if len(lines) == 1 else middle + 1.12 * size * (i - len(lines) / 2)
        draw.text(((left + right - extent[0] - extent[2]) / 2, y), line, font=_font(size), fill=(*ink, 255))


@lru_cache(maxsize=128)
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Locate the font without importing Matplotlib, which would take longer than drawing a view.
    origin = importlib.util.find_spec("matplotlib").origin
    return ImageFont.truetype(str(Path(origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"), size)
