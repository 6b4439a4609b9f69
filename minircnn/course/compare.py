"""Reference implementations to compare with: torchvision's detectors around our weights, and pycocotools.

Notebooks, tests and benchmarks share them. Random weights prove as much as trained ones, as long as what they say
depends on the image and does not amplify rounding; :func:`pair` sees to that.
"""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import MultiScaleRoIAlign, roi_pool
from torchvision.ops.misc import FrozenBatchNorm2d

from minircnn.evaluation import Result, coco_results, evaluate
from minircnn.evaluation import encode_masks as run_lengths
from minircnn.faster_rcnn import PYRAMID_HEADS, PYRAMID_RPN, PYRAMID_TRANSFORM, FasterRCNN, faster_rcnn_fpn
from minircnn.mask_rcnn import PYRAMID_MASK_HEADS, MaskRCNN, mask_rcnn_fpn
from minircnn.published import COCO_CLASSES, load_torchvision_weights
from minircnn.resnet_fpn import ResNetFPNConfig
from minircnn.transforms import Transform

Objects = Sequence[Mapping[str, Any]]  # targets or detections


# ------------------------------------------------------------------------------ one line in a notebook
def equal(what: str, ours: Any, theirs: Any, within: float = 1e-5) -> None:  # noqa: ANN401
    """Print whether two results agree, ``within`` a share of the largest value; if not, by how much they differ.

    They are tensors, arrays, numbers, or lists of them. ``what`` says whose: "IoU of 200 × 300 boxes, torchvision's".
    """
    first, second = (_numbers(values) for values in (ours, theirs))
    if first.shape != second.shape:
        print(f"{what}: {tuple(first.shape)} against {tuple(second.shape)}")
        return
    gap = float(np.abs(first - second).max(initial=0.0) / max(np.abs(second).max(initial=0.0), 1.0))
    if np.isnan(first).any() or gap > within:
        print(f"{what}: DIFFERENT, by up to {gap:.2g} of the largest value")
    else:
        print(f"{what}: equal" + (f" within {within:g}" if within else ""))


def equal_gradients(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> None:
    """Print whether the losses of two models have, in sum, the same gradients in the layers that they share."""
    mine, reference = (list(torch.autograd.grad(sum(losses.values()), parameters)) for losses in (ours, theirs))
    equal(f"gradients of {len(parameters)} tensors, torchvision's", mine, reference, within=1e-3)


def _numbers(values: Any) -> np.ndarray:  # noqa: ANN401
    if isinstance(values, (list, tuple)):
        return np.concatenate([_numbers(value).ravel() for value in values]) if len(values) else np.zeros(0)
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)


# ------------------------------------------------------------------------------ torchvision's detectors, our layers
class _RoIPool(MultiScaleRoIAlign):
    """Torchvision's RoIPool where its detector expects its RoIAlign."""

    def __init__(self, size: int, stride: int) -> None:
        super().__init__(["0"], size, 2)
        self.size, self.stride = size, stride

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        return roi_pool(features["0"], boxes, self.size, 1 / self.stride)


def around(kind: type[nn.Module], layers: nn.Module) -> nn.Module:
    """Torchvision's ``FastRCNNPredictor`` or ``RPNHead`` with our layers of the same names in place of its own."""
    with torch.random.fork_rng(devices=[]):  # its own layers are thrown away, and what they draw, too
        module = kind(1, 1)
    for name, layer in layers.named_children():
        setattr(module, name, layer)
    return module


class _ChannelsLast(nn.Module):
    """The backbone, with the memory format that ours is given: a fair comparison of time."""

    def __init__(self, backbone: nn.Module, channels: int) -> None:
        super().__init__()
        self.backbone, self.out_channels = backbone, channels

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(images.contiguous(memory_format=torch.channels_last))


def torchvision_faster_rcnn(model: FasterRCNN) -> TorchvisionFasterRCNN:
    """Torchvision's FasterRCNN with the configuration and the layers of ours; the layers are shared, not copied.

    Ours has one feature map, RoIPool, anchors without an offset, and one NMS threshold: torchvision has no others.
    """
    pool = _RoIPool(model.roi_heads.config.pool_size, model.roi_heads.stride)
    return _around(model, TorchvisionFasterRCNN, box_roi_pool=pool)


def torchvision_mask_rcnn(model: MaskRCNN) -> TorchvisionMaskRCNN:
    """The same for Mask R-CNN, with RoIAlign that is not ``aligned``, and a stride of a power of 2."""
    heads = model.roi_heads.config
    return _around(
        model,
        TorchvisionMaskRCNN,
        box_roi_pool=MultiScaleRoIAlign(["0"], heads.pool_size, heads.sampling_ratio),
        mask_roi_pool=MultiScaleRoIAlign(["0"], heads.mask_pool_size, heads.sampling_ratio),
        mask_head=model.roi_heads.mask_head,
        mask_predictor=model.roi_heads.mask_predictor,
    )


