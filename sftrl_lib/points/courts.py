"""Jack, queen and king: our own geometric figures, point-symmetric like the court cards of a real pack.

Each half is drawn in the upper half of the panel; the sheet is rotated by 180 degrees in between. The colours are the
card's ink and its tints, gold and skin, so that a red court contains no black and a black court no red.
"""

from __future__ import annotations

from collections.abc import Callable

from .card_faces import HEIGHT, WIDTH, Colour, Sheet, curve, index

GOLD: Colour = (222, 178, 80)
_LEFT, _TOP = 47.0, 30.0  # of the panel; it is centred on the card
_MIDDLE, _CUT = WIDTH / 2, HEIGHT / 2


def tint(colour: Colour, paper: Colour, share: float) -> Colour:
    """`colour` mixed with `share` (0 to 1) of the paper."""
    return tuple(round(c + (p - c) * share) for c, p in zip(colour, paper, strict=True))


def court_face(sheet: Sheet, rank: str, suit: str, font: str, ink: Colour, paper: Colour) -> None:
    """A court card: the figure twice, head to head, in a framed panel, and both corners."""
    right, bottom = WIDTH - _LEFT, HEIGHT - _TOP
    panel = [(_LEFT, _TOP), (right, _TOP), (right, bottom), (_LEFT, bottom)]
    sheet.shape(panel, tint(GOLD, paper, 0.86))
    for _ in range(2):
        _half(sheet, rank, suit, ink, paper)
        sheet.turn()
    sheet.stroke([(_LEFT, _CUT), (right, _CUT)], ink, 2)
    sheet.stroke([(_LEFT, _CUT - 4), (right, _CUT - 4)], GOLD, 2)
    sheet.stroke([(_LEFT, _CUT + 4), (right, _CUT + 4)], GOLD, 2)
    for inset, colour, width in ((0, ink, 2), (4, GOLD, 2)):
        a, b, c, d = _LEFT + inset, _TOP + inset, right - inset, bottom - inset
        sheet.stroke([(a, b), (c, b), (c, d), (a, d), (a, b), (c, b)], colour, width)
    for _ in range(2):
        index(sheet, rank, suit, font, ink)
        sheet.turn()


def _half(sheet: Sheet, rank: str, suit: str, ink: Colour, paper: Colour) -> None:
    """The figure in the upper half of the panel, clipped at the middle."""
    below = sheet.image.crop((0, round(_CUT * sheet.scale), *sheet.image.size))
    _FIGURES[rank](sheet, suit, ink, paper)
    sheet.suit(suit, 70, 61, 32, ink)
    sheet.image.paste(below, (0, round(_CUT * sheet.scale)))


def _both(sheet: Sheet, points: list, fill: Colour | None, line: Colour | None = None, width: float = 1.5) -> None:
    """A shape given by its offsets from the middle line, and its mirror image."""
    for side in (1, -1):
        sheet.shape([(_MIDDLE + side * x, y) for x, y in points], fill, line, width)


def _robe(sheet: Sheet, suit: str, ink: Colour, paper: Colour, cloth: Colour) -> None:
    """Shoulders, a fan of folds, two lapels and a row of buttons."""
    shoulder = curve((0, 134), (30, 134), (66, 142), (74, 180))
    _both(sheet, [*shoulder, (0, 180)], cloth, ink)
    for i in range(3):
        _both(sheet, [(20 + 13 * i, 139 + 1.5 * i), (24 + 13 * i, 140 + 2 * i), (34 + 13 * i, 180), (27 + 13 * i, 180)],
              GOLD if i % 2 else ink)  # fmt: skip
    _both(sheet, [(0, 132), (17, 136), (27, 180), (0, 180)], ink)
    _both(sheet, [(0, 138), (12, 139), (20, 180), (0, 180)], GOLD)
    _both(sheet, [(0, 140), (7, 141), (13, 180), (0, 180)], paper)
    for y in (154, 168):
        sheet.suit(suit, _MIDDLE, y, 11, ink)


