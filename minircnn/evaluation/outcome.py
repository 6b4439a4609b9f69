"""Which detections of a class are right, which are wrong and which are ignored, over the whole data set."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minircnn.evaluation.assignment import UNMATCHED
from minircnn.evaluation.overlap import overlaps
from minircnn.evaluation.protocols import Protocol
from minircnn.evaluation.tables import Table


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of the detections of one class, over the whole data set, best first.

    Attributes:
        scores: ``(D,)`` descending.
        rank: ``(D,)`` place among the detections of this class in the same image, from 0.
        right: ``(A, T, D)`` bool.
        wrong: ``(A, T, D)`` bool; neither right nor wrong is ignored.
        num_objects: ``(A,)`` how many objects count.
    """

    scores: np.ndarray
    rank: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    num_objects: np.ndarray


def judge(found: Table, wanted: Table, label: int, rules: Protocol) -> Outcome:
    """Decides, image by image, which detections of one class are right, then ranks those of all images together.

    Of detections with equal scores the one in the earlier image comes first, then the one earlier in its list.
    """
    d = np.flatnonzero(found.label == label)
    d = d[np.lexsort((-found.score[d], found.image[d]))]  # (D,) by image, and in it best first
    rank = np.arange(len(d)) - np.searchsorted(found.image[d], found.image[d])
    d, rank = d[rank < rules.limits[-1]], rank[rank < rules.limits[-1]]
    g = np.flatnonzero(wanted.label == label)  # (G,) by image
    ignored = (wanted.crowd | (wanted.difficult & rules.honours_difficult))[g]
    ignored = ignored | outside(wanted.area[g], rules.area_ranges)  # (A, G)

    match = _match_all(found, wanted, d, g, ignored, rules)  # (A, T, D), positions in g
    matched = match != UNMATCHED
    # A detection shares the fate of the object that it found; one that found nothing is judged by its own size.
    padded = np.pad(ignored, ((0, 0), (0, 1)))  # so that UNMATCHED, -1, has a column to point to
    fate = padded[np.arange(len(ignored))[:, None, None], match]  # (A, T, D)
    dropped = np.where(matched, fate, outside(found.area[d], rules.area_ranges)[:, None])

    order = np.argsort(-found.score[d], kind="stable")
    return Outcome(
        scores=found.score[d][order],
        rank=rank[order],
        right=(matched & ~dropped)[..., order],
        wrong=(~matched & ~dropped)[..., order],
        num_objects=(~ignored).sum(axis=1),
    )


def _match_all(
    found: Table, wanted: Table, d: np.ndarray, g: np.ndarray, ignored: np.ndarray, rules: Protocol
) -> np.ndarray:
    """Runs the protocol's matching in every image that holds objects of the class: ``(A, T, D)`` positions in g."""
    match = np.full((len(ignored), len(rules.iou_thresholds), len(d)), UNMATCHED)
    for image in np.unique(wanted.image[g]):
        first, last = np.searchsorted(found.image[d], [image, image + 1])
        objects = np.flatnonzero(wanted.image[g] == image)
        crowd = wanted.crowd[g[objects]] & rules.forgives_in_crowd
        iou = overlaps(found.regions_at(d[first:last]), wanted.regions_at(g[objects]), crowd)
        local = rules.match(iou, rules.iou_thresholds, ignored[:, objects], crowd)
        match[..., first:last] = np.where(local == UNMATCHED, UNMATCHED, local + objects[0])
    return match


def outside(area: np.ndarray, ranges: Sequence[tuple[float, float]]) -> np.ndarray:
    """Which regions do not belong to each range: ``(N,)`` to ``(A, N)`` bool. 32² is both small and medium."""
    low, high = np.array(ranges).T[..., None]  # each (A, 1)
    return (area < low) | (area > high)
