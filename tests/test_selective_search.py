"""Selective search against hand-worked values, slow loops, region properties of scikit-image, and real images."""

from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from scipy import ndimage
from skimage.measure import regionprops
from skimage.segmentation import relabel_sequential

import minircnn.selective_search as ss
from minircnn.cache import Cache
from minircnn.selective_search import (
    COLOR_SPACES,
    FAST,
    QUALITY,
    SIMILARITIES,
    SINGLE,
    Pixels,
    Strategy,
    color_bins,
    describe_regions,
    hierarchical_grouping,
    merge_trees,
    region_histograms,
    segment,
    selective_search,
    shrink,
    texture_bins,
    to_color_space,
)

label_maps = stn.arrays(np.int64, stn.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(0, 5)).map(
    lambda labels: relabel_sequential(labels + 1)[0] - 1
)
subsets = st.lists(st.sampled_from(SIMILARITIES), min_size=1, unique=True).map(tuple)


def blobs_image(height, width, seed=0):
    """Smooth colorful blobs: felzenszwalb finds several regions."""
    noise = np.random.default_rng(seed).random((3, height, width))
    blobs = ndimage.gaussian_filter(noise, (0, 3, 3), mode="wrap")
    low, high = blobs.min(), blobs.max()
    return torch.from_numpy((blobs - low) / (high - low)).float()


def random_regions(labels, seed=0):
    rgb = np.random.default_rng(seed).random((*labels.shape, 3))
    return describe_regions(Pixels.of(rgb, "rgb"), labels)


def test_lab_and_rgi_of_known_colors():
    rgb = np.array([[[1.0, 1, 1], [0, 0, 0], [0.2, 0.3, 0.5]]])
    neutral = 128 / 255
    # White is L = 100, a = b = 0; black is L = 0.
    np.testing.assert_allclose(
        to_color_space(rgb, "lab")[0, :2], [[1, neutral, neutral], [0, neutral, neutral]], atol=1e-3
    )
    luma = 0.2125 * 0.2 + 0.7154 * 0.3 + 0.0721 * 0.5
    np.testing.assert_allclose(to_color_space(rgb, "rgi")[0, 1:], [[0, 0, 0], [0.2, 0.3, luma]], atol=1e-6)
    np.testing.assert_allclose(to_color_space(rgb, "intensity")[0, 2], [luma], atol=1e-6)
    np.testing.assert_array_equal(to_color_space(rgb, "rgb"), rgb)
    for name in COLOR_SPACES:
        channels = to_color_space(np.repeat(np.linspace(0, 1, 9)[None, :, None], 3, axis=2), name)
        assert channels.min() >= 0 and channels.max() <= 1, name  # nan fails both


@pytest.mark.parametrize(("index", "degrees"), list(enumerate([0, 180, 90, 270, 45, 225, 315, 135])))
def test_texture_against_the_rotated_kernel(index, degrees):
    """The derivative of a Gaussian in a direction, written out as one 2-D kernel, and binned by a plain formula."""
    image = np.random.default_rng(1).random((24, 30))
    y, x = np.mgrid[-6:7, -6:7]
    angle = np.deg2rad(degrees)
    along = x * np.cos(angle) + y * np.sin(angle)
    kernel = along * np.exp(-(x**2 + y**2) / 2) / (2 * np.pi)
    response = np.maximum(ndimage.correlate(image, kernel, mode="reflect"), 0)
    slow = np.minimum(10 * response / response.max(), 9).astype(int)
    ours = texture_bins(image[..., None])[index]
    # SciPy cuts its kernel at 4 sigma and normalizes it: a value on the edge of a bin may fall to the other side.
    assert abs(ours - slow).max() <= 1 and (ours == slow).mean() > 0.98


def test_bins_by_hand():
    channels = np.array([[[0.0], [0.039], [0.041], [0.5], [0.999], [1.0]]])
    assert color_bins(channels).tolist() == [[[0, 0, 1, 12, 24, 24]]]
    # A flat image has no texture, but a histogram.
    rounding = 1e-7 * np.random.default_rng(0).random((9, 9, 3))
    pixels = Pixels.of(0.3 + rounding, "rgb")
    assert (pixels.texture == 0).all()
    regions = describe_regions(pixels, np.zeros((9, 9), int))
    assert regions.texture.sum() == pytest.approx(1)


