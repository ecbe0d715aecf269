"""Perspective views of an equirectangular panorama, and the grid of four shown to the model (paper appendix B).

How they differ:
* paper: a 2x2 grid, "[front, right / back, left]" in the prompt (Fig. 13).
* official code: pastes the views at -135, -45, +45 and +135 degrees from the heading, row by row, so that prompt and
  pixels disagree; 5 black pixels between them; views of 640 pixels, enlarged to 1,200.
* ours: ``layout="prompt"`` follows the prompt, ``"official"`` the released order. No gap between views. The same
  geometry: the middle column of a panorama faces the compass direction 180 - rotation, positive pitch looks up, the
  focal length is half the width over tan(fov / 2). Sampling positions differ by less than half a pixel, because we
  use pixel centres and interpolate across the seam. A view much coarser than its panorama averages several samples
  per pixel, to avoid aliasing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...attempts import check_choice

FOV = 90.0  # degrees, as in the official vision configurations
LAYOUTS = {"prompt": (0.0, 90.0, 180.0, 270.0), "official": (-135.0, -45.0, 45.0, 135.0)}  # row by row
_FINEST = 4  # maximum samples per pixel along each axis


@dataclass(frozen=True, eq=False)
class Panorama:
    """An equirectangular picture, uint8 (height, width, 3), that covers the whole sphere.

    `rotation` as in the official metadata files: the middle column faces 180 - rotation degrees. Raises ValueError for
    any other dtype or shape.
    """

    pixels: np.ndarray
    rotation: float = 180.0

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3:
            raise ValueError(
                f"A panorama is uint8 of shape (height, width, 3), got {self.pixels.dtype} {self.pixels.shape}."
            )


def crop(panorama: Panorama, heading: float, pitch: float = 0.0, fov: float = FOV, size: int = 64) -> np.ndarray:
    """The square view of `size` pixels along `heading` (degrees from north), uint8 (size, size, 3).

    `pitch` in degrees, up positive; `fov` in degrees from edge to edge. Raises ValueError for a fov outside (0, 180)
    or a size below 1.
    """
    if not 0 < fov < 180:
        raise ValueError(f"fov must be between 0 and 180 degrees, got {fov!r}.")
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"size must be a whole number of pixels, got {size!r}.")
    height, width = panorama.pixels.shape[:2]
    x, above, below, weight, samples = _sampling(float(pitch), float(fov), size, height, width)
    yaw = (heading - 180.0 + panorama.rotation) / 360.0
    x = (x + np.float32(yaw % 1.0 * width)) % np.float32(width)
    column = x.astype(np.int32)
    u = (x - column)[:, None]
    column %= width  # rounding may have made x equal to the width
    after = np.where(column + 1 == width, 0, column + 1)
    flat = panorama.pixels.reshape(-1, 3)
    top = flat[above + column] * (1 - u) + flat[above + after] * u
    bottom = flat[below + column] * (1 - u) + flat[below + after] * u
    top += weight * (bottom - top)
    fine = top.reshape(size, samples, size, samples, 3)
    return (fine.mean((1, 3)) + 0.5).astype(np.uint8)


@lru_cache(maxsize=64)
def _sampling(
    pitch: float, fov: float, size: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Sample positions of a view at yaw 0: columns, offsets of two rows, the lower row's weight, samples per pixel."""
    focal = 0.5 * size / math.tan(math.radians(fov) / 2)
    covered = width / (2 * math.pi * focal)  # panorama pixels per pixel in the middle of the view
    samples = min(math.ceil(covered / 1.5), _FINEST)
    ticks = (np.arange(size * samples) + 0.5) / samples - size / 2
    right, down = np.meshgrid(ticks, ticks)
    cos, sin = math.cos(math.radians(pitch)), math.sin(math.radians(pitch))
    down, ahead = down * cos - focal * sin, down * sin + focal * cos
    longitude = np.arctan2(right, ahead)
    latitude = np.arctan2(down, np.hypot(right, ahead))
    x = (longitude / (2 * math.pi) + 0.5) * width - 0.5
    y = np.clip((latitude / math.pi + 0.5) * height - 0.5, 0, height - 1)
    row = np.minimum(y.astype(np.int32), max(height - 2, 0))
    below = np.minimum(row + 1, height - 1)
    weight = (y - row).astype(np.float32).reshape(-1, 1)
    return x.ravel().astype(np.float32), (row * width).ravel(), (below * width).ravel(), weight, samples


def grid(
    panorama: Panorama, heading: float, size: int = 64, layout: str = "prompt", fov: float = FOV, gap: int = 0
) -> np.ndarray:
    """Four views around `heading` in a 2x2 grid, uint8 (2 * size + gap, 2 * size + gap, 3); the gap is black."""
    offsets = LAYOUTS[check_choice("layout", layout, tuple(LAYOUTS))]
    image = np.zeros((2 * size + gap, 2 * size + gap, 3), np.uint8)
    for i, offset in enumerate(offsets):
        top, left = (i // 2) * (size + gap), (i % 2) * (size + gap)
        image[top : top + size, left : left + size] = crop(panorama, heading + offset, 0.0, fov, size)
    return image
