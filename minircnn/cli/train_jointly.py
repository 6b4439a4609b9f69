"""``minircnn train`` for the detectors that learn everything at once, from whole pictures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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
    check_new_file,
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
    say,
    starting_network,
    starting_weights,
    tell_of_unfinished,
    with_proposals,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

    from minircnn.alexnet import AlexNet
    from minircnn.datasets import ToyTown
    from minircnn.training.joint import JointTrainingSettings

VALIDATION_PICTURES = 100

Iterations = Annotated[int | None, typer.Option(min=1, metavar="N", help="Batches to learn from.", show_default="6000")]
PicturesPerBatch = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="64 regions are drawn from each.", show_default="4")
]
LearningRate = Annotated[
    float | None, typer.Option(metavar="X", callback=positive, help="At its highest.", show_default="0.001")
]
MinSize = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="To how many pixels the shorter side is resized.", show_default="192"),
]
Schedule = Annotated[str | None, typer.Option(metavar="cosine|step", help="How the rate falls.", show_default="cosine")]
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


@dataclass(frozen=True)
class Run:
    """What was asked for, but for the settings of the training itself."""

    command: str
    default: Path
    out: Path | None
    network: Path | None
    from_scratch: bool
    pictures: int | None
    device: str
    resume: bool
    csv: Path | None
    evaluate_every: int | None


def fast_rcnn(
    out: OutFile = None,
    network: Network = None,
    from_scratch: FromScratch = False,
    pictures: PicturesToLearnFrom = None,
    iterations: Iterations = None,
    pictures_per_batch: PicturesPerBatch = None,
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
    from minircnn.fast_rcnn import FAST_RCNN_WEIGHTS
    from minircnn.selective_search import stored_proposals
    from minircnn.training import FastRCNNTrainingSettings, main_first, train_fast_rcnn

    options = given(
        iterations=iterations,
        pictures_per_batch=pictures_per_batch,
        learning_rate=learning_rate,
        min_size=min_size,
        schedule=schedule,
        max_proposals=max_proposals,
        seed=seed,
    )
    settings = FastRCNNTrainingSettings(**options, mixed_precision=mixed_precision)
    run = Run(
        *("fast_rcnn", FAST_RCNN_WEIGHTS, out, network, from_scratch, pictures),
        *(device, resume, csv, evaluate_every),
    )
    with prepared(run, settings) as ready:
        with main_first():
            samples, proposals = with_proposals(ready.data, ready.count)
            held_out = _validation_samples() if evaluate_every else []
            their_proposals = stored_proposals(held_out, max_proposals=settings.max_proposals)

        def detect(model: Any, index: int, image: Tensor) -> dict[str, Tensor]:  # noqa: ANN401
            return model.detect([image], [their_proposals[index]])[0]

        options = ready.options(run, _measure(held_out, detect) if evaluate_every else None)
        train_fast_rcnn(ready.model, samples, proposals, ready.data.classes, settings, **options)
        say(f"written to {ready.out}; `minircnn evaluate fast_rcnn` tells how good it is")


def faster_rcnn(
    out: OutFile = None,
    network: Network = None,
    from_scratch: FromScratch = False,
    pictures: PicturesToLearnFrom = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Batches to learn from.", show_default="10000")
    ] = None,
    pictures_per_batch: PicturesPerBatch = None,
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
    from minircnn.faster_rcnn import FASTER_RCNN_WEIGHTS
    from minircnn.training import FasterRCNNTrainingSettings, train_faster_rcnn

    options = given(
        iterations=iterations,
        pictures_per_batch=pictures_per_batch,
        learning_rate=learning_rate,
        min_size=min_size,
        schedule=schedule,
        seed=seed,
    )
    settings = FasterRCNNTrainingSettings(**options, mixed_precision=mixed_precision)
    run = Run(
        *("faster_rcnn", FASTER_RCNN_WEIGHTS, out, network, from_scratch, pictures),
        *(device, resume, csv, evaluate_every),
    )
    with prepared(run, settings) as ready:
        samples = [ready.data[index] for index in range(ready.count)]

        def detect(model: Any, _: int, image: Tensor) -> dict[str, Tensor]:  # noqa: ANN401
            return model.detect([image])[0]

        options = ready.options(run, _measure(_validation_samples(), detect) if evaluate_every else None)
        train_faster_rcnn(ready.model, samples, ready.data.classes, settings, **options)
        say(f"written to {ready.out}; `minircnn evaluate faster_rcnn` tells how good it is")


@dataclass(frozen=True)
class Ready:
    """What a training is to be given."""

    out: Path
    device: torch.device
    model: AlexNet
    data: ToyTown
    count: int
    about: dict[str, Any]

    def options(self, run: Run, evaluate: Callable[[Any], dict[str, float]] | None) -> dict[str, Any]:
        """Those that all training functions take."""
        return {
            "out": self.out,
            "resume": run.resume,
            "log": run.csv,
            "evaluate": evaluate,
            "evaluate_every": run.evaluate_every,
            "about": self.about,
        }


@contextmanager
def prepared(run: Run, settings: JointTrainingSettings) -> Iterator[Ready]:
    """Refuses what can be refused before any work, joins the other processes, and makes the pre-trained network."""
    from minircnn.datasets import ToyTown
    from minircnn.training import processes, share

    data = ToyTown("train", masks=False)
    count = check_count(run.pictures, data, "Toy Town's train split")
    if settings.pictures_per_batch > count:
        raise RefusedError(
            f"--pictures-per-batch {settings.pictures_per_batch}: there are only {count} pictures; give fewer"
        )
    out = new_weights(run.out, run.default)
    if run.csv:
        check_new_file("--csv", run.csv)
    start = starting_weights(run.network, run.from_scratch)
    if settings.mixed_precision and not run.device.startswith("cuda"):
        raise RefusedError("--mixed-precision: needs an NVIDIA GPU; give --device cuda, or leave it out")
    with processes(ready_device(run.device)) as device:
        share(range(settings.pictures_per_batch))  # refused here, before any work, if it does not divide
        model = starting_network(start, settings.seed).to(device)
        tell_of_unfinished(out, run.resume)
        about = {"command": _command(run, settings, count, out), "pretrained": describe(start)}
        yield Ready(out, device, model, data, count, about)


def _command(run: Run, settings: JointTrainingSettings, count: int, out: Path) -> str:
    """What to say to train the same again."""
    no_option = {"trunk_scale", "colour", "scale", "mixed_precision"}
    used = {name: value for name, value in asdict(settings).items() if name not in no_option}
    words = {"pictures": count, **used, "out": named(out), **given(network=run.network and run.network.name)}
    flags = (" --from-scratch" if run.from_scratch else "") + (" --mixed-precision" if settings.mixed_precision else "")
    return as_command(f"train {run.command}", words) + flags


def _validation_samples() -> list[tuple[Tensor, dict[str, Any]]]:
    from minircnn.datasets import ToyTown

    data = ToyTown("val", masks=False)
    return [data[index] for index in range(min(VALIDATION_PICTURES, len(data)))]


def _measure(
    samples: list[tuple[Tensor, dict[str, Any]]], detect: Callable[[Any, int, Tensor], dict[str, Tensor]]
) -> Callable[[Any], dict[str, float]]:
    """Average precisions on the first validation pictures, from which nothing learns: for a look now and then.

    Args:
        samples: the pictures.
        detect: finds objects, given the detector, the number of a picture, and the picture.
    """
    from minircnn.datasets import ToyTown
    from minircnn.evaluation import evaluate

    def measure(model: Any) -> dict[str, float]:  # noqa: ANN401
        device, found = next(model.parameters()).device, []
        for index, (image, _) in enumerate(samples):
            detections = detect(model, index, image.to(device))
            found.append({name: value.cpu() for name, value in detections.items()})
        result = evaluate(found, [target for _, target in samples], classes=ToyTown("val", masks=False).classes)
        return {"val_ap": result.ap, "val_ap50": result.ap50}

    return measure
