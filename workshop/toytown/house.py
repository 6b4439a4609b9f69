"""Houses: cottage, tower and shop, with doors, windows, roofs and chimneys."""

from dataclasses import dataclass

import numpy as np

from workshop.toytown.paint import Paint, chance, choose, mixed, pick, scaled
from workshop.toytown.palette import BRIGHT, CREAM, GLASS, LAMP, LEAF, ROOF, WALL, WHITE, Color
from workshop.toytown.sketch import Outline, Sketch, box, ellipse, limb, polygon, smooth

# fmt: off
# Outlines are rows of points: with a point a line nobody would see them.


@dataclass(frozen=True)
class _Style:
    """The materials of one house."""

    wall: Paint
    roof: Paint
    trim: Color
    door: Color
    glass: Color


def sketch_house(rng: np.random.Generator, subtype: str) -> Sketch:
    """One house. The ground is y = 1, the left wall x = 0."""
    wall = pick(rng, WALL)
    material = choose(rng, [None, None, "bricks", "planks"])
    pitch = {"bricks": 0.1, "planks": 0.06}.get(material or "", 0.1)
    roof = pick(rng, ROOF)
    style = _Style(
        Paint(wall, mixed(wall, (90, 70, 64), 0.28), material, pitch * rng.uniform(0.85, 1.25)),
        Paint(roof, scaled(roof, 0.75), choose(rng, ["tiles", "tiles", "planks", None]), rng.uniform(0.05, 0.08)),
        choose(rng, [WHITE, CREAM, scaled(wall, 0.6), pick(rng, BRIGHT)]), pick(rng, BRIGHT),
        LAMP if chance(rng, 0.25) else pick(rng, GLASS))
    sketch = Sketch()
    {"cottage": _cottage, "tower": _tower, "shop": _shop}[subtype](sketch, rng, style)
    return sketch


def _cottage(sketch: Sketch, rng: np.random.Generator, style: _Style) -> None:
    """A gable to the front and, often, the long side with its roof behind it."""
    front, side = rng.uniform(0.55, 0.8), rng.uniform(0.35, 0.7)
    eaves, ridge = rng.uniform(0.48, 0.56), rng.uniform(0.06, 0.16)
    if chance(rng, 0.25):
        side = 0.0
    chimney_x = front * 0.5 + side * rng.uniform(0.3, 0.8) if side else front * 0.72
    _chimney(sketch, rng, chimney_x, ridge + (0.0 if side else 0.12), style)
    if side:
        _long_wall(sketch, rng, style, front, side, eaves)
    wall = sketch.add(style.wall, polygon((0, eaves), (front / 2, ridge), (front, eaves), (front, 1.0), (0, 1.0)),
        shade=0.2)
    over = 0.05  # the roof reaches beyond the walls
    if side:
        near, far = (front + over, eaves + 0.03), (front + side + over, eaves + 0.03)
        sketch.add(style.roof, polygon((front / 2, ridge), (front / 2 + side, ridge), far, near), shade=0.35)
    gable = [(-over, eaves + 0.05), (front / 2, ridge - 0.03), (front + over, eaves + 0.05)]
    shadow = limb([(x, y + 0.045) for x, y in gable], 0.03)
    sketch.add(Paint((60, 46, 50), opacity=0.28), *shadow, clip=wall)
    sketch.add(_trim(style), *limb(gable, 0.055), shade=0.2)
    door_x = front * rng.uniform(0.3, 0.7)
    _door(sketch, rng, style, door_x, 0.2, 0.3)
    beside = door_x + (0.27 if door_x < front / 2 else -0.27)
    if 0.1 < beside < front - 0.1:
        _windows(sketch, rng, style, [beside], [0.72], 0.14, 0.16)
    if chance(rng, 0.5):
        sketch.add(style.trim, ellipse(front / 2, eaves - 0.07, 0.075, 0.075))
        sketch.add(style.glass, ellipse(front / 2, eaves - 0.07, 0.053, 0.053))
    else:
        _windows(sketch, rng, style, [front / 2], [eaves - 0.03], 0.14, 0.16)
    _garden(sketch, rng, 0, front + side)