def _head(sheet: Sheet, ink: Colour, paper: Colour) -> None:
    """Neck and face, calm and frontal."""
    skin = tint((238, 198, 160), paper, 0.45)
    _both(sheet, [(0, 118), (9, 120), (11, 138), (0, 146)], skin)
    face = curve((0, 78), (16, 78), (23, 88), (22, 102), (21, 117), (10, 129), (0, 130))
    _both(sheet, face, skin)
    outline = [(_MIDDLE + x, y) for x, y in face]
    sheet.stroke(outline, ink, 1.6)
    sheet.stroke([(2 * _MIDDLE - x, y) for x, y in outline], ink, 1.6)
    _both(sheet, curve((4.5, 100), (7, 96.5), (12, 96.5), (15, 100), (12, 102), (7, 102), (4.5, 100)), paper, ink, 1)
    for side in (-1, 1):
        sheet.dot(_MIDDLE + side * 9.6, 99.4, 1.9, ink)
        brow = curve((4, 94), (8, 90.5), (13, 91), (16.5, 94))
        sheet.stroke([(_MIDDLE + side * x, y) for x, y in brow], ink, 1.6)
    sheet.stroke([(_MIDDLE - 1, 96), (_MIDDLE - 2.5, 110), (_MIDDLE + 2, 111)], ink, 1.3)


def _mouth(sheet: Sheet, ink: Colour) -> None:
    lips = curve((-5.5, 118), (-3, 116), (-1, 116.6), (0, 117.2), (1, 116.6), (3, 116), (5.5, 118), (3, 121.4), (-3, 121.4), (-5.5, 118))  # fmt: skip # noqa: E501
    sheet.shape([(_MIDDLE + x, y) for x, y in lips], ink)


def _king(sheet: Sheet, suit: str, ink: Colour, paper: Colour) -> None:
    """A crown of five points, a forked beard and a sword."""
    soft = tint(ink, paper, 0.55)
    sheet.shape([(182, 62), (185.5, 55), (189, 62), (189, 150), (182, 150)], paper, ink)
    sheet.stroke([(185.5, 60), (185.5, 150)], ink, 1)
    sheet.shape([(172, 146), (199, 146), (199, 151), (172, 151)], GOLD, ink)
    _both(sheet, curve((14, 84), (34, 84), (36, 112), (29, 126), (24, 132), (16, 128), (16, 120)), soft, ink)
    _robe(sheet, suit, ink, paper, tint(ink, paper, 0.72))
    _head(sheet, ink, paper)
    beard = curve((23, 104), (24, 124), (16, 138), (7, 152), (4, 146), (2, 142), (0, 140))
    _both(sheet, [*beard, (0, 124), (7, 121), (12, 115), (19, 112)], soft, ink)
    _both(sheet, curve((0, 113.5), (4, 111), (10, 113), (14, 119), (9, 119.5), (4, 118), (0, 116.5)), soft, ink, 1)
    points = [(0, 78), (26, 78), (33, 50), (21, 62), (15, 46), (8, 62), (0, 43)]
    _both(sheet, points, GOLD)
    outline = [(_MIDDLE + x, y) for x, y in points[1:]]
    sheet.stroke(outline, ink, 1.6)
    sheet.stroke([(2 * _MIDDLE - x, y) for x, y in outline], ink, 1.6)
    _both(sheet, [(0, 72), (27.5, 72), (26, 80), (0, 80)], ink)
    for x in (-18, -9, 0, 9, 18):
        sheet.dot(_MIDDLE + x, 76, 2.1, GOLD if x % 2 else paper)
    for x, y in ((33, 49), (15, 45)):
        for side in (-1, 1):
            sheet.dot(_MIDDLE + side * x, y, 2.6, paper, ink)
    sheet.shape([(123.2, 44), (123.2, 41), (120, 41), (120, 38), (123.2, 38), (123.2, 35), (126.8, 35), (126.8, 38),
                 (130, 38), (130, 41), (126.8, 41), (126.8, 44)], ink)  # fmt: skip


