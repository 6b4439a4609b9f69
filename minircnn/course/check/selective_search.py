"""The exercises of notebook 02: histograms, similarity, merging, hierarchical grouping, recall of proposals."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial.distance import cityblock
from torch import Tensor

from minircnn import selective_search as ss
from minircnn.boxes import box_iou
from minircnn.course.check.boxes_and_metrics import random_boxes
from minircnn.course.check.judge import Ask, NotYet, altered, exercise, hint
from minircnn.metrics import proposal_recall

Region = Mapping[str, Any]
"""A described region: "size" in pixels, "box" (4,), histograms "color" (75,) and "texture" (240,)."""


def as_regions(described: ss.Regions) -> tuple[list[dict[str, Any]], list[tuple[int, int]]]:
    """The regions that the package has described, each as a dict, and the pairs of them that touch."""
    columns = (torch.from_numpy(getattr(described, name)) for name in ("boxes", "color", "texture"))
    names = ("size", "box", "color", "texture")
    rows = zip(described.sizes.astype(int).tolist(), *columns, strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows], list(map(tuple, described.neighbors.tolist()))


def as_tree(labels: np.ndarray, nodes: Sequence[Region], merges: Sequence[tuple[int, int]]) -> ss.MergeTree:
    """What :func:`group_regions` returns as the package's tree, which can be drawn."""
    return ss.MergeTree(
        labels=torch.from_numpy(labels),
        boxes=torch.stack([node["box"] for node in nodes]).float(),
        sizes=torch.tensor([int(node["size"]) for node in nodes]),
        children=torch.tensor(merges).view(-1, 2),
        similarity=torch.zeros(len(merges)),
    )


@cache
def _pixels_of(seed: int, side: int = 40) -> ss.Pixels:
    """A soft random image."""
    noise = np.random.RandomState(seed).random_sample((side, side, 3))
    image = np.stack([ndimage.gaussian_filter(noise[..., c], 2.5, mode="wrap") for c in range(3)], axis=-1)
    return ss.Pixels.of((image - image.min()) / (image.max() - image.min()), "rgb")


@cache
def _patchwork(seed: int) -> ss.Regions:
    """About twenty regions of it."""
    return ss.segment(_pixels_of(seed), scale=60, min_size=15)


def _color_histogram(channels: Tensor, region: Tensor) -> Tensor:
    bins = (channels[region] * 25).long().clamp(max=24)
    counts = torch.cat([torch.bincount(bins[:, c], minlength=25) for c in range(channels.shape[2])]).double()
    return counts / counts.sum()


@exercise(_color_histogram)
def color_histogram(ask: Ask) -> str:
    """The colors of a region, in 75 bins."""
    slips = """
        / counts.sum() => !! it counts pixels; divide by the sum of all 75, so that large and small regions compare
        / counts.sum() => / region.numel() !! it is divided by the pixels of the image; divide by the sum of all 75 bins
        channels[region] => channels.flatten(0, 1) !! it looks at the whole image; take the pixels of the region
        torch.bincount(bins[:, c], minlength=25) => torch.histc(channels[region][:, c], 25)
            !! the bins reach from the smallest to the largest value; they must reach from 0 to 1
        return counts => return counts.view(3, 25).T.flatten() !! the 25 bins of red come first, then green, then blue
        torch.cat( => sum( !! it is one histogram for all channels; each channel has its own 25 bins
    """

    def right(channels: Tensor, region: Tensor) -> Tensor:
        counts = [np.histogram(values, 25, (0, 1))[0] for values in channels[region].T.numpy()]
        return torch.from_numpy(np.concatenate(counts) / np.sum(counts))

    random = np.random.RandomState(0)
    channels = torch.from_numpy(random.random_sample((12, 15, 3)) * [1.0, 0.6, 0.3])
    region = torch.from_numpy(random.random_sample((12, 15)) < 0.4)
    ask.cases([(channels, region)], slips, "for a random region", right=right)
    slips = ".clamp(max=24) => !! the value 1 has no bin; it belongs into the last of the 25"
    with hint("a white image, whose value 1 belongs into the last bin:"):
        ask.cases([(torch.ones(4, 4, 3), torch.ones(4, 4, dtype=torch.bool))], slips, right=right)
    return "equal to numpy's histograms"


