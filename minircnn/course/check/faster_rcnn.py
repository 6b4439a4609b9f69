"""The exercises of notebook 08: a Faster R-CNN out of parts, and its training.

Chance is taken out of answers while they are checked (:func:`minircnn.course.capstone.without_chance`), so that they
may draw in any order.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from minircnn.alexnet import load_alexnet
from minircnn.course import capstone
from minircnn.course.check.fast_rcnn import refuse_rates, watching
from minircnn.course.check.judge import Ask, NotYet, difference, exercise, hint, refuse_kind, refuse_type
from minircnn.course.check.region_proposals import compare_losses
from minircnn.datasets import ToyTown
from minircnn.faster_rcnn import RPNHead, load_faster_rcnn

CLASSES = ("background", "person", "car", "cat", "tree", "house", "balloon")
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


@exercise(capstone.build_detector)
def build_detector(ask: Ask) -> str:
    """Backbone, RPN head, box head and two siblings."""
    slips = """
        fc6, nn.ReLU(), fc7, nn.ReLU()) => fc6, fc7, nn.ReLU()) !! box_head has no ReLU behind fc6
        fc6, nn.ReLU(), fc7, nn.ReLU()) => fc6, nn.ReLU(), fc7) !! box_head has no ReLU behind fc7
        fc6, nn.ReLU(), fc7, nn.ReLU()) => fc6, nn.ReLU()) !! box_head has no fc7
        fc6, nn.ReLU(), fc7, nn.ReLU()) => fc6, fc7) !! box_head has no ReLU
    """
    ask.cases([(7,), (3,)], slips, "for {0} classes", may_change=True, run=_built)
    return "layers, shapes and first weights, for 7 and for 3 classes"


def _built(build: Callable[..., nn.ModuleDict], num_classes: int) -> dict[str, Any]:
    """What a detector is made of, in numbers."""
    network = load_alexnet()
    detector = build(network, num_classes)
    refuse_kind(detector, nn.ModuleDict, "an nn.ModuleDict")
    for name in ("backbone", "rpn_head", "box_head", "cls_score", "bbox_pred"):
        if name not in detector:
            raise NotYet(f"there is no part {name!r}; it has {', '.join(detector)}")
    head, box_head = detector.rpn_head, detector.box_head.train()
    if difference(detector.backbone, network.backbone):
        raise NotYet("the backbone is not the one that is given: take network.backbone, with what it has learned")
    if not isinstance(head, RPNHead):
        raise NotYet(f"rpn_head is a {type(head).__name__}; take RPNHead(channels, anchors_per_cell)")
    pooled = torch.linspace(0, 1, 3 * 128 * 36).sin().abs().view(3, 128, 6, 6)
    with hint("box_head fails on RoIs of shape (3, 128, 6, 6):"):
        first, second = (Ask(box_head)(pooled) for _ in range(2))
    if not torch.equal(first, second):
        raise NotYet("box_head says something else each time: leave the dropout of network.classifier out")
    found = {
        "rpn_head expects other channels than the feature map has": head.cls_logits.in_channels,
        "rpn_head has other anchors in a cell than 4 sizes in 3 aspect ratios": head.cls_logits.out_channels,
        "box_head is not fc6 and fc7 of network.classifier, each with a ReLU behind it": first,
    }
    for name, spread, each in (("cls_score", 0.01, "one score"), ("bbox_pred", 0.001, "four deltas")):
        layer = detector[name]
        if not isinstance(layer, nn.Linear) or layer.in_features != 256:
            raise NotYet(f"{name} is {layer}; it is linear, and fc7 has 256 outputs")
        largest = math.inf if layer.bias is None else layer.bias.abs().max().item()
        found |= {
            f"{name} has other outputs than {each} for each class, background counted": layer.out_features,
            f"the standard deviation of {name}'s weights": spread / 4 * round(4 * layer.weight.std().item() / spread),
            f"the biases of {name} start at 0 (nn.init.zeros_); the largest": largest,
        }
    return found


@exercise(capstone.rpn_losses)
def rpn_losses(ask: Ask) -> str:
    """Objectness and box loss on the anchors that were drawn."""
    anchors, (_, targets) = capstone.anchors_of(torch.zeros(1, 128, 16, 16)), _scenes()
    torch.manual_seed(0)
    logits, deltas = torch.randn(2, len(anchors)), 0.3 * torch.randn(2, len(anchors), 4)
    # The two losses are means over the drawn anchors of the whole batch, also where an image has few of them.
    few = logits[:, ::40], deltas[:, ::40], anchors[::40], targets
    compare_losses(ask, [(logits, deltas, anchors, targets), few, (logits[:1], deltas[:1], anchors, targets[:1])])
    return "equal to torchvision's RegionProposalNetwork for three batches"


@exercise(capstone.predict)
def predict(ask: Ask) -> str:
    """Class logits and box deltas of RoIs."""
    slips = """
        .view(*logits.shape, 4) => !! the deltas stand in one row (R, 4 K); view them as (R, K, 4)
        .view(*logits.shape, 4) => .view(len(x), 4, -1) !! the deltas of a class stand side by side: view (R, K, 4)
        .view(*logits.shape, 4) => .view(len(x), 4, -1).mT !! the four deltas of a class stand side by side, (R, K, 4)
        to_rois(boxes) => to_rois([torch.cat(boxes)]) !! all boxes are pooled from the first image: use to_rois(boxes)
        1 / 8 => 1.0 !! boxes are in pixels, and a cell has 8 of them: roi_pool needs the scale 1 / 8
        return logits, => return logits.softmax(dim=1), !! they are probabilities; the loss wants logits: no softmax
    """

    def right(detector: nn.ModuleDict, features: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        x = detector.box_head(torchvision.ops.roi_pool(features, boxes, 6, 1 / 8))
        return detector.cls_score(x), detector.bbox_pred(x).view(len(x), 7, 4)

    also = {"they are exchanged: class logits come first": lambda *case: right(*case)[::-1]}
    features = torch.linspace(0, 900, 2 * 128 * 256).sin().abs().view(2, 128, 16, 16)
    boxes = [torch.tensor([[8.0, 8.0, 60.0, 90.0], [30.0, 2.0, 120.0, 70.0]]), torch.tensor([[5.0, 40.0, 80.0, 125.0]])]
    ask.cases([(_trained(), features, boxes)], slips, "for 3 RoIs in 2 images", right=right, also=also)
    none = [torch.zeros(0, 4), torch.zeros(0, 4)]
    ask.cases([(_trained(), features, none)], what="for images without proposals", right=right)
    return "equal to torchvision's roi_pool and the same layers, also without RoIs"


@exercise(capstone.joint_losses)
def joint_losses(ask: Ask) -> str:
    """The losses of the RPN and of the heads."""
    slips = """
        , BETA) => ) !! the heads' box loss has a beta of 1; give BETA to fast_rcnn_loss
        , size) => , size, 0.6, 60) !! there are as few proposals as in detection; leave filter_proposals its defaults
        "classifier": classifier, "box": box => "classifier": box, "box": classifier !! classifier and box are exchanged
        objectness, rpn_box = rpn_losses => rpn_box, objectness = rpn_losses !! objectness and rpn_box are exchanged
    """

    def right(detector: nn.ModuleDict, images: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        found = capstone.package_detector(detector, CLASSES).train().losses(list(images), targets)
        keys = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
        return {name: found[key] for name, key in zip(LOSSES, keys, strict=True)}

    case, passes = (copy.deepcopy(_trained()), *_scenes()), []
    handle = case[0].backbone.register_forward_hook(lambda *_: passes.append(1))
    with capstone.without_chance():
        value = ask(*case, may_change=True)
        handle.remove()
        found = Ask(lambda *_: value, ask.reference)
        found.cases([case], slips, "for two images", right=right, rtol=1e-3, atol=1e-4)
    if len(passes) > 1:
        raise NotYet(f"the backbone runs {len(passes)} times; one pass for the batch serves the RPN and the heads")
    for name in LOSSES:
        weight = case[0].backbone.conv5.weight
        try:
            (learned,) = torch.autograd.grad(value[name], weight, retain_graph=True, allow_unused=True)
        except RuntimeError as error:
            raise NotYet(f"the loss {name!r} gives no gradient: {str(error)[:60]}") from None
        if learned is None or not learned.abs().max() > 0:
            raise NotYet(f"the loss {name!r} does not reach the backbone; do not detach the feature map")
    return "equal to the package's FasterRCNN, with one pass of the backbone"


@exercise(capstone.detect)
def detect(ask: Ask) -> str:
    """Detections of one image."""
    slips = """
        class_logits.softmax(dim=1) => class_logits !! scores are logits; softmax makes probabilities of them
        .softmax(dim=1) => .sigmoid() !! each class has a sigmoid of its own; the classes compete in a softmax
        .softmax(dim=1) => .softmax(dim=0) !! softmax runs over the proposals; it runs over the classes, dim=1
        , BOX_WEIGHTS) => ) !! decode_boxes has no weights; the targets were encoded with BOX_WEIGHTS
        decode_boxes(proposals, box_deltas, BOX_WEIGHTS) => proposals !! boxes are the proposals; refine them once more
        0.6, count => 0.7, count !! proposals are suppressed at 0.7 as in training; in detection at 0.6
        0.6, count => 0.6, 60 !! there are always 60 proposals; take as many as count says
    """

    def right(detector: nn.ModuleDict, image: Tensor, count: int) -> dict[str, Tensor]:
        package = capstone.package_detector(detector, CLASSES).eval()
        package.rpn.config = replace(package.rpn.config, post_nms_top_n=(150, count))
        return package.detect([image])[0]

    images, _ = _scenes()
    cases = [(_trained(), images[index], count) for index, count in ((0, 60), (1, 60), (0, 5))]
    ask.cases(cases, slips, "for an image with {2} proposals", right=right, atol=1e-2)
    value = ask(*cases[0])
    if value["boxes"].requires_grad or value["scores"].requires_grad:
        raise NotYet("its results carry gradients, which costs memory: put @torch.no_grad() above it")
    return "equal to the package's FasterRCNN for three cases"


@exercise(capstone.train)
def train(ask: Ask) -> str:
    """The training loop."""
    torch.manual_seed(0)
    iterations, detector = 10, capstone.build_detector(load_alexnet(), 7)
    nn.init.normal_(detector.cls_score.weight, std=0.5)  # gradients that are large enough to be clipped
    images = [torch.randn(3, 64, 64) for _ in range(12)]
    target = {"boxes": torch.tensor([[4.0, 6.0, 40.0, 30.0], [20.0, 20.0, 60.0, 62.0]]), "labels": torch.tensor([1, 3])}
    before, layer, fresh = copy.deepcopy(detector), detector.cls_score.weight, []

    def note(optimizer: torch.optim.Optimizer) -> tuple[dict[str, float], float, Tensor | None]:
        """The learning rates, the norm of the gradient, and that of a layer, which may be a sum of several batches'."""
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        norms = [p.grad.norm() for p in detector.parameters() if p.grad is not None and id(p) in rates]
        rates = {name: rates.get(id(p)) for name, p in detector.named_parameters()}
        return rates, float(torch.stack([torch.tensor(0.0), *norms]).norm()), copy.deepcopy(layer.grad)

    layer.register_hook(lambda gradient: fresh.append(gradient.clone()))
    with watching(detector.backbone, note) as (steps, batches):
        history = ask(detector, images, [target] * 12, iterations, may_change=True)
    refuse_type(history, [dict.fromkeys(LOSSES, 0.0)] * iterations)
    if any(isinstance(value, Tensor) for step in history for value in step.values()):
        raise NotYet("history holds tensors, each with the graph behind it; take loss.item()")
    if len(steps) != iterations:
        raise NotYet(f"the optimizer makes {len(steps)} steps in {iterations} iterations; call optimizer.step()")
    _look_at_batches(batches)
    rates, norms, sums = zip(*steps, strict=True)
    _look_at_gradients(fresh, sums, norms)
    _look_at_rates(rates)
    still = [name for name, p in before.named_parameters() if torch.equal(p, detector.get_parameter(name))]
    frozen = [name for name in still if name.startswith("backbone.conv1.")]
    if len(frozen) < 2:
        raise NotYet("conv1 learns; freeze it: detector.backbone.conv1.requires_grad_(False)")
    for name in still:
        if name not in frozen:
            layer = name.rpartition(".")[0]
            raise NotYet(f"{layer} does not learn: it must be in the optimizer, and all four losses in the sum")
    return "batches, steps, two learning rates, warm-up and clipping, in 10 iterations"


