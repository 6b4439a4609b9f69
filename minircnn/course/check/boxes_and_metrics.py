"""The exercises of notebook 01: overlap, deltas, non-maximum suppression, average precision."""

import numpy as np
import torch
import torchvision
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from minircnn import boxes as ours
from minircnn.course.check.judge import Ask, NotYet, altered, exercise
from minircnn.metrics import RECALLS_COCO, average_at_points


def random_boxes(count: int, seed: int = 0, size: float = 100.0) -> Tensor:
    """Boxes anywhere in a square, ``(count, 4)``, the same for a seed on every machine."""
    corners = torch.from_numpy(np.random.RandomState(seed).uniform(0, size, (count, 2, 2))).float()
    return torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)


@exercise(ours.box_iou)
def box_iou(ask: Ask) -> str:
    """IoU of every box of a with every box of b."""
    a, b = torch.tensor([[1.0, 1.0, 5.0, 4.0]]), torch.tensor([[3.0, 2.0, 7.0, 5.0], [6.0, 5.0, 9.0, 8.0]])
    slips = {
        "for boxes apart it is not 0: width and height of the intersection are at least 0": lambda v: v[0, 1] != 0,
        "it divides by the area of one box; the union is area of a + area of b - intersection": [[4 / 12, 0]],
        "it counts the intersection twice in the union: subtract it once": [[4 / 24, 0]],
        "it is the intersection; divide it by the union": [[4.0, 0.0]],
        "it counts pixels (x2 - x1 + 1); boxes are half open, a width is x2 - x1": [[9 / 31, 0]],
    }
    slips = {text: torch.tensor(wrong) if isinstance(wrong, list) else wrong for text, wrong in slips.items()}
    ask.compare(a, b, wanted=torchvision.ops.box_iou(a, b), slips=slips, case="for the boxes a and b of the figure")
    a, b = random_boxes(200), random_boxes(300, seed=1)
    wanted = torchvision.ops.box_iou(a, b)
    ask.compare(a, b, wanted=wanted, case="for random boxes")
    return "equal to torchvision's for 200 × 300 boxes"


def _union(a: Tensor, b: Tensor) -> Tensor:
    total = ours.box_area(a)[:, None] + ours.box_area(b)
    return total / (1 + torchvision.ops.box_iou(a, b))


