"""Things of no class: a detector must learn to leave them alone."""

from collections.abc import Callable

import numpy as np

from workshop.toytown.paint import TEXTILES, Paint, chance, choose, mixed, pick, scaled
from workshop.toytown.palette import BRIGHT, CREAM, LAMP, WHITE
from workshop.toytown.sketch import Sketch, box, ellipse, limb, polygon, smooth, star

# fmt: off
# Outlines are rows of points: with a point a line nobody would see them.


def _ball(sketch: Sketch, rng: np.random.Generator) -> None:
    fill = Paint(pick(rng, BRIGHT), WHITE, choose(rng, [None, "stripes", "dots"]), 0.4, rng.uniform(0, 3))
    sketch.add(fill, ellipse(0, 0.5, 0.5, 0.5), shade=0.5, ball=True)


def _crate(sketch: Sketch, rng: np.random.Generator) -> None:
    wood = pick(rng, [(188, 140, 90), (160, 116, 76), (208, 170, 120)])
    sketch.add(Paint(wood, scaled(wood, 0.75), "planks", 0.2), box(0, 0, 1.1, 0.9), shade=0.3)
    frame = scaled(wood, 0.85)
    sketch.add(frame, box(0, 0, 0.12, 0.9), box(0.98, 0, 1.1, 0.9), box(0, 0, 1.1, 0.1), box(0, 0.8, 1.1, 0.9),
        *limb([(0.1, 0.1), (1.0, 0.8)], 0.1))


def _gift(sketch: Sketch, rng: np.random.Generator) -> None:
    paper, ribbon = pick(rng, BRIGHT), pick(rng, BRIGHT)
    fill = Paint(paper, mixed(paper, WHITE, 0.5), choose(rng, [None, "dots", "stripes"]), 0.2)
    sketch.add(fill, box(0, 0.25, 1, 1), shade=0.3)
    sketch.add(ribbon, box(0.42, 0.25, 0.58, 1), box(0, 0.55, 1, 0.68), ellipse(0.36, 0.14, 0.18, 0.11, 0.5),
        ellipse(0.64, 0.14, 0.18, 0.11, -0.5), shade=0.2)


def _mug(sketch: Sketch, rng: np.random.Generator) -> None:
    glaze = pick(rng, [*BRIGHT, CREAM])
    sketch.add(scaled(glaze, 0.85), *limb(ellipse(0.78, 0.5, 0.2, 0.22), 0.09))
    cup = sketch.add(glaze, smooth((0, 0.1), (0.05, 0.85), (0.2, 0.98), (0.6, 0.98), (0.75, 0.85), (0.8, 0.1)),
        shade=0.45)
    sketch.add(mixed(glaze, WHITE, 0.6), box(0, 0.4, 0.8, 0.55), clip=cup)
    sketch.add((92, 58, 40), ellipse(0.4, 0.1, 0.36, 0.08))


def _mushroom(sketch: Sketch, rng: np.random.Generator) -> None:
    sketch.add(CREAM, smooth((0.38, 0.45), (0.34, 0.95), (0.66, 0.95), (0.62, 0.45)), shade=0.4)
    cap = sketch.add(pick(rng, BRIGHT[:3]), smooth((0, 0.5), (0.12, 0.15), (0.5, 0), (0.88, 0.15), (1, 0.5),
        (0.5, 0.56)), shade=0.4)
    sketch.add(WHITE, *(ellipse(x, y, r, r * 0.8) for x, y, r in ((0.3, 0.22, 0.09), (0.62, 0.15, 0.07),
        (0.8, 0.4, 0.08), (0.5, 0.4, 0.06))), clip=cap)


def _cone(sketch: Sketch, rng: np.random.Generator) -> None:
    body = sketch.add((240, 112, 48), polygon((0.42, 0), (0.58, 0), (0.82, 0.92), (0.18, 0.92)), shade=0.4)
    sketch.add(WHITE, box(0, 0.3, 1, 0.44), box(0, 0.6, 1, 0.74), clip=body, shade=0.3)
    sketch.add((214, 92, 40), box(0.02, 0.9, 0.98, 1.0, 0.03))


def _sign(sketch: Sketch, rng: np.random.Generator) -> None:
    sketch.add((128, 126, 132), box(0.46, 0.3, 0.54, 1.4), shade=0.4)
    color = pick(rng, BRIGHT)
    corners = int(choose(rng, [3, 4, 8, 0]))
    outline = (ellipse(0.5, 0.3, 0.32, 0.32) if not corners else star(0.5, 0.3, 0.38, corners, np.cos(np.pi / corners),
        np.pi / 8 if corners == 8 else 0))
    sketch.add(color, outline, shade=0.2)
    sketch.add(WHITE, (outline - (0.5, 0.3)) * 0.72 + (0.5, 0.3))
    sketch.add(color, box(0.46, 0.18, 0.54, 0.34), ellipse(0.5, 0.4, 0.04, 0.04))


def _flower(sketch: Sketch, rng: np.random.Generator) -> None:
    sketch.add((88, 142, 74), *limb([(0.5, 0.3), (0.5 + rng.uniform(-0.1, 0.1), 0.7), (0.5, 1.2)], 0.05),
        ellipse(0.66, 0.85, 0.16, 0.06, -0.5), ellipse(0.34, 0.95, 0.16, 0.06, 0.5))
    count = int(rng.integers(5, 9))
    angles = 2 * np.pi * np.arange(count) / count
    sketch.add(pick(rng, BRIGHT), *(ellipse(0.5 + 0.22 * np.cos(a), 0.3 + 0.22 * np.sin(a), 0.15, 0.1,
        a) for a in angles), shade=0.3)
    sketch.add(LAMP, ellipse(0.5, 0.3, 0.12, 0.12), shade=0.3)


