"""Faster R-CNN's training: all at once, or in turns as the paper first had it."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minircnn.alexnet import AlexNet
from minircnn.cache import module_fingerprint
from minircnn.fast_rcnn import RoIConfig
from minircnn.faster_rcnn import (
    TOY_TOWN_RPN,
    FasterRCNN,
    RPNConfig,
    faster_rcnn_alexnet,
    save_faster_rcnn,
)
from minircnn.training.batches import Batch, Samples
from minircnn.training.joint import JointTrainingSettings, batch_losses, train_jointly, trainable
from minircnn.training.loop import fit


@dataclass(frozen=True)
class FasterRCNNTrainingSettings(JointTrainingSettings):
    """What the shipped weights were trained with; see there. More batches than Fast R-CNN's need more variety."""

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
    about: dict[str, Any] | None = None,
    **options: Any,  # noqa: ANN401 - each has its own type
) -> tuple[FasterRCNN, list[dict[str, float]]]:
    """Trains everything but conv1 at once (section 3.2, "approximate joint training"), and saves it.

    Args:
        network: pre-trained; it is taken apart and changed.
        samples: ``(image, target)`` pairs of the training pictures.
        classes: names; ``classes[0]`` is the background.
        settings: see there.
        rpn: the numbers of the proposals.
        heads: the numbers of what is done with them.
        about: noted in the JSON file.
        options: of :func:`minircnn.training.train_jointly`: ``out``, ``resume``, ``log``, ``evaluate``,
            ``evaluate_every`` and ``quiet``.

    Returns:
        The detector, in evaluation mode, and the losses of each iteration.
    """
    settings = settings or FasterRCNNTrainingSettings()
    start = module_fingerprint(network)
    model = _fresh(network, classes, settings, rpn, heads)
    record = {**(about or {}), "settings": asdict(settings)}
    return model, learn_everything(
        *(model, samples, settings, start),
        save=lambda path: save_faster_rcnn(model, network.config, path, record),
        **options,
    )


def learn_everything(
    model: FasterRCNN,
    samples: Samples,
    settings: JointTrainingSettings,
    start: str,
    *,
    save: Callable[[Path], None],
    **options: Any,  # noqa: ANN401 - each has its own type
) -> list[dict[str, float]]:
    """Trains everything but conv1 of a detector that makes its own proposals.

    Args:
        model: the detector.
        samples: ``(image, target)`` pairs of the training pictures.
        settings: see there.
        start: a fingerprint of what it was made of.
        save: writes it into a file.
        options: of :func:`minircnn.training.train_jointly`.

    Returns:
        The losses of each iteration.
    """
    return train_jointly(
        model,
        batch_losses(model, samples, None, settings, lambda batch: model.losses(batch.images, batch.targets)),
        settings,
        groups=trainable(model, settings.backbone_lr_mult, [model.rpn, model.roi_heads]),
        save=save,
        about={"rpn": repr(model.rpn.config), "heads": repr(model.roi_heads.config), "network": start},
        samples=samples,
        **options,
    )


def train_alternating(
    network: AlexNet,
    samples: Samples,
    classes: Sequence[str],
    settings: FasterRCNNTrainingSettings | None = None,
    *,
    rpn: RPNConfig = TOY_TOWN_RPN,
    heads: RoIConfig | None = None,
    quiet: bool | None = None,
) -> tuple[FasterRCNN, list[list[dict[str, float]]]]:
    """Trains in four steps (section 3.2, "4-step alternating training"), each with a quarter of the iterations.

    1. The proposer learns, with convolutions of its own.
    2. A Fast R-CNN learns from its proposals, with convolutions of its own.
    3. The proposer learns again, on the convolutions of the second step, which stay as they are.
    4. The heads learn again, from the new proposals; convolutions and proposer stay as they are.

    Args:
        network: pre-trained; it is not changed.
        samples: ``(image, target)`` pairs of the training pictures.
        classes: names; ``classes[0]`` is the background.
        settings: of all four steps together.
        rpn: the numbers of the proposals.
        heads: the numbers of what is done with them.
        quiet: no progress bar.

    Returns:
        The detector, in evaluation mode, and the losses of each step.
    """
    settings = settings or FasterRCNNTrainingSettings()
    settings = replace(settings, iterations=max(settings.iterations // 4, 1))
    model, detector = (_fresh(copy.deepcopy(network), classes, settings, rpn, heads) for _ in range(2))
    history = [_step(model, [model.rpn], samples, None, settings, backbone=True, quiet=quiet)]
    proposals = proposals_of(model, samples)
    history.append(_step(detector, [detector.roi_heads], samples, proposals, settings, backbone=True, quiet=quiet))
    model.backbone, model.roi_heads = detector.backbone, detector.roi_heads
    history.append(_step(model, [model.rpn], samples, None, settings, backbone=False, quiet=quiet))
    proposals = proposals_of(model, samples)
    history.append(_step(detector, [detector.roi_heads], samples, proposals, settings, backbone=False, quiet=quiet))
    return model.eval(), history


def _step(
    model: FasterRCNN,
    parts: list[nn.Module],
    samples: Samples,
    proposals: list[Tensor] | None,
    settings: FasterRCNNTrainingSettings,
    *,
    backbone: bool,
    quiet: bool | None,
) -> list[dict[str, float]]:
    """Trains some parts of a detector: the proposer, or the heads on given proposals; the backbone with them or not."""

    def losses(batch: Batch) -> dict[str, Tensor]:
        if proposals is None:
            return model.rpn_losses(batch.images, batch.targets)
        return model.fast_rcnn_losses(batch.images, batch.proposals, batch.targets)

    groups = trainable(model, settings.backbone_lr_mult, parts, backbone)
    of_iteration = batch_losses(model, samples, proposals, settings, losses)
    return fit(model, of_iteration, settings.loop(), groups=groups, quiet=quiet)


def proposals_of(model: FasterRCNN, samples: Samples) -> list[Tensor]:
    """The proposals that a network makes for each picture of a data set, as many as in training: (P, 4) each."""
    model.train()
    device = next(model.parameters()).device
    return [model.propose([samples[i][0].to(device)])[0]["boxes"].cpu() for i in range(len(samples))]


def _fresh(
    network: AlexNet,
    classes: Sequence[str],
    settings: FasterRCNNTrainingSettings,
    rpn: RPNConfig,
    heads: RoIConfig | None,
) -> FasterRCNN:
    """A detector around a network; its new layers depend on the seed alone."""
    torch.manual_seed(settings.seed)
    model = faster_rcnn_alexnet(network, classes, rpn, heads)
    model.transform = replace(model.transform, min_size=settings.min_size)
    return model
