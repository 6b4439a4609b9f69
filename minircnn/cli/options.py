"""Options that several commands share, and what has to be true of them before any work is done."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minircnn.cli.errors import RefusedError

if TYPE_CHECKING:
    import torch

ENDINGS = (".safetensors", ".npz", ".pth", ".pt")  # of files of weights
LARGEST_SIDE = 4096  # pixels, of --min-size: beyond it an image fills the memory, and objects are larger than anchors
LARGEST_SEED = 2**32 - 1  # what all of PyTorch, NumPy and scikit-learn take; the trainings multiply it

Device = Annotated[str, typer.Option(metavar="DEVICE", help="Where to compute: cpu, cuda, cuda:1, mps …")]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write all numbers here.")]
MaxProposals = Annotated[int, typer.Option(min=1, metavar="N", help="The first N proposals of each picture.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run of the same settings that was stopped.")]
Seed = Annotated[
    int | None,
    typer.Option(min=0, max=LARGEST_SEED, metavar="N", help="Of all that is drawn at random.", show_default="0"),
]


def positive(value: float | None) -> float | None:
    """For options that must be a number above 0, or not given."""
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise typer.BadParameter(f"{value} is no positive number")
    return value


def probability(value: float) -> float:
    """For options that must be from 0 to 1."""
    if not 0 <= value <= 1:
        raise typer.BadParameter(f"{value} is no probability, from 0 to 1")
    return value


def given(**options: Any) -> dict[str, Any]:  # noqa: ANN401 - of whatever type each is
    """The options that the user gave. What he did not is None here, and keeps the default of the settings.

    >>> given(pictures=10, epochs=None)
    {'pictures': 10}
    """
    return {name: value for name, value in options.items() if value is not None}


def as_command(command: str, options: Mapping[str, Any]) -> str:
    """How to ask for these options in a shell, to be noted beside what comes out.

    >>> as_command("train rcnn", {"learning_rate": 0.002, "out": "my file", "resume": True})
    "minircnn train rcnn --learning-rate 0.002 --out 'my file' --resume"
    """
    words = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {shlex.quote(str(value))}")
        for name, value in options.items()
    ]
    return " ".join(["minircnn", command, *words])


def ready_device(name: str) -> torch.device:
    """The device of that name, after a number has been put there and taken back.

    Raises:
        RefusedError: it is not there.
    """
    import torch

    try:
        device = torch.device(name)
        torch.ones((), device=device).item()
    except Exception as error:  # each kind of device has its own way to be missing
        reason = (str(error) or type(error).__name__).splitlines()[0].partition(". ")[0].rstrip(".")
        raise RefusedError(f"--device {name}: not on this machine ({reason}); try --device cpu") from error
    return device


def new_weights(out: Path | None, default: Path) -> Path:
    """Where training will write: a file that the user named, or that which comes with the project.

    Raises:
        RefusedError: it has another ending, or the project's folder is not there.
    """
    if out is None and not default.parent.is_dir():
        raise RefusedError(f"--out FILE: say where to write; {default.parent} is only in a clone of the project")
    if out is not None and out.is_dir():
        raise RefusedError(f"--out {out}: this is a folder; name a file in it")
    if out is not None and out.suffix != ".safetensors":
        raise RefusedError(f"--out {out}: weights are written as .safetensors; give the file that ending")
    return out or default


def find_weights(option: str, path: Path | None, default: Path, command: str) -> Path:
    """The file to read weights from: what the user named, or what comes with the project.

    Args:
        option: how it is called.
        path: what he named.
        default: what comes with the project.
        command: what trains such weights.

    Raises:
        FileNotFoundError: it is not there.
    """
    if path is None and not default.is_file():
        raise FileNotFoundError(f"{default}: not there; train it with {command}, or name another file with {option}")
    if path is not None and not path.is_file():
        raise FileNotFoundError(f"{option} {path}: there is no such file; check the path, or train it with {command}")
    path = path or default
    if path.suffix not in ENDINGS:
        raise ValueError(f"{path}: weights end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    return path


def check_count(pictures: int | None, data: Sequence[Any], name: str) -> int:
    """How many pictures of a data set to take: all, or as many as were asked for if there are so many."""
    if pictures is not None and pictures > len(data):
        raise RefusedError(f"--pictures {pictures}: {name} has only {len(data)}")
    return pictures or len(data)
