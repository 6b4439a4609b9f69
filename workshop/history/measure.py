"""The whole history as one record: everything that is measured, as ``data/results/history.json`` holds it."""

import math
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import process_time
from typing import Any

import numpy as np
import torch
from skimage.feature import hog
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from minircnn.alexnet import SMALL_WEIGHTS, AlexNet, load_alexnet
from minircnn.boxes import box_iou
from minircnn.course.compare import limit_threads
from minircnn.course.history import (
    GENERATIONS,
    MAX_PROPOSALS,
    THRESHOLDS,
    Generation,
    figures_of,
    load_all,
    search,
    trace_all,
)
from minircnn.datasets import ToyTown
from minircnn.pooling import roi_align, roi_pool, warp_regions
from minircnn.rcnn import RCNN
from minircnn.targets import Sample
from minircnn.training import (
    FasterRCNNTrainingSettings,
    FastRCNNTrainingSettings,
    LoopSettings,
    MaskRCNNTrainingSettings,
    fit,
    train_fast_rcnn,
    train_faster_rcnn,
    train_mask_rcnn,
)
from workshop.fine_tuning import with_random_weights
from workshop.history.scale import PaperScale, measure_at_scale

TIMED_TRAINING_IMAGES = 16
LEAST_TRANSFER_IMAGES = 60

Samples = Sequence[Sample]
Progress = Callable[[Iterable[Any], str], Iterable[Any]]
"""Shows progress: is given things and what is done with them, and hands the things on."""


