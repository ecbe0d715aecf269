"""The houses along a street: plots of different heights, colours and windows, with shops on the ground floor."""

from __future__ import annotations

import numpy as np

from .look import Look
from .scene import REACH, HouseLine, Scene, scatter
from .signs import code_colours

LOT = 11.0  # metres of street front per house
GROUND_FLOOR, STOREY = 4.3, 3.3  # metres
_SHOP = 5.5  # half the width of a landmark's shop front in metres


def paint_facades(
    image: np.ndarray,
    scene: Scene,
    look: Look,
    seed: int,
    azimuths: np.ndarray,
    slopes: np.ndarray,
    line: HouseLine,
    camera: float,
) -> None:
    """Paint the houses into `image` (rows, columns, 3), float32, over sky and ground.

    azimuths: (columns,) radians. slopes: (rows,) rise over run. line: (columns,) arrays. camera: metres above ground.
    """
    lot = np.floor(line.along / LOT).astype(int)
    draw = [scatter(seed, line.front, lot, i) for i in range(8)]
    storeys = np.floor(look.storeys[0] + draw[0] * (look.storeys[1] - look.storeys[0] + 0.999))
    height = GROUND_FLOOR + STOREY * storeys + 0.9
    seen = np.flatnonzero(line.distance < REACH - 1)
    if not len(seen):
        return
    distance = line.distance[seen]
    highest = slopes <= ((height[seen] - camera) / distance).max()
    rows = np.flatnonzero(highest & (slopes >= -camera / distance.min()))
    z = camera + slopes[rows][:, None] * distance[None]  # metres above the ground
    pixel = distance * 2 * np.pi / len(azimuths)  # vertical metres per pixel
    colours = _wall(z, line, seen, lot, draw, storeys, look, seed, pixel)
    awning = np.array(look.awnings, np.float32)[(draw[3][seen] * len(look.awnings)).astype(int)]
    awning = _mark_shops(awning, scene, look, azimuths[seen], distance)
    colours = _ground_floor(colours, z, line, seen, draw, look, awning, pixel)
    light = look.light * (0.74 + 0.26 * line.facing[seen]) * (0.92 + 0.12 * np.sin(azimuths[seen] - 0.9))
    colours = colours * light[:, None].astype(np.float32)
    haze = np.clip(distance / 260, 0, 0.6)[:, None].astype(np.float32)
    colours = colours + haze * (np.array(look.sky[1], np.float32) - colours)
    rise = np.minimum(height[seen] - z, z) / pixel + 0.5
    cover = np.clip(rise, 0, 1)[..., None].astype(np.float32)
    patch = image[rows[0] : rows[-1] + 1][:, seen]
    image[rows[0] : rows[-1] + 1, seen] = patch + cover * (colours - patch)


def _wall(
    z: np.ndarray,
    line: HouseLine,
    seen: np.ndarray,
    lot: np.ndarray,
    draw: list[np.ndarray],
    storeys: np.ndarray,
    look: Look,
    seed: int,
    pixel: np.ndarray,
) -> np.ndarray:
    """(rows, columns, 3) walls with windows, balconies and a cornice, without the ground floor."""
    palette = np.array(look.facades, np.float32)
    base = palette[(draw[1][seen] * len(palette)).astype(int)] * (0.9 + 0.2 * draw[2][seen])[:, None]
    trim, glass = np.array(look.trim, np.float32), np.array(look.glass, np.float32)
    inside = line.along[seen] % LOT
    bays = 3 + np.floor(draw[4][seen] * 2.999)
    place = inside / LOT * bays
    bay, u = np.floor(place), place % 1
    level = np.floor((z - GROUND_FLOOR) / STOREY)
    v = ((z - GROUND_FLOOR) / STOREY) % 1
    # Fade detail finer than a pixel into its mean, to avoid aliasing.
    slant = pixel / np.maximum(line.facing[seen], 0.05)
    fine = np.clip(1.6 - 1.2 * slant / (LOT / bays), 0, 1) * np.clip(1.6 - pixel / (0.7 * STOREY), 0, 1)
    wide, high = look.window
    soft_u, soft_v = np.maximum(slant / (LOT / bays), 0.02), np.maximum(pixel / STOREY, 0.02)
    across = np.clip((wide / 2 - np.abs(u - 0.5)) / soft_u + 0.5, 0, 1)
    framed = np.clip((wide / 2 + 0.07 - np.abs(u - 0.5)) / soft_u + 0.5, 0, 1)
    up = np.clip((high / 2 - np.abs(v - 0.54)) / soft_v + 0.5, 0, 1)
    framed_up = np.clip((high / 2 + 0.05 - np.abs(v - 0.52)) / soft_v + 0.5, 0, 1)
    there = (level >= 0) & (level < storeys[seen])
    mean = wide * high
    window = np.where(there, fine * across * up + (1 - fine) * mean, 0)[..., None].astype(np.float32)
    frame = np.where(there, fine * framed * framed_up, 0)[..., None].astype(np.float32) * 0.75
    lamp = scatter(seed, line.front[seen], lot[seen], bay, level) < look.lit
    blind = scatter(seed, line.front[seen], lot[seen], bay, level, 1)
    sky = np.array(look.sky[0], np.float32) * 0.55 + 0.45 * np.array(look.sky[1], np.float32)
    pane = glass + (0.42 * (v + 0.1 * (u > 0.5)) * (0.55 + 0.9 * blind))[..., None].astype(np.float32) * (sky - glass)
    glow = np.array((255, 206, 128), np.float32) / max(look.light, 0.6)  # `light` must not dim lamps later
    pane = pane + (lamp * (1.35 - 0.75 * min(look.light, 1.0)))[..., None].astype(np.float32) * 0.9 * (glow - pane)
    shadow = 1 - 0.10 * np.clip(1 - inside / 0.35, 0, 1) - 0.05 * (z < GROUND_FLOOR + 0.3)
    wall = base[None] * shadow[..., None].astype(np.float32)
    wall = wall + frame * (trim - wall)
    colours = wall + window * (pane - wall)
    if look.balconies:
        has = (draw[5][seen] < look.balconies) & there & (level >= 1)
        rail = (
            np.clip((0.13 - np.abs(v - 0.13)) / soft_v + 0.5, 0, 1) * framed * fine * (0.55 + 0.2 * (u * 22 % 1 > 0.5))
        )
        rail = np.where(has, rail, 0)[..., None].astype(np.float32)
        colours = colours + rail * (np.array((46, 44, 46), np.float32) - colours)
    top = GROUND_FLOOR + STOREY * storeys[seen]
    cornice = np.clip((z - top) / pixel + 0.5, 0, 1)[..., None].astype(np.float32)
    ledge = np.clip((0.22 - np.abs(z - top - 0.1)) / pixel + 0.5, 0, 1)[..., None].astype(np.float32)
    colours = colours + cornice * (base * 0.82 + trim * 0.18 - colours)
    return colours + ledge * (trim - colours)


