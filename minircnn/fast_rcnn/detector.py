"""Fast R-CNN: one network, one pass, one training. The second detector of the history.

Girshick 2015, "Fast R-CNN", arXiv 1504.08083.

    picture ─→ convolutions ─→ feature map ─┬→ roi_pool → fc6, fc7 ─┬→ softmax over K classes ─┬→ select_detections
    picture ─→ selective search ─→ proposals ╯                       ╰→ a box for each class ───╯

Shape comments: B images, P proposals of an image, K classes with background.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minircnn.alexnet import AlexNet
from minircnn.fast_rcnn.heads import RoIConfig, RoIHeads
from minircnn.fast_rcnn.layers import RegionLinear
from minircnn.losses import Losses
from minircnn.targets import check_classes, check_targets
from minircnn.transforms import Size, Transform, check_image, padded_size, resize_boxes, resize_target, size_of


class FastRCNN(nn.Module):
    """A backbone that looks once at the picture, and heads that look at each region of what it saw.

    Args:
        backbone: any fully convolutional network: ``(B, 3, H, W)``, normalised, to ``(B, C, h, w)``.
        roi_heads: for regions of such maps.
        classes: names; ``classes[0]`` is the background.
        transform: what happens to pictures before the backbone sees them.

    :func:`fast_rcnn_alexnet` builds the one that this course trains.
    """

    def __init__(
        self,
        backbone: nn.Module,
        roi_heads: RoIHeads,
        classes: Sequence[str],
        transform: Transform | None = None,
    ) -> None:
        super().__init__()
        check_classes(classes)
        # With the channels of a pixel side by side, convolutions and pooling on a CPU take half the time. Pictures come
        # in this order, and weights lie in it, so that none has to be brought into it for each picture.
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.roi_heads, self._classes = roi_heads, tuple(classes)
        self.transform = transform or Transform()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by label; numbered ones after ``roi_heads.box_predictor`` was replaced by one of more or fewer classes.

        They can be set: one for each class that the predictor has, ``"background"`` first.
        """
        count = self.roi_heads.box_predictor.cls_score.out_features
        return self._classes if len(self._classes) == count else numbered_classes(count)

    @classes.setter
    def classes(self, names: Sequence[str]) -> None:
        count = self.roi_heads.box_predictor.cls_score.out_features
        if len(names) != count:
            raise ValueError(f"classes has {len(names)} names, but the box predictor has {count} classes: name each")
        self._classes = tuple(names)

    def features(self, images: Sequence[Tensor], scale: float = 1.0) -> tuple[Tensor, list[Size]]:
        """The one pass: no regions are known here.

        Args:
            images: each ``(3, H, W)`` in [0, 1].
            scale: how much larger or smaller than usual the backbone is to see them.

        Returns:
            Feature maps ``(B, C, h, w)``, and the size of each picture as the backbone saw it.
        """
        batch, sizes = self.transform.batch(images, scale)
        batch = batch.to(next(self.roi_heads.parameters()).dtype)  # NumPy makes float64 of images
        height, width = self.batch_size(sizes)
        batch = F.pad(batch, (0, width - batch.shape[3], 0, height - batch.shape[2]))
        return self.backbone(batch.contiguous(memory_format=torch.channels_last)), sizes

    def batch_size(self, sizes: Sequence[Size]) -> Size:
        """What the backbone sees of images of these sizes: filled up to at least three strides, so there is a cell.

        From less the networks of ImageNet, whose convolutions of 11 and 5 do not go beyond the edge, make none.
        """
        height, width = padded_size(sizes, self.transform.divisor)
        return max(height, 3 * self.roi_heads.stride), max(width, 3 * self.roi_heads.stride)

    def losses(
        self,
        images: Sequence[Tensor],
        proposals: Sequence[Tensor],
        targets: Sequence[dict[str, Any]],
        generators: Sequence[torch.Generator] | None = None,
        scale: float = 1.0,
    ) -> Losses:
        """The multi-task loss on regions that are drawn from the proposals of these pictures.

        Args:
            images: each ``(3, H, W)`` in [0, 1]; they may differ in size.
            proposals: ``(P, 4)`` for each; P may be 0.
            targets: for each, with any number of objects; see :func:`minircnn.targets.check_target`.
            generators: see :meth:`RoIHeads.sample`.
            scale: how much larger or smaller than usual the backbone is to see the pictures.

        Returns:
            ``loss_classifier`` and ``loss_box_reg``, finite in every case.

        Raises:
            ValueError: the numbers of images, proposals and targets differ, or a target is wrong.
        """
        _check_counts(images, proposals)
        targets = self.checked_targets(images, targets)
        features, sizes = self.features(images, scale)
        targets = self.resized_targets(images, targets, sizes)
        sampled = self.roi_heads.sample(_resized(proposals, images, sizes), targets, generators)
        return self.roi_heads.losses(features, sampled)

    def checked_targets(self, images: Sequence[Tensor], targets: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The targets with the types that losses are computed with; see :func:`minircnn.targets.check_target`."""
        for index, image in enumerate(images):
            check_image(image, f"image {index}")
        return check_targets(images, targets, self.roi_heads.box_predictor.cls_score.out_features)

    def resized_targets(
        self, images: Sequence[Tensor], targets: Sequence[dict[str, Any]], sizes: Sequence[Size]
    ) -> list[dict[str, Any]]:
        """Objects in pixels of the pictures that the backbone saw, of these sizes, where the pictures are."""
        return [
            resize_target({name: _to(value, image.device) for name, value in target.items()}, size_of(image), size)
            for image, target, size in zip(images, targets, sizes, strict=True)
        ]

    @torch.no_grad()
    def detect(
        self, images: Sequence[Tensor], proposals: Sequence[Tensor], *, regress: bool = True
    ) -> list[dict[str, Tensor]]:
        """Finds objects.

        Args:
            images: each ``(3, H, W)`` in [0, 1]; they may differ in size.
            proposals: ``(P, 4)`` for each. P may be 0: then nothing is found.
            regress: whether the second sibling moves the boxes.

        Returns:
            For each picture ``boxes`` ``(N, 4)``, ``labels`` ``(N,)`` and ``scores`` ``(N,)``, probabilities, best
            first.

        Raises:
            ValueError: the numbers of pictures and proposals differ, or pictures or weights hold nan.
        """
        _check_counts(images, proposals)
        with torch.inference_mode():
            features, sizes = self.features(images)
            check_finite(features)
            found = self.roi_heads.detect(features, _resized(proposals, images, sizes), sizes, regress=regress)
        return self.postprocess(ordinary(found), images, sizes)

    def postprocess(
        self, found: list[dict[str, Tensor]], images: Sequence[Tensor], sizes: Sequence[Size]
    ) -> list[dict[str, Tensor]]:
        """What was found, in pixels of the pictures that were given."""
        pairs = zip(found, images, sizes, strict=True)
        return [{**one, "boxes": resize_boxes(one["boxes"], size, size_of(image))} for one, image, size in pairs]

    def forward(
        self,
        images: Sequence[Tensor],
        proposals: Sequence[Tensor],
        targets: Sequence[dict[str, Any]] | None = None,
    ) -> Losses | list[dict[str, Tensor]]:
        """:meth:`losses` in training mode, else :meth:`detect`."""
        if not self.training:
            return self.detect(images, proposals)
        if targets is None:
            raise ValueError("targets are needed for training; call eval() first to detect")
        return self.losses(images, proposals, targets)


def fast_rcnn_alexnet(
    network: AlexNet, classes: Sequence[str], config: RoIConfig | None = None, transform: Transform | None = None
) -> FastRCNN:
    """Fast R-CNN out of a pre-trained AlexNet (section 2.2).

    conv1 … relu5 are the backbone, RoIPool takes the place of pool5, fc6 and fc7 go on as they are, and two siblings
    replace fc8. There is no dropout.

    Args:
        network: is taken apart; its tensors are shared, not copied.
        classes: names; ``classes[0]`` is the background.
        config: the numbers; ``pool_size`` must be the network's, so that fc6 fits.
        transform: what happens to pictures; by default they are normalised as the network learned them.
    """
    config = config or RoIConfig(pool_size=network.config.pool5_size)
    if config.pool_size != network.config.pool5_size:
        raise ValueError(
            f"pool_size is {config.pool_size}, but fc6 expects maps of {network.config.pool5_size}² cells: give that"
        )
    layers = network.classifier
    head = nn.Sequential(OrderedDict(fc6=RegionLinear.of(layers.fc6), relu6=nn.ReLU(), fc7=layers.fc7, relu7=nn.ReLU()))
    heads = RoIHeads(head, network.config.hidden, len(classes), network.config.total_stride, config)
    values = network.config
    transform = transform or Transform(values.mean, values.std, values.blue_first)
    return FastRCNN(network.backbone, heads.to(network.fc8.weight.device), classes, transform)


def numbered_classes(count: int) -> tuple[str, ...]:
    """Names for classes that have none.

    >>> numbered_classes(3)
    ('background', 'class 1', 'class 2')
    """
    return ("background", *(f"class {number}" for number in range(1, count)))


def ordinary(found: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The same numbers, which one may change, and learn from.

    PyTorch works faster where it need not remember who may need what later, in its inference mode; what is made there
    cannot be changed in place outside.
    """
    return [{name: value.clone() for name, value in one.items()} for one in found]


def check_finite(features: Tensor) -> None:
    """Refuses features that are no numbers, from which detections would come out as if nothing had happened."""
    if not features.isfinite().all():
        raise ValueError("features are nan or infinite: a picture or the network's weights hold such numbers")


def _to(value: Any, device: torch.device) -> Any:  # noqa: ANN401 - targets hold tensors and numbers
    return value.to(device) if isinstance(value, Tensor) else value


def _resized(proposals: Sequence[Tensor], images: Sequence[Tensor], sizes: Sequence[Size]) -> list[Tensor]:
    """Proposals in pixels of the pictures that the backbone saw, where the pictures are."""
    return [
        resize_boxes(boxes.to(image.device), size_of(image), size)
        for boxes, image, size in zip(proposals, images, sizes, strict=True)
    ]


def _check_counts(images: Sequence[Tensor], proposals: Sequence[Tensor]) -> None:
    if len(proposals) != len(images):
        raise ValueError(f"there are {len(images)} images but proposals for {len(proposals)}: give one for each")
