"""Do features that were learned for naming pictures carry over? A linear classifier on true boxes tells (S2)."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from skimage.feature import hog
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from minircnn.alexnet import SMALL_WEIGHTS, AlexNet, load_alexnet
from minircnn.pooling import warp_regions
from minircnn.training import Samples


def naming_accuracy(train: Samples, test: Samples, classes: Sequence[str]) -> dict[str, float]:
    """How many objects a linear classifier names rightly by different features, their true boxes given.

    Ridge regression onto the classes, as in notebook 03; it finds out by itself how much to trust the features.

    Args:
        train: ``(image, target)`` pairs, which show at least two classes.
        test: the same.
        classes: names; ``classes[0]`` is the background.

    Returns:
        Shares in [0, 1]: ``learned``, pool5 of the AlexNet that has learned to name one-object pictures, and has never
        seen a scene; ``random``, the same with He's random weights; ``hand_made``, histograms of gradients and colours;
        ``guessing``, always the most frequent class of the training pictures.
    """
    learned = load_alexnet(SMALL_WEIGHTS)
    (crops, labels), (test_crops, wanted) = (_objects(samples, learned) for samples in (train, test))
    known = labels.unique()
    if len(known) < 2 or not len(wanted):
        raise ValueError(
            f"objects of at least two of the classes {', '.join(classes[1:])} are needed to learn from, and one to "
            f"name, but there are {len(known)} and {len(wanted)}: take more pictures"
        )
    ways: dict[str, Callable[[Tensor], np.ndarray]] = {
        "learned": lambda some: _pool5(learned, some),
        "random": lambda some: _pool5(_with_random_weights(learned), some),
        "hand_made": _hand_made,
    }
    shares = {}
    for name, features in ways.items():
        model = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(-1, 6, 15)))
        answers = model.fit(features(crops), labels.numpy()).predict(features(test_crops))
        shares[name] = float((answers == wanted.numpy()).mean())
    return {**shares, "guessing": float((wanted == labels.mode().values).double().mean())}


def _objects(samples: Samples, network: AlexNet) -> tuple[Tensor, Tensor]:
    """All objects of some pictures, warped: (N, 3, S, S), and their labels (N,)."""
    size, context = network.config.input_size, 16 / 227
    pairs = [samples[index] for index in range(len(samples))]
    crops = [
        warp_regions(image, target["boxes"], size, context * size, fill=network.mean_color) for image, target in pairs
    ]
    return torch.cat(crops), torch.cat([target["labels"] for _, target in pairs])


@torch.no_grad()
def _pool5(network: AlexNet, crops: Tensor) -> np.ndarray:
    parts = [network.features(network.normalize(part), ["pool5"])["pool5"] for part in crops.split(64)]
    return torch.cat(parts).numpy()


def _with_random_weights(network: AlexNet) -> AlexNet:
    """A network of the same form that has learned nothing; activations of late layers are as large as of early ones."""
    fresh = AlexNet(network.config, network.fc8.out_features).eval()
    generator = torch.Generator().manual_seed(0)
    for module in fresh.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            spread = (2 / module.weight[0].numel()) ** 0.5  # He et al. 2015
            module.weight.data = torch.randn(module.weight.shape, generator=generator) * spread
            nn.init.zeros_(module.bias)
    return fresh


def _hand_made(crops: Tensor) -> np.ndarray:
    """Histograms of gradients (Dalal and Triggs 2005), and of 4 × 4 × 4 colours: (N, 3, S, S) to (N, D)."""
    shapes = [hog(crop.permute(1, 2, 0).numpy(), channel_axis=-1) for crop in crops]
    bins = (crops * 4).long().clamp(max=3)
    bins = (bins[:, 0] * 16 + bins[:, 1] * 4 + bins[:, 2]).flatten(1)
    counts = torch.zeros(len(crops), 64).scatter_add_(1, bins, torch.ones(bins.shape))
    return np.concatenate([np.stack(shapes), (counts / bins.shape[1]).sqrt().numpy()], axis=1)
