"""Mask R-CNN: Faster R-CNN with RoIAlign and one more branch, which predicts masks. The last detector of the history.

He, Gkioxari, Dollár and Girshick 2017, "Mask R-CNN", arXiv 1703.06870.

    image → convolutions → feature map ─┬→ RPN → proposals → RoIHeads → detections ─┬→ masks
                                        ╰─────────── RoIAlign → mask branch ────────╯

Shape comments: B images, G objects, P proposals of an image, S positive RoIs, N detections of an image, K classes with
background, C channels, h w size of the feature map, m side of a mask in the branch's own grid, H W size of the image.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as rle
from torch import Tensor, nn

from minircnn.alexnet import AlexNet, build_alexnet
from minircnn.fast_rcnn import Detector, Features, RoIConfig, RoIHeads, SampledRoIs, alexnet_head
from minircnn.faster_rcnn import (
    FINEST_STRIDE,
    PYRAMID_HEADS,
    PYRAMID_RPN,
    PYRAMID_TRANSFORM,
    RPN,
    TOY_TOWN_HEADS,
    TOY_TOWN_RPN,
    FasterRCNN,
    RPNConfig,
    alexnet_transform,
    pyramid_head,
)
from minircnn.pooling import interpolation_weights, roi_align_separable
from minircnn.resnet_fpn import ResNetFPN, ResNetFPNConfig
from minircnn.shipped import MASK_RCNN_WEIGHTS
from minircnn.targets import single_objects
from minircnn.transforms import Size, Transform
from minircnn.weights import config_of, load

MASK_KINDS = ("sigmoid", "softmax")


class MaskRCNN(Detector):
    """A detector that outlines what it finds; for the other arguments see :class:`minircnn.fast_rcnn.Detector`.

    Args:
        rpn: the region proposal network.
        roi_heads: with the mask branch.

    Targets need ``masks`` ``(G, H, W)`` bool. :func:`mask_rcnn_alexnet` builds the one that this course trains,
    :func:`mask_rcnn_fpn` one with ResNet-50.
    """

    def __init__(
        self,
        backbone: nn.Module,
        rpn: RPN,
        roi_heads: "MaskRoIHeads",
        classes: Sequence[str],
        transform: Transform | None = None,
    ) -> None:
        super().__init__(backbone, roi_heads, classes, transform)
        self.rpn = rpn

    @torch.no_grad()
    def detect(self, images: Sequence[Tensor], *, regress: bool = True, paste: bool = True) -> list[dict[str, Any]]:
        """Find objects and their masks.

        Args:
            images: each ``(3, H, W)`` in [0, 1]; they may differ in size.
            regress: whether the heads refine the boxes; the RPN has refined them once already.
            paste: whether masks come into the image. A hundred of them in 24 megapixels take 10 GB.

        Returns:
            For each image ``boxes`` ``(N, 4)``, ``labels`` ``(N,)``, ``scores`` ``(N,)``, best first, and ``masks``
            ``(N, 1, H, W)``, the probability of each pixel to belong to the object; :func:`binary_masks` decides.
            Without ``paste`` they are ``(N, m, m)``, in the boxes.
        """
        with torch.inference_mode():
            features, sizes = self.features(images)
            rpn_outputs = self.rpn(features, self.batch_size(sizes))
            proposals = [found["boxes"] for found in self.rpn.filter_proposals(rpn_outputs, sizes)]
            found = self.roi_heads.detect(features, proposals, sizes, regress=regress)
            found = self.roi_heads.add_masks(features, found)
        found = self.postprocess(found, images, sizes)
        for one, image in zip(found, images, strict=True):
            if paste:
                size = tuple(image.shape[1:])
                one["masks"] = paste_masks(one["masks"], one["boxes"], size, self.roi_heads.config.aligned)
        return found

    def detect_encoded(self, images: Sequence[Tensor], *, regress: bool = True) -> list[dict[str, Any]]:
        """:meth:`detect` for large images: ``masks`` decided at 0.5, as a list of COCO's run-length encodings."""
        found, aligned = self.detect(images, regress=regress, paste=False), self.roi_heads.config.aligned
        for one, image in zip(found, images, strict=True):
            one["masks"] = encode_pasted(one["masks"], one["boxes"], tuple(image.shape[1:]), aligned)
        return found

    propose = FasterRCNN.propose

    def losses(self, images: Sequence[Tensor], targets: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """The losses of proposals, detections and masks together: L = L_cls + L_box + L_mask, and the RPN's.

        Returns:
            ``loss_classifier``, ``loss_box_reg``, ``loss_mask``, ``loss_objectness``, ``loss_rpn_box_reg``, finite in
            every case; for targets see :func:`minircnn.targets.check_target`.
        """
        features, sizes = self.features(images)
        targets = self.prepare_targets(images, targets, sizes)
        rpn_outputs = self.rpn(features, self.batch_size(sizes))
        rpn_losses = self.rpn.losses(rpn_outputs, targets)
        proposals = [found["boxes"] for found in self.rpn.filter_proposals(rpn_outputs, sizes)]
        sampled = self.roi_heads.sample(proposals, targets)
        mask = self.roi_heads.mask_loss(features, sampled, targets)
        return {**self.roi_heads.losses(features, sampled), "loss_mask": mask, **rpn_losses}

    @property
    def configs(self) -> dict[str, Any]:
        """All that :meth:`build` needs beside the names of the classes, as dataclasses."""
        heads, hidden = self.roi_heads.config, self.roi_heads.mask_predictor.mask_fcn_logits.in_channels
        # The predictor may be another one by now, such as torchvision's.
        heads = replace(heads, mask_hidden=None if hidden == heads.mask_channels[-1] else hidden)
        network = self.backbone.config
        return {"rpn": self.rpn.config, "heads": heads, "network": network, "transform": self.transform}

    @classmethod
    def build(cls, classes: Sequence[str], configs: Mapping[str, Any]) -> "MaskRCNN":
        """A detector with random weights from :attr:`configs`, as JSON holds them."""
        rpn, heads = config_of(RPNConfig, configs["rpn"]), config_of(MaskRoIConfig, configs["heads"])
        network, transform = configs["network"], config_of(Transform, configs["transform"])
        if "blocks" in network:
            return mask_rcnn_fpn(config_of(ResNetFPNConfig, network), classes, rpn, heads, transform)
        return mask_rcnn_alexnet(build_alexnet(network, 1), classes, rpn, heads, transform)


@dataclass(frozen=True)
class MaskRoIConfig(RoIConfig):
    """The hyperparameters of the RoI heads with a mask branch, by default the paper's.

    Attributes:
        mask_pool_size: rows and columns of a region for the mask branch; its masks have twice as many.
        mask_channels: of the branch's convolutions. Paper: four with 256.
        mask_hidden: channels of the deconvolution behind them; None: as many as the last of them.
        mask_kind: "sigmoid", each class's mask on its own, or "softmax" over the classes; see :func:`mask_loss`.
        mask_loss_weight: factor of the mask loss.
    """

    pooling: str = "align"
    mask_pool_size: int = 14
    mask_channels: tuple[int, ...] = (256, 256, 256, 256)
    mask_hidden: int | None = None
    mask_kind: str = "sigmoid"
    mask_loss_weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what does not exist."""
        super().__post_init__()
        if self.mask_kind not in MASK_KINDS:
            raise ValueError(f"mask_kind must be one of {', '.join(MASK_KINDS)}, but is {self.mask_kind!r}")
        if not self.mask_channels:
            raise ValueError("mask_channels must name at least one convolution")


class MaskRoIHeads(RoIHeads):
    """Fast R-CNN's RoI heads, unchanged, and beside them the mask branch (section 3 and figure 4).

    The branch is fully convolutional: a mask keeps the layout that a vector would lose. Convolutions of 3 × 3 look at
    14 × 14 cells, a deconvolution doubles them, and a 1 × 1 convolution gives a mask for each class. Names of layers
    are torchvision's.

    ``channels`` is C of the feature map; for the other arguments see :class:`minircnn.fast_rcnn.RoIHeads`.
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

    def predict_masks(self, features: Features, boxes: Sequence[Tensor]) -> Tensor:
        """Mask logits: ``(B, C, h, w)``, B times ``(P, 4)`` to ``(R, K, m, m)``."""
        return self.mask_predictor(self.mask_head(self.pool(features, boxes, self.config.mask_pool_size)))

    def mask_loss(
        self, features: Features, sampled: Sequence[SampledRoIs], targets: Sequence[dict[str, Any]]
    ) -> Tensor:
        """L_mask of the positive RoIs among those that :meth:`sample` gave for these targets; 0 without any."""
        wanted = []
        for rois, target in zip(sampled, targets, strict=True):
            if "masks" not in target:
                raise ValueError(
                    "targets hold no masks, which Mask R-CNN learns from: open the data set with masks=True"
                )
            positive, size = rois.labels > 0, 2 * self.config.mask_pool_size
            masks, boxes, gt_index = single_objects(target)["masks"], rois.boxes[positive], rois.gt_index[positive]
            wanted.append(project_masks_on_boxes(masks, boxes, gt_index, size, self.config.aligned))
        labels = torch.cat([rois.labels for rois in sampled])
        logits = self.predict_masks(features, [rois.boxes[rois.labels > 0] for rois in sampled])  # (S, K, m, m)
        loss = mask_loss(logits, labels[labels > 0], torch.cat(wanted), self.config.mask_kind)
        return self.config.mask_loss_weight * loss

    def add_masks(self, features: Features, detections: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """Predict masks for detections alone (section 3.1): ``masks`` ``(N, m, m)``, those of their classes."""
        logits = self.predict_masks(features, [one["boxes"] for one in detections])
        labels, counts = torch.cat([one["labels"] for one in detections]), [len(one["labels"]) for one in detections]
        every = logits.softmax(dim=1) if self.config.mask_kind == "softmax" else logits.sigmoid()  # (R, K, m, m)
        masks = every[torch.arange(len(labels), device=labels.device), labels].split(counts)
        return [{**one, "masks": mask} for one, mask in zip(detections, masks, strict=True)]


def project_masks_on_boxes(masks: Tensor, boxes: Tensor, gt_index: Tensor, size: int, aligned: bool = True) -> Tensor:
    """The part of each object's mask that lies in a box, in the grid of the branch: its target there.

    Args:
        masks: ``(G, H, W)`` bool.
        boxes: ``(S, 4)``, the RoIs of the branch.
        gt_index: ``(S,)`` the object that is matched with each of them.
        size: m.
        aligned: whether pixel k of the mask is centered at k + 1/2, as everywhere here. Paper vs code: the first
            programs had it at k, and so had masks that were half a pixel off.

    Returns:
        ``(S, m, m)`` floats in [0, 1]: at an edge that crosses a cell of the grid, the share that is covered. The masks
        are pooled by RoIAlign, with as many points as cells have pixels.

    >>> left_half = torch.zeros(1, 4, 4, dtype=torch.bool)
    >>> left_half[..., :2] = True
    >>> project_masks_on_boxes(left_half, torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([0]), 2)
    tensor([[[1., 0.],
             [1., 0.]]])
    """
    rois = torch.cat([gt_index[:, None].to(boxes), boxes], dim=1)
    if not len(rois):
        return boxes.new_zeros(0, size, size)
    return roi_align_separable(masks[:, None].to(boxes.dtype), rois, size, 1.0, aligned=aligned)[:, 0]


def mask_loss(logits: Tensor, labels: Tensor, wanted: Tensor, kind: str = "sigmoid") -> Tensor:
    """The mean over all pixels of all positive RoIs (section 3, "Mask Representation" and L_mask).

    Args:
        logits: ``(S, K, m, m)``.
        labels: ``(S,)`` the true class of each, from 1.
        wanted: ``(S, m, m)`` in [0, 1].
        kind: "sigmoid": binary cross-entropy of the true class's mask alone, so that classes do not compete; the
            classification branch decides between them. "softmax": each pixel belongs to one of K classes, 0 for what
            is not of the object, as in semantic segmentation (table 2b).

    Returns:
        The loss; 0, with gradients of 0, without RoIs.

    >>> mask_loss(torch.zeros(1, 3, 2, 2), torch.tensor([2]), torch.ones(1, 2, 2))  # log 2: it cannot tell
    tensor(0.6931)
    >>> mask_loss(torch.zeros(1, 3, 2, 2), torch.tensor([2]), torch.ones(1, 2, 2), "softmax")  # log 3
    tensor(1.0986)
    """
    if kind not in MASK_KINDS:
        raise ValueError(f"kind must be one of {', '.join(MASK_KINDS)}, but is {kind!r}")
    if not len(labels):
        return logits.sum() * 0
    if kind == "softmax":
        of_pixels = torch.where(wanted >= 0.5, labels[:, None, None], 0)  # (S, m, m)
        return F.cross_entropy(logits, of_pixels)
    own = logits[torch.arange(len(labels), device=labels.device), labels]  # (S, m, m)
    return F.binary_cross_entropy_with_logits(own, wanted)


def paste_masks(masks: Tensor, boxes: Tensor, size: Size, aligned: bool = True) -> Tensor:
    """Stretch each mask over its box (section 3.1, "Inference").

    Args:
        masks: ``(N, m, m)`` probabilities.
        boxes: ``(N, 4)`` in pixels of the image; parts outside of it are cut off.
        size: ``(H, W)`` of the image.
        aligned: whether a mask lies exactly on its box. Paper vs code: the first programs, and torchvision, stretch it
            over whole pixels, from the corner cut down to a whole number up to the one that holds the other corner.
            Without ``aligned`` the values are torchvision's, pixel by pixel.

    Returns:
        ``(N, 1, H, W)`` probabilities in torchvision's form. Around a box they fade out: beyond a mask's edge is 0.

    >>> paste_masks(torch.ones(1, 2, 2), torch.tensor([[1.0, 1.0, 3.0, 3.0]]), (4, 4))[0, 0]
    tensor([[0., 0., 0., 0.],
            [0., 1., 1., 0.],
            [0., 1., 1., 0.],
            [0., 0., 0., 0.]])
    """
    pasted = masks.new_zeros(len(masks), 1, *size)
    for image, (place, values) in zip(pasted, _stretched(masks, boxes, size, aligned), strict=True):
        image[0][place] = values
    return pasted


def encode_pasted(
    masks: Tensor, boxes: Tensor, size: Size, aligned: bool = True, threshold: float = 0.5
) -> list[dict[str, Any]]:
    """:func:`paste_masks` and :func:`binary_masks`, as COCO's run-length encodings, one mask after the other.

    A hundred masks of 24 megapixels take 10 GB as probabilities. Here one lies in memory at a time.

    Returns:
        N dicts of ``size`` ``[H, W]`` and ``counts``, as pycocotools makes them, where probabilities exceed the
        threshold.

    >>> one = encode_pasted(torch.ones(1, 2, 2), torch.tensor([[1.0, 1.0, 3.0, 3.0]]), (4, 4))
    >>> one[0]["size"], int(rle.area(one[0])), rle.toBbox(one[0]).tolist()
    ([4, 4], 4, [1.0, 1.0, 2.0, 2.0])
    """
    canvas, encoded = np.zeros(size[::-1], dtype=np.uint8).T, []  # runs go down the columns
    for place, values in _stretched(masks, boxes, size, aligned):
        canvas.fill(0)
        canvas[place] = (values > threshold).cpu().numpy()
        encoded.append(rle.encode(canvas))
    return encoded


def _stretched(masks: Tensor, boxes: Tensor, size: Size, aligned: bool) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
    """For each mask the part of the image that it reaches, which may be empty, and its values there."""
    if masks.dim() != 3 or masks.shape[1] != masks.shape[2] or len(masks) != len(boxes):
        raise ValueError(f"masks must be (N, m, m) for {len(boxes)} boxes, but are {tuple(masks.shape)}")
    for mask, box in zip(masks, boxes.tolist(), strict=True):
        if not aligned:
            yield _stretched_over_whole_pixels(mask, box, size)
            continue
        parts, weights = [], []
        for low, high, pixels in ((box[1], box[3], size[0]), (box[0], box[2], size[1])):
            cell = max(high - low, 1e-6) / len(mask)  # in pixels
            first, last = max(math.floor(low - cell), 0), min(math.ceil(high + cell), pixels)
            middle = torch.arange(first, max(first, last), device=mask.device) + 0.5  # of each pixel
            place = ((middle - low) / cell - 0.5)[None, :, None]  # cell k has its value in its middle, at k + 1/2
            parts.append(slice(first, max(first, last)))
            weights.append(interpolation_weights(place, torch.ones_like(place), len(mask))[0].to(mask.dtype))
        yield (parts[0], parts[1]), weights[0] @ mask @ weights[1].T


def _stretched_over_whole_pixels(mask: Tensor, box: Sequence[float], size: Size) -> tuple[tuple[slice, slice], Tensor]:
    """The same, as torchvision does it: a row of zeros on each side, and the box grown with them."""
    mask, corners, scale = F.pad(mask, (1, 1, 1, 1)), torch.tensor(box), (len(mask) + 2) / len(mask)
    half, middle = (corners[2:] - corners[:2]) * 0.5 * scale, (corners[2:] + corners[:2]) * 0.5
    x1, y1, x2, y2 = torch.cat([middle - half, middle + half]).long().tolist()
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2 + 1, size[1]), min(y2 + 1, size[0])
    if left >= right or top >= bottom:
        return (slice(0, 0), slice(0, 0)), mask[:0, :0]
    tall, wide = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
    stretched = F.interpolate(mask[None, None], size=(tall, wide), mode="bilinear", align_corners=False)[0, 0]
    return (slice(top, bottom), slice(left, right)), stretched[top - y1 : bottom - y1, left - x1 : right - x1]


def binary_masks(detections: dict[str, Tensor], threshold: float = 0.5) -> dict[str, Tensor]:
    """Detections with ``masks`` ``(N, H, W)`` bool, as evaluation and figures want them."""
    return {**detections, "masks": detections["masks"][:, 0] > threshold}


# As Faster R-CNN's, but with the paper's NMS threshold and more proposals: chosen on validation images.
TOY_TOWN_MASK_RPN = replace(TOY_TOWN_RPN, nms_threshold=(0.7, 0.7), post_nms_top_n=(150, 100))
# The branch is narrower than the paper's, for a CPU, and what is not even one per cent probable gets no mask.
TOY_TOWN_MASK_HEADS = MaskRoIConfig(
    **vars(replace(TOY_TOWN_HEADS, pooling="align", score_threshold=0.01)), mask_channels=(64, 64, 64, 64)
)
PYRAMID_MASK_HEADS = MaskRoIConfig(**vars(PYRAMID_HEADS))


def mask_rcnn_alexnet(
    network: AlexNet,
    classes: Sequence[str],
    rpn: RPNConfig = TOY_TOWN_MASK_RPN,
    heads: MaskRoIConfig | None = None,
    transform: Transform | None = None,
) -> MaskRCNN:
    """Mask R-CNN from a pre-trained AlexNet; for the arguments see :func:`minircnn.faster_rcnn.faster_rcnn_alexnet`."""
    heads = heads or replace(TOY_TOWN_MASK_HEADS, pool_size=network.config.pool5_size)
    channels, stride, device = network.config.channels[-1], network.config.total_stride, network.fc8.weight.device
    roi_heads = MaskRoIHeads(*alexnet_head(network, heads), len(classes), stride, channels, heads)
    transform = transform or alexnet_transform(network)
    return MaskRCNN(network.backbone, RPN(channels, rpn).to(device), roi_heads.to(device), classes, transform)


def mask_rcnn_fpn(
    network: ResNetFPNConfig | ResNetFPN,
    classes: Sequence[str],
    rpn: RPNConfig = PYRAMID_RPN,
    heads: MaskRoIConfig = PYRAMID_MASK_HEADS,
    transform: Transform = PYRAMID_TRANSFORM,
) -> MaskRCNN:
    """Mask R-CNN with a pyramid; for the arguments see :func:`minircnn.faster_rcnn.faster_rcnn_fpn`."""
    backbone = ResNetFPN(network) if isinstance(network, ResNetFPNConfig) else network
    channels = backbone.config.channels
    roi_heads = MaskRoIHeads(*pyramid_head(channels, heads), len(classes), FINEST_STRIDE, channels, heads)
    return MaskRCNN(backbone, RPN(channels, rpn), roi_heads, classes, transform)


def load_mask_rcnn(path: str | Path = MASK_RCNN_WEIGHTS) -> MaskRCNN:
    """The Mask R-CNN in a file, by default the one that comes with the project; see :func:`minircnn.weights.load`."""
    return load(path, "mask_rcnn")
