"""``minircnn evaluate``: how good a detector is, on Toy Town or on the user's own images."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from minircnn.cli import common
from minircnn.cli import data as choice
from minircnn.cli.common import RefusedError, check_outputs, echo, with_json
from minircnn.cli.data import listed
from minircnn.files import write_atomically, write_json
from minircnn.shipped import DETECTORS

if TYPE_CHECKING:
    from torch import Tensor

    from minircnn.datasets.images import ImageDataset
    from minircnn.errors import ErrorReport
    from minircnn.evaluation import Result

RECALL_IOU = 0.5
ERRORS_IN_A_ROW, ERROR_SIDE = 5, 240  # of a drawing, and its pixels
TOY_TOWN_PROPOSALS = 300


Names = common.option(
    list[str],
    "Only these, with commas between them. With background first, such as background,pedestrian: what a .pth file of "
    "one's own tells apart, in the order of the labels.",
    default="all of them",
    metavar="NAMES",
)
NoRegression = common.option(bool, "Without the last box regression: boxes stay proposals.", "--no-regression")
CocoResults = common.option(Path, "Write the detections here, in COCO's format of results, a JSON file.")
Errors = common.option(
    Path, "Sort the errors, say what each kind costs, and draw the most confident ones of each here.", metavar="PNG"
)


def evaluate(
    context: typer.Context,
    detector: common.Detector,
    weights: common.Weights = None,
    data: choice.DataName = choice.TOYTOWN,
    root: choice.Root = None,
    annotations: choice.AnnotationsFile = None,
    split: choice.Split = None,
    classes: Names = None,
    drop_invalid: choice.DropInvalid = False,
    images: choice.FirstImages = None,
    max_proposals: common.MaxProposals = None,
    no_regression: NoRegression = False,
    device: common.Device = "cpu",
    json_file: common.JsonFile = None,
    coco_results: CocoResults = None,
    errors: Errors = None,
) -> None:
    """Measure a detector: average precision of boxes, and of masks, recall of its proposals, and time."""
    common.refuse_others(detector, context.params)
    wanted = choice.DataOptions(data, root, annotations, split, classes, drop_invalid)
    wanted.check(choice.MEASURE)
    file = common.detector_file(detector, weights)
    if errors and errors.suffix.lower() != ".png":
        raise RefusedError(f"--errors {errors}: they are drawn as PNG; let the name end in .png")
    check_outputs([("--json", json_file), ("--coco-results", coco_results), ("--errors", errors)], with_json(file))
    names = wanted.class_names if (wanted.class_names or [""])[0] == "background" else None
    wanted = replace(wanted, classes=None) if names else wanted  # they are the detector's, not those of a data set
    from minircnn import evaluation

    part, title = wanted.to_measure(images, masks := detector == "mask_rcnn")
    model = common.read_detector(detector, file, names).to(common.ready_device(device))
    both, left_out = common_classes(file, model.classes, part.classes)
    echo(*left_out)
    part = part.only(both[1:])
    targets = [part.load_target(index, encoded=True) for index in range(len(part))]
    most = wanted.max_proposals(max_proposals) or TOY_TOWN_PROPOSALS
    found, proposals, seconds = _look(model, part, most, regress=not no_regression)
    found = [relabeled(one, model.classes, both) for one in found]
    measure = partial(evaluation.evaluate, found, targets, classes=both)
    results = {kind: measure(kind=kind) for kind in ("boxes", "masks")[: 1 + masks]}
    voc = {year: measure(protocol=year).ap for year in ("voc2007", "voc2010") if data == "voc"}
    recall, name = _recall(proposals, targets), DETECTORS[detector][1].split(maxsplit=1)[1]
    echo(*_lines(f"{name} on {len(found)} images, {title}", results, voc, recall), f"seconds an image: {seconds:.3f}")
    _write_more(part, found, targets, coco_results, errors)
    if json_file:
        content = {
            "detector": detector,
            "weights": str(file),
            "data": title,
            "root": root and str(root),
            "annotations": annotations and str(annotations),
            "box_regression": not no_regression,
            "device": device,
            "images": len(targets),
            **{f"{'mask_' * (kind == 'masks')}result": _numbers(result) for kind, result in results.items()},
            **voc,
            "proposal_recall": {"iou": RECALL_IOU, "recall": recall},
            "seconds_an_image": seconds,
        }
        write_json(json_file, content)
        echo(f"written to {json_file}")


def _lines(title: str, results: dict[str, Result], voc: dict[str, float], recall: dict[str, float]) -> Iterator[str]:
    for kind, result in results.items():
        yield from f"{title}{f', {kind}' if len(results) > 1 else ''}: {result}\n".split("\n")
        yield f"AP {100 * result.ap:.1f} %   AP50 {100 * result.ap50:.1f} %   AP75 {100 * result.ap75:.1f} %"
    if voc:
        points, area = (f"{100 * ap:.1f} %" for ap in voc.values())
        yield f"as PASCAL VOC counts: AP {points} at 11 points (2007), {area} of the area (since 2010)"
    shares = ", ".join(f"{limit}: {100 * share:.1f} %" for limit, share in recall.items())
    yield f"recall of the first proposals at IoU {RECALL_IOU}: {shares}"


def _look(
    model: common.Model, data: ImageDataset, max_proposals: int, regress: bool
) -> tuple[list[common.Detections], list[Tensor], float]:
    """What a detector finds in each image, its proposals, and the seconds an image; selective search does not count."""
    from tqdm import tqdm

    from minircnn.selective_search import stored_proposals

    found, proposals, seconds = [], [], 0.0
    device = next(model.parameters()).device
    for index in tqdm(range(len(data)), unit="image", disable=None, leave=False):
        image, boxes = data.load_image(index), None
        if not hasattr(model, "propose"):
            (boxes,) = stored_proposals([(image, None)], max_proposals=max_proposals)
        start = time.perf_counter()
        found.append(common.detect_in(model, image, boxes, regress=regress))
        seconds += time.perf_counter() - start
        proposals.append(model.propose([image.to(device)])[0]["boxes"].cpu() if boxes is None else boxes)
    return found, proposals, seconds / len(data)


def _write_more(
    data: ImageDataset, found: list[common.Detections], targets: list[Any], results: Path | None, errors: Path | None
) -> None:
    """Detections as COCO has results; which errors there are and what they cost, and a drawing of some."""
    from minircnn.errors import find_errors
    from minircnn.evaluation import coco_results

    if results:
        ids = getattr(data, "category_ids", range(1, len(data.classes)))
        write_json(results, coco_results(found, data.image_ids, ids))
        echo(f"written to {results}")
    if errors:
        report = find_errors(found, targets, kind="masks" if data.masks else "boxes", classes=data.classes)
        echo(*str(report).split("\n"))
        if report.errors:
            write_atomically(errors, _draw_errors(data, found, targets, report))
            echo(f"written to {errors}")


def _draw_errors(
    data: ImageDataset, found: list[common.Detections], targets: list[dict[str, Any]], report: ErrorReport
) -> bytes:
    """A row for each kind of error with the most confident ones: the detection, dashed, and what it is about."""
    import torch

    from minircnn.errors import KINDS
    from minircnn.plotting import draw_png, make_drawing

    drawings, titles = [], []
    for kind in KINDS:
        errors = [error for error in report.errors if error.kind == kind][:ERRORS_IN_A_ROW]
        for error in errors:
            of_image = ((found, error.detection), (targets, error.object))
            shown = [(of[error.image], row) for of, row in of_image if row is not None]
            boxes = torch.stack([entry["boxes"][row] for entry, row in shown]).float()
            labels = torch.stack([entry["labels"][row] for entry, row in shown])
            dashed = torch.tensor([error.detection is not None, False][: len(shown)])
            image = data.load_image(error.image)
            top, left, bottom, right = around(boxes, image.shape[1:])
            objects = {"boxes": boxes - boxes.new_tensor([left, top] * 2), "labels": labels, "iscrowd": dashed}
            drawings.append(make_drawing(image[:, top:bottom, left:right], objects, ERROR_SIDE))
            score = f" {error.score:.2f}" if error.detection is not None else ""
            titles.append(f"{data.image_path(error.image).name}\n{kind}: {data.classes[error.label]}{score}")
        for _ in range(-len(errors) % ERRORS_IN_A_ROW if errors else 0):  # the next kind begins a row of its own
            nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
            drawings.append(make_drawing(torch.ones(3, ERROR_SIDE, ERROR_SIDE), nothing, ERROR_SIDE))
            titles.append("")
    return draw_png(drawings, data.classes, titles, columns=ERRORS_IN_A_ROW, names=False)


def around(boxes: Tensor, size: Sequence[int]) -> tuple[int, int, int, int]:
    """The square of an image (height, width) that shows boxes (N, 4) and as much again; smaller in a small image.

    Returns top, left, bottom and right.

    >>> import torch
    >>> around(torch.tensor([[40.0, 40.0, 60.0, 50.0]]), (100, 200)), around(torch.tensor([[0.0, 0, 20, 9]]), (30, 50))
    ((25, 30, 65, 70), (0, 0, 30, 40))
    """
    low, high = boxes[:, :2].amin(dim=0), boxes[:, 2:].amax(dim=0)
    side = round(2 * float((high - low).max()))
    room = low.new_tensor([size[1] - side, size[0] - side])
    left, top = ((low + high - side) / 2).round().minimum(room).clamp(min=0).int().tolist()
    return top, left, min(top + side, size[0]), min(left + side, size[1])


def _recall(proposals: Sequence[Tensor], targets: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The share of the objects that the first 10, the first 50 and all proposals of each image cover."""
    from minircnn.evaluation import proposal_recall

    most = max(map(len, proposals))
    limits = sorted({min(limit, most) for limit in (10, 50, most)})
    recall = proposal_recall(proposals, targets, RECALL_IOU, limits)
    return {str(limit): float(share) for limit, share in zip(limits, recall, strict=True)}