def _around(model: FasterRCNN, kind: type[TorchvisionFasterRCNN], **layers: nn.Module) -> Any:  # noqa: ANN401
    """One of that kind; layers are named as torchvision names them."""
    rpn, heads, transform = model.rpn.config, model.roi_heads.config, model.transform
    reference = kind(
        _ChannelsLast(model.backbone, model.rpn.head.cls_logits.in_channels),
        min_size=transform.min_size,
        max_size=transform.max_size or 10**6,
        image_mean=transform.mean,
        image_std=transform.std,
        size_divisible=transform.divisor,
        rpn_anchor_generator=AnchorGenerator(rpn.anchor_sizes, (rpn.aspect_ratios,)),
        rpn_head=around(RPNHead, model.rpn.head),
        rpn_pre_nms_top_n_train=rpn.pre_nms_top_n[0],
        rpn_pre_nms_top_n_test=rpn.pre_nms_top_n[1],
        rpn_post_nms_top_n_train=rpn.post_nms_top_n[0],
        rpn_post_nms_top_n_test=rpn.post_nms_top_n[1],
        rpn_nms_thresh=rpn.nms_threshold[0],
        rpn_batch_size_per_image=rpn.batch_size_per_image,
        box_head=nn.Sequential(nn.Flatten(), model.roi_heads.box_head),  # as torchvision's: a product of matrices
        box_predictor=around(FastRCNNPredictor, model.roi_heads.box_predictor),
        box_score_thresh=heads.score_threshold,
        box_nms_thresh=heads.nms_threshold,
        box_detections_per_img=heads.max_detections,
        box_batch_size_per_image=heads.batch_size_per_image,
        box_positive_fraction=heads.positive_fraction,
        **layers,
    )
    reference.transform.eval()  # in training it draws one of its sizes, which disturbs the sequence of draws
    return reference


