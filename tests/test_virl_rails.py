"""Bearings, turn words, spatial words and rails, against hand-computed cases."""

import math

import pytest

from sftrl_lib.virl import bearing, compass_word, load_city, spatial_word, turn_word
from sftrl_lib.virl.rails import PanoramaGrid, RailBuilder, distance, wrap
from sftrl_lib.virl.schema import Leg, Route

# One degree is 111,195 m on this sphere, so 0.0009 degrees are 100 m.
START, CORNER, END = (0.0, 0.0), (0.0, 0.0009), (0.0009, 0.0009)
PANORAMAS = {(0.0, k / 10_000): f"a{k}" for k in range(10)} | {
    (k / 10_000, 0.0009): f"b{k}" for k in range(1, 10)
}
LEGS = (
    Leg("Café Lola is on your left", 90, "east"),
    Leg("The destination Museum is on your right", 0, "north"),
)
ROUTE = Route(START, 350, (CORNER, END), LEGS, {})


@pytest.mark.parametrize(
    ("origin", "target", "expected"),
    [
        ((0.0, 0.0), (1.0, 0.0), 0.0),
        ((0.0, 0.0), (0.0, 1.0), 90.0),
        ((0.0, 0.0), (-1.0, 0.0), 180.0),
        ((0.0, 0.0), (0.0, -1.0), 270.0),
        ((35.0, 45.0), (35.0, 135.0), 60.16),  # Baghdad to Osaka, a textbook example
        ((40.0, -74.0), (40.001, -74.0013), 315.1),  # 111.3 m north, 110.9 m west
    ],
)
def test_bearings(origin, target, expected):
    assert bearing(origin, target) == pytest.approx(expected, abs=0.2)


def test_distances():
    assert distance((0.0, 0.0), (1.0, 0.0)) == pytest.approx(111_195, rel=1e-5)
    assert distance((60.0, 10.0), (60.0, 11.0)) == pytest.approx(111_195 / 2, rel=1e-3)
    assert distance(START, START) == 0.0


def test_wrap():
    cases = {0: 0, 180: 180, -180: 180, 181: -179, -181: 179, 340: -20, -340: 20, 360: 0, 539: 179, 540: 180}
    assert {degrees: wrap(degrees) for degrees in cases} == cases


@pytest.mark.parametrize(
    ("previous", "heading", "exact", "official"),
    [
        (350, 10, "slightly right", "left"),  # the wrap: 20 degrees to the right
        (10, 350, "slightly left", "right"),
        (359, 90, "right", "left"),
        (1, 315, "left", "right"),
        (0, 45, "slightly right", "slightly right"),
        (0, 46, "right", "right"),
        (45, 0, "slightly left", "slightly left"),
        (46, 0, "left", "left"),
        (90, 90, "slightly left", "slightly left"),
        (90, 180, "right", "right"),
        (180, 90, "left", "left"),
        (0, 180, "right", "right"),
        (180, 0, "right", "left"),  # turning round: half a circle either way
        (315, 45, "right", "left"),
        (45, 315, "left", "right"),
        (300, 359, "right", "right"),
    ],
)
def test_turn_words(previous, heading, exact, official):
    assert turn_word(heading, previous) == exact
    assert turn_word(heading, previous, "official") == official


def test_compass_words():
    headings = {
        0: "north",
        22: "north",
        23: "northeast",
        90: "east",
        177: "south",
        292: "west",
        293: "northwest",
    }
    headings |= {337: "northwest", 338: "north", 359.9: "north", 360: "north"}
    assert {heading: compass_word(heading) for heading in headings} == headings


@pytest.mark.parametrize(
    ("target", "heading", "word"),
    [
        (0, 350, "front"),
        (40, 350, "right front"),
        (80, 350, "right"),
        (125, 350, "right behind"),
        (170, 350, "behind"),
        (215, 350, "left behind"),
        (260, 350, "left"),
        (305, 350, "left front"),
        (338, 0, "front"),
        (337, 0, "left front"),
    ],
)
def test_spatial_words(target, heading, word):
    assert spatial_word(target, heading) == word


def test_a_rail_by_hand():
    rail = RailBuilder([ROUTE], PANORAMAS).build(0, seed=0)
    assert rail.instructions == (
        "First, turn right to face east.",  # from 350 to 90 degrees
        "Move forward until you reach next intersection where Café Lola is on your left.",
        "Turn left to face north.",
        "Move forward until you reach destination where The destination Museum is on your right.",
    )
    turns = [point for point in rail.points if point.absolute != "forward()"]
    assert [point.geocode for point in turns] == [START, CORNER, END]
    assert [point.absolute for point in turns] == ["turn_direction(east)", "turn_direction(north)", "stop()"]
    assert [point.relative for point in turns] == ["turn_direction(right)", "turn_direction(left)", "stop()"]
    assert [point.observation for point in turns] == [
        "No landmarks nearby;",
        "Café Lola is on your left; You observe an intersection",
        "The destination Museum is on your right;",
    ]
    assert [point.sentence for point in turns] == [1, 3, 4]
    assert [point.heading for point in turns] == [350, 90, 0]


