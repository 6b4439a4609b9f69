"""The exercises of notebook 04: labels of proposals, hinge loss, hard negatives, ridge regression, detections."""

from typing import Any

import torch
import torchvision
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, Matcher

from minircnn.course.check.boxes_and_metrics import random_boxes
from minircnn.course.check.judge import Ask, NotYet, exercise
from minircnn.course.errors import KINDS
from minircnn.course.errors import error_kind as _error_kind
from minircnn.rcnn import EASY, HARD, SVMSettings, margins, train_svm

# ------------------------------------------------------------------------------ labels


def _finetuning_labels(proposals: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    """The class of the object that each proposal overlaps most, 0 below an IoU of 0.5, by torchvision's Matcher."""
    if not len(boxes):
        return torch.zeros(len(proposals), dtype=torch.int64)
    matched = Matcher(0.5, 0.5)(torchvision.ops.box_iou(boxes, proposals))  # (P,): an object, or -1
    return torch.where(matched >= 0, labels[matched.clamp(min=0)], 0)


@exercise(_finetuning_labels)
def finetuning_labels(ask: Ask) -> str:
    """The class of each proposal for fine-tuning."""
    boxes, labels = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 2.0, 10.0, 12.0]]), torch.tensor([5, 2])
    spans = ((0.0, 5.0), (1.5, 11.5), (0.0, 4.0), (30.0, 40.0), (0.5, 10.5))  # top and bottom; IoU 0.5, then by far
    proposals = torch.tensor([[0.0, top, 10.0, bottom] for top, bottom in spans])
    slips = {
        "an IoU equal to 0.5 is enough for a class": [0, 2, 0, 0, 5],
        "it takes the first object that is overlapped by 0.5; take the one that is overlapped most": [5, 5, 0, 0, 5],
        "it takes the last object that is overlapped by 0.5; take the one that is overlapped most": [5, 2, 0, 0, 2],
        "a proposal below an IoU of 0.5 is background, 0, even if it overlaps some object": [5, 2, 5, 5, 5],
        "the threshold of the SVMs is 0.3; here it is 0.5": [5, 2, 5, 0, 5],
        "it returns which object each proposal overlaps, not that object's class: look it up in labels": lambda v: (
            v.tolist() in ([0, 1, 0, 0, 0], [1, 2, 0, 0, 1], [0, 1, -1, -1, 0])
        ),
        "background has the label 0": lambda v: v[3] != 0,
    }
    slips = {text: torch.tensor(wrong) if isinstance(wrong, list) else wrong for text, wrong in slips.items()}
    wanted = _finetuning_labels(proposals, boxes, labels)
    ask.compare(proposals, boxes, labels, wanted=wanted, slips=slips, case="for five proposals and two objects")
    _without_objects(ask, torch.zeros(5, dtype=torch.int64), "every proposal is background, 0", proposals)
    for seed in range(20):
        proposals, boxes = random_boxes(80, seed=seed), random_boxes(6, seed=seed + 100)
        labels = torch.arange(1, 7).roll(seed)
        wanted = _finetuning_labels(proposals, boxes, labels)
        ask.compare(proposals, boxes, labels, wanted=wanted, case="for 80 proposals and 6 objects")
    return "equal to torchvision's Matcher for 20 images of 80 proposals"


def _without_objects(ask: Ask, wanted: Tensor, rule: str, proposals: Tensor, *more: Any) -> None:  # noqa: ANN401
    """Ask about an image without objects, where a maximum over no objects raises."""
    try:
        value = ask(proposals, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), *more)
    except NotYet as slip:
        raise NotYet(f"in an image without objects {slip}") from slip
    if not isinstance(value, Tensor) or value.shape != wanted.shape or not torch.equal(value, wanted):
        raise NotYet(f"in an image without objects {rule}")


def _svm_negatives(proposals: Tensor, boxes: Tensor, labels: Tensor, k: int) -> Tensor:
    """Which proposals overlap every object of a class by less than 0.3."""
    return (torchvision.ops.box_iou(proposals, boxes[labels == k]) < 0.3).all(dim=1)


