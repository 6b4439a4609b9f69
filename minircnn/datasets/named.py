"""Data sets by name, as the command line asks for them (``--data voc --root VOCdevkit/VOC2007``), and their errors.

Nothing here waits for PyTorch, so that a wrong argument is refused at once.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

_PLACES = {
    "toytown": ("toytown", "ToyTown"),
    "coco": ("coco", "CocoDataset"),
    "voc": ("voc", "VocDataset"),
    "pennfudan": ("folders", "PennFudanDataset"),
    "nuclei": ("folders", "NucleiDataset"),
}
DATA_NAMES = tuple(_PLACES)
WHAT_TO_NAME = {
    "coco": "the folder of the images, and annotations the JSON file",
    "voc": "a folder with images and their annotations (.xml), such as VOCdevkit/VOC2007",
    "pennfudan": "the folder PennFudanPed, which holds PNGImages and PedMasks",
    "nuclei": "the folder stage1_train, which holds a folder for each image",
}
"""What ``root`` has to be."""

EVERY = 5  # one image in so many is for testing
MOST_LISTED = 10  # kinds of defects that an error names
MOST_ALIKE = 3  # defects of one kind that are told one by one; of more, the first is told and the places of these
DROP_THEM = "drop_invalid=True, on the command line --drop-invalid, leaves invalid annotations out"
_DETAIL = re.compile(r"'[^']*'|\[[^\]]*\]|-?\d[\d.]*(e[+-]?\d+)?")  # what differs between defects of one kind


class DatasetError(ValueError):
    """A data set that cannot be used as it is, and every defect, one sentence each, where there may be several."""

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems)


def raise_problems(path: Path, problems: Sequence[str], advice: str = DROP_THEM) -> None:
    """Raise one :class:`DatasetError` that lists the problems of a file, if any, and what helps against them."""
    if problems:
        kinds = grouped(problems)
        more = [f"… and {len(kinds) - MOST_LISTED} more lines"] * (len(kinds) > MOST_LISTED)
        first = f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)}"
        raise DatasetError("\n  ".join(filter(None, [first, *kinds[:MOST_LISTED], *more, advice])), problems)


def grouped(problems: Iterable[str]) -> list[str]:
    """Defects of one kind in one line: the first, how many there are, and the first three places; up to three in full.

    They are sentences "place: what is wrong", of one kind if they differ only in place, numbers and quoted words.

        >>> grouped([f"image {n}: box [{n}, 2] is not right" for n in range(5)])
        ['image 0: box [0, 2] is not right (and 4 more like this: image 1; image 2; …)']
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        kinds[_DETAIL.sub("#", problem.partition(": ")[2] or problem)].append(problem)
    lines = []
    for alike in kinds.values():
        if len(alike) <= MOST_ALIKE:
            lines += alike
        else:
            places = "; ".join(problem.partition(": ")[0] for problem in alike[1:MOST_ALIKE])
            lines.append(f"{alike[0]} (and {len(alike) - 1} more like this: {places}; …)")
    return lines


def no_such(name: str, known: Sequence[str], place: str = "") -> str:
    """What to say of an unknown name: the known one that is close, if any, and all that there are.

    >>> no_such("preson", ["person", "car"]), no_such("x", ["car"], " here")
    ("there is no 'preson' (did you mean 'person'?); there are person, car", "there is no 'x' here; there are car")
    """
    lower = {known_name.lower(): known_name for known_name in known}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    hint = f" (did you mean {lower[near[0]]!r}?)" if near else ""
    return f"there is no {name!r}{place}{hint}; there are {', '.join(known)}"


def check_places(name: str, root: str | Path | None, annotations: str | Path | None) -> None:
    """Refuse what :func:`open_data` could not open, before any file is read; for arguments and errors see there."""
    if name not in DATA_NAMES:
        raise DatasetError(f"data: {no_such(name, DATA_NAMES)}")
    for argument, value, wanted in (("root", root, name != "toytown"), ("annotations", annotations, name == "coco")):
        if wanted and value is None:
            needed = "one" if argument == "root" else "the JSON file"
            raise DatasetError(f"{argument}: {name} needs {needed}: {WHAT_TO_NAME[name]}")
        if value is not None and not wanted:
            why = "comes with the project" if name == "toytown" else "finds its own below root"
            raise DatasetError(f"{argument} {value}: {name} {why}; leave it out")
    if root is not None and not Path(root).is_dir():
        raise FileNotFoundError(f"{root}: there is no such folder; name {WHAT_TO_NAME[name]}")
    if annotations is not None and not Path(annotations).is_file():
        raise FileNotFoundError(f"{annotations}: there is no such annotation file; check the path, which ends in .json")


def open_data(
    name: str,
    root: str | Path | None = None,
    annotations: str | Path | None = None,
    *,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    masks: bool | None = None,
    drop_invalid: bool = False,
) -> Any:  # noqa: ANN401 - one of our data sets
    """A data set by its name, one of ``DATA_NAMES``; see :class:`~minircnn.datasets.images.ImageDataset`.

    Args:
        name: Of the data set.
        root: Where it lies; see ``WHAT_TO_NAME``. None for Toy Town, which comes with the project.
        annotations: The JSON file of a COCO data set; None for all others.
        split: Which images. Toy Town has "train", "val" and "test" (None: "train"), VOC what its lists name (None:
            "trainval"). Of the others every fifth image by id is "test", the rest "train"; None is all images.
        classes: Names of the classes to keep, in the order of their new labels; None keeps all. All images stay.
        masks: Whether targets hold masks. None: yes; of VOC, where some images have them.
        drop_invalid: Leave invalid objects out rather than refuse them. Not for Toy Town, which has none.

    A folder or file that is not there is a FileNotFoundError; all else that is wrong, with the arguments or the data, a
    DatasetError.
    """
    check_places(name, root, annotations)
    module, kind = _PLACES[name]
    kind = getattr(import_module(f"minircnn.datasets.{module}"), kind)  # each needs only what it reads with
    if name == "toytown":
        data = kind(split or "train", masks=masks is not False)
    elif name == "voc":
        data = kind(root, split, masks=masks, drop_invalid=drop_invalid)
    else:
        places = (root, annotations) if name == "coco" else (root,)
        data = kind(*places, masks=masks is not False, drop_invalid=drop_invalid)
    data = data if classes is None else data.only(classes)
    if split is not None and name not in ("toytown", "voc"):
        indices = indices_by_id(data.image_ids, split)
        if not indices:
            raise DatasetError(f"{root}: too few images ({len(data)}) for split {split!r}; use all, no split")
        data = data.part(indices)
    return data


def indices_by_id(image_ids: Sequence[int], split: str) -> list[int]:
    """Indices of the images of a data set without splits of its own that are for "train" or for "test", ascending.

    In the order of their ids every fifth image (the 5th, the 10th, …) is for testing, in every run.

    >>> indices_by_id([10, 20, 30, 40, 50, 60], "test"), indices_by_id([60, 50, 40, 30, 20, 10], "test")
    ([4], [1])
    """
    if split not in ("train", "test"):
        raise DatasetError(f"split: there is no {split!r} here; choose 'train' or 'test', or none for all images")
    order = sorted(range(len(image_ids)), key=lambda index: image_ids[index])
    wanted = split == "test"
    return sorted(index for place, index in enumerate(order, start=1) if (place % EVERY == 0) == wanted)
