"""Which detection found which object? The two protocols answer differently.

Both are greedy: the best detection chooses first, and an object can be found once. They differ in what happens when
the object that a detection overlaps most is already taken. COCO lets the detection look for another one; PASCAL VOC
calls it a duplicate, and wrong. So the same detections can score differently (see notebook 01).
"""

import numpy as np

UNMATCHED = -1


def match_coco(iou: np.ndarray, thresholds: np.ndarray, ignored: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """COCO's matching in one image and class (Lin et al. 2014; the rules are pycocotools').

    Detections choose in order. Each takes the free object that it overlaps most, if by the threshold. Objects that
    count come first; an ignored one is taken only if no other will do. A crowd region can be taken again and again.

    Args:
        iou: ``(D, G)``, detections best first.
        thresholds: ``(T,)`` in (0, 1].
        ignored: ``(A, G)`` bool; one row for each range of areas: which objects do not count there.
        crowd: ``(G,)`` bool.

    Returns:
        ``(A, T, D)`` int64: the object that each detection found, or -1.

    Paper vs code, as in pycocotools: an IoU equal to the threshold is enough, and a threshold of 1 is lowered by 1e-10;
    of objects that a detection overlaps equally it takes the *last*.

    >>> iou = np.array([[0.9, 0.6], [0.8, 0.7]])  # both prefer the first object
    >>> match_coco(iou, np.array([0.5]), np.zeros((1, 2), bool), np.zeros(2, bool)).tolist()
    [[[0, 1]]]
    """
    (num_detections, num_objects), num_areas = iou.shape, len(ignored)
    match = np.full((num_areas, len(thresholds), num_detections), UNMATCHED)
    if not num_objects:
        return match
    taken = np.zeros((num_areas, len(thresholds), num_objects), dtype=bool)
    counts = ~ignored[:, None]  # (A, 1, G)
    floor = np.minimum(thresholds, 1 - 1e-10)[:, None]  # (T, 1)
    # Most detections touch no object well enough at any threshold, and stay unmatched without a look.
    for d in np.flatnonzero(iou.max(axis=1) >= floor.min()):
        free = (iou[d] >= floor) & ~taken  # (A, T, G)
        first_choice = free & counts
        choice = np.where(first_choice.any(axis=-1, keepdims=True), first_choice, free)  # (A, T, G)
        overlap = np.where(choice, iou[d], -1.0)[..., ::-1]
        best = num_objects - 1 - overlap.argmax(axis=-1)  # (A, T): argmax gives the first, reversed the last
        found = choice.any(axis=-1)  # (A, T)
        match[..., d] = np.where(found, best, UNMATCHED)
        area, threshold = np.nonzero(found & ~crowd[best])
        taken[area, threshold, best[area, threshold]] = True
    return match


def match_voc(iou: np.ndarray, thresholds: np.ndarray, ignored: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """PASCAL VOC's matching in one image and class (Everingham et al. 2010, section 4.2; devkit VOCevaldet.m).

    Detections choose in order. Each looks only at the object that it overlaps most. If that one counts and has already
    been found, the detection is a duplicate and wrong. Ignored ("difficult") objects are never used up.

    Args:
        iou: ``(D, G)``, detections best first.
        thresholds: ``(T,)`` in (0, 1].
        ignored: ``(A, G)`` bool; which objects do not count.
        crowd: unused: VOC has no crowd regions. Ours are ignored there, as difficult objects are.

    Returns:
        ``(A, T, D)`` int64: the object that each detection found, or -1.

    Paper vs code: the paper asks for an overlap that *exceeds* 50%; the devkit accepts exactly 50%, and so do we
    (Girshick's voc_eval.py does not). The devkit counts pixels, ``x2 - x1 + 1``: add 1 to ``x2`` and ``y2`` of its
    whole-numbered boxes and our half-open ones give the same IoU.

    >>> iou = np.array([[0.9, 0.6], [0.8, 0.7]])  # both prefer the first object
    >>> match_voc(iou, np.array([0.5]), np.zeros((1, 2), bool), np.zeros(2, bool)).tolist()
    [[[0, -1]]]
    """
    (num_detections, num_objects), num_areas = iou.shape, len(ignored)
    match = np.full((num_areas, len(thresholds), num_detections), UNMATCHED)
    if not num_objects or not num_detections:
        return match
    best = iou.argmax(axis=1)  # (D,): of equals the first
    over = iou[np.arange(num_detections), best] >= thresholds[:, None]  # (T, D)
    for g in np.unique(best):
        chose = over & (best == g)  # (T, D)
        first = chose & (chose.cumsum(axis=1) == 1)
        # An ignored object is never used up, so that no detection of it is a duplicate.
        match[np.where(ignored[:, g, None, None], chose, first)] = g  # (A, T, D)
    return match