@exercise(_svm_negatives)
def svm_negatives(ask: Ask) -> str:
    """Which proposals are negatives for the SVM of a class."""
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 0.0, 60.0, 10.0], [80.0, 80.0, 90.0, 90.0]])
    labels = torch.tensor([3, 3, 2])
    parts = ((0.0, 0.0, 9.0), (50.0, 0.0, 6.0), (0.0, 0.0, 4.0), (0.0, 0.0, 2.0), (80.0, 80.0, 9.0), (20.0, 50.0, 9.0))
    proposals = torch.tensor([[x, y, x + 10, y + height] for x, y, height in parts])
    iou = torchvision.ops.box_iou(proposals, boxes)
    wanted = _svm_negatives(proposals, boxes, labels, 3)
    slips = {
        "a negative overlaps *every* object of the class by less than 0.3, not just one of them: all, not any": (
            iou[:, :2] < 0.3
        ).any(dim=1),
        "it looks at the first object of the class only": iou[:, 0] < 0.3,
        "it looks at the last object of the class only": iou[:, 1] < 0.3,
        "objects of other classes do not count: a proposal on a car is a negative for the SVM of cats": (iou < 0.3).all(
            dim=1
        ),
        "the threshold of fine-tuning is 0.5; here it is 0.3": (iou[:, :2] < 0.5).all(dim=1),
        "those are the proposals that are not used; wanted are the others": ~wanted,
        "a proposal that overlaps no object at all is a negative, too": wanted & (iou[:, :2] > 0).any(dim=1),
    }
    arguments = (proposals, boxes, labels)
    ask.compare(*arguments, 3, wanted=wanted, slips=slips, case="for six proposals, two cats and a car")
    tie = torch.tensor([[0.0, 0.0, 10.0, 3.0]])  # IoU 0.3
    slips = {"at an IoU equal to 0.3 a proposal is not used": torch.tensor([True])}
    ask.compare(tie, boxes, labels, 3, wanted=torch.tensor([False]), slips=slips)
    every = torch.ones(6, dtype=torch.bool)
    rule = "all proposals are negatives"
    try:
        value = ask(*arguments, 1)
    except NotYet as slip:
        raise NotYet(f"in an image without an object of the class {slip}") from slip
    if not torch.equal(value, every):
        raise NotYet(f"in an image without an object of the class {rule}")
    _without_objects(ask, every, rule, proposals, 3)
    for seed in range(20):
        proposals, boxes, labels = random_boxes(80, seed=seed), random_boxes(6, seed=seed + 100), torch.arange(6) % 3
        wanted = _svm_negatives(proposals, boxes, labels, 2)
        ask.compare(proposals, boxes, labels, 2, wanted=wanted, case="for 80 proposals and 6 objects")
    return "checked on 20 images of 80 proposals, and without objects"


# ------------------------------------------------------------------------------ support vector machines


def _hinge_loss(scores: Tensor, signs: Tensor) -> Tensor:
    """max(0, 1 - y s) of each example."""
    return (1 - signs * scores).clamp(min=0)


@exercise(_hinge_loss)
def hinge_loss(ask: Ask) -> str:
    """The loss of each example of an SVM."""
    scores, signs = torch.tensor([2.0, 0.5, -1.5, -0.5, 0.25]), torch.tensor([1.0, 1.0, -1.0, -1.0, -1.0])
    loss = _hinge_loss(scores, signs)
    slips = {
        "an example beyond its margin has loss 0, not a negative one": 1 - signs * scores,
        "it forgets the sign: a negative is wanted at -1 or below": (1 - scores).clamp(min=0),
        "the sign is that of the wrong side: it is 1 - y s": (1 + signs * scores).clamp(min=0),
        "it starts at 0 and not at the margin: the 1 is missing": (-signs * scores).clamp(min=0),
        "it is squared; the hinge loss is not": loss**2,
        "it returns one number; wanted is the loss of each example": lambda v: v.numel() == 1,
        "it is capped at 1; the loss of a wrong example goes on growing": loss.clamp(max=1),
    }
    ask.compare(scores, signs, wanted=loss, slips=slips, case="for five examples")
    generator = torch.Generator().manual_seed(0)
    scores, signs = 2 * torch.randn(500, generator=generator), torch.randn(500, generator=generator).sign()
    value = ask.compare(scores, signs, wanted=_hinge_loss(scores, signs), case="for 500 examples")
    from sklearn import metrics  # takes seconds to import

    if abs(value.double().mean().item() - metrics.hinge_loss(signs.numpy(), scores.numpy())) > 1e-4:
        raise NotYet("its mean differs from scikit-learn's hinge_loss")
    return "its mean is scikit-learn's for 500 examples"


