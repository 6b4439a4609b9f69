"""Our average precision against pycocotools': the same random detections, the same numbers, and the time.

The random detections here are meant to be hard for an evaluator rather than like a detector's: shifted copies of the
objects, duplicates, wrong labels, boxes out of nowhere, equal scores, more of a class than protocols count.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle
from torchvision.ops import masks_to_boxes

from minircnn.course.compare import encode_masks, for_pycocotools, largest_difference, run_pycocotools
from minircnn.evaluation import evaluate
from workshop.benchmarks.timing import Case


def random_targets(
    num_images: int, size: tuple[int, int], num_classes: int, seed: int = 0, crowd_fraction: float = 0.0
) -> list[dict[str, Any]]:
    """Made-up objects: ellipses of all sizes, none to eight in an image.

    Args:
        num_images: how many targets.
        size: ``(height, width)`` of the images.
        num_classes: labels run from 1 to this.
        seed: of the random numbers.
        crowd_fraction: the share of objects that are crowd regions, in [0, 1].

    Returns:
        Targets as of a data set, with masks.
    """
    rng, (height, width) = np.random.default_rng(seed), size
    y, x = np.mgrid[:height, :width] + 0.5
    targets = []
    for image_id in range(num_images):
        masks = np.zeros((int(rng.integers(0, 9)), height, width), dtype=bool)
        for mask in masks:
            center, radius = rng.random(2) * size, np.exp(rng.uniform(np.log(3), np.log(min(size) / 2), 2))
            mask |= ((y - center[0]) / radius[0]) ** 2 + ((x - center[1]) / radius[1]) ** 2 < 1
        masks = masks[masks.any(axis=(1, 2))]
        targets.append(
            {
                "boxes": masks_to_boxes(torch.from_numpy(masks)) + torch.tensor([0.0, 0.0, 1.0, 1.0]),
                "labels": torch.from_numpy(rng.integers(1, num_classes + 1, len(masks))),
                "masks": torch.from_numpy(masks),
                "image_id": image_id,
                "iscrowd": torch.from_numpy(rng.random(len(masks)) < crowd_fraction),
                "area": torch.from_numpy(masks.sum(axis=(1, 2)).astype(np.float32)),
            }
        )
    return targets


def random_detections(
    targets: Sequence[Mapping[str, Any]], num_classes: int, seed: int = 0, noise: int = 6, masks: bool = True
) -> list[dict[str, Any]]:
    """Detections that are now and then right.

    Args:
        targets: what there is to find; with ``"masks"`` ``(G, H, W)`` if masks are wanted.
        num_classes: labels run from 1 to this.
        seed: of the random numbers.
        noise: boxes without an object, in each image on average.
        masks: whether to make masks: those of the objects, shifted, or whole boxes. They come run-length encoded.

    Returns:
        One dict for each image: ``boxes`` float32, ``labels``, ``scores`` in steps of a fiftieth, perhaps ``masks``.
    """
    rng = np.random.default_rng(seed)
    return [_random_detections_of(target, num_classes, rng, noise, masks) for target in targets]


def _random_detections_of(
    target: Mapping[str, Any], num_classes: int, rng: np.random.Generator, noise: int, with_masks: bool
) -> dict[str, Any]:
    objects, labels = target["boxes"].double().numpy(), target["labels"].numpy()
    # Each object is found 0 to 3 times, more or less well, and sometimes as something else.
    source = np.repeat(np.arange(len(objects)), rng.integers(0, 4, len(objects)))  # (N,)
    sides = np.tile(objects[source, 2:] - objects[source, :2], 2)
    spread = rng.choice([0.0, 0.02, 0.1, 0.3], (len(source), 1))
    boxes = objects[source] + spread * sides * rng.normal(size=(len(source), 4))
    found = np.where(rng.random(len(source)) < 0.85, labels[source], rng.integers(1, num_classes + 1, len(source)))
    # One image in ten holds more boxes of one class than the protocol counts.
    many = 120 if rng.random() < 0.1 else 0
    extra = int(rng.integers(0, 2 * noise + 1)) + many
    reach = np.tile(objects[:, 2:].max(axis=0, initial=32.0), 2)
    boxes = np.concatenate([boxes, rng.random((extra, 4)) * reach])
    extra_labels = rng.integers(1, num_classes + 1, extra)
    extra_labels[:many] = 1
    boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    detections = {
        "boxes": torch.from_numpy(boxes.astype(np.float32)),
        "labels": torch.from_numpy(np.concatenate([found, extra_labels]).astype(np.int64)),
        "scores": torch.from_numpy((rng.integers(0, 51, len(boxes)) / 50).astype(np.float32)),
    }
    if with_masks:
        detections["masks"] = _random_masks(target["masks"].numpy(), source, boxes, spread.reshape(-1))
    return detections


def _random_masks(objects: np.ndarray, source: np.ndarray, boxes: np.ndarray, spread: np.ndarray) -> list[dict]:
    """The mask of its object, shifted with the spread of the box; for boxes without an object the whole box."""
    height, width = objects.shape[1:]
    encoded = []
    for n, (x1, y1, x2, y2) in enumerate(boxes.clip(min=0).round().astype(int)):
        if n < len(source):
            shift = round(float(spread[n]) * (x2 - x1) / 2)
            mask = np.roll(objects[source[n]], shift, axis=1)
        else:
            mask = np.zeros((height, width), dtype=bool)
            mask[y1:y2, x1:x2] = True
        encoded.append(rle.encode(np.asfortranarray(mask, dtype=np.uint8)))
    return encoded


def cases() -> list[Case]:
    """Boxes and masks, over a set as large as Toy Town's and over one with COCO's sizes and classes.

    pycocotools starts from its own index, already built, and masks are run-length encoded for both; reading and
    checking the lists is part of our time.
    """
    toy = random_targets(200, (128, 128), num_classes=6, seed=0, crowd_fraction=0.05)
    photographs = random_targets(100, (480, 640), num_classes=80, seed=1, crowd_fraction=0.05)
    return [
        _case(f"AP of {kind}, {len(targets)} images, {num_classes} classes", targets, kind, num_classes)
        for targets, num_classes in ((toy, 6), (photographs, 80))
        for kind in ("boxes", "masks")
    ]


def _case(name: str, targets: list[dict[str, Any]], kind: str, num_classes: int) -> Case:
    detections = random_detections(targets, num_classes, seed=2, masks=kind == "masks")
    targets = encode_masks(targets)
    truth, results = for_pycocotools(detections, targets, kind, num_classes)
    classes = ["background", *(f"class {label}" for label in range(1, num_classes + 1))]
    return Case(
        name=name,
        reference="pycocotools",
        ours=lambda: evaluate(detections, targets, kind=kind, classes=classes),
        theirs=lambda: run_pycocotools(truth, results, kind),
        check=lambda ours, theirs: largest_difference(ours, theirs) <= 1e-9,
    )
