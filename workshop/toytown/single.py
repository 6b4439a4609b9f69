"""Pictures of one object, centred and well framed: what a classifier is trained on."""

from collections.abc import Sequence

import numpy as np

from minircnn.datasets.toytown import CLASSES
from workshop.toytown.backdrop import paint_backdrop
from workshop.toytown.distractors import sketch_distractor
from workshop.toytown.layout import Thing
from workshop.toytown.objects import sketch_object
from workshop.toytown.palette import chance
from workshop.toytown.photographs import TRAIN_PHOTOGRAPHS
from workshop.toytown.render import Light, render
from workshop.toytown.scene import SIZE, check_request, compose

FRAME = (0.6, 0.9)
"""The longer side of the object as a share of the picture's."""


def paint_single(
    seed: int, size: int = SIZE, photographs: Sequence[str] = TRAIN_PHOTOGRAPHS
) -> tuple[np.ndarray, int, int]:
    """Paint the one-object picture that belongs to a seed.

    Args:
        seed: a whole number from 0; the same seed gives the same picture.
        size: side of the picture in pixels, 32 to 1024.
        photographs: names of the photographs that may serve as background.

    Returns:
        image (size, size, 3) uint8, label 1..6, sub-type (an index into `SUBTYPES`).

    Raises:
        ValueError: if the size or the name of a photograph is not one of those.
    """
    check_request(seed, size, photographs)
    thing, image = paint_framed(np.random.default_rng(seed), size, photographs)
    return image, thing.label, thing.subtype


def paint_framed(rng: np.random.Generator, size: int, photographs: Sequence[str]) -> tuple[Thing, np.ndarray]:
    """The object in its place, and the finished picture."""
    light = Light.random(rng)
    backdrop = paint_backdrop(rng, size, light, photographs)
    things = []
    if chance(rng, 0.4):
        sprite = render(sketch_distractor(rng)[0], size * rng.uniform(0.15, 0.35), light, chance(rng, 0.5))
        side = rng.choice([-0.1, 0.85]) * size  # beside the object, partly outside the picture
        things.append(
            Thing(sprite, round(side - sprite.size[1] / 3), int(rng.integers(0, size // 2)), 0.5, 0, -1, False)
        )
    label = int(rng.integers(1, len(CLASSES)))
    sketch, subtype = sketch_object(rng, label)
    sprite = render(
        sketch, size * rng.uniform(*FRAME), light, chance(rng, 0.5), float(np.clip(rng.normal(0, 0.08), -0.25, 0.25))
    )
    height, width = sprite.size
    x = round((size - width) / 2 + rng.uniform(-0.04, 0.04) * size)
    y = round((size - height) / 2 + rng.uniform(-0.04, 0.04) * size)
    grounded = backdrop.horizon is not None and CLASSES[label] != "balloon" and y + height > backdrop.horizon
    things.append(Thing(sprite, x, y, 1.0, label, subtype, grounded))
    return things[-1], compose(rng, backdrop, things, light)