def _mining_round(weights: Tensor, positives: Tensor, negatives: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """Take the hard ones of the new negatives in, fit the SVM again, and drop what has become easy."""
    hard = new[margins(new, weights) > HARD]
    negatives = torch.cat([negatives, hard])
    fitted = train_svm(positives, negatives, SVMSettings())
    kept = negatives[margins(negatives, fitted) >= EASY]
    return fitted, kept[kept[:, 0].argsort()]  # in which order they are kept does not matter


@exercise(_mining_round)
def mining_round(ask: Ask) -> str:
    """One round of hard negative mining."""

    def in_order(weights: Tensor, positives: Tensor, negatives: Tensor, new: Tensor) -> Any:  # noqa: ANN401
        value = ask.answer(weights, positives, negatives, new)
        if isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(part, Tensor) for part in value):
            return value[0], value[1][value[1][:, 0].argsort()] if value[1].dim() == 2 else value[1]
        return value

    slips = """
        > HARD => > 0 !! a negative is hard from a score of -1 on, where its loss begins, not from 0
        > HARD => > -torch.inf !! all new negatives are taken in; take those with a score above -1
        > HARD => <= HARD !! it takes in the easy ones, with a score below -1; take the hard ones
        torch.cat([negatives, hard]) => hard
            !! the negatives from before are lost: fit to them and the hard ones together
        train_svm(positives, negatives, SVMSettings()) => weights !! the SVM is still the one from before: fit again
        margins(negatives, fitted) => margins(negatives, weights)
            !! what is easy is judged by the SVM from before; judge it by the new one
        torch.cat([negatives, => torch.cat([negatives[margins(negatives, weights) >= EASY],
            !! easy negatives were dropped before the SVM was fitted; fit first, then drop
        >= EASY => >= -torch.inf !! no negative is dropped: those below -1.2 go
        >= EASY => >= HARD !! it drops what scores below -1; drop what scores below -1.2
        >= EASY => < EASY !! it keeps the easy negatives and drops the others
        negatives[margins(negatives, fitted) >= EASY] => hard
            !! it returns the hard ones of the new negatives alone, not all that are kept
    """
    cases = [_mining_case(seed) for seed in (4, 5)]  # with these every slip changes something
    Ask(in_order, ask.name, ask.reference).cases(cases, slips, "for 80 new negatives", rtol=1e-2, atol=1e-3)
    return "the same SVM and the same negatives in two rounds"


def _mining_case(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """An SVM that was fitted to few negatives, its positives, those negatives, and new ones."""
    draw = torch.randn(180, 3, generator=torch.Generator().manual_seed(seed)) * 12
    positives, negatives, new = draw[:40] + 14, draw[40:100] - 14, draw[100:] - 8
    weights = train_svm(positives, negatives[:10], SVMSettings())
    # Turned, so that some that are easy for it will not be so for the next one.
    weights[:-1] += 0.6 * weights[:-1].norm() * torch.nn.functional.normalize(draw[0], dim=0)
    weights[-1] -= 0.8
    return weights, positives, negatives, new


# ------------------------------------------------------------------------------ box regression


def _fit_ridge(x: Tensor, t: Tensor, ridge: float) -> Tensor:
    """Ridge regression by scikit-learn: ``(N, D)`` and ``(N, 4)`` to ``(4, D + 1)`` with the bias last."""
    from sklearn.linear_model import Ridge  # takes seconds to import

    line = Ridge(alpha=ridge).fit(x.double().numpy(), t.double().numpy())
    weights, bias = torch.from_numpy(line.coef_), torch.as_tensor(line.intercept_)
    return torch.cat([weights, bias[:, None]], dim=1).float()


@exercise(_fit_ridge)
def fit_ridge(ask: Ask) -> str:
    """Ridge regression in closed form."""
    for seed, (count, size) in enumerate(((60, 12), (12, 60))):  # more examples than features, and fewer
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(count, size, generator=generator) + 2
        t = 0.3 * torch.randn(count, 4, generator=generator) + torch.tensor([0.5, -0.2, 0.1, 0.3])
        x[:, 0] += 3 * t[:, 0]
        wanted = _fit_ridge(x, t, 10.0)
        case = f"for {count} examples of {size} features"
        slips = {
            "it is transposed: wanted is a row for each of dx, dy, dw, dh": wanted.T,
            "the bias is missing, the last column": wanted[:, :-1],
            "the bias comes first; wanted is the bias last": wanted.roll(1, dims=1),
            **{text: line.float() for text, line in _ridge_slips(x.double(), t.double(), 10.0).items()},
        }
        ask.compare(x, t, 10.0, wanted=wanted, slips=slips, case=case, rtol=1e-3, atol=1e-4)
    return "equal to scikit-learn's Ridge, for more examples than features and for fewer"


def _ridge_slips(x: Tensor, t: Tensor, ridge: float) -> dict[str, Tensor]:
    def solve(x: Tensor, t: Tensor, ridge: float) -> Tensor:
        gram = x.T @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype)
        return (torch.linalg.pinv(gram) @ x.T @ t).T  # (4, D)

    x_mean, t_mean = x.mean(dim=0), t.mean(dim=0)
    centered, ones = (x - x_mean, t - t_mean), torch.ones(len(x), 1, dtype=x.dtype)
    plain, right = solve(x, t, ridge), solve(*centered, ridge)

    def with_bias(weights: Tensor) -> Tensor:
        return torch.cat([weights, (t_mean - weights @ x_mean)[:, None]], dim=1)

    return {
        "the penalty shrinks the bias as well: center x and t, so that it stays free": solve(
            torch.cat([x, ones], dim=1), t, ridge
        ),
        "x and t are not centered: the bias is 0": torch.cat([plain, 0 * t_mean[:, None]], dim=1),
        "the weights are fitted to x and t that are not centered: subtract their means first": with_bias(plain),
        "the bias is the mean of t; subtract what the weights make of the mean of x": torch.cat(
            [right, t_mean[:, None]], dim=1
        ),
        "the ridge is missing: add ridge to the diagonal": with_bias(solve(*centered, 0.0)),
        "the ridge is multiplied by the number of examples": with_bias(solve(*centered, ridge * len(x))),
        "the ridge is squared": with_bias(solve(*centered, ridge**2)),
        "the ridge is subtracted; add it to the diagonal": with_bias(solve(*centered, -ridge)),
    }