def _ground_floor(
    colours: np.ndarray,
    z: np.ndarray,
    line: HouseLine,
    seen: np.ndarray,
    draw: list[np.ndarray],
    look: Look,
    awning: np.ndarray,
    pixel: np.ndarray,
) -> np.ndarray:
    """`colours` with shop windows, a door and an awning below `GROUND_FLOOR`."""
    inside = line.along[seen] % LOT
    slant = pixel / np.maximum(line.facing[seen], 0.05)
    glass = np.array(look.glass, np.float32)
    warm = glass + (0.3 + 0.4 * draw[6][seen])[:, None] * (np.array((255, 226, 176), np.float32) * 0.8 - glass)
    pane = warm[None] * (0.62 + 0.13 * z[..., None]).astype(np.float32)
    panel = np.abs((inside / 2.75) % 1 - 0.5) * 2.75  # metres from the middle of a pane
    door = np.abs(inside - 2.75 * (0.5 + np.floor(draw[7][seen] * 4))) < 0.62
    fine = np.clip(1.7 - slant / 1.4, 0, 1)
    sill = np.where(door, 0.06, 0.62)
    wide = 1 - fine * np.clip((panel - np.where(door, 0.6, 1.24)) / np.maximum(slant, 0.05) + 0.5, 0, 1)
    shop = np.clip(np.minimum(z - sill, 3.05 - z) / pixel + 0.5, 0, 1) * wide
    pillar = awning * 0.55 + 0.12 * np.array(look.trim, np.float32)
    low = np.clip((3.75 - z) / pixel + 0.5, 0, 1)[..., None].astype(np.float32)
    colours = colours + low * (pillar[None] - colours)
    colours = colours + shop[..., None].astype(np.float32) * (pane - colours)
    stripe = 1 - 0.22 * fine * ((inside / 0.9 % 1) > 0.5) * (draw[5][seen] > 0.5)
    cloth = np.clip(np.minimum(z - 2.75, 3.7 - z) / pixel + 0.5, 0, 1)[..., None].astype(np.float32)
    shaded = awning[None] * stripe[:, None] * (0.72 + 0.32 * np.clip((z - 2.75) / 0.95, 0, 1))[..., None]
    return colours + cloth * (shaded.astype(np.float32) - colours)


def _mark_shops(awning: np.ndarray, scene: Scene, look: Look, azimuths: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """`awning` (columns, 3), recoloured at landmark shops in the code colour of the landmark's first initial."""
    if look.emblems != "coded" or not look.sign_scale:
        return awning
    hits = distance[:, None] * np.stack([np.sin(azimuths), np.cos(azimuths)], -1)
    for sign in scene.signs:
        offset = hits - sign.ground
        ahead = offset @ sign.facing
        aside = np.abs(offset @ np.array([sign.facing[1], -sign.facing[0]]))
        shop = (ahead > -2) & (ahead < 22) & (aside < _SHOP)
        awning = np.where(shop[:, None], np.array(code_colours(sign.name)[0], np.float32), awning)
    return awning
