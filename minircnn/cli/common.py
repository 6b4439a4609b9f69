"""What all commands share: errors as one line, options, and which detector is meant. Nothing here waits for PyTorch."""

from __future__ import annotations

import math
import os
import shlex
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from minircnn.files import lacks_memory, printable
from minircnn.shipped import DETECTOR_WEIGHTS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

INTERRUPTED = 130  # what shells report of a program that Ctrl-C has ended
PUBLISHED = {"faster_rcnn": "fasterrcnn_resnet50_fpn", "mask_rcnn": "maskrcnn_resnet50_fpn"}
COCO = Path("coco")
ON_PROPOSALS = ("rcnn", "fast_rcnn")  # those of selective search

Model = Any  # one of the detectors
Detections = dict[str, Any]

# What is taken for an image in a folder. A file that is named may end as it likes.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".webp", ".avif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
_MARKS = (  # in the beginning of what this program writes
    *(b"tEXtSoftware\0minircnn", b"tEXtminircnn\0"),  # in each PNG
    *(b'<meta name="generator" content="minircnn', b"iteration,learning_rate,total,"),  # page of the demo; log
    *(b'{\n "detector": ', b'{\n "data": "', b'[\n {\n  "image_id": '),  # weights and numbers; a check; COCO's results
)

_JOINT = ("fast_rcnn", "faster_rcnn", "mask_rcnn")
_ONLY = {
    "max_proposals": ON_PROPOSALS,
    **dict.fromkeys(("images_per_batch", "min_size", "max_size", "scale_jitter", "schedule"), _JOINT),
    **dict.fromkeys(("mixed_precision", "csv", "evaluate_every"), _JOINT),
    **dict.fromkeys(("anchor_sizes", "aspect_ratios"), ("faster_rcnn", "mask_rcnn")),
}


class RefusedError(Exception):
    """What was asked for cannot be done as it was asked; the message says why, and what to do. Exit status 2."""


def echo(*lines: str, err: bool = False) -> None:
    """Print lines. Names in them, of files, classes and tensors, come from anywhere and do nothing to a terminal."""
    for line in lines:
        typer.echo(printable(line), err=err)


