"""Read and write a folder of routes in the layout of the released data.

A folder holds ``route_infos.json`` (``[[route, ...], cursor]``), ``gps_pano_mapping.pkl`` (see `panoramas`) and
``street_views/`` (used by the image modality only).

How they differ:
* paper: 1,000 routes in New York for training, 18 routes in nine cities ("VLN mini") for the visual-OOD test.
* official code: queries Google for addresses and for way-points without a panorama.
* ours: the same files, no network. Coordinates that look swapped, and panoramas that are not along the routes, raise
  ValueError when the folder is read, not when the agent gets there.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import reason, write_atomically
from .panoramas import read_panoramas
from .rails import MAPPING_RADIUS, PanoramaGrid, distance
from .schema import City, Geocode, Route, check_range

ROUTES_FILE = "route_infos.json"
PANORAMAS_FILE = "gps_pano_mapping.pkl"
STREET_VIEWS = "street_views"
EXTRA_PARENT = "VIRL_routes"  # some copies of the released data have this folder in between
FAR = 100_000.0  # metres; a place that is this near to itself swapped may be in the same city


def read_city(folder: str | Path) -> City:
    """The routes and panoramas of a folder in the official layout.

    `folder` holds ``route_infos.json``, or is a parent of the one folder that does; ``VIRL_routes/`` may come
    in between. Raises ValueError naming the file, the route and the key of whatever is missing or malformed.
    """
    folder = find_routes(Path(folder))
    routes_file = folder / ROUTES_FILE
    content = _read_json(routes_file)
    if not isinstance(content, list) or len(content) != 2 or not isinstance(content[0], list):
        raise ValueError(f"{routes_file} must be a list [[route, ...], number].")
    records, cursor = content
    if not records:
        raise ValueError(f"{routes_file} holds no routes.")
    if isinstance(cursor, bool) or not isinstance(cursor, int):
        raise ValueError(f"{routes_file}: its second element must be a whole number, got {repr(cursor)[:60]}.")
    routes = tuple(Route.from_record(record, f"{routes_file}, route {i}") for i, record in enumerate(records))
    panoramas = read_panoramas(folder / PANORAMAS_FILE)
    _check_panoramas(folder / PANORAMAS_FILE, panoramas)
    _check_places(folder, routes, panoramas)
    return City(folder.name, routes, panoramas, cursor, folder / STREET_VIEWS)


def _check_panoramas(file: Path, panoramas: Mapping[Geocode, str]) -> None:
    """Raise ValueError for an empty file, and for a place that is not on Earth."""
    if not panoramas:
        raise ValueError(f"{file} holds no panoramas; it must hold those along the routes.")
    for place in panoramas:
        check_range(place, f"{file}: a panorama's place")


def _check_places(folder: Path, routes: Sequence[Route], panoramas: Mapping[Geocode, str]) -> None:
    """Raise ValueError if the panoramas are where a route would be with latitude and longitude swapped, or elsewhere.

    A route may have way-points without a panorama; only if most routes have no panorama at all, the files do not match.
    """
    grid = PanoramaGrid(panoramas)

    def seen(place: Geocode) -> bool:
        return place in panoramas or grid.nearest(place) is not None

    unseen = 0
    for i, route in enumerate(routes):
        places = (route.start, *route.waypoints)
        missing = [place for place in places if not seen(place)]
        for place in missing:
            swapped = place[1], place[0]
            if distance(place, swapped) > FAR and seen(swapped):
                raise ValueError(
                    f"{folder / ROUTES_FILE}, route {i}: latitude and longitude of {list(place)} look swapped, because "
                    f"{PANORAMAS_FILE} has a panorama at {list(swapped)} only; swap them in the file that is wrong."
                )
        unseen += len(missing) == len(places)
    if 2 * unseen > len(routes):
        raise ValueError(
            f"{folder / PANORAMAS_FILE} has no panorama within {MAPPING_RADIUS:g} m of {unseen} of the {len(routes)} "
            f"routes in {ROUTES_FILE}; it looks like the file of another city."
        )


def write_city(city: City, folder: str | Path) -> Path:
    """Write `city` in the official layout and return the folder; ``read_city`` gives the same city back.

    The city's name is the folder's name. ``street_views/`` is made but stays empty, because text needs no pictures;
    `sftrl_lib.virl.street_views.write_street_views` fills it.
    """
    folder = Path(folder)
    (folder / STREET_VIEWS).mkdir(parents=True, exist_ok=True)
    content = [[route.record for route in city.routes], city.cursor]
    write_atomically(folder / ROUTES_FILE, json.dumps(content, ensure_ascii=False))
    write_atomically(folder / PANORAMAS_FILE, pickle.dumps(dict(city.panoramas), protocol=4))
    return folder


def find_routes(folder: Path) -> Path:
    """The folder at, below or (through ``VIRL_routes/``) beside `folder` that holds ``route_infos.json``."""
    if (folder / ROUTES_FILE).is_file():
        return folder
    moved = folder.parent / EXTRA_PARENT / folder.name
    if not folder.exists() and (moved / ROUTES_FILE).is_file():
        return moved
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}; give the one that holds {ROUTES_FILE}.")
    found = sorted(path.parent for depth in ("*", "*/*") for path in folder.glob(f"{depth}/{ROUTES_FILE}"))
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{folder} holds several sets of routes; choose one of {', '.join(map(str, found))}."
        )
    raise ValueError(f"{folder} holds no {ROUTES_FILE}.")


def _read_json(file: Path) -> Any:
    if not file.is_file():
        raise ValueError(f"{file} is missing.")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON; it may be truncated: {reason(error)}.") from error
