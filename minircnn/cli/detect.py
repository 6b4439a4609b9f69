"""``minircnn detect``: one sub-command for each detector."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from minircnn.cli.errors import RefusedError, echo, naming_memory
from minircnn.cli.options import Device, JsonFile, MaxProposals, probability, ready_device
from minircnn.cli.pictures import Plan, make_plan
from minircnn.cli.timing import on_cpu
from minircnn.cli.weights import Weights, WeightsOrCoco, detector_files, read_detector
from minircnn.files import write_atomically, write_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from minircnn.cli.drawing import Drawing

    Detections = dict[str, Any]

BY_DEFAULT = "mask_rcnn"
FOUND = Path("detections.png")


class _MaskRCNNByDefault(TyperGroup):
    """``minircnn detect PICTURE``: whoever names no detector gets the last one."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """Puts it in front, if no argument is a detector's name."""
        if args and not {*args} & {*self.commands, "--help"}:
            args = [BY_DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    help="Find objects in your own pictures. Without a detector's name it is mask_rcnn that does it.",
    cls=_MaskRCNNByDefault,
    no_args_is_help=True,
)

# readable: what may not be read is left out like other pictures that cannot be.
Pictures = Annotated[
    list[Path], typer.Argument(metavar="PICTURE", help="Picture files, or folders of them.", readable=False)
]
OutPng = Annotated[
    Path,
    typer.Option(metavar="PNG", help="A file that ends in .png and shows all pictures, or a folder for one PNG each."),
]

ClassNames = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="NAMES",
        help="What a .pth file of one's own tells apart, in the order of the labels, with commas between: "
        "background,pedestrian. Such files hold no names.",
        show_default="COCO's",
    ),
]

Probability = Annotated[
    float, typer.Option(metavar="P", callback=probability, help="Show what is more probable than this.")
]


@app.command()
def rcnn(
    pictures: Pictures,
    out: OutPng = FOUND,
    weights: Weights = None,
    threshold: Annotated[
        float, typer.Option(metavar="MARGIN", help="Show what scores more; a margin of an SVM, no probability.")
    ] = 0.0,
    max_proposals: MaxProposals = 300,
    device: Device = "cpu",
    json_file: JsonFile = None,
) -> None:
    """Find objects with R-CNN.

    A line for each object says the picture, the class, the score, and the box as x1 y1 x2 y2 in pixels. Pictures that
    cannot be read are named and left out; the exit status is then 1.
    """
    if not math.isfinite(threshold):
        raise RefusedError(f"--threshold {threshold}: this is no number; 0 is where an SVM decides")
    plan = start("rcnn", weights, pictures, out, json_file)
    from minircnn.rcnn import load_rcnn

    target_device = ready_device(device)
    weights, model = read_detector("rcnn", weights, None, load_rcnn)
    model.to(target_device)
    model.config = replace(model.config, score_threshold=threshold)
    about = {"detector": "rcnn", "weights": str(weights), "threshold": threshold, "max_proposals": max_proposals}
    detect_all(plan, _on_proposals(model, target_device, max_proposals), model.classes, about)


@app.command("fast_rcnn")
def fast_rcnn(
    pictures: Pictures,
    out: OutPng = FOUND,
    weights: Weights = None,
    threshold: Probability = 0.5,
    max_proposals: MaxProposals = 300,
    device: Device = "cpu",
    json_file: JsonFile = None,
) -> None:
    """Find objects with Fast R-CNN.

    A line for each object says the picture, the class, the probability, and the box as x1 y1 x2 y2 in pixels. Pictures
    that cannot be read are named and left out; the exit status is then 1.
    """
    plan = start("fast_rcnn", weights, pictures, out, json_file)
    from minircnn.fast_rcnn import load_fast_rcnn

    weights, model = read_detector("fast_rcnn", weights, None, load_fast_rcnn)
    about = _set_up(model, "fast_rcnn", weights, threshold, device)
    about["max_proposals"] = max_proposals
    detect_all(plan, _on_proposals(model, ready_device(device), max_proposals), model.classes, about)


@app.command("faster_rcnn")
def faster_rcnn(
    pictures: Pictures,
    out: OutPng = FOUND,
    weights: WeightsOrCoco = None,
    classes: ClassNames = None,
    threshold: Probability = 0.5,
    device: Device = "cpu",
    json_file: JsonFile = None,
) -> None:
    """Find objects with Faster R-CNN; what is printed and written is as with Fast R-CNN."""
    plan = start("faster_rcnn", weights, pictures, out, json_file)
    from minircnn.faster_rcnn import load_faster_rcnn
    from minircnn.published import fasterrcnn_resnet50_fpn

    weights, model = read_detector("faster_rcnn", weights, _split(classes), load_faster_rcnn, fasterrcnn_resnet50_fpn)
    about = _set_up(model, "faster_rcnn", weights, threshold, device)
    target_device = ready_device(device)
    detect_all(plan, lambda image: model.detect([image.to(target_device)])[0], model.classes, about)


