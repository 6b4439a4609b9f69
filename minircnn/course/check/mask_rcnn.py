"""The exercises of notebook 10: the mask branch, its targets and its loss, masks of detections and in the image."""

import copy
import functools
from collections import OrderedDict
from collections.abc import Sequence
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
from minircnn.course.check.judge import Ask, NotYet, difference, exercise, refuse_type
from minircnn.evaluation import encode_masks
from minircnn.pooling import roi_align, to_rois


def random_masks(count: int, size: tuple[int, int] = (40, 60), seed: int = 0) -> Tensor:
    """Tilted ellipses somewhere in an image, ``(count, H, W)`` bool."""
    r = torch.rand(count, 5, 1, 1, generator=torch.Generator().manual_seed(seed))
    y, x = torch.arange(size[0])[:, None] + 0.5, torch.arange(size[1]) + 0.5
    y, x = y - size[0] * (0.25 + 0.5 * r[:, 0]), x - size[1] * (0.25 + 0.5 * r[:, 1])
    return ((x + (r[:, 2] - 0.5) * y) / (5 + 10 * r[:, 3])) ** 2 + (y / (4 + 8 * r[:, 4])) ** 2 < 1


def _mask_branch(channels: int, width: int, num_classes: int) -> nn.Sequential:
    """The layers of figure 4, with torch's initial weights."""
    layers: list[nn.Module] = []
    for before in (channels, width, width, width):
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
    layers += [nn.ConvTranspose2d(width, width, 2, stride=2), nn.ReLU(), nn.Conv2d(width, num_classes, 1)]
    return nn.Sequential(*layers)


@exercise(_mask_branch)
def mask_branch(ask: Ask) -> str:
    """Four convolutions, a deconvolution, and one mask for each class."""
    branch = ask(8, 6, 3)
    refuse_type(branch, nn.Identity())
    if not isinstance(branch, nn.Sequential):
        raise NotYet(f"it returns a {type(branch).__name__}; an nn.Sequential is wanted")
    x = torch.rand(2, 8, 14, 14, generator=torch.Generator().manual_seed(0)) * 4
    try:
        masks = Ask(branch, "branch")(x)
    except NotYet as error:
        raise NotYet(f"its layers do not fit together: {error}") from None
    refuse_type(masks, x, "the branch returns")
    _refuse_layers(branch, masks)
    weights = list(MaskRCNNHeads(8, (6,) * 4, 1).parameters()) + list(MaskRCNNPredictor(6, 6, 3).parameters())
    for weight in weights:
        weight.data.normal_(0, 0.4, generator=torch.Generator().manual_seed(weight.numel()))
    if [p.shape for p in branch.parameters()] != [w.shape for w in weights]:
        raise NotYet(
            "its layers are other ones than four 3 × 3 convolutions, the deconvolution and a 1 × 1 convolution"
        )
    for mine, weight in zip(branch.parameters(), weights, strict=True):
        mine.data.copy_(weight)
    wanted = _run(x, weights)
    slips = {
        "the branch ends with a sigmoid; it returns logits, and the loss takes the sigmoid": wanted.sigmoid(),
        "the branch ends with a ReLU, but logits may be negative": wanted.relu(),
        "the deconvolution has no ReLU behind it": _run(x, weights, skip=(4,)),
        "the convolutions have no ReLU behind them: four of them are a single linear one": _run(
            x, weights, skip=range(4)
        ),
        "no layer has a ReLU behind it: together they are a single linear one": _run(x, weights, skip=range(5)),
    }
    Ask(branch.eval(), "branch").compare(x, wanted=wanted, slips=slips, case="with the same weights as torchvision's")
    return "with the same weights its masks are those of torchvision's layers"


