"""``minircnn train``: one sub-command for each thing that can be trained."""

from dataclasses import asdict
from typing import Annotated

import typer

from minircnn.cli.options import (
    Device,
    Resume,
    Seed,
    as_command,
    check_count,
    given,
    new_weights,
    positive,
    ready_device,
)
from minircnn.cli.starting import (
    FromScratch,
    Network,
    OutFile,
    PicturesToLearnFrom,
    ProposalsToLearnFrom,
    describe,
    named,
    proposals_of,
    starting_network,
    starting_weights,
    tell_of_unfinished,
)
from minircnn.cli.train_jointly import fast_rcnn, faster_rcnn, mask_rcnn

app = typer.Typer(help="Train a network or a detector on Toy Town.", no_args_is_help=True)


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
    tell_of_unfinished(out, resume)
    used = {name: value for name, value in asdict(settings).items() if name not in ("weight_decay", "label_smoothing")}
    reached = train_alexnet(
        settings,
        out=out,
        resume=resume,
        device=str(ready_device(device)),
        command=as_command("train alexnet", {**used, "out": named(out)}),
    )
    typer.echo(
        f"accuracy on {settings.val_pictures} held-out pictures: {100 * reached.subtypes:.1f} % of the sub-types, "
        f"{100 * reached.classes:.1f} % of the classes"
    )
    typer.echo(f"written to {out}")


@app.command()
def rcnn(
    out: OutFile = None,
    network: Network = None,
    from_scratch: FromScratch = False,
    pictures: PicturesToLearnFrom = None,
    iterations: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Of fine-tuning; 0 leaves it out.", show_default="2000")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", callback=positive, help="At its highest.", show_default="0.001")
    ] = None,
    max_proposals: ProposalsToLearnFrom = None,
    seed: Seed = None,
    device: Device = "cpu",
    resume: Resume = False,
) -> None:
    """Train R-CNN: fine-tune the network, then fit support vector machines, then box regressors.

    Proposals and features are kept in the cache.
    """
    from minircnn.cache import Cache
    from minircnn.datasets import ToyTown
    from minircnn.rcnn import RCNN_WEIGHTS
    from minircnn.training import RCNNTrainingSettings, train_rcnn

    settings = RCNNTrainingSettings(
        **given(iterations=iterations, learning_rate=learning_rate, max_proposals=max_proposals, seed=seed)
    )
    data = ToyTown("train", masks=False)
    count = check_count(pictures, data, "Toy Town's train split")
    out = new_weights(out, RCNN_WEIGHTS)
    target_device = ready_device(device)
    start = starting_weights(network, from_scratch)
    model = starting_network(start, settings.seed)
    tell_of_unfinished(out, resume)
    used = {"pictures": count, **asdict(settings), "out": named(out), **given(network=network and network.name)}
    command = as_command("train rcnn", used) + (" --from-scratch" if from_scratch else "")
    samples = [data[index] for index in range(count)]
    proposals = proposals_of(samples)
    train_rcnn(
        model.to(target_device),
        samples,
        proposals,
        data.classes,
        settings,
        out=out,
        resume=resume,
        cache=Cache(),
        about={"command": command, "pretrained": describe(start)},
        report=typer.echo,
    )
    typer.echo(f"written to {out}; `minircnn evaluate rcnn` tells how good it is")


app.command("fast_rcnn")(fast_rcnn)
app.command("faster_rcnn")(faster_rcnn)
app.command("mask_rcnn")(mask_rcnn)
