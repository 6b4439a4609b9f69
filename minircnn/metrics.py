"""What detections are measured by: overlap, who found which object, precision and recall, average precision.

Going down the ranked list of all detections of a class, recall (true positives / all objects) can only grow, while
precision (true positives / all detections so far) goes up and down. The protocols read this curve at different places:

* VOC2007: the mean of the interpolated precision at 11 recalls, 0, 0.1 … 1 (Everingham et al. 2010, section 4.2);
* VOC2010 and later: the whole area under the interpolated curve (devkit of 2010, section 3.4.1);
* COCO: the mean at 101 recalls, 0, 0.01 … 1 (Lin et al. 2014; pycocotools).

"Interpolated" means: the best precision at this recall or any higher one.

Shape letters: D detections, G objects, T IoU thresholds, R recall points, A ranges of area, P proposals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor

from minircnn.boxes import box_iou
from minircnn.targets import check_target, single_objects

UNMATCHED = -1
# Dividing whole numbers gives the same float as found / objects does, so that a recall of 3 / 10 reaches 0.3.
# Paper vs code: Girshick's voc_eval.py counts 0.1 up and gets 0.30000000000000004, which 3 / 10 does not reach.
RECALLS_VOC2007 = np.arange(11) / 10
# That slip is part of COCO's protocol: pycocotools has these very numbers, some a hair above their two decimals.
RECALLS_COCO = np.linspace(0.0, 1.0, 101)


def overlaps(detections: np.ndarray, targets: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Intersection over union, or for a crowd region the share of the detection that lies inside it.

    A crowd region ("some sheep") is larger than any of its members, so IoU would punish a correct detection.
    Detections ``(D, 4)`` and targets ``(G, 4)`` are boxes, or ``(D,)`` and ``(G,)`` run-length encoded masks; ``crowd``
    is ``(G,)`` bool. The result is ``(D, G)`` float64 in [0, 1]; 0 where neither has an area.

    >>> boxes = np.array([[0.0, 0.0, 10.0, 10.0]]), np.array([[0.0, 0.0, 20.0, 10.0]])
    >>> overlaps(*boxes, np.array([False])).item(), overlaps(*boxes, np.array([True])).item()
    (0.5, 1.0)
    """
    if not len(detections) or not len(targets):
        return np.zeros((len(detections), len(targets)))
    if not isinstance(detections, np.ndarray) or detections.dtype == object:
        return rle.iou(list(detections), list(targets), crowd.astype(np.uint8).tolist())
    # Not minircnn.boxes.box_iou: for the few boxes of a class in an image torch's calls alone take longer than this.
    left_top = np.maximum(detections[:, None, :2], targets[:, :2])  # (D, G, 2)
    right_bottom = np.minimum(detections[:, None, 2:], targets[:, 2:])
    shared = (right_bottom - left_top).clip(min=0).prod(axis=-1)  # (D, G)
    area, area_targets = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (detections, targets))
    together = np.where(crowd, area[:, None], area[:, None] + area_targets - shared)
    return np.divide(shared, together, out=np.zeros_like(shared), where=together > 0)


