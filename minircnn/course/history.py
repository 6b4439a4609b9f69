"""The four detectors side by side: what each finds in the same images, and how long each stage takes.

A detector runs as it is, with its own ``detect``; a :class:`StageClock` watches its parts from outside. The stages are
the same for all four, so that their times may be laid side by side:

* **proposals**: selective search, or the region proposal network behind the features.
* **features**: the convolutions, and what brings pixels to them: warping every proposal (R-CNN), or enlarging and
  normalizing the image once (all others).
* **heads**: from features to a score and a box for each class: fully connected layers and the pooling before them,
  SVMs, regressions.
* **selection**: which of these scores and boxes are detections: threshold and non-maximum suppression, and all else.
* **masks**: the mask branch, and pasting its masks into the image.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from torch import Tensor, nn

from minircnn import mask_rcnn
from minircnn.course.compare import limit_threads
from minircnn.course.stopwatch import Stopwatch
from minircnn.evaluation import encode_masks, evaluate, proposal_recall
from minircnn.files import sha256
from minircnn.mask_rcnn import MaskRCNN, binary_masks
from minircnn.rcnn import RCNN, FineTuningSettings
from minircnn.selective_search import selective_search
from minircnn.shipped import DETECTOR_WEIGHTS
from minircnn.targets import Sample
from minircnn.weights import load

Models, Target = Mapping[str, nn.Module], dict[str, Any]
STAGES = ("proposals", "features", "heads", "selection", "masks")
"""In the order in which a reader of the history meets them; the region proposal network runs behind the features."""
MAX_PROPOSALS = 300
RECALL_IOU = 0.5
THRESHOLDS = {"score_threshold": 0.003, "nms_threshold": 0.5}
"""To be compared, all that tell probabilities take these, whatever is in their files: AP gains if little is dropped."""
SCENE = 44
"""The image of the test split that the four detectors are shown with: one where much overlaps."""


@dataclass(frozen=True)
class Generation:
    """A detector's place in the history."""

    key: str  # its name on the command line and in files
    name: str  # its name in prose
    year: int  # of its first publication
    # Trainings, one after the other, each of which needs what the one before it has made. R-CNN: the network, the
    # SVMs, the box regressions. The pre-training of the convolutions, which all four share, does not count
    trainings: int
    searches: bool = False  # whether it is given proposals of selective search; those after it make their own
    # The score from which a detection is worth being shown: where an SVM says yes, or a probability of 1/2
    surest: float = 0.5

    @property
    def weights(self) -> Path:
        """The file that comes with the project."""
        return DETECTOR_WEIGHTS[self.key]

    @property
    def settings(self) -> dict[str, Any]:
        """How they were trained, as the JSON file beside them has it."""
        return json.loads(self.weights.with_suffix(".json").read_text(encoding="utf-8"))["settings"]

    @property
    def learned_from(self) -> dict[str, int]:
        """``"batches"``, and in all of them ``"images"``, of R-CNN, whose network is fine-tuned, ``"crops"``."""
        settings = self.settings
        batches = settings["iterations"]
        if "images_per_batch" in settings:
            return {"batches": batches, "images": batches * settings["images_per_batch"]}
        return {"batches": batches, "crops": batches * FineTuningSettings().batch}


GENERATIONS = (
    Generation("rcnn", "R-CNN", 2014, 3, True, 0.0),
    Generation("fast_rcnn", "Fast R-CNN", 2015, 1, True),
    Generation("faster_rcnn", "Faster R-CNN", 2016, 1),
    Generation("mask_rcnn", "Mask R-CNN", 2017, 1),
)


def load_all(alike: bool = False) -> dict[str, nn.Module]:
    """The four detectors that come with the project, by key, in evaluation mode.

    ``alike``, all but R-CNN, whose scores are no probabilities, have :data:`THRESHOLDS` in place of their own.
    """
    models = {one.key: load(one.weights) for one in GENERATIONS}
    for model in models.values():
        if alike and not isinstance(model, RCNN):
            set_thresholds(model, **THRESHOLDS)
    return models


def set_thresholds(model: nn.Module, **thresholds: float) -> None:
    """Have a detector other thresholds: ``score_threshold``, ``nms_threshold``."""
    part = model if isinstance(model, RCNN) else model.roi_heads
    part.config = replace(part.config, **thresholds)


