"""What a training begins with: a pre-trained backbone, or a detector, of which all that fits is taken over.

Most of what a detector knows is about images and not about classes. Trained on 64 images it is worth little unless it
begins with what another training has found: on photographs of COCO, of ImageNet, or on Toy Town.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from minircnn import published
from minircnn.alexnet import (
    IMAGENET_SHA256,
    IMAGENET_URL,
    SMALL,
    SMALL_STRIDE_16,
    AlexNet,
    build_alexnet,
    load_pretrained,
)
from minircnn.fast_rcnn import FastRCNN, RoIConfig, fast_rcnn_alexnet
from minircnn.faster_rcnn import PYRAMID_RPN, RPNConfig, faster_rcnn_alexnet, faster_rcnn_fpn
from minircnn.files import sha256
from minircnn.mask_rcnn import mask_rcnn_alexnet, mask_rcnn_fpn
from minircnn.resnet_fpn import ResNetFPN, ResNetFPNConfig
from minircnn.shipped import SMALL_WEIGHTS
from minircnn.weights import WeightsError, download, load, load_into, load_weights, read_tensors

COCO, IMAGENET, TOYTOWN = "coco", "imagenet", "toytown"
ON_PYRAMIDS = {"faster_rcnn": published.FASTER_RCNN_COCO, "mask_rcnn": published.MASK_RCNN_COCO}
RESNET50 = published.Published("https://download.pytorch.org/models/resnet50-0676ba61.pth", "0676ba61", "98 MB")
_BUILDERS = {
    ("fast_rcnn", AlexNet): fast_rcnn_alexnet,
    ("faster_rcnn", AlexNet): faster_rcnn_alexnet,
    ("mask_rcnn", AlexNet): mask_rcnn_alexnet,
    ("faster_rcnn", ResNetFPN): faster_rcnn_fpn,
    ("mask_rcnn", ResNetFPN): mask_rcnn_fpn,
}
# Layers whose outputs are classes, and those whose outputs are anchors: they fit if these are the same.
_OF_CLASSES = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.")
_BODY, _STAGES = "backbone.body.", ("layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True)
class Start:
    """What a file holds."""

    source: Path
    network: AlexNet | ResNetFPN  # with the weights of its own
    last: str = "fc7"  # the last of an AlexNet's layers that was trained; "pool5": its convolutions alone
    state: dict[str, Tensor] = field(default_factory=dict)  # of a detector, with our names
    classes: tuple[str, ...] = ()  # of that detector
    rpn: RPNConfig | None = None  # of that detector, if it has one

    @property
    def pyramid(self) -> bool:
        """Whether this is a feature pyramid."""
        return isinstance(self.network, ResNetFPN)

    @property
    def photographs(self) -> bool:
        """Whether this is an AlexNet that was trained on them: any but this project's small ones."""
        return isinstance(self.network, AlexNet) and self.network.config not in (SMALL, SMALL_STRIDE_16)


def read_start(start: str | Path, detector: str) -> Start:
    """What a training of this kind of detector can begin with.

    Args:
        start: "coco", the published detector on a pyramid; "imagenet", torchvision's ResNet-50 (for R-CNN and Fast
            R-CNN its AlexNet), both fetched once; "toytown", the small AlexNet of this project; or a file: one of our
            detectors or torchvision's (with a ResNet and a pyramid), fine-tuned or not, its ResNets, an AlexNet.
        detector: one of :data:`minircnn.shipped.DETECTORS`.

    Raises:
        FileNotFoundError: there is no such file.
        WeightsError: a file could not be fetched, is damaged, or is of none of these kinds.
        ValueError: this detector cannot begin with that.
    """
    pyramid = detector in ON_PYRAMIDS
    if start == COCO and not pyramid:
        raise ValueError(f"start {start}: there is no {detector} trained on COCO; give imagenet, or a file")
    if start == IMAGENET and not pyramid:
        path = download(IMAGENET_URL, IMAGENET_SHA256, "233 MB")
    elif start in (COCO, IMAGENET):
        path = download(*(ON_PYRAMIDS[detector] if start == COCO else RESNET50))
    else:
        path = SMALL_WEIGHTS if start == TOYTOWN else Path(start)
    tensors = published.rename_keys(read_tensors(path))
    if "roi_heads.box_predictor.cls_score.bias" in tensors:
        found = _of_ours(path) if path.suffix == ".safetensors" else _of_torchvision(tensors, path)
    elif "layer1.0.conv1.weight" in tensors:
        body = {_BODY + name: value for name, value in tensors.items() if not name.startswith("fc.")}
        network = _pyramid(body, path)
        load_into(network, {n.removeprefix("backbone."): v for n, v in body.items()}, path, only="body.")
        found = Start(path, network)
    else:
        found = Start(path, *load_pretrained(path))
    if (found.pyramid and not pyramid) or (found.state and detector == "rcnn"):
        raise ValueError(f"start {start}: {detector} begins with an AlexNet for images; name another file, or imagenet")
    return found