def _refuse_layers(branch: nn.Module, masks: Tensor) -> None:
    """Look at the layers, and at the shape of what comes out."""
    kernels = [layer.kernel_size for layer in branch.modules() if isinstance(layer, nn.Conv2d)]
    deconvolutions = [layer for layer in branch.modules() if isinstance(layer, nn.ConvTranspose2d)]
    if not deconvolutions:
        raise NotYet("it has no deconvolution (nn.ConvTranspose2d)")
    if deconvolutions[0].kernel_size != (2, 2):
        raise NotYet(f"the deconvolution's kernel is {deconvolutions[0].kernel_size}; each cell becomes 2 × 2")
    if kernels.count((3, 3)) != 4:
        raise NotYet(f"it has {kernels.count((3, 3))} convolutions of 3 × 3; four are wanted")
    if masks.shape[1] != 3:
        raise NotYet(f"it gives {masks.shape[1]} masks for num_classes=3; wanted is one a class, background included")
    if masks.shape[2] in (14, 15):
        raise NotYet("the deconvolution does not double the side; its stride is 2")
    if masks.shape[2] < 28:
        raise NotYet(f"the masks have a side of {masks.shape[2]}: convolutions without padding=1 cut off the border")
    if masks.shape[2:] != (28, 28):
        raise NotYet(f"14 × 14 cells become {tuple(masks.shape[2:])}; wanted are 28 × 28")


def _run(x: Tensor, weights: list[Tensor], skip: Sequence[int] = ()) -> Tensor:
    """The branch's logits, without the ReLU behind some of its layers."""
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    for n, (weight, bias) in enumerate(pairs[:5]):
        x = F.conv_transpose2d(x, weight, bias, 2) if n == 4 else F.conv2d(x, weight, bias, padding=1)
        x = x if n in skip else x.relu()
    return F.conv2d(x, *pairs[5])


@exercise(ours.project_masks_on_boxes)
def project_masks_on_boxes(ask: Ask) -> str:
    """The mask target of each positive proposal."""
    masks, boxes = random_masks(3), random_boxes(3, seed=1, size=30) + torch.tensor([5.3, 2.6, 22.7, 9.4])
    gt_index, own = torch.tensor([2, 0, 0]), torchvision.ops.masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])
    crop = functools.partial(_crop, masks, boxes, gt_index, 7)
    wanted = crop()
    slips = {
        "it ignores gt_index: box n belongs to object gt_index[n]": _crop(masks, boxes, torch.arange(3), 7),
        "it ignores gt_index: every box gets the first mask": _crop(masks, boxes, 0 * gt_index, 7),
        "it crops the object's own box; the branch sees the proposal": _crop(masks, own[gt_index], gt_index, 7),
        "it rounds the boxes to whole pixels before it crops": _crop(masks, boxes.round(), gt_index, 7),
        "it is half a pixel off: the first pixel's center is at 0.5, so pass aligned=True": crop(aligned=False),
        "spatial_scale is not 1: masks and boxes are both in pixels of the image": crop(scale=1 / 8),
        "one point a cell is not enough; sampling_ratio=-1 takes as many as pixels": crop(ratio=1),
        "two points along a cell are not enough; sampling_ratio=-1 takes as many as pixels": crop(ratio=2),
        "it decides between 0 and 1; a cell on the outline holds the share that is covered": (wanted > 0.5).float(),
        "it holds a dimension of channels; a target is (m, m)": lambda v: v.dim() == 4,
    }
    ask.compare(masks, boxes, gt_index, 7, wanted=wanted, slips=slips, case="for three ellipses", atol=1e-4)
    masks, gt_index = random_masks(8, seed=2), torch.arange(100) % 8
    boxes = random_boxes(100, seed=3, size=40)
    wanted = _crop(masks, boxes, gt_index, 28)
    ask.compare(masks, boxes, gt_index, 28, wanted=wanted, case="for 100 boxes and 28 × 28 cells", atol=1e-4)
    none = (masks, boxes[:0], gt_index[:0], 28)
    ask.compare(*none, wanted=torch.zeros(0, 28, 28), case="without boxes")
    return "equal to RoIAlign of torchvision for 100 boxes"


def _crop(
    masks: Tensor, boxes: Tensor, gt_index: Tensor, size: int, scale: float = 1.0, ratio: int = -1, aligned: bool = True
) -> Tensor:
    rois = torch.cat([gt_index[:, None].float(), boxes], dim=1)
    return torchvision.ops.roi_align(masks[:, None].float(), rois, size, scale, ratio, aligned)[:, 0]


