"""What every training begins with: options, the pre-trained network, pictures and proposals, and what is said."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minircnn.cli.errors import RefusedError
from minircnn.cli.options import find_weights

if TYPE_CHECKING:
    from torch import Tensor

    from minircnn.alexnet import AlexNet

OutFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The .safetensors file to write; a .json file beside it says what it is. "
        "By default that in data/weights, which comes with the project.",
    ),
]


Network = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The pre-trained AlexNet; by default that of data/weights.")
]
FromScratch = Annotated[bool, typer.Option("--from-scratch", help="Begin with random weights instead.")]
PicturesToLearnFrom = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="The first N training pictures.", show_default="all of them")
]
ProposalsToLearnFrom = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Of each picture, the first N.", show_default="300")
]


def say(message: str) -> None:
    """Prints a line, of several processes only in the main one."""
    from minircnn.training import is_main

    if is_main():
        typer.echo(message)


def tell_of_unfinished(out: Path, resume: bool) -> None:
    """Says what happens to the state of an earlier run that was stopped, if it is not what one would expect."""
    unfinished = out.with_suffix(".checkpoint")
    if resume and not unfinished.is_file():
        say(f"no unfinished run at {unfinished}: beginning at the beginning")
    elif unfinished.is_file() and not resume:
        say(f"{unfinished}: the state of an unfinished run will be replaced; --resume would go on with it")


def named(out: Path) -> str:
    """A file within the project, or only its name: how a folder is called on this machine is nobody's business."""
    from minircnn.weights import WEIGHTS_FOLDER

    project = WEIGHTS_FOLDER.parent.parent
    return out.resolve().relative_to(project).as_posix() if out.resolve().is_relative_to(project) else out.name


def starting_weights(network: Path | None, from_scratch: bool) -> Path | None:
    """The file of the pre-trained network, None for none."""
    from minircnn.alexnet import SMALL_WEIGHTS

    if network and from_scratch:
        raise RefusedError("--network and --from-scratch: these exclude each other; leave one out")
    return None if from_scratch else find_weights("--network", network, SMALL_WEIGHTS, "`minircnn train alexnet`")


def starting_network(weights: Path | None, seed: int) -> "AlexNet":
    """The network to fine-tune: from a file, or with random weights."""
    import torch

    from minircnn.alexnet import SMALL, AlexNet, load_alexnet

    if weights:
        return load_alexnet(weights)
    torch.manual_seed(seed)
    return AlexNet(SMALL, num_classes=1)  # fine-tuning replaces the last layer


def proposals_of(samples: "list[tuple[Tensor, dict[str, Any]]]") -> "list[Tensor]":
    """The proposals of each picture, from the cache as far as they are there."""
    from minircnn.selective_search import stored_proposals

    say(f"proposals of {len(samples)} pictures, as far as they are not in the cache")
    return stored_proposals(samples, workers=-1)


def describe(weights: Path | None) -> dict[str, str]:
    """Which weights training began with, to be noted."""
    from minircnn.weights import sha256

    return {"file": weights.name, "sha256": sha256(weights)} if weights else {"file": "none: random weights"}
