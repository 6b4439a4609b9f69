"""The exercises of notebook 06: sampled regions and their targets, the multi-task loss, and the training."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss

from minircnn import fast_rcnn as ours
from minircnn.alexnet import SMALL, AlexNet
from minircnn.boxes import box_iou, encode_boxes
from minircnn.course.check.boxes_and_metrics import random_boxes
from minircnn.course.check.judge import Ask, NotYet, exercise, refuse_kind, refuse_shape, refuse_type
from minircnn.fast_rcnn import FastRCNN, fast_rcnn_alexnet
from minircnn.training.batches import draw_batch

Tensors, Target = Sequence[Tensor], dict[str, Any]
WEIGHTS = (10.0, 10.0, 5.0, 5.0)
NONE = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
TINY = replace(SMALL, channels=(4, 4, 4, 4, 4), hidden=8, pool5_size=2)


def _label_rois(boxes: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    objects, labels = target["boxes"], torch.zeros(len(boxes), dtype=torch.int64)
    if len(objects) == 0:
        return labels, torch.zeros_like(boxes)
    overlap, nearest = box_iou(boxes, objects).max(dim=1)
    return torch.where(overlap >= 0.5, target["labels"][nearest], labels), encode_boxes(boxes, objects[nearest])


@exercise(_label_rois)
def label_rois(ask: Ask) -> str:
    """Classes and regression targets of regions."""
    slips = """
        overlap >= 0.5 => overlap > 0.5 !! a region with an IoU of exactly 0.5 is foreground
        overlap >= 0.5 => overlap >= 0 !! every region gets a class; an IoU below 0.5 means background, 0
        target["labels"][nearest] => nearest !! labels are numbers of objects; look up their classes in target['labels']
        overlap, nearest => nearest = (box_iou(boxes, objects) >= 0.5).int().argmax(dim=1)\\n    overlap, _
            !! a region belongs to the object that it overlaps most, not to the first above 0.5
        boxes, objects[nearest] => objects[nearest], boxes !! the deltas lead from object to region; exchange them
        objects[nearest]) => objects[nearest], WEIGHTS) !! the deltas have weights already; those come in the next one
        [nearest]) => [:1].expand_as(boxes)) !! all deltas lead to the first object; take the one overlapped most
    """
    half = torch.tensor([[0.0, 0.0, 10.0, 5.0]])
    one = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]]), "labels": torch.tensor([3])}
    cases = [*map(_scene, range(10)), (half, one), (half, NONE)]
    what = "for {0.shape[0]} regions and {1[boxes].shape[0]} objects"
    ask.cases(cases, slips, what, change=_of_foreground, right=_by_torchvision)
    return "equal to torchvision's for 10 images of 60 regions"


def _of_foreground(value: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The same with deltas of 0 for background, which nobody looks at."""
    labels, deltas = value
    return labels, torch.where((labels > 0)[:, None], deltas, 0.0)