@exercise(ours.mask_loss)
def mask_loss(ask: Ask) -> str:
    """Binary cross-entropy of the true class's mask."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, 28, 28, generator=random)
    masks, gt_index = random_masks(3), torch.tensor([0, 1, 2, 0, 1, 2])
    boxes = torch.tensor([8.3, 4.6, 40.2, 30.7]) + torch.arange(6)[:, None]  # each holds its ellipse
    gt_labels = torch.tensor([3, 1, 2])
    labels, rows, wanted = gt_labels[gt_index], torch.arange(6), _crop(masks, boxes, gt_index, 28, aligned=False)
    own, bce = logits[rows, labels], F.binary_cross_entropy_with_logits
    one_hot, every = torch.zeros_like(logits), wanted[:, None].expand_as(logits)
    one_hot[rows, labels] = wanted
    summed, of_cells = bce(own, wanted, reduction="sum"), torch.where(wanted >= 0.5, labels[:, None, None], 0)
    slips = {
        "it compares the masks of all classes with the target; only the true class's counts": bce(logits, every),
        "it pulls the masks of other classes toward 0; they are left alone": bce(logits, one_hot),
        "it is a softmax over the classes; each cell has its own sigmoid": F.cross_entropy(logits, of_cells),
        "the sigmoid is taken twice; binary_cross_entropy_with_logits takes it, too": bce(own.sigmoid(), wanted),
        "labels count from 1, and channel 0 is the background: no - 1": bce(logits[rows, labels - 1], wanted),
        "it sums over regions and cells; take the mean": summed,
        "it sums over the cells; take the mean over them": summed / 6,
        "it sums over the regions; take the mean over them": summed / 28**2,
        "it is the squared error; wanted is binary cross-entropy": (own.sigmoid() - wanted).square().mean(),
    }
    right = bce(own, wanted)
    ask.compare(logits, labels, wanted, wanted=right, slips=slips, case="for six regions and five classes")
    _compare_gradients(ask, logits, labels, wanted, (masks, boxes, gt_index, gt_labels))
    empty = ask(logits[:0].requires_grad_(), labels[:0], wanted[:0])
    refuse_type(empty, 0.0, "without regions it returns")
    value = float(torch.as_tensor(empty).detach())
    if value != 0:
        raise NotYet(f"without regions it is {value:.3g}; return logits.sum() * 0, which has a gradient")
    return "loss and gradients equal to torchvision's maskrcnn_loss"


def _compare_gradients(ask: Ask, logits: Tensor, labels: Tensor, wanted: Tensor, given: tuple[Tensor, ...]) -> None:
    masks, boxes, gt_index, gt_labels = given
    logits = logits.clone().requires_grad_()
    loss = ask(logits, labels, wanted, may_change=True)
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        raise NotYet("no gradient flows through it to the logits; do without detach(), item() and float()")
    theirs = maskrcnn_loss(logits, [boxes], [masks.byte()], [gt_labels], [gt_index])
    mine, reference = (torch.autograd.grad(value, logits)[0] for value in (loss, theirs))
    if not torch.allclose(mine, reference, atol=1e-6):
        raise NotYet("the value is right, but its gradient is not that of torchvision's maskrcnn_loss")


def _predict_masks(branch: nn.Module, features: Tensor, boxes: Tensor, labels: Tensor, stride: float) -> Tensor:
    """The mask of each detection's class, as probabilities."""
    pooled = roi_align(features, to_rois([boxes]), 14, 1 / stride, sampling_ratio=2, aligned=True)
    return branch(pooled).sigmoid()[torch.arange(len(labels)), labels]


