"""Cars: wide and low, seen from the side: saloon, hatchback, van and pickup."""

import numpy as np

from workshop.toytown.paint import Paint, chance, choose, mixed, pick, scaled
from workshop.toytown.palette import BRIGHT, CAR, CREAM, GLASS, INK, LAMP, WHITE, Color
from workshop.toytown.sketch import Outline, Sketch, box, ellipse, limb, polygon, smooth, star

# fmt: off
# Outlines are rows of points: with a point a line nobody would see them.


def sketch_car(rng: np.random.Generator, subtype: str) -> Sketch:
    """One car, driving to the right.

    The wheels stand on y = 0 and the body reaches up to about y = -1; its length is 1.7 to 2.6.
    """
    length = {"saloon": 2.4, "hatchback": 1.8, "van": 2.05, "pickup": 2.4}[subtype] * rng.uniform(0.93, 1.08)
    sill, belt = -0.2, -rng.uniform(0.5, 0.6)
    roof = {"saloon": 0.95, "hatchback": 0.98, "van": 1.18, "pickup": 0.98}[subtype] * -rng.uniform(0.92, 1.06)
    color = pick(rng, CAR)
    wheels = (length * 0.19, length * 0.8)
    body, cabin = _outlines(rng, subtype, length, sill, belt, roof)
    sketch = Sketch()
    if subtype != "pickup" and chance(rng, 0.25):
        _roof_load(sketch, rng, cabin, roof)
    second = pick(rng, [CREAM, WHITE, scaled(color, 0.6), *BRIGHT]) if chance(rng, 0.3) else color
    sketch.add(second, cabin, shade=0.3)
    _windows(sketch, rng, subtype, cabin, second, belt, roof)
    shell = sketch.add(color, body, shade=0.35)
    sketch.add(scaled(color, 0.72), box(-1, sill - 0.08, 4, 0), clip=shell)
    sketch.add(mixed(color, WHITE, 0.35), box(-1, belt + 0.045, 4, belt + 0.075), clip=shell)
    _decoration(sketch, rng, shell, color, length, belt, sill)
    _doors(sketch, color, wheels, cabin, belt, sill)
    _lamps(sketch, rng, length, belt, sill)
    radius, hub, turn = rng.uniform(0.2, 0.25), choose(rng, ["star", "spokes", "disc"]), rng.uniform(0, 1)
    for x in wheels:
        _wheel(sketch, shell, x, radius, hub, turn + x)
    return sketch


def _outlines(rng: np.random.Generator, subtype: str, length: float, sill: float, belt: float,
        roof: float ) -> tuple[Outline, Outline]:
    """The body below the windows and the cabin above."""
    nose, tail = belt + rng.uniform(0.0, 0.1), belt + rng.uniform(-0.02, 0.05)
    hood = {"saloon": 0.3, "hatchback": 0.26, "van": 0.13, "pickup": 0.25}[subtype] * length * rng.uniform(0.9, 1.1)
    boot = {"saloon": 0.2, "hatchback": 0.05, "van": 0.0, "pickup": 0.36}[subtype] * length * rng.uniform(0.9, 1.1)
    front, back = length - hood, boot
    body = np.concatenate([smooth((0.02, sill), (0.0, (tail + sill) / 2), (0.05, tail + 0.03), (back, belt),
        closed=False), smooth((front, belt), (length - 0.15, nose + 0.02), (length - 0.01, nose + 0.12), (length, sill),
        closed=False), polygon((length - 0.1, sill + 0.06), (0.1, sill + 0.06))])
    slope = {"saloon": 0.28, "hatchback": 0.3, "van": 0.16, "pickup": 0.24}[subtype]
    rear = {"saloon": 0.25, "hatchback": 0.16, "van": 0.03, "pickup": 0.05}[subtype]
    cabin = smooth((back + 0.02, belt + 0.05), (back + rear, roof + 0.03), (back + rear + 0.15, roof),
        (front - slope - 0.12, roof), (front - slope, roof + 0.04), (front, belt + 0.05), steps=4)
    corners = polygon((back, belt + 0.05), (back + rear, roof + 0.03), (front - slope, roof + 0.04),
        (front, belt + 0.05))
    return body, np.concatenate([corners[:2], cabin[4:16], corners[2:]])


def _windows(sketch: Sketch, rng: np.random.Generator, subtype: str, cabin: Outline, color: Color, belt: float,
        roof: float ) -> None:
    glass = pick(rng, GLASS)
    middle = cabin.mean(axis=0)
    shrunk = (cabin - middle) * (0.86, 0.74) + middle + (0, 0.01)
    panes = sketch.add(glass, shrunk, shade=0.25)
    left, right = shrunk[:, 0].min(), shrunk[:, 0].max()
    for k in range(3):  # the sky in the glass
        x = left + (right - left) * (0.25 + 0.33 * k)
        gleam = polygon((x, belt), (x + 0.1, belt), (x + 0.28, roof), (x + 0.18, roof))
        sketch.add(Paint(WHITE, opacity=0.3), gleam, clip=panes)
    pillars = {"saloon": [0.5], "hatchback": [0.45], "van": [0.35, 0.68], "pickup": []}[subtype]
    for share in pillars:
        x = left + (right - left) * share
        sketch.add(scaled(color, 0.9), box(x - 0.03, roof, x + 0.03, belt), clip=panes)
    if subtype == "van" and chance(rng, 0.5):  # a delivery van has no window at the back
        sketch.add(color, box(left, roof, left + (right - left) * 0.66, belt), clip=panes)


