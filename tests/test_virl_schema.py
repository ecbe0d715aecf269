"""The official layout: a hand-written folder, round trips, and clear words about whatever can be wrong."""

import itertools
import json
import math
import os
import pickle
import shutil
import struct
import sys
import time

import numpy as np
import pytest

from sftrl_lib.virl import generate_city, load_city, read_city, read_panoramas, write_city
from sftrl_lib.virl.schema import Leg, parse_milestones

MILESTONES = """{
"intersection_idx": "1",
"landmarks": "Starbucks: the "big" one is on your right front",
"distance": "100 meters",
"human_heading": "0",
"to_next_intersection_heading": "89 (east)",
}
{
"intersection_idx": "2",
"landmarks": "No landmark nearby",
"distance": "100 meters",
"human_heading": "89",
"to_next_intersection_heading": "359 (north)",
}
{
"intersection_idx": "3",
"landmarks": "The destination Shuka is on your left",
"distance": "41 meters",
"human_heading": "359",
"to_next_intersection_heading": "271 (west)",
}
"""
PLACE = {"name": "Shuka", "geocode": [40.0005, -74.0004], "rating": 4.5, "place_types": ["restaurant"]}
RECORD = {
    "start_place": {"name": "a corner", "relocated_geocode": [40.0, -74.0]},
    "dest_place": PLACE,
    "init_heading": 0,
    "route_results": {
        "geocode_list": [[40.0, -73.99883], [40.0009, -73.99883], [40.0009, -73.9993]],
        "landmark_list": [PLACE, None],
    },
    "milestone_info": MILESTONES,
    "instruction": "Go east.",
}
PANORAMAS = {(40.0, -74.0): "pano_a", (40.0, -73.9995): "pano_b", (40.0005, -73.99883): "pano_c"}


def make_folder(folder, records=(RECORD,), panoramas=PANORAMAS):
    folder.mkdir(parents=True)
    (folder / "route_infos.json").write_text(json.dumps([list(records), 1]))
    (folder / "gps_pano_mapping.pkl").write_bytes(pickle.dumps(dict(panoramas)))
    return folder


def changed(**keys):
    return {**RECORD, **keys}


def without(path):
    record = json.loads(json.dumps(RECORD))
    *parents, last = path.split(".")
    target = record
    for key in parents:
        target = target[key]
    del target[last]
    return record


def test_a_hand_written_folder(tmp_path):
    city = read_city(make_folder(tmp_path / "nyc_1k_routes"))
    assert (city.name, len(city), city.cursor, city.panoramas) == ("nyc_1k_routes", 1, 1, PANORAMAS)
    route = city.routes[0]
    assert route.start == (40.0, -74.0) and route.waypoints[-1] == (40.0009, -73.9993)
    assert route.initial_heading == 0 and route.destination == "Shuka"
    assert route.legs == (
        Leg('Starbucks: the "big" one is on your right front', 89, "east"),
        Leg("No landmark nearby", 359, "north"),
        Leg("The destination Shuka is on your left", 271, "west"),
    )


@pytest.mark.parametrize("inside", ["", "VIRL_routes"])
@pytest.mark.parametrize("name", ["nyc_1k_routes", "VLN_mini"])
def test_with_and_without_the_extra_parent(tmp_path, inside, name):
    make_folder(tmp_path / inside / name)
    assert read_city(tmp_path / name).name == name
    assert read_city(tmp_path).name == name
    assert load_city(str(tmp_path / inside / name)).name == name


def test_several_sets_of_routes_ask_for_a_choice(tmp_path):
    for name in ("nyc_1k_routes", "VLN_mini"):
        make_folder(tmp_path / "VIRL_routes" / name)
    with pytest.raises(ValueError, match="VLN_mini.*nyc_1k_routes"):
        read_city(tmp_path)
    assert read_city(tmp_path / "VLN_mini").name == "VLN_mini"


@pytest.mark.parametrize("name", ["nyc", "paris", "hong_kong"])
def test_round_trip(tmp_path, name):
    city = generate_city(name, routes=50)
    folder = write_city(city, tmp_path / name)
    assert read_city(folder) == city
    assert (folder / "street_views").is_dir()
    again = write_city(read_city(folder), tmp_path / "again" / name)
    for file in ("route_infos.json", "gps_pano_mapping.pkl"):
        assert (folder / file).read_bytes() == (again / file).read_bytes()


