"""Boxes as tensors: overlap, regression deltas, non-maximum suppression, detections, and matching with objects.

Conventions, the same in every file of this package:

* A box is ``x1, y1, x2, y2`` in pixels, continuous and half open: its width is ``x2 - x1``. The pixel in column 0
  covers the interval from 0 to 1, so a box around that one pixel is ``(0, 0, 1, 1)`` and has area 1.
* Boxes are float tensors of shape ``(N, 4)``. Sizes are ``(height, width)``.
* Label 0 is the background; the classes of objects start at 1.

Letters in shape comments: B images, G ground-truth objects, A anchors per cell, P proposals of an image, R regions
of a batch, K classes with background, C channels, H W image size, h w size of a feature map.

Paper vs code: the published R-CNN and Fast R-CNN code counts pixels (``x2 - x1 + 1``), as did PASCAL VOC's; COCO,
torchvision and we measure lengths.
"""

import math

import torch
from torch import Tensor

from minircnn import kernels

# An untrained network may predict exp(50) times the width. This is Detectron's cap, which torchvision shares: from a
# small anchor, 16 pixels, to the side of a large image, 1000 pixels, in one step.
MAX_LOG_SCALE = math.log(1000.0 / 16.0)
SMALLEST_SIDE = 0.01  # pixels; a box that was clipped away to nothing is no detection
POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


def _as_float(boxes: Tensor, name: str = "boxes", ranks: tuple[int, ...] = (2,)) -> Tensor:
    """Check the shape, and give integers and half precision enough digits to multiply with."""
    if boxes.dim() not in ranks or boxes.shape[-1] != 4:
        allowed = " or ".join(f"({'N, K' if rank == 3 else 'N'}, 4)" for rank in ranks)
        raise ValueError(f"{name} must have shape {allowed}, x1 y1 x2 y2, but has shape {tuple(boxes.shape)}")
    return boxes if boxes.dtype in (torch.float32, torch.float64) else boxes.float()


