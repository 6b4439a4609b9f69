"""Fast R-CNN: one network, one pass over the image, one training. The second detector of the history.

Girshick 2015, "Fast R-CNN", arXiv 1504.08083.

    image ─→ convolutions ─→ feature map ─┬→ RoIPool → fc6, fc7 ─┬→ softmax over K classes ─┬→ select_detections
    image ─→ selective search ─→ proposals ╯                      ╰→ box deltas of each class ╯

:class:`RoIHeads` and :class:`Detector` also serve Faster R-CNN and Mask R-CNN.

Shape comments: B images, G objects, P proposals of an image, R RoIs of a batch, S sampled RoIs of an image, K classes
with background, C channels, D features.
"""

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minircnn.alexnet import AlexNet, build_alexnet
from minircnn.boxes import IGNORED, POSITIVE, box_iou, decode_boxes, encode_boxes, match, select_detections, subsample
from minircnn.kernels import RegionLinear
from minircnn.pooling import multiscale_roi_align, roi_align, roi_pool, roi_warp, to_rois
from minircnn.shipped import FAST_RCNN_WEIGHTS
from minircnn.targets import check_classes, check_target, in_crowd, single_objects
from minircnn.transforms import Size, Transform, padded_size, resize_boxes, resize_target
from minircnn.weights import config_of, load

Features = Tensor | Mapping[str, Tensor]  # (B, C, h, w), or the levels of a feature pyramid by name
POOLINGS = ("pool", "align", "warp")


@dataclass(frozen=True)
class RoIConfig:
    """The hyperparameters of the RoI heads, by default the paper's.

    Attributes:
        pool_size: rows and columns of a pooled region: 6 for AlexNet's fc6, 7 for VGG16's.
        batch_size_per_image: RoIs that are sampled in training. Paper: 64 of each of 2 images.
        positive_fraction: at most this share of them is foreground.
        foreground_iou: a proposal that overlaps an object by this much is foreground.
        background_iou: from (included) and up to (excluded) which largest overlap a proposal is background. What lies
            between this and ``foreground_iou``, or below, is ignored. Paper: from 0.1, for hard examples; later code,
            and ours: from 0, so that the network also learns the rest.
        box_weights: factors for dx, dy, dw, dh. Paper vs code: the paper divides by the targets' standard deviation.
        smooth_l1_beta: error above which the box loss is linear. Paper: 1; torchvision: 1 / 9.
        box_loss_weight: lambda of equation 1.
        score_threshold: detections have a higher probability than this.
        nms_threshold: IoU above which the weaker of two detections of a class is suppressed.
        max_detections: of one image.
        pooling: "pool" (RoIPool, 2015), "align" (RoIAlign, 2017; always on a feature pyramid) or "warp" (RoIWarp).
        sampling_ratio: points of a bin along an axis, of RoIAlign and RoIWarp.
        aligned: whether RoIAlign places the center of cell k at k + 1/2.
    """

    pool_size: int = 6
    batch_size_per_image: int = 64
    positive_fraction: float = 0.25
    foreground_iou: float = 0.5
    background_iou: tuple[float, float] = (0.0, 0.5)
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    smooth_l1_beta: float = 1.0
    box_loss_weight: float = 1.0
    score_threshold: float = 0.05
    nms_threshold: float = 0.3
    max_detections: int = 100
    pooling: str = "pool"
    sampling_ratio: int = 2
    aligned: bool = True

    def __post_init__(self) -> None:
        """Refuse values that contradict each other."""
        low, high = self.background_iou
        if not 0 <= low <= high <= self.foreground_iou:
            both = f"{self.background_iou} and {self.foreground_iou}"
            raise ValueError(f"background_iou must rise and end at or below foreground_iou, but they are {both}")
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, but is {self.pooling!r}")


