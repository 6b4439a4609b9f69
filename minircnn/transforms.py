"""What happens to pictures and boxes on their way into a network. Nothing that is given is changed.

Shape comments: B pictures, H W the size of a picture.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def pad_batch(images: Sequence[Tensor]) -> Tensor:
    """Pictures of different sizes as one batch: zeros to the right and below fill the smaller ones up.

    Coordinates keep their meaning. For a network 0 is the mean colour, if the pictures are normalised before. Near the
    filled edge a network sees something else than at the picture's own edge, so results differ a little from those of
    the picture alone, here as in other programs.

    Args:
        images: each ``(C, H, W)``; at least one.

    Returns:
        ``(B, C, H, W)`` with the largest H and W.

    >>> pad_batch([torch.ones(1, 1, 2), torch.ones(1, 2, 1)]).flatten(1)
    tensor([[1., 1., 0., 0.],
            [1., 0., 1., 0.]])
    """
    if not len(images):
        raise ValueError("images must hold at least one picture")
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    return torch.stack([F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image in images])


def mirror(image: Tensor, target: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    """A picture and its objects with left and right exchanged.

    Args:
        image: ``(C, H, W)``.
        target: ``boxes`` ``(G, 4)`` and, if it has them, ``masks`` ``(G, H, W)`` are mirrored; the rest stays.

    Returns:
        A new picture and a new target.
    """
    mirrored = {**target, "boxes": mirror_boxes(target["boxes"], image.shape[-1])}
    if "masks" in target:
        mirrored["masks"] = target["masks"].flip(-1)
    return image.flip(-1), mirrored


def mirror_boxes(boxes: Tensor, width: int) -> Tensor:
    """Boxes in the mirrored picture, ``image.flip(-1)``: left and right change places.

    Args:
        boxes: ``(N, 4)``.
        width: of the picture.

    Returns:
        ``(N, 4)``, in the same order.

    Law: mirrored twice, boxes are where they were.

    >>> mirror_boxes(torch.tensor([[1.0, 2.0, 4.0, 8.0]]), width=10)
    tensor([[6., 2., 9., 8.]])
    """
    x1, y1, x2, y2 = boxes.unbind(1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=1)
