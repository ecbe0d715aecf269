"""Pictures of hands: four cards side by side, at any resolution and reading difficulty (paper A.1).

How they differ:
* official code: 1200 x 1200 pixels of green (#35654d); four cards of 270 x 378 in a row across the middle, the
  i-th at x = 5 + int(297 i); always straight, clean and in one place.
* ours: the same table, proportions and row, each card centred in its quarter of the width. Any canvas size, at
  the expense of the empty table above and below. Cards narrower than `JUMBO_BELOW` pixels show only a large rank
  and its suit, so that a small vision model can read them. A `Look` sets the print and how untidily cards lie,
  and so how hard they are to read.

Faces are cached: drawing a hand of cached faces takes a fraction of a millisecond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from ..attempts import check_choice
from .card_faces import CORNER, FONTS, HEIGHT, WIDTH, Colour, Sheet, jumbo_face, number_face
from .courts import court_face, tint
from .rules import FACES, RANKS, SUITS

IMAGE_SIZE = (64, 128)  # height, width in pixels: input of a small model
PICTURE_SIZE = (420, 1200)  # for people: the official width, without the empty table above and below
STYLES = ("auto", "classic", "jumbo")
JUMBO_BELOW = 64  # card width in pixels below which "auto" draws jumbo faces
MIN_SIZE, MAX_SIZE = (16, 32), (4096, 4096)

_CARD_SHARE = 0.9  # card size as a share of its quarter of the canvas; officially 270 of 300
_TILT, _SHRINK = 20.0, 0.35  # degrees, and share of the size, at jitter=1
_RED = SUITS["red"]


def _colour(name: str) -> Colour:
    return ImageColor.getrgb(name)[:3]


@dataclass(frozen=True)
class Look:
    """How cards are printed and laid out. The defaults are easy to read; each of the last four fields makes it harder.

    table, paper, black, red: colours in any form that Pillow accepts ("#35654d", "white").
    style: "classic" (pips, courts, corner indices), "jumbo" (a large rank and its suit), or "auto" by size.
    fonts: typefaces of the ranks, keys of `FONTS`; with several, one is drawn at random per card.
    jitter: 0 (a straight row) to 1: each card is rotated by up to 20 degrees, shrunk by up to 35 % and moved anywhere
        within its quarter of the canvas.
    fade: 0 (full ink) to 0.99: how far the ink is blended towards the paper.
    noise: standard deviation of the noise on every pixel and channel, in grey levels (0-255).

    Raises ValueError for an unknown colour, style or font, or a number out of range.
    """

    table: str = "#35654d"
    paper: str = "#fbf9f3"
    black: str = "#16181d"
    red: str = "#c01f2e"
    style: str = "auto"
    fonts: tuple[str, ...] = ("serif",)
    jitter: float = 0.0
    fade: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("table", "paper", "black", "red"):
            _colour(getattr(self, name))
        check_choice("style", self.style, STYLES)
        if not isinstance(self.fonts, tuple) or not self.fonts:
            raise ValueError(f"fonts must be a tuple of names such as ('serif',), got {self.fonts!r}.")
        for font in self.fonts:
            check_choice("font", font, tuple(FONTS))
        for name, below in (("jitter", 1.0), ("fade", 0.99), ("noise", 255.0)):
            if not 0 <= getattr(self, name) <= below:
                raise ValueError(f"{name} must be between 0 and {below:g}, got {getattr(self, name)!r}.")


TIDY = Look()  # for people and for documents
UNTIDY = Look(fonts=("serif", "sans", "times"), jitter=0.5, noise=8.0)  # default of the image environment


def draw_hand(
    cards: Sequence[str],
    suits: Sequence[str],
    size: tuple[int, int] = IMAGE_SIZE,
    look: Look = TIDY,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """The picture of a hand: uint8, (height, width, 3).

    cards: ranks such as "10" or "K"; suits: "spades", "clubs", "hearts" or "diamonds" for each; size: height and
    width in pixels. `rng` draws jitter, fonts and noise: the same generator state gives the same picture. With
    `None`, the cards lie in a straight row, in the look's first font and without noise.

    Raises ValueError for an unknown rank or suit, or for a canvas below 16 x 32 or above 4096 x 4096.
    """
    height, width = check_size(size)
    if len(cards) != len(suits) or not cards:
        raise ValueError(f"Every card needs its suit, got {list(cards)!r} and {list(suits)!r}.")
    cell = width / len(cards)
    card = _card_width(height, cell)
    scale = 1 if card >= 100 else 2  # small pictures are composed at twice their size, then halved
    canvas = Image.new("RGB", (width * scale, height * scale), _colour(look.table))
    for i, (rank, suit) in enumerate(zip(cards, suits, strict=True)):
        font = look.fonts[0] if rng is None else look.fonts[int(rng.integers(len(look.fonts)))]
        face = _face(rank, suit, round(card * scale), _style(look, card), font, look.paper, _ink(look, suit), look.fade)
        lie = (0.0, 1.0, 0.0, 0.0) if rng is None or not look.jitter else _lie(rng, look.jitter, cell, height, card)
        _lay(canvas, face, (i + 0.5) * cell * scale, height * scale / 2, scale, *lie)
    if scale > 1:
        canvas = canvas.reduce(scale)
    picture = np.array(canvas)
    if rng is not None and look.noise:
        grain = rng.standard_normal(picture.shape, dtype=np.float32)
        picture = np.clip(picture + grain * np.float32(look.noise), 0, 255).astype(np.uint8)
    return picture


def draw_card(rank: str, suit: str, width: int = 250, look: Look = TIDY, font: str | None = None) -> Image.Image:
    """One upright card as an RGBA picture, `width` pixels wide, transparent outside its rounded corners."""
    font = check_choice("font", font or look.fonts[0], tuple(FONTS))
    return _face(rank, suit, width, _style(look, width), font, look.paper, _ink(look, suit), look.fade).copy()


def check_size(size: tuple[int, int]) -> tuple[int, int]:
    """`size` as (height, width). Raises ValueError unless it is two whole numbers in range."""
    whole = isinstance(size, (tuple, list)) and len(size) == 2 and all(type(n) is int for n in size)
    if not whole or not all(low <= n <= high for low, n, high in zip(MIN_SIZE, size, MAX_SIZE, strict=True)):
        raise ValueError(f"An image size is (height, width), {MIN_SIZE} to {MAX_SIZE} pixels, got {size!r}.")
    return tuple(size)


def _card_width(height: int, cell: float) -> float:
    return _CARD_SHARE * min(cell, height * WIDTH / HEIGHT)


def _style(look: Look, card_width: float) -> str:
    if look.style != "auto":
        return look.style
    return "jumbo" if card_width < JUMBO_BELOW else "classic"


def _ink(look: Look, suit: str) -> str:
    return look.red if suit in _RED else look.black


def _lie(
    rng: np.random.Generator, jitter: float, cell: float, height: int, card: float
) -> tuple[float, float, float, float]:
    """A random pose of one card: angle (radians), size (1 is full), and offset right and down (pixels).

    The size is reduced if necessary to keep the rotated card within its quarter of the canvas.
    """
    turn, shrink, right, down = rng.uniform(-1, 1, size=4)
    angle = math.radians(_TILT * jitter * turn)
    sine, cosine = abs(math.sin(angle)), math.cos(angle)
    wide = card * cosine + card * HEIGHT / WIDTH * sine  # bounding box of the rotated card
    high = card * sine + card * HEIGHT / WIDTH * cosine
    size = min(1 - _SHRINK * jitter * (shrink + 1) / 2, cell / wide, height / high)
    return angle, size, jitter * right * (cell - size * wide) / 2, jitter * down * (height - size * high) / 2


def _lay(
    canvas: Image.Image, face: Image.Image, x: float, y: float, scale: int, angle: float, size: float, right: float,
    down: float,
) -> None:  # fmt: skip
    """Paste a face with its centre at (x, y) plus the offset, rotated and shrunk."""
    x, y = x + right * scale, y + down * scale
    if angle == 0 and size == 1:
        corner = round(x - face.width / 2), round(y - face.height / 2)
        canvas.paste(face, corner, face)
        return
    sine, cosine = math.sin(angle), math.cos(angle)
    wide = size * (face.width * cosine + face.height * abs(sine))
    high = size * (face.width * abs(sine) + face.height * cosine)
    left, top = math.floor(x - wide / 2), math.floor(y - high / 2)
    box = math.ceil(wide) + 1, math.ceil(high) + 1
    # Pillow wants the inverse map, from box pixels to face pixels: rotate back and enlarge about the centres.
    a, b = cosine / size, sine / size
    dx, dy = x - left, y - top
    inverse = (a, b, face.width / 2 - a * dx - b * dy, -b, a, face.height / 2 + b * dx - a * dy)
    # Bilinear is good enough at twice the size, and interpolation is most of the cost of an untidy hand.
    smooth = Image.Resampling.BICUBIC if scale == 1 else Image.Resampling.BILINEAR
    laid = face.transform(box, Image.Transform.AFFINE, inverse, smooth)
    canvas.paste(laid, (left, top), laid)


@lru_cache(maxsize=512)
def _face(rank: str, suit: str, width: int, style: str, font: str, paper: str, ink: str, fade: float) -> Image.Image:
    """One card, RGBA, drawn at several times its size and scaled down."""
    check_choice("rank", rank, RANKS)
    check_choice("suit", suit, SUITS["any"])
    finer = max(4, math.ceil(480 / width))
    paper_colour = _colour(paper)
    ink_colour = tint(_colour(ink), paper_colour, fade)
    sheet = Sheet(width * finer, paper_colour)
    if style == "jumbo":
        jumbo_face(sheet, rank, suit, font, ink_colour)
    elif rank in FACES:
        court_face(sheet, rank, suit, font, ink_colour, paper_colour)
    else:
        number_face(sheet, rank, suit, font, ink_colour, paper_colour)
    corners = Image.new("L", sheet.image.size)
    outline = (0, 0, sheet.image.width - 1, sheet.image.height - 1)
    ImageDraw.Draw(corners).rounded_rectangle(outline, CORNER * sheet.scale, fill=255)
    sheet.image.putalpha(corners)
    return sheet.image.resize((width, round(width * HEIGHT / WIDTH)), Image.Resampling.BOX)
