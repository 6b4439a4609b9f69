"""What the trainings of all detectors that look once at whole pictures have in common."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from minircnn.fast_rcnn import FastRCNN
from minircnn.resnet_fpn import ResNetFPN
from minircnn.targets import check_any_object
from minircnn.training.batches import Augmentation, Batch, Samples, draw_batch
from minircnn.training.checkpoints import describe_data
from minircnn.training.loop import LoopSettings, fit
from minircnn.training.parallel import is_main
from minircnn.transforms import Transform


@dataclass(frozen=True)
class JointTrainingSettings:
    """How to train a detector.

    Attributes:
        iterations: batches to learn from.
        images_per_batch: the papers take 1 or 2; more, and shorter, suits a processor.
        learning_rate: at its highest, for the fully connected and the new layers.
        backbone_lr_mult: factor of the learning rate for the backbone, whose conv1 is frozen (Fast R-CNN, section 4.5).
        min_size: to how many pixels the shorter side of a picture is enlarged, in training and in detection; the papers
            enlarge pictures of 375 pixels to 600. Small objects then cover more cells. The longer side gets at most
            four times as many, see :class:`minircnn.transforms.Transform`.
        color_jitter: see :class:`minircnn.training.batches.Augmentation`.
        scale_jitter: see there.
        schedule: "cosine", or "step" as in the papers.
        mixed_precision: half precision where that is safe; on CUDA only.
        seed: of everything that is drawn at random.
    """

    iterations: int = 6000
    images_per_batch: int = 4
    learning_rate: float = 1e-3
    backbone_lr_mult: float = 0.5
    min_size: int = 192
    color_jitter: float = 0.3
    scale_jitter: float = 0.25
    schedule: str = "cosine"
    mixed_precision: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses numbers that mean nothing, before any work is done with them."""
        self.loop()

    def loop(self) -> LoopSettings:
        """Those that are for the loop."""
        return LoopSettings(
            self.iterations,
            self.learning_rate,
            schedule=self.schedule,
            mixed_precision=self.mixed_precision,
            seed=self.seed,
        )


def trainable(
    model: FastRCNN, backbone_lr_mult: float, parts: Sequence[nn.Module], backbone: bool = True
) -> list[dict[str, Any]]:
    """Groups of parameters for :func:`minircnn.training.fit`; everything else is held fast.

    Args:
        model: the detector.
        backbone_lr_mult: factor of the learning rate for the backbone.
        parts: of the detector, that learn.
        backbone: whether the convolutions learn, too, but for the first: conv1 knows edges already. Which of
            a residual network's layers learn, it knows itself.
    """
    model.requires_grad_(False)
    heads = [parameter.requires_grad_() for part in parts for parameter in part.parameters()]
    if not backbone:
        return [{"params": heads, "scale": 1.0}]
    model.backbone.requires_grad_(True)
    if isinstance(model.backbone, ResNetFPN):
        model.backbone.freeze(model.backbone.trainable_layers)
    else:
        model.backbone.conv1.requires_grad_(False)
    convolutions = [parameter for parameter in model.backbone.parameters() if parameter.requires_grad]
    return [{"params": convolutions, "scale": backbone_lr_mult}, {"params": heads, "scale": 1.0}]


def batch_losses(
    model: FastRCNN,
    samples: Samples,
    proposals: Sequence[Tensor] | None,
    settings: JointTrainingSettings,
    losses: Callable[[Batch], dict[str, Tensor]],
) -> Callable[[int], dict[str, Tensor]]:
    """Losses of an iteration, for :func:`minircnn.training.fit`, out of losses of a batch.

    Args:
        model: the detector; the pictures go where it is.
        samples: ``(image, target)`` pairs.
        proposals: for each of them, or None.
        settings: how batches are drawn.
        losses: of a batch.
    """
    device = next(model.parameters()).device
    augmentation = Augmentation(color_jitter=settings.color_jitter, scale_jitter=settings.scale_jitter)
    count, seed = settings.images_per_batch, settings.seed

    def of_iteration(iteration: int) -> dict[str, Tensor]:
        batch = draw_batch(
            iteration, samples, proposals, pictures=count, seed=seed, augmentation=augmentation, device=device
        )
        usual = model.transform
        model.transform = resized(usual, batch.scale)
        try:
            return losses(batch)
        finally:
            model.transform = usual

    return of_iteration


def resized(transform: Transform, scale: float) -> Transform:
    """A transform to so many times the size."""
    sides = {"min_size": transform.min_size, "max_size": transform.max_size}
    return replace(transform, **{name: side and max(int(scale * side), 1) for name, side in sides.items()})


def train_jointly(
    model: FastRCNN,
    losses: Callable[[int], dict[str, Tensor]],
    settings: JointTrainingSettings,
    *,
    groups: Sequence[dict[str, Any]],
    save: Callable[[Path], None],
    about: dict[str, Any],
    samples: Samples,
    proposals: Sequence[Tensor] = (),
    out: Path | None = None,
    resume: bool = False,
    log: Path | None = None,
    evaluate: Callable[[Any], dict[str, float]] | None = None,
    evaluate_every: int | None = None,
    quiet: bool | None = None,
) -> list[dict[str, float]]:
    """Runs the loop, keeps the state of an unfinished run beside the file to be, and has the file written.

    Args:
        model: the detector; afterwards in evaluation mode.
        losses: of an iteration.
        settings: how long and how fast.
        groups: of parameters; see :func:`trainable`.
        save: writes the detector into a file.
        about: what else the run depends on; see :func:`minircnn.training.fit`, also for the rest.
        samples: what the losses are computed from; an unfinished run does not go on with others.
        proposals: likewise, for each of them.
        out: the file to write, ``.safetensors``. The state of an unfinished run is kept beside it. A file that is
            there stays if the training ended no better than it began.
        resume: go on with an unfinished run.
        log: a CSV file for the losses of each iteration.
        evaluate: measures the detector, which it is given, from time to time.
        evaluate_every: iterations between two measurements.
        quiet: no progress bar.

    Returns:
        The losses of each iteration.

    Raises:
        ValueError: no image shows an object that is no crowd, or what :func:`minircnn.training.fit` refuses.
    """
    check_any_object((samples[index][1] for index in range(len(samples))), "samples")
    unfinished = out.with_suffix(".checkpoint") if out else None
    data = describe_data(samples, model.classes, proposals) if out else {}
    history = fit(
        model,
        losses,
        settings.loop(),
        groups=groups,
        checkpoint=unfinished,
        resume=resume,
        replaces=out,
        log=log,
        evaluate=evaluate and (lambda: evaluate(model)),
        evaluate_every=evaluate_every,
        about={**asdict(settings), **about, **data},
        quiet=quiet,
    )
    model.eval()
    if out and is_main():
        save(out)
        unfinished.unlink(missing_ok=True)
    return history
