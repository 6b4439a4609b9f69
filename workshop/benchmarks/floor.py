"""A detection and a training step as a whole: how much of their time is the layers', and where the rest goes.

Convolutions and fully connected layers have to be computed, whoever writes the code around them. Their time alone, on
the inputs that they have in the detector, is the least that this machine needs, the floor; all above it is overhead.
"""

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile, record_function

from minircnn import fast_rcnn, faster_rcnn, mask_rcnn
from minircnn.course.compare import limit_threads, pair
from minircnn.fast_rcnn import load_fast_rcnn
from minircnn.faster_rcnn import load_faster_rcnn
from minircnn.mask_rcnn import load_mask_rcnn
from workshop.benchmarks.detectors import _batch
from workshop.benchmarks.operations import random_boxes
from workshop.benchmarks.timing import seconds

LAYERS = (torch.conv2d, torch.conv_transpose2d, nn.functional.linear)
STAGES: dict[str, tuple[tuple[object, str], ...]] = {
    "resizing, and ReLU and pooling of the backbone": ((fast_rcnn.Detector, "features"),),
    "targets": ((fast_rcnn.Detector, "prepare_targets"),),
    "anchors, RPN": ((faster_rcnn.RPN, "forward"),),
    "proposals": ((faster_rcnn.RPN, "filter_proposals"),),
    "loss of the RPN": ((faster_rcnn.RPN, "losses"),),
    "sampling": ((fast_rcnn.RoIHeads, "sample"),),
    "pooling": ((fast_rcnn.RoIHeads, "pool"),),
    "detections": ((fast_rcnn, "select_detections"),),
    "pasting": ((mask_rcnn, "paste_masks"),),
    "backward": ((Tensor, "backward"),),
}
"""The functions of each stage; what a layer inside of them takes is the layers' stage, and not theirs."""


@dataclass(frozen=True)
class Share:
    """One step of a detector: milliseconds as a whole, of the layers alone, and the shares of its stages in percent."""

    name: str
    threads: int
    ms: float
    floor_ms: float
    overhead: float  # the median of step / floor - 1, in percent
    python: float  # what no operation of torch takes, in percent of the step
    stages: dict[str, float]


def shares(repeats: int = 9) -> Iterator[Share]:
    """Measure every detector, detecting and learning, on one thread."""
    with limit_threads(1):
        for name, model, step, learns in _steps():
            model.train(learns)
            layers = floor(step, learns)
            pairs = [(seconds(step), seconds(layers)) for _ in range(repeats)]
            ms, floor_ms = (1000 * statistics.median(side) for side in zip(*pairs, strict=True))
            overhead = 100 * statistics.median(whole / alone - 1 for whole, alone in pairs)
            yield Share(name, 1, ms, floor_ms, overhead, *profiled(step))


class Layers(TorchFunctionMode):
    """Hand every call of a layer's function to another one, which is to call it."""

    def __init__(self, through: Callable[..., Any]) -> None:
        super().__init__()
        self.through = through

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        return self.through(func, *args, **(kwargs or {})) if func in LAYERS else func(*args, **(kwargs or {}))


def floor(step: Callable[[], object], learns: bool) -> Callable[[], None]:
    """A function that computes the layers alone, as often and on the inputs that one step gives them.

    Of a training step, backwards too; where an input or the weights need no gradient, none is computed.
    """
    calls: list[tuple[Callable[..., Tensor], list[Any], dict[str, Any]]] = []

    def keep(func: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        calls.append((func, [_leaf(one) for one in args], kwargs))
        return func(*args, **kwargs)

    with Layers(keep):
        step()

    def layers() -> None:
        for func, args, kwargs in calls:
            with torch.set_grad_enabled(learns):
                out = func(*args, **kwargs)
            if out.requires_grad:
                wanted = [one for one in args if isinstance(one, Tensor) and one.requires_grad]
                torch.autograd.grad(out, wanted, torch.ones_like(out))

    layers()
    return layers


def _leaf(value: Any) -> Any:  # noqa: ANN401
    if not isinstance(value, Tensor) or isinstance(value, nn.Parameter):
        return value
    return value.detach().clone(memory_format=torch.preserve_format).requires_grad_(value.requires_grad)


def profiled(step: Callable[[], object]) -> tuple[float, dict[str, float]]:
    """What torch.profiler says of one step: the share of Python, and of each stage without those inside of it."""
    with _marked(), profile(activities=[ProfilerActivity.CPU]) as result, record_function("step"):
        step()
    events = [event for event in result.events() if event.cpu_time_total]
    whole = next(event.cpu_time_total for event in events if event.name == "step")
    marks = {"step", "layers", *STAGES}
    stages: dict[str, float] = {}
    for event in events:
        if event.name in marks:
            inner = sum(mark.cpu_time_total for mark in _marks_inside(event, marks))
            stages[event.name] = stages.get(event.name, 0) + 100 * (event.cpu_time_total - inner) / whole
    python = sum(event.self_cpu_time_total for event in events if event.name in marks)
    stages["the rest"] = stages.pop("step")
    return 100 * python / whole, stages


def _marks_inside(event: Any, marks: set[str]) -> Iterator[Any]:  # noqa: ANN401 - torch gives it no type
    for child in event.cpu_children:
        if child.name in marks:
            yield child
        else:
            yield from _marks_inside(child, marks)


@contextmanager
def _marked() -> Iterator[None]:
    """Each stage and each layer under its name in a profile."""
    with ExitStack() as patches:
        for stage, functions in STAGES.items():
            for owner, name in functions:
                patches.enter_context(mock.patch.object(owner, name, _under(stage, getattr(owner, name))))
        patches.enter_context(Layers(lambda func, *args, **kwargs: _under("layers", func)(*args, **kwargs)))
        yield


def _under(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def named(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with record_function(stage):
            return function(*args, **kwargs)

    return named


def _steps() -> Iterator[tuple[str, nn.Module, Callable[[], object], bool]]:
    images, targets = _batch(4, 128, 128, 4)
    proposals = [random_boxes(300, seed).clamp(0, 100) for seed in range(4)]
    proposals = [boxes + boxes.new_tensor([0, 0, 8, 8]) for boxes in proposals]
    for name, model in (
        ("Fast R-CNN", load_fast_rcnn()),
        ("Faster R-CNN", load_faster_rcnn()),
        ("Mask R-CNN", load_mask_rcnn()),
    ):
        given = (proposals,) if name == "Fast R-CNN" else ()
        yield f"{name}, an image", model, partial(model.detect, images[:1], *(one[:1] for one in given)), False
        yield f"{name}, a training step of 4", model, partial(_learn, model, images, *given, targets), True
    published, images = pair()[0], _batch(1, 427, 640, 8)
    yield "published Mask R-CNN, an image", published, partial(published.detect, images[0]), False
    yield "published Mask R-CNN, a training step of 1", published, partial(_learn, published, *images), True


def _learn(model: nn.Module, *batch: Any) -> None:  # noqa: ANN401
    model.zero_grad()
    sum(model.losses(*batch).values()).backward()
