"""The exercises of notebook 10: the mask branch, its targets and its loss, masks of detections and in the image."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from pycocotools import mask as rle
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import maskrcnn_loss, paste_masks_in_image

from minircnn import mask_rcnn as ours
from minircnn.course.check.boxes_and_metrics import random_boxes
from minircnn.course.check.judge import Ask, NotYet, exercise, hint, refuse_kind, refuse_type
from minircnn.datasets.folders import boxes_around
from minircnn.evaluation import encode_masks
from minircnn.pooling import roi_align, to_rois


def random_masks(count: int, size: tuple[int, int] = (40, 60), seed: int = 0) -> Tensor:
    """Tilted ellipses somewhere in an image, ``(count, H, W)`` bool."""
    r = torch.rand(count, 5, 1, 1, generator=torch.Generator().manual_seed(seed))
    y, x = torch.arange(size[0])[:, None] + 0.5, torch.arange(size[1]) + 0.5
    y, x = y - size[0] * (0.25 + 0.5 * r[:, 0]), x - size[1] * (0.25 + 0.5 * r[:, 1])
    return ((x + (r[:, 2] - 0.5) * y) / (5 + 10 * r[:, 3])) ** 2 + (y / (4 + 8 * r[:, 4])) ** 2 < 1


def _mask_branch(channels: int, width: int, num_classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (channels, width, width, width):
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
    layers += [nn.ConvTranspose2d(width, width, 2, stride=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, num_classes, 1))


@exercise(_mask_branch)
def mask_branch(ask: Ask) -> str:
    """Four convolutions, a deconvolution, and one mask for each class."""
    slips = """
        nn.ConvTranspose2d(width, width, 2, stride=2) => nn.Upsample(scale_factor=2) !! it has no nn.ConvTranspose2d
        (channels, width, width, width) => (channels, width, width) !! it has 3 convolutions of 3 × 3; four are wanted
        num_classes, 1)) => num_classes - 1, 1)) !! wanted is one mask a class, background included
        , padding=1 => !! convolutions without padding=1 cut off the border
        num_classes, 1)) => num_classes, 1), nn.Sigmoid()) !! it ends with a sigmoid; return logits, the loss takes it
        stride=2), nn.ReLU()] => stride=2)] !! the deconvolution has no ReLU behind it
        padding=1), nn.ReLU()] => padding=1)] !! the convolutions have no ReLU behind them: four are a single linear one
    """

    def theirs(channels: int, width: int, num_classes: int) -> nn.Sequential:
        return nn.Sequential(MaskRCNNHeads(channels, (width,) * 4, 1), MaskRCNNPredictor(width, width, num_classes))

    def run(build: Callable[..., nn.Sequential], *sizes: int) -> Tensor:
        branch = build(*sizes)
        refuse_kind(branch, nn.Sequential, "an nn.Sequential")
        for weight in branch.parameters():
            weight.data.normal_(0, 0.4, generator=torch.Generator().manual_seed(weight.numel()))
        with hint("its layers do not fit together:"):
            return Ask(branch.eval())(x)

    x = 4 * torch.rand(2, 8, 14, 14, generator=torch.Generator().manual_seed(0))
    what = "with four 3 × 3 convolutions, the deconvolution, a 1 × 1 convolution and the weights of torchvision's"
    ask.cases([(8, 6, 3)], slips, what, right=theirs, run=run)
    return "with the same weights its masks are those of torchvision's layers"


@exercise(ours.project_masks_on_boxes)
def project_masks_on_boxes(ask: Ask) -> str:
    """The mask target of each positive proposal."""
    masks, boxes = random_masks(3), random_boxes(3, seed=1, size=30) + torch.tensor([5.3, 2.6, 22.7, 9.4])
    slips = """
        gt_index[:, => torch.arange(len(boxes))[:, !! it ignores gt_index: box n belongs to object gt_index[n]
        boxes], dim=1) => boxes.round()], dim=1) !! it rounds the boxes to whole pixels before it crops
        aligned=aligned => aligned=False !! it is half a pixel off: pixel 0 has its center at 0.5, so pass aligned=True
        1.0, aligned => 1 / 8, aligned !! spatial_scale is not 1: masks and boxes are both in pixels of the image
        1.0, aligned => 1.0, 1, aligned !! one point a cell is not enough; sampling_ratio=-1 takes as many as pixels
        )[:, 0] => )[:, 0].round() !! it decides between 0 and 1; a cell on the outline holds the share that is covered
        )[:, 0] => ) !! it holds a dimension of channels; a target is (m, m)
    """
    own = torchvision.ops.masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])
    text = "it crops the object's own box; the branch sees the proposal"
    also = {text: lambda masks, _, index, size: _crop(masks, own[index], index, size)}
    ask.cases([(masks, boxes, torch.tensor([2, 0, 0]), 7)], slips, "for three ellipses", right=_crop, also=also)
    masks, boxes, gt_index = random_masks(8, seed=2), random_boxes(100, seed=3, size=40), torch.arange(100) % 8
    ask.cases([(masks, boxes, gt_index, 28)], what="for 100 boxes and 28 × 28 cells", right=_crop, atol=1e-4)
    ask.cases([(masks, boxes[:0], gt_index[:0], 28)], what="without boxes")
    return "equal to RoIAlign of torchvision for 100 boxes"


def _crop(masks: Tensor, boxes: Tensor, gt_index: Tensor, size: int, aligned: bool = True) -> Tensor:
    rois = torch.cat([gt_index[:, None].float(), boxes], dim=1)
    return torchvision.ops.roi_align(masks[:, None].float(), rois, size, 1.0, -1, aligned)[:, 0]


@exercise(ours.mask_loss)
def mask_loss(ask: Ask) -> str:
    """Binary cross-entropy of the true class's mask."""
    logits = torch.randn(6, 5, 28, 28, generator=torch.Generator().manual_seed(0))
    masks, gt_index, gt_labels = random_masks(3), torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([3, 1, 2])
    boxes = torch.tensor([8.3, 4.6, 40.2, 30.7]) + torch.arange(6)[:, None]  # each holds its ellipse
    labels, wanted = gt_labels[gt_index], _crop(masks, boxes, gt_index, 28, aligned=False)
    slips = """
        (own, wanted) => (logits, wanted[:, None].expand_as(logits))
            !! it compares the masks of all classes with the target; only the true class's counts
        (own, wanted) => (logits, wanted[:, None] * F.one_hot(labels, logits.shape[1])[..., None, None])
            !! it pulls the masks of other classes toward 0; they are left alone
        if kind == "softmax" => if True !! it is a softmax over the classes; each cell has its own sigmoid
        (own, => (own.sigmoid(), !! the sigmoid is taken twice; binary_cross_entropy_with_logits takes it, too
        , labels] => , labels - 1] !! labels count from 1, and channel 0 is the background: no - 1
        (own, wanted) => (own, wanted, reduction="sum") !! it sums over regions and cells; take the mean
        binary_cross_entropy_with_logits(own => mse_loss(own.sigmoid() !! it is the squared error, not cross-entropy
    """
    ask.cases([(logits, labels, wanted)], slips, "for six regions and five classes")
    logits.requires_grad_()
    loss = ask(logits, labels, wanted, may_change=True)
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        raise NotYet("no gradient flows through it to the logits; do without detach(), item() and float()")
    theirs = maskrcnn_loss(logits, [boxes], [masks.byte()], [gt_labels], [gt_index])
    mine, reference = (torch.autograd.grad(value, logits)[0] for value in (loss, theirs))
    if not torch.allclose(mine, reference, atol=1e-6):
        raise NotYet("the value is right, but its gradient is not that of torchvision's maskrcnn_loss")
    with hint("without regions return logits.sum() * 0, which has a gradient; here"):
        empty = ask(logits.detach()[:0].requires_grad_(), labels[:0], wanted[:0])
        refuse_type(empty, logits.sum())
        if empty != 0:
            raise NotYet(f"it is {empty.item():.3g}")
    return "loss and gradients equal to torchvision's maskrcnn_loss"


