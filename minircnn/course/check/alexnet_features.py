"""The exercises of notebook 03: AlexNet and the sizes of its maps, a training step, the warp, and linear probes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torchvision
from sklearn.neighbors import NearestCentroid
from torch import Tensor, nn
from torch.nn import functional as F

from minircnn.course.check.boxes_and_metrics import random_boxes
from minircnn.course.check.judge import Ask, NotYet, exercise, refuse_kind, refuse_type


def _map_size(n: int, kernel: int, stride: int, padding: int) -> int:
    return (n + 2 * padding - kernel) // stride + 1


@exercise(_map_size)
def map_size(ask: Ask) -> str:
    """How many places a window has."""
    slips = """
        // stride => / stride !! a window that does not fit entirely has no place: round down
        - kernel) // stride => - kernel + stride - 1) // stride !! it rounds up; a window that does not fit has no place
        // stride + 1 => // stride !! it counts steps; there is one place more than steps
        + 2 * padding => !! the padding is missing
        2 * padding => padding !! the padding is added on both sides
        - kernel => !! the kernel is missing: the window must fit entirely
        - kernel) // stride + 1 => ) // stride !! it divides before the kernel is subtracted
    """

    def right(n: int, kernel: int, stride: int, padding: int) -> int:
        return F.conv1d(torch.zeros(1, 1, n), torch.zeros(1, 1, kernel), stride=stride, padding=padding).shape[2]

    cases = [(20, 5, 2, 6), (13, 3, 2, 0), (12, 3, 2, 1), (10, 3, 1, 0), (224, 11, 4, 2), (55, 3, 2, 0), (64, 7, 2, 2)]
    cases.append((8, 8, 3, 0))
    ask.cases(cases, slips, "for {0} pixels, a kernel of {1}, stride {2}, padding {3}", right=right, rtol=0, atol=0)
    if isinstance(ask(*cases[0]), float):
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
        refuse_kind(network, nn.Sequential, "an nn.Sequential of all layers")
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
    slips = """
        * apart => * apart * stride !! a stride counts for the windows behind its own, not for its own
        apart *= stride => pass !! the strides are missing: behind a stride of 2 neighbors are 2 pixels apart
        (kernel - 1) => kernel !! each window adds kernel - 1 steps, not kernel
        field, apart = 1, 1 => field, apart = 0, 1 !! it starts at 0; one pixel sees itself: 1
        return field => return apart !! it returns how far neighbors are apart; wanted is the field
        return field => return kernel !! it looks at the last window only
    """

    def right(windows: Sequence[tuple[int, int]]) -> int:
        pixels = x = torch.zeros(1, 1, 300, requires_grad=True)
        for kernel, stride in windows:
            x = F.conv1d(x, torch.full((1, 1, kernel), 1 / kernel), stride=stride)
        x[0, 0, x.shape[2] // 2].backward()
        return int((pixels.grad != 0).sum())

    alexnet_2012 = [(11, 4), (3, 2), (5, 1), (3, 2), (3, 1), (3, 1), (3, 1), (3, 2)]
    cases = [(3, 1)], [(3, 1), (3, 1)], [(3, 2), (3, 1)], [(7, 2), (3, 2), (5, 1)], alexnet_2012
    ask.cases([(windows,) for windows in cases], slips, "behind {0}", right=right, rtol=0, atol=0)
    return "equal to where gradients arrive; 195 pixels for the network of 2012"


def _cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    true = scores.log_softmax(dim=1)[torch.arange(len(labels)), labels]
    return -true.mean()


@exercise(F.cross_entropy, _cross_entropy)
def cross_entropy(ask: Ask) -> str:
    """The mean negative log-probability of the true class."""
    slips = """
        .mean() => .sum() !! it is the sum over the batch; take the mean
        -true.mean() => true.mean() !! the sign is missing: a logarithm of a probability is negative
        -true.mean() => true.exp().mean() !! it is the mean probability of the true class; the logarithm is missing
        -true.mean() => -true.exp().mean().log() !! it takes the logarithm of the mean; take the mean of the logarithms
        dim=1 => dim=0 !! the softmax runs over the batch; it runs over the classes, dim=1
        [torch.arange(len(labels)), labels] => .amax(dim=1) !! it takes the largest score's class; take the true class
        .log_softmax(dim=1) => !! it lacks the logarithm of the sum: scores are no log-probabilities
    """
    random, cases = np.random.RandomState(0), []
    for _ in range(5):
        cases.append((torch.from_numpy(random.normal(0, 2, (8, 5))).float(), torch.from_numpy(random.randint(0, 5, 8))))
    ask.cases(cases, slips, "for 8 images", right=lambda *case: float(F.cross_entropy(*case)), change=float)
    value = ask(torch.tensor([[1000.0, 0.0], [0.0, 1000.0]]), torch.tensor([0, 0]))
    if not abs(float(value) - 500) < 0.1:
        raise NotYet("for scores of 1000 the exponential overflows: subtract the largest score first, or use logsumexp")
    value = ask(torch.zeros(2, 3, requires_grad=True), torch.tensor([0, 1]))
    if not isinstance(value, Tensor) or not value.requires_grad:
        raise NotYet("no gradient can flow back through its result; return a tensor, without .item() or .detach()")
    return "equal to torch's, for large scores, too"


def _training_step(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> float:
    optimizer.zero_grad()
    loss = F.cross_entropy(network(images), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


@exercise(_training_step)
def training_step(ask: Ask) -> str:
    """One step of the optimizer on the cross-entropy of a batch."""
    slips = """
        optimizer.zero_grad() => pass !! the gradients of the step before are still there: call optimizer.zero_grad()
        network(images) => network(images).softmax(dim=1) !! cross_entropy has a softmax of its own: give it the scores
        loss = => loss = - !! it goes up the gradient; the loss must fall
    """
    ask.cases([()], slips, may_change=True, run=_two_steps)
    return "equal to a step with torch's cross-entropy, twice"


def _two_steps(step: Callable[..., Any]) -> dict[str, Any]:
    """The weights after two steps on different images, and what they return."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    random, losses, weights = np.random.RandomState(1), [], [network[1].weight.detach().clone()]
    for _ in range(2):
        images = torch.from_numpy(random.normal(0, 1, (6, 3, 2, 2))).float()
        losses.append(step(network, optimizer, images, torch.from_numpy(random.randint(0, 4, 6))))
        weights.append(network[1].weight.detach().clone())
        refuse_type(losses[-1], 0.0)
        if isinstance(losses[-1], Tensor) and losses[-1].requires_grad:
            raise NotYet("it returns the tensor, which keeps the whole graph in memory: return loss.item()")
    if torch.equal(weights[0], weights[2]):
        raise NotYet("the weights do not change: call zero_grad(), then loss.backward(), then optimizer.step()")
    if torch.equal(weights[0], weights[1]):
        raise NotYet("the first step changes nothing: optimizer.step() comes after loss.backward()")
    loss = "the weights are right, but the loss is not what it returns"
    return {"the weights after two steps": weights[2], loss: losses}


