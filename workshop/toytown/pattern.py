"""What a shape is filled with: a colour, or two colours in a pattern.

A pattern is a function of the sketch's own coordinates `u` (right) and `v` (down), so it turns and shrinks with its
object. Each returns a weight in 0..1: the share of the second colour.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from workshop.toytown.palette import Colour


@dataclass(frozen=True)
class Paint:
    """A fill.

    Attributes:
        colour: the colour, or the pattern's ground.
        accent: the pattern's second colour.
        pattern: a key of `PATTERNS`, or None for a plain fill.
        pitch: distance between repeats, in sketch units.
        angle: turn of the pattern in radians.
        opacity: 1 covers what lies below, 0 is invisible.
    """

    colour: Colour
    accent: Colour | None = None
    pattern: str | None = None
    pitch: float = 0.1
    angle: float = 0.0
    opacity: float = 1.0

    def weight(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The share of `accent` in 0..1 at the points `u`, `v`, both (h, w); only for paints with a pattern."""
        if self.pattern is None:
            raise ValueError("Paint.weight: this paint is plain; it has no pattern to weigh")
        cos, sin = float(np.cos(self.angle) / self.pitch), float(np.sin(self.angle) / self.pitch)
        return PATTERNS[self.pattern](u * cos + v * sin, v * cos - u * sin)


def _fraction(x: np.ndarray) -> np.ndarray:
    return x - np.floor(x)


def _stripes(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _fraction(u) < 0.5


def _pinstripes(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _fraction(u) < 0.2


def _dots(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    shifted = u + 0.5 * (np.floor(v) % 2)  # every second row moves by half a step, as on a printed cloth
    return (_fraction(shifted) - 0.5) ** 2 + (_fraction(v) - 0.5) ** 2 < 0.09


def _checks(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (_fraction(u) < 0.5) ^ (_fraction(v) < 0.5)


def _gingham(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.5 * (_fraction(u) < 0.5) + 0.5 * (_fraction(v) < 0.5)


def _zigzag(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _fraction(v + 0.5 * np.abs(2 * _fraction(u) - 1)) < 0.5


def _bricks(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    row = np.floor(2 * v)
    return (_fraction(2 * v) < 0.17) | (_fraction(u + 0.5 * (row % 2)) < 0.09)


def _planks(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _fraction(v) < 0.14


def _tiles(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    across = 2 * _fraction(u + 0.5 * (np.floor(v) % 2)) - 1
    return _fraction(v) > 1.02 - 0.42 * across**2  # the shadow below each scalloped edge


PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "stripes": _stripes,
    "pinstripes": _pinstripes,
    "dots": _dots,
    "checks": _checks,
    "gingham": _gingham,
    "zigzag": _zigzag,
    "bricks": _bricks,
    "planks": _planks,
    "tiles": _tiles,
}
TEXTILES = ("stripes", "pinstripes", "dots", "checks", "gingham", "zigzag")