def _predict_masks(branch: nn.Module, features: Tensor, boxes: Tensor, labels: Tensor, stride: float) -> Tensor:
    pooled = roi_align(features, to_rois([boxes]), 14, 1 / stride, sampling_ratio=2, aligned=True)
    every = branch(pooled).sigmoid()
    return every[torch.arange(len(labels)), labels]


@exercise(_predict_masks)
def predict_masks(ask: Ask) -> str:
    """Masks for the detections that are left."""
    torch.manual_seed(0)
    branch = nn.Sequential(OrderedDict(deconvolution=nn.ConvTranspose2d(4, 5, 2, stride=2))).requires_grad_(False)
    branch.deconvolution.weight.data.mul_(6)
    features, boxes, labels, _ = _regions()
    slips = """
        .sigmoid() => !! it returns logits; take the sigmoid
        , labels] => , labels - 1] !! channel 0 is the background, so the label is the channel: no - 1
        torch.arange(len(labels)), labels => :, labels
            !! [:, labels] takes every label for every box; index with [torch.arange(N), labels]
        [torch.arange(len(labels)), labels] => !! it returns the masks of all classes; keep that of a detection's class
        1 / stride => 1.0 !! RoIAlign works in cells: spatial_scale is 1 / stride
        aligned=True => aligned=False !! it is half a cell off: pass aligned=True
        sampling_ratio=2 => sampling_ratio=-1 !! RoIAlign has other sampling points; sampling_ratio is 2
    """

    def right(branch: nn.Module, features: Tensor, boxes: Tensor, labels: Tensor, stride: float) -> Tensor:
        pooled = torchvision.ops.roi_align(features, [boxes], 14, 1 / stride, 2, True)
        return branch(pooled).sigmoid()[torch.arange(len(labels)), labels]

    cases = [(branch, features, boxes, labels, 8), (branch, features[..., :6, :6], boxes, labels, 16)]
    ask.cases(cases, slips, "for six detections at stride {4}", right=right, atol=1e-4)
    with hint("without detections"):
        ask.cases([(branch, features, boxes[:0], labels[:0], 8)])
    return "checked with torchvision's RoIAlign, at strides 8 and 16, and without detections"