class Detector(nn.Module):
    """What a detector does before and after its heads: images to feature maps, detections to the image's pixels.

    Args:
        backbone: any fully convolutional network: ``(B, 3, H, W)``, normalized, to ``(B, C, h, w)`` or, in detectors
            with a feature pyramid, to a dict of such maps.
        roi_heads: for regions of these maps.
        classes: names by label; ``classes[0]`` is the background.
        transform: what happens to images before the backbone sees them.
    """

    def __init__(
        self, backbone: nn.Module, roi_heads: "RoIHeads", classes: Sequence[str], transform: Transform | None = None
    ) -> None:
        super().__init__()
        check_classes(classes)
        # With the channels of a pixel side by side, convolutions and pooling on a CPU take half the time.
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.roi_heads, self._classes = roi_heads, tuple(classes)
        self.transform = transform or Transform()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by label, which can be set; numbered ones after a box predictor of another size was put in."""
        count = self.roi_heads.box_predictor.cls_score.out_features  # torchvision's FastRCNNPredictor has that, too
        return self._classes if len(self._classes) == count else numbered_classes(count)

    @classes.setter
    def classes(self, names: Sequence[str]) -> None:
        if len(names) != (count := len(self.classes)):
            raise ValueError(f"classes has {len(names)} names, but the box predictor has {count} classes: name each")
        self._classes = tuple(names)

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[dict[str, Any]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Any]]:
        """The losses in training mode, else the detections, as torchvision's detectors have it."""
        if not self.training:
            return self.detect(images)
        if targets is None:
            raise ValueError("targets are needed for training; call eval() first to detect")
        return self.losses(images, targets)

    def features(self, images: Sequence[Tensor]) -> tuple[Features, list[Size]]:
        """Run the backbone on images ``(3, H, W)`` in [0, 1], which may differ in size.

        Returns:
            Feature maps ``(B, C, h, w)`` and the size of each image as the backbone saw it.

        Raises:
            ValueError: this is for detection, and images or weights hold nan.
        """
        batch, sizes = self.transform.batch(images, 3 * self.roi_heads.stride)
        batch = batch.to(next(self.roi_heads.parameters()).dtype)  # NumPy makes float64 of images
        features = self.backbone(batch.contiguous(memory_format=torch.channels_last))
        levels = features.values() if isinstance(features, Mapping) else [features]
        # A loss of nan is noticed; detections would come out as if nothing had happened.
        if not torch.is_grad_enabled() and not all(level.isfinite().all() for level in levels):
            raise ValueError("features are nan or infinite: an image or the network's weights hold such numbers")
        return features, sizes

    def batch_size(self, sizes: Sequence[Size]) -> Size:
        """``(H, W)`` of a padded batch of images of these sizes: at least three strides, or AlexNet makes no cell."""
        return padded_size(sizes, self.transform.divisor, 3 * self.roi_heads.stride)

    def prepare_targets(
        self, images: Sequence[Tensor], targets: Sequence[dict[str, Any]], sizes: Sequence[Size]
    ) -> list[dict[str, Any]]:
        """Check the targets (ValueError) and scale them to these sizes, in which the backbone saw the images."""
        if len(images) != len(targets):
            raise ValueError(f"there are {len(images)} images but targets for {len(targets)}: give one for each")
        prepared, count = [], self.roi_heads.box_predictor.cls_score.out_features
        for index, (image, target, size) in enumerate(zip(images, targets, sizes, strict=True)):
            old = tuple(image.shape[1:])
            checked = check_target(target, f"targets[{index}]", num_classes=count, size=old)
            moved = {key: v.to(image.device) if isinstance(v, Tensor) else v for key, v in checked.items()}
            prepared.append(resize_target(moved, old, size))
        return prepared

    def postprocess(
        self, detections: Sequence[dict[str, Tensor]], images: Sequence[Tensor], sizes: Sequence[Size]
    ) -> list[dict[str, Tensor]]:
        """Scale boxes from these sizes, in which the backbone saw the images, to the images' own."""
        # Copies, because what was made in inference mode can neither be changed nor learned from.
        found = [{name: value.clone() for name, value in one.items()} for one in detections]
        for one, image, size in zip(found, images, sizes, strict=True):
            one["boxes"] = resize_boxes(one["boxes"], size, tuple(image.shape[1:]))
        return found


