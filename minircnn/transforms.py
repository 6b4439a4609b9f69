"""What happens to images on their way into a network, and to boxes on the way in and out. Nothing given is changed.

Other libraries hide these steps in the model; here a :class:`Transform` is an argument of every detector that reads
whole images, and says what it does to them.

Shape comments: B images, H W the size of an image, G objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]  # (height, width)
_BRIGHTEST = 10  # far above 1, even of images that somebody has normalized before, and far below 255
_SLIMMEST = 4  # longer side / shorter side of images that a transform without a max_size enlarges like all others


@dataclass(frozen=True)
class Transform:
    """Normalize, resize, pad."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of each channel, in the network's order of channels
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    blue_first: bool = False  # the network's order of channels; images have red first
    min_size: int | None = None  # what the shorter side is resized to; None: not at all. Fast R-CNN: 600
    # The longer side gets at most so many pixels. Fast R-CNN: 1000. None: four times min_size, so that a slim image,
    # say 1 × 20000, takes no more time and memory than others.
    max_size: int | None = None
    divisor: int = 1  # batches are padded to a multiple of so many pixels

    def __post_init__(self) -> None:
        """Validate the settings."""
        if any(size is not None and size < 1 for size in (self.min_size, self.max_size, self.divisor)):
            raise ValueError(f"min_size, max_size and divisor must be at least 1, but this is {self}")

    def batch(self, images: Sequence[Tensor], smallest: int = 1) -> tuple[Tensor, list[Size]]:
        """Images of different sizes, each ``(3, H, W)`` floats in [0, 1], as the network's input: one batch.

        They get zeros, the mean color, to the right and below, so coordinates keep their meaning. Near the filled edge
        a network sees something else than at the image's own edge, so results differ a little from those of the image
        alone, here as in other libraries. Either side of the batch has at least ``smallest`` pixels.

        Returns:
            ``(B, 3, H, W)``, and the size that each image has in it.

        Raises:
            ValueError: there is no image, or one is none; see :func:`check_image`.
        """
        ready = []
        for index, image in enumerate(images):
            check_image(image, f"image {index}")
            ordered = image.flip(0) if self.blue_first else image
            mean, std = (image.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
            normalized = (ordered - mean).div_(std)  # in place: of 24 megapixels each copy takes 0.3 GB
            ready.append(resize(normalized, self.new_size(tuple(image.shape[1:]))))
        if not ready:
            raise ValueError("images must hold at least one image")
        sizes = [tuple(image.shape[1:]) for image in ready]
        height, width = padded_size(sizes, self.divisor, smallest)
        padded = [F.pad(image, (0, width - w, 0, height - h)) for image, (h, w) in zip(ready, sizes, strict=True)]
        return torch.stack(padded), sizes

    def new_size(self, size: Size) -> Size:
        """What a size becomes, sides keeping their ratio up to a pixel.

        >>> Transform(min_size=600, max_size=1000).new_size((375, 500)), Transform().new_size((375, 500))
        ((600, 800), (375, 500))
        >>> Transform(min_size=192).new_size((128, 512)), Transform(min_size=192).new_size((1, 1000))
        ((192, 768), (1, 768))
        """
        if self.min_size is None:
            return size
        longest = self.max_size if self.max_size is not None else _SLIMMEST * self.min_size
        scale = min(self.min_size / min(size), longest / max(size))
        return max(int(size[0] * scale), 1), max(int(size[1] * scale), 1)


def resize(image: Tensor, size: Size) -> Tensor:
    """Resize an image ``(C, H, W)`` by bilinear interpolation, without anti-aliasing; bool masks by nearest pixels."""
    if image.shape[1:] == size:
        return image
    if image.dtype == torch.bool:
        return F.interpolate(image[:, None].view(torch.uint8), size=size)[:, 0].view(torch.bool)
    return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]


def resize_target(target: dict[str, Any], old: Size, new: Size) -> dict[str, Any]:
    """An image's objects after it was resized: ``boxes`` and, if there are any, ``masks`` change; the rest stays."""
    if new == old:
        return target
    changed = {**target, "boxes": resize_boxes(target["boxes"], old, new)}
    if "masks" in target:
        changed["masks"] = resize(target["masks"].bool(), new)
    return changed


def resize_boxes(boxes: Tensor, old: Size, new: Size) -> Tensor:
    """Boxes ``(N, 4)`` after an image of size ``old`` became one of size ``new``.

    Law: ``resize_boxes(resize_boxes(boxes, a, b), b, a) == boxes``.

    >>> resize_boxes(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), (10, 10), (20, 30))
    tensor([[3., 4., 9., 8.]])
    """
    if old == new:
        return boxes
    # Both sides in single precision, as the reference divides them.
    vertical, horizontal = (torch.tensor(n, dtype=boxes.dtype) / o for n, o in zip(new, old, strict=True))
    return boxes * torch.stack([horizontal, vertical, horizontal, vertical]).to(boxes.device)


def padded_size(sizes: Sequence[Size], divisor: int = 1, smallest: int = 1) -> Size:
    """The size of a batch of images of these sizes: the next multiples of ``divisor``, or ``smallest``.

    >>> padded_size([(30, 50), (40, 20)], divisor=32)
    (64, 64)
    """
    height, width = (max(-(-max(sides) // divisor) * divisor, smallest) for sides in zip(*sizes, strict=True))
    return height, width


def hflip(image: Tensor, target: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    """Flip an image ``(C, H, W)`` and its objects, ``boxes`` and ``masks`` if there are any, horizontally."""
    flipped = {**target, "boxes": hflip_boxes(target["boxes"], image.shape[-1])}
    if "masks" in target:
        flipped["masks"] = target["masks"].flip(-1)
    return image.flip(-1), flipped


def hflip_boxes(boxes: Tensor, width: int) -> Tensor:
    """Boxes ``(N, 4)`` in the flipped image, ``image.flip(-1)``, of some width.

    Law: flipped twice, boxes are where they were.

    >>> hflip_boxes(torch.tensor([[1.0, 2.0, 4.0, 8.0]]), width=10)
    tensor([[6., 2., 9., 8.]])
    """
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=1)


def check_image(image: Tensor, where: str) -> None:
    """Raise ValueError unless this is ``(3, H, W)`` floats in [0, 1], or a little beyond, as interpolation makes them.

    ``where`` is what the message calls it, such as "image 3".

    >>> check_image(torch.full((3, 4, 5), 255.0), "image 0")
    Traceback (most recent call last):
        ...
    ValueError: image 0 must hold values in [0, 1], but holds 255: divide bytes by 255
    """
    tensor = isinstance(image, Tensor)
    if not tensor or image.dim() != 3 or image.shape[0] != 3 or not image.numel() or not image.is_floating_point():
        kind = f"{image.dtype} of {tuple(image.shape)}" if tensor else type(image).__name__
        raise ValueError(f"{where} must be a float tensor (3, H, W) in [0, 1], but is {kind}")
    brightest = float(image.detach().max())
    if not brightest <= _BRIGHTEST:  # nor is nan
        raise ValueError(f"{where} must hold values in [0, 1], but holds {brightest:g}: divide bytes by 255")
