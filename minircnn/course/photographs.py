"""Real photographs for notebook 12, and its comparisons: with torchvision part by part, of small and published."""

import json
from collections.abc import Mapping, Sequence
from math import dist
from typing import Any

import numpy as np
import skimage.data
import torch
from scipy import ndimage
from skimage.feature import canny
from skimage.morphology import disk
from skimage.transform import hough_circle, hough_circle_peaks
from torch import Tensor, nn

from minircnn.course import history
from minircnn.course.compare import equal, peak_memory
from minircnn.course.stopwatch import Stopwatch
from minircnn.faster_rcnn import FasterRCNN
from minircnn.mask_rcnn import MASK_RCNN_WEIGHTS, MaskRCNN, binary_masks

SCHEDULE = {"iterations": 160_000, "images_per_batch": 16}  # Mask R-CNN, section 3.1: on eight GPUs


def as_image(pixels: np.ndarray) -> Tensor:
    """Bytes ``(H, W)`` or ``(H, W, 3)`` as an image ``(3, H, W)`` in [0, 1]."""
    image = torch.from_numpy(np.array(pixels)).float() / 255
    return image.expand(3, -1, -1).contiguous() if image.dim() == 2 else image.permute(2, 0, 1).contiguous()


def photographs() -> dict[str, Tensor]:
    """Six that come with scikit-image, by name."""
    names = {"astronaut": "astronaut", "chelsea": "cat", "coffee": "coffee", "rocket": "rocket", "camera": "camera"}
    found = {name: as_image(getattr(skimage.data, source)()) for source, name in names.items()}
    return {**found, "motorcycle": as_image(skimage.data.stereo_motorcycle()[0])}


def sure(detector: MaskRCNN, image: Tensor, score: float = 0.5) -> dict[str, Tensor]:
    """Detections of a score above ``score``, with binary masks."""
    return history.above(binary_masks(detector.detect([image])[0]), score)


def with_torchvision(ours: FasterRCNN, theirs: Any, image: Tensor, features: Mapping[str, Tensor]) -> None:  # noqa: ANN401
    """Compare two detectors of ``compare.pair`` part by part; the features are the pyramid of the image."""
    heads, others = ours.roi_heads, theirs.roi_heads
    with torch.no_grad():
        batch, sizes = ours.transform.batch([image])
        their_batch = theirs.transform([image])[0]
        their_features = theirs.backbone(batch)
        equal("image as the backbone sees it", batch, their_batch.tensors, 1e-9)
        equal("backbone, P2 to P6", [*features.values()], [*their_features.values()], 1e-9)
        outputs = ours.rpn(features, ours.batch_size(sizes))
        levels, _ = theirs.rpn.head([*their_features.values()])
        objectness = torch.cat([level.permute(0, 2, 3, 1).flatten(1) for level in levels], dim=1)
        anchors = theirs.rpn.anchor_generator(their_batch, [*their_features.values()])[0]
        equal(f"RPN, {len(anchors):,} anchors", outputs.anchors, anchors, 1e-9)
        equal("RPN, objectness", outputs.objectness, objectness, 1e-9)
        proposals = [found["boxes"] for found in ours.rpn.filter_proposals(outputs, sizes)]
        equal(f"{len(proposals[0])} proposals", proposals[0], theirs.rpn(their_batch, their_features)[0][0], 1e-9)
        logits, deltas = heads.predict(features, proposals)
        pooled = others.box_roi_pool(their_features, proposals, sizes)
        their_logits, their_deltas = others.box_predictor(others.box_head(pooled))
        equal("box head, scores", logits, their_logits, 1e-9)
        equal("box head, deltas", deltas.flatten(1), their_deltas, 1e-9)
        some = [proposals[0][:30]]
        pooled = others.mask_roi_pool(their_features, some, sizes)
        equal("mask head", heads.predict_masks(features, some), others.mask_predictor(others.mask_head(pooled)), 1e-9)
        (found,), (wanted,) = ours.detect([image]), theirs([image])
    for name, within in {"labels": 0.0, "scores": 1e-6, "boxes": 1e-6, "masks": 1e-4}.items():
        equal(f"{len(found['labels'])} detections, {name}", found[name], wanted[name], within)


