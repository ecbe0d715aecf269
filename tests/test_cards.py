"""Drawn cards: distinct, in their places, in the right colours, repeatable, fast, and legible to a plain classifier."""

import time
from itertools import combinations, product

import numpy as np
import pytest
from PIL import Image

from sftrl_lib.points import RANKS, SUITS, deal_suits
from sftrl_lib.points.cards import IMAGE_SIZE, PICTURE_SIZE, TIDY, UNTIDY, Look, draw_card, draw_hand

DECK = list(product(RANKS, SUITS["any"]))
TABLE = np.array([0x35, 0x65, 0x4D])
WILD = Look(jitter=1.0, fonts=("serif", "sans", "mono", "times"))


def grey(picture):
    return np.asarray(Image.fromarray(picture).convert("L")).astype(float)


def card_pixels(rank, suit, width, look=TIDY):
    """The opaque pixels of a card: n x 3."""
    card = np.asarray(draw_card(rank, suit, width, look)).astype(int)
    return card[card[..., 3] == 255][:, :3]


@pytest.mark.parametrize("width", [29, 250])
def test_all_cards_differ(width):
    drawn = {card: np.asarray(draw_card(*card, width)).astype(float) for card in DECK}
    for one, other in combinations(DECK, 2):
        assert abs(drawn[one] - drawn[other]).mean() > 0.5, (one, other)


@pytest.mark.parametrize("width", [29, 43, 84, 250])
def test_red_is_red_and_black_is_black(width):
    for rank, suit in DECK:
        pixels = card_pixels(rank, suit, width)
        red = (pixels[:, 0] - pixels[:, 1:].max(axis=1) > 90).mean()
        black = (pixels.max(axis=1) < 60).mean()
        assert (red > 0.01 and black == 0) if suit in SUITS["red"] else (black > 0.01 and red == 0), (rank, suit)


@pytest.mark.parametrize("width", [100, 250])
def test_number_cards_hold_as_many_pips_as_they_say(width):
    """More pips, more ink (and the two corners of a card are the same but for the rank)."""
    for suit in SUITS["any"]:
        ink = [(card_pixels(rank, suit, width)[:, 1] < 128).sum() for rank in RANKS[1:10]]
        assert all(more > less for less, more in zip(ink, ink[1:], strict=False))


def test_the_official_canvas():
    """1200 x 1200: four cards of 270 x 378 on #35654d, each in the middle of its quarter, from y = 411."""
    picture = draw_hand(["A", "7", "10", "Q"], ["spades", "hearts", "clubs", "diamonds"], (1200, 1200))
    assert picture.dtype == np.uint8 and picture.shape == (1200, 1200, 3)
    on_table = (picture == TABLE).all(axis=-1)
    rows = np.flatnonzero(~on_table.all(axis=1))
    assert (rows[0], rows[-1]) == (411, 788)
    for i in range(4):
        columns = np.flatnonzero(~on_table[:, 300 * i : 300 * (i + 1)].all(axis=0))
        assert (columns[0], columns[-1]) == (15, 284)


@pytest.mark.parametrize("size", [(64, 128), (96, 192), (32, 128), (200, 100), PICTURE_SIZE])
@pytest.mark.parametrize("look", [TIDY, UNTIDY, WILD])
def test_every_card_stays_in_its_quarter(size, look):
    """Another card in one place changes pixels in that quarter alone, however untidily it lies."""
    look = Look(jitter=look.jitter, fonts=look.fonts)  # without noise
    suits = ["clubs", "hearts", "spades", "diamonds"]
    for seed in range(5):
        before = draw_hand(["2", "9", "J", "K"], suits, size, look, np.random.default_rng(seed))
        for i, other in enumerate(["8", "A", "4", "7"]):
            cards = ["2", "9", "J", "K"]
            cards[i] = other
            after = draw_hand(cards, suits, size, look, np.random.default_rng(seed))
            columns = np.flatnonzero((before != after).any(axis=(0, 2)))
            assert len(columns) and i * size[1] // 4 <= columns[0] and columns[-1] < (i + 1) * size[1] // 4 + 1
    edges = np.concatenate([before[0], before[-1], before[:, 0], before[:, -1]]).astype(int)
    assert (abs(edges - TABLE).max(axis=1) < 200).all()  # no card is cut off by the edge of the picture


def test_the_same_chance_gives_the_same_picture():
    hand = ["3", "K", "10", "10"], ["hearts", "clubs", "spades", "clubs"]

    def draw(seed, look):
        return draw_hand(*hand, IMAGE_SIZE, look, np.random.default_rng(seed))

    for look in (UNTIDY, WILD, Look(noise=30), Look(fonts=("sans", "times"))):
        assert (draw(1, look) == draw(1, look)).all()
        assert any((draw(1, look) != draw(seed, look)).any() for seed in range(2, 12))
    assert (draw(1, TIDY) == draw(2, TIDY)).all() and (draw(1, TIDY) == draw_hand(*hand)).all()
    assert (draw_hand(*hand, look=Look(jitter=1, noise=9)) == draw_hand(*hand)).all()  # no generator, no chance