@settings(max_examples=30)
@given(label_maps, st.integers(0, 99))
def test_histograms_against_a_loop(labels, seed):
    bins = np.random.default_rng(seed).integers(0, 4, (3, *labels.shape))
    slow = np.zeros((labels.max() + 1, 3, 4))
    for m, y, x in np.ndindex(bins.shape):
        slow[labels[y, x], m, bins[m, y, x]] += 1
    slow = slow.reshape(len(slow), -1)
    np.testing.assert_allclose(region_histograms(bins, labels, 4), slow / slow.sum(1, keepdims=True), rtol=1e-6)


@settings(max_examples=40)
@given(label_maps)
def test_sizes_boxes_and_neighbors_against_loops(labels):
    regions = random_regions(labels)
    for region, size, box in zip(regionprops(labels + 1), regions.sizes, regions.boxes, strict=True):
        y1, x1, y2, x2 = region.bbox
        assert (size, *box) == (region.area, x1, y1, x2, y2)
    height, width = labels.shape
    slow = set()
    for y, x in np.ndindex(height, width):
        for v in range(max(0, y - 1), min(height, y + 2)):
            for u in range(max(0, x - 1), min(width, x + 2)):
                if labels[y, x] < labels[v, u]:
                    slow.add((labels[y, x], labels[v, u]))
    assert regions.neighbors.shape == (len(slow), 2)
    assert [tuple(pair) for pair in regions.neighbors] == sorted(slow)


def test_shrink():
    image = blobs_image(30, 60)
    for limit in (60, 80):  # of a smaller image nothing is made larger
        np.testing.assert_allclose(shrink(image, limit), image.permute(1, 2, 0).double(), atol=0)
    assert shrink(image, 20).shape == (10, 20, 3)
    assert shrink(blobs_image(2, 500), 50).shape == (1, 50, 3)
    # Antialiased: stripes of one pixel become gray, not black or white.
    stripes = torch.zeros(3, 40, 40)
    stripes[..., ::2] = 1
    np.testing.assert_allclose(shrink(stripes, 8)[:, 2:-2], 0.5, atol=0.05)


def joined(labels, tree, merges):
    """The label map after some merges, by relabeling pixel by pixel: the slow and obvious way."""
    labels = labels.clone()
    for k in range(merges):
        for child in tree.children[k].tolist():
            labels[labels == child] = tree.num_first + k
    return labels


@settings(max_examples=20)
@given(label_maps, subsets)
def test_every_node_is_the_union_of_its_pixels(labels, similarities):
    """Sizes, boxes and histograms are carried from merge to merge; here all are taken from the pixels again."""
    rgb = np.random.default_rng(0).random((*labels.shape, 3))
    pixels = Pixels.of(rgb, "rgb")
    tree = hierarchical_grouping(describe_regions(pixels, labels), similarities)
    n = int(labels.max()) + 1
    assert tree.num_first == n and len(tree.children) == n - 1 == len(tree.similarity)
    assert tree.parent[-1] == -1 and tree.boxes[-1].tolist() == [0, 0, labels.shape[1], labels.shape[0]]
    for k, pair in enumerate(tree.children.tolist()):
        assert tree.parent[pair].tolist() == [n + k, n + k]
        before = joined(tree.labels, tree, k)
        assert torch.equal(tree.labels_after(k), before)
        nodes, from_zero = before.unique(return_inverse=True)
        fresh = describe_regions(pixels, from_zero.numpy())
        np.testing.assert_array_equal(fresh.sizes, tree.sizes[nodes])
        np.testing.assert_array_equal(fresh.boxes, tree.boxes[nodes])
        a, b = (nodes.tolist().index(node) for node in pair)
        assert tree.similarity[k].item() == pytest.approx(slow_similarity(fresh, a, b, similarities), abs=1e-4)


def slow_similarity(regions, a, b, similarities):
    """Equations 1 and 3 to 5, one number at a time."""
    total, area = 0.0, regions.labels.size
    for name in ("color", "texture"):
        if name in similarities:
            total += sum(min(p, q) for p, q in zip(getattr(regions, name)[a], getattr(regions, name)[b], strict=True))
    size = regions.sizes[a] + regions.sizes[b]
    if "size" in similarities:
        total += 1 - size / area
    if "fill" in similarities:
        ys, xs = np.nonzero((regions.labels == a) | (regions.labels == b))
        around = (xs.max() - xs.min() + 1) * (ys.max() - ys.min() + 1)
        total += 1 - (around - size) / area
    return float(total)


