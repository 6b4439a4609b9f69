"""The exercises of notebook 12: frozen normalization, a residual block, a pyramid and its levels, one's own images."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet as torchvision_resnet
from torchvision.ops import FeaturePyramidNetwork, masks_to_boxes
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.misc import FrozenBatchNorm2d
from torchvision.ops.poolers import LevelMapper

from minircnn import pooling, resnet_fpn
from minircnn.course.check.judge import Ask, NotYet, exercise, refuse_type
from minircnn.mask_rcnn import MaskRCNN, load_mask_rcnn

# ------------------------------------------------------------------------------ the backbone


class _Weights(nn.Conv2d):
    """A convolution that is asked for its weights and not called."""

    def forward(self, _: Tensor) -> NoReturn:
        raise NotYet("it runs the convolution by itself; use F.conv2d, once, with weights that hold the factor")


def _norm(channels: int, kind: type[nn.Module] = FrozenBatchNorm2d, eps: float = 0.1) -> nn.Module:
    """A frozen batch norm with statistics that matter."""
    norm = kind(channels, eps)
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(norm, name).copy_(torch.rand(channels) + 0.2)
    return norm


@exercise(resnet_fpn.convolve)
def convolve(ask: Ask) -> str:
    """A convolution and the frozen batch norm behind it, in one."""
    torch.manual_seed(0)
    x, conv, norm = torch.randn(2, 4, 9, 9), _Weights(4, 4, 3, 2, padding=1, bias=False).requires_grad_(False), _norm(4)
    weight, bias, mean, variance = norm.weight, norm.bias, norm.running_mean, norm.running_var

    def by(f: Tensor, s: Tensor | None) -> Tensor:
        return F.conv2d(x, conv.weight * f[:, None, None, None], s, stride=2, padding=1)

    f, square, bare = weight / (variance + 0.1).sqrt(), weight / (variance + 0.1), 1 / (variance + 0.1).sqrt()
    one, no_eps = torch.ones(4), weight / variance.sqrt()
    inputs = F.conv2d(x, conv.weight * f[None, :, None, None], bias - mean * f, stride=2, padding=1)
    wanted = norm(F.conv2d(x, conv.weight, None, stride=2, padding=1))
    slips = {
        "stride and padding are missing: pass conv.stride and conv.padding": lambda v: v.shape != wanted.shape,
        "it is the convolution without the norm": by(one, None),
        "it divides by the variance; divide by the square root of running_var + eps": by(square, bias - mean * square),
        "eps is missing under the root": by(no_eps, bias - mean * no_eps),
        "the factor lacks the norm's own weight": by(bare, bias - mean * bare),
        "nothing is added: the summand s is the bias of the convolution": by(f, None),
        "the mean is subtracted without the factor: s = b - mean · f": by(f, bias - mean),
        "the mean is forgotten: s = b - mean · f": by(f, bias),
        "the mean is added; subtract it: s = b - mean · f": by(f, bias + mean * f),
        "the weights lack the factor": by(one, bias - mean * f),
        "the factor is on the input channels; the output channels are the first axis of conv.weight": inputs,
    }
    ask.compare(x, conv, norm, wanted=wanted, slips=slips, case="for 4 channels, stride 2")
    x, conv, norm = torch.randn(1, 3, 12, 8), _Weights(3, 7, 1, bias=False).requires_grad_(False), _norm(7, eps=1e-5)
    wanted = norm(F.conv2d(x, conv.weight))
    ask.compare(x, conv, norm, wanted=wanted, case="from 3 channels to 7")
    return "equal to torchvision's two layers, one after the other"


class _Parts(resnet_fpn.Bottleneck):
    """A block that is taken apart and not called."""

    def forward(self, _: Tensor) -> NoReturn:
        raise NotYet("it calls the block itself; build it out of its three convolutions")


def _block(before: int, stride: int = 1, projected: bool = False) -> tuple[nn.Module, nn.Module]:
    """A block to take apart, with 16 channels behind it, and torchvision's with the same weights."""
    ours = _Parts(before, 4, stride, 1e-5)
    if projected:
        ours.downsample = nn.Sequential(nn.Conv2d(before, 16, 1, stride, bias=False), _norm(16, type(ours.bn1), 1e-5))
    for n in (1, 2, 3):
        setattr(ours, f"bn{n}", _norm(16 if n == 3 else 4, type(ours.bn1), 1e-5))
    shortcut = None
    if ours.downsample is not None:
        shortcut = nn.Sequential(nn.Conv2d(before, 16, 1, stride, bias=False), FrozenBatchNorm2d(16))
    theirs = torchvision_resnet.Bottleneck(before, 4, stride, shortcut, norm_layer=FrozenBatchNorm2d)
    theirs.load_state_dict(ours.state_dict())
    return ours.requires_grad_(False), theirs.requires_grad_(False)