def _regions() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A feature map of stride 8, six boxes with their labels, and targets of their masks."""
    random = torch.Generator().manual_seed(0)
    features, wanted = 4 * torch.rand(1, 4, 9, 12, generator=random), torch.rand(6, 28, 28, generator=random).round()
    boxes = random_boxes(6, seed=2, size=60) + torch.tensor([0, 0, 9.3, 7.7])
    return features, boxes, torch.tensor([1, 4, 2, 2, 3, 1]), wanted


def _train_step(
    branch: nn.Module, optimizer: torch.optim.Optimizer, features: Tensor, boxes: Tensor, labels: Tensor, wanted: Tensor
) -> float:
    pooled = roi_align(features, to_rois([boxes]), 14, 1 / 8, sampling_ratio=2, aligned=True)
    loss = ours.mask_loss(branch(pooled), labels, wanted)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@exercise(_train_step)
def train_step(ask: Ask) -> str:
    """One step of the optimizer on the mask loss."""
    slips = """
        aligned=True => aligned=False !! RoIAlign gets aligned=True, as in detection
        1 / 8 => 1.0 !! RoIAlign's spatial_scale is 1 / 8
        sampling_ratio=2 => sampling_ratio=-1 !! RoIAlign's sampling_ratio is 2
        branch(pooled) => branch(pooled).sigmoid() !! the loss wants logits, without a sigmoid
        optimizer.step() => pass !! the branch's weights stay as they were: call backward(), then optimizer.step()
        optimizer.zero_grad() => pass !! the gradients of both steps add up; does zero_grad() come before backward()?
    """

    def run(step: Callable[..., Any], *given: Tensor) -> dict[str, Any]:
        torch.manual_seed(0)
        branch = nn.Sequential(nn.ConvTranspose2d(4, 5, 2, stride=2))
        optimizer = torch.optim.SGD(branch.parameters(), lr=0.5)
        losses = [step(branch, optimizer, *given) for _ in range(2)]
        refuse_type(losses[0], 0.0)
        if isinstance(losses[0], Tensor) and losses[0].requires_grad:
            raise NotYet("it returns the loss with its graph; return loss.item()")
        return {"it is mask_loss of the branch's logits": losses, "the weights": branch[0].weight}

    ask.cases([_regions()], slips, "after two steps", may_change=True, rtol=1e-3, run=run)
    return "losses and weights after two steps as they should be"


def _paste_mask(mask: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
    return ours.paste_masks(mask[None], box[None], tuple(size))[0, 0]


def _by_matrices(mask: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
    """The same as a learner writes it: which rows of the mask count in each row of pixels, and so for columns."""
    m, weights = len(mask), []
    for low, high, pixels in ((box[1], box[3], size[0]), (box[0], box[2], size[1])):
        place = (torch.arange(pixels) + 0.5 - low) / (high - low) * m - 0.5
        weights.append((1 - (place[:, None] - torch.arange(m)).abs()).clamp(min=0))
    return weights[0] @ mask @ weights[1].T


@exercise(_paste_mask, _by_matrices)
def paste_mask(ask: Ask) -> str:
    """A mask stretched over its box."""
    mask = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.3
    case = (mask, torch.tensor([4.3, 2.6, 24.8, 14.1]), (20, 30))
    slips = """
        + 0.5 - low => - low !! it asks for the pixel's corner; the center of row i is at i + 0.5
        * m - 0.5 => * m !! cell k has its value at k + 0.5 of the mask: subtract 0.5
        @ mask @ => @ mask.T @ !! rows and columns of the mask are exchanged
        m, weights = => box = box[[1, 0, 3, 2]]; m, weights = !! x and y of the box are exchanged
        * m - 0.5 => * m - 0.5; place = place.round() !! it takes the nearest cell; interpolate between four
        * m - 0.5 => * m - 0.5; place = place.clamp(0, m - 1) !! outside its box it repeats the mask's edge, not 0
        * m - 0.5 => * (m - 1) !! the outer cells lie half a cell inside of the box, not on its edges
    """
    text = "it stretches the mask over whole pixels, as torchvision does"
    also = {text: lambda mask, box, size: paste_masks_in_image(mask[None, None], box[None], size)[0, 0]}
    value = ask(*case)
    if isinstance(value, Tensor) and value.dim() == 2 and value.shape != (20, 30):
        raise NotYet(f"it returns shape {tuple(value.shape)}; wanted is the whole image, (20, 30)")
    ask.cases([case], slips, "for 6 × 6 cells in 20 × 30 pixels", right=_stretched, also=also, atol=1e-4)
    cases = []
    for seed in range(20):
        mask = torch.rand(28, 28, generator=torch.Generator().manual_seed(seed))
        cases.append((mask, random_boxes(1, seed=seed, size=70)[0] - torch.tensor([12.0, 12.0, 0.0, 0.0]), (40, 50)))
    ask.cases(cases, what="for the box {1}", right=_stretched, atol=1e-3)
    return "equal to torch's grid_sample for 20 boxes, some of which reach outside"


def _stretched(mask: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
    """The same by torch's grid_sample, where the box reaches from -1 to 1."""
    x1, y1, x2, y2 = box.tolist()
    y = (torch.arange(size[0]) + 0.5 - y1) / (y2 - y1) * 2 - 1
    x = (torch.arange(size[1]) + 0.5 - x1) / (x2 - x1) * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    return F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]


