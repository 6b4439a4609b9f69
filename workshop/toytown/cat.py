"""Cats: sitting (taller than wide), walking and lying (wider than tall), in many coats."""

from dataclasses import dataclass

import numpy as np

from workshop.toytown.paint import chance, choose, mixed, pick, scaled
from workshop.toytown.palette import BRIGHT, FUR, INK, LAMP, WHITE, Color
from workshop.toytown.sketch import Outline, Sketch, box, ellipse, limb, polygon, smooth

# fmt: off
# Outlines are rows of points: with a point a line nobody would see them.

_EYES = [(150, 190, 70), (232, 186, 60), (96, 168, 196), (110, 160, 90)]
_PINK: Color = (232, 150, 146)


@dataclass(frozen=True)
class _Coat:
    """The fur: `kind` is plain, tabby, patches, tuxedo or points (dark face, paws and tail)."""

    kind: str
    base: Color
    mark: Color

    @property
    def paw(self) -> Color:
        return self.mark if self.kind in ("tuxedo", "points") else self.base

    @property
    def tail(self) -> Color:
        return self.mark if self.kind == "points" else scaled(self.base, 0.92)


def sketch_cat(rng: np.random.Generator, subtype: str) -> Sketch:
    """One cat, its head to the right. The ground is y = 1."""
    base = pick(rng, FUR, 14)
    kind = choose(rng, ["plain", "tabby", "tabby", "patches", "tuxedo", "points"])
    mark = {"tabby": scaled(base, 0.62), "patches": pick(rng, FUR, 14), "tuxedo": WHITE,
        "points": scaled(mixed(base, (80, 56, 46), 0.75), 0.9)}.get(kind, base)
    if kind == "points":
        base = mixed(base, (244, 230, 208), 0.7)
    sketch = Sketch()
    {"sitting": _sitting, "walking": _walking, "lying": _lying}[subtype](sketch, rng, _Coat(kind, base, mark))
    return sketch


def _sitting(sketch: Sketch, rng: np.random.Generator, coat: _Coat) -> None:
    wide = rng.uniform(0.23, 0.3)
    side = 1 if chance(rng, 0.5) else -1
    curl = rng.uniform(0.1, 0.3)
    tail = smooth((0, 0.95), (side * 0.34, 0.93), (side * (0.42 + curl / 2), 0.78), (side * (0.36 + curl), 0.7 - curl),
        closed=False)
    sketch.add(coat.tail, *limb(tail, 0.09, 0.08, 0.055))
    body = sketch.add(coat.base, smooth((0, 0.4), (0.55 * wide, 0.46), (wide, 0.78), (0.95 * wide, 0.97), (0, 1.0),
        (-0.95 * wide, 0.97), (-wide, 0.78), (-0.55 * wide, 0.46)), shade=0.3)
    _markings(sketch, rng, coat, body, (0, 0.72), (wide, 0.3))
    if coat.kind == "tuxedo":
        sketch.add(WHITE, ellipse(0, 0.62, 0.5 * wide, 0.22), clip=body)
    sketch.add(scaled(coat.base, 0.8), *limb([(0, 0.72), (0, 0.96)], 0.012))
    for x in (-0.09, 0.09):
        sketch.add(mixed(coat.base, WHITE, 0.08), *limb([(x, 0.62), (x, 0.93)], 0.11, 0.1), shade=0.12)
        sketch.add(coat.paw, ellipse(x, 0.965, 0.075, 0.04))
    _collar(sketch, rng, 0.0, 0.455, 0.13)
    _head(sketch, rng, coat, 0.0, 0.27, rng.uniform(0.2, 0.235), choose(rng, [0.0, 0.15, 0.25]))


