"""What Fast R-CNN does with the regions of a feature map: two answers for each, learned together.

Girshick 2015, "Fast R-CNN", arXiv 1504.08083, sections 2.1 to 2.3. Faster R-CNN and Mask R-CNN use the same heads.

Shape comments: B images, G objects, P proposals of an image, R RoIs of a batch, K classes with background, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minircnn.boxes import box_iou, decode_boxes, encode_boxes, select_detections
from minircnn.losses import Losses
from minircnn.matching import IGNORED, POSITIVE, match, subsample
from minircnn.pooling import roi_pool, to_rois
from minircnn.targets import in_crowd, single_objects


@dataclass(frozen=True)
class RoIConfig:
    """The numbers of the paper.

    Attributes:
        pool_size: rows and columns of a pooled region: 6 for AlexNet, so that its fc6 fits; 7 for VGG16.
        batch_size_per_image: to learn from. Paper: 64 of each of 2 pictures.
        positive_fraction: at most this share of them shows an object.
        foreground_iou: a proposal that overlaps an object by this much shows it.
        background_iou: from (included) and up to (excluded) which largest overlap a proposal is background. What lies
            between this and ``foreground_iou``, or below, is not learned from. Paper: from 0.1, so that the network
            sees what is easily confused with an object; later code, and we: from 0, so that it also knows the rest.
        box_weights: what multiplies dx, dy, dw, dh. Paper vs code: the paper divides by the standard deviation of all
            targets, which is near 0.1, 0.1, 0.2, 0.2.
        smooth_l1_beta: from which error on the box loss grows like a line. Paper: 1; torchvision: 1 / 9.
        box_loss_weight: lambda of equation 1.
        score_threshold: detections are at least this probable.
        nms_threshold: IoU above which the weaker of two detections of a class goes.
        max_detections: of one picture.
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

    def __post_init__(self) -> None:
        """Refuses numbers that contradict each other."""
        low, high = self.background_iou
        if not 0 <= low <= high <= self.foreground_iou:
            raise ValueError(
                f"background_iou must rise and end at or below foreground_iou, but they are {self.background_iou} and "
                f"{self.foreground_iou}"
            )


@dataclass(frozen=True)
class SampledRoIs:
    """Regions of one picture, and what is to be learned about each.

    Attributes:
        boxes: ``(S, 4)``.
        labels: ``(S,)`` int64: the class of the object that the region shows, 0 for background.
        gt_index: ``(S,)`` int64: the object that it overlaps most, counted without crowd regions.
        deltas: ``(S, 4)``: the way to that object, times ``box_weights``; 0 for background.
    """

    boxes: Tensor
    labels: Tensor
    gt_index: Tensor
    deltas: Tensor


