"""What notebook 07 measures: what a feature map knows, how well anchors cover objects, and what proposals cost."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from minircnn.alexnet import AlexNet
from minircnn.course.check.region_proposals import convolutions
from minircnn.course.passes import receptive_field  # noqa: F401 - for the notebook
from minircnn.course.record import read_record
from minircnn.course.stopwatch import Stopwatch
from minircnn.datasets.images import ImageDataset
from minircnn.faster_rcnn import FasterRCNN
from minircnn.selective_search import selective_search
from minircnn.transforms import resize, resize_target

SIZE, STRIDE = (192, 192), 8
Scene = tuple[Tensor, Mapping[str, Tensor]]


def enlarged(data: ImageDataset, indices: Sequence[int]) -> list[Scene]:
    """Images of 128 × 128 and their targets as the detectors of the course see them: 192 × 192."""
    samples = (data[i] for i in indices)
    return [(resize(image, SIZE), resize_target(target, (128, 128), SIZE)) for image, target in samples]


def enlarged_targets(data: ImageDataset) -> list[Mapping[str, Tensor]]:
    """The targets alone, of all images."""
    return [resize_target(data.load_target(i), (128, 128), SIZE) for i in range(len(data))]


@torch.no_grad()
def feature_maps(network: AlexNet, scenes: Sequence[Scene]) -> Tensor:
    """The feature map of each image, ``(B, C, h, w)``."""
    batches = (network.normalize(image[None]).contiguous(memory_format=torch.channels_last) for image, _ in scenes)
    return torch.cat([network.backbone(batch).contiguous() for batch in batches])


# ------------------------------------------------------------------------------ what the feature map knows
def cells_in_objects(scenes: Sequence[Scene]) -> np.ndarray:
    """Which cells of the images have their center in a box: ``(B · h · w,)``."""
    y, x = (torch.arange(side // STRIDE) * STRIDE + STRIDE / 2 for side in SIZE)
    centers = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 1, 2)
    boxes = [target["boxes"] for _, target in scenes]
    inside = [((centers >= one[:, :2]) & (centers < one[:, 2:])).all(dim=2).any(dim=1) for one in boxes]
    return torch.cat(inside).numpy()


def _rows(maps: Tensor) -> np.ndarray:
    return maps.permute(0, 2, 3, 1).flatten(0, 2).numpy()


def learn_objectness(maps: Tensor, scenes: Sequence[Scene]) -> Pipeline:
    """A linear classifier that reads from a cell's channels whether its center is in an object."""
    line = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=400))
    return line.fit(_rows(maps), cells_in_objects(scenes))


def color_maps(scenes: Sequence[Scene]) -> Tensor:
    """The mean color of each cell's pixels, ``(B, 3, h, w)``."""
    return F.avg_pool2d(torch.stack([image for image, _ in scenes]), STRIDE)


def objectness_map(classifier: Pipeline, features: Tensor) -> Tensor:
    """Its probability at each cell of a feature map ``(C, h, w)``: ``(h, w)``."""
    return torch.tensor(classifier.predict_proba(_rows(features[None]))[:, 1]).view(features.shape[1:])


def auc(scores: Tensor | Pipeline, scenes: Sequence[Scene], maps: Tensor | None = None) -> float:
    """The share of pairs, one cell in an object and one outside, of which the first has the larger score."""
    values = scores.decision_function(_rows(maps)) if isinstance(scores, Pipeline) else _rows(scores)
    return float(roc_auc_score(cells_in_objects(scenes), values))


# ------------------------------------------------------------------------------ anchors
def kmeans_shapes(shapes: Tensor, k: int) -> Tensor:
    """Boxes around the origin with the k centers of widths and heights ``(N, 2)``, by their logarithms: ``(k, 4)``."""
    centers = KMeans(k, n_init=10, random_state=0).fit(shapes.log().numpy()).cluster_centers_
    return around_origin(torch.tensor(centers).exp().float())


def around_origin(shapes: Tensor) -> Tensor:
    """Widths and heights ``(N, 2)`` as boxes ``(N, 4)``."""
    return torch.cat([-shapes, shapes], dim=1) / 2


def copy_weights(trained: nn.Module, head: nn.Module) -> nn.Module:
    """Give the three convolutions of one RPN head the weights of another."""
    for own, other in zip(convolutions(head), convolutions(trained), strict=True):
        own.load_state_dict(other.state_dict())
    return head.eval()


def stages(propose: Callable[..., tuple[Tensor, Tensor]], objectness: Tensor, deltas: Tensor, anchors: Tensor) -> dict:
    """The boxes of one image that are left after each step of ``propose``, the exercise ``filter_proposals``."""

    def boxes(moves: Tensor, nms_threshold: float, count: int = 1000) -> Tensor:
        return propose(objectness, moves, anchors, SIZE, nms_threshold, post_nms_top_n=count)[0]

    return {
        "best anchors": boxes(torch.zeros_like(deltas), 1.0),  # without deltas, and without NMS
        "decoded, clipped": boxes(deltas, 1.0),
        "after NMS": boxes(deltas, 0.6),
        "proposals": boxes(deltas, 0.6, 60),
    }


# ------------------------------------------------------------------------------ what proposals cost
def recorded_times() -> dict[str, dict[str, Mapping[str, float]]]:
    """Milliseconds of Fast R-CNN and Faster R-CNN by stage, on Toy Town and at the papers' size, as notebook 11 has."""
    record = read_record()
    keys = ("fast_rcnn", "faster_rcnn")
    height, width = record["paper_scale"]["size"]
    return {
        "Toy Town, 128 × 128": {key: record["detectors"][key]["milliseconds"] for key in keys},
        f"papers' size, {height} × {width}": {key: record["paper_scale"]["milliseconds"][key] for key in keys},
    }


@torch.no_grad()
def stage_times(detector: FasterRCNN, propose: Callable, small: Sequence, large: Sequence) -> dict[str, float]:
    """Median milliseconds for an image, measured in turn: selective search, backbone, proposals, heads."""
    clock = Stopwatch()
    for before, image in zip(small, large, strict=True):
        with clock("selective search"):
            selective_search(before, max_proposals=300)
        with clock("backbone"):
            features, sizes = detector.features([image])
        with clock("RPN"):
            boxes = propose(features)
        with clock("heads"):
            detector.roi_heads.detect(features, [boxes], sizes)
    return {stage: 1000 * seconds for stage, seconds in clock.medians().items()}
