"""Fast R-CNN's one training: network, classifier and box regression at the same time, from whole pictures."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from minircnn.alexnet import AlexNet
from minircnn.cache import module_fingerprint
from minircnn.fast_rcnn import FastRCNN, RoIConfig, fast_rcnn_alexnet, save_fast_rcnn
from minircnn.training.batches import Batch, Samples
from minircnn.training.joint import JointTrainingSettings, batch_losses, train_jointly, trainable


@dataclass(frozen=True)
class FastRCNNTrainingSettings(JointTrainingSettings):
    """What the shipped weights were trained with; see there for the rest.

    Attributes:
        max_proposals: of each picture.
    """

    max_proposals: int = 300


def train_fast_rcnn(
    network: AlexNet,
    samples: Samples,
    proposals: Sequence[Tensor],
    classes: Sequence[str],
    settings: FastRCNNTrainingSettings | None = None,
    *,
    config: RoIConfig | None = None,
    about: dict[str, Any] | None = None,
    **options: Any,  # noqa: ANN401 - each has its own type
) -> tuple[FastRCNN, list[dict[str, float]]]:
    """Trains everything but conv1 at once, and saves it.

    Args:
        network: pre-trained; it is taken apart and changed.
        samples: ``(image, target)`` pairs of the training pictures.
        proposals: for each of them.
        classes: names; ``classes[0]`` is the background.
        settings: see there.
        config: the heads' numbers.
        about: noted in the JSON file.
        options: of :func:`minircnn.training.train_jointly`: ``out``, ``resume``, ``log``, ``evaluate``,
            ``evaluate_every`` and ``quiet``.

    Returns:
        The detector, in evaluation mode, and the losses of each iteration.

    Raises:
        ValueError: there is not one tensor of proposals for each picture.
    """
    settings = settings or FastRCNNTrainingSettings()
    proposals = [found[: settings.max_proposals] for found in proposals]
    start = module_fingerprint(network)
    torch.manual_seed(settings.seed)  # for the fresh siblings; the loop seeds every batch
    model = fast_rcnn_alexnet(network, classes, config)
    model.transform = replace(model.transform, min_size=settings.min_size)
    record = {**(about or {}), "settings": asdict(settings)}
    history = train_jointly(
        model,
        joint_losses(model, samples, proposals, settings),
        settings,
        groups=trainable(model, settings.backbone_lr_mult, [model.roi_heads]),
        save=lambda path: save_fast_rcnn(model, network.config, path, record),
        about={"heads": repr(model.roi_heads.config), "network": start},
        samples=samples,
        proposals=proposals,
        **options,
    )
    return model, history


def joint_losses(
    model: FastRCNN, samples: Samples, proposals: Sequence[Tensor], settings: FastRCNNTrainingSettings
) -> Callable[[int], dict[str, Tensor]]:
    """The losses of iteration i, for :func:`minircnn.training.fit`: a few pictures, regions of each, one pass."""

    def losses(batch: Batch) -> dict[str, Tensor]:
        return model.losses(batch.images, batch.proposals, batch.targets)

    return batch_losses(model, samples, proposals, settings, losses)