def _scene(seed: int, near: int = 40, far: int = 20) -> tuple[Tensor, Target]:
    """Regions around four objects, and elsewhere; the labels of the objects are no row numbers."""
    rng = np.random.RandomState(seed)
    objects = torch.tensor([[0.0, 0, 40, 30], [5, 2, 45, 34], [50, 50, 90, 95], [60, 10, 80, 60]])
    around = objects.repeat(near // 4, 1) + torch.from_numpy(rng.normal(0, 4, (near // 4 * 4, 4))).float()
    return torch.cat([around, random_boxes(far, seed)]), {"boxes": objects, "labels": torch.tensor([2, 5, 6, 5])}


def _by_torchvision(boxes: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    heads = RoIHeads(None, None, None, 0.5, 0.5, 64, 0.25, (1.0,) * 4, 0.05, 0.5, 100)
    (nearest,), (labels,) = heads.assign_targets_to_proposals([boxes], [target["boxes"]], [target["labels"]])
    deltas = heads.box_coder.encode_single(target["boxes"][nearest] if len(target["boxes"]) else boxes, boxes)
    return _of_foreground((labels, deltas))


def _sample_rois(
    proposals: Tensor, target: Target, count: int = 64, fraction: float = 0.25, weights: Sequence[float] = WEIGHTS
) -> tuple[Tensor, Tensor, Tensor]:
    boxes = torch.cat([proposals, target["boxes"]])
    labels, deltas = _label_rois(boxes, target)
    foreground, background = torch.where(labels > 0)[0], torch.where(labels == 0)[0]
    foreground = foreground[torch.randperm(len(foreground))[: int(fraction * count)]]
    background = background[torch.randperm(len(background))[: count - len(foreground)]]
    chosen = torch.cat([foreground, background])
    return boxes[chosen], labels[chosen], deltas[chosen] * torch.tensor(weights)


@exercise(_sample_rois)
def sample_rois(ask: Ask) -> str:
    """A batch of regions: a quarter of foreground, the rest background."""
    torch.manual_seed(0)
    slips = """
        torch.cat([proposals, target["boxes"]]) => proposals !! the objects are missing: add them to the proposals
        [: int(fraction * count)] => !! it draws all regions of foreground; wanted are 16, int(fraction * count)
        - len(foreground) => - int(fraction * count) !! with little foreground, background fills up to count regions
        * torch.tensor(weights) => !! the targets lack the weights; multiply the deltas by them
        * torch.tensor(weights) => / torch.tensor(weights) !! the targets are divided by the weights; multiply
    """
    much = _scene(1, 40, 80)
    cases = [*(20 * [_scene(1, 4, 8), much, _scene(1, 0, 90)]), (random_boxes(100), NONE)]
    ask.cases(cases, slips, "among {0.shape[0]} proposals and {1[boxes].shape[0]} objects", run=_drawn)
    draws = [ask(*much) for _ in range(20)]
    for kind, is_foreground in (("foreground", True), ("background", False)):
        drawn = {frozenset(map(tuple, boxes[(labels > 0) == is_foreground].tolist())) for boxes, labels, _ in draws}
        if len(drawn) == 1:
            raise NotYet(f"the same regions of {kind} are drawn each time; draw with torch.randperm")
    return "classes and targets equal to torchvision's, 60 batches of three images"


def _drawn(sample: Callable[..., Any], proposals: Tensor, target: Target) -> dict[str, Any]:
    """What does not depend on chance in a sample; refused if something else than regions and what is theirs."""
    known = torch.cat([proposals, target["boxes"]])
    right, deltas = _by_torchvision(known, target)
    value = sample(proposals, target)
    refuse_type(value, (known, right, deltas))
    boxes, labels, targets = value
    if boxes.dim() != 2 or boxes.shape[1:] != (4,):
        raise NotYet(f"the boxes have shape {tuple(boxes.shape)}; wanted is (S, 4)")
    equal = (boxes[:, None] == known).all(dim=2)  # (S, N)
    rows = equal.int().argmax(dim=1)
    if not equal.any(dim=1).all():
        raise NotYet("some of the boxes are neither proposals nor objects; they stay as they are")
    if len(rows.unique()) < len(rows):
        raise NotYet("a region is drawn twice; torch.randperm draws without repetition")
    refuse_shape(value, (boxes, rows, boxes))
    positive = labels > 0
    targets, deltas = targets[positive], deltas[rows][positive]
    factor = targets.abs().sum(dim=0) / deltas.abs().sum(dim=0)  # nan where objects alone are foreground
    alike = torch.allclose(targets, deltas * factor.nan_to_num(), 1e-3, 1e-3)
    for what, same in (("labels", torch.equal(labels, right[rows])), ("targets", alike)):
        if not same:
            raise NotYet(f"the {what} belong to other regions; index boxes, labels and deltas alike")
    return {"foreground": int(positive.sum()), "all regions": len(rows), "what multiplies the deltas": factor}


def _smooth_l1(error: Tensor, beta: float = 1.0) -> Tensor:
    size = error.abs()
    return torch.where(size < beta, 0.5 * size**2 / beta, size - 0.5 * beta)


@exercise(_smooth_l1)
def smooth_l1(ask: Ask) -> str:
    """A parabola near 0, a line from beta on."""
    errors = torch.tensor([-5.0, -1.0, -0.3, -0.05, 0.0, 0.05, 0.3, 1.0, 1.5, 5.0])
    slips = """
        size - 0.5 * beta) => size - 0.5 * beta).sum() !! it returns one number; the loss of each error is wanted
        size < beta => size < math.inf !! it is the parabola everywhere; from beta on the loss is linear
        size - 0.5 * beta => size !! the two pieces do not meet at beta: the line is |x| - beta / 2
        size < beta => error < beta !! negative errors count as small ones; compare |x| with beta
        0.5 * size**2 => size**2 !! the parabola lacks its factor: 0.5 · x² / beta
        error.abs() => error.abs(); beta = 1.0 !! it is right for beta 1 only, and ignores beta
        / beta => !! with beta 1 it is right, but the parabola is not divided by beta
    """
    cases, theirs = [(errors, beta) for beta in (1.0, 3.0, 1 / 9)], partial(F.smooth_l1_loss, reduction="none")
    ask.cases(cases, slips, "with beta {1:.2f}", right=lambda error, beta: theirs(error, 0 * error, beta=beta))
    return "equal to torch's for three values of beta"


@exercise(ours.fast_rcnn_loss)
def fast_rcnn_loss(ask: Ask) -> str:
    """The losses of class and box."""
    generator = torch.Generator().manual_seed(0)
    logits, deltas = torch.randn(64, 7, generator=generator), torch.randn(64, 7, 4, generator=generator)
    labels = torch.randint(0, 7, (64,), generator=generator) * (torch.rand(64, generator=generator) < 0.4)
    case = (logits, deltas, labels, 2 * torch.randn(64, 4, generator=generator))
    slips = """
        labels[positive]] => labels[positive] - 1] !! it takes the row before the true class; row 0 is the background's
        labels > 0 => labels >= 0 !! background has a box loss; only foreground has (labels > 0)
        / len(labels) => / len(positive) !! the box loss divides by the number of foreground regions; divide by all
        / len(labels) => !! the box loss is a sum over the regions; divide by their number
        own, wanted[positive] => deltas[positive], wanted[positive, None].expand(-1, 7, 4)
            !! the box losses of all classes are added up; only the true class counts
        (logits, labels) => (logits.softmax(dim=1), labels) !! cross_entropy takes logits; it is given probabilities
        beta=beta => beta=1.0 !! it ignores beta; give it to smooth_l1
    """

    def right(logits: Tensor, deltas: Tensor, labels: Tensor, targets: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        if beta == 1 / 9:
            return fastrcnn_loss(logits, deltas.flatten(1), [labels], [targets])
        return ours.fast_rcnn_loss(logits, deltas, labels, targets, beta)

    ask.cases([(*case, 1.0), (*case, 1 / 9)], slips, "for 64 regions with beta {4:.2f}", right=right)
    ask.cases([(logits, deltas, torch.zeros_like(labels), case[3])], what="for background alone")
    learned = [part.clone().requires_grad_() for part in (logits, deltas)]
    both = ask(*learned, *case[2:], may_change=True)
    if not all(isinstance(loss, Tensor) and loss.requires_grad for loss in both):
        raise NotYet("no gradient flows back from a loss; leave out detach(), item() and torch.tensor()")
    return "equal to torchvision's (beta 1/9) and to the package's (beta 1)"


def _tiny_model() -> FastRCNN:
    torch.manual_seed(0)
    return fast_rcnn_alexnet(AlexNet(TINY, 1), ("background", "a", "b"))


def _make_optimizer(model: FastRCNN, learning_rate: float, backbone_factor: float = 0.1) -> Optimizer:
    model.backbone.conv1.requires_grad_(False)
    convolutions = [p for p in model.backbone.parameters() if p.requires_grad]
    groups = [{"params": convolutions, "lr": backbone_factor * learning_rate}, {"params": model.roi_heads.parameters()}]
    return torch.optim.AdamW(groups, lr=learning_rate)


@exercise(_make_optimizer)
def make_optimizer(ask: Ask) -> str:
    """Two learning rates, and a frozen first layer."""
    for rate, factor in ((1e-3, 0.1), (2e-2, 0.5)):
        model = _tiny_model()
        optimizer = ask(model, rate, factor, may_change=True)
        refuse_kind(optimizer, torch.optim.AdamW, "torch.optim.AdamW")
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
        layers = dict(model.backbone.named_children()) | dict(model.roi_heads.box_head.named_children())
        layers |= dict(model.roi_heads.box_predictor.named_children())
        found = {name: rates.get(id(layer.weight)) for name, layer in layers.items() if hasattr(layer, "weight")}
        if found.pop("conv1") is not None:
            raise NotYet("conv1 still learns; freeze it with requires_grad_(False)")
        if layers["conv1"].weight.requires_grad:
            raise NotYet("conv1 is in no group, but its gradient is still computed; requires_grad_(False) saves that")
        for name, value in found.items():
            if value is None:
                raise NotYet(f"{name} is in no group, or frozen, so it would never learn")
        if found["conv5"] == found["fc6"]:
            raise NotYet("backbone and heads have the same learning rate; give each a group of parameters")
        for name, value in found.items():
            wanted = rate * (factor if name.startswith("conv") else 1)
            if not math.isclose(value, wanted):
                raise NotYet(f"the learning rate of {name} is {value:g} instead of {wanted:g}")
    return "conv1 frozen, conv2 to conv5 and the heads with rates of their own"


def _lr_factor(iteration: int, iterations: int, warmup: int) -> float:
    if iteration < warmup:
        return (iteration + 1) / (warmup + 1)
    done = (iteration - warmup) / (iterations - warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


@exercise(_lr_factor)
def lr_factor(ask: Ask) -> str:
    """The learning rate's course."""
    slips = """
        (iteration + 1) / (warmup => iteration / (warmup !! it begins with 0, so that the first batch is wasted
        iteration < warmup => False !! there is no warm-up
        / (warmup + 1) => / max(warmup, 1) !! the warm-up reaches 1 one batch too early
        0.5 * (1 + math.cos(math.pi * done)) => math.cos(math.pi * done) !! it falls from 1 to -1; bring it to 1 … 0
        (iteration - warmup) / (iterations - warmup) => iteration / iterations !! the cosine begins where warm-up ends
        / (iterations - warmup) => / iterations !! the cosine falls over the iterations that are left, not over all
        math.pi * => 180 * !! math.cos takes radians: half a period is math.pi
    """
    schedules = (100, 9), (600, 60), (50, 0)
    cases = [(i, iterations, warmup) for iterations, warmup in schedules for i in range(iterations)]
    ask.cases(cases, slips, "iteration {0} of {1}")
    return "three schedules, iteration by iteration"


def _training_step(
    model: FastRCNN, optimizer: Optimizer, images: Tensors, proposals: Tensors, targets: Sequence[Target]
) -> dict[str, float]:
    sampled = [_sample_rois(boxes, target) for boxes, target in zip(proposals, targets, strict=True)]
    boxes, labels, wanted = zip(*sampled, strict=True)
    features, _ = model.features(images)
    logits, deltas = model.roi_heads.predict(features, boxes)
    of_class, of_box = ours.fast_rcnn_loss(logits, deltas, torch.cat(labels), torch.cat(wanted))
    optimizer.zero_grad()
    (of_class + of_box).backward()
    optimizer.step()
    return {"class": of_class.item(), "box": of_box.item()}


@exercise(_training_step)
def training_step(ask: Ask) -> str:
    """Forward, backward, step."""
    slips = """
        optimizer.step() => pass !! no parameter has changed: zero_grad, then backward, then step
        (of_class + of_box) => of_class !! the box loss reaches no parameter; learn from the sum of both losses
        (of_class + of_box) => of_box !! the class loss reaches no parameter; learn from the sum of both losses
        predict(features => predict(features.detach() !! the backbone does not learn; do not detach its features
        optimizer.zero_grad() => pass !! gradients of the batch before are still in it: zero_grad() before backward()
    """
    ask.cases([_batch()], slips, may_change=True, rtol=1e-3, run=_stepped)
    return "losses and parameters after a step equal to the package's"


def _batch(count: int = 2) -> tuple[list[Tensor], list[Tensor], list[Target]]:
    """Images with so few regions that all of them are drawn."""
    scenes = [_scene(seed, near=4, far=12) for seed in range(count)]
    images = [torch.rand(3, 100, 100, generator=torch.Generator().manual_seed(seed)) for seed in range(count)]
    targets = [{**target, "labels": target["labels"] % 2 + 1} for _, target in scenes]
    return images, [boxes for boxes, _ in scenes], targets


def _stepped(step: Callable[..., Any], *batch: Any) -> dict[str, Any]:  # noqa: ANN401
    """What a step from old gradients returns, and the parameters after it."""
    model = _tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.05)
    losses = step(model, optimizer, *batch)
    refuse_type(losses, {"class": 0.0, "box": 0.0})
    if any(isinstance(loss, Tensor) for loss in losses.values()):
        raise NotYet("the losses are tensors, which keep the whole graph in memory; take .item()")
    after = "it takes one step down the sum of both losses; the parameters after the step differ"
    return {"the losses are those of other regions": losses, after: dict(model.state_dict())}


def _train(
    model: FastRCNN,
    samples: Sequence[Any],
    proposals: Sequence[Tensor],
    iterations: int,
    learning_rate: float = 3e-3,
    images_per_batch: int = 4,
) -> list[dict[str, float]]:
    optimizer = _make_optimizer(model, learning_rate)
    schedule = LambdaLR(optimizer, lambda i: _lr_factor(i, iterations, iterations // 10))
    history = []
    for i in range(iterations):
        batch = draw_batch(i, samples, proposals, images_per_batch=images_per_batch, seed=0)
        history.append(_training_step(model, optimizer, batch.images, batch.proposals, batch.targets))
        schedule.step()
    return history


@exercise(_train)
def train(ask: Ask) -> str:
    """A batch, a step, the next learning rate."""
    images, proposals, targets = _batch(6)
    samples, iterations, model = list(zip(images, targets, strict=True)), 20, _tiny_model()
    with watching(model.backbone, lambda optimizer: (optimizer, optimizer.param_groups[-1]["lr"])) as (steps, batches):
        history = ask(model, samples, proposals, iterations, 1e-3, 2, may_change=True)
    refuse_type(history, [{"class": 0.0, "box": 0.0}] * (len(history) if isinstance(history, list) else iterations))
    if len(steps) != iterations:
        raise NotYet(f"it takes {len(steps)} steps in {iterations} iterations")
    if len({id(optimizer) for optimizer, _ in steps}) > 1:
        raise NotYet("it makes a new optimizer for each batch, which forgets its averages; make one before the loop")
    refuse_rates([rate for _, rate in steps], lambda i: 1e-3 * _lr_factor(i, iterations, iterations // 10))
    if len(history) != iterations:
        raise NotYet(f"it returns the losses of {len(history)} iterations; there are {iterations}")
    if {len(batch) for batch in batches} != {2}:
        raise NotYet("the batches do not have images_per_batch images")
    if len({round(float(image.sum()), 1) for batch in batches for image in batch}) < 6:
        raise NotYet("it learns from some of the images only; draw batch i in iteration i")
    return "a batch, a step and a new learning rate in each of 20 iterations"


@contextmanager
def watching(backbone: nn.Module, note: Callable[[Optimizer], Any]) -> Iterator[tuple[list[Any], list[Tensor]]]:
    """Collect what there is to note of the optimizer before each step, and the images that a backbone gets."""
    steps, batches = [], []
    handles = [
        register_optimizer_step_pre_hook(lambda optimizer, *_: steps.append(note(optimizer))),
        backbone.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0].detach())),
    ]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a schedule that steps too early, which refuse_rates tells
            yield steps, batches
    finally:
        for handle in handles:
            handle.remove()


def refuse_rates(rates: Sequence[float], schedule: Callable[[int], float], of: str = "") -> None:
    """Whether the learning rates are those of the schedule."""
    wanted = [schedule(i) for i in range(len(rates) + 1)]
    if len(set(rates)) == 1:
        raise NotYet("the learning rate never changes; call step() of the schedule after each optimizer.step()")
    if np.allclose(rates, wanted[1:], rtol=0, atol=1e-3 * max(wanted)):
        raise NotYet("the schedule is one batch ahead; call its step() after optimizer.step()")
    for i, (rate, right) in enumerate(zip(rates, wanted[:-1], strict=True)):
        if abs(rate - right) > 1e-3 * max(wanted):
            raise NotYet(f"the learning rate{of} of iteration {i} is {rate:.3g} instead of {right:.3g}")
