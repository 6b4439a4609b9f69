"""From R-CNN to Mask R-CNN, one idea a file, in the order in which history had them.

The names in ``__all__`` are loaded from their modules when they are first used: ``import minircnn`` imports nothing.
"""

# ruff: noqa: F401 - names for type checkers; __all__ holds the same

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # the same names, for type checkers and editors
    from minircnn.alexnet import AlexNet, load_alexnet
    from minircnn.boxes import batched_nms, box_iou, decode_boxes, encode_boxes, nms
    from minircnn.evaluation import evaluate
    from minircnn.fast_rcnn import FastRCNN
    from minircnn.faster_rcnn import FasterRCNN
    from minircnn.mask_rcnn import MaskRCNN
    from minircnn.pooling import multiscale_roi_align, roi_align, roi_pool, roi_warp, warp_regions
    from minircnn.published import fasterrcnn_resnet50_fpn, maskrcnn_resnet50_fpn
    from minircnn.rcnn import RCNN
    from minircnn.weights import load, save

_PLACES = {
    "alexnet": ("AlexNet", "load_alexnet"),
    "boxes": ("batched_nms", "box_iou", "decode_boxes", "encode_boxes", "nms"),
    "evaluation": ("evaluate",),
    "fast_rcnn": ("FastRCNN",),
    "faster_rcnn": ("FasterRCNN",),
    "mask_rcnn": ("MaskRCNN",),
    "pooling": ("multiscale_roi_align", "roi_align", "roi_pool", "roi_warp", "warp_regions"),
    "published": ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn"),
    "rcnn": ("RCNN",),
    "weights": ("load", "save"),
}
__all__ = [name for names in _PLACES.values() for name in names]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the signature that Python gives it
    for module, names in _PLACES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
