"""``minircnn train`` for the detectors that learn everything at once, from whole pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from minircnn.cli.data_options import (
    TOYTOWN,
    AnnotationsFile,
    Chosen,
    ClassNames,
    DataName,
    DataOptions,
    DropInvalid,
    Root,
    SplitToLearnFrom,
    how_to_measure,
    pictures_to_learn_from,
    validation_pictures,
)
from minircnn.cli.errors import RefusedError
from minircnn.cli.options import (
    LARGEST_SIDE,
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
    Start,
    check_training,
    describe,
    named,
    proposals_of,
    say,
    starting_network,
    tell_of_unfinished,
)

if TYPE_CHECKING:
    from minircnn.training import JointTrainingSettings

VALIDATION_PICTURES = 100


def _iterations(default: str) -> Any:  # noqa: ANN401 - a type, for an annotation
    return Annotated[int | None, typer.Option(min=1, metavar="N", help="Batches to learn from.", show_default=default)]


FastIterations, FasterIterations, MaskIterations = map(_iterations, ("6000", "20000", "15000"))
ImagesPerBatch = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="64 regions are drawn from each.", show_default="4")
]
LearningRate = Annotated[
    float | None, typer.Option(metavar="X", callback=positive, help="At its highest.", show_default="0.001")
]
MinSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=LARGEST_SIDE,
        metavar="N",
        help="To how many pixels the shorter side is resized, if the longer one stays within 4 N.",
        show_default="192",
    ),
]
Schedule = Annotated[
    Literal["cosine", "step"] | None,
    typer.Option(metavar="cosine|step", help="How the rate falls.", show_default="cosine"),
]
MixedPrecision = Annotated[
    bool, typer.Option("--mixed-precision", help="Half precision where that is safe; with --device cuda.")
]
# Not --log: torchrun, which knows several options that begin like this, takes it for one of its own.
LogFile = Annotated[
    Path | None, typer.Option("--csv", metavar="FILE", help="Write the losses of each iteration here, as a table.")
]
EvaluateEvery = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Measure on validation pictures every N iterations, into the table."),
]


# The options are read from the context, which has them by name, so that only one function need handle them.


def fast_rcnn(
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
    pictures: PicturesToLearnFrom = None,
    iterations: FastIterations = None,
    images_per_batch: ImagesPerBatch = None,
    learning_rate: LearningRate = None,
    min_size: MinSize = None,
    schedule: Schedule = None,
    max_proposals: ProposalsToLearnFrom = None,
    mixed_precision: MixedPrecision = False,
    seed: Seed = None,
    device: Device = "cpu",
    resume: Resume = False,
    csv: LogFile = None,
    evaluate_every: EvaluateEvery = None,
) -> None:
    """Train Fast R-CNN: the network, the classifier and the box regression at once.

    Proposals are kept in the cache. Several processes share each batch:
    torchrun --nproc-per-node 2 -m minircnn train fast_rcnn …
    """
    places = check_training("fast_rcnn", context.params)
    from minircnn.training import FastRCNNTrainingSettings, train_fast_rcnn

    options = context.params
    options |= {"max_proposals": DataOptions.of(options).max_proposals(max_proposals)}
    settings = FastRCNNTrainingSettings(**_settings(options, FastRCNNTrainingSettings))
    _train("fast_rcnn", options, places, settings, train_fast_rcnn, settings.max_proposals)


def faster_rcnn(
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
    pictures: PicturesToLearnFrom = None,
    iterations: FasterIterations = None,
    images_per_batch: ImagesPerBatch = None,
    learning_rate: LearningRate = None,
    min_size: MinSize = None,
    schedule: Schedule = None,
    mixed_precision: MixedPrecision = False,
    seed: Seed = None,
    device: Device = "cpu",
    resume: Resume = False,
    csv: LogFile = None,
    evaluate_every: EvaluateEvery = None,
) -> None:
    """Train Faster R-CNN: what proposes, what names and what both look at, at once.

    Several processes share each batch: torchrun --nproc-per-node 2 -m minircnn train faster_rcnn …
    """
    places = check_training("faster_rcnn", context.params)
    from minircnn.training import FasterRCNNTrainingSettings, train_faster_rcnn

    settings = FasterRCNNTrainingSettings(**_settings(context.params, FasterRCNNTrainingSettings))
    _train("faster_rcnn", context.params, places, settings, train_faster_rcnn)


def mask_rcnn(
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
    pictures: PicturesToLearnFrom = None,
    iterations: MaskIterations = None,
    images_per_batch: ImagesPerBatch = None,
    learning_rate: LearningRate = None,
    min_size: MinSize = None,
    schedule: Schedule = None,
    mixed_precision: MixedPrecision = False,
    seed: Seed = None,
    device: Device = "cpu",
    resume: Resume = False,
    csv: LogFile = None,
    evaluate_every: EvaluateEvery = None,
) -> None:
    """Train Mask R-CNN: Faster R-CNN and its masks, at once.

    Several processes share each batch: torchrun --nproc-per-node 2 -m minircnn train mask_rcnn …
    """
    places = check_training("mask_rcnn", context.params)
    from minircnn.training import MaskRCNNTrainingSettings, train_mask_rcnn

    settings = MaskRCNNTrainingSettings(**_settings(context.params, MaskRCNNTrainingSettings))
    _train("mask_rcnn", context.params, places, settings, train_mask_rcnn, masks=True)


def _settings(options: dict[str, Any], kind: type[JointTrainingSettings]) -> dict[str, Any]:
    """Those of the options that are settings of a training, and that the user gave."""
    return given(**{field.name: options.get(field.name) for field in fields(kind)})


def _train(
    command: str,
    options: dict[str, Any],
    places: tuple[Path, Start],
    settings: JointTrainingSettings,
    learn: Callable[..., Any],
    max_proposals: int | None = None,
    masks: bool = False,
) -> None:
    """Refuses what else can be refused before any work, joins the other processes, trains.

    Args:
        command: the detector's name.
        options: as the user gave them.
        places: where the weights go, and what training begins with.
        settings: of the training.
        learn: the training, of :mod:`minircnn.training`.
        max_proposals: of selective search for each picture, if the detector needs them.
        masks: whether it learns from masks.
    """
    from minircnn.training import main_first, processes, share

    wanted, every, (out, start) = DataOptions.of(options), options["evaluate_every"], places
    chosen = pictures_to_learn_from(wanted, options["pictures"], masks)
    if settings.images_per_batch > chosen.count:
        raise RefusedError(
            f"--images-per-batch {settings.images_per_batch}: there are only {chosen.count} pictures; give fewer"
        )
    to_look_at = validation_pictures(wanted, VALIDATION_PICTURES, masks) if every else None
    with processes(ready_device(options["device"])) as device:
        share(range(settings.images_per_batch))  # refused here, before any work, if it does not divide
        network, _ = starting_network(start, settings.seed)
        tell_of_unfinished(out, options["resume"])
        with main_first():  # the others find its proposals in the cache
            samples = chosen.samples()
            given_data = (samples,) if max_proposals is None else (samples, proposals_of(samples))
            evaluate = _measure(to_look_at, max_proposals, masks) if to_look_at else None
        learn(
            *(network.to(device), *given_data, chosen.data.classes, settings),
            about={"command": _command(command, options, settings, chosen.count, out), "pretrained": describe(start)},
            out=out,
            resume=options["resume"],
            log=options["csv"],
            evaluate=evaluate,
            evaluate_every=every,
        )
        say(f"written to {out}; {how_to_measure(command, out, wanted, masks)}")


def _command(command: str, options: dict[str, Any], settings: JointTrainingSettings, count: int, out: Path) -> str:
    """What to say to train the same again."""
    words = {field.name: getattr(settings, field.name) for field in fields(settings) if field.name in options}
    mixed_precision = words.pop("mixed_precision")
    words = {
        **DataOptions.of(options).noted(),
        "pictures": count,
        **words,
        "out": named(out),
        **given(network=options["network"] and options["network"].name),
    }
    flags = (" --from-scratch" if options["from_scratch"] else "") + (" --mixed-precision" if mixed_precision else "")
    return as_command(f"train {command}", words) + flags


def _measure(chosen: Chosen, max_proposals: int | None, masks: bool) -> Callable[[Any], dict[str, float]]:
    """Average precisions on a few pictures, from which nothing learns: for a look now and then.

    Args:
        chosen: the pictures.
        max_proposals: of selective search for each picture, if the detector needs them.
        masks: whether it finds masks, which then are measured, too.
    """
    from minircnn.cli.timing import on_cpu
    from minircnn.evaluation import evaluate
    from minircnn.selective_search import stored_proposals

    samples = list(chosen.samples())
    proposals = [()] * len(samples)
    if max_proposals is not None:
        proposals = [([boxes],) for boxes in stored_proposals(samples, max_proposals=max_proposals)]

    def measure(model: Any) -> dict[str, float]:  # noqa: ANN401
        device, found = next(model.parameters()).device, []
        for (image, _), boxes in zip(samples, proposals, strict=True):
            found.append(on_cpu((model.detect_encoded if masks else model.detect)([image.to(device)], *boxes)[0]))
        targets, numbers = [target for _, target in samples], {}
        for prefix, kind in [("val", "boxes"), *([("val_mask", "masks")] if masks else [])]:
            result = evaluate(found, targets, classes=model.classes, kind=kind)
            numbers |= {f"{prefix}_ap": result.ap, f"{prefix}_ap50": result.ap50}
        return numbers

    return measure
