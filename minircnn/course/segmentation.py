"""What notebook 10 measures around the learner's functions: matches, mistakes, parity, tables of ablations, times."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import mean
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from minircnn.boxes import box_iou
from minircnn.course import compare
from minircnn.course.compare import limit_threads, torchvision_mask_rcnn
from minircnn.course.history import above, count_parameters  # noqa: F401 - for the notebook
from minircnn.course.stopwatch import Stopwatch
from minircnn.datasets.images import ImageDataset
from minircnn.evaluation import Result
from minircnn.fast_rcnn import Detector
from minircnn.mask_rcnn import MaskRCNN, MaskRoIHeads, load_mask_rcnn
from minircnn.shipped import MASK_RCNN_WEIGHTS
from minircnn.targets import Sample
from minircnn.transforms import resize_boxes

NAMES = {"pool": "RoIPool", "warp": "RoIWarp", "align": "RoIAlign"}
KEYS = {key: key.replace("_ap", " AP") for key in ("box_ap", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75")}
Detections, Masks = dict[str, Tensor], Callable[..., Tensor]


def copy_weights(branch: nn.Module, heads: MaskRoIHeads) -> None:
    """The trained weights of a detector's mask branch, layer by layer, into a branch with the same layers."""
    trained = [*heads.mask_head.parameters(), *heads.mask_predictor.parameters()]
    with torch.no_grad():
        for mine, theirs in zip(branch.parameters(), trained, strict=True):
            mine.copy_(theirs)


def training_command() -> str:
    """How the shipped Mask R-CNN was trained."""
    return json.loads(MASK_RCNN_WEIGHTS.with_suffix(".json").read_text(encoding="utf-8"))["command"].split(" --out")[0]


@torch.no_grad()
def propose(detector: Detector, image: Tensor) -> tuple[Tensor, list[tuple[int, int]], Tensor]:
    """The feature map of an image, its size as the backbone saw it, and the RPN's proposals ``(P, 4)`` in that size."""
    features, sizes = detector.features([image])
    outputs = detector.rpn(features, detector.batch_size(sizes))
    return features, sizes, detector.rpn.filter_proposals(outputs, sizes)[0]["boxes"]


