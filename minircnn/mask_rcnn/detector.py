"""Mask R-CNN: Faster R-CNN with other pooling and one more branch. Nothing else changes.

He, Gkioxari, Dollár and Girshick 2017, "Mask R-CNN", arXiv 1703.06870.

Shape comments: B images, N detections of an image, K classes with background, C channels, h w size of the feature map.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from minircnn.alexnet import AlexNet
from minircnn.faster_rcnn import TOY_TOWN_HEADS, TOY_TOWN_RPN, FasterRCNN, RPNConfig, faster_rcnn_alexnet
from minircnn.mask_rcnn.heads import MaskRoIConfig, MaskRoIHeads
from minircnn.mask_rcnn.pasting import encode_pasted, paste_masks
from minircnn.transforms import Size, Transform, size_of

# As Faster R-CNN's, but with the paper's NMS threshold and more proposals: chosen on validation pictures.
TOY_TOWN_MASK_RPN = replace(TOY_TOWN_RPN, nms_threshold=(0.7, 0.7), post_nms_top_n=(150, 100))
# The branch is narrower than the paper's, for a processor, and what is not even one per cent probable gets no mask.
TOY_TOWN_MASK_HEADS = MaskRoIConfig(
    **vars(replace(TOY_TOWN_HEADS, score_threshold=0.01)), mask_channels=(64, 64, 64, 64)
)


class MaskRCNN(FasterRCNN):
    """A detector that outlines what it finds.

    Args:
        backbone: convolutions, ``(B, 3, H, W)`` to ``(B, C, h, w)``.
        rpn: the region proposal network.
        roi_heads: what is done with the proposals; a :class:`MaskRoIHeads`.
        classes: names; ``classes[0]`` is the background.
        transform: what happens to pictures before the backbone sees them.

    Targets need ``masks`` ``(G, H, W)`` bool. Detections have ``masks`` ``(N, 1, H, W)``: how probable it is that a
    pixel belongs to the object. :func:`minircnn.mask_rcnn.binary_masks` decides. For large images there is
    :meth:`detect_encoded`.
    """

    roi_heads: MaskRoIHeads

    def postprocess(
        self, found: list[dict[str, Tensor]], images: Sequence[Tensor], sizes: Sequence[Size]
    ) -> list[dict[str, Tensor]]:
        """What was found, in pixels of the pictures that were given; proposals have no masks."""
        found, aligned = super().postprocess(found, images, sizes), self.roi_heads.config.aligned
        for one, image in zip(found, images, strict=True):
            if "masks" in one:
                one["masks"] = paste_masks(one["masks"], one["boxes"], size_of(image), aligned)
        return found

    @torch.no_grad()
    def detect_encoded(self, images: Sequence[Tensor], *, regress: bool = True) -> list[dict[str, Any]]:
        """:meth:`detect` for large images: ``masks`` decided at 0.5, as a list of COCO's run-length encodings.

        They are those of :func:`minircnn.mask_rcnn.binary_masks`, made one after the other.
        """
        found, _, sizes = self._found(images, regress)
        found, aligned = super().postprocess(found, images, sizes), self.roi_heads.config.aligned
        return [
            {**one, "masks": encode_pasted(one["masks"], one["boxes"], size_of(image), aligned)}
            for one, image in zip(found, images, strict=True)
        ]


def mask_rcnn_alexnet(
    network: AlexNet,
    classes: Sequence[str],
    rpn: RPNConfig = TOY_TOWN_MASK_RPN,
    heads: MaskRoIConfig | None = None,
    transform: Transform | None = None,
) -> MaskRCNN:
    """Mask R-CNN out of a pre-trained AlexNet: :func:`faster_rcnn_alexnet` with :class:`MaskRoIHeads`.

    Args:
        network: is taken apart; its tensors are shared, not copied.
        classes: names; ``classes[0]`` is the background.
        rpn: the numbers of the proposals.
        heads: the numbers of what is done with them; by default ``TOY_TOWN_MASK_HEADS`` with a grid that fits fc6.
        transform: what happens to pictures; see :func:`minircnn.faster_rcnn.faster_rcnn_alexnet`.
    """
    heads = heads or replace(TOY_TOWN_MASK_HEADS, pool_size=network.config.pool5_size)
    faster = faster_rcnn_alexnet(network, classes, rpn, heads, transform)
    values, old = network.config, faster.roi_heads
    roi_heads = MaskRoIHeads(
        old.box_head, values.hidden, len(classes), values.total_stride, values.channels[-1], heads
    ).to(network.fc8.weight.device)
    roi_heads.box_predictor = old.box_predictor
    return MaskRCNN(faster.backbone, faster.rpn, roi_heads, classes, faster.transform)