def match_coco(iou: np.ndarray, thresholds: np.ndarray, ignored: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """COCO's matching in one image and class (Lin et al. 2014; the rules are pycocotools').

    Detections choose in order. Each takes the free object that it overlaps most, if by the threshold. Objects that
    count come first; an ignored one is taken only if no other will do. A crowd region can be taken again and again.

    Args:
        iou: ``(D, G)``, detections best first.
        thresholds: ``(T,)`` in (0, 1].
        ignored: ``(A, G)`` bool; which objects do not count in each range of areas.
        crowd: ``(G,)`` bool.

    Returns ``(A, T, D)`` int64: the object that each detection found, or -1.

    Paper vs code, as in pycocotools: an IoU equal to the threshold is enough, and a threshold of 1 is lowered by 1e-10;
    of objects that a detection overlaps equally it takes the *last*.

    >>> iou = np.array([[0.9, 0.6], [0.8, 0.7]])  # both prefer the first object
    >>> match_coco(iou, np.array([0.5]), np.zeros((1, 2), bool), np.zeros(2, bool)).tolist()
    [[[0, 1]]]
    """
    (num_detections, num_objects), num_areas = iou.shape, len(ignored)
    match = np.full((num_areas, len(thresholds), num_detections), UNMATCHED)
    taken = np.zeros((num_areas, len(thresholds), num_objects), dtype=bool)
    counts = ~ignored[:, None]  # (A, 1, G)
    floor = np.minimum(thresholds, 1 - 1e-10)[:, None]  # (T, 1)
    # Most detections touch no object well enough at any threshold, and stay unmatched without a look.
    for d in np.flatnonzero(iou.max(axis=1, initial=0.0) >= floor.min()):
        free = (iou[d] >= floor) & ~taken  # (A, T, G)
        first_choice = free & counts
        choice = np.where(first_choice.any(axis=-1, keepdims=True), first_choice, free)  # (A, T, G)
        overlap = np.where(choice, iou[d], -1.0)[..., ::-1]
        best = num_objects - 1 - overlap.argmax(axis=-1)  # (A, T): argmax gives the first, reversed the last
        found = choice.any(axis=-1)  # (A, T)
        match[..., d] = np.where(found, best, UNMATCHED)
        area, threshold = np.nonzero(found & ~crowd[best])
        taken[area, threshold, best[area, threshold]] = True
    return match


def match_voc(iou: np.ndarray, thresholds: np.ndarray, ignored: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """PASCAL VOC's matching in one image and class (Everingham et al. 2010, section 4.2; devkit VOCevaldet.m).

    Detections choose in order. Each looks only at the object that it overlaps most. If that one counts and has already
    been found, the detection is a duplicate, a false positive (COCO would let it look for another object). Ignored
    ("difficult") objects are never used up. Arguments and result are those of :func:`match_coco`; ``crowd`` is unused:
    VOC has no crowd regions.

    Paper vs code: the paper asks for an overlap that *exceeds* 50%; the devkit accepts exactly 50%, and so do we
    (Girshick's voc_eval.py does not). The devkit counts pixels, ``x2 - x1 + 1``: add 1 to ``x2`` and ``y2`` of its
    whole-numbered boxes and our half-open ones give the same IoU.

    >>> iou = np.array([[0.9, 0.6], [0.8, 0.7]])  # both prefer the first object
    >>> match_voc(iou, np.array([0.5]), np.zeros((1, 2), bool), np.zeros(2, bool)).tolist()
    [[[0, -1]]]
    """
    num_detections, num_objects = iou.shape
    match = np.full((len(ignored), len(thresholds), num_detections), UNMATCHED)
    if not num_objects:
        return match
    best = iou.argmax(axis=1)  # (D,): of equals the first
    over = iou[np.arange(num_detections), best] >= thresholds[:, None]  # (T, D)
    for g in np.unique(best):
        chose = over & (best == g)  # (T, D)
        first = chose & (chose.cumsum(axis=1) == 1)
        # An ignored object is never used up, so that no detection of it is a duplicate.
        match[np.where(ignored[:, g, None, None], chose, first)] = g  # (A, T, D)
    return match


@dataclass(frozen=True, eq=False)
class Protocol:
    """What COCO and the two versions of PASCAL VOC disagree about.

    VOC ignores difficult objects, and crowd regions, which it does not know, as if they were difficult. COCO looks at
    crowds alone, and forgives any number of detections in one.
    """

    iou_thresholds: np.ndarray  # (T,) in (0, 1]; averages are taken over them
    area_ranges: tuple[tuple[float, float], ...]  # A pairs of square pixels, both ends included; the first is "all"
    limits: tuple[int, ...]  # how many detections of a class count in one image, M budgets, ascending
    recall_points: np.ndarray  # (R,) where the curve is read
    takes_area: bool  # average the area under the curve, not its values at the recall points
    of_voc: bool


PROTOCOLS = {
    "coco": Protocol(
        iou_thresholds=np.linspace(0.5, 0.95, 10),
        area_ranges=((0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)),
        limits=(1, 10, 100),
        recall_points=RECALLS_COCO,
        takes_area=False,
        of_voc=False,
    ),
    "voc2007": Protocol(np.array([0.5]), ((0, np.inf),), (2**31 - 1,), RECALLS_VOC2007, takes_area=False, of_voc=True),
    "voc2010": Protocol(np.array([0.5]), ((0, np.inf),), (2**31 - 1,), RECALLS_COCO, takes_area=True, of_voc=True),
}


def precision_recall(tp: np.ndarray, fp: np.ndarray, num_objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall after each detection of a ranked list, best first: each ``(…, D)`` float64 in [0, 1].

    True and false positives are ``(…, D)`` bool; a detection that is neither is ignored, and precision is 0 until one
    counts. ``num_objects``, at least 1, were to be found.

    >>> precision, recall = precision_recall(np.array([1, 0, 1]), np.array([0, 1, 0]), num_objects=4)
    >>> precision.round(2).tolist(), recall.tolist()
    ([1.0, 0.5, 0.67], [0.25, 0.25, 0.5])
    """
    found = np.cumsum(tp, axis=-1)  # (…, D)
    counted = found + np.cumsum(fp, axis=-1)
    return found / np.maximum(counted, 1), found / num_objects


def interpolate(precision: np.ndarray) -> np.ndarray:
    """The interpolated precision: at each recall the best precision there or further right, ``(…, D)``.

    >>> interpolate(np.array([1.0, 0.5, 0.67, 0.4])).tolist()
    [1.0, 0.67, 0.67, 0.4]
    """
    return np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]


def read_curve(values: np.ndarray, recall: np.ndarray, recall_points: np.ndarray) -> np.ndarray:
    """The values ``(D,)`` of a ranked list where it first reaches each recall point ``(R,)``; 0 where it never does."""
    return np.append(values, 0.0)[np.searchsorted(recall, recall_points, side="left")]  # (R,)


def average_at_points(precision: np.ndarray, recall: np.ndarray, recall_points: np.ndarray) -> float:
    """Average precision as the mean of the interpolated precision at given recalls (VOC2007, COCO).

    >>> curve = np.array([1.0, 0.5, 2 / 3]), np.array([0.25, 0.25, 0.5])
    >>> round(average_at_points(*curve, RECALLS_VOC2007), 4)  # 3 points at 1, 3 at 2/3, 5 at 0
    0.4545
    """
    return float(read_curve(interpolate(precision), recall, recall_points).mean())


def area_under_curve(precision: np.ndarray, recall: np.ndarray) -> float:
    """Average precision as the area under the interpolated curve (VOC2010 and later).

    Where every object was found, never below scikit-learn's ``average_precision_score``, which does not interpolate.

    >>> round(area_under_curve(np.array([1.0, 0.5, 2 / 3]), np.array([0.25, 0.25, 0.5])), 4)  # 1/4 · 1 + 1/4 · 2/3
    0.4167
    """
    steps = np.diff(recall, prepend=0.0)  # (D,)
    return float((steps * interpolate(precision)).sum())


def proposal_recall(
    proposals: Sequence[Tensor], targets: Sequence[Mapping[str, Any]], iou_threshold: float, counts: Sequence[int]
) -> Tensor:
    """The share of the objects of a data set that the first n proposals of their image cover.

    Args:
        proposals: one ``(P, 4)`` tensor for each image, best first. P may differ and may be 0.
        targets: of the same images. Crowd regions are left out: no single box can be right for them.
        iou_threshold: a proposal covers an object if their IoU is at least this; in (0, 1].
        counts: budgets n, at least 1. An image with fewer proposals than n is asked for all that it has.

    Returns ``(len(counts),)`` float64 in [0, 1], ``nan`` if no image holds an object.

    >>> truth = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]])}
    >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 5.0, 5.0], [21.0, 0.0, 31.0, 10.0]])
    >>> proposal_recall([boxes], [truth], iou_threshold=0.5, counts=[1, 2, 3])
    tensor([0.5000, 0.5000, 1.0000], dtype=torch.float64)
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold must lie in (0, 1], but is {iou_threshold}")
    best, _ = _best_overlaps(proposals, targets, counts)
    return (best >= iou_threshold).double().mean(dim=1)


