"""Supervised pre-training: AlexNet learns to name one well-framed object, before anybody asks where objects are.

R-CNN's authors took a network that had learned ImageNet (section 2.3). Ours learns the 21 sub-types of Toy Town's six
classes, from pictures of one object that the painter makes from seeds. The finer question makes the better features.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from joblib import Parallel, delayed
from torch import Tensor

from minircnn.alexnet import SMALL, SMALL_STRIDE_16, AlexNet, fold_batch_norm, save_alexnet
from minircnn.cache import Cache, code_fingerprint
from minircnn.datasets import toytown
from minircnn.datasets.toytown.photographs import HELD_OUT_PHOTOGRAPHS, TRAIN_PHOTOGRAPHS
from minircnn.training.loop import LoopSettings, fit

_FIRST_SEED = {"train": 10_000_000, "val": 20_000_000}
_CHUNK = 1000


@dataclass(frozen=True)
class PretrainingSettings:
    """What the shipped weights were trained with.

    Attributes:
        pictures: how many are painted to learn from.
        val_pictures: how many to measure with; half of the photographs behind them are never seen in training.
        epochs: how often each picture is seen, every time framed a little differently.
        batch: pictures in a batch.
        learning_rate: at its highest.
        weight_decay: of AdamW.
        label_smoothing: share of the wanted probability that is spread over all sub-types.
        stride: of conv5's map in pixels, 8 or 16.
        seed: of weights, order and framing.
    """

    pictures: int = 40_000
    val_pictures: int = 2_000
    epochs: int = 12
    batch: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    stride: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses numbers that mean nothing."""
        if self.stride not in (8, 16):
            raise ValueError(f"stride must be 8 or 16, not {self.stride}")
        if min(self.pictures, self.val_pictures, self.epochs, self.batch) < 1 or self.pictures < self.batch:
            raise ValueError(f"pictures, epochs and batch must be at least 1, a batch at most all pictures: {self}")


@dataclass(frozen=True)
class Accuracy:
    """Shares of pictures that were named rightly, in [0, 1]."""

    subtypes: float
    classes: float


def one_object_pictures(split: str, count: int, cache: Cache | None = None) -> tuple[Tensor, Tensor]:
    """Pictures of one object, painted when they are first asked for.

    Args:
        split: "train" or "val"; they share no seed.
        count: how many.
        cache: where painted pictures are kept.

    Returns:
        (N, 3, S, S) uint8, with a side S of 64 pixels, and (N,) int64 sub-types, indices into ``toytown.SUBTYPES``.

    Raises:
        ValueError: another split, or no pictures.
    """
    if split not in _FIRST_SEED or count < 1:
        raise ValueError(f'split must be "train" or "val" and count at least 1, but are {split!r} and {count}')
    size, first = SMALL.input_size, _FIRST_SEED[split]
    held_out = HELD_OUT_PHOTOGRAPHS if split == "val" else ()
    photographs = TRAIN_PHOTOGRAPHS[: len(held_out) or None] + held_out
    key = (_painter(), split, size)
    starts = range(0, count, _CHUNK)
    chunks = Parallel(n_jobs=-1 if len(starts) > 1 else 1)(
        delayed(_paint_chunk)(cache or Cache(), key, first + start, min(_CHUNK, count - start), size, photographs)
        for start in starts
    )
    images, subtypes = (torch.cat([chunk[name] for chunk in chunks]) for name in ("images", "subtypes"))
    return images, subtypes


def _painter() -> str:
    """A name for all that decides about the pixels of a picture, but for its seed."""
    return code_fingerprint(toytown, packages=("numpy", "pillow", "scikit-image"))


def _paint_chunk(
    cache: Cache, key: tuple[str, str, int], first: int, count: int, size: int, photographs: tuple[str, ...]
) -> dict[str, Tensor]:
    def paint() -> dict[str, Tensor]:
        painted = [toytown.paint_single(seed, size, photographs) for seed in range(first, first + count)]
        images = torch.from_numpy(np.stack([image for image, _, _ in painted])).permute(0, 3, 1, 2)
        return {"images": images, "subtypes": torch.tensor([subtype for _, _, subtype in painted])}

    return cache.get("single_objects", (*key, first, count, *photographs), paint)


