"""The exercises of notebook 12: frozen normalization, a residual block, a pyramid and its levels, one's own images."""

import copy
from collections import OrderedDict
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
from minircnn.course.check.boxes_and_metrics import random_boxes
from minircnn.course.check.judge import Ask, NotYet, exercise, refuse_kind, refuse_type
from minircnn.mask_rcnn import MaskRCNN, load_mask_rcnn


def _apart(module: nn.Module, text: str) -> nn.Module:
    """A module to take apart; who calls it is told so."""

    def refuse(*_: object) -> NoReturn:
        raise NotYet(text)

    module.register_forward_pre_hook(refuse)
    return module.requires_grad_(False)


def _with_statistics(module: nn.Module) -> nn.Module:
    """Frozen batch norms with numbers that matter."""
    for buffer in module.buffers():
        buffer.copy_(torch.rand(len(buffer)) + 0.2)
    return module


def _convolve(x: Tensor, conv: nn.Conv2d, norm: nn.Module) -> Tensor:
    f = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    s = norm.bias - norm.running_mean * f
    return F.conv2d(x, conv.weight * f[:, None, None, None], s, conv.stride, conv.padding)


@exercise(_convolve)
def convolve(ask: Ask) -> str:
    """A convolution and the frozen batch norm behind it, in one."""
    slips = """
        , conv.stride, conv.padding => !! stride and padding are missing: pass conv.stride and conv.padding
        torch.sqrt( => ( !! it divides by the variance; divide by the square root of running_var + eps
        + norm.eps => !! eps is missing under the root
        norm.weight / => 1 / !! the factor lacks the norm's own weight
        norm.running_mean * f => norm.running_mean !! the mean is subtracted without the factor: s = b - mean · f
        conv.weight * f[:, None, None, None] => conv.weight !! the weights lack the factor
        f[:, None, => f[None, :, !! the factor is on the input channels; output channels come first in conv.weight
    """

    def right(x: Tensor, conv: nn.Conv2d, norm: nn.Module) -> Tensor:
        return norm(F.conv2d(x, conv.weight, None, conv.stride, conv.padding))

    torch.manual_seed(0)
    text = "it runs the convolution by itself; use F.conv2d, once, with weights that hold the factor"
    conv, norm = _apart(nn.Conv2d(4, 4, 3, 2, padding=1, bias=False), text), _with_statistics(FrozenBatchNorm2d(4, 0.1))
    ask.cases([(torch.randn(2, 4, 9, 9), conv, norm)], slips, "for 4 channels, stride 2", right=right)
    conv, norm = _apart(nn.Conv2d(3, 7, 1, bias=False), text), _with_statistics(FrozenBatchNorm2d(7))
    ask.cases([(torch.randn(1, 3, 12, 8), conv, norm)], what="from 3 channels to 7", right=right)
    return "equal to torchvision's two layers, one after the other"


def _block(before: int, stride: int = 1, projected: bool = False) -> nn.Module:
    """A block to take apart, with 16 channels behind it."""
    block = resnet_fpn.Bottleneck(before, 4, stride, 1e-5)
    if projected:
        block.downsample = nn.Sequential(nn.Conv2d(before, 16, 1, bias=False), resnet_fpn.FrozenBatchNorm2d(16))
    return _apart(_with_statistics(block), "it calls the block itself; build it out of its three convolutions")


def _by_torchvision(x: Tensor, block: nn.Module) -> Tensor:
    stride, shortcut = block.conv2.stride[0], None
    if block.downsample is not None:
        shortcut = nn.Sequential(nn.Conv2d(x.shape[1], 16, 1, stride, bias=False), FrozenBatchNorm2d(16))
    theirs = torchvision_resnet.Bottleneck(x.shape[1], 4, stride, shortcut, norm_layer=FrozenBatchNorm2d)
    theirs.load_state_dict(block.state_dict())
    return theirs(x)


