"""Which object does each box stand for, and which boxes does a detector learn from?

R-CNN asks both questions of its proposals, Faster R-CNN also of its anchors.
"""

import torch
from torch import Tensor

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


def match(iou: Tensor, high: float, low: float, allow_low_quality_matches: bool = False) -> tuple[Tensor, Tensor]:
    """Assign each of N boxes to the object that it overlaps most (Faster R-CNN, section 3.1.2).

    Args:
        iou: ``(G, N)`` overlaps, ``box_iou(objects, boxes)``. G may be 0: then every box is background.
        high: a box with IoU >= ``high`` is positive.
        low: a box with IoU < ``low`` is negative; between the two it is ignored. ``low <= high``.
        allow_low_quality_matches: also make positive, for each object, the boxes that overlap it most, all of them if
            they tie. Without this, an object that no box overlaps by ``high`` would never be learned.

    Returns:
        ``(gt_index, label)``, both ``(N,)`` int64: the object that each box overlaps most (of equals the first; 0 if
        there are none), and 1 positive, 0 negative or -1 ignored.

    Paper vs code: a low-quality match is assigned to the object that *the box* overlaps most, as in torchvision. Where
    an object overlaps no box at all, torchvision makes every box that misses the object positive; we make none.

    >>> iou = torch.tensor([[0.8, 0.4, 0.1, 0.0], [0.0, 0.2, 0.2, 0.0]])
    >>> match(iou, high=0.7, low=0.3)
    (tensor([0, 0, 1, 0]), tensor([ 1, -1,  0,  0]))
    >>> match(iou, high=0.7, low=0.3, allow_low_quality_matches=True)[1]  # the second object keeps its two best
    tensor([1, 1, 1, 0])
    """
    if iou.dim() != 2:
        raise ValueError(f"iou must have shape (objects, boxes), but has shape {tuple(iou.shape)}")
    if low > high:
        raise ValueError(f"low ({low}) must not be above high ({high})")
    if len(iou) == 0:
        background = torch.zeros(iou.shape[1], dtype=torch.int64, device=iou.device)
        return background, background.clone()
    best, gt_index = iou.max(dim=0)  # (N,), (N,)
    label = torch.full_like(gt_index, IGNORED)
    label[best < low] = NEGATIVE
    label[best >= high] = POSITIVE
    if allow_low_quality_matches and iou.shape[1]:
        best_of_object = iou.amax(dim=1, keepdim=True)  # (G, 1)
        label[((iou == best_of_object) & (best_of_object > 0)).any(dim=0)] = POSITIVE
    return gt_index, label


def subsample(
    labels: Tensor, num: int, positive_fraction: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Draw a random batch of positives and negatives (Fast R-CNN, section 2.3; Faster R-CNN, 3.1.3).

    Args:
        labels: ``(N,)`` integers; positive where >= 1 (a class, or the 1 of :func:`match`), negative where 0, ignored
            where -1.
        num: how many boxes to draw. Fewer come back if there are not enough negatives.
        positive_fraction: the largest share of positives, in [0, 1]. Negatives fill what positives leave free.
        generator: by default torch's global one of the CPU, so that a seed gives the same draw on every device.

    Returns:
        ``(positive, negative)``: int64 indices into ``labels``, ascending. The positives' permutation is drawn first,
        then the negatives', so that a seed gives the same boxes as torchvision.

    >>> _ = torch.manual_seed(0)
    >>> positive, negative = subsample(torch.tensor([1, 0, 0, -1, 2, 0, 0, 0]), num=4, positive_fraction=0.25)
    >>> len(positive), len(negative)
    (1, 3)
    """
    if num < 0 or not 0 <= positive_fraction <= 1:
        raise ValueError(f"num ({num}) must be >= 0 and positive_fraction ({positive_fraction}) in [0, 1]")
    positive, negative = torch.where(labels >= POSITIVE)[0], torch.where(labels == NEGATIVE)[0]
    num_positive = min(len(positive), int(num * positive_fraction))
    num_negative = min(len(negative), num - num_positive)
    return _draw(positive, num_positive, generator), _draw(negative, num_negative, generator)


def _draw(indices: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """``count`` of the indices at random, without repetition, ascending."""
    # On the CPU, so that one seed gives the same draw on every device.
    order = torch.randperm(len(indices), generator=generator, device=generator.device if generator else "cpu")
    return indices[order[:count].to(indices.device)].sort().values
