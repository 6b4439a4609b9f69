"""Cell nuclei under the microscope: the image set BBBC038, known from the 2018 Data Science Bowl.

Caicedo et al. 2019, "Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl" (Nature Methods 16).
670 pictures of many kinds of tissue, each nucleus drawn in a file of its own:

    stage1_train/<id>/images/<id>.png     the picture, RGBA
    stage1_train/<id>/masks/<any>.png     a nucleus: 255 where it is, 0 elsewhere

Shape comments: G nuclei of a picture, H W picture size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from minircnn.datasets.coco_format import DatasetError, raise_problems
from minircnn.datasets.folder import (
    MaskFolder,
    Objects,
    boxes_around,
    check_folder,
    images_in,
    read_values,
    room_for_masks,
    size_problem,
)

NUCLEUS = "nucleus"


class NucleiDataset(MaskFolder):
    """Pictures of cells and the nuclei in them.

    ``dataset[i]`` is ``(image, target)`` as of :class:`~minircnn.datasets.CocoDataset`; boxes and areas are those of
    the masks, objects stand in the order of the names of their files, and none is a crowd. Nuclei that touch stay
    apart, since each has a mask of its own. Transparency of a picture is dropped.

    Attributes:
        root: The folder stage1_train.
        classes: "background" and "nucleus".
        names: Of the pictures, the long ids of the set, sorted.
        image_ids: Their places in ``names``, from 1.
        dropped: What is missing of pictures that were left out (only with ``drop_invalid=True``).
    """

    def __init__(self, root: str | Path, *, masks: bool = True, drop_invalid: bool = False) -> None:
        """List the files; none is opened yet.

        Args:
            root: The folder that holds a folder for each picture.
            masks: Whether targets hold masks.
            drop_invalid: Leave invalid masks out, and pictures of which a file or folder is missing, rather than refuse
                them.

        Raises:
            FileNotFoundError: No such folder.
            DatasetError: There are no pictures, or a picture lacks its file or its folder of masks.
        """
        root = check_folder(root, (), "the folder stage1_train")
        names = sorted(path.name for path in root.iterdir() if path.is_dir() and path.name[0] not in "._")
        problems = {name: problem for name in names if (problem := _what_is_missing(root / name))}
        if len(problems) == len(names):
            raise DatasetError(
                f"{root}: no picture with masks in it; name the folder stage1_train, which holds <id>/images/<id>.png "
                "and <id>/masks/*.png"
            )
        self.dropped = list(problems.values())
        if not drop_invalid:
            raise_problems(root, self.dropped)
        super().__init__(root, [NUCLEUS], [name for name in names if name not in problems], masks, drop_invalid)

    def image_path(self, index: int) -> Path:
        """Where the file of picture ``index`` lies."""
        name = self.names[index]
        return self.root / name / "images" / f"{name}.png"

    def annotation_sources(self, index: int) -> list[str | Path]:
        """What the files say about the objects of image ``index``: text, and files whose content says the rest."""
        return [self.names[index], *images_in(self.root / self.names[index] / "masks")]

    def read_objects(self, index: int) -> Objects:
        """The nuclei of a picture, with every defect of their masks."""
        folder, size, kept = self.root / self.names[index] / "masks", self.image_size(index), []
        paths = images_in(folder)
        objects = Objects(room_for_masks(folder, len(paths), size))
        for path in paths:
            try:
                values = read_values(path)  # (H, W)
            except (DatasetError, OSError) as error:
                objects.invalid.append(f"mask {str(error).removeprefix(f'{path.parent}/')}")
                continue
            if problem := size_problem(values, size) or _value_problem(values):
                objects.invalid.append(f"mask {path.name}: {problem}")
                continue
            if values.max() != 255:
                objects.odd.append(
                    f"mask {path.name}: the nucleus is drawn in {values.max()}, not in 255: other programs may see "
                    "nothing; write 0 and 255"
                )
            objects.masks[len(kept)] = values > 0
            kept.append(path.name)
        objects.masks = objects.masks[: len(kept)]
        objects.odd += _overlaps(objects.masks, kept)
        return objects


def _what_is_missing(folder: Path) -> str | None:
    """What a picture's folder lacks, and what to do; None if nothing."""
    picture = folder / "images" / f"{folder.name}.png"
    if not picture.is_file():
        return f"{picture}: there is no such picture; unpack the archive again or remove {folder}"
    if not (folder / "masks").is_dir():
        return (
            f"{folder / 'masks'}: there is no such folder; make it (empty if the picture shows no nucleus). Pictures "
            "without it are for testing: nobody has drawn their nuclei"
        )
    return None


def _value_problem(values: NDArray[np.integer]) -> str | None:
    """Why the numbers in a mask cannot be told apart into nucleus and the rest; None if they can."""
    found = np.unique(values).tolist()
    if not any(found):
        return "it is empty, no pixel is above 0: draw the nucleus or delete the file"
    if len(set(found) | {0}) > 2:
        listed = ", ".join(map(str, found[:5])) + (" …" if len(found) > 5 else "")
        return (
            f"it holds {listed}, but a mask has 0 and 255 only: write it without smoothing, one file for each nucleus"
        )
    return None


def _overlaps(masks: NDArray[np.bool_], files: list[str]) -> list[str]:
    """Pairs of nuclei that share pixels, which none may in this set: masks (G, H, W), and the name of each file."""
    shared = masks.sum(axis=0) > 1  # (H, W)
    involved = [index for index, mask in enumerate(masks) if (mask & shared).any()] if shared.any() else []
    boxes = boxes_around(torch.from_numpy(masks[involved])).int().tolist()
    problems = []
    for place, (first, (x1, y1, x2, y2)) in enumerate(zip(involved, boxes, strict=True)):
        for second in involved[place + 1 :]:
            pixels = int((masks[first] & masks[second])[y1:y2, x1:x2].sum())
            if pixels:
                both = f"masks {files[first]} and {files[second]}"
                problems.append(f"{both}: {pixels} pixel{'s' * (pixels > 1)} in both; give each to one nucleus")
    return problems
