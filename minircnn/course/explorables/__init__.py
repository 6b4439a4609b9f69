"""Figures that one takes hold of: the same module in a notebook, on a page, and as a still image."""

from minircnn.course.explorables.anchors import Anchors
from minircnn.course.explorables.mask_bench import MaskBench
from minircnn.course.explorables.merging import Merging
from minircnn.course.explorables.overlaps import Overlaps
from minircnn.course.explorables.pooling_bench import PoolingBench

__all__ = ["Anchors", "MaskBench", "Merging", "Overlaps", "PoolingBench"]