def _histogram_intersection(a: Tensor, b: Tensor) -> Tensor:
    return torch.minimum(a, b).sum()


@exercise(_histogram_intersection)
def histogram_intersection(ask: Ask) -> str:
    """What two histograms share."""
    slips = """
        torch.minimum => torch.maximum !! it takes the larger of the two values; they share the smaller one
        torch.minimum(a, b) => (a * b) !! it multiplies the values; take the smaller one of each bin
        .sum() => .mean() !! it takes the mean over the bins; take the sum
        .sum() => .sum() / torch.maximum(a, b).sum() !! it divides by the union of both; the sum alone lies in [0, 1]
        torch.minimum(a, b) => (a - b).abs() !! it adds up the differences; add up what both have
        torch.minimum(a, b).sum() => 1 - (a - b).abs().sum() !! it subtracts the whole distance from 1, not half of it
        .sum() => .min() !! it is the smallest value of all; take the smaller of the two in each bin, and the sum
    """
    pairs = (torch.from_numpy(np.random.RandomState(seed).dirichlet(np.full(40, 0.3), 2)) for seed in range(20))
    cases, what = map(tuple, pairs), "for two random histograms"
    # Of histograms that sum to 1, half of the distance is what they do not share.
    ask.cases(cases, slips, what, right=lambda a, b: 1 - float(cityblock(a, b)) / 2, change=float)
    return "equal to 1 - half of scipy's cityblock distance, 20 times"


def _similarity(a: Region, b: Region, image_area: float) -> float:
    color, texture = (float(torch.minimum(a[name], b[name]).sum()) for name in ("color", "texture"))
    low, high = torch.minimum(a["box"], b["box"])[:2], torch.maximum(a["box"], b["box"])[2:]
    both, around = a["size"] + b["size"], float((high - low).prod())
    size = 1 - both / image_area
    fill = 1 - (around - both) / image_area
    return color + texture + size + fill


def _touching() -> list[tuple[int, int, int]]:
    """Thirty patchwork numbers with two of its regions that touch."""
    return [(seed, int(i), int(j)) for seed in range(5) for i, j in _patchwork(seed).neighbors[:6]]


def _pairs() -> list[tuple[Region, Region]]:
    return [tuple(as_regions(_patchwork(seed))[0][n] for n in pair) for seed, *pair in _touching()]


@exercise(_similarity)
def similarity(ask: Ask) -> str:
    """Color + texture + size + fill of two regions."""
    slips = """
        return color + => return !! color is missing
        + texture => !! texture is missing
        + size => !! size is missing
        + fill => !! fill is missing
        color + texture + size + fill => (color + texture + size + fill) / 4 !! it is the mean of the four; add them up
        float((high - low).prod()) => sum(float((r["box"][2:] - r["box"][:2]).prod()) for r in (a, b))
            !! fill compares with the areas of both boxes; take the one box around both
        - both) / image_area => - both) / around !! fill divides by the box around both; divide by the area of the image
    """

    def right(a: Region, b: Region, area: float) -> float:
        shared = [ss.histogram_intersection(a[name].numpy(), b[name].numpy()) for name in ("color", "texture")]
        sizes, boxes = (a["size"], b["size"]), (a["box"].numpy(), b["box"].numpy())
        return float(sum(shared) + ss.size_similarity(*sizes, area) + ss.fill_similarity(*sizes, *boxes, area))

    what = "for regions of {0[size]} and {1[size]} pixels"
    ask.cases([(*pair, 1600) for pair in _pairs()], slips, what, right=right, change=float)
    return "equal to the package's for 30 pairs"


def _merge_regions(a: Region, b: Region) -> dict[str, Any]:
    size = a["size"] + b["size"]
    low, high = torch.minimum(a["box"], b["box"]), torch.maximum(a["box"], b["box"])
    weighted = {name: (a["size"] * a[name] + b["size"] * b[name]) / size for name in ("color", "texture")}
    return {"size": size, "box": torch.cat([low[:2], high[2:]]), **weighted}