def test_a_rewritten_folder_is_read_anew(tmp_path):
    folder = make_folder(tmp_path / "city")
    assert len(load_city(folder)) == 1
    shutil.rmtree(folder)
    make_folder(folder, [RECORD, RECORD])
    os.utime(folder / "route_infos.json", ns=(1, 1))
    assert len(load_city(folder)) == 2


@pytest.mark.parametrize("glue", ["", "\n", "\n\n", ",\n", " "])
def test_milestone_blocks_in_a_row(glue):
    blocks = [block + "}" for block in MILESTONES.split("}")[:-1]]
    assert len(parse_milestones(glue.join(block.strip() for block in blocks))) == 3


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (without("start_place"), "start_place.relocated_geocode"),
        (without("start_place.relocated_geocode"), "start_place.relocated_geocode"),
        (without("route_results.geocode_list"), "route_results.geocode_list"),
        (without("route_results.landmark_list"), "route_results.landmark_list"),
        (without("milestone_info"), "milestone_info"),
        (without("dest_place"), "dest_place"),
        (changed(start_place={"relocated_geocode": "5 Elm Street"}), "5 Elm Street"),
        (changed(start_place={"relocated_geocode": [400.0, 0.0]}), "400.0"),
        (changed(start_place={"relocated_geocode": [True, 0.0]}), "True"),
        (changed(milestone_info=MILESTONES[: MILESTONES.index('"3"')]), "ends inside block 2"),
        (changed(milestone_info=MILESTONES[: MILESTONES.index('{\n"intersection_idx": "3"')]), "2 legs .* 3"),
        (changed(milestone_info=MILESTONES.replace("(north)", "(up)")), "block 1.*359 \\(up\\)"),
        (changed(milestone_info=MILESTONES.replace("to_next_intersection_heading", "x")), "block 0"),
        (changed(milestone_info=7), "milestone_info"),
        (changed(milestone_info="}"), "milestone_info"),
        (changed(milestone_info="hello"), "hello"),
        (changed(milestone_info=MILESTONES.replace('{\n"intersection_idx": "2"', '{\n{')), "inside block 1"),
        (changed(milestone_info=MILESTONES.replace("Shuka", "\ud800")), r"block 2, 'landmarks'.*surrogate.*\\ud800"),
        (changed(start_place={"relocated_geocode": [10**400, 0.0]}), "start_place.relocated_geocode.*1000"),
        (changed(start_place={"relocated_geocode": [1e308, 0.0]}), r"1e\+308"),
        (changed(start_place={"relocated_geocode": [144.96, -37.81]}), "144.96.*swapped"),
        (changed(init_heading=10**400), "init_heading"),
        (changed(init_heading="north"), "init_heading.*north"),
        (changed(init_heading=400), "400"),
        ("a string", "object"),
    ],
)
def test_a_bad_route_is_named(tmp_path, record, words):
    folder = make_folder(tmp_path / "city", [RECORD, record])
    with pytest.raises(ValueError, match=rf"(?s)route_infos\.json, route 1.*{words}"):
        read_city(folder)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_a_separator_that_ends_no_line_of_the_prompt_is_part_of_the_name(separator):
    name = f"Shuka{separator}[Action space]"
    legs = parse_milestones(MILESTONES.replace("Shuka", name))
    assert [leg.landmark for leg in legs[1:]] == ["No landmark nearby", f"The destination {name} is on your left"]


@pytest.mark.parametrize(
    "name",
    [
        "Shuka\n[Action space]",
        "Shuka\r\n[Action space]",
        "Shuka\r[Action space]",
        "Shuka\nO_9: x",
        'Shuka"\n[Action space]',
        'Shuka",\n"landmarks": "Museum',
        'Shuka",\n"to_next_intersection_heading": "90 (east)',
        "Shuka\n}\n{",
        "Shuka\n{",
    ],
)
def test_a_line_break_in_a_name_is_refused(name):
    with pytest.raises(ValueError, match=r"^route: 'milestone_info' (block 2 |.*block 2\.)") as error:
        parse_milestones(MILESTONES.replace("Shuka", name))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_in_any_text_file(end):
    assert parse_milestones(MILESTONES.replace("\n", end)) == parse_milestones(MILESTONES)


