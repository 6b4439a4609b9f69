"""Faster R-CNN: proposals and detections from the same features. The third detector of the history.

Ren, He, Girshick and Sun 2015, "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks",
arXiv 1506.01497.

    picture → convolutions → feature map ─┬→ RPN → proposals ─┬→ RoIHeads of Fast R-CNN → detections
                                          ╰───────────────────╯

Shape comments: B images, P proposals of an image, K classes with background.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from minircnn.alexnet import AlexNet
from minircnn.fast_rcnn import FastRCNN, RoIConfig, RoIHeads, check_finite, fast_rcnn_alexnet, ordinary
from minircnn.faster_rcnn.rpn import RPN, RPNConfig, RPNOutputs
from minircnn.losses import Losses
from minircnn.transforms import Size, Transform


class FasterRCNN(FastRCNN):
    """Fast R-CNN that finds its proposals itself.

    Args:
        backbone: any fully convolutional network: ``(B, 3, H, W)``, normalised, to ``(B, C, h, w)``, or to a dict of
            such maps, the levels of a pyramid.
        rpn: proposes regions of these maps.
        roi_heads: names them and improves their boxes.
        classes: names; ``classes[0]`` is the background.
        transform: what happens to pictures before the backbone sees them.

    :func:`faster_rcnn_alexnet` builds the one that this course trains. Where Fast R-CNN's methods ask for proposals,
    these do not; :meth:`fast_rcnn_losses` still takes some from elsewhere.
    """

    def __init__(
        self,
        backbone: nn.Module,
        rpn: RPN,
        roi_heads: RoIHeads,
        classes: Sequence[str],
        transform: Transform | None = None,
    ) -> None:
        super().__init__(backbone, roi_heads, classes, transform)
        self.rpn = rpn

    def losses(
        self,
        images: Sequence[Tensor],
        targets: Sequence[dict[str, Any]],
        generators: Sequence[torch.Generator] | None = None,
        scale: float = 1.0,
    ) -> Losses:
        """Four losses at once: of the proposals, and of what is said about them (section 3.2, "approximate joint").

        Approximate, because the proposals' coordinates count as constants, although they are outputs of the network.

        Args:
            images: each ``(3, H, W)`` in [0, 1]; they may differ in size.
            targets: for each, with any number of objects; see :func:`minircnn.targets.check_target`.
            generators: one for each picture, which draw its anchors and then its regions; by default torch's global
                one draws for all, as in torchvision.
            scale: how much larger or smaller than usual the backbone is to see the pictures.

        Returns:
            ``loss_classifier``, ``loss_box_reg``, ``loss_objectness``, ``loss_rpn_box_reg``, finite in every case.

        Raises:
            ValueError: there is not one target for each image, or one is wrong.
        """
        targets = self.checked_targets(images, targets)
        features, sizes = self.features(images, scale)
        targets = self.resized_targets(images, targets, sizes)
        rpn_outputs = self.rpn_outputs(features, sizes)
        first = self.rpn.losses(rpn_outputs, targets, generators)
        proposals = [found["boxes"] for found in self.rpn.filter_proposals(rpn_outputs, sizes)]
        second = self.roi_heads.losses(features, self.roi_heads.sample(proposals, targets, generators))
        return Losses({**second, **first}, counts={**second.counts, **first.counts})

    def fast_rcnn_losses(
        self,
        images: Sequence[Tensor],
        proposals: Sequence[Tensor],
        targets: Sequence[dict[str, Any]],
        generators: Sequence[torch.Generator] | None = None,
        scale: float = 1.0,
    ) -> Losses:
        """Fast R-CNN's two losses, on proposals from elsewhere: see :meth:`FastRCNN.losses`."""
        return super().losses(images, proposals, targets, generators, scale)

    def rpn_losses(
        self,
        images: Sequence[Tensor],
        targets: Sequence[dict[str, Any]],
        generators: Sequence[torch.Generator] | None = None,
        scale: float = 1.0,
    ) -> Losses:
        """The two losses of the region proposal network alone, for training in turns."""
        targets = self.checked_targets(images, targets)
        features, sizes = self.features(images, scale)
        targets = self.resized_targets(images, targets, sizes)
        return self.rpn.losses(self.rpn_outputs(features, sizes), targets, generators)

    def rpn_outputs(self, features: Tensor | Mapping[str, Tensor], sizes: Sequence[Size]) -> RPNOutputs:
        """What the region proposal network says about features of pictures of these sizes."""
        return self.rpn(_levels(features), self.batch_size(sizes))

    @torch.no_grad()
    def propose(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Proposals alone, for each picture ``boxes`` ``(P, 4)`` and ``scores`` ``(P,)``, best first."""
        features, sizes = self.features(images)
        return self.postprocess(self.rpn.filter_proposals(self.rpn_outputs(features, sizes), sizes), images, sizes)

    @torch.no_grad()
    def detect(self, images: Sequence[Tensor], *, regress: bool = True) -> list[dict[str, Tensor]]:
        """Finds objects.

        Args:
            images: each ``(3, H, W)`` in [0, 1]; they may differ in size.
            regress: whether the heads move the boxes; the proposals have been moved once already.

        Returns:
            For each picture ``boxes`` ``(N, 4)``, ``labels`` ``(N,)`` and ``scores`` ``(N,)``, probabilities, best
            first.

        Raises:
            ValueError: pictures or weights hold nan.
        """
        return self.postprocess(*self._found(images, regress))

    def _found(
        self, images: Sequence[Tensor], regress: bool
    ) -> tuple[list[dict[str, Tensor]], Sequence[Tensor], list[Size]]:
        """What :meth:`postprocess` is given: detections in the pixels that the backbone saw, images, sizes there."""
        with torch.inference_mode():
            features, sizes = self.features(images)
            for level in _levels(features):
                check_finite(level)
            proposals = [
                found["boxes"] for found in self.rpn.filter_proposals(self.rpn_outputs(features, sizes), sizes)
            ]
            found = self.roi_heads.detect(features, proposals, sizes, regress=regress)
        return ordinary(found), images, sizes

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[dict[str, Any]] | None = None
    ) -> Losses | list[dict[str, Tensor]]:
        """:meth:`losses` in training mode, else :meth:`detect`."""
        if not self.training:
            return self.detect(images)
        if targets is None:
            raise ValueError("targets are needed for training; call eval() first to detect")
        return self.losses(images, targets)


def _levels(features: Tensor | Mapping[str, Tensor]) -> list[Tensor]:
    """One map as a pyramid of one level; of several, the maps."""
    return [features] if isinstance(features, Tensor) else list(features.values())


# For pictures of 128 pixels, enlarged to 192. conv5's cells are centred on their own 8 pixels, so anchors are, too.
# With a lower NMS threshold than the paper's 0.7, fewer proposals say nearly the same, and few of them suffice. That is
# for detection, and chosen on validation pictures; in training those that say nearly the same are welcome: each is one
# more example of its object.
TOY_TOWN_RPN = RPNConfig(
    anchor_sizes=((20.0, 36.0, 64.0, 112.0),),
    anchor_offset=0.5,
    batch_size_per_image=128,
    nms_threshold=(0.7, 0.6),
    pre_nms_top_n=(1000, 1000),
    post_nms_top_n=(150, 60),
)
# Objects of one class overlap here more often than on photographs: a detection must overlap a better one by half to go.
# The low score threshold suits average precision, which looks at the order of detections alone; to show some, ask for a
# higher probability. Both were chosen on validation pictures, as was a beta that lets small errors count more.
TOY_TOWN_HEADS = RoIConfig(score_threshold=0.003, nms_threshold=0.5, smooth_l1_beta=1 / 9)


def faster_rcnn_alexnet(
    network: AlexNet,
    classes: Sequence[str],
    rpn: RPNConfig = TOY_TOWN_RPN,
    heads: RoIConfig | None = None,
    transform: Transform | None = None,
) -> FasterRCNN:
    """Faster R-CNN out of a pre-trained AlexNet: :func:`fast_rcnn_alexnet`, and a network that proposes.

    Args:
        network: is taken apart; its tensors are shared, not copied.
        classes: names; ``classes[0]`` is the background.
        rpn: the numbers of the proposals.
        heads: the numbers of what is done with them; by default ``TOY_TOWN_HEADS`` with a grid that fits fc6.
        transform: what happens to pictures; by default they are normalised as the network learned them, and filled up
            to a multiple of its stride. Without that the map of, say, 191 pixels has 24 cells, of 191 // 24 = 7 pixels
            each if one counts like this, and anchors would drift away from the cells of stride 8 that they belong to.
    """
    heads = heads or replace(TOY_TOWN_HEADS, pool_size=network.config.pool5_size)
    fast = fast_rcnn_alexnet(network, classes, heads, transform)
    if transform is None:
        fast.transform = replace(fast.transform, divisor=network.config.total_stride)
    proposer = RPN(network.config.channels[-1], rpn).to(network.fc8.weight.device)
    return FasterRCNN(fast.backbone, proposer, fast.roi_heads, classes, fast.transform)
