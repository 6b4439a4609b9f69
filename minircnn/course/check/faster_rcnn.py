"""The exercises of notebook 08: a Faster R-CNN out of parts, and its training.

Chance is taken out of answers while they are checked (:func:`minircnn.course.capstone.without_chance`), so that they
may draw in any order.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork

from minircnn.alexnet import load_alexnet
from minircnn.boxes import decode_boxes, encode_boxes, select_detections, subsample
from minircnn.course import capstone
from minircnn.course.check.judge import Ask, NotYet, difference, exercise, refuse_type
from minircnn.datasets import ToyTown
from minircnn.fast_rcnn import fast_rcnn_loss
from minircnn.faster_rcnn import RPNHead, load_faster_rcnn

CLASSES = ("background", "person", "car", "cat", "tree", "house", "balloon")
PARTS = ("backbone", "rpn_head", "box_head", "cls_score", "bbox_pred")
LOSSES = ("objectness", "rpn_box", "classifier", "box")


@lru_cache(maxsize=1)
def _scenes() -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Two images with several objects, prepared: ``(2, 3, 128, 128)``, and their targets."""
    data = ToyTown("train", masks=False)
    images, targets = zip(*(capstone.prepare(*data[index]) for index in (0, 1)), strict=True)
    return torch.stack(images), list(targets)


@lru_cache(maxsize=1)
def _trained() -> nn.ModuleDict:
    return capstone.parts_of(load_faster_rcnn())


# ------------------------------------------------------------------------------ 1: the layers


@exercise(capstone.build_detector)
def build_detector(ask: Ask) -> str:
    """Backbone, RPN head, box head and two siblings."""
    for num_classes in (7, 3):
        network = load_alexnet()
        detector = ask(network, num_classes, may_change=True)
        if detector is None:
            raise NotYet("it returns None; did you forget `return`?")
        if not isinstance(detector, nn.ModuleDict):
            raise NotYet(f"it returns a {type(detector).__name__}; an nn.ModuleDict is wanted")
        for name in PARTS:
            if name not in detector:
                raise NotYet(f"there is no part {name!r}; it has {', '.join(detector)}")
        own, given = (part.state_dict() for part in (detector.backbone, network.backbone))
        if set(own) != set(given) or not all(torch.equal(own[name], given[name]) for name in own):
            raise NotYet("the backbone is not the one that is given: take network.backbone, with what it has learned")
        _look_at_head(detector.rpn_head)
        _look_at_box_head(detector.box_head, network)
        _look_at_siblings(detector, num_classes)
    return "layers, shapes and first weights, for 7 and for 3 classes"


def _look_at_head(head: nn.Module) -> None:
    if not isinstance(head, RPNHead):
        raise NotYet(f"rpn_head is a {type(head).__name__}; take RPNHead(channels, anchors_per_cell)")
    channels, k = head.cls_logits.in_channels, head.cls_logits.out_channels
    if channels != 128:
        raise NotYet(f"rpn_head expects {channels} channels; the feature map has 128")
    if k != 12:
        raise NotYet(f"rpn_head has {k} anchors in a cell; there are 4 sizes in 3 aspect ratios")


def _look_at_box_head(box_head: nn.Module, network: nn.Module) -> None:
    pooled = torch.linspace(0, 1, 3 * 128 * 36).sin().abs().view(3, 128, 6, 6)
    fc6, fc7 = network.classifier.fc6, network.classifier.fc7
    ask = Ask(box_head.train(), "box_head")
    try:
        first, second = ask(pooled), ask(pooled)
    except NotYet as slip:
        raise NotYet(f"box_head fails on RoIs of shape (3, 128, 6, 6): {slip}") from None
    if not torch.equal(first, second):
        raise NotYet("box_head says something else each time: leave the dropout of network.classifier out")
    linear = fc6(pooled.flatten(1))
    slips = {
        "box_head has no ReLU behind fc6": fc7(linear).relu(),
        "box_head has no ReLU behind fc7": fc7(linear.relu()),
        "box_head has no fc7": linear.relu(),
        "box_head has no ReLU": fc7(linear),
        "box_head is not fc6 and fc7 of network.classifier, each with a ReLU behind it": lambda _: True,
    }
    Ask(lambda: first, "box_head").compare(wanted=fc7(linear.relu()).relu(), slips=slips)