def box_area(boxes: Tensor) -> Tensor:
    """Area of each box in square pixels: ``(N, 4)`` to ``(N,)``.

    A box with ``x2 <= x1`` or ``y2 <= y1`` is degenerate; its product is returned as it is.

    >>> box_area(torch.tensor([[0.0, 0.0, 1.0, 1.0], [10.0, 20.0, 13.0, 24.0]]))
    tensor([ 1., 12.])
    """
    x1, y1, x2, y2 = _as_float(boxes).unbind(-1)
    return (x2 - x1) * (y2 - y1)  # (N,)


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every box of ``a`` with every box of ``b`` (Everingham et al. 2010, section 4.2).

    ``(N, 4)`` and ``(M, 4)`` to ``(N, M)`` in [0, 1]; ``nan`` where both boxes have no area. A batch, ``(B, N, 4)`` and
    ``(B, M, 4)``, gives ``(B, N, M)``.

    Two laws: ``box_iou(a, b) == box_iou(b, a).T``, and moving or scaling both boxes together changes nothing.

    >>> a = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    >>> b = torch.tensor([[1.0, 1.0, 3.0, 3.0], [0.0, 0.0, 2.0, 2.0], [2.0, 0.0, 4.0, 2.0]])
    >>> box_iou(a, b)
    tensor([[0.1429, 1.0000, 0.0000]])
    """
    a, b = _as_float(a, "a", (2, 3)), _as_float(b, "b", (2, 3))
    # Each coordinate in a row of its own, and results written over operands that are done with: the matrix is large and
    # the arithmetic is little, so that memory traffic is nearly all of the time.
    ax1, ay1, ax2, ay2 = a.movedim(-1, 0).contiguous().unsqueeze(-1)  # each (…, N, 1)
    bx1, by1, bx2, by2 = b.movedim(-1, 0).contiguous().unsqueeze(-2)  # each (…, 1, M)
    width = torch.minimum(ax2, bx2).sub_(torch.maximum(ax1, bx1)).clamp_(min=0)  # (…, N, M)
    height = torch.minimum(ay2, by2).sub_(torch.maximum(ay1, by1)).clamp_(min=0)  # (…, N, M)
    intersection = width.mul_(height)
    union = ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1)).sub_(intersection)
    return intersection.div_(union)


def encode_boxes(src: Tensor, dst: Tensor, weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """Deltas from each box of ``src`` to its partner in ``dst``: regression targets (R-CNN, appendix C, eq. 6–9).

    The offset of the center is measured in widths and heights of ``src``, and the change of size as a logarithm, so
    that the same relative error costs the same for a small box and a large one.

    Args:
        src: ``(N, 4)`` boxes to start from (proposals or anchors), of positive width and height.
        dst: ``(N, 4)`` boxes to reach (ground truth), of positive width and height.
        weights: factors for ``dx, dy, dw, dh``. Paper vs code: Fast R-CNN normalizes the targets to zero mean and unit
            variance; later code uses the fixed factors (10, 10, 5, 5) in the second stage instead.

    Returns:
        ``(N, 4)`` deltas ``dx, dy, dw, dh``. A box without width or height gives infinities.

    Law: ``decode_boxes(src, encode_boxes(src, dst)) == dst`` as long as no side grows by more than 62.5 times.

    >>> src = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    >>> encode_boxes(src, torch.tensor([[1.0, 0.0, 11.0, 10.0]]))  # a tenth of its width to the right
    tensor([[0.1000, 0.0000, 0.0000, 0.0000]])
    """
    src, dst = _as_float(src, "src"), _as_float(dst, "dst")
    if src.shape != dst.shape:
        raise ValueError(f"src and dst must pair up, but have shapes {tuple(src.shape)}, {tuple(dst.shape)}")
    src_size, dst_size = src[:, 2:] - src[:, :2], dst[:, 2:] - dst[:, :2]  # (N, 2) width, height
    offset = (dst[:, :2] + 0.5 * dst_size) - (src[:, :2] + 0.5 * src_size)  # (N, 2) between the centers
    deltas = torch.cat([offset / src_size, torch.log(dst_size / src_size)], dim=1)  # (N, 4)
    return deltas * deltas.new_tensor(weights)


def decode_boxes(
    src: Tensor, deltas: Tensor, weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
) -> Tensor:
    """Refine each box of ``src`` by its deltas: the inverse of :func:`encode_boxes` (R-CNN, appendix C, eq. 1–4).

    ``deltas`` are ``(N, 4)``, or ``(N, K, 4)`` where each box has deltas for each of K classes; ``weights`` those that
    were given to :func:`encode_boxes`. Returns boxes of the shape of ``deltas``. ``dw`` and ``dh`` are capped at
    log(1000 / 16), so that the predictions of an untrained network stay finite (not in the papers; Detectron and
    torchvision do it).

    >>> src = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    >>> decode_boxes(src, torch.tensor([[0.1, 0.0, 0.0, 0.0]]))
    tensor([[ 1.,  0., 11., 10.]])
    """
    src, deltas = _as_float(src, "src"), _as_float(deltas, "deltas", ranks=(2, 3))
    if len(src) != len(deltas):
        raise ValueError(f"src and deltas must pair up, but have {len(src)} and {len(deltas)} rows")
    deltas = deltas / deltas.new_tensor(weights)
    size = src[:, 2:] - src[:, :2]  # (N, 2) width, height
    center = src[:, :2] + 0.5 * size  # (N, 2)
    if deltas.dim() == 3:
        size, center = size[:, None], center[:, None]  # (N, 1, 2): the same box for each class
    center = center + deltas[..., :2] * size
    size = size * torch.exp(deltas[..., 2:].clamp(max=MAX_LOG_SCALE))
    return torch.cat([center - 0.5 * size, center + 0.5 * size], dim=-1)


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Clip boxes ``(…, 4)`` to an image of ``(height, width)``: x to [0, width] and y to [0, height].

    A box outside of the image keeps no area.

    >>> clip_boxes(torch.tensor([[-5.0, 2.0, 30.0, 40.0]]), (20, 25))
    tensor([[ 0.,  2., 25., 20.]])
    """
    if boxes.dim() < 2 or boxes.shape[-1] != 4:
        raise ValueError(f"boxes must have shape (…, 4), x1 y1 x2 y2, but have shape {tuple(boxes.shape)}")
    x1, y1, x2, y2 = boxes.unbind(-1)
    height, width = size
    return torch.stack([x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], dim=-1)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression: of boxes that overlap, keep only the one with the best score (R-CNN, section 2.2).

    Greedy: take the best box, drop every box that overlaps it by more than the threshold, repeat with what is left;
    :func:`nms_loop` says it in code.

    ``(N, 4)`` boxes and ``(N,)`` scores, of which, if they are equal, the first counts as the better, to the indices of
    the kept boxes, best first, the same as ``torchvision.ops.nms``'s.

    >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
    >>> nms(boxes, torch.tensor([0.8, 0.9, 0.3]), 0.5)
    tensor([1, 2])
    """
    boxes = _as_float(boxes)
    if scores.shape != (len(boxes),):
        raise ValueError(
            f"there must be a score for each of the {len(boxes)} boxes, but scores have shape {tuple(scores.shape)}"
        )
    best_first = scores.argsort(descending=True, stable=True)  # (N,)
    return best_first[kernels.greedy_nms(boxes[best_first], iou_threshold, None, box_iou)]


def nms_loop(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """The same as :func:`nms`, one kept box after the other."""
    left, kept = scores.argsort(descending=True, stable=True), []
    while len(left):
        kept.append(left[0])
        iou = box_iou(boxes[left[:1]], boxes[left[1:]])[0].double()  # with the boxes that come after
        left = left[1:][~(iou > iou_threshold)]  # nan, of two boxes without area, drops nothing
    return torch.stack(kept) if kept else left


def batched_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float, max_keep: int | None = None
) -> Tensor:
    """:func:`nms` within each group: boxes of different groups (classes, pyramid levels) never drop each other.

    Paper vs code: up to 1000 boxes (on a CPU) torchvision moves the groups apart by large offsets and runs one NMS,
    which rounds coordinates and lets boxes with negative coordinates reach into another group; we compare the groups.

    ``groups`` are ``(N,)`` integers. Returns the indices of the kept boxes of all groups, best first, at most
    ``max_keep``: those that come after are not even looked for.

    >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0]])
    >>> batched_nms(boxes, torch.tensor([0.8, 0.9]), torch.tensor([1, 2]), 0.5)
    tensor([1, 0])
    """
    boxes = _as_float(boxes)
    if not (len(boxes),) == scores.shape == groups.shape:
        raise ValueError(
            f"there must be a score and a group for each of the {len(boxes)} boxes, "
            f"but scores have shape {tuple(scores.shape)} and groups {tuple(groups.shape)}"
        )
    best_first = scores.argsort(descending=True, stable=True)  # (N,)
    found = kernels.greedy_nms_in_groups(boxes[best_first], groups[best_first], iou_threshold, max_keep, box_iou)
    return best_first[found][:max_keep]


def select_detections(
    boxes: Tensor,
    scores: Tensor,
    size: tuple[int, int],
    *,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
) -> dict[str, Tensor]:
    """Detections from the scores and boxes of all proposals, the last step of all four detectors (R-CNN, 2.2).

    Clips the boxes, drops low scores, runs NMS within each class and keeps the best. A proposal may end up as
    detections of several classes. Background, column 0, is never a detection.

    Args:
        boxes: ``(P, 4)`` boxes for all classes, or ``(P, K, 4)`` with a box for each class.
        scores: ``(P, K)``, K classes with background; probabilities or margins, higher is better.
        size: ``(height, width)`` of the image.
        score_threshold: detections score more than this.
        nms_threshold: of two boxes of one class with a higher IoU than this, the better stays.
        max_detections: at most so many for the image, over all classes.

    Returns:
        ``boxes`` ``(N, 4)``, ``labels`` ``(N,)`` int64 from 1, and ``scores`` ``(N,)``, best first, equal to what
        torchvision's ``RoIHeads.postprocess_detections`` makes of the same boxes and scores.

    >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
    >>> scores = torch.tensor([[0.1, 0.9, 0.0], [0.2, 0.8, 0.0], [0.3, 0.0, 0.7]])
    >>> found = select_detections(
    ...     boxes, scores, (40, 40), score_threshold=0.5, nms_threshold=0.3, max_detections=10
    ... )
    >>> found["labels"].tolist(), found["boxes"][:, 0].tolist()
    ([1, 2], [0.0, 20.0])
    """
    if boxes.dim() == 2:
        boxes = boxes[:, None].expand(-1, scores.shape[1], -1)  # (P, K, 4)
    if scores.dim() != 2 or boxes.shape != (*scores.shape, 4):
        raise ValueError(
            f"scores must be (P, K) and boxes (P, 4) or (P, K, 4), but have shapes {tuple(scores.shape)} and "
            f"{tuple(boxes.shape)}"
        )
    boxes, scores = clip_boxes(boxes[:, 1:], size), scores[:, 1:]  # without background: (P, K - 1, …)
    large = ((boxes[..., 2:] - boxes[..., :2]) >= SMALLEST_SIDE).all(dim=-1)
    proposal, column = torch.where((scores > score_threshold) & large)
    boxes, scores, labels = boxes[proposal, column], scores[proposal, column], column + 1  # (N, 4), (N,), (N,)
    kept = batched_nms(boxes, scores, labels, nms_threshold, max_detections)
    return {"boxes": boxes[kept], "labels": labels[kept], "scores": scores[kept]}


def match(iou: Tensor, high: float, low: float, allow_low_quality_matches: bool = False) -> tuple[Tensor, Tensor]:
    """Assign each of N boxes to the object that it overlaps most (Faster R-CNN, section 3.1.2).

    Args:
        iou: ``(G, N)``, ``box_iou(objects, boxes)``. Without objects every box is background.
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


