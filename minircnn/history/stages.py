"""One picture through a detector, stage by stage, with a clock beside it.

The stages are the same for all four detectors, so that their times may be laid side by side:

* **proposals**: selective search, or the region proposal network behind the features.
* **features**: what the convolutions do, and what brings pixels to them: warping every proposal (R-CNN), or enlarging
  and normalising the picture once (all others).
* **heads**: from features to a score and a box for each class: the fully connected layers, what pools regions for them,
  SVMs and regressions.
* **selection**: which of these scores and boxes are detections: the threshold, and non-maximum suppression.
* **masks**: the mask branch, and pasting its masks into the picture.

The pieces that are called here are those that ``detect`` calls; a test holds the outcome against it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from minircnn.alexnet import AlexNet
from minircnn.boxes import decode_boxes
from minircnn.fast_rcnn import FastRCNN, RoIConfig, check_finite
from minircnn.faster_rcnn import FasterRCNN
from minircnn.mask_rcnn import MaskRoIHeads, mask_probabilities
from minircnn.rcnn import RCNN, select_detections
from minircnn.rcnn.detector import crops_at_once
from minircnn.selective_search import selective_search
from minircnn.transforms import Size, resize_boxes, size_of

STAGES = ("proposals", "features", "heads", "selection", "masks")
"""In the order in which a reader of the history meets them; the region proposal network runs behind the features."""


@dataclass
class Stopwatch:
    """Adds up seconds by stage.

    Attributes:
        seconds: of each stage that has run.

    >>> watch = Stopwatch()
    >>> watch("features", max, 3, 5), watch("features", min, 3, 5), list(watch.seconds)
    (5, 3, ['features'])
    """

    seconds: dict[str, float] = field(default_factory=dict)

    def __call__(self, stage: str, function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
        """Calls a function, adds the time that it takes to a stage, and returns what it returns."""
        start = perf_counter()
        result = function(*arguments)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + perf_counter() - start
        return result


@dataclass(frozen=True)
class Search:
    """Proposals from elsewhere.

    Attributes:
        boxes: ``(P, 4)`` in pixels of the picture, best first.
        seconds: that it took to find them.
    """

    boxes: Tensor
    seconds: float


@dataclass(frozen=True)
class Trace:
    """What became of a picture.

    Attributes:
        detections: what ``detect`` gives.
        unmoved: what it gives with ``regress=False``, without masks: boxes stay where the proposals are.
        proposals: ``(P, 4)`` in pixels of the picture, best first.
        passes: how often the convolutions ran.
        seconds: by stage, in the order of :data:`STAGES`; a detector without masks has no such entry.
    """

    detections: dict[str, Any]
    unmoved: dict[str, Tensor]
    proposals: Tensor
    passes: int
    seconds: dict[str, float]


def search(image: Tensor, max_proposals: int | None = None) -> Search:
    """Selective search, timed.

    Args:
        image: ``(3, H, W)`` in [0, 1].
        max_proposals: the first so many; None for all.
    """
    watch = Stopwatch()
    boxes = watch("proposals", lambda: selective_search(image, max_proposals=max_proposals))
    return Search(boxes, watch.seconds["proposals"])


def needs_proposals(model: nn.Module) -> bool:
    """Whether a detector must be given proposals: R-CNN and Fast R-CNN, but not those that come after them."""
    return not isinstance(model, FasterRCNN)


@torch.inference_mode()
def by_stages(model: nn.Module, image: Tensor, found: Search | None = None) -> Trace:
    """Detects, and notes how long each stage takes.

    Args:
        model: an :class:`RCNN`, :class:`FastRCNN`, :class:`FasterRCNN` or ``MaskRCNN``, in evaluation mode.
        image: ``(3, H, W)`` in [0, 1], on the CPU: other devices do not wait for the clock.
        found: proposals of :func:`search`, for the first two.

    Raises:
        ValueError: proposals are missing, or are given to a detector that makes its own.
    """
    if needs_proposals(model) != (found is not None):
        wants = "needs proposals: give what search(image) returns" if found is None else "makes its own proposals"
        raise ValueError(f"{type(model).__name__} {wants}")
    watch = Stopwatch({} if found is None else {"proposals": found.seconds})
    if isinstance(model, RCNN):
        detections, unmoved = _rcnn(watch, model, image, found.boxes)
        proposals, passes = found.boxes, len(found.boxes)
    else:
        detections, unmoved, proposals = _whole_picture(watch, model, image, found and found.boxes)
        passes = 1
    seconds = {stage: watch.seconds[stage] for stage in STAGES if stage in watch.seconds}
    return Trace(detections, unmoved, proposals, passes, seconds)


def all_by_stages(models: Mapping[str, nn.Module], image: Tensor, max_proposals: int) -> dict[str, Trace]:
    """A picture through several detectors, one after the other.

    Selective search runs once: its proposals and its time go to all detectors that need them.

    Args:
        models: by key.
        image: ``(3, H, W)`` in [0, 1], on the CPU.
        max_proposals: of selective search, the first so many.
    """
    found = search(image, max_proposals) if any(map(needs_proposals, models.values())) else None
    return {key: by_stages(model, image, found if needs_proposals(model) else None) for key, model in models.items()}


def _rcnn(watch: Stopwatch, model: RCNN, image: Tensor, boxes: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A pass for every proposal: detections, and those of unmoved boxes."""
    config = model.config
    pool5 = watch("features", model.features, image, boxes, {"pool5"})["pool5"]  # (P, D)
    features = watch("heads", _fully_connected, model.network, pool5)
    scores = watch("heads", model.scores, features[config.svm_layer])  # (P, K)
    moved = watch("heads", model.regress, features[config.box_layer], boxes)  # (P, K, 4)
    found = watch("selection", _select, config, moved, scores, size_of(image))
    return found, _select(config, boxes, scores, size_of(image))


