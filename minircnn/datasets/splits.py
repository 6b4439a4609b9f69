"""Parts of a data set: some of its pictures, or some of its classes.

Both are data sets themselves, with the same attributes and methods, so that one can be a part of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from minircnn.datasets.coco import Target
from minircnn.datasets.coco_format import DatasetError
from minircnn.datasets.named import did_you_mean

EVERY = 5  # one picture in so many is for testing


def indices_by_id(image_ids: Sequence[int], split: str) -> list[int]:
    """Which pictures of a data set without splits of its own are for training and which for testing.

    In the order of their ids every fifth picture (the 5th, the 10th, …) is for testing, all others are for training.
    Nothing is drawn at random: the same pictures are chosen in every run, in whatever order the file lists them.

    Args:
        image_ids: of all pictures, each once.
        split: "train" or "test".

    Returns:
        Indices into ``image_ids``, ascending.

    Raises:
        DatasetError: There is no such split.

    Example:
        >>> indices_by_id([10, 20, 30, 40, 50, 60], "test"), indices_by_id([60, 50, 40, 30, 20, 10], "test")
        ([4], [1])
    """
    if split not in ("train", "test"):
        raise DatasetError(f"split: there is no {split!r} here; choose 'train' or 'test', or none for all pictures")
    order = sorted(range(len(image_ids)), key=lambda index: image_ids[index])
    wanted = split == "test"
    return sorted(index for place, index in enumerate(order, start=1) if (place % EVERY == 0) == wanted)


class Part(Dataset[tuple[Tensor, Target]]):
    """Some pictures of a data set, in a given order.

    Attributes:
        whole: The data set that this is a part of.
        indices: Of the pictures in it.
        classes: As in the whole.
        image_ids: The id of each picture, by index in this part.
    """

    def __init__(self, whole: Any, indices: Sequence[int]) -> None:  # noqa: ANN401 - any of our data sets
        """Take pictures; nothing is read.

        Args:
            whole: A data set such as :class:`~minircnn.datasets.CocoDataset`.
            indices: Of its pictures.

        Raises:
            IndexError: There is no picture of such an index.
        """
        self.whole, self.indices = whole, list(indices)
        for index in self.indices:
            if not 0 <= index < len(whole):
                raise IndexError(f"picture {index}: the data set has {len(whole)}, counted from 0")
        self.classes: list[str] = whole.classes
        self.image_ids: list[int] = [whole.image_ids[index] for index in self.indices]

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Picture ``index`` of this part and its objects."""
        return self.load_image(index), self.load_target(index)

    def image_path(self, index: int) -> Path:
        """Where the file of a picture lies."""
        return self.whole.image_path(self.indices[index])

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) of a picture."""
        return self.whole.image_size(self.indices[index])

    def load_image(self, index: int) -> Tensor:
        """Only the picture: (3, H, W) float32 in [0, 1]."""
        return self.whole.load_image(self.indices[index])

    def load_target(self, index: int) -> Target:
        """Only the target."""
        return self.whole.load_target(self.indices[index])

    def find_problems(self, index: int) -> list[str]:
        """Every defect of a picture and its objects, where the whole can tell; see the loaders."""
        find = getattr(self.whole, "find_problems", None)
        return find(self.indices[index]) if find else []


class OnlyClasses(Part):
    """A data set of which only the objects of some classes are kept, in labels of their own.

    All pictures stay, also those that have no object any more: a detector has to stay silent on them. A crowd of a kept
    class stays a crowd.

    Attributes:
        classes: "background" and the kept names, in the order that was asked for.
    """

    def __init__(self, whole: Any, classes: Sequence[str]) -> None:  # noqa: ANN401 - any of our data sets
        """Choose classes; nothing is read.

        Args:
            whole: A data set such as :class:`~minircnn.datasets.CocoDataset`.
            classes: Names of the classes to keep, "background" not among them.

        Raises:
            DatasetError: A name is unknown (with the nearest known one), given twice, or there is none.
        """
        super().__init__(whole, range(len(whole)))
        _check_names(classes, whole.classes[1:])
        self.classes = ["background", *classes]
        self._new_label = torch.zeros(len(whole.classes), dtype=torch.int64)  # 0: left out
        for label, name in enumerate(classes, start=1):
            self._new_label[whole.classes.index(name)] = label

    def load_target(self, index: int) -> Target:
        """Only the target, with the objects of the kept classes in their former order."""
        target = super().load_target(index)
        labels = self._new_label[target["labels"]]  # (G,)
        kept = labels > 0
        chosen = {key: value[kept] for key, value in target.items() if isinstance(value, Tensor)}
        return {**target, **chosen, "labels": labels[kept]}


def _check_names(wanted: Sequence[str], known: Sequence[str]) -> None:
    """Refuses a list of classes that cannot be meant."""
    if not wanted:
        raise DatasetError(f"classes: none is named; choose from {', '.join(known)}")
    for name in wanted:
        if name not in known:
            raise DatasetError(
                f"classes: there is no {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}"
            )
        if list(wanted).count(name) > 1:
            raise DatasetError(f"classes: {name!r} is named twice; name each class once")
