"""R-CNN's three trainings in a row, from a pre-trained AlexNet and a data set to one file of weights."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minircnn.alexnet import AlexNet, up_to_pool5
from minircnn.cache import Cache, module_fingerprint
from minircnn.rcnn import RCNN, FineTuningSettings, RCNNConfig, save_rcnn
from minircnn.training.checkpoints import describe_data
from minircnn.training.loop import LoopSettings, fit

Samples = Sequence[tuple[Tensor, dict[str, Any]]]


@dataclass(frozen=True)
class RCNNTrainingSettings:
    """What the shipped weights were trained with.

    Attributes:
        iterations: of fine-tuning, a batch of 128 proposals each; 0 leaves it out.
        learning_rate: of fine-tuning, for the fully connected layers; the backbone learns at a tenth of it.
        max_proposals: of each picture.
        seed: of everything that is drawn at random.
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
    """Fine-tunes the network, fits the SVMs, fits the box regressors, and saves all three.

    Args:
        network: pre-trained; it is changed. Where neither SVMs nor box regressors read fc6 or fc7, the detector keeps
            its convolutions only.
        samples: ``(image, target)`` pairs of the training pictures.
        proposals: for each of them.
        classes: names; ``classes[0]`` is the background.
        settings: see there.
        config: the detector's numbers.
        out: the file to write, ``.safetensors``. The state of an unfinished fine-tuning is kept beside it. A file that
            is there stays if the fine-tuning ended no better than it began.
        resume: go on with an unfinished fine-tuning. Features that were computed before an interruption are in the
            cache anyway.
        cache: where features are kept.
        about: noted in the JSON file.
        report: is told, in words, what has been done.
        quiet: no progress bar; see :func:`minircnn.training.fit`.

    Returns:
        The detector, ready to detect.
    """
    settings = settings or RCNNTrainingSettings()
    proposals = [found[: settings.max_proposals] for found in proposals]
    model = RCNN(network, classes, config).to(network.fc8.weight.device)
    unfinished = out.with_suffix(".checkpoint") if out else None
    if settings.iterations:
        report("1 of 3: fine-tuning the network")
        torch.manual_seed(settings.seed)  # for the fresh last layer; the loop seeds every batch
        loop = LoopSettings(settings.iterations, settings.learning_rate, seed=settings.seed)
        data = describe_data(samples, classes, proposals) if out else {}
        run = {**asdict(settings), **data, "network": module_fingerprint(network)}
        files = {"checkpoint": unfinished, "resume": resume, "replaces": out}
        optimise = partial(fit, settings=loop, **files, about=run, quiet=quiet)
        model.finetune(samples, proposals, optimise, FineTuningSettings())
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
    report(
        "  proposals near an object: " + ", ".join(f"{n} {c}" for n, c in zip(model.classes[1:], counts, strict=True))
    )
    if out:
        save_rcnn(model, out, {**(about or {}), "settings": asdict(settings)})
        unfinished.unlink(missing_ok=True)
    return model