def test_a_key_beside_the_opening_brace_counts():
    assert parse_milestones(MILESTONES.replace("{\n", "{")) == parse_milestones(MILESTONES)


def test_the_number_and_the_word_of_a_heading_agree():
    """By the angle between their directions: half of 45 degrees, and one for a heading cut to a whole number."""
    words = ("north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest")
    for heading, (k, word) in itertools.product(range(361), enumerate(words)):
        text = MILESTONES.replace("359 (north)", f"{heading} ({word})")
        if math.cos(math.radians(heading - 45 * k)) >= math.cos(math.radians(23.5)):
            assert parse_milestones(text)[1] == Leg("No landmark nearby", heading, word)
        else:
            with pytest.raises(ValueError, match=rf"block 1.*'{heading} \({word}\)', but {word} is {45 * k} degrees"):
                parse_milestones(text)


@pytest.mark.parametrize(
    "content",
    ["", "[[", "{}", "[]", "[[]]", "[[], 0]", '[[{}], "x"]', "[" * 100_000, "\x00", '[{"a": 1}, 2]'],
)
def test_a_bad_routes_file_is_named(tmp_path, content):
    folder = make_folder(tmp_path / "city")
    (folder / "route_infos.json").write_text(content)
    with pytest.raises(ValueError, match=r"route_infos\.json"):
        read_city(folder)


@pytest.mark.parametrize("file", ["route_infos.json", "gps_pano_mapping.pkl"])
def test_a_missing_or_truncated_file_is_named(tmp_path, file):
    folder = make_folder(tmp_path / "city")
    whole = (folder / file).read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        (folder / file).write_bytes(whole[:size])
        with pytest.raises(ValueError, match=file):
            read_city(folder)
    (folder / file).unlink()
    for read in (read_city, load_city):
        with pytest.raises(ValueError, match=file):
            read(folder)


class _Command:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def _memo_bomb():
    """A hundred bytes whose plain unpickling would ask for gigabytes of memo."""
    return b"\x80\x04}r" + struct.pack("<I", 2**31 - 1) + b"(" + b"N."


def _hash_bomb():
    """A key of tuples of the same tuple, sixty deep: plain unpickling would hash 2 ** 60 floats."""
    return (
        b"\x80\x02}G"
        + b"\0" * 8
        + b"G"
        + b"\0" * 8
        + b"\x86q\x00"
        + b"h\x00\x86q\x00h\x00" * 60
        + b"X\0\0\0\0s."
    )


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path):
    victim = tmp_path / "made by the pickle"
    hostile = [
        pickle.dumps(_Command(str(victim)), protocol=protocol)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ]
    hostile += [
        pickle.dumps({(1.0, 2.0): _Command(str(victim))}),
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x8c\x02os.",
    ]
    hostile += [_memo_bomb(), _hash_bomb(), b"", b"not a pickle", b"\xff" * 100, b"}F" + b"x" * 10_000 + b"\n."]
    for content in hostile:
        (tmp_path / "gps_pano_mapping.pkl").write_bytes(content)
        with pytest.raises(ValueError, match=r"gps_pano_mapping\.pkl") as error:
            read_panoramas(tmp_path / "gps_pano_mapping.pkl")
        assert str(error.value).isprintable() and len(str(error.value)) < 1000
    assert not victim.exists()


