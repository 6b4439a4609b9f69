"""The exercises of notebook 01: overlap, deltas, non-maximum suppression, average precision."""

import numpy as np
import torch
import torchvision
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from minircnn import boxes as ours
from minircnn.course.check.judge import Ask, NotYet, exercise
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
    (center, size), (there, new) = _center_and_size(src), _center_and_size(dst)
    shift, growth = (there - center) / size, torch.log(new / size)
    slips = {
        "the deltas of sizes lack the logarithm": torch.cat([shift, new / size], dim=1),
        "the deltas lead from dst to src: exchange them": BoxCoder((1.0,) * 4).encode_single(src, dst),
        "the shift is in pixels: divide it by the width and height of src": torch.cat([there - center, growth], dim=1),
        "the shift is divided by the size of dst; the detector knows only that of src": torch.cat(
            [(there - center) / new, growth], dim=1
        ),
        "it shifts the upper left corner; the deltas shift the center": torch.cat(
            [(dst[:, :2] - src[:, :2]) / size, growth], dim=1
        ),
        "width and height are exchanged": torch.cat([shift, growth.flip(1)], dim=1),
    }
    ask.compare(src, dst, wanted=BoxCoder((1.0,) * 4).encode_single(dst, src), slips=slips, case="for random boxes")
    return "equal to torchvision's BoxCoder for 500 pairs"


@exercise(ours.decode_boxes)
def decode_boxes(ask: Ask) -> str:
    """The boxes to which deltas lead."""
    src, deltas = random_boxes(500, seed=4), torch.from_numpy(np.random.RandomState(5).normal(0, 0.3, (500, 4))).float()
    center, size = _center_and_size(src)
    there, new = center + deltas[:, :2] * size, size * deltas[:, 2:].exp()
    slips = {
        "it returns center and size; wanted are the corners x1, y1, x2, y2": torch.cat([there, new], dim=1),
        "the size grows by the delta itself; the delta is a logarithm": _corners(there, size * (1 + deltas[:, 2:])),
        "the size is multiplied by the delta; the delta is a logarithm": _corners(there, size * deltas[:, 2:]),
        "the shift is taken as pixels; it is in widths and heights of src": _corners(center + deltas[:, :2], new),
        "the shift is applied to the new size; it is in widths and heights of src": _corners(
            center + deltas[:, :2] * new, new
        ),
        "it starts at the upper left corner; the deltas shift the center": _corners(
            src[:, :2] + deltas[:, :2] * size, new
        ),
        "half of the size lies on each side of the center, not all of it": torch.cat([there - new, there + new], dim=1),
    }
    wanted = BoxCoder((1.0,) * 4).decode_single(deltas, src)
    ask.compare(src, deltas, wanted=wanted, slips=slips, case="for random deltas", atol=1e-3)
    return "equal to torchvision's BoxCoder for 500 boxes"


def _center_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[:, 2:] - boxes[:, :2]
    return boxes[:, :2] + size / 2, size


def _corners(center: Tensor, size: Tensor) -> Tensor:
    return torch.cat([center - size / 2, center + size / 2], dim=1)


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


@exercise(_generalized_iou)
def generalized_iou(ask: Ask) -> str:
    """A measure that sees boxes apart."""
    for seed in range(200):
        a, b = random_boxes(2, seed=seed)
        iou = float(torchvision.ops.box_iou(a[None], b[None]))
        around = torch.cat([torch.minimum(a, b)[:2], torch.maximum(a, b)[2:]])[None]
        enclosing, union = float(ours.box_area(around)), float(_union(a[None], b[None]))
        slips = {
            "that is IoU; subtract the share of the enclosing box that is empty": iou,
            "it adds the empty share; subtract it": iou + (enclosing - union) / enclosing,
            "it subtracts the empty area; divide it by the area of the enclosing box": iou - (enclosing - union),
            "it subtracts the share that the union covers, not the empty one": iou - union / enclosing,
            "it divides the empty area by the union; divide it by the enclosing box": iou - (enclosing - union) / union,
        }
        slips = {text: wrong for text, wrong in slips.items() if abs(wrong - _generalized_iou(a, b)) > 1e-3}
        case = f"for {a.round().tolist()} and {b.round().tolist()}"
        ask.compare(a, b, wanted=_generalized_iou(a, b), slips=slips, case=case)
    return "equal to torchvision's for 200 pairs"
