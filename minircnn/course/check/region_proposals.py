"""The exercises of notebook 07: anchors, the RPN's head, proposals, labels of anchors, and the loss."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers
from torchvision.models.detection.rpn import RPNHead as TorchvisionRPNHead

from minircnn import faster_rcnn as ours
from minircnn.boxes import IGNORED, box_iou, clip_boxes, decode_boxes, encode_boxes, match, nms, subsample
from minircnn.course.check.boxes_and_metrics import random_boxes
from minircnn.course.check.judge import Ask, NotYet, exercise


def _part(n: int, wrong: Mapping[str, Tensor]) -> dict[str, Callable[[Sequence[Tensor]], bool]]:
    """Slips by which value ``n`` of an answer is this wrong tensor, whatever the others are."""
    return {
        text: lambda v, w=w: v[n].shape == w.shape and torch.allclose(v[n], w, 1e-4, 1e-4) for text, w in wrong.items()
    }


@exercise(ours.base_anchors)
def base_anchors(ask: Ask) -> str:
    """The anchors of one cell."""
    for sizes, ratios in (([16.0, 40.0], [0.5, 1.0, 4.0]), ([20.0, 36.0, 64.0, 112.0], [0.5, 1.0, 2.0])):
        r, s = (grid.flatten() for grid in torch.meshgrid(torch.tensor(ratios), torch.tensor(sizes), indexing="ij"))
        wide, tall = s / r.sqrt(), s * r.sqrt()
        wanted = AnchorGenerator().generate_anchors(sizes, ratios)
        by_size = wanted.view(len(ratios), len(sizes), 4).transpose(0, 1).reshape(-1, 4)
        slips = {
            "the aspect ratio is height / width: with 2 an anchor is tall": _around(tall, wide),
            "the area changes with the ratio: width · height must be size²": _around(s, s * r),
            "width and height lack the square root: their ratio becomes ratio²": _around(s / r, s * r),
            "the order differs: all sizes of the first ratio come first, then those of the next": by_size,
            "corners lie half of the width and height away from the center, not all of it": _around(2 * wide, 2 * tall),
            "corners are not rounded to whole pixels": lambda v, w=wanted: torch.equal(v.round(), w),
            "the upper left corner is at (0, 0); the center belongs there": lambda v: (v[:, :2] == 0).all(),
        }
        ask.compare(sizes, ratios, wanted=wanted, slips=slips, case=f"for sizes {sizes} and ratios {ratios}")
    return "equal to torchvision's AnchorGenerator"


def _around(widths: Tensor, heights: Tensor) -> Tensor:
    return (torch.stack([-widths, -heights, widths, heights], dim=1) / 2).round()


def _grid_anchors(base: Tensor, grid_size: tuple[int, int], stride: int, offset: float = 0.5) -> Tensor:
    """The anchors ``(A, 4)`` of one cell, at every cell of a feature map ``(h, w)``: ``(h · w · A, 4)``."""
    y, x = ((torch.arange(count) + offset) * stride for count in grid_size)
    center = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).repeat(1, 1, 2)  # (h, w, 4)
    return (center[:, :, None] + base).view(-1, 4)


@exercise(_grid_anchors)
def grid_anchors(ask: Ask) -> str:
    """The anchors of all cells."""
    base = AnchorGenerator().generate_anchors([16.0, 40.0], [0.5, 1.0, 2.0])  # (6, 4)
    generator = AnchorGenerator()
    generator.cell_anchors = [base]
    for (h, w), stride, offset in (((2, 3), 8, 0.5), ((3, 2), 16, 0.0), ((12, 20), 8, 0.5)):
        corner = generator.grid_anchors([[h, w]], [[torch.tensor(stride), torch.tensor(stride)]])[0]  # offset 0
        wanted = corner + offset * stride
        cells = wanted.view(h, w, -1, 4)
        exchanged = base + (cells - base)[..., [1, 0, 3, 2]]
        slips = {
            "x and y are exchanged: the column gives x, the row y": exchanged.view(-1, 4),
            "grid_size is (height, width): h rows of w cells": _grid_anchors(base, (w, h), stride, offset),
            "it goes down the columns; row by row is wanted": cells.transpose(0, 1).reshape(-1, 4),
            "the order differs; the anchors of one cell stand side by side": cells.permute(2, 0, 1, 3).reshape(-1, 4),
            "the offset is missing: the center of cell 0 is at offset · stride": corner,
            "the offset is taken as pixels; it is a share of the stride": corner + offset,
            "the anchors are clipped to the image; leave them as they are": lambda v: v.min() >= 0,
            "cells are one pixel apart; they are stride pixels apart": lambda v: v[len(base), 0] - v[0, 0] == 1,
        }
        case = f"for {h} × {w} cells, stride {stride}, offset {offset}"
        ask.compare(base, (h, w), stride, offset, wanted=wanted, slips=slips, case=case)
    return "equal to torchvision's AnchorGenerator, moved by the offset"


class _RPNHead(nn.Module):
    """A 3 × 3 convolution and two siblings of 1 × 1, with the names of the exercise."""

    def __init__(self, channels: int, num_anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.cls_logits = nn.Conv2d(channels, num_anchors, 1)
        self.bbox_pred = nn.Conv2d(channels, 4 * num_anchors, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(features).relu()
        objectness = self.cls_logits(x).permute(0, 2, 3, 1)  # (B, h, w, A)
        deltas = self.bbox_pred(x).permute(0, 2, 3, 1)
        return objectness.flatten(1), deltas.reshape(len(x), -1, 4)


def convolutions(head: nn.Module) -> list[nn.Conv2d]:
    """The convolutions of an RPN head: window, objectness, deltas. Each layer may be a sequence that holds one."""
    layers = (getattr(head, name).modules() for name in ("conv", "cls_logits", "bbox_pred"))
    return [next(module for module in layer if isinstance(module, nn.Conv2d)) for layer in layers]


@exercise(_RPNHead)
def RPNHead(ask: Ask) -> str:
    """The small network that slides over the feature map."""
    head, theirs = ask(8, 3), TorchvisionRPNHead(8, 3)
    if not isinstance(head, nn.Module):
        raise NotYet("it is no nn.Module: write class RPNHead(nn.Module), with __init__ and forward")
    with torch.no_grad():
        for name, layer in zip(("conv", "cls_logits", "bbox_pred"), convolutions(theirs), strict=True):
            own = getattr(head, name, None)
            if not isinstance(own, nn.Module):
                raise NotYet(f"it has no layer self.{name}")
            own = [module for module in own.modules() if isinstance(module, nn.Conv2d)]
            if [module.weight.shape for module in own] != [layer.weight.shape]:
                shapes = [tuple(module.weight.shape) for module in own]
                raise NotYet(
                    f"self.{name} has weights {shapes}; one convolution of {tuple(layer.weight.shape)} is wanted"
                )
            if own[0].bias is None:
                raise NotYet(f"self.{name} lacks its bias")
            own[0].weight.copy_(layer.weight.normal_(std=0.3))
            own[0].bias.copy_(layer.bias.normal_(std=0.3))
        _compare_head(Ask(lambda features: head(features), "RPNHead"), theirs)
    return "equal to torchvision's RPNHead with the same weights"


def _compare_head(ask: Ask, theirs: nn.Module) -> None:
    def by_cell(values: Tensor) -> Tensor:
        return values.permute(0, 2, 3, 1).flatten(1)

    features = torch.randn(2, 8, 4, 5)
    hidden, linear = theirs.conv(features), theirs.conv[0][0](features)
    logits, moves = theirs.cls_logits(hidden), theirs.bbox_pred(hidden)
    objectness, deltas = concat_box_prediction_layers([logits], [moves])
    wanted, swapped = (objectness.view(2, -1), deltas.view(2, -1, 4)), moves.reshape(2, -1, 4)
    straight = by_cell(theirs.bbox_pred(features)).view(2, -1, 4)
    first = {
        "the ReLU behind the 3 × 3 convolution is missing": by_cell(theirs.cls_logits(linear)),
        "the order of logits differs: move the anchors behind the cells (permute) before you flatten": logits.flatten(
            1
        ),
        "rows and columns are exchanged; cells go row by row": logits.permute(0, 3, 2, 1).flatten(1),
        "objectness went through a sigmoid; logits are wanted": wanted[0].sigmoid(),
    }
    second = {
        "the order of deltas differs: permute them, too, before you reshape": swapped,
        "bbox_pred looks at the features; it stands behind the same hidden layer as cls_logits": straight,
    }
    slips = {
        "the windows at the edge are missing: the 3 × 3 convolution needs padding=1": lambda v: v[0].numel() == 2 * 18,
        **_part(0, first),
        **_part(1, second),
    }
    ask.compare(features, wanted=wanted, slips=slips, case="for a map of 4 × 5 cells", atol=1e-4)


def _filter_proposals(
    objectness: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    size: tuple[int, int],
    nms_threshold: float = 0.7,
    pre_nms_top_n: int = 1000,
    post_nms_top_n: int = 300,
) -> tuple[Tensor, Tensor]:
    """Proposals of one image out of the RPN's outputs: boxes ``(P, 4)`` and scores ``(P,)``, best first."""
    best = objectness.topk(min(pre_nms_top_n, len(objectness))).indices
    boxes = clip_boxes(decode_boxes(anchors[best], deltas[best]), size)
    scores = objectness[best].sigmoid()
    large = ((boxes[:, 2:] - boxes[:, :2]) >= 1e-3).all(dim=1)
    boxes, scores = boxes[large], scores[large]
    kept = nms(boxes, scores, nms_threshold)[:post_nms_top_n]
    return boxes[kept], scores[kept]


