"""A sketch: the list of shapes that make one object, back to front, in units of its own.

Nothing is drawn here. Because the whole object is known before the first pixel, `render` can turn, mirror and scale it
exactly and give the canvas just the room it needs. x grows to the right, y downwards, as in images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from workshop.toytown.paint import Paint
from workshop.toytown.palette import Color

Point = tuple[float, float]
Outline = np.ndarray  # (N, 2) corners of a closed polygon

_TURN = np.linspace(0.0, 2 * np.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)  # (28, 2)


@dataclass(frozen=True)
class Shape:
    """The union of some outlines, filled with one paint."""

    outlines: tuple[Outline, ...]  # closed polygons; where they overlap the shape is still filled once
    paint: Paint
    shade: float = 0.0  # strength of the light: 0 is flat, 0.5 goes from half as bright again to half as bright
    ball: bool = False  # light it like a ball instead of like a slanting plane
    clip: tuple[Outline, ...] | None = None  # nothing is drawn outside: the shape is a marking on them, and lit so


@dataclass
class Sketch:
    """Shapes, back to front."""

    shapes: list[Shape] = field(default_factory=list)

    def add(
        self,
        fill: Paint | Color,
        *outlines: Outline,
        shade: float = 0.0,
        ball: bool = False,
        clip: tuple[Outline, ...] | None = None,
    ) -> tuple[Outline, ...]:
        """Lay a shape on top; returns its outlines, ready to be another shape's `clip`."""
        paint = fill if isinstance(fill, Paint) else Paint(fill)
        self.shapes.append(Shape(outlines, paint, shade, ball, clip))
        return outlines


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> Outline:
    """An ellipse about (x, y), turned clockwise by `turn` radians."""
    points = _CIRCLE * (rx, ry)
    if turn:
        cos, sin = np.cos(turn), np.sin(turn)
        points = points @ np.array([[cos, sin], [-sin, cos]])
    return points + np.array([x, y])


def polygon(*points: Point) -> Outline:
    """The polygon with these corners."""
    return np.asarray(points, np.float64)


def box(x1: float, y1: float, x2: float, y2: float, radius: float = 0.0) -> Outline:
    """An upright rectangle, its corners rounded by `radius`."""
    if not radius:
        return polygon((x1, y1), (x2, y1), (x2, y2), (x1, y2))
    radius = min(radius, (x2 - x1) / 2, (y2 - y1) / 2)
    left, right, top, bottom = x1 + radius, x2 - radius, y1 + radius, y2 - radius
    corners = [(right, bottom), (left, bottom), (left, top), (right, top)]
    quarters = (np.take(_CIRCLE, range(7 * i, 7 * i + 8), axis=0, mode="wrap") for i in range(4))
    return np.concatenate([quarter * radius + corner for quarter, corner in zip(quarters, corners, strict=True)])


def smooth(*points: Point, closed: bool = True, steps: int = 6) -> Outline:
    """A curve through the points (Catmull-Rom), as a polygon or, with `closed=False`, an open line."""
    p = np.asarray(points, np.float64)
    p = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    t = np.linspace(0.0, 1.0, steps, endpoint=False)[:, None, None]  # (steps, 1, 1)
    a, b, c, d = p[:-3], p[1:-2], p[2:-1], p[3:]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * (b - c) + d - a) * t**3)
    curve = curve.transpose(1, 0, 2).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])


def limb(points: Sequence[Point] | np.ndarray, *widths: float) -> tuple[Outline, ...]:
    """A rounded stroke along the points; its width runs through `widths` (one value: the same everywhere)."""
    p = np.asarray(points, np.float64)
    if len(widths) == 1:
        half = np.full(len(p), 0.5 * widths[0])
    else:
        half = 0.5 * np.interp(np.linspace(0, 1, len(p)), np.linspace(0, 1, len(widths)), widths)
    ahead = np.concatenate([p[1:2] - p[:1], p[2:] - p[:-2], p[-1:] - p[-2:-1]])  # (N, 2) direction at each point
    normal = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
    normal *= (half / np.maximum(np.hypot(ahead[:, 0], ahead[:, 1]), 1e-9))[:, None]
    strip = np.concatenate([p + normal, (p - normal)[::-1]])
    # A finely sampled curve is smooth by itself; a bend between few points needs a round joint.
    joints = range(len(p)) if len(p) <= 4 else (0, len(p) - 1)
    return strip, *(_CIRCLE[::2] * half[i] + p[i] for i in joints)


def star(x: float, y: float, radius: float, points: int = 5, inner: float = 0.42, turn: float = 0.0) -> Outline:
    """A star about (x, y)."""
    angle = np.pi * np.arange(2 * points) / points - np.pi / 2 + turn
    reach = np.where(np.arange(2 * points) % 2 == 0, radius, radius * inner)
    return np.stack([x + reach * np.cos(angle), y + reach * np.sin(angle)], axis=1)
