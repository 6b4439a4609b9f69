"""Random choices, colors mixed from others, and what a shape is filled with: a color, or two in a pattern.

A pattern is a function of the sketch's own coordinates `u` (right) and `v` (down), so it turns and shrinks with its
object. Each returns a weight in 0..1: the share of the second color.
"""

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from workshop.toytown.palette import Color

T = TypeVar("T")


def choose(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of `options`, all equally likely."""
    return options[int(rng.integers(len(options)))]


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with the given probability."""
    return bool(rng.random() < probability)


def pick(rng: np.random.Generator, colors: Sequence[Color], amount: float = 12.0) -> Color:
    """One of `colors`, each channel moved by up to `amount`."""
    return jitter(rng, choose(rng, colors), amount)


def jitter(rng: np.random.Generator, color: Color, amount: float) -> Color:
    """`color` with brightness and each channel moved by up to about `amount`."""
    together = rng.uniform(-amount, amount)
    red, green, blue = (min(255.0, max(0.0, c + together + rng.uniform(-amount, amount) / 2)) for c in color)
    return red, green, blue


def any_color(rng: np.random.Generator) -> Color:
    """A color of any hue, neither black nor glaring."""
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 0.85), rng.uniform(0.4, 1.0))
    return 255.0 * red, 255.0 * green, 255.0 * blue


def scaled(color: Color, factor: float) -> Color:
    """`color` made darker (`factor` < 1) or lighter (`factor` > 1), kept in 0..255."""
    red, green, blue = (min(255.0, max(0.0, c * factor)) for c in color)
    return red, green, blue


def mixed(one: Color, other: Color, share: float) -> Color:
    """`one` with `share` (0..1) of it replaced by `other`."""
    red, green, blue = (a + (b - a) * share for a, b in zip(one, other, strict=True))
    return red, green, blue


@dataclass(frozen=True)
class Paint:
    """A fill."""

    color: Color  # the color, or the pattern's ground
    accent: Color | None = None  # the pattern's second color
    pattern: str | None = None  # a key of `PATTERNS`, or None for a plain fill
    pitch: float = 0.1  # distance between repeats, in sketch units
    angle: float = 0.0  # turn of the pattern in radians
    opacity: float = 1.0  # 1 covers what lies below, 0 is invisible

    def weight(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The share of `accent` in 0..1 at the points `u`, `v`, both (h, w); only for paints with a pattern."""
        if self.pattern is None:
            raise ValueError("Paint.weight: this paint is plain; it has no pattern to weigh")
        cos, sin = float(np.cos(self.angle) / self.pitch), float(np.sin(self.angle) / self.pitch)
        return PATTERNS[self.pattern](u * cos + v * sin, v * cos - u * sin)


def _fraction(x: np.ndarray) -> np.ndarray:
    return x - np.floor(x)


def _half(x: np.ndarray) -> np.ndarray:
    return _fraction(x) < 0.5


def _staggered(u: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Every second row moves by half a step, as bricks do and dots on a printed cloth."""
    return _fraction(u + 0.5 * (np.floor(row) % 2))


PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "stripes": lambda u, v: _half(u),
    "pinstripes": lambda u, v: _fraction(u) < 0.2,
    "dots": lambda u, v: (_staggered(u, v) - 0.5) ** 2 + (_fraction(v) - 0.5) ** 2 < 0.09,
    "checks": lambda u, v: _half(u) ^ _half(v),
    "gingham": lambda u, v: 0.5 * _half(u) + 0.5 * _half(v),
    "zigzag": lambda u, v: _half(v + 0.5 * np.abs(2 * _fraction(u) - 1)),
    "bricks": lambda u, v: (_fraction(2 * v) < 0.17) | (_staggered(u, 2 * v) < 0.09),
    "planks": lambda u, v: _fraction(v) < 0.14,
    # the shadow below each scalloped edge
    "tiles": lambda u, v: _fraction(v) > 1.02 - 0.42 * (2 * _staggered(u, v) - 1) ** 2,
}
TEXTILES = ("stripes", "pinstripes", "dots", "checks", "gingham", "zigzag")
