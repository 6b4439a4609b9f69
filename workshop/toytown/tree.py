"""Trees: broadleaf, conifer, poplar and palm, through the seasons."""

import numpy as np

from workshop.toytown.paint import chance, choose, mixed, pick, scaled
from workshop.toytown.palette import BARK, BRIGHT, LEAF, NEEDLE, WHITE
from workshop.toytown.sketch import Sketch, ellipse, limb, polygon, smooth, star

# fmt: off
# Outlines are rows of points: with a point a line nobody would see them.


def sketch_tree(rng: np.random.Generator, subtype: str) -> Sketch:
    """One tree. The ground is y = 1, the top about y = 0, the trunk at x = 0."""
    sketch = Sketch()
    {"broadleaf": _broadleaf, "conifer": _conifer, "poplar": _poplar, "palm": _palm}[subtype](sketch, rng)
    return sketch


def _trunk(sketch: Sketch, rng: np.random.Generator, top: float, width: float) -> None:
    lean = rng.uniform(-0.03, 0.03)
    outline = smooth((-0.8 * width, 1.0), (-0.5 * width, 0.93), (lean - 0.35 * width, top), (lean + 0.35 * width, top),
        (0.5 * width, 0.93), (0.8 * width, 1.0))
    sketch.add(pick(rng, BARK), outline, shade=0.5)


def _broadleaf(sketch: Sketch, rng: np.random.Generator) -> None:
    half, low = rng.uniform(0.27, 0.42), rng.uniform(0.58, 0.72)
    width = rng.uniform(0.07, 0.12)
    _trunk(sketch, rng, 0.4, width)
    bark = sketch.shapes[0].paint.color
    for side in (-1, 1):
        sketch.add(scaled(bark, 0.9), *limb([(0, low + 0.08), (side * half * 0.5, low - 0.12)], 0.05, 0.025))
    leaf = pick(rng, LEAF)
    middle = (0.06 + low) / 2
    tall = (low - 0.06) / 2
    count = int(rng.integers(6, 10))
    angles = 2 * np.pi * (np.arange(count) + rng.uniform(-0.25, 0.25, count)) / count
    size = rng.uniform(0.4, 0.52)
    ring = [(0.62 * half * np.cos(a), middle + 0.62 * tall * np.sin(a)) for a in angles]
    blobs = [ellipse(x, y, size * half, size * tall * rng.uniform(0.9, 1.15)) for x, y in ring]
    crown = sketch.add(leaf, ellipse(0, middle, 0.75 * half, 0.75 * tall), *blobs, shade=0.5)
    tint = mixed(leaf, (255, 244, 170), 0.3)
    for x, y in ring:  # tufts: a crescent of light on each, by laying the leaf color over a lighter blob
        x, y = 0.8 * x, middle + 0.8 * (y - middle)
        sketch.add(tint, ellipse(x, y, 0.32 * half, 0.3 * tall), clip=crown, shade=0.5)
        sketch.add(leaf, ellipse(x, y + 0.07 * tall, 0.33 * half, 0.3 * tall), clip=crown, shade=0.5)
    speck = choose(rng, ["leaves", "leaves", "fruit", "blossom"])
    color = {"leaves": scaled(leaf, 0.86), "fruit": pick(rng, BRIGHT),
        "blossom": mixed(WHITE, (240, 170, 190), rng.uniform(0, 0.7))}[speck]
    radius = {"leaves": 0.013, "fruit": 0.024, "blossom": 0.017}[speck]
    spots = rng.uniform(-0.85, 0.85, (int(rng.integers(8, 22)), 2)) * (half, tall) + (0, middle)
    sketch.add(color, *(ellipse(x, y, radius, radius) for x, y in spots), clip=crown, shade=0.15)


