"""The exercises of notebook 07: anchors, the RPN's head, proposals, labels of anchors, and the loss."""

from collections.abc import Callable, Sequence

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


@exercise(ours.base_anchors)
def base_anchors(ask: Ask) -> str:
    """The anchors of one cell."""

    def made(width: Callable, height: Callable, by_size: bool = False) -> Tensor:
        pairs = [(s, r) for s in sizes for r in ratios] if by_size else [(s, r) for r in ratios for s in sizes]
        wh = torch.tensor([[width(s, r), height(s, r)] for s, r in pairs])
        return (torch.cat([-wh, wh], dim=1) / 2).round()

    for sizes, ratios in (([16.0, 40.0], [0.5, 1.0, 4.0]), ([20.0, 36.0, 64.0, 112.0], [0.5, 1.0, 2.0])):
        wide, tall = (lambda s, r: s / r**0.5), (lambda s, r: s * r**0.5)
        wanted = AnchorGenerator().generate_anchors(sizes, ratios)
        slips = {
            "the aspect ratio is height / width: with 2 an anchor is tall": made(tall, wide),
            "the area changes with the ratio: the height is size · √ratio, so that width · height = size²": made(
                lambda s, _: s, lambda s, r: s * r
            ),
            "width and height lack the square root: their ratio becomes ratio²": made(
                lambda s, r: s / r, lambda s, r: s * r
            ),
            "the order differs: all sizes of the first ratio come first, then those of the next": made(
                wide, tall, by_size=True
            ),
            "corners lie half of the width and height away from the center, not all of it": made(
                lambda s, r: 2 * wide(s, r), lambda s, r: 2 * tall(s, r)
            ),
            "corners are not rounded to whole pixels": lambda v, w=wanted: (
                v.shape == w.shape and not torch.equal(v, v.round()) and torch.equal(v.round(), w)
            ),
            "the upper left corner is at (0, 0); the center belongs there": wanted - wanted[:, :2].repeat(1, 2),
        }
        ask.compare(sizes, ratios, wanted=wanted, slips=slips, case=f"for sizes {sizes} and ratios {ratios}")
    return "equal to torchvision's AnchorGenerator"


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
        swapped = (base + (corner.view(h, w, -1, 4)[:, :, :1] - base[:1])[..., [1, 0, 3, 2]]).view(-1, 4)
        slips = {
            "x and y are exchanged: the column gives x, the row y": swapped + offset * stride,
            "it goes down the columns; row by row is wanted": cells.transpose(0, 1).reshape(-1, 4),
            "all cells of the first anchor come first; the anchors of one cell stand side by side": cells.permute(
                2, 0, 1, 3
            ).reshape(-1, 4),
            "the offset is missing: the center of cell 0 is at offset · stride": corner,
            "the offset is taken as pixels; it is a share of the stride": corner + offset,
            "cells are one pixel apart; they are stride pixels apart": (
                (wanted.view(h, w, -1, 4) - base) / stride + base
            ).view(-1, 4),
            "the anchors are clipped to the image; leave them as they are": clip_boxes(
                wanted, (h * stride, w * stride)
            ),
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
    """The three convolutions of an RPN head; ``conv`` may be a sequence that holds one."""
    found = [[m for m in getattr(head, name).modules() if isinstance(m, nn.Conv2d)] for name in _LAYERS]
    return [layers[0] for layers in found]


_LAYERS = ("conv", "cls_logits", "bbox_pred")


@exercise(_RPNHead)
def RPNHead(ask: Ask) -> str:  # noqa: N802 - the name of the exercise, a class
    """The small network that slides over the feature map."""
    head, theirs = ask(8, 3), TorchvisionRPNHead(8, 3)
    if not isinstance(head, nn.Module):
        raise NotYet("it is no nn.Module: write class RPNHead(nn.Module), with __init__ and forward")
    for name, layer in zip(_LAYERS, convolutions(theirs), strict=True):
        if not isinstance(getattr(head, name, None), nn.Module):
            raise NotYet(f"it has no layer self.{name}")
        own = [m for m in getattr(head, name).modules() if isinstance(m, nn.Conv2d)]
        if len(own) != 1 or own[0].weight.shape != layer.weight.shape:
            shapes = [tuple(m.weight.shape) for m in own]
            raise NotYet(f"self.{name} has weights {shapes}; a convolution of {tuple(layer.weight.shape)} is wanted")
        if own[0].bias is None:
            raise NotYet(f"self.{name} lacks its bias")
    with torch.no_grad():
        for own, layer in zip(convolutions(head), convolutions(theirs), strict=True):
            own.weight.copy_(layer.weight.normal_(std=0.3))
            own.bias.copy_(layer.bias.normal_(std=0.3))
        _compare_head(Ask(lambda features: head(features), "RPNHead"), theirs)
    if not any(parameter.requires_grad for parameter in head.parameters()):
        raise NotYet("its parameters do not require a gradient")
    return "equal to torchvision's RPNHead with the same weights"


def _compare_head(ask: Ask, theirs: nn.Module) -> None:
    features = torch.randn(2, 8, 4, 5)
    x = theirs.conv(features)
    levels = [theirs.cls_logits(x)], [theirs.bbox_pred(x)]
    objectness, deltas = concat_box_prediction_layers(*levels)
    (logits,), (moves,) = levels
    linear = theirs.conv[0][0](features)
    by_cell = logits.permute(0, 2, 3, 1).flatten(1)
    slips = {
        "the order differs: it lists all cells of the first anchor first. Move the channels to the end (permute) before "
        "you flatten": (logits.flatten(1), moves.reshape(2, -1, 4)),
        "deltas are not in the order of the anchors: permute them, too, before you reshape": (
            by_cell,
            moves.reshape(2, -1, 4),
        ),
        "rows and columns are exchanged: after permute(0, 3, 2, 1) cells go down the columns": (
            logits.permute(0, 3, 2, 1).flatten(1),
            moves.permute(0, 3, 2, 1).reshape(2, -1, 4),
        ),
        "the ReLU behind the 3 × 3 convolution is missing": (
            theirs.cls_logits(linear).permute(0, 2, 3, 1).flatten(1),
            theirs.bbox_pred(linear).permute(0, 2, 3, 1).reshape(2, -1, 4),
        ),
        "objectness went through a sigmoid; logits are wanted": (by_cell.sigmoid(), deltas.view(2, -1, 4)),
        "the windows at the edge are missing: the 3 × 3 convolution needs padding=1": lambda v: v[0].numel() == 2 * 18,
    }
    wanted = (objectness.view(2, -1), deltas.view(2, -1, 4))
    ask.compare(features, wanted=wanted, slips=slips, case="for a map of 4 × 5 cells", atol=1e-4)


def _filter_proposals(
    objectness: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    size: tuple[int, int],
    nms_threshold: float = 0.7,
    pre_nms_top_n: int = 1000,
    post_nms_top_n: int = 300,
    min_size: float = 1e-3,
) -> tuple[Tensor, Tensor]:
    """Proposals of one image out of the RPN's outputs: boxes ``(P, 4)`` and scores ``(P,)``, best first."""
    best = objectness.topk(min(pre_nms_top_n, len(objectness))).indices
    boxes = clip_boxes(decode_boxes(anchors[best], deltas[best]), size)
    scores = objectness[best].sigmoid()
    large = ((boxes[:, 2:] - boxes[:, :2]) >= min_size).all(dim=1)
    boxes, scores = boxes[large], scores[large]
    kept = nms(boxes, scores, nms_threshold)[:post_nms_top_n]
    return boxes[kept], scores[kept]


def _torchvision_rpn(pre: int = 1000, post: int = 300, threshold: float = 0.7, least: float = 1e-3) -> nn.Module:
    """Torchvision's network, whose labels, loss and proposals are compared; it has no layers of use."""
    rpn = RegionProposalNetwork(
        nn.Identity(), nn.Identity(), 0.7, 0.3, 128, 0.5, {"testing": pre}, {"testing": post}, threshold
    ).eval()
    rpn.min_size = least
    return rpn


@exercise(_filter_proposals)
def filter_proposals(ask: Ask) -> str:
    """From thousands of outputs to a few boxes."""
    generator = torch.Generator().manual_seed(0)
    anchors = random_boxes(400, seed=3) * torch.tensor([1.2, 0.8, 1.2, 0.8]) - 4
    objectness, deltas = torch.randn(400, generator=generator) * 3, 0.3 * torch.randn(400, 4, generator=generator)
    size, settings = (60, 100), {"nms_threshold": 0.5, "pre_nms_top_n": 150, "post_nms_top_n": 40, "min_size": 4.0}

    def with_(**changes: float) -> tuple[Tensor, Tensor]:
        given = {"objectness": objectness, "deltas": deltas, "anchors": anchors, "size": size, **settings}
        return _filter_proposals(**{**given, **changes})

    rpn = _torchvision_rpn(150, 40, 0.5, 4.0)
    decoded = decode_boxes(anchors, deltas)
    wanted = tuple(one[0] for one in rpn.filter_proposals(decoded[None], objectness, [size], [400]))
    best = objectness.topk(150).indices
    unclipped = decoded[best][nms(decoded[best], objectness[best], 0.5)[:40]]
    everything = 10_000
    slips = {
        "the boxes are the anchors as they are: decode the deltas": with_(deltas=torch.zeros_like(deltas)),
        "size is (height, width), and here it is used the other way round": with_(size=size[::-1]),
        "boxes reach out of the image: clip them": lambda v: (
            v[0].shape == unclipped.shape
            and torch.allclose(v[0], unclipped)
            or bool((v[0][:, 2] > 100.01).any() | (v[0] < -0.01).any())
        ),
        "boxes shorter than min_size stay": with_(min_size=0.0),
        "it takes all anchors into NMS and not the best pre_nms_top_n": with_(pre_nms_top_n=everything),
        "it keeps all that NMS leaves and not the best post_nms_top_n": with_(post_nms_top_n=everything),
        "NMS is missing": with_(nms_threshold=1.0),
        "the threshold of NMS is not the argument": with_(nms_threshold=0.7),
        "scores are logits; the sigmoid makes probabilities of them": lambda v: torch.allclose(
            v[1].sigmoid(), wanted[1]
        ),
        "the lowest scores come first": with_(objectness=-objectness),
    }
    arguments = objectness, deltas, anchors, size
    ask.compare(*arguments, wanted=wanted, slips=slips, case="for 400 anchors", atol=1e-3, **settings)
    # A few anchors, fewer than pre_nms_top_n.
    few = [value[:5] for value in arguments[:3]]
    wanted = _filter_proposals(*few, size)
    ask.compare(*few, size, wanted=wanted, case="for 5 anchors, fewer than pre_nms_top_n", atol=1e-3)
    return "equal to torchvision's filter_proposals for 400 anchors"


def _label_anchors(anchors: Tensor, boxes: Tensor, high: float = 0.7, low: float = 0.3) -> tuple[Tensor, Tensor]:
    """The object that each anchor overlaps most, and 1 positive, 0 negative, -1 ignored: both ``(N,)`` int64."""
    return match(box_iou(boxes, anchors), high, low, allow_low_quality_matches=True)


# Boxes of width 10 from (0, 0): IoU with the first object is height / 10. The second object is far away.
_HEIGHTS = (10.0, 7.0, 6.9, 5.0, 3.0, 2.9)
_COLUMN = torch.tensor([[0.0, 0.0, 10.0, h] for h in _HEIGHTS] + [[50.0, 0.0, 60.0, 4.0], [50.0, 6.0, 60.0, 10.0]])
_OBJECTS = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 0.0, 60.0, 10.0]])


