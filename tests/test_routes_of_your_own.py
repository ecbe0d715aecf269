"""A user's own folder of routes: walked as written where it can be, one sentence that names the file where not."""

import json
import pickle
import re

import gymnasium
import pytest
from PIL import Image

import sftrl_lib  # noqa: F401  (registers the environments)
from sftrl_lib.messages import message_text
from sftrl_lib.virl import expert_response, generate_city, read_city, write_city
from sftrl_lib.virl.verifier import read_answer

SWAPPED = r"route_infos\.json, route 0: latitude and longitude of \[.*\] look swapped.*gps_pano_mapping\.pkl"


def own_folder(tmp_path, name="paris", routes=5, change=None, panoramas=None):
    """A generated city's folder; `change` edits each record in place."""
    city = generate_city(name, routes=routes)
    folder = write_city(city, tmp_path / name)
    content = json.loads((folder / "route_infos.json").read_text(encoding="utf-8"))
    for record in content[0] if change else ():
        change(record)
    (folder / "route_infos.json").write_text(json.dumps(content))
    if panoramas is not None:
        (folder / "gps_pano_mapping.pkl").write_bytes(pickle.dumps(panoramas(city)))
    return folder


def swap_start(record):
    record["start_place"]["relocated_geocode"].reverse()


def swap_way_points(record):
    for place in record["route_results"]["geocode_list"]:
        place.reverse()


def swap_all(record):
    swap_start(record)
    swap_way_points(record)


def assert_refused(folder, words):
    """With one sentence, both by the reader and by the environment."""
    for read in (read_city, lambda folder: gymnasium.make("sftrl/Navigation-v0", routes=folder)):
        with pytest.raises(ValueError, match=words) as error:
            read(folder)
        assert str(error.value).isprintable() and str(error.value).endswith(".")


@pytest.mark.parametrize("change", [swap_all, swap_start, swap_way_points])
@pytest.mark.parametrize("name", ["paris", "nyc"])
def test_swapped_coordinates_of_routes_are_named(tmp_path, name, change):
    assert_refused(own_folder(tmp_path, name, change=change), SWAPPED)


def test_swapped_coordinates_of_panoramas_are_named(tmp_path):
    folder = own_folder(tmp_path, panoramas=lambda city: {place[::-1]: name for place, name in city.panoramas.items()})
    assert_refused(folder, SWAPPED)


@pytest.mark.parametrize("which", ["routes", "panoramas"])
def test_coordinates_that_cannot_be_but_swapped_say_so(tmp_path, which):
    """Melbourne lies at 145 degrees of longitude, which is no latitude."""
    if which == "routes":
        folder, file = own_folder(tmp_path, "melbourne", 2, swap_all), r"route_infos\.json, route 0: 'start_place"
    else:
        panoramas = {"panoramas": lambda city: {place[::-1]: name for place, name in city.panoramas.items()}}
        folder, file = own_folder(tmp_path, "melbourne", 2, **panoramas), r"gps_pano_mapping\.pkl"
    assert_refused(folder, rf"{file}.*\[14\d\.\d+, -37\.\d+\]; the two look swapped")


def test_a_city_near_the_diagonal_is_not_taken_for_swapped(tmp_path):
    """At 40 degrees north and 40 east the swapped place may be in the same city."""

    def move(place):
        return [place[0] - 48.86 + 40, place[1] - 2.34 + 40]

    def change(record):
        record["start_place"]["relocated_geocode"] = move(record["start_place"]["relocated_geocode"])
        record["route_results"]["geocode_list"] = [move(place) for place in record["route_results"]["geocode_list"]]

    def panoramas(city):
        route = city.routes[0]  # one panorama for route 0 where its start is swapped, and none at the start itself
        start = tuple(move(route.start))
        moved = {tuple(move(place)): name for place, name in city.panoramas.items() if place != route.start}
        return {place: name for place, name in moved.items() if abs(place[0] - start[0]) > 4e-4} | {start[::-1]: "x"}

    assert len(read_city(own_folder(tmp_path, change=change, panoramas=panoramas))) == 5


def test_another_citys_panoramas_are_named(tmp_path):
    folder = own_folder(tmp_path, panoramas=lambda city: generate_city("boston", routes=1).panoramas)
    assert_refused(folder, r"gps_pano_mapping\.pkl has no panorama within 20 m of 5 of the 5 routes")


def test_a_few_routes_without_panoramas_are_read(tmp_path):
    """They are walked from way-point to way-point."""

    def only(city, routes):
        places = {place for route in city.routes[:routes] for place in (route.start, *route.waypoints)}
        return {place: city.panoramas[place] for place in places}

    assert len(read_city(own_folder(tmp_path / "some", panoramas=lambda city: only(city, 3)))) == 5
    folder = own_folder(tmp_path / "most", panoramas=lambda city: {generate_city("paris", 1).routes[0].start: "a"})
    assert_refused(folder, r"gps_pano_mapping\.pkl has no panorama within 20 m of [345] of the 5 routes")


def test_an_empty_panorama_file_is_named(tmp_path):
    assert_refused(own_folder(tmp_path, panoramas=lambda city: {}), r"gps_pano_mapping\.pkl holds no panoramas")