@exercise(_predict_masks)
def predict_masks(ask: Ask) -> str:
    """Masks for the detections that are left."""
    torch.manual_seed(0)
    branch = nn.Sequential(OrderedDict(deconvolution=nn.ConvTranspose2d(4, 5, 2, stride=2))).requires_grad_(False)
    branch.deconvolution.weight.data.mul_(6)
    features, boxes = torch.rand(1, 4, 9, 12), random_boxes(6, seed=2, size=60) + torch.tensor([0, 0, 9.3, 7.7])
    labels, rows = torch.tensor([1, 4, 2, 2, 3, 1]), torch.arange(6)
    logits, chosen = branch(_pooled(features, boxes)), functools.partial(_chosen, branch, features, boxes, labels)
    every = logits.sigmoid()
    wanted = every[rows, labels]
    slips: dict[str, Any] = {
        "it returns logits; take the sigmoid": logits[rows, labels],
        "it is a softmax over the classes; each mask has its own sigmoid": logits.softmax(1)[rows, labels],
        "channel 0 is the background, so the label is the channel: no - 1": every[rows, labels - 1],
        "it takes the largest of all masks at each cell; take the mask of the class": every.amax(dim=1),
        "[:, labels] takes every label for every box; index with [torch.arange(N), labels]": every[:, labels],
        "it returns the masks of all classes; keep the one of each detection's class": every,
        "it decides already; return probabilities": lambda v: ((v == 0) | (v == 1)).all(),
        "RoIAlign works in cells: spatial_scale is 1 / stride": chosen(scale=1.0),
        "it is half a cell off: pass aligned=True": chosen(aligned=False),
        "the branch gets another grid than 14 × 14 cells": lambda v: v.shape[-1] != 28,
        "RoIAlign has other sampling points; sampling_ratio is 2": chosen(ratio=-1),
    }
    ask.compare(branch, features, boxes, labels, 8, wanted=wanted, slips=slips, case="for six detections", atol=1e-4)
    features = torch.rand(1, 4, 6, 6)
    ask.compare(branch, features, boxes, labels, 16, wanted=_chosen(branch, features, boxes, labels, scale=1 / 16))
    none = ask(branch, features, boxes[:0], labels[:0], 8)
    refuse_type(none, torch.zeros(0, 28, 28), "without detections it returns")
    if none.shape != (0, 28, 28):
        raise NotYet(f"without detections it returns shape {tuple(none.shape)}, wanted is (0, 28, 28)")
    return "checked with torchvision's RoIAlign, at strides 8 and 16, and without detections"


def _pooled(features: Tensor, boxes: Tensor, scale: float = 1 / 8, ratio: int = 2, aligned: bool = True) -> Tensor:
    return torchvision.ops.roi_align(features, [boxes], 14, scale, ratio, aligned)


def _chosen(branch: nn.Module, features: Tensor, boxes: Tensor, labels: Tensor, **options: Any) -> Tensor:  # noqa: ANN401
    return branch(_pooled(features, boxes, **options)).sigmoid()[torch.arange(len(labels)), labels]


def _train_step(
    branch: nn.Module, optimizer: torch.optim.Optimizer, features: Tensor, boxes: Tensor, labels: Tensor, wanted: Tensor
) -> float:
    """One step on the mask loss of an image."""
    pooled = roi_align(features, to_rois([boxes]), 14, 1 / 8, sampling_ratio=2, aligned=True)
    loss = ours.mask_loss(branch(pooled), labels, wanted)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@exercise(_train_step)
def train_step(ask: Ask) -> str:
    """One step of the optimizer on the mask loss."""
    torch.manual_seed(0)
    start = nn.Sequential(nn.ConvTranspose2d(4, 5, 2, stride=2))
    features, labels = 4 * torch.rand(1, 4, 9, 12), torch.tensor([1, 4, 2, 2, 3, 1])
    boxes, wanted = random_boxes(6, seed=2, size=60) + torch.tensor([0, 0, 9.3, 7.7]), torch.rand(6, 28, 28).round()
    given, ends, losses = (features, boxes, labels, wanted), [], []
    for step in (_train_step, functools.partial(ask, may_change=True)):
        branch = copy.deepcopy(start)
        optimizer = torch.optim.SGD(branch.parameters(), lr=0.5)
        losses.append([step(branch, optimizer, *given) for _ in range(2)])
        ends.append(branch[0].weight.detach() - start[0].weight.detach())
    for mine, right in zip(losses[1], losses[0], strict=True):
        refuse_type(mine, right)
    if isinstance(losses[1][0], Tensor) and losses[1][0].requires_grad:
        raise NotYet("it returns the loss with its graph; return loss.item()")
    first, right = float(losses[1][0]), losses[0][0]
    if abs(first - right) > 1e-5:
        raise NotYet(f"the loss of the first step is {first:.4f} and not {right:.4f}: {_cause(first, start, given)}")
    if not ends[1].any():
        raise NotYet("the branch's weights stay as they were: backward() makes gradients, optimizer.step() uses them")
    if difference(ends[1], ends[0], 1e-3, 1e-5):
        raise NotYet("after two steps the weights are other ones; does zero_grad() come before backward()?")
    return "losses and weights after two steps as they should be"


