"""``minircnn evaluate``: one sub-command for each detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minircnn.cli.class_names import Common, common_classes
from minircnn.cli.data_options import (
    TOYTOWN,
    AnnotationsFile,
    Chosen,
    DataName,
    DataOptions,
    DropInvalid,
    Root,
    SplitToMeasure,
    pictures_to_measure,
)
from minircnn.cli.errors import echo
from minircnn.cli.options import Device, JsonFile, ready_device
from minircnn.cli.outputs import Output, check_outputs
from minircnn.cli.timing import timed_detections, timed_proposals, timed_regression
from minircnn.cli.weights import Weights, WeightsOrCoco, detector_files, read_detector
from minircnn.files import write_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from minircnn.evaluation import Result

    Detections = dict[str, Tensor]
    Samples = Sequence[tuple[Tensor, dict[str, Any]]]

app = typer.Typer(help="Measure how good a detector is, on Toy Town or on your own pictures.", no_args_is_help=True)

RECALL_IOU = 0.5
TOY_TOWN_PROPOSALS = 300


ClassNames = Annotated[
    list[str] | None,
    typer.Option(
        "--classes",
        metavar="NAMES",
        help="Only these, with commas between them. With background first, such as background,pedestrian: what a .pth "
        "file of one's own tells apart, in the order of the labels.",
        show_default="all of them",
    ),
]
Proposals = Annotated[
    int | None,
    typer.Option(
        "--max-proposals",
        min=1,
        metavar="N",
        help="The first N proposals of each picture; 2000 of data other than Toy Town.",
        show_default="300",
    ),
]
Pictures = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="The first N pictures.", show_default="all of them")
]


# The options are read from the context, which has them by name, so that only one function need handle them.


@app.command()
def rcnn(
    context: typer.Context,
    weights: Weights = None,
    data: DataName = TOYTOWN,
    root: Root = None,
    annotations: AnnotationsFile = None,
    split: SplitToMeasure = None,
    classes: ClassNames = None,
    drop_invalid: DropInvalid = False,
    pictures: Pictures = None,
    max_proposals: Proposals = None,
    device: Device = "cpu",
    json_file: JsonFile = None,
) -> None:
    """Measure R-CNN: average precision without and with box regression, recall of the proposals, and time."""
    given = Given.of("rcnn", "R-CNN", context.params)
    from minircnn.rcnn import load_rcnn

    _evaluate_on_proposals(given, (load_rcnn,))


@app.command("fast_rcnn")
def fast_rcnn(
    context: typer.Context,
    weights: Weights = None,
    data: DataName = TOYTOWN,
    root: Root = None,
    annotations: AnnotationsFile = None,
    split: SplitToMeasure = None,
    classes: ClassNames = None,
    drop_invalid: DropInvalid = False,
    pictures: Pictures = None,
    max_proposals: Proposals = None,
    device: Device = "cpu",
    json_file: JsonFile = None,
) -> None:
    """Measure Fast R-CNN: average precision without and with box regression, recall of the proposals, and time."""
    given = Given.of("fast_rcnn", "Fast R-CNN", context.params)
    from minircnn.fast_rcnn import load_fast_rcnn

    _evaluate_on_proposals(given, (load_fast_rcnn,))


@app.command("faster_rcnn")
def faster_rcnn(
    context: typer.Context,
    weights: WeightsOrCoco = None,
    data: DataName = TOYTOWN,
    root: Root = None,
    annotations: AnnotationsFile = None,
    split: SplitToMeasure = None,
    classes: ClassNames = None,
    drop_invalid: DropInvalid = False,
    pictures: Pictures = None,
    device: Device = "cpu",
    json_file: JsonFile = None,
) -> None:
    """Measure Faster R-CNN: average precision, recall of its own proposals, and time."""
    given = Given.of("faster_rcnn", "Faster R-CNN", context.params)
    from minircnn.faster_rcnn import load_faster_rcnn
    from minircnn.published import fasterrcnn_resnet50_fpn

    _evaluate_proposer(given, (load_faster_rcnn, fasterrcnn_resnet50_fpn))


@app.command("mask_rcnn")
def mask_rcnn(
    context: typer.Context,
    weights: WeightsOrCoco = None,
    data: DataName = TOYTOWN,
    root: Root = None,
    annotations: AnnotationsFile = None,
    split: SplitToMeasure = None,
    classes: ClassNames = None,
    drop_invalid: DropInvalid = False,
    pictures: Pictures = None,
    device: Device = "cpu",
    json_file: JsonFile = None,
) -> None:
    """Measure Mask R-CNN: average precision of boxes and of masks, recall of its own proposals, and time."""
    given = Given.of("mask_rcnn", "Mask R-CNN", context.params)
    from minircnn.mask_rcnn import load_mask_rcnn
    from minircnn.published import maskrcnn_resnet50_fpn

    _evaluate_proposer(given, (load_mask_rcnn, maskrcnn_resnet50_fpn), masks=True)


@dataclass(frozen=True)
class Given:
    """What was asked for: a detector by its command and by its name, and the options of its command."""

    command: str
    name: str
    weights: Path | None
    data: DataOptions
    pictures: int | None
    max_proposals: int
    device: str
    json_file: Path | None

    @classmethod
    def of(cls, command: str, name: str, options: dict[str, Any]) -> Given:
        """From the options of a command, by name, after a look at what can be refused without PyTorch."""
        data, json_file = DataOptions.of(options), options["json_file"]
        read = [*data.files(to_learn=False), *detector_files(command, options["weights"])]
        check_outputs([Output("--json", json_file)] if json_file else [], read)
        max_proposals = data.max_proposals(options.get("max_proposals")) or TOY_TOWN_PROPOSALS
        others = (max_proposals, options["device"], json_file)
        return cls(command, name, options["weights"], data, options["pictures"], *others)


@dataclass(frozen=True)
class Ready:
    """What was asked for, at hand.

    Attributes:
        weights: the detector's file.
        device: where it is.
        model: the detector.
        chosen: the pictures.
        common: the classes that the detector and the pictures share.
        samples: ``(image, target)`` pairs; only the images count.
        targets: with the labels of ``common.classes``.
    """

    weights: Path
    device: torch.device
    model: Any
    chosen: Chosen
    common: Common
    samples: Samples
    targets: list[dict[str, Any]]

    def evaluate(self, found: Sequence[Detections], kind: str = "boxes", protocol: str = "coco") -> Result:
        """Average precision of the detector's own detections, one entry for each picture."""
        from minircnn.evaluation import evaluate

        found = [self.common.of_detections(one) for one in found]
        return evaluate(found, self.targets, classes=self.common.classes, kind=kind, protocol=protocol)

    def voc_average_precisions(self, found: Sequence[Detections]) -> dict[str, float]:
        """AP at IoU 0.5 as PASCAL VOC counts it, of its own pictures; of others nothing."""
        if self.chosen.options.name != "voc":
            return {}
        return {protocol: self.evaluate(found, protocol=protocol).ap for protocol in ("voc2007", "voc2010")}


