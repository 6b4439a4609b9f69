"""What a target says about its image: the objects in it, and where there are crowds.

A target is a dict with ``boxes`` (G, 4), ``labels`` (G,) and, where they are needed or known, ``masks`` (G, H, W) and
``iscrowd`` (G,). Training and evaluation read it through :func:`check_target`: a wrong target would not stop a
training, which would learn something else without a word.

Shape comments: B images, G objects of an image, K classes with background, H W image size.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_WIDEST = 1e9  # pixels of a box: areas of more leave single precision

Sample = tuple[Tensor, dict[str, Any]]  # an image (3, H, W) and its target


def check_classes(classes: Sequence[str]) -> None:
    """Refuse names of classes that do not begin with the background, whose label is 0, with a ValueError."""
    if not classes or "background" not in classes[0]:  # torchvision writes "__background__"
        raise ValueError(f'classes[0] must be "background", since objects start at label 1; got {list(classes)[:3]}')


def check_targets(images: Sequence[Tensor], targets: Sequence[Mapping[str, Any]], num_classes: int) -> list[dict]:
    """The targets of a batch of images ``(3, H, W)``, one for each, checked as :func:`check_target` does."""
    if len(images) != len(targets):
        raise ValueError(f"there are {len(images)} images but targets for {len(targets)}: give one for each")
    return [
        check_target(target, f"targets[{index}]", num_classes=num_classes, size=tuple(image.shape[-2:]))
        for index, (image, target) in enumerate(zip(images, targets, strict=True))
    ]


def check_target(
    target: Mapping[str, Any],
    where: str,
    *,
    num_classes: int | None = None,
    size: tuple[int, int] | None = None,
    needs: Sequence[str] = ("boxes", "labels"),
) -> dict[str, Any]:
    """A target whose values have the types that the package computes with, or an error that says what is wrong.

    Args:
        target: ``labels`` (G,) of any integer type; ``boxes`` (G, 4) of any type of numbers; ``masks`` (G, H, W) bool,
            or numbers that are 0 outside of the object and either 1 or 255 inside; ``iscrowd`` and ``difficult`` (G,)
            bool, or 0 and 1. Other keys are left alone, as are, in evaluation, masks in a list (run-length encodings).
        where: what the caller calls the target, such as "targets[3]"; with its ``image_id`` it begins every message.
        num_classes: K, with background; labels lie below it. None: not known.
        size: ``(height, width)`` of the image, for training. None: not known, as in evaluation, where boxes without
            area are accepted: nothing can match them, and pycocotools counts them as missed.
        needs: keys that must be there.

    Returns:
        A new dict: ``labels`` int64, ``boxes`` float32 or float64, the others bool. What has the right type already is
        not copied.

    Raises:
        ValueError: a key is missing; sizes do not fit; a label is 0, negative or beyond the classes; a box is nan,
            infinite, inverted, without area, given as fractions of the image, or wholly outside of it; ….

    >>> box = torch.tensor([[10, 20, 30, 40]])
    >>> check_target({"boxes": box, "labels": torch.tensor([1]), "iscrowd": torch.tensor([0])}, "target")["iscrowd"]
    tensor([False])
    >>> check_target({"boxes": box, "labels": torch.tensor([0]), "image_id": 7}, "targets[2]")
    Traceback (most recent call last):
        ...
    ValueError: targets[2] (image_id 7): labels[0] is 0, but 0 is the background: labels of objects start at 1
    """
    if not isinstance(target, Mapping) or not set(needs) <= set(target):
        has = ", ".join(map(str, target)) if isinstance(target, Mapping) else type(target).__name__
        raise ValueError(f"{where} must be a dict with {' and '.join(needs)}, but has {has or 'nothing'}")
    try:
        return {**target, **_read(target, num_classes, size)}
    except ValueError as error:
        image_id = target.get("image_id")
        image_id = image_id.tolist() if isinstance(image_id, Tensor) else image_id
        name = where if image_id is None else f"{where} (image_id {image_id!s:.50})"
        raise ValueError(f"{name}: {error}") from None


class CheckedSamples:
    """A data set whose targets pass through :func:`check_target` whenever one is asked for."""

    def __init__(self, samples: Sequence[Sample], num_classes: int) -> None:
        self.samples, self.num_classes = samples, num_classes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        image, target = self.samples[index]
        size = tuple(image.shape[-2:])
        return image, check_target(target, f"samples[{index}]", num_classes=self.num_classes, size=size)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


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


def single_objects(target: Mapping[str, Any]) -> dict[str, Tensor]:
    """The boxes, labels and masks of a target without crowd regions, which are no single object."""
    if "iscrowd" not in target:
        return {name: target[name] for name in ("boxes", "labels", "masks") if name in target}
    single = ~target["iscrowd"].bool()  # of integers, ~ would be -1 and -2: indices
    return {name: target[name][single] for name in ("boxes", "labels", "masks") if name in target}


def in_crowd(boxes: Tensor, target: Mapping[str, Any]) -> Tensor:
    """Which boxes lie with more than half of their area in a crowd region: (P, 4) to (P,) bool.

    They show objects that nobody has annotated one by one, so they are neither positives nor background.
    """
    if "iscrowd" not in target or not target["iscrowd"].any():
        return torch.zeros(len(boxes), dtype=torch.bool)
    crowds = target["boxes"][target["iscrowd"].bool()]
    low = torch.maximum(boxes[:, None, :2], crowds[:, :2])  # (P, crowds, 2)
    high = torch.minimum(boxes[:, None, 2:], crowds[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=-1)
    return (shared > 0.5 * area[:, None]).any(dim=1)


def _read(target: Mapping[str, Any], num_classes: int | None, size: tuple[int, int] | None) -> dict[str, Tensor]:
    read = {}
    if "boxes" in target:
        read["boxes"] = _read_boxes(target["boxes"], size)
    if "labels" in target:
        read["labels"] = _read_labels(target["labels"], num_classes)
    if "masks" in target and (size or not isinstance(target["masks"], list)):
        read["masks"] = _read_masks(target["masks"], size)
    read |= {name: _read_flags(target[name], name) for name in ("iscrowd", "difficult") if name in target}
    first, *_ = read
    for name, value in read.items():
        if len(value) != len(read[first]):
            raise ValueError(f"there are {first} for {len(read[first])} objects, but {name} for {len(value)}")
    return read


def _as_tensor(values: Any, name: str, shape: str = "(G,)") -> Tensor:  # noqa: ANN401 - whatever the user gave
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        got = f"{type(values).__name__} of {values!r:.50}"
        raise ValueError(f"{name} must be a tensor, not {got}: give numbers of shape {shape}") from None
    odd = tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or tensor.is_complex()
    if odd or tensor.is_meta:
        kind = f"{tensor.dtype} ({tensor.layout}, {tensor.device})"
        raise ValueError(f"{name} must be an ordinary tensor {shape} of real numbers, but are {kind}")
    return tensor.detach().as_subclass(Tensor)  # a graph behind it would be walked through in each backward pass


def _read_labels(values: Any, num_classes: int | None) -> Tensor:  # noqa: ANN401
    labels = _as_tensor(values, "labels")
    if not labels.numel():
        return labels.new_zeros(0, dtype=torch.int64)
    if labels.dim() != 1 or labels.is_floating_point():
        raise ValueError(
            f"labels must be whole numbers of shape (G,), but are {labels.dtype} of shape {tuple(labels.shape)}"
        )
    for row, label in enumerate(map(int, labels.tolist())):
        if label < 1:
            raise ValueError(f"labels[{row}] is {label}, but 0 is the background: labels of objects start at 1")
        if num_classes is not None and label >= num_classes:
            raise ValueError(
                f"labels[{row}] is {label}, but there are {num_classes} classes with the background: labels go up to "
                f"{num_classes - 1}"
            )
    return labels.long()


def _read_boxes(values: Any, size: tuple[int, int] | None) -> Tensor:  # noqa: ANN401
    boxes = _as_tensor(values, "boxes", "(G, 4)")
    kind = getattr(getattr(values, "format", None), "value", "XYXY")  # torchvision's BoundingBoxes have one
    if kind != "XYXY":
        raise ValueError(f'boxes are {kind}: give x1, y1, x2, y2, as ConvertBoundingBoxFormat("XYXY") makes them')
    if not boxes.numel() and boxes.dim() <= 2:
        return boxes.new_zeros(0, 4, dtype=torch.float32)
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have shape (G, 4), but have shape {tuple(boxes.shape)}")
    boxes = boxes if boxes.dtype in (torch.float32, torch.float64) else boxes.float()
    rows = boxes.tolist()
    for row, (x1, y1, x2, y2) in enumerate(rows):
        wide, high = x2 - x1, y2 - y1
        if not (0 <= wide < _WIDEST and 0 <= high < _WIDEST):
            raise ValueError(f"boxes[{row}] is {rows[row]}: give x1, y1, x2, y2 as finite numbers, x1 < x2 and y1 < y2")
        if size and not (wide and high):
            raise ValueError(f"boxes[{row}] is {rows[row]}, which has no area: correct it or leave the object out")
        if size and not (x1 < size[1] and y1 < size[0] and x2 > 0 and y2 > 0):
            raise ValueError(f"boxes[{row}] is {rows[row]}, outside of the image of {size[1]}×{size[0]} pixels")
    numbers = [number for box in rows for number in box]
    if size and max(size) > 1 and max(numbers) <= 1 and any(number % 1 for number in numbers):
        raise ValueError(f"boxes[0] is {rows[0]}: fractions of the image? Give pixels, of {size[1]}×{size[0]} here")
    return boxes


def _read_masks(values: Any, size: tuple[int, int] | None) -> Tensor:  # noqa: ANN401
    masks = _as_tensor(values, "masks", "(G, H, W)")
    if not masks.numel() and masks.dim() == 1:
        return masks.new_zeros(0, *(size or (0, 0)), dtype=torch.bool)
    if masks.dim() != 3:
        raise ValueError(f"masks must have shape (G, H, W), but have shape {tuple(masks.shape)}")
    if size and tuple(masks.shape[1:]) != tuple(size):
        raise ValueError(
            f"masks are {masks.shape[2]}×{masks.shape[1]} pixels, but the image has {size[1]}×{size[0]}: they must be "
            "of one size"
        )
    if masks.dtype == torch.bool or not masks.numel():
        return masks.bool()
    inside, most = masks != 0, 255 if (masks == 255).any() else 1
    odd = inside & (masks != most)
    if odd.any():
        row = int(odd.flatten(1).any(dim=1).int().argmax())
        raise ValueError(
            f"masks[{row}] holds {masks[row][odd[row]][0].item():g}: masks are 0 outside of the object and 1 (or 255) "
            "in it; compare other values with a threshold first"
        )
    return inside


def _read_flags(values: Any, name: str) -> Tensor:  # noqa: ANN401
    flags = _as_tensor(values, name)
    if not flags.numel():
        return flags.new_zeros(0, dtype=torch.bool)
    if flags.dim() != 1:
        raise ValueError(f"{name} must have shape (G,), but has shape {tuple(flags.shape)}")
    if flags.dtype != torch.bool:
        for row, flag in enumerate(flags.tolist()):
            if flag not in (0, 1):
                raise ValueError(f"{name}[{row}] is {flag}: it must be 0 or 1")
    return flags.bool()