def _look_at_siblings(detector: nn.ModuleDict, num_classes: int) -> None:
    wants = {"cls_score": (num_classes, 0.01, "one score"), "bbox_pred": (4 * num_classes, 0.001, "four deltas")}
    for name, (outputs, spread, what) in wants.items():
        layer = detector[name]
        if not isinstance(layer, nn.Linear) or layer.in_features != 256:
            raise NotYet(f"{name} is {layer}; it is linear, and fc7 has 256 outputs")
        if layer.out_features != outputs:
            raise NotYet(
                f"{name} has {layer.out_features} outputs for {num_classes} classes, background counted; with {what} "
                f"for each class there are {outputs}"
            )
        found = layer.weight.std().item()
        if not 0.8 * spread < found < 1.25 * spread:
            raise NotYet(f"the weights of {name} have a standard deviation of {found:.2g}; {spread:g} is wanted")
        if layer.bias is None or layer.bias.abs().max() > 0:
            raise NotYet(f"the biases of {name} start at 0 (nn.init.zeros_)")


# ------------------------------------------------------------------------------ 2: the losses of the RPN


def _by_torchvision(
    logits: Tensor, deltas: Tensor, anchors: Tensor, targets: Sequence[Mapping[str, Tensor]]
) -> tuple[Tensor, Tensor]:
    """The losses of torchvision's RPN for the same outputs."""
    counts = {"training": 1, "testing": 1}
    generator = AnchorGenerator(((8,),), ((1.0,),))
    rpn = RegionProposalNetwork(generator, nn.Identity(), 0.7, 0.3, 128, 0.5, counts, counts, 0.7)
    labels, matched = rpn.assign_targets_to_anchors([anchors] * len(targets), list(targets))
    goals = rpn.box_coder.encode(matched, [anchors] * len(targets))
    return rpn.compute_loss(logits.reshape(-1, 1), deltas.reshape(-1, 4), labels, goals)


@exercise(capstone.rpn_losses)
def rpn_losses(ask: Ask) -> str:
    """Objectness and box loss on the anchors that were drawn."""
    anchors = capstone.anchors_of(torch.zeros(1, 128, 16, 16))
    _, targets = _scenes()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        logits = torch.randn(2, len(anchors)).requires_grad_()
        deltas = (0.3 * torch.randn(2, len(anchors), 4)).requires_grad_()
    with capstone.without_chance():
        wanted = _by_torchvision(logits, deltas, anchors, targets)
        slips = _slips_of_rpn(logits, deltas, anchors, targets, wanted)
        case = "for two images of Toy Town"
        value = ask.compare(logits, deltas, anchors, targets, wanted=wanted, slips=slips, case=case)
        for loss, name in zip(value, ("objectness", "box"), strict=True):
            if not loss.requires_grad:
                raise NotYet(f"the {name} loss carries no gradient, so nothing could learn from it")
        # The two losses are means over the drawn anchors of the whole batch, also where an image has few of them.
        few, alone = anchors[::40], targets[:1]
        given = (logits[:, ::40].detach(), deltas[:, ::40].detach(), few)
        ask.compare(*given, targets, wanted=_by_torchvision(*given, targets), case="for 77 anchors in two images")
        given = (logits[:1].detach(), deltas[:1].detach(), anchors)
        ask.compare(*given, alone, wanted=_by_torchvision(*given, alone), case="for a batch of one image")
    return "equal to torchvision's RegionProposalNetwork for three batches"


