"""From scores and boxes of every proposal to the few detections of a picture: the last step of all four detectors."""

import torch
from torch import Tensor

from minircnn.boxes import batched_nms, clip_boxes

SMALLEST_SIDE = 0.01  # pixels; a box that was clipped away to nothing is no detection


def select_detections(
    boxes: Tensor,
    scores: Tensor,
    size: tuple[int, int],
    *,
    score_threshold: float,
    nms_threshold: float,
    max_detections: int,
) -> dict[str, Tensor]:
    """Clips the boxes, drops low scores, suppresses overlapping boxes of each class, keeps the best (R-CNN, 2.2).

    A proposal may end up as detections of several classes. Background, column 0, is never a detection.

    Args:
        boxes: ``(P, 4)`` boxes for all classes, or ``(P, K, 4)`` with a box for each class.
        scores: ``(P, K)``, K classes with background; probabilities or margins, higher is better.
        size: ``(height, width)`` of the picture.
        score_threshold: detections score more than this.
        nms_threshold: of two boxes of one class with a higher IoU than this, the better stays.
        max_detections: at most so many for the picture, over all classes.

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