# ------------------------------------------------------------------------------ detections


def _detect(
    proposals: Tensor,
    scores: Tensor,
    deltas: Tensor,
    size: tuple[int, int],
    threshold: float = -1.5,
    iou_threshold: float = 0.3,
    **slip: bool,
) -> dict[str, Tensor]:
    """Refined boxes after NMS within each class, by torchvision's parts; ``slip`` turns on what goes wrong."""
    parts, rows = [], torch.arange(len(proposals))
    for k in range(0 if slip.get("background") else 1, scores.shape[1]):
        good = rows if slip.get("all_scores") else rows[scores[:, k] > threshold]
        if slip.get("one_class"):
            good = good[scores[good].argmax(dim=1) == k]
        of_class = deltas[good, 1 if slip.get("first_deltas") else k] * (not slip.get("unrefined"))
        boxes = BoxCoder((1.0, 1.0, 1.0, 1.0)).decode_single(of_class, proposals[good])
        if not slip.get("unclipped"):
            boxes = torchvision.ops.clip_boxes_to_image(boxes, size[::-1] if slip.get("exchanged") else size)
        kept = torch.arange(len(good))
        if slip.get("early") or slip.get("twice"):
            kept = torchvision.ops.nms(proposals[good], scores[good, k], iou_threshold)
        if not slip.get("early") and not slip.get("no_nms") and not slip.get("together"):
            kept = kept[torchvision.ops.nms(boxes[kept], scores[good, k][kept], iou_threshold)]
        parts.append((boxes[kept], torch.full_like(kept, k), scores[good, k][kept]))
    boxes, labels, best = (torch.cat(values) for values in zip(*parts, strict=True))
    order = torch.arange(len(best)) if slip.get("unsorted") else best.argsort(descending=True, stable=True)
    if slip.get("together") or slip.get("again"):
        order = torchvision.ops.nms(boxes, best, iou_threshold)
    return {"boxes": boxes[order], "labels": labels[order], "scores": best[order]}


_DETECT_SLIPS = {
    "NMS runs over all classes together: a cat on a car has to survive, so run it within each class": "together",
    "after NMS within each class it runs again over all of them; a cat on a car has to survive": "again",
    "NMS looks at the proposals before they are refined; refine the boxes first": "early",
    "NMS runs twice, on the proposals and on the refined boxes; refine first, then run it once": "twice",
    "there is no NMS: duplicates are left": "no_nms",
    "the boxes are still the proposals: decode the deltas": "unrefined",
    "every class takes the deltas of class 1; each has its own: deltas[:, k]": "first_deltas",
    "column 0 is the background, which is no detection": "background",
    "low scores stay: a detection scores more than the threshold": "all_scores",
    "the boxes leave the image: clip them": "unclipped",
    "height and width are exchanged when the boxes are clipped; size is (height, width)": "exchanged",
    "the detections are sorted class by class; the best score of all comes first": "unsorted",
    "a proposal is detected as its best class only; it may be a detection of several": "one_class",
}


