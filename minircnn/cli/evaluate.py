"""``minircnn evaluate``: one sub-command for each detector."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minircnn.cli.errors import RefusedError
from minircnn.cli.options import (
    Device,
    JsonFile,
    MaxProposals,
    check_count,
    check_new_file,
    find_weights,
    ready_device,
    write_json,
)

if TYPE_CHECKING:
    from torch import Tensor

    from minircnn.evaluation import Result

    Detections = dict[str, Tensor]
    Samples = Sequence[tuple[Tensor, dict[str, Any]]]

app = typer.Typer(help="Measure how good a detector is, on Toy Town.", no_args_is_help=True)

RECALL_IOU = 0.5


class Split(str, Enum):
    """The parts of Toy Town that nothing learns from."""

    val = "val"
    test = "test"


@app.command()
def rcnn(
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The detector; by default data/weights/rcnn.safetensors."),
    ] = None,
    split: Annotated[Split, typer.Option(help="Which part of Toy Town.")] = Split.test,
    pictures: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The first N pictures.", show_default="all of them")
    ] = None,
    max_proposals: MaxProposals = 300,
    device: Device = "cpu",
    json_file: JsonFile = None,
) -> None:
    """Measure R-CNN: average precision without and with box regression, recall of the proposals, and time."""
    from torch.utils.data import Subset

    from minircnn.datasets import ToyTown
    from minircnn.evaluation import evaluate, proposal_recall
    from minircnn.rcnn import RCNN_WEIGHTS, load_rcnn

    if json_file:
        check_new_file("--json", json_file)
    data = ToyTown(split.value, masks=False)
    count = check_count(pictures, data, f"Toy Town's {split.value} split")
    target_device = ready_device(device)
    weights = find_weights("--weights", weights, RCNN_WEIGHTS, "`minircnn train rcnn`")
    model = load_rcnn(weights).to(target_device)
    check_classes(weights, model.classes, data.classes)
    samples, targets = Subset(data, range(count)), [data.load_target(index) for index in range(count)]
    proposals, search = timed_proposals(samples, max_proposals)

    def measure(regress: bool) -> tuple[Result, float]:
        def detect(image: Tensor, boxes: Tensor) -> Detections:
            return model.detect([image.to(target_device)], [boxes], regress=regress)[0]

        found, seconds = timed_detections(detect, samples, proposals, f"box regression: {'yes' if regress else 'no'}")
        return evaluate(found, targets, classes=data.classes), seconds

    unmoved, _ = measure(regress=False)
    moved, seconds = measure(regress=True)
    recall = float(proposal_recall(proposals, targets, RECALL_IOU, [max_proposals])[0])
    typer.echo(f"R-CNN on {count} pictures, Toy Town's {split.value} split: {moved}\n")
    for name, result in (("without box regression", unmoved), ("with box regression", moved)):
        typer.echo(f"{name:<22}  {average_precisions(result)}")
    typer.echo(f"recall of the first {max_proposals} proposals at IoU {RECALL_IOU}: {100 * recall:.1f} %")
    typer.echo(f"seconds a picture: proposals {search}; network and the rest {seconds:.3f}")
    if json_file:
        about = {"detector": "rcnn", "weights": str(weights), "data": f"Toy Town, {split.value}", "device": device}
        content = {
            "pictures": count,
            "max_proposals": max_proposals,
            "without_box_regression": as_numbers(unmoved),
            "with_box_regression": as_numbers(moved),
            "proposal_recall": {"iou": RECALL_IOU, "recall": recall},
            "seconds_a_picture": {"proposals": search.seconds, "network_and_rest": seconds},
        }
        write_json(json_file, about | content)
        typer.echo(f"written to {json_file}")


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
    detect: Callable[[Tensor, Tensor], Detections], samples: Samples, proposals: Sequence[Tensor], name: str
) -> tuple[list[Detections], float]:
    """What a detector finds in each picture, on the CPU, and how many seconds a picture it took; reading is not timed.

    Args:
        detect: makes detections of a picture (3, H, W) and its proposals (P, 4).
        samples: ``(image, target)`` pairs; the targets are not looked at.
        proposals: of each picture.
        name: stands beside the progress bar.
    """
    from tqdm import tqdm

    found, seconds = [], 0.0
    for index, boxes in enumerate(tqdm(proposals, desc=name, unit="picture", disable=None, leave=False)):
        image = samples[index][0]
        start = time.perf_counter()
        found.append({key: value.cpu() for key, value in detect(image, boxes).items()})
        seconds += time.perf_counter() - start
    return found, seconds / len(samples)


def check_classes(weights: Path, known: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuses a detector of other classes: its numbers would say nothing."""
    if tuple(known) != tuple(wanted):
        raise RefusedError(
            f"--weights {weights}: it knows {', '.join(known[1:])}, but these pictures show {', '.join(wanted[1:])}"
        )


def average_precisions(result: Result) -> str:
    """The three that everybody quotes."""
    return f"AP {100 * result.ap:.1f} %   AP50 {100 * result.ap50:.1f} %   AP75 {100 * result.ap75:.1f} %"


def as_numbers(result: Result) -> dict[str, Any]:
    """All numbers of an evaluation, in [0, 1], for a JSON file."""
    return {**result.summary(), "classes": [asdict(row) for row in result.per_class.values()]}