def _bottleneck(x: Tensor, block: nn.Module) -> Tensor:
    """The residual block, out of the package's parts."""
    y = resnet_fpn.convolve(x, block.conv1, block.bn1).relu()
    y = resnet_fpn.convolve(y, block.conv2, block.bn2).relu()
    y = resnet_fpn.convolve(y, block.conv3, block.bn3)
    return (y + (x if block.downsample is None else resnet_fpn.convolve(x, *block.downsample))).relu()


@exercise(_bottleneck)
def bottleneck(ask: Ask) -> str:
    """A residual block with its shortcut."""
    torch.manual_seed(1)
    x, (block, theirs) = torch.randn(2, 16, 7, 7), _block(16)
    y = bare = x
    for n in (1, 2, 3):
        conv, norm = getattr(theirs, f"conv{n}"), getattr(theirs, f"bn{n}")
        y, bare = norm(conv(y.relu() if n > 1 else y)), norm(conv(bare))
    slips = {
        "the shortcut is missing: add x, then comes the last ReLU": y.relu(),
        "the shortcut and the last ReLU are missing": y,
        "the last ReLU comes before the addition; it follows it": y.relu() + x,
        "the ReLU after the addition is missing": y + x,
        "between the convolutions there is no ReLU": (bare + x).relu(),
    }
    ask.compare(x, block, wanted=theirs(x), slips=slips, case="for a block without downsample")
    block, theirs = _block(16, projected=True)
    wanted, shortcut = theirs(x), theirs.downsample
    theirs.downsample = None
    slips = {"the block has a downsample: the shortcut is x sent through it": theirs(x)}
    theirs.downsample = shortcut[0]
    slips["downsample is a convolution and a norm; the norm is missing"] = theirs(x)
    ask.compare(x, block, wanted=wanted, slips=slips, case="for a block with downsample")
    x, (block, theirs) = torch.randn(2, 8, 9, 9), _block(8, stride=2)
    ask.compare(x, block, wanted=theirs(x), case="for a block of stride 2")
    return "equal to torchvision's Bottleneck, with downsample and without"


# ------------------------------------------------------------------------------ the pyramid


class _Layers(resnet_fpn.FeaturePyramid):
    """A pyramid that is taken apart and not called."""

    def forward(self, _: object) -> NoReturn:
        raise NotYet("it calls the pyramid itself; build it out of inner_blocks and layer_blocks")


def _pyramid(maps: list[Tensor], fpn: nn.Module) -> list[Tensor]:
    """C2 … C5 to P2 … P6."""
    return list(resnet_fpn.FeaturePyramid.forward(fpn, maps).values())


@exercise(_pyramid)
def pyramid(ask: Ask) -> str:
    """The top-down pathway of a feature pyramid."""
    torch.manual_seed(2)
    widths = (4, 6, 8, 10)
    fpn, theirs = _Layers(widths, 5).requires_grad_(False), FeaturePyramidNetwork([*widths], 5, LastLevelMaxPool())
    theirs.requires_grad_(False).load_state_dict(fpn.state_dict())
    for sizes in ((32, 16, 8, 4), (25, 13, 7, 4)):
        maps = [torch.randn(1, width, size, size + 3) for width, size in zip(widths, sizes, strict=True)]
        wanted = list(theirs(OrderedDict((str(n), one) for n, one in enumerate(maps))).values())
        value = ask(maps, fpn)
        if isinstance(value, (list, tuple)) and len(value) == 4:
            raise NotYet("P6 is missing: every second row and column of P5")
        slips = {
            "the order is from coarse to fine; P2, the finest, comes first": lambda v: (
                len(v[0][0, 0]) < len(v[3][0, 0])
            ),
            "nothing is handed down: add the coarser sum, enlarged, to each lateral map": _slip(maps, fpn, down=0),
            "the 3 × 3 convolutions (layer_blocks) are missing": _slip(maps, fpn, smooth=False),
            "it hands down the smoothed level; hand down the sum, and smooth it aside": _slip(maps, fpn, first=True),
            "it enlarges bilinearly; mode='nearest' repeats cells": _slip(maps, fpn, mode="bilinear"),
            "P6 is P5 itself; take every second row and column": lambda v: torch.equal(v[3], v[4]),
        }
        ask.compare(maps, fpn, wanted=wanted, slips=slips, case=f"for maps of {sizes} rows")
    return "equal to torchvision's FeaturePyramidNetwork, for even and odd sizes"


