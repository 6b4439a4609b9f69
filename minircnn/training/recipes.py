"""How each detector is trained: R-CNN in three steps; Fast, Faster and Mask R-CNN jointly, or alternating."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minircnn.alexnet import AlexNet, up_to_pool5
from minircnn.cache import Cache, module_fingerprint
from minircnn.fast_rcnn import FastRCNN, RoIConfig, fast_rcnn_alexnet
from minircnn.faster_rcnn import TOY_TOWN_RPN, FasterRCNN, RPNConfig, alexnet_transform, faster_rcnn_alexnet
from minircnn.mask_rcnn import TOY_TOWN_MASK_RPN, MaskRCNN, mask_rcnn_alexnet
from minircnn.rcnn import RCNN, RCNNConfig
from minircnn.resnet_fpn import ResNetFPN
from minircnn.training.batches import (
    Augmentation,
    Batch,
    DrawnAhead,
    KeptSamples,
    Samples,
    check_any_object,
    draw_batch,
)
from minircnn.training.checkpoints import describe_data
from minircnn.training.loop import LoopSettings, fit, is_main
from minircnn.transforms import Transform
from minircnn.weights import save

History = list[dict[str, float]]  # the losses of each iteration


@dataclass(frozen=True)
class JointTrainingSettings:
    """How to train a detector. Defaults are what the shipped weights were trained with.

    For the jitters and ``crop_size`` see :class:`Augmentation`; for ``schedule`` and ``mixed_precision``
    :class:`minircnn.training.LoopSettings`.
    """

    iterations: int = 6000  # batches to learn from
    images_per_batch: int = 4  # the papers take 1 or 2; more, and smaller, suits a processor
    learning_rate: float = 1e-3  # at its highest, for the fully connected and the new layers
    backbone_lr_mult: float = 0.5  # factor of the learning rate for the backbone
    frozen: int = 1  # convolutions of an AlexNet, from conv1 on, that stay as pre-trained (Fast R-CNN, section 4.5)
    # Of the transform, in training and in detection; the papers enlarge images of 375 pixels to 600, for small objects.
    min_size: int = 192
    max_size: int | None = None  # of the transform; None: as the detector has it
    crop_size: int | None = None
    color_jitter: float = 0.3
    scale_jitter: float = 0.25
    schedule: str = "cosine"
    mixed_precision: bool = False
    seed: int = 0  # of everything that is drawn at random

    def __post_init__(self) -> None:
        self.loop()  # validates them, before any work is done

    def largest(self) -> Transform:
        """Makes images as large as the backbone will ever see them."""
        grown = [side and math.ceil(side * (1 + self.scale_jitter)) for side in (self.min_size, self.max_size)]
        return Transform(min_size=grown[0], max_size=grown[1])

    def loop(self) -> LoopSettings:
        """Those that are for the loop."""
        names = ("iterations", "learning_rate", "schedule", "mixed_precision", "seed")
        return LoopSettings(**{name: getattr(self, name) for name in names})


def joint_losses(
    model: FastRCNN,
    samples: Samples,
    settings: JointTrainingSettings,
    proposals: Sequence[Tensor] | None = None,
    losses: Callable[..., dict[str, Tensor]] | None = None,
) -> Callable[[int], dict[str, Tensor]]:
    """The losses of iteration i, for :func:`minircnn.training.fit`: of a batch of augmented images.

    With ``proposals`` for each image the losses are computed from them. ``losses``, by default the model's, are of
    ``(images, targets)`` or ``(images, proposals, targets)``.
    """
    losses, device = losses or model.losses, next(model.parameters()).device
    augmentation = Augmentation(
        color_jitter=settings.color_jitter, scale_jitter=settings.scale_jitter, crop_size=settings.crop_size
    )
    options = {"images_per_batch": settings.images_per_batch, "seed": settings.seed, "device": device}
    options |= {"augmentation": augmentation, "transform": model.transform}

    def draw(iteration: int) -> Batch:
        return draw_batch(iteration, samples, proposals, **options)

    # Samples of other kinds may draw from torch's global generator, which the losses draw from, too.
    batch_of = DrawnAhead(draw, settings.iterations) if isinstance(samples, KeptSamples) else draw

    def of_iteration(iteration: int) -> dict[str, Tensor]:
        batch = batch_of(iteration)
        transform, given = model.transform, () if proposals is None else (batch.proposals,)
        seen = augmentation.seen(transform)
        sides = {"min_size": seen.min_size, "max_size": seen.max_size}
        sides = {name: side and max(int(batch.scale * side), 1) for name, side in sides.items()}
        model.transform = replace(seen, **sides)
        try:
            return losses(batch.images, *given, batch.targets)
        finally:
            model.transform = transform

    return of_iteration


def trainable(
    model: FastRCNN, settings: JointTrainingSettings, parts: Sequence[nn.Module], backbone: bool = True
) -> list[dict[str, Any]]:
    """Groups of parameters for :func:`minircnn.training.fit`; everything else is frozen.

    ``parts`` of the detector learn, and the backbone, if it is to: AlexNet's but for its first convolutions, which know
    edges already, or the layers that a residual network names itself.
    """
    model.requires_grad_(False)
    heads = [parameter.requires_grad_() for part in parts for parameter in part.parameters()]
    if not backbone:
        return [{"params": heads, "lr_mult": 1.0}]
    model.backbone.requires_grad_(True)
    if isinstance(model.backbone, ResNetFPN):
        model.backbone.freeze(model.backbone.trainable_layers)
    else:
        for number in range(1, settings.frozen + 1):
            getattr(model.backbone, f"conv{number}").requires_grad_(False)
    convolutions = [parameter for parameter in model.backbone.parameters() if parameter.requires_grad]
    return [{"params": convolutions, "lr_mult": settings.backbone_lr_mult}, {"params": heads, "lr_mult": 1.0}]


def with_new_head(network: AlexNet, images: Sequence[Tensor], hidden: int = 512) -> AlexNet:
    """An AlexNet of which only the convolutions have learned, made ready for new layers behind them.

    fc6 and fc7 are new and have ``hidden`` outputs: 4096 random ones would take most of the time, and teach little. The
    outputs of the convolutions come to a mean square of 1 on these images, ``(3, H, W)`` in [0, 1], by scaling the last
    one, which ReLU lets through: those of AlexNet as published are much larger, and new layers would not settle.
    """
    fresh = AlexNet(replace(network.config, hidden=hidden), num_classes=1)
    fresh.backbone.load_state_dict(network.backbone.state_dict())
    transform = replace(alexnet_transform(network), min_size=224)
    with torch.no_grad():
        outputs = [fresh.backbone(transform.batch([image])[0]).flatten() for image in images]
        size = torch.cat(outputs).square().mean().sqrt()
        for parameter in fresh.backbone.conv5.parameters():
            parameter /= size
    return fresh


def train_jointly(
    model: FastRCNN,
    samples: Samples,
    settings: JointTrainingSettings,
    proposals: Sequence[Tensor] | None = None,
    *,
    about: dict[str, Any] | None = None,
    out: Path | None = None,
    resume: bool = False,
    report: Callable[[str], None] | None = None,
    **options: Any,  # noqa: ANN401 - each has its own type
) -> History:
    """Train all parts of a detector at once, and save it.

    Args:
        model: afterwards in evaluation mode.
        samples: ``(image, target)`` pairs of the training images.
        settings: how long and how fast.
        proposals: for each image, if the detector does not make its own.
        about: noted in the JSON file, beside the settings.
        out: the file to write, ``.safetensors``. The state of an unfinished run is kept beside it.
        resume: go on with an unfinished run of the same settings, weights and data.
        report: is told how long it will take, after a look at some batches.
        options: of :func:`minircnn.training.fit`: ``log``, ``evaluate``, ``evaluate_every``, ``quiet``.

    Raises:
        ValueError: no image shows an object that is no crowd, or what :func:`minircnn.training.fit` refuses.
    """
    longest = settings.max_size or model.transform.max_size
    model.transform = replace(model.transform, min_size=settings.min_size, max_size=longest)
    check_any_object((samples[index][1] for index in range(len(samples))), "samples")
    unfinished = out.with_suffix(".checkpoint") if out else None
    parts = [getattr(model, name) for name in ("rpn", "roi_heads") if hasattr(model, name)]
    run = {**asdict(settings), **{type(part).__name__: repr(part.config) for part in parts}}
    if out:
        run |= {"network": module_fingerprint(model), **describe_data(samples, model.classes, proposals or ())}
    losses, groups = joint_losses(model, samples, settings, proposals), trainable(model, settings, parts)
    if report:
        minutes = max(settings.iterations * _seconds(model, losses) / 60, 1)
        what = f"{settings.iterations} batches of {settings.images_per_batch}, from {len(samples)} images"
        report(f"{what}: about {minutes:.0f} min")
    options |= {"checkpoint": unfinished, "resume": resume, "replaces": out, "about": run}
    history = fit(model, losses, settings.loop(), groups=groups, **options)
    model.eval()
    if out and is_main():
        save(model, out, {**(about or {}), "settings": asdict(settings)})
        unfinished.unlink(missing_ok=True)
    return history


def _seconds(model: nn.Module, losses: Callable[[int], dict[str, Tensor]], looks: int = 3) -> float:
    """Of an iteration: of some the shortest, for the first reads files and warms up. Nothing is learned from them."""
    seconds = []
    for iteration in range(looks):
        start = time.perf_counter()
        sum(losses(iteration).values()).backward()
        seconds.append(time.perf_counter() - start)
    model.zero_grad()
    return min(seconds)


@dataclass(frozen=True)
class RCNNTrainingSettings:
    """How to fine-tune the network of R-CNN, on batches of 128 proposals, and how many proposals an image has.

    Defaults are what the shipped weights were trained with. 0 iterations leave it out; the backbone learns at a tenth
    of the learning rate.
    """

    iterations: int = 2000
    learning_rate: float = 1e-3
    max_proposals: int = 300
    seed: int = 0


def train_rcnn(
    network: AlexNet,
    samples: Samples,
    proposals: Sequence[Tensor],
    classes: Sequence[str],
    settings: RCNNTrainingSettings | None = None,
    *,
    config: RCNNConfig | None = None,
    out: Path | None = None,
    resume: bool = False,
    cache: Cache | None = None,
    about: dict[str, Any] | None = None,
    report: Callable[[str], None] = print,
    quiet: bool | None = None,
) -> RCNN:
    """Fine-tune the network, fit the SVMs, fit the box regressors, and save all three.

    ``network`` is pre-trained, and changed; where neither SVMs nor box regressors read fc6 or fc7, the detector keeps
    its convolutions only. ``samples`` are ``(image, target)`` pairs, with proposals ``(P, 4)`` for each; ``classes[0]``
    is the background. Features are kept in ``cache``; ``report`` is told, in words, what has been done. For ``out``,
    ``resume`` and ``about`` see :func:`train_jointly`.
    """
    settings = settings or RCNNTrainingSettings()
    proposals = [found[: settings.max_proposals] for found in proposals]
    model = RCNN(network, classes, config).to(network.fc8.weight.device)
    unfinished = out.with_suffix(".checkpoint") if out else None
    if settings.iterations:
        report("1 of 3: fine-tuning the network")
        torch.manual_seed(settings.seed)  # for the fresh last layer; the loop seeds every batch
        loop = LoopSettings(settings.iterations, settings.learning_rate, seed=settings.seed)
        run = {**asdict(settings), "network": module_fingerprint(network)}
        run |= describe_data(samples, classes, proposals) if out else {}
        options = {"checkpoint": unfinished, "resume": resume, "replaces": out, "about": run, "quiet": quiet}
        model.finetune(samples, proposals, partial(fit, settings=loop, **options))
    if model.config.svm_layer == model.config.box_layer == "pool5":
        model.network = up_to_pool5(model.network)
    # The file will hold half precision; so let the other two models see what it will hold.
    model.network.half().float()
    report("2 of 3: features of every proposal, then support vector machines")
    records = model.fit_svms(samples, proposals, cache=cache)
    for name, record in zip(model.classes[1:], records, strict=True):
        report(f"  {name}: {record.positives} objects; hard negatives, each time it learned: {record.found}")
    report("3 of 3: box regression")
    counts = model.fit_box_regressors(samples, proposals, cache=cache)
    near = ", ".join(f"{name} {count}" for name, count in zip(model.classes[1:], counts, strict=True))
    report(f"  proposals near an object: {near}")
    if out:
        save(model, out, {**(about or {}), "settings": asdict(settings)})
        unfinished.unlink(missing_ok=True)
    return model


@dataclass(frozen=True)
class FastRCNNTrainingSettings(JointTrainingSettings):
    """As there, for more iterations, which need more augmentation; and ``max_proposals`` of each image."""

    iterations: int = 20_000
    color_jitter: float = 0.4
    scale_jitter: float = 0.35
    max_proposals: int = 300


def train_fast_rcnn(
    network: AlexNet,
    samples: Samples,
    proposals: Sequence[Tensor],
    classes: Sequence[str],
    settings: FastRCNNTrainingSettings | None = None,
    *,
    config: RoIConfig | None = None,
    **options: Any,  # noqa: ANN401 - each has its own type
) -> tuple[FastRCNN, History]:
    """Train backbone, classifier and box regression at once, and save the detector.

    Arguments are those of :func:`train_rcnn`, but ``config`` is of the heads, ``network`` is taken apart, too, and
    ``options`` are those of :func:`train_jointly`. The losses of each iteration are returned, too.
    """
    settings = settings or FastRCNNTrainingSettings()
    proposals = [found[: settings.max_proposals] for found in proposals]
    torch.manual_seed(settings.seed)  # for the new layers; the loop seeds every iteration
    model = fast_rcnn_alexnet(network, classes, config)
    return model, train_jointly(model, samples, settings, proposals, **options)


@dataclass(frozen=True)
class FasterRCNNTrainingSettings(JointTrainingSettings):
    """As there, for more iterations, which need more augmentation."""

    iterations: int = 20_000
    color_jitter: float = 0.4
    scale_jitter: float = 0.35


def train_faster_rcnn(
    network: AlexNet,
    samples: Samples,
    classes: Sequence[str],
    settings: FasterRCNNTrainingSettings | None = None,
    *,
    rpn: RPNConfig = TOY_TOWN_RPN,
    heads: RoIConfig | None = None,
    build: Callable[..., FasterRCNN | MaskRCNN] = faster_rcnn_alexnet,
    **options: Any,  # noqa: ANN401 - each has its own type
) -> tuple[FasterRCNN | MaskRCNN, History]:
    """Train backbone, RPN and heads at once (section 3.2, "approximate joint training"), and save the detector.

    As :func:`train_fast_rcnn`, but the RPN makes the proposals; ``rpn`` and ``heads`` are configurations, with which
    ``build`` makes the detector of ``network`` and ``classes``.
    """
    settings = settings or FasterRCNNTrainingSettings()
    torch.manual_seed(settings.seed)  # for the new layers; the loop seeds every iteration
    model = build(network, classes, rpn, heads)
    return model, train_jointly(model, samples, settings, **options)


def train_alternating(
    network: AlexNet,
    samples: Samples,
    classes: Sequence[str],
    settings: FasterRCNNTrainingSettings | None = None,
    *,
    rpn: RPNConfig = TOY_TOWN_RPN,
    heads: RoIConfig | None = None,
    quiet: bool | None = None,
) -> tuple[FasterRCNN, list[History]]:
    """Train Faster R-CNN in four steps (section 3.2, "4-step alternating training"), a quarter of the iterations each.

    1. The RPN learns, with a backbone of its own.
    2. A Fast R-CNN learns from its proposals, with a backbone of its own.
    3. The RPN learns again, on the backbone of the second step, which is frozen.
    4. The heads learn again, from the new proposals; backbone and RPN are frozen.

    Returns:
        The detector, in evaluation mode, and the losses of each step. ``network`` is not changed.
    """
    settings = settings or FasterRCNNTrainingSettings()
    settings = replace(settings, iterations=max(settings.iterations // 4, 1))
    torch.manual_seed(settings.seed)
    model = faster_rcnn_alexnet(copy.deepcopy(network), classes, rpn, heads)
    model.transform = replace(model.transform, min_size=settings.min_size)
    detector, history = copy.deepcopy(model), []

    def step(learner: FasterRCNN, part: nn.Module, backbone: bool, *inputs: Any) -> None:  # noqa: ANN401
        losses = joint_losses(learner, samples, settings, *inputs)
        groups = trainable(learner, settings, [part], backbone)
        history.append(fit(learner, losses, settings.loop(), groups=groups, quiet=quiet))

    for backbone in (True, False):
        step(model, model.rpn, backbone, None, model.rpn_losses)
        step(detector, detector.roi_heads, backbone, proposals_of(model, samples), detector.fast_rcnn_losses)
        model.backbone, model.roi_heads = detector.backbone, detector.roi_heads
    return model.eval(), history


def proposals_of(model: FasterRCNN, samples: Samples) -> list[Tensor]:
    """The proposals of a network for each image of a data set, as many as in training: ``(P, 4)`` each."""
    model.train()
    device = next(model.parameters()).device
    return [model.propose([samples[i][0].to(device)])[0]["boxes"].cpu() for i in range(len(samples))]


@dataclass(frozen=True)
class MaskRCNNTrainingSettings(FasterRCNNTrainingSettings):
    """As there, for fewer iterations."""

    iterations: int = 15_000


def train_mask_rcnn(
    network: AlexNet,
    samples: Samples,
    classes: Sequence[str],
    settings: MaskRCNNTrainingSettings | None = None,
    *,
    rpn: RPNConfig = TOY_TOWN_MASK_RPN,
    **options: Any,  # noqa: ANN401 - each has its own type
) -> tuple[MaskRCNN, History]:
    """As :func:`train_faster_rcnn`, and the mask branch, too (Mask R-CNN, section 3.1); the targets need masks."""
    settings = settings or MaskRCNNTrainingSettings()
    return train_faster_rcnn(network, samples, classes, settings, rpn=rpn, build=mask_rcnn_alexnet, **options)


@dataclass(frozen=True)
class FineTuningSettings(JointTrainingSettings):
    """For a detector that is trained already: few iterations, small steps, images as large as it knows them."""

    iterations: int = 1000
    images_per_batch: int = 2
    learning_rate: float = 1e-4
    min_size: int = 800


def fine_tune(
    model: MaskRCNN,
    samples: Samples,
    settings: FineTuningSettings | None = None,
    **options: Any,  # noqa: ANN401 - each has its own type
) -> History:
    """Fine-tune a Mask R-CNN on a feature pyramid, such as the published one with last layers for other classes.

    ``samples`` need masks; their labels count the model's classes. ``options`` are those of :func:`train_jointly`. The
    model is changed, and in evaluation mode afterwards.
    """
    return train_jointly(model, samples, settings or FineTuningSettings(), **options)
