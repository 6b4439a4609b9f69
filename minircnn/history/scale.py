"""The same stages at the size of the papers, for time only: a large picture, 2000 proposals, the network of 2012.

Weights are random, which costs a processor as much time as any others. Where time depends on what the network says, it
is told what to say: as many pairs of a proposal and a class pass the score threshold as there are proposals.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data
from torch import Tensor, nn

from minircnn.alexnet import ALEXNET_2012, AlexNet, AlexNetConfig
from minircnn.course.compare import limit_threads
from minircnn.fast_rcnn import RoIConfig, fast_rcnn_alexnet
from minircnn.faster_rcnn import RPNConfig, faster_rcnn_alexnet
from minircnn.history.detectors import keep_from
from minircnn.history.measure import Progress, medians
from minircnn.history.stages import Search, Trace, by_stages, needs_proposals, search
from minircnn.mask_rcnn import MaskRoIConfig, mask_rcnn_alexnet
from minircnn.rcnn import RCNN
from minircnn.transforms import Size


@dataclass(frozen=True)
class PaperScale:
    """What is run.

    Attributes:
        network: the AlexNet.
        classes: with background; PASCAL VOC has 20.
        size: ``(height, width)`` of the picture.
        proposals: of R-CNN and Fast R-CNN.
        crops: proposals that R-CNN is timed on; its times behind the search are multiplied by ``proposals / crops``.
        rounds: times that every detector is run; one more warms up.
        rpn: the region proposal network: 9 anchors a place, 300 proposals.
        mask_channels: of the mask branch's convolutions.
    """

    network: AlexNetConfig = ALEXNET_2012
    classes: int = 21
    size: Size = (600, 800)
    proposals: int = 2000
    crops: int = 100
    rounds: int = 3
    rpn: RPNConfig = field(default_factory=RPNConfig)
    mask_channels: tuple[int, ...] = (256, 256, 256, 256)

    def __post_init__(self) -> None:
        """Refuses numbers that nothing can be measured with."""
        if not 1 <= self.crops <= self.proposals or self.rounds < 1:
            raise ValueError(f"crops must be from 1 to proposals, and rounds at least 1, but this is {self}")


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


def paper_picture(size: Size) -> Tensor:
    """A photograph that comes with scikit-image, a cup of coffee, cut and enlarged to a size: ``(3, H, W)`` in [0, 1].

    Selective search would find too much in noise, and too little in a painted scene.
    """
    photograph, (height, width) = Image.fromarray(data.coffee()), size
    share = min(photograph.width / width, photograph.height / height)
    part = (0, 0, round(width * share), round(height * share))
    enlarged = photograph.resize((width, height), Image.Resampling.BICUBIC, box=part)
    return torch.from_numpy(np.array(enlarged)).permute(2, 0, 1).float() / 255


def filled_up(boxes: Tensor, count: int, size: Size) -> Tensor:
    """The first ``count`` boxes; where there are fewer, random ones follow.

    Args:
        boxes: ``(P, 4)``.
        count: how many there shall be.
        size: ``(height, width)`` of the picture, in which random boxes lie, with sides of a twentieth of its sides up
            to a half.

    Returns:
        ``(count, 4)``.
    """
    generator = torch.Generator().manual_seed(0)
    sides = torch.tensor([size[1], size[0]], dtype=boxes.dtype)
    missing = max(count - len(boxes), 0)
    long = (0.05 + 0.45 * torch.rand(missing, 2, generator=generator)) * sides
    corner = torch.rand(missing, 2, generator=generator) * (sides - long)
    return torch.cat([boxes[:count], torch.cat([corner, corner + long], dim=1).to(boxes)])


def let_some_pass(model: nn.Module, image: Tensor, found: Search | None) -> None:
    """Sets the score threshold so that as many pairs of a proposal and a class pass as there are proposals.

    Args:
        model: is changed.
        image: the picture.
        found: proposals, for detectors that need them.
    """
    scores = _scores(model, image, found)[:, 1:]  # (P, K - 1), without background
    keep_from(model, float(scores.flatten().topk(len(scores) + 1).values[-1]))


@torch.no_grad()
def _scores(model: nn.Module, image: Tensor, found: Search | None) -> Tensor:
    """Of all proposals for all classes: (P, K)."""
    if isinstance(model, RCNN):
        layer = model.config.svm_layer
        return model.scores(model.features(image, found.boxes, {layer})[layer])
    features, sizes = model.features([image])
    boxes = (
        model.rpn.filter_proposals(model.rpn_outputs(features, sizes), sizes)[0]["boxes"]
        if found is None
        else found.boxes
    )
    return model.roi_heads.predict(features, [boxes])[0].softmax(dim=1)


def measure_at_scale(scale: PaperScale, *, progress: Progress = iter) -> dict[str, Any]:
    """Times every detector in turn, round by round, on one thread.

    Args:
        scale: what to run.
        progress: is given the numbers of the rounds and hands them on, like ``tqdm``.

    Returns:
        ``size``, ``proposals``, ``crops`` and ``rounds`` as asked for; ``found``, how many proposals selective search
        gives, which random boxes fill up; ``own``, how many the region proposal network makes; ``outlined``, how many
        detections get a mask; and ``milliseconds``: by detector, then by stage and of ``"all"``, medians.
    """
    image, models = paper_picture(scale.size), paper_models(scale)
    rows: dict[str, list[dict[str, float]]] = {key: [] for key in models}
    with limit_threads(1):
        for number in progress(range(scale.rounds + 1)):
            first = search(image, scale.proposals)
            boxes = filled_up(first.boxes, scale.proposals, scale.size)
            given = {"rcnn": boxes[: scale.crops], "fast_rcnn": boxes}
            for key, model in models.items():
                found = Search(given[key], first.seconds) if needs_proposals(model) else None
                if not number:
                    let_some_pass(model, image, found)
                trace = by_stages(model, image, found)
                rows[key].append(_extrapolated(trace, scale) if key == "rcnn" else trace.seconds)
    return {
        **{name: value for name, value in asdict(scale).items() if name in ("size", "proposals", "crops", "rounds")},
        "found": len(first.boxes),
        "own": len(trace.proposals),  # of the last detector, Mask R-CNN
        "outlined": len(trace.detections["labels"]),
        "milliseconds": {key: medians(seconds[1:]) for key, seconds in rows.items()},
    }


def _extrapolated(trace: Trace, scale: PaperScale) -> Mapping[str, float]:
    """R-CNN's seconds for all proposals; those of the search are there already."""
    factor = scale.proposals / scale.crops
    return {stage: value * (1 if stage == "proposals" else factor) for stage, value in trace.seconds.items()}