@pytest.mark.parametrize("similarities", [SIMILARITIES, ("texture", "size", "fill"), ("color",)])
def test_grouping_is_greedy(similarities):
    """At every step the merged pair is the most similar of all that touch, recomputed from the pixels."""
    pixels = Pixels.of(shrink(blobs_image(24, 30), 320), "hsv")
    regions = segment(pixels, scale=5, min_size=8)
    assert 8 < len(regions.sizes) < 80
    tree = hierarchical_grouping(regions, similarities)
    decided = 0
    for k, pair in enumerate(tree.children.tolist()):
        nodes, from_zero = joined(tree.labels, tree, k).unique(return_inverse=True)
        fresh = describe_regions(pixels, from_zero.numpy())
        values = {
            (nodes[a].item(), nodes[b].item()): slow_similarity(fresh, a, b, similarities) for a, b in fresh.neighbors
        }
        best = max(values.values())
        assert values[tuple(sorted(pair))] >= best - 1e-5  # rounding may decide between equals, and nothing else
        assert tree.similarity[k].item() == pytest.approx(best, abs=1e-4)
        decided += sum(value >= best - 1e-5 for value in values.values()) == 1
    assert decided > 0.5 * len(tree.children)  # mostly there was one right answer


def test_equals_merge_in_the_order_of_their_numbers():
    rgb = np.zeros((1, 6, 3))
    regions = describe_regions(Pixels.of(rgb, "rgb"), np.array([[0, 0, 1, 1, 2, 2]]))
    assert hierarchical_grouping(regions, ("color",)).children.tolist() == [[0, 1], [2, 3]]


def test_settings_are_the_papers():
    """Table 5: HSV; HSV and Lab with k 50, 100; five color spaces with four k and four kinds of similarity."""
    assert (len(SINGLE), len(FAST), len(QUALITY)) == (1, 8, 80)
    assert SINGLE[0].color_space == "hsv" and SINGLE[0].similarities == SIMILARITIES and SINGLE[0].scale == 100
    assert {(s.color_space, s.scale) for s in FAST} == {("hsv", 50), ("hsv", 100), ("lab", 50), ("lab", 100)}
    assert len(set(QUALITY)) == 80 and set(SINGLE) <= set(FAST) <= set(QUALITY)


def test_shared_work_changes_nothing():
    image = blobs_image(60, 80)
    strategies = (*FAST[:3], replace(FAST[0], max_side=40), replace(FAST[0], min_size=50), Strategy("hue", 100))
    for strategy, shared in zip(strategies, merge_trees(image, strategies), strict=True):
        (alone,) = merge_trees(image, [strategy])
        for name in ("labels", "boxes", "sizes", "children", "similarity"):
            assert torch.equal(getattr(shared, name), getattr(alone, name)), (strategy, name)


def test_two_squares_are_found_exactly():
    image = torch.full((3, 100, 140), 0.2)
    image[:, 20:60, 10:50] = torch.tensor([0.9, 0.1, 0.1])[:, None, None]
    image[:, 30:80, 80:130] = torch.tensor([0.1, 0.3, 0.9])[:, None, None]
    boxes = selective_search(image, strategies=SINGLE, duplicate_iou=1).tolist()
    assert [10, 20, 50, 60] in boxes and [80, 30, 130, 80] in boxes and [0, 0, 140, 100] in boxes
    # The blur before felzenszwalb frays the edges into thin regions, so there are more boxes; but not hundreds.
    assert len(boxes) < 120
    # Boxes of a shrunk image come back in pixels of the image.
    image = torch.nn.functional.interpolate(image[None], scale_factor=3)[0]  # 300 × 420
    boxes = selective_search(image, strategies=[Strategy(max_side=140)], duplicate_iou=1)
    truth = torch.tensor([[30.0, 60, 150, 180], [240.0, 90, 390, 240], [0, 0, 420, 300]])
    assert (torchvision.ops.box_iou(truth, boxes).amax(dim=1) > 0.999).all()


@pytest.mark.parametrize(
    ("name", "objects"),
    [
        ("coffee", [[172, 18, 408, 308], [77, 66, 480, 388], [325, 218, 408, 326], [204, 94, 372, 192]]),
        ("chelsea", [[135, 85, 206, 147], [295, 108, 342, 163]]),
    ],
)
def test_objects_of_a_photograph_are_covered(name, objects):
    """A cup, its saucer, a spoon and the coffee; a cat's two eyes: boxes drawn by hand."""
    image = torch.from_numpy(getattr(skimage.data, name)()).permute(2, 0, 1) / 255
    boxes = selective_search(image, max_proposals=2000)
    assert (torchvision.ops.box_iou(torch.tensor(objects).float(), boxes).amax(dim=1) > 0.7).all()