def test_forward_points_snap_to_panoramas_clear_of_both_ends():
    builder = RailBuilder([ROUTE], PANORAMAS)
    seen = set()
    for seed in range(200):
        rail = builder.build(0, seed)
        forward = [point for point in rail.points if point.absolute == "forward()"]
        assert all(point.relative == "forward()" and not point.at_intersection for point in forward)
        assert {point.observation for point in forward} <= {"No landmarks nearby;"}
        assert all(point.sentence == (2 if point.heading == 90 else 4) for point in forward)
        first_leg = [point.geocode[1] for point in forward if point.heading == 90]
        assert first_leg == sorted(first_leg)
        seen |= set(first_leg)
    # 20, 40, 60 and 80 % of the leg at the nearest panorama; 100 % is the corner itself.
    assert seen == {0.0002, 0.0004, 0.0005, 0.0007}


def test_half_of_the_points_are_dropped():
    builder = RailBuilder([ROUTE], PANORAMAS)
    lengths = [len(builder.build(0, seed)) for seed in range(2000)]
    assert sum(lengths) / 2000 == pytest.approx(3 + 8 / 2, abs=0.15)  # eight points, standard error 0.03


def test_a_rail_is_a_function_of_seed_and_route():
    city = load_city("boston")
    one, other = RailBuilder(city.routes, city.panoramas), RailBuilder(city.routes, city.panoramas)
    rails = [one.build(index, 5) for index in range(20)]
    assert rails == [other.build(index, 5) for index in reversed(range(20))][::-1]
    assert rails != [one.build(index, 6) for index in range(20)]


def test_a_heading_of_zero_is_drawn():
    free = Route(START, 0, ROUTE.waypoints, ROUTE.legs, {})
    builder = RailBuilder([free], PANORAMAS)
    headings = [builder.build(0, seed).initial_heading for seed in range(300)]
    assert len(set(headings)) > 150 and min(headings) >= 0 and max(headings) < 360
    assert builder.build(0, 7) == builder.build(0, 7)


def test_no_panoramas_and_short_legs_leave_only_the_waypoints():
    assert [p.absolute[:4] for p in RailBuilder([ROUTE], {}).build(0, 0).points] == ["turn", "turn", "stop"]
    near = Route(START, 1, ((0.0, 0.00002), END), ROUTE.legs, {})  # a leg of 2 m
    for seed in range(20):
        points = RailBuilder([near], PANORAMAS).build(0, seed).points
        assert [p.absolute[:4] for p in points[:2]] == ["turn", "turn"]
        assert points[1].instruction == "Turn left to face north."


@pytest.mark.parametrize("east", [179.9996, 179.99955, -180.0])
def test_a_leg_across_180_degrees_is_walked_the_short_way(east):
    """The hand-made route, moved along the equator: the same rails in the same places."""

    def moved(place):
        longitude = place[1] + east
        return place[0], round(longitude - 360 if longitude > 180 else longitude, 9)

    legs = (START, *ROUTE.waypoints)
    there = Route(moved(START), 350, tuple(map(moved, ROUTE.waypoints)), LEGS, {})
    panoramas = {moved(place): name for place, name in PANORAMAS.items()}
    here, across = RailBuilder([ROUTE], PANORAMAS), RailBuilder([there], panoramas)
    assert [moved(place) for place in here.places()] == list(across.places())
    assert len(here.places()) > len(legs)
    for seed in range(5):
        rails = here.build(0, seed), across.build(0, seed)
        assert [[p.absolute for p in rail.points] for rail in rails] == [[p.absolute for p in rails[0].points]] * 2


@pytest.mark.parametrize("latitude", [0.0, -17.8, 65.0])
def test_the_nearest_panorama_may_lie_across_180_degrees(latitude):
    near = 0.00005 / math.cos(math.radians(latitude))  # degrees: 5.6 m
    for side in (1, -1):
        panorama = (latitude, side * (180 - near))
        grid = PanoramaGrid({panorama: "a"})
        for longitude in (side * 180.0, -side * 180.0, -side * (180 - near), side * (180 - 3 * near)):
            assert grid.nearest((latitude, longitude)) == panorama
        assert grid.nearest((latitude, -side * (180 - 4 * near))) is None


def test_single_leg_has_no_first():
    single = Route(START, 1, (CORNER,), LEGS[1:], {})
    assert RailBuilder([single], {}).build(0, 0).instructions[0] == "Turn slightly left to face north."


def _turn_degrees(before, here, after):
    """Signed turn to the right, from displacements on a local plane: independent of bearings and wrapping."""
    scale = math.cos(math.radians(here[0]))
    a = ((here[1] - before[1]) * scale, here[0] - before[0])
    b = ((after[1] - here[1]) * scale, after[0] - here[0])
    return math.degrees(math.atan2(a[1] * b[0] - a[0] * b[1], a[0] * b[0] + a[1] * b[1]))


@pytest.mark.parametrize("name", ["nyc", "boston", "paris", "mini"])
def test_relative_turns_are_geographically_right(name):
    city = load_city(name)
    exact = RailBuilder(city.routes, city.panoramas)
    checked = 0
    for index, route in enumerate(city.routes):
        ends = (route.start, *route.waypoints)
        words = [p.relative[15:-1] for p in exact.build(index, 0).points if p.relative.startswith("turn")][1:]
        for before, here, after, word in zip(ends, ends[1:], ends[2:], words, strict=False):
            turn = _turn_degrees(before, here, after)
            if abs(abs(turn) - 45) > 2:  # headings are whole degrees
                size = "slightly " if abs(turn) < 45 else ""
                assert word == size + ("right" if turn > 0 else "left"), (index, turn)
                checked += 1
    assert checked > len(city.routes)
