"""How a region becomes a tensor of fixed size, in the order of history.

Fully connected layers want inputs of one size; regions have all sizes. R-CNN warps the *pixels* of each region and runs
the whole network on each (:mod:`~minircnn.pooling.warp`). Fast R-CNN runs the network once on the whole picture and
takes each region out of its *feature map* (:mod:`~minircnn.pooling.roipool`). Mask R-CNN does the same without rounding
(:mod:`~minircnn.pooling.roialign`), from a pyramid of maps if there is one (:mod:`~minircnn.pooling.pyramid`). What
rounding costs is worked out in :mod:`~minircnn.pooling.rounding`.
"""

from minircnn.pooling.pyramid import multiscale_roi_align, pyramid_level
from minircnn.pooling.roialign import interpolation_weights, roi_align, roi_align_separable
from minircnn.pooling.roipool import roi_pool, to_rois
from minircnn.pooling.rounding import Misalignment, misalignment, roi_warp
from minircnn.pooling.warp import WARP_MODES, warp_regions

__all__ = [
    "WARP_MODES",
    "Misalignment",
    "interpolation_weights",
    "misalignment",
    "multiscale_roi_align",
    "pyramid_level",
    "roi_align",
    "roi_align_separable",
    "roi_pool",
    "roi_warp",
    "to_rois",
    "warp_regions",
]
