"""Data sets by name, as the command line asks for them: ``--data voc --root VOCdevkit/VOC2007``."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minircnn.datasets.coco_format import DatasetError

if TYPE_CHECKING:
    from minircnn.datasets.splits import Part

DATA_NAMES = ("toytown", "coco", "voc", "pennfudan", "nuclei")

WHAT_TO_NAME = {
    "coco": "the folder of the pictures, and annotations the JSON file",
    "voc": "a folder with images and their annotations (.xml), such as VOCdevkit/VOC2007",
    "pennfudan": "the folder PennFudanPed, which holds PNGImages and PedMasks",
    "nuclei": "the folder stage1_train, which holds a folder for each picture",
}
"""What ``root`` has to be."""


def open_data(
    name: str,
    root: str | Path | None = None,
    annotations: str | Path | None = None,
    *,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    masks: bool | None = None,
    drop_invalid: bool = False,
) -> Any:  # noqa: ANN401 - one of our data sets, or a part of one
    """A data set by its name.

    What comes back yields ``(image, target)`` and has ``classes``, ``image_ids``, ``image_path``, ``image_size``,
    ``load_image`` and ``load_target``, as :class:`~minircnn.datasets.CocoDataset`.

    Args:
        name: One of ``DATA_NAMES``.
        root: Where it lies; see ``WHAT_TO_NAME``. None for Toy Town, which comes with the project.
        annotations: The JSON file of a COCO data set; None for all others.
        split: Which pictures. Toy Town has "train", "val" and "test" (None: "train"). For VOC it is a list in
            ImageSets/Main: "train", "val", "trainval" or "test" (None: "trainval"). The others, and VOC without lists,
            have no split of their own: in the order of their ids every fifth picture is "test", the rest "train"; None
            is all pictures.
        classes: Names of the classes to keep, in the order of their new labels; None keeps all. Objects of other
            classes are left out, their pictures stay.
        masks: Whether targets hold masks. None: yes; of VOC, where some pictures have them.
        drop_invalid: Leave invalid objects out rather than refuse them. Not for Toy Town, which has none.

    Raises:
        FileNotFoundError: There is no such folder or file.
        DatasetError: No such name, split or class, an argument that the data set does not take or that it lacks, or a
            defect of the data.
    """
    check_places(name, root, annotations)
    data = _open(name, root, annotations, split, masks, drop_invalid)
    if classes is not None:
        from minircnn.datasets.splits import OnlyClasses

        data = OnlyClasses(data, classes)
    if split is not None and name not in ("toytown", "voc"):
        data = _part_of(data, split, root)
    return data


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """A question that follows an unknown name where a known one is close, else nothing.

    Example:
        >>> did_you_mean("preson", ["person", "car"]), did_you_mean("zebra", ["person", "car"])
        (" (did you mean 'person'?)", '')
    """
    lower = {known_name.lower(): known_name for known_name in known}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    return f" (did you mean {lower[near[0]]!r}?)" if near else ""


def check_places(name: str, root: str | Path | None, annotations: str | Path | None) -> None:
    """Refuses, without waiting for PyTorch, what :func:`open_data` could not open; for arguments and errors see there.

    That is an unknown name, a root or annotations where none is taken, their lack where they are needed, and what is
    not there.
    """
    if name not in DATA_NAMES:
        listed = ", ".join(DATA_NAMES)
        raise DatasetError(f"data: there is no {name!r}{did_you_mean(name, DATA_NAMES)}; there are {listed}")
    if name == "toytown":
        for argument, value in (("root", root), ("annotations", annotations)):
            if value is not None:
                raise DatasetError(f"{argument} {value}: toytown comes with the project; leave it out, or choose coco")
    elif root is None:
        raise DatasetError(f"root: {name} needs one: {WHAT_TO_NAME[name]}")
    elif name == "coco" and annotations is None:
        raise DatasetError("annotations: coco needs the JSON file that describes the pictures; name it")
    elif name != "coco" and annotations is not None:
        raise DatasetError(f"annotations {annotations}: {name} finds its own below root; leave it out")
    if root is not None and not Path(root).is_dir():
        raise FileNotFoundError(f"{root}: there is no such folder; name {WHAT_TO_NAME[name]}")
    if annotations is not None and not Path(annotations).is_file():
        raise FileNotFoundError(
            f"{annotations}: there is no such annotation file; check the path (a COCO file ends in .json)"
        )


def _open(
    name: str,
    root: Any,  # noqa: ANN401
    annotations: Any,  # noqa: ANN401
    split: str | None,
    masks: bool | None,
    drop_invalid: bool,
) -> Any:  # noqa: ANN401
    # Imported here: each needs only what it reads with, and Toy Town's painter is large.
    if name == "voc":
        from minircnn.datasets.voc import VocDataset

        return VocDataset(root, split, masks=masks, drop_invalid=drop_invalid)
    options = {"masks": masks is not False, "drop_invalid": drop_invalid}
    if name == "toytown":
        from minircnn.datasets.toytown import ToyTown

        return ToyTown(split or "train", masks=options["masks"])
    if name == "coco":
        from minircnn.datasets.coco import CocoDataset

        return CocoDataset(root, annotations, **options)
    if name == "pennfudan":
        from minircnn.datasets.penn_fudan import PennFudanDataset

        return PennFudanDataset(root, **options)
    from minircnn.datasets.nuclei import NucleiDataset

    return NucleiDataset(root, **options)


def _part_of(data: Any, split: str, root: str | Path | None) -> Part:  # noqa: ANN401
    from minircnn.datasets.splits import Part, indices_by_id

    indices = indices_by_id(data.image_ids, split)
    if not indices:
        raise DatasetError(f"{root}: too few pictures ({len(data)}) for split {split!r}; use all of them, no split")
    return Part(data, indices)