@exercise(_merge_regions)
def merge_regions(ask: Ask) -> str:
    """The description of the union of two regions."""
    slips = """
        (a["size"] * a[name] + b["size"] * b[name]) / size => (a[name] + b[name]) / 2
            !! the histograms are averaged alike; weight each with the size of its region
        (a["size"] * a[name] + b["size"] * b[name]) / size => a[name] + b[name]
            !! the histograms are added up and sum to 2; divide by the sum of the sizes
        b[name]) / size => b[name]) !! the weighted histograms are not divided by the size of the union
        a["size"] * a[name] + b["size"] * b[name] => b["size"] * a[name] + a["size"] * b[name]
            !! the weights are exchanged: each histogram goes with the size of its own region
        low[:2], high[2:] => high[:2], low[2:] !! the box is the part that both boxes share; take the box around both
        high[2:] => low[2:] !! all corners of the box are the smaller ones; x2 and y2 are the larger ones
        "size": size => "size": max(a["size"], b["size"]) !! the size is not the sum of both sizes
    """
    painted = (_joined(*which) for which in _touching())
    what = "for regions of {0[size]} and {1[size]} pixels"
    ask.cases(_pairs(), slips, what, right=lambda a, b: {**_merge_regions(a, b), **next(painted)})
    return "equal to counting the pixels again, 30 times"


def _joined(seed: int, i: int, j: int) -> dict[str, Tensor]:
    """Histograms of two regions of a patchwork together, their pixels counted anew."""
    pixels, region, found = _pixels_of(seed), np.isin(_patchwork(seed).labels, (i, j)), {}
    for name, bins, count in (("color", pixels.color, ss.COLOR_BINS), ("texture", pixels.texture, ss.TEXTURE_BINS)):
        counts = torch.cat([torch.from_numpy(np.bincount(b[region], minlength=count)) for b in bins]).float()
        found[name] = counts / counts.sum()
    return found


def _group_regions(
    regions: Sequence[Region], neighbors: Sequence[tuple[int, int]], image_area: float
) -> tuple[list[Region], list[tuple[int, int]]]:
    nodes, merges = list(regions), []
    pairs = {(i, j): _similarity(nodes[i], nodes[j], image_area) for i, j in neighbors}
    while pairs:
        i, j = max(pairs, key=pairs.get)
        merges.append((i, j))
        old = {n: s for pair, s in pairs.items() for n in pair if i in pair or j in pair}
        pairs = {pair: s for pair, s in pairs.items() if i not in pair and j not in pair}
        new = len(nodes)
        nodes.append(_merge_regions(nodes[i], nodes[j]))
        for n in sorted(old.keys() - {i, j}):
            pairs[n, new] = _similarity(nodes[n], nodes[new], image_area)
    return nodes, merges