def _bottleneck(x: Tensor, block: nn.Module) -> Tensor:
    y = resnet_fpn.convolve(x, block.conv1, block.bn1).relu()
    y = resnet_fpn.convolve(y, block.conv2, block.bn2).relu()
    y = resnet_fpn.convolve(y, block.conv3, block.bn3)
    shortcut = x if block.downsample is None else resnet_fpn.convolve(x, *block.downsample)
    return (y + shortcut).relu()


@exercise(_bottleneck)
def bottleneck(ask: Ask) -> str:
    """A residual block with its shortcut."""
    slips = """
        (y + shortcut).relu() => y.relu() !! the shortcut is missing: add x, then comes the last ReLU
        (y + shortcut).relu() => y !! the shortcut and the last ReLU are missing
        (y + shortcut).relu() => y.relu() + shortcut !! the last ReLU comes before the addition; it follows it
        (y + shortcut).relu() => y + shortcut !! the ReLU after the addition is missing
        ).relu()\\n    y => )\\n    y !! between the convolutions there is no ReLU
        resnet_fpn.convolve(x, *block.downsample) => x !! the block has a downsample: the shortcut is x sent through it
        resnet_fpn.convolve(x, *block.downsample) => block.downsample[0](x) !! the norm of the downsample is missing
    """
    torch.manual_seed(1)
    x = torch.randn(2, 16, 7, 7)
    ask.cases([(x, _block(16))], slips, "for a block without downsample", right=_by_torchvision)
    ask.cases([(x, _block(16, projected=True))], slips, "for a block with downsample", right=_by_torchvision)
    ask.cases([(torch.randn(2, 8, 9, 9), _block(8, stride=2))], what="for a block of stride 2", right=_by_torchvision)
    return "equal to torchvision's Bottleneck, with downsample and without"


def _pyramid(maps: list[Tensor], fpn: nn.Module) -> list[Tensor]:
    top, levels = None, []
    for one, inner, layer in reversed(list(zip(maps, fpn.inner_blocks, fpn.layer_blocks, strict=True))):
        lateral = inner(one)
        if top is not None:
            lateral = lateral + F.interpolate(top, size=lateral.shape[2:], mode="nearest")
        levels.insert(0, layer(lateral))
        top = lateral
    return [*levels, levels[-1][:, :, ::2, ::2]]


@exercise(_pyramid)
def pyramid(ask: Ask) -> str:
    """The top-down pathway of a feature pyramid."""
    slips = """
        insert(0, => append( !! the order is from coarse to fine; P2, the finest, comes first
        ::2, ::2]] => ::2, ::2]][::-1] !! the order is from coarse to fine; P2, the finest, comes first, and P6 last
        if top is not None => if False !! nothing is handed down: add the coarser sum, enlarged, to each lateral map
        layer(lateral) => lateral !! the 3 × 3 convolutions (layer_blocks) are missing
        top = lateral => top = levels[0] !! it hands down the smoothed level; hand down the sum, and smooth it aside
        nearest => bilinear !! it enlarges bilinearly; mode='nearest' repeats cells
        [:, :, ::2, ::2] => !! P6 is P5 itself; take every second row and column
    """
    torch.manual_seed(2)
    widths, cases = (4, 6, 8, 10), []
    text = "it calls the pyramid itself; build it out of inner_blocks and layer_blocks"
    fpn = _apart(resnet_fpn.FeaturePyramid(widths, 5), text)
    for sizes in ((32, 16, 8, 4), (25, 13, 7, 4)):
        cases.append(([torch.randn(1, width, n, n + 3) for width, n in zip(widths, sizes, strict=True)], fpn))

    def right(maps: list[Tensor], fpn: nn.Module) -> list[Tensor]:
        theirs = FeaturePyramidNetwork([*widths], 5, LastLevelMaxPool()).requires_grad_(False)
        theirs.load_state_dict(fpn.state_dict())
        return list(theirs(OrderedDict((str(n), one) for n, one in enumerate(maps))).values())

    value = ask(*cases[0])
    if isinstance(value, (list, tuple)) and len(value) == 4:
        raise NotYet("P6 is missing: every second row and column of P5")
    ask.cases(cases, slips, "for maps of {0[0].shape[2]} … {0[3].shape[2]} rows", right=right)
    return "equal to torchvision's FeaturePyramidNetwork, for even and odd sizes"


