"""R-CNN: regions with CNN features. The first detector of the history, with its three models.

Girshick, Donahue, Darrell and Malik 2014, "Rich feature hierarchies for accurate object detection and semantic
segmentation", arXiv 1311.2524.

    image → selective search → warp_regions → AlexNet ─┬→ K - 1 SVMs ──────────→ select_detections
                                                       ╰→ K - 1 box regressors ─╯

Shape comments: P proposals, G objects, K classes with background, D features.
"""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minircnn import alexnet, pooling
from minircnn.alexnet import AlexNet, build_alexnet
from minircnn.boxes import box_iou, decode_boxes, encode_boxes, match, select_detections
from minircnn.cache import Cache, code_fingerprint, module_fingerprint
from minircnn.pooling import warp_regions
from minircnn.shipped import RCNN_WEIGHTS
from minircnn.targets import CheckedSamples, Sample, check_classes, in_crowd, single_objects
from minircnn.weights import config_of, load

HARD, EASY = -1.0, -1.2
"""Scores: a negative above HARD has a loss and is taken in; one below EASY has become irrelevant and goes."""
_IMAGES_FOR_SCALE = 200
_PIXELS_AT_ONCE = 256 * 64**2  # 256 crops of 64 pixels a side, or 20 of 227, go through the network together


@dataclass(frozen=True)
class RCNNConfig:
    """The hyperparameters of the detector, by default the paper's."""

    context: float = 16 / 227  # surroundings on each side of a warped proposal, as a share of its side
    svm_layer: str = "fc7"  # features of the SVMs; without fine-tuning, pool5 is nearly as good (table 2)
    box_layer: str = "pool5"  # features of the box regressors; fc7 has lost where things are
    feature_norm: float = 20.0  # mean length that features are scaled to, so that C and lambda suit every layer
    negative_iou: float = 0.3  # below it a proposal is a negative for a class; 0.5 costs 5 points of AP, 0 costs 4
    box_iou: float = 0.6  # a box regressor learns from proposals that overlap their object by more than this
    ridge: float = 1000.0  # lambda of the box regression
    score_threshold: float = -1.5  # low, for AP; to show detections, ask for a score above 0
    nms_threshold: float = 0.3  # IoU above which the weaker of two detections of a class is suppressed
    max_detections: int = 100  # of one image


@dataclass(frozen=True)
class FineTuningSettings:
    """What a batch of fine-tuning is made of (section 2.3).

    For the SVMs only the objects themselves are positives: a network needs more examples (appendix B).
    """

    batch: int = 128  # proposals, drawn from all images of the data set
    positives: int = 32  # of them, which show an object; the rest is background
    positive_iou: float = 0.5  # overlap with an object from which a proposal has its class


@dataclass(frozen=True)
class SVMSettings:
    """How the SVMs learn."""

    cost: float = 1e-3  # C, the weight of the hinge loss against the size of the weights
    positive_weight: float = 2.0  # factor of a positive's loss; paper vs code: only R-CNN's program says so
    bias_scale: float = 10.0  # the constant feature of the bias, as large as features are: it is hardly regularized
    retrain_after: int = 2000  # new negatives of a class, after which its SVM is fitted again
    passes: int = 1  # over all images; the paper found one enough, and so do we


