"""The exercises of notebook 03: AlexNet and the sizes of its maps, a training step, the warp, and linear probes."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torchvision
from sklearn.neighbors import NearestCentroid
from torch import Tensor, nn
from torch.nn import functional as F

from minircnn.course.check.boxes_and_metrics import random_boxes
from minircnn.course.check.judge import Ask, NotYet, exercise

# ------------------------------------------------------------------------------ the network


def _map_size(n: int, kernel: int, stride: int, padding: int) -> int:
    return (n + 2 * padding - kernel) // stride + 1


@exercise(_map_size)
def map_size(ask: Ask) -> str:
    """How many places a window has."""
    cases = [
        (20, 5, 2, 6),
        (13, 3, 2, 0),
        (12, 3, 2, 1),
        (10, 3, 1, 0),
        (224, 11, 4, 2),
        (55, 3, 2, 0),
        (64, 7, 2, 2),
        (8, 8, 3, 0),
    ]
    for n, kernel, stride, padding in cases:
        # The judge slides a window of torch.
        right = F.conv1d(torch.zeros(1, 1, n), torch.zeros(1, 1, kernel), stride=stride, padding=padding).shape[2]
        exact = (n + 2 * padding - kernel) / stride + 1
        slips = {
            "a window that does not fit entirely has no place: round down": exact if exact != right else None,
            "it rounds up; a window that does not fit entirely has no place": -(-exact // 1),
            "it counts steps; there is one place more than steps": right - 1,
            "the padding is missing": _map_size(n, kernel, stride, 0),
            "the padding is added on both sides": (n + padding - kernel) // stride + 1,
            "the kernel is missing: the window must fit entirely": (n + 2 * padding) // stride + 1,
            "it divides before the kernel is subtracted": (n + 2 * padding) // stride,
        }
        slips = {text: wrong for text, wrong in slips.items() if wrong is not None and wrong != right}
        case = f"for {n} pixels, a kernel of {kernel}, stride {stride}, padding {padding}"
        value = ask.compare(n, kernel, stride, padding, wanted=right, slips=slips, case=case, rtol=0, atol=0)
        if isinstance(value, float):
            raise NotYet("it returns a float; a number of places is whole: use //")
    return f"equal to the outputs of torch's convolution in {len(cases)} cases"


def _alexnet(num_classes: int) -> nn.Sequential:
    """Torchvision's AlexNet as one sequence of layers, without its adaptive pooling."""
    network = torchvision.models.alexnet(num_classes=num_classes)
    return nn.Sequential(*network.features, nn.Flatten(), *network.classifier)


def _described(layer: nn.Module) -> str:
    if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
        first = lambda v: v[0] if isinstance(v, tuple) else v  # noqa: E731
        numbers = f"kernel {first(layer.kernel_size)}, stride {first(layer.stride)}, padding {first(layer.padding)}"
        channels = f"{layer.in_channels} to {layer.out_channels} channels, " if isinstance(layer, nn.Conv2d) else ""
        return f"{type(layer).__name__}({channels}{numbers})"
    if isinstance(layer, nn.Linear):
        return f"Linear({layer.in_features} to {layer.out_features})"
    return f"Dropout({layer.p})" if isinstance(layer, nn.Dropout) else type(layer).__name__


@exercise(_alexnet)
def alexnet(ask: Ask) -> str:
    """The network, layer by layer."""
    with torch.device("meta"):  # shapes without numbers: 61 million parameters take no memory
        network, right = ask(21), _alexnet(21)
        if network is None:
            raise NotYet("it returns None; did you forget `return`?")
        if not isinstance(network, nn.Sequential):
            raise NotYet(f"it returns a {type(network).__name__}; an nn.Sequential of all layers is wanted")
        layers, wanted = ([_described(layer) for layer in net] for net in (network, right))
        for kind in ("ReLU", "Dropout", "Flatten", "MaxPool2d", "Conv2d", "Linear"):
            counts = [sum(text.startswith(kind) for text in texts) for texts in (layers, wanted)]
            if counts[0] != counts[1]:
                raise NotYet(f"it has {counts[0]} layers {kind}; {counts[1]} are wanted")
        for n, (layer, text) in enumerate(zip(layers, wanted, strict=False)):
            if layer != text:
                raise NotYet(f"layer {n} is {layer}; wanted is {text}")
        if len(layers) != len(wanted):
            raise NotYet(f"it has {len(layers)} layers; wanted are {len(wanted)}")
        if tuple(network.eval()(torch.zeros(2, 3, 224, 224)).shape) != (2, 21):
            raise NotYet("for two images it must return (2, num_classes) scores")
    return "layer by layer torchvision's"


