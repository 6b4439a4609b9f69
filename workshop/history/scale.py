"""The same stages at the size of the papers, for time only: a large image, 2000 proposals, the network of 2012.

Weights are random, which costs a processor as much time as any others. Where time depends on what the network says, it
is told what to say: as many pairs of a proposal and a class pass the score threshold as there are proposals.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data
from torch import Tensor, nn

from minircnn.alexnet import ALEXNET_2012, AlexNet, AlexNetConfig
from minircnn.course.compare import limit_threads
from minircnn.course.history import Search, Trace, by_stages, medians, search, set_thresholds
from minircnn.fast_rcnn import RoIConfig, fast_rcnn_alexnet
from minircnn.faster_rcnn import RPNConfig, faster_rcnn_alexnet
from minircnn.mask_rcnn import MaskRoIConfig, mask_rcnn_alexnet
from minircnn.rcnn import RCNN
from minircnn.transforms import Size


@dataclass(frozen=True)
class PaperScale:
    """What is run."""

    network: AlexNetConfig = ALEXNET_2012  # the AlexNet
    classes: int = 21  # with background; PASCAL VOC has 20
    size: Size = (600, 800)  # `(height, width)` of the image
    proposals: int = 2000  # of R-CNN and Fast R-CNN
    # Proposals that R-CNN is timed on; its times behind the search are multiplied by `proposals / crops`
    crops: int = 100
    rounds: int = 3  # times that every detector is run; one more warms up
    rpn: RPNConfig = field(default_factory=RPNConfig)  # the region proposal network: 9 anchors a place, 300 proposals
    mask_channels: tuple[int, ...] = (256, 256, 256, 256)  # of the mask branch's convolutions


def paper_models(scale: PaperScale) -> dict[str, nn.Module]:
    """The four detectors by key, in evaluation mode, around one network with random weights."""
    classes = ["background", *(f"class {label}" for label in range(1, scale.classes))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AlexNet(scale.network, scale.classes).eval()
        rcnn = RCNN(network, classes)
        nn.init.normal_(rcnn.svm, std=0.01)
        nn.init.normal_(rcnn.box, std=0.001)
        heads = RoIConfig(pool_size=scale.network.pool5_size)
        mask_heads = MaskRoIConfig(pool_size=scale.network.pool5_size, mask_channels=scale.mask_channels)
        models = {
            "rcnn": rcnn,
            "fast_rcnn": fast_rcnn_alexnet(network, classes, heads),
            "faster_rcnn": faster_rcnn_alexnet(network, classes, scale.rpn, heads),
            "mask_rcnn": mask_rcnn_alexnet(network, classes, scale.rpn, mask_heads),
        }
    return {key: model.eval() for key, model in models.items()}


def paper_image(size: Size) -> Tensor:
    """A photograph that comes with scikit-image, a cup of coffee, cut and enlarged to a size: ``(3, H, W)`` in [0, 1].

    Selective search would find too much in noise, and too little in a painted scene.
    """
    photograph, (height, width) = Image.fromarray(data.coffee()), size
    share = min(photograph.width / width, photograph.height / height)
    part = (0, 0, round(width * share), round(height * share))
    enlarged = photograph.resize((width, height), Image.Resampling.BICUBIC, box=part)
    return torch.from_numpy(np.array(enlarged)).permute(2, 0, 1).float() / 255


def filled_up(boxes: Tensor, count: int, size: Size) -> Tensor:
    """The first ``count`` boxes; where there are fewer, random ones inside of the image follow: ``(count, 4)``.

    Their sides are from a twentieth of the image's up to a half.
    """
    generator = torch.Generator().manual_seed(0)
    sides = torch.tensor([size[1], size[0]], dtype=boxes.dtype)
    missing = max(count - len(boxes), 0)
    long = (0.05 + 0.45 * torch.rand(missing, 2, generator=generator)) * sides
    corner = torch.rand(missing, 2, generator=generator) * (sides - long)
    return torch.cat([boxes[:count], torch.cat([corner, corner + long], dim=1).to(boxes)])


@torch.no_grad()
def let_some_pass(model: nn.Module, image: Tensor, found: Search | None) -> None:
    """Set the score threshold so that as many pairs of a proposal and a class pass as there are proposals."""
    if isinstance(model, RCNN):
        layer = model.config.svm_layer
        scores = model.scores(model.features(image, found.boxes, {layer})[layer])
    else:
        features, sizes = model.features([image])
        own = None if found else model.rpn.filter_proposals(model.rpn(features, model.batch_size(sizes)), sizes)
        boxes = found.boxes if found else own[0]["boxes"]
        scores = model.roi_heads.predict(features, [boxes])[0].softmax(dim=1)
    scores = scores[:, 1:]  # (P, K - 1), without background
    set_thresholds(model, score_threshold=float(scores.flatten().topk(len(scores) + 1).values[-1]))


def measure_at_scale(scale: PaperScale, *, progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> dict[str, Any]:
    """Time every detector in turn, round by round, on one thread: ``milliseconds`` by detector and stage, medians.

    Besides them: ``found``, how many proposals selective search gives, which random boxes fill up; ``own``, how many
    the region proposal network makes; ``outlined``, how many detections get a mask; and what was asked for.
    """
    image, models = paper_image(scale.size), paper_models(scale)
    rows: dict[str, list[Mapping[str, float]]] = {key: [] for key in models}
    with limit_threads(1):
        for number in progress(range(scale.rounds + 1)):
            searched = search(image, scale.proposals)
            boxes = filled_up(searched.boxes, scale.proposals, scale.size)
            for key, model in models.items():
                given = boxes[: scale.crops] if key == "rcnn" else boxes
                found = None if hasattr(model, "rpn") else Search(given, searched.seconds)
                if not number:
                    let_some_pass(model, image, found)
                trace = by_stages(model, image, found)
                rows[key].append(_extrapolated(trace, scale) if key == "rcnn" else trace.seconds)
    return {
        **{name: getattr(scale, name) for name in ("size", "proposals", "crops", "rounds")},
        "found": len(searched.boxes),
        "own": len(trace.proposals),  # of the last detector, Mask R-CNN
        "outlined": len(trace.detections["labels"]),
        "milliseconds": {key: medians(seconds[1:]) for key, seconds in rows.items()},
    }


def _extrapolated(trace: Trace, scale: PaperScale) -> Mapping[str, float]:
    """R-CNN's seconds for all proposals; those of the search are there already."""
    factor = scale.proposals / scale.crops
    return {stage: value * (1 if stage == "proposals" else factor) for stage, value in trace.seconds.items()}