def _numbers(result: Result) -> dict[str, Any]:
    """All numbers of an evaluation, in [0, 1], for a JSON file."""
    return {**result.summary(), "classes": [asdict(row) for row in result.per_class.values()]}


def common_classes(weights: Path, known: Sequence[str], shown: Sequence[str]) -> tuple[list[str], list[str]]:
    """The classes that a detector knows and some images show, by name, and a sentence about the others, if any.

    If both have classes that the other has not, nobody can have meant this: it is refused.
    """
    both = [name for name in shown[1:] if name in known[1:]]
    if len(both) < min(len(known), len(shown)) - 1 or not both:
        advice = f"; name those that both have with --classes {','.join(both)}" if both else ""
        what = f"it knows {listed(known[1:])}, but these images show {listed(shown[1:])}"
        raise RefusedError(f"--weights {weights}: {what}{advice}")
    unknown = [name for name in shown if name not in known]
    absent = [name for name in known if name not in (*shown, "N/A")]  # a number of COCO's without a class
    why = "the detector does not know them" if unknown else "these images do not tell"
    left_out = [f"not measured, because {why}: {listed(unknown or absent)}"] if unknown or absent else []
    return ["background", *both], left_out


def relabeled(found: common.Detections, old: Sequence[str], new: Sequence[str]) -> common.Detections:
    """Detections with the labels of other classes; those of classes that are not there are left out."""
    import torch

    labels = torch.tensor([new.index(name) if name in new else 0 for name in old])[found["labels"]]
    rows = labels.nonzero()[:, 0]
    kept = {"boxes": found["boxes"][rows], "labels": labels[rows], "scores": found["scores"][rows]}
    return {**kept, "masks": [found["masks"][row] for row in rows.tolist()]} if "masks" in found else kept