@exercise(pooling.pyramid_level)
def pyramid_level(ask: Ask) -> str:
    """From which level of a pyramid a box is pooled."""
    slips = """
        .floor() => .round() !! it rounds to the nearest level; ⌊ ⌋ rounds down
        + 1e-6).floor() => ).ceil() !! it rounds up; ⌊ ⌋ rounds down
        .clamp(lowest, highest) => !! levels below 2 and above 5 do not exist: cut them off at both ends
        .sqrt() => !! it takes the area; take its square root
        size = => size = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1); _ = !! it takes the longer side, not the area's root
        log2 => log !! it takes the natural logarithm; take log2
        .long() => .long() - 2 !! it counts from 0; P2 is level 2
    """
    sides = [[224, 224], [112, 448], [112, 112], [320, 320], [300, 60], [700, 500], [30, 10], [900, 900]]
    few = torch.tensor([[150.0, 150.0, 150.0 + width, 150.0 + height] for width, height in sides])
    cases = [(few,), (random_boxes(500, seed=3, size=900),)]
    ask.cases(cases, slips, "for {0.shape[0]} boxes", right=lambda boxes: LevelMapper(2, 5)([boxes]) + 2)
    return "equal to torchvision's LevelMapper for 500 boxes"


def _target_from_labels(label_map: Tensor) -> dict[str, Tensor]:
    numbers, boxes = label_map.unique()[1:], []
    masks = label_map == numbers[:, None, None]
    for mask in masks:
        ys, xs = torch.where(mask)
        x1, y1, x2, y2 = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        boxes.append([x1, y1, x2, y2])
    return {"boxes": torch.tensor(boxes).float(), "labels": torch.ones(len(masks), dtype=torch.int64), "masks": masks}


@exercise(_target_from_labels)
def target_from_labels(ask: Ask) -> str:
    """Boxes, labels and masks out of an image of numbers."""
    slips = """
        .unique()[1:] => .unique() !! 0 is the background, and no object
        torch.ones(len(masks), dtype=torch.int64) => numbers !! labels are classes, not objects' numbers: all are 1
        torch.ones => torch.zeros !! label 0 is the background; the first class is 1
        + 1 => !! boxes end one pixel early: edges lie between pixels, x2 is the last column + 1
        [x1, y1, x2, y2] => [y1, x1, y2, x2] !! rows and columns are exchanged: a box is x1, y1, x2, y2
        [x1, y1, x2, y2] => [x1, y1, x2 - x1, y2 - y1] !! boxes are corner and size; give two corners
    """

    def right(label_map: Tensor) -> dict[str, Tensor]:
        masks = label_map == label_map.unique()[1:, None, None]
        boxes = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])
        return {"boxes": boxes, "labels": torch.ones(len(masks), dtype=torch.int64), "masks": masks}

    label_map = torch.zeros(8, 12, dtype=torch.int64)
    label_map[1:4, 2:7], label_map[5:8, 9:12], label_map[6, 0] = 1, 2, 4  # 3 is nobody's
    value = ask(label_map)
    refuse_type(value, right(label_map))
    if any(not mask.any() for mask in value["masks"]):
        raise NotYet("no pixel has a 3, and an empty mask is no object: take the numbers that occur")
    noise = torch.from_numpy(np.random.RandomState(4).randint(0, 9, (40, 30)))
    ask.cases([(label_map,), (noise,)], slips, "for an image of {0.shape[0]} rows", right=right)
    return "equal to torchvision's masks_to_boxes, with half-open edges"


def _for_new_classes(detector: MaskRCNN, classes: list[str]) -> MaskRCNN:
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
    refuse_kind(new, MaskRCNN)
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