@exercise(_group_regions)
def group_regions(ask: Ask) -> str:
    """Hierarchical grouping: all regions that ever existed, and which two were merged each time."""
    slips = """
        max( => min( !! it merges the least similar neighbors first; take the most similar pair
        or j in pair => !! the new region gets the neighbors of one of the two only; it has those of both
        in neighbors} => in np.ndindex(len(nodes), len(nodes)) if i < j} !! it merges regions that do not touch
        in sorted(old.keys() - {i, j}) => in () !! the new region gets no neighbors, so the loop ends early
        _similarity(nodes[n], nodes[new], image_area) => old[n] !! the new region keeps a similarity; compute it anew
    """
    for seed in range(4):
        described = _patchwork(seed)
        regions, neighbors = as_regions(described)
        n, case = len(regions), (regions, neighbors, described.labels.size)
        value = ask(*case)
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            kind = f"{len(value)} values" if isinstance(value, (tuple, list)) else f"a {type(value).__name__}"
            raise NotYet(f"it returns {kind}; wanted are two lists: all regions, and the pairs that were merged")
        nodes, pairs = value[0], _as_pairs(value[1])
        wanted = _as_pairs(ss.hierarchical_grouping(described).children)
        for text, slip in altered(_group_regions, slips).items() if pairs != wanted else ():
            if pairs == _as_pairs(slip(*case)[1]):
                raise NotYet(text)
        if len(pairs) != n - 1:
            raise NotYet(f"{n} regions need {n - 1} merges until one is left; it makes {len(pairs)}")
        for step, (pair, right) in enumerate(zip(pairs, wanted, strict=True), start=1):
            if pair != right:
                raise NotYet(f"merge {step} is of {pair}, wanted is {right}; do old pairs of a merged region stay?")
        if not isinstance(nodes, (list, tuple)) or len(nodes) != 2 * n - 1:
            count = len(nodes) if isinstance(nodes, (list, tuple)) else "no list"
            raise NotYet(f"wanted are all {2 * n - 1} regions that ever existed, the {n} initial ones too; not {count}")
        if not all(isinstance(node, Mapping) and "box" in node for node in nodes):
            raise NotYet('the regions must stay dicts with "size", "box", "color" and "texture"')
        if not torch.equal(torch.as_tensor(nodes[-1]["box"]).float(), torch.tensor([0.0, 0.0, 40.0, 40.0])):
            raise NotYet("the last region must be the whole image, and new regions stand behind the first ones")
    return "equal to the package's, which uses a heap, for 4 images"


def _as_pairs(merges: Any) -> list[tuple[int, int]]:  # noqa: ANN401
    try:
        return [tuple(sorted((int(i), int(j)))) for i, j in merges]
    except (TypeError, ValueError):
        raise NotYet("the second list must hold pairs (i, j) of numbers of regions") from None


def _recall_at(
    proposals: Sequence[Tensor], targets: Sequence[Mapping[str, Any]], iou_threshold: float, count: int
) -> float:
    found, objects = 0, 0
    for boxes, target in zip(proposals, targets, strict=True):
        iou = box_iou(target["boxes"], boxes[:count])  # (G, P)
        covered = (iou >= iou_threshold).any(dim=1)
        found, objects = found + covered.sum(), objects + len(covered)
    return float(found / objects)


@exercise(_recall_at)
def recall_at(ask: Ask) -> str:
    """The recall of proposals at an IoU threshold."""
    slips = """
        >= iou_threshold => > iou_threshold !! an IoU equal to the threshold is enough
        [:count] => !! it looks at all proposals; take the first count of each image
        covered.sum(), objects + len(covered) => covered.float().mean(), objects + 1
            !! it is the mean of the images' shares; divide by all objects of all images
        any(dim=1) => any(dim=0) !! it counts proposals that cover an object; count objects that are covered
        covered.sum() => (iou >= iou_threshold).any(dim=0).sum() !! it counts an object once for each proposal
        found / objects => found / len(targets) !! it divides by the number of images; divide by the number of objects
        (iou >= iou_threshold).any(dim=1) => iou.amax(dim=1) !! it is the mean best IoU; count those above the threshold
    """

    def right(proposals: Sequence[Tensor], targets: Sequence[Mapping[str, Any]], threshold: float, count: int) -> float:
        return float(proposal_recall(proposals, targets, threshold, [count]))

    cases = [([torch.tensor([[0.0, 0.0, 10.0, 5.0]])], [{"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]])}], 0.5, 1)]
    for seed in range(6):
        proposals = [random_boxes(5 + 10 * n, seed=10 * seed + n) for n in range(6)]
        targets = [{"boxes": random_boxes(1 + n % 4, seed=500 + 10 * seed + n)} for n in range(6)]
        cases += [(proposals, targets, threshold, count) for threshold, count in ((0.3, 8), (0.5, 20), (0.3, 1000))]
    ask.cases(cases, slips, "for the first {3} proposals, IoU {2}", right=right)
    empty = [torch.zeros(0, 4), random_boxes(9)], [{"boxes": random_boxes(3, seed=1)}, {"boxes": torch.zeros(0, 4)}]
    with hint("for an image without proposals and one without objects"):
        ask.cases([(*empty, 0.5, 5)], right=right)
    return "equal to counting with torchvision's IoU, for 18 lists of proposals"
