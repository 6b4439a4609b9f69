"""People: tall and narrow, in trousers, a dress, a coat or shorts, standing, walking or waving."""

from dataclasses import dataclass

import numpy as np

from workshop.toytown.paint import TEXTILES, Paint, chance, choose, mixed, pick, scaled
from workshop.toytown.palette import FABRIC, HAIR, INK, SHOES, SKIN, TROUSERS, WHITE, Color
from workshop.toytown.sketch import Sketch, box, ellipse, limb, polygon, smooth, star

# fmt: off
# Outlines are rows of points: with a point a line nobody would see them.


@dataclass(frozen=True)
class _Body:
    """Measures in heights of the person (feet at y = 1, middle at x = 0) and clothes; the face is turned by `turn`."""

    head: float
    shoulder: float
    hip: float
    width: float
    turn: float
    skin: Color
    hair: Color
    top: Paint
    bottom: Color


def sketch_person(rng: np.random.Generator, subtype: str) -> Sketch:
    """One person."""
    head = rng.uniform(0.085, 0.125)  # half the height of the head: children and grown-ups
    shoulder = 2 * head + 0.015
    top = Paint(pick(rng, FABRIC), pick(rng, FABRIC), None, rng.uniform(0.04, 0.09),
        choose(rng, [0.0, np.pi / 2, np.pi / 4]))
    if chance(rng, 0.45):
        top = Paint(top.color, top.accent, choose(rng, TEXTILES), top.pitch, top.angle)
    body = _Body(head, shoulder, shoulder + rng.uniform(0.25, 0.31), rng.uniform(0.075, 0.115),
        choose(rng, [0.0, 0.3, 0.45]), pick(rng, SKIN, 8), pick(rng, HAIR, 10), top, pick(rng, TROUSERS))
    sketch = Sketch()
    long_hair = chance(rng, 0.45)
    if long_hair:
        _long_hair(sketch, rng, body)
    if chance(rng, 0.15):
        _backpack(sketch, rng, body)
    poses = [_arm_pose(rng) for _ in range(2)]
    _arm(sketch, body, -1, poses[0], subtype, 0.88)
    _legs(sketch, rng, body, subtype)
    _torso(sketch, rng, body, subtype)
    _arm(sketch, body, 1, poses[1], subtype, 1.0)
    _head(sketch, rng, body)
    _hair_and_hat(sketch, rng, body, long_hair)
    return sketch


def _arm_pose(rng: np.random.Generator) -> tuple[float, float]:
    """Angles of the upper arm and the forearm, away from hanging straight down."""
    low, high = choose(rng, [((0.1, 0.4), (-0.2, 0.3)), ((0.1, 0.5), (0.0, 0.8)), ((0.5, 0.9), (-0.9, -0.5)),
        ((1.6, 2.3), (2.3, 3.0))])
    return rng.uniform(*low), rng.uniform(*high)


def _arm(sketch: Sketch, body: _Body, side: int, pose: tuple[float, float], subtype: str, light: float) -> None:
    start = np.array([side * (body.width - 0.01), body.shoulder + 0.035])
    elbow = start + 0.13 * np.array([side * np.sin(pose[0]), np.cos(pose[0])])
    hand = elbow + 0.13 * np.array([side * np.sin(pose[1]), np.cos(pose[1])])
    sleeve = scaled(body.top.color, light * 0.93)
    bare = subtype in ("dress", "shorts")
    if bare:
        sketch.add(scaled(body.skin, light), *limb([start, elbow, hand], 0.05, 0.042, 0.036))
        sketch.add(sleeve, *limb([start, start + 0.45 * (elbow - start)], 0.062))
    else:
        sketch.add(sleeve, *limb([start, elbow, hand], 0.062, 0.056, 0.05), shade=0.15)
    sketch.add(scaled(body.skin, light), ellipse(*hand, 0.027, 0.027))


def _legs(sketch: Sketch, rng: np.random.Generator, body: _Body, subtype: str) -> None:
    stride = rng.uniform(0.0, 0.12) if chance(rng, 0.6) else 0.0
    shoe = pick(rng, SHOES)
    bare = subtype == "dress" or subtype == "shorts"
    for side, light in ((-1, 0.84), (1, 1.0)):
        hip = np.array([side * 0.04, body.hip])
        foot = np.array([side * (0.05 + stride), 0.965 - (0.02 if side < 0 else 0.0) * (stride > 0.05)])
        knee = (hip + foot) / 2 + (rng.uniform(-0.01, 0.03), 0)
        width = body.width * rng.uniform(0.75, 0.9)
        if bare:
            sketch.add(scaled(body.skin, light), *limb([hip, knee, foot], 0.75 * width, 0.05, 0.042))
        else:
            sketch.add(scaled(body.bottom, light), *limb([hip, knee, foot], width, 0.78 * width, 0.06), shade=0.15)
        if subtype == "shorts":
            sketch.add(scaled(body.bottom, light), *limb([hip, hip + 0.55 * (knee - hip)], width, 1.05 * width),
                shade=0.15)
        sketch.add(scaled(shoe, light), ellipse(foot[0] + 0.022, 0.972 + 0.4 * (foot[1] - 0.965), 0.052, 0.027))


