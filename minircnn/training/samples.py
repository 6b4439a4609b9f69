"""Samples as a training reads them: each checked once and kept small, and cut into parts where images are large.

Shape comments: G objects of an image.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minircnn.datasets.folders import boxes_around
from minircnn.datasets.masks import decode_masks, encode_masks, shrink_masks
from minircnn.targets import Sample, check_target, single_objects
from minircnn.transforms import Size, Transform, check_image, resize, resize_boxes

LEAST = 0.3  # share of an object that a part must show; of less one cannot tell what it is


class KeptSamples:
    """A data set of which each image is read and checked once, and kept as long as there is room.

    Reading an image and a hundred files of masks may take longer than learning from it. Images are kept as bytes, a
    quarter of their floats, and masks as run lengths; both come back as they were. Of images much larger than the
    backbone sees them, the smaller ones are kept: a hundred masks of 12 megapixels would take 1.2 GB in each batch.

    Args:
        samples: ``(image, target)`` pairs.
        num_classes: K, with background, for :func:`minircnn.targets.check_target`.
        room: bytes; images beyond are read whenever they are asked for.
        largest: resizes images to the largest size at which a backbone will see them. Those with sides at least twice
            as long are kept at that size; None: none are.
    """

    def __init__(
        self, samples: Sequence[Sample], num_classes: int, room: int = 2 << 30, largest: Transform | None = None
    ) -> None:
        self.samples, self.num_classes, self.room, self.largest = samples, num_classes, room, largest
        self._kept: dict[int, tuple[Tensor, dict[str, Any]]] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        """An image and its target, both new; what is wrong with them is refused as ``samples[index]``."""
        image, target = self._kept[index] if index in self._kept else self._read(index)
        if "masks" in target:
            target = {**target, "masks": decode_masks(target["masks"], tuple(image.shape[1:]))}
        return image if image.is_floating_point() else image.float() / 255, dict(target)

    def _read(self, index: int) -> Sample:
        """An image, in bytes if they hold it, and its target with masks as run lengths; kept if there is room."""
        if hasattr(self.samples, "load_target"):
            image, target = self.samples.load_image(index), self.samples.load_target(index, encoded=True)
        else:
            image, target = self.samples[index]
        check_image(image, f"the image of samples[{index}]")
        size, masks = tuple(image.shape[1:]), target.get("masks")
        others = {name: value for name, value in target.items() if name != "masks" or isinstance(masks, Tensor)}
        target = check_target(others, f"samples[{index}]", num_classes=self.num_classes, size=size)
        if masks is not None:
            target["masks"] = masks if isinstance(masks, list) else encode_masks(target["masks"])
        new = self.largest.new_size(size) if self.largest else size
        if 2 * max(new) <= max(size):
            image, target = resize(image, new), _shrink(target, size, new)
        small = (image * 255).round().clamp(0, 255).byte()
        if new != size or (image.dtype == torch.float32 and torch.equal(small.float() / 255, image)):
            image = small
            needed = image.nbytes + sum(len(runs["counts"]) for runs in target.get("masks", ()))
            if needed <= self.room:
                self._kept[index], self.room = (image, target), self.room - needed
        return image, target


def _shrink(target: dict[str, Any], old: Size, new: Size) -> dict[str, Any]:
    """:func:`minircnn.transforms.resize_target` for masks as run lengths, of which one lies in memory at a time."""
    shrunk = {**target, "boxes": resize_boxes(target["boxes"], old, new)}
    if "masks" in target:
        shrunk["masks"] = shrink_masks(target["masks"], old, new)
    return shrunk


def random_part(size: Size, side: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """A part of an image, at most so many pixels high and wide: first row and column, and those behind the last."""
    height, width = (min(length, side) for length in size)
    top = int(torch.randint(size[0] - height + 1, (), generator=generator))
    left = int(torch.randint(size[1] - width + 1, (), generator=generator))
    return top, left, top + height, left + width


def cut_out(
    image: Tensor, target: dict[str, Any], part: tuple[int, int, int, int], least: float = LEAST
) -> tuple[Tensor, dict[str, Any]]:
    """Cut a part out of an image ``(3, H, W)``, with what it shows of the objects.

    Args:
        image: ``(3, H, W)``.
        target: with or without masks.
        part: first row and column, and those behind the last.
        least: of objects with a smaller share of their pixels in the part than this (without masks: of their box), what
            is left counts as a crowd: neither an object nor background.

    Returns:
        A view of the image and a new target. Objects without a pixel in the part are gone; boxes are clipped, or with
        masks, as areas, those of the remaining pixels.
    """
    top, left, bottom, right = part
    count, found = len(target["boxes"]), dict(target)
    if "masks" in target:
        found["masks"] = target["masks"][:, top:bottom, left:right]  # (G, h, w)
        before, after = (_counts(masks) for masks in (target["masks"], found["masks"]))  # (G,)
        found["boxes"] = boxes_around(found["masks"])
    else:
        boxes = target["boxes"] - target["boxes"].new_tensor([left, top, left, top])
        limit = boxes.new_tensor([right - left, bottom - top]).repeat(2)
        found["boxes"] = boxes.clamp(min=0).minimum(limit)
        before, after = ((b[:, 2:] - b[:, :2]).prod(dim=1) for b in (boxes, found["boxes"]))  # (G,)
    crowd = target.get("iscrowd", torch.zeros(count, dtype=torch.bool)).bool()
    found |= {"iscrowd": crowd | (after < least * before), "area": after.float()}
    seen = after > 0
    of_objects = {name: v[seen] for name, v in found.items() if isinstance(v, Tensor) and v.dim() and len(v) == count}
    return image[:, top:bottom, left:right], {**found, **of_objects}


def _counts(masks: Tensor) -> Tensor:
    """How many pixels each mask ``(G, H, W)`` bool has. NumPy counts them thirty times as fast as PyTorch adds them."""
    return torch.tensor([np.count_nonzero(mask) for mask in masks.numpy()], dtype=torch.int64)


def check_any_object(targets: Iterable[Mapping[str, Any]], name: str) -> None:
    """Refuse a data set, of this name, that shows no object, or crowds alone, with a ValueError.

    Reading ends with the first image that shows an object.
    """
    images, crowds = 0, 0
    for target in targets:
        known = {key: target[key] for key in ("labels", "iscrowd", "image_id") if key in target}
        read = check_target(known, name, needs=("labels",))
        if len(single_objects(read)["labels"]):
            return
        images, crowds = images + 1, crowds + len(read["labels"])
    only = f"only crowds ({crowds})" if crowds else "no object"
    raise ValueError(f"{name}: {only} in its {images} images, nothing to learn from; look at annotations and classes")