def _torchvision_rpn(pre: int = 1000, post: int = 300, threshold: float = 0.7) -> nn.Module:
    """Torchvision's network, for its labels, loss and proposals: it has no layers of use."""
    tops = {"testing": pre}, {"testing": post}
    return RegionProposalNetwork(nn.Identity(), nn.Identity(), 0.7, 0.3, 128, 0.5, *tops, threshold).eval()


@exercise(_filter_proposals)
def filter_proposals(ask: Ask) -> str:
    """From thousands of outputs to a few boxes."""
    generator = torch.Generator().manual_seed(0)
    anchors = (random_boxes(50, seed=3) * torch.tensor([1.2, 0.8, 1.2, 0.8]) - 4).repeat(8, 1)
    anchors[::9] += 200  # beside the image
    objectness, deltas = torch.randn(400, generator=generator) * 3, 0.08 * torch.randn(400, 4, generator=generator)
    size, given = (60, 100), {"nms_threshold": 0.5, "pre_nms_top_n": 150, "post_nms_top_n": 40}

    def with_(
        logits: Tensor = objectness, moves: Tensor = deltas, to: tuple[int, int] = size, **changes: float
    ) -> tuple:
        return _filter_proposals(logits, moves, anchors, to, **{**given, **changes})

    rpn = _torchvision_rpn(150, 40, 0.5)
    wanted = [one[0] for one in rpn.filter_proposals(decode_boxes(anchors, deltas)[None], objectness, [size], [400])]
    best = objectness.topk(150).indices
    shifted = deltas.clone()
    shifted[best] = deltas[:150]
    slips = {
        "the boxes are the anchors as they are: decode the deltas": with_(moves=torch.zeros_like(deltas)),
        "anchors and deltas do not belong together: index both by the best": with_(moves=shifted),
        "size is (height, width), and here it is used the other way round": with_(to=size[::-1]),
        "boxes reach out of the image: clip them": lambda v: (v[0][:, 2] > 100.01).any() or (v[0] < -0.01).any(),
        "boxes without area stay; drop those with a side below 0.001": lambda v: (
            (v[0][:, 2:] - v[0][:, :2]).min() < 1e-3
        ),
        "it keeps all that NMS leaves and not the best post_nms_top_n": with_(post_nms_top_n=10_000),
        "the threshold of NMS is not the argument": with_(nms_threshold=0.7),
        "NMS is missing": with_(nms_threshold=1.0),
        "scores are logits; the sigmoid makes probabilities of them": lambda v: v[1].max() > 1,
        "it takes the anchors with the lowest scores": lambda v: v[1].max() < 0.5,
    }
    slips = {text: wrong if callable(wrong) else tuple(wrong) for text, wrong in slips.items()}
    arguments = objectness, deltas, anchors, size
    ask.compare(*arguments, wanted=tuple(wanted), slips=slips, case="for 400 anchors", atol=1e-3, **given)
    given |= {"pre_nms_top_n": 20, "nms_threshold": 0.95}
    slips = {"it takes all anchors into NMS and not the best pre_nms_top_n": lambda v: len(v[0]) > 20}
    ask.compare(*arguments, wanted=with_(), slips=slips, case="for pre_nms_top_n 20", atol=1e-3, **given)
    few = [value[:5] for value in arguments[:3]]
    try:
        ask.compare(*few, size, wanted=_filter_proposals(*few, size), atol=1e-3)
    except NotYet as slip:
        raise NotYet(f"for fewer anchors than pre_nms_top_n: {slip}") from None
    return "equal to torchvision's filter_proposals for 400 anchors"