def _torso(sketch: Sketch, rng: np.random.Generator, body: _Body, subtype: str) -> None:
    w, top, hip = body.width, body.shoulder, body.hip
    waist = w * rng.uniform(0.72, 0.95)
    sketch.add(scaled(body.skin, 0.85), box(-0.028, top - 0.04, 0.028, top + 0.03, 0.01))
    if subtype == "dress":
        hem, flare = rng.uniform(hip + 0.08, 0.86), rng.uniform(1.5, 2.3) * w
        skirt = smooth((-waist, hip - 0.09), (waist, hip - 0.09), (flare, hem), (0, hem + 0.02), (-flare, hem))
        sketch.add(body.top, skirt, polygon((-waist, hip - 0.09), (waist, hip - 0.09), (flare, hem), (-flare, hem)),
            shade=0.3)
    low = {"coat": rng.uniform(hip + 0.1, 0.8), "dress": hip - 0.06}.get(subtype, hip + 0.025)
    bottom = {"coat": 1.3 * w, "dress": waist}.get(subtype, 0.95 * w)
    outline = smooth((-0.6 * w, top), (0.6 * w, top), (w, top + 0.035), (waist, (top + hip) / 2 + 0.03), (bottom, low),
        (-bottom, low), (-waist, (top + hip) / 2 + 0.03), (-w, top + 0.035))
    torso = sketch.add(body.top, outline, shade=0.3)
    trim = mixed(body.top.accent or WHITE, WHITE, 0.3)
    if subtype == "coat":
        sketch.add(scaled(body.top.color, 0.75), box(-0.006, top, 0.006, low))
        for k in range(4):
            sketch.add(trim, ellipse(0.025, top + 0.06 + 0.065 * k, 0.009, 0.009))
        sketch.add(trim, polygon((-0.05, top), (0, top + 0.075), (0.05, top), (0.03, top - 0.01), (-0.03, top - 0.01)))
    elif subtype == "dress":
        sketch.add(trim, box(-w, hip - 0.115, w, hip - 0.09), clip=torso)
    elif chance(rng, 0.3):
        sketch.add(trim, star(0, (top + hip) / 2 - 0.02, 0.04))
    elif chance(rng, 0.4):
        sketch.add(scaled(body.skin, 0.95), ellipse(0, top, 0.03, 0.03), clip=torso)
    if subtype != "dress" and chance(rng, 0.2):  # a scarf
        color = pick(rng, FABRIC)
        sketch.add(color, box(-0.055, top - 0.025, 0.055, top + 0.02, 0.02), shade=0.2)
        sketch.add(scaled(color, 0.9), *limb([(0.03, top), (0.045, top + 0.12)], 0.04))


def _head(sketch: Sketch, rng: np.random.Generator, body: _Body) -> None:
    r, turn = body.head, body.turn
    wide = r * 0.88
    if turn < 0.4:
        sketch.add(scaled(body.skin, 0.92), ellipse(-wide, r * 1.1, 0.018, 0.024), ellipse(wide, r * 1.1, 0.018, 0.024))
    face = sketch.add(body.skin, ellipse(0, r, wide, r), shade=0.22, ball=True)
    x = turn * wide
    blush = mixed(body.skin, (226, 92, 84), 0.4)
    sketch.add(blush, ellipse(x - 0.5 * r, 1.3 * r, 0.2 * r, 0.13 * r),
        ellipse(x + 0.5 * r, 1.3 * r, 0.2 * r, 0.13 * r), clip=face)
    sketch.add(INK, ellipse(x - 0.32 * r, 1.02 * r, 0.1 * r, 0.13 * r),
        ellipse(x + 0.32 * r, 1.02 * r, 0.1 * r, 0.13 * r))
    sketch.add(scaled(body.skin, 0.82), ellipse(x + 0.12 * turn * r, 1.18 * r, 0.1 * r, 0.09 * r))
    mouth = smooth((x - 0.25 * r, 1.42 * r), (x, 1.53 * r), (x + 0.25 * r, 1.42 * r), closed=False, steps=4)
    if chance(rng, 0.18):  # a beard
        beard = smooth((-0.86 * r, 1.05 * r), (-0.5 * r, 1.32 * r), (x, 1.3 * r), (0.5 * r, 1.32 * r),
            (0.86 * r, 1.05 * r), (0.62 * r, 1.85 * r), (0, 2.15 * r), (-0.62 * r, 1.85 * r))
        sketch.add(body.hair, beard, shade=0.15)
    sketch.add(scaled(blush, 0.72), *limb(mouth, 0.09 * r))
    if chance(rng, 0.15):  # glasses
        for side in (-1, 1):
            ring = ellipse(x + side * 0.34 * r, 1.02 * r, 0.27 * r, 0.25 * r)
            sketch.add(INK, *limb(np.concatenate([ring[::2], ring[:1]]), 0.07 * r))


