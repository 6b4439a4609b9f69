"""The Penn-Fudan database of pedestrians: 170 street scenes with a mask of each pedestrian.

Wang, Shi, Song and Shen 2007, "Object Detection Combining Recognition and Segmentation" (ACCV). The folder that the
publisher's archive unpacks to:

    PennFudanPed/PNGImages/FudanPed00001.png
    PennFudanPed/PedMasks/FudanPed00001_mask.png    0 is background, n the n-th pedestrian
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minircnn.datasets.coco_format import DatasetError, raise_problems
from minircnn.datasets.folder import (
    MaskFolder,
    Objects,
    check_folder,
    images_in,
    masks_of_numbers,
    read_values,
    size_problem,
)

PEDESTRIAN = "pedestrian"


class PennFudanDataset(MaskFolder):
    """Pictures of streets and the pedestrians in them.

    ``dataset[i]`` is ``(image, target)`` as of :class:`~minircnn.datasets.CocoDataset`; boxes and areas are those of
    the masks, and no object is a crowd. The files in Annotation are not read: they say the same, less exactly.

    Attributes:
        root: The folder PennFudanPed.
        classes: "background" and "pedestrian".
        names: Of the pictures, such as "FudanPed00001", sorted.
        image_ids: Their places in ``names``, from 1.
        dropped: Pictures without a mask file that were left out (only with ``drop_invalid=True``).
    """

    def __init__(self, root: str | Path, *, masks: bool = True, drop_invalid: bool = False) -> None:
        """List the files; none is opened yet.

        Args:
            root: The folder that holds PNGImages and PedMasks.
            masks: Whether targets hold masks.
            drop_invalid: Has no effect on masks that can be read: every number in one is a pedestrian. Pictures whose
                mask file is missing are left out rather than refused.

        Raises:
            FileNotFoundError: No such folder.
            DatasetError: There are no pictures, or masks are missing.
        """
        root = check_folder(root, ("PNGImages", "PedMasks"), "the folder PennFudanPed with PNGImages and PedMasks")
        names = [path.stem for path in images_in(root / "PNGImages", ".png")]
        if not names:
            raise DatasetError(f"{root / 'PNGImages'}: no pictures (.png) in this folder; unpack the archive again")
        missing = [name for name in names if not mask_path(root, name).is_file()]
        self.dropped = [
            f"{root / 'PNGImages' / name}.png: its mask {mask_path(root, name)} is missing; unpack the archive again "
            "or remove the picture"
            for name in missing
        ]
        if not drop_invalid:
            raise_problems(root, self.dropped)
        kept = [name for name in names if name not in set(missing)]
        super().__init__(root, [PEDESTRIAN], kept, masks, drop_invalid)

    def image_path(self, index: int) -> Path:
        """Where the file of picture ``index`` lies."""
        return self.root / "PNGImages" / f"{self.names[index]}.png"

    def annotation_sources(self, index: int) -> list[str | Path]:
        """What the files say about the objects of image ``index``: text, and files whose content says the rest."""
        return [self.names[index], mask_path(self.root, self.names[index])]

    def read_objects(self, index: int) -> Objects:
        """The pedestrians of a picture: every number above 0 in its mask file is one."""
        path = mask_path(self.root, self.names[index])
        values = read_values(path)  # (H, W)
        if problem := size_problem(values, self.image_size(index)):
            raise DatasetError(f"{path}: {problem}")
        numbers = np.unique(values[values > 0]).tolist()
        objects = Objects(masks_of_numbers(path, values, numbers))
        last = max(numbers, default=0)
        if gaps := sorted(set(range(1, min(last, 256))) - set(numbers)):
            objects.odd.append(
                f"mask {path.name}: pedestrian {gaps[0]} has no pixels although there is a pedestrian {last}; draw "
                "it, or number the others without gaps"
            )
        return objects


def mask_path(root: Path, name: str) -> Path:
    """Where the mask file of a picture lies."""
    return root / "PedMasks" / f"{name}_mask.png"
