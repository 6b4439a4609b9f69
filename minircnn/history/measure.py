"""All detectors on the same pictures: how much they find, and how long each stage takes."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import nn

from minircnn.boxes import box_iou
from minircnn.course.compare import limit_threads
from minircnn.evaluation import encode_masks, evaluate, proposal_recall
from minircnn.files import sha256
from minircnn.history.detectors import Generation, count_parameters
from minircnn.history.stages import STAGES, Trace, all_by_stages
from minircnn.mask_rcnn import binary_masks
from minircnn.pooling import roi_align, roi_pool
from minircnn.training import Samples

Progress = Callable[[Iterable[int]], Iterable[int]]

RECALL_IOU = 0.5
MAX_PROPOSALS = 300


@dataclass(frozen=True)
class Figures:
    """What was measured of one detector. Averages and shares are in [0, 1].

    Attributes:
        name: what people call it.
        year: of its publication.
        box: ``ap``, ``ap50`` and ``ap75`` of boxes.
        unmoved: the same, if boxes stay where the proposals are.
        mask: the same of masks; None if it makes none.
        proposals: of a picture, on average.
        recall: the share of the objects that a proposal overlaps by at least 0.5.
        passes: of the convolutions for a picture, on average.
        milliseconds: of a picture, medians: by stage, and of ``"all"`` stages together.
        parameters: see :func:`count_parameters`.
        file_bytes: size of the file of weights.
        sha256: of that file.
        trainings: see :class:`Generation`.
    """

    name: str
    year: int
    box: dict[str, float]
    unmoved: dict[str, float]
    mask: dict[str, float] | None
    proposals: float
    recall: float
    passes: float
    milliseconds: dict[str, float]
    parameters: int
    file_bytes: int
    sha256: str
    trainings: int


def trace_all(
    models: Mapping[str, nn.Module],
    samples: Samples,
    *,
    max_proposals: int = MAX_PROPOSALS,
    progress: Progress = iter,
) -> dict[str, list[Trace]]:
    """Shows every picture to each detector in turn, on one thread, so that a busy machine disturbs all of them alike.

    Selective search runs once for a picture, and its proposals and its time go to all detectors that need them. The
    first picture is shown once more before all others, which does not count.

    Args:
        models: by key.
        samples: ``(image, target)`` pairs; the targets are not looked at.
        max_proposals: of selective search, the first so many of a picture.
        progress: is given the numbers of the pictures and hands them on, like ``tqdm``.

    Returns:
        For each detector a trace of each picture; masks in them are run-length encodings, which take less memory.

    Raises:
        ValueError: there are no pictures.
    """
    if not len(samples):
        raise ValueError("samples must hold at least one picture")
    traces: dict[str, list[Trace]] = {key: [] for key in models}
    with limit_threads(1):
        for index in progress([0, *range(len(samples))]):
            for key, trace in all_by_stages(models, samples[index][0], max_proposals).items():
                traces[key].append(_compact(trace))
    return {key: own[1:] for key, own in traces.items()}


def _compact(trace: Trace) -> Trace:
    found = trace.detections
    if "masks" in found:
        found = {**found, "masks": encode_masks(binary_masks(found)["masks"])}
    return replace(trace, detections=found)


def figures_of(
    generation: Generation,
    model: nn.Module,
    traces: Sequence[Trace],
    targets: Sequence[dict[str, Any]],
    classes: Sequence[str],
) -> Figures:
    """Everything about one detector.

    Args:
        generation: which.
        model: itself.
        traces: of :func:`trace_all`.
        targets: of the same pictures; with masks, if the detector makes some.
        classes: names; ``classes[0]`` is the background.
    """
    found, proposals = [trace.detections for trace in traces], [trace.proposals for trace in traces]

    def measured(detections: Sequence[dict[str, Any]], kind: str = "boxes") -> dict[str, float]:
        result = evaluate(detections, targets, classes=classes, kind=kind)
        return {"ap": result.ap, "ap50": result.ap50, "ap75": result.ap75}

    return Figures(
        name=generation.name,
        year=generation.year,
        box=measured(found),
        unmoved=measured([trace.unmoved for trace in traces]),
        mask=measured(found, "masks") if "masks" in found[0] else None,
        proposals=_mean(map(len, proposals)),
        recall=float(proposal_recall(proposals, targets, RECALL_IOU, [max(1, *map(len, proposals))])[0]),
        passes=_mean(trace.passes for trace in traces),
        milliseconds=medians([trace.seconds for trace in traces]),
        parameters=count_parameters(model),
        file_bytes=generation.weights.stat().st_size,
        sha256=sha256(generation.weights),
        trainings=generation.trainings,
    )


def medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Milliseconds out of seconds: the median of each stage, and of all stages together.

    The median of the sums is not quite the sum of the medians.

    >>> medians([{"features": 0.5, "heads": 1.0}, {"features": 0.25, "heads": 2.0}, {"features": 1.0, "heads": 0.25}])
    {'features': 500.0, 'heads': 1000.0, 'all': 1500.0}
    """
    stages = {stage: 1000 * median(row[stage] for row in rows) for stage in STAGES if stage in rows[0]}
    return {**stages, "all": 1000 * median(sum(row.values()) for row in rows)}


def scenes(targets: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How much there is to see in pictures.

    Args:
        targets: ``boxes`` and ``labels`` of each.

    Returns:
        ``objects`` of a picture on average, and shares of the pictures: with ``several`` objects, with several
        ``kinds`` of objects, with boxes that overlap (``crowded``).
    """
    boxes, labels = [t["boxes"] for t in targets], [t["labels"] for t in targets]
    crowded = [bool((box_iou(b, b).triu(diagonal=1) > 0).any()) for b in boxes]
    return {
        "objects": _mean(map(len, labels)),
        "several": _mean(len(one) > 1 for one in labels),
        "kinds": _mean(len(one.unique()) > 1 for one in labels),
        "crowded": _mean(crowded),
    }


def alignment_example() -> dict[str, float]:
    """The example of the story, pooled: the first 15 of 128 pixels, on a map of 25 cells.

    RoIAlign and RoIPool are given a map whose values are places, so that what comes out says where they have looked.

    Returns:
        Where the region ends, in cells: ``exact``; ``rounded_down``, as the story has it; ``pooled``, the last cell of
        RoIPool, which rounds to the nearest; ``aligned``, half a step behind the last point of RoIAlign.
    """
    places = (torch.arange(25.0) + 0.5).expand(1, 1, 25, 25)  # of the middles of cells, from left to right
    region, scale = torch.tensor([[0.0, 0.0, 0.0, 15.0, 15.0]]), 25 / 128
    points = roi_align(places, region, 4, scale, sampling_ratio=1, aligned=True)[0, 0, 0]  # (4,)
    return {
        "exact": 15 * scale,
        "rounded_down": float(math.floor(15 * scale)),
        "pooled": float(roi_pool(places, region, 1, scale)) + 0.5,
        "aligned": float(points[-1] + (points[-1] - points[-2]) / 2),
    }


def _mean(values: Iterable[float]) -> float:
    return float(torch.tensor([float(value) for value in values], dtype=torch.float64).mean())
