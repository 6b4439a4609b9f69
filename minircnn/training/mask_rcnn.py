"""Mask R-CNN's training: Faster R-CNN's, with one more loss. And how the published one learns a task of one's own."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from minircnn.alexnet import AlexNet
from minircnn.cache import module_fingerprint
from minircnn.faster_rcnn import RPNConfig
from minircnn.mask_rcnn import TOY_TOWN_MASK_RPN, MaskRCNN, MaskRoIConfig, mask_rcnn_alexnet, save_mask_rcnn
from minircnn.training.batches import Samples
from minircnn.training.faster_rcnn import FasterRCNNTrainingSettings, learn_everything
from minircnn.training.joint import JointTrainingSettings


@dataclass(frozen=True)
class MaskRCNNTrainingSettings(FasterRCNNTrainingSettings):
    """What the shipped weights were trained with; see there."""

    iterations: int = 15_000


def train_mask_rcnn(
    network: AlexNet,
    samples: Samples,
    classes: Sequence[str],
    settings: MaskRCNNTrainingSettings | None = None,
    *,
    rpn: RPNConfig = TOY_TOWN_MASK_RPN,
    heads: MaskRoIConfig | None = None,
    about: dict[str, Any] | None = None,
    **options: Any,  # noqa: ANN401 - each has its own type
) -> tuple[MaskRCNN, list[dict[str, float]]]:
    """Trains everything but conv1 at once (Mask R-CNN, section 3.1), and saves it.

    Args:
        network: pre-trained; it is taken apart and changed.
        samples: ``(image, target)`` pairs of the training pictures, with masks.
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
    settings = settings or MaskRCNNTrainingSettings()
    start = module_fingerprint(network)
    torch.manual_seed(settings.seed)
    model = mask_rcnn_alexnet(network, classes, rpn, heads)
    model.transform = replace(model.transform, min_size=settings.min_size)
    record = {**(about or {}), "settings": asdict(settings)}
    return model, learn_everything(
        *(model, samples, settings, start),
        save=lambda path: save_mask_rcnn(model, network.config, path, record),
        **options,
    )


@dataclass(frozen=True)
class FineTuningSettings(JointTrainingSettings):
    """For a detector that has learned before: few batches, small steps, pictures as large as it knows them."""

    iterations: int = 1000
    images_per_batch: int = 2
    learning_rate: float = 1e-4
    min_size: int = 800


def fine_tune(
    model: MaskRCNN,
    samples: Samples,
    settings: FineTuningSettings | None = None,
    *,
    about: dict[str, Any] | None = None,
    **options: Any,  # noqa: ANN401 - each has its own type
) -> list[dict[str, float]]:
    """Goes on with a Mask R-CNN on a pyramid, such as the published one with last layers for other classes.

    Args:
        model: of :func:`minircnn.mask_rcnn.maskrcnn_resnet50_fpn`; it is changed, and in evaluation mode afterwards.
        samples: ``(image, target)`` pairs with masks; labels count the model's classes.
        settings: see there.
        about: noted in the JSON file.
        options: as for :func:`train_mask_rcnn`.

    Returns:
        The losses of each iteration.
    """
    settings = settings or FineTuningSettings()
    start = module_fingerprint(model)
    model.transform = replace(model.transform, min_size=settings.min_size)
    record = {**(about or {}), "settings": asdict(settings)}
    return learn_everything(
        *(model, samples, settings, start),
        save=lambda path: save_mask_rcnn(model, model.backbone.config, path, record),
        **options,
    )