def _slips_of_rpn(
    logits: Tensor, deltas: Tensor, anchors: Tensor, targets: Sequence[Mapping[str, Tensor]], wanted: tuple
) -> dict[str, Any]:
    """What usual slips make of these losses."""
    objectness, box = wanted
    rows, every = [], []
    for z, d, target in zip(logits, deltas, targets, strict=True):
        gt_index, label = capstone.label_anchors(anchors, target["boxes"])
        positive, negative = subsample(label, 128, 0.5)
        near, chosen = target["boxes"][gt_index], torch.cat([positive, negative])
        own, first = anchors[positive], target["boxes"][:1].expand(len(positive), 4)
        goals = [encode_boxes(own, near[positive]), encode_boxes(near[positive], own), encode_boxes(own, first)]
        drawn = d[chosen], encode_boxes(anchors[chosen], near[chosen])
        rows.append((z[chosen], (label[chosen] == 1).float(), d[positive], *goals, *drawn))
        every.append((z, (label == 1).float(), label >= 0))
    scores, truth, own, goals, back, first, drawn, drawn_goals = map(torch.cat, zip(*rows, strict=True))
    z, positive, known = map(torch.cat, zip(*every, strict=True))
    bce, l1, beta = F.binary_cross_entropy_with_logits, F.smooth_l1_loss, capstone.BETA
    count, total = len(scores), {"beta": beta, "reduction": "sum"}
    means = sum(l1(row[2], row[3], beta=beta) for row in rows)
    boxes = {
        "the box loss is divided by the positive anchors; divide by all that were drawn": box * count / len(own),
        "the box loss is a mean over coordinates; sum them, and divide by the anchors drawn": l1(own, goals, beta=beta),
        'smooth L1 takes a mean before you divide; give it reduction="sum"': means / count,
        "the box loss is a sum; divide it by the number of anchors drawn": box * count,
        "smooth L1 has a beta of 1; take BETA": l1(own, goals, reduction="sum") / count,
        "encode_boxes leads from the object to the anchor; the anchor comes first": l1(own, back, **total) / count,
        "all positive anchors have the first object as their target; use gt_index": l1(own, first, **total) / count,
        "negative anchors have no box to learn; only positive ones enter the box loss": (
            l1(drawn, drawn_goals, **total) / count
        ),
    }
    scored = {
        "the objectness loss is a sum; divide it by the number of anchors drawn": objectness * count,
        "sigmoid comes twice: binary_cross_entropy_with_logits takes logits": bce(scores.sigmoid(), truth),
        "anchors that are ignored enter the objectness loss; draw 128 of each image with subsample": bce(z, positive),
        "all anchors enter the objectness loss; draw 128 of each image with subsample": bce(z[known], positive[known]),
    }
    return {
        "they are exchanged: the objectness loss comes first": (box, objectness),
        "each image's losses are summed; take the mean over the anchors of the batch": (2 * objectness, 2 * box),
        **{text: (objectness, wrong) for text, wrong in boxes.items()},
        **{text: lambda v, wrong=wrong: torch.isclose(v[0], wrong) for text, wrong in scored.items()},
    }


# ------------------------------------------------------------------------------ 3: the heads


@exercise(capstone.predict)
def predict(ask: Ask) -> str:
    """Class logits and box deltas of RoIs."""
    detector = _trained()
    features = torch.linspace(0, 900, 2 * 128 * 256).sin().abs().view(2, 128, 16, 16)
    boxes = [torch.tensor([[8.0, 8.0, 60.0, 90.0], [30.0, 2.0, 120.0, 70.0]]), torch.tensor([[5.0, 40.0, 80.0, 125.0]])]

    def heads(pooled: Tensor) -> tuple[Tensor, Tensor]:
        x = detector.box_head(pooled)
        return detector.cls_score(x), detector.bbox_pred(x)

    logits, flat = heads(torchvision.ops.roi_pool(features, boxes, 6, 1 / 8))
    deltas = flat.view(3, 7, 4)
    first = heads(torchvision.ops.roi_pool(features[:1], [torch.cat(boxes)], 6, 1 / 8))
    unscaled = heads(torchvision.ops.roi_pool(features, boxes, 6, 1.0))
    slips = {
        "the deltas stand in one row (R, 4 K); view them as (R, K, 4)": (logits, flat),
        "the deltas of a class stand side by side: view them as (R, K, 4), not (R, 4, K)": lambda v: (
            v[1].shape == (3, 4, 7) or torch.allclose(v[1], flat.view(3, 4, 7).transpose(1, 2))
        ),
        "all boxes are pooled from the first image; to_rois(boxes) keeps apart whose they are": (
            first[0],
            first[1].view(3, 7, 4),
        ),
        "boxes are in pixels, and a cell has 8 of them: roi_pool needs the scale 1 / 8": (
            unscaled[0],
            unscaled[1].view(3, 7, 4),
        ),
        "they are probabilities; the loss wants logits, softmax comes in detect": (logits.softmax(dim=1), deltas),
        "they are exchanged: class logits come first": (deltas, logits),
    }
    ask.compare(detector, features, boxes, wanted=(logits, deltas), slips=slips, case="for 3 RoIs in 2 images")
    none = [torch.zeros(0, 4), torch.zeros(0, 4)]
    ask.compare(detector, features, none, wanted=(logits[:0], deltas[:0]), case="for images without proposals")
    return "equal to torchvision's roi_pool and the same layers, also without RoIs"


