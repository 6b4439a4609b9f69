"""R-CNN: regions with CNN features. The first detector of the history, with its three models.

Girshick, Donahue, Darrell and Malik 2014, "Rich feature hierarchies for accurate object detection and semantic
segmentation", arXiv 1311.2524.

    picture → selective search → warp_regions → AlexNet → K - 1 SVMs ──────────→ select_detections
                                                       ╰→ K - 1 box regressors ─╯

Shape comments: P proposals, G objects, K classes with background, D features.
"""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minircnn import alexnet, pooling
from minircnn.alexnet import AlexNet, AlexNetConfig
from minircnn.boxes import box_iou, decode_boxes, select_detections
from minircnn.cache import Cache, code_fingerprint, module_fingerprint
from minircnn.matching import match
from minircnn.pooling import warp_regions
from minircnn.rcnn.box_regression import fit_box_regressor
from minircnn.rcnn.finetuning import FineTuningSettings, ProposalPool
from minircnn.rcnn.svms import MiningRecord, SVMSettings, far_from_class, mine_hard_negatives, scale_to
from minircnn.targets import CheckedSamples, Sample, check_classes, in_crowd, single_objects

_PICTURES_FOR_SCALE = 200
_PIXELS_AT_ONCE = 256 * 64**2  # 256 crops of 64 pixels a side, or 20 of 227: what fits into the processor's memory


@dataclass(frozen=True)
class RCNNConfig:
    """The numbers of the paper.

    Attributes:
        context: surroundings on each side of a warped proposal, as a share of its side: 16 of 227 pixels.
        svm_layer: the features that the SVMs judge by. The paper's table 2 compares them: without fine-tuning, pool5 is
            nearly as good as fc7.
        box_layer: the features that the box regressors read; fc7 has forgotten where things are.
        feature_norm: to what mean length features are scaled, so that C = 0.001 and lambda = 1000 suit every layer.
        negative_iou: a proposal that overlaps no object of a class by this much is a negative for the class. The paper
            tried 0 to 0.5 and found that it matters: 0.5 costs 5 points of AP, 0 costs 4.
        box_iou: a proposal must overlap its object by more than this to teach how to reach it.
        ridge: lambda of the box regression.
        score_threshold: detections have at least this margin; so low that AP, which looks at the order of detections
            alone, misses none that matters. To show detections, ask for a margin above 0.
        nms_threshold: IoU above which the weaker of two detections of a class goes.
        max_detections: of one picture.
    """

    context: float = 16 / 227
    svm_layer: str = "fc7"
    box_layer: str = "pool5"
    feature_norm: float = 20.0
    negative_iou: float = 0.3
    box_iou: float = 0.6
    ridge: float = 1000.0
    score_threshold: float = -1.5
    nms_threshold: float = 0.3
    max_detections: int = 100


