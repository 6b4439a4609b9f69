"""A third answer for each region, beside class and box: a mask for each class, pixel by pixel.

He, Gkioxari, Dollár and Girshick 2017, "Mask R-CNN", arXiv 1703.06870, section 3 and figure 4.

Shape comments: B images, G objects, P proposals of an image, R RoIs of a batch, S positive ones, K classes with
background, C channels, m side of a mask.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from minircnn.fast_rcnn import RoIConfig, RoIHeads, SampledRoIs
from minircnn.losses import Losses
from minircnn.mask_rcnn.masks import mask_loss, mask_probabilities, project_masks_on_boxes
from minircnn.pooling import roi_align, roi_pool, roi_warp, to_rois
from minircnn.targets import single_objects

POOLINGS = ("align", "warp", "pool")


@dataclass(frozen=True)
class AlignRoIConfig(RoIConfig):
    """Fast R-CNN's numbers, and those of RoIAlign.

    Attributes:
        sampling_ratio: points of a bin along an axis, where values are interpolated.
        aligned: see :func:`minircnn.pooling.roi_align`; whether cell k of the map is centred on its own pixels.
    """

    sampling_ratio: int = 2
    aligned: bool = True


@dataclass(frozen=True)
class MaskRoIConfig(AlignRoIConfig):
    """The numbers of the paper that Fast R-CNN's heads do not have.

    Attributes:
        pooling: "align" (RoIAlign); for comparison "warp" (RoIWarp: regions rounded, then interpolated) and
            "pool" (RoIPool).
        mask_pool_size: rows and columns of a region for the mask branch; its masks have twice as many.
        mask_channels: of the branch's convolutions. Paper: four with 256.
        mask_hidden: channels of the deconvolution behind them; None: as many as the last of them.
        mask_kind: "sigmoid", each class's mask on its own, or "softmax" over the classes; see :func:`mask_loss`.
        mask_loss_weight: of the loss of masks beside those of class and box.
    """

    pooling: str = "align"
    mask_pool_size: int = 14
    mask_channels: tuple[int, ...] = (256, 256, 256, 256)
    mask_hidden: int | None = None
    mask_kind: str = "sigmoid"
    mask_loss_weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuses what does not exist."""
        super().__post_init__()
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, but is {self.pooling!r}")
        if self.mask_kind not in ("sigmoid", "softmax"):
            raise ValueError(f"mask_kind must be 'sigmoid' or 'softmax', but is {self.mask_kind!r}")
        if not self.mask_channels:
            raise ValueError("mask_channels must name at least one convolution")


@dataclass(frozen=True)
class SampledMaskRoIs(SampledRoIs):
    """Regions of one picture, and what is to be learned about each.

    Attributes:
        masks: ``(S, m, m)`` for those of them that show an object, in their order.
    """

    masks: Tensor


