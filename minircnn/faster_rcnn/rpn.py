"""The region proposal network: where is something, whatever it is? Asked of features that are there already.

Ren, He, Girshick and Sun 2015, "Faster R-CNN", arXiv 1506.01497, sections 3.1.1 and 3.1.2.

Shape comments: B images, G objects, C channels, h w size of a feature map, A anchors per cell, N anchors of an image
over all cells and levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minircnn.boxes import batched_nms, box_iou, clip_boxes, decode_boxes, encode_boxes
from minircnn.faster_rcnn.anchors import grid_anchors
from minircnn.losses import Losses
from minircnn.matching import IGNORED, POSITIVE, match, subsample
from minircnn.targets import in_crowd, single_objects


@dataclass(frozen=True)
class RPNConfig:
    """The numbers of the paper.

    Attributes:
        anchor_sizes: of each level of feature maps, in pixels of the picture as the backbone sees it, perhaps enlarged.
            The paper has one level with three sizes.
        aspect_ratios: height divided by width.
        anchor_offset: see :func:`grid_anchors`.
        foreground_iou: an anchor that overlaps an object by this much is positive; so are those that overlap it most.
        background_iou: one that overlaps none by this much is negative. What is between the two teaches nothing.
        batch_size_per_image: to learn from.
        positive_fraction: at most this share of them is positive.
        smooth_l1_beta: from which error on the box loss grows like a line. Paper: 1; torchvision: 1 / 9. Deltas have no
            weights here, so nearly all errors are far below 1.
        nms_threshold: IoU above which the weaker of two proposals goes, in training and in detection.
        pre_nms_top_n: so many of the best anchors of each level are looked at, in training and in detection.
        post_nms_top_n: so many proposals are left, in training and in detection. Paper: 2000 and 300.
        min_size: proposals with a shorter side, in pixels, go.
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
        """Refuses levels that one head cannot serve."""
        if len({len(sizes) for sizes in self.anchor_sizes}) != 1:
            raise ValueError(f"every level must have equally many anchor_sizes, at least one, not {self.anchor_sizes}")


# Most pictures have the size of the one before, and nobody changes anchors.
_remembered = lru_cache(maxsize=16)(grid_anchors)


