"""What a mask branch has to learn, and how wrong it is.

He, Gkioxari, Dollár and Girshick 2017, "Mask R-CNN", arXiv 1703.06870, section 3.

Shape comments: G objects, S regions, K classes with background, m side of a mask in the branch's own grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from minircnn.pooling import roi_align_separable


def project_masks_on_boxes(masks: Tensor, boxes: Tensor, gt_index: Tensor, size: int, aligned: bool = True) -> Tensor:
    """The part of each object's mask that lies in a box, in the grid of the branch: what it should answer there.

    Args:
        masks: ``(G, H, W)`` bool.
        boxes: ``(S, 4)``, the regions that the branch looks at.
        gt_index: ``(S,)`` which object each of them shows.
        size: m.
        aligned: whether pixel k of the mask is centred at k + 1/2, as everywhere here. Paper vs code: the first
            programs had it at k, and so had masks that were half a pixel off.

    Returns:
        ``(S, m, m)`` floats in [0, 1]: at an edge that crosses a cell of the grid, the share that is covered. The masks
        are pooled by RoIAlign, with as many points as cells have pixels.

    >>> left_half = torch.zeros(1, 4, 4, dtype=torch.bool)
    >>> left_half[..., :2] = True
    >>> project_masks_on_boxes(left_half, torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([0]), 2)
    tensor([[[1., 0.],
             [1., 0.]]])
    """
    rois = torch.cat([gt_index[:, None].to(boxes), boxes], dim=1)
    if not len(rois):
        return boxes.new_zeros(0, size, size)
    return roi_align_separable(masks[:, None].to(boxes.dtype), rois, size, 1.0, aligned=aligned)[:, 0]


def mask_loss(logits: Tensor, labels: Tensor, wanted: Tensor, kind: str = "sigmoid") -> Tensor:
    """The mean over all pixels of all positive regions (section 3, "Mask Representation" and L_mask).

    Args:
        logits: ``(S, K, m, m)``.
        labels: ``(S,)`` the true class of each, from 1.
        wanted: ``(S, m, m)`` in [0, 1].
        kind: "sigmoid": only the mask of the true class is looked at, each pixel on its own, so that classes do not
            compete: whether the object is a car is asked elsewhere. "softmax": each pixel is given to one of K classes,
            0 for what is not of the object, as in semantic segmentation (table 2b).

    Returns:
        The loss; 0, with gradients of 0, without regions.

    Raises:
        ValueError: there is no such kind.

    >>> mask_loss(torch.zeros(1, 3, 2, 2), torch.tensor([2]), torch.ones(1, 2, 2))  # log 2: it cannot tell
    tensor(0.6931)
    >>> mask_loss(torch.zeros(1, 3, 2, 2), torch.tensor([2]), torch.ones(1, 2, 2), "softmax")  # log 3
    tensor(1.0986)
    """
    _check(kind)
    if not len(labels):
        return logits.sum() * 0
    if kind == "softmax":
        of_pixels = torch.where(wanted >= 0.5, labels[:, None, None], 0)  # (S, m, m)
        return F.cross_entropy(logits, of_pixels)
    own = logits[torch.arange(len(labels), device=labels.device), labels]  # (S, m, m)
    return F.binary_cross_entropy_with_logits(own, wanted)


def mask_probabilities(logits: Tensor, labels: Tensor, kind: str = "sigmoid") -> Tensor:
    """How probable it is that a pixel belongs to an object of the class: ``(S, K, m, m)``, ``(S,)`` to ``(S, m, m)``.

    For the arguments see :func:`mask_loss`.
    """
    _check(kind)
    every = logits.softmax(dim=1) if kind == "softmax" else logits.sigmoid()
    return every[torch.arange(len(labels), device=labels.device), labels]


def _check(kind: str) -> None:
    if kind not in ("sigmoid", "softmax"):
        raise ValueError(f"kind of masks must be 'sigmoid' or 'softmax', but is {kind!r}")
