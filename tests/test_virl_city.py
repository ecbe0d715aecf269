"""Generated cities: well formed, varied, deterministic, and their splits disjoint."""

import math
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from sftrl_lib.virl import city_names, generate_city, load_city
from sftrl_lib.virl.city import encode_polyline
from sftrl_lib.virl.rails import SPATIAL

TRAINING = ("nyc", "chicago", "barcelona", "paris", "boston")
MINI = (
    "milan",
    "new_delhi",
    "buenos_aires",
    "london",
    "hong_kong",
    "new_york",
    "melbourne",
    "lagos",
    "san_francisco",
)


def paths(city):
    return {(route.start, *route.waypoints) for route in city.routes}


def destinations(city):
    return {route.record["dest_place"]["place_id"] for route in city.routes}


def headings(city):
    return Counter(leg.compass for route in city.routes for leg in route.legs)


def test_names():
    assert set(city_names()) == {*TRAINING, *(f"{name}:heldout" for name in TRAINING), *MINI, "mini"}


@pytest.mark.parametrize("name", TRAINING)
def test_splits_are_disjoint(name):
    train, heldout = load_city(name), load_city(f"{name}:heldout")
    assert len(train) == len(paths(train)) == 1000
    assert len(heldout) == len(paths(heldout)) == 200
    assert not paths(train) & paths(heldout)
    assert not destinations(train) & destinations(heldout)
    assert train.panoramas == heldout.panoramas


def test_the_mini_benchmark_has_twenty_routes_in_each_of_nine_cities():
    mini = load_city("mini")
    assert len(mini) == len(paths(mini)) == 180
    assert [
        route.record["dest_place"]["place_id"].partition("_place")[0] for route in mini.routes[::20]
    ] == list(MINI)
    assert mini.routes == tuple(route for name in MINI for route in load_city(name).routes)
    assert not paths(mini) & paths(load_city("nyc"))
    names = {place["name"] for place in landmarks(mini)}
    assert len(names) > 40 and len(names - {place["name"] for place in landmarks(load_city("nyc"))}) > 35


def landmarks(city):
    for route in city.routes:
        yield from filter(None, route.record["route_results"]["landmark_list"])
        yield route.record["dest_place"]


@pytest.mark.parametrize("name", city_names())
def test_routes_are_well_formed(name):
    city = load_city(name)
    flat_earth = 111_320.0
    for route in city.routes:
        assert 2 <= len(route.legs) == len(route.waypoints) <= 6
        assert 1 <= route.initial_heading <= 359
        assert {route.start, *route.waypoints} <= city.panoramas.keys()
        ends = (route.start, *route.waypoints)
        assert len(set(ends)) == len(ends)
        for (lat, lng), (lat2, lng2), leg in zip(ends, ends[1:], route.legs, strict=False):
            north, east = (lat2 - lat) * flat_earth, (lng2 - lng) * flat_earth * math.cos(math.radians(lat))
            assert math.hypot(north, east) > 35
            off = abs((leg.heading + 0.5 - math.degrees(math.atan2(east, north)) + 180) % 360 - 180)
            assert off < 1.0, route
        assert route.legs[-1].landmark.startswith("The destination ")
        results = route.record["route_results"]
        assert len(results["landmark_list"]) == len(route.legs) - 1
        assert results["distance"] == sum(results["distance_list"])


def test_every_official_key_is_there():
    record = load_city("nyc").routes[0].record
    results = {
        "geocode_list",
        "landmark_list",
        "polyline",
        "instructions",
        "distance_list",
        "time_list",
        "time",
    }
    place = {"name", "geocode", "relocated_geocode", "rating", "place_id", "distance", "n_reviews", "heading"}
    place |= {"photo_reference", "place_types", "plus_code", "vicinity", "spatial_relation", "expression"}
    assert record.keys() == {
        "start_place",
        "dest_place",
        "init_heading",
        "route_results",
        "milestone_info",
        "instruction",
    }
    assert record["route_results"].keys() == results | {"distance", "n_landmarks"}
    assert record["dest_place"].keys() == place