def _rock(sketch: Sketch, rng: np.random.Generator) -> None:
    gray = pick(rng, [(140, 138, 136), (164, 150, 136), (112, 116, 126)])
    angles = np.linspace(np.pi, 2 * np.pi, 6)
    top = [(0.6 + 0.6 * np.cos(a) * rng.uniform(0.8, 1), 0.6 + 0.55 * np.sin(a) * rng.uniform(0.75, 1)) for a in angles]
    sketch.add(gray, polygon(*top, (1.15, 0.66), (0.05, 0.66)), shade=0.6)
    sketch.add(mixed(gray, WHITE, 0.25), polygon(top[1], top[2], top[3], (0.6, 0.35)), shade=0.2)


def _kite(sketch: Sketch, rng: np.random.Generator) -> None:
    colors = [pick(rng, BRIGHT) for _ in range(2)]
    tail = smooth((0.4, 0.9), (0.5, 1.1), (0.35, 1.25), (0.45, 1.45), closed=False)
    sketch.add(colors[0], *limb(tail, 0.025))
    for k, (x, y) in enumerate(((0.49, 1.08), (0.38, 1.25), (0.43, 1.4))):
        sketch.add(colors[k % 2], polygon((x - 0.08, y - 0.05), (x + 0.08, y + 0.05), (x + 0.08, y - 0.05),
            (x - 0.08, y + 0.05)))
    for k, (a, b) in enumerate(
        (((0.4, 0), (0.8, 0.35)), ((0.8, 0.35), (0.4, 0.9)), ((0.4, 0.9), (0, 0.35)), ((0, 0.35), (0.4, 0)))
    ):
        sketch.add(colors[k % 2], polygon((0.4, 0.35), a, b), shade=0.2)


def _boat(sketch: Sketch, rng: np.random.Generator) -> None:
    sketch.add((120, 84, 56), box(0.53, 0.0, 0.56, 0.8))
    sail = Paint(WHITE, pick(rng, BRIGHT), choose(rng, [None, "stripes"]), 0.25, np.pi / 2)
    sketch.add(sail, polygon((0.58, 0.02), (1.0, 0.68), (0.58, 0.68)), shade=0.2)
    sketch.add(scaled(WHITE, 0.94), polygon((0.51, 0.1), (0.51, 0.68), (0.18, 0.68)), shade=0.2)
    sketch.add(pick(rng, BRIGHT), smooth((0.02, 0.76), (1.1, 0.76), (0.92, 0.97), (0.2, 0.97), steps=4), shade=0.35)


def _lamppost(sketch: Sketch, rng: np.random.Generator) -> None:
    iron = pick(rng, [(62, 66, 74), (46, 84, 78), (92, 62, 60)])
    sketch.add(iron, box(0.16, 0.3, 0.22, 1.75), box(0.1, 1.68, 0.28, 1.8, 0.02), shade=0.3)
    sketch.add(LAMP, polygon((0.06, 0.08), (0.32, 0.08), (0.27, 0.32), (0.11, 0.32)), shade=0.15)
    sketch.add(iron, polygon((0.02, 0.09), (0.19, 0), (0.36, 0.09)), box(0.1, 0.31, 0.28, 0.35))


def _umbrella(sketch: Sketch, rng: np.random.Generator) -> None:
    handle = smooth((0.5, 0.1), (0.5, 0.85), (0.56, 0.95), (0.64, 0.86), closed=False)
    sketch.add((110, 76, 54), *limb(handle, 0.035))
    colors = [pick(rng, BRIGHT), pick(rng, BRIGHT)]
    dome = smooth((0, 0.46), (0.12, 0.18), (0.5, 0.02), (0.88, 0.18), (1, 0.46), (0.83, 0.4), (0.66, 0.46), (0.5, 0.4),
        (0.34, 0.46), (0.17, 0.4))
    canopy = sketch.add(colors[0], dome, shade=0.4)
    sketch.add(colors[1], polygon((0.5, 0), (0.34, 0.5), (0.66, 0.5)), polygon((0.5, 0), (-0.1, 0.5), (0.17, 0.5)),
        polygon((0.5, 0), (0.83, 0.5), (1.1, 0.5)), clip=canopy, shade=0.4)


def _cloth(sketch: Sketch, rng: np.random.Generator) -> None:
    """A patterned scrap without meaning: color and texture alone are not an object."""
    fill = Paint(pick(rng, BRIGHT), pick(rng, BRIGHT), choose(rng, TEXTILES), rng.uniform(0.12, 0.3), rng.uniform(0, 3))
    corners = rng.uniform(-0.2, 0.2, (4, 2)) + box(0, 0, 1, 1)
    points = [(float(x), float(y)) for x, y in corners * (1, rng.uniform(0.5, 1.2))]
    sketch.add(fill, smooth(*points, steps=4) if chance(rng, 0.4) else polygon(*points), shade=0.3)


DISTRACTORS: dict[str, Callable[[Sketch, np.random.Generator], None]] = {"ball": _ball, "crate": _crate, "gift": _gift,
    "mug": _mug, "mushroom": _mushroom, "cone": _cone, "sign": _sign, "flower": _flower, "rock": _rock, "kite": _kite,
    "boat": _boat, "lamppost": _lamppost, "umbrella": _umbrella, "cloth": _cloth}


def sketch_distractor(rng: np.random.Generator) -> tuple[Sketch, bool]:
    """One thing of no class, and whether it flies."""
    sketch = Sketch()
    name = choose(rng, list(DISTRACTORS))
    DISTRACTORS[name](sketch, rng)
    return sketch, name == "kite"
