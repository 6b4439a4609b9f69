"""``minircnn evaluate``: how good a detector is, on Toy Town or on the user's own images."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minircnn.cli.data import (
    TOYTOWN,
    AnnotationsFile,
    DataName,
    DataOptions,
    DropInvalid,
    FirstImages,
    Root,
    SplitToMeasure,
    listed,
)
from minircnn.cli.options import (
    Detector,
    Device,
    JsonFile,
    MaxProposals,
    RefusedError,
    Weights,
    detect_in,
    detector_file,
    echo,
    read_detector,
    ready_device,
    refuse_others,
)
from minircnn.cli.outputs import Output, check_outputs, with_json
from minircnn.files import write_json
from minircnn.shipped import DETECTORS

if TYPE_CHECKING:
    from torch import Tensor

    from minircnn.evaluation import Result

RECALL_IOU = 0.5
TOY_TOWN_PROPOSALS = 300


def evaluate(
    context: typer.Context,
    detector: Detector,
    weights: Weights = None,
    data: DataName = TOYTOWN,
    root: Root = None,
    annotations: AnnotationsFile = None,
    split: SplitToMeasure = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="Only these, with commas between them. With background first, such as background,pedestrian: what a "
            ".pth file of one's own tells apart, in the order of the labels.",
            show_default="all of them",
        ),
    ] = None,
    drop_invalid: DropInvalid = False,
    images: FirstImages = None,
    max_proposals: MaxProposals = None,
    no_regression: Annotated[
        bool, typer.Option("--no-regression", help="Without the last box regression: boxes stay proposals.")
    ] = False,
    device: Device = "cpu",
    json_file: JsonFile = None,
) -> None:
    """Measure a detector: average precision of boxes, and of masks, recall of its proposals, and time."""
    refuse_others(detector, context.params)
    wanted, file = DataOptions(data, root, annotations, split, classes, drop_invalid), detector_file(detector, weights)
    check_outputs([Output("--json", json_file)] if json_file else [], [*wanted.files(to_learn=False), *with_json(file)])
    names = wanted.class_names if (wanted.class_names or [""])[0] == "background" else None
    wanted = replace(wanted, classes=None) if names else wanted  # they are the detector's, not those of a data set
    from minircnn import evaluation

    chosen = wanted.to_measure(images, masks := detector == "mask_rcnn")
    model = read_detector(detector, file, names).to(ready_device(device))
    both, left_out = common_classes(file, model.classes, chosen.data.classes)
    echo(*left_out)
    targets = [_target(chosen.data, index, both) for index in range(chosen.count)]
    max_proposals = wanted.max_proposals(max_proposals) or TOY_TOWN_PROPOSALS
    found, proposals, seconds = _look(model, chosen.samples(), max_proposals, regress=not no_regression)
    found = [relabeled(one, model.classes, both) for one in found]
    measure = partial(evaluation.evaluate, found, targets, classes=both)
    results = {kind: measure(kind=kind) for kind in (("boxes", "masks") if masks else ("boxes",))}
    voc = {one: measure(protocol=one).ap for one in ("voc2007", "voc2010") if data == "voc"}
    title = f"{DETECTORS[detector][1].split(maxsplit=1)[1]} on {len(found)} images, {chosen.title}"
    for kind, result in results.items():
        echo(*f"{title}{f', {kind}' if masks else ''}: {result}\n".split("\n"))
        echo(f"AP {100 * result.ap:.1f} %   AP50 {100 * result.ap50:.1f} %   AP75 {100 * result.ap75:.1f} %")
    if voc:
        percent = [f"{100 * ap:.1f} %" for ap in voc.values()]
        echo(f"as PASCAL VOC counts: AP {percent[0]} at 11 points (2007), {percent[1]} of the area (since 2010)")
    recall = _recall(proposals, targets)
    shares = ", ".join(f"{limit}: {100 * share:.1f} %" for limit, share in recall.items())
    echo(f"recall of the first proposals at IoU {RECALL_IOU}: {shares}", f"seconds an image: {seconds:.3f}")
    if json_file:
        content = {
            "detector": detector,
            "weights": str(file),
            "data": chosen.title,
            **{key: str(place) for key, place in (("root", root), ("annotations", annotations)) if place},
            "box_regression": not no_regression,
            "device": device,
            "images": len(targets),
            "result": _numbers(results["boxes"]),
            **voc,
            **({"mask_result": _numbers(results["masks"])} if masks else {}),
            "proposal_recall": {"iou": RECALL_IOU, "recall": recall},
            "seconds_an_image": seconds,
        }
        write_json(json_file, content)
        echo(f"written to {json_file}")


def _look(
    model: Any,  # noqa: ANN401 - any detector
    samples: Any,  # noqa: ANN401 - pairs
    max_proposals: int,
    regress: bool,
) -> tuple[list[dict[str, Any]], list[Tensor], float]:
    """What a detector finds in each image, its proposals, and the seconds an image; selective search does not count."""
    from tqdm import tqdm

    from minircnn.selective_search import stored_proposals

    found, proposals, seconds = [], [], 0.0
    device = next(model.parameters()).device
    for index in tqdm(range(len(samples)), unit="image", disable=None, leave=False):
        image, boxes = samples[index][0], None
        if not hasattr(model, "propose"):
            (boxes,) = stored_proposals([samples[index]], max_proposals=max_proposals)
        start = time.perf_counter()
        found.append(detect_in(model, image, boxes, regress=regress))
        seconds += time.perf_counter() - start
        proposals.append(model.propose([image.to(device)])[0]["boxes"].cpu() if boxes is None else boxes)
    return found, proposals, seconds / len(samples)


def _recall(proposals: Sequence[Tensor], targets: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The share of the objects that the first 10, the first 50 and all proposals of each image cover."""
    from minircnn.evaluation import proposal_recall

    most = max(map(len, proposals))
    limits = sorted({min(limit, most) for limit in (10, 50, most)})
    recall = proposal_recall(proposals, targets, RECALL_IOU, limits)
    return {str(limit): float(share) for limit, share in zip(limits, recall, strict=True)}


