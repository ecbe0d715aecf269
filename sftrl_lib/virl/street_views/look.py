"""The appearance of a city: sky, streets, facades and signs, one `Look` per generated city.

How they differ:
* paper: the training city and the nine test cities differ as real cities do (visual-OOD, section 5.2, Fig. 7).
* official code: whatever the photographs show.
* ours: colours, light, building heights, windows, trees and the frames of signs differ from city to city. The
  *content* of a sign (its initials and its colour code, see `signs.py`) looks the same in all of them, as letters do.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...attempts import check_choice

Colour = tuple[int, int, int]  # red, green, blue, 0 to 255
EMBLEMS = ("coded", "initials", "name")


@dataclass(frozen=True)
class Look:
    """How the street views of a city are drawn.

    `sign_scale` and `emblems` set how hard signs are to read. `sign_scale=1` makes a sign 28 degrees wide from its own
    crossing, 16 pixels of a 64-pixel view; 0 draws no signs. `emblems` is what a sign shows besides the full name:
    "coded" (large initials on colours that encode the same letters), "initials" (on two fixed colours) or
    "name" (nothing). Raises ValueError if either is out of range.
    """

    sky: tuple[Colour, Colour]  # overhead, at the horizon
    clouds: float  # 0 (clear) to 1 (overcast)
    light: float  # on facades: 1 a sunny day, 0.6 dusk
    road: Colour
    marking: Colour
    pavement: Colour
    facades: tuple[Colour, ...]
    trim: Colour  # cornices and window frames
    glass: Colour
    lit: float  # share of windows with a lamp behind them
    storeys: tuple[int, int]  # fewest, most
    window: tuple[float, float]  # share of a bay's width and of a storey's height
    balconies: float  # share of houses that have them
    awnings: tuple[Colour, ...]
    trees: float  # share of the places along the kerb that have a tree
    leaves: Colour
    skyline: float  # height in degrees of the skyline behind the houses
    plate: Colour  # the sign's frame and the background of its name
    ink: Colour  # the name
    sign_scale: float = 1.0
    emblems: str = "coded"

    def __post_init__(self) -> None:
        check_choice("emblems", self.emblems, EMBLEMS)
        if not 0 <= self.sign_scale <= 1.5:
            raise ValueError(f"sign_scale must be between 0 and 1.5, got {self.sign_scale!r}.")


_BRICK = ((150, 78, 62), (172, 104, 80), (121, 70, 60), (188, 160, 132), (143, 120, 106), (205, 190, 168))
_STONE = ((226, 214, 190), (215, 202, 178), (232, 224, 206), (204, 190, 166))

LOOKS = {
    "nyc": Look(
        ((74, 134, 201), (196, 220, 238)), 0.35, 1.0, (70, 72, 76), (232, 228, 214), (160, 158, 154),
        _BRICK, (222, 212, 196), (62, 84, 104), 0.06, (4, 9), (0.46, 0.56), 0.0,
        ((158, 44, 40), (32, 78, 62), (40, 56, 96), (196, 150, 60)), 0.45, (84, 128, 62), 9.0,
        (34, 38, 46), (248, 246, 240),
    ),
    "chicago": Look(
        ((96, 142, 186), (212, 224, 232)), 0.55, 0.95, (82, 84, 88), (238, 206, 84), (172, 172, 168),
        ((128, 134, 140), (92, 98, 106), (160, 150, 136), (190, 184, 174), (110, 84, 72)), (206, 208, 210),
        (70, 102, 124), 0.08, (6, 14), (0.72, 0.62), 0.0,
        ((44, 62, 90), (120, 40, 44), (70, 70, 72)), 0.25, (98, 132, 70), 14.0, (20, 44, 82), (255, 255, 255),
    ),
    "barcelona": Look(
        ((56, 126, 214), (204, 228, 244)), 0.12, 1.05, (96, 94, 92), (244, 240, 230), (198, 184, 164),
        ((226, 184, 128), (214, 158, 112), (236, 208, 164), (198, 138, 104), (232, 220, 196)), (246, 236, 214),
        (78, 92, 98), 0.02, (5, 7), (0.40, 0.66), 0.75,
        ((206, 84, 48), (232, 178, 62), (62, 116, 110)), 0.75, (92, 138, 58), 5.0, (250, 244, 228), (60, 40, 30),
    ),
    "paris": Look(
        ((118, 158, 200), (224, 228, 230)), 0.5, 1.0, (92, 92, 96), (240, 240, 236), (186, 182, 174),
        _STONE, (244, 238, 222), (86, 96, 108), 0.05, (5, 7), (0.38, 0.70), 0.6,
        ((128, 28, 38), (24, 66, 56), (38, 44, 72), (156, 120, 52)), 0.6, (104, 138, 78), 4.0,
        (22, 58, 46), (244, 226, 168),
    ),
    "boston": Look(
        ((90, 146, 196), (226, 226, 216)), 0.3, 0.95, (76, 74, 74), (236, 232, 222), (158, 112, 92),
        ((142, 70, 56), (160, 86, 66), (124, 62, 54), (176, 108, 84), (196, 180, 158)), (236, 230, 216),
        (54, 66, 78), 0.08, (3, 5), (0.40, 0.58), 0.1,
        ((34, 60, 48), (44, 48, 76), (120, 36, 38)), 0.7, (196, 122, 44), 6.0, (92, 26, 34), (250, 238, 210),
    ),
    "milan": Look(
        ((150, 176, 196), (236, 224, 204)), 0.45, 0.98, (104, 100, 98), (236, 234, 226), (176, 166, 154),
        ((222, 178, 96), (206, 150, 92), (230, 204, 150), (188, 116, 84), (214, 200, 176)), (240, 226, 198),
        (70, 84, 78), 0.04, (4, 7), (0.42, 0.66), 0.5,
        ((64, 98, 72), (168, 62, 44), (240, 234, 214)), 0.3, (86, 120, 66), 5.0, (244, 240, 230), (40, 44, 48),
    ),
    "new_delhi": Look(
        ((176, 170, 158), (240, 212, 168)), 0.6, 0.98, (118, 108, 98), (240, 226, 190), (196, 172, 142),
        ((206, 120, 84), (232, 196, 148), (222, 152, 118), (176, 196, 190), (238, 224, 196)), (248, 236, 210),
        (84, 90, 88), 0.05, (2, 4), (0.44, 0.50), 0.45,
        ((220, 120, 40), (36, 122, 96), (160, 42, 92), (236, 186, 60)), 0.65, (98, 124, 50), 3.0,
        (150, 46, 40), (255, 232, 160),
    ),
    "buenos_aires": Look(
        ((84, 158, 224), (220, 236, 244)), 0.25, 1.04, (86, 88, 94), (250, 236, 150), (182, 176, 170),
        ((242, 228, 196), (120, 176, 196), (238, 190, 108), (212, 110, 92), (198, 206, 196)), (250, 246, 236),
        (72, 92, 110), 0.04, (3, 8), (0.44, 0.62), 0.55,
        ((70, 140, 190), (230, 178, 50), (190, 60, 60)), 0.75, (142, 104, 172), 6.0, (66, 130, 186), (255, 255, 255),
    ),
    "london": Look(
        ((142, 152, 164), (206, 210, 212)), 0.95, 0.86, (66, 68, 72), (240, 240, 236), (150, 148, 144),
        ((150, 118, 92), (172, 140, 110), (118, 84, 70), (222, 218, 208), (196, 184, 164)), (238, 236, 230),
        (52, 62, 74), 0.18, (3, 5), (0.38, 0.62), 0.1,
        ((22, 40, 72), (128, 26, 36), (26, 66, 48), (40, 40, 44)), 0.4, (78, 104, 66), 6.0,
        (20, 34, 66), (240, 240, 244),
    ),
    "hong_kong": Look(
        ((38, 42, 92), (232, 138, 122)), 0.55, 0.66, (54, 54, 66), (244, 214, 92), (112, 108, 116),
        ((132, 138, 148), (176, 150, 140), (110, 136, 140), (190, 176, 160), (150, 120, 130)), (176, 176, 186),
        (46, 56, 84), 0.5, (12, 24), (0.62, 0.56), 0.0,
        ((214, 48, 92), (40, 170, 178), (238, 178, 40), (120, 62, 168)), 0.1, (64, 106, 78), 22.0,
        (30, 22, 44), (255, 214, 96),
    ),
    "new_york": Look(
        ((104, 150, 200), (236, 216, 190)), 0.4, 0.95, (74, 74, 78), (236, 232, 216), (164, 158, 150),
        ((134, 82, 62), (104, 72, 60), (168, 124, 96), (196, 172, 142), (152, 142, 132)), (214, 196, 170),
        (58, 74, 92), 0.12, (4, 7), (0.42, 0.58), 0.0,
        ((126, 40, 36), (46, 74, 60), (182, 140, 62)), 0.7, (150, 132, 54), 8.0, (46, 44, 44), (250, 240, 214),
    ),
    "melbourne": Look(
        ((92, 164, 216), (230, 238, 234)), 0.4, 1.0, (98, 100, 104), (246, 246, 240), (132, 138, 146),
        ((196, 186, 168), (120, 128, 132), (176, 124, 96), (226, 216, 196), (92, 110, 118)), (232, 226, 212),
        (74, 106, 116), 0.06, (3, 9), (0.58, 0.56), 0.2,
        ((26, 96, 84), (196, 96, 44), (52, 60, 84)), 0.6, (116, 142, 96), 12.0, (16, 92, 82), (248, 244, 226),
    ),
    "lagos": Look(
        ((120, 170, 206), (244, 232, 202)), 0.5, 1.06, (134, 116, 100), (246, 236, 206), (204, 168, 132),
        ((240, 200, 112), (226, 128, 92), (132, 190, 172), (244, 226, 190), (200, 158, 196)), (252, 244, 226),
        (86, 94, 92), 0.03, (2, 4), (0.46, 0.48), 0.35,
        ((240, 196, 40), (34, 130, 84), (206, 62, 46), (44, 92, 160)), 0.45, (70, 132, 64), 4.0,
        (240, 190, 34), (40, 30, 20),
    ),
    "san_francisco": Look(
        ((168, 188, 204), (238, 232, 226)), 0.75, 0.98, (88, 88, 92), (244, 222, 120), (184, 180, 176),
        ((188, 208, 200), (232, 190, 172), (236, 222, 170), (176, 186, 212), (214, 178, 196), (240, 236, 226)),
        (252, 250, 246), (82, 98, 112), 0.06, (2, 4), (0.50, 0.60), 0.15,
        ((206, 74, 58), (48, 92, 128), (238, 200, 90)), 0.3, (88, 128, 84), 7.0, (196, 70, 48), (255, 248, 236),
    ),
}  # fmt: skip


def look_of(name: str | Look) -> Look:
    """The `Look` of a generated city (``:heldout`` or not); a `Look` is returned as is. Raises ValueError otherwise."""
    if isinstance(name, Look):
        return name
    return LOOKS[check_choice("look", str(name).partition(":")[0], tuple(LOOKS))]
