"""Where the things of an image stand, and which of them can still be seen."""

from dataclasses import dataclass

import numpy as np

from minircnn.datasets.toytown import CLASSES, SUBTYPES
from workshop.toytown import balloon, car, cat, house, person, tree
from workshop.toytown.background import Backdrop
from workshop.toytown.distractors import sketch_distractor
from workshop.toytown.paint import chance, choose
from workshop.toytown.render import Light, Sprite, render
from workshop.toytown.sketch import Sketch

MIN_VISIBLE_SHARE = 0.35
"""An object must show at least this share of its pixels, counted with those outside the image …"""
MIN_VISIBLE_PIXELS = 40
"""… and at least this many of them in an image of 128 × 128; else it is taken out before anything is painted."""
SCALE = (20.0, 90.0)
"""Length of the longer side of a whole object in an image of 128 × 128."""
_BALLOON = CLASSES.index("balloon")
_SKETCHES = (None, person.sketch_person, car.sketch_car, cat.sketch_cat, tree.sketch_tree, house.sketch_house)
_SKETCHES += (balloon.sketch_balloon,)
_COUNT_ODDS = (0.1, 0.16, 0.22, 0.22, 0.17, 0.13)  # of 1 … 6 objects


@dataclass(frozen=True)
class Thing:
    """A sprite in its place."""

    sprite: Sprite  # what it looks like
    x: int  # column and row of the sprite's upper left corner; may lie outside the image
    y: int
    depth: float  # 0 is far, 1 is near; near things cover far ones
    label: int  # 1..6, or 0 for a thing of no class
    subtype: int  # index into `SUBTYPES`; -1 for a thing of no class
    grounded: bool  # stands on the ground, else it floats

    @property
    def full_area(self) -> int:
        """Pixels of the whole object, were nothing in front of it and the image large enough."""
        return int((self.sprite.alpha >= 0.5).sum())

    def mask(self, size: int) -> np.ndarray:
        """The pixels that belong to it in an image of (size, size), bool, as if it were alone."""
        mask = np.zeros((size, size), bool)
        window, part = self.overlap(size)
        mask[window] = self.sprite.alpha[part] >= 0.5
        return mask

    def overlap(self, size: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The part of the image that it lies on, and the part of its sprite that lies there."""
        return overlap(self.x, self.y, self.sprite.size, size)


def overlap(x: int, y: int, sprite: tuple[int, int], size: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a sprite of (height, width) at (x, y) meets an image of (size, size): (rows, columns) of each."""
    height, width = sprite
    top, bottom = min(max(y, 0), size), min(max(y + height, 0), size)
    left, right = min(max(x, 0), size), min(max(x + width, 0), size)
    return (slice(top, bottom), slice(left, right)), (slice(top - y, bottom - y), slice(left - x, right - x))


def sketch_object(rng: np.random.Generator, label: int) -> tuple[Sketch, int]:
    """One object of class `label` (1..6) and its sub-type, an index into `SUBTYPES`."""
    name = CLASSES[label]
    subtype = choose(rng, [one for one in SUBTYPES if one.startswith(f"{name}/")])
    return _SKETCHES[label](rng, subtype.split("/")[1]), SUBTYPES.index(subtype)


def arrange(rng: np.random.Generator, backdrop: Backdrop, size: int, light: Light) -> list[Thing]:
    """Place 1..6 objects and some things of no class; far things first. At least one object can be seen."""
    while True:
        count = 1 + int(np.searchsorted(np.cumsum(_COUNT_ODDS), rng.random() * sum(_COUNT_ODDS), side="right"))
        things: list[Thing] = []
        for _ in range(min(count, len(_COUNT_ODDS))):
            near = things[-1] if things and chance(rng, 0.5) else None
            things.append(_place_object(rng, backdrop, size, light, near))
        for _ in range(int(rng.integers(0, 4))):
            things.append(_place_distractor(rng, backdrop, size, light))
        things.sort(key=lambda thing: thing.depth)
        things = without_hidden(things, size)
        if any(thing.label for thing in things):
            return things


def _place_object(rng: np.random.Generator, backdrop: Backdrop, size: int, light: Light, near: Thing | None) -> Thing:
    """One object of a random class; beside `near`, if given, so that they are likely to overlap."""
    label = int(rng.integers(1, len(CLASSES)))
    depth = float(rng.beta(1.15, 1.15))
    low, high = (s * size / 128 for s in SCALE)
    longest = float(np.clip((low + (high - low) * depth) * rng.uniform(0.75, 1.3), low, high))
    sketch, subtype = sketch_object(rng, label)
    tilt = float(np.clip(rng.normal(0.0, 0.05 if label != _BALLOON else 0.1), -0.25, 0.25))
    sprite = render(sketch, longest, light, mirror=chance(rng, 0.5), tilt=tilt)
    height, width = sprite.size
    x = rng.uniform(-0.3 * width, size - 0.7 * width)
    if near is not None:
        aside = rng.choice([-1, 1]) * rng.uniform(0.25, 0.6) * (width + near.sprite.size[1]) / 2
        x = near.x + near.sprite.size[1] / 2 - width / 2 + aside
        x = float(np.clip(x, -0.35 * width, size - 0.65 * width))
    floats = label == _BALLOON and chance(rng, 0.8)
    y, grounded = _height(rng, backdrop, size, height, depth, floats)
    return Thing(sprite, round(x), y, depth, label, subtype, grounded)


def _height(
    rng: np.random.Generator, backdrop: Backdrop, size: int, height: int, depth: float, floats: bool
) -> tuple[int, bool]:
    """The row of a thing's upper edge, and whether it stands on the ground."""
    if backdrop.horizon is None:
        return round(rng.uniform(-0.25 * height, size - 0.75 * height)), False
    if floats:
        return round(rng.uniform(-0.2 * height, max(backdrop.horizon, 0.4 * size) - 0.5 * height)), False
    foot = backdrop.horizon + (size - backdrop.horizon) * (0.04 + 1.05 * depth)
    return round(foot + rng.uniform(-0.03, 0.03) * size - height), True


def _place_distractor(rng: np.random.Generator, backdrop: Backdrop, size: int, light: Light) -> Thing:
    # Few stand in front of everything: most of what hides an object should be another object.
    depth = float(rng.uniform(0.0, 0.75)) if chance(rng, 0.85) else float(rng.uniform(0.8, 1.0))
    longest = size * (0.1 + 0.22 * depth) * rng.uniform(0.8, 1.3)
    sketch, floats = sketch_distractor(rng)
    sprite = render(sketch, longest, light, chance(rng, 0.5), float(rng.normal(0, 0.12)))
    height, width = sprite.size
    x = round(rng.uniform(-0.4 * width, size - 0.6 * width))
    y, grounded = _height(rng, backdrop, size, height, depth, floats)
    return Thing(sprite, x, y, depth, 0, -1, grounded)


def visible_masks(things: list[Thing], size: int) -> list[np.ndarray]:
    """The visible pixels of each thing, each (size, size) bool; `things` are sorted from far to near."""
    masks = []
    hidden = np.zeros((size, size), bool)
    for thing in reversed(things):
        mask = thing.mask(size)
        masks.append(mask & ~hidden)
        hidden |= mask
    return masks[::-1]


def without_hidden(things: list[Thing], size: int) -> list[Thing]:
    """Take out the object that can be seen least, until each that is left can be seen well enough to be asked for.

    One at a time, for with each that goes, more is seen of those behind it. What is taken out is never painted: no
    image holds an object that its annotations do not name.
    """
    least_pixels = MIN_VISIBLE_PIXELS * (size / 128) ** 2
    while True:
        masks = visible_masks(things, size)
        worst, worst_score = None, 1.0
        for i, (thing, mask) in enumerate(zip(things, masks, strict=True)):
            if thing.label:
                seen = int(mask.sum())
                score = min(seen / max(1, thing.full_area) / MIN_VISIBLE_SHARE, seen / least_pixels)
                if score < worst_score:
                    worst, worst_score = i, score
        if worst is None:
            return things
        things = things[:worst] + things[worst + 1 :]
