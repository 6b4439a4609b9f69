"""The Mask R-CNN and the Faster R-CNN that people use, with the published weights: torchvision's, in our code.

The weights were trained on COCO's 80 classes, in the way of the paper (He et al. 2017, appendix A).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from minircnn.fast_rcnn import numbered_classes
from minircnn.faster_rcnn import FasterRCNN, faster_rcnn_fpn
from minircnn.files import sha256
from minircnn.mask_rcnn import PYRAMID_MASK_HEADS, MaskRCNN, mask_rcnn_fpn
from minircnn.resnet_fpn import ResNetFPN, ResNetFPNConfig
from minircnn.weights import WeightsError, download, load_into, read_tensors

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


class Published(NamedTuple):
    """A file of weights: where it lies, how its SHA-256 begins, as its name says, and its size, for messages."""

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
_SCORES, _MASKS = "roi_heads.box_predictor.cls_score.bias", "roi_heads.mask_predictor.mask_fcn_logits.weight"
_OTHER_NETWORKS = {
    ("roi_heads.box_head.0.",): "one of torchvision's v2 models (…_fpn_v2), which are built in another way",
    ("roi_heads.keypoint_",): "a Keypoint R-CNN",
    ("fc.", "classifier.", "heads.head."): "an image classifier, such as those for ImageNet",
}
_OLDER_NAMES = (
    (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
    (r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
    (r"\.mask_head\.mask_fcn(\d+)\.", lambda found: f".mask_head.{int(found[1]) - 1}.0."),
)


def maskrcnn_resnet50_fpn(
    classes: Sequence[str] | None = None,
    weights: str | Path | None = None,
    trainable_layers: int = 3,
    *,
    num_classes: int | None = None,
    new_layers: bool = True,
    **numbers: Any,  # noqa: ANN401 - each has its own type
) -> MaskRCNN:
    """Mask R-CNN with ResNet-50 and a feature pyramid, the model of torchvision's function of this name.

    Args:
        classes: names; ``classes[0]`` is the background. None: COCO's; weights for another number of classes need
            names.
        weights: "coco": the published file, fetched once (170 MB), or a file of weights of torchvision's model. None:
            random.
        trainable_layers: see :class:`minircnn.resnet_fpn.ResNetFPN`.
        num_classes: with background, instead of ``classes``; their names are then numbers.
        new_layers: whether weights for COCO's 91 classes may be used for others: the model then has new last layers,
            which are random and have to learn, and all else is taken from the weights. False: this is refused.
        numbers: ``rpn``, ``heads`` and ``transform``, see :func:`minircnn.mask_rcnn.mask_rcnn_fpn`.

    Returns:
        The detector, in evaluation mode. Without a network, a WeightsError says what to put where.

    >>> maskrcnn_resnet50_fpn(["background", "coin"]).classes  # all but its last layers from weights="coco"
    ('background', 'coin')
    """
    names = _names(classes, num_classes)
    return _built(mask_rcnn_fpn, names, weights, MASK_RCNN_COCO, trainable_layers, new_layers, numbers)


def fasterrcnn_resnet50_fpn(
    classes: Sequence[str] | None = None,
    weights: str | Path | None = None,
    trainable_layers: int = 3,
    *,
    num_classes: int | None = None,
    new_layers: bool = True,
    **numbers: Any,  # noqa: ANN401 - each has its own type
) -> FasterRCNN:
    """Faster R-CNN with ResNet-50 and a feature pyramid; see :func:`maskrcnn_resnet50_fpn`. It has RoIAlign, too."""
    names = _names(classes, num_classes)
    return _built(faster_rcnn_fpn, names, weights, FASTER_RCNN_COCO, trainable_layers, new_layers, numbers)


def _names(classes: Sequence[str] | None, num_classes: int | None) -> Sequence[str] | None:
    if classes is None and num_classes is not None:
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}: count the background and at least one class")
        return numbered_classes(num_classes)
    if classes is not None and num_classes not in (None, len(classes)):
        raise ValueError(f"num_classes is {num_classes}, but classes has {len(classes)} names: leave one of them out")
    return classes


def _built(
    build: Callable[..., FasterRCNN],
    classes: Sequence[str] | None,
    weights: str | Path | None,
    published: Published,
    trainable_layers: int,
    new_layers: bool,
    numbers: dict[str, Any],
) -> FasterRCNN:
    if weights is None:
        return build(ResNetFPN(trainable_layers=trainable_layers), classes or COCO_CLASSES, **numbers).eval()
    path = download(*published) if weights == COCO else Path(weights)
    state = rename_keys(read_tensors(path))
    _check_kind(state, path, masks=build is mask_rcnn_fpn)
    count = len(state[_SCORES])
    of_coco = count == len(COCO_CLASSES)
    classes = classes or (COCO_CLASSES if of_coco else ())
    if len(classes) != count and not (classes and of_coco and new_layers):
        raise WeightsError(
            f"{path}: has {count} classes with the background, but {len(classes) or 'no'} names are given; give "
            f"{count}, in the order of the labels: --classes background,{'NAME' if count == 2 else 'NAME,…'}"
        )
    if build is mask_rcnn_fpn:
        numbers["heads"] = replace(numbers.get("heads", PYRAMID_MASK_HEADS), mask_hidden=state[_MASKS].shape[1])
    trained_with_zero = sha256(path).startswith(published.checksum)
    config = ResNetFPNConfig(norm_eps=0.0 if trained_with_zero else 1e-5)
    model = build(ResNetFPN(config, trainable_layers), classes, **numbers)
    load_torchvision_weights(model, state, path)
    return model.eval()


def load_torchvision_weights(
    model: FasterRCNN, state: Mapping[str, Tensor], source: str | Path = "the state dict"
) -> None:
    """Give a model the weights of torchvision's model of the same kind and size, all of them or none.

    Names are those of today or the older ones of published files. If the weights are for COCO's 91 classes and the
    model has others, its last layers stay. Weights of another network, or with nan, are refused with a WeightsError.
    """
    given = rename_keys(state)
    _check_kind(given, source, masks=isinstance(model, MaskRCNN))
    if len(given[_SCORES]) == len(COCO_CLASSES) != len(model.classes):
        given |= {key: value for key, value in model.state_dict().items() if key.startswith(_LAST_LAYERS)}
    load_into(model, given, source)


def _check_kind(state: Mapping[str, Tensor], source: str | Path, masks: bool) -> None:
    """Refuse weights that are of no Mask R-CNN (or, without masks, Faster R-CNN), and say what they are of."""
    wanted, other = ("Mask R-CNN", "Faster R-CNN")[:: 1 if masks else -1]
    for beginning, what in _OTHER_NETWORKS.items():
        if any(name.startswith(beginning) for name in state):
            raise WeightsError(f"{source}: holds {what}, and not a {wanted} (torchvision's with resnet50_fpn)")
    if any(name.startswith("roi_heads.mask_") for name in state) != masks:
        command = other.lower().replace(" ", "_").replace("-", "")
        raise WeightsError(f"{source}: holds a {other}, not a {wanted}; use it as {command}")
    for name, dimensions in {_SCORES: 1, **({_MASKS: 4} if masks else {})}.items():
        if name not in state or state[name].ndim != dimensions:
            raise WeightsError(f"{source}: weights for another network: {name} is missing, or no such layer's")


def rename_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names for the tensors of torchvision's detectors. Counters of batches, which nothing needs, go.

    >>> list(rename_keys({"rpn.head.conv.bias": 0, "backbone.body.bn1.num_batches_tracked": 0, "backbone.fpn.x": 0}))
    ['rpn.head.conv.0.0.bias', 'backbone.fpn.x']
    """
    renamed = {}
    for key, value in state.items():
        if key.endswith(".num_batches_tracked"):
            continue
        for pattern, replacement in _OLDER_NAMES:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed
