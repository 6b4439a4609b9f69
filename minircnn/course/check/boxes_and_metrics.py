"""The exercises of notebook 01: overlap, deltas, non-maximum suppression, average precision."""

import numpy as np
import torch
import torchvision
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from minircnn import boxes as ours
from minircnn.course.check.judge import Ask, NotYet, exercise, hint
from minircnn.metrics import RECALLS_COCO, RECALLS_VOC2007, area_under_curve, average_at_points  # noqa: F401


def random_boxes(count: int, seed: int = 0, size: float = 100.0) -> Tensor:
    """Boxes anywhere in a square, ``(count, 4)``, the same for a seed on every machine."""
    corners = torch.from_numpy(np.random.RandomState(seed).uniform(0, size, (count, 2, 2))).float()
    return torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)


@exercise(ours.box_iou)
def box_iou(ask: Ask) -> str:
    """IoU of every box of a with every box of b."""
    slips = """
        .clamp_(min=0) => !! for boxes apart it is not 0: width and height of the intersection are at least 0
        + (bx2 - bx1) * (by2 - by1)).sub_(intersection) => )
            !! it divides by the area of one box; the union is area of a + area of b - intersection
        .sub_(intersection) => !! it counts the intersection twice in the union: subtract it once
        .div_(union) => !! it is the intersection; divide it by the union
        _as_float(a, "a", (2, 3)), _as_float(b, "b", (2, 3)) => (boxes + torch.tensor([0, 0, 1, 1]) for boxes in (a, b))
            !! it counts pixels (x2 - x1 + 1); boxes are half open, a width is x2 - x1
    """
    a, b = torch.tensor([[1.0, 1.0, 5.0, 4.0]]), torch.tensor([[3.0, 2.0, 7.0, 5.0], [6.0, 5.0, 9.0, 8.0]])
    cases = [(a, b), (random_boxes(200), random_boxes(300, seed=1))]
    ask.cases(cases, slips, "for {0.shape[0]} and {1.shape[0]} boxes", right=torchvision.ops.box_iou)
    return "equal to torchvision's for 200 × 300 boxes"


@exercise(ours.encode_boxes)
def encode_boxes(ask: Ask) -> str:
    """The deltas from one box to another."""
    src, dst = random_boxes(500, seed=2), random_boxes(500, seed=3)
    slips = """
        torch.log(dst_size / src_size) => dst_size / src_size !! the deltas of sizes lack the logarithm
        src: Tensor, dst: Tensor, => dst: Tensor, src: Tensor, !! the deltas lead from dst to src: exchange them
        offset / src_size => offset !! the shift is in pixels: divide it by the width and height of src
        offset / src => offset / dst !! the shift is divided by the size of dst; the detector knows only that of src
        + 0.5 * dst_size) - (src[:, :2] + 0.5 * src_size => ) - (src[:, :2] !! it shifts the corner and not the center
        torch.log(dst_size / src_size) => torch.log(dst_size / src_size).flip(1) !! width and height are exchanged
    """
    right = BoxCoder((1.0,) * 4).encode_single
    ask.cases([(src, dst)], slips, "for random boxes", right=lambda src, dst: right(dst, src))
    return "equal to torchvision's BoxCoder for 500 pairs"


@exercise(ours.decode_boxes)
def decode_boxes(ask: Ask) -> str:
    """The boxes to which deltas lead."""
    src, deltas = random_boxes(500, seed=4), torch.from_numpy(np.random.RandomState(5).normal(0, 0.3, (500, 4))).float()
    slips = """
        center - 0.5 * size, center + 0.5 * size => center, size !! it returns center and size; return x1, y1, x2, y2
        torch.exp( => (1 + !! the size grows by the delta itself; the delta is a logarithm
        torch.exp( => ( !! the size is multiplied by the delta; the delta is a logarithm
        deltas[..., :2] * size => deltas[..., :2] !! the shift is taken as pixels; it is in widths and heights of src
        deltas[..., :2] * size => deltas[..., :2] * size * torch.exp(deltas[..., 2:])
            !! the shift is applied to the new size; it is in widths and heights of src
        center + deltas => src[:, :2] + deltas !! it starts at the upper left corner; the deltas shift the center
        center - 0.5 * size, center + 0.5 * size => center - size, center + size
            !! half of the size lies on each side of the center, not all of it
    """
    right = BoxCoder((1.0,) * 4).decode_single
    ask.cases([(src, deltas)], slips, "for random deltas", right=lambda src, deltas: right(deltas, src), atol=1e-3)
    return "equal to torchvision's BoxCoder for 500 boxes"


