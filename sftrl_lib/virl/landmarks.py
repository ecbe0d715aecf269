"""Names of landmarks: invented, varied and unique, except for a few chains.

A name has no quotation marks, braces or colons, which would break the official parser, and never the word
"intersection", which the official verifier looks for in the landmark text.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

PEOPLE = """
Abram Adela Amaro Anselm Basil Beatriz Bruno Calla Carver Celeste Corwin Dahlia Delia Dorian Edda Elias Elmo
Esme Ferris Fiona Gideon Greta Hadley Hugo Ida Imani Ines Jasper Jonas Judith Kasimir Keiko Lazar Leona Lola
Lucian Mabel Marlow Mirela Nadia Nestor Odette Olive Oren Pascal Petra Quentin Ramona Rosa Rufus Sabine
Selma Silas Soren Tamsin Theo Ursula Vera Viola Wanda Winston Yara Yusuf Zelda
""".split()

WORDS = """
Amber Anchor Aspen Azure Birch Blue Brass Bright Cedar Cherry Clover Cobalt Copper Coral Crescent Crimson
Crown Dragon Driftwood Ember Falcon Fern Fig Foxglove Garnet Gilded Golden Granite Harbor Hazel Heron Hidden
Indigo Iron Ivory Jade Juniper Lantern Laurel Lemon Lily Lucky Lunar Magnolia Maple Marble Meadow Midnight
Mint Misty Mulberry Nightingale North Oak Olive Opal Orchid Otter Pearl Pepper Pine Poppy Quiet Raven Red
River Robin Royal Saffron Sage Scarlet Silver Sparrow Spruce Starlight Stone Summit Swan Tamarind Thistle
Tulip Twin Umber Velvet Violet Walnut Willow Winter
""".split()

STREETS = """
Alder Ashby Beacon Bridge Canal Chapel Clarence Dock Elm Ferry Foundry Garden Granary High Hill Jubilee King
Lark Liberty Linden Market Mercer Mill Mission Monroe Orchard Park Pearl Prince Prospect Queen Quarry
Rivington Sawmill Spring State Temple Union Vine Water
""".split()

# Google's place types with templates for names; {local} is one of the city's local words.
KINDS = (
    (
        ("cafe", "food"),
        ("Café {person}", "{word} Coffee", "{person}'s Coffee House", "{word} {local} Espresso Bar"),
    ),
    (
        ("restaurant", "food"),
        ("The {word} {word2}", "{person}'s Kitchen", "{local} {word} Grill", "Casa {person}"),
    ),
    (("bar",), ("The {word} Tap", "{person} & {person2} Wine Bar", "{word} {word2} Tavern")),
    (("lodging",), ("Hotel {person}", "{word} {local} Hotel", "The {word} Inn", "Hotel {word} {number}")),
    (
        ("store",),
        ("{person}'s Books", "{word} Records", "{word} & {word2} Interiors", "{street} Street Hardware"),
    ),
    (("clothing_store", "store"), ("{person} {word} Tailors", "House of {person}", "{word} Shoes")),
    (("pharmacy", "health"), ("{street} Pharmacy", "{word} Drugstore", "{local} Apothecary {number}")),
    (("bakery", "food"), ("{person}'s Bakery", "{word} Loaf", "{local} {word} Patisserie")),
    (("museum",), ("{local} Museum of {art}", "{person} {word} Gallery", "{street} Street Museum")),
    (("park",), ("{word} {street} Playground", "{person} Square", "{word} Garden")),
    (("school",), ("{street} Primary School", "{word} Language School", "{local} {art} Academy")),
    (("church", "place_of_worship"), ("Church of Saint {person}", "{word} Hill Chapel")),
    (("gym", "health"), ("{word} Fitness", "{street} Boxing Club", "{person} Yoga")),
    (("movie_theater",), ("The {word} Cinema", "{local} {word} Theatre")),
    (("hair_care",), ("{person}'s Barbershop", "Salon {person}", "{word} Nails")),
)
ARTS = ("Glass", "Maps", "Ceramics", "Photography", "Music", "Toys", "Textiles", "Design", "Dance", "Paper")
CHAINS = (
    ("Corner Mart", ("convenience_store", "store")),
    ("Cityline Bank", ("bank", "finance")),
    ("Kettle & Crumb", ("cafe", "food")),
    ("Parcel Point", ("post_office",)),
    ("Quick Pump", ("gas_station",)),
)
CHAIN_SHARE = 0.08


def landmark_names(rng: random.Random, local_words: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """An endless stream of (name, place types). Only the names of `CHAINS` repeat."""
    seen: set[str] = set()
    while True:
        if rng.random() < CHAIN_SHARE:
            yield rng.choice(CHAINS)
            continue
        types, patterns = rng.choice(KINDS)
        word, word2 = rng.sample(WORDS, 2)
        person, person2 = rng.sample(PEOPLE, 2)
        name = rng.choice(patterns).format(
            word=word,
            word2=word2,
            person=person,
            person2=person2,
            street=rng.choice(STREETS),
            local=rng.choice(local_words),
            art=rng.choice(ARTS),
            number=rng.randrange(2, 99),
        )
        if name not in seen:
            seen.add(name)
            yield name, types


def address(rng: random.Random) -> str:
    """A house number and a street."""
    return f"{rng.randrange(1, 400)} {rng.choice(STREETS)} Street"
