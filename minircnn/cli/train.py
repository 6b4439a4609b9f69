"""``minircnn train``: every detector, on Toy Town or on the user's own images."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from minircnn.cli import common
from minircnn.cli import data as choice
from minircnn.cli.common import RefusedError, check_outputs, files_beside, of_weights, option, with_json
from minircnn.cli.data import say
from minircnn.shipped import DETECTOR_WEIGHTS, DETECTORS, PROJECT_FOLDER, SMALL_WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

    from minircnn.datasets.images import ImageDataset
    from minircnn.training import DataSettings, Start

AUTO, LARGEST_SIDE = "auto", 4096  # beyond, an image fills the memory, and objects are larger than anchors
VALIDATION_IMAGES = 100
SETTINGS = {name: f"{kind}TrainingSettings" for name, (kind, _) in DETECTORS.items()}  # in minircnn.training


def _positive(value: float | None) -> float | None:
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise typer.BadParameter(f"{value} is no positive number")
    return value


def _side(value: str | None) -> str | None:
    if value not in (None, AUTO) and not (value.isdecimal() and 1 <= int(value) <= LARGEST_SIDE):
        raise typer.BadParameter(f"{value} is neither {AUTO} nor a number of pixels from 1 to {LARGEST_SIDE}")
    return value


def _numbers(value: str | None) -> str | None:
    try:
        wrong = value is not None and not all(0 < number < math.inf for number in _read_numbers(value))
    except ValueError:
        wrong = True
    if wrong:
        raise typer.BadParameter(f"{value}: give positive numbers with commas between them, such as 16,32,64")
    return value


def _read_numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(","))


Names = option(list[str], "Only these, with commas between them.", default="all of them", metavar="NAMES")
Out = option(
    Path,
    "The .safetensors file to write, a .json file beside it; by default that in data/weights, which comes with the "
    "project. Needed with images other than Toy Town's.",
)
Beginning = option(
    Path,
    "What it begins with. toytown: the small AlexNet of data/weights. imagenet: torchvision's ResNet-50, with a "
    "pyramid; of rcnn and fast_rcnn its AlexNet. coco: the published detector, with new last layers. Or a file: one of "
    "our detectors or torchvision's, an AlexNet, a ResNet (.pth), the convolutions of 2012 (.npz; rcnn's SVMs then "
    "judge by pool5).",
    "--start",
    "--network",
    default="toytown",
    metavar="coco|imagenet|toytown|FILE",
)
FromScratch = option(bool, "Begin with random weights; with --start FILE, in its AlexNet.", "--from-scratch")
Iterations = option(
    int,
    "Batches to learn from; 0 leaves out rcnn's fine-tuning, as does a FILE of convolutions only.",
    default="2000, 20000, 20000, 15000; of data other than Toy Town by the number of images",
    min=0,
)
ImagesPerBatch = option(
    int, "64 regions are drawn from each.", default="4; with a pyramid 2, from photographs 1", min=1
)
LearningRate = option(
    float, "At its highest.", default="0.001; of few batches 0.003, with a pyramid 0.0001", callback=_positive
)
MinSize = option(
    str,
    "The shorter side is resized to N pixels, if the longer one stays within --max-size. auto: as the objects need it.",
    default="192; of data other than Toy Town auto",
    metavar="auto|N",
    callback=_side,
)
MaxSize = option(int, "Of the longer side.", default="as --min-size has it", min=1, max=LARGEST_SIDE)
AnchorSizes = option(
    str,
    "Sizes of anchors with commas between them, in pixels after resizing.",
    default="from the data; of a pyramid one for each of five levels",
    metavar="X,…",
    callback=_numbers,
)
AspectRatios = option(
    str, "Height / width of anchors, likewise.", default="from the data", metavar="X,…", callback=_numbers
)
ScaleJitter = option(
    float, "Images become up to 1 + X times larger or smaller.", default="0, 0.35, 0.35, 0.35", callback=_positive
)
Schedule = option(Literal["cosine", "step"], "How the rate falls.", default="cosine")
MixedPrecision = option(bool, "Half precision where that is safe; with --device cuda.", "--mixed-precision")
# As large as PyTorch, NumPy and scikit-learn take it; the trainings multiply it.
Seed = option(int, "Of all that is drawn at random.", default="0", min=0, max=2**32 - 1)
Resume = option(bool, "Go on with a run of the same settings that was stopped.", "--resume")
# Not --log: torchrun, which knows several options that begin like this, takes it for one of its own.
Csv = option(Path, "Write the losses of each iteration here, as a table.")
EvaluateEvery = option(
    int,
    "Measure on validation images every N iterations. Beside the weights are then written the best so far "
    "(…_best.safetensors), a curve (…_curve.png) and predictions (…_predictions.png). Without a split for it, every "
    "fifth image is for validation, and not learned from.",
    min=1,
)


def train(
    context: typer.Context,
    detector: common.Detector,
    data: choice.DataName = choice.TOYTOWN,
    root: choice.Root = None,
    annotations: choice.AnnotationsFile = None,
    split: choice.Split = None,
    classes: Names = None,
    drop_invalid: choice.DropInvalid = False,
    out: Out = None,
    start: Beginning = None,
    from_scratch: FromScratch = False,
    images: choice.FirstImages = None,
    iterations: Iterations = None,
    images_per_batch: ImagesPerBatch = None,
    learning_rate: LearningRate = None,
    min_size: MinSize = None,
    max_size: MaxSize = None,
    scale_jitter: ScaleJitter = None,
    anchor_sizes: AnchorSizes = None,
    aspect_ratios: AspectRatios = None,
    schedule: Schedule = None,
    max_proposals: common.MaxProposals = None,
    mixed_precision: MixedPrecision = False,
    seed: Seed = None,
    device: common.Device = "cpu",
    resume: Resume = False,
    csv: Csv = None,
    evaluate_every: EvaluateEvery = None,
) -> None:
    """Train a detector: R-CNN in three steps, the others all at once.

    Options of an iteration (from --images-per-batch on, without --max-proposals) are not for rcnn. Proposals and
    features are kept in the cache: for a photograph with 2000 proposals about 40 MB. But for rcnn, several processes
    share each batch: torchrun --nproc-per-node 2 -m minircnn train mask_rcnn …
    """
    options = context.params
    common.refuse_others(detector, options)
    wanted = choice.DataOptions(data, root, annotations, split, classes, drop_invalid)
    wanted.check(choice.LEARN)
    out = _weights_to_write(out, DETECTOR_WEIGHTS[detector], wanted)
    file = _file_of_start(start, from_scratch)
    beside = [("--out", path) for path in files_beside(out).values()] if evaluate_every else []
    check_outputs([*of_weights(out), *beside, ("--csv", csv)], with_json(file))
    if mixed_precision and not device.startswith("cuda"):
        raise RefusedError("--mixed-precision: needs an NVIDIA GPU; give --device cuda, or leave it out")
    _train(detector, {**options, "max_proposals": wanted.max_proposals(max_proposals)}, wanted, out)


def _file_of_start(start: Path | None, from_scratch: bool) -> Path | None:
    """The file that will be read, if one need not be fetched; refused if it is not there."""
    word = None if start is None else str(start)
    if from_scratch and word in ("coco", "imagenet"):
        raise RefusedError(f"--from-scratch: with --start {word} nothing is random; leave one of them out")
    if word in ("coco", "imagenet") or (from_scratch and start is None):
        return None
    command = "`python -m workshop.pretraining`"
    return common.find_weights("--start", None if word == "toytown" else start, SMALL_WEIGHTS, command)


def _weights_to_write(out: Path | None, default: Path, data: choice.DataOptions) -> Path:
    """Where training will write; refused if that would replace what comes with the project by something else."""
    plain = data.name == choice.TOYTOWN and data.class_names is None
    if out is None and not (plain and default.parent.is_dir()):
        where = f"{default.parent} is for Toy Town, in a clone of the project"
        raise RefusedError(f"--out FILE: say where to write; {where}")
    if out is not None and not plain and out.resolve().parent == default.resolve().parent:
        what = "the weights that come with the project, trained on Toy Town"
        raise RefusedError(f"--out {out}: this folder holds {what}; name another")
    if out is not None and out.suffix != ".safetensors":
        raise RefusedError(f"--out {out}: weights are written as .safetensors; give the file that ending")
    return out or default


def _train(detector: str, options: dict[str, Any], wanted: choice.DataOptions, out: Path) -> None:
    """Join the other processes, refuse what else can be refused before any work, train."""
    from minircnn import training
    from minircnn.cache import Cache
    from minircnn.cli.watch import Watch
    from minircnn.rcnn import RCNNConfig

    masks, joint = detector == "mask_rcnn", detector != "rcnn"
    with training.processes(common.ready_device(options["device"])) as device:
        if training.world_size() > 1 and not joint:
            raise RefusedError("rcnn: several processes cannot share its training; start one")
        data = wanted.to_learn_from(options["images"], masks)
        start = _read_start(detector, options["start"], options["from_scratch"], options["seed"] or 0)
        count, to_look_at, every = len(data), None, options["evaluate_every"]
        if every:
            data, to_look_at = wanted.held_out(data, VALIDATION_IMAGES, masks)
        settings, found = _settings(detector, options, wanted, data, to_look_at, start)
        batch = settings.images_per_batch if joint else 0
        if batch > len(data):
            raise RefusedError(f"--images-per-batch {batch}: there are only {len(data)} images; give fewer")
        training.share(range(batch))  # refused here, before any work, if it does not divide
        if not joint and start.last == "pool5":  # what stands behind it has learned nothing
            settings = replace(settings, iterations=options["iterations"] or 0)
        _tell_of_unfinished(out, options["resume"])
        with training.main_first():  # the others find its proposals in the cache
            samples = wanted.in_memory(data, None if detector in common.ON_PROPOSALS else settings.largest())
            proposals = _proposals(detector, samples, settings)
            to_look = _proposals(detector, wanted.in_memory(to_look_at), settings) if every else None
        about = _about(detector, options, {**wanted.words(), "images": count}, asdict(settings), start)
        more = {"about": about, "out": out, "resume": options["resume"], "report": say}
        if joint:
            model = _build(detector, start, data, settings.seed, found)
            watch = Watch(out, settings, to_look_at, to_look, about)
            more |= {"log": options["csv"], "evaluate": watch.measure if every else None, "evaluate_every": every}
            training.train_jointly(model.to(device), samples, settings, proposals, watch=watch, **more)
        else:
            more |= {"config": RCNNConfig(svm_layer=start.last), "cache": Cache()}
            training.train_rcnn(start.network.to(device), samples, proposals, data.classes, settings, **more)
        say(f"written to {out}; {wanted.advice(detector, out)}")  # here, where the main process is known


def _read_start(detector: str, start: Path | None, from_scratch: bool, seed: int) -> Any:  # noqa: ANN401
    """What the training begins with; ``from_scratch`` its network alone, with random weights."""
    import torch

    from minircnn.alexnet import SMALL, AlexNet
    from minircnn.training import Start, read_start

    try:
        given = None if from_scratch and not start else read_start(str(start or "toytown"), detector)
    except ValueError as error:
        if str(error).startswith("start "):  # about the option, not about what is in a file
            raise RefusedError(f"--{error}") from error
        raise
    if not from_scratch:
        return given
    if given and given.pyramid:
        raise RefusedError(f"--from-scratch: {start} has batch normalization, which learns nothing here; leave it out")
    torch.manual_seed(seed)
    network = AlexNet(given.network.config if given else SMALL, num_classes=1)  # fine-tuning replaces the last layer
    return Start(given.source if given else None, network, given.last if given else "fc7")


def _build(detector: str, start: Start, data: ImageDataset, seed: int, found: DataSettings | None) -> common.Model:
    """The detector that learns from this data set, with new layers drawn by the seed."""
    import torch

    from minircnn import training

    torch.manual_seed(seed)
    if start.last == "pool5":
        looks = [data.load_image(index) for index in range(min(len(data), 8))]
        start = replace(start, network=training.with_new_head(start.network, looks))
        torch.manual_seed(seed)
    masks, found = detector == "mask_rcnn", None if detector == "fast_rcnn" else found
    parts = (found.rpn(masks), found.heads(start.network, masks)) if found else ()
    model, new = training.build(detector, start, data.classes, *parts)
    if start.state:
        say(f"begins with {start.source}; new are {', '.join(new) or 'no layers'}")
    return model


def _proposals(detector: str, samples: Any, settings: Any) -> list[Tensor] | None:  # noqa: ANN401
    """Those of selective search, for detectors that are given them."""
    from minircnn.selective_search import stored_proposals

    if detector not in common.ON_PROPOSALS:
        return None
    say(f"proposals of {len(samples)} images, as far as they are not in the cache")
    return [found[: settings.max_proposals] for found in stored_proposals(samples, workers=-1)]


def _settings(
    detector: str,
    options: dict[str, Any],
    wanted: choice.DataOptions,
    data: ImageDataset,
    to_look_at: ImageDataset | None,
    start: Start,
) -> tuple[Any, DataSettings | None]:
    """The settings of a training, and those that follow from the data, if they are not Toy Town's."""
    from minircnn import training

    kind = training.FineTuningSettings if start.pyramid else getattr(training, SETTINGS[detector])
    given = {key: options[key] for key in kind.__dataclass_fields__ if options.get(key) is not None}
    automatic = given.get("min_size") == AUTO
    given |= {"min_size": int(given["min_size"])} if "min_size" in given and not automatic else {}
    anchors = {name: _read_numbers(options[name]) for name in ("anchor_sizes", "aspect_ratios") if options[name]}
    usual = wanted.name == choice.TOYTOWN and not (automatic or anchors or start.pyramid)
    if detector == "rcnn" or usual:
        return kind(**given), None
    if automatic:
        del given["min_size"]
    # Of a pyramid, the stride of the level that sees objects of middle size.
    stride = 8 if start.pyramid else start.network.config.total_stride
    sizes = {name: given[name] for name in ("min_size", "max_size", "images_per_batch") if name in given}
    levels = {
        "pyramid": start.pyramid,
        "trained": start.rpn if start.pyramid else None,
        "photographs": start.photographs and detector != "fast_rcnn" and not options["from_scratch"],
    }
    found = training.settings_for(data, stride=stride, **sizes, **anchors, **levels)
    say(*(found.reasons if detector != "fast_rcnn" else found.reasons[::2]))
    if detector != "fast_rcnn":
        recall = training.anchor_recall(training.measure(to_look_at or data), found, stride)
        where = "validation" if to_look_at else "training"
        share = f"{100 * recall:.1f} % of the objects in the {where} images"
        say(f"an anchor overlaps {share} by half or more: no training finds many others")
        if recall < training.settings.LOW_RECALL:
            say("Warning: that is low; try a larger --min-size, or other --anchor-sizes and --aspect-ratios")
    return found.training(kind, bool(start.state), **given), found


