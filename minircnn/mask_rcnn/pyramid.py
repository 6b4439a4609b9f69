"""The same heads on a pyramid of feature maps: only the pooling is another one.

Lin et al. 2017, "Feature Pyramid Networks for Object Detection", arXiv 1612.03144, section 4.2; Mask R-CNN, section 3,
"Network Architecture".

Shape comments: B images, C channels, P proposals of an image, R RoIs of a batch, n side of a pooled region.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from minircnn.fast_rcnn import RegionLinear, RoIHeads
from minircnn.faster_rcnn import RPN, FasterRCNN, RPNConfig
from minircnn.mask_rcnn.detector import MaskRCNN
from minircnn.mask_rcnn.heads import AlignRoIConfig, MaskRoIConfig, MaskRoIHeads
from minircnn.pooling import multiscale_roi_align, to_rois
from minircnn.resnet_fpn import ResNetFPN, ResNetFPNConfig
from minircnn.transforms import Transform

FINEST_STRIDE = 4
HIDDEN = 1024  # of fc6 and fc7

# One size of anchors for each level. Cells are centred on a corner of their pixels, so anchors are, too: shift 0.
PYRAMID_RPN = RPNConfig(
    anchor_sizes=((32.0,), (64.0,), (128.0,), (256.0,), (512.0,)),
    pre_nms_top_n=(2000, 1000),
    post_nms_top_n=(2000, 1000),
)
_SHARED = {"pool_size": 7, "batch_size_per_image": 512, "smooth_l1_beta": 1 / 9, "nms_threshold": 0.5, "aligned": False}
PYRAMID_HEADS = AlignRoIConfig(**_SHARED)
PYRAMID_MASK_HEADS = MaskRoIConfig(**_SHARED)
PYRAMID_TRANSFORM = Transform(min_size=800, max_size=1333, divisor=32)


class _FromPyramid:
    """Regions are taken from the level that suits their size, by RoIAlign."""

    def pool(self, features: Mapping[str, Tensor], boxes: Sequence[Tensor], size: int | None = None) -> Tensor:
        """The regions as grids of one size: levels ``(B, C, h, w)``, B times ``(P, 4)`` to ``(R, C, n, n)``.

        Args:
            features: the levels by name, from fine to coarse. "pool" is for anchors alone.
            boxes: of each picture.
            size: n; by default that of the box head.
        """
        levels = [level for name, level in features.items() if name != "pool"]
        strides = [self.stride * 2**number for number in range(len(levels))]
        config, size = self.config, size or self.config.pool_size
        return multiscale_roi_align(levels, to_rois(boxes), size, strides, config.sampling_ratio, config.aligned)


class PyramidRoIHeads(_FromPyramid, RoIHeads):
    """Fast R-CNN's heads on a pyramid; ``stride`` is that of the finest level."""

    config: AlignRoIConfig


class PyramidMaskRoIHeads(_FromPyramid, MaskRoIHeads):
    """Mask R-CNN's heads on a pyramid; ``stride`` is that of the finest level."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)
        if self.config.pooling != "align":
            raise ValueError(f'on a pyramid pooling must be "align", not {self.config.pooling!r}')


def faster_rcnn_fpn(
    network: ResNetFPNConfig | ResNetFPN,
    classes: Sequence[str],
    rpn: RPNConfig = PYRAMID_RPN,
    heads: AlignRoIConfig = PYRAMID_HEADS,
    transform: Transform = PYRAMID_TRANSFORM,
) -> FasterRCNN:
    """Faster R-CNN with a residual network and a feature pyramid.

    Args:
        network: the backbone, or how large it is to be; then its weights are random.
        classes: names; ``classes[0]`` is the background.
        rpn: the numbers of the proposals.
        heads: the numbers of what is done with them.
        transform: what happens to pictures.
    """
    backbone = ResNetFPN(network) if isinstance(network, ResNetFPNConfig) else network
    channels = backbone.config.channels
    roi_heads = PyramidRoIHeads(_two_layers(channels, heads.pool_size), HIDDEN, len(classes), FINEST_STRIDE, heads)
    return FasterRCNN(backbone, RPN(channels, rpn), roi_heads, classes, transform)


def mask_rcnn_fpn(
    network: ResNetFPNConfig | ResNetFPN,
    classes: Sequence[str],
    rpn: RPNConfig = PYRAMID_RPN,
    heads: MaskRoIConfig = PYRAMID_MASK_HEADS,
    transform: Transform = PYRAMID_TRANSFORM,
) -> MaskRCNN:
    """Mask R-CNN with a residual network and a feature pyramid; for the arguments see :func:`faster_rcnn_fpn`."""
    backbone = ResNetFPN(network) if isinstance(network, ResNetFPNConfig) else network
    channels = backbone.config.channels
    box_head = _two_layers(channels, heads.pool_size)
    roi_heads = PyramidMaskRoIHeads(box_head, HIDDEN, len(classes), FINEST_STRIDE, channels, heads)
    return MaskRCNN(backbone, RPN(channels, rpn), roi_heads, classes, transform)


def _two_layers(channels: int, side: int) -> nn.Sequential:
    """fc6 and fc7: ``(R, C, n, n)`` to ``(R, HIDDEN)``."""
    return nn.Sequential(
        OrderedDict(
            fc6=RegionLinear(channels * side**2, HIDDEN),
            relu6=nn.ReLU(),
            fc7=nn.Linear(HIDDEN, HIDDEN),
            relu7=nn.ReLU(),
        )
    )