@torch.no_grad()
def _cause(value: float, start: nn.Module, given: tuple[Tensor, ...]) -> str:
    """Why the first loss may be another one."""
    features, boxes, labels, wanted = given
    slips = {
        "RoIAlign gets aligned=True, as in detection": _pooled(features, boxes, aligned=False),
        "RoIAlign's spatial_scale is 1 / 8": _pooled(features, boxes, scale=1.0),
        "RoIAlign's sampling_ratio is 2": _pooled(features, boxes, ratio=-1),
    }
    losses = {text: ours.mask_loss(start(pooled), labels, wanted) for text, pooled in slips.items()}
    sigmoid = start(_pooled(features, boxes)).sigmoid()
    losses["the loss wants logits, without a sigmoid"] = ours.mask_loss(sigmoid, labels, wanted)
    unknown = "it is mask_loss of the branch's logits for the pooled boxes"
    return next((text for text, loss in losses.items() if abs(value - float(loss)) < 1e-5), unknown)


def _paste_mask(mask: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
    return ours.paste_masks(mask[None], box[None], tuple(size))[0, 0]


@exercise(_paste_mask)
def paste_mask(ask: Ask) -> str:
    """A mask stretched over its box."""
    mask = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.3
    box, size = torch.tensor([4.3, 2.6, 24.8, 14.1]), (20, 30)
    wanted, stretched = _stretched(mask, box, size), functools.partial(_stretched, mask, box, size)
    half_cell, whole = (box[2:] - box[:2]).repeat(2) / 12, paste_masks_in_image(mask[None, None], box[None], size)
    slips = {
        "it stretches the mask over whole pixels, as torchvision does": whole[0, 0],
        "it asks for the pixel's corner; the center of row i is at i + 0.5": _stretched(mask, box + 0.5, size),
        "cell k has its value at k + 0.5 of the mask: subtract 0.5": _stretched(mask, box - half_cell, size),
        "rows and columns of the mask are exchanged": _stretched(mask.T, box, size),
        "x and y of the box are exchanged": _stretched(mask, box[[1, 0, 3, 2]], size),
        "it takes the nearest cell; interpolate between four": stretched(mode="nearest"),
        "outside of its box it repeats the mask's edge; there is nothing, 0": stretched(padding_mode="border"),
        "the outer cells lie half a cell inside of the box, not on its edges": stretched(align_corners=True),
        "it decides already; return probabilities": (wanted > 0.5).float(),
        "it returns the box alone; wanted is the whole image": lambda v: v.shape != wanted.shape and v.numel() < 400,
    }
    ask.compare(mask, box, size, wanted=wanted, slips=slips, case="for 6 × 6 cells in 20 × 30 pixels", atol=1e-4)
    for seed in range(20):
        mask = torch.rand(28, 28, generator=torch.Generator().manual_seed(seed))
        box = random_boxes(1, seed=seed, size=70)[0] + torch.tensor([-12.0, -12.0, 0.0, 0.0])
        wanted = _stretched(mask, box, (40, 50))
        ask.compare(mask, box, (40, 50), wanted=wanted, case=f"for the box {box.round().tolist()}", atol=1e-3)
    return "equal to torch's grid_sample for 20 boxes, some of which reach outside"


def _stretched(mask: Tensor, box: Tensor, size: tuple[int, int], **options: Any) -> Tensor:  # noqa: ANN401
    """The same by torch's grid_sample, where the box reaches from -1 to 1."""
    x1, y1, x2, y2 = box.tolist()
    y = (torch.arange(size[0]) + 0.5 - y1) / (y2 - y1) * 2 - 1
    x = (torch.arange(size[1]) + 0.5 - x1) / (x2 - x1) * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    return F.grid_sample(mask[None, None], grid[None], **{"align_corners": False, **options})[0, 0]


def _mask_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every mask of a with every mask of b."""
    a, b = a.flatten(1).float(), b.flatten(1).float()
    shared = a @ b.T
    return shared / (a.sum(dim=1)[:, None] + b.sum(dim=1) - shared).clamp(min=1)


@exercise(_mask_iou)
def mask_iou(ask: Ask) -> str:
    """IoU of pixels."""
    a, b = random_masks(4), random_masks(5, seed=1)
    shared = (a[:, None] & b).flatten(2).sum(dim=2)
    of_a, of_b = (masks.flatten(1).sum(dim=1) for masks in (a, b))
    wanted = torch.from_numpy(rle.iou(encode_masks(a), encode_masks(b), [0] * 5)).float()
    total = of_a[:, None] + of_b
    slips = {
        "that is the IoU of the boxes; count pixels": torchvision.ops.box_iou(_masks_to_boxes(a), _masks_to_boxes(b)),
        "it counts the intersection twice in the union: subtract it once": shared / total,
        "it divides by the pixels of a; the union is those of a or b": shared / of_a[:, None],
        "it is the intersection; divide it by the union": shared.float(),
        "rows and columns are exchanged: a row for each mask of a": wanted.T,
        "that is the Dice coefficient, twice the intersection over the sum; divide by the union": 2 * shared / total,
        "it is the union": (total - shared).float(),
    }
    ask.compare(a, b, wanted=wanted, slips=slips, case="for four and five ellipses")
    empty = torch.zeros(1, 40, 60, dtype=torch.bool)
    value = ask(empty, empty)
    if isinstance(value, Tensor) and value.isnan().any():
        raise NotYet("two empty masks give 0 / 0; their IoU is 0: a union of at least 1 pixel")
    ask.compare(empty, torch.cat([empty, a]), wanted=torch.zeros(1, 5), case="for an empty mask")
    return "equal to pycocotools' for 20 pairs, empty masks included"


def _masks_to_boxes(masks: Tensor) -> Tensor:
    """The smallest box around each mask, zeros for an empty one."""
    boxes = torch.zeros(len(masks), 4)
    some = masks.flatten(1).any(dim=1)
    boxes[some] = torchvision.ops.masks_to_boxes(masks[some]) + torch.tensor([0.0, 0.0, 1.0, 1.0])
    return boxes


@exercise(_masks_to_boxes)
def masks_to_boxes(ask: Ask) -> str:
    """The smallest box around each mask."""
    masks = random_masks(30)
    inclusive, wanted = torchvision.ops.masks_to_boxes(masks), _masks_to_boxes(masks)
    width_height = torch.cat([wanted[:, :2], wanted[:, 2:] - wanted[:, :2]], dim=1)
    slips = {
        "x2 and y2 are those of the last pixel, as in torchvision; its far side is one further": inclusive,
        "these are y1, x1, y2, x2; a box is x1, y1, x2, y2": wanted[:, [1, 0, 3, 2]],
        "these are x1, y1, width, height; a box is x1, y1, x2, y2": width_height,
        "x1 and y1 are one too large: pixel 0 begins at 0": inclusive + 1,
    }
    value = ask.compare(masks, wanted=wanted, slips=slips, case="for 30 ellipses", rtol=0)
    if not value.is_floating_point():
        raise NotYet(f"it returns {value.dtype}; boxes are floats")
    masks[3] = False
    try:
        value = ask(masks)
    except NotYet as error:
        raise NotYet(f"for a mask without a pixel {error}; give it a box of zeros") from None
    if isinstance(value, Tensor) and value.shape == wanted.shape and value[3].any():
        raise NotYet("a mask without a pixel gets a box of zeros; detections have such masks")
    ask.compare(masks, wanted=_masks_to_boxes(masks), case="with a mask without a pixel", rtol=0)
    ask.compare(masks[:0], wanted=torch.zeros(0, 4), case="without masks")
    return "equal to torchvision's, plus one pixel at the right and at the bottom"