@exercise(ours.nms, ours.nms_loop)
def nms(ask: Ask) -> str:
    """Indices of the boxes that survive, best first."""
    slips = """
        scores.argsort( => torch.zeros_like(scores).argsort( !! it goes in the given order; begin with the best score
        descending=True => descending=False !! it begins with the lowest score; order by score, descending
        ~(iou > iou_threshold) => iou > iou_threshold !! it keeps the boxes that overlap the best one; drop them
        [~(iou > iou_threshold)] => !! it drops nothing: of boxes on the same object only the best survives
        while => return left[~(box_iou(boxes[left], boxes[left]) > iou_threshold).triu(1).any(dim=0)]\\n    while
            !! a box that has been dropped still suppresses others
        stack(kept) => stack(kept).sort().values !! the right boxes in another order; the best score comes first
    """
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 5], [50, 50, 60, 60]]).float()
    # Of these box 1 falls to box 0, and must not take box 2 with it.
    row = torch.tensor([[0.0, 0.0, 10.0, 10.0], [3.0, 0.0, 13.0, 10.0], [6.0, 0.0, 16.0, 10.0]])
    cases = [(boxes, torch.tensor([0.6, 0.9, 0.8, 0.3]), 0.4), (row, torch.tensor([0.9, 0.8, 0.7]), 0.4)]
    cases += [(random_boxes(60, seed=n), random_boxes(15, seed=n + 100).flatten() / 100, 0.4) for n in range(20)]
    ask.cases(cases, slips, "for {0.shape[0]} boxes, threshold {2}", right=torchvision.ops.nms)
    slips = "iou > iou => iou >= iou !! at an IoU equal to the threshold both boxes stay: drop what is above it"
    ask.cases([(boxes[::2], torch.tensor([0.9, 0.8]), 0.5)], slips)
    if len(ask(torch.zeros(0, 4), torch.zeros(0), 0.5)):
        raise NotYet("of no boxes none survive; it returns some")
    return "equal to torchvision's for 20 sets of 60 boxes"


def _true_positives(boxes: Tensor, objects: Tensor, threshold: float) -> Tensor:
    iou, tp = ours.box_iou(boxes, objects), torch.zeros(len(boxes), dtype=torch.bool)
    for d in range(len(boxes) if len(objects) else 0):
        best = iou[d].argmax()
        if iou[d, best] >= threshold:
            iou[:, best], tp[d] = -1, True
    return tp


@exercise(_true_positives)
def true_positives(ask: Ask) -> str:
    """Which detections of a class, best first, find an object that is still free, by the threshold."""
    slips = """
        iou[:, best], tp[d] = -1, True => tp[d] = True !! the second detection of one object is a duplicate
        iou[d].argmax() => ours.box_iou(boxes, objects)[d].argmax()
            !! a detection whose best object is taken may still find another one that is free
        iou[d].argmax() => (iou[d] >= 0).int().argmax() !! it takes the first free object, not the one it overlaps most
        iou[d].argmax() => (iou[d] >= threshold).int().argmax() !! it takes the first object that is good enough
        >= threshold => > threshold !! an IoU equal to the threshold is enough
    """
    objects = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 6.0, 10.0, 16.0]])
    first, half = objects[:1], torch.tensor([[0.0, 0.0, 10.0, 5.0]])
    second, both = torch.tensor([[0.0, 2.5, 10.0, 12.5]]), torch.tensor([[0.0, 5.0, 10.0, 15.0]])
    # The second one overlaps the first object most, which is taken; the other one will do.
    cases = [(first.repeat(2, 1), first, 0.5), (torch.cat([first, second]), objects, 0.4)]
    cases += [(torch.cat([both, first]), objects, 0.3), (half, first, 0.5)]
    cases += [(random_boxes(30, seed=seed), random_boxes(6, seed=seed + 50), 0.3) for seed in range(20)]
    ask.cases(cases, slips, "for {0.shape[0]} boxes and {1.shape[0]} objects, threshold {2}")
    with hint("in an image without objects"):
        ask.cases([(half, torch.zeros(0, 4), 0.5)])
    return "checked on 20 images of 30 detections, duplicates and ties by hand"