def make_record(
    images: int | None = None,
    *,
    scale: PaperScale | None = None,
    training: bool = True,
    command: str = "make history",
    progress: Progress = lambda things, what: things,
) -> dict[str, Any]:
    """Measure everything, as what JSON can hold: shares in [0, 1], times in milliseconds, of trainings in minutes.

    Args:
        images: the first so many of Toy Town's test split; None for all.
        scale: what is timed at the papers' size; None leaves that out.
        training: whether some iterations of each training are timed.
        command: noted in the record.
        progress: is given things and what is done with them, and hands the things on.

    Raises:
        ValueError: there are not so many images.
        FileNotFoundError: weights are missing.
    """
    test = ToyTown("test")
    count = len(test) if images is None else images
    if not 1 <= count <= len(test):
        raise ValueError(f"--images must be from 1 to {len(test)}, the size of the test split, but is {images}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # before this program adds to it
    models, samples = load_all(alike=True), first(test, count)
    targets = [target for _, target in samples]
    show = partial(progress, what="four detectors")
    traces = trace_all(models, samples, max_proposals=MAX_PROPOSALS, progress=show)
    figures = {
        one.key: vars(figures_of(one, models[one.key], traces[one.key], targets, test.classes))
        for one in progress(GENERATIONS, "accuracy")
    }
    learn = max(LEAST_TRANSFER_IMAGES, count)
    machine = {"machine": platform.machine(), "python": platform.python_version(), "torch": torch.__version__}
    return {
        "command": command,
        "split": "test",
        "images": count,
        "images_of_split": len(test),
        "max_proposals": MAX_PROPOSALS,
        "thresholds": {**THRESHOLDS, "rcnn": {name: getattr(models["rcnn"].config, name) for name in THRESHOLDS}},
        "machine": {"threads": 1, "load": load, **machine},
        "scenes": scenes(targets),
        "alignment": alignment_example(),
        "transfer": {
            "training_images": 3 * learn // 2,
            "images": learn,
            **transfer(first(ToyTown("train", masks=False), 3 * learn // 2), first(test, learn)),
        },
        "detectors": figures,
        "training": training_costs(figures, progress) if training else None,
        "paper_scale": scale and measure_at_scale(scale, progress=partial(progress, what="papers' size")),
    }


def first(data: Samples, count: int) -> list[Sample]:
    """The first so many ``(image, target)`` pairs of a data set."""
    return [data[index] for index in range(count)]


def scenes(targets: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How much there is to see in images, by the ``boxes`` and ``labels`` of their targets.

    That is how many ``objects`` an image has on average, and shares of the images: with ``several`` objects, with
    several ``kinds`` of objects, with boxes that overlap (``crowded``).
    """
    boxes, labels = [t["boxes"] for t in targets], [t["labels"] for t in targets]
    return {
        "objects": float(np.mean([len(one) for one in labels])),
        "several": float(np.mean([len(one) > 1 for one in labels])),
        "kinds": float(np.mean([len(one.unique()) > 1 for one in labels])),
        "crowded": float(np.mean([bool((box_iou(b, b).triu(diagonal=1) > 0).any()) for b in boxes])),
    }


def alignment_example() -> dict[str, float]:
    """The example of the story, pooled: where the first 15 of 128 pixels end, in cells of a feature map of 25.

    RoIAlign and RoIPool are given a map whose values are places, so that what comes out says where they have looked:
    ``exact``; ``rounded_down``, as the story has it; ``pooled``, the last cell of RoIPool, which rounds to the nearest;
    ``aligned``, half a step behind the last point of RoIAlign.
    """
    places = (torch.arange(25.0) + 0.5).expand(1, 1, 25, 25)  # of the centers of cells, from left to right
    region, scale = torch.tensor([[0.0, 0.0, 0.0, 15.0, 15.0]]), 25 / 128
    points = roi_align(places, region, 4, scale, sampling_ratio=1, aligned=True)[0, 0, 0]  # (4,)
    return {
        "exact": 15 * scale,
        "rounded_down": float(math.floor(15 * scale)),
        "pooled": float(roi_pool(places, region, 1, scale)) + 0.5,
        "aligned": float(points[-1] + (points[-1] - points[-2]) / 2),
    }


# ------------------------------------------------------------------------- what pre-trained features are worth (S2)


def transfer(train: Samples, test: Samples) -> dict[str, float]:
    """How many objects a linear classifier names correctly by different features, their true boxes given.

    Ridge regression onto the classes, as in notebook 03; it finds out by itself how much to trust the features. Shares
    in [0, 1]: ``learned``, pool5 of the AlexNet that has learned to name one-object images, and has never seen a scene;
    ``random``, the same with He's random weights; ``hand_made``, histograms of gradients and colors; ``guessing``,
    always the most frequent class of the training images. Too little to learn from, or nothing to name, is a
    ValueError.
    """
    learned = load_alexnet(SMALL_WEIGHTS)
    (crops, labels), (test_crops, wanted) = (_objects(samples, learned) for samples in (train, test))
    if len(labels.unique()) < 2 or not len(wanted):
        raise ValueError("objects of two classes are needed to learn from, and one to name: take more images")
    ways = {
        "learned": partial(_pool5, learned),
        "random": partial(_pool5, with_random_weights(learned)),
        "hand_made": _hand_made,
    }
    shares = {}
    for name, features in ways.items():
        model = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(-1, 6, 15)))
        named = model.fit(features(crops), labels.numpy()).predict(features(test_crops))
        shares[name] = float((named == wanted.numpy()).mean())
    return {**shares, "guessing": float((wanted == labels.mode().values).double().mean())}


def _objects(samples: Samples, network: AlexNet) -> tuple[Tensor, Tensor]:
    """All objects of some images, warped: (N, 3, S, S), and their labels (N,)."""
    size, context = network.config.input_size, 16 / 227
    crops = [
        warp_regions(image, target["boxes"], size, context * size, fill=network.mean_color) for image, target in samples
    ]
    return torch.cat(crops), torch.cat([target["labels"] for _, target in samples])


@torch.no_grad()
def _pool5(network: AlexNet, crops: Tensor) -> np.ndarray:
    parts = [network.features(network.normalize(part), ["pool5"])["pool5"] for part in crops.split(64)]
    return torch.cat(parts).numpy()


def _hand_made(crops: Tensor) -> np.ndarray:
    """Histograms of gradients (Dalal and Triggs 2005), and of 4 × 4 × 4 colors: (N, 3, S, S) to (N, D)."""
    shapes = [hog(crop.permute(1, 2, 0).numpy(), channel_axis=-1) for crop in crops]
    bins = (crops * 4).long().clamp(max=3)
    bins = (bins[:, 0] * 16 + bins[:, 1] * 4 + bins[:, 2]).flatten(1)
    counts = torch.zeros(len(crops), 64).scatter_add_(1, bins, torch.ones(bins.shape))
    return np.concatenate([np.stack(shapes), (counts / bins.shape[1]).sqrt().numpy()], axis=1)


# ------------------------------------------------------------------------- what trainings cost


def training_costs(
    figures: Mapping[str, Mapping[str, Any]], progress: Progress = lambda things, what: things, iterations: int = 6
) -> dict[str, dict[str, float]]:
    """Estimate the minutes that a core is busy with each training, once the pre-trained AlexNet is there.

    Nobody has written down how long the shipped weights took. What can be measured is the processor time of a few
    iterations, with the settings that stand beside the weights. ``figures`` are those of each detector's detection, see
    :func:`minircnn.course.history.figures_of`.

    For each detector the minutes of its parts: ``"proposals"``, selective search in all training images;
    ``"iterations"`` of the network; of R-CNN ``"features"``, of all proposals of all training images, once, for the
    SVMs. What SVMs and box regressors then take to fit is not counted.
    """
    train, costs = ToyTown("train"), {}
    samples = first(train, TIMED_TRAINING_IMAGES)
    proposals = [search(image, MAX_PROPOSALS).boxes for image, _ in samples]
    for one in progress(GENERATIONS, "trainings"):
        settings, times = one.settings, figures[one.key]["milliseconds"]
        each = seconds_of_an_iteration(partial(_train, one, settings, samples, proposals, train.classes), iterations)
        minutes = {"iterations": each * settings["iterations"] / 60}
        if one.searches:
            minutes["proposals"] = times["proposals"] * len(train) / 60_000
        if one.key == "rcnn":
            minutes["features"] = (times["features"] + times["heads"]) * len(train) / 60_000
        costs[one.key] = {**minutes, "all": sum(minutes.values())}
    return costs


def seconds_of_an_iteration(run: Callable[[int], Any], iterations: int) -> float:
    """Processor time of an iteration of ``run``, which trains for so many.

    A short run and one that is longer by ``iterations`` are timed: what both do before and after cancels out.
    """
    times = []
    with limit_threads(1):
        for count in (1, 1, 1 + iterations):  # the first run warms up
            start = process_time()
            run(count)
            times.append(process_time() - start)
    return max(times[2] - times[1], 0.0) / iterations


def _train(
    generation: Generation,
    settings: dict[str, Any],
    samples: Samples,
    proposals: Sequence[Tensor],
    classes: Sequence[str],
    iterations: int,
) -> None:
    """Train with the shipped settings but for the number of iterations."""
    network = load_alexnet(SMALL_WEIGHTS)
    if generation.key == "rcnn":
        loop = LoopSettings(iterations, settings["learning_rate"], seed=settings["seed"])
        RCNN(network, classes).finetune(samples, proposals, partial(fit, settings=loop, quiet=True))
        return
    train, kind = {
        "fast_rcnn": (train_fast_rcnn, FastRCNNTrainingSettings),
        "faster_rcnn": (train_faster_rcnn, FasterRCNNTrainingSettings),
        "mask_rcnn": (train_mask_rcnn, MaskRCNNTrainingSettings),
    }[generation.key]
    inputs = (samples, proposals) if generation.searches else (samples,)
    train(network, *inputs, classes, replace(kind(**settings), iterations=iterations), quiet=True)