# ------------------------------------------------------------------------------ the published architecture, twice
def pair(
    kind: str = "mask",
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3),
    classes: Sequence[str] = COCO_CLASSES,
    transform: Transform = PYRAMID_TRANSFORM,
    most: int = 100,
    proposals: int = 1000,
) -> tuple[FasterRCNN, Any]:
    """Our detector, "mask" or "faster", with a feature pyramid, and torchvision's, with the same random weights.

    Both are in evaluation mode. ``blocks`` are those of each stage of the residual network, by default ResNet-50's;
    ``most``, the detections of an image. Half as many regions are learned from as there are ``proposals``.
    """
    detector, build, heads = {
        "mask": (TorchvisionMaskRCNN, mask_rcnn_fpn, PYRAMID_MASK_HEADS),
        "faster": (TorchvisionFasterRCNN, faster_rcnn_fpn, PYRAMID_HEADS),
    }[kind]
    theirs = detector(
        _resnet_fpn(blocks),
        len(classes),
        min_size=transform.min_size,
        max_size=transform.max_size,
        box_detections_per_img=most,
        rpn_post_nms_top_n_train=proposals,
        rpn_post_nms_top_n_test=proposals,
        box_batch_size_per_image=proposals // 2,
    )
    _spread_outputs(theirs)
    heads = replace(heads, max_detections=most, batch_size_per_image=proposals // 2)
    rpn = replace(PYRAMID_RPN, post_nms_top_n=(proposals, proposals))
    ours = build(ResNetFPNConfig(blocks=blocks), classes, rpn, heads, transform)
    load_torchvision_weights(ours, theirs.state_dict())
    return ours.eval(), theirs.eval()


def _resnet_fpn(blocks: tuple[int, int, int, int]) -> nn.Module:
    """Torchvision's backbone, with batch statistics as a trained network has them: taken from a batch."""
    torch.manual_seed(0)
    learning, frozen = (ResNet(Bottleneck, blocks, norm_layer=kind) for kind in (nn.BatchNorm2d, FrozenBatchNorm2d))
    for module in learning.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean
        if isinstance(module, Bottleneck):  # each adds little, or rounding would be amplified from block to block
            nn.init.constant_(module.bn3.weight, 0.1)
    with torch.no_grad():
        learning.train()(torch.stack([soft_shapes(128, 128) for _ in range(4)]) * 4 - 2)
    state = {name: value for name, value in learning.state_dict().items() if not name.endswith("num_batches_tracked")}
    frozen.load_state_dict(state)
    return _resnet_fpn_extractor(frozen, 3)


def _spread_outputs(model: nn.Module) -> None:
    """Scale the last layers, so that what they say differs from place to place, but no probability becomes 1."""
    heads = model.roi_heads
    spreads = {model.rpn.head.cls_logits: 0.5, model.rpn.head.bbox_pred: 0.2}
    spreads |= {heads.box_predictor.cls_score: 0.7, heads.box_predictor.bbox_pred: 0.5}
    if heads.has_mask():
        spreads[heads.mask_predictor.mask_fcn_logits] = 2.0

    def scale(layer: nn.Module, _: object, out: Tensor) -> Tensor:
        factor = spreads[layer] / out.std()
        layer.weight.data.mul_(factor)
        layer.bias.data.zero_()
        return out * factor

    handles = [layer.register_forward_hook(scale) for layer in spreads]
    with torch.no_grad():
        model.eval()([soft_shapes(160, 213)])
    for handle in handles:
        handle.remove()


def soft_shapes(height: int, width: int) -> Tensor:
    """A random image of large soft shapes, ``(3, H, W)`` in [0, 1]: noise would look the same everywhere."""
    coarse = torch.rand(1, 3, height // 12, width // 12)
    return nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")[0]


# ------------------------------------------------------------------------------ pycocotools
def encode_masks(targets: Objects) -> list[dict[str, Any]]:
    """The same targets or detections with run-length encoded masks, as COCO's files hold them."""
    return [{**target, "masks": run_lengths(target["masks"])} for target in targets]


def for_pycocotools(detections: Objects, targets: Objects, kind: str, num_classes: int) -> tuple[COCO, COCO]:
    """The same numbers as pycocotools wants them: ``(targets, detections)``. Masks must be run-length encoded."""
    image_ids, labels = range(1, len(targets) + 1), range(1, num_classes + 1)
    other = {"boxes": "segmentation", "masks": "bbox"}[kind]
    scored = [{**target, "scores": target["area"]} for target in targets]
    parts = [coco_results(part, image_ids, labels) for part in (scored, detections)]
    objects, results = ([{key: value for key, value in one.items() if key != other} for one in part] for part in parts)
    crowds = [crowd for target in targets for crowd in target["iscrowd"].tolist()]
    for n, (one, crowd) in enumerate(zip(objects, crowds, strict=True), start=1):
        one |= {"id": n, "area": one.pop("score"), "iscrowd": int(crowd)}
    truth, nothing = COCO(), COCO()
    truth.dataset = {
        # Sizes are asked for, but play no part where masks are run-length encoded already.
        "images": [{"id": image_id, "height": 1, "width": 1} for image_id in image_ids],
        "categories": [{"id": label, "name": str(label)} for label in labels],
        "annotations": objects,
    }
    nothing.dataset = {**truth.dataset, "annotations": []}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        nothing.createIndex()
        return truth, truth.loadRes(results) if results else nothing  # loadRes cannot read an empty list


def run_pycocotools(truth: COCO, results: COCO, kind: str) -> COCOeval:
    """Evaluate, accumulate and summarize, without printing."""
    evaluation = COCOeval(truth, results, {"boxes": "bbox", "masks": "segm"}[kind])
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def with_pycocotools(detections: Objects, targets: Objects, num_classes: int) -> None:
    """Evaluate boxes, and masks if there are any, here and with pycocotools, and print whether all numbers agree."""
    masks = "masks" in detections[0]
    detections, targets = (encode_masks(which) if masks else which for which in (detections, targets))
    for kind in ("boxes", "masks")[: 1 + masks]:
        ours = evaluate(detections, targets, kind=kind, classes=["background", *map(str, range(num_classes))])
        theirs = run_pycocotools(*for_pycocotools(detections, targets, kind, num_classes), kind)
        count, gap = 12 + ours.precision.size + ours.recall.size + ours.scores.size, largest_difference(ours, theirs)
        said = "equal within 1e-09" if gap < 1e-9 else f"DIFFERENT, by up to {gap:.2g}"
        print(f"{kind}: {count} numbers, pycocotools': {said}")


def largest_difference(ours: Result, theirs: COCOeval) -> float:
    """Over the twelve numbers and all entries of the arrays, for the same classes; ``nan`` counts as -1."""
    pairs = [(getattr(ours, name), theirs.eval[name]) for name in ("precision", "recall", "scores")]
    pairs.append((np.array([*ours.summary().values()]), theirs.stats))
    return max(float(np.abs(np.nan_to_num(a, nan=-1.0) - b).max()) for a, b in pairs)


# ------------------------------------------------------------------------------ time and memory
@contextlib.contextmanager
def limit_threads(count: int) -> Iterator[None]:
    """Set the number of torch's threads, and set it back in the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_turn(calls: Iterable[Callable[[], object]], rounds: int = 9) -> list[float]:
    """Processor seconds of each call on one thread: medians over rounds of turns, behind one that does not count."""
    calls = list(calls)
    seconds = np.zeros((rounds + 1, len(calls)))
    with limit_threads(1):
        for place in np.ndindex(seconds.shape):
            start = process_time()
            calls[place[1]]()
            seconds[place] = process_time() - start
    return np.median(seconds[1:], axis=0).tolist()


def peak_memory(call: Callable[[], object]) -> int:
    """The largest number of bytes that torch allocates for a call at a time, what it returns included."""
    with _silent_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    events = recorded.profiler.kineto_results.events()
    # Bytes are negative where memory is given back.
    return max(accumulate((event.nbytes() for event in events if event.name() == "[memory]"), initial=0))


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """The profiler writes to the terminal, past Python, that there is no GPU."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