def _long_wall(sketch: Sketch, rng: np.random.Generator, style: _Style, front: float, side: float,
        eaves: float ) -> None:
    """The wall that runs back from the gable: a little darker, with one or two windows."""
    sketch.add(_darker(style.wall, 0.82), box(front, eaves, front + side, 1.0), shade=0.15)
    shares = [0.5] if side < 0.5 else [0.3, 0.72]
    _windows(sketch, rng, style, [front + side * share for share in shares], [0.68], 0.15, 0.17)


def _tower(sketch: Sketch, rng: np.random.Generator, style: _Style) -> None:
    """A narrow house of two or three floors."""
    width = rng.uniform(0.42, 0.62)
    eaves = rng.uniform(0.26, 0.34)
    kind = choose(rng, ["point", "point", "mansard", "steps"])
    _chimney(sketch, rng, width * 0.75, eaves - 0.17, style)
    sketch.add(style.wall, box(0, eaves, width, 1.0), shade=0.3)
    over = 0.04
    if kind == "point":
        sketch.add(style.roof, polygon((-over, eaves + 0.03), (width / 2, 0.0), (width + over, eaves + 0.03)),
            shade=0.4)
    elif kind == "mansard":
        sketch.add(style.roof, smooth((-over, eaves + 0.03), (0.1 * width, 0.1), (0.9 * width, 0.1),
            (width + over, eaves + 0.03), steps=2), shade=0.4)
    else:
        steps = [box(width * 0.1 * k, eaves - 0.075 * (k + 1), width * (1 - 0.1 * k), eaves + 0.01) for k in range(4)]
        sketch.add(style.wall, *steps, shade=0.3)
    sketch.add(_trim(style), box(-over, eaves, width + over, eaves + 0.035))
    floors = 2 if eaves > 0.3 else 3
    rows = np.linspace(eaves + 0.12, 0.65, floors).tolist()
    columns = [width * 0.27, width * 0.73] if width > 0.46 else [width * 0.5]
    _windows(sketch, rng, style, columns, rows, min(0.14, 0.28 * width), 0.13 if floors == 2 else 0.085)
    _door(sketch, rng, style, width * choose(rng, [0.28, 0.5, 0.72]), 0.15, 0.24)
    if kind == "point" and chance(rng, 0.5):
        sketch.add(style.glass, ellipse(width / 2, eaves - 0.08, 0.045, 0.045))
    _garden(sketch, rng, 0, width)


def _shop(sketch: Sketch, rng: np.random.Generator, style: _Style) -> None:
    """A flat-roofed or hipped house with an awning over a shop window."""
    width = rng.uniform(0.95, 1.35)
    eaves = rng.uniform(0.2, 0.32)
    hipped = chance(rng, 0.5)
    if hipped:
        _chimney(sketch, rng, width * rng.uniform(0.25, 0.75), eaves - 0.17, style)
    sketch.add(style.wall, box(0, eaves, width, 1.0), shade=0.3)
    if hipped:
        inset = rng.uniform(0.12, 0.25)
        sketch.add(style.roof, polygon((-0.05, eaves + 0.03), (inset, 0.06), (width - inset, 0.06),
            (width + 0.05, eaves + 0.03)), shade=0.35)
    else:
        sketch.add(_trim(style), box(-0.03, eaves - 0.05, width + 0.03, eaves + 0.05), shade=0.2)
    columns = np.linspace(width * 0.16, width * 0.84, 3 if width < 1.15 else 4).tolist()
    _windows(sketch, rng, style, columns, [eaves + 0.16], 0.15, 0.16)
    pane = box(0.08, 0.68, width * 0.64, 0.92)
    sketch.add(style.trim, box(0.06, 0.66, width * 0.66, 0.95))
    glass = sketch.add(style.glass, pane, shade=0.3)
    sketch.add(Paint(WHITE, opacity=0.35), polygon((0.2, 0.92), (0.28, 0.92), (0.42, 0.66), (0.34, 0.66)), clip=glass)
    _door(sketch, rng, style, width * 0.82, 0.18, 0.32)
    awning = polygon((0.06, 0.57), (width - 0.06, 0.57), (width + 0.0, 0.69), (0.0, 0.69))
    count = 9
    scallops = [ellipse((k + 0.5) * width / count, 0.69, width / count / 2, 0.028) for k in range(count)]
    sketch.add(Paint(style.door, WHITE, "stripes", 2 * width / count), awning, *scallops, shade=0.2)
    sketch.add(Paint((50, 40, 48), opacity=0.25), box(0.02, 0.71, width - 0.02, 0.735))
    if chance(rng, 0.6):
        sketch.add(scaled(style.door, 0.8), box(width * 0.25, 0.5, width * 0.75, 0.575, 0.02))
        for k in range(5):
            sketch.add(WHITE, box(width * (0.32 + 0.08 * k), 0.525, width * (0.36 + 0.08 * k), 0.55))