def _slip(
    maps: list[Tensor],
    fpn: nn.Module,
    mode: str = "nearest",
    first: bool = False,
    smooth: bool = True,
    down: float = 1,
) -> list[Tensor]:
    """A pyramid with a slip: of how it enlarges, of what it hands down."""
    top, levels = torch.zeros(1, 5, 1, 1), []
    for one, inner, layer in reversed(list(zip(maps, fpn.inner_blocks, fpn.layer_blocks, strict=True))):
        lateral = inner(one)
        lateral = lateral + down * F.interpolate(top, size=lateral.shape[2:], mode=mode)
        levels.insert(0, layer(lateral) if smooth else lateral)
        top = levels[0] if first else lateral
    return [*levels, levels[-1][:, :, ::2, ::2]]


@exercise(pooling.pyramid_level)
def pyramid_level(ask: Ask) -> str:
    """From which level of a pyramid a box is pooled."""
    sides = [[224, 224], [112, 448], [112, 112], [320, 320], [300, 60], [700, 500], [30, 10], [900, 900]]
    sides = torch.tensor(sides).float()
    boxes = torch.cat([torch.full((8, 2), 150.0), sides + 150], dim=1)
    size = sides.prod(dim=1).sqrt()
    level = 4 + torch.log2(size / 224)

    def of(size: Tensor, log: Callable[[Tensor], Tensor] = torch.log2) -> Tensor:
        return (4 + log(size / 224)).floor().clamp(2, 5).long()

    slips = {
        "it rounds to the nearest level; ⌊ ⌋ rounds down": level.round().clamp(2, 5).long(),
        "it rounds up; ⌊ ⌋ rounds down": level.ceil().clamp(2, 5).long(),
        "levels below 2 and above 5 do not exist: cut them off at both ends": level.floor().long(),
        "they are not cut off at 2: the smallest boxes need P2": level.floor().clamp(max=5).long(),
        "they are not cut off at 5: P6 is no level for regions": level.floor().clamp(min=2).long(),
        "it takes the area; take its square root": of(size**2),
        "it takes the longer side; take the root of the area": of(sides.amax(dim=1)),
        "it takes the natural logarithm; take log2": of(size, torch.log),
        "it takes the corner for the size: a width is x2 - x1": of((sides + 150).prod(dim=1).sqrt()),
        "it counts from 0; P2 is level 2": of(size) - 2,
    }
    mapper = LevelMapper(2, 5)
    ask.compare(boxes, wanted=mapper([boxes]) + 2, slips=slips, case="for eight boxes")
    corners = torch.from_numpy(np.random.RandomState(3).uniform(0, 900, (500, 2, 2))).float()
    boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
    ask.compare(boxes, wanted=mapper([boxes]) + 2, case="for 500 random boxes")
    return "equal to torchvision's LevelMapper for 500 boxes"


# ------------------------------------------------------------------------------ one's own images


def _target_from_labels(label_map: Tensor) -> dict[str, Tensor]:
    """The target of an image whose pixels are numbered by object."""
    masks = label_map == label_map.unique()[1:, None, None]
    boxes = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])
    return {"boxes": boxes, "labels": torch.ones(len(masks), dtype=torch.int64), "masks": masks}


