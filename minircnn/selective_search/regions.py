"""The first regions of a picture, and what is remembered of each: its size, box, colours, texture and neighbours."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import color
from skimage.segmentation import felzenszwalb
from torch import Tensor
from torch.nn import functional as F

COLOUR_SPACES = ("rgb", "hsv", "lab", "rgi", "hue", "intensity")
COLOUR_BINS = 25  # for each channel (section 3.2)
TEXTURE_BINS = 10  # for each channel and each of eight directions (section 3.2)


@dataclass(frozen=True)
class Pixels:
    """A picture in some colour space, and the histogram bin of every pixel. H W is the size after shrinking.

    Attributes:
        channels: ``(H, W, C)`` float64 in [0, 1].
        colour: ``(C, H, W)`` integers from 0 to 24.
        texture: ``(8 C, H, W)`` integers from 0 to 9.
    """

    channels: NDArray
    colour: NDArray
    texture: NDArray

    @classmethod
    def of(cls, rgb: NDArray, colour_space: str) -> "Pixels":
        """``(H, W, 3)`` floats in [0, 1] in the given colour space, with their bins."""
        channels = to_colour_space(rgb, colour_space)
        return cls(channels, colour_bins(channels), texture_bins(channels))


@dataclass(frozen=True)
class Regions:
    """A segmentation and what the similarities need to know of its n regions.

    Attributes:
        labels: ``(H, W)`` integers from 0 to n - 1, every one of them used.
        sizes: ``(n,)`` float32, pixels of each region.
        boxes: ``(n, 4)`` float32, the smallest box around each region.
        colour: ``(n, 25 C)`` float32, the histograms of the C channels side by side; each row sums to 1.
        texture: ``(n, 80 C)`` float32, the histograms of the derivatives side by side; each row sums to 1.
        neighbours: ``(E, 2)`` integers, the pairs of touching regions, the smaller number first, each pair once.
    """

    labels: NDArray
    sizes: NDArray
    boxes: NDArray
    colour: NDArray
    texture: NDArray
    neighbours: NDArray


def shrink(image: Tensor, max_side: int) -> NDArray:
    """A picture whose longer side has at most ``max_side`` pixels; never enlarged.

    Args:
        image: ``(3, H, W)`` float tensor.
        max_side: pixels, at least 1.

    Returns:
        ``(h, w, 3)`` float64 array, as scikit-image wants it.
    """
    image = image.detach().cpu().double()
    height, width = image.shape[1:]
    factor = max_side / max(height, width)
    if factor < 1:
        size = max(1, round(height * factor)), max(1, round(width * factor))
        # Antialiased: a bright pixel that falls between two samples must not vanish.
        image = F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]  # (3, h, w)
    return image.clamp(0, 1).permute(1, 2, 0).contiguous().numpy()  # (h, w, 3)


def to_colour_space(rgb: NDArray, name: str) -> NDArray:
    """A picture in another colour space, every channel scaled to [0, 1].

    Args:
        rgb: ``(H, W, 3)`` floats in [0, 1].
        name: one of ``COLOUR_SPACES``. "rgi" is red and green as shares of red + green + blue, and intensity;
            "hue" and "intensity" are single channels.

    Returns:
        ``(H, W, C)`` float64, C = 1 for "hue" and "intensity" and 3 for the others.

    Raises:
        ValueError: if there is no colour space of that name.

    >>> red = np.array([[[1.0, 0.0, 0.0]]])
    >>> to_colour_space(red, "hsv").tolist(), to_colour_space(red, "rgi").round(1).tolist()
    ([[[0.0, 1.0, 1.0]]], [[[1.0, 0.0, 0.2]]])
    """
    if name not in COLOUR_SPACES:
        raise ValueError(f"the colour space must be one of {', '.join(COLOUR_SPACES)}, not {name!r}")
    if name == "rgb":
        return np.asarray(rgb, dtype=np.float64)
    if name == "hsv":
        return color.rgb2hsv(rgb)
    if name == "hue":
        return color.rgb2hsv(rgb)[..., :1]
    if name == "lab":  # L is in [0, 100]; a and b stay within [-128, 127]
        return np.clip((color.rgb2lab(rgb) + np.array([0, 128, 128])) / np.array([100, 255, 255]), 0, 1)
    intensity = color.rgb2gray(rgb)[..., None]
    if name == "intensity":
        return intensity
    total = np.maximum(rgb.sum(axis=2, keepdims=True), 1e-6)  # black has no red share; call it 0
    return np.concatenate([rgb[..., :2] / total, intensity], axis=2)


def colour_bins(channels: NDArray) -> NDArray:
    """The bin of every pixel in each colour histogram: ``(H, W, C)`` in [0, 1] to ``(C, H, W)`` from 0 to 24."""
    return np.minimum(channels * COLOUR_BINS, COLOUR_BINS - 1).astype(np.int64).transpose(2, 0, 1)


def texture_bins(channels: NDArray) -> NDArray:
    """The bin of every pixel in each texture histogram: ``(H, W, C)`` in [0, 1] to ``(8 C, H, W)`` from 0 to 9.

    Gaussian derivatives with sigma 1 in eight directions, 45 degrees apart (section 3.2). The derivative in one
    direction is minus that in the opposite one, so four are taken and each is split into what rises and what falls.
    Ten equal bins reach from 0 to the largest response in the picture.

    Paper vs code: OpenCV rotates the picture and applies Scharr filters. The Gaussian derivative along a diagonal is
    ``(dx + dy) / sqrt(2)`` or ``(dx - dy) / sqrt(2)`` exactly, so nothing need be rotated.
    """
    diagonal = np.float32(0.5**0.5)
    maps = []
    for channel in np.asarray(channels, dtype=np.float32).transpose(2, 0, 1):
        dx = ndimage.gaussian_filter(channel, 1.0, order=(0, 1))
        dy = ndimage.gaussian_filter(channel, 1.0, order=(1, 0))
        for derivative in (dx, dy, (dx + dy) * diagonal, (dx - dy) * diagonal):
            for response in (np.maximum(derivative, 0), np.maximum(-derivative, 0)):
                # A flat picture has rounding errors for derivatives, and they must not become its texture.
                bins_per_unit = TEXTURE_BINS / max(float(response.max()), 1e-5)
                maps.append(np.minimum(response * np.float32(bins_per_unit), TEXTURE_BINS - 1).astype(np.int64))
    return np.stack(maps)


def region_histograms(bins: NDArray, labels: NDArray, num_bins: int) -> NDArray:
    """Normalised histograms of every region, those of several maps side by side.

    Args:
        bins: ``(M, H, W)`` integers from 0 to ``num_bins - 1``: the bin of every pixel in M maps.
        labels: ``(H, W)`` integers from 0 to n - 1.
        num_bins: bins of each map.

    Returns:
        ``(n, M * num_bins)`` float32; each row sums to 1, the L1 norm of section 3.2.

    >>> region_histograms(np.array([[[0, 0, 1, 1]]]), labels=np.array([[0, 0, 0, 1]]), num_bins=2).round(2).tolist()
    [[0.6700000166893005, 0.33000001311302185], [0.0, 1.0]]
    """
    n = int(labels.max()) + 1
    first_bin = labels.ravel() * num_bins  # (H * W,) of the pixel's region
    counts = [np.bincount(first_bin + b.ravel(), minlength=n * num_bins).reshape(n, num_bins) for b in bins]
    histograms = np.concatenate(counts, axis=1).astype(np.float32)  # (n, M * num_bins)
    return histograms / histograms.sum(axis=1, keepdims=True)


def find_neighbours(labels: NDArray) -> NDArray:
    """The pairs of regions that touch, along an edge or at a corner.

    Paper vs code: the paper does not say whether a corner is enough; it is in felzenszwalb's graph, so it is here.

    Args:
        labels: ``(H, W)`` integers from 0 to n - 1.

    Returns:
        ``(E, 2)`` integers, the smaller number first, each pair once, in ascending order.

    >>> find_neighbours(np.array([[0, 0, 1], [2, 2, 1]])).tolist()
    [[0, 1], [0, 2], [1, 2]]
    """
    labels = np.asarray(labels, dtype=np.int64)
    n = int(labels.max()) + 1
    side_by_side = (
        (labels[:, :-1], labels[:, 1:]),  # left and right
        (labels[:-1], labels[1:]),  # above and below
        (labels[:-1, :-1], labels[1:, 1:]),  # the two diagonals
        (labels[:-1, 1:], labels[1:, :-1]),
    )
    pairs = [(np.minimum(a, b) * n + np.maximum(a, b))[a != b] for a, b in side_by_side]  # one number for a pair
    unique = np.unique(np.concatenate(pairs))
    return np.stack([unique // n, unique % n], axis=1)


def describe_regions(pixels: Pixels, labels: NDArray) -> Regions:
    """Sizes, boxes, histograms and neighbours of the regions of any segmentation.

    Args:
        pixels: the picture.
        labels: ``(H, W)`` integers from 0 to n - 1.

    Raises:
        ValueError: if the sizes differ, or some number from 0 to n - 1 is not used.
    """
    labels = np.asarray(labels, dtype=np.int64)
    if labels.shape != pixels.channels.shape[:2]:
        raise ValueError(f"labels have size {labels.shape}, but the picture has {pixels.channels.shape[:2]}")
    if labels.min() < 0 or not (sizes := np.bincount(labels.ravel())).all():
        raise ValueError("labels must use every number from 0 to the largest (skimage.segmentation.relabel_sequential)")
    slices = ndimage.find_objects(labels + 1)
    boxes = [(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in slices]
    return Regions(
        labels=labels,
        sizes=sizes.astype(np.float32),
        boxes=np.array(boxes, dtype=np.float32),
        colour=region_histograms(pixels.colour, labels, COLOUR_BINS),
        texture=region_histograms(pixels.texture, labels, TEXTURE_BINS),
        neighbours=find_neighbours(labels),
    )


def segment(pixels: Pixels, scale: float, min_size: int = 20, sigma: float = 0.8) -> Regions:
    """The first regions: felzenszwalb's segmentation of the picture, described.

    Args:
        pixels: the picture in the colour space in which regions should be uniform.
        scale: k. Two regions stay apart where the contrast between them exceeds that inside either by ``k / size``:
            the larger k, the larger the regions. k counts in colours from 0 to 255, as in OpenCV; scikit-image, whose
            colours lie in [0, 1], divides it by 255.
        min_size: regions with fewer pixels join a neighbour.
        sigma: standard deviation in pixels of the blur that comes first; 0.8 in both papers.
    """
    labels = felzenszwalb(pixels.channels, scale=scale, sigma=sigma, min_size=min_size)
    return describe_regions(pixels, labels)