def _darker(paint: Paint, factor: float) -> Paint:
    accent = None if paint.accent is None else scaled(paint.accent, factor)
    return Paint(scaled(paint.color, factor), accent, paint.pattern, paint.pitch, paint.angle)


def _trim(style: _Style) -> Color:
    return scaled(style.roof.color, 0.82)


def _chimney(sketch: Sketch, rng: np.random.Generator, x: float, y: float, style: _Style) -> None:
    if chance(rng, 0.7):
        brick = (176, 98, 78)
        top = y - rng.uniform(0.03, 0.08)
        sketch.add(Paint(brick, (206, 150, 124), "bricks", 0.06), box(x - 0.05, top, x + 0.05, y + 0.25), shade=0.3)
        sketch.add(_trim(style), box(x - 0.062, top - 0.02, x + 0.062, top + 0.015))


def _door(sketch: Sketch, rng: np.random.Generator, style: _Style, x: float, width: float, height: float) -> None:
    top, half = 1.0 - height, width / 2
    arch: tuple[Outline, ...] = (ellipse(x, top + half * 0.6, half, half * 0.6),) if chance(rng, 0.4) else ()
    y = top + (half * 0.6 if arch else 0.0)
    frame = [(o - (x, 1.0)) * (1.22, 1.08) + (x, 1.0) for o in (*arch, box(x - half, y, x + half, 1.0))]
    sketch.add(style.trim, *frame)
    sketch.add(style.door, *arch, box(x - half, y, x + half, 1.0), shade=0.25)
    if chance(rng, 0.5):
        sketch.add(style.glass, box(x - 0.55 * half, top + 0.06, x + 0.55 * half, top + 0.13, 0.01))
    sketch.add(LAMP, ellipse(x + 0.6 * half, 1.0 - 0.45 * height, 0.014, 0.014))
    sketch.add((168, 162, 158), box(x - 1.3 * half, 0.975, x + 1.3 * half, 1.0))


def _windows(sketch: Sketch, rng: np.random.Generator, style: _Style, columns: list[float], rows: list[float],
        width: float, height: float) -> None:
    """Windows centered at every crossing of `columns` and `rows`, all alike."""
    shutters, flowers, cross = chance(rng, 0.3), chance(rng, 0.3), chance(rng, 0.75)
    w, h = width / 2, height / 2
    for x in columns:
        for y in rows:
            if shutters:
                sketch.add(style.door, box(x - 1.75 * w, y - h, x - w, y + h), box(x + w, y - h, x + 1.75 * w, y + h),
                    shade=0.15)
            sketch.add(style.trim, box(x - 1.2 * w, y - 1.18 * h, x + 1.2 * w, y + 1.18 * h))
            sketch.add(style.glass, box(x - w, y - h, x + w, y + h), shade=0.35)
            if cross:
                sketch.add(style.trim, box(x - 0.1 * w, y - h, x + 0.1 * w, y + h),
                    box(x - w, y - 0.1 * h, x + w, y + 0.1 * h))
            if flowers:
                sketch.add((134, 92, 64), box(x - 1.25 * w, y + h, x + 1.25 * w, y + 1.45 * h))
                blooms = [ellipse(x + k * 0.5 * w, y + 0.95 * h, 0.3 * w, 0.28 * h) for k in (-2, -1, 0, 1, 2)]
                sketch.add(style.door, *blooms)


def _garden(sketch: Sketch, rng: np.random.Generator, left: float, right: float) -> None:
    """Low bushes against the wall."""
    if chance(rng, 0.4):
        leaf = pick(rng, LEAF[:5])
        x = left + 0.05 if chance(rng, 0.5) else right - 0.05
        sketch.add(leaf, *(ellipse(x + dx, 0.95, 0.06, 0.05) for dx in (-0.06, 0.0, 0.06)),
            ellipse(x, 0.91, 0.06, 0.05), shade=0.4)
