"""The rules of COCO and of PASCAL VOC, side by side.

The protocols share the whole road (rank all detections of a class, decide which are right, average the curve) and
differ in the settings that :class:`Protocol` names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from minircnn.evaluation.assignment import match_coco, match_voc
from minircnn.evaluation.curves import RECALLS_COCO, RECALLS_VOC2007

UNLIMITED = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Protocol:
    """What COCO and the two versions of PASCAL VOC disagree about.

    Attributes:
        iou_thresholds: ``(T,)`` in (0, 1]; averages are taken over them.
        area_ranges: A pairs of square pixels, both ends included; the first is "all". Objects outside are ignored, and
            so are detections outside that found nothing.
        limits: how many detections of a class count in one image, M budgets, ascending.
        recall_points: ``(R,)`` where the curve is read.
        takes_area: average the area under the curve, not its values at the recall points.
        match: who found whom, as :func:`match_coco` and :func:`match_voc`.
        honours_difficult: whether objects marked difficult are ignored. Crowd regions always are.
        forgives_in_crowd: whether the overlap with a crowd region is the share of the detection that lies inside it.
    """

    iou_thresholds: np.ndarray
    area_ranges: tuple[tuple[float, float], ...]
    limits: tuple[int, ...]
    recall_points: np.ndarray
    takes_area: bool
    match: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    honours_difficult: bool
    forgives_in_crowd: bool


PROTOCOLS = {
    "coco": Protocol(
        iou_thresholds=np.linspace(0.5, 0.95, 10),
        area_ranges=((0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)),
        limits=(1, 10, 100),
        recall_points=RECALLS_COCO,
        takes_area=False,
        match=match_coco,
        honours_difficult=False,
        forgives_in_crowd=True,
    ),
    "voc2007": Protocol(
        iou_thresholds=np.array([0.5]),
        area_ranges=((0, np.inf),),
        limits=(UNLIMITED,),
        recall_points=RECALLS_VOC2007,
        takes_area=False,
        match=match_voc,
        honours_difficult=True,
        forgives_in_crowd=False,  # VOC knows no crowds: to it they are difficult objects
    ),
    "voc2010": Protocol(
        iou_thresholds=np.array([0.5]),
        area_ranges=((0, np.inf),),
        limits=(UNLIMITED,),
        recall_points=RECALLS_COCO,
        takes_area=True,
        match=match_voc,
        honours_difficult=True,
        forgives_in_crowd=False,  # VOC knows no crowds: to it they are difficult objects
    ),
}


def rules_of(protocol: str, iou_thresholds: Sequence[float] | None = None) -> Protocol:
    """The protocol of that name, perhaps with other IoU thresholds.

    Raises:
        ValueError: if there is no such protocol, or a threshold lies outside (0, 1].
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {tuple(PROTOCOLS)}, but is {protocol!r}")
    if iou_thresholds is None:
        return PROTOCOLS[protocol]
    thresholds = np.asarray(iou_thresholds, dtype=np.float64)
    if thresholds.ndim != 1 or not len(thresholds) or not ((thresholds > 0) & (thresholds <= 1)).all():
        raise ValueError(f"iou_thresholds must be numbers in (0, 1], but are {iou_thresholds}")
    return replace(PROTOCOLS[protocol], iou_thresholds=thresholds)
