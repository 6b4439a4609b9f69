"""How time and memory grow with the work: regions, boxes, the side of an image, images of a batch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
import torch
from torch import Tensor

from minircnn.boxes import batched_nms, box_iou, match, nms
from minircnn.course.compare import limit_threads, peak_memory
from minircnn.faster_rcnn import load_faster_rcnn
from minircnn.mask_rcnn import load_mask_rcnn
from minircnn.pooling import roi_align, roi_pool
from workshop.benchmarks.operations import random_boxes, seeded
from workshop.benchmarks.timing import seconds

REGIONS, BOXES = (8, 100, 1_000, 10_000, 100_000), (100, 1_000, 10_000, 100_000, 200_000)
SIDES, IMAGES = (128, 500, 1_000, 2_000, 4_000), (1, 2, 4, 8, 16)
# Memory is read from a profile, which has an entry for each operation; of calls of more seconds it would be too large.
LONG = 6
SPACING = 60  # pixels between boxes of 50 that do not overlap: none goes, the worst case of NMS


@dataclass(frozen=True)
class Growth:
    """Time and memory of an operation for more and more work."""

    name: str
    what: str  # is counted
    most: float  # the exponent of its work: 1 grows like the count, 2 like its square
    counts: list[int]
    ms: list[float]
    mb: list[float]  # the most that torch holds at a time beyond what is given, of the first counts, up to LONG

    @property
    def exponents(self) -> tuple[float, float]:
        """Of time and of memory, fitted to the counts from the middle on: before, calling costs more than computing."""
        return slope(self.counts, self.ms), slope(self.counts[: len(self.mb)], self.mb)


def slope(counts: Sequence[float], values: Sequence[float]) -> float:
    """The exponent of growth, by least squares on logarithms from the middle count on; 0 where nothing was held.

    >>> slope([1, 10, 100, 1000, 10000], [9, 9, 1, 100, 10000])
    2.0
    """
    few = len(counts) // 2
    if min(values[few:]) <= 0:
        return 0.0
    return round(float(np.polyfit(np.log(counts[few:]), np.log(values[few:]), 1)[0]), 2)


def grow() -> Iterator[Growth]:
    """Measure everything, on one thread, the median of five calls where they take less than a second."""
    with limit_threads(1):
        for name, what, most, counts, prepare in operations():
            prepare(counts[0])()
            ms, mb = [], []
            for count in counts:
                call = prepare(count)
                took = [seconds(call)]
                took += [seconds(call) for _ in range(4 if took[0] < 1 else 0)]
                ms.append(1000 * median(took))
                if ms[-1] < 1000 * LONG:
                    mb.append(peak_memory(call) / 1e6)
            yield Growth(name, what, most, list(counts), ms, mb)


def operations() -> Iterator[tuple[str, str, float, Sequence[int], Callable[[int], Callable[[], object]]]]:
    """What is measured: its name, what is counted, the exponent of its work, counts, and what prepares a call."""
    features = torch.randn(1, 16, 38, 50, generator=seeded(0)).relu()
    for pool, *rest in ((roi_pool,), (roi_align, 2, True)):
        for backward in (False, True):
            prepare = partial(_pool, pool, features, rest, backward)
            yield f"{pool.__name__}{' + gradient' if backward else ''}, 16 channels", "regions", 1, REGIONS, prepare
    objects = random_boxes(20)
    yield "box_iou and match with 20 objects", "boxes", 1, BOXES, partial(_match, objects)
    yield "nms, none goes", "boxes", 2, BOXES, _nms
    yield "batched_nms, a group for 100 boxes", "boxes", 1, BOXES, _batched_nms
    faster, mask = load_faster_rcnn().eval(), load_mask_rcnn().eval()
    yield "Mask R-CNN, resized by its transform", "pixels of a side", 2, SIDES, lambda side: _detect(mask, 1, side)
    yield "Faster R-CNN", "images", 1, IMAGES, lambda count: _detect(faster, count, 128)
    yield "Mask R-CNN, losses and gradients", "images", 1, IMAGES, lambda count: _learn(mask, count)


def _pool(
    pool: Callable[..., Tensor], features: Tensor, rest: Sequence[float], backward: bool, count: int
) -> Callable[[], object]:
    boxes = random_boxes(count, 1)
    rois = torch.cat([boxes.new_zeros(count, 1), boxes], dim=1)

    def run() -> None:
        leaf = features.clone().requires_grad_(backward)
        pooled = pool(leaf, rois, 7, 1 / 16, *rest)
        if backward:
            pooled.sum().backward()

    return run


def _match(objects: Tensor, count: int) -> Callable[[], object]:
    boxes = random_boxes(count, 1)
    return lambda: match(box_iou(objects, boxes), 0.7, 0.3, allow_low_quality_matches=True)


def _nms(count: int) -> Callable[[], object]:
    number = torch.arange(count)
    corner = torch.stack([number % 500, number // 500], dim=1) * float(SPACING)
    return partial(nms, torch.cat([corner, corner + 50], dim=1), torch.rand(count, generator=seeded(2)), 0.5)


def _batched_nms(count: int) -> Callable[[], object]:
    scores = torch.rand(count, generator=seeded(2))
    return partial(batched_nms, random_boxes(count), scores, torch.arange(count) % (count // 100), 0.5)


def _detect(model: torch.nn.Module, count: int, side: int) -> Callable[[], object]:
    images = list(torch.rand(count, 3, side, side, generator=seeded(0)))
    return partial(model.eval().detect, images)


def _learn(model: torch.nn.Module, count: int) -> Callable[[], object]:
    images, boxes = list(torch.rand(count, 3, 128, 128, generator=seeded(0))), random_boxes(4) / 10
    target = {"boxes": boxes.clamp(0, 120), "labels": torch.ones(4, dtype=torch.int64)}
    target["masks"] = torch.ones(4, 128, 128, dtype=torch.bool)
    target["boxes"][:, 2:] += 5
    return lambda: sum(model.train().losses(images, [target] * count).values()).backward()