def subsample(labels: Tensor, num: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Draw a random batch of positives and negatives (Fast R-CNN, section 2.3; Faster R-CNN, 3.1.3).

    Args:
        labels: ``(N,)`` integers; positive where >= 1 (a class, or the 1 of :func:`match`), negative where 0, ignored
            where -1.
        num: how many boxes to draw. Fewer come back if there are not enough negatives.
        positive_fraction: the largest share of positives, in [0, 1]. Negatives fill what positives leave free.

    Returns:
        ``(positive, negative)``: int64 indices into ``labels``, ascending. The positives' permutation is drawn first,
        then the negatives', by torch's global generator of the CPU: a seed gives the same boxes as torchvision, and
        the same on every device.

    >>> _ = torch.manual_seed(0)
    >>> positive, negative = subsample(torch.tensor([1, 0, 0, -1, 2, 0, 0, 0]), num=4, positive_fraction=0.25)
    >>> len(positive), len(negative)
    (1, 3)
    """
    if num < 0 or not 0 <= positive_fraction <= 1:
        raise ValueError(f"num ({num}) must be >= 0 and positive_fraction ({positive_fraction}) in [0, 1]")
    positive, negative = torch.where(labels >= POSITIVE)[0], torch.where(labels == NEGATIVE)[0]
    num_positive = min(len(positive), int(num * positive_fraction))
    drawn = []
    for indices, count in ((positive, num_positive), (negative, num - num_positive)):
        order = torch.randperm(len(indices), device="cpu")[:count]
        drawn.append(indices[order.to(indices.device)].sort().values)
    return drawn[0], drawn[1]
