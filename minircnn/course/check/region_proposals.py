"""The exercises of notebook 07: anchors, the RPN's head, proposals, labels of anchors, and the loss."""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers
from torchvision.models.detection.rpn import RPNHead as TorchvisionRPNHead

from minircnn import faster_rcnn as ours
from minircnn.boxes import box_iou, decode_boxes, match
from minircnn.course import capstone
from minircnn.course.check.boxes_and_metrics import random_boxes
from minircnn.course.check.judge import Ask, NotYet, altered, exercise, hint


@exercise(ours.base_anchors)
def base_anchors(ask: Ask) -> str:
    """The anchors of one cell."""
    slips = """
        ratio.sqrt() => (1 / ratio).sqrt() !! the aspect ratio is height / width: with 2 an anchor is tall
        / 2).round() => * tall.repeat_interleave(len(size))[:, None] / 2).round()
            !! the area changes with the ratio: width · height must be size²
        ratio.sqrt() => ratio !! width and height lack the square root: their ratio becomes ratio²
        .flatten() => .T.flatten() !! the order differs: all sizes of the first ratio come first, then those of the next
        / 2).round() => ).round() !! corners lie half of the width and height away from the center, not all of it
        .round() => !! corners are not rounded to whole pixels
        [-widths, -heights, widths, heights], dim=1) / 2 => [0 * widths, 0 * heights, widths, heights], dim=1)
            !! the upper left corner is at (0, 0); the center belongs there
    """
    cases = [([16.0, 40.0], [0.5, 1.0, 4.0]), ([20.0, 36.0, 64.0, 112.0], [0.5, 1.0, 2.0])]
    ask.cases(cases, slips, "for sizes {0} and ratios {1}", right=AnchorGenerator().generate_anchors)
    return "equal to torchvision's AnchorGenerator"


def _grid_anchors(base: Tensor, grid_size: tuple[int, int], stride: int, offset: float = 0.5) -> Tensor:
    y, x = ((torch.arange(count) + offset) * stride for count in grid_size)
    y, x = torch.meshgrid(y, x, indexing="ij")
    centers = torch.stack([x, y, x, y], dim=-1)  # (h, w, 4)
    return (centers[:, :, None] + base).reshape(-1, 4)


@exercise(_grid_anchors)
def grid_anchors(ask: Ask) -> str:
    """The anchors of all cells."""
    slips = """
        [x, y, x, y] => [y, x, y, x] !! x and y are exchanged: the column gives x, the row y
        in grid_size => in grid_size[::-1] !! grid_size is (height, width): h rows of w cells
        + base) => + base).permute(2, 0, 1, 3) !! the order differs; the anchors of one cell stand side by side
        + offset => !! the offset is missing: the center of cell 0 is at offset · stride
        + offset) * stride => ) * stride + offset !! the offset is taken as pixels; it is a share of the stride
        4) => 4).clamp(min=0) !! the anchors are clipped to the image; leave them as they are
        count) + offset) => count)) + offset !! cells are one pixel apart; they are stride pixels apart
    """
    base = AnchorGenerator().generate_anchors([16.0, 40.0], [0.5, 1.0, 2.0])  # (6, 4)

    def right(base: Tensor, grid_size: tuple[int, int], stride: int, offset: float) -> Tensor:
        generator = AnchorGenerator()
        generator.cell_anchors = [base]
        corner = generator.grid_anchors([grid_size], [[torch.tensor(stride), torch.tensor(stride)]])[0]  # offset 0
        return corner + offset * stride

    cases = [(base, (2, 3), 8, 0.5), (base, (3, 2), 16, 0.0), (base, (12, 20), 8, 0.5)]
    ask.cases(cases, slips, "for {1[0]} × {1[1]} cells, stride {2}, offset {3}", right=right)
    return "equal to torchvision's AnchorGenerator, moved by the offset"


def convolutions(head: nn.Module) -> list[nn.Conv2d]:
    """The convolutions of an RPN head: window, objectness, deltas. Each layer may be a sequence that holds one."""
    layers = (getattr(head, name).modules() for name in ("conv", "cls_logits", "bbox_pred"))
    return [next(module for module in layer if isinstance(module, nn.Conv2d)) for layer in layers]


