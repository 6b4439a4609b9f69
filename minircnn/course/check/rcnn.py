"""The exercises of notebook 04: labels of proposals, hinge loss, hard negatives, ridge regression, detections."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

from minircnn.course.check.boxes_and_metrics import random_boxes
from minircnn.course.check.judge import Ask, NotYet, exercise, hint, refuse_type
from minircnn.course.errors import KINDS
from minircnn.course.errors import error_kind as _error_kind
from minircnn.rcnn import EASY, HARD, SVMSettings, margins, ridge_regression, train_svm

Size = tuple[int, int]
NOTHING = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)


def _finetuning_labels(proposals: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    if not len(boxes):
        return torch.zeros(len(proposals), dtype=torch.int64)
    overlap, which = box_iou(proposals, boxes).max(dim=1)
    return torch.where(overlap >= 0.5, labels[which], 0)


@exercise(_finetuning_labels)
def finetuning_labels(ask: Ask) -> str:
    """The class of the object that each proposal overlaps most, 0 below an IoU of 0.5."""
    slips = """
        >= 0.5 => > 0.5 !! an IoU equal to 0.5 is enough for a class
        .max(dim => .ge(0.5).float().max(dim !! it takes the first object of an IoU of 0.5; take the one overlapped most
        >= 0.5 => >= 0 !! a proposal below an IoU of 0.5 is background, 0, even if it overlaps some object
        >= 0.5 => >= 0.3 !! the threshold of the SVMs is 0.3; here it is 0.5
        labels[which] => which !! it returns which object each proposal overlaps: look up its class in labels
        , 0) => , -1) !! background has the label 0
    """

    def right(proposals: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
        matched = Matcher(0.5, 0.5)(box_iou(boxes, proposals))  # (P,): an object, or -1
        return torch.where(matched >= 0, labels[matched.clamp(min=0)], 0)

    boxes, labels = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 2.0, 10.0, 12.0]]), torch.tensor([5, 2])
    spans = ((0.0, 5.0), (1.5, 11.5), (0.0, 4.0), (30.0, 40.0), (0.5, 10.5))  # top and bottom; IoU 0.5, then by far
    cases = [(torch.tensor([[0.0, top, 10.0, bottom] for top, bottom in spans]), boxes, labels)]
    for n in range(20):
        cases.append((random_boxes(80, seed=n), random_boxes(6, seed=n + 100), torch.arange(1, 7).roll(n)))
    ask.cases(cases, slips, "for {0.shape[0]} proposals and {1.shape[0]} objects", right=right)
    with hint("in an image without objects"):
        ask.cases([(cases[0][0], *NOTHING)])
    return "equal to torchvision's Matcher for 20 images of 80 proposals"


def _svm_negatives(proposals: Tensor, boxes: Tensor, labels: Tensor, k: int) -> Tensor:
    iou = box_iou(proposals, boxes[labels == k])
    return (iou < 0.3).all(dim=1)


@exercise(_svm_negatives)
def svm_negatives(ask: Ask) -> str:
    """Negatives for the SVM of a class: proposals that overlap each of its objects by less than 0.3."""
    slips = """
        .all(dim=1) => .any(dim=1) !! a negative overlaps *every* object of the class by less than 0.3: all, not any
        .all(dim=1) => [:, 0] !! it looks at the first object of the class only
        boxes[labels == k] => boxes !! objects of other classes do not count: a car is a negative for cats
        < 0.3 => < 0.5 !! the threshold of fine-tuning is 0.5; here it is 0.3
        return => return ~ !! those are the proposals that are not used; wanted are the others
        dim=1) => dim=1) & (iou > 0).any(dim=1) !! a proposal that overlaps no object at all is a negative, too
        < 0.3 => <= 0.3 !! at an IoU equal to 0.3 a proposal is not used
    """
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 0.0, 60.0, 10.0], [80.0, 80.0, 90.0, 90.0]])
    objects = boxes, torch.tensor([3, 3, 2])
    parts = ((0.0, 0.0, 9.0), (50.0, 0.0, 6.0), (0.0, 0.0, 4.0), (0.0, 0.0, 2.0), (80.0, 80.0, 9.0), (20.0, 50.0, 9.0))
    proposals = torch.tensor([[x, y, x + 10, y + height] for x, y, height in parts])
    cases = [(proposals, *objects, 3), (torch.tensor([[0.0, 0.0, 10.0, 3.0]]), *objects, 3)]  # the last one of IoU 0.3
    for seed in range(20):
        cases.append((random_boxes(80, seed=seed), random_boxes(6, seed=seed + 100), torch.arange(6) % 3, 2))
    ask.cases(cases, slips, "for {0.shape[0]} proposals and {1.shape[0]} objects")
    with hint("in an image without an object of the class"):
        slips = ".all(dim=1) => .all(dim=1) & bool(iou.numel()) !! all proposals are negatives"
        ask.cases([(proposals, *objects, 1), (proposals, *NOTHING, 3)], slips)
    return "checked on 20 images of 80 proposals, and without objects"


def _hinge_loss(scores: Tensor, signs: Tensor) -> Tensor:
    return (1 - signs * scores).clamp(min=0)


@exercise(_hinge_loss)
def hinge_loss(ask: Ask) -> str:
    """The loss of each example of an SVM."""
    slips = """
        .clamp(min=0) => !! an example beyond its margin has loss 0, not a negative one
        signs * scores => scores !! it forgets the sign: a negative is wanted at -1 or below
        1 - signs => 1 + signs !! the sign is that of the wrong side: it is 1 - y s
        1 - signs => -signs !! it starts at 0 and not at the margin: the 1 is missing
        .clamp(min=0) => .clamp(min=0) ** 2 !! it is squared; the hinge loss is not
        .clamp(min=0) => .clamp(min=0).sum() !! it returns one number, the sum; wanted is the loss of each example
    """
    five = torch.tensor([2.0, 0.5, -1.5, -0.5, 0.25]), torch.tensor([1.0, 1.0, -1.0, -1.0, -1.0])
    generator = torch.Generator().manual_seed(0)
    many = 2 * torch.randn(500, generator=generator), torch.randn(500, generator=generator).sign()
    ask.cases([five, many], slips, "for {0.shape[0]} examples")
    from sklearn import metrics  # takes seconds to import

    if abs(ask(*many).double().mean().item() - metrics.hinge_loss(many[1].numpy(), many[0].numpy())) > 1e-4:
        raise NotYet("its mean differs from scikit-learn's hinge_loss")
    return "its mean is scikit-learn's for 500 examples"


def _mining_round(weights: Tensor, positives: Tensor, negatives: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    hard = new[margins(new, weights) > HARD]
    negatives = torch.cat([negatives, hard])
    fitted = train_svm(positives, negatives, SVMSettings())
    return fitted, negatives[margins(negatives, fitted) >= EASY]


@exercise(_mining_round)
def mining_round(ask: Ask) -> str:
    """One round of hard negative mining."""
    slips = """
        > HARD => > 0 !! a negative is hard from a score of -1 on, where its loss begins, not from 0
        torch.cat([negatives, hard]) => hard !! the negatives from before are lost: fit to both together
        train_svm(positives, negatives, SVMSettings()) => weights !! the SVM is still the one from before: fit again
        fitted) >= => weights) >= !! what is easy is judged by the SVM from before; judge it by the new one
        torch.cat([negatives, => torch.cat([negatives[margins(negatives, weights) >= EASY],
            !! easy negatives were dropped before the SVM was fitted; fit first, then drop
        >= EASY => >= -torch.inf !! no negative is dropped: those below -1.2 go
        >= EASY => >= HARD !! it drops what scores below -1; drop what scores below -1.2
    """
    cases = [_mining_case(seed) for seed in (4, 5)]  # with these every slip changes something
    ask.cases(cases, slips, "for 80 new negatives", rtol=1e-2, atol=1e-3, run=_in_order)
    return "the same SVM and the same negatives in two rounds"


def _in_order(mine: Callable[..., Any], *case: Tensor) -> tuple[Tensor, Tensor]:
    """In which order negatives are kept does not matter."""
    value = mine(*case)
    refuse_type(value, case[:2])
    return value[0], value[1][value[1][:, 0].argsort()]


def _mining_case(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """An SVM that was fitted to few negatives, its positives, those negatives, and new ones."""
    draw = torch.randn(180, 3, generator=torch.Generator().manual_seed(seed)) * 12
    positives, negatives, new = draw[:40] + 14, draw[40:100] - 14, draw[100:] - 8
    weights = train_svm(positives, negatives[:10], SVMSettings())
    # Turned, so that some that are easy for it will not be so for the next one.
    weights[:-1] += 0.6 * weights[:-1].norm() * torch.nn.functional.normalize(draw[0], dim=0)
    weights[-1] -= 0.8
    return weights, positives, negatives, new


def _solve(x: Tensor, t: Tensor, ridge: float) -> Tensor:
    gram = x.T @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype)
    return (torch.linalg.pinv(gram) @ x.T @ t).T  # (4, D)


def _ridge_by_hand(x: Tensor, t: Tensor, ridge: float) -> Tensor:
    x, t = x.double(), t.double()
    x_mean, t_mean = x.mean(dim=0), t.mean(dim=0)
    weights = _solve(x - x_mean, t - t_mean, ridge)
    bias = t_mean - weights @ x_mean
    return torch.cat([weights, bias[:, None]], dim=1).float()


@exercise(ridge_regression, _ridge_by_hand)
def fit_ridge(ask: Ask) -> str:
    """Ridge regression in closed form."""
    slips = """
        .float() => .T.float() !! it is transposed: wanted is a row for each of dx, dy, dw, dh
        , bias[:, None] => !! the bias is missing, the last column
        x_mean, t_mean = => return _solve(torch.cat([x, torch.ones(len(x), 1)], dim=1), t, ridge).float(); _ =
            !! the penalty shrinks the bias as well: center x and t, so that it stays free
        x.mean(dim=0), t.mean(dim=0) => 0 * x[0], 0 * t[0] !! x and t are not centered: the bias is 0
        - weights @ x_mean => !! the bias is the mean of t; subtract what the weights make of the mean of x
        t_mean, ridge) => t_mean, 0.0) !! the ridge is missing: add ridge to the diagonal
        t_mean, ridge) => t_mean, ridge * len(x)) !! the ridge is multiplied by the number of examples
    """
    cases = []
    for seed, (count, size) in enumerate(((60, 12), (12, 60))):  # more examples than features, and fewer
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(count, size, generator=generator) + 2
        t = 0.3 * torch.randn(count, 4, generator=generator) + torch.tensor([0.5, -0.2, 0.1, 0.3])
        x[:, 0] += 3 * t[:, 0]
        cases.append((x, t, 10.0))
    ask.cases(cases, slips, "for {0.shape[0]} examples of {0.shape[1]} features", rtol=1e-3, atol=1e-4)
    return "equal to scikit-learn's Ridge, for more examples than features and for fewer"


def _detect(
    proposals: Tensor, scores: Tensor, deltas: Tensor, size: Size, threshold: float = -1.5, iou_threshold: float = 0.3
) -> dict[str, Tensor]:
    good = (scores > threshold) & (torch.arange(scores.shape[1]) > 0)
    rows, labels = torch.where(good)
    boxes = BoxCoder((1.0,) * 4).decode_single(deltas[rows, labels], proposals[rows])
    found = clip_boxes_to_image(boxes, size), scores[good], labels
    kept = batched_nms(*found, iou_threshold)
    boxes, scores, labels = (part[kept] for part in found)
    return {"boxes": boxes, "labels": labels, "scores": scores}


@exercise(_detect)
def detect(ask: Ask) -> str:
    """Detections of an image out of proposals, scores and deltas."""
    slips = """
        (*found => (*found[:2], 0 * labels !! NMS runs over all classes together; run it within each class
        (*found => (proposals[rows], *found[1:] !! NMS looks at the proposals; refine the boxes first
        deltas[rows, labels] => 0 * deltas[rows, labels] !! the boxes are still the proposals: decode the deltas
        [rows, labels] => [rows, 1] !! every class takes the deltas of class 1; each has its own: deltas[:, k]
        > 0 => >= 0 !! column 0 is the background, which is no detection
        clip_boxes_to_image(boxes, size) => boxes !! the boxes leave the image: clip them
    """
    cases = []
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        objects = random_boxes(8, seed=seed) * 0.7 + torch.tensor([0.0, 0.0, 30.0, 30.0])
        proposals = objects.repeat(8, 1) + 4 * torch.randn(64, 4, generator=generator)
        scores = torch.randn(64, 4, generator=generator) - 0.5
        cases.append((proposals, scores, 0.25 * torch.randn(64, 4, 4, generator=generator), (90, 110)))
    ask.cases(cases, slips, "for 64 proposals of 4 classes", rtol=1e-3, atol=1e-3)
    slips = """
        > threshold => > -1.5 !! threshold is ignored; take it from the arguments
        *found, iou_threshold => *found, 0.3 !! iou_threshold is ignored; take it from the arguments
    """
    ask.cases([(*cases[4], 0.5), (*cases[4], -1.5, 0.7)], slips, "for a threshold of {4}", rtol=1e-3, atol=1e-3)
    with hint("where no score is above the threshold"):
        ask.cases([(*cases[4], 9.0)])
    return "equal to torchvision's decoding, clipping and NMS for 5 images"


@exercise(_error_kind)
def error_kind(ask: Ask) -> str:
    """Which kind of error a detection is."""
    slips = """
        and not taken[best] => !! the object is taken by a better detection: a duplicate is a localization error
        overlap.masked_fill(labels != k, 0) => overlap !! the object that it overlaps is of another class
        if of_class[best] >= 0.1 => if False !! an IoU of 0.1 to 0.5 is a localization error
        [best] >= 0.1 => [best] == overlap.max() >= 0.1 !! an object of its own class comes first, from an IoU of 0.1
        overlap.max() >= 0.1 => overlap.max() >= 0 !! below an IoU of 0.1 it is background
        >= 0.5 => > 0.5 !! an IoU equal to 0.5 is enough
        of_class[best] >= 0.1 => of_class[best] > 0.1 !! an IoU equal to 0.1 is enough
    """
    overlaps = [[0.7, 0.2, 0.1], [0.7, 0.0, 0.6], [0.3, 0.0, 0.0], [0.05, 0.6, 0.0], [0.2, 0.8, 0.0]]
    overlaps += [[0.05, 0.05, 0.0], [0.5, 0.0, 0.0], [0.1, 0.0, 0.0], [0.2, 0.0, 0.9], [0.0, 0.1, 0.0]]
    labels, taken = torch.tensor([3, 2, 3]), torch.zeros(10, 3, dtype=torch.bool)
    taken[1, 0] = True
    cases = [(torch.tensor(overlap), labels, 3, found) for overlap, found in zip(overlaps, taken, strict=True)]
    for case in cases:
        refuse_type(kind := ask(*case), KINDS[0])
        if kind not in KINDS:
            raise NotYet("it returns none of the four names; wanted is a str of KINDS")
    ask.cases(cases, slips, "for IoU {0} with classes 3, 2, 3")
    with hint("in an image without objects"):
        ask.cases([(torch.zeros(0), labels[:0], 3, taken[0, :0])])
    return "checked on ten detections by hand, and without objects"