@exercise(_target_from_labels)
def target_from_labels(ask: Ask) -> str:
    """Boxes, labels and masks out of an image of numbers."""
    label_map = torch.zeros(8, 12, dtype=torch.int64)
    label_map[1:4, 2:7], label_map[5:8, 9:12], label_map[6, 0] = 1, 2, 4  # 3 is nobody's
    wanted = _target_from_labels(label_map)
    value = ask(label_map)
    refuse_type(value, wanted)
    boxes, labels, masks = value["boxes"], value["labels"], value["masks"]
    inclusive, size = wanted["boxes"] - torch.tensor([0, 0, 1, 1]), wanted["boxes"][:, 2:] - wanted["boxes"][:, :2]
    slips = {
        "0 is the background, and no object": len(masks) == 4 and masks[0].sum() > 70,
        "no pixel has a 3, and an empty mask is no object: take the numbers that occur": len(masks) == 4,
        "labels are classes and not the numbers of objects: all are coins, class 1": labels.tolist() == [1, 2, 4],
        "label 0 is the background; the first class is 1": bool((labels == 0).any()),
        "boxes end one pixel early: edges lie between pixels, x2 is the last column + 1": _same(boxes, inclusive),
        "rows and columns are exchanged: a box is x1, y1, x2, y2": _same(boxes, wanted["boxes"][:, [1, 0, 3, 2]])
        or _same(boxes, inclusive[:, [1, 0, 3, 2]]),
        "boxes are corner and size; give two corners": _same(boxes, torch.cat([inclusive[:, :2], size], dim=1)),
    }
    for text, found in slips.items():
        if found:
            raise NotYet(text)
    ask.compare(label_map, wanted=wanted, case="for three objects")
    noise = torch.from_numpy(np.random.RandomState(4).randint(0, 9, (40, 30)))
    ask.compare(noise, wanted=_target_from_labels(noise), case="for an image of noise")
    return "equal to torchvision's masks_to_boxes, with half-open edges"


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.double(), b.double())


def _for_new_classes(detector: MaskRCNN, classes: list[str]) -> MaskRCNN:
    """A copy of a detector with last layers for other classes."""
    new, count = copy.deepcopy(detector), len(classes)
    boxes, masks = new.roi_heads.box_predictor, new.roi_heads.mask_predictor
    hidden = boxes.cls_score.in_features
    boxes["cls_score"], boxes["bbox_pred"] = nn.Linear(hidden, count), nn.Linear(hidden, 4 * count)
    masks.mask_fcn_logits = nn.Conv2d(masks.mask_fcn_logits.in_channels, count, 1)
    new.classes = classes
    return new


_small = lru_cache(maxsize=1)(load_mask_rcnn)
_LAST = {"cls_score": "one score", "bbox_pred": "four deltas", "mask_fcn_logits": "one mask"}


@exercise(_for_new_classes)
def for_new_classes(ask: Ask) -> str:
    """A detector whose last layers are new."""
    detector, classes = copy.deepcopy(_small()), ["background", "cup", "spoon", "saucer"]
    new = ask(detector, classes)
    if not isinstance(new, MaskRCNN):
        kind = "None; did you forget `return`?" if new is None else f"a {type(new).__name__}; a MaskRCNN is wanted"
        raise NotYet(f"it returns {kind}")
    before, after = detector.state_dict(), new.state_dict()
    for key, old in before.items():
        name = next((name for name in _LAST if key.startswith("roi") and f".{name}." in key), None)
        layer, shape = after.get(key), tuple(old.shape[1:])
        if layer is None:
            raise NotYet(f"there is no {key} any more; keep the names of the layers")
        if name is None and not torch.equal(layer, old):
            raise NotYet(f"{key} has lost what it had learned; only the last layers are new")
        if name and key.endswith("weight"):
            outputs = (4 if name == "bbox_pred" else 1) * len(classes)
            if torch.equal(layer[: len(old)], old[: len(layer)]):
                raise NotYet(f"{name} still holds weights of the old classes; put a new layer in its place")
            if len(layer) != outputs:
                raise NotYet(f"{name} has {len(layer)} outputs; {_LAST[name]} a class, background too, is {outputs}")
            if layer.shape[1:] != shape:
                raise NotYet(f"{name} takes {tuple(layer.shape[1:])}; the layer before it gives {shape}")
    if list(new.classes) != classes:
        raise NotYet(f"its classes are {', '.join(new.classes)}; set .classes to the new names")
    new.eval().detect([torch.rand(3, 64, 64)])
    return f"three new layers, and {len(before) - 6} tensors as they were"
