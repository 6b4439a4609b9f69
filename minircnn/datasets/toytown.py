"""Toy Town as a data set of `(image, target)` pairs."""

from pathlib import Path

from minircnn.datasets.coco import CocoDataset
from minircnn.datasets.toytown.build import SPLITS
from minircnn.shipped import TOYTOWN_FOLDER as DATA_FOLDER


class ToyTown(CocoDataset):
    """One split of the fixed set: "train" (1000 pictures), "val" (200) or "test" (200), each 128 × 128.

    Labels are 1 person, 2 car, 3 cat, 4 tree, 5 house, 6 balloon. See `CocoDataset` for the pairs, and data/README.md
    for the data.

    Args:
        split: "train", "val" or "test".
        folder: the folder with the annotation files; None for the one in the clone that this package is installed from.
        masks: whether targets hold masks.

    Raises:
        ValueError: if there is no such split.
        FileNotFoundError: if the folder or the annotations are missing.
    """

    def __init__(self, split: str = "train", folder: str | Path | None = None, *, masks: bool = True) -> None:
        if split not in SPLITS:
            raise ValueError(f"split: there is no {split!r} in Toy Town; choose one of {', '.join(map(repr, SPLITS))}")
        root = DATA_FOLDER if folder is None else Path(folder)
        annotations = root / f"instances_{split}.json"
        if not annotations.is_file():
            raise FileNotFoundError(
                f"{annotations}: not found. Toy Town lies in data/toytown of the project's clone: install the package "
                "from a clone (pip install -e .), pass folder=, or paint the set with "
                "`python -m minircnn.datasets.toytown --out FOLDER`"
            )
        super().__init__(root, annotations, masks=masks)
