"""Faster R-CNN in plain functions: the parts that notebook 08 gives its learners, and a solution of each exercise.

The parts are those that the learner has written in notebooks 06 and 07, for Toy Town: one level of anchors, no crowds.
A detector is a ``ModuleDict`` of ``backbone``, ``rpn_head``, ``box_head``, ``cls_score`` and ``bbox_pred``.

Shape comments: B images, N anchors, P proposals, G objects, R RoIs of a batch, C channels, K classes with background.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minircnn.alexnet import AlexNet, load_alexnet
from minircnn.boxes import box_iou, clip_boxes, decode_boxes, encode_boxes, match, nms, select_detections, subsample
from minircnn.course import compare
from minircnn.course.history import count_parameters
from minircnn.course.passes import operations
from minircnn.fast_rcnn import RoIHeads, fast_rcnn_loss
from minircnn.faster_rcnn import TOY_TOWN_HEADS, TOY_TOWN_RPN, FasterRCNN, RPNHead, faster_rcnn_alexnet, grid_anchors
from minircnn.pooling import roi_pool, to_rois
from minircnn.training import LoopSettings
from minircnn.transforms import resize, resize_target

BOX_WEIGHTS = TOY_TOWN_HEADS.box_weights  # of the regression targets, see notebook 06
BETA = TOY_TOWN_HEADS.smooth_l1_beta  # error above which smooth L1 is linear, of both box losses
LIMITS = {"score_threshold": 0.003, "nms_threshold": 0.5, "max_detections": 100}  # for select_detections

Size, Images, Targets = tuple[int, int], Sequence[Tensor], Sequence[Mapping[str, Tensor]]
Says = Callable[..., dict[str, Tensor]]  # losses or detections
Batch = tuple[Tensor, list[dict[str, Tensor]]]


# ------------------------------------------------------------------------------ parts that are given
def prepare(image: Tensor, target: Mapping[str, Tensor], side: int = 128) -> tuple[Tensor, dict[str, Tensor]]:
    """Normalize an image ``(3, H, W)`` as AlexNet learned it, and resize it to a square, with its boxes."""
    small, sizes = {name: target[name] for name in ("boxes", "labels")}, (tuple(image.shape[1:]), (side, side))
    return resize((image - 0.45) / 0.25, (side, side)), resize_target(small, *sizes)


def anchors_of(features: Tensor) -> Tensor:
    """The 12 anchors of each cell of a feature map ``(B, C, h, w)`` of stride 8: ``(h · w · 12, 4)``."""
    config = TOY_TOWN_RPN
    size = tuple(features.shape[-2:])
    return grid_anchors(size, (8, 8), config.anchor_sizes[0], config.aspect_ratios, config.anchor_offset)


def label_anchors(anchors: Tensor, objects: Tensor, high: float = 0.7, low: float = 0.3) -> tuple[Tensor, Tensor]:
    """Match anchors ``(N, 4)`` with objects ``(G, 4)``: the object's index ``(N,)``, and 1, 0 or -1 (ignored)."""
    return match(box_iou(objects, anchors), high, low, allow_low_quality_matches=True)


def select_proposals(
    objectness: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    size: Size,
    nms_threshold: float = 0.7,
    pre_nms_top_n: int = 1000,
    post_nms_top_n: int = 300,
) -> tuple[Tensor, Tensor]:
    """Proposals of one image out of the RPN's outputs: boxes ``(P, 4)`` and scores ``(P,)``, best first."""
    best = objectness.topk(min(pre_nms_top_n, len(objectness))).indices
    boxes = clip_boxes(decode_boxes(anchors[best], deltas[best]), size)
    scores = objectness[best].sigmoid()
    large = ((boxes[:, 2:] - boxes[:, :2]) >= 1e-3).all(dim=1)
    boxes, scores = boxes[large], scores[large]
    kept = nms(boxes, scores, nms_threshold)[:post_nms_top_n]
    return boxes[kept], scores[kept]


@torch.no_grad()
def filter_proposals(
    anchors: Tensor, logits: Tensor, deltas: Tensor, size: Size, nms_threshold: float = 0.7, post_nms_top_n: int = 150
) -> Tensor:
    """Proposals ``(P, 4)`` of one image, best first: the 1000 best anchors refined, clipped, and thinned out by NMS."""
    return select_proposals(logits, deltas, anchors, tuple(size), nms_threshold, post_nms_top_n=post_nms_top_n)[0]