@contextmanager
def naming_memory() -> Iterator[None]:
    """Turn what Python, NumPy and PyTorch raise where there is no memory left into a ValueError that says so."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if lacks_memory(error):
            raise ValueError("there is not enough memory for this; smaller images and batches need less") from error
        raise


class OneLineErrors(TyperGroup):
    """Commands whose errors reach the user as one line ``Error: …``, not as a traceback.

    That goes for :class:`RefusedError` (exit status 2), for what the package raises by contract (exit status 1), for
    Ctrl-C, and for each warning. Anything else is a fault in the program and keeps its traceback.
    """

    def invoke(self, ctx: typer.Context) -> object:
        """Run the command that was asked for."""
        if hasattr(sys.stdout, "reconfigure"):  # names of files may hold letters that a terminal or a pipe cannot take
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            with warnings.catch_warnings(), naming_memory():
                warnings.showwarning = lambda message, *_: echo(f"Warning: {message}", err=True)
                return super().invoke(ctx)
        except RefusedError as error:
            message, status = f"Error: {error}", 2
        except BrokenPipeError:  # the reader of our output has seen enough
            raise
        except (ValueError, OSError, FloatingPointError) as error:
            of_system = isinstance(error, OSError) and error.strerror  # the file first, as in all messages
            words = f"{error.filename or 'standard output'}: {error.strerror}" if of_system else error
            message, status = f"Error: {words}", 1
        except BrokenExecutor:
            message, status = "Error: a worker process was ended, perhaps for lack of memory; try it again", 1
        except KeyboardInterrupt:
            hint = " With --resume the same command goes on from there." if ctx.invoked_subcommand == "train" else ""
            message, status = f"Stopped.{hint}", INTERRUPTED
        echo(*message.split("\n"), err=True)
        raise typer.Exit(status)


_METAVARS = {int: "N", float: "X", Path: "FILE", str: "NAME"}


def option(kind: type, help: str, *names: str, default: bool | str = True, **more: Any) -> Any:  # noqa: ANN401
    """The type of an option that may be left out; ``default`` is what the help says of it then."""
    more = {"metavar": _METAVARS.get(kind), "show_default": default, **more}
    return Annotated[kind | None, typer.Option(*names, help=help, **more)]


Detector = Annotated[Literal[tuple(DETECTOR_WEIGHTS)], typer.Argument(metavar="DETECTOR")]
Device = option(str, "Where to compute: cpu, cuda, cuda:1, mps …", metavar="DEVICE")
JsonFile = option(Path, "Also write all numbers here.", "--json")
MaxProposals = option(
    int, "Of rcnn and fast_rcnn, of selective search.", default="300; 2000 of data other than Toy Town", min=1
)
Weights = option(
    Path,
    "The detector, by default that of data/weights. Of faster_rcnn and mask_rcnn also coco, the published one for 80 "
    "classes on photographs, fetched once; or a .pth file of torchvision's model with resnet50_fpn.",
    metavar="FILE|coco",
)


def as_command(command: str, options: Mapping[str, Any]) -> str:
    """How to ask for these options in a shell, to be noted beside what comes out.

    >>> as_command("train rcnn", {"learning_rate": 0.002, "out": "my file", "resume": True, "from_scratch": False})
    "minircnn train rcnn --learning-rate 0.002 --out 'my file' --resume"
    """
    words = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {shlex.quote(str(value))}")
        for name, value in options.items()
        if value is not None and value is not False
    ]
    return " ".join(["minircnn", command, *words])


def refuse_others(detector: str, options: Mapping[str, Any]) -> None:
    """Refuse options that another detector has, and this one has not."""
    for name, detectors in _ONLY.items():
        if options.get(name) not in (None, False) and detector not in detectors:
            option = f"--{name.replace('_', '-')}"
            raise RefusedError(f"{option}: {detector} has no such option, only {', '.join(detectors)}; leave it out")


def ready_device(name: str) -> torch.device:
    """The device of that name, after a number has been put there and taken back; else a :class:`RefusedError`."""
    import torch

    try:
        device = torch.device(name)
        torch.ones((), device=device).item()
    except Exception as error:  # each kind of device has its own way to be missing
        reason = (str(error) or type(error).__name__).splitlines()[0].partition(". ")[0].rstrip(".")
        raise RefusedError(f"--device {name}: not on this machine ({reason}); try --device cpu") from error
    return device


def find_weights(option: str, path: Path | None, default: Path, command: str) -> Path:
    """The file to read weights from: what the user named by this option, or the default; the command trains such."""
    if path is None and not default.is_file():
        raise FileNotFoundError(f"{default}: not there; train it with {command}, or name another file with {option}")
    if path is not None and not path.is_file():
        raise FileNotFoundError(f"{option} {path}: there is no such file; check the path, or train it with {command}")
    return path or default


def detector_file(detector: str, weights: Path | None) -> Path:
    """The file that a detector is read from, or "coco"; for errors see :func:`find_weights`."""
    if weights == COCO and detector in PUBLISHED:
        return COCO
    return find_weights("--weights", weights, DETECTOR_WEIGHTS[detector], f"`minircnn train {detector}`")


def read_detector(detector: str, file: Path, classes: Sequence[str] | None = None) -> Model:
    """The detector of a :func:`detector_file`, all of it from there: nothing is drawn at random.

    ``classes`` are the names that the user gave for a file that has none; for one that names them they are refused.
    """
    from minircnn import published
    from minircnn.weights import load

    if detector in PUBLISHED and (file == COCO or file.suffix in (".pth", ".pt")):
        return getattr(published, PUBLISHED[detector])(classes, str(file), new_layers=False)
    model = load(file, detector)
    if classes:
        raise RefusedError(f"--classes: {file} names its classes: {', '.join(model.classes)}; leave the option out")
    return model


def score_threshold(detector: str, given: float | None = None) -> float:
    """The score above which objects are shown: what the user wants, or 0 for an SVM's margin, 0.5 for a probability."""
    threshold = given if given is not None else (0.0 if detector == "rcnn" else 0.5)
    if not (math.isfinite(threshold) if detector == "rcnn" else 0 <= threshold <= 1):
        wanted = "number; 0 is where an SVM decides" if detector == "rcnn" else "probability, from 0 to 1"
        raise RefusedError(f"--threshold {threshold}: this is no {wanted}")
    return threshold


