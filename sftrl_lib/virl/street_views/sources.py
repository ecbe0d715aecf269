"""Where street views come from: drawn for a generated city, or read from a folder in the official layout.

How they differ:
* paper, official code: ``street_views/<panorama id>.jpg`` with ``<panorama id>.metadata.json`` beside it, read again
  for each of the four views; a place without a panorama is relocated to the nearest one within 20 m, or else looked
  up at Google.
* ours: the same files and the same relocation, cached in memory; a missing file raises an error and is never looked
  up, and a picture is a JPEG or a PNG whatever its name says. Panoramas of generated cities are drawn, and can be
  written as such files. The grids shown to the model can be cached on disk, because drawing one takes 40 ms and the
  runs of a profile reuse the same few thousand; each file ends with a checksum.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
import zlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cached_property, lru_cache
from pathlib import Path
from threading import get_ident
from typing import Any

import numpy as np
from PIL import Image

from ... import paths
from ...files import reason
from ..rails import MAPPING_RADIUS, PanoramaGrid, rail_builder
from ..schema import City, Geocode
from .drawing import draw_panorama
from .look import Look, look_of
from .panorama import FOV, Panorama, grid
from .scene import Surroundings

CACHE = {"panoramas": 64 * 2**20, "grids": 256 * 2**20}  # bytes per source; 5,000 grids of 64-pixel views
MAX_ROTATION = 1e6  # degrees; a float much larger holds no fraction of a turn
_CHECKSUM = 4  # bytes after the picture in a file of the disk cache; np.load ignores them
NORTH = 180.0  # rotation of a panorama whose middle column faces north


class _Cache:
    """An LRU cache of up to `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Any:
        """The entry of `key`; if there is none, `make` returns it with its size in bytes."""
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key][0]
        value, size = make()
        self._entries[key] = value, size
        self._bytes += size
        while self._bytes > self._limit and len(self._entries) > 1:
            self._bytes -= self._entries.popitem(last=False)[1][1]
        return value


class StreetViews(ABC):
    """The panoramas of a city, and the grids of views shown to an agent there.

    `keep`: folder of the disk cache of grids, shared by all processes; None caches in memory only.
    """

    def __init__(self, city: City, keep: Path | None = None) -> None:
        self.city = city
        self._keep = keep
        self._panoramas, self._grids = _Cache(CACHE["panoramas"]), _Cache(CACHE["grids"])

    def panorama(self, geocode: Geocode, width: int = 1024) -> Panorama:
        """The panorama at `geocode`, or the nearest one within 20 m; `width` pixels wide, or more if read from a file.

        Raises ValueError naming the place, or the file that is missing or malformed.
        """
        return self._panorama(geocode, width, 90.0)

    def _panorama(self, geocode: Geocode, width: int, altitude: float) -> Panorama:
        """`panorama`, but what is more than `altitude` degrees off the horizon may be missing."""
        place = self._relocate(geocode)

        def make() -> tuple[Panorama, int]:
            panorama = self._make(place, self.city.panoramas[place], width, altitude)
            return panorama, panorama.pixels.nbytes

        return self._panoramas.get((place, width, altitude), make)

    def grid(
        self, geocode: Geocode, heading: float, size: int = 64, layout: str = "prompt", fov: float = FOV, gap: int = 0
    ) -> np.ndarray:
        """The grid of views around `heading`, read-only; see `sftrl_lib.virl.street_views.grid`."""

        def draw() -> np.ndarray:
            panorama = self._panorama(geocode, panorama_width(size), fov / 2)  # a level view reaches no higher
            return grid(panorama, heading, size, layout, fov, gap)

        def make() -> tuple[np.ndarray, int]:
            if self._keep:
                place = self.city.panoramas[self._relocate(geocode)]
                image = _kept(self._keep / f"{place}-{heading % 360:g}-{size}-{layout}-{fov:g}-{gap}.npy", draw)
            else:
                image = draw()
            image.flags.writeable = False
            return image, image.nbytes

        return self._grids.get((geocode, heading % 360, size, layout, fov, gap), make)

    @cached_property
    def _near(self) -> PanoramaGrid:
        return PanoramaGrid(self.city.panoramas)

    def _relocate(self, geocode: Geocode) -> Geocode:
        place = geocode if geocode in self.city.panoramas else self._near.nearest(geocode)
        if place is None:
            raise ValueError(f"{self.city.name} has no panorama within {MAPPING_RADIUS:g} m of {geocode}.")
        return place

    @abstractmethod
    def _make(self, place: Geocode, panorama_id: str, width: int, altitude: float) -> Panorama:
        """Draw or read a panorama; only what lies within `altitude` degrees of the horizon is required."""


def _kept(file: Path, draw: Callable[[], np.ndarray]) -> np.ndarray:
    """The picture in `file`; if there is none, or one that is damaged or another file's, draw and save it."""
    try:
        content = file.read_bytes()
    except OSError:
        content = b""
    picture, checksum = content[:-_CHECKSUM], content[-_CHECKSUM:]
    if checksum == _checksum(file, picture):
        return np.load(io.BytesIO(picture), allow_pickle=False)
    image = draw()
    written = io.BytesIO()
    np.save(written, image)
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}.{get_ident()}")
    # Not flushed, which may take longer than drawing: the checksum finds what a power cut leaves.
    fresh.write_bytes(written.getvalue() + _checksum(file, written.getvalue()))
    os.replace(fresh, file)  # atomic: others may write the same picture
    return image


def _checksum(file: Path, picture: bytes) -> bytes:
    """The CRC-32 of a picture and of the name of its file."""
    return zlib.crc32(picture, zlib.crc32(file.name.encode())).to_bytes(_CHECKSUM, "big")


class DrawnStreetViews(StreetViews):
    """Panoramas of a generated city, in its own `Look` or in another one."""

    def __init__(self, city: City, look: str | Look | None = None, keep: Path | None = None) -> None:
        self._maps = {street_map.name: Surroundings(street_map) for street_map in city.images}
        self._looks = {name: look_of(name if look is None else look) for name in self._maps}
        super().__init__(city, keep and keep / _digest(f"{city.images} {self._looks}"))

    def _make(self, place: Geocode, panorama_id: str, width: int, altitude: float) -> Panorama:
        name = panorama_id.rpartition("_")[0]
        around = self._maps[name]
        pixels = draw_panorama(around.scene(place), self._looks[name], around.seed, width, altitude)
        return Panorama(pixels, NORTH)


def _digest(drawn: str) -> str:
    """A hash of what is drawn and of the code that draws it, so that pictures of older code are never used."""
    code = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"\0".join([drawn.encode(), *code])).hexdigest()[:16]


class PhotographedStreetViews(StreetViews):
    """Panoramas in ``street_views/`` of a folder: ``<id>.jpg`` and ``<id>.metadata.json`` with a `rotation`."""

    def _make(self, place: Geocode, panorama_id: str, width: int, altitude: float) -> Panorama:
        where = f"panorama {panorama_id[:60]!r} at {place}"
        if Path(panorama_id).name != panorama_id or not panorama_id.isprintable() or len(panorama_id.encode()) > 200:
            raise ValueError(f"{where}: its id is not a file name.")
        picture, metadata = (self.city.images / f"{panorama_id}{end}" for end in (".jpg", ".metadata.json"))
        for file in (picture, metadata):
            if not file.is_file():
                raise ValueError(f"{file} is missing; it belongs to {where}.")
        try:
            content = json.loads(metadata.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{metadata} is not valid JSON: {reason(error)}.") from error
        rotation = content.get("rotation") if isinstance(content, dict) else None
        if isinstance(rotation, bool) or not isinstance(rotation, int | float) or not abs(rotation) <= MAX_ROTATION:
            raise ValueError(f"{metadata}: 'rotation' must be a number of degrees, got {repr(rotation)[:60]}.")
        image = _picture(picture)
        if (shrink := image.width // width) > 1:
            image = image.reduce(shrink)
        return Panorama(np.asarray(image), float(rotation))


def _picture(file: Path) -> Image.Image:
    """The JPEG or PNG in `file` as RGB. Raises ValueError for anything else, and above 179 megapixels."""
    try:
        with warnings.catch_warnings():
            # Pillow warns above 89 megapixels, but real panoramas have up to 16,384 x 8,192.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=("JPEG", "PNG")) as image:
                return image.convert("RGB")
    except Image.DecompressionBombError as error:
        raise ValueError(f"{file} is too large a picture; scale it down: {reason(error)}") from error
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise ValueError(
            f"{file} is not a readable picture, JPEG or PNG; it may be truncated: {reason(error)}."
        ) from error


def open_street_views(city: City, look: str | Look | None = None, keep: Path | None = None) -> StreetViews:
    """The street views of `city`, optionally in another city's look or in a custom `Look`.

    `keep`: folder of the disk cache of a generated city's grids, 50 KB each at 64 pixels per view.

    Raises ValueError if the city has none, or if `look` is given for photographs.
    """
    if isinstance(city.images, Path):
        if look is not None:
            raise ValueError(f"look={look!r}: {city.name} is read from a folder; only generated cities are drawn.")
        if not city.images.is_dir():
            raise ValueError(f"There is no folder {city.images}; it must hold the panoramas of {city.name}.")
        return PhotographedStreetViews(city)
    if not city.images:
        raise ValueError(f"{city.name} has neither a map to draw street views from nor a folder of them.")
    return DrawnStreetViews(city, look, keep)


@lru_cache(maxsize=32)  # pretraining uses four cities in four looks
def shared_street_views(city: City, look: str | Look | None = None) -> StreetViews:
    """The `StreetViews` of a city, shared within this process; its disk cache is shared by all processes."""
    return open_street_views(city, look, paths.views())


def panorama_width(size: int) -> int:
    """Width of a panorama for views of `size`: about 2.5 pixels per pixel of a view, at least one for large views."""
    return min(max(8 * size, 256), max(2048, 4 * size))


def write_street_views(city: City, folder: Path, width: int = 1024, look: str | Look | None = None) -> int:
    """Write the panoramas that the routes of a generated `city` can visit, in the official layout.

    `folder` is ``street_views`` itself. Returns how many were written; about 0.2 s and 80 KB each at 1,024 pixels.
    """
    views = open_street_views(city, look)
    folder.mkdir(parents=True, exist_ok=True)
    places = rail_builder(city).places()
    for place in places:
        panorama = views.panorama(place, width)
        stem = folder / city.panoramas[place]
        Image.fromarray(panorama.pixels).save(f"{stem}.jpg", quality=90)
        Path(f"{stem}.metadata.json").write_text(json.dumps({"rotation": panorama.rotation}), encoding="utf-8")
    return len(places)