def _crop_places(box: Tensor, size: int, context: float) -> tuple[Tensor, Tensor]:
    sides = box[2:] - box[:2]
    margin = context / (size - 2 * context) * sides
    low, high = box[:2] - margin, box[2:] + margin
    shares = (torch.arange(size)[:, None] + 0.5) / size
    x, y = (low + shares * (high - low)).T
    return x, y


def _inner_places(box: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """What torchvision's RoIAlign sees of an image that holds the coordinates of its own pixels."""
    x = (torch.arange(128.0) + 0.5).expand(128, 128)
    rois = torch.cat([torch.zeros(1), box])[None]
    seen = torchvision.ops.roi_align(torch.stack([x, x.T])[None], rois, size, sampling_ratio=1, aligned=True)[0]
    return seen[0, 0], seen[1, :, 0]


@exercise(_crop_places)
def crop_places(ask: Ask) -> str:
    """Which places of an image a warped crop shows."""
    slips = """
        return x, y => return y, x !! rows and columns are exchanged: x comes first
        + 0.5 => !! it looks at the left edges of the crop's pixels; look at their centers, + 1/2
        + 0.5) / size => ) / (size - 1) !! the first place lies on the edge; a pixel's center lies half a pixel inside
        margin = => margin = 0 * !! the context is missing: the crop shows more than the box
        / (size - 2 * context) * sides => !! the context is in pixels of the crop, not of the image
        / (size - 2 * context) => / size !! the box fills size - 2 · context pixels of the crop, not size
        / (size - 2 * context) => / (size - context) !! the box fills size - 2 · context pixels: two sides have context
    """

    def right(box: Tensor, size: int, context: int) -> tuple[Tensor, ...]:
        inner = size - 2 * context
        steps = torch.arange(size) - context  # from the first inner column or row
        sides = (box[2:] - box[:2]) / inner
        return tuple(places[0] + side * steps for places, side in zip(_inner_places(box, inner), sides, strict=True))

    boxes = random_boxes(20, seed=3, size=60.0) + 30  # well inside an image of 128 × 128
    boxes[:, 2:] += 4
    cases = [(box, *((10, 0), (12, 2), (64, 8), (227, 16))[n % 4]) for n, box in enumerate(boxes)]
    ask.cases(cases, slips, "for {0}, size {1}, context {2}", right=right, atol=1e-2)
    ask.cases([(torch.tensor([10.0, 20.0, 40.0, 80.0]), 64, 4.5)], what="for a context of {2} pixels", atol=1e-2)
    return "the inner part is what torchvision's RoIAlign sees, for 20 boxes"


def _nearest_mean(features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    classes = labels.unique()
    means = torch.stack([features[labels == k].mean(dim=0) for k in classes])
    return classes[torch.cdist(queries, means).argmin(dim=1)]


@exercise(_nearest_mean)
def nearest_mean(ask: Ask) -> str:
    """The class whose mean feature is nearest."""
    slips = """
        return classes[ => return torch.arange(len(classes))[ !! it returns places in the list of classes; return labels
        argmin => argmax !! it takes the farthest mean
        torch.cdist(queries, means).argmin => (queries @ means.T).argmax !! the largest product is not the nearest
        means = => means, classes = features, labels; _ = !! it takes the class of the nearest example, not of the mean
        .mean(dim=0) => .sum(dim=0) !! it adds up the features of a class; take the mean
        , means) => , means, p=1) !! it adds up absolute differences; the distance is Euclidean
        .argmin(dim=1)] => .argmin(dim=1)][:, None] !! give one class for each query
    """

    def right(features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        return torch.from_numpy(NearestCentroid().fit(features.numpy(), labels.numpy()).predict(queries.numpy()))

    cases = []
    for seed in range(5):
        random = np.random.RandomState(seed)
        labels = torch.from_numpy(random.permutation(np.repeat([1, 2, 4, 5], [8, 12, 16, 40])))
        features, queries = (torch.from_numpy(random.normal(3, 1, (n, 6))).float() for n in (76, 90))
        features[:, :4] += 1.5 * F.one_hot(labels, 6)[:, [1, 2, 4, 5]]
        cases.append((features, labels, queries))
    ask.cases(cases, slips, "for classes 1, 2, 4 and 5", right=right)
    return "equal to scikit-learn's NearestCentroid, 5 times"