@exercise(ours.RPNHead)
def RPNHead(ask: Ask) -> str:
    """The small network that slides over the feature map."""
    head, mine, theirs = ask(8, 3), ours.RPNHead(8, 3), TorchvisionRPNHead(8, 3)
    if not isinstance(head, nn.Module):
        raise NotYet("it is no nn.Module: write class RPNHead(nn.Module), with __init__ and forward")
    for name, right, other in zip(dict(mine.named_children()), convolutions(mine), convolutions(theirs), strict=True):
        layer = getattr(head, name, None)
        if not isinstance(layer, nn.Module):
            raise NotYet(f"it has no layer self.{name}")
        own = [module for module in layer.modules() if isinstance(module, nn.Conv2d)]
        shapes = [tuple(module.weight.shape) for module in own]
        if shapes != [right.weight.shape]:
            raise NotYet(f"self.{name} has weights {shapes}; one convolution of {tuple(right.weight.shape)} is wanted")
        if own[0].bias is None:
            raise NotYet(f"self.{name} lacks its bias")
        for parameter in right.parameters():
            nn.init.normal_(parameter, std=0.3)
        own[0].load_state_dict(right.state_dict())
        other.load_state_dict(right.state_dict())
    slips = """
        .conv(features) => .conv(features)[:, :, 1:-1, 1:-1] !! the windows at the edge are missing: it needs padding=1
        self.conv(features) => self.conv[0][0](features) !! the ReLU behind the 3 × 3 convolution is missing
        logits(x).permute(0, 2, 3, 1) => logits(x) !! the order of logits differs: anchors go behind cells (permute)
        .permute(0, 2, 3, 1) => !! the order of logits and deltas differs: move the anchors behind the cells (permute)
        flatten(1) => flatten(1).sigmoid() !! objectness went through a sigmoid; logits are wanted
        self.bbox_pred(x).permute(0, 2, 3, 1) => self.bbox_pred(x) !! the order of deltas differs: permute them, too
        bbox_pred(x) => bbox_pred(features) !! bbox_pred looks at the features, not at the hidden layer as cls_logits
    """

    def outputs(_: nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
        objectness, deltas = concat_box_prediction_layers(*theirs([features]))
        return objectness.view(2, -1), deltas.view(2, -1, 4)

    forward = Ask(lambda _, features: head(features), ours.RPNHead.forward)
    with torch.no_grad():
        forward.cases([(mine, torch.randn(2, 8, 4, 5))], slips, "for a map of 4 × 5 cells", right=outputs, atol=1e-4)
    return "equal to torchvision's RPNHead with the same weights"


def _torchvision_rpn(threshold: float = 0.7, pre: int = 1000, post: int = 300) -> nn.Module:
    """Torchvision's network, for its labels, loss and proposals: it has no layers of use."""
    tops = {"testing": pre}, {"testing": post}
    return RegionProposalNetwork(nn.Identity(), nn.Identity(), 0.7, 0.3, 128, 0.5, *tops, threshold).eval()


@exercise(capstone.select_proposals)
def filter_proposals(ask: Ask) -> str:
    """From thousands of outputs to a few boxes."""
    generator = torch.Generator().manual_seed(0)
    anchors = (random_boxes(50, seed=3) * torch.tensor([1.2, 0.8, 1.2, 0.8]) - 4).repeat(8, 1)
    anchors[::9] += 200  # beside the image
    objectness, deltas = torch.randn(400, generator=generator) * 3, 0.08 * torch.randn(400, 4, generator=generator)
    outputs = (objectness, deltas, anchors, (60, 100))
    slips = """
        decode_boxes(anchors[best], deltas[best]) => anchors[best] !! the boxes are the anchors: decode the deltas
        , size) => , size[::-1]) !! size is (height, width), and here it is used the other way round
        clip_boxes( => (lambda boxes, _: boxes)( !! boxes reach out of the image: clip them
        >= 1e-3 => >= 0 !! boxes without area stay; drop those with a side below 0.001
        [:post_nms_top_n] => !! it keeps all that NMS leaves and not the best post_nms_top_n
        nms(boxes, scores, nms_threshold) => torch.arange(len(boxes)) !! NMS is missing
        .sigmoid() => !! scores are logits; the sigmoid makes probabilities of them
    """

    def right(objectness: Tensor, deltas: Tensor, anchors: Tensor, size: tuple[int, int], *limits: float) -> list:
        boxes = decode_boxes(anchors, deltas)[None]
        return [one[0] for one in _torchvision_rpn(*limits).filter_proposals(boxes, objectness, [size], [400])]

    cases = [(*outputs, 0.5, 150, 40), (*outputs, 0.95, 20, 40)]
    ask.cases(cases, slips, "for the best {5} of 400 anchors", right=right, atol=1e-3)
    with hint("for fewer anchors than pre_nms_top_n:"):
        ask.cases([(objectness[:5], deltas[:5], anchors[:5], (60, 100))], atol=1e-3)
    return "equal to torchvision's filter_proposals for 400 anchors"


def _labelers(slips: str) -> dict[str, Callable[..., Any]]:
    """Functions of anchors and objects that match them in a wrong way."""
    wrong = altered(match, slips).items()
    return {text: lambda a, b, slip=slip: slip(box_iou(b, a), 0.7, 0.3, True) for text, slip in wrong}


@exercise(capstone.label_anchors)
def label_anchors(ask: Ask) -> str:
    """Which anchors are positive, negative, or ignored."""
    slips = """
        if allow_low_quality_matches => if False
            !! an object without an anchor of IoU `high` gets no positive one: its best anchors are positive
        ((iou == best_of_object) & (best_of_object > 0)).any(dim=0) => iou.argmax(dim=1)
            !! two anchors tie for the second object: both are positive
        amax(dim=1 => amax(dim=0 !! each anchor is the best of some object; take the best anchor of each *object*
        >= high => > high !! an IoU of exactly `high` is positive
        < low] => <= low] !! an IoU of exactly `low` is ignored, not negative
        IGNORED => NEGATIVE !! between `low` and `high` an anchor is ignored (-1)
        return gt_index, => own = iou == best_of_object; return own.int().argmax(dim=0).where(own.any(dim=0), gt_index),
            !! the index is the object that the *anchor* overlaps most, even if it is the best anchor of another object
    """
    # IoU with the first object is height / 10; with the second, two anchors tie at 0.4. The last anchor but one lies on
    # the fourth object, and is the best of the small third one inside it.
    anchors = _boxes(*([0, 0, 10, h] for h in (10, 7, 6.9, 5, 3, 2.9)), [50, 0, 60, 4], [50, 6, 60, 10])
    anchors = torch.cat([anchors, _boxes([300, 0, 310, 10], [330, 0, 331, 9])])
    objects = _boxes([0, 0, 10, 10], [50, 0, 60, 10], [300, 0, 304, 5], [300, 0, 310, 10])
    ask.cases([(anchors, objects)], also=_labelers(slips), what="for anchors of IoU 1, 0.7, 0.69, 0.5, 0.3, 0.29 …")
    slips = """
        object > 0 => object >= 0 !! an object that no anchor touches makes anchors positive; ask for an IoU above 0
        object > 0 => object >= low !! the best anchor of an object may have an IoU below `low`; its rule comes last
    """
    anchors = torch.cat([anchors, _boxes([100, 0, 110, 2])])
    objects = torch.cat([objects, _boxes([100, 0, 110, 10], [200, 200, 210, 210])])
    ask.cases([(anchors, objects)], also=_labelers(slips), what="with an object that no anchor touches")
    with hint("without objects all anchors are negative, and their index is 0; here"):
        ask.cases([(anchors, objects[:0])])

    def right(anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        iou = box_iou(boxes, anchors)
        theirs = _torchvision_rpn().proposal_matcher(iou)  # -1 negative, -2 ignored
        return iou.argmax(dim=0), torch.where(theirs >= 0, 1, theirs + 1)

    ask.cases([(_whole_image(), random_boxes(5, seed=9, size=190.0))], what="for the anchors of an image", right=right)
    return "equal to torchvision's Matcher for 6,912 anchors"


def _boxes(*rows: Sequence[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def _whole_image() -> Tensor:
    return ours.grid_anchors((24, 24), (8, 8), [20.0, 36.0, 64.0, 112.0], [0.5, 1.0, 2.0], 0.5)


def _rpn_loss(objectness: Tensor, deltas: Tensor, anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Both losses of one image, as those of a batch."""
    return capstone.rpn_losses(objectness[None], deltas[None], anchors, [{"boxes": boxes}])


OBJECTNESS_SLIPS = """
    return F. => return sum(errors) / len(scores), F. !! they are exchanged: the objectness loss comes first
    scores, wanted) => scores, wanted, reduction="sum") !! the objectness loss is a sum; divide by the anchors drawn
    with_logits(scores => with_logits(scores.sigmoid() !! sigmoid comes twice: …_with_logits takes logits
    [positive, negative] => [torch.arange(len(label))] !! ignored anchors enter the objectness loss; use subsample
    [positive, negative] => [positive] !! the objectness loss lacks the negative anchors
    [positive, negative] => [positive, negative[: len(positive)]] !! negative anchors fill the sample up to 128
"""
BOX_SLIPS = """
    / len(scores) => / wanted.sum() !! the box loss is divided by the positive anchors; divide by all that were drawn
    , reduction="sum" => !! smooth L1 takes a mean before you divide; give it reduction="sum"
    / len(scores) => !! the box loss is a sum; divide it by the number of anchors drawn
    beta=BETA => beta=1.0 !! smooth L1 has beta 1; take 1 / 9, which notebook 08 calls BETA
    = encode_boxes( => = (lambda a, b: encode_boxes(b, a))(
        !! encode_boxes leads from the object to the anchor; exchange them: the anchor comes first
    gt_index[positive] => 0 * gt_index[positive] !! all positive anchors have the first object as target; use gt_index
    goals = => positive = chosen; goals = !! negative anchors have no box to learn; only positive ones have a box loss
"""


def compare_losses(ask: Ask, cases: Sequence[tuple]) -> None:
    """Compare the losses of an RPN, one after the other: a slip in one does not hide the other's."""
    for n, (name, slips) in enumerate((("objectness", OBJECTNESS_SLIPS), ("box", BOX_SLIPS))):
        what = f"the {name} loss for {{2.shape[0]:,}} anchors"
        with capstone.without_chance():
            ask.cases(cases, slips, what, right=_by_torchvision, change=itemgetter(n))
        given = [part.clone().requires_grad_() for part in cases[0][:2]]
        if not ask(*given, *cases[0][2:], may_change=True)[n].requires_grad:
            raise NotYet(f"the {name} loss carries no gradient, so nothing could learn from it; do not detach it")


def _by_torchvision(logits: Tensor, deltas: Tensor, anchors: Tensor, targets: Sequence[dict]) -> tuple[Tensor, Tensor]:
    rpn = _torchvision_rpn()
    labels, matched = rpn.assign_targets_to_anchors([anchors] * len(targets), targets)
    goals = rpn.box_coder.encode(matched, [anchors] * len(targets))
    return rpn.compute_loss(logits.reshape(-1, 1), deltas.reshape(-1, 4), labels, goals)


@exercise(_rpn_loss)
def rpn_loss(ask: Ask) -> str:
    """The two losses of the RPN."""
    # 60 anchors, of which all that count are sampled; and a whole image whose logits are the same for all positive and
    # for all negative anchors: chance decides nothing.
    boxes, generator = _boxes([20, 20, 60, 70], [80, 10, 120, 40]), torch.Generator().manual_seed(1)
    near = boxes.repeat(15, 1) + 5 * torch.randn(30, 4, generator=generator)
    anchors = torch.cat([near, random_boxes(30, seed=4) + torch.tensor([0.0, 0.0, 4.0, 4.0])])
    logits, deltas = torch.randn(1, 60, generator=generator), 0.4 * torch.randn(1, 60, 4, generator=generator)
    image, objects = _whole_image(), _boxes([20, 30, 75, 85], [100, 90, 140, 170])
    of_label = torch.tensor([-2.0, 1.0, 9.0])[capstone.label_anchors(image, objects)[1]]  # the last one for -1

    def answer(logits: Tensor, deltas: Tensor, anchors: Tensor, targets: list[dict[str, Tensor]]) -> Any:  # noqa: ANN401
        return ask(logits[0], deltas[0], anchors, targets[0]["boxes"], may_change=True)

    as_batch = Ask(answer, capstone.rpn_losses)
    few, many = (logits, deltas, anchors), (of_label[None], torch.zeros(1, len(image), 4), image)
    compare_losses(as_batch, [(*few, [{"boxes": boxes}]), (*many, [{"boxes": objects}])])
    with hint("for an image without objects:"):
        as_batch.cases([(logits.detach(), deltas.detach(), anchors, [{"boxes": boxes[:0]}])])
    return "equal to torchvision's compute_loss"
