"""What a target says about its image: the objects in it, and where there are crowds.

A target is a dict with ``boxes`` (G, 4), ``labels`` (G,) and, where they are needed or known, ``masks`` (G, H, W) and
``iscrowd`` (G,). Training and evaluation read it through :func:`check_target`: a wrong target would not stop a
training, which would learn something else without a word.

Shape comments: B images, G objects of an image, K classes with background, H W image size.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_WIDEST = 1e9  # pixels of a box: areas of more leave single precision
_SHAPES = {"boxes": ("G", "4"), "labels": ("G",), "masks": ("G", "H", "W"), "iscrowd": ("G",), "difficult": ("G",)}

Sample = tuple[Tensor, dict[str, Any]]  # an image (3, H, W) and its target


def check_classes(classes: Sequence[str]) -> None:
    """Refuse names of classes that do not begin with the background, whose label is 0, with a ValueError."""
    if not classes or "background" not in classes[0]:  # torchvision writes "__background__"
        raise ValueError(f'classes[0] must be "background", since objects start at label 1; got {list(classes)[:3]}')


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
        read = {}
        for name in _SHAPES:
            if name not in target or (name == "masks" and not size and isinstance(target[name], list)):
                continue
            value = _as_tensor(target[name], name, size)
            for broken, message in _rules(value, name, num_classes, size):
                if broken.any():
                    row = int(broken.nonzero()[0])
                    shown = sorted(set(value[row].flatten().tolist())) if name == "masks" else value[row].tolist()
                    raise ValueError(f"{name}[{row}] is {shown!s:.100}{message}")
            read[name] = value if name in ("boxes", "labels") else value.bool()
        first, *others = read
        for name in others:
            if len(read[name]) != len(read[first]):
                raise ValueError(f"there are {first} for {len(read[first])} objects, but {name} for {len(read[name])}")
        return {**target, **read}
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


def _as_tensor(values: Any, name: str, size: tuple[int, int] | None) -> Tensor:  # noqa: ANN401 - whatever was given
    """An ordinary tensor of the number of dimensions that its name asks for; labels int64, boxes in full precision."""
    shape = f"({', '.join(_SHAPES[name])}{',' * (len(_SHAPES[name]) == 1)})"
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        got = f"{type(values).__name__} of {values!r:.50}"
        raise ValueError(f"{name} must be a tensor, not {got}: give numbers of shape {shape}") from None
    odd = tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or tensor.is_complex()
    if odd or tensor.is_meta:
        kind = f"{tensor.dtype} ({tensor.layout}, {tensor.device})"
        raise ValueError(f"{name} must be an ordinary tensor {shape} of real numbers, but are {kind}")
    kind = getattr(getattr(values, "format", None), "value", "XYXY")  # torchvision's BoundingBoxes have one
    if kind != "XYXY":
        raise ValueError(f'boxes are {kind}: give x1, y1, x2, y2, as ConvertBoundingBoxFormat("XYXY") makes them')
    tensor = tensor.detach().as_subclass(Tensor)  # a graph behind it would be walked through in each backward pass
    if not tensor.numel():  # no object, in whatever shape and type people have that
        tensor = tensor.new_zeros(0, *{"boxes": (4,), "masks": size or (0, 0)}.get(name, ()), dtype=torch.uint8)
    if tensor.dim() != len(_SHAPES[name]) or (name == "boxes" and tensor.shape[1] != 4):
        raise ValueError(f"{name} must have shape {shape}, not {tuple(tensor.shape)}")
    if name == "labels" and tensor.is_floating_point():
        raise ValueError(f"labels must be whole numbers, not {tensor.dtype}")
    if name == "masks" and size and tuple(tensor.shape[1:]) != tuple(size):
        both = f"{tensor.shape[2]}×{tensor.shape[1]} pixels, but the image has {size[1]}×{size[0]}"
        raise ValueError(f"masks are {both}: they must be of one size")
    if name == "boxes" and tensor.dtype not in (torch.float32, torch.float64):
        return tensor.float()
    return tensor.long() if name == "labels" else tensor


def _rules(
    value: Tensor, name: str, num_classes: int | None, size: tuple[int, int] | None
) -> Iterator[tuple[Tensor, str]]:
    """For each rule which objects break it, ``(G,)`` bool, and the end of the message about the first of them."""
    if name == "labels":
        yield value < 1, ", but 0 is the background: labels of objects start at 1"
        if num_classes is not None:
            known = f"there are {num_classes} classes with the background: labels go up to {num_classes - 1}"
            yield value >= num_classes, f", but {known}"
    elif name == "boxes":
        low, high = value[:, :2], value[:, 2:]
        side = high - low
        finite = ((side >= 0) & (side < _WIDEST)).all(dim=1)
        yield ~finite, ": give x1, y1, x2, y2 as finite numbers, x1 < x2 and y1 < y2"
        if size:
            yield (side == 0).any(dim=1), ", which has no area: correct it or leave the object out"
            image = f"{size[1]}×{size[0]}"
            outside = (low >= low.new_tensor(size[::-1])) | (high <= 0)
            yield outside.any(dim=1), f", outside of the image of {image} pixels"
            fractions = (value <= 1).all() & (value % 1 != 0).any() & (max(size) > 1)
            yield fractions.expand(len(value)), f": fractions of the image? Give pixels, of {image} here"
    elif name == "masks" and value.dtype != torch.bool:
        inside = 255 if (value == 255).any() else 1
        other = ", but masks are 0 outside of the object and 1 (or 255) in it; compare with a threshold first"
        yield ((value != 0) & (value != inside)).flatten(1).any(dim=1), other
    elif name in ("iscrowd", "difficult"):
        yield (value != 0) & (value != 1), ": it must be 0 or 1"
