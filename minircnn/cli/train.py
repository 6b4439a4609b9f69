"""``minircnn train``: every detector, on Toy Town or on the user's own images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from minircnn.cli.data import (
    TOYTOWN,
    AnnotationsFile,
    Chosen,
    DataName,
    DataOptions,
    DropInvalid,
    FirstImages,
    Root,
    SplitToLearnFrom,
    say,
)
from minircnn.cli.options import (
    LARGEST_SEED,
    LARGEST_SIDE,
    Detector,
    Device,
    MaxProposals,
    RefusedError,
    as_command,
    detect_in,
    find_weights,
    positive,
    ready_device,
    refuse_others,
)
from minircnn.cli.outputs import Output, check_outputs, of_weights, with_json
from minircnn.shipped import DETECTOR_WEIGHTS, DETECTORS, PROJECT_FOLDER, SMALL_WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

    from minircnn.alexnet import AlexNet

VALIDATION_IMAGES = 100
SETTINGS = {name: f"{kind}TrainingSettings" for name, (kind, _) in DETECTORS.items()}  # in minircnn.training

ClassNames = Annotated[
    list[str] | None,
    typer.Option(
        "--classes", metavar="NAMES", help="Only these, with commas between them.", show_default="all of them"
    ),
]


def train(
    context: typer.Context,
    detector: Detector,
    data: DataName = TOYTOWN,
    root: Root = None,
    annotations: AnnotationsFile = None,
    split: SplitToLearnFrom = None,
    classes: ClassNames = None,
    drop_invalid: DropInvalid = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The .safetensors file to write; a .json file beside it says what it is. By default that in "
            "data/weights, which comes with the project; needed with images other than Toy Town's.",
        ),
    ] = None,
    network: Annotated[
        Path | None,
        typer.Option(
            "--network",
            "--weights",
            metavar="FILE",
            help="The pre-trained AlexNet, by default that of data/weights: a file of this project's pre-training, "
            "torchvision's (.pth), or the convolutions of 2012 (.npz).",
        ),
    ] = None,
    from_scratch: Annotated[
        bool,
        typer.Option("--from-scratch", help="Begin with random weights; with --network, in the network of FILE."),
    ] = False,
    features: Annotated[
        Literal["pool5", "fc6", "fc7"] | None,
        typer.Option(
            metavar="pool5|fc6|fc7",
            help="Of rcnn: what the SVMs judge by; pool5 where FILE holds convolutions only.",
            show_default="fc7",
        ),
    ] = None,
    images: FirstImages = None,
    iterations: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Batches to learn from; 0 leaves out rcnn's fine-tuning, as does a FILE of convolutions only.",
            show_default="2000, 6000, 20000, 15000",
        ),
    ] = None,
    images_per_batch: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="64 regions are drawn from each.", show_default="4")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", callback=positive, help="At its highest.", show_default="0.001")
    ] = None,
    min_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=LARGEST_SIDE,
            metavar="N",
            help="To how many pixels the shorter side is resized, if the longer one stays within 4 N.",
            show_default="192",
        ),
    ] = None,
    schedule: Annotated[
        Literal["cosine", "step"] | None,
        typer.Option(metavar="cosine|step", help="How the rate falls.", show_default="cosine"),
    ] = None,
    max_proposals: MaxProposals = None,
    mixed_precision: Annotated[
        bool, typer.Option("--mixed-precision", help="Half precision where that is safe; with --device cuda.")
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=LARGEST_SEED, metavar="N", help="Of all that is drawn at random.", show_default="0"),
    ] = None,
    device: Device = "cpu",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run of the same settings that was stopped.")
    ] = False,
    # Not --log: torchrun, which knows several options that begin like this, takes it for one of its own.
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the losses of each iteration here, as a table.")
    ] = None,
    evaluate_every: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Measure on validation images every N iterations, into the table."),
    ] = None,
) -> None:
    """Train a detector: R-CNN in three steps, the others all at once.

    Options of an iteration (from --images-per-batch on, without --max-proposals) are not for rcnn. Proposals and
    features are kept in the cache: for a photograph with 2000 proposals about 40 MB. But for rcnn, several processes
    share each batch: torchrun --nproc-per-node 2 -m minircnn train mask_rcnn …
    """
    options = context.params
    refuse_others(detector, options)
    wanted = DataOptions(data, root, annotations, split, classes, drop_invalid)
    read = wanted.files(to_learn=True)
    out = _weights_to_write(out, DETECTOR_WEIGHTS[detector], wanted)
    command = "`python -m workshop.pretraining`"
    start = None if from_scratch and not network else find_weights("--network", network, SMALL_WEIGHTS, command)
    check_outputs([*of_weights(out), *([Output("--csv", csv)] if csv else [])], [*read, *with_json(start)])
    if mixed_precision and not device.startswith("cuda"):
        raise RefusedError("--mixed-precision: needs an NVIDIA GPU; give --device cuda, or leave it out")
    options |= {"max_proposals": wanted.max_proposals(max_proposals)}
    (_train_rcnn if detector == "rcnn" else _train_jointly)(detector, options, wanted, out, start)


def _train_rcnn(detector: str, options: dict[str, Any], wanted: DataOptions, out: Path, start: Path | None) -> None:
    from minircnn.cache import Cache
    from minircnn.rcnn import RCNNConfig
    from minircnn.training import train_rcnn

    settings, layer = _settings(detector, options), options["features"]
    chosen = wanted.to_learn_from(options["images"], masks=False)
    device = ready_device(options["device"])
    network, last = _starting_network(start, options["from_scratch"], settings.seed)
    if last == "pool5":  # what stands behind it has learned nothing
        layer, settings = layer or last, replace(settings, iterations=options["iterations"] or 0)
    _tell_of_unfinished(out, options["resume"])
    samples = chosen.samples()
    train_rcnn(
        network.to(device),
        samples,
        _proposals_of(samples),
        chosen.data.classes,
        settings,
        config=RCNNConfig(svm_layer=layer) if layer else None,
        out=out,
        resume=options["resume"],
        cache=Cache(),
        about=_about(detector, {**options, "features": layer}, wanted, settings, chosen.count, start),
        report=say,
    )
    say(f"written to {out}; {wanted.advice(detector, out)}")


def _train_jointly(detector: str, options: dict[str, Any], wanted: DataOptions, out: Path, start: Path | None) -> None:
    """Refuse what else can be refused before any work, join the other processes, train."""
    from minircnn import training

    settings, every = _settings(detector, options), options["evaluate_every"]
    masks, on_proposals = detector == "mask_rcnn", detector == "fast_rcnn"
    chosen = wanted.to_learn_from(options["images"], masks)
    if settings.images_per_batch > chosen.count:
        raise RefusedError(
            f"--images-per-batch {settings.images_per_batch}: there are only {chosen.count} images; give fewer"
        )
    to_look_at = wanted.to_look_at(VALIDATION_IMAGES, masks) if every else None
    with training.processes(ready_device(options["device"])) as device:
        training.share(range(settings.images_per_batch))  # refused here, before any work, if it does not divide
        network, _ = _starting_network(start, options["from_scratch"], settings.seed)
        _tell_of_unfinished(out, options["resume"])
        with training.main_first():  # the others find its proposals in the cache
            samples = chosen.samples()
            proposals = [_proposals_of(samples)] if on_proposals else []
            evaluate = _measure(to_look_at, settings.max_proposals if on_proposals else None, masks) if every else None
        getattr(training, f"train_{detector}")(
            *(network.to(device), samples, *proposals, chosen.data.classes, settings),
            about=_about(detector, options, wanted, settings, chosen.count, start),
            out=out,
            resume=options["resume"],
            log=options["csv"],
            evaluate=evaluate,
            evaluate_every=every,
        )
        say(f"written to {out}; {wanted.advice(detector, out)}")  # here, where the main process is known


def _weights_to_write(out: Path | None, default: Path, data: DataOptions) -> Path:
    """Where training will write; refused if that would replace what comes with the project by something else."""
    plain = data.name == TOYTOWN and data.class_names is None
    if out is None and not plain:
        raise RefusedError("--out FILE: say where to write; the files of data/weights are those of Toy Town")
    if out is None and not default.parent.is_dir():
        raise RefusedError(f"--out FILE: say where to write; {default.parent} is only in a clone of the project")
    if out is not None and not plain and out.resolve().parent == default.resolve().parent:
        raise RefusedError(
            f"--out {out}: this folder holds the weights that come with the project, trained on Toy Town; name another"
        )
    if out is not None and out.is_dir():
        raise RefusedError(f"--out {out}: this is a folder; name a file in it")
    if out is not None and out.suffix != ".safetensors":
        raise RefusedError(f"--out {out}: weights are written as .safetensors; give the file that ending")
    return out or default


def _settings(detector: str, options: dict[str, Any]) -> Any:  # noqa: ANN401 - those of a training
    """The settings of a training, with those that the user gave."""
    from minircnn import training

    kind = getattr(training, SETTINGS[detector])
    return kind(**{name: options[name] for name in kind.__dataclass_fields__ if options.get(name) is not None})


def _starting_network(start: Path | None, from_scratch: bool, seed: int) -> tuple[AlexNet, str]:
    """The network to fine-tune, and its last layer of which the file has weights: "fc7", or "pool5"."""
    import torch

    from minircnn.alexnet import SMALL, AlexNet, load_pretrained

    config, last = SMALL, "fc7"
    if start is not None:
        network, last = load_pretrained(start)
        config = network.config
    if from_scratch:
        torch.manual_seed(seed)
        network = AlexNet(config, num_classes=1)  # fine-tuning replaces the last layer
    return network, last


def _tell_of_unfinished(out: Path, resume: bool) -> None:
    """Say what happens to the state of an earlier run that was stopped, if it is not what one would expect."""
    unfinished = out.with_suffix(".checkpoint")
    if resume and not unfinished.is_file():
        say(f"no unfinished run at {unfinished}: beginning at the beginning")
    elif unfinished.is_file() and not resume:
        say(f"{unfinished}: the state of an unfinished run will be replaced; --resume would go on with it")


def _proposals_of(samples: Sequence[tuple[Tensor, dict[str, Any]]]) -> list[Tensor]:
    """The proposals of each image, from the cache as far as they are there."""
    from minircnn.selective_search import stored_proposals

    say(f"proposals of {len(samples)} images, as far as they are not in the cache")
    return stored_proposals(samples, workers=-1)


def _about(
    detector: str,
    options: dict[str, Any],
    wanted: DataOptions,
    settings: Any,  # noqa: ANN401
    count: int,
    start: Path | None,
) -> dict[str, Any]:
    """What is noted beside the weights: how to train the same again, and what it began with."""
    from minircnn.files import sha256

    used = {name: value for name, value in asdict(settings).items() if name in options}
    shipped = DETECTOR_WEIGHTS[detector].relative_to(PROJECT_FOLDER).as_posix()
    named = {"out": options["out"] or shipped, **{key: options[key] for key in ("network", "features", "from_scratch")}}
    if options["from_scratch"]:
        pretrained = {"file": "none: random weights", **({"network_of": start.name} if start else {})}
    else:
        pretrained = {"file": start.name, "sha256": sha256(start)}
    command = as_command(f"train {detector}", {**wanted.words(), "images": count, **used, **named})
    return {"command": command, "pretrained": pretrained}


def _measure(chosen: Chosen, max_proposals: int | None, masks: bool) -> Callable[[Any], dict[str, float]]:
    """Average precision on a few images, from which nothing learns: for a look now and then."""
    from minircnn.evaluation import evaluate
    from minircnn.selective_search import stored_proposals

    samples = list(chosen.samples())
    targets, proposals = [target for _, target in samples], [None] * len(samples)
    if max_proposals is not None:
        proposals = stored_proposals(samples, max_proposals=max_proposals)

    def measure(model: Any) -> dict[str, float]:  # noqa: ANN401
        found = [detect_in(model, image, boxes) for (image, _), boxes in zip(samples, proposals, strict=True)]
        numbers = {}
        for prefix, kind in [("val", "boxes"), *([("val_mask", "masks")] if masks else [])]:
            result = evaluate(found, targets, classes=model.classes, kind=kind)
            numbers |= {f"{prefix}_ap": result.ap, f"{prefix}_ap50": result.ap50}
        return numbers

    return measure