class RoIHeads(nn.Module):
    """Names regions and improves their boxes.

    Args:
        box_head: makes features of a pooled region: ``(R, C, n, n)`` to ``(R, D)``; fc6 and fc7.
        representation_size: D.
        num_classes: K, with background.
        stride: pixels of the picture per cell of the feature map.
        config: the numbers.

    The two siblings behind the features are linear: ``box_predictor.cls_score`` gives K scores, ``bbox_pred`` four
    numbers for each class. Names of layers are torchvision's.
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
        self.config, self.stride = config or RoIConfig(), stride
        self.box_head = box_head
        self.box_predictor = nn.ModuleDict(
            {
                "cls_score": nn.Linear(representation_size, num_classes),
                "bbox_pred": nn.Linear(representation_size, 4 * num_classes),
            }
        )
        for name, spread in (("cls_score", 0.01), ("bbox_pred", 0.001)):  # section 2.3
            nn.init.normal_(self.box_predictor[name].weight, std=spread)
            nn.init.zeros_(self.box_predictor[name].bias)

    def pool(self, features: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        """The regions as grids of one size: ``(B, C, h, w)``, B times ``(P, 4)`` to ``(R, C, n, n)``."""
        return roi_pool(features, to_rois(boxes), self.config.pool_size, 1 / self.stride)

    def box_features(self, features: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        """What both siblings look at: ``(B, C, h, w)``, B times ``(P, 4)`` to ``(R, D)``."""
        return self.box_head(self.pool(features, boxes))

    def predict(self, features: Tensor, boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Both answers for regions of the feature maps.

        Args:
            features: ``(B, C, h, w)``.
            boxes: for each picture ``(P, 4)`` in pixels.

        Returns:
            Class scores before the softmax ``(R, K)``, and deltas ``(R, K, 4)`` (times ``box_weights``).
        """
        x = self.box_features(features, boxes)  # (R, D)
        logits = self.box_predictor.cls_score(x)  # as attributes: torchvision's FastRCNNPredictor may stand there
        return logits, self.box_predictor.bbox_pred(x).view(*logits.shape, 4)

    def sample(
        self,
        proposals: Sequence[Tensor],
        targets: Sequence[dict[str, Any]],
        generators: Sequence[torch.Generator] | None = None,
    ) -> list[SampledRoIs]:
        """Draws the regions to learn from, picture by picture (section 2.3, "mini-batch sampling").

        The objects themselves join the proposals (not in the paper, but in its code), so that there is always something
        to find. Regions in crowds are left out.

        Args:
            proposals: ``(P, 4)`` for each picture.
            targets: ``boxes`` ``(G, 4)``, ``labels`` ``(G,)`` and perhaps ``iscrowd`` for each; G may be 0.
            generators: one for each picture, so that what is drawn does not depend on the other pictures; by default
                torch's global one draws for all, as in torchvision.

        Returns:
            The regions of each picture in the order of its proposals. They are constants: no gradient flows into them.
        """
        generators = generators or [None] * len(proposals)
        return [self._sample_one(*one) for one in zip(proposals, targets, generators, strict=True)]

    @torch.no_grad()
    def _sample_one(self, proposals: Tensor, target: dict[str, Any], generator: torch.Generator | None) -> SampledRoIs:
        config, objects = self.config, single_objects(target)
        boxes = torch.cat([proposals, objects["boxes"].to(proposals)])  # (P + G, 4)
        iou = box_iou(objects["boxes"].to(boxes), boxes).nan_to_num(0)  # (G, P + G)
        gt_index, label = match(iou, config.foreground_iou, config.background_iou[1])
        best = iou.amax(dim=0) if len(iou) else boxes.new_zeros(len(boxes))
        label[best < config.background_iou[0]] = IGNORED
        label[in_crowd(boxes, target)] = IGNORED
        positive, negative = subsample(label, config.batch_size_per_image, config.positive_fraction, generator)
        chosen = torch.cat([positive, negative]).sort().values  # (S,)
        boxes, gt_index, positive = boxes[chosen], gt_index[chosen], label[chosen] == POSITIVE
        labels, deltas = torch.zeros_like(gt_index), torch.zeros_like(boxes)
        labels[positive] = objects["labels"][gt_index[positive]]
        goals = objects["boxes"][gt_index[positive]].to(boxes)
        deltas[positive] = encode_boxes(boxes[positive], goals, config.box_weights)
        return SampledRoIs(boxes, labels, gt_index, deltas)

    def losses(self, features: Tensor, sampled: Sequence[SampledRoIs]) -> Losses:
        """How wrong both answers are: the multi-task loss of equation 1.

        Args:
            features: ``(B, C, h, w)``.
            sampled: regions of each picture, see :meth:`sample`. There may be none: then both losses are 0.

        Returns:
            ``loss_classifier`` and ``loss_box_reg``, each the mean over all regions.
        """
        logits, deltas = self.predict(features, [rois.boxes for rois in sampled])
        labels, wanted = (torch.cat([getattr(rois, name) for rois in sampled]) for name in ("labels", "deltas"))
        classifier, box = fast_rcnn_loss(logits, deltas, labels, wanted, self.config.smooth_l1_beta)
        losses = {"loss_classifier": classifier, "loss_box_reg": self.config.box_loss_weight * box}
        return Losses(losses, counts=dict.fromkeys(losses, len(labels)))

    def detect(
        self, features: Tensor, proposals: Sequence[Tensor], sizes: Sequence[tuple[int, int]], *, regress: bool = True
    ) -> list[dict[str, Tensor]]:
        """Names the proposals, moves them for each class, and keeps the best.

        Args:
            features: ``(B, C, h, w)``.
            proposals: ``(P, 4)`` for each picture; P may be 0.
            sizes: ``(height, width)`` of each picture.
            regress: whether boxes are moved.

        Returns:
            For each picture ``boxes`` ``(N, 4)``, ``labels`` ``(N,)`` and ``scores`` ``(N,)``, probabilities, best
            first.
        """
        logits, deltas = self.predict(features, proposals)
        config, counts, found = self.config, [len(boxes) for boxes in proposals], []
        scores = logits.softmax(dim=1)
        for boxes, p, d, size in zip(proposals, scores.split(counts), deltas.split(counts), sizes, strict=True):
            found.append(
                select_detections(
                    decode_boxes(boxes, d, config.box_weights) if regress else boxes,
                    p,
                    size,
                    score_threshold=config.score_threshold,
                    nms_threshold=config.nms_threshold,
                    max_detections=config.max_detections,
                )
            )
        return found


def fast_rcnn_loss(
    logits: Tensor, deltas: Tensor, labels: Tensor, wanted: Tensor, beta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The multi-task loss (equations 1 to 3): cross-entropy for the class, smooth L1 for the box.

    The box counts only where there is an object, and only the deltas of its own class are looked at: the others may say
    what they like.

    Args:
        logits: ``(R, K)``.
        deltas: ``(R, K, 4)``.
        labels: ``(R,)``, 0 for background.
        wanted: ``(R, 4)``.
        beta: up to this error smooth L1 is a parabola.

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
