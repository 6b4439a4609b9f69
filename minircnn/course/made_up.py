"""Detections that no detector made: copies of the ground truth, more or less wrong, for the notebook about metrics."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def make_up_detections(target: Mapping[str, Any], rng: np.random.RandomState, side: int = 128) -> dict[str, Tensor]:
    """What a mediocre detector might say about one image of Toy Town, with masks.

    Boxes are shifted, a tenth of the classes drawn at random, some objects found twice or not at all, and some boxes
    stand for nothing. ``rng`` draws everything: numpy promises that its numbers never change.
    """
    objects, labels, masks = target["boxes"].numpy(), target["labels"].numpy(), target["masks"]
    source = np.repeat(np.arange(len(objects)), rng.randint(0, 4, len(objects)))  # each object 0 to 3 times
    sides = np.tile(objects[source, 2:] - objects[source, :2], 2)
    spread = np.array([0.02, 0.06, 0.2])[rng.randint(0, 3, len(source))]
    found = objects[source] + spread[:, None] * sides * rng.normal(size=(len(source), 4))
    classes = np.where(rng.random_sample(len(source)) < 0.9, labels[source], _labels(rng, len(source)))
    scores = 0.9 - 2.5 * spread + rng.normal(0, 0.15, len(source))
    invented = rng.uniform(0, side, (rng.randint(0, 4), 4))
    boxes = np.concatenate([found, invented])
    boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    pixels = [torch.roll(masks[g], round(float(s * 20)), dims=1) for g, s in zip(source, spread, strict=True)]
    pixels += [_filled(box, side) for box in boxes[len(source) :]]
    return {
        "boxes": torch.from_numpy(boxes).float(),
        "labels": torch.from_numpy(np.concatenate([classes, _labels(rng, len(invented))])),
        "scores": torch.from_numpy(np.concatenate([scores, rng.uniform(0, 0.6, len(invented))]).clip(0, 1).round(2)),
        "masks": torch.stack(pixels) if pixels else torch.zeros(0, side, side, dtype=torch.bool),
    }


def _labels(rng: np.random.RandomState, count: int) -> np.ndarray:
    return rng.randint(1, 7, count, dtype=np.int64)


def _filled(box: np.ndarray, side: int) -> Tensor:
    """A box as a mask ``(side, side)``."""
    x1, y1, x2, y2 = box.clip(0, side).round().astype(int)
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[y1:y2, x1:x2] = True
    return mask