@exercise(_label_anchors)
def label_anchors(ask: Ask) -> str:
    """Which anchors are positive, negative, or ignored."""
    index = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])

    def labels(*values: int) -> tuple[Tensor, Tensor]:
        return index, torch.tensor(values)

    slips = {
        "an object without an anchor of IoU `high` gets no positive one: its best anchors are positive": labels(
            1, 1, -1, -1, -1, 0, -1, -1
        ),
        "two anchors tie for the second object: both are positive": labels(1, 1, -1, -1, -1, 0, 1, -1),
        "every anchor is the best for some object in your rule; for each *object* take the best anchor": labels(
            *[1] * 8
        ),
        "an IoU of exactly `high` is positive": labels(1, -1, -1, -1, -1, 0, 1, 1),
        "an IoU of exactly `low` is ignored, not negative": labels(1, 1, -1, -1, 0, 0, 1, 1),
        "between `low` and `high` an anchor is ignored (-1)": labels(1, 1, 0, 0, 0, 0, 1, 1),
        "it says -1 for negative and 0 for ignored; they are exchanged": labels(1, 1, 0, 0, 0, -1, 1, 1),
        "it returns the labels first; the index of the object comes first": labels(1, 1, -1, -1, -1, 0, 1, 1)[::-1],
    }
    wanted = labels(1, 1, -1, -1, -1, 0, 1, 1)
    ask.compare(_COLUMN, _OBJECTS, wanted=wanted, slips=slips, case="for anchors of IoU 1, 0.7, 0.69, 0.5, 0.3, 0.29 …")
    nothing = torch.zeros(8, dtype=torch.int64)
    try:
        ask.compare(_COLUMN, torch.zeros(0, 4), wanted=(nothing, nothing), case="without objects")
    except NotYet as slip:
        raise NotYet(f"an image without objects: all anchors are negative, with index 0; but {slip}") from None
    _compare_labels(ask)
    return "equal to torchvision's Matcher for 6,912 anchors"