@exercise(ours.encode_boxes)
def encode_boxes(ask: Ask) -> str:
    """The deltas from one box to another."""
    src, dst = random_boxes(500, seed=2), random_boxes(500, seed=3)
    slips = """
        torch.log(dst_size / src_size) => dst_size / src_size !! the deltas of sizes lack the logarithm
        src: Tensor, dst: Tensor, => dst: Tensor, src: Tensor, !! the deltas lead from dst to src: exchange them
        offset / src_size => offset
            !! the shift is in pixels: divide it by the width and height of src
        offset / src_size => offset / dst_size
            !! the shift is divided by the size of dst; the detector knows only that of src
        (dst[:, :2] + 0.5 * dst_size) - (src[:, :2] + 0.5 * src_size) => dst[:, :2] - src[:, :2]
            !! it shifts the upper left corner; the deltas shift the center
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
        center - 0.5 * size, center + 0.5 * size => center, size
            !! it returns center and size; wanted are the corners x1, y1, x2, y2
        torch.exp(deltas[..., 2:].clamp(max=MAX_LOG_SCALE)) => (1 + deltas[..., 2:])
            !! the size grows by the delta itself; the delta is a logarithm
        torch.exp(deltas[..., 2:].clamp(max=MAX_LOG_SCALE)) => deltas[..., 2:]
            !! the size is multiplied by the delta; the delta is a logarithm
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


@exercise(ours.nms)
def nms(ask: Ask) -> str:
    """Indices of the boxes that survive, best first."""
    boxes = torch.tensor(
        [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 10.0, 5.0], [50.0, 50.0, 60.0, 60.0]]
    )
    scores = torch.tensor([0.6, 0.9, 0.8, 0.3])
    slips = {
        "it looks at the boxes in the given order; begin with the best score": [0, 2, 3],
        "it begins with the lowest score; order by score, descending": [3, 0, 2],
        "it keeps the boxes that overlap the best one; drop them": [1, 2, 0],
        "it drops nothing: of boxes on the same object only the best survives": [1, 2, 0, 3],
        "it drops boxes that do not overlap": [1],
        "the best box comes last; the best score comes first": [3, 1],
    }
    slips = {text: torch.tensor(wrong) for text, wrong in slips.items()}
    ask.compare(boxes, scores, 0.5, wanted=torch.tensor([1, 3]), slips=slips, case="for four boxes, threshold 0.5")
    exact = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0]])  # IoU 1/2
    slips = {"at an IoU equal to the threshold both boxes stay: drop what is above it": torch.tensor([0])}
    ask.compare(exact, torch.tensor([0.9, 0.8]), 0.5, wanted=torch.tensor([0, 1]), slips=slips)
    # Box 1 falls to box 0, and must not take box 2 with it.
    row = torch.tensor([[0.0, 0.0, 10.0, 10.0], [3.0, 0.0, 13.0, 10.0], [6.0, 0.0, 16.0, 10.0]])
    slips = {"a box that has been dropped still suppresses others": torch.tensor([0])}
    ask.compare(row, torch.tensor([0.9, 0.8, 0.7]), 0.4, wanted=torch.tensor([0, 2]), slips=slips)
    none = ask(torch.zeros(0, 4), torch.zeros(0), 0.5)
    if len(none):
        raise NotYet("of no boxes none survive; it returns some")
    for seed in range(20):
        boxes, scores = random_boxes(60, seed=seed), random_boxes(15, seed=seed + 100).flatten() / 100
        wanted = torchvision.ops.nms(boxes, scores, 0.4)
        slips = {"the right boxes in another order; the best score comes first": wanted.sort().values}
        ask.compare(boxes, scores, 0.4, wanted=wanted, slips=slips, case="for 60 random boxes, threshold 0.4")
    return "equal to torchvision's for 20 sets of 60 boxes"


def _true_positives(boxes: Tensor, objects: Tensor, threshold: float) -> Tensor:
    """Each detection, best first, takes the free object that it overlaps most, if by the threshold."""
    iou, tp = ours.box_iou(boxes, objects), torch.zeros(len(boxes), dtype=torch.bool)
    for d in range(len(boxes)):
        if len(objects) and iou[d].max() >= threshold:
            iou[:, iou[d].argmax()], tp[d] = -1, True
    return tp


@exercise(_true_positives)
def true_positives(ask: Ask) -> str:
    """Which of the detections of a class in an image find an object that is still free."""
    objects = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 6.0, 10.0, 16.0]])
    twice = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]])
    slips = {"both detections of one object are true positives; the second is a duplicate": torch.tensor([True, True])}
    ask.compare(twice, objects[:1], 0.5, wanted=torch.tensor([True, False]), slips=slips)
    # The second box overlaps the first object most, which is taken; the other one will do.
    second = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 2.5, 10.0, 12.5]])
    slips = {
        "a detection whose best object is taken may still find another one that is free": torch.tensor([True, False]),
        "a detection takes the first free object, not the one that it overlaps most": torch.tensor([False, True]),
    }
    ask.compare(second, objects, 0.4, wanted=torch.tensor([True, True]), slips=slips)
    best = torch.tensor([[0.0, 5.0, 10.0, 15.0], [0.0, 0.0, 10.0, 10.0]])
    slips = {
        "a detection takes the first object that is good enough; it takes the one that it overlaps most": torch.tensor(
            [True, False]
        )
    }
    ask.compare(best, objects, 0.3, wanted=torch.tensor([True, True]), slips=slips)
    half = torch.tensor([[0.0, 0.0, 10.0, 5.0]])
    slips = {"an IoU equal to the threshold is enough": torch.tensor([False])}
    ask.compare(half, objects[:1], 0.5, wanted=torch.tensor([True]), slips=slips)
    ask.compare(half, torch.zeros(0, 4), 0.5, wanted=torch.tensor([False]), case="in an image without objects")
    for seed in range(20):
        boxes, objects = random_boxes(30, seed=seed), random_boxes(6, seed=seed + 50)
        ask.compare(boxes, objects, 0.3, wanted=_true_positives(boxes, objects, 0.3), case="for 30 boxes and 6 objects")
    return "checked on 20 images of 30 detections, duplicates and ties by hand"


def _precision_recall(tp: Tensor, num_objects: int) -> tuple[Tensor, Tensor]:
    """After each of the ranked detections: what share is right, and what share of the objects is found."""
    found = tp.double().cumsum(0)
    return found / torch.arange(1, len(tp) + 1), found / num_objects


@exercise(_precision_recall)
def precision_recall(ask: Ask) -> str:
    """Precision and recall down a ranked list."""
    tp = torch.tensor([True, False, True, False, False])
    precision, recall = _precision_recall(tp, 4)
    slips = {
        "they are exchanged: precision comes first": (recall, precision),
        "precision divides by all detections; divide by the detections so far": (precision[-1:] * 5 * recall, recall),
        "recall divides by the detections so far; divide by the number of objects": (precision, precision),
        "recall divides by the number of detections found; divide by num_objects": (precision, tp.cumsum(0) / 2),
        "they tell whether each detection is right; count those so far (cumsum)": (
            tp / torch.arange(1, 6),
            tp.double() / 4,
        ),
    }
    slips["precision divides by all detections; divide by the detections so far"] = (tp.cumsum(0) / 5, recall)
    slips["recall is 1 at the end, but objects that nobody found count, too"] = lambda v: float(v[1][-1]) == 1.0
    ask.compare(
        tp, 4, wanted=(precision, recall), slips=slips, case="for [right, wrong, right, wrong, wrong], 4 objects"
    )
    many = torch.from_numpy(np.random.RandomState(6).random_sample(300) < 0.4)
    ask.compare(many, 200, wanted=_precision_recall(many, 200), case="for 300 detections")
    return "checked by hand and for 300 detections"


def _average_precision(precision: Tensor, recall: Tensor) -> float:
    """COCO's, at 101 recalls."""
    return average_at_points(precision.double().numpy(), recall.double().numpy(), RECALLS_COCO)