def _queen(sheet: Sheet, suit: str, ink: Colour, paper: Colour) -> None:
    """A coronet of pearls, long hair, and a flower in the suit's shape."""
    soft = tint(ink, paper, 0.4)
    hair = curve(
        (0, 68), (34, 66), (38, 96), (35, 116), (33, 132), (42, 142), (36, 158), (30, 164), (14, 160), (10, 140)
    )
    _both(sheet, [*hair, (0, 140)], soft, ink)
    for x in (26, 31):
        for side in (-1, 1):
            lock = curve((x - 4, 88), (x + 4, 110), (x - 6, 130), (x + 1, 150))
            sheet.stroke([(_MIDDLE + side * a, b) for a, b in lock], ink, 1.2)
    _robe(sheet, suit, ink, paper, tint(ink, paper, 0.8))
    _both(sheet, curve((9, 134), (24, 134), (34, 142), (36, 156), (26, 148), (18, 146), (0, 150), steps=16), paper, ink)
    _head(sheet, ink, paper)
    _mouth(sheet, ink)
    for side in (-1, 1):
        sheet.dot(_MIDDLE + side * 24, 114, 2.4, GOLD, ink)
    for x, y in ((-14, 139), (-7, 142), (0, 143), (7, 142), (14, 139)):
        sheet.dot(_MIDDLE + x, y, 2.3, GOLD, ink)
    _both(sheet, curve((0, 78), (10, 74), (20, 76), (25, 86), (22, 90), (16, 84), (0, 83)), soft, ink, 1)
    arch = curve((0, 52), (4, 58), (8, 58), (11, 50), (15, 60), (20, 60), (28, 54), (28, 60), (26, 66), (25, 74))
    _both(sheet, [*arch, (0, 71)], GOLD)
    outline = [(_MIDDLE + x, y) for x, y in arch]
    sheet.stroke(outline, ink, 1.6)
    sheet.stroke([(2 * _MIDDLE - x, y) for x, y in outline], ink, 1.6)
    _both(sheet, [(0, 68), (25.5, 71), (24.5, 77), (0, 74)], ink)
    for x, y in ((28, 53), (11, 49)):
        for side in (-1, 1):
            sheet.dot(_MIDDLE + side * x, y, 3, paper, ink)
    sheet.dot(_MIDDLE, 49, 4, paper, ink)
    stem = curve((184, 150), (180, 130), (190, 115), (184, 96))
    sheet.stroke(stem, ink, 2)
    sheet.shape(curve((184, 122), (192, 112), (198, 114), (199, 106), (190, 106), (184, 112), (184, 122)), soft, ink, 1)
    for x, y in ((176, 84), (192, 84), (184, 76), (184, 92)):
        sheet.dot(x, y, 6.5, tint(ink, paper, 0.72), ink)
    sheet.dot(184, 84, 5, GOLD, ink)


def _jack(sheet: Sheet, suit: str, ink: Colour, paper: Colour) -> None:
    """A cap with a plume, page-boy hair and a halberd."""
    soft = tint(ink, paper, 0.55)
    sheet.shape([(183.5, 74), (187.5, 74), (187.5, 180), (183.5, 180)], GOLD, ink, 1.2)
    sheet.shape([(185.5, 50), (190, 74), (181, 74)], paper, ink)
    sheet.shape([(187, 78), *curve((198, 70), (192, 84), (192, 92), (198, 106)), (187, 98)], paper, ink)
    sheet.shape([(184, 82), (173, 90), (184, 94)], paper, ink)
    _both(sheet, curve((0, 72), (36, 70), (34, 100), (36, 124), (30, 130), (20, 130), (17, 122)), soft, ink)
    for side in (-1, 1):
        lock = curve((27, 92), (25, 106), (31, 116), (26, 126))
        sheet.stroke([(_MIDDLE + side * x, y) for x, y in lock], ink, 1.2)
    _robe(sheet, suit, ink, paper, tint(ink, paper, 0.6))
    _both(sheet, [(0, 136), (20, 132), (28, 144), (9, 148)], paper, ink)
    _head(sheet, ink, paper)
    _mouth(sheet, ink)
    _both(sheet, curve((0, 84), (12, 86), (20, 86), (25, 92), (26, 80), (20, 76), (0, 76)), soft, ink, 1)
    cap = curve((92, 80), (84, 60), (108, 48), (128, 49), (152, 50), (166, 62), (158, 80))
    sheet.shape(cap, ink)
    sheet.stroke(curve((94, 68), (110, 58), (136, 56), (154, 66)), tint(ink, paper, 0.4), 1.5)
    sheet.shape(curve((92, 76), (112, 69), (138, 69), (158, 76), (159, 80), (158, 82), (157, 84), (138, 77), (112, 77), (93, 84), (92, 82), (91, 80), (92, 76)), GOLD, ink)  # fmt: skip # noqa: E501
    plume = curve((150, 68), (154, 48), (136, 40), (112, 40), (104, 40), (100, 46), (106, 50), (124, 48), (140, 54), (150, 68))  # fmt: skip # noqa: E501
    sheet.shape(plume, paper, ink)
    sheet.stroke(curve((149, 66), (146, 52), (130, 44), (108, 45)), GOLD, 1.6)
    sheet.dot(150, 70, 3.6, GOLD, ink)


_FIGURES: dict[str, Callable[[Sheet, str, Colour, Colour], None]] = {"J": _jack, "Q": _queen, "K": _king}
