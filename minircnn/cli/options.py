"""What all commands share: errors as one line, options, and which detector is meant. Nothing here waits for PyTorch."""

from __future__ import annotations

import math
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from minircnn.files import lacks_memory, printable
from minircnn.shipped import DETECTOR_WEIGHTS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Detections = dict[str, Any]

ENDINGS = (".safetensors", ".npz", ".pth", ".pt")  # of files of weights
LARGEST_SIDE = 4096  # pixels, of --min-size: beyond it an image fills the memory, and objects are larger than anchors
LARGEST_SEED = 2**32 - 1  # what all of PyTorch, NumPy and scikit-learn take; the trainings multiply it
INTERRUPTED = 130  # what shells report of a program that Ctrl-C has ended
PUBLISHED = {"faster_rcnn": "fasterrcnn_resnet50_fpn", "mask_rcnn": "maskrcnn_resnet50_fpn"}
COCO = Path("coco")

_JOINT = ("fast_rcnn", "faster_rcnn", "mask_rcnn")
_ONLY = {
    "features": ("rcnn",),
    "max_proposals": ("rcnn", "fast_rcnn"),
    **dict.fromkeys(("images_per_batch", "min_size", "schedule", "mixed_precision", "csv", "evaluate_every"), _JOINT),
}


# ------------------------------------------------------------------------------------------------------------- errors


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

    That goes for :class:`RefusedError` (exit status 2) and for what the package raises by contract (exit status 1):
    ``ValueError``, also for lack of memory, ``OSError`` and ``FloatingPointError``. Ctrl-C
    and a worker process that was killed print a line, too, and so does each warning. Anything else is a fault in the
    program and keeps its traceback.
    """

    def main(self, *arguments: object, **options: object) -> object:
        """Run the program; that its own help could not be printed, on a full disk, is a line, too."""
        try:
            return super().main(*arguments, **options)
        except OSError as error:
            sys.exit(f"Error: {_in_words(error)}")

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
            message, status = f"Error: {_in_words(error)}", 1
        except BrokenExecutor:
            message, status = "Error: a worker process was ended, perhaps for lack of memory; try it again", 1
        except KeyboardInterrupt:
            hint = " With --resume the same command goes on from there." if ctx.invoked_subcommand == "train" else ""
            message, status = f"Stopped.{hint}", INTERRUPTED
        echo(*message.split("\n"), err=True)
        raise typer.Exit(status)


def _in_words(error: Exception) -> str:
    """What an error says; of the operating system's the file first, as in all messages, and not its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'standard output'}: {error.strerror}"
    return str(error)


# ------------------------------------------------------------------------------------------------------------ options


def positive(value: float | None) -> float | None:
    """Refuse what is no number above 0, if anything is given."""
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise typer.BadParameter(f"{value} is no positive number")
    return value


Detector = Annotated[
    Literal[tuple(DETECTOR_WEIGHTS)],  # the one table of their names that needs no PyTorch
    typer.Argument(metavar="DETECTOR"),
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="Where to compute: cpu, cuda, cuda:1, mps …")]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write all numbers here.")]
MaxProposals = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Of rcnn and fast_rcnn: the first N of selective search; 2000 of data other than Toy Town.",
        show_default="300",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|coco",
        help="The detector; by default the one in data/weights. Of faster_rcnn and mask_rcnn also coco, the published "
        "one, which knows 80 classes on photographs and is fetched once, and a .pth file of torchvision's model with "
        "resnet50_fpn.",
    ),
]


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


# ----------------------------------------------------------------------------------------------------------- detectors


def find_weights(option: str, path: Path | None, default: Path, command: str) -> Path:
    """The file to read weights from: what the user named by this option, or the default; the command trains such.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: Its name has another ending than files of weights.
    """
    if path is None and not default.is_file():
        raise FileNotFoundError(f"{default}: not there; train it with {command}, or name another file with {option}")
    if path is not None and not path.is_file():
        raise FileNotFoundError(f"{option} {path}: there is no such file; check the path, or train it with {command}")
    path = path or default
    if path.suffix not in ENDINGS:
        raise ValueError(f"{path}: weights end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    return path


def detector_file(detector: str, weights: Path | None) -> Path:
    """The file that a detector is read from, or "coco"; for errors see :func:`find_weights`."""
    if weights == COCO and detector in PUBLISHED:
        return COCO
    return find_weights("--weights", weights, DETECTOR_WEIGHTS[detector], f"`minircnn train {detector}`")


def read_detector(detector: str, file: Path, classes: Sequence[str] | None) -> Any:  # noqa: ANN401 - any detector
    """The detector of a :func:`detector_file`, all of it from there: nothing is drawn at random.

    Args:
        detector: Its name.
        file: A path, or coco.
        classes: The names that the user gave for a file that has none.

    Raises:
        RefusedError: Classes are given for a file that names them.
        WeightsError: The file is damaged, or holds something else.
    """
    from minircnn import published
    from minircnn.weights import load

    if detector in PUBLISHED and (file == COCO or file.suffix in (".pth", ".pt")):
        return getattr(published, PUBLISHED[detector])(classes, str(file), new_layers=False)
    model = load(file, detector)
    if classes:
        raise RefusedError(f"--classes: {file} names its classes: {', '.join(model.classes)}; leave the option out")
    return model


def detect_in(model: Any, image: Tensor, proposals: Tensor | None = None, **options: bool) -> Detections:  # noqa: ANN401
    """Detections of a model, on the CPU, in an image (3, H, W) in [0, 1]; masks as run-length encodings.

    Proposals (P, 4) are for the detectors that are given them; options are those of ``detect``.
    """
    device = next(model.parameters()).device
    detect = getattr(model, "detect_encoded", model.detect)
    (found,) = detect([image.to(device)], *([] if proposals is None else [[proposals.to(device)]]), **options)
    return {name: value if isinstance(value, list) else value.cpu() for name, value in found.items()}