def count_parameters(model: nn.Module) -> int:
    """How many parameters a layer or a detector has.

    R-CNN's SVMs and box regressions count, though buffers to PyTorch; so does its last layer, for fine-tuning only.
    """
    learned = sum(parameter.numel() for parameter in model.parameters())
    return learned + model.svm.numel() + model.box.numel() if isinstance(model, RCNN) else learned


# ---------------------------------------------------------------------------------------------------- time by stages
class StageClock(Stopwatch):
    """A stopwatch that watches a detector's methods, and keeps what each gave last."""

    def __init__(self) -> None:
        super().__init__()
        self.results: dict[str, Any] = {}

    def watching(self, owner: object, method: str, stage: str) -> AbstractContextManager:
        """Meanwhile every call of this method of this object belongs to the stage."""
        original = getattr(owner, method)

        def timed(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever the method takes and returns
            with self(stage):
                self.results[method] = original(*arguments, **options)
            return self.results[method]

        return patch.object(owner, method, timed)


def _calls(model: nn.Module) -> list[tuple[object, str, str]]:
    """What makes up a stage, methods and a function by their owner; what none of them does belongs to "selection"."""
    calls = [(model, "features", "features")]
    if isinstance(model, RCNN):
        layers = [(layer, "forward", "heads") for layer in model.network.classifier]
        return [*calls, *layers, (model, "scores", "heads"), (model, "regress", "heads")]
    calls.append((model.roi_heads, "predict", "heads"))
    if hasattr(model, "rpn"):
        calls += [(model.rpn, "forward", "proposals"), (model.rpn, "filter_proposals", "proposals")]
    if isinstance(model, MaskRCNN):
        calls += [(model.roi_heads, "predict_masks", "masks"), (model, "postprocess", "masks")]
        calls += [(mask_rcnn, "paste_masks", "masks")]
    return calls


@dataclass(frozen=True)
class Search:
    """Proposals from elsewhere: ``boxes`` ``(P, 4)``, best first, and the ``seconds`` that it took to find them."""

    boxes: Tensor
    seconds: float


def search(image: Tensor, max_proposals: int | None = None) -> Search:
    """Selective search in an image ``(3, H, W)`` in [0, 1], timed; the first so many proposals, or all."""
    start = perf_counter()
    return Search(selective_search(image, max_proposals=max_proposals), perf_counter() - start)


@dataclass(frozen=True)
class Trace:
    """What became of an image."""

    detections: dict[str, Any]  # of `detect`
    proposals: Tensor  # `(P, 4)` in pixels of the image, best first
    passes: int  # how many images, or warped crops, went through the convolutions
    seconds: dict[str, float]  # by stage, in the order of `STAGES`; a detector without masks has no such entry
    # Of `detect` with `regress=False`, without masks: boxes stay where the proposals are. None unless asked for
    unmoved: dict[str, Tensor] | None = None


def by_stages(model: nn.Module, image: Tensor, found: Search | None = None, *, unmoved: bool = False) -> Trace:
    """Detect in an image ``(3, H, W)`` in [0, 1], and note how long each stage takes.

    The first two detectors need proposals of :func:`search`. All are on the CPU: other devices do not wait for the
    clock. ``unmoved``: detect once more with the boxes as proposed.
    """
    inputs = [[image], [found.boxes]] if found else [[image]]
    clock, passed = StageClock(), []
    backbone = model.network.backbone if isinstance(model, RCNN) else model.backbone
    counter = backbone.register_forward_hook(lambda _, images, __: passed.append(len(images[0])))
    with ExitStack() as watched:
        for call in _calls(model):
            watched.enter_context(clock.watching(*call))
        with clock("selection"):
            (detections,) = model.detect(*inputs)
    counter.remove()
    proposals = found.boxes if found else model.propose([image])[0]["boxes"]
    seconds = clock.totals() | ({"proposals": found.seconds} if found else {})
    seconds = {stage: seconds[stage] for stage in STAGES if stage in seconds}
    still = None
    if unmoved:
        features = clock.results["features"]  # that takes the time, and is the same
        with patch.object(model, "features", lambda *_: features):
            still = model.detect(*inputs, regress=False)[0]
        still = {name: value for name, value in still.items() if name != "masks"}
    return Trace(detections, proposals, sum(passed), seconds, still)


def all_by_stages(
    models: Models, image: Tensor, max_proposals: int = MAX_PROPOSALS, *, unmoved: bool = False
) -> dict[str, Trace]:
    """An image through several detectors, one after the other; selective search runs once for all that need it."""
    own = {key: hasattr(model, "rpn") for key, model in models.items()}
    found = None if all(own.values()) else search(image, max_proposals)
    return {key: by_stages(model, image, None if own[key] else found, unmoved=unmoved) for key, model in models.items()}


def trace_all(
    models: Models, samples: Sequence[Sample], *, max_proposals: int = MAX_PROPOSALS, progress: Callable = iter
) -> dict[str, list[Trace]]:
    """Show every image to each detector in turn, on one thread, so that a busy machine disturbs all of them alike.

    The first image is shown once more before all others, which does not count. ``progress`` hands the numbers of the
    images on, like ``tqdm``. Masks in the traces, one for each image, are run-length encodings, which take less memory.
    """
    traces: dict[str, list[Trace]] = {key: [] for key in models}
    with limit_threads(1):
        for index in progress([0, *range(len(samples))]):
            for key, trace in all_by_stages(models, samples[index][0], max_proposals, unmoved=True).items():
                if "masks" in trace.detections:
                    masks = encode_masks(binary_masks(trace.detections)["masks"])
                    trace = replace(trace, detections={**trace.detections, "masks": masks})
                traces[key].append(trace)
    return {key: own[1:] for key, own in traces.items()}


# ---------------------------------------------------------------------------------------------------- figures
def figures_of(
    generation: Generation, model: nn.Module, traces: Sequence[Trace], targets: Sequence[Target], classes: Sequence[str]
) -> SimpleNamespace:
    """What was measured of one detector: averages and shares in [0, 1], and mean counts of an image."""
    found, proposals = [trace.detections for trace in traces], [trace.proposals for trace in traces]

    def measured(detections: Sequence[dict[str, Any]], kind: str = "boxes") -> dict[str, float]:
        result = evaluate(detections, targets, classes=classes, kind=kind)
        return {"ap": result.ap, "ap50": result.ap50, "ap75": result.ap75}

    return SimpleNamespace(
        name=generation.name,
        year=generation.year,
        box=measured(found),
        unmoved=measured([trace.unmoved for trace in traces]),  # if boxes stay where the proposals are
        mask=measured(found, "masks") if "masks" in found[0] else None,
        proposals=fmean(map(len, proposals)),
        recall=float(proposal_recall(proposals, targets, RECALL_IOU, [max(1, *map(len, proposals))])[0]),
        passes=fmean(trace.passes for trace in traces),
        milliseconds=medians([trace.seconds for trace in traces]),
        parameters=count_parameters(model),
        file_bytes=generation.weights.stat().st_size,
        sha256=sha256(generation.weights),
        trainings=generation.trainings,
        learned_from=generation.learned_from,
        detections=fmean(len(one["labels"]) for one in found),
    )


def medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Milliseconds out of seconds: the median of each stage, and of all stages together, which is not quite their sum.

    >>> medians([{"features": 0.5, "heads": 1.0}, {"features": 0.25, "heads": 2.0}, {"features": 1.0, "heads": 0.25}])
    {'features': 500.0, 'heads': 1000.0, 'all': 1500.0}
    """
    stages = {stage: 1000 * median(row[stage] for row in rows) for stage in STAGES if stage in rows[0]}
    return {**stages, "all": 1000 * median(sum(row.values()) for row in rows)}


def above(detections: Mapping[str, Tensor], threshold: float) -> dict[str, Tensor]:
    """The detections whose score exceeds a threshold."""
    rows = detections["scores"] > threshold
    return {key: value[rows] for key, value in detections.items()}


def views_of(image: Tensor, models: Models) -> list[dict[str, Any]]:
    """An image as each detector sees it: ``name``, ``proposals``, and ``found``, what it is sure enough of to show."""
    views, traces = [], all_by_stages(models, image)
    for one in GENERATIONS:
        trace = traces[one.key]
        shown = above(trace.detections, one.surest)
        shown = binary_masks(shown) if "masks" in shown else shown
        views.append({"name": f"{one.name}, {one.year}", "proposals": trace.proposals, "found": shown})
    return views
