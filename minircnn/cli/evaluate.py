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
)
from minircnn.files import write_json

if TYPE_CHECKING:
    import torch
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


Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The detector; by default the one in data/weights."),
]
SplitOption = Annotated[Split, typer.Option("--split", help="Which part of Toy Town.")]
Pictures = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="The first N pictures.", show_default="all of them")
]


@app.command()
def rcnn(
    weights: Weights = None,
    split: SplitOption = Split.test,
    pictures: Pictures = None,
    max_proposals: MaxProposals = 300,
    device: Device = "cpu",
    json_file: JsonFile = None,
) -> None:
    """Measure R-CNN: average precision without and with box regression, recall of the proposals, and time."""
    from minircnn.rcnn import RCNN_WEIGHTS, load_rcnn

    given = Given("rcnn", "R-CNN", weights, split, pictures, max_proposals, device, json_file)
    _evaluate_on_proposals(given, RCNN_WEIGHTS, load_rcnn)


@app.command("fast_rcnn")
def fast_rcnn(
    weights: Weights = None,
    split: SplitOption = Split.test,
    pictures: Pictures = None,
    max_proposals: MaxProposals = 300,
    device: Device = "cpu",
    json_file: JsonFile = None,
) -> None:
    """Measure Fast R-CNN: average precision without and with box regression, recall of the proposals, and time."""
    from minircnn.fast_rcnn import FAST_RCNN_WEIGHTS, load_fast_rcnn

    given = Given("fast_rcnn", "Fast R-CNN", weights, split, pictures, max_proposals, device, json_file)
    _evaluate_on_proposals(given, FAST_RCNN_WEIGHTS, load_fast_rcnn)


@app.command("faster_rcnn")
def faster_rcnn(
    weights: Weights = None,
    split: SplitOption = Split.test,
    pictures: Pictures = None,
    device: Device = "cpu",
    json_file: JsonFile = None,
) -> None:
    """Measure Faster R-CNN: average precision, recall of its own proposals, and time."""
    from minircnn.faster_rcnn import FASTER_RCNN_WEIGHTS, load_faster_rcnn

    given = Given("faster_rcnn", "Faster R-CNN", weights, split, pictures, None, device, json_file)
    _evaluate_proposer(given, FASTER_RCNN_WEIGHTS, load_faster_rcnn)


@app.command("mask_rcnn")
def mask_rcnn(
    weights: Weights = None,
    split: SplitOption = Split.test,
    pictures: Pictures = None,
    device: Device = "cpu",
    json_file: JsonFile = None,
) -> None:
    """Measure Mask R-CNN: average precision of boxes and of masks, recall of its own proposals, and time."""
    from minircnn.mask_rcnn import MASK_RCNN_WEIGHTS, load_mask_rcnn

    given = Given("mask_rcnn", "Mask R-CNN", weights, split, pictures, None, device, json_file)
    _evaluate_proposer(given, MASK_RCNN_WEIGHTS, load_mask_rcnn, masks=True)


@dataclass(frozen=True)
class Given:
    """What was asked for: a detector by its command and by its name, and the options of its command."""

    command: str
    name: str
    weights: Path | None
    split: Split
    pictures: int | None
    max_proposals: int | None
    device: str
    json_file: Path | None


@dataclass(frozen=True)
class Ready:
    """What was asked for, at hand."""

    weights: Path
    device: torch.device
    model: Any
    classes: Sequence[str]
    samples: Samples
    targets: list[dict[str, Any]]


def _ready(given: Given, default: Path, load: Callable[[Path], Any], masks: bool = False) -> Ready:
    """Refuses what can be refused, and reads the detector and the pictures.

    Args:
        given: the options.
        default: the weights that come with the project.
        load: reads a detector from a file.
        masks: whether the targets are to hold masks.
    """
    from torch.utils.data import Subset

    from minircnn.datasets import ToyTown

    if given.json_file:
        check_new_file("--json", given.json_file)
    data = ToyTown(given.split.value, masks=masks)
    count = check_count(given.pictures, data, f"Toy Town's {given.split.value} split")
    device = ready_device(given.device)
    weights = find_weights("--weights", given.weights, default, f"`minircnn train {given.command}`")
    model = load(weights).to(device)
    check_classes(weights, model.classes, data.classes)
    targets = [data.load_target(index) for index in range(count)]
    return Ready(weights, device, model, data.classes, Subset(data, range(count)), targets)


