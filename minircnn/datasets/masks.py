"""Masks as run lengths, the form in which data sets keep them: a mask of 12 megapixels then takes some kilobytes.

Run-length encodings are COCO's, made and read by pycocotools: ``{"size": [H, W], "counts": …}``.

Shape comments: G ground-truth objects, H W image size.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import pycocotools.mask as rle_codec
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_RUN_LENGTHS = re.compile(rb"(?:[P-o]{0,6}[0-O])+")  # numbers of up to seven characters, more than an image has pixels


def encode_masks(masks: Tensor) -> list[dict[str, Any]]:
    """Masks ``(N, H, W)`` bool as COCO's compressed run-length encodings."""
    # Runs go down the columns, so pycocotools wants H the fastest in memory; one mask at a time is copied for that.
    return [rle_codec.encode(np.asfortranarray(mask)) for mask in masks.detach().cpu().numpy().view(np.uint8)]


def run_lengths(segmentations: Sequence[Any], size: tuple[int, int]) -> list[dict[str, Any]]:
    """Masks of any of COCO's three kinds, compressed.

    They are all of one image, of that (height, width); a run-length mask of another size is a ValueError.
    """
    (height, width), encoded = size, []
    for segmentation in segmentations:
        if isinstance(segmentation, list):
            segmentation = rle_codec.merge(rle_codec.frPyObjects(segmentation, height, width))
        elif list(segmentation["size"]) != [height, width]:
            raise ValueError(f"mask of size {segmentation['size']} for an image of [{height}, {width}]: make it again")
        elif isinstance(segmentation["counts"], list):
            segmentation = rle_codec.frPyObjects(segmentation, height, width)
        encoded.append(segmentation)
    return encoded


def decode_masks(segmentations: Sequence[Any], size: tuple[int, int]) -> Tensor:
    """Masks as pixels: (G, H, W) bool; for arguments and errors see :func:`run_lengths`."""
    masks = torch.zeros((len(segmentations), *size), dtype=torch.bool)
    for pixels, encoded in zip(masks.numpy(), run_lengths(segmentations, size), strict=True):
        pixels[:] = _pixels(encoded)  # one by one: of a hundred with 12 megapixels each copy takes 1.2 GB
    return masks


def _pixels(encoded: Mapping[str, Any]) -> NDArray[np.uint8]:
    """One mask (H, W), its columns one behind the other in memory."""
    with warnings.catch_warnings():  # pycocotools 2.0.11 does not know a keyword that NumPy 2 would like it to know
        warnings.filterwarnings("ignore", message="__array__", category=DeprecationWarning)
        return rle_codec.decode(encoded)


def shrink_masks(encoded: Sequence[dict[str, Any]], old: tuple[int, int], new: tuple[int, int]) -> list[dict[str, Any]]:
    """Run lengths of masks after their image was resized, each pixel taken from the nearest one: as of pixels, faster.

    >>> mask = torch.tensor([[[True, True, False, False], [False, False, False, True]]])
    >>> decode_masks(shrink_masks(encode_masks(mask), (2, 4), (1, 2)), (1, 2))
    tensor([[[ True, False]]])
    """
    places = (F.interpolate(torch.arange(o)[None, None].float(), size=n) for o, n in zip(old, new, strict=True))
    rows, columns = (place.flatten().long().numpy() for place in places)
    return [rle_codec.encode(np.asfortranarray(_pixels(runs)[:, columns][rows])) for runs in encoded]


def runs_problem(mask: object) -> str | None:
    """Why a run-length mask, compressed or not, cannot be decoded; None if it can.

    Paper vs code: pycocotools does not look. It decodes runs of any length, and of some the overlap takes for ever.
    Counts in bytes are its own, and not looked at either.
    """
    if not isinstance(mask, Mapping) or not {"size", "counts"} <= set(mask):
        return 'no run-length encoding with "size" and "counts"'
    (height, width), runs = mask["size"], mask["counts"]
    if isinstance(runs, bytes):
        return None
    if isinstance(runs, str) and _RUN_LENGTHS.fullmatch(code := runs.encode(errors="surrogatepass")):
        runs = decode_counts(code)
    elif not isinstance(runs, list) or not all(isinstance(run, Integral) for run in runs):
        return "its run-length 'counts' are no string in COCO's code, and no list of whole numbers"
    if min(runs, default=0) < 0:
        return "it has a run of negative length"
    if sum(runs) != height * width:
        return f"its runs cover {sum(runs)} pixels, but its size is {height} × {width}"
    return None


def decode_counts(counts: bytes) -> list[int]:
    """The run lengths in a compressed ``counts`` string: of alternating runs of 0 and 1, column after column.

    Each character carries ``character - 48``: five bits of a number, lowest first, and a sixth bit (32) which says that
    the number goes on. The highest of the five bits of the last character is the sign. From the fourth run on, the
    number is the difference from the run two places before, which for the columns of a compact object is small.

    >>> decode_counts(b"52203"), decode_counts(b"04")
    ([5, 2, 2, 2, 5], [0, 4])
    """
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    ends = codes < 32
    starts = np.flatnonzero(np.append(True, ends[:-1]))
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, np.diff(starts, append=len(codes))))
    runs = np.add.reduceat((codes & 31) << shifts, starts) - ((codes[ends] & 16) << (shifts[ends] + 1))
    for place in (1, 2):
        runs[place::2] = runs[place::2].cumsum()
    return runs.tolist()