def set_threshold(model: Model, threshold: float) -> None:
    """Let a detector give what scores more than this."""
    part = getattr(model, "roi_heads", model)
    part.config = replace(part.config, score_threshold=threshold)


def detect_in(model: Model, image: Tensor, proposals: Tensor | None = None, **options: bool) -> Detections:
    """Detections, on the CPU, in an image (3, H, W), perhaps with proposals (P, 4); masks as run-length encodings."""
    device = next(model.parameters()).device
    detect = getattr(model, "detect_encoded", model.detect)
    (found,) = detect([image.to(device)], *([] if proposals is None else [[proposals.to(device)]]), **options)
    return {name: value if isinstance(value, list) else value.cpu() for name, value in found.items()}


# ----------------------------------------------------------------------------------------------------------- outputs


def of_weights(out: Path) -> list[tuple[str, Path]]:
    """What a training writes: the weights, the JSON beside them, and on its way the state to go on from."""
    return [("--out", out.with_suffix(ending)) for ending in (out.suffix, ".json", ".checkpoint")]


def files_beside(out: Path) -> dict[str, Path]:
    """What a training that is measured on its way writes beside its weights."""
    names = {"best": "best.safetensors", "record": "best.json", "curve": "curve.png", "predictions": "predictions.png"}
    return {what: out.with_name(f"{out.stem}_{name}") for what, name in names.items()}


def with_json(weights: Path | None) -> list[Path]:
    """What is read with a file of weights: itself, and the JSON beside it."""
    return [weights, weights.with_suffix(".json")] if weights else []


def check_outputs(outputs: Iterable[tuple[str, Path | None]], inputs: Iterable[Path] = ()) -> None:
    """Refuse files, each with its option, that cannot be written, or that would be written over something.

    That is an input, another output, or what this program has not written. Names are compared as the file system does.
    Devices and pipes lose nothing. Folders that are missing will be made.
    """
    taken = {_identity(path): f"{path}, which is read" for path in inputs if path.is_file()}
    for option, path in outputs:
        if path is None or (path.exists() and not path.is_file() and not path.is_dir()):
            continue  # a device or a pipe
        _check_place(option, path)
        if lost := taken.get(_identity(path)):
            raise RefusedError(f"{option} {path}: would be written over {lost}; name another place")
        taken[_identity(path)] = f"what {option} writes"
        if path.exists() and not _is_ours(path):
            what = "was not written by this program, and would be lost"
            raise RefusedError(f"{option}: {path} is there, {what}; move it, or name another place")


def check_folder(option: str, path: Path, or_else: str = "") -> None:
    """Refuse a file, or a name that only a file would have, in place of a folder."""
    if not path.is_dir() and (path.exists() or path.suffix.lower() in (*SUFFIXES, ".html", ".htm")):
        raise RefusedError(f"{option} {path}: this is the name of a file; name a folder{or_else}")


def _check_place(option: str, path: Path) -> None:
    if path.is_dir():
        raise RefusedError(f"{option} {path}: this is a folder; name a file in it, or another place")
    place = next(place for place in (path, *Path(os.path.realpath(path)).parents) if place.exists())
    if not os.access(place, os.W_OK) or not (place.is_dir() or place == path):
        raise RefusedError(f"{option} {path}: {place} may not be written into; name another place")


def _identity(path: Path) -> tuple[int, int] | str:
    """The same for all names of one file, also of one that is still to be made."""
    try:
        status = path.stat()
        return status.st_dev, status.st_ino
    except FileNotFoundError:
        return os.path.realpath(path).casefold()


def _is_ours(path: Path) -> bool:
    """Whether this program has written a file, as each kind of its files says; with an empty one nothing is lost."""
    if path.suffix == ".checkpoint":
        return True
    with suppress(OSError):
        path = path.with_suffix(".json") if path.suffix == ".safetensors" else path  # which says what weights they are
        with path.open("rb") as file:
            beginning = file.read(2000)
        return not beginning or any(mark in beginning for mark in _MARKS)
    return False