def matched(found: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> list[tuple[int, int]]:
    """Pairs (detection, object) of one class with an IoU of boxes of 0.5 and more, each used once, best score first."""
    overlap = box_iou(found["boxes"], target["boxes"]) * (found["labels"][:, None] == target["labels"])
    pairs = []
    for row in range(len(overlap)):
        if len(target["labels"]) and overlap[row].max() >= 0.5:
            pairs.append((row, int(overlap[row].argmax())))
            overlap[:, pairs[-1][1]] = 0
    return pairs


def matches(found: Sequence[Detections], targets: Sequence[dict[str, Any]]) -> list[SimpleNamespace]:
    """All pairs of a data set: image, row, object, label, probabilities and true mask ``(H, W)``, IoU of the boxes."""
    found_pairs = []
    for i, (one, target) in enumerate(zip(found, targets, strict=True)):
        for row, k in matched(one, target):
            box, mask = target["boxes"][k], target["masks"][k]
            pair = SimpleNamespace(image=i, row=row, object=k, label=int(target["labels"][k]), box=box, mask=mask)
            pair.probabilities, pair.box_iou = one["masks"][row], box_iou(one["boxes"][row][None], box[None]).item()
            found_pairs.append(pair)
    return found_pairs


def iou_at(pairs: Sequence[SimpleNamespace], threshold: float) -> Tensor:
    """IoU of each pair's masks if pixels above the threshold belong to the object: ``(N,)``."""
    found = torch.stack([pair.probabilities for pair in pairs]) > threshold
    masks = torch.stack([pair.mask for pair in pairs])
    return (found & masks).sum(dim=(1, 2)) / (found | masks).sum(dim=(1, 2)).clamp(min=1)


def filled_share(pairs: Sequence[SimpleNamespace]) -> Tensor:
    """The share of its box that each object of the pairs fills: ``(N,)``."""
    return torch.stack([pair.mask.sum() / (pair.box[2:] - pair.box[:2]).prod() for pair in pairs])


def ap_by_class(boxes: Result, masks: Result, classes: Sequence[str]) -> dict[str, tuple[float, float]]:
    """AP of boxes and of masks, in percent, for each class."""
    rows = range(1, len(classes))
    return {classes[k]: (100 * boxes.per_class[k].ap, 100 * masks.per_class[k].ap) for k in rows}


def enlarged(detector: Detector, branch: Masks, paste: Masks, image: Tensor) -> tuple[Detections, Tensor]:
    """Detections with a score above 0.6, and the image, four times as large: masks are pasted into that size."""
    features, sizes, proposals = propose(detector, image)
    size = tuple(4 * side for side in image.shape[1:])
    with torch.no_grad():
        found = above(detector.roi_heads.detect(features, [proposals], sizes)[0], 0.6)
        masks = branch(features, found["boxes"], found["labels"])
        boxes = resize_boxes(found["boxes"], sizes[0], size)
        masks = paste(masks, boxes, size) > 0.5
    larger = nn.functional.interpolate(image[None], size=size, mode="bicubic", align_corners=False)[0].clamp(0, 1)
    return {**found, "boxes": boxes, "masks": masks}, larger


def mistakes(
    found: Sequence[Detections], targets: Sequence[dict[str, Any]], pairs: Sequence[SimpleNamespace], quality: Tensor
) -> dict[str, list[tuple]]:
    """The largest objects missed, the surest wrong classes and the poorest masks: value, image, detection, object."""
    missed, confused = [], []
    for i, (one, target) in enumerate(zip(found, targets, strict=True)):
        overlap = box_iou(target["boxes"], one["boxes"])  # (G, N)
        same = target["labels"][:, None] == one["labels"]
        left_out = [k for k in range(len(overlap)) if not (overlap[k] >= 0.5).any()]
        missed += [(float(target["masks"][k].sum()), i, None, k) for k in left_out]
        confused += [
            (float(one["scores"][row]), i, row, int(overlap[:, row].argmax()))
            for row in range(len(one["labels"]) if len(overlap) else 0)
            if overlap[:, row].max() >= 0.5 and not ((overlap[:, row] >= 0.4) & same[:, row]).any()
        ]
    poor = [(float(value), p.image, p.row, p.object) for value, p in zip(quality, pairs, strict=True)]
    missed, confused = sorted(missed, reverse=True), sorted(confused, reverse=True)
    return {"missed": missed, "wrong class": confused, "poor mask": sorted(poor)}


def boxes_around(target: Mapping[str, Tensor], count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random boxes near objects ``(count, 4)``, and the object of each."""
    generator = torch.Generator().manual_seed(seed)
    gt_index = torch.randint(len(target["labels"]), (count,), generator=generator)
    boxes = target["boxes"][gt_index]
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return boxes + 0.15 * sides * torch.randn(count, 4, generator=generator), gt_index


# ------------------------------------------------------------------------------ torchvision
def with_torchvision(samples: Sequence[Sample], images: Sequence[Tensor]) -> None:
    """Our Mask R-CNN and torchvision's around the same layers: print whether losses, gradients, detections agree."""
    ours = load_mask_rcnn()
    ours.rpn.config = replace(ours.rpn.config, anchor_offset=0.0)
    ours.roi_heads.config = replace(ours.roi_heads.config, smooth_l1_beta=1 / 9, aligned=False)
    theirs, losses = torchvision_mask_rcnn(ours), []
    for model in (ours.train(), theirs.train()):
        theirs.transform.eval()
        torch.manual_seed(0)
        targets = [{key: target[key] for key in ("boxes", "labels", "masks")} for _, target in samples]
        losses.append(model([image for image, _ in samples], targets))
    for name, loss in losses[0].items():
        compare.equal(f"{name}, torchvision's", loss, losses[1][name], within=1e-4)
    compare.equal_gradients(*losses, list(ours.parameters()))
    ours.eval(), theirs.eval()
    with torch.no_grad():
        pairs = [(ours.detect([image])[0], theirs([image])[0]) for image in images]
    for key in ("labels", "boxes", "scores"):
        what = f"{key} of {sum(len(a['labels']) for a, _ in pairs)} detections, torchvision's"
        compare.equal(what, [a[key] for a, _ in pairs], [b[key] for _, b in pairs], within=1e-3)
    apart = torch.cat([(a["masks"] - b["masks"]).abs().flatten(1).amax(dim=1) for a, b in pairs])
    print(f"masks equal in every pixel: {100 * (apart < 1e-3).float().mean():.0f}%")


# ------------------------------------------------------------------------------ ablations
def rows_of(rows: Sequence[Any], stride: int, pooling: str, kind: str = "sigmoid") -> list[Any]:
    """The rows of an ablation for one way of pooling and one loss, by seed."""
    found = [row for row in rows if (row.stride, row.pooling, row.mask_kind) == (stride, pooling, kind)]
    return sorted(found, key=lambda row: row.seed)


def by_pooling(rows: Sequence[Any]) -> dict[str, list[Any]]:
    """The rows of an ablation for each stride and way of pooling."""
    return {f"{name}, stride {n}": rows_of(rows, n, way) for n in (16, 8) for way, name in NAMES.items()}


def pairings(groups: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Sequence[Any], Sequence[Any]]]:
    """Each way of pooling with those that it is compared with, for :func:`print_gains`."""
    ways = [("RoIAlign", "RoIPool"), ("RoIAlign", "RoIWarp"), ("RoIWarp", "RoIPool")]
    both = [(a, b, f"stride {n}") for n in (16, 8) for a, b in ways]
    return {f"{a:<8} over {b:<8} {where}": (groups[f"{a}, {where}"], groups[f"{b}, {where}"]) for a, b, where in both}


def print_shares(groups: Mapping[str, Sequence[Any]]) -> None:
    """By what share of RoIAlign's AP RoIPool is behind it."""
    print("share of RoIAlign's AP by which RoIPool is behind")
    for n in (16, 8):
        for key in ("box_ap", "mask_ap"):
            pool, align = (mean(getattr(r, key) for r in groups[f"{w}, stride {n}"]) for w in ("RoIPool", "RoIAlign"))
            print(f"stride {n:<2} {KEYS[key]:<8} {100 * (align - pool) / align:.0f}%")


def _print(lines: Mapping[str, Iterable[str]], *widths: int) -> None:
    """Lines of cells under a head; widths of the first column and of the others."""
    for name, cells in lines.items():
        print(f"{name:<{widths[0]}}" + "".join(f"{cell:<{widths[1]}}" for cell in cells).rstrip())


def print_table(groups: Mapping[str, Sequence[Any]]) -> None:
    """Mean, lowest and highest value over the seeds, of each AP of each group."""
    lines = {"mean (lowest–highest)": KEYS.values()}
    for name, rows in groups.items():
        each = [[100 * getattr(row, key) for row in rows] for key in KEYS]
        lines[name] = [f"{mean(values):.1f} ({min(values):.1f}–{max(values):.1f})" for values in each]
    _print(lines, 23, 17)


def print_gains(pairs: Mapping[str, tuple[Sequence[Any], Sequence[Any]]]) -> None:
    """What one group has over another: the mean over the seeds, and in brackets in how many seeds it is ahead."""
    lines = {"gain (seeds ahead)": KEYS.values()}
    for name, (better, worse) in pairs.items():
        rows = list(zip(better, worse, strict=True))
        each = [[100 * (getattr(a, key) - getattr(b, key)) for a, b in rows] for key in KEYS]
        lines[name] = [f"{mean(values):+.1f} ({sum(value > 0 for value in values)})" for values in each]
    _print(lines, 33, 12)


# ------------------------------------------------------------------------------ time
@torch.no_grad()
def stage_times(model: MaskRCNN, data: ImageDataset, count: int = 16) -> dict[str, float]:
    """Median milliseconds of the stages of a detection, on one thread."""
    clock = Stopwatch()
    with limit_threads(1):
        for image in map(data.load_image, range(count)):
            with clock("backbone"):
                features, sizes = model.features([image])
            with clock("RPN"):
                outputs = model.rpn(features, model.batch_size(sizes))
                proposals = model.rpn.filter_proposals(outputs, sizes)[0]["boxes"]
            with clock("class and box"):
                found = model.roi_heads.detect(features, [proposals], sizes)
            with clock("mask branch"):
                model.roi_heads.add_masks(features, found)
    return {stage: 1000 * seconds for stage, seconds in clock.medians().items()}