def _precision_recall(tp: Tensor, num_objects: int) -> tuple[Tensor, Tensor]:
    found = tp.double().cumsum(0)
    precision, recall = found / torch.arange(1, len(tp) + 1), found / num_objects
    return precision, recall


@exercise(_precision_recall)
def precision_recall(ask: Ask) -> str:
    """Precision and recall down a ranked list."""
    slips = """
        return precision, recall => return recall, precision !! they are exchanged: precision comes first
        torch.arange(1, len(tp) + 1) => len(tp) !! precision divides by all detections; divide by the detections so far
        / num_objects => / torch.arange(1, len(tp) + 1) !! recall divides by the detections so far, not by num_objects
        / num_objects => / found[-1] !! recall divides by the number of detections found; divide by num_objects
        .cumsum(0) => !! they tell whether each detection is right; count those so far (cumsum)
    """
    many = torch.from_numpy(np.random.RandomState(6).random_sample(300) > 0.4)
    ask.cases([(torch.tensor([True, False, True, False, False]), 4), (many, 200)], slips, "for {1} objects")
    return "checked by hand and for 300 detections"


def _average_precision(precision: Tensor, recall: Tensor) -> float:
    return average_at_points(precision.double().numpy(), recall.double().numpy(), RECALLS_COCO)


def _average_by_hand(precision: Tensor, recall: Tensor) -> float:
    heights = []
    for point in RECALLS_COCO:
        reached = precision[recall >= point]
        heights.append(float(reached.max()) if len(reached) else 0.0)
    return sum(heights) / len(heights)


@exercise(_average_precision, _average_by_hand)
def average_precision(ask: Ask) -> str:
    """The mean of the interpolated precision at 101 recalls."""
    slips = """
        sum(heights) / len(heights) => float(precision.mean()) !! that is the mean of the list; average over 101 recalls
        sum(heights) / len(heights) => area_under_curve(precision.numpy(), recall.numpy())
            !! that is the exact area under the curve (VOC 2010); COCO takes 101 points
        RECALLS_COCO => RECALLS_VOC2007 !! those are 11 points (VOC 2007); COCO takes 101
        RECALLS_COCO => RECALLS_COCO[:100] !! there are 100 recalls; 0, 0.01 … 1 are 101
        >= point => > point !! a recall of exactly 0.5 is reached by the first detection
        else 0.0 => else float(precision[-1]) !! recalls that the list never reaches count 0
        reached.max() => reached[0] !! precision is not interpolated: take the best at this recall or any higher one
    """
    example, one = (torch.tensor([1, 0.5, 2 / 3]), torch.tensor([0.5, 0.5, 1])), (torch.ones(1), torch.tensor([0.5]))
    curve = _precision_recall(torch.from_numpy(np.random.RandomState(7).random_sample(300) < 0.4), 200)
    cases = [tuple(part.double() for part in pair) for pair in (example, one, curve)]
    ask.cases(cases, slips, "for {0.shape[0]} detections", rtol=0, atol=1e-6)
    return "equal to pycocotools' rule for a curve of 300 detections"


def _generalized_iou(a: Tensor, b: Tensor) -> float:
    return float(torchvision.ops.generalized_box_iou(a[None], b[None]))


def _giou_by_hand(a: Tensor, b: Tensor) -> float:
    a, b = a[None], b[None]
    iou, around = ours.box_iou(a, b), torch.cat([torch.minimum(a, b)[:, :2], torch.maximum(a, b)[:, 2:]], dim=1)
    enclosing, union = ours.box_area(around), (ours.box_area(a) + ours.box_area(b)) / (1 + iou)
    return float(iou - (enclosing - union) / enclosing)


@exercise(_generalized_iou, _giou_by_hand)
def generalized_iou(ask: Ask) -> str:
    """A measure that sees boxes apart."""
    slips = """
        - (enclosing - union) / enclosing => !! that is IoU; subtract the share of the enclosing box that is empty
        iou - => iou + !! it adds the empty share; subtract it
        ) / enclosing => ) !! it subtracts the empty area; divide it by the area of the enclosing box
        (enclosing - union) => union !! it subtracts the share that the union covers, not the empty one
        ) / enclosing => ) / union !! it divides the empty area by the union; divide it by the enclosing box
    """
    cases = [tuple(random_boxes(2, seed=seed)) for seed in range(200)]
    ask.cases(cases[:3], slips, "for {0} and {1}", rtol=1e-3)
    ask.cases(cases, what="for {0} and {1}")
    return "equal to torchvision's for 200 pairs"
