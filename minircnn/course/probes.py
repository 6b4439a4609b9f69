"""What features are worth: those of AlexNet's layers, random ones and hand-made ones, judged by linear classifiers."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.linear_model import Ridge, RidgeClassifierCV
from sklearn.metrics import average_precision_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from minircnn.alexnet import LAYERS, AlexNet
from minircnn.boxes import box_area, box_iou
from minircnn.course.history import count_parameters
from minircnn.datasets import ToyTown


# ------------------------------------------------------------------------------ features
@torch.no_grad()
def features_of(network: AlexNet, crops: Tensor, layers: Collection[str] = LAYERS) -> dict[str, Tensor]:
    """The outputs of a network's layers for crops ``(N, 3, S, S)``: name to ``(N, D)``."""
    parts = []
    for some in crops.split(200):
        some = network.normalize(some).contiguous(memory_format=torch.channels_last)  # which is quicker on a CPU
        parts.append(network.features(some, layers))
    return {name: torch.cat([part[name] for part in parts]) for name in layers}


def hand_made(crops: Tensor) -> dict[str, Tensor]:
    """Features that nobody learned: name to ``(N, D)``.

    HOG has nine directions, cells of 8 × 8 pixels and blocks of 2 × 2 cells (1764 numbers for crops of 64 × 64); the
    color histogram has 4 × 4 × 4 bins, of which it takes square roots.
    """
    from skimage.color import rgb2gray
    from skimage.feature import hog

    gray = rgb2gray(crops.permute(0, 2, 3, 1).numpy())
    shapes = torch.from_numpy(np.stack([hog(image, 9, (8, 8), (2, 2)) for image in gray])).float()
    bins = (crops * 4).long().clamp(max=3)
    bins = (bins[:, 0] * 16 + bins[:, 1] * 4 + bins[:, 2]).flatten(1)
    colors = torch.zeros(len(crops), 64).scatter_add_(1, bins, torch.ones(bins.shape)).div(bins.shape[1]).sqrt()
    pixels = F.interpolate(crops, size=16, mode="area").flatten(1)
    both = torch.cat([shapes, colors], dim=1)
    return {"pixels, 16 × 16": pixels, "color histogram": colors, "HOG": shapes, "HOG and colors": both}


def initialize_as_he(network: nn.Module) -> nn.Module:
    """Random weights as in He et al. 2015: activations are as large in late layers as in early ones."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return network


def layer_costs(network: AlexNet) -> tuple[dict[str, int], dict[str, int]]:
    """Parameters, and multiply-adds for one image, of each layer by its name."""
    layers = [(name, m) for name, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    names, parameters, work = {module: name.split(".")[-1] for name, module in layers}, {}, {}

    def note(module: nn.Module, _: object, output: Tensor) -> None:
        parameters[names[module]] = count_parameters(module)
        # Each output is a sum over one filter: all its weights but not the bias.
        work[names[module]] = output.numel() * module.weight[0].numel()

    hooks = [module.register_forward_hook(note) for module in names]
    side, device = network.config.input_size, next(network.parameters()).device
    with torch.no_grad():
        network(torch.zeros(1, 3, side, side, device=device))
    for hook in hooks:
        hook.remove()
    return parameters, work


# ------------------------------------------------------------------------------ linear classifiers
def linear() -> Pipeline:
    """A linear classifier on standardized features, which chooses its one hyperparameter by leaving one out."""
    return make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(-1, 6, 15)))


def ranking_precision(values: Tensor, labels: Tensor, halves: Tensor) -> float:
    """Mean average precision of a linear classifier over six classes, learned on one half and measured on the other."""
    precisions, wanted, half = [], labels.numpy(), halves.numpy()
    for learn in (0, 1):
        model = linear().fit(values[half == learn].numpy(), wanted[half == learn])
        scores = model.decision_function(values[half != learn].numpy())  # (N, 7), background first
        truth = wanted[half != learn]
        precisions += [average_precision_score(truth == k, scores[:, k]) for k in range(1, 7)]
    return float(np.mean(precisions))


def average_precisions(values: Tensor, labels: Tensor) -> Tensor:
    """Average precision of each column as a detector of each of six classes: ``(N, U)``, ``(N,)`` to ``(6, U)``."""
    ordered, order = values.sort(dim=0, descending=True)
    # Equal values are found together, so the precision of each is that behind the last of them.
    ascending = ordered.flip(0).T.contiguous()
    so_far = len(values) - torch.searchsorted(ascending, ordered.T.contiguous()).T  # (N, U), from 1
    found = []
    for k in range(1, 7):
        hits = (labels == k)[order].float()  # (N, U), best first
        precision = hits.cumsum(dim=0).gather(0, so_far - 1) / so_far
        found.append((precision * hits).sum(dim=0) / (labels == k).sum())
    return torch.stack(found)


# ------------------------------------------------------------------------------ cells of feature maps
@torch.no_grad()
def activations(network: AlexNet, image: Tensor) -> dict[str, Tensor]:
    """The outputs of the five convolutions' ReLUs for ``(3, H, W)``: name to ``(C, h, w)``."""
    found, x = {}, network.normalize(image[None])
    for name, layer in network.backbone.named_children():
        x = layer(x)
        if name.startswith("relu"):
            found[name.replace("relu", "conv")] = x[0].clone()  # a later ReLU must not write into it
    return found


