"""The cities that can be generated: location, street plans, and local words for landmark names.

How they differ: the paper's routes are real ones, 1,000 in New York and two in each of nine cities. Ours are
invented at the same places, with twenty in each of the nine; each city has a different mix of the street plans in
`streets.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from .streets import District


@dataclass(frozen=True)
class CitySpec:
    """What a city is generated from."""

    title: str
    latitude: float
    longitude: float
    districts: tuple[District, ...]
    words: tuple[str, ...]  # local words for landmark names
    routes: int = 1000


CITIES = {
    "nyc": CitySpec(
        "New York",
        40.7223,
        -73.9987,
        (
            District("grid", 29, 9),
            District("organic", 0, 10),
            District("diagonal", 0, 9),
            District("hex", 11, 6),
            District("radial", 17, 5),
            District("grid", 4, 8),
        ),
        ("Bowery", "Hudson", "Knickerbocker", "Gotham", "Battery", "Empire"),
    ),
    "chicago": CitySpec(
        "Chicago", 41.8790, -87.6359, (District("grid", 0, 16),), ("Lakeside", "Prairie", "Loop", "Windy")
    ),
    "barcelona": CitySpec(
        "Barcelona",
        41.3930,
        2.1640,
        (District("diagonal", 45, 14),),
        ("Rambla", "Montjuïc", "Gràcia", "Marina"),
    ),
    "paris": CitySpec(
        "Paris",
        48.8606,
        2.3376,
        (District("radial", 8, 9), District("radial", 21, 6)),
        ("Rive", "Bastille", "Montagne", "Lumière"),
    ),
    "boston": CitySpec(
        "Boston", 42.3601, -71.0589, (District("organic", 0, 14),), ("Beacon", "Commons", "Bay", "Colonial")
    ),
}
MINI_ROUTES = 20  # of a city of the mini benchmark; the official one has 2, too few to tell a method from luck
MINI_CITIES = {
    "milan": CitySpec(
        "Milan", 45.4642, 9.1900, (District("radial", 12, 5),), ("Duomo", "Navigli", "Brera"), MINI_ROUTES
    ),
    "new_delhi": CitySpec(
        "New Delhi", 28.6139, 77.2090, (District("hex", 5, 6),), ("Chandni", "Lodhi", "Raj"), MINI_ROUTES
    ),
    "buenos_aires": CitySpec(
        "Buenos Aires", -34.6037, -58.3816, (District("grid", 7, 8),), ("Palermo", "Tango", "Plata"), MINI_ROUTES
    ),
    "london": CitySpec(
        "London", 51.5072, -0.1276, (District("organic", 0, 9),), ("Thames", "Camden", "Southwark"), MINI_ROUTES
    ),
    "hong_kong": CitySpec(
        "Hong Kong", 22.3193, 114.1694, (District("organic", 33, 9),), ("Kowloon", "Nathan", "Peak"), MINI_ROUTES
    ),
    "new_york": CitySpec(
        "New York", 40.8075, -73.9626, (District("grid", 29, 8),), ("Harlem", "Riverside", "Morningside"), MINI_ROUTES
    ),
    "melbourne": CitySpec(
        "Melbourne", -37.8136, 144.9631, (District("grid", -20, 8),), ("Yarra", "Collins", "Fitzroy"), MINI_ROUTES
    ),
    "lagos": CitySpec(
        "Lagos", 6.5244, 3.3792, (District("organic", 15, 9),), ("Ikeja", "Lekki", "Marina"), MINI_ROUTES
    ),
    "san_francisco": CitySpec(
        "San Francisco",
        37.7897,
        -122.4070,
        (District("diagonal", 9, 8),),
        ("Nob", "Presidio", "Embarcadero"),
        MINI_ROUTES,
    ),
}
MINI = "mini"  # the routes of all `MINI_CITIES` in one set, as in the official VLN_mini folder


def city_names() -> tuple[str, ...]:
    """Every name that ``routes=`` of the environment and `load_city` accept."""
    return (*CITIES, *(f"{name}:heldout" for name in CITIES), *MINI_CITIES, MINI)
