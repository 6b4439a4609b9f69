"""Boxes and matching against torchvision, at the sizes at which the detectors of this course call them."""

import torch
from torch import Tensor
from torchvision import ops
from torchvision.models.detection._utils import BoxCoder, Matcher

from minircnn.benchmarks.timing import Case
from minircnn.boxes import batched_nms, box_iou, decode_boxes, encode_boxes, nms
from minircnn.matching import match

OBJECTS, ANCHORS = 20, 10_000  # nine anchors in each of 33 × 33 cells, a square picture of 528 pixels at stride 16


def random_boxes(count: int, seed: int = 0) -> Tensor:
    """``(count, 4)`` boxes of sides from 20 to 240 pixels in a picture of 600 × 1000."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([1000.0, 600.0])
    half = torch.exp(torch.rand(count, 2, generator=generator) * 2.5) * 10
    return torch.cat([centre - half, centre + half], dim=1)


def cases() -> list[Case]:
    """Every operation of ``boxes.py`` and ``matching.py`` that has a counterpart in torchvision."""
    return [
        _iou(),
        _match(),
        _encode(),
        _decode(),
        *map(_nms, (200, 2000, 6000)),
        *map(_batched_nms, (200, 2000, 6000)),
    ]


def _iou() -> Case:
    objects, anchors = random_boxes(OBJECTS), random_boxes(ANCHORS, 1)
    return Case(
        f"box_iou, {OBJECTS} × {ANCHORS}",
        "torchvision",
        lambda: box_iou(objects, anchors),
        lambda: ops.box_iou(objects, anchors),
        torch.equal,
    )


def _match() -> Case:
    iou = box_iou(random_boxes(OBJECTS), random_boxes(ANCHORS, 1))
    matcher = Matcher(0.7, 0.3, allow_low_quality_matches=True)

    def agree(ours: tuple[Tensor, Tensor], theirs: Tensor) -> bool:
        gt_index, label = ours
        return torch.equal(torch.where(label == 1, gt_index, torch.where(label == 0, -1, -2)), theirs)

    return Case(
        f"match, {OBJECTS} × {ANCHORS}",
        "torchvision",
        lambda: match(iou, 0.7, 0.3, allow_low_quality_matches=True),
        lambda: matcher(iou),
        agree,
    )


def _encode() -> Case:
    src, dst, coder = random_boxes(ANCHORS), random_boxes(ANCHORS, 1), BoxCoder((1.0, 1.0, 1.0, 1.0))
    return Case(
        f"encode_boxes, {ANCHORS}",
        "torchvision",
        lambda: encode_boxes(src, dst),
        lambda: coder.encode([dst], [src])[0],
        lambda ours, theirs: torch.allclose(ours, theirs, atol=1e-6),
    )


def _decode() -> Case:
    src, coder = random_boxes(ANCHORS), BoxCoder((1.0, 1.0, 1.0, 1.0))
    deltas = encode_boxes(src, random_boxes(ANCHORS, 1))
    return Case(
        f"decode_boxes, {ANCHORS}",
        "torchvision",
        lambda: decode_boxes(src, deltas),
        lambda: coder.decode(deltas, [src])[:, 0],
        lambda ours, theirs: torch.allclose(ours, theirs, atol=1e-3),
    )


def _nms(count: int) -> Case:
    boxes, scores = random_boxes(count), torch.rand(count, generator=torch.Generator().manual_seed(2))
    return Case(
        f"nms, {count} boxes",
        "torchvision",
        lambda: nms(boxes, scores, 0.5),
        lambda: ops.nms(boxes, scores, 0.5),
        torch.equal,
    )


def _batched_nms(count: int) -> Case:
    generator = torch.Generator().manual_seed(2)
    boxes = random_boxes(count).round()  # whole pixels, where torchvision's offsets between groups are exact
    scores = torch.randperm(count, generator=generator) / count  # no ties: torchvision's order of those is not fixed
    groups = torch.randint(0, 20, (count,), generator=generator)
    return Case(
        f"batched_nms, {count} boxes, 20 groups",
        "torchvision",
        lambda: batched_nms(boxes, scores, groups, 0.5),
        lambda: ops.batched_nms(boxes, scores, groups, 0.5),
        torch.equal,
    )
