"""Balloons: hot-air balloons with gores or bands, and party balloons on a string."""

from typing import Any

import numpy as np

from workshop.toytown.paint import Paint, chance, choose, mixed, pick, scaled
from workshop.toytown.palette import BRIGHT, WHITE, Color
from workshop.toytown.sketch import Outline, Sketch, box, ellipse, limb, polygon, smooth, star

# fmt: off
# Outlines are rows of points: with a point a line nobody would see them.

_LIT: Any = {"shade": 0.5, "ball": True}  # every part of an envelope is lit as one ball


def sketch_balloon(rng: np.random.Generator, subtype: str) -> Sketch:
    """One balloon. It hangs about x = 0, its top is y = 0."""
    sketch = Sketch()
    if subtype == "party":
        _party(sketch, rng)
    else:
        _hot_air(sketch, rng, subtype)
    return sketch


def _envelope(half: float, low: float, mouth: float, shoulder: float) -> Outline:
    """The outline of a hot-air balloon, `half` wide on each side, from y = 0 down to `low`."""
    right = [(0.55 * half, 0.045), (0.93 * half, 0.2), (half, shoulder), (0.78 * half, 0.5 * (shoulder + low) + 0.05),
        (mouth, low)]
    return smooth((0, 0), *right, *[(-x, y) for x, y in reversed(right)])


def _hot_air(sketch: Sketch, rng: np.random.Generator, subtype: str) -> None:
    half, low, mouth = rng.uniform(0.3, 0.4), rng.uniform(0.72, 0.8), rng.uniform(0.06, 0.09)
    basket = rng.uniform(0.88, 0.91)
    wide = rng.uniform(0.06, 0.085)
    rope = (96, 80, 70)
    for side in (-1, 1):
        sketch.add(rope, *limb([(side * mouth * 0.9, low - 0.02), (side * wide * 0.85, basket)], 0.01))
        sketch.add(rope, *limb([(side * mouth * 0.35, low - 0.02), (side * wide * 0.3, basket)], 0.008))
    if chance(rng, 0.5):
        sketch.add((255, 190, 70), smooth((0, low - 0.02), (0.025, low + 0.04), (0, low + 0.065), (-0.025, low + 0.04),
            steps=3))
    weave = Paint((176, 124, 74), (142, 94, 54), "checks", 0.035)
    sketch.add(weave, box(-wide, basket, wide, 1.0, 0.015), shade=0.35)
    sketch.add((120, 78, 48), box(-wide - 0.008, basket - 0.012, wide + 0.008, basket + 0.014, 0.01))
    colors = [pick(rng, BRIGHT) for _ in range(int(rng.integers(2, 4)))]
    shape = sketch.add(colors[0], _envelope(half, low, mouth, rng.uniform(0.3, 0.38)), **_LIT)
    if subtype == "gored":
        _gores(sketch, rng, shape, half, low, colors)
    else:
        _bands(sketch, rng, shape, half, low, colors)
    sketch.add(Paint((40, 30, 50), opacity=0.35), box(-0.2, low - 0.012, 0.2, low + 0.03), clip=shape)


def _gores(sketch: Sketch, rng: np.random.Generator, shape: tuple[Outline, ...], half: float, low: float,
        colors: list[Color] ) -> None:
    """Strips from top to mouth, narrower towards the edge as on a ball."""
    count = int(rng.integers(5, 10))
    offset = rng.uniform(0, 1)
    edges = np.sin(np.clip(np.pi * ((np.arange(count + 2) - offset) / count - 0.5), -np.pi / 2, np.pi / 2)) * half
    y = np.linspace(0, low + 0.02, 12)
    profile = np.sqrt(np.clip(1 - (y / low * 1.25 - 0.6) ** 2 / 0.75, 0.02, 1))
    for k in range(count + 1):
        left, right = edges[k] * profile, edges[k + 1] * profile
        strip = np.concatenate([np.stack([left, y], axis=1), np.stack([right, y], axis=1)[::-1]])
        sketch.add(colors[k % len(colors)], strip, clip=shape, **_LIT)


def _bands(sketch: Sketch, rng: np.random.Generator, shape: tuple[Outline, ...], half: float, low: float,
        colors: list[Color] ) -> None:
    kind = choose(rng, ["bands", "bands", "zigzag", "dots", "checks", "star"])
    second = colors[1]
    if kind == "bands":
        for k, y in enumerate(np.arange(rng.uniform(0.05, 0.15), low, rng.uniform(0.1, 0.18))):
            sag = rng.uniform(0.0, 0.06)
            band = smooth((-half, y), (0, y + sag), (half, y), (half, y + 0.07), (0, y + sag + 0.07), (-half, y + 0.07))
            sketch.add(colors[1 + k % (len(colors) - 1)], band, clip=shape, **_LIT)
    elif kind == "star":
        sketch.add(second, box(-half, 0.52, half, 0.62), clip=shape, **_LIT)
        sketch.add(mixed(second, WHITE, 0.15), star(0, 0.3, 0.5 * half), clip=shape, **_LIT)
    else:
        top, bottom = (0.0, low + 0.05) if kind != "zigzag" else (rng.uniform(0.1, 0.3), rng.uniform(0.45, 0.7))
        pitch = rng.uniform(0.11, 0.18)
        sketch.add(Paint(colors[0], second, kind, pitch), box(-half, top, half, bottom), clip=shape, **_LIT)


def _party(sketch: Sketch, rng: np.random.Generator) -> None:
    half = rng.uniform(0.22, 0.29)
    low = half * rng.uniform(2.2, 2.6)
    color = pick(rng, BRIGHT)
    end = rng.uniform(low + 0.15, 1.0)
    bends = [(0.035 * (-1) ** k * rng.uniform(0.3, 1.0), low + (end - low) * k / 4) for k in range(1, 5)]
    string = smooth((0, low), *bends, closed=False)
    sketch.add(choose(rng, [WHITE, (110, 100, 104)]), *limb(string, 0.013))
    sketch.add(scaled(color, 0.8), polygon((0, low - 0.02), (0.035, low + 0.03), (-0.035, low + 0.03)))
    body = smooth((0, 0), (0.72 * half, 0.16 * low), (half, 0.42 * low), (0.7 * half, 0.78 * low), (0.03, low),
        (-0.03, low), (-0.7 * half, 0.78 * low), (-half, 0.42 * low), (-0.72 * half, 0.16 * low))
    pattern = choose(rng, [None, None, None, "dots", "stripes", "zigzag"])
    fill = Paint(color, choose(rng, [WHITE, pick(rng, BRIGHT)]), pattern, rng.uniform(0.08, 0.14), rng.uniform(0, 1.6))
    shape = sketch.add(fill, body, shade=0.5, ball=True)
    if pattern is None and chance(rng, 0.25):
        _smile(sketch, half, low)
    side = -0.45 * half
    sketch.add(Paint(WHITE, opacity=0.55), ellipse(side, 0.26 * low, 0.1 * half, 0.13 * low, 0.5), clip=shape)


def _smile(sketch: Sketch, half: float, low: float) -> None:
    ink = (60, 44, 56)
    for side in (-1, 1):
        sketch.add(ink, ellipse(side * 0.3 * half, 0.4 * low, 0.07 * half, 0.09 * half))
    mouth = smooth((-0.32 * half, 0.55 * low), (0, 0.65 * low), (0.32 * half, 0.55 * low), closed=False)
    sketch.add(ink, *limb(mouth, 0.09 * half))