def _fully_connected(network: AlexNet, pool5: Tensor) -> dict[str, Tensor]:
    """All layers that may serve as features, ``(P, D)`` by name, computed in the same portions as in ``detect``."""
    rows = []
    for part in pool5.split(crops_at_once(network.config)):
        fc6 = network.classifier[:3](part)
        rows.append({"pool5": part, "fc6": fc6, "fc7": network.classifier[3:](fc6)})
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def _whole_picture(
    watch: Stopwatch, model: FastRCNN, image: Tensor, boxes: Tensor | None
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """One pass for the picture: detections, those of unmoved boxes, and the proposals, perhaps the network's own."""
    features, sizes = watch("features", _features, model, image)
    if boxes is None:
        regions = watch(
            "proposals", lambda: model.rpn.filter_proposals(model.rpn_outputs(features, sizes), sizes)[0]["boxes"]
        )
        boxes = resize_boxes(regions, sizes[0], size_of(image))
    else:
        regions = resize_boxes(boxes, size_of(image), sizes[0])
    heads, last = model.roi_heads, "selection"
    logits, deltas = watch("heads", heads.predict, features, [regions])
    found = watch("selection", _decide, heads.config, logits, deltas, regions, sizes[0])
    if isinstance(heads, MaskRoIHeads):
        last = "masks"
        found["masks"] = watch("masks", _masks, heads, features, found)
    (found,) = watch(last, model.postprocess, [found], [image], sizes)
    (unmoved,) = model.postprocess([_select(heads.config, regions, logits.softmax(dim=1), sizes[0])], [image], sizes)
    return found, unmoved, boxes


def _features(model: FastRCNN, image: Tensor) -> tuple[Tensor, list[Size]]:
    features, sizes = model.features([image])
    check_finite(features)
    return features, sizes


def _decide(config: RoIConfig, logits: Tensor, deltas: Tensor, regions: Tensor, size: Size) -> dict[str, Tensor]:
    """Probabilities and moved boxes, and of them the detections."""
    return _select(config, decode_boxes(regions, deltas, config.box_weights), logits.softmax(dim=1), size)


def _select(config: Any, boxes: Tensor, scores: Tensor, size: Size) -> dict[str, Tensor]:  # noqa: ANN401 - of either
    return select_detections(
        boxes,
        scores,
        size,
        score_threshold=config.score_threshold,
        nms_threshold=config.nms_threshold,
        max_detections=config.max_detections,
    )


def _masks(heads: MaskRoIHeads, features: Tensor, found: dict[str, Tensor]) -> Tensor:
    """The masks of the detections' classes, ``(N, m, m)``."""
    return mask_probabilities(heads.predict_masks(features, [found["boxes"]]), found["labels"], heads.config.mask_kind)
