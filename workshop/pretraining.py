"""Supervised pre-training: AlexNet learns to classify one well-framed object, before anybody asks where objects are.

R-CNN's authors took a network that had been trained on ImageNet (section 2.3). Ours learns the 21 sub-types of Toy
Town's six classes, from images of one object that the painter makes from seeds. The finer question makes the better
features. `python -m workshop.pretraining --help` says how data/weights/alexnet and alexnet_stride16 were made.
"""

import argparse
import sys
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from minircnn.alexnet import SMALL, SMALL_STRIDE_16, AlexNet, fold_batch_norm, save_alexnet
from minircnn.cache import Cache, code_fingerprint
from minircnn.course.one_object import Accuracy, accuracy, reframe
from minircnn.datasets.toytown import SUBTYPES
from minircnn.shipped import SMALL_STRIDE_16_WEIGHTS, SMALL_WEIGHTS
from minircnn.training import LoopSettings, fit
from workshop import toytown
from workshop.toytown.single import paint_many


@dataclass(frozen=True)
class PretrainingSettings:
    """What the shipped weights were trained with."""

    images: int = 40_000  # painted to learn from
    val_images: int = 2_000  # to measure with; half of the photographs behind them are never seen in training
    epochs: int = 12  # how often each image is seen, every time framed a little differently
    batch: int = 128
    learning_rate: float = 2e-3  # at its highest
    weight_decay: float = 0.05  # of AdamW
    label_smoothing: float = 0.05  # share of the wanted probability that is spread over all sub-types
    stride: int = 8  # of conv5's feature map in pixels, 8 or 16
    seed: int = 0  # of weights, order and framing

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.stride not in (8, 16):
            raise ValueError(f"stride must be 8 or 16, not {self.stride}")
        if min(self.images, self.val_images, self.epochs, self.batch) < 1 or self.images < self.batch:
            raise ValueError(f"images, epochs and batch must be at least 1, a batch at most all images: {self}")


def painted(split: str, count: int, cache: Cache) -> tuple[Tensor, Tensor]:
    """Paint images, (N, 3, 64, 64) uint8, and their sub-types, (N,) int64, or find them in the cache."""

    def paint() -> dict[str, Tensor]:
        images, subtypes = paint_many(split, count)
        return {"images": torch.from_numpy(images).permute(0, 3, 1, 2), "subtypes": torch.from_numpy(subtypes)}

    found = cache.get("one_object", (_painter(), split, count), paint)
    return found["images"], found["subtypes"]


def _painter() -> str:
    """A name for all that decides about the pixels of an image, but for its seed."""
    return code_fingerprint(toytown, packages=("numpy", "pillow", "scikit-image"))


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
    """Paint the images, train the small network, fold its batch normalization, measure and save it.

    ``cache`` keeps the painted images, ``command`` is noted in the JSON file; for the other arguments see
    :func:`minircnn.training.train_jointly`. Returned is the accuracy on held-out images.

    Raises:
        ValueError: ``out`` has another ending.
        WeightsError: the unfinished run is damaged or has other settings.
    """
    if out.suffix != ".safetensors":
        raise ValueError(f"{out}: weights are written as .safetensors; give the file that ending")
    cache = cache or Cache()
    images, subtypes = painted("train", settings.images, cache)
    per_epoch = len(images) // settings.batch
    torch.manual_seed(settings.seed)
    network = AlexNet(replace(SMALL if settings.stride == 8 else SMALL_STRIDE_16, batch_norm=True), len(SUBTYPES))
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
    reached = accuracy(folded, *painted("val", settings.val_images, cache))
    about = {"what": "AlexNet, small, trained on one-object images of Toy Town", "command": command}
    save_alexnet(folded, out, {**about, "settings": asdict(settings), "held_out_accuracy": asdict(reached)})
    unfinished.unlink(missing_ok=True)
    return reached


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m workshop.pretraining", description="Pre-train the small AlexNet.")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: the file of data/weights of this stride")
    parser.add_argument("--resume", action="store_true", help="go on with an unfinished run of the same settings")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (default: cpu)")
    for field in fields(PretrainingSettings):
        option = "--" + field.name.replace("_", "-")
        parser.add_argument(option, type=type(field.default), default=field.default, help=f"default: {field.default}")
    options = vars(parser.parse_args(arguments))
    chosen = {field.name: options[field.name] for field in fields(PretrainingSettings)}
    try:
        settings = PretrainingSettings(**chosen)
    except ValueError as error:
        parser.error(str(error))
    out = options["out"] or (SMALL_WEIGHTS if settings.stride == 8 else SMALL_STRIDE_16_WEIGHTS)
    command = " ".join([parser.prog, *(sys.argv[1:] if arguments is None else arguments)])
    reached = train_alexnet(settings, out=out, resume=options["resume"], device=options["device"], command=command)
    print(f"accuracy on {settings.val_images} held-out images: {asdict(reached)}; written to {out}")


if __name__ == "__main__":
    main()