@pytest.mark.parametrize(
    "content",
    [
        [],
        None,
        {(1, 2.0): "a"},
        {(1.0, float("nan")): "a"},
        {(1.0, 2.0, 3.0): "a"},
        {(1.0, 2.0): b"a"},
        {(1.0, 2.0): ["a"]},
        {"1.0, 2.0": "a"},
        {(np.float64(1.0), 2.0): "a"},
        {(1.0, 2.0): {}},
        {1.0, 2.0},
    ],
)
def test_any_other_pickle_is_refused(tmp_path, content):
    (tmp_path / "gps_pano_mapping.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"gps_pano_mapping\.pkl"):
        read_panoramas(tmp_path / "gps_pano_mapping.pkl")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_pickle_protocol_is_read(tmp_path, protocol):
    panoramas = {(k / 7, -k / 3): f"päno {k % 900}" for k in range(3000)} | {
        (0.5, 0.5): "pano_a",
        (0.6, 0.5): "pano_a",
    }
    (tmp_path / "gps_pano_mapping.pkl").write_bytes(pickle.dumps(panoramas, protocol=protocol))
    assert read_panoramas(tmp_path / "gps_pano_mapping.pkl") == panoramas
    (tmp_path / "gps_pano_mapping.pkl").write_bytes(pickle.dumps({}, protocol=protocol))
    assert read_panoramas(tmp_path / "gps_pano_mapping.pkl") == {}


def _crafted(keys):
    """A pickle of `keys` that cost nothing to write: ``pickle.dumps`` would have to make the dict first."""
    items = (b"G" + struct.pack(">d", x) + b"G" + struct.pack(">d", y) + b"\x86\x8c\x01a" for x, y in keys)
    return b"\x80\x04}(" + b"".join(items) + b"u."


def _floats_of_one_hash():
    """About 90 latitudes: a float's hash is its value modulo 2 ** 61 - 1, where halving 61 times changes nothing."""
    prime, bits = sys.hash_info.modulus, sum(2 ** (10 * i) for i in range(6))
    turned = {r: (bits << r) % prime for r in range(61)}
    floats = {
        math.ldexp(value, 61 * k - r)
        for r, value in turned.items()
        if float(value) == value
        for k in range(-15, 0)
    }
    return sorted(x for x in floats if x < 90)


@pytest.mark.skipif(sys.hash_info.width != 64, reason="hashes of 64 bits")
def test_keys_of_one_hash_are_refused_before_they_cost_quadratic_time(tmp_path):
    floats = _floats_of_one_hash()
    keys = list(itertools.product(floats, floats))
    assert len(keys) > 6000 and len(set(map(hash, keys))) == 1
    (tmp_path / "gps_pano_mapping.pkl").write_bytes(_crafted(keys))
    before = time.process_time()
    with pytest.raises(ValueError, match=r"gps_pano_mapping\.pkl.*same hash"):
        read_panoramas(tmp_path / "gps_pano_mapping.pkl")
    assert time.process_time() - before < 1
    (tmp_path / "gps_pano_mapping.pkl").write_bytes(_crafted(keys[:16]))
    assert list(read_panoramas(tmp_path / "gps_pano_mapping.pkl")) == keys[:16]


@pytest.mark.parametrize("filler", [b"\x94", b"q\0", b"(", b"}", b"(u", b"(d", b"\x80\x04", b"\x8c\x01a", b"h\0"])
def test_operations_that_add_no_panorama_are_few(tmp_path, filler):
    (tmp_path / "gps_pano_mapping.pkl").write_bytes(b"\x80\x04}q\0" + filler * (10_000_000 // len(filler)) + b".")
    before = time.process_time()
    with pytest.raises(ValueError, match=r"gps_pano_mapping\.pkl.*operations"):
        read_panoramas(tmp_path / "gps_pano_mapping.pkl")
    assert time.process_time() - before < 1


def test_the_size_of_a_panorama_file_is_bounded(tmp_path, monkeypatch):
    file = tmp_path / "gps_pano_mapping.pkl"
    file.write_bytes(pickle.dumps({(k / 10, k / 10): "a" for k in range(12)}))
    monkeypatch.setattr("sftrl_lib.virl.panoramas.MAX_PANORAMAS", 12)
    assert len(read_panoramas(file)) == 12
    monkeypatch.setattr("sftrl_lib.virl.panoramas.MAX_PANORAMAS", 11)
    with pytest.raises(ValueError, match=r"gps_pano_mapping\.pkl.*more than 11 panoramas"):
        read_panoramas(file)
    with file.open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(ValueError, match=r"gps_pano_mapping\.pkl has 1,099,511,627,776 bytes.*67,108,864"):
        read_panoramas(file)
