"""IoU of detections and objects, for boxes and for masks, with COCO's rule for crowds."""

import numpy as np
from pycocotools import mask as rle


def overlaps(found: np.ndarray | list[dict], wanted: np.ndarray | list[dict], crowd: np.ndarray) -> np.ndarray:
    """Intersection over union, or for a crowd region the share of the detection that lies inside it.

    A crowd region ("some sheep") is larger than any of its members, so IoU would punish a right answer.

    Args:
        found: ``(D, 4)`` boxes, or D run-length encoded masks.
        wanted: ``(G, 4)`` boxes, or G masks.
        crowd: ``(G,)`` bool.

    Returns:
        ``(D, G)`` float64 in [0, 1]; 0 where neither has an area.

    >>> boxes = np.array([[0.0, 0.0, 10.0, 10.0]]), np.array([[0.0, 0.0, 20.0, 10.0]])
    >>> overlaps(*boxes, np.array([False])).item(), overlaps(*boxes, np.array([True])).item()
    (0.5, 1.0)
    """
    if not len(found) or not len(wanted):
        return np.zeros((len(found), len(wanted)))
    if isinstance(found, np.ndarray):
        return _of_boxes(found, wanted, crowd)
    return rle.iou(found, wanted, crowd.astype(np.uint8).tolist())


def _of_boxes(found: np.ndarray, wanted: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    # Not minircnn.boxes.box_iou: a picture has a few boxes of a class, and for so few the calls of torch alone take
    # several times as long as all of this. A test holds the two together.
    left_top = np.maximum(found[:, None, :2], wanted[:, :2])  # (D, G, 2)
    right_bottom = np.minimum(found[:, None, 2:], wanted[:, 2:])
    shared = (right_bottom - left_top).clip(min=0).prod(axis=-1)  # (D, G)
    area_found, area_wanted = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (found, wanted))
    together = np.where(crowd, area_found[:, None], area_found[:, None] + area_wanted - shared)
    return np.divide(shared, together, out=np.zeros_like(shared), where=together > 0)