def _receptive_field(windows: Sequence[tuple[int, int]]) -> int:
    field, apart = 1, 1
    for kernel, stride in windows:
        field += (kernel - 1) * apart
        apart *= stride
    return field


@exercise(_receptive_field)
def receptive_field(ask: Ask) -> str:
    """How many pixels a value depends on, in each direction."""
    alexnet_2012 = [(11, 4), (3, 2), (5, 1), (3, 2), (3, 1), (3, 1), (3, 1), (3, 2)]
    cases = [(3, 1)], [(3, 1), (3, 1)], [(3, 2), (3, 1)], [(7, 2), (3, 2), (5, 1)], alexnet_2012
    for windows in cases:
        pixels = torch.zeros(1, 1, 300, requires_grad=True)
        x = pixels
        for kernel, stride in windows:
            x = F.conv1d(x, torch.full((1, 1, kernel), 1 / kernel), stride=stride)
        x[0, 0, x.shape[2] // 2].backward()
        right = int((pixels.grad != 0).sum())
        early, apart = 1, 1
        for kernel, stride in windows:
            apart *= stride
            early += (kernel - 1) * apart
        slips = {
            "a stride counts for the windows behind its own, not for its own": early,
            "the strides are missing: behind a stride of 2 neighbors are 2 pixels apart": 1
            + sum(kernel - 1 for kernel, _ in windows),
            "each window adds kernel - 1 steps, not kernel": right
            + sum(int(np.prod([s for _, s in windows[:n]])) for n in range(len(windows))),
            "it starts at 0; one pixel sees itself: 1": right - 1,
            "it returns how far neighbors are apart; wanted is the field": int(np.prod([s for _, s in windows])),
            "it looks at the last window only": windows[-1][0],
        }
        slips = {text: wrong for text, wrong in slips.items() if wrong != right}
        ask.compare(list(windows), wanted=right, slips=slips, case=f"behind {windows}", rtol=0, atol=0)
    return "equal to where gradients arrive; 195 pixels for the network of 2012"


# ------------------------------------------------------------------------------ training


@exercise(F.cross_entropy)
def cross_entropy(ask: Ask) -> str:
    """The mean negative log-probability of the true class."""
    random = np.random.RandomState(0)
    for _ in range(5):
        scores = torch.from_numpy(random.normal(0, 2, (8, 5))).float()
        labels = torch.from_numpy(random.randint(0, 5, 8))
        p, rows = scores.softmax(dim=1), torch.arange(8)
        each = -p.log()[rows, labels]
        columns = scores.softmax(dim=0)
        slips = {
            "it is the sum over the batch; take the mean": float(each.sum()),
            "the sign is missing: a logarithm of a probability is negative": float(-each.mean()),
            "it is the mean probability of the true class; the logarithm is missing": float(p[rows, labels].mean()),
            "it is 1 - probability; take minus the logarithm": float(1 - p[rows, labels].mean()),
            "it takes the logarithm of the mean; take the mean of the logarithms": float(-p[rows, labels].mean().log()),
            "the softmax runs over the batch; it runs over the classes, dim=1": float(
                -columns.log()[rows, labels].mean()
            ),
            "it takes the class of the largest score; take the true class": float(-p.log().amax(dim=1).mean()),
            "the logarithm has another base": float(each.mean() / np.log(2)),
            "it averages over all classes; take the true class of each image": float(-p.log().mean()),
            "it lacks the logarithm of the sum: scores are no log-probabilities": float(-scores[rows, labels].mean()),
        }
        wanted = float(F.cross_entropy(scores, labels))
        ask.compare(scores, labels, wanted=wanted, slips=slips, case="for 8 images and 5 classes")
    large, labels = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]]), torch.tensor([0, 0])
    value = ask(large, labels)
    if not np.isfinite(float(value)) or abs(float(value) - 500) > 0.1:
        raise NotYet("for scores of 1000 the exponential overflows: subtract the largest score first, or use logsumexp")
    scores = torch.zeros(2, 3, requires_grad=True)
    value = ask(scores, torch.tensor([0, 1]))
    if not isinstance(value, Tensor) or not value.requires_grad:
        raise NotYet("no gradient can flow back through its result; return a tensor, without .item() or .detach()")
    return "equal to torch's, for large scores, too"