def _conifer(sketch: Sketch, rng: np.random.Generator) -> None:
    half = rng.uniform(0.22, 0.34)
    layers = int(rng.integers(3, 6))
    low = rng.uniform(0.82, 0.9)
    _trunk(sketch, rng, 0.6, rng.uniform(0.06, 0.09))
    needle = pick(rng, NEEDLE)
    snow = chance(rng, 0.25)
    lights = chance(rng, 0.12)
    edges = np.linspace(low, 0.26, layers)
    rise = rng.uniform(1.5, 1.9) * (low - 0.26) / (layers - 1)  # each layer reaches up behind the next
    for k, y in enumerate(edges):
        wide = half * (1 - 0.7 * k / layers)
        top = max(0.0, y - rise) if k < layers - 1 else 0.0
        teeth = np.linspace(wide, -wide, 9)
        hem = [(float(x), y - (0.035 if i % 2 else 0.0) + 0.03 * (1 - abs(x) / wide)) for i, x in enumerate(teeth)]
        layer = sketch.add(scaled(needle, 0.82 + 0.3 * k / layers), polygon((0, top), *hem), shade=0.45)
        if snow:
            edge = ((0.88 * x, top + (0.86 if i % 2 else 0.66) * (y - top)) for i, (x, _) in enumerate(hem))
            cap = [(0.0, top - 0.01), *edge]
            sketch.add(WHITE, polygon(*cap), clip=layer, shade=0.15)
        if lights:
            colors = [pick(rng, BRIGHT) for _ in range(3)]
            for i, c in enumerate(colors):
                sketch.add(c, ellipse(wide * (i - 1) * 0.55, y - 0.05, 0.02, 0.02))
    if lights:
        sketch.add((250, 208, 80), star(0, 0.0, 0.06))


def _poplar(sketch: Sketch, rng: np.random.Generator) -> None:
    half, low = rng.uniform(0.13, 0.2), rng.uniform(0.8, 0.9)
    _trunk(sketch, rng, 0.6, rng.uniform(0.05, 0.08))
    leaf = pick(rng, LEAF[:8])
    widest = rng.uniform(0.4, 0.65)
    heights = np.linspace(0.08, low - 0.1, 8)
    reach = half * np.where(heights < widest, (heights / widest) ** 0.7,
        1 - 0.5 * ((heights - widest) / (low - widest)) ** 2)
    tufts = [ellipse(rng.uniform(-0.12, 0.12) * half, y, r * rng.uniform(0.9, 1.08), 0.11) for y,
        r in zip(heights, reach, strict=True)]
    crown = sketch.add(leaf, *tufts, polygon((0, 0), (0.4 * half, 0.16), (-0.4 * half, 0.16)), shade=0.6)
    for _ in range(int(rng.integers(6, 12))):
        y = rng.uniform(0.12, low - 0.08)
        x = rng.uniform(-0.7, 0.7) * half
        color = scaled(leaf, choose(rng, [0.82, 1.15]))
        sketch.add(color, smooth((x, y), (x + 0.025, y + 0.04), (x, y + 0.11), (x - 0.025, y + 0.04), steps=3),
            clip=crown)


def _palm(sketch: Sketch, rng: np.random.Generator) -> None:
    lean = rng.uniform(-0.18, 0.18)
    top = (lean, rng.uniform(0.26, 0.34))
    stem = smooth((0, 1.0), (0.15 * lean, 0.75), (0.6 * lean, 0.5), top, closed=False)
    bark = pick(rng, BARK[:4])
    trunk = sketch.add(bark, *limb(stem, 0.1, 0.075, 0.06), shade=0.4)
    for y in np.arange(0.36, 0.98, 0.075):
        sketch.add(scaled(bark, 0.8), smooth((-0.3, y), (lean / 2, y + 0.02), (0.3, y), (lean / 2, y + 0.035), steps=3),
            clip=trunk)
    leaf = pick(rng, [LEAF[0], LEAF[1], LEAF[2], LEAF[3], LEAF[9]])
    sketch.add(scaled(leaf, 0.85), ellipse(top[0], top[1] - 0.03, 0.1, 0.06))
    count = int(rng.integers(7, 10))
    for k in [*range(0, count, 2), *range(1, count, 2)]:
        angle = -np.pi * (0.02 + 0.96 * k / (count - 1)) + rng.uniform(-0.1, 0.1)
        reach = rng.uniform(0.28, 0.36)
        droop = 0.03 + 0.25 * abs(np.cos(angle))
        tip = (top[0] + reach * np.cos(angle), top[1] + 0.8 * reach * np.sin(angle) + droop)
        bend = (top[0] + 0.55 * reach * np.cos(angle), top[1] + 0.75 * reach * np.sin(angle) + 0.01)
        frond = smooth(top, bend, tip, closed=False)
        sketch.add(scaled(leaf, 0.8 + 0.35 * (k % 2)), *limb(frond, 0.02, 0.085, 0.075, 0.008), shade=0.4)
    sketch.add(scaled(leaf, 0.9), ellipse(top[0], top[1] - 0.005, 0.035, 0.03))
    if chance(rng, 0.5):
        for dx in (-0.03, 0.03):
            sketch.add((112, 74, 46), ellipse(top[0] + dx, top[1] + 0.025, 0.028, 0.03), shade=0.4, ball=True)
