"""From a ranked list of right and wrong detections to a precision-recall curve, and from the curve to one number.

Going down the list, recall (found / all objects) can only grow, while precision (right / all answers so far) goes up
and down. The three protocols read the curve at different places:

* VOC2007: the mean of the interpolated precision at 11 recalls, 0, 0.1 … 1 (Everingham et al. 2010, section 4.2);
* VOC2010 and later: the whole area under the interpolated curve (devkit of 2010, section 3.4.1);
* COCO: the mean at 101 recalls, 0, 0.01 … 1 (Lin et al. 2014; pycocotools).

"Interpolated" means: the best precision at this recall or any higher one (:func:`envelope`).
"""

import numpy as np

# Dividing whole numbers gives the same float as found / objects does, so that a recall of 3 / 10 reaches 0.3.
# Paper vs code: Girshick's voc_eval.py counts 0.1 up and gets 0.30000000000000004, which 3 / 10 does not reach.
RECALLS_VOC2007 = np.arange(11) / 10
# That slip is part of COCO's protocol: pycocotools has these very numbers, some a hair above their two decimals.
RECALLS_COCO = np.linspace(0.0, 1.0, 101)


def precision_recall(right: np.ndarray, wrong: np.ndarray, num_objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall after each detection of a ranked list.

    Args:
        right: ``(…, D)`` bool, best detection first: it found an object that counts.
        wrong: ``(…, D)`` bool. A detection may be neither: then it is ignored.
        num_objects: how many objects there were to find, at least 1.

    Returns:
        ``(precision, recall)``, each ``(…, D)`` float64 in [0, 1]. Precision is 0 until one detection counts.

    >>> precision, recall = precision_recall(np.array([1, 0, 1]), np.array([0, 1, 0]), num_objects=4)
    >>> precision.round(2).tolist(), recall.tolist()
    ([1.0, 0.5, 0.67], [0.25, 0.25, 0.5])
    """
    found = np.cumsum(right, axis=-1)  # (…, D)
    answers = found + np.cumsum(wrong, axis=-1)
    return found / np.maximum(answers, 1), found / num_objects


def envelope(precision: np.ndarray) -> np.ndarray:
    """The interpolated precision: at each recall the best precision there or further right, ``(…, D)``.

    >>> envelope(np.array([1.0, 0.5, 0.67, 0.4])).tolist()
    [1.0, 0.67, 0.67, 0.4]
    """
    return np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]


def first_reaching(recall: np.ndarray, recall_points: np.ndarray) -> np.ndarray:
    """For each recall point the first place in the list that reaches it; D where none does.

    Args:
        recall: ``(D,)``, ascending.
        recall_points: ``(R,)``.

    Returns:
        ``(R,)`` int64.
    """
    return np.searchsorted(recall, recall_points, side="left")


def interpolate(precision: np.ndarray, recall: np.ndarray, recall_points: np.ndarray) -> np.ndarray:
    """The interpolated precision at given recalls: 0 where the list never gets that far.

    Args:
        precision: ``(D,)`` as :func:`precision_recall` gives it.
        recall: ``(D,)``.
        recall_points: ``(R,)``.

    Returns:
        ``(R,)`` float64 in [0, 1].

    >>> interpolate(np.array([1.0, 0.5, 0.67]), np.array([0.25, 0.25, 0.5]), np.array([0.0, 0.3, 0.5, 0.6])).tolist()
    [1.0, 0.67, 0.67, 0.0]
    """
    padded = np.append(envelope(precision), 0.0)  # (D + 1,)
    return padded[first_reaching(recall, recall_points)]  # (R,)


def average_at_points(precision: np.ndarray, recall: np.ndarray, recall_points: np.ndarray) -> float:
    """Average precision as the mean of the interpolated precision at given recalls (VOC2007, COCO).

    >>> curve = np.array([1.0, 0.5, 2 / 3]), np.array([0.25, 0.25, 0.5])
    >>> round(average_at_points(*curve, RECALLS_VOC2007), 4)  # 3 points at 1, 3 at 2/3, 5 at 0
    0.4545
    """
    return float(interpolate(precision, recall, recall_points).mean())


def area_under_curve(precision: np.ndarray, recall: np.ndarray) -> float:
    """Average precision as the area under the interpolated curve (VOC2010 and later).

    Equal to scikit-learn's ``average_precision_score`` where every object was found, no scores tie and interpolation
    changes nothing at the right detections; never below it where every object was found.

    >>> round(area_under_curve(np.array([1.0, 0.5, 2 / 3]), np.array([0.25, 0.25, 0.5])), 4)  # 1/4 · 1 + 1/4 · 2/3
    0.4167
    """
    steps = np.diff(recall, prepend=0.0)  # (D,)
    return float((steps * envelope(precision)).sum())