class RCNN(nn.Module):
    """Three models, trained one after the other: a network, an SVM for each class, a box regressor for each class.

    In this order: :meth:`finetune`, :meth:`fit_svms`, :meth:`fit_box_regressors`. The first may be left out (table 2
    shows what that costs), and so may the last: then boxes stay where the proposals are. All three take the training
    images as ``(image, target)`` pairs with proposals ``(P, 4)`` for each, and raise ValueError where a target is wrong
    or features are nan. The last two take a cache, where features are kept.

    Args:
        network: a pre-trained AlexNet; its ``config.input_size`` is the size of warped proposals.
        classes: names; ``classes[0]`` is the background.
        config: the hyperparameters.
    """

    def __init__(self, network: AlexNet, classes: Sequence[str], config: RCNNConfig | None = None) -> None:
        super().__init__()
        check_classes(classes)
        self.network, self.classes, self.config = network, tuple(classes), config or RCNNConfig()
        objects, sizes = len(self.classes) - 1, network.feature_sizes
        self.register_buffer("svm_scale", torch.ones(()))
        self.register_buffer("svm", torch.zeros(objects, sizes[self.config.svm_layer] + 1))  # the bias last
        self.register_buffer("box_scale", torch.ones(()))
        self.register_buffer("box", torch.zeros(objects, 4, sizes[self.config.box_layer] + 1))

    def detect(
        self, images: Sequence[Tensor], proposals: Sequence[Tensor], *, regress: bool = True
    ) -> list[dict[str, Tensor]]:
        """Find objects: features of every proposal, scores, refined boxes, and the best of them.

        Args:
            images: each ``(3, H, W)`` in [0, 1]; they may differ in size.
            proposals: ``(P, 4)`` for each. P may be 0: then nothing is found.
            regress: whether the box regressors refine the boxes.

        Returns:
            For each image ``boxes`` ``(N, 4)``, ``labels`` ``(N,)`` and ``scores`` ``(N,)`` (of the SVMs), best first.
        """
        _check_pairs(images, proposals)
        layers, found = {self.config.svm_layer, *([self.config.box_layer] if regress else [])}, []
        for image, boxes in zip(images, proposals, strict=True):
            boxes = boxes.to(image.device)
            found.append(self.judge(self.features(image, boxes, layers), boxes, image.shape[1:], regress=regress))
        return found

    def features(self, image: Tensor, boxes: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """Run the network on every region of an image: this is what makes R-CNN slow.

        Args:
            image: ``(3, H, W)`` in [0, 1].
            boxes: ``(P, 4)``.
            layers: names, see :data:`minircnn.alexnet.LAYERS`.

        Returns:
            ``(P, D)`` for each layer; values that are not finite are a ValueError.
        """
        found = {name: [image.new_zeros(0, self.network.feature_sizes[name])] for name in layers}
        self.network.eval()
        with torch.no_grad():
            for part in boxes.to(image.device).split(max(_PIXELS_AT_ONCE // self.network.config.input_size**2, 1)):
                crops = self.network.normalize(self.warp(image, part))  # (P, 3, S, S)
                # With the channels of a pixel side by side, convolutions on a CPU take half the time.
                outputs = self.network.features(crops.contiguous(memory_format=torch.channels_last), layers)
                for name, value in outputs.items():
                    found[name].append(value)
        result = {name: torch.cat(values) for name, values in found.items()}
        if not all(value.isfinite().all() for value in result.values()):
            raise ValueError("features are nan or infinite: the image or the network's weights hold such numbers")
        return result

    def warp(self, image: Tensor, boxes: Tensor) -> Tensor:
        """Warped crops, the network's input: ``(3, H, W)``, ``(P, 4)`` to ``(P, 3, S, S)`` in [0, 1]."""
        size = self.network.config.input_size
        return warp_regions(image, boxes, size, self.config.context * size, fill=self.network.mean_color)

    def scores(self, features: Tensor) -> Tensor:
        """Decision scores w · x + b, and -inf for the background, which has no SVM: ``(P, D)`` to ``(P, K)``."""
        scores = features * self.svm_scale @ self.svm[:, :-1].T + self.svm[:, -1]  # (P, K - 1)
        return F.pad(scores, (1, 0), value=-torch.inf)

    def regress(self, features: Tensor, proposals: Tensor) -> Tensor:
        """Boxes refined by the regressor of each class: ``(P, D)``, ``(P, 4)`` to ``(P, K, 4)``."""
        weights, bias = self.box[..., :-1], self.box[..., -1]
        deltas = torch.einsum("pd,kcd->pkc", features * self.box_scale, weights) + bias  # (P, K - 1, 4)
        return decode_boxes(proposals, F.pad(deltas, (0, 0, 1, 0)))  # none for the background

    def judge(
        self, features: Mapping[str, Tensor], boxes: Tensor, size: Sequence[int], *, regress: bool = True
    ) -> dict[str, Tensor]:
        """Detections from the :meth:`features` of proposals ``(P, 4)``, in an image of this ``(height, width)``."""
        config = self.config
        limits = {name: getattr(config, name) for name in ("score_threshold", "nms_threshold", "max_detections")}
        moved = self.regress(features[config.box_layer], boxes) if regress else boxes
        return select_detections(moved, self.scores(features[config.svm_layer]), tuple(size), **limits)

    def finetune(
        self,
        samples: Sequence[Sample],
        proposals: Sequence[Tensor],
        optimize: Callable[..., Any],
        settings: FineTuningSettings | None = None,
    ) -> Any:  # noqa: ANN401 - whatever optimize returns
        """First training: all layers adapt to warped proposals, which a new fc8 classifies, background included.

        The convolutions learn at a tenth of the rate, so as not to forget what they know (the paper lets the whole
        network learn at a tenth of the rate of pre-training). ``optimize(network, losses, groups=…)`` minimizes the
        losses, like :func:`minircnn.training.fit` with its settings filled in; what it returns is returned.
        """
        samples, settings = self._checked(samples, proposals), settings or FineTuningSettings()
        pool = ProposalPool(samples, proposals, settings.positive_iou)
        device = self.network.fc8.weight.device
        self.network.fc8 = nn.Linear(self.network.fc8.in_features, len(self.classes)).to(device)
        nn.init.normal_(self.network.fc8.weight, std=0.01)
        nn.init.zeros_(self.network.fc8.bias)

        def losses(_: int) -> dict[str, Tensor]:
            drawn = pool.draw(settings.positives, settings.batch - settings.positives)
            crops = []
            for index in pool.image[drawn].unique():
                boxes = pool.boxes[drawn[pool.image[drawn] == index]]
                crops.append(self.warp(samples[int(index)][0].to(device), boxes.to(device)))
            crops = torch.cat(crops)  # (batch, 3, S, S)
            if torch.rand(()) < 0.5:
                crops = crops.flip(3)
            scores = self.network(self.network.normalize(crops))
            return {"classification": F.cross_entropy(scores, pool.labels[drawn].to(device))}

        network = self.network
        rest = [*network.classifier.parameters(), *network.fc8.parameters()]
        groups = [{"params": list(network.backbone.parameters()), "lr_mult": 0.1}, {"params": rest, "lr_mult": 1.0}]
        result = optimize(network, losses, groups=groups)
        self.network.eval()
        return result

    def fit_svms(
        self,
        samples: Sequence[Sample],
        proposals: Sequence[Tensor],
        *,
        settings: SVMSettings | None = None,
        cache: Cache | None = None,
    ) -> list["MiningRecord"]:
        """Second training: an SVM for each class. Positives are its objects, negatives what overlaps none by 0.3.

        Returns:
            For each class what was mined. A class without any object in the images is refused with a ValueError.
        """
        samples, stored = self._checked(samples, proposals), self._feature_store(self.config.svm_layer, cache)
        targets = [single_objects(target) for _, target in samples]
        rows = [stored(image, target["boxes"]) for (image, _), target in zip(samples, targets, strict=True)]
        features, labels = torch.cat(rows), torch.cat([target["labels"] for target in targets])
        missing = [name for label, name in enumerate(self.classes) if label and not (labels == label).any()]
        if missing:
            raise ValueError(f"no object of class {missing[0]!r} in the training images: leave it out, or add images")
        some = range(0, len(samples), -(-len(samples) // _IMAGES_FOR_SCALE) or 1)  # enough to know the mean length
        lengths = [stored(samples[i][0], proposals[i]).norm(dim=1) for i in some]
        self.svm_scale.fill_(scale_to(self.config.feature_norm, torch.cat(lengths)))
        scale = float(self.svm_scale)

        def images() -> Iterator[tuple[Tensor, Tensor]]:
            for (image, target), found, objects in zip(samples, proposals, targets, strict=True):
                far = far_from_class(found, objects, len(self.classes), self.config.negative_iou)  # (P, K - 1)
                yield stored(image, found) * scale, far & ~in_crowd(found, target)[:, None]

        positives = [features[labels == label] * scale for label in range(1, len(self.classes))]
        weights, records = mine_hard_negatives(positives, images, settings or SVMSettings())
        self.svm.copy_(weights)
        return records

    def fit_box_regressors(
        self, samples: Sequence[Sample], proposals: Sequence[Tensor], *, cache: Cache | None = None
    ) -> list[int]:
        """Third training: for each class ridge regression from features to the deltas of a proposal near an object.

        Returns:
            For each class how many proposals it learned from. A class without any leaves boxes as they are.
        """
        samples, stored = self._checked(samples, proposals), self._feature_store(self.config.box_layer, cache)
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
        for k in range(1, len(self.classes)):
            own = label == k
            self.box[k - 1] = fit_box_regressor(features[own], source[own], goal[own], self.config.ridge)
        return [int((label == k).sum()) for k in range(1, len(self.classes))]

    def _checked(self, samples: Sequence[Sample], proposals: Sequence[Tensor]) -> CheckedSamples:
        _check_pairs(samples, proposals)
        return CheckedSamples(samples, len(self.classes))

    def _feature_store(self, layer: str, cache: Cache | None) -> Callable[[Tensor, Tensor], Tensor]:
        """A function from an image and boxes to features ``(P, D)`` on the CPU, which the cache holds in 16 bits."""
        code = code_fingerprint(alexnet, pooling, sys.modules[__name__])  # this file says how regions are warped
        network = module_fingerprint(self.network) if cache else ""

        def stored(image: Tensor, boxes: Tensor) -> Tensor:
            def compute() -> dict[str, Tensor]:
                return {"features": self.features(image.to(self.svm.device), boxes, [layer])[layer].half()}

            parts = (code, network, layer, self.config.context, image, boxes)
            found = cache.get("features", parts, compute) if cache else compute()
            return found["features"].cpu().float()

        return stored

    @property
    def configs(self) -> dict[str, Any]:
        """All that :meth:`build` needs beside the names of the classes, as JSON can hold it or as dataclasses."""
        return {"config": self.config, "network": self.network.config, "num_outputs": self.network.fc8.out_features}

    @classmethod
    def build(cls, classes: Sequence[str], configs: Mapping[str, Any]) -> "RCNN":
        """A detector with random weights from :attr:`configs`, as JSON holds them."""
        network = build_alexnet(configs["network"], configs["num_outputs"])
        return cls(network, classes, config_of(RCNNConfig, configs["config"]))


def load_rcnn(path: str | Path = RCNN_WEIGHTS) -> RCNN:
    """The R-CNN in a file, by default the one that comes with the project; see :func:`minircnn.weights.load`."""
    return load(path, "rcnn")


def _check_pairs(images: Sequence[Any], proposals: Sequence[Tensor]) -> None:
    if len(images) != len(proposals):
        raise ValueError(f"there are {len(images)} images but proposals for {len(proposals)}: give one tensor each")


class ProposalPool:
    """All proposals of a data set, and the objects themselves, sorted into positives and background.

    ``boxes`` are ``(N, 4)``, ``image`` ``(N,)`` is the index of each one's image, ``labels`` ``(N,)`` its class, 0 for
    background.
    """

    def __init__(self, samples: Sequence[Sample], proposals: Sequence[Tensor], positive_iou: float) -> None:
        images, boxes, labels = [], [], []
        for index, found in enumerate(proposals):
            _, target = samples[index]
            objects = single_objects(target)
            candidates = torch.cat([found, objects["boxes"].to(found)])  # (P + G, 4)
            gt_index, label = match(box_iou(objects["boxes"].to(found), candidates), positive_iou, positive_iou)
            if len(objects["labels"]):
                label = torch.where(label == 1, objects["labels"][gt_index], 0)
            counts = ~in_crowd(candidates, target)
            boxes.append(candidates[counts])
            labels.append(label[counts])
            images.append(torch.full((int(counts.sum()),), index))
        self.image, self.boxes, self.labels = torch.cat(images), torch.cat(boxes), torch.cat(labels)
        self._positive, self._background = torch.where(self.labels > 0)[0], torch.where(self.labels == 0)[0]
        if not len(self._positive) or not len(self._background):
            raise ValueError(
                f"fine-tuning needs objects and background, but of {len(self.labels)} boxes {len(self._positive)} show "
                "an object: look at the annotations and the proposals"
            )

    def draw(self, positives: int, background: int) -> Tensor:
        """Indices of boxes, drawn with torch's global generator, all of equal chance within each kind, sorted."""
        kinds = ((self._positive, positives), (self._background, background))
        return torch.cat([kind[torch.randint(len(kind), (count,))] for kind, count in kinds]).sort().values


def scale_to(norm: float, lengths: Tensor) -> float:
    """The factor that gives lengths ``(N,)`` a mean of ``norm``; 1 where there is nothing to scale."""
    mean = float(lengths.mean()) if len(lengths) else 0.0
    return norm / mean if mean > 0 else 1.0


def far_from_class(proposals: Tensor, objects: Mapping[str, Tensor], num_classes: int, iou: float) -> Tensor:
    """For which classes each proposal overlaps no object by ``iou``, so that it is a negative: ``(P, K - 1)`` bool."""
    near = box_iou(proposals, objects["boxes"]).nan_to_num(0) >= iou  # (P, G)
    is_class = objects["labels"][:, None] == torch.arange(1, num_classes)  # (G, K - 1)
    return ~(near.float() @ is_class.float() > 0)


def train_svm(positives: Tensor, negatives: Tensor, settings: SVMSettings) -> Tensor:
    """Fit a linear SVM with hinge loss by scikit-learn: ``(N, D)`` positives, ``(M, D)`` negatives to ``(D + 1,)``.

    The bias is last: ``features @ w[:-1] + w[-1]`` is the decision score. Without positives or negatives: ValueError.
    """
    from sklearn.svm import LinearSVC  # takes seconds to import, and only training needs it

    if not len(positives) or not len(negatives):
        raise ValueError(f"an SVM needs both, but there are {len(positives)} positives, {len(negatives)} negatives")
    machine = LinearSVC(
        C=settings.cost,
        loss="hinge",
        class_weight={1: settings.positive_weight, 0: 1.0},
        intercept_scaling=settings.bias_scale,
        max_iter=100_000,
        random_state=0,
    )
    wanted = np.repeat([1, 0], [len(positives), len(negatives)])
    machine.fit(torch.cat([positives, negatives]).double().numpy(), wanted)
    return torch.from_numpy(np.append(machine.coef_[0], machine.intercept_)).float()


@dataclass
class MiningRecord:
    """What happened to one class, with an entry for each time its SVM was fitted."""

    positives: int = 0  # examples of the class
    negatives: list[int] = field(default_factory=list)  # that the SVM learned from
    found: list[int] = field(default_factory=list)  # hard negatives since the time before
    weights: list[Tensor] = field(default_factory=list)  # of the SVM, (D + 1,), the bias last


class _Miner:
    """One class: its positives, the negatives that it keeps, and its SVM as it is now."""

    def __init__(self, positives: Tensor, settings: SVMSettings) -> None:
        self.positives, self.settings = positives, settings
        self.negatives, self.ids = positives.new_zeros(0, positives.shape[1]), torch.zeros(0, dtype=torch.int64)
        self.waiting, self.num_waiting = [], 0
        self.record = MiningRecord(positives=len(positives))

    def look_at(self, features: Tensor, ids: Tensor) -> None:
        """Take the hard ones of these negatives in, ``(P, D)`` with ids ``(P,)``; without an SVM, all are hard."""
        hard = ~torch.isin(ids, self.ids)
        if self.record.weights:
            hard &= margins(features, self.record.weights[-1]) > HARD
        self.waiting.append((features[hard], ids[hard]))
        self.num_waiting += int(hard.sum())
        if self.num_waiting >= self.settings.retrain_after:
            self.fit()

    def fit(self) -> None:
        """Fit the SVM to what is there, then drop the negatives that have become easy."""
        self.negatives = torch.cat([self.negatives, *(features for features, _ in self.waiting)])
        self.ids = torch.cat([self.ids, *(ids for _, ids in self.waiting)])
        weights = train_svm(self.positives, self.negatives, self.settings)
        self.record.found.append(self.num_waiting)
        self.record.negatives.append(len(self.negatives))
        self.record.weights.append(weights)
        self.waiting, self.num_waiting = [], 0
        kept = margins(self.negatives, weights) >= EASY
        self.negatives, self.ids = self.negatives[kept], self.ids[kept]


def margins(features: Tensor, weights: Tensor) -> Tensor:
    """``features · w + b``: ``(N, D)``, ``(D + 1,)`` to ``(N,)``."""
    return features @ weights[:-1] + weights[-1]


def mine_hard_negatives(
    positives: list[Tensor], images: Callable[[], Iterator[tuple[Tensor, Tensor]]], settings: SVMSettings
) -> tuple[Tensor, list[MiningRecord]]:
    """Fit the SVMs of all classes by hard negative mining, one image in memory at a time (2.3, appendix B).

    An image gives hundreds of negatives for each positive, and most of them are easy: sky is not a cat. Mining keeps
    only those that the SVM does not yet reject with a margin, fits again, and so on.

    Args:
        positives: for each class ``(N, D)`` features of its objects; N at least 1.
        images: starts a pass: for each image ``(P, D)`` features of its proposals, and ``(P, classes)`` bool, for which
            classes each is a negative.
        settings: how the SVMs learn.

    Returns:
        ``(classes, D + 1)`` weights with the bias last, and what happened to each class.
    """
    miners = [_Miner(features, settings) for features in positives]
    for _ in range(settings.passes):
        first = 0  # index of the image's first proposal, counted over all images
        for features, negative in images():
            ids = torch.arange(first, first + len(features))
            first += len(features)
            for miner, allowed in zip(miners, negative.T, strict=True):
                miner.look_at(features[allowed], ids[allowed])
        for miner in miners:
            if miner.num_waiting or not miner.record.weights:
                miner.fit()
    return torch.stack([miner.record.weights[-1] for miner in miners]), [miner.record for miner in miners]


def fit_box_regressor(features: Tensor, proposals: Tensor, objects: Tensor, ridge: float) -> Tensor:
    """Ridge regression from features of proposals to the deltas onto their objects (appendix C, equation 5).

    Args:
        features: ``(N, D)``.
        proposals: ``(N, 4)``, each near its object: far from it, the features cannot tell where it is.
        objects: ``(N, 4)``.
        ridge: lambda; large, because near copies of one proposal say little more than one.

    Returns:
        ``(4, D + 1)``: weights of dx, dy, dw, dh, and the bias last. With N = 0 all are 0: boxes stay as they are.

    Paper vs code: R-CNN's program also whitened the four targets, and shrank the bias along with the weights.
    """
    if not len(features):
        return torch.zeros(4, features.shape[1] + 1)
    return ridge_regression(features, encode_boxes(proposals, objects), ridge)


def ridge_regression(x: Tensor, t: Tensor, ridge: float) -> Tensor:
    """Ridge regression by scikit-learn: ``(N, D)`` and ``(N, 4)`` to ``(4, D + 1)`` with the bias last."""
    from sklearn.linear_model import Ridge  # takes seconds to import

    line = Ridge(alpha=ridge).fit(x.double().numpy(), t.double().numpy())
    weights, bias = torch.from_numpy(line.coef_), torch.as_tensor(line.intercept_)
    return torch.cat([weights, bias[:, None]], dim=1).float()
