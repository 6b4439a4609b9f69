"""``minircnn train``: one sub-command for each thing that can be trained."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from minircnn.cli.data_options import (
    TOYTOWN,
    AnnotationsFile,
    ClassNames,
    DataName,
    DataOptions,
    DropInvalid,
    Root,
    SplitToLearnFrom,
    how_to_measure,
    pictures_to_learn_from,
)
from minircnn.cli.errors import RefusedError, echo
from minircnn.cli.options import (
    Device,
    Resume,
    Seed,
    as_command,
    given,
    positive,
    ready_device,
)
from minircnn.cli.starting import (
    FromScratch,
    Network,
    OutFile,
    PicturesToLearnFrom,
    ProposalsToLearnFrom,
    check_training,
    describe,
    named,
    proposals_of,
    starting_network,
    tell_of_unfinished,
)
from minircnn.cli.train_jointly import fast_rcnn, faster_rcnn, mask_rcnn

if TYPE_CHECKING:
    from minircnn.rcnn import RCNNConfig

app = typer.Typer(help="Train a network or a detector, on Toy Town or on your own pictures.", no_args_is_help=True)

LAYERS = ("pool5", "fc6", "fc7")  # as minircnn.alexnet has them, which imports PyTorch

Features = Annotated[
    str | None,
    typer.Option(
        metavar="pool5|fc6|fc7",
        help="What the SVMs judge by; pool5 where FILE holds convolutions only.",
        show_default="fc7",
    ),
]


@app.command()
def rcnn(
    context: typer.Context,
    data: DataName = TOYTOWN,
    root: Root = None,
    annotations: AnnotationsFile = None,
    split: SplitToLearnFrom = None,
    classes: ClassNames = None,
    drop_invalid: DropInvalid = False,
    out: OutFile = None,
    network: Network = None,
    from_scratch: FromScratch = False,
    features: Features = None,
    pictures: PicturesToLearnFrom = None,
    iterations: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Of fine-tuning; 0 leaves it out, as does a FILE of convolutions only.",
            show_default="2000",
        ),
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

    Proposals and features are kept in the cache: for a photograph with 2000 proposals about 40 MB.
    """
    if features not in (None, *LAYERS):
        raise RefusedError(f"--features {features}: there is no such layer; choose one of {', '.join(LAYERS)}")
    out, start = check_training("rcnn", context.params)
    from minircnn.cache import Cache
    from minircnn.training import RCNNTrainingSettings, train_rcnn

    wanted = DataOptions(data, root, annotations, split, classes, drop_invalid)
    proposals = wanted.max_proposals(max_proposals)
    settings = RCNNTrainingSettings(
        **given(iterations=iterations, learning_rate=learning_rate, max_proposals=proposals, seed=seed)
    )
    config = _config(features) if features else None
    chosen = pictures_to_learn_from(wanted, pictures, masks=False)
    target_device = ready_device(device)
    model, last = starting_network(start, settings.seed)
    if last == "pool5":  # what stands behind it has learned nothing
        config, settings = config or _config(last), replace(settings, iterations=iterations or 0)
    tell_of_unfinished(out, resume)
    used = {**wanted.noted(), "pictures": chosen.count, **asdict(settings), "out": named(out)}
    used |= given(network=network and network.name, features=config and config.svm_layer)
    command = as_command("train rcnn", used) + (" --from-scratch" if from_scratch else "")
    samples = chosen.samples()
    train_rcnn(
        model.to(target_device),
        samples,
        proposals_of(samples),
        chosen.data.classes,
        settings,
        config=config,
        out=out,
        resume=resume,
        cache=Cache(),
        about={"command": command, "pretrained": describe(start)},
        report=echo,
    )
    echo(f"written to {out}; {how_to_measure('rcnn', out, wanted, masks=False)}")


def _config(features: str) -> RCNNConfig:
    """The detector's numbers with other features."""
    from minircnn.rcnn import RCNNConfig

    return RCNNConfig(svm_layer=features)


app.command("fast_rcnn")(fast_rcnn)
app.command("faster_rcnn")(faster_rcnn)
app.command("mask_rcnn")(mask_rcnn)