@torch.no_grad()
def sample_rois(proposals: Tensor, target: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Draw 64 RoIs of an image, up to 16 of them foreground, from its proposals ``(P, 4)`` and its objects.

    Returns boxes ``(S, 4)``, labels ``(S,)``, 0 for background, and regression targets ``(S, 4)``.
    """
    # All that the package asks of its heads here are their numbers.
    (drawn,) = RoIHeads.sample(SimpleNamespace(config=TOY_TOWN_HEADS), [proposals], [target])
    return drawn.boxes, drawn.labels, drawn.deltas


def draw_batch(images: Images, targets: Targets, count: int) -> Batch:
    """Draw images at random: ``(count, 3, H, W)``, with the channels of a pixel side by side, and their targets."""
    chosen = torch.randperm(len(images))[:count].tolist()
    batch = torch.stack([images[i] for i in chosen])
    return batch.contiguous(memory_format=torch.channels_last), [targets[i] for i in chosen]


def schedule(iteration: int, iterations: int) -> float:
    """The factor of the learning rates: it rises over the first tenth of the batches, then falls as a cosine."""
    return LoopSettings(iterations, learning_rate=1.0, warmup=0.1).rate(iteration)


def parts_of(model: FasterRCNN) -> nn.ModuleDict:
    """The layers of one of the package's detectors, shared, as this module names them."""
    box_head = nn.Sequential(nn.Flatten(), *model.roi_heads.box_head)
    parts = {"backbone": model.backbone, "rpn_head": model.rpn.head, "box_head": box_head}
    return nn.ModuleDict({**parts, **model.roi_heads.box_predictor})


# ------------------------------------------------------------------------------ comparisons
def package_detector(detector: nn.ModuleDict, classes: Sequence[str], side: int = 128) -> FasterRCNN:
    """The package's Faster R-CNN around the layers of a detector of this module, shared, for prepared images."""
    model = faster_rcnn_alexnet(load_alexnet(), classes)
    model.transform = replace(model.transform, mean=(0.0,) * 3, std=(1.0,) * 3, min_size=side)
    model.backbone, model.rpn.head = detector.backbone, detector.rpn_head
    model.roi_heads = RoIHeads(detector.box_head, 256, len(classes), 8, model.roi_heads.config)
    model.roi_heads.box_predictor.update({name: detector[name] for name in ("cls_score", "bbox_pred")})
    return model


@contextmanager
def without_chance() -> Iterator[None]:
    """Whoever draws gets the first ones, so that two programs may draw in different order."""
    with patch.object(torch, "randperm", lambda count, **_: torch.arange(count)):
        yield


def equal_to_torchvision(detector: nn.ModuleDict, losses: Says, detect: Says, images: Tensor, targets: Targets) -> None:
    """Print whether losses, gradients and detections are those of torchvision's FasterRCNN around the same layers."""
    classes = [str(label) for label in range(detector.cls_score.out_features)]
    theirs = compare.torchvision_faster_rcnn(package_detector(detector, ["background", *classes[1:]], images.shape[-1]))
    generator = theirs.rpn.anchor_generator
    # Its anchors stand at the corners of the cells, ours in their middle.
    generator.cell_anchors = [anchors + 8 * TOY_TOWN_RPN.anchor_offset for anchors in generator.cell_anchors]
    theirs.train().transform.eval()
    with without_chance():
        ours, other = losses(detector, images, targets), theirs(list(images), targets)
    names = {"objectness": "objectness", "rpn_box": "rpn_box_reg", "classifier": "classifier", "box": "box_reg"}
    pairs = [(ours[name], other[f"loss_{theirs}"]) for name, theirs in names.items()]
    compare.equal("four losses, torchvision's", *map(list, zip(*pairs, strict=True)))
    compare.equal_gradients(ours, other, list(detector.parameters()))
    theirs.eval().rpn.nms_thresh = TOY_TOWN_RPN.nms_threshold[1]
    with torch.no_grad():
        found = [(detect(detector, image), theirs([image])[0]) for image in images]
    for name in ("labels", "boxes", "scores"):
        first, second = ([one[name] for one in column] for column in zip(*found, strict=True))
        compare.equal(f"{name} of the detections in {len(images)} images, torchvision's", first, second, within=1e-4)


def costs(detector: nn.ModuleDict, image: Tensor, count: int = 60) -> dict[str, tuple[int, int]]:
    """Parameters of backbone, RPN and heads, and multiplications for a prepared image and so many proposals."""
    features = detector.backbone(image[None])
    boxes = [torch.tensor([[0.0, 0.0, 50.0, 50.0]]).expand(count, 4)]
    heads = nn.ModuleList(detector[name] for name in ("box_head", "cls_score", "bbox_pred"))
    calls = {
        "backbone": (detector.backbone, lambda: detector.backbone(image[None])),
        "RPN": (detector.rpn_head, lambda: detector.rpn_head(features)),
        "heads": (heads, lambda: predict(detector, features, boxes)),
    }
    # An addition goes with each multiplication.
    return {name: (count_parameters(part), operations(call) // 2) for name, (part, call) in calls.items()}


@torch.no_grad()
def foreground(detector: nn.ModuleDict, images: Images, targets: Targets) -> float:
    """How many of the RoIs that are sampled from an image in training show an object, on average."""
    count = 0
    for image, target in zip(images, targets, strict=True):
        features = detector.backbone(image[None])
        logits, deltas = detector.rpn_head(features)
        proposals = filter_proposals(anchors_of(features), logits[0], deltas[0], image.shape[-2:])
        count += int((sample_rois(proposals, target)[1] > 0).sum())
    return count / len(images)


# ------------------------------------------------------------------------------ a solution of each exercise
def build_detector(network: AlexNet, num_classes: int) -> nn.ModuleDict:
    """The layers: AlexNet's, taken apart, an RPN head, and two siblings behind fc7."""
    fc6, fc7 = network.classifier.fc6, network.classifier.fc7
    box_head = nn.Sequential(nn.Flatten(), fc6, nn.ReLU(), fc7, nn.ReLU())
    parts = {"backbone": network.backbone, "rpn_head": RPNHead(128, 12), "box_head": box_head}
    siblings = {"cls_score": nn.Linear(256, num_classes), "bbox_pred": nn.Linear(256, 4 * num_classes)}
    detector = nn.ModuleDict({**parts, **siblings})
    for name, spread in (("cls_score", 0.01), ("bbox_pred", 0.001)):
        nn.init.normal_(detector[name].weight, std=spread)
        nn.init.zeros_(detector[name].bias)
    return detector


def rpn_losses(logits: Tensor, deltas: Tensor, anchors: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """Objectness loss and box loss of a batch: ``(B, N)``, ``(B, N, 4)`` and the anchors ``(N, 4)``."""
    scores, wanted, errors = [], [], []
    for own_logits, own_deltas, target in zip(logits, deltas, targets, strict=True):
        gt_index, label = label_anchors(anchors, target["boxes"])
        positive, negative = subsample(label, 128, 0.5)
        chosen = torch.cat([positive, negative])
        scores.append(own_logits[chosen])
        wanted.append((label[chosen] == 1).float())
        goals = encode_boxes(anchors[positive], target["boxes"][gt_index[positive]])
        errors.append(F.smooth_l1_loss(own_deltas[positive], goals, beta=BETA, reduction="sum"))
    scores, wanted = torch.cat(scores), torch.cat(wanted)
    return F.binary_cross_entropy_with_logits(scores, wanted), sum(errors) / len(scores)


def predict(detector: nn.ModuleDict, features: Tensor, boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Class logits ``(R, K)`` and box deltas ``(R, K, 4)`` of the boxes of each image."""
    x = detector.box_head(roi_pool(features, to_rois(boxes), 6, 1 / 8))
    logits = detector.cls_score(x)
    return logits, detector.bbox_pred(x).view(*logits.shape, 4)


def joint_losses(detector: nn.ModuleDict, images: Tensor, targets: Targets) -> dict[str, Tensor]:
    """The four losses of a batch ``(B, 3, H, W)`` (section 3.2, "approximate joint training")."""
    features = detector.backbone(images)
    logits, deltas = detector.rpn_head(features)
    anchors, size = anchors_of(features), images.shape[-2:]
    objectness, rpn_box = rpn_losses(logits, deltas, anchors, targets)
    proposals = [filter_proposals(anchors, *own, size) for own in zip(logits, deltas, strict=True)]
    sampled = [sample_rois(*own) for own in zip(proposals, targets, strict=True)]
    boxes, labels, goals = zip(*sampled, strict=True)
    class_logits, box_deltas = predict(detector, features, boxes)
    classifier, box = fast_rcnn_loss(class_logits, box_deltas, torch.cat(labels), torch.cat(goals), BETA)
    return {"objectness": objectness, "rpn_box": rpn_box, "classifier": classifier, "box": box}


@torch.no_grad()
def detect(detector: nn.ModuleDict, image: Tensor, count: int = 60) -> dict[str, Tensor]:
    """Detections in a prepared image ``(3, H, W)`` from its best proposals."""
    features, size = detector.backbone(image[None]), tuple(image.shape[-2:])
    logits, deltas = detector.rpn_head(features)
    proposals = filter_proposals(anchors_of(features), logits[0], deltas[0], size, 0.6, count)
    class_logits, box_deltas = predict(detector, features, [proposals])
    boxes = decode_boxes(proposals, box_deltas, BOX_WEIGHTS)
    return select_detections(boxes, class_logits.softmax(dim=1), size, **LIMITS)


def train(detector: nn.ModuleDict, images: Images, targets: Targets, iterations: int) -> list[dict[str, float]]:
    """Train with AdamW on batches of 4 images, and return the losses of each."""
    detector.backbone.conv1.requires_grad_(False)
    backbone = [p for p in detector.backbone.parameters() if p.requires_grad]
    new = [p for name, part in detector.items() if name != "backbone" for p in part.parameters()]
    optimizer = torch.optim.AdamW([{"params": backbone, "lr": 3e-4}, {"params": new, "lr": 3e-3}])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: schedule(i, iterations))
    history = []
    for _ in range(iterations):
        losses = joint_losses(detector, *draw_batch(images, targets, 4))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(detector.parameters(), 5.0)
        optimizer.step()
        scheduler.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    return history