def losses_with_torchvision(ours: FasterRCNN, theirs: Any, image: Tensor) -> None:  # noqa: ANN401
    """Compare the five losses for two objects that cover some of an image of 512 × 512 pixels."""
    target = {"boxes": torch.tensor([[170.0, 30, 275, 205], [20, 20, 500, 500]]), "labels": torch.tensor([1, 3])}
    target["masks"] = torch.zeros(2, 512, 512, dtype=torch.bool)
    target["masks"][0, 40:200, 180:260] = target["masks"][1, 100:500, 60:480] = True
    losses = []
    for model in (ours.train(), theirs.train()):
        if isinstance(model.transform, nn.Module):
            model.transform.eval()  # in training it draws a size, which would disturb the order of what is drawn
        torch.manual_seed(1)
        losses.append(model([image], [dict(target)]))
        model.eval()
    for name in losses[1]:
        equal(name, losses[0][name], losses[1][name], 1e-6)


def count_parameters(module: nn.Module) -> float:
    """In millions."""
    return history.count_parameters(module) / 1e6


def small_and_published(small: MaskRCNN, published: MaskRCNN) -> None:
    """Print what differs between the two detectors."""
    ours = json.loads(MASK_RCNN_WEIGHTS.with_suffix(".json").read_text(encoding="utf-8"))["settings"]
    columns = []
    for model, schedule, strides in ((small, ours, "8"), (published, SCHEDULE, "4 8 16 32 (64)")):
        rpn, heads = model.rpn.config, model.roi_heads.config
        column = {
            "parameters, million": f"{count_parameters(model):.1f}",
            "of these in the backbone": f"{count_parameters(model.backbone):.1f}",
            "shorter side of an image": model.transform.min_size,
            "strides of the levels": strides,
            "anchors of a cell": " + ".join(str(len(s) * len(rpn.aspect_ratios)) for s in rpn.anchor_sizes),
            "proposals in training, in detection": "{}, {}".format(*rpn.post_nms_top_n),
            "RoIs sampled from an image": heads.batch_size_per_image,
            "convolutions of the mask branch": f"{len(heads.mask_channels)} of {heads.mask_channels[0]}",
            "iterations": f"{schedule['iterations']:,}",
            "images in a batch": schedule["images_per_batch"],
            "images seen in training": f"{schedule['iterations'] * schedule['images_per_batch']:,}",
        }
        columns.append(column)
    print(f"{'':<38}{'small':>18}{'published':>22}")
    for name, value in columns[0].items():
        print(f"{name:<38}{value:>18}{columns[1][name]:>22}")


def costs(models: Mapping[str, MaskRCNN], images: Sequence[Tensor]) -> None:
    """Print seconds, medians of three, and the memory that a detection takes on top of the weights."""
    clock = Stopwatch()
    for (name, model), image in zip(models.items(), images, strict=True):
        model.detect([image])
        for _ in range(3):
            with clock(name):
                model.detect([image])
        memory = peak_memory(lambda model=model, image=image: model.detect([image])) / 1e6
        print(f"{name:<10}{1000 * clock.medians()[name]:7.0f} ms   {memory:6.0f} MB")


def circles_of_edges(photograph: np.ndarray, count: int) -> list[tuple[float, float, float]]:
    """Circles ``(x, y, radius)`` that most pixels of edges vote for (Hough transform), whatever the regions are."""
    edges, radii = ndimage.binary_dilation(canny(photograph.astype(float), sigma=3), disk(1)), np.arange(16, 36)
    votes = hough_circle(edges, radii)
    peaks = hough_circle_peaks(votes, radii, min_xdistance=25, min_ydistance=25, total_num_peaks=count)
    return [(x + 0.5, y + 0.5, radius + 0.5) for _, x, y, radius in zip(*peaks, strict=True)]


def overlap_with_circles(target: Mapping[str, Tensor], circles: Sequence[tuple]) -> list[float]:
    """For each mask its IoU with the circle that is nearest to the center of its box."""
    overlaps = []
    for box, mask in zip(target["boxes"].tolist(), target["masks"], strict=True):
        center = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        x, y, radius = min(circles, key=lambda circle, center=center: dist(center, circle[:2]))
        rows, columns = torch.meshgrid(*(torch.arange(n) + 0.5 for n in mask.shape), indexing="ij")
        circle = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
        overlaps.append(((circle & mask).sum() / (circle | mask).sum()).item())
    return overlaps
