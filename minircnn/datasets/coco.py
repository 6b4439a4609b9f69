"""Any folder of pictures with annotations in COCO format, as ``(image, target)`` pairs.

Lin et al. 2014, "Microsoft COCO: Common Objects in Context", section 4 (annotation) and the format on cocodataset.org.

Shape comments: G ground-truth objects, H W picture size, K classes with background.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle_codec
import torch
from torch import Tensor
from torch.utils.data import Dataset

from minircnn.datasets.coco_format import (
    DatasetError,
    Record,
    annotation_name,
    annotation_problems,
    area_problem,
    category_problems,
    image_problems,
    is_id,
    raise_problems,
    read_coco_json,
    repeated_files,
)
from minircnn.datasets.images import fit_stated_size, read_image, turn, turn_boxes

Target = dict[str, Any]

BACKGROUND = "background"


class CocoDataset(Dataset[tuple[Tensor, Target]]):
    """Pictures and their objects, from a folder and a COCO annotation file.

    ``dataset[i]`` is ``(image, target)``: the image as (3, H, W) float32 in [0, 1], the target a dict of

    ==========  ===================  ========================================================
    boxes       (G, 4) float32       x1, y1, x2, y2 in pixels, half open
    labels      (G,) int64           1 … K-1; 0 is background
    masks       (G, H, W) bool       only with ``masks=True``
    image_id    int                  the file's id of the image
    iscrowd     (G,) bool            the region of a crowd, not of one object
    area        (G,) float32         as the file states it (else of the box): COCO measures size by it
    ==========  ===================  ========================================================

    Pictures stand in the order of the file, objects within a picture too. A picture without objects stays, with G = 0:
    it is all background, and a detector has to stay silent on it.

    Images are upright, as a viewer shows them, and objects lie on the upright image: where the file states the size of
    the unturned pixels of an image that an EXIF tag turns, its annotations are turned with it (docs/data_formats.md).

    Paper vs code: COCO's 80 categories have ids from 1 to 90 with gaps. A classifier needs labels without gaps, so
    label ``k`` is the k-th category in order of its id. torchvision's ``CocoDetection`` leaves that, the conversion of
    boxes from (x, y, width, height), and the decoding of masks to its user.

    Attributes:
        root: Folder of the pictures.
        annotations: The annotation file.
        classes: K names; ``classes[0]`` is "background".
        category_ids: K - 1 ids of the file; ``category_ids[label - 1]`` belongs to a label.
        image_ids: The file's id of each picture, by index.
        dropped: Defects of the annotations that were left out (only with ``drop_invalid=True``).
        left_out: How many annotations these are.
        odd: What is odd in the file although it can be read: categories of one name (read as one class), files under
            two image ids, areas that cannot be.
    """

    def __init__(
        self, root: str | Path, annotations: str | Path, *, masks: bool = True, drop_invalid: bool = False
    ) -> None:
        """Read the annotation file and check all of it; no picture is opened yet.

        Args:
            root: Folder that the ``file_name`` of each image is relative to.
            annotations: The JSON file.
            masks: Whether targets hold masks. False also accepts files without ``segmentation``.
            drop_invalid: Leave invalid annotations out and list their defects in ``dropped``, rather than refuse the
                file. Pictures and categories must be right all the same.

        Raises:
            FileNotFoundError: No such folder or file.
            DatasetError: Every defect that the file shows, each with image, annotation and remedy.
        """
        self.root, self.annotations, self.masks = Path(root), Path(annotations), masks
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self.root}: there is no such folder of pictures; check the root")
        content = read_coco_json(self.annotations)
        categories, images = content["categories"], content["images"]
        raise_problems(
            self.annotations, [*category_problems(categories), *image_problems(images, self.root)], advice=""
        )

        self._images: list[Record] = images
        self.image_ids: list[int] = [image["id"] for image in images]
        self.odd: list[str] = list(repeated_files(images))
        self._name_classes(categories, content["annotations"])
        self._objects, problems = self._sort_annotations(content["annotations"])
        kept = [annotation for objects in self._objects.values() for annotation in objects]
        self.left_out = len(content["annotations"]) - len(kept)
        self.dropped: list[str] = problems if drop_invalid else []
        if not drop_invalid:
            raise_problems(self.annotations, problems)
        by_id = {image["id"]: image for image in images}
        self.odd += [
            annotation_name(annotation, by_id[annotation["image_id"]]) + problem
            for annotation in kept
            if (problem := area_problem(annotation))
        ]

    def _name_classes(self, categories: list[Record], annotations: list[Any]) -> None:
        """Labels for the categories, one for each name."""
        used = {one["category_id"] for one in annotations if isinstance(one, dict) and is_id(one.get("category_id"))}
        ids: dict[str, list[int]] = {}
        for category in sorted(categories, key=lambda category: category["id"]):
            ids.setdefault(category["name"], []).append(category["id"])
        if BACKGROUND in ids and not used.intersection(ids[BACKGROUND]):
            del ids[BACKGROUND]  # which every detector has anyway
        for name, same in ids.items():
            if name == BACKGROUND:
                problem = f"category {same[0]}: objects cannot be of the class {name!r}: rename it, or delete them"
                raise_problems(self.annotations, [problem], advice="")
            if len(same) > 1:
                self.odd.append(
                    f"categories {' and '.join(map(str, same))}: two categories of the same name, {name!r}, are "
                    "read as one class: delete one, or give each its own name"
                )
        self.classes: list[str] = [BACKGROUND, *ids]
        self.category_ids: list[int] = [next((one for one in same if one in used), same[0]) for same in ids.values()]
        self._label_of = {one: label for label, same in enumerate(ids.values(), start=1) for one in same}

    def _sort_annotations(self, annotations: list[Any]) -> tuple[dict[int, list[Record]], list[str]]:
        """The valid annotations by their image id, and the problems of the others."""
        images = {image["id"]: image for image in self._images}
        by_image: dict[int, list[Record]] = {image_id: [] for image_id in images}
        seen: set[int] = set()
        problems: list[str] = []
        for annotation in annotations:
            found = list(annotation_problems(annotation, images, self._label_of.keys(), self.masks))
            if not found and annotation["id"] in seen:
                where = annotation_name(annotation, images[annotation["image_id"]])
                found = [f"{where}its id is used twice: give each annotation its own id"]
            if found:
                problems += found
            else:
                seen.add(annotation["id"])
                by_image[annotation["image_id"]].append(annotation)
        return by_image, problems

    def __len__(self) -> int:
        """Number of pictures, those without objects included."""
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Picture ``index`` and its objects; see the class for shapes.

        Raises:
            IndexError: No such picture.
            DatasetError: The file cannot be decoded, or its size is not the one that the JSON states.
        """
        return self.load_image(index), self.load_target(index)

    def image_path(self, index: int) -> Path:
        """Where the file of picture ``index`` lies."""
        return self.root / self._images[index]["file_name"]

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) of picture ``index``, upright; for errors see :meth:`load_image`."""
        return self._look_at(index)[0]

    def _look_at(self, index: int) -> tuple[tuple[int, int], int]:
        """The upright size of an image, and the EXIF tag to turn its annotations by."""
        try:
            return fit_stated_size(self.image_path(index), self._stated_size(index))
        except DatasetError as error:
            raise DatasetError(f"{self._name(index)}: {error}") from error

    def _stated_size(self, index: int) -> tuple[int, int]:
        return self._images[index]["height"], self._images[index]["width"]

    def _name(self, index: int) -> str:
        return f"{self.image_path(index)} (image {self.image_ids[index]} of {self.annotations})"

    def load_image(self, index: int) -> Tensor:
        """Only the picture: (3, H, W) float32 in [0, 1].

        Raises:
            IndexError: No such picture.
            DatasetError: The file cannot be decoded, or its size is not the one that the JSON states.
        """
        self._look_at(index)
        try:
            return read_image(self.image_path(index))  # (3, H, W)
        except DatasetError as error:
            raise DatasetError(f"{self._name(index)}: {error}") from error

    def annotation_sources(self, index: int) -> list[str | Path]:
        """What the files say about the objects of image ``index``: text, and files whose content says the rest."""
        return [repr((self._images[index], self._objects[self.image_ids[index]]))]

    def load_target(self, index: int) -> Target:
        """Only the target, of the image only its size: for counting, or for evaluating. See the class for its keys.

        Raises:
            IndexError: No such picture.
            DatasetError: The file is no image, or its size is not the one that the JSON states.
        """
        objects = self._objects[self.image_ids[index]]
        size, orientation = self._look_at(index)
        corners = [(x, y, x + w, y + h) for x, y, w, h in (annotation["bbox"] for annotation in objects)]
        boxes = torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)  # (G, 4), also for G = 0
        target: Target = {
            "boxes": turn_boxes(boxes, orientation, size),
            "labels": torch.tensor([self._label_of[a["category_id"]] for a in objects], dtype=torch.int64),  # (G,)
            "image_id": self.image_ids[index],
            "iscrowd": torch.tensor([a.get("iscrowd", 0) for a in objects], dtype=torch.bool),  # (G,)
            "area": torch.tensor([_area_of(a) for a in objects], dtype=torch.float32),  # (G,)
        }
        if self.masks:
            masks = decode_masks([a["segmentation"] for a in objects], self._stated_size(index))
            target["masks"] = turn(masks, orientation)  # (G, H, W)
        return target


def _area_of(annotation: Record) -> float:
    """As the file states it, else that of the box."""
    area, (width, height) = annotation.get("area"), annotation["bbox"][2:]
    return width * height if area is None else area


def decode_masks(segmentations: list[Any], size: tuple[int, int]) -> Tensor:
    """Masks of any of COCO's three kinds as pixels.

    Args:
        segmentations: G times polygons, uncompressed or compressed run lengths, all of one picture.
        size: (height, width) of the picture.

    Returns:
        (G, H, W) bool.

    Raises:
        ValueError: A run-length mask of another size.
    """
    height, width = size
    if not segmentations:
        return torch.zeros((0, height, width), dtype=torch.bool)
    encoded = []
    for segmentation in segmentations:
        if isinstance(segmentation, list):
            segmentation = rle_codec.merge(rle_codec.frPyObjects(segmentation, height, width))
        elif list(segmentation["size"]) != [height, width]:
            raise ValueError(f"mask of size {segmentation['size']} for a picture of [{height}, {width}]: make it again")
        elif isinstance(segmentation["counts"], list):
            segmentation = rle_codec.frPyObjects(segmentation, height, width)
        encoded.append(segmentation)
    with warnings.catch_warnings():  # pycocotools 2.0.11 does not know a keyword that NumPy 2 would like it to know
        warnings.filterwarnings("ignore", message="__array__", category=DeprecationWarning)
        masks = rle_codec.decode(encoded)  # (H, W, G) uint8
    return torch.from_numpy(np.ascontiguousarray(masks.transpose(2, 0, 1))).bool()  # (G, H, W)


def collate(batch: list[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    """Batch for a ``DataLoader``: a list of images and a list of targets, since pictures differ in size.

    Args:
        batch: ``(image, target)`` pairs.

    Returns:
        The images and the targets, in the same order; nothing is copied.

    Example:
        >>> batch = [(torch.zeros(3, 4, 5), {"image_id": 1}), (torch.zeros(3, 6, 7), {"image_id": 2})]
        >>> images, targets = collate(batch)
        >>> [tuple(image.shape) for image in images], [target["image_id"] for target in targets]
        ([(3, 4, 5), (3, 6, 7)], [1, 2])
    """
    return [image for image, _ in batch], [target for _, target in batch]