def _target(data: Any, index: int, classes: Sequence[str]) -> dict[str, Any]:  # noqa: ANN401 - a data set
    """What is in an image; masks are encoded, for those of all images lie in memory together."""
    from minircnn.evaluation import encode_masks

    target = relabeled(data.load_target(index), data.classes, classes)
    return {**target, "masks": encode_masks(target["masks"])} if "masks" in target else target


def _numbers(result: Result) -> dict[str, Any]:
    """All numbers of an evaluation, in [0, 1], for a JSON file."""
    return {**result.summary(), "classes": [asdict(row) for row in result.per_class.values()]}


def common_classes(weights: Path, known: Sequence[str], shown: Sequence[str]) -> tuple[list[str], list[str]]:
    """The classes that a detector knows and some images show, by name, and a sentence about the others, if any.

    Raises:
        RefusedError: Both have classes that the other has not: then nobody can have meant this.
    """
    both = [name for name in shown[1:] if name in known[1:]]
    if len(both) < min(len(known), len(shown)) - 1 or not both:
        advice = f"; name those that both have with --classes {','.join(both)}" if both else ""
        raise RefusedError(
            f"--weights {weights}: it knows {listed(known[1:])}, but these images show {listed(shown[1:])}{advice}"
        )
    unknown = [name for name in shown if name not in known]
    absent = [name for name in known if name not in (*shown, "N/A")]  # a number of COCO's without a class
    why = "the detector does not know them" if unknown else "these images do not tell"
    left_out = [f"not measured, because {why}: {listed(unknown or absent)}"] if unknown or absent else []
    return ["background", *both], left_out


def relabeled(values: Mapping[str, Any], old: Sequence[str], new: Sequence[str]) -> dict[str, Any]:
    """A target or detections with the labels of other classes; objects of classes that are not there are left out."""
    import torch

    if list(old) == list(new):
        return dict(values)
    table = torch.tensor([new.index(name) if name in new else 0 for name in old])
    labels: Tensor = table[values["labels"]]
    kept = labels > 0
    chosen = {name: value[kept] for name, value in values.items() if isinstance(value, torch.Tensor)}
    if isinstance(values.get("masks"), list):  # run-length encodings
        chosen["masks"] = [values["masks"][index] for index in kept.nonzero()[:, 0].tolist()]
    return {**values, **chosen, "labels": labels[kept]}
