"""How long detectors take for a picture, as ``minircnn evaluate`` measures it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Detections = dict[str, Any]
    Samples = Sequence[tuple[Tensor, dict[str, Any]]]


@dataclass(frozen=True)
class SearchTime:
    """How long the search for proposals took.

    Attributes:
        computed: for how many pictures it was done; for the others its results were in the cache.
        pictures: how many there are.
        seconds: for each picture that was searched, on average; None if none was.
    """

    computed: int
    pictures: int
    seconds: float | None

    def __str__(self) -> str:
        if self.seconds is None:
            return "from the cache, not timed"
        if self.computed == self.pictures:
            return f"{self.seconds:.3f}"
        return f"{self.seconds:.3f} ({self.pictures - self.computed} of {self.pictures} from the cache, not timed)"


def timed_proposals(samples: Samples, max_proposals: int) -> tuple[list[Tensor], SearchTime]:
    """The proposals of each picture, from the cache or computed: one picture after the other, to time them."""
    from tqdm import tqdm

    from minircnn.cache import Cache
    from minircnn.selective_search import stored_proposals

    times: list[float] = []

    class TimedCache(Cache):
        def get(self, kind: str, parts: Any, compute: Callable[[], Any]) -> dict[str, Tensor]:  # noqa: ANN401
            def timed() -> Any:  # noqa: ANN401
                start = time.perf_counter()
                result = compute()
                times.append(time.perf_counter() - start)
                return result

            return super().get(kind, parts, timed)

    cache, found = TimedCache(), []
    for index in tqdm(range(len(samples)), desc="proposals", unit="picture", disable=None, leave=False):
        found += stored_proposals([samples[index]], cache=cache, max_proposals=max_proposals)
    return found, SearchTime(len(times), len(samples), sum(times) / len(times) if times else None)


def timed_detections(
    detect: Callable[[Tensor, Any], Detections], samples: Samples, proposals: Sequence[Any], name: str
) -> tuple[list[Detections], float]:
    """What a detector finds in each picture, on the CPU, and how many seconds a picture it took; reading is not timed.

    Args:
        detect: makes detections of a picture (3, H, W) and its proposals (P, 4).
        samples: ``(image, target)`` pairs; the targets are not looked at.
        proposals: of each picture; what ``detect`` is given.
        name: stands beside the progress bar.
    """
    from tqdm import tqdm

    found, seconds = [], 0.0
    for index, boxes in enumerate(tqdm(proposals, desc=name, unit="picture", disable=None, leave=False)):
        image = samples[index][0]
        start = time.perf_counter()
        found.append(on_cpu(detect(image, boxes)))
        seconds += time.perf_counter() - start
    return found, seconds / len(samples)


def timed_regression(
    model: Any,  # noqa: ANN401 - an RCNN or a FastRCNN
    device: torch.device,
    samples: Samples,
    proposals: Sequence[Tensor],
) -> tuple[list[Detections], list[Detections], float]:
    """What a detector finds with and without box regression, and how many seconds a picture it took with it.

    Args:
        model: the detector.
        device: where it is; detections come to the CPU.
        samples: ``(image, target)`` pairs; the targets are not looked at.
        proposals: ``(P, 4)`` for each picture.
    """
    from tqdm import tqdm

    from minircnn.rcnn import RCNN

    moved, unmoved, seconds = [], [], 0.0
    for index, boxes in enumerate(tqdm(proposals, desc="detections", unit="picture", disable=None, leave=False)):
        image = samples[index][0]
        start = time.perf_counter()
        image, boxes = image.to(device), boxes.to(device)
        if isinstance(model, RCNN):  # its passes take nearly all of the time; one for each proposal serves both
            features = model.features(image, boxes, {model.config.svm_layer, model.config.box_layer})
            moved.append(on_cpu(model.judge(features, boxes, image.shape[1:])))
        else:
            moved.append(on_cpu(model.detect([image], [boxes])[0]))
        seconds += time.perf_counter() - start
        if isinstance(model, RCNN):
            unmoved.append(on_cpu(model.judge(features, boxes, image.shape[1:], regress=False)))
        else:
            unmoved.append(on_cpu(model.detect([image], [boxes], regress=False)[0]))
    return moved, unmoved, seconds / len(samples)


def on_cpu(found: Detections) -> Detections:
    """Detections of an image where all can read them; run-length encoded masks are no tensors, and are there."""
    return {name: value if isinstance(value, list) else value.cpu() for name, value in found.items()}