def reframe(images: Tensor, amount: float = 0.2) -> Tensor:
    """The same objects, mirrored or not, moved, and stretched or shrunk in each direction on its own.

    A proposal never frames its object as the painter did, and R-CNN warps every proposal to a square.

    Args:
        images: (B, 3, S, S) floats.
        amount: the largest change of a side, and twice the largest shift, as a share of the picture.

    Returns:
        A new tensor of the same shape. What lies outside of a picture takes the colour of its edge.
    """
    random = torch.rand(4, len(images), device=images.device) * 2 - 1
    mirror = torch.where(torch.rand(len(images), device=images.device) < 0.5, -1.0, 1.0)
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0] = (1 + amount * random[0]) * mirror
    theta[:, 1, 1] = 1 + amount * random[1]
    theta[:, :, 2] = amount * random[2:].T
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


@torch.no_grad()
def accuracy(network: AlexNet, images: Tensor, subtypes: Tensor) -> Accuracy:
    """How often a network of 21 outputs names the sub-type, and the class, of (N, 3, S, S) uint8 pictures."""
    device = network.fc8.weight.device
    network.eval()
    scores = [network(network.normalize(part.to(device).float() / 255)).cpu() for part in images.split(500)]
    guess = torch.cat(scores).argmax(dim=1)  # (N,)
    return Accuracy(
        subtypes=(guess == subtypes).double().mean().item(),
        classes=(_classes_of(guess) == _classes_of(subtypes)).double().mean().item(),
    )


def _classes_of(subtypes: Tensor) -> Tensor:
    names = [name.split("/")[0] for name in toytown.SUBTYPES]
    return torch.tensor([toytown.CLASSES.index(name) for name in names])[subtypes]


def train_alexnet(
    settings: PretrainingSettings,
    *,
    out: Path,
    resume: bool = False,
    device: str = "cpu",
    cache: Cache | None = None,
    command: str = "",
    quiet: bool | None = None,
) -> Accuracy:
    """Paints the pictures, trains the small network, folds its batch normalisation, measures and saves it.

    Args:
        settings: see there.
        out: the file to write, ``.safetensors``; the state of an unfinished run is kept beside it. A file that is there
            stays if the training ended no better than it began.
        resume: go on with an unfinished run of the same settings.
        device: "cpu", "cuda", "mps".
        cache: where painted pictures are kept.
        command: noted in the JSON file.
        quiet: no progress bar; see :func:`minircnn.training.fit`.

    Returns:
        The accuracy on held-out pictures.

    Raises:
        ValueError: ``out`` has another ending.
        WeightsError: the unfinished run is damaged or has other settings.
    """
    if out.suffix != ".safetensors":
        raise ValueError(f"{out}: weights are written as .safetensors; give the file that ending")
    images, subtypes = one_object_pictures("train", settings.pictures, cache)
    per_epoch = len(images) // settings.batch
    torch.manual_seed(settings.seed)
    network = AlexNet(
        replace(SMALL if settings.stride == 8 else SMALL_STRIDE_16, batch_norm=True), len(toytown.SUBTYPES)
    )
    network.to(device, memory_format=torch.channels_last)

    def losses(iteration: int) -> dict[str, Tensor]:
        epoch, position = divmod(iteration, per_epoch)
        shuffle = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
        chosen = torch.randperm(len(images), generator=shuffle)[position * settings.batch :][: settings.batch]
        batch = reframe(images[chosen].to(device).float() / 255)
        scores = network(network.normalize(batch).contiguous(memory_format=torch.channels_last))
        wanted = subtypes[chosen].to(device)
        return {"classification": F.cross_entropy(scores, wanted, label_smoothing=settings.label_smoothing)}

    loop = LoopSettings(
        iterations=per_epoch * settings.epochs,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
    )
    unfinished = out.with_suffix(".checkpoint")
    run = {**asdict(settings), "painter": _painter()}
    fit(network, losses, loop, checkpoint=unfinished, resume=resume, replaces=out, about=run, quiet=quiet)
    folded = fold_batch_norm(network).half().float()  # measured as the file will hold it
    reached = accuracy(folded, *one_object_pictures("val", settings.val_pictures, cache))
    about = {"what": "AlexNet, small, trained on one-object pictures of Toy Town", "command": command}
    save_alexnet(folded, out, {**about, "settings": asdict(settings), "held_out_accuracy": asdict(reached)})
    unfinished.unlink(missing_ok=True)
    return reached
