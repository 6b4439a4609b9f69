"""``minircnn train``: one sub-command for each thing that can be trained."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minircnn.cli.errors import RefusedError
from minircnn.cli.options import (
    Device,
    Resume,
    Seed,
    as_command,
    check_count,
    find_weights,
    given,
    new_weights,
    positive,
    ready_device,
)

if TYPE_CHECKING:
    from torch import Tensor

    from minircnn.alexnet import AlexNet
    from minircnn.datasets import ToyTown

app = typer.Typer(help="Train a network or a detector on Toy Town.", no_args_is_help=True)

OutFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The .safetensors file to write; a .json file beside it says what it is. "
        "By default that in data/weights, which comes with the project.",
    ),
]


@app.command()
def alexnet(
    out: OutFile = None,
    pictures: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Painted, to learn from.", show_default="40000")
    ] = None,
    val_pictures: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Painted, to measure with.", show_default="2000")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How often each picture is seen.", show_default="12")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Pictures in a batch.", show_default="128")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", callback=positive, help="At its highest.", show_default="0.002")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(metavar="8|16", help="Of conv5's map, in pixels.", show_default="8")
    ] = None,
    seed: Seed = None,
    device: Device = "cpu",
    resume: Resume = False,
) -> None:
    """Teach the small AlexNet to name single objects, as R-CNN's had learned ImageNet.

    The pictures are painted when they are first needed, and kept in the cache.
    """
    from minircnn.alexnet import SMALL_STRIDE_16_WEIGHTS, SMALL_WEIGHTS
    from minircnn.training import PretrainingSettings, train_alexnet

    options = given(
        pictures=pictures,
        val_pictures=val_pictures,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        stride=stride,
        seed=seed,
    )
    settings = PretrainingSettings(**options)
    out = new_weights(out, SMALL_WEIGHTS if settings.stride == 8 else SMALL_STRIDE_16_WEIGHTS)
    _tell_of_unfinished(out, resume)
    used = {name: value for name, value in asdict(settings).items() if name not in ("weight_decay", "label_smoothing")}
    reached = train_alexnet(
        settings,
        out=out,
        resume=resume,
        device=str(ready_device(device)),
        command=as_command("train alexnet", {**used, "out": _named(out)}),
    )
    typer.echo(
        f"accuracy on {settings.val_pictures} held-out pictures: {100 * reached.subtypes:.1f} % of the sub-types, "
        f"{100 * reached.classes:.1f} % of the classes"
    )
    typer.echo(f"written to {out}")


@app.command()
def rcnn(
    out: OutFile = None,
    network: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The pre-trained AlexNet; by default that of data/weights."),
    ] = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Begin with random weights instead.")] = False,
    pictures: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="The first N training pictures.", show_default="all of them"),
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Of fine-tuning; 0 leaves it out.", show_default="2000")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", callback=positive, help="At its highest.", show_default="0.001")
    ] = None,
    max_proposals: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of each picture, the first N.", show_default="300")
    ] = None,
    seed: Seed = None,
    device: Device = "cpu",
    resume: Resume = False,
) -> None:
    """Train R-CNN: fine-tune the network, then fit support vector machines, then box regressors.

    Proposals and features are kept in the cache.
    """
    from minircnn.alexnet import SMALL_WEIGHTS
    from minircnn.cache import Cache
    from minircnn.datasets import ToyTown
    from minircnn.rcnn import RCNN_WEIGHTS
    from minircnn.training import RCNNTrainingSettings, train_rcnn

    if network and from_scratch:
        raise RefusedError("--network and --from-scratch: these exclude each other; leave one out")
    settings = RCNNTrainingSettings(
        **given(iterations=iterations, learning_rate=learning_rate, max_proposals=max_proposals, seed=seed)
    )
    data = ToyTown("train", masks=False)
    count = check_count(pictures, data, "Toy Town's train split")
    out = new_weights(out, RCNN_WEIGHTS)
    target_device = ready_device(device)
    start = None if from_scratch else find_weights("--network", network, SMALL_WEIGHTS, "`minircnn train alexnet`")
    model = _starting_network(start, settings.seed)
    _tell_of_unfinished(out, resume)
    used = {"pictures": count, **asdict(settings), "out": _named(out), **given(network=network and network.name)}
    command = as_command("train rcnn", used) + (" --from-scratch" if from_scratch else "")
    samples, proposals = _with_proposals(data, count)
    train_rcnn(
        model.to(target_device),
        samples,
        proposals,
        data.classes,
        settings,
        out=out,
        resume=resume,
        cache=Cache(),
        about={"command": command, "pretrained": _describe(start)},
        report=typer.echo,
    )
    typer.echo(f"written to {out}; `minircnn evaluate rcnn` tells how good it is")


def _tell_of_unfinished(out: Path, resume: bool) -> None:
    """Says what happens to the state of an earlier run that was stopped, if it is not what one would expect."""
    unfinished = out.with_suffix(".checkpoint")
    if resume and not unfinished.is_file():
        typer.echo(f"no unfinished run at {unfinished}: beginning at the beginning")
    elif unfinished.is_file() and not resume:
        typer.echo(f"{unfinished}: the state of an unfinished run will be replaced; --resume would go on with it")


def _named(out: Path) -> str:
    """A file within the project, or only its name: how a folder is called on this machine is nobody's business."""
    from minircnn.weights import WEIGHTS_FOLDER

    project = WEIGHTS_FOLDER.parent.parent
    return out.resolve().relative_to(project).as_posix() if out.resolve().is_relative_to(project) else out.name


def _starting_network(weights: Path | None, seed: int) -> "AlexNet":
    """The network to fine-tune: from a file, or with random weights."""
    import torch

    from minircnn.alexnet import SMALL, AlexNet, load_alexnet

    if weights:
        return load_alexnet(weights)
    torch.manual_seed(seed)
    return AlexNet(SMALL, num_classes=1)  # fine-tuning replaces the last layer


def _with_proposals(data: "ToyTown", count: int) -> "tuple[list[tuple[Tensor, dict[str, Any]]], list[Tensor]]":
    """The first pictures of a data set, read once and for all, and the proposals of each."""
    from minircnn.selective_search import stored_proposals

    typer.echo(f"proposals of {count} pictures, as far as they are not in the cache")
    samples = [data[index] for index in range(count)]
    return samples, stored_proposals(samples, workers=-1)


def _describe(weights: Path | None) -> dict[str, str]:
    """Which weights training began with, to be noted."""
    from minircnn.weights import sha256

    return {"file": weights.name, "sha256": sha256(weights)} if weights else {"file": "none: random weights"}