def _compare_labels(ask: Ask) -> None:
    far = torch.cat([_OBJECTS, torch.tensor([[200.0, 200.0, 210.0, 210.0]])])
    index, label = _label_anchors(_COLUMN, far)
    slips = {
        "an object that no anchor touches makes all anchors positive; a best anchor has IoU > 0": lambda v: v[1].all()
    }
    ask.compare(_COLUMN, far, wanted=(index, label), slips=slips, case="with an object that no anchor touches")
    # The anchor lies on object 0, and is the best of the small object 1 inside.
    inside = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 4.0, 5.0]])
    text = "the index is the object that the *anchor* overlaps most, also where it is the best anchor of another object"
    slips = {text: lambda v: v[0][0] == 1}
    wanted = torch.tensor([0, 0]), torch.tensor([1, 0])
    both = torch.tensor([[0.0, 0.0, 10.0, 10.0], [30.0, 0.0, 31.0, 9.0]])
    ask.compare(both, inside, wanted=wanted, slips=slips, case="for one object inside of another")
    anchors = _grid_anchors(ours.base_anchors([20.0, 36.0, 64.0, 112.0], [0.5, 1.0, 2.0]), (24, 24), 8)
    boxes = random_boxes(5, seed=9, size=190.0)
    theirs = _torchvision_rpn().proposal_matcher(box_iou(boxes, anchors))  # -1 negative, -2 ignored
    index, label = box_iou(boxes, anchors).argmax(dim=0), torch.where(theirs >= 0, 1, theirs + 1)
    ask.compare(anchors, boxes, wanted=(index, label), case="for the 6,912 anchors of an image")