def _long_hair(sketch: Sketch, rng: np.random.Generator, body: _Body) -> None:
    r = body.head
    low = r * rng.uniform(2.0, 3.4)
    sketch.add(scaled(body.hair, 0.82), smooth((0, -0.06 * r), (0.98 * r, 0.5 * r), (1.05 * r, low), (0, low * 0.97),
        (-1.05 * r, low), (-0.98 * r, 0.5 * r)))


def _hair_and_hat(sketch: Sketch, rng: np.random.Generator, body: _Body, long_hair: bool) -> None:
    r, hair = body.head, body.hair
    style = choose(rng, ["short", "short", "parted", "bun", "curls"] if long_hair else ["short", "parted", "curls",
        "crop", "bald", "tuft"])
    if style == "bun":
        sketch.add(hair, ellipse(0, -0.25 * r, 0.38 * r, 0.36 * r), shade=0.25, ball=True)
    if style == "curls":
        curls = [ellipse(1.0 * r * np.cos(a), 0.82 * r + 0.95 * r * np.sin(a), 0.36 * r,
            0.36 * r) for a in np.linspace(-3.3, 0.16, 9)]
        sketch.add(hair, *curls, shade=0.2)
    elif style != "bald":
        _cap_of_hair(sketch, rng, body, style)
    if chance(rng, 0.33):
        _hat(sketch, rng, r)


def _cap_of_hair(sketch: Sketch, rng: np.random.Generator, body: _Body, style: str) -> None:
    r = body.head
    fringe = rng.uniform(0.55, 0.85) * r
    part = {"parted": -0.4, "crop": 0.0}.get(style, rng.uniform(-0.3, 0.3)) * r
    side = (0.75 if style == "crop" else 1.15) * r
    crown = [(-0.96 * r, 0.6 * r), (-0.62 * r, 0.0), (0, -0.12 * r), (0.62 * r, 0.0), (0.96 * r, 0.6 * r)]
    edge = [(0.7 * r, fringe), (part, fringe * 0.75), (-0.7 * r, fringe)]
    sketch.add(body.hair, smooth((-0.93 * r, side), *crown, (0.93 * r, side), *edge), shade=0.25)
    if style == "tuft":
        tuft = [(-0.3, 0.0), (-0.1, -0.4), (0.1, -0.15), (0.35, -0.35), (0.4, 0.1)]
        sketch.add(body.hair, smooth(*((x * r, y * r) for x, y in tuft)))


def _hat(sketch: Sketch, rng: np.random.Generator, r: float) -> None:
    color = pick(rng, FABRIC)
    band = scaled(color, 0.7)
    kind = choose(rng, ["beanie", "sunhat", "cap", "tall"])
    dome = smooth((-0.98 * r, 0.55 * r), (-0.8 * r, -0.05 * r), (0, -0.35 * r), (0.8 * r, -0.05 * r),
        (0.98 * r, 0.55 * r))
    if kind == "beanie":
        sketch.add(mixed(color, WHITE, 0.5), ellipse(0, -0.36 * r, 0.24 * r, 0.24 * r))
        sketch.add(Paint(color, WHITE, choose(rng, [None, "stripes"]), 0.4 * r, np.pi / 2), dome, shade=0.3)
        sketch.add(band, box(-1.02 * r, 0.3 * r, 1.02 * r, 0.62 * r, 0.12 * r))
    elif kind == "sunhat":
        sketch.add(color, ellipse(0, 0.42 * r, 1.65 * r, 0.3 * r), shade=0.2)
        sketch.add(color, dome, shade=0.3)
        sketch.add(band, box(-0.95 * r, 0.22 * r, 0.95 * r, 0.45 * r, 0.1 * r))
    elif kind == "cap":
        sketch.add(band, ellipse(0.75 * r, 0.5 * r, 0.85 * r, 0.16 * r))
        sketch.add(color, dome, shade=0.3)
    else:
        sketch.add(color, ellipse(0, 0.38 * r, 1.4 * r, 0.2 * r), box(-0.8 * r, -0.75 * r, 0.8 * r, 0.4 * r, 0.1 * r),
            shade=0.3)
        sketch.add(band, box(-0.8 * r, 0.05 * r, 0.8 * r, 0.28 * r))


def _backpack(sketch: Sketch, rng: np.random.Generator, body: _Body) -> None:
    w, top = body.width, body.shoulder
    sketch.add(pick(rng, FABRIC), box(-1.9 * w, top + 0.02, 0.9 * w, top + 0.22, 0.05), shade=0.3)