def _walking(sketch: Sketch, rng: np.random.Generator, coat: _Coat) -> None:
    length = rng.uniform(0.72, 0.95)
    step = rng.uniform(0.02, 0.1)
    lift = rng.uniform(-0.05, 0.5)
    tail = smooth((0.06, 0.5), (-0.12, 0.5 - 0.3 * lift), (-0.2, 0.36 - 0.5 * lift),
        (-0.14 + 0.1 * lift, 0.2 - 0.4 * lift), closed=False)
    sketch.add(coat.tail, *limb(tail, 0.09, 0.075, 0.06))
    for x, sign in ((0.12, 1), (length - 0.12, -1)):
        sketch.add(scaled(coat.base, 0.75), *limb([(x, 0.62), (x + sign * step, 0.95)], 0.13, 0.075))
    back = rng.uniform(0.38, 0.44)
    body = sketch.add(coat.base, smooth((0.0, back + 0.04), (length / 2, back), (length, back + 0.02),
        (length + 0.03, 0.6), (length / 2, 0.74), (0.02, 0.7)), shade=0.35)
    _markings(sketch, rng, coat, body, (length / 2, 0.56), (length / 2, 0.18))
    if coat.kind == "tuxedo":
        sketch.add(WHITE, ellipse(length - 0.02, 0.68, 0.3, 0.12), clip=body)
    for x, sign in ((0.12, -1), (length - 0.1, 1)):
        foot = (x + sign * step, 0.95)
        sketch.add(coat.base, *limb([(x, 0.6), (x + sign * step * 0.6, 0.78), foot], 0.17, 0.1, 0.08), shade=0.15)
        sketch.add(coat.paw, ellipse(foot[0] + 0.03, 0.965, 0.065, 0.037))
    _collar(sketch, rng, length + 0.02, 0.46, 0.12)
    _head(sketch, rng, coat, length + 0.08, rng.uniform(0.26, 0.34), rng.uniform(0.18, 0.21), choose(rng, [0.15, 0.35]))


def _lying(sketch: Sketch, rng: np.random.Generator, coat: _Coat) -> None:
    length = rng.uniform(0.95, 1.25)
    back = rng.uniform(0.5, 0.58)
    sweep = rng.uniform(0.2, 0.5)
    tail = smooth((0.1, 0.93), (-0.12, 0.95), (-0.22, 0.86), (-0.1 - sweep / 3, 0.8 - sweep / 2), closed=False)
    sketch.add(coat.tail, *limb(tail, 0.1, 0.085, 0.06))
    body = sketch.add(coat.base, smooth((0.0, 0.78), (0.12, back + 0.05), (0.45 * length, back),
        (0.85 * length, back + 0.06), (length, 0.8), (0.95 * length, 0.99), (0.05, 0.99)), shade=0.35)
    _markings(sketch, rng, coat, body, (length / 2, 0.75), (length / 2, 0.24))
    sketch.add(scaled(coat.base, 0.9), ellipse(0.24, 0.84, 0.21, 0.16, -0.3), shade=0.2)
    sketch.add(coat.paw, ellipse(0.38, 0.965, 0.1, 0.04))
    for y, x in ((0.93, 0.16), (0.96, 0.1)):
        sketch.add(coat.base, *limb([(0.8 * length, y), (length + x, y)], 0.09))
        sketch.add(coat.paw, ellipse(length + x, y + 0.005, 0.06, 0.045))
    _collar(sketch, rng, 0.92 * length, 0.7, 0.12)
    _head(sketch, rng, coat, 0.95 * length, rng.uniform(0.48, 0.56), rng.uniform(0.2, 0.23),
        choose(rng, [0.0, 0.2, 0.3]))


def _markings(sketch: Sketch, rng: np.random.Generator, coat: _Coat, body: tuple[Outline, ...],
        center: tuple[float, float], half: tuple[float, float]) -> None:
    if coat.kind == "tabby":
        for offset in np.linspace(-0.75, 0.75, int(rng.integers(4, 7))):
            x, bend = center[0] + offset * half[0], rng.uniform(-0.04, 0.04)
            top = center[1] - 1.3 * half[1]
            stripe = smooth((x, top), (x + bend, top + 0.5 * half[1]), (x + bend / 2, center[1] + 0.15 * half[1]),
                closed=False)
            sketch.add(coat.mark, *limb(stripe, 0.05, 0.04, 0.008), clip=body)
    elif coat.kind == "patches":
        for _ in range(int(rng.integers(2, 5))):
            x, y = (c + h * rng.uniform(-0.9, 0.9) for c, h in zip(center, half, strict=True))
            sketch.add(coat.mark, ellipse(x, y, rng.uniform(0.08, 0.2), rng.uniform(0.07, 0.16), rng.uniform(0, 3)),
                clip=body)


def _collar(sketch: Sketch, rng: np.random.Generator, x: float, y: float, half: float) -> None:
    if chance(rng, 0.45):
        sketch.add(pick(rng, BRIGHT), box(x - half, y, x + half, y + 0.05, 0.02))
        sketch.add(LAMP, ellipse(x + 0.02, y + 0.06, 0.026, 0.026))