def _decoration(sketch: Sketch, rng: np.random.Generator, shell: tuple[Outline, ...], color: Color, length: float,
        belt: float, sill: float) -> None:
    kind = choose(rng, ["none", "none", "none", "band", "checks", "dots", "star", "rally"])
    accent = pick(rng, BRIGHT)
    if kind == "band":
        sketch.add(accent, box(0, belt + 0.12, length, belt + 0.2), clip=shell)
    elif kind == "checks":
        sketch.add(Paint(INK, WHITE, "checks", 0.12), box(0, belt + 0.11, length, belt + 0.23), clip=shell)
    elif kind == "dots":
        sketch.add(Paint(accent, color, "dots", 0.2), box(0, belt + 0.08, length, sill - 0.08), clip=shell)
    elif kind == "star":
        sketch.add(accent, star(length * 0.5, (belt + sill) / 2, 0.14))
    elif kind == "rally":
        sketch.add(WHITE, ellipse(length * 0.5, (belt + sill) / 2 - 0.02, 0.13, 0.13))
        sketch.add(INK, box(length * 0.5 - 0.025, (belt + sill) / 2 - 0.1, length * 0.5 + 0.025,
            (belt + sill) / 2 + 0.06))


def _doors(sketch: Sketch, color: Color, wheels: tuple[float, float], cabin: Outline, belt: float, sill: float) -> None:
    line = scaled(color, 0.62)
    left, right = max(cabin[:, 0].min(), wheels[0]) + 0.1, min(cabin[:, 0].max(), wheels[1]) - 0.12
    edges = [left, (left + right) / 2, right] if right - left > 0.75 else [left, right]
    for x in edges:
        sketch.add(line, box(x - 0.012, belt + 0.02, x + 0.012, sill))
    for x in edges[1:]:
        sketch.add(mixed(line, WHITE, 0.55), box(x - 0.17, belt + 0.1, x - 0.05, belt + 0.13, 0.01))


def _lamps(sketch: Sketch, rng: np.random.Generator, length: float, belt: float, sill: float) -> None:
    y = belt + rng.uniform(0.17, 0.2)
    sketch.add(LAMP, ellipse(length - 0.06, y, 0.06, 0.075) if chance(rng, 0.5) else box(length - 0.12, y - 0.05,
        length, y + 0.04, 0.02))
    sketch.add((206, 48, 40), box(0.0, y - 0.06, 0.08, y + 0.05, 0.02))
    bumper = pick(rng, [(206, 208, 212), (70, 72, 80)])
    sketch.add(bumper, box(-0.05, sill - 0.06, 0.22, sill + 0.03, 0.04), box(length - 0.22, sill - 0.06, length + 0.05,
        sill + 0.03, 0.04))


def _wheel(sketch: Sketch, shell: tuple[Outline, ...], x: float, radius: float, hub: str, turn: float) -> None:
    sketch.add((48, 44, 52), ellipse(x, -radius, 1.22 * radius, 1.22 * radius), clip=shell)
    sketch.add((40, 38, 44), ellipse(x, -radius, radius, radius), shade=0.4)
    sketch.add((214, 216, 220), ellipse(x, -radius, 0.6 * radius, 0.6 * radius), shade=0.35)
    if hub == "star":
        sketch.add((120, 122, 130), star(x, -radius, 0.55 * radius, 5, 0.35, turn))
    elif hub == "spokes":
        center = np.array([x, -radius])
        for k in range(3):
            step = 0.55 * radius * np.array([np.cos(turn + k * np.pi / 3), np.sin(turn + k * np.pi / 3)])
            sketch.add((120, 122, 130), *limb([center - step, center + step], 0.1 * radius))
    sketch.add((90, 90, 98), ellipse(x, -radius, 0.2 * radius, 0.2 * radius))


def _roof_load(sketch: Sketch, rng: np.random.Generator, cabin: Outline, roof: float) -> None:
    left, right = np.quantile(cabin[:, 0], [0.3, 0.75])
    kind = choose(rng, ["cases", "board", "sign"])
    if kind == "cases":
        x = left
        while x < right - 0.15:
            width = rng.uniform(0.18, 0.36)
            sketch.add(pick(rng, BRIGHT), box(x, roof - rng.uniform(0.12, 0.24), min(x + width, right), roof + 0.05,
                0.02), shade=0.3)
            x += width + 0.02
    elif kind == "board":
        sketch.add((70, 70, 78), box(left, roof - 0.08, left + 0.03, roof + 0.03), box(right, roof - 0.08, right + 0.03,
            roof + 0.03))
        sketch.add(Paint(pick(rng, BRIGHT), WHITE, "pinstripes", 0.3, np.pi / 2),
            ellipse((left + right) / 2, roof - 0.1, 0.62, 0.05))
    else:
        middle = (left + right) / 2
        sketch.add(LAMP, box(middle - 0.16, roof - 0.13, middle + 0.16, roof + 0.04, 0.04))
        sketch.add(INK, box(middle - 0.1, roof - 0.08, middle + 0.1, roof - 0.05))