def test_the_order_is_random_times_the_position_from_the_top():
    """Over many seeds the whole image, position 1, comes early; a first region, of large position, comes late."""
    image = blobs_image(60, 80)
    (tree,) = merge_trees(image, SINGLE)
    places = torch.zeros(2)
    for seed in range(20):
        boxes = selective_search(image, strategies=SINGLE, seed=seed, duplicate_iou=1).tolist()
        for which, box in enumerate((tree.boxes[-1], tree.boxes[0])):
            places[which] += boxes.index(box.tolist()) / len(boxes) / 20
    assert places[0] < 0.15 and places[1] > 0.4


def test_seed_decides_the_order_and_nothing_else():
    image = blobs_image(60, 80)
    runs = [selective_search(image, seed=seed, duplicate_iou=1) for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    expected = {tuple(box) for tree in merge_trees(image, FAST) for box in tree.boxes.tolist()}
    for run in runs:
        assert {tuple(box) for box in run.tolist()} == expected and len(run) == len(expected)


def test_near_duplicates_go_as_torchvision_would_have_it():
    image = blobs_image(90, 120)
    everything = selective_search(image, duplicate_iou=1)
    kept = torchvision.ops.nms(everything, -torch.arange(float(len(everything))), 0.8)
    thinned = selective_search(image)
    assert 10 < len(thinned) < len(everything)
    assert torch.equal(thinned, everything[kept])
    assert torch.equal(selective_search(image, max_proposals=7), thinned[:7])
    assert len(selective_search(image, max_proposals=10**6)) == len(thinned)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 700), (20000, 1)])
def test_any_size_gives_boxes_inside_the_image(size):
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    before = image.clone()
    boxes = selective_search(image, strategies=(*SINGLE, Strategy("intensity", 20, ("fill",), min_size=1)))
    assert torch.equal(image, before)
    height, width = size
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert [0, 0, width, height] in boxes.tolist()
    assert selective_search(torch.full((3, 4, 6), 0.5), strategies=SINGLE).tolist() == [[0, 0, 6, 4]]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: selective_search(np.zeros((8, 8, 3), np.uint8)), "ndarray"),
        (lambda: selective_search(torch.full((3, 8, 8), float("nan"))), "nan"),
        (lambda: describe_regions(Pixels.of(np.zeros((4, 5, 3)), "rgb"), np.zeros((5, 4), int)), "size"),
        (lambda: describe_regions(Pixels.of(np.zeros((4, 5, 3)), "rgb"), np.ones((4, 5), int)), "every number"),
        (lambda: selective_search(blobs_image(8, 8), max_proposals=0), "max_proposals"),
        (lambda: selective_search(blobs_image(8, 8), duplicate_iou=float("nan")), "duplicate_iou"),
        (lambda: selective_search(blobs_image(8, 8), strategies=()), "FAST"),
        (lambda: Strategy("cmyk"), "'cmyk'"),
        (lambda: Strategy(similarities="color"), "similarities"),
        (lambda: hierarchical_grouping(random_regions(np.array([[0, 1]])), ()), "similarities"),
        (lambda: Strategy(scale=float("nan")), "scale must be positive"),
    ],
)
def test_bad_arguments_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_stored_proposals_are_found_once_and_never_stale(tmp_path, monkeypatch):
    samples, cache, calls = [(blobs_image(40, 30 + 5 * i, seed=i), None) for i in range(3)], Cache(tmp_path), []
    monkeypatch.setattr(ss, "selective_search", lambda image, **options: calls.append(1) or selective_search(image))
    first = ss.stored_proposals(samples, cache=cache)
    assert all(torch.equal(boxes, selective_search(image)) for (image, _), boxes in zip(samples, first, strict=True))
    again = ss.stored_proposals(samples, cache=cache, max_proposals=3)
    assert len(calls) == 3
    assert all(torch.equal(a[:3], b) for a, b in zip(first, again, strict=True))
    ss.stored_proposals([(samples[0][0] * 0.5, None), *samples[1:]], cache=cache)
    assert len(calls) == 4  # another image
    ss.stored_proposals(samples, cache=cache, strategies=ss.SINGLE)
    assert len(calls) == 7  # another strategy
    monkeypatch.setattr(ss, "code_fingerprint", lambda *modules, packages: str([m.__name__ for m in modules]))
    ss.stored_proposals(samples, cache=cache)
    assert len(calls) == 10  # other code
    assert ss.stored_proposals([], cache=cache) == []
