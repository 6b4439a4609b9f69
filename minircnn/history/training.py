"""What the trainings cost, as far as it can be known.

Nobody has written down how long the shipped weights took. What can be measured is the processor time of a few
iterations, with the settings that stand beside the weights; times their number, that is an estimate of the whole.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from time import process_time
from typing import Any

from torch import Tensor, nn

from minircnn.alexnet import SMALL_WEIGHTS, load_alexnet
from minircnn.course.compare import limit_threads
from minircnn.history.detectors import GENERATIONS, Generation
from minircnn.rcnn import RCNN
from minircnn.training import (
    FasterRCNNTrainingSettings,
    FastRCNNTrainingSettings,
    LoopSettings,
    MaskRCNNTrainingSettings,
    Samples,
    fit,
    train_fast_rcnn,
    train_faster_rcnn,
    train_mask_rcnn,
)

_JOINT = {
    "fast_rcnn": (train_fast_rcnn, FastRCNNTrainingSettings),
    "faster_rcnn": (train_faster_rcnn, FasterRCNNTrainingSettings),
    "mask_rcnn": (train_mask_rcnn, MaskRCNNTrainingSettings),
}


def seconds_of_an_iteration(run: Callable[[int], Any], iterations: int) -> float:
    """Processor time of an iteration.

    A short run and a longer one are timed: what both do before and after their iterations cancels out.

    Args:
        run: trains for so many iterations.
        iterations: by how many the second run is longer; at least 1.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, but is {iterations}")
    times = []
    with limit_threads(1):
        for count in (1, 1, 1 + iterations):  # the first run warms up
            start = process_time()
            run(count)
            times.append(process_time() - start)
    return max(times[2] - times[1], 0.0) / iterations


def training_costs(
    samples: Samples,
    proposals: Sequence[Tensor],
    classes: Sequence[str],
    *,
    milliseconds: dict[str, dict[str, float]],
    pictures: int,
    iterations: int = 6,
    generations: Sequence[Generation] = GENERATIONS,
) -> dict[str, dict[str, float]]:
    """Estimates of the minutes that a core is busy with each training, once the pre-trained AlexNet is there.

    Args:
        samples: some training pictures, as many as a batch has or more, with masks.
        proposals: for each of them.
        classes: names; ``classes[0]`` is the background.
        milliseconds: of each detector's stages in detection, see :class:`minircnn.history.Figures`.
        pictures: how many training pictures the shipped weights have learned from.
        iterations: that are timed.
        generations: whose trainings.

    Returns:
        For each detector minutes of its parts. ``"proposals"``: selective search in all training pictures.
        ``"iterations"``: of the network. R-CNN only, ``"features"``: of all proposals of all training pictures, once,
        for the SVMs; what the machines and the box regressions then take to fit is not counted.
    """
    costs = {}
    for one in generations:
        about = json.loads(one.weights.with_suffix(".json").read_text(encoding="utf-8"))
        run = _runner(one, about["settings"], samples, proposals, classes)
        each = seconds_of_an_iteration(run, iterations)
        minutes = {"iterations": each * about["settings"]["iterations"] / 60}
        stages = milliseconds[one.key]
        if one.searches:
            minutes["proposals"] = stages["proposals"] * pictures / 60_000
        if one.key == "rcnn":
            minutes["features"] = (stages["features"] + stages["heads"]) * pictures / 60_000
        costs[one.key] = {**minutes, "all": sum(minutes.values())}
    return costs


def _runner(
    generation: Generation,
    settings: dict[str, Any],
    samples: Samples,
    proposals: Sequence[Tensor],
    classes: Sequence[str],
) -> Callable[[int], nn.Module]:
    """A training with the shipped settings but for the number of its iterations."""
    if generation.key == "rcnn":
        return partial(_finetune, settings, samples, proposals, classes)
    train, kind = _JOINT[generation.key]
    inputs = (samples, proposals, classes) if generation.key == "fast_rcnn" else (samples, classes)

    def run(iterations: int) -> nn.Module:
        its = replace(kind(**settings), iterations=iterations)
        return train(load_alexnet(SMALL_WEIGHTS), *inputs, its, quiet=True)[0]

    return run


def _finetune(
    settings: dict[str, Any], samples: Samples, proposals: Sequence[Tensor], classes: Sequence[str], iterations: int
) -> RCNN:
    model = RCNN(load_alexnet(SMALL_WEIGHTS), classes)
    loop = LoopSettings(iterations, settings["learning_rate"], seed=settings["seed"])
    model.finetune(samples, proposals, partial(fit, settings=loop, quiet=True))
    return model