def _rpn_loss(objectness: Tensor, deltas: Tensor, anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of objectness and smooth L1 of the deltas, on 128 sampled anchors of one image."""
    gt_index, label = _label_anchors(anchors, boxes)
    positive, negative = subsample(label, 128, 0.5)
    sampled = torch.cat([positive, negative])
    objectness_loss = F.binary_cross_entropy_with_logits(objectness[sampled], label[sampled].float())
    if not len(boxes):
        return objectness_loss, deltas[positive].sum()
    targets = encode_boxes(anchors[positive], boxes[gt_index[positive]])
    box_loss = F.smooth_l1_loss(deltas[positive], targets, beta=1 / 9, reduction="sum") / len(sampled)
    return objectness_loss, box_loss


@exercise(_rpn_loss)
def rpn_loss(ask: Ask) -> str:
    """The two losses of the RPN."""
    anchors, boxes = _few_anchors()
    generator = torch.Generator().manual_seed(2)
    objectness = torch.randn(len(anchors), generator=generator)
    deltas = 0.4 * torch.randn(len(anchors), 4, generator=generator)
    rpn = _torchvision_rpn()
    labels, matched = rpn.assign_targets_to_anchors([anchors], [{"boxes": boxes}])
    goals = rpn.box_coder.encode(matched, [anchors])
    wanted = rpn.compute_loss(objectness[:, None], deltas, labels, goals)
    slips = _loss_slips(objectness, deltas, labels[0], goals[0], wanted)
    ask.compare(objectness, deltas, anchors, boxes, wanted=wanted, slips=slips, case="for 60 anchors")
    _compare_sampling(ask)
    try:
        wanted = (_rpn_loss(objectness, deltas, anchors, torch.zeros(0, 4))[0], torch.tensor(0.0))
        ask.compare(objectness, deltas, anchors, torch.zeros(0, 4), wanted=wanted, case="without objects")
    except NotYet as slip:
        raise NotYet(f"an image without objects: {slip}") from None
    return "equal to torchvision's compute_loss"


def _few_anchors() -> tuple[Tensor, Tensor]:
    """60 anchors, of which all that count are sampled: nothing depends on chance."""
    boxes = torch.tensor([[20.0, 20.0, 60.0, 70.0], [80.0, 10.0, 120.0, 40.0]])
    generator = torch.Generator().manual_seed(1)
    near = boxes.repeat(15, 1) + 5 * torch.randn(30, 4, generator=generator)
    return torch.cat([near, random_boxes(30, seed=4) + torch.tensor([0.0, 0.0, 4.0, 4.0])]), boxes


def _loss_slips(
    objectness: Tensor, deltas: Tensor, labels: Tensor, goals: Tensor, wanted: Sequence[Tensor]
) -> dict[str, Callable[[Sequence[Tensor]], bool]]:
    """Wrong losses by what to say about each; an answer that holds one of them is refused with it."""
    positive, counted, all_ = labels == 1, labels >= 0, torch.ones_like(labels, dtype=torch.bool)
    count = counted.sum()

    def cross_entropy(which: Tensor, reduction: str = "mean") -> Tensor:
        return F.binary_cross_entropy_with_logits(objectness[which], labels[which].clamp(0), reduction=reduction)

    def errors(which: Tensor, beta: float = 1 / 9) -> Tensor:
        return F.smooth_l1_loss(deltas[which], goals[which], beta=beta, reduction="sum")

    objectness_slips = {
        "ignored anchors take part in the objectness loss; only sampled ones do": cross_entropy(all_),
        "the objectness loss is a sum; divide it by the number of sampled anchors": cross_entropy(counted, "sum"),
        "the objectness loss looks at positive anchors alone; negative ones say what is background": cross_entropy(
            positive
        ),
        "objectness is taken for probabilities; binary_cross_entropy_with_logits takes logits": F.binary_cross_entropy_with_logits(
            objectness[counted].sigmoid(), labels[counted]
        ),
    }
    box_slips = {
        "the box loss includes negative anchors; only positive ones have an object": errors(counted) / count,
        "the box loss is divided by the number of positive anchors; divide it by that of all sampled ones": errors(
            positive
        )
        / positive.sum(),
        "the box loss is divided by the number of values; take their sum and divide it by the sampled anchors": errors(
            positive
        )
        / (4 * positive.sum()),
        "the box loss is a sum; divide it by the number of sampled anchors": errors(positive),
        "smooth L1 has beta 1; 1 / 9 is wanted": errors(positive, 1.0) / count,
        "the box loss compares deltas with 0; the targets lead from the anchor to its object": F.smooth_l1_loss(
            deltas[positive], torch.zeros_like(deltas[positive]), beta=1 / 9, reduction="sum"
        )
        / count,
    }
    slips = {"the two losses are exchanged; the objectness loss comes first": lambda v: _near(v, wanted[::-1])}
    for place, texts in enumerate((objectness_slips, box_slips)):
        slips |= {t: (lambda v, wrong=wrong, n=place: _near(v[n], wrong)) for t, wrong in texts.items()}
    return slips


def _near(value: Tensor | Sequence[Tensor], wanted: Tensor | Sequence[Tensor]) -> bool:
    pairs = [(value, wanted)] if isinstance(wanted, Tensor) else list(zip(value, wanted, strict=True))
    return all(abs(float(a) - float(b)) < 1e-4 * max(1.0, abs(float(b))) for a, b in pairs)


def _compare_sampling(ask: Ask) -> None:
    """6,912 anchors with one logit for positive and one for negative anchors: whichever are drawn, the loss is this."""
    anchors = _grid_anchors(ours.base_anchors([20.0, 36.0, 64.0, 112.0], [0.5, 1.0, 2.0]), (24, 24), 8)
    boxes = torch.tensor([[20.0, 30.0, 75.0, 85.0], [100.0, 90.0, 140.0, 170.0]])
    _, label = _label_anchors(anchors, boxes)
    objectness = torch.where(label == 1, 1.0, torch.where(label == IGNORED, 9.0, -2.0))
    good, bad = F.softplus(torch.tensor(-1.0)), F.softplus(torch.tensor(-2.0))
    count = int((label == 1).sum())
    wanted = (count * good + (128 - count) * bad) / 128
    everyone = (count * good + (label == 0).sum() * bad) / (label >= 0).sum()
    balanced = (good + bad) / 2
    slips = {
        "it sums over all anchors that are not ignored; draw 128 of them with subsample": lambda v: _near(
            v[0], everyone
        ),
        "a sample has as many negative as positive anchors in your rule; negatives fill it up to 128": lambda v: _near(
            v[0], balanced
        ),
    }
    value = ask(objectness, torch.zeros(len(anchors), 4), anchors, boxes)
    for text, is_slip in slips.items():
        if is_slip(value):
            raise NotYet(text)
    if not _near(value[0], wanted):
        raise NotYet(
            f"for 6,912 anchors, {count} of them positive: {float(value[0]):.4g} instead of {float(wanted):.4g}"
        )