class FastRCNN(Detector):
    """A detector that is given proposals; for the arguments see :class:`Detector`.

    :func:`fast_rcnn_alexnet` builds the one that this course trains.
    """

    @torch.no_grad()
    def detect(
        self, images: Sequence[Tensor], proposals: Sequence[Tensor], *, regress: bool = True
    ) -> list[dict[str, Tensor]]:
        """Find objects.

        Args:
            images: each ``(3, H, W)`` in [0, 1]; they may differ in size.
            proposals: ``(P, 4)`` for each. P may be 0: then nothing is found.
            regress: whether the boxes are refined.

        Returns:
            For each image ``boxes`` ``(N, 4)``, ``labels`` ``(N,)`` and ``scores`` ``(N,)``, probabilities, best first.
        """
        with torch.inference_mode():
            features, sizes = self.features(images)
            proposals = resize_proposals(proposals, images, sizes)
            found = self.roi_heads.detect(features, proposals, sizes, regress=regress)
        return self.postprocess(found, images, sizes)

    def losses(
        self, images: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[dict[str, Any]]
    ) -> dict[str, Tensor]:
        """The multi-task loss on RoIs that are sampled from the proposals: ``loss_classifier`` and ``loss_box_reg``.

        Both are finite in every case. Targets may have any number of objects; see
        :func:`minircnn.targets.check_target`.
        """
        features, sizes = self.features(images)
        targets = self.prepare_targets(images, targets, sizes)
        sampled = self.roi_heads.sample(resize_proposals(proposals, images, sizes), targets)
        return self.roi_heads.losses(features, sampled)

    def forward(
        self,
        images: Sequence[Tensor],
        proposals: Sequence[Tensor],
        targets: Sequence[dict[str, Any]] | None = None,
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """:meth:`losses` in training mode, else :meth:`detect`."""
        if not self.training:
            return self.detect(images, proposals)
        if targets is None:
            raise ValueError("targets are needed for training; call eval() first to detect")
        return self.losses(images, proposals, targets)

    @property
    def configs(self) -> dict[str, Any]:
        """All that :meth:`build` needs beside the names of the classes, as dataclasses."""
        return {"config": self.roi_heads.config, "network": self.backbone.config, "transform": self.transform}

    @classmethod
    def build(cls, classes: Sequence[str], configs: Mapping[str, Any]) -> "FastRCNN":
        """A detector with random weights from :attr:`configs`, as JSON holds them."""
        network = build_alexnet(configs["network"], 1)
        config, transform = config_of(RoIConfig, configs["config"]), config_of(Transform, configs["transform"])
        return fast_rcnn_alexnet(network, classes, config, transform)


def load_fast_rcnn(path: str | Path = FAST_RCNN_WEIGHTS) -> FastRCNN:
    """The Fast R-CNN in a file, by default the one that comes with the project; see :func:`minircnn.weights.load`."""
    return load(path, "fast_rcnn")


def fast_rcnn_alexnet(
    network: AlexNet, classes: Sequence[str], config: RoIConfig | None = None, transform: Transform | None = None
) -> FastRCNN:
    """Fast R-CNN from a pre-trained AlexNet (section 2.2): RoIPool replaces pool5, two siblings replace fc8.

    The network is taken apart; its tensors are shared, not copied. The heads' ``pool_size`` must be the network's, so
    that fc6 fits. By default images are normalized as the network learned them.
    """
    config = config or RoIConfig(pool_size=network.config.pool5_size)
    heads = RoIHeads(*alexnet_head(network, config), len(classes), network.config.total_stride, config)
    transform = transform or Transform(network.config.mean, network.config.std, network.config.blue_first)
    return FastRCNN(network.backbone, heads.to(network.fc8.weight.device), classes, transform)


def alexnet_head(network: AlexNet, config: RoIConfig) -> tuple[nn.Module, int]:
    """AlexNet's fc6 and fc7 as the box head, ``(R, C, n, n)`` to ``(R, D)``, and D."""
    if config.pool_size != network.config.pool5_size:
        raise ValueError(
            f"pool_size is {config.pool_size}, but fc6 expects maps of {network.config.pool5_size}² cells: give that"
        )
    fc6, fc7 = RegionLinear.of(network.classifier.fc6), network.classifier.fc7
    return nn.Sequential(OrderedDict(fc6=fc6, relu6=nn.ReLU(), fc7=fc7, relu7=nn.ReLU())), network.config.hidden


def numbered_classes(count: int) -> tuple[str, ...]:
    """Names for classes that have none: ``('background', 'class 1', 'class 2')`` for 3."""
    return ("background", *(f"class {number}" for number in range(1, count)))


def resize_proposals(proposals: Sequence[Tensor], images: Sequence[Tensor], sizes: Sequence[Size]) -> list[Tensor]:
    """Scale proposals to these sizes, in which the backbone saw the images."""
    if len(proposals) != len(images):
        raise ValueError(f"there are {len(images)} images but proposals for {len(proposals)}: give one for each")
    return [
        resize_boxes(boxes.to(image.device), tuple(image.shape[1:]), size)
        for boxes, image, size in zip(proposals, images, sizes, strict=True)
    ]


@dataclass(frozen=True)
class SampledRoIs:
    """RoIs of one image that the heads learn from. They are constants: no gradient flows into them."""

    boxes: Tensor  # (S, 4), in the order of the proposals
    labels: Tensor  # (S,) int64: the class of the matched object, 0 for background
    gt_index: Tensor  # (S,) int64: the object with the largest overlap, counted without crowd regions
    deltas: Tensor  # (S, 4) regression targets, times box_weights; 0 for background


class RoIHeads(nn.Module):
    """Classify regions of the feature map and refine their boxes (sections 2.1 to 2.3).

    Args:
        box_head: features of a pooled region: ``(R, C, n, n)`` to ``(R, D)``; fc6 and fc7.
        representation_size: D.
        num_classes: K, with background.
        stride: pixels of the image per cell of the feature map; of a pyramid, of the finest level.
        config: the hyperparameters.

    The two siblings behind the box head are linear: ``box_predictor.cls_score`` gives K scores, ``bbox_pred`` four
    deltas for each class. Names of layers are torchvision's.
    """

    def __init__(
        self,
        box_head: nn.Module,
        representation_size: int,
        num_classes: int,
        stride: int,
        config: RoIConfig | None = None,
    ) -> None:
        super().__init__()
        self.config, self.stride, self.box_head = config or RoIConfig(), stride, box_head
        self.box_predictor = nn.ModuleDict(
            {
                "cls_score": nn.Linear(representation_size, num_classes),
                "bbox_pred": nn.Linear(representation_size, 4 * num_classes),
            }
        )
        for name, spread in (("cls_score", 0.01), ("bbox_pred", 0.001)):  # section 2.3
            nn.init.normal_(self.box_predictor[name].weight, std=spread)
            nn.init.zeros_(self.box_predictor[name].bias)

    def pool(self, features: Features, boxes: Sequence[Tensor], size: int | None = None) -> Tensor:
        """Regions as grids of n × n cells: ``(B, C, h, w)``, B times ``(P, 4)`` to ``(R, C, n, n)``.

        Args:
            features: a feature map, or the levels of a pyramid, from fine to coarse; "pool" is for anchors alone.
            boxes: of each image.
            size: n; by default that of the box head.
        """
        config, rois, size = self.config, to_rois(boxes), size or self.config.pool_size
        if isinstance(features, Mapping):
            levels = [level for name, level in features.items() if name != "pool"]
            strides = [self.stride * 2**number for number in range(len(levels))]
            return multiscale_roi_align(levels, rois, size, strides, config.sampling_ratio, config.aligned)
        if config.pooling == "align":
            return roi_align(features, rois, size, 1 / self.stride, config.sampling_ratio, config.aligned)
        if config.pooling == "warp":
            return roi_warp(features, rois, size, 1 / self.stride, config.sampling_ratio)
        return roi_pool(features, rois, size, 1 / self.stride)

    def box_features(self, features: Features, boxes: Sequence[Tensor]) -> Tensor:
        """The input of both siblings: ``(B, C, h, w)``, B times ``(P, 4)`` to ``(R, D)``."""
        return self.box_head(self.pool(features, boxes))

    def predict(self, features: Features, boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits ``(R, K)`` and box deltas ``(R, K, 4)`` (times ``box_weights``) of B times ``(P, 4)`` boxes."""
        x = self.box_head(self.pool(features, boxes))  # (R, D)
        logits = self.box_predictor.cls_score(x)
        return logits, self.box_predictor.bbox_pred(x).view(*logits.shape, 4)

    @torch.no_grad()
    def sample(self, proposals: Sequence[Tensor], targets: Sequence[dict[str, Any]]) -> list[SampledRoIs]:
        """Sample RoIs of each image with torch's global generator (section 2.3, "mini-batch sampling").

        The objects themselves join the proposals ``(P, 4)`` (not in the paper, but in its code), so that there is
        always foreground. Regions in crowds are left out.
        """
        config, sampled = self.config, []
        for proposed, target in zip(proposals, targets, strict=True):
            objects = single_objects(target)
            boxes = torch.cat([proposed, objects["boxes"].to(proposed)])  # (P + G, 4)
            iou = box_iou(objects["boxes"].to(boxes), boxes).nan_to_num(0)  # (G, P + G)
            gt_index, label = match(iou, config.foreground_iou, config.background_iou[1])
            best = iou.amax(dim=0) if len(iou) else boxes.new_zeros(len(boxes))
            label[best < config.background_iou[0]] = IGNORED
            label[in_crowd(boxes, target)] = IGNORED
            positive, negative = subsample(label, config.batch_size_per_image, config.positive_fraction)
            chosen = torch.cat([positive, negative]).sort().values  # (S,)
            boxes, gt_index, positive = boxes[chosen], gt_index[chosen], label[chosen] == POSITIVE
            labels, deltas = torch.zeros_like(gt_index), torch.zeros_like(boxes)
            labels[positive] = objects["labels"][gt_index[positive]]
            matched = objects["boxes"][gt_index[positive]].to(boxes)
            deltas[positive] = encode_boxes(boxes[positive], matched, config.box_weights)
            sampled.append(SampledRoIs(boxes, labels, gt_index, deltas))
        return sampled

    def losses(self, features: Features, sampled: Sequence[SampledRoIs]) -> dict[str, Tensor]:
        """``loss_classifier`` and ``loss_box_reg`` (equation 1), each the mean over all sampled RoIs, 0 without any."""
        logits, deltas = self.predict(features, [rois.boxes for rois in sampled])
        labels, wanted = (torch.cat([getattr(rois, name) for rois in sampled]) for name in ("labels", "deltas"))
        classifier, box = fast_rcnn_loss(logits, deltas, labels, wanted, self.config.smooth_l1_beta)
        return {"loss_classifier": classifier, "loss_box_reg": self.config.box_loss_weight * box}

    def detect(
        self, features: Features, proposals: Sequence[Tensor], sizes: Sequence[Size], *, regress: bool = True
    ) -> list[dict[str, Tensor]]:
        """Classify proposals ``(P, 4)`` of images of these sizes, refine their boxes for each class, and select."""
        logits, deltas = self.predict(features, proposals)
        config, counts, found = self.config, [len(boxes) for boxes in proposals], []
        limits = {name: getattr(config, name) for name in ("score_threshold", "nms_threshold", "max_detections")}
        scores = logits.softmax(dim=1).split(counts)
        for boxes, p, d, size in zip(proposals, scores, deltas.split(counts), sizes, strict=True):
            moved = decode_boxes(boxes, d, config.box_weights) if regress else boxes  # (P, K, 4)
            found.append(select_detections(moved, p, size, **limits))
        return found


def fast_rcnn_loss(
    logits: Tensor, deltas: Tensor, labels: Tensor, wanted: Tensor, beta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The multi-task loss (equations 1 to 3): cross-entropy for the class, smooth L1 for the box.

    Only foreground has a box loss, and only the deltas of the true class enter it.

    Args:
        logits: ``(R, K)``.
        deltas: ``(R, K, 4)``.
        labels: ``(R,)``, 0 for background.
        wanted: ``(R, 4)`` regression targets.
        beta: error above which smooth L1 is linear.

    Returns:
        Both losses, each divided by R; 0, with gradients of 0, where R is 0.

    >>> logits, deltas = torch.zeros(2, 3), torch.zeros(2, 3, 4)
    >>> wanted = torch.tensor([[2.0, 0.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0]])  # the second is background
    >>> fast_rcnn_loss(logits, deltas, torch.tensor([1, 0]), wanted)  # log 3, and (2 - 1/2) / 2
    (tensor(1.0986), tensor(0.7500))
    """
    if not len(labels):
        return logits.sum() * 0, deltas.sum() * 0
    positive = torch.where(labels > 0)[0]
    own = deltas[positive, labels[positive]]  # (positives, 4)
    box = F.smooth_l1_loss(own, wanted[positive], beta=beta, reduction="sum") / len(labels)
    return F.cross_entropy(logits, labels), box


def truncate(layer: nn.Linear, rank: int) -> nn.Sequential:
    """Two thin layers in place of a thick one: W ≈ U Σ Vᵀ with the ``rank`` largest singular values (equation 5).

    The first layer is Σ Vᵀ, without a bias, the second is U, with the original bias: u · v multiplications become
    rank · (u + v). No other layers of this form are nearer to the original, in the sum of squared weights.

    Args:
        layer: of v inputs and u outputs.
        rank: from 1 to min(u, v), at which nothing is lost.

    >>> truncate(nn.Linear(100, 50), rank=10)
    Sequential(
      (0): Linear(in_features=100, out_features=10, bias=False)
      (1): Linear(in_features=10, out_features=50, bias=True)
    )
    """
    outputs, inputs = layer.weight.shape
    if not 1 <= rank <= min(outputs, inputs):
        raise ValueError(f"rank must be from 1 to {min(outputs, inputs)} for this layer, but is {rank}")
    u, sigma, vt = torch.linalg.svd(layer.weight.detach().double(), full_matrices=False)
    like = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    first = type(layer)(inputs, rank, bias=False, **like)  # a RegionLinear stays one
    second = nn.Linear(rank, outputs, bias=layer.bias is not None, **like)
    with torch.no_grad():
        first.weight.copy_(sigma[:rank, None] * vt[:rank])
        second.weight.copy_(u[:, :rank])
        if layer.bias is not None:
            second.bias.copy_(layer.bias)
    return nn.Sequential(first, second)


def compress(model: FastRCNN, fc6: int, fc7: int) -> FastRCNN:
    """A copy of a detector with fc6 and fc7 truncated to these ranks (section 3.1); the paper took 1024 and 256.

    Detection then is faster, at some loss: with thousands of RoIs, half of its time goes into fc6 and fc7.

    Raises:
        ValueError: a rank does not fit its layer, or the layers have been truncated before.
    """
    compressed = copy.deepcopy(model)
    head = compressed.roi_heads.box_head
    for name, rank in (("fc6", fc6), ("fc7", fc7)):
        layer = getattr(head, name)
        if not isinstance(layer, nn.Linear):
            raise ValueError(f"{name} is no linear layer any more: compress the original detector")
        setattr(head, name, truncate(layer, rank))
    return compressed