# ------------------------------------------------------------------------------ 4: four losses at once


@exercise(capstone.joint_losses)
def joint_losses(ask: Ask) -> str:
    """The losses of the RPN and of the heads."""
    images, targets = _scenes()
    detector = copy.deepcopy(_trained())
    with capstone.without_chance():
        found = capstone.package_detector(_trained(), CLASSES).train().losses(list(images), targets)
        keys = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
        wanted = {name: found[key] for name, key in zip(LOSSES, keys, strict=True)}
        calls = []
        handle = detector.backbone.register_forward_hook(lambda *_: calls.append(1))
        value = ask(detector, images, targets, may_change=True)
        handle.remove()
        slips = _slips_of_joint(_trained(), images, targets, wanted)
    Ask(lambda: value, "joint_losses").compare(wanted=wanted, slips=slips, case="for two images", rtol=1e-3, atol=1e-4)
    if len(calls) > 1:
        raise NotYet(f"the backbone runs {len(calls)} times; one pass for the batch serves the RPN and the heads")
    for name in LOSSES:
        weight = detector.backbone.conv5.weight
        try:
            (learned,) = torch.autograd.grad(value[name], weight, retain_graph=True, allow_unused=True)
        except RuntimeError as error:
            raise NotYet(f"the loss {name!r} gives no gradient: {str(error)[:60]}") from None
        if learned is None or not learned.abs().max() > 0:
            raise NotYet(f"the loss {name!r} does not reach the backbone; do not detach the feature map")
    return "equal to the package's FasterRCNN, with one pass of the backbone"


def _slips_of_joint(
    detector: nn.ModuleDict, images: Tensor, targets: Sequence[Mapping[str, Tensor]], wanted: Mapping[str, Tensor]
) -> dict[str, Any]:
    """What usual slips make of the losses."""
    features = detector.backbone(images)
    outputs = list(zip(*detector.rpn_head(features), strict=True))
    anchors, size, found = capstone.anchors_of(features), images.shape[-2:], []
    for limits, beta in (((0.7, 150), 1.0), ((0.6, 60), capstone.BETA)):
        proposals = [capstone.filter_proposals(anchors, *own, size, *limits) for own in outputs]
        rows = [capstone.sample_rois(*own) for own in zip(proposals, targets, strict=True)]
        boxes, labels, goals = zip(*rows, strict=True)
        losses = fast_rcnn_loss(*capstone.predict(detector, features, boxes), *map(torch.cat, (labels, goals)), beta)
        found.append({**wanted, "classifier": losses[0], "box": losses[1]})
    return {
        "the heads' box loss has a beta of 1; give BETA to fast_rcnn_loss": found[0],
        "there are as few proposals as in detection; leave filter_proposals its defaults": found[1],
        "classifier and box are exchanged": {**wanted, "classifier": wanted["box"], "box": wanted["classifier"]},
        "objectness and rpn_box are exchanged": {
            **wanted,
            "objectness": wanted["rpn_box"],
            "rpn_box": wanted["objectness"],
        },
    }


# ------------------------------------------------------------------------------ 5: detections


