"""Selective search: class-free box proposals, made by merging regions that look alike.

The source is Uijlings, van de Sande, Gevers and Smeulders, "Selective Search for Object Recognition", IJCV 2013; the
numbers of sections and equations in these files are that paper's. R-CNN and Fast R-CNN take their proposals from it.
The picture falls into a few hundred small regions (Felzenszwalb and Huttenlocher, IJCV 2004), the two most similar
neighbours become one, again and again, until one region is left, and the box around every region that ever existed is
a proposal: whatever its size, an object has a chance to be a region at some moment. What "similar" should mean differs
from picture to picture, so several colour spaces, scales and similarities take part.

    picture → shrink → colour space → felzenszwalb → describe_regions → hierarchical_grouping → rank → boxes
    ╰───────────────── regions.py ─────────────────────────────────╯   ╰─── grouping.py ────╯  ╰ proposals.py ╯

Pictures, boxes and trees are tensors, as everywhere in this package. The regions' features are NumPy arrays, because
scikit-image and SciPy work on those, and because a merge touches a few hundred numbers, for which a call into torch
costs more than the sum.
"""

from minircnn.selective_search.grouping import (
    SIMILARITIES,
    MergeTree,
    fill_similarity,
    hierarchical_grouping,
    histogram_intersection,
    size_similarity,
)
from minircnn.selective_search.proposals import FAST, QUALITY, SINGLE, Strategy, merge_trees, selective_search
from minircnn.selective_search.regions import (
    COLOUR_SPACES,
    Pixels,
    Regions,
    describe_regions,
    find_neighbours,
    region_histograms,
    segment,
    shrink,
    to_colour_space,
)
from minircnn.selective_search.stored import stored_proposals

__all__ = [
    "COLOUR_SPACES",
    "FAST",
    "QUALITY",
    "SIMILARITIES",
    "SINGLE",
    "MergeTree",
    "Pixels",
    "Regions",
    "Strategy",
    "describe_regions",
    "fill_similarity",
    "find_neighbours",
    "hierarchical_grouping",
    "histogram_intersection",
    "merge_trees",
    "region_histograms",
    "segment",
    "selective_search",
    "shrink",
    "size_similarity",
    "stored_proposals",
    "to_colour_space",
]