def _head(sketch: Sketch, rng: np.random.Generator, coat: _Coat, x: float, y: float, r: float, turn: float) -> None:
    """A cat's head of radius `r` at (x, y), the face moved right by `turn` radii."""
    _ears(sketch, rng, coat, x, y, r)
    outline = smooth((x, y - 0.86 * r), (x + 0.7 * r, y - 0.68 * r), (x + 1.08 * r, y + 0.12 * r),
        (x + 0.72 * r, y + 0.7 * r), (x, y + 0.86 * r), (x - 0.72 * r, y + 0.7 * r), (x - 1.08 * r, y + 0.12 * r),
        (x - 0.7 * r, y - 0.68 * r))
    skull = sketch.add(coat.base, outline, shade=0.22, ball=True)
    x += turn * r
    _face_markings(sketch, coat, x, y, r, skull)
    muzzle = mixed(coat.base, WHITE, 0.55) if coat.kind != "points" else mixed(coat.mark, WHITE, 0.2)
    sketch.add(muzzle, ellipse(x - 0.2 * r, y + 0.4 * r, 0.27 * r, 0.22 * r), ellipse(x + 0.2 * r, y + 0.4 * r,
        0.27 * r, 0.22 * r), clip=skull)
    _face(sketch, rng, x, y, r)


def _ears(sketch: Sketch, rng: np.random.Generator, coat: _Coat, x: float, y: float, r: float) -> None:
    ear = coat.mark if coat.kind == "points" else coat.base
    tall = rng.uniform(1.2, 1.45)
    for side in (-1, 1):
        tip = (x + side * 0.82 * r, y - tall * r)
        sketch.add(scaled(ear, 0.95), polygon((x + side * 1.0 * r, y - 0.15 * r), tip,
            (x + side * 0.12 * r, y - 0.75 * r)))
        sketch.add(_PINK, polygon((x + side * 0.84 * r, y - 0.4 * r), (tip[0] - side * 0.04 * r, tip[1] + 0.22 * r),
            (x + side * 0.34 * r, y - 0.72 * r)))


def _face_markings(sketch: Sketch, coat: _Coat, x: float, y: float, r: float, skull: tuple[Outline, ...]) -> None:
    if coat.kind == "tabby":
        for k in (-1, 0, 1):
            sketch.add(coat.mark, *limb([(x + 0.22 * k * r, y - 0.9 * r), (x + 0.14 * k * r, y - 0.45 * r)], 0.12 * r,
                0.04 * r), clip=skull)
    elif coat.kind == "points":
        sketch.add(coat.mark, ellipse(x, y + 0.25 * r, 0.66 * r, 0.6 * r), clip=skull)
    elif coat.kind == "patches":
        sketch.add(coat.mark, ellipse(x + 0.5 * r, y - 0.45 * r, 0.55 * r, 0.6 * r), clip=skull)


def _face(sketch: Sketch, rng: np.random.Generator, x: float, y: float, r: float) -> None:
    asleep = chance(rng, 0.18)
    iris = pick(rng, _EYES)
    for side in (-1, 1):
        ex, ey = x + side * 0.42 * r, y - 0.02 * r
        if asleep:
            lid = smooth((ex - 0.2 * r, ey), (ex, ey + 0.12 * r), (ex + 0.2 * r, ey), closed=False, steps=4)
            sketch.add(INK, *limb(lid, 0.09 * r))
        else:
            sketch.add(iris, ellipse(ex, ey, 0.21 * r, 0.23 * r))
            sketch.add(INK, ellipse(ex, ey, 0.09 * r, 0.19 * r))
            sketch.add(WHITE, ellipse(ex + 0.07 * r, ey - 0.09 * r, 0.05 * r, 0.05 * r))
        for slope in (0.02, 0.14):
            sketch.add(mixed(INK, WHITE, 0.75), *limb([(x + side * 0.4 * r, y + (0.34 + slope) * r),
                (x + side * 1.2 * r, y + (0.22 + 2 * slope) * r)], 0.035 * r))
    sketch.add(_PINK, polygon((x - 0.12 * r, y + 0.2 * r), (x + 0.12 * r, y + 0.2 * r), (x, y + 0.34 * r)))
    for side in (-1, 1):
        lip = smooth((x, y + 0.34 * r), (x + side * 0.09 * r, y + 0.5 * r), (x + side * 0.22 * r, y + 0.45 * r),
            closed=False, steps=4)
        sketch.add(scaled(INK, 1.4), *limb(lip, 0.05 * r))
