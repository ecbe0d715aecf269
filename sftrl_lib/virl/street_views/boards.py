"""Upright flat objects in the street: sign boards, their posts, and trees."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .look import Look
from .scene import Scene
from .signs import HEIGHT, WIDTH, draw_back, draw_sign

BOTTOM = 1.5  # metres from the ground to the lower edge of a sign
Picture = tuple[Callable[..., Image.Image], tuple[Any, ...]]  # drawing function and its arguments
_NEAR = 0.4  # metres; nothing nearer is drawn


def draw_boards(
    image: np.ndarray,
    scene: Scene,
    look: Look,
    azimuths: np.ndarray,
    slopes: np.ndarray,
    houses: np.ndarray,
    camera: float,
) -> None:
    """Draw signs and trees into `image` (rows, columns, 3) from far to near, hidden by nearer houses.

    azimuths: (columns,) radians. slopes: (rows,) rise over run. houses: (columns,) their distance in metres. camera:
    metres above the ground.
    """
    items = []
    for x, y, chance in scene.trees:
        away = float(np.hypot(x, y))
        if chance < look.trees and away > 3:
            tree = draw_tree, (look, int(chance / look.trees * 3.999))
            size = 5.6 + 1.6 * (chance * 97 % 1)
            aside = np.array([y, -x]) / away * size / 2 * 0.72
            items.append((away, np.array([x, y]) - aside, np.array([x, y]) + aside, 0.0, size, tree))
    for sign in scene.signs if look.sign_scale else ():
        away = float(np.hypot(*sign.ground))
        right = np.array([sign.facing[1], -sign.facing[0]])  # as seen from the crossing
        half = right * sign.width * look.sign_scale / 2
        high = 2 * np.hypot(*half) * HEIGHT / WIDTH
        from_front = float(sign.ground @ sign.facing) > 0
        picture = (draw_sign, (sign.name, sign.types, look)) if from_front else (draw_back, (look,))
        post = _draw_post, (look,)
        for share in (-0.7, 0.7):
            foot = sign.ground + share * half
            items.append((away + 0.05, foot - right * 0.09, foot + right * 0.09, 0.0, BOTTOM + 0.1, post))
        left, end = (-half, half) if from_front else (half, -half)
        items.append((away, sign.ground + left, sign.ground + end, BOTTOM, BOTTOM + high, picture))
    for _, left, right, low, high, picture in sorted(items, key=lambda item: -item[0]):
        _draw_board(image, left, right, low - camera, high - camera, picture, azimuths, slopes, houses, look)


def _draw_board(
    image: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    low: float,
    high: float,
    picture: Picture,
    azimuths: np.ndarray,
    slopes: np.ndarray,
    houses: np.ndarray,
    look: Look,
) -> None:
    """Draw `picture` on the upright rectangle over the ground line `left`-`right`, heights relative to the camera."""
    begin, end = np.arctan2(*left), np.arctan2(*right)
    span = (end - begin) % (2 * np.pi)
    if span > np.pi:
        return  # seen from behind
    step = 2 * np.pi / len(azimuths)
    if span < 0.3 * step:
        return  # too narrow to be seen
    first = int(np.floor((begin - azimuths[0]) / step))
    columns = np.arange(first, first + int(span / step) + 3)
    rays = np.stack([np.sin(azimuths[0] + columns * step), np.cos(azimuths[0] + columns * step)])
    columns = columns % len(azimuths)
    way = right - left
    cross = rays[0] * way[1] - rays[1] * way[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = (left[0] * way[1] - left[1] * way[0]) / cross
        share = (left[0] * rays[1] - left[1] * rays[0]) / cross
    shown = (share > -0.5) & (share < 1.5) & (distance > _NEAR) & (distance < houses[columns] + 1.0)
    if not shown.any():
        return  # hidden by houses, as most trees are: its picture is not needed
    columns, distance, share = columns[shown], distance[shown], share[shown]
    nearest = max(min(np.hypot(*left), np.hypot(*right)), _NEAR)
    texture = _shrunk(*picture, _coarse(span / step), _coarse((high - low) / nearest / step))
    soft = 0.5 / texture.shape[1]
    keep = (share > -soft) & (share < 1 + soft)
    if not keep.any():
        return
    columns, distance, share = columns[keep], distance[keep], share[keep]
    rows = np.flatnonzero((slopes <= high / distance.min() + 0.05) & (slopes >= min(low / distance.min(), low) - 0.05))
    up = (slopes[rows][:, None] * distance[None] - low) / (high - low)
    colour = _bilinear(texture, share[None] * texture.shape[1] - 0.5, (1 - up) * texture.shape[0] - 0.5)
    haze = np.clip(distance / 260, 0, 0.6)[:, None].astype(np.float32)
    light = 0.35 + 0.65 * min(look.light, 1.0)
    alpha = colour[..., 3:] / 255
    premultiplied = colour[..., :3] * light
    premultiplied = premultiplied + haze * (np.array(look.sky[1], np.float32) * alpha - premultiplied)
    patch = image[rows[:, None], columns[None]]
    image[rows[:, None], columns[None]] = patch * (1 - alpha) + premultiplied


def _coarse(pixels: float) -> int:
    """`pixels` rounded in steps of a factor 1.19, so that similar distances share one picture."""
    return max(1, round(2 ** (round(4 * np.log2(max(pixels, 1))) / 4)))


@lru_cache(maxsize=4096)
def _shrunk(draw: Callable[..., Image.Image], arguments: tuple[Any, ...], width: int, height: int) -> np.ndarray:
    """A picture at its size in the panorama, float32, (height, width, 4), with premultiplied alpha."""
    picture = _premultiplied(draw, arguments)
    size = min(width, picture.width), min(height, picture.height)
    return np.asarray(picture.resize(size, Image.Resampling.BOX), np.float32)


@lru_cache(maxsize=1024)
def _premultiplied(draw: Callable[..., Image.Image], arguments: tuple[Any, ...]) -> Image.Image:
    pixels = np.asarray(draw(*arguments), np.float32)
    pixels = np.concatenate([pixels[..., :3] * (pixels[..., 3:] / 255), pixels[..., 3:]], -1)
    return Image.fromarray((pixels + 0.5).astype(np.uint8))


def _bilinear(texture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`texture` at pixel positions `x`, `y` (broadcast together); transparent outside."""
    x, y = np.broadcast_arrays(x, y)
    padded = np.pad(texture, ((1, 1), (1, 1), (0, 0)))
    x = np.clip(x, -1, texture.shape[1]) + 1
    y = np.clip(y, -1, texture.shape[0]) + 1
    column = np.minimum(x.astype(int), texture.shape[1])
    row = np.minimum(y.astype(int), texture.shape[0])
    u, v = (x - column)[..., None].astype(np.float32), (y - row)[..., None].astype(np.float32)
    above = padded[row, column] * (1 - u) + padded[row, column + 1] * u
    below = padded[row + 1, column] * (1 - u) + padded[row + 1, column + 1] * u
    return above * (1 - v) + below * v