def test_fade_takes_the_contrast_away():
    def contrast(fade):
        shades = card_pixels("8", "clubs", 29, Look(fade=fade)).max(axis=1)
        return int(shades.max()) - int(shades.min())

    assert contrast(0) > 1.8 * contrast(0.5) > 3 * contrast(0.9) > 0


def test_noise_is_as_strong_as_asked():
    quiet = draw_hand(["4"] * 4, ["clubs"] * 4).astype(int)
    table = (quiet == TABLE).all(axis=-1)
    for noise in (5, 20):
        loud = draw_hand(["4"] * 4, ["clubs"] * 4, IMAGE_SIZE, Look(noise=noise), np.random.default_rng(0)).astype(int)
        assert (loud - quiet)[table].std() == pytest.approx(noise, rel=0.05)


@pytest.mark.parametrize(
    "options, named",
    [
        ({"red": "reddish"}, "reddish"),
        ({"style": "modern"}, "style='modern'"),
        ({"fonts": ()}, "fonts must be"),
        ({"fonts": "serif"}, "fonts must be"),
        ({"fonts": ("comic",)}, "font='comic'"),
        ({"jitter": 1.5}, "jitter must be between 0 and 1, got 1.5"),
        ({"fade": 1.0}, "fade must be"),
        ({"noise": -1}, "noise must be"),
        ({"noise": float("nan")}, "noise must be"),
    ],
)
def test_nonsense_looks_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        Look(**options)


@pytest.mark.parametrize(
    "change, named",
    [
        ({"cards": ["1", "2", "3", "4"]}, "rank='1'"),
        ({"suits": ["spades", "hearts", "clubs", "stars"]}, "suit='stars'"),
        ({"suits": ["spades"]}, "needs its suit"),
        ({"size": (8, 128)}, "image size"),
        ({"size": (64, 1e9)}, "image size"),
        ({"size": 64}, "image size"),
    ],
)
def test_nonsense_hands_are_named(change, named):
    with pytest.raises(ValueError, match=named):
        draw_hand(**({"cards": ["A", "2", "3", "4"], "suits": ["spades"] * 4} | change))


def test_dealt_suits_make_a_hand_of_one_deck():
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert len(set(deal_suits(rng, ["K"] * 4))) == 4
        assert sorted(deal_suits(rng, ["K", "3", "K", "5"], "red")[::2]) == ["diamonds", "hearts"]
    assert set(deal_suits(rng, ["A", "A", "A", "2"], "black")) <= set(SUITS["black"])  # three aces of two suits
    with pytest.raises(ValueError, match="suits='blue'"):
        deal_suits(rng, ["A"], "blue")


def rank_pixels(cell):
    """What a reader looks at in one quarter of a picture: find the paper, cut out its upper part, even the contrast."""
    paper = grey(cell) > 150
    rows, columns = (np.flatnonzero(paper.sum(axis=axis) > 3) for axis in (1, 0))
    card = grey(cell)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    card = np.asarray(Image.fromarray(card.astype(np.uint8)).resize((24, 34), Image.Resampling.BILINEAR))[2:22, 2:-2]
    card = card.astype(float).ravel() - card.mean()
    return card / np.linalg.norm(card)


def examples(suits, look, seed, times):
    """(pixels, ranks) of `times` independently drawn cards of every rank."""
    rng = np.random.default_rng(seed)
    pixels, ranks = [], []
    for _ in range(times):
        order = [str(rank) for rank in rng.permutation(RANKS)]
        for start in range(0, len(RANKS), 4):
            cards = (order * 2)[start : start + 4]
            picture = draw_hand(cards, deal_suits(rng, cards, suits), IMAGE_SIZE, look, rng)
            pixels += [rank_pixels(cell) for cell in np.split(picture, 4, axis=1)]
            ranks += cards
    return np.array(pixels), np.array(ranks)


@pytest.mark.parametrize("suits", ["black", "red"])
def test_the_picture_carries_the_ranks(suits):
    """The most similar of a few hundred black cards tells the rank of fresh cards, in grey, at the default look."""
    known, answers = examples("black", UNTIDY, seed=1, times=60)
    asked, ranks = examples(suits, UNTIDY, seed=2, times=25)
    read = answers[(asked @ known.T).argmax(axis=1)]
    assert (read == ranks).mean() >= 0.99


def test_drawing_a_batch_is_fast():
    rng = np.random.default_rng(0)

    def batch():
        for _ in range(256):
            cards = [str(rank) for rank in rng.choice(RANKS, size=4)]
            draw_hand(cards, deal_suits(rng, cards), IMAGE_SIZE, UNTIDY, rng)

    batch(), batch()  # now most faces are in the cache
    started = time.process_time()
    batch()
    assert time.process_time() - started < 1.0  # a fraction of that on an idle core