def _training_step(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> float:
    optimizer.zero_grad()
    loss = F.cross_entropy(network(images), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


Step = Callable[[nn.Module, torch.optim.Optimizer, Tensor, Tensor], float]


def _two_steps(step: Step) -> tuple[list[float], list[Tensor]]:
    """Losses of two steps on different images, and the weights before and after each."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    random, losses, weights = np.random.RandomState(1), [], [network[1].weight.detach().clone()]
    for _ in range(2):
        images = torch.from_numpy(random.normal(0, 1, (6, 3, 2, 2))).float()
        losses.append(step(network, optimizer, images, torch.from_numpy(random.randint(0, 4, 6))))
        weights.append(network[1].weight.detach().clone())
    return losses, weights


def _wrong_step(change: str) -> Step:
    def step(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> float:
        if change != "no zero":
            optimizer.zero_grad()
        if change == "early":
            optimizer.step()
        scores = network(images)
        scores = scores.softmax(dim=1) if change == "softmax" else scores
        loss = (-1 if change == "up" else 1) * F.cross_entropy(scores, labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


_STEP_SLIPS = {
    "the gradients of the step before are still there: call optimizer.zero_grad()": "no zero",
    "a softmax stands before cross_entropy, which has one of its own: give it the scores": "softmax",
    "it goes up the gradient; the loss must fall": "up",
}


@exercise(_training_step)
def training_step(ask: Ask) -> str:
    """One step of the optimizer on the cross-entropy of a batch."""
    losses, weights = _two_steps(lambda *args: ask(*args, may_change=True))
    right_losses, right = _two_steps(_training_step)
    if any(loss is None for loss in losses):
        raise NotYet("it returns None; did you forget `return`?")
    if any(isinstance(loss, Tensor) and loss.requires_grad for loss in losses):
        raise NotYet("it returns the tensor, which keeps the whole graph in memory: return loss.item()")
    if not all(isinstance(loss, (int, float)) or getattr(loss, "numel", lambda: 0)() == 1 for loss in losses):
        raise NotYet(f"it returns a {type(losses[0]).__name__}; one number, the loss, is wanted")
    if torch.equal(weights[0], weights[2]):
        raise NotYet(
            "the weights do not change: call loss.backward(), then optimizer.step(), and zero_grad before both"
        )
    if torch.equal(weights[0], weights[1]):
        raise NotYet("the first step changes nothing: optimizer.step() comes after loss.backward()")
    for text, change in _STEP_SLIPS.items():
        if torch.allclose(weights[2], _two_steps(_wrong_step(change))[1][2], atol=1e-6):
            raise NotYet(text)
    if not torch.allclose(weights[2], right[2], atol=1e-5):
        raise NotYet("after two steps the weights differ from those of torch's cross-entropy")
    if not np.allclose([float(loss) for loss in losses], right_losses, atol=1e-4):
        raise NotYet(
            f"the weights are right, but it returns {float(losses[0]):.4g} and the loss is {right_losses[0]:.4g}"
        )
    return "equal to a step with torch's cross-entropy, twice"


# ------------------------------------------------------------------------------ the warp


def _crop_places(box: Tensor, size: int, context: float) -> tuple[Tensor, Tensor]:
    """Where the columns and the rows of a crop look: twice ``(size,)``."""
    margin = context / (size - 2 * context) * (box[2:] - box[:2])
    low, high = box[:2] - margin, box[2:] + margin
    shares = (torch.arange(size) + 0.5) / size
    return low[0] + shares * (high - low)[0], low[1] + shares * (high - low)[1]


def _inner_places(box: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """What torchvision's RoIAlign sees of an image that holds the coordinates of its own pixels."""
    x = (torch.arange(128.0) + 0.5).expand(128, 128)
    rois = torch.cat([torch.zeros(1), box])[None]
    seen = torchvision.ops.roi_align(torch.stack([x, x.T])[None], rois, size, sampling_ratio=1, aligned=True)[0]
    return seen[0, 0], seen[1, :, 0]


@exercise(_crop_places)
def crop_places(ask: Ask) -> str:
    """Which places of an image a warped crop shows."""
    boxes = random_boxes(20, seed=3, size=60.0) + 30  # well inside an image of 128 × 128
    boxes[:, 2:] += 4
    for n, box in enumerate(boxes):
        size, context = ((10, 0), (12, 2), (64, 8), (227, 16))[n % 4]
        inner = _inner_places(box, size - 2 * context)
        step = [(high - low) / (size - 2 * context) for low, high in zip(box[:2], box[2:], strict=True)]
        outer = torch.arange(size) - context  # steps from the first inner column or row
        x, y = (places[0] + steps * outer for places, steps in zip(inner, step, strict=True))
        case = f"for {[round(v, 1) for v in box.tolist()]}, size {size}, context {context}"
        ask.compare(box, size, context, wanted=(x, y), slips=_place_slips(box, size, context), case=case, atol=1e-2)
    box = torch.tensor([10.0, 20.0, 40.0, 80.0])
    ask.compare(box, 64, 4.5, wanted=_crop_places(box, 64, 4.5), case="for a context of 4.5 pixels", atol=1e-2)
    return "the inner part is what torchvision's RoIAlign sees, for 20 boxes"


def _place_slips(box: Tensor, size: int, context: float) -> dict[str, tuple[Tensor, Tensor]]:
    def places(margin: Tensor, first: float = 0.5, count: float | None = None) -> tuple[Tensor, Tensor]:
        low, high = box[:2] - margin, box[2:] + margin
        shares = (torch.arange(size) + first) / (count or size)
        return low[0] + shares * (high - low)[0], low[1] + shares * (high - low)[1]

    sides = box[2:] - box[:2]
    right = context / (size - 2 * context) * sides
    slips = {
        "rows and columns are exchanged: x comes first": places(right)[::-1],
        "it looks at the left edges of the crop's pixels; look at their centers, + 1/2": places(right, 0.0),
        "the first and last place lie on the edges; the centers of the outer pixels lie half a pixel inside": places(
            right, 0.0, size - 1
        ),
    }
    if context:
        slips |= {
            "the context is missing: the crop shows more than the box": places(torch.zeros(2)),
            "the context is in pixels of the crop, not of the image": places(torch.full((2,), float(context))),
            "the box fills size - 2 · context pixels of the crop, not size": places(context / size * sides),
            "the box fills size - 2 · context pixels: the context is cut off on two sides": places(
                context / (size - context) * sides
            ),
            "a column is as wide as the box / (size - 2 · context), not / size": tuple(
                box[d] + (torch.arange(size) + 0.5 - context) * sides[d] / size for d in (0, 1)
            ),
            "column 0 begins context columns left of the box, and row 0 above it": tuple(
                box[d] + (torch.arange(size) + 0.5) * sides[d] / (size - 2 * context) for d in (0, 1)
            ),
            "the context makes the shown part smaller; it must be larger than the box": places(-right),
        }
    return slips


# ------------------------------------------------------------------------------ a probe


def _nearest_mean(features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    classes = labels.unique()
    means = torch.stack([features[labels == k].mean(dim=0) for k in classes])
    return classes[torch.cdist(queries, means).argmin(dim=1)]


@exercise(_nearest_mean)
def nearest_mean(ask: Ask) -> str:
    """The class whose mean feature is nearest."""
    for seed in range(5):
        random = np.random.RandomState(seed)
        labels = torch.from_numpy(random.permutation(np.repeat([1, 2, 4, 5], [8, 12, 16, 40])))
        features, queries = (torch.from_numpy(random.normal(3, 1, (n, 6))).float() for n in (76, 90))
        features[:, :4] += 1.5 * F.one_hot(labels, 6)[:, [1, 2, 4, 5]]
        classes = labels.unique()
        means = torch.stack([features[labels == k].mean(dim=0) for k in classes])
        distance = torch.cdist(queries, means)
        sums = torch.stack([features[labels == k].sum(dim=0) for k in classes])
        slips = {
            "it returns places in the list of classes; return the labels themselves": distance.argmin(dim=1),
            "it takes the farthest mean": classes[distance.argmax(dim=1)],
            "the largest product is not the smallest distance": classes[(queries @ means.T).argmax(dim=1)],
            "it takes the class of the nearest example; take the nearest mean": labels[
                torch.cdist(queries, features).argmin(dim=1)
            ],
            "it adds up the features of a class; take the mean": classes[torch.cdist(queries, sums).argmin(dim=1)],
            "it adds up absolute differences; the distance is Euclidean": classes[
                torch.cdist(queries, means, p=1).argmin(dim=1)
            ],
            "give one class for each query": lambda v: v.shape != (90,),
        }
        fitted = NearestCentroid().fit(features.numpy(), labels.numpy())
        wanted = torch.from_numpy(fitted.predict(queries.numpy()))
        slips = {text: wrong for text, wrong in slips.items() if callable(wrong) or not torch.equal(wrong, wanted)}
        ask.compare(features, labels, queries, wanted=wanted, slips=slips, case="for classes 1, 2, 4 and 5")
    return "equal to scikit-learn's NearestCentroid, 5 times"
