"""The Mask R-CNN and the Faster R-CNN that people use, with the published weights: torchvision's, in our code.

The weights were trained on COCO's 80 classes, in the way of the paper (He et al. 2017, appendix A).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from minircnn.faster_rcnn import FasterRCNN
from minircnn.files import sha256
from minircnn.mask_rcnn.detector import MaskRCNN
from minircnn.mask_rcnn.pyramid import faster_rcnn_fpn, mask_rcnn_fpn
from minircnn.resnet_fpn import ResNetFPN, ResNetFPNConfig
from minircnn.weights import download, load_into, read_tensors

# COCO numbers its classes from 1 to 90 and has left ten numbers free; the network has an output for each of them.
_NAMES = (
    "background, person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire "
    "hydrant, N/A, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, "
    "giraffe, N/A, backpack, umbrella, N/A, N/A, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, "
    "kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, N/A, wine glass, cup, "
    "fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, "
    "chair, couch, potted plant, bed, N/A, dining table, N/A, N/A, toilet, N/A, tv, laptop, mouse, remote, "
    "keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, N/A, book, clock, vase, scissors, teddy "
    "bear, hair drier, toothbrush"
)
COCO_CLASSES = tuple(_NAMES.split(", "))
COCO = "coco"


@dataclass(frozen=True)
class Published:
    """A file of weights.

    Attributes:
        url: where it lies.
        checksum: how its SHA-256 begins; its name says so.
        size: for messages.
    """

    url: str
    checksum: str
    size: str


MASK_RCNN_COCO = Published(
    "https://download.pytorch.org/models/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", "bf2d0c1e", "170 MB"
)
FASTER_RCNN_COCO = Published(
    "https://download.pytorch.org/models/fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", "258fb6c6", "160 MB"
)

# Layers whose size depends on the number of classes.
_LAST_LAYERS = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.")
_OLDER_NAMES = (
    (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
    (r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
)


def maskrcnn_resnet50_fpn(
    classes: Sequence[str] = COCO_CLASSES,
    weights: str | Path | None = None,
    trainable_layers: int = 3,
    **numbers: object,
) -> MaskRCNN:
    """Mask R-CNN with ResNet-50 and a feature pyramid, the model of torchvision's function of this name.

    Args:
        classes: names; ``classes[0]`` is the background. Classes other than COCO's get new last layers, and all else
            is taken from the weights: the way to learn a task of one's own.
        weights: "coco": the published file, fetched once (170 MB), or a file of torchvision's weights. None: random.
        trainable_layers: see :class:`minircnn.resnet_fpn.ResNetFPN`.
        numbers: ``rpn``, ``heads`` and ``transform``, see :func:`minircnn.mask_rcnn.mask_rcnn_fpn`.

    Returns:
        The detector, in evaluation mode.

    Raises:
        WeightsError: the file could not be fetched (the message says what to put where), or is of another network.
        FileNotFoundError: there is no such file.

    >>> import torch
    >>> model = maskrcnn_resnet50_fpn(["background", "coin"])
    >>> found = model.detect([torch.rand(3, 64, 96)])  # of random weights, nothing, or nonsense
    >>> sorted(found[0])
    ['boxes', 'labels', 'masks', 'scores']
    """
    return _built(mask_rcnn_fpn, classes, weights, MASK_RCNN_COCO, trainable_layers, numbers)


def fasterrcnn_resnet50_fpn(
    classes: Sequence[str] = COCO_CLASSES,
    weights: str | Path | None = None,
    trainable_layers: int = 3,
    **numbers: object,
) -> FasterRCNN:
    """Faster R-CNN with ResNet-50 and a feature pyramid; see :func:`maskrcnn_resnet50_fpn`. It has RoIAlign, too."""
    return _built(faster_rcnn_fpn, classes, weights, FASTER_RCNN_COCO, trainable_layers, numbers)


def _built(
    build: Callable[..., FasterRCNN],
    classes: Sequence[str],
    weights: str | Path | None,
    published: Published,
    trainable_layers: int,
    numbers: Mapping[str, object],
) -> FasterRCNN:
    if weights is None:
        return build(ResNetFPN(trainable_layers=trainable_layers), classes, **numbers).eval()
    path = download(published.url, published.checksum, published.size) if weights == COCO else Path(weights)
    tensors = read_tensors(path)
    trained_with_zero = sha256(path).startswith(published.checksum)
    config = ResNetFPNConfig(norm_eps=0.0 if trained_with_zero else 1e-5)
    model = build(ResNetFPN(config, trainable_layers), classes, **numbers)
    load_torchvision_weights(model, tensors, path)
    return model.eval()


def load_torchvision_weights(
    model: nn.Module, state: Mapping[str, Tensor], source: str | Path = "the state dict"
) -> None:
    """Gives a model the weights of torchvision's model of the same kind, all of them or none.

    Args:
        model: of :func:`maskrcnn_resnet50_fpn` or :func:`fasterrcnn_resnet50_fpn`, or as large as the other model.
        state: by torchvision's names, those of today or the older ones that published files have.
        source: where they come from, for messages.

    If the model has another number of classes, its last layers keep the weights that they have.

    Raises:
        WeightsError: they are of another network, or hold nan.
    """
    given = rename_keys(state)
    name = "roi_heads.box_predictor.cls_score.bias"
    own = model.state_dict()
    if name in given and given[name].shape != own[name].shape:
        given |= {key: value for key, value in own.items() if key.startswith(_LAST_LAYERS)}
    load_into(model, given, source)


def rename_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names for the tensors of torchvision's detectors. Counters of batches, which nothing needs, go.

    >>> list(rename_keys({"rpn.head.conv.bias": 0, "backbone.body.bn1.num_batches_tracked": 0, "backbone.fpn.x": 0}))
    ['rpn.head.conv.0.0.bias', 'trunk.fpn.x']
    """
    renamed = {}
    for key, value in state.items():
        if key.endswith(".num_batches_tracked"):
            continue
        for pattern, replacement in _OLDER_NAMES:
            key = re.sub(pattern, replacement, key)
        key = re.sub(r"\.mask_head\.mask_fcn(\d+)\.", lambda found: f".mask_head.{int(found[1]) - 1}.0.", key)
        renamed[re.sub(r"^backbone\.", "trunk.", key)] = value
    return renamed