def _evaluate_on_proposals(given: Given, default: Path, load: Callable[[Path], Any]) -> None:
    """Measures a detector that is given the proposals of selective search; for the arguments see :func:`_ready`."""
    from minircnn.evaluation import evaluate, proposal_recall

    ready = _ready(given, default, load)
    proposals, search = timed_proposals(ready.samples, given.max_proposals)

    def measure(regress: bool) -> tuple[Result, float]:
        def detect(image: Tensor, boxes: Tensor) -> Detections:
            return ready.model.detect([image.to(ready.device)], [boxes], regress=regress)[0]

        name = f"box regression: {'yes' if regress else 'no'}"
        found, seconds = timed_detections(detect, ready.samples, proposals, name)
        return evaluate(found, ready.targets, classes=ready.classes), seconds

    unmoved, _ = measure(regress=False)
    moved, seconds = measure(regress=True)
    recall = float(proposal_recall(proposals, ready.targets, RECALL_IOU, [given.max_proposals])[0])
    typer.echo(f"{given.name} on {len(proposals)} pictures, Toy Town's {given.split.value} split: {moved}\n")
    for name, result in (("without box regression", unmoved), ("with box regression", moved)):
        typer.echo(f"{name:<22}  {average_precisions(result)}")
    typer.echo(f"recall of the first {given.max_proposals} proposals at IoU {RECALL_IOU}: {100 * recall:.1f} %")
    typer.echo(f"seconds a picture: proposals {search}; network and the rest {seconds:.3f}")
    if given.json_file:
        content = {
            **_description(given, ready),
            "max_proposals": given.max_proposals,
            "without_box_regression": as_numbers(unmoved),
            "with_box_regression": as_numbers(moved),
            "proposal_recall": {"iou": RECALL_IOU, "recall": recall},
            "seconds_a_picture": {"proposals": search.seconds, "network_and_rest": seconds},
        }
        write_json(given.json_file, content)
        typer.echo(f"written to {given.json_file}")


def _evaluate_proposer(given: Given, default: Path, load: Callable[[Path], Any], masks: bool = False) -> None:
    """Measures a detector that makes its own proposals; for the arguments see :func:`_ready`."""
    from minircnn.evaluation import evaluate, proposal_recall
    from minircnn.mask_rcnn import binary_masks

    ready = _ready(given, default, load, masks)
    model, nothing = ready.model, [None] * len(ready.targets)

    def propose(image: Tensor, _: None) -> Detections:
        return model.propose([image.to(ready.device)])[0]

    def detect(image: Tensor, _: None) -> Detections:
        found = model.detect([image.to(ready.device)])[0]
        return binary_masks(found) if masks else found

    proposals, proposing = timed_detections(propose, ready.samples, nothing, "proposals")
    found, seconds = timed_detections(detect, ready.samples, nothing, "detections")
    kinds = ("boxes", "masks") if masks else ("boxes",)
    results = {kind: evaluate(found, ready.targets, classes=ready.classes, kind=kind) for kind in kinds}
    boxes, limits = [one["boxes"] for one in proposals], [10, 50, model.rpn.config.after_nms[1]]
    recalls = [float(recall) for recall in proposal_recall(boxes, ready.targets, RECALL_IOU, limits)]
    for kind, result in results.items():
        of = f", {kind}" if masks else ""
        typer.echo(f"{given.name} on {len(found)} pictures, Toy Town's {given.split.value} split{of}: {result}\n")
        typer.echo(average_precisions(result))
    shares = ", ".join(f"{limit}: {100 * recall:.1f} %" for limit, recall in zip(limits, recalls, strict=True))
    typer.echo(f"recall of the first proposals at IoU {RECALL_IOU}: {shares}")
    typer.echo(f"seconds a picture: {seconds:.3f}; features and proposals alone: {proposing:.3f}")
    if given.json_file:
        content = {
            **_description(given, ready),
            "result": as_numbers(results["boxes"]),
            **({"mask_result": as_numbers(results["masks"])} if masks else {}),
            "proposal_recall": {"iou": RECALL_IOU, "recall": dict(zip(map(str, limits), recalls, strict=True))},
            "seconds_a_picture": {"all": seconds, "features_and_proposals": proposing},
        }
        write_json(given.json_file, content)
        typer.echo(f"written to {given.json_file}")


def _description(given: Given, ready: Ready) -> dict[str, Any]:
    """What was measured, for a JSON file."""
    return {
        "detector": given.command,
        "weights": str(ready.weights),
        "data": f"Toy Town, {given.split.value}",
        "device": given.device,
        "pictures": len(ready.targets),
    }


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