@exercise(capstone.detect)
def detect(ask: Ask) -> str:
    """Detections of one image."""
    images, _ = _scenes()
    detector, package = _trained(), capstone.package_detector(_trained(), CLASSES).eval()
    before = package.rpn.config
    for index, count in ((0, 60), (1, 60), (0, 5)):
        package.rpn.config = replace(before, post_nms_top_n=(150, count))
        (wanted,) = package.detect([images[index]])
        slips = _slips_of_detect(detector, images[index], count) if (index, count) != (1, 60) else {}
        case = f"for an image with {count} proposals"
        value = ask.compare(detector, images[index], count, wanted=wanted, slips=slips, case=case, atol=1e-2)
        if value["boxes"].requires_grad or value["scores"].requires_grad:
            raise NotYet("its results carry gradients, which costs memory: put @torch.no_grad() above it")
    return "equal to the package's FasterRCNN for three cases"


@torch.no_grad()
def _slips_of_detect(detector: nn.ModuleDict, image: Tensor, count: int) -> dict[str, Any]:
    """What usual slips find in an image, if it is not what should be found."""
    features, size = detector.backbone(image[None]), tuple(image.shape[-2:])
    outputs = [part[0] for part in detector.rpn_head(features)]

    def found(
        threshold: float = 0.6,
        most: int = count,
        weights: tuple[float, ...] | None = capstone.BOX_WEIGHTS,
        probability: Callable[[Tensor], Tensor] = lambda logits: logits.softmax(dim=1),
    ) -> dict[str, Tensor]:
        proposals = capstone.filter_proposals(capstone.anchors_of(features), *outputs, size, threshold, most)
        logits, deltas = capstone.predict(detector, features, [proposals])
        boxes = decode_boxes(proposals, deltas, weights) if weights else proposals
        return select_detections(boxes, probability(logits), size, **capstone.LIMITS)

    wrong = {
        "scores are logits; softmax makes probabilities of them": found(probability=lambda logits: logits),
        "each class has a sigmoid of its own; the classes compete in a softmax": found(probability=torch.sigmoid),
        "softmax runs over the proposals; it runs over the classes, dim=1": found(
            probability=lambda z: z.softmax(dim=0)
        ),
        "decode_boxes has no weights; the targets were encoded with BOX_WEIGHTS": found(weights=(1.0,) * 4),
        "boxes are the proposals; the heads refine them once more": found(weights=None),
        "proposals are suppressed at 0.7 as in training; in detection at 0.6": found(0.7),
        "there are always 60 proposals; take as many as count says": found(most=60),
    }
    right = found()
    return {text: value for text, value in wrong.items() if difference(value, right, 1e-3, 0.1) is not None}


# ------------------------------------------------------------------------------ 6: the training loop