def _tell_of_unfinished(out: Path, resume: bool) -> None:
    """Say what happens to the state of an earlier run that was stopped, if it is not what one would expect."""
    unfinished = out.with_suffix(".checkpoint")
    if resume and not unfinished.is_file():
        say(f"no unfinished run at {unfinished}: beginning at the beginning")
    elif unfinished.is_file() and not resume:
        say(f"{unfinished}: the state of an unfinished run will be replaced; --resume would go on with it")


def _about(
    detector: str, options: dict[str, Any], words: dict[str, Any], settings: dict[str, Any], start: Start
) -> dict[str, Any]:
    """What is noted beside the weights: how to train the same again, and what it began with."""
    from minircnn.files import sha256

    used = {name: value for name, value in settings.items() if name in options}
    shipped = DETECTOR_WEIGHTS[detector].relative_to(PROJECT_FOLDER).as_posix()
    named = {key: options[key] for key in ("anchor_sizes", "aspect_ratios", "evaluate_every", "start", "from_scratch")}
    named = {"out": options["out"] or shipped, **named}
    if options["from_scratch"]:
        pretrained = {"file": "none: random weights", **({"network_of": start.source.name} if start.source else {})}
    else:
        pretrained = {"file": start.source.name, "sha256": sha256(start.source)}
    command = common.as_command(f"train {detector}", {**words, **used, **named})
    return {"command": command, "pretrained": pretrained}
