"""What every training begins with: options, the pre-trained network, pictures and proposals, and what is said."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minircnn.cli.data_options import DataOptions, weights_to_write
from minircnn.cli.errors import RefusedError, echo
from minircnn.cli.options import find_weights
from minircnn.cli.outputs import Output, check_outputs, of_weights, with_json
from minircnn.shipped import DETECTOR_WEIGHTS, PROJECT_FOLDER, SMALL_WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

    from minircnn.alexnet import AlexNet

OutFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The .safetensors file to write; a .json file beside it says what it is. "
        "By default that in data/weights, which comes with the project; needed with pictures other than Toy Town's.",
    ),
]


Network = Annotated[
    Path | None,
    typer.Option(
        "--network",
        "--weights",
        metavar="FILE",
        help="The pre-trained AlexNet, by default that of data/weights: a file of `python -m workshop.pretraining`, "
        "torchvision's (.pth), or the convolutions of 2012 (.npz).",
    ),
]
FromScratch = Annotated[
    bool,
    typer.Option("--from-scratch", help="Begin with random weights instead; with --network, in the network of FILE."),
]
PicturesToLearnFrom = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="The first N training pictures.", show_default="all of them")
]
ProposalsToLearnFrom = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Of each picture, the first N; 2000 of data other than Toy Town.",
        show_default="300",
    ),
]


def say(*lines: str) -> None:
    """Prints lines, of several processes only in the main one."""
    from minircnn.training import is_main

    if is_main():
        echo(*lines)


def tell_of_unfinished(out: Path, resume: bool) -> None:
    """Says what happens to the state of an earlier run that was stopped, if it is not what one would expect."""
    unfinished = out.with_suffix(".checkpoint")
    if resume and not unfinished.is_file():
        say(f"no unfinished run at {unfinished}: beginning at the beginning")
    elif unfinished.is_file() and not resume:
        say(f"{unfinished}: the state of an unfinished run will be replaced; --resume would go on with it")


def named(out: Path) -> str:
    """A file within the project, or only its name: how a folder is called on this machine is nobody's business."""
    inside = out.resolve().is_relative_to(PROJECT_FOLDER)
    return out.resolve().relative_to(PROJECT_FOLDER).as_posix() if inside else out.name


@dataclass(frozen=True)
class Start:
    """What training begins with.

    Attributes:
        file: a network; None for the small one without weights.
        from_scratch: only what it looks like counts; its weights are drawn at random.
    """

    file: Path | None
    from_scratch: bool


def starting_weights(network: Path | None, from_scratch: bool) -> Start:
    """What was asked for, after a look whether the file is there."""
    if from_scratch and network is None:
        return Start(None, from_scratch)
    return Start(find_weights("--network", network, SMALL_WEIGHTS, "`python -m workshop.pretraining`"), from_scratch)


def check_training(detector: str, options: dict[str, Any]) -> tuple[Path, Start]:
    """Refuses what can be refused without PyTorch.

    Args:
        detector: the name of its command.
        options: those of the command, by name.

    Returns:
        Where the weights go, and what training begins with.
    """
    wanted = DataOptions.of(options)
    read = wanted.files(to_learn=True)
    out = weights_to_write(options["out"], DETECTOR_WEIGHTS[detector], wanted)
    start = starting_weights(options["network"], options["from_scratch"])
    log = [Output("--csv", options["csv"])] if options.get("csv") else []
    check_outputs([*of_weights(out), *log], [*read, *with_json(start.file)])
    if options.get("mixed_precision") and not options["device"].startswith("cuda"):
        raise RefusedError("--mixed-precision: needs an NVIDIA GPU; give --device cuda, or leave it out")
    return out, start


def starting_network(start: Start, seed: int) -> "tuple[AlexNet, str]":
    """The network to fine-tune, and its last layer of which the file has weights: "fc7", or "pool5"."""
    import torch

    from minircnn.alexnet import SMALL, AlexNet, load_pretrained

    torch.manual_seed(seed)
    if start.file is None:
        return AlexNet(SMALL, num_classes=1), "fc7"  # fine-tuning replaces the last layer
    network, last = load_pretrained(start.file)
    if start.from_scratch:
        torch.manual_seed(seed)
        network = AlexNet(network.config, num_classes=1)
    return network, last


def proposals_of(samples: "list[tuple[Tensor, dict[str, Any]]]") -> "list[Tensor]":
    """The proposals of each picture, from the cache as far as they are there."""
    from minircnn.selective_search import stored_proposals

    say(f"proposals of {len(samples)} pictures, as far as they are not in the cache")
    return stored_proposals(samples, workers=-1)


def describe(start: Start) -> dict[str, str]:
    """Which weights training began with, to be noted."""
    from minircnn.files import sha256

    if start.from_scratch:
        return {"file": "none: random weights", **({"network_of": start.file.name} if start.file else {})}
    return {"file": start.file.name, "sha256": sha256(start.file)}
