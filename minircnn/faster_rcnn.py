"""Faster R-CNN: proposals and detections from the same features. The third detector of the history.

Ren, He, Girshick and Sun 2015, "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks",
arXiv 1506.01497.

    image → convolutions → feature map ─┬→ RPN → proposals ─┬→ RoIHeads of Fast R-CNN → detections
                                        ╰───────────────────╯

Shape comments: B images, G objects, C channels, h w size of a feature map, A anchors per cell, N anchors of an image
over all cells and levels, P proposals of an image, K classes with background.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minircnn.alexnet import AlexNet, build_alexnet
from minircnn.boxes import (
    IGNORED,
    POSITIVE,
    batched_nms,
    box_iou,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    match,
    subsample,
)
from minircnn.fast_rcnn import (
    Detector,
    Features,
    RegionLinear,
    RoIConfig,
    RoIHeads,
    alexnet_head,
    resize_proposals,
)
from minircnn.resnet_fpn import ResNetFPN, ResNetFPNConfig
from minircnn.shipped import FASTER_RCNN_WEIGHTS
from minircnn.targets import in_crowd, single_objects
from minircnn.transforms import Size, Transform
from minircnn.weights import config_of, load


class FasterRCNN(Detector):
    """A detector that proposes regions itself; for the other arguments see :class:`minircnn.fast_rcnn.Detector`.

    Args:
        rpn: the region proposal network, on the same feature maps as ``roi_heads``.

    :func:`faster_rcnn_alexnet` builds the one that this course trains, :func:`faster_rcnn_fpn` one with ResNet-50.
    """

    def __init__(
        self,
        backbone: nn.Module,
        rpn: "RPN",
        roi_heads: RoIHeads,
        classes: Sequence[str],
        transform: Transform | None = None,
    ) -> None:
        super().__init__(backbone, roi_heads, classes, transform)
        self.rpn = rpn

    @torch.no_grad()
    def detect(self, images: Sequence[Tensor], *, regress: bool = True) -> list[dict[str, Tensor]]:
        """Find objects.

        Args:
            images: each ``(3, H, W)`` in [0, 1]; they may differ in size.
            regress: whether the heads refine the boxes; the RPN has refined them once already.

        Returns:
            For each image ``boxes`` ``(N, 4)``, ``labels`` ``(N,)`` and ``scores`` ``(N,)``, probabilities, best first.
        """
        with torch.inference_mode():
            features, sizes = self.features(images)
            rpn_outputs = self.rpn(features, self.batch_size(sizes))
            proposals = [found["boxes"] for found in self.rpn.filter_proposals(rpn_outputs, sizes)]
            found = self.roi_heads.detect(features, proposals, sizes, regress=regress)
        return self.postprocess(found, images, sizes)

    def losses(self, images: Sequence[Tensor], targets: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """The losses of proposals and detections together (section 3.2, "approximate joint training").

        Approximate, because the proposals' coordinates count as constants, although they are outputs of the network.

        Returns:
            ``loss_classifier``, ``loss_box_reg``, ``loss_objectness``, ``loss_rpn_box_reg``, finite in every case, of
            images with any number of objects; for targets see :func:`minircnn.targets.check_target`.
        """
        features, sizes = self.features(images)
        targets = self.prepare_targets(images, targets, sizes)
        rpn_outputs = self.rpn(features, self.batch_size(sizes))
        rpn_losses = self.rpn.losses(rpn_outputs, targets)
        proposals = [found["boxes"] for found in self.rpn.filter_proposals(rpn_outputs, sizes)]
        sampled = self.roi_heads.sample(proposals, targets)
        return {**self.roi_heads.losses(features, sampled), **rpn_losses}

    def rpn_losses(self, images: Sequence[Tensor], targets: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """The two losses of the RPN alone, for alternating training."""
        features, sizes = self.features(images)
        rpn_outputs = self.rpn(features, self.batch_size(sizes))
        return self.rpn.losses(rpn_outputs, self.prepare_targets(images, targets, sizes))

    def fast_rcnn_losses(
        self, images: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[dict[str, Any]]
    ) -> dict[str, Tensor]:
        """Fast R-CNN's two losses on given proposals, for alternating training."""
        features, sizes = self.features(images)
        targets = self.prepare_targets(images, targets, sizes)
        return self.roi_heads.losses(
            features, self.roi_heads.sample(resize_proposals(proposals, images, sizes), targets)
        )

    @torch.no_grad()
    def propose(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Proposals alone: for each image ``boxes`` ``(P, 4)`` and ``scores`` ``(P,)``, best first."""
        features, sizes = self.features(images)
        rpn_outputs = self.rpn(features, self.batch_size(sizes))
        return self.postprocess(self.rpn.filter_proposals(rpn_outputs, sizes), images, sizes)

    @property
    def configs(self) -> dict[str, Any]:
        """All that :meth:`build` needs beside the names of the classes, as dataclasses."""
        heads, network = self.roi_heads.config, self.backbone.config
        return {"rpn": self.rpn.config, "heads": heads, "network": network, "transform": self.transform}

    @classmethod
    def build(cls, classes: Sequence[str], configs: Mapping[str, Any]) -> "FasterRCNN":
        """A detector with random weights from :attr:`configs`, as JSON holds them."""
        rpn, heads = config_of(RPNConfig, configs["rpn"]), config_of(RoIConfig, configs["heads"])
        network, transform = configs["network"], config_of(Transform, configs["transform"])
        if "blocks" in network:
            return faster_rcnn_fpn(config_of(ResNetFPNConfig, network), classes, rpn, heads, transform)
        return faster_rcnn_alexnet(build_alexnet(network, 1), classes, rpn, heads, transform)


@dataclass(frozen=True)
class RPNConfig:
    """The hyperparameters of the RPN, by default the paper's. Pairs are for training and detection.

    Attributes:
        anchor_sizes: of each level of feature maps, in pixels of the image as the backbone sees it. The paper has one
            level with three sizes.
        aspect_ratios: height divided by width.
        anchor_offset: see :func:`grid_anchors`.
        foreground_iou: an anchor that overlaps an object by this much is positive; so are those that overlap it most.
        background_iou: one that overlaps none by this much is negative; those between the two are ignored.
        batch_size_per_image: anchors that are sampled in training.
        positive_fraction: at most this share of them is positive.
        smooth_l1_beta: error above which the box loss is linear. Paper: 1; torchvision: 1 / 9. Deltas have no weights
            here, so nearly all errors are far below 1.
        nms_threshold: IoU above which the weaker of two proposals is suppressed.
        pre_nms_top_n: anchors of each level that are considered, best first.
        post_nms_top_n: proposals that remain. Paper: 2000 and 300.
        min_size: proposals with a shorter side, in pixels, are dropped.
    """

    anchor_sizes: tuple[tuple[float, ...], ...] = ((128.0, 256.0, 512.0),)
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    anchor_offset: float = 0.0
    foreground_iou: float = 0.7
    background_iou: float = 0.3
    batch_size_per_image: int = 256
    positive_fraction: float = 0.5
    smooth_l1_beta: float = 1 / 9
    nms_threshold: tuple[float, float] = (0.7, 0.7)
    pre_nms_top_n: tuple[int, int] = (12000, 6000)
    post_nms_top_n: tuple[int, int] = (2000, 300)
    min_size: float = 1e-3

    @property
    def anchors_per_cell(self) -> int:
        """A, the same for all levels."""
        return len(self.anchor_sizes[0]) * len(self.aspect_ratios)

    def __post_init__(self) -> None:
        """Refuse levels that one head cannot serve."""
        if len({len(sizes) for sizes in self.anchor_sizes}) != 1:
            raise ValueError(f"every level must have equally many anchor_sizes, at least one, not {self.anchor_sizes}")


def base_anchors(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> Tensor:
    """The anchors of one cell, centered at the origin: every size in every aspect ratio (section 3.1.1).

    Args:
        sizes: square roots of areas, in pixels.
        aspect_ratios: height divided by width: 2 is tall, like a person; 0.5 is wide, like a car.

    Returns:
        ``(A, 4)``, all sizes of the first ratio, then those of the next. Coordinates are whole numbers, as in the
        paper's code and torchvision; so areas and ratios are not quite those that were asked for.

    >>> base_anchors([16], [0.5, 1, 2])
    tensor([[-11.,  -6.,  11.,   6.],
            [ -8.,  -8.,   8.,   8.],
            [ -6., -11.,   6.,  11.]])
    """
    if not len(sizes) or not len(aspect_ratios) or min(*sizes, *aspect_ratios) <= 0:
        raise ValueError(
            f"sizes and aspect_ratios must be positive numbers, at least one each, but are {sizes} and {aspect_ratios}"
        )
    size, ratio = torch.as_tensor(sizes, dtype=torch.float32), torch.as_tensor(aspect_ratios, dtype=torch.float32)
    tall = ratio.sqrt()
    heights, widths = (tall[:, None] * size).flatten(), (1 / tall[:, None] * size).flatten()  # (A,)
    return (torch.stack([-widths, -heights, widths, heights], dim=1) / 2).round()


def grid_anchors(
    grid_size: tuple[int, int],
    stride: tuple[int, int],
    sizes: Sequence[float],
    aspect_ratios: Sequence[float],
    offset: float = 0.0,
) -> Tensor:
    """The anchors of all cells of a feature map.

    Args:
        grid_size: ``(h, w)`` of the map.
        stride: pixels from a cell to the next, down and across: ``image_size // grid_size`` of each axis, which is not
            always the product of the network's strides: convolutions at the edge may lose or add a cell.
        sizes: see :func:`base_anchors`.
        aspect_ratios: see :func:`base_anchors`.
        offset: where in its cell an anchor is centered, as a share of the stride. Paper vs code: the paper's code has
            0.5, the middle, torchvision 0, the corner. Which is right depends on the padding of the convolutions.

    Returns:
        ``(h · w · A, 4)``: cell by cell, row by row, the anchors of a cell side by side. Nothing is clipped.

    >>> grid_anchors((1, 2), (8, 8), sizes=[4], aspect_ratios=[1])
    tensor([[-2., -2.,  2.,  2.],
            [ 6., -2., 10.,  2.]])
    """
    (h, w), (down, across) = grid_size, stride
    y, x = ((torch.arange(count) + offset) * step for count, step in ((h, down), (w, across)))
    center = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).repeat(1, 1, 2)  # (h, w, 4): x, y, x, y
    return (center.view(-1, 1, 4) + base_anchors(sizes, aspect_ratios)).view(-1, 4)


_remembered = lru_cache(maxsize=16)(grid_anchors)  # most images have the size of the one before


class RPNHead(nn.Module):
    """A window of 3 × 3 cells slides over the map; behind it, two siblings predict for each of A anchors (3.1).

    A small network with the same weights at every place: that is a convolution, and layers behind it that look at one
    place are 1 × 1 convolutions. Names of layers are torchvision's.
    """

    def __init__(self, channels: int, anchors_per_cell: int) -> None:
        super().__init__()
        window = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True))
        self.conv = nn.Sequential(window)  # one entry, for torchvision has room for more windows
        self.cls_logits = nn.Conv2d(channels, anchors_per_cell, 1)
        self.bbox_pred = nn.Conv2d(channels, 4 * anchors_per_cell, 1)
        for layer in (window[0], self.cls_logits, self.bbox_pred):  # section 3.1.3
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, C, h, w)`` to logits ``(B, h · w · A)`` and deltas ``(B, h · w · A, 4)``, in the anchors' order."""
        x = self.conv(features)
        logits = self.cls_logits(x).permute(0, 2, 3, 1)  # (B, h, w, A)
        deltas = self.bbox_pred(x).permute(0, 2, 3, 1)  # (B, h, w, 4 A)
        return logits.flatten(1), deltas.reshape(len(x), -1, 4)


@dataclass(frozen=True)
class RPNOutputs:
    """What the RPN predicts for each anchor."""

    objectness: Tensor  # (B, N) logits: is there an object, of whatever class?
    deltas: Tensor  # (B, N, 4), from the anchor to it
    anchors: Tensor  # (N, 4), the same for all images of the batch
    counts: list[int]  # how many anchors each level has


class RPN(nn.Module):
    """The region proposal network (sections 3.1.1 and 3.1.2).

    One pass of :meth:`forward` serves both :meth:`losses` and :meth:`filter_proposals`.

    Args:
        channels: C of the feature maps.
        config: the hyperparameters.
    """

    def __init__(self, channels: int, config: RPNConfig | None = None) -> None:
        super().__init__()
        self.config = config or RPNConfig()
        self.head = RPNHead(channels, self.config.anchors_per_cell)

    def forward(self, features: Features | Sequence[Tensor], size: Size) -> RPNOutputs:
        """Predict for the anchors of every level.

        Args:
            features: a feature map ``(B, C, h, w)``, or several, the levels of a pyramid.
            size: ``(H, W)`` of the batch of images, padding included.
        """
        levels = [features] if isinstance(features, Tensor) else features
        levels = list(levels.values()) if isinstance(levels, Mapping) else levels
        config = self.config
        if len(levels) != len(config.anchor_sizes):
            raise ValueError(f"{len(levels)} levels of features, but anchor_sizes for {len(config.anchor_sizes)}")
        anchors = []
        for level, sizes in zip(levels, config.anchor_sizes, strict=True):
            h, w = level.shape[2:]
            stride = (size[0] // h, size[1] // w)
            anchors.append(_remembered((h, w), stride, sizes, config.aspect_ratios, config.anchor_offset).to(level))
        objectness, deltas = zip(*map(self.head, levels), strict=True)
        return RPNOutputs(
            torch.cat(objectness, dim=1), torch.cat(deltas, dim=1), torch.cat(anchors), [len(a) for a in anchors]
        )

    @torch.no_grad()
    def filter_proposals(self, rpn_outputs: RPNOutputs, sizes: Sequence[Size]) -> list[dict[str, Tensor]]:
        """Select the best boxes and suppress those that repeat another.

        Args:
            rpn_outputs: of :meth:`forward`.
            sizes: ``(height, width)`` of each image, without padding.

        Returns:
            For each image ``boxes`` ``(P, 4)`` and ``scores`` ``(P,)`` in [0, 1], best first; P is at most
            ``post_nms_top_n``. Boxes are constants: no gradient flows through them (section 3.2).
        """
        config, mode, proposals = self.config, 0 if self.training else 1, []
        for objectness, deltas, size in zip(rpn_outputs.objectness, rpn_outputs.deltas, sizes, strict=True):
            chosen, levels, first = [], [], 0
            for level, count in enumerate(rpn_outputs.counts):
                best = objectness[first : first + count].topk(min(count, config.pre_nms_top_n[mode])).indices
                chosen.append(best + first)
                levels.append(torch.full_like(best, level))
                first += count
            index, level = torch.cat(chosen), torch.cat(levels)
            boxes = clip_boxes(decode_boxes(rpn_outputs.anchors[index], deltas[index]), size)
            scores = objectness[index].sigmoid()
            large = ((boxes[:, 2:] - boxes[:, :2]) >= config.min_size).all(dim=1)
            boxes, scores, level = boxes[large], scores[large], level[large]
            kept = batched_nms(boxes, scores, level, config.nms_threshold[mode], config.post_nms_top_n[mode])
            proposals.append({"boxes": boxes[kept], "scores": scores[kept]})
        return proposals

    def losses(self, rpn_outputs: RPNOutputs, targets: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """RPN loss on sampled anchors (equation 1), drawn with torch's global generator.

        Args:
            rpn_outputs: of :meth:`forward`.
            targets: ``boxes`` ``(G, 4)`` and perhaps ``iscrowd`` for each image; G may be 0.

        Returns:
            ``loss_objectness``, binary cross-entropy, and ``loss_rpn_box_reg``, smooth L1 of the positive ones, both
            divided by the number of sampled anchors. Paper vs code: the paper divides the second by the number of
            cells and multiplies by 10, which is about the same.
        """
        config, logits, wanted, errors = self.config, [], [], []
        for objectness, deltas, target in zip(rpn_outputs.objectness, rpn_outputs.deltas, targets, strict=True):
            gt_index, label = self.label_anchors(rpn_outputs.anchors, target)
            positive, negative = subsample(label, config.batch_size_per_image, config.positive_fraction)
            chosen = torch.cat([positive, negative])
            logits.append(objectness[chosen])
            wanted.append((label[chosen] == POSITIVE).to(objectness))
            matched = single_objects(target)["boxes"].to(deltas)[gt_index[positive]]
            goals = encode_boxes(rpn_outputs.anchors[positive], matched)
            errors.append(F.smooth_l1_loss(deltas[positive], goals, beta=config.smooth_l1_beta, reduction="sum"))
        logits, wanted, count = torch.cat(logits), torch.cat(wanted), max(sum(map(len, logits)), 1)
        objectness_loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        return {"loss_objectness": objectness_loss / count, "loss_rpn_box_reg": sum(errors) / count}

    @torch.no_grad()
    def label_anchors(self, anchors: Tensor, target: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Match anchors with objects: ``(N, 4)`` to the object's index ``(N,)``, and 1, 0 or -1 ``(N,)``.

        The best anchor of an object is positive even if it overlaps it by less than 0.7, for few anchors fit that well.
        """
        iou, config = box_iou(single_objects(target)["boxes"].to(anchors), anchors), self.config
        gt_index, label = match(iou, config.foreground_iou, config.background_iou, allow_low_quality_matches=True)
        label[in_crowd(anchors, target)] = IGNORED
        return gt_index, label


# For images of 128 pixels, enlarged to 192. conv5's cells are centered on their own 8 pixels, so anchors are, too. With
# a lower NMS threshold than the paper's 0.7, fewer proposals repeat others, and few of them suffice: for detection,
# chosen on validation images. In training those that repeat are welcome: each is one more example of its object.
TOY_TOWN_RPN = RPNConfig(
    anchor_sizes=((20.0, 36.0, 64.0, 112.0),),
    anchor_offset=0.5,
    batch_size_per_image=128,
    nms_threshold=(0.7, 0.6),
    pre_nms_top_n=(1000, 1000),
    post_nms_top_n=(150, 60),
)
# Objects of one class overlap here more often than on photographs: a detection must overlap a better one by half to go.
# The low score threshold suits average precision, which looks at the order of detections alone. Both were chosen on
# validation images, as was a beta that lets small errors count more.
TOY_TOWN_HEADS = RoIConfig(score_threshold=0.003, nms_threshold=0.5, smooth_l1_beta=1 / 9)

# One size of anchors for each level. Cells are centered on a corner of their pixels, so anchors are, too: offset 0.
PYRAMID_RPN = RPNConfig(
    anchor_sizes=((32.0,), (64.0,), (128.0,), (256.0,), (512.0,)),
    pre_nms_top_n=(2000, 1000),
    post_nms_top_n=(2000, 1000),
)
PYRAMID_HEADS = RoIConfig(
    pool_size=7, batch_size_per_image=512, smooth_l1_beta=1 / 9, nms_threshold=0.5, pooling="align", aligned=False
)
PYRAMID_TRANSFORM = Transform(min_size=800, max_size=1333, divisor=32)
FINEST_STRIDE = 4  # of the pyramid


def faster_rcnn_alexnet(
    network: AlexNet,
    classes: Sequence[str],
    rpn: RPNConfig = TOY_TOWN_RPN,
    heads: RoIConfig | None = None,
    transform: Transform | None = None,
) -> FasterRCNN:
    """Faster R-CNN from a pre-trained AlexNet: as :func:`minircnn.fast_rcnn.fast_rcnn_alexnet`, and an RPN.

    Args:
        network: is taken apart; its tensors are shared, not copied.
        classes: names; ``classes[0]`` is the background.
        rpn: the hyperparameters of the RPN.
        heads: those of the RoI heads; by default ``TOY_TOWN_HEADS`` with a grid that fits fc6.
        transform: by default that of :func:`alexnet_transform`.
    """
    heads = heads or replace(TOY_TOWN_HEADS, pool_size=network.config.pool5_size)
    roi_heads = RoIHeads(*alexnet_head(network, heads), len(classes), network.config.total_stride, heads)
    proposer, device = RPN(network.config.channels[-1], rpn), network.fc8.weight.device
    transform = transform or alexnet_transform(network)
    return FasterRCNN(network.backbone, proposer.to(device), roi_heads.to(device), classes, transform)


def alexnet_transform(network: AlexNet) -> Transform:
    """Normalization as the network learned it, and padding to a multiple of its stride.

    Without that the feature map of, say, 191 pixels has 24 cells, of 191 // 24 = 7 pixels each if one counts like this,
    and anchors would drift away from the cells of stride 8 that they belong to.
    """
    config = network.config
    return Transform(config.mean, config.std, config.blue_first, divisor=config.total_stride)


def faster_rcnn_fpn(
    network: ResNetFPNConfig | ResNetFPN,
    classes: Sequence[str],
    rpn: RPNConfig = PYRAMID_RPN,
    heads: RoIConfig = PYRAMID_HEADS,
    transform: Transform = PYRAMID_TRANSFORM,
) -> FasterRCNN:
    """Faster R-CNN with a residual network and a feature pyramid (Lin et al. 2017, arXiv 1612.03144, section 4.2).

    ``network`` is the backbone, or its configuration; then its weights are random.
    """
    backbone = ResNetFPN(network) if isinstance(network, ResNetFPNConfig) else network
    channels = backbone.config.channels
    roi_heads = RoIHeads(*pyramid_head(channels, heads), len(classes), FINEST_STRIDE, heads)
    return FasterRCNN(backbone, RPN(channels, rpn), roi_heads, classes, transform)


def pyramid_head(channels: int, config: RoIConfig) -> tuple[nn.Module, int]:
    """fc6 and fc7 on a pyramid of feature maps, ``(R, C, n, n)`` to ``(R, D)``, and D."""
    if config.pooling != "align":
        raise ValueError(f'on a pyramid pooling must be "align", not {config.pooling!r}')
    fc6, fc7 = RegionLinear(channels * config.pool_size**2, 1024), nn.Linear(1024, 1024)
    return nn.Sequential(OrderedDict(fc6=fc6, relu6=nn.ReLU(), fc7=fc7, relu7=nn.ReLU())), 1024


def load_faster_rcnn(path: str | Path = FASTER_RCNN_WEIGHTS) -> FasterRCNN:
    """The Faster R-CNN in a file, by default the one that comes with the project; see :func:`minircnn.weights.load`."""
    return load(path, "faster_rcnn")