class RPNHead(nn.Module):
    """A window of 3 × 3 cells slides over the map; behind it, two siblings answer for each of A anchors.

    A small network at every place with the same weights: that is a convolution, and layers behind it that look at one
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
    """What the network says about each anchor.

    Attributes:
        objectness: ``(B, N)`` logits: is there something, of whatever class?
        deltas: ``(B, N, 4)``: the way from the anchor to it.
        anchors: ``(N, 4)``, the same for all pictures of the batch.
        counts: how many anchors each level has.
    """

    objectness: Tensor
    deltas: Tensor
    anchors: Tensor
    counts: list[int]


class RPN(nn.Module):
    """Proposes regions.

    Args:
        channels: C of the feature maps.
        config: the numbers.

    One pass of :meth:`forward` serves both :meth:`losses` and :meth:`propose`.
    """

    def __init__(self, channels: int, config: RPNConfig | None = None) -> None:
        super().__init__()
        self.config = config or RPNConfig()
        self.head = RPNHead(channels, self.config.anchors_per_cell)

    def forward(self, levels: Sequence[Tensor], size: tuple[int, int]) -> RPNOutputs:
        """Slides over every level.

        Args:
            levels: feature maps, each ``(B, C, h, w)``; one, or several of a pyramid.
            size: ``(H, W)`` of the batch of pictures, padding included.
        """
        if len(levels) != len(self.config.anchor_sizes):
            raise ValueError(f"{len(levels)} levels of features, but anchor_sizes for {len(self.config.anchor_sizes)}")
        anchors = [self.anchors(level, size, number) for number, level in enumerate(levels)]
        objectness, deltas = zip(*map(self.head, levels), strict=True)
        return RPNOutputs(
            torch.cat(objectness, dim=1), torch.cat(deltas, dim=1), torch.cat(anchors), [len(a) for a in anchors]
        )

    def anchors(self, level: Tensor, size: tuple[int, int], number: int = 0) -> Tensor:
        """The anchors of a level: a map ``(B, C, h, w)`` of pictures of a size ``(H, W)`` to ``(h · w · A, 4)``."""
        grid, config = (level.shape[2], level.shape[3]), self.config
        stride = (size[0] // grid[0], size[1] // grid[1])
        found = _remembered(grid, stride, config.anchor_sizes[number], config.aspect_ratios, config.anchor_offset)
        return found.to(level)

    @torch.no_grad()
    def filter_proposals(self, rpn_outputs: RPNOutputs, sizes: Sequence[tuple[int, int]]) -> list[dict[str, Tensor]]:
        """The best boxes, without those that say the same.

        Args:
            rpn_outputs: of :meth:`forward`.
            sizes: ``(height, width)`` of each picture, without padding.

        Returns:
            For each picture ``boxes`` ``(P, 4)`` and ``scores`` ``(P,)`` in [0, 1], best first; P is at most
            ``post_nms_top_n``. Boxes are constants: no gradient flows through them (section 3.2).
        """
        mode = 0 if self.training else 1
        return [
            self._propose_one(*one, rpn_outputs, mode)
            for one in zip(rpn_outputs.objectness, rpn_outputs.deltas, sizes, strict=True)
        ]

    def _propose_one(
        self, objectness: Tensor, deltas: Tensor, size: tuple[int, int], rpn_outputs: RPNOutputs, mode: int
    ) -> dict[str, Tensor]:
        config, chosen, levels, first = self.config, [], [], 0
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
        return {"boxes": boxes[kept], "scores": scores[kept]}

    def losses(
        self,
        rpn_outputs: RPNOutputs,
        targets: Sequence[dict[str, Any]],
        generators: Sequence[torch.Generator] | None = None,
    ) -> Losses:
        """The loss on the sampled anchors (equation 1).

        Args:
            rpn_outputs: of :meth:`forward`.
            targets: ``boxes`` ``(G, 4)`` and perhaps ``iscrowd`` for each picture; G may be 0.
            generators: one for each picture, which draw its anchors; by default torch's global one, as in torchvision.

        Returns:
            ``loss_objectness``, binary cross-entropy, and ``loss_rpn_box_reg``, smooth L1 of the positive ones, both
            divided by the number of sampled anchors. Paper vs code: the paper divides the second by the number of
            cells and multiplies by 10, which is about the same.
        """
        generators = generators or [None] * len(targets)
        labelled = [self.label_anchors(rpn_outputs.anchors, target) for target in targets]
        drawn = [
            subsample(label, self.config.batch_size_per_image, self.config.positive_fraction, generator)
            for (_, label), generator in zip(labelled, generators, strict=True)
        ]
        logits, wanted, errors = [], [], []
        pairs = zip(rpn_outputs.objectness, rpn_outputs.deltas, targets, labelled, drawn, strict=True)
        for objectness, deltas, target, (gt_index, label), (positive, negative) in pairs:
            chosen = torch.cat([positive, negative])
            logits.append(objectness[chosen])
            wanted.append((label[chosen] == POSITIVE).to(objectness))
            goals = single_objects(target)["boxes"].to(deltas)[gt_index[positive]]
            ways = encode_boxes(rpn_outputs.anchors[positive], goals)
            beta = self.config.smooth_l1_beta
            errors.append(F.smooth_l1_loss(deltas[positive], ways, beta=beta, reduction="sum"))
        logits, wanted, count = torch.cat(logits), torch.cat(wanted), sum(map(len, logits))
        objectness_loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / max(count, 1)
        losses = {"loss_objectness": objectness_loss, "loss_rpn_box_reg": sum(errors) / max(count, 1)}
        return Losses(losses, counts=dict.fromkeys(losses, count))

    @torch.no_grad()
    def label_anchors(self, anchors: Tensor, target: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Which anchors show an object: ``(N, 4)`` to the object's number ``(N,)``, and 1, 0 or -1 ``(N,)``.

        The best anchor of an object is positive even if it overlaps it by less than 0.7, for few shapes fit that well.
        """
        objects = single_objects(target)["boxes"].to(anchors)
        config = self.config
        iou = box_iou(objects, anchors)
        gt_index, label = match(iou, config.foreground_iou, config.background_iou, allow_low_quality_matches=True)
        label[in_crowd(anchors, target)] = IGNORED
        return gt_index, label