def _of_ours(path: Path) -> Start:
    model = load(path)
    network = model.backbone
    if not isinstance(network, ResNetFPN):
        network = build_alexnet(load_weights(path)[1]["network"], 1)
        network.backbone = model.backbone
        for name in ("fc6", "fc7"):
            getattr(network.classifier, name).load_state_dict(getattr(model.roi_heads.box_head, name).state_dict())
    rpn = getattr(getattr(model, "rpn", None), "config", None)
    return Start(path, network, "fc7", model.state_dict(), model.classes, rpn)


def _of_torchvision(tensors: dict[str, Tensor], path: Path) -> Start:
    network = _pyramid(tensors, path)
    count = len(tensors["roi_heads.box_predictor.cls_score.bias"])
    known = published.COCO_CLASSES if count == len(published.COCO_CLASSES) else ()
    return Start(path, network, "fc7", tensors, known, PYRAMID_RPN)


def _pyramid(tensors: Mapping[str, Tensor], path: Path) -> ResNetFPN:
    """A pyramid of the depth and width that these tensors have; random weights."""
    blocks = [
        sum(name.startswith(f"{_BODY}{s}.") and name.endswith(".conv1.weight") for name in tensors) for s in _STAGES
    ]
    if f"{_BODY}conv1.weight" not in tensors or not all(blocks) or f"{_BODY}layer1.0.conv3.weight" not in tensors:
        raise WeightsError(f"{path}: no ResNet of blocks with three convolutions, such as ResNet-50; name such a file")
    inner = tensors.get("backbone.fpn.inner_blocks.0.0.weight")
    width, channels = len(tensors[f"{_BODY}conv1.weight"]), 256 if inner is None else len(inner)
    checksum = sha256(path)
    zero = any(checksum.startswith(file.checksum) for file in ON_PYRAMIDS.values())  # how those two were trained
    return ResNetFPN(
        ResNetFPNConfig(blocks=tuple(blocks), width=width, channels=channels, norm_eps=0.0 if zero else 1e-5)
    )


def build(
    detector: str, start: Start, classes: Sequence[str], rpn: RPNConfig | None = None, heads: RoIConfig | None = None
) -> tuple[FastRCNN, list[str]]:
    """A detector that begins with all that fits of a :class:`Start`; the rest is drawn with torch's generator.

    What its backbone has is taken over whole. The last layers are taken over if they are for the same classes in the
    same order, those of the RPN if there are equally many anchors in each cell.

    Returns:
        The detector, and its layers that are new. ``start.network`` is taken apart.
    """
    given = {name: value for name, value in (("rpn", rpn), ("heads", heads)) if value is not None}
    if detector == "fast_rcnn":
        given = {"config": heads}
    model = _BUILDERS[detector, type(start.network)](start.network, tuple(classes), **given)
    own, same = model.state_dict(), tuple(classes) == start.classes
    left = [name for name, value in own.items() if name.startswith(_OF_CLASSES) and not same]
    left += [name for name, value in own.items() if name not in start.state or start.state[name].shape != value.shape]
    if start.state:
        load_into(model, {name: own[name] if name in left else start.state[name] for name in own}, start.source)
    elif start.pyramid:
        left = [name for name in left if not name.startswith(_BODY)]
    else:
        left = [name for name in left if not name.startswith(("backbone.", "roi_heads.box_head."))]
    return model, sorted({name.rpartition(".")[0] for name in left})
