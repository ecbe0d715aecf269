"""What the vision-language model sees before any SFT: the hold-outs, and that documents say what pictures show.

Everything is read from the pictures and texts of documents; the generator is not trusted.
"""

import random
import re
from collections import Counter

import numpy as np
import pytest

from sftrl_lib.foundation import gp_vl_curriculum
from sftrl_lib.foundation.gp_vl_curriculum import POOL, document, pictured_hand, random_look
from sftrl_lib.points import card_numbers, is_heldout
from sftrl_lib.points.cards import UNTIDY, draw_hand
from sftrl_lib.points.environment import GeneralPoints

_RULE = re.compile(r"'J', 'Q', and 'K' count as '(\d+)'(?:, '(\d+)', and '(\d+)' respectively)?")
_NUMBERS = re.compile(r"\[(\d+(?:, \d+)*)\]")
_CARDS = re.compile(r"\[('\w+'(?:, '\w+')*)\]")


@pytest.fixture(scope="module")
def documents():
    rng, patch = random.Random("cards"), pytest.MonkeyPatch()
    patch.setattr(gp_vl_curriculum, "POOL", 150)  # drawing is slow
    yield [document(rng, i / 600) for i in range(600)]
    patch.undo()


def reddish(picture):
    """Share of the pixels that are clearly redder than green and blue, as the environment's red ink is."""
    red, green, blue = (picture[..., i].astype(int) for i in range(3))
    return ((red - green > 70) & (red - blue > 50)).mean()


def test_no_red_card_is_ever_shown(documents):
    shown = {id(turn.picture): turn.picture for doc in documents for turn in doc if turn.picture is not None}
    assert len(shown) > 100
    assert max(map(reddish, shown.values())) < 0.01
    rng = np.random.default_rng(0)
    red = [draw_hand(["4", "K", "10", "Q"], ["hearts", "diamonds"] * 2, look=UNTIDY, rng=rng) for _ in range(20)]
    assert min(map(reddish, red)) > 0.03, "the measure can tell"
    assert {suit for index in range(100) for suit in pictured_hand(index).suits} == {"spades", "clubs"}
    assert all(0 <= index < POOL for index in range(100))


def test_inks_are_of_every_other_colour():
    rng = random.Random(0)
    looks = [random_look(rng) for _ in range(300)]
    assert 100 < sum(look == UNTIDY for look in looks) < 200, "half are the environment's own"
    assert len({look.black for look in looks}) > 100


def test_pictures_are_of_the_size_that_the_environment_shows():
    env = GeneralPoints(modality="image", suits="black")
    image = env.reset(seed=0)[0]["image"]
    assert all(pictured_hand(index).picture.shape == image.shape for index in range(5))


def test_documents_say_what_their_pictures_show(documents):
    hands = [pictured_hand(index, "black") for index in range(150)]  # those of the documents, from the cache
    shown = {id(hand.picture): hand.cards for hand in hands}
    kinds = Counter()
    for doc in documents:
        text = "".join(turn.content for turn in doc)
        rule = tuple(int(v or m[1]) for m in [_RULE.search(text)] for v in m.groups())
        assert sum(a == b for a, b in zip(rule, (11, 12, 13), strict=True)) <= 1, "the OOD rule is held out"
        assert not all(f'"{key}"' in text for key in ("cards", "number", "formula")) or doc[0].role == "text"
        cards = None
        for turn in doc:
            cards = shown[id(turn.picture)] if turn.picture is not None else cards
            kinds[turn.role, turn.learn] += 1
            if turn.learn:
                said = [re.findall(r"\w+", m[1]) for m in _CARDS.finditer(turn.content)]
                numbers = [list(map(int, m[1].split(", "))) for m in _NUMBERS.finditer(turn.content)]
                assert all(read == cards for read in said)
                assert all(read == list(card_numbers(cards, rule)) for read in numbers)
            for m in _NUMBERS.finditer(turn.content):
                read = list(map(int, m[1].split(", ")))
                assert len(read) != 4 or not is_heldout(read)
    assert kinds["assistant", True] > 100 and kinds["assistant", False] > 20 and kinds["text", True] > 400