@exercise(_detect)
def detect(ask: Ask) -> str:
    """Detections of an image out of proposals, scores and deltas."""
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        objects = random_boxes(8, seed=seed) * 0.7 + torch.tensor([0.0, 0.0, 30.0, 30.0])
        proposals = objects.repeat(8, 1) + 4 * torch.randn(64, 4, generator=generator)
        scores = torch.randn(64, 4, generator=generator) - 0.5
        deltas = 0.25 * torch.randn(64, 4, 4, generator=generator)
        arguments = proposals, scores, deltas, (90, 110)
        slips = {text: _detect(*arguments, **{name: True}) for text, name in _DETECT_SLIPS.items()}
        right = _detect(*arguments)
        slips["labels are off by one: column k of the scores is class k"] = {**right, "labels": right["labels"] - 1}
        ask.compare(*arguments, wanted=right, slips=slips, case="for 64 proposals of 4 classes", rtol=1e-3, atol=1e-3)
    for options in ({"threshold": 0.5}, {"iou_threshold": 0.7}):
        slips = {f"{next(iter(options))} is ignored; take it from the arguments": right}
        wanted = _detect(*arguments, **options)
        ask.compare(*arguments, **options, wanted=wanted, slips=slips, case=f"for {options}", rtol=1e-3, atol=1e-3)
    try:
        ask.compare(*arguments, threshold=9.0, wanted=_detect(*arguments, 9.0))
    except NotYet as slip:
        raise NotYet(f"where no score is above the threshold {slip}") from slip
    return "equal to torchvision's decoding, clipping and NMS for 5 images"


# ------------------------------------------------------------------------------ errors


@exercise(_error_kind)
def error_kind(ask: Ask) -> str:
    """Which kind of error a detection is."""
    true, place, name, nothing = KINDS
    duplicate = "an object that a better detection has taken is not found again: a duplicate is a localization error"
    own = "an object of its own class comes first, from an IoU of 0.1 on, even if another one is overlapped more"
    other = "the object that it overlaps is of another class"
    cases = (  # IoU with objects of classes 3, 2, 3; which of them are taken; what is wanted, and slips
        ((0.7, 0.2, 0.1), (0, 0, 0), true, {}),
        ((0.7, 0.0, 0.6), (1, 0, 0), place, {true: duplicate, nothing: duplicate, name: duplicate}),
        ((0.3, 0.0, 0.0), (0, 0, 0), place, {nothing: "an IoU of 0.1 to 0.5 is a localization error"}),
        ((0.05, 0.6, 0.0), (0, 0, 0), name, {true: other, place: other, nothing: other}),
        ((0.2, 0.8, 0.0), (0, 0, 0), place, {name: own, true: other}),
        ((0.05, 0.05, 0.0), (0, 0, 0), nothing, dict.fromkeys((place, name), "below an IoU of 0.1 it is background")),
        ((0.5, 0.0, 0.0), (0, 0, 0), true, {place: "an IoU equal to 0.5 is enough"}),
        ((0.1, 0.0, 0.0), (0, 0, 0), place, dict.fromkeys((nothing, name), "an IoU equal to 0.1 is enough")),
        ((0.2, 0.0, 0.9), (0, 0, 0), true, {place: "it looks at the first object of its class, not at the best"}),
        ((0.0, 0.1, 0.0), (0, 0, 0), name, {nothing: "an IoU equal to 0.1 is enough for a class confusion"}),
    )
    labels = torch.tensor([3, 2, 3])
    for overlap, taken, wanted, by_answer in cases:
        arguments = torch.tensor(overlap), labels, 3, torch.tensor(taken, dtype=torch.bool)
        slips = {"it returns none of the four names; wanted is a str of KINDS": lambda v: v not in KINDS}
        for text in by_answer.values():
            slips[text] = lambda v, text=text, by_answer=by_answer: by_answer.get(v) == text
        ask.compare(*arguments, wanted=wanted, slips=slips, case=f"for IoU {list(overlap)} with classes 3, 2, 3")
    try:
        ask.compare(torch.zeros(0), labels[:0], 3, torch.zeros(0, dtype=torch.bool), wanted=nothing)
    except NotYet as slip:
        raise NotYet(f"in an image without objects {slip}") from slip
    return "checked on ten detections by hand, and without objects"