def roc_areas(values: Tensor, wanted: Tensor) -> Tensor:
    """Area under the ROC curve of each column: ``(N, C)``, ``(N,)`` truth values to ``(C,)``."""
    ranks = torch.from_numpy(rankdata(values.numpy(), axis=0))  # equal values share the mean of their places
    positive = wanted.sum()
    return (ranks[wanted].sum(dim=0) - positive * (positive + 1) / 2) / (positive * (len(values) - positive))


def class_cells(network: AlexNet, samples: Iterable[tuple[Tensor, Mapping[str, Any]]]) -> tuple[dict, Tensor]:
    """Cells of a 16 × 16 grid: layer to ``(N, C)`` activations; and ``(N, 6)``, whether a class fills most of each."""
    values, classes = {}, []
    for image, target in samples:
        planes = torch.stack([target["masks"][target["labels"] == k].any(dim=0) for k in range(1, 7)]).float()
        classes.append(F.adaptive_avg_pool2d(planes, 16).flatten(1).T > 0.5)  # (256, 6)
        for name, maps in activations(network, image).items():
            values.setdefault(name, []).append(F.adaptive_avg_pool2d(maps, 16).flatten(1).T)  # (256, C)
    return {name: torch.cat(parts) for name, parts in values.items()}, torch.cat(classes)


def single_maps_and_sums(network: AlexNet, fit: Sequence, test: Sequence) -> tuple[list[float], list[float]]:
    """For each layer the mean area over the classes of the best map and of a weighted sum, as ``fit`` has them."""
    (values, classes), (test_values, test_classes) = (class_cells(network, part) for part in (fit, test))
    single, sums = [], []
    for layer in values:
        chosen = [int(roc_areas(values[layer], classes[:, k]).argmax()) for k in range(6)]
        found = [roc_areas(test_values[layer][:, [c]], test_classes[:, k]) for k, c in enumerate(chosen)]
        single.append(float(torch.cat(found).mean()))
        line = make_pipeline(StandardScaler(), Ridge(100)).fit(values[layer].numpy(), classes.float().numpy())
        answers = torch.from_numpy(line.predict(test_values[layer].numpy()))  # (N, 6)
        found = [roc_areas(answers[:, [k]], test_classes[:, k]) for k in range(6)]
        sums.append(float(torch.cat(found).mean()))
    return single, sums


# ------------------------------------------------------------------------------ objects and proposals
def warped_objects(split: str, number: int, warp: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The first objects of a split of Toy Town as crops ``(N, 3, S, S)``, and their labels ``(N,)``."""
    data, crops, labels = ToyTown(split, masks=False), [], []
    for image, target in (data[index] for index in range(len(data))):
        crops.append(warp(image, target["boxes"]))
        labels.append(target["labels"])
        if sum(map(len, labels)) >= number:
            break
    return torch.cat(crops)[:number], torch.cat(labels)[:number]


def proposal_labels(boxes: Tensor, target: Mapping[str, Tensor]) -> Tensor:
    """Class of each proposal ``(P,)``: IoU with an object of 0.5 or more; 0, background, below 0.3; -1 between."""
    overlap, best = box_iou(boxes, target["boxes"]).max(dim=1)
    return torch.where(overlap >= 0.5, target["labels"][best], torch.where(overlap < 0.3, 0, -1))


def held_and_nearest(boxes: Tensor, target: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """For each proposal and class the largest share of an object that it holds, and the best IoU: twice ``(P, 6)``."""
    objects = target["boxes"]
    low, high = torch.maximum(boxes[:, None, :2], objects[:, :2]), torch.minimum(boxes[:, None, 2:], objects[:, 2:])
    held = (high - low).clamp(min=0).prod(dim=2) / box_area(objects)  # (P, G)
    of_class = (target["labels"] == torch.arange(1, 7)[:, None]).float()  # (6, G)
    return tuple((values[:, None] * of_class).amax(dim=2) for values in (held, box_iou(boxes, objects)))
