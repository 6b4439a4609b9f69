"""The colours of Toy Town.

Colours are `(red, green, blue)` with floats in 0..255. The lists are chosen by eye so that pictures stay cheerful
whatever is drawn from them; every pick is jittered, so no two objects share a colour exactly.
"""

import colorsys
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Colour = tuple[float, float, float]
T = TypeVar("T")

INK: Colour = (38.0, 34.0, 44.0)
WHITE: Colour = (248.0, 246.0, 240.0)
CREAM: Colour = (247.0, 233.0, 205.0)

SKIN = [(255, 222, 190), (246, 200, 158), (230, 176, 128), (198, 138, 92), (148, 94, 60), (98, 63, 42)]
HAIR = [(42, 32, 30), (84, 52, 32), (136, 84, 42), (224, 182, 96), (178, 74, 36), (190, 188, 186), (242, 236, 224)]
FABRIC = [
    (214, 62, 56), (238, 132, 60), (246, 194, 72), (124, 176, 82), (44, 132, 108), (60, 158, 176),
    (58, 104, 178), (40, 56, 104), (120, 84, 160), (222, 120, 158), (150, 52, 72), (244, 236, 220),
    (96, 100, 108), (176, 126, 84), (166, 206, 214), (250, 214, 196),
]  # fmt: skip
TROUSERS = [
    (52, 74, 122), (88, 116, 162), (58, 56, 66), (140, 112, 82), (196, 176, 140), (72, 92, 70), (116, 60, 58),
    (228, 222, 208),
]  # fmt: skip
SHOES = [(56, 42, 38), (120, 72, 44), (236, 232, 224), (190, 48, 48), (38, 44, 62)]
FUR = [(64, 60, 64), (218, 142, 70), (236, 212, 172), (146, 138, 134), (246, 242, 236), (158, 108, 70), (108, 106, 118)]
CAR = [
    (206, 52, 46), (238, 180, 58), (66, 134, 190), (96, 166, 128), (242, 238, 228), (60, 68, 84),
    (232, 122, 82), (168, 204, 208), (134, 92, 150), (44, 100, 86), (230, 156, 170), (152, 158, 166),
]  # fmt: skip
WALL = [
    (246, 232, 204), (240, 206, 158), (232, 170, 146), (202, 218, 198), (176, 208, 218), (246, 244, 238),
    (222, 196, 214), (196, 118, 92), (242, 216, 132), (168, 176, 186), (150, 110, 80), (126, 164, 170),
]  # fmt: skip
ROOF = [
    (178, 76, 58), (134, 62, 56), (92, 84, 92), (70, 96, 118), (202, 124, 70), (86, 118, 92), (120, 92, 76),
    (62, 66, 78),
]  # fmt: skip
LEAF = [
    (86, 146, 66), (58, 120, 70), (122, 168, 74), (44, 98, 76), (150, 178, 88), (214, 148, 54), (196, 86, 48),
    (226, 184, 72), (238, 176, 190), (104, 150, 110),
]  # fmt: skip
NEEDLE = [(40, 96, 72), (58, 120, 84), (34, 82, 84), (82, 132, 92), (96, 138, 76)]
BARK = [(112, 78, 54), (134, 98, 70), (92, 70, 60), (160, 128, 98), (206, 200, 190)]
BRIGHT = [
    (222, 54, 58), (244, 138, 52), (250, 204, 70), (110, 184, 84), (40, 160, 150), (54, 126, 204),
    (128, 84, 178), (234, 104, 156), (250, 244, 230), (52, 64, 116),
]  # fmt: skip
GLASS = [(176, 212, 226), (150, 190, 212), (120, 152, 176), (96, 116, 140)]
LAMP: Colour = (255.0, 224.0, 140.0)


def choose(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of `options`, all equally likely."""
    return options[int(rng.integers(len(options)))]


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with the given probability."""
    return bool(rng.random() < probability)


def pick(rng: np.random.Generator, colours: Sequence[Colour], amount: float = 12.0) -> Colour:
    """One of `colours`, each channel moved by up to `amount`."""
    return jitter(rng, choose(rng, colours), amount)


def jitter(rng: np.random.Generator, colour: Colour, amount: float) -> Colour:
    """`colour` with brightness and each channel moved by up to about `amount`."""
    together = rng.uniform(-amount, amount)
    red, green, blue = (min(255.0, max(0.0, c + together + rng.uniform(-amount, amount) / 2)) for c in colour)
    return red, green, blue


def any_colour(rng: np.random.Generator) -> Colour:
    """A colour of any hue, neither black nor glaring."""
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 0.85), rng.uniform(0.4, 1.0))
    return 255.0 * red, 255.0 * green, 255.0 * blue


def scaled(colour: Colour, factor: float) -> Colour:
    """`colour` made darker (`factor` < 1) or lighter (`factor` > 1), kept in 0..255."""
    red, green, blue = (min(255.0, max(0.0, c * factor)) for c in colour)
    return red, green, blue


def mixed(one: Colour, other: Colour, share: float) -> Colour:
    """`one` with `share` (0..1) of it replaced by `other`."""
    red, green, blue = (a + (b - a) * share for a, b in zip(one, other, strict=True))
    return red, green, blue