@pytest.mark.parametrize("name", ["nyc", "chicago", "paris"])
def test_spatial_words_match_the_ground(name):
    """The word against the landmark's components along and across the leg, without any bearing."""
    city, seen = load_city(name), Counter()
    for route in city.routes:
        ends = (route.start, *route.waypoints)
        places = (*route.record["route_results"]["landmark_list"], route.record["dest_place"])
        for before, here, place, leg in zip(ends, ends[1:], places, route.legs, strict=False):
            if place is None:
                assert leg.landmark == "No landmark nearby"
                continue
            scale = math.cos(math.radians(here[0]))
            leg_east, leg_north = (here[1] - before[1]) * scale, here[0] - before[0]
            east, north = (place["geocode"][1] - here[1]) * scale, place["geocode"][0] - here[0]
            ahead = east * leg_east + north * leg_north
            right = east * leg_north - north * leg_east
            sector = math.degrees(math.atan2(right, ahead)) / 45
            if abs(sector - math.floor(sector) - 0.5) > 0.03:  # not on the border of two words
                assert leg.landmark.endswith(f"{place['name']} is on your {SPATIAL[round(sector) % 8]}")
                seen[SPATIAL[round(sector) % 8]] += 1
    assert set(seen) == set(SPATIAL)


def test_geometries_differ():
    assert set(headings(load_city("nyc"))) == {
        *("north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest")
    }
    assert min(headings(load_city("nyc")).values()) > 100
    assert set(headings(load_city("chicago"))) == {"north", "east", "south", "west"}
    degrees = {
        name: {leg.heading % 90 for r in load_city(name).routes for leg in r.legs} for name in TRAINING
    }
    assert len(degrees["chicago"]) <= 4 < 60 < len(degrees["boston"])


def test_landmark_names_are_varied_and_harmless():
    every = {place["place_id"]: place["name"] for name in TRAINING for place in landmarks(load_city(name))}
    assert len(every) > 800 and len(set(every.values())) > 0.85 * len(every)
    assert Counter(every.values())["Corner Mart"] > 5
    assert not [name for name in every.values() if re.search(r'["{}:\n]|intersection', name)]


def test_a_seed_gives_the_same_city_in_another_process():
    code = (
        "import hashlib, json; from sftrl_lib.virl import generate_city\n"
        "city = generate_city('nyc', routes=40, seed=3)\n"
        "text = json.dumps([[r.record for r in city.routes], sorted(city.panoramas.items())])\n"
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    root = Path(__file__).resolve().parent.parent
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)},
            check=True,
            capture_output=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1


def test_seeds_and_counts():
    ten = generate_city("boston", routes=10)
    assert generate_city("boston", routes=10) == ten
    assert generate_city("boston", routes=12).routes[:10] == ten.routes
    assert generate_city("boston", routes=10, seed=1).routes != ten.routes
    assert len(load_city(ten)) == 10


def test_a_thousand_routes_within_seconds():
    before = time.process_time()
    generate_city("nyc", routes=1000, seed=99)
    assert time.process_time() - before < 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "atlantis"}, "atlantis.*nyc"),
        ({"name": "nyc", "split": "test"}, "test.*heldout"),
        ({"name": "nyc", "routes": 0}, "0"),
        ({"name": "nyc", "routes": "many"}, "many"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        generate_city(**arguments)


@pytest.mark.parametrize("routes", ["atlantis", "", 7, None, "no/such/folder", "nyc:test", "a\0b"])
def test_unknown_routes(routes):
    with pytest.raises(ValueError):
        load_city(routes)


def test_encoded_polyline_is_googles():
    """The example of Google's own description of the format."""
    assert (
        encode_polyline([(38.5, -120.2), (40.7, -120.95), (43.252, -126.453)])
        == "_p~iF~ps|U_ulLnnqC_mqNvxq`@"
    )