@pytest.mark.parametrize("place", [(1e308, 2.0), (48.0, -1e308), (90.1, 0.0), (0.0, 180.1)])
def test_a_panorama_that_is_not_on_earth_is_named(tmp_path, place):
    folder = own_folder(tmp_path, panoramas=lambda city: {**city.panoramas, place: "x"})
    assert_refused(folder, r"gps_pano_mapping\.pkl: .*\[latitude, longitude\] in degrees, got \[.*\]")


@pytest.mark.parametrize("words", ["177 (north)", "0 (south)", "360 (west)"])
def test_a_heading_whose_number_and_word_disagree_is_named(tmp_path, words):
    def change(record):
        record["milestone_info"] = re.sub(r"\d+ \(\w+\)", words, record["milestone_info"], count=1)

    key = "'milestone_info' block 0, 'to_next_intersection_heading'"
    assert_refused(own_folder(tmp_path, change=change), rf"route_infos\.json, route 0: {key} is '{re.escape(words)}'")


@pytest.mark.parametrize("separator", ["\n", "\r", "\r\n", "\ud800"])
def test_a_name_that_cannot_be_written_into_a_prompt_is_named(tmp_path, separator):
    folder = own_folder(tmp_path, change=lambda record: rename(record, f"Shop{separator}[Action space]"))
    assert_refused(folder, r"route_infos\.json, route 0: 'milestone_info' block \d")


def rename(record, name):
    """Give the destination another name, everywhere in a record."""
    before, place = record["dest_place"]["name"], record["dest_place"]
    record["milestone_info"] = record["milestone_info"].replace(f"destination {before} is", f"destination {name} is")
    place["name"], place["expression"] = name, place["expression"].replace(before, name)


@pytest.mark.parametrize("verifier", ["exact", "official"])
@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c"])
def test_any_other_separator_is_shown_and_answered_as_written(tmp_path, separator, verifier):
    name = f"Shop{separator}[Action space]{separator}O_9: x"
    folder = own_folder(tmp_path, change=lambda record: rename(record, name))
    city = read_city(folder)
    assert city.routes[0].destination == name
    assert read_city(write_city(city, tmp_path / "again" / "paris")) == city
    env = gymnasium.make("sftrl/Navigation-v0", routes=folder, verifier=verifier).unwrapped
    observation, info = env.reset(seed=0, options={"route": 0})
    over = False
    while not over:
        prompt = message_text(observation["messages"][0]).split("\n")
        assert [prompt.count(f"[{title}]") for title in ("Instruction", "Action space", "Output")] == [1, 1, 1]
        assert sum(f"where The destination {name} is on your" in line for line in prompt) == 1
        answer = expert_response(*(info[f"expert_{key}"] for key in ("observation", "instruction", "action")))
        assert read_answer(answer)["current observation"] == info["expert_observation"]
        observation, reward, over, _, info = env.step(answer)
        assert reward == 1
    assert info["success"] and name in info["expert_observation"]


def test_a_lone_surrogate_that_no_prompt_shows_is_kept(tmp_path):
    """The spoken instruction is not used; a folder written from it has the same escape."""
    folder = own_folder(tmp_path, change=lambda record: record.update(instruction="Go \ud800 on."))
    city = read_city(folder)
    assert read_city(write_city(city, tmp_path / "again" / "paris")) == city


@pytest.mark.parametrize("modality", ["text", "image"])
def test_a_city_on_both_sides_of_180_degrees_is_walked(tmp_path, modality):
    """Paris, moved so that the meridian runs through it, has the same positions, up to rounding."""
    middle = generate_city("paris", routes=5).routes[0].waypoints[0][1]

    def move(longitude):
        longitude += 180 - middle
        return longitude if longitude <= 180 else longitude - 360

    def change(record):
        for place in (record["start_place"]["relocated_geocode"], *record["route_results"]["geocode_list"]):
            place[1] = move(place[1])

    def panoramas(city):
        return {(latitude, move(longitude)): name for (latitude, longitude), name in city.panoramas.items()}

    home = gymnasium.make("sftrl/Navigation-v0", routes=generate_city("paris", routes=5)).unwrapped
    folder = own_folder(tmp_path, change=change, panoramas=panoramas)
    if modality == "image":
        write_pictures(folder)
    moved = gymnasium.make("sftrl/Navigation-v0", routes=folder, modality=modality, view_size=8).unwrapped
    sides = set()
    for route in range(5):
        home.reset(seed=1, options={"route": route})
        moved.reset(seed=1, options={"route": route})
        assert [p.absolute for p in home.rail.points] == [p.absolute for p in moved.rail.points]
        for here, there in zip(home.rail.points, moved.rail.points, strict=True):
            assert move(here.geocode[1]) == pytest.approx(there.geocode[1], abs=1e-9)
            sides.add(there.geocode[1] > 0)
    assert sides == {True, False}


def write_pictures(folder):
    """A small picture for every panorama."""
    for name in read_city(folder).panoramas.values():
        Image.new("RGB", (16, 8)).save(folder / "street_views" / f"{name}.jpg")
        (folder / "street_views" / f"{name}.metadata.json").write_text('{"rotation": 0}')
