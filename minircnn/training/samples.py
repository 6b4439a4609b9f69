"""Samples as a training reads them: each checked once and kept small, and cut into parts where images are large.

Shape comments: G objects of an image.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from minircnn.datasets.coco import decode_masks
from minircnn.datasets.folders import boxes_around
from minircnn.evaluation import encode_masks
from minircnn.targets import Sample, check_target, single_objects
from minircnn.transforms import Size, check_image

LEAST = 0.3  # share of an object that a part must show; of less one cannot tell what it is


class KeptSamples:
    """A data set of which each image is read and checked once, and kept as long as there is room.

    Reading an image and a hundred files of masks may take longer than learning from it. Images are kept as bytes, a
    quarter of their floats, and masks as run lengths; both come back as they were.

    Args:
        samples: ``(image, target)`` pairs.
        num_classes: K, with background, for :func:`minircnn.targets.check_target`.
        room: bytes; images beyond are read whenever they are asked for.
    """

    def __init__(self, samples: Sequence[Sample], num_classes: int, room: int = 2 << 30) -> None:
        self.samples, self.num_classes, self.room = samples, num_classes, room
        self._kept: dict[int, tuple[Tensor, dict[str, Any]]] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        """An image and its target, both new; what is wrong with them is refused as ``samples[index]``."""
        if index not in self._kept:
            image, target = self.samples[index]
            check_image(image, f"the image of samples[{index}]")
            size = tuple(image.shape[1:])
            target = check_target(target, f"samples[{index}]", num_classes=self.num_classes, size=size)
            kept = _small(image, target)
            if kept is None or _size(*kept) > self.room:
                return image, target
            self._kept[index], self.room = kept, self.room - _size(*kept)
        image, target = self._kept[index]
        if "masks" in target:
            target = {**target, "masks": decode_masks(target["masks"], tuple(image.shape[1:]))}
        return image.float() / 255, dict(target)


def _small(image: Tensor, target: dict[str, Any]) -> Sample | None:
    """An image in bytes and its target with run lengths; None if bytes do not hold it, as of one that was resized."""
    small = (image * 255).round().clamp(0, 255).byte()
    if image.dtype != torch.float32 or not torch.equal(small.float() / 255, image):
        return None
    return small, {**target, "masks": encode_masks(target["masks"])} if "masks" in target else target


def _size(image: Tensor, target: dict[str, Any]) -> int:
    return image.nbytes + sum(len(runs["counts"]) for runs in target.get("masks", ()))


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
        before, after = (masks.flatten(1).sum(dim=1) for masks in (target["masks"], found["masks"]))  # (G,)
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