class _Record:
    """What an optimizer does at each step, and the gradients of that batch alone."""

    def __init__(self, detector: nn.ModuleDict) -> None:
        self.detector, self.rates, self.norms, self.fresh, self.sums, self.batches = detector, [], [], [], [], []
        self.watched = detector.cls_score.weight

    @contextmanager
    def running(self) -> Iterator[None]:
        handles = [
            register_optimizer_step_pre_hook(self._step),
            self.watched.register_hook(lambda gradient: self.fresh.append(gradient.clone())),
            self.detector.backbone.register_forward_pre_hook(lambda _, args: self.batches.append(args[0].detach())),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _step(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        self.rates.append({name: of.get(id(p)) for name, p in self.detector.named_parameters()})
        grads = [p.grad for p in self.detector.parameters() if p.grad is not None and id(p) in of]
        self.norms.append(float(torch.stack([g.norm() for g in grads]).norm()) if grads else 0.0)
        self.sums.append(None if self.watched.grad is None else self.watched.grad.clone())


@exercise(capstone.train)
def train(ask: Ask) -> str:
    """The training loop."""
    iterations = 10
    torch.manual_seed(0)
    detector = capstone.build_detector(load_alexnet(), 7)
    nn.init.normal_(detector.cls_score.weight, std=0.5)  # gradients that are large enough to be clipped
    images = [torch.randn(3, 64, 64) for _ in range(12)]
    target = {"boxes": torch.tensor([[4.0, 6.0, 40.0, 30.0], [20.0, 20.0, 60.0, 62.0]]), "labels": torch.tensor([1, 3])}
    before = {name: p.detach().clone() for name, p in detector.named_parameters()}
    record = _Record(detector)
    with record.running(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a scheduler that runs ahead, which is told below
        history = ask(detector, images, [target] * 12, iterations, may_change=True)
    _look_at_history(history, iterations)
    _look_at_steps(record, iterations)
    _look_at_rates(record.rates)
    moved = {name: float((p.detach() - before[name]).abs().max()) for name, p in detector.named_parameters()}
    if max(moved[name] for name in moved if name.startswith("backbone.conv1.")) > 0:
        raise NotYet("conv1 learns; freeze it: detector.backbone.conv1.requires_grad_(False)")
    still = [name for name, value in moved.items() if value == 0 and not name.startswith("backbone.conv1.")]
    if still:
        raise NotYet(
            f"{still[0].rpartition('.')[0]} does not learn: it must be in the optimizer, and all four losses in the sum"
        )
    return "batches, steps, two learning rates, warm-up and clipping, in 10 iterations"


def _look_at_history(history: Any, iterations: int) -> None:  # noqa: ANN401
    refuse_type(history, [dict.fromkeys(LOSSES, 0.0)] * iterations)
    kind = next(
        (type(value).__name__ for step in history for value in step.values() if isinstance(value, Tensor)), None
    )
    if kind:
        raise NotYet("history holds tensors, each with the graph behind it; take loss.item()")


def _look_at_steps(record: _Record, iterations: int) -> None:
    if len(record.rates) != iterations:
        raise NotYet(f"the optimizer makes {len(record.rates)} steps in {iterations} iterations; call optimizer.step()")
    if not record.batches:
        raise NotYet("the backbone sees no image; call joint_losses for each batch")
    if {len(batch) for batch in record.batches} != {4}:
        raise NotYet(f"a batch has {len(record.batches[0])} images; 4 are wanted")
    sums = [batch.sum(dim=0) for batch in record.batches]  # in whatever order
    if all(torch.allclose(total, sums[0], atol=1e-3) for total in sums):
        raise NotYet("each batch holds the same images; draw one inside the loop")
    if len(record.fresh) > iterations:
        raise NotYet(f"backward() runs {len(record.fresh)} times in {iterations} iterations; add up the losses first")
    if len(record.fresh) < iterations or any(total is None for total in record.sums):
        raise NotYet("at a step there is no gradient; backward() comes before step(), zero_grad() before backward()")
    for fresh, total in zip(record.fresh, record.sums, strict=True):
        if F.cosine_similarity(fresh.flatten(), total.flatten(), dim=0) < 0.999:
            raise NotYet("gradients of earlier batches add up; call optimizer.zero_grad() before each backward()")
    if max(record.norms) > 5.01:
        raise NotYet(f"the gradient has a norm of up to {max(record.norms):.0f}; clip it to 5 before the step")


def _look_at_rates(rates: Sequence[Mapping[str, float | None]]) -> None:
    new, backbone = ([step[name] for step in rates] for name in ("cls_score.weight", "backbone.conv5.weight"))
    if None in new or None in backbone:
        raise NotYet(f"the optimizer has no parameters of {'cls_score' if None in new else 'the backbone'}")
    if max(new) == min(new):
        raise NotYet("the learning rate stays as it is; call scheduler.step() after each optimizer.step()")
    wanted = [3e-3 * capstone.schedule(i, len(rates)) for i in range(len(rates))]
    if abs(backbone[1] - new[1]) < 1e-9:
        raise NotYet("the backbone learns as fast as the new layers; give it a group with a tenth of their rate")
    pairs = (("of the new layers", new, wanted), ("of the backbone", backbone, [rate / 10 for rate in wanted]))
    for what, found, right in pairs:
        for i, (a, b) in enumerate(zip(found, right, strict=True)):
            if abs(a - b) > 1e-3 * max(right):
                raise NotYet(f"the learning rate {what} in batch {i} of {len(right)} is {a:.2g}, not {b:.2g}")