def _ready(given: Given, sources: tuple[Any, ...], masks: bool = False) -> Ready:
    """Refuses what can be refused, and reads the detector and the pictures.

    Args:
        given: the options.
        sources: of the weights, see :func:`minircnn.cli.weights.read_detector`.
        masks: whether the targets are to hold masks.
    """
    from torch.utils.data import Subset

    data, names = given.data, given.data.class_names
    if names and names[0] == "background":  # no class of a data set: these are the detector's
        data = replace(data, classes=None)
    else:
        names = None
    chosen = pictures_to_measure(data, given.pictures, masks)
    device = ready_device(given.device)
    weights, model = read_detector(given.command, given.weights, names, *sources)
    model.to(device)
    common = common_classes(weights, model.classes, chosen.data.classes)
    if common.left_out:
        echo(common.left_out)
    targets = [_encoded(common.of_target(chosen.data.load_target(index))) for index in range(chosen.count)]
    return Ready(weights, device, model, chosen, common, Subset(chosen.data, range(chosen.count)), targets)


def _encoded(target: dict[str, Any]) -> dict[str, Any]:
    """A target whose masks, if it has some, are run-length encoded: those of all images lie in memory together."""
    from minircnn.evaluation import encode_masks

    return {**target, "masks": encode_masks(target["masks"])} if "masks" in target else target