def _label_anchors(anchors: Tensor, boxes: Tensor, high: float = 0.7, low: float = 0.3) -> tuple[Tensor, Tensor]:
    """The object that each anchor overlaps most, and 1 positive, 0 negative, -1 ignored: both ``(N,)`` int64."""
    return match(box_iou(boxes, anchors), high, low, allow_low_quality_matches=True)


def _boxes(*rows: Sequence[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


@exercise(_label_anchors)
def label_anchors(ask: Ask) -> str:
    """Which anchors are positive, negative, or ignored."""
    # IoU with the first object is height / 10; with the second, far away, two anchors tie at 0.4.
    anchors = _boxes(*([0, 0, 10, h] for h in (10, 7, 6.9, 5, 3, 2.9)), [50, 0, 60, 4], [50, 6, 60, 10])
    objects, index = _boxes([0, 0, 10, 10], [50, 0, 60, 10]), torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    wrong = {
        "an object without an anchor of IoU `high` gets no positive one: its best anchors are positive": "++???-??",
        "two anchors tie for the second object: both are positive": "++???-+?",
        "every anchor is the best of some object in your rule; for each *object* take its best anchor": "++++++++",
        "an IoU of exactly `high` is positive": "+????-++",
        "an IoU of exactly `low` is ignored, not negative": "++??--++",
        "between `low` and `high` an anchor is ignored (-1)": "++----++",
        "it says -1 for negative and 0 for ignored; they are exchanged": [1, 1, 0, 0, 0, -1, 1, 1],
    }
    values = {"+": 1, "-": 0, "?": -1}
    wrong = {text: torch.tensor([values.get(one, one) for one in labels]) for text, labels in wrong.items()}
    wanted = index, torch.tensor([1, 1, -1, -1, -1, 0, 1, 1])
    slips = {"it returns the labels first; the index of the object comes first": wanted[::-1], **_part(1, wrong)}
    ask.compare(anchors, objects, wanted=wanted, slips=slips, case="for anchors of IoU 1, 0.7, 0.69, 0.5, 0.3, 0.29 …")
    nothing = torch.zeros(8, dtype=torch.int64)
    try:
        ask.compare(anchors, torch.zeros(0, 4), wanted=(nothing, nothing))
    except NotYet as slip:
        raise NotYet(f"without objects all anchors are negative, and their index is 0; here {slip}") from None
    # The first anchor lies on object 1, and is the best of the small object 0 inside it.
    both, inside = _boxes([0, 0, 10, 10], [30, 0, 31, 9]), _boxes([0, 0, 4, 5], [0, 0, 10, 10])
    text = "the index is the object that the *anchor* overlaps most, even if it is the best anchor of another object"
    wanted, slips = (torch.tensor([1, 0]), torch.tensor([1, 0])), {text: lambda v: v[0][0] == 0}
    ask.compare(both, inside, wanted=wanted, slips=slips, case="for one object inside of another")
    anchors = torch.cat([anchors, _boxes([100, 0, 110, 2])])  # of IoU 0.2 with its object
    objects = _boxes([0, 0, 10, 10], [50, 0, 60, 10], [100, 0, 110, 10], [200, 200, 210, 210])
    slips = {
        "an object that no anchor touches makes anchors positive; ask for an IoU above 0": lambda v: v[1].eq(1).all(),
        "a best anchor of IoU below `low` stays negative; the rule for best anchors comes last": lambda v: v[1][8] == 0,
    }
    wanted = _label_anchors(anchors, objects)
    ask.compare(anchors, objects, wanted=wanted, slips=slips, case="with an object that no anchor touches")
    anchors, boxes = _whole_image(), random_boxes(5, seed=9, size=190.0)
    theirs = _torchvision_rpn().proposal_matcher(box_iou(boxes, anchors))  # -1 negative, -2 ignored
    wanted = box_iou(boxes, anchors).argmax(dim=0), torch.where(theirs >= 0, 1, theirs + 1)
    ask.compare(anchors, boxes, wanted=wanted, case="for the 6,912 anchors of an image")
    return "equal to torchvision's Matcher for 6,912 anchors"


def _whole_image() -> Tensor:
    return _grid_anchors(ours.base_anchors([20.0, 36.0, 64.0, 112.0], [0.5, 1.0, 2.0]), (24, 24), 8)


_cross_entropy = F.binary_cross_entropy_with_logits


def _rpn_loss(objectness: Tensor, deltas: Tensor, anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of objectness and smooth L1 of the deltas, on 128 sampled anchors of one image."""
    gt_index, label = _label_anchors(anchors, boxes)
    positive, negative = subsample(label, 128, 0.5)
    sampled = torch.cat([positive, negative])
    objectness_loss = _cross_entropy(objectness[sampled], label[sampled].float())
    targets = encode_boxes(anchors[positive], boxes[gt_index[positive]])
    box_loss = F.smooth_l1_loss(deltas[positive], targets, beta=1 / 9, reduction="sum")
    return objectness_loss, box_loss / len(sampled)


@exercise(_rpn_loss)
def rpn_loss(ask: Ask) -> str:
    """The two losses of the RPN."""
    # 60 anchors, of which all that count are sampled: nothing depends on chance.
    boxes, generator = _boxes([20, 20, 60, 70], [80, 10, 120, 40]), torch.Generator().manual_seed(1)
    near = boxes.repeat(15, 1) + 5 * torch.randn(30, 4, generator=generator)
    anchors = torch.cat([near, random_boxes(30, seed=4) + torch.tensor([0.0, 0.0, 4.0, 4.0])])
    objectness, deltas = torch.randn(60, generator=generator), 0.4 * torch.randn(60, 4, generator=generator)
    rpn = _torchvision_rpn()
    labels, matched = rpn.assign_targets_to_anchors([anchors], [{"boxes": boxes}])
    goals = rpn.box_coder.encode(matched, [anchors])
    wanted = rpn.compute_loss(objectness[:, None], deltas, labels, goals)
    own = boxes[box_iou(boxes, anchors).argmax(dim=0)]
    slips = {
        "the two losses are exchanged; the objectness loss comes first": wanted[::-1],
        **_part(0, _wrong_objectness_losses(objectness, labels[0])),
        **_part(1, _wrong_box_losses(deltas, anchors, own, labels[0])),
    }
    ask.compare(objectness, deltas, anchors, boxes, wanted=wanted, slips=slips, case="for 60 anchors")
    _compare_sampling(ask)
    empty = torch.zeros(0, 4)
    try:
        ask.compare(objectness, deltas, anchors, empty, wanted=_rpn_loss(objectness, deltas, anchors, empty))
    except NotYet as slip:
        raise NotYet(f"for an image without objects: {slip}") from None
    if not all(
        loss.requires_grad for loss in ask(objectness.requires_grad_(), deltas.requires_grad_(), anchors, boxes)
    ):
        raise NotYet("its losses have no gradient; return tensors that were not detached")
    return "equal to torchvision's compute_loss"


def _wrong_objectness_losses(objectness: Tensor, labels: Tensor) -> dict[str, Tensor]:
    positive, negative, loss = (labels == 1).nonzero()[:, 0], (labels == 0).nonzero()[:, 0], _cross_entropy
    counted, halves = torch.cat([positive, negative]), torch.cat([positive, negative[: len(positive)]])
    logits, wanted = objectness[counted], labels[counted]
    return {
        "ignored anchors take part in the objectness loss; only sampled ones do": loss(objectness, labels.clamp(0)),
        "the objectness loss is a sum; the mean is wanted": loss(logits, wanted) * len(counted),
        "the objectness loss lacks the negative anchors": loss(objectness[positive], labels[positive]),
        "objectness went through a sigmoid before …_with_logits": loss(logits.sigmoid(), wanted),
        "a sample has as many negative as positive anchors; negative ones fill it up": loss(
            objectness[halves], labels[halves]
        ),
    }


def _wrong_box_losses(deltas: Tensor, anchors: Tensor, own: Tensor, labels: Tensor) -> dict[str, Tensor]:
    positive, counted = labels == 1, labels >= 0
    count, few = counted.sum(), positive.sum()

    def errors(which: Tensor, goals: Tensor, beta: float = 1 / 9) -> Tensor:
        return F.smooth_l1_loss(deltas[which], goals[which], beta=beta, reduction="sum")

    goals, back = encode_boxes(anchors, own), encode_boxes(own, anchors)
    total = errors(positive, goals)
    return {
        "the box loss includes negative anchors; only positive ones have an object": errors(counted, goals) / count,
        "the box loss is divided by the number of positive anchors; divide it by that of all sampled ones": total / few,
        "the box loss is the mean of all values; divide their sum by the number of sampled anchors": total / (4 * few),
        "the box loss is a sum; divide it by the number of sampled anchors": total,
        "smooth L1 has beta 1; 1 / 9 is wanted": errors(positive, goals, 1.0) / count,
        "the deltas are compared with 0 and not with the targets": errors(positive, 0 * goals) / count,
        "the targets lead from the object to the anchor: exchange them in encode_boxes": errors(positive, back) / count,
    }


def _compare_sampling(ask: Ask) -> None:
    """Compare on a whole image, with one logit for positive and one for negative anchors: chance decides nothing."""
    anchors, boxes = _whole_image(), _boxes([20, 30, 75, 85], [100, 90, 140, 170])
    _, label = _label_anchors(anchors, boxes)
    objectness = torch.where(label == 1, 1.0, torch.where(label == IGNORED, 9.0, -2.0))
    yes, no = F.softplus(torch.tensor([-1.0, -2.0]))  # the loss of each
    positive, negative = ((label == value).sum() for value in (1, 0))
    everyone = (positive * yes + negative * no) / (positive + negative)
    value: Any = ask(objectness, torch.zeros(len(anchors), 4), anchors, boxes)[0]
    if torch.isclose(value, everyone):
        raise NotYet("it takes all anchors that are not ignored; draw 128 of them with subsample")
    wanted = (positive * yes + (128 - positive) * no) / 128
    if not torch.isclose(value, wanted):
        said = f"{float(value):.4g} instead of {float(wanted):.4g}"
        raise NotYet(f"for 6,912 anchors, {positive} of them positive, the objectness loss is {said}")
