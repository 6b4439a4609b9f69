"""Images of one object, centered and well framed: what a classifier is trained on, and data/one_object."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from minircnn.course.one_object import SIDE
from minircnn.datasets.toytown import CLASSES
from minircnn.files import sha256, write_atomically
from workshop.toytown.background import paint_backdrop
from workshop.toytown.build import encoded
from workshop.toytown.distractors import sketch_distractor
from workshop.toytown.layout import Thing, sketch_object
from workshop.toytown.paint import chance
from workshop.toytown.photographs import TRAIN_PHOTOGRAPHS, VAL_PHOTOGRAPHS
from workshop.toytown.render import Light, render
from workshop.toytown.scene import SIZE, compose

FRAME = (0.6, 0.9)
"""The longer side of the object as a share of the image's."""
FIRST_SEED = {"train": 10_000_000, "val": 20_000_000}
SHEETS = {  # file and encoding: 64 is a multiple of 8, so no tile of the JPEG depends on another; val is lossless
    "train": (2000, "train.jpg", {"format": "JPEG", "quality": 88, "subsampling": 0, "optimize": True}),
    "val": (500, "val.webp", {"format": "WEBP", "lossless": True, "quality": 100, "method": 6}),
}
CAT = 12
"""The seed of cat.png, 128 x 128."""


def paint_single(
    seed: int, size: int = SIZE, photographs: Sequence[str] = TRAIN_PHOTOGRAPHS
) -> tuple[np.ndarray, int, int]:
    """The one-object image of a seed: (size, size, 3) uint8, label 1..6, sub-type (an index into `SUBTYPES`)."""
    thing, image = paint_framed(np.random.default_rng(seed), size, photographs)
    return image, thing.label, thing.subtype


def paint_framed(rng: np.random.Generator, size: int, photographs: Sequence[str]) -> tuple[Thing, np.ndarray]:
    """The object in its place, and the finished image."""
    light = Light.random(rng)
    backdrop = paint_backdrop(rng, size, light, photographs)
    things = []
    if chance(rng, 0.4):
        sprite = render(sketch_distractor(rng)[0], size * rng.uniform(0.15, 0.35), light, chance(rng, 0.5))
        side = rng.choice([-0.1, 0.85]) * size  # beside the object, partly outside the image
        x, y = round(side - sprite.size[1] / 3), int(rng.integers(0, size // 2))
        things.append(Thing(sprite, x, y, 0.5, 0, -1, False))
    label = int(rng.integers(1, len(CLASSES)))
    sketch, subtype = sketch_object(rng, label)
    longest, mirror = size * rng.uniform(*FRAME), chance(rng, 0.5)
    sprite = render(sketch, longest, light, mirror, float(np.clip(rng.normal(0, 0.08), -0.25, 0.25)))
    height, width = sprite.size
    x = round((size - width) / 2 + rng.uniform(-0.04, 0.04) * size)
    y = round((size - height) / 2 + rng.uniform(-0.04, 0.04) * size)
    grounded = backdrop.horizon is not None and CLASSES[label] != "balloon" and y + height > backdrop.horizon
    things.append(Thing(sprite, x, y, 1.0, label, subtype, grounded))
    return things[-1], compose(rng, backdrop, things, light)


def paint_many(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Paint the first images of a split, "train" or "val"; they share no seed.

    Returns:
        (N, 64, 64, 3) uint8 and (N,) int64 sub-types.
    """
    photographs = VAL_PHOTOGRAPHS if split == "val" else TRAIN_PHOTOGRAPHS
    seeds = range(FIRST_SEED[split], FIRST_SEED[split] + count)
    painted = Parallel(n_jobs=-1 if count > 500 else 1, batch_size=50)(
        delayed(paint_single)(seed, SIDE, photographs) for seed in seeds
    )
    images, _, subtypes = zip(*painted, strict=True)
    return np.stack(images), np.array(subtypes, np.int64)


def build_one_object(folder: Path) -> None:
    """Write a sheet for each split, 50 images a row, about.json with their sub-types, and the cat of notebook 00."""
    about: dict[str, object] = {"command": "python -m workshop.toytown --one-object", "side": SIDE}
    for split, (count, file, options) in SHEETS.items():
        images, subtypes = paint_many(split, count)
        tiles = images.reshape(-1, 50, SIDE, SIDE, 3).transpose(0, 2, 1, 3, 4)
        write_atomically(folder / file, encoded(tiles.reshape(-1, 50 * SIDE, 3), **options))
        about[split] = {"file": file, "sha256": sha256(folder / file), "first_seed": FIRST_SEED[split]}
        about[split] |= {"subtypes": subtypes.tolist()}
    write_atomically(folder / "cat.png", encoded(paint_single(CAT)[0], format="PNG", optimize=True))
    write_atomically(folder / "about.json", json.dumps(about).encode() + b"\n")
