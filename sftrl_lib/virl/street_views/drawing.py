"""Draw a `Scene` as an equirectangular panorama: sky, ground, houses, then trees and signs from far to near.

The middle column faces north, the middle row is the horizon. Everything is a function of (city, seed, place, look).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .boards import draw_boards
from .facades import paint_facades
from .look import Look
from .scene import CORNER, HOUSES, KERB, REACH, ROAD, ZEBRA, Scene, distance_to_segments, house_line, scatter

CAMERA = 2.4  # metres above the ground, as on a survey car
# (from, to, stride), in metres: ground at these distances is drawn with only the streets near it, and next to the
# camera, where columns are dense, in every fourth column only.
_BLOCKS = ((0.0, 2.4, 4), (2.4, 16.0, 1), (16.0, 45.0, 1), (45.0, REACH, 1))


def draw_panorama(scene: Scene, look: Look, seed: int, width: int, altitude: float = 90.0) -> np.ndarray:
    """The panorama, uint8, (width // 2, width, 3). `seed` identifies the city, see `Surroundings.seed`.

    `altitude`: degrees above and below the horizon that are drawn; the rest is black.
    """
    height = width // 2
    azimuths = ((np.arange(width) + 0.5) / width - 0.5) * 2 * np.pi
    altitudes = (0.5 - (np.arange(height) + 0.5) / height) * np.pi
    # Draw one more row at the border, because views interpolate between rows.
    drawn = np.abs(altitudes) <= np.radians(altitude) + np.pi / height
    slopes = np.tan(altitudes[drawn])  # rise over run of each row
    line = house_line(scene, azimuths)
    image = sky(look, seed, width)[drawn]
    _paint_ground(image, scene, look, seed, azimuths, slopes, line.distance)
    paint_facades(image, scene, look, seed, azimuths, slopes, line, CAMERA)
    draw_boards(image, scene, look, azimuths, slopes, line.distance, CAMERA)
    panorama = np.zeros((height, width, 3), np.uint8)
    panorama[drawn] = np.clip(image + 0.5, 0, 255)
    return panorama


@lru_cache(maxsize=16)
def sky(look: Look, seed: int, width: int) -> np.ndarray:
    """Sky, clouds and skyline, float32, (width // 2, width, 3); rows below the horizon have the horizon's colour."""
    height = width // 2
    azimuths = ((np.arange(width) + 0.5) / width - 0.5) * 2 * np.pi
    altitude = (0.5 - (np.arange(height) + 0.5) / height) * 180
    top, low = (np.array(colour, np.float32) for colour in look.sky)
    share = np.clip(altitude / 75, 0, 1)[:, None, None] ** 0.65
    image = np.broadcast_to(low + share * (top - low), (height, width, 3)).astype(np.float32)
    cover = _clouds(azimuths, altitude, look.clouds, seed)
    bright = low * 0.35 + 0.65 * np.array((255, 252, 248), np.float32) * min(1.0, look.light + 0.08)
    image = image + (cover * (0.9 - 0.35 * look.clouds))[..., None] * (bright - image)
    for layer, (lift, haze) in enumerate(((1.0, 0.72), (0.62, 0.5))):
        blocks = np.floor((azimuths + np.pi) * (16 + 9 * layer)).astype(int)
        rise = look.skyline * lift * (0.35 + 0.65 * scatter(seed, 11 + layer, blocks) ** 2)
        tone = np.array(look.facades[layer % len(look.facades)], np.float32) * 0.75 * look.light
        tone = tone + haze * (low * 0.92 - tone)
        edge = np.clip((rise[None] - altitude[:, None]) * height / 180 + 0.5, 0, 1)
        image = image + edge[..., None] * (tone - image)
    return image.astype(np.float32)


def _clouds(azimuths: np.ndarray, altitude: np.ndarray, cover: float, seed: int) -> np.ndarray:
    """(rows, columns) cloud cover, 0 to 1: octaves of value noise on a flat layer above the city."""
    slope = np.tan(np.radians(np.maximum(altitude, 3.0)))
    x = np.sin(azimuths)[None] / slope[:, None] * 1.6
    y = np.cos(azimuths)[None] / slope[:, None] * 1.6
    total = np.zeros_like(x)
    for octave in range(4):
        scale = 2.0**octave * 0.7
        total += _value_noise(x * scale, y * scale, seed + octave) / 2.0**octave
    density = total / 1.875
    threshold = 0.74 - 0.5 * cover
    soft = np.clip((density - threshold) / 0.22, 0, 1)
    return soft * np.clip((altitude[:, None] - 2) / 10, 0, 1)


def _value_noise(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    u, v = x - column, y - row
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    corners = [scatter(seed, 3, column + i, row + j) for j in (0, 1) for i in (0, 1)]
    above, below = corners[0] + u * (corners[1] - corners[0]), corners[2] + u * (corners[3] - corners[2])
    return above + v * (below - above)


def _paint_ground(
    image: np.ndarray,
    scene: Scene,
    look: Look,
    seed: int,
    azimuths: np.ndarray,
    slopes: np.ndarray,
    houses: np.ndarray,
) -> None:
    rows = np.flatnonzero(slopes < -CAMERA / REACH)
    reach = CAMERA / -slopes[rows]
    gap = distance_to_segments(np.zeros(2), scene.starts, scene.ends)
    rays = np.stack([np.sin(azimuths), np.cos(azimuths)], -1)
    for nearest, farthest, stride in _BLOCKS:
        block = (reach <= farthest) & (reach > nearest)
        streets = np.flatnonzero(gap < farthest + HOUSES + 4)
        discs = np.flatnonzero(np.hypot(scene.discs[:, 0], scene.discs[:, 1]) < farthest + 12)
        line, column = np.nonzero(reach[block][:, None] < houses[None, ::stride] + 0.5)
        if not len(line) or not len(streets):
            continue
        column *= stride
        away = reach[block][line]
        points = away[:, None] * rays[column]
        colours = _ground(points, away, scene, streets, discs, look, seed, len(azimuths))
        shade = np.clip((houses[column] - away) / 2.5, 0, 1) * 0.22 + 0.78  # darker at the foot of the houses
        for k in range(stride):
            image[rows[block][line], column + k] = colours * shade[:, None]


def _ground(
    points: np.ndarray,
    away: np.ndarray,
    scene: Scene,
    streets: np.ndarray,
    discs: np.ndarray,
    look: Look,
    seed: int,
    width: int,
) -> np.ndarray:
    """(n, 3) colours of `points` (n, 2) on the ground, `away` (n,) metres from the camera."""
    road, marking, pavement = (
        np.array(colour, np.float32) * (0.45 + 0.55 * look.light) for colour in (look.road, look.marking, look.pavement)
    )
    across = np.full(len(points), np.inf)  # signed metres from the middle of the nearest street
    along = np.zeros(len(points))
    rest = np.zeros(len(points))  # metres to the street's far end
    for street in streets:
        start, way = scene.starts[street], scene.ends[street] - scene.starts[street]
        length = float(np.hypot(*way))
        unit = way / length
        offset = points - start
        distance_along = offset @ unit
        lateral = offset @ np.array([unit[1], -unit[0]])
        gap = np.hypot(lateral, distance_along - np.clip(distance_along, 0, length))
        nearer = gap < np.abs(across)
        across = np.where(nearer, np.where(lateral < 0, -gap, gap), across)
        along = np.where(nearer, distance_along, along)
        rest = np.where(nearer, length - distance_along, rest)
    corner = np.full(len(points), np.inf)
    for disc in discs:
        corner = np.minimum(corner, np.hypot(*(points - scene.discs[disc]).T))
    pixel = away * 2 * np.pi / width  # width of a pixel in metres
    depth = pixel * np.maximum(1, away / CAMERA)  # and its depth
    lateral, end = np.abs(across), np.minimum(along, rest)

    def cover(inside: np.ndarray, footprint: np.ndarray | float) -> np.ndarray:
        """The share of a pixel that lies inside, from the signed distance to the border."""
        return np.clip(inside / np.maximum(footprint, 0.04) + 0.5, 0, 1)[:, None]

    inside = np.maximum(ROAD - lateral, CORNER - corner)
    tile_x, tile_y = np.floor(points[:, 0] * 1.3).astype(int), np.floor(points[:, 1] * 1.3).astype(int)
    grain = 0.94 + 0.12 * scatter(seed, 5, tile_x, tile_y)
    joint = np.minimum(along % 1.25, np.abs(lateral) % 1.25) < 0.06
    fine = np.clip(1.2 - depth / 0.5, 0, 1)
    colours = pavement * (1 - fine * (0.10 * joint + (1 - grain)))[:, None]
    kerb = cover(inside + (KERB - ROAD), depth)
    colours = colours + kerb * (pavement * 1.14 - colours)
    asphalt = road * (0.98 + 0.04 * fine * scatter(seed, 6, tile_x * 3, tile_y * 3))[:, None]
    colours = colours + cover(inside, depth) * (asphalt - colours)
    zebra = np.minimum(end - ZEBRA[0], ZEBRA[1] - end)
    stripe = 0.5 * np.clip(2 - 2 * pixel / 0.5, 0, 1) * np.sign((lateral + 0.27) % 1.08 - 0.54) + 0.5
    paint = cover(zebra, depth) * cover(ROAD - 0.35 - lateral, pixel) * stripe[:, None] * 0.95
    line = np.clip((1.5 - np.abs(along % 6.0 - 3.0)) / np.maximum(depth, 0.05) + 0.5, 0, 1)
    middle = cover(0.09 - lateral, pixel) * line[:, None] * cover(end - ZEBRA[1] - 3, depth) * 0.85
    stop = cover(0.2 - np.abs(end - ZEBRA[1] - 1.0), depth) * cover(ROAD - 0.4 - lateral, pixel) * 0.85
    paint = np.maximum(np.maximum(paint, middle), stop)
    return colours + paint * (marking - colours)