def _look_at_batches(batches: Sequence[Tensor]) -> None:
    if not batches:
        raise NotYet("the backbone sees no image; call joint_losses for each batch")
    if {len(batch) for batch in batches} != {4}:
        raise NotYet(f"a batch has {len(batches[0])} images; 4 are wanted")
    sums = [batch.sum(dim=0) for batch in batches]  # in whatever order
    if all(torch.allclose(total, sums[0], atol=1e-3) for total in sums):
        raise NotYet("each batch holds the same images; draw one inside the loop")


def _look_at_gradients(fresh: Sequence[Tensor], sums: Sequence[Tensor | None], norms: Sequence[float]) -> None:
    """Compare those of each batch alone with those at the steps."""
    if len(fresh) > len(sums):
        raise NotYet(f"backward() runs {len(fresh)} times in {len(sums)} iterations; add up the losses first")
    if len(fresh) < len(sums) or any(total is None for total in sums):
        raise NotYet("at a step there is no gradient; backward() comes before step(), zero_grad() before backward()")
    for own, total in zip(fresh, sums, strict=True):
        if F.cosine_similarity(own.flatten(), total.flatten(), dim=0) < 0.999:
            raise NotYet("gradients of earlier batches add up; call optimizer.zero_grad() before each backward()")
    if max(norms) > 5.01:
        raise NotYet(f"the gradient has a norm of up to {max(norms):.0f}; clip it to 5 before the step")


def _look_at_rates(rates: Sequence[Mapping[str, float | None]]) -> None:
    new, backbone = ([step[name] for step in rates] for name in ("cls_score.weight", "backbone.conv5.weight"))
    if None in new or None in backbone:
        raise NotYet(f"the optimizer has no parameters of {'cls_score' if None in new else 'the backbone'}")
    if len(set(new)) > 1 and abs(backbone[1] - new[1]) < 1e-9:
        raise NotYet("the backbone learns as fast as the new layers; give it a group with a tenth of their rate")
    refuse_rates(new, lambda i: 3e-3 * capstone.schedule(i, len(new)), " of the new layers")
    refuse_rates(backbone, lambda i: 3e-4 * capstone.schedule(i, len(new)), " of the backbone")