class RCNN(nn.Module):
    """Three models that are trained one after the other: a network, an SVM for each class, a regressor for each class.

    Args:
        network: an AlexNet that was trained on something; its ``config.input_size`` is the size of warped proposals.
        classes: names; ``classes[0]`` is the background.
        config: the numbers.

    In the order of training: :meth:`finetune`, :meth:`fit_svms`, :meth:`fit_box_regressors`. The first may be left out
    (the paper's table 2 shows what that costs), and so may the last: then boxes stay where the proposals are.
    """

    def __init__(self, network: AlexNet, classes: Sequence[str], config: RCNNConfig | None = None) -> None:
        super().__init__()
        check_classes(classes)
        self.network, self.classes, self.config = network, tuple(classes), config or RCNNConfig()
        objects, sizes = len(self.classes) - 1, network.feature_sizes
        svm_size, box_size = sizes[self.config.svm_layer], sizes[self.config.box_layer]
        self.register_buffer("svm_scale", torch.ones(()))
        self.register_buffer("svm", torch.zeros(objects, svm_size + 1))  # the bias last
        self.register_buffer("box_scale", torch.ones(()))
        self.register_buffer("box", torch.zeros(objects, 4, box_size + 1))

    def features(self, image: Tensor, boxes: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """One pass of the network for every region of a picture: this is what makes R-CNN slow.

        Args:
            image: ``(3, H, W)`` in [0, 1].
            boxes: ``(P, 4)``.
            layers: names, see :data:`minircnn.alexnet.LAYERS`.

        Returns:
            ``(P, D)`` for each layer.

        Raises:
            ValueError: a feature is not a number, because the picture or the weights hold nan.
        """
        found: dict[str, list[Tensor]] = {
            name: [image.new_zeros(0, self.network.feature_sizes[name])] for name in layers
        }
        self.network.eval()
        with torch.no_grad():
            for part in boxes.to(image.device).split(crops_at_once(self.network.config)):
                crops = self.network.normalize(self.warp(image, part))  # (P, 3, S, S)
                # With the channels of a pixel side by side, convolutions on a CPU take half the time.
                outputs = self.network.features(crops.contiguous(memory_format=torch.channels_last), layers)
                for name, value in outputs.items():
                    found[name].append(value)
        result = {name: torch.cat(values) for name, values in found.items()}
        if not all(value.isfinite().all() for value in result.values()):
            raise ValueError("features are nan or infinite: the picture or the network's weights hold such numbers")
        return result

    def warp(self, image: Tensor, boxes: Tensor) -> Tensor:
        """Proposals as the network's squares: (3, H, W), (P, 4) to (P, 3, S, S) in [0, 1]."""
        size = self.network.config.input_size
        return warp_regions(image, boxes, size, self.config.context * size, fill=self.network.mean_color)

    def finetune(
        self,
        samples: Sequence[Sample],
        proposals: Sequence[Tensor],
        optimise: Callable[..., Any],
        settings: FineTuningSettings | None = None,
    ) -> Any:  # noqa: ANN401 - whatever optimise returns
        """First training: fc8 is replaced by one that names proposals, background included, and all layers adapt.

        The convolutions learn ten times more slowly than the rest, so as not to forget what they know (the paper lets
        the whole network learn at a tenth of the rate of pre-training).

        Args:
            samples: ``(image, target)`` pairs of the training pictures.
            proposals: ``(P, 4)`` for each of them.
            optimise: called as ``optimise(network, losses, groups=…)`` to make the losses small, like
                :func:`minircnn.training.fit` with its settings filled in by ``functools.partial``.
            settings: what a batch is made of.

        Returns:
            What ``optimise`` returns.
        """
        samples = self._checked(samples, proposals)
        settings = settings or FineTuningSettings()
        pool = ProposalPool(samples, proposals, settings.positive_iou)
        device = self.network.fc8.weight.device
        self.network.fc8 = nn.Linear(self.network.fc8.in_features, len(self.classes)).to(device)
        nn.init.normal_(self.network.fc8.weight, std=0.01)
        nn.init.zeros_(self.network.fc8.bias)

        def losses(_: int) -> dict[str, Tensor]:
            drawn = pool.draw(settings.positives, settings.batch - settings.positives)
            crops = torch.cat(  # one picture at a time
                [
                    self.warp(
                        samples[int(picture)][0].to(device),
                        pool.boxes[drawn[pool.picture[drawn] == picture]].to(device),
                    )
                    for picture in pool.picture[drawn].unique()
                ]
            )  # (batch, 3, S, S)
            if torch.rand(()) < 0.5:
                crops = crops.flip(3)
            scores = self.network(self.network.normalize(crops))
            return {"classification": F.cross_entropy(scores, pool.labels[drawn].to(device))}

        backbone = list(self.network.backbone.parameters())
        rest = [*self.network.classifier.parameters(), *self.network.fc8.parameters()]
        result = optimise(
            self.network, losses, groups=[{"params": backbone, "scale": 0.1}, {"params": rest, "scale": 1.0}]
        )
        self.network.eval()
        return result

    def fit_svms(
        self,
        samples: Sequence[Sample],
        proposals: Sequence[Tensor],
        *,
        settings: SVMSettings | None = None,
        cache: Cache | None = None,
    ) -> list[MiningRecord]:
        """Second training: an SVM for each class. Positives are its objects, negatives what overlaps none by 0.3.

        Args:
            samples: ``(image, target)`` pairs.
            proposals: ``(P, 4)`` for each picture.
            settings: how the machines learn.
            cache: where features are kept.

        Returns:
            For each class what was mined.

        Raises:
            ValueError: a class has no object in these images, a target is wrong, or features are not numbers.
        """
        samples = self._checked(samples, proposals)
        stored = self._feature_store(self.config.svm_layer, cache)
        targets = [single_objects(target) for _, target in samples]
        positives = self._objects_by_class(samples, targets, stored)
        # A sample of the pictures tells how long features are.
        some = range(0, len(samples), -(-len(samples) // _PICTURES_FOR_SCALE) or 1)
        lengths = [stored(samples[i][0], proposals[i]).norm(dim=1) for i in some]
        self.svm_scale.fill_(scale_to(self.config.feature_norm, torch.cat(lengths)))
        scale = float(self.svm_scale)

        def pictures() -> Iterator[tuple[Tensor, Tensor]]:
            for (image, target), found, objects in zip(samples, proposals, targets, strict=True):
                features = stored(image, found) * scale  # (P, D)
                far = far_from_class(found, objects, len(self.classes), self.config.negative_iou)  # (P, K - 1)
                yield features, far & ~in_crowd(found, target)[:, None]

        weights, records = mine_hard_negatives([p * scale for p in positives], pictures, settings or SVMSettings())
        self.svm.copy_(weights)
        return records

    def _checked(self, samples: Sequence[Sample], proposals: Sequence[Tensor]) -> CheckedSamples:
        _check_pairs(samples, proposals)
        return CheckedSamples(samples, len(self.classes))

    def _objects_by_class(
        self,
        samples: CheckedSamples,
        targets: Sequence[dict[str, Tensor]],
        stored: Callable[[Tensor, Tensor], Tensor],
    ) -> list[Tensor]:
        """The features of all objects of each class: K - 1 times (N, D)."""
        rows = [stored(image, target["boxes"]) for (image, _), target in zip(samples, targets, strict=True)]
        features, labels = torch.cat(rows), torch.cat([target["labels"] for target in targets])
        missing = [name for label, name in enumerate(self.classes) if label and not (labels == label).any()]
        if missing:
            raise ValueError(
                f"no object of class {missing[0]!r} in the training pictures: leave it out, or add pictures"
            )
        return [features[labels == label] for label in range(1, len(self.classes))]

    def fit_box_regressors(
        self, samples: Sequence[Sample], proposals: Sequence[Tensor], *, cache: Cache | None = None
    ) -> list[int]:
        """Third training: for each class a line from features to the way from a proposal to its object.

        Args:
            samples: ``(image, target)`` pairs.
            proposals: ``(P, 4)`` for each picture.
            cache: where features are kept.

        Returns:
            For each class from how many proposals it learned. A class without any leaves boxes as they are.
        """
        samples = self._checked(samples, proposals)
        stored = self._feature_store(self.config.box_layer, cache)
        rows, sources, goals, labels = [], [], [], []
        for (image, target), found in zip(samples, proposals, strict=True):
            objects = single_objects(target)
            gt_index, label = match(box_iou(objects["boxes"], found), self.config.box_iou, self.config.box_iou)
            near = label == 1
            rows.append(stored(image, found[near]))
            sources.append(found[near])
            goals.append(objects["boxes"][gt_index[near]])
            labels.append(objects["labels"][gt_index[near]])
        features, source, goal, label = (torch.cat(parts) for parts in (rows, sources, goals, labels))
        self.box_scale.fill_(scale_to(self.config.feature_norm, features.norm(dim=1)))
        features = features * float(self.box_scale)
        counts = []
        for k in range(1, len(self.classes)):
            own = label == k
            self.box[k - 1] = fit_box_regressor(features[own], source[own], goal[own], self.config.ridge)
            counts.append(int(own.sum()))
        return counts

    def _feature_store(self, layer: str, cache: Cache | None) -> Callable[[Tensor, Tensor], Tensor]:
        """A function from a picture and boxes to features of one layer: (P, D) floats on the CPU.

        They are computed, or taken from the cache, which holds half precision.
        """
        code = code_fingerprint(alexnet, pooling, sys.modules[__name__])  # this file says how regions are warped
        network = module_fingerprint(self.network) if cache else ""

        def stored(image: Tensor, boxes: Tensor) -> Tensor:
            def compute() -> dict[str, Tensor]:
                return {"features": self.features(image.to(self.svm.device), boxes, [layer])[layer].half()}

            parts = (code, network, layer, self.config.context, image, boxes)
            found = cache.get("features", parts, compute) if cache else compute()
            return found["features"].cpu().float()

        return stored

    def scores(self, features: Tensor) -> Tensor:
        """Margins of the SVMs, with -inf for the background, which has none: (P, D) to (P, K)."""
        margins = features * self.svm_scale @ self.svm[:, :-1].T + self.svm[:, -1]  # (P, K - 1)
        return F.pad(margins, (1, 0), value=-torch.inf)

    def regress(self, features: Tensor, proposals: Tensor) -> Tensor:
        """Where the regressor of each class moves each proposal: (P, D), (P, 4) to (P, K, 4)."""
        weights, bias = self.box[..., :-1], self.box[..., -1]
        deltas = torch.einsum("pd,kcd->pkc", features * self.box_scale, weights) + bias  # (P, K - 1, 4)
        return decode_boxes(proposals, F.pad(deltas, (0, 0, 1, 0)))  # background moves nothing

    def detect(
        self, images: Sequence[Tensor], proposals: Sequence[Tensor], *, regress: bool = True
    ) -> list[dict[str, Tensor]]:
        """Finds objects: features of every proposal, margins, better boxes, and the best of them.

        Args:
            images: each ``(3, H, W)`` in [0, 1]; they may differ in size.
            proposals: ``(P, 4)`` for each. P may be 0: then nothing is found.
            regress: whether the box regressors move the boxes.

        Returns:
            For each picture ``boxes`` ``(N, 4)``, ``labels`` ``(N,)`` and ``scores`` ``(N,)`` (margins), best first.

        Raises:
            ValueError: another number of proposals than of pictures, or features that are no numbers.
        """
        _check_pairs(images, proposals)
        layers, found = {self.config.svm_layer, *([self.config.box_layer] if regress else [])}, []
        for image, boxes in zip(images, proposals, strict=True):
            boxes = boxes.to(image.device)
            found.append(self.judge(self.features(image, boxes, layers), boxes, image.shape[1:], regress=regress))
        return found

    def judge(
        self, features: Mapping[str, Tensor], boxes: Tensor, size: Sequence[int], *, regress: bool = True
    ) -> dict[str, Tensor]:
        """What :meth:`detect` does once it has the features of a picture's proposals.

        Args:
            features: ``(P, D)`` for each layer that is needed, as :meth:`features` gives them.
            boxes: ``(P, 4)``.
            size: ``(height, width)`` of the picture.
            regress: whether the box regressors move the boxes.
        """
        config = self.config
        return select_detections(
            self.regress(features[config.box_layer], boxes) if regress else boxes,
            self.scores(features[config.svm_layer]),
            tuple(size),
            score_threshold=config.score_threshold,
            nms_threshold=config.nms_threshold,
            max_detections=config.max_detections,
        )


def _check_pairs(pictures: Sequence[Any], proposals: Sequence[Tensor]) -> None:
    if len(pictures) != len(proposals):
        raise ValueError(f"there are {len(pictures)} pictures but proposals for {len(proposals)}: give one tensor each")


def crops_at_once(config: AlexNetConfig) -> int:
    """How many warped proposals go through the network together: what keeps a processor busy."""
    return max(_PIXELS_AT_ONCE // config.input_size**2, 1)