class MaskRoIHeads(RoIHeads):
    """Names regions, improves their boxes and says which of their pixels belong to the object.

    The branch is fully convolutional: a mask keeps the layout that a vector would lose. Convolutions of 3 × 3 look at
    14 × 14 cells, a deconvolution doubles them, and a 1 × 1 convolution gives a mask for each class. Names of layers
    are torchvision's.

    Args:
        box_head: see :class:`minircnn.fast_rcnn.RoIHeads`, also for the next three.
        representation_size: of its result.
        num_classes: K, with background.
        stride: pixels of the picture per cell of the feature map.
        channels: C of the feature map.
        config: the numbers.
    """

    config: MaskRoIConfig

    def __init__(
        self,
        box_head: nn.Module,
        representation_size: int,
        num_classes: int,
        stride: int,
        channels: int,
        config: MaskRoIConfig | None = None,
    ) -> None:
        config = config or MaskRoIConfig()
        super().__init__(box_head, representation_size, num_classes, stride, config)
        widths = (channels, *config.mask_channels)
        hidden = config.mask_hidden or widths[-1]
        self.mask_head = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.ReLU()) for before, after in pairwise(widths))
        )
        self.mask_predictor = nn.Sequential(
            OrderedDict(
                conv5_mask=nn.ConvTranspose2d(widths[-1], hidden, 2, stride=2),
                relu=nn.ReLU(),
                mask_fcn_logits=nn.Conv2d(hidden, num_classes, 1),
            )
        )
        for name, parameter in [*self.mask_head.named_parameters(), *self.mask_predictor.named_parameters()]:
            if name.endswith("weight"):
                nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.zeros_(parameter)

    def pool(self, features: Tensor, boxes: Sequence[Tensor], size: int | None = None) -> Tensor:
        """The regions as grids of one size: ``(B, C, h, w)``, B times ``(P, 4)`` to ``(R, C, n, n)``.

        Args:
            features: of the backbone.
            boxes: of each picture.
            size: n; by default that of the box head.
        """
        config, rois, size = self.config, to_rois(boxes), size or self.config.pool_size
        if config.pooling == "align":
            return roi_align(features, rois, size, 1 / self.stride, config.sampling_ratio, config.aligned)
        if config.pooling == "warp":
            return roi_warp(features, rois, size, 1 / self.stride, config.sampling_ratio)
        return roi_pool(features, rois, size, 1 / self.stride)

    def predict_masks(self, features: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        """The third answer: ``(B, C, h, w)``, B times ``(P, 4)`` to ``(R, K, m, m)`` numbers before the sigmoid."""
        return self.mask_predictor(self.mask_head(self.pool(features, boxes, self.config.mask_pool_size)))

    def _sample_one(
        self, proposals: Tensor, target: dict[str, Any], generator: torch.Generator | None
    ) -> SampledMaskRoIs:
        if "masks" not in target:
            raise ValueError("targets hold no masks, which Mask R-CNN learns from: open the data set with masks=True")
        rois = super()._sample_one(proposals, target, generator)
        positive, size = rois.labels > 0, 2 * self.config.mask_pool_size
        objects = single_objects(target)["masks"]
        masks = project_masks_on_boxes(
            objects, rois.boxes[positive], rois.gt_index[positive], size, self.config.aligned
        )
        return SampledMaskRoIs(**vars(rois), masks=masks)

    def losses(self, features: Tensor, sampled: Sequence[SampledMaskRoIs]) -> Losses:
        """How wrong the three answers are: L = L_cls + L_box + L_mask.

        Args:
            features: ``(B, C, h, w)``.
            sampled: regions of each picture, see :meth:`sample`. There may be none: then all losses are 0.

        Returns:
            ``loss_classifier`` and ``loss_box_reg``, means over all regions, and ``loss_mask``, over the positive ones.
        """
        first = super().losses(features, sampled)
        labels = torch.cat([rois.labels for rois in sampled])
        logits = self.predict_masks(features, [rois.boxes[rois.labels > 0] for rois in sampled])  # (S, K, m, m)
        wanted = torch.cat([rois.masks for rois in sampled])
        loss = self.config.mask_loss_weight * mask_loss(logits, labels[labels > 0], wanted, self.config.mask_kind)
        return Losses({**first, "loss_mask": loss}, counts={**first.counts, "loss_mask": len(wanted)})

    def detect(
        self, features: Tensor, proposals: Sequence[Tensor], sizes: Sequence[tuple[int, int]], *, regress: bool = True
    ) -> list[dict[str, Tensor]]:
        """Names the proposals, moves them, keeps the best, and asks for masks of those alone (section 3.1).

        For the arguments see :meth:`minircnn.fast_rcnn.RoIHeads.detect`.

        Returns:
            What that returns, and ``masks`` ``(N, m, m)``: how probable it is that a part of the box belongs to the
            object, by the mask of its class.
        """
        found = super().detect(features, proposals, sizes, regress=regress)
        logits = self.predict_masks(features, [one["boxes"] for one in found])
        labels, counts = torch.cat([one["labels"] for one in found]), [len(one["labels"]) for one in found]
        masks = mask_probabilities(logits, labels, self.config.mask_kind).split(counts)
        return [{**one, "masks": mask} for one, mask in zip(found, masks, strict=True)]