@exercise(_average_precision)
def average_precision(ask: Ask) -> str:
    """The mean of the interpolated precision at 101 recalls."""
    precision, recall = torch.tensor([1.0, 0.5, 2 / 3], dtype=torch.float64), torch.tensor([0.5, 0.5, 1.0]).double()
    slips = {
        "it is the mean of the precisions in the list; take the mean over 101 recalls": 13 / 18,
        "that is the exact area under the curve (VOC 2010); COCO takes 101 points": 5 / 6,
        "those are 11 points (VOC 2007); COCO takes 101": 28 / 33,
        "there are 100 recalls; 0, 0.01 … 1 are 101": (50 + 50 * 2 / 3) / 100,
        "a recall of exactly 0.5 is reached by the first detection": (50 + 50 * 2 / 3) / 101,
    }
    wanted = _average_precision(precision, recall)
    ask.compare(precision, recall, wanted=wanted, slips=slips, case="for the example in the text", atol=1e-6, rtol=0)
    half = torch.tensor([1.0]).double(), torch.tensor([0.5]).double()
    slips = {
        "recalls that the list never reaches count 0": 1.0,
    }
    ask.compare(*half, wanted=51 / 101, slips=slips, case="for one detection, right, of two objects", atol=1e-6)
    curve = _precision_recall(torch.from_numpy(np.random.RandomState(7).random_sample(300) < 0.4), 200)
    heights = [curve[0][curve[1] >= point][:1].sum().item() for point in RECALLS_COCO]
    slips = {"precision is not interpolated: take the best at this recall or any higher one": sum(heights) / 101}
    ask.compare(*curve, wanted=_average_precision(*curve), slips=slips, case="for 300 detections", atol=1e-6, rtol=0)
    return "equal to pycocotools' rule for a curve of 300 detections"


def _generalized_iou(a: Tensor, b: Tensor) -> float:
    return float(torchvision.ops.generalized_box_iou(a[None], b[None]))


def _giou_by_hand(a: Tensor, b: Tensor) -> float:
    a, b = a[None], b[None]
    iou, around = (
        torchvision.ops.box_iou(a, b),
        torch.cat([torch.minimum(a, b)[:, :2], torch.maximum(a, b)[:, 2:]], dim=1),
    )
    enclosing, union = ours.box_area(around), _union(a, b)
    return float(iou - (enclosing - union) / enclosing)


@exercise(_generalized_iou)
def generalized_iou(ask: Ask) -> str:
    """A measure that sees boxes apart."""
    slips = """
        iou - (enclosing - union) / enclosing => iou
            !! that is IoU; subtract the share of the enclosing box that is empty
        iou - => iou + !! it adds the empty share; subtract it
        (enclosing - union) / enclosing => (enclosing - union)
            !! it subtracts the empty area; divide it by the area of the enclosing box
        (enclosing - union) / enclosing => union / enclosing
            !! it subtracts the share that the union covers, not the empty one
        - union) / enclosing => - union) / union
            !! it divides the empty area by the union; divide it by the enclosing box
    """
    cases = [tuple(random_boxes(2, seed=seed)) for seed in range(200)]
    ask.cases(cases[:3], what="for {0} and {1}", also=altered(_giou_by_hand, slips), rtol=1e-3)
    ask.cases(cases, what="for {0} and {1}")
    return "equal to torchvision's for 200 pairs"