@lru_cache(maxsize=64)
def _draw_post(look: Look) -> Image.Image:
    return Image.new("RGBA", (8, 64), (*(int(0.5 * channel + 40) for channel in look.plate), 255))


@lru_cache(maxsize=256)
def draw_tree(look: Look, variant: int) -> Image.Image:
    """A tree in the city's foliage colour, RGBA, 180 x 256 pixels; `variant` 0 to 3."""
    rng = np.random.default_rng(1000 + variant)
    image = Image.new("RGBA", (360, 512), (*look.leaves, 0))
    draw = ImageDraw.Draw(image)
    trunk = (92, 72, 56, 255)
    draw.polygon([(168, 512), (174, 250), (190, 250), (196, 512)], fill=trunk)
    for x in (110, 250):
        draw.line([(181, 340), (x, 220)], fill=trunk, width=8)
    clumps = [(rng.normal(180, 68), rng.normal(165, 62), rng.uniform(40, 66)) for _ in range(34)]
    clumps = [(min(max(x, r), 360 - r), min(max(y, r), 330 - r), r) for x, y, r in clumps]
    for layer, tone in enumerate((0.62, 0.82, 1.0, 1.16)):
        for x, y, radius in clumps[layer * 4 :]:
            radius *= 1 - 0.2 * layer
            shift = 12 * layer
            colour = tuple(int(min(255, channel * tone + rng.normal(0, 4))) for channel in look.leaves)
            draw.ellipse((x - radius, y - radius - shift, x + radius, y + radius - shift), fill=(*colour, 255))
    return image.filter(ImageFilter.GaussianBlur(1.5)).resize((180, 256), Image.Resampling.BOX)