@app.command("mask_rcnn")
def mask_rcnn(
    pictures: Pictures,
    out: OutPng = FOUND,
    weights: WeightsOrCoco = None,
    classes: ClassNames = None,
    threshold: Probability = 0.5,
    device: Device = "cpu",
    json_file: JsonFile = None,
) -> None:
    """Find objects with Mask R-CNN, and outline them; the JSON file holds masks as COCO's run-length encoding.

    What is printed is as with Fast R-CNN.
    """
    plan = start("mask_rcnn", weights, pictures, out, json_file)
    from minircnn.mask_rcnn import load_mask_rcnn
    from minircnn.published import maskrcnn_resnet50_fpn

    weights, model = read_detector("mask_rcnn", weights, _split(classes), load_mask_rcnn, maskrcnn_resnet50_fpn)
    about = _set_up(model, "mask_rcnn", weights, threshold, device)
    target_device = ready_device(device)
    detect_all(plan, lambda image: model.detect_encoded([image.to(target_device)])[0], model.classes, about)


def _split(classes: str | None) -> list[str] | None:
    return [name.strip() for name in classes.split(",")] if classes else None


def _set_up(model: Any, detector: str, weights: Path, threshold: float, device: str) -> dict[str, Any]:  # noqa: ANN401
    """Moves a detector to its device and lets it find what is above a probability; returns what it is, for JSON."""
    model.to(ready_device(device))
    model.roi_heads.config = replace(model.roi_heads.config, score_threshold=threshold)
    return {"detector": detector, "weights": str(weights), "threshold": threshold}


def _on_proposals(model: Any, device: torch.device, max_proposals: int) -> Callable[[Tensor], Detections]:  # noqa: ANN401
    """How a detector that is given proposals finds what is in a picture."""
    from minircnn.selective_search import selective_search

    def find(image: Tensor) -> Detections:
        return model.detect([image.to(device)], [selective_search(image, max_proposals=max_proposals)])[0]

    return find


def start(detector: str, weights: Path | None, pictures: Sequence[Path], out: Path, json_file: Path | None) -> Plan:
    """What to do, after what can be refused without PyTorch; ends the command if there is nothing to do."""
    plan = make_plan(pictures, out, json_file, named=out != FOUND, inputs=detector_files(detector, weights))
    for path, reason in plan.skipped:
        _complain(path, reason)
    if not plan.pictures:
        raise typer.Exit(1)
    return plan


def detect_all(plan: Plan, find: Callable[[Tensor], Detections], classes: Sequence[str], about: dict[str, Any]) -> None:
    """Looks at each picture, prints and draws what is there, and writes what the plan says.

    Args:
        plan: what to read and to write.
        find: detections of a picture (3, H, W), best first.
        classes: names by label.
        about: goes into the JSON file.

    Raises:
        typer.Exit: with status 1, after all else is done, if something was skipped.
    """
    from minircnn.cli.drawing import GRID_SIDE, LONGEST_SIDE, draw_grid, draw_one

    grid = not plan.targets and len(plan.pictures) > 1
    skipped, records, drawings = list(plan.skipped), [], []
    for index, path in enumerate(plan.pictures):
        try:
            with naming_memory():
                record, drawing = _look_at(path, find, classes, GRID_SIDE if grid else LONGEST_SIDE)
        except (OSError, ValueError) as error:
            skipped.append((path, str(error)))
            _complain(*skipped[-1])
            continue
        png = plan.targets[index] if plan.targets else plan.out
        records.append({**record, "png": str(png)})
        _print(record)
        drawings.append(drawing)
        if plan.targets:
            write_atomically(png, draw_one(drawings.pop(), classes))
    if drawings:
        write_atomically(plan.out, draw_grid(drawings, classes) if grid else draw_one(drawings[0], classes))
    if records:
        echo(f"written to {plan.out}")
    if records and plan.json_file:
        left_out = [{"picture": str(path), "reason": reason} for path, reason in skipped]
        write_json(plan.json_file, {**about, "pictures": records, "skipped": left_out})
        echo(f"written to {plan.json_file}")
    if skipped:
        raise typer.Exit(1)


def _look_at(
    path: Path, find: Callable[[Tensor], Detections], classes: Sequence[str], longest_side: int
) -> tuple[dict[str, Any], Drawing]:
    """What is in an image, for the JSON file and ready to be drawn; the large image itself is not kept."""
    from minircnn.cli.drawing import make_drawing
    from minircnn.datasets.images import read_image

    image = read_image(path)
    found = on_cpu(find(image))
    return _as_record(path, image, found, classes), make_drawing(path, image, found, longest_side)


def _as_record(path: Path, image: Tensor, found: Detections, classes: Sequence[str]) -> dict[str, Any]:
    """A picture's detections as JSON holds them; boxes in pixels of the upright picture."""
    rows = zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True)
    objects = [{"class": classes[label], "label": label, "score": score, "box": box} for label, score, box in rows]
    if "masks" in found:
        for one, encoded in zip(objects, found["masks"], strict=True):
            one["segmentation"] = {**encoded, "counts": encoded["counts"].decode("ascii")}
    return {"picture": str(path), "height": image.shape[1], "width": image.shape[2], "detections": objects}


def _print(record: dict[str, Any]) -> None:
    """A line for each object of a picture, or one that says that there is none."""
    name = record["picture"]
    for row in record["detections"]:
        box = " ".join(f"{value:.1f}" for value in row["box"])
        echo(f"{name}: {row['class']} {row['score']:.2f} at {box}")
    if not record["detections"]:
        echo(f"{name}: nothing found")


def _complain(path: Path, reason: str) -> None:
    """One line about what is left out; the name comes once, also where the reason begins with it."""
    reason = " ".join(reason.removeprefix(f"{path}: ").split())
    echo(f"{path}: skipped: {reason}", err=True)