def mean_best_overlap(
    proposals: Sequence[Tensor], targets: Sequence[Mapping[str, Any]], counts: Sequence[int], average: str = "objects"
) -> Tensor:
    """How well the best of the first n proposals fits an object, on average (Uijlings et al. 2013, section 5).

    ``average`` is over "objects", where frequent classes dominate, or over "classes": first over the objects of each
    class (the paper's ABO), then over the classes (MABO). All else is as in :func:`proposal_recall`.

    >>> truth = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]])}
    >>> mean_best_overlap([torch.tensor([[0.0, 0.0, 10.0, 5.0], [0.0, 0.0, 10.0, 9.0]])], [truth], counts=[1, 2])
    tensor([0.5000, 0.9000], dtype=torch.float64)
    """
    if average not in ("objects", "classes"):
        raise ValueError(f'average must be "objects" or "classes", but is {average!r}')
    best, labels = _best_overlaps(proposals, targets, counts, labeled=average == "classes")
    if average == "objects" or not len(labels):
        return best.mean(dim=1)
    return torch.stack([best[:, labels == label].mean(dim=1) for label in labels.unique()]).mean(dim=0)


def _best_overlaps(
    proposals: Sequence[Tensor], targets: Sequence[Mapping[str, Any]], counts: Sequence[int], labeled: bool = False
) -> tuple[Tensor, Tensor]:
    """For each budget and object the best IoU, ``(len(counts), objects)`` float64, and the objects' labels."""
    if len(proposals) != len(targets):
        both = f"{len(proposals)} and {len(targets)}"
        raise ValueError(f"proposals and targets must have one entry for each image, in order, but there are {both}")
    if not len(counts) or min(counts) < 1:
        raise ValueError(f"counts must be numbers of proposals, each at least 1, but are {list(counts)}")
    best = [torch.zeros(len(counts), 0, dtype=torch.float64)]
    labels = [torch.zeros(0, dtype=torch.int64)]
    for index, (boxes, target) in enumerate(zip(proposals, targets, strict=True)):
        if boxes.dim() != 2 or boxes.shape[1] != 4:
            raise ValueError(f"proposals[{index}] must have shape (P, 4), but has shape {tuple(boxes.shape)}")
        without_masks = {name: value for name, value in target.items() if name != "masks"}  # which may be run lengths
        needs = ("boxes", "labels") if labeled else ("boxes",)
        objects = single_objects(check_target(without_masks, f"targets[{index}]", needs=needs))
        # 0 / 0, a box without area on an object without area, is no overlap; a row of zeros stands for no proposals.
        iou = box_iou(boxes.detach().cpu().double(), objects["boxes"].cpu().double()).nan_to_num(0.0)  # (P, G)
        iou = torch.cat([torch.zeros(1, iou.shape[1], dtype=iou.dtype), iou]).cummax(dim=0).values
        best.append(iou[torch.tensor(counts).clamp(max=len(boxes))])  # row n is the best of the first n
        if labeled:
            labels.append(objects["labels"].cpu())
    return torch.cat(best, dim=1), torch.cat(labels)