def _evaluate_on_proposals(given: Given, sources: tuple[Any, ...]) -> None:
    """Measures a detector that is given the proposals of selective search; for the arguments see :func:`_ready`."""
    from minircnn.evaluation import proposal_recall

    ready = _ready(given, sources)
    proposals, search = timed_proposals(ready.samples, given.max_proposals)

    found, found_unmoved, seconds = timed_regression(ready.model, ready.device, ready.samples, proposals)
    moved, unmoved, voc = ready.evaluate(found), ready.evaluate(found_unmoved), ready.voc_average_precisions(found)
    recall = float(proposal_recall(proposals, ready.targets, RECALL_IOU, [given.max_proposals])[0])
    echo(*f"{given.name} on {len(proposals)} pictures, {ready.chosen.title}: {moved}\n".split("\n"))
    for name, result in (("without box regression", unmoved), ("with box regression", moved)):
        echo(f"{name:<22}  {average_precisions(result)}")
    _say_voc(voc)
    echo(f"recall of the first {given.max_proposals} proposals at IoU {RECALL_IOU}: {100 * recall:.1f} %")
    echo(f"seconds a picture: proposals {search}; network and the rest {seconds:.3f}")
    if given.json_file:
        content = {
            **_description(given, ready),
            "max_proposals": given.max_proposals,
            "without_box_regression": as_numbers(unmoved),
            "with_box_regression": as_numbers(moved),
            **voc,
            "proposal_recall": {"iou": RECALL_IOU, "recall": recall},
            "seconds_a_picture": {"proposals": search.seconds, "network_and_rest": seconds},
        }
        write_json(given.json_file, content)
        echo(f"written to {given.json_file}")


def _evaluate_proposer(given: Given, sources: tuple[Any, ...], masks: bool = False) -> None:
    """Measures a detector that makes its own proposals; for the arguments see :func:`_ready`."""
    from minircnn.evaluation import proposal_recall

    ready = _ready(given, sources, masks)
    model, nothing = ready.model, [None] * len(ready.targets)

    def propose(image: Tensor, _: None) -> Detections:
        return model.propose([image.to(ready.device)])[0]

    def detect(image: Tensor, _: None) -> Detections:
        return (model.detect_encoded if masks else model.detect)([image.to(ready.device)])[0]

    proposals, proposing = timed_detections(propose, ready.samples, nothing, "proposals")
    found, seconds = timed_detections(detect, ready.samples, nothing, "detections")
    kinds = ("boxes", "masks") if masks else ("boxes",)
    results, voc = {kind: ready.evaluate(found, kind) for kind in kinds}, ready.voc_average_precisions(found)
    boxes, limits = [one["boxes"] for one in proposals], [10, 50, model.rpn.config.post_nms_top_n[1]]
    recalls = [float(recall) for recall in proposal_recall(boxes, ready.targets, RECALL_IOU, limits)]
    for kind, result in results.items():
        of = f", {kind}" if masks else ""
        echo(*f"{given.name} on {len(found)} pictures, {ready.chosen.title}{of}: {result}\n".split("\n"))
        echo(average_precisions(result))
    _say_voc(voc)
    shares = ", ".join(f"{limit}: {100 * recall:.1f} %" for limit, recall in zip(limits, recalls, strict=True))
    echo(f"recall of the first proposals at IoU {RECALL_IOU}: {shares}")
    echo(f"seconds a picture: {seconds:.3f}; features and proposals alone: {proposing:.3f}")
    if given.json_file:
        content = {
            **_description(given, ready),
            "result": as_numbers(results["boxes"]),
            **voc,
            **({"mask_result": as_numbers(results["masks"])} if masks else {}),
            "proposal_recall": {"iou": RECALL_IOU, "recall": dict(zip(map(str, limits), recalls, strict=True))},
            "seconds_a_picture": {"all": seconds, "features_and_proposals": proposing},
        }
        write_json(given.json_file, content)
        echo(f"written to {given.json_file}")


def _say_voc(numbers: dict[str, float]) -> None:
    if numbers:
        echo(
            f"as PASCAL VOC counts: AP {100 * numbers['voc2007']:.1f} % at 11 points (2007), "
            f"{100 * numbers['voc2010']:.1f} % of the area (since 2010)"
        )


def _description(given: Given, ready: Ready) -> dict[str, Any]:
    """What was measured, for a JSON file."""
    name = "Toy Town" if given.data.name == TOYTOWN else given.data.name
    places = {"root": given.data.root, "annotations": given.data.annotations}
    return {
        "detector": given.command,
        "weights": str(ready.weights),
        "data": f"{name}, {ready.chosen.split}",
        **{key: str(place) for key, place in places.items() if place},
        "device": given.device,
        "pictures": len(ready.targets),
    }


def average_precisions(result: Result) -> str:
    """The three that everybody quotes."""
    return f"AP {100 * result.ap:.1f} %   AP50 {100 * result.ap50:.1f} %   AP75 {100 * result.ap75:.1f} %"


def as_numbers(result: Result) -> dict[str, Any]:
    """All numbers of an evaluation, in [0, 1], for a JSON file."""
    return {**result.summary(), "classes": [asdict(row) for row in result.per_class.values()]}