def _mask_iou(a: Tensor, b: Tensor) -> Tensor:
    a, b = a.flatten(1).float(), b.flatten(1).float()
    shared = a @ b.T
    union = a.sum(dim=1)[:, None] + b.sum(dim=1) - shared
    return shared / union.clamp(min=1)


@exercise(_mask_iou)
def mask_iou(ask: Ask) -> str:
    """IoU of pixels."""
    slips = """
        - shared => !! it counts the intersection twice in the union: subtract it once
        + b.sum(dim=1) - shared => !! it divides by the pixels of a; the union is those of a or b
        / union.clamp(min=1) => !! it is the intersection; divide it by the union
        a, b = => b, a = !! rows and columns are exchanged: a row for each mask of a
        shared / union => 2 * shared / (union + shared) !! that is the Dice coefficient; divide by the union
        shared / union => union !! it is the union
    """

    def right(a: Tensor, b: Tensor) -> Tensor:
        return torch.from_numpy(rle.iou(encode_masks(a), encode_masks(b), [0] * len(b))).float()

    a, b, empty = random_masks(4), random_masks(5, seed=1), torch.zeros(1, 40, 60, dtype=torch.bool)
    also = {"that is the IoU of the boxes; count pixels": lambda *of: torchvision.ops.box_iou(*map(boxes_around, of))}
    ask.cases([(a, b)], slips, "for four and five ellipses", right=right, also=also)
    with hint("an empty mask has an IoU of 0, even with another one: a union of at least 1 pixel; here"):
        ask.cases([(empty, torch.cat([empty, a]))])
    return "equal to pycocotools' for 20 pairs, empty masks included"


@exercise(boxes_around)
def masks_to_boxes(ask: Ask) -> str:
    """The smallest box around each mask."""
    slips = """
        [x1, y1, x2, y2] => [x1, y1, x2 - 1, y2 - 1] !! x2 and y2 are the last pixel's; its far side is one further
        [x1, y1, x2, y2] => [y1, x1, y2, x2] !! these are y1, x1, y2, x2; a box is x1, y1, x2, y2
        [x1, y1, x2, y2] => [x1, y1, x2 - x1, y2 - y1] !! these are x1, y1, width, height; a box is x1, y1, x2, y2
        [x1, y1, x2, y2] => [x1 + 1, y1 + 1, x2, y2] !! x1 and y1 are one too large: pixel 0 begins at 0
    """
    masks, theirs, far_side = random_masks(30), torchvision.ops.masks_to_boxes, torch.tensor([0.0, 0.0, 1.0, 1.0])
    ask.cases([(masks,)], slips, "for 30 ellipses", right=lambda masks: theirs(masks) + far_side, rtol=0)
    value = ask(masks)
    if not value.is_floating_point():
        raise NotYet(f"it returns {value.dtype}; boxes are floats")
    masks[3] = False
    with hint("a mask without a pixel gets a box of zeros, for detections have such masks; here"):
        ask.cases([(masks,)], rtol=0)
    ask.cases([(masks[:0],)], what="without masks")
    return "equal to torchvision's, plus one pixel at the right and at the bottom"
