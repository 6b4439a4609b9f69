"""Any folder of pictures with annotations in COCO format, as ``(image, target)`` pairs.

Lin et al. 2014, "Microsoft COCO: Common Objects in Context", section 4 (annotation) and the format on cocodataset.org.

Shape comments: G ground-truth objects, H W picture size, K classes with background.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle_codec
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from minircnn.datasets.coco_format import (
    DatasetError,
    Record,
    annotation_problems,
    category_problems,
    image_problems,
    raise_problems,
    read_coco_json,
)

Target = dict[str, Any]

_ORIENTATION = 0x0112  # the number of the EXIF tag
# What its values ask for: whether rows and columns are exchanged, and which axes of (3, H, W) are then turned round.
_TURNS: dict[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (2,)),
    3: (False, (1, 2)),
    4: (False, (1,)),
    5: (True, ()),
    6: (True, (2,)),
    7: (True, (1, 2)),
    8: (True, (1,)),
}


class CocoDataset(Dataset[tuple[Tensor, Target]]):
    """Pictures and their objects, from a folder and a COCO annotation file.

    ``dataset[i]`` is ``(image, target)``: the image as (3, H, W) float32 in [0, 1], the target a dict of

    ==========  ===================  ========================================================
    boxes       (G, 4) float32       x1, y1, x2, y2 in pixels, half open, as the file states them
    labels      (G,) int64           1 … K-1; 0 is background
    masks       (G, H, W) bool       only with ``masks=True``
    image_id    int                  the file's id of the image
    iscrowd     (G,) bool            the region of a crowd, not of one object
    area        (G,) float32         as the file states it: COCO measures size by it, not by the box
    ==========  ===================  ========================================================

    Pictures stand in the order of the file, objects within a picture too. A picture without objects stays, with G = 0:
    it is all background, and a detector has to stay silent on it.

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
        raise_problems(self.annotations, [*category_problems(categories), *image_problems(images, self.root)])

        categories = sorted(categories, key=lambda category: category["id"])
        self.classes: list[str] = ["background", *(category["name"] for category in categories)]
        self.category_ids: list[int] = [category["id"] for category in categories]
        self._label_of = {category_id: label for label, category_id in enumerate(self.category_ids, start=1)}
        self.image_ids: list[int] = [image["id"] for image in images]
        self._images: list[Record] = images
        self._objects, problems = self._sort_annotations(content["annotations"])
        self.dropped: list[str] = problems if drop_invalid else []
        if not drop_invalid:
            raise_problems(self.annotations, problems)

    def _sort_annotations(self, annotations: list[Any]) -> tuple[dict[int, list[Record]], list[str]]:
        """The valid annotations by their image id, and the problems of the others."""
        images = {image["id"]: image for image in self._images}
        category_ids = set(self.category_ids)
        by_image: dict[int, list[Record]] = {image_id: [] for image_id in images}
        seen: set[int] = set()
        problems: list[str] = []
        for annotation in annotations:
            found = list(annotation_problems(annotation, images, category_ids, self.masks))
            if not found and annotation["id"] in seen:
                name = images[annotation["image_id"]]["file_name"]
                found = [
                    f"image {annotation['image_id']} ({name!r}), annotation {annotation['id']}: its id is used twice: "
                    "give each annotation its own id"
                ]
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
        """(height, width) of picture ``index``, as the JSON states it."""
        return self._images[index]["height"], self._images[index]["width"]

    def load_image(self, index: int) -> Tensor:
        """Only the picture: (3, H, W) float32 in [0, 1].

        Raises:
            IndexError: No such picture.
            DatasetError: The file cannot be decoded, or its size is not the one that the JSON states.
        """
        record, path = self._images[index], self.image_path(index)
        name = f"{path} (image {record['id']} of {self.annotations})"
        try:
            image, hint = read_image(path), ""
        except DatasetError as error:
            raise DatasetError(f"{name}: {error}") from error
        stated, actual = self.image_size(index), tuple(image.shape[1:])
        if stated != actual:
            if stated == actual[::-1]:
                hint = " (height and width are exchanged: was the JSON written for the picture turned by its EXIF tag?)"
            raise DatasetError(
                f"{name}: the picture is {actual[0]} high and {actual[1]} wide, the JSON says {stated[0]} and "
                f"{stated[1]}{hint}; its boxes may not fit: use the original picture or correct the JSON"
            )
        return image  # (3, H, W)

    def load_target(self, index: int) -> Target:
        """Only the target, without opening the picture: for counting, or for evaluating. See the class for its keys."""
        objects = self._objects[self.image_ids[index]]
        height, width = self.image_size(index)
        corners = [(x, y, x + w, y + h) for x, y, w, h in (annotation["bbox"] for annotation in objects)]
        target: Target = {
            "boxes": torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),  # (G, 4), also for G = 0
            "labels": torch.tensor([self._label_of[a["category_id"]] for a in objects], dtype=torch.int64),  # (G,)
            "image_id": self.image_ids[index],
            "iscrowd": torch.tensor([a.get("iscrowd", 0) for a in objects], dtype=torch.bool),  # (G,)
            "area": torch.tensor([a["area"] for a in objects], dtype=torch.float32),  # (G,)
        }
        if self.masks:
            target["masks"] = decode_masks([a["segmentation"] for a in objects], (height, width))  # (G, H, W)
        return target


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


def read_image(path: str | Path, *, upright: bool = False) -> Tensor:
    """Read a picture file as RGB.

    Grey pictures get three equal channels; transparency is dropped (the colours below it show); a palette is looked up;
    of a moving picture the first frame is taken. 16-bit grey pictures are divided by 65535, so that they keep their
    full range (Pillow alone would clip it at 255). An EXIF tag that turns the picture is *not* obeyed by default: COCO
    states sizes and boxes for the pixels as they lie in the file. (In a TIFF the tag belongs to the format, and Pillow
    obeys it in any case.)

    Args:
        path: The picture file, of any format that Pillow reads.
        upright: Obey the EXIF tag: the picture as a viewer shows it. A tag that is damaged turns nothing.

    Returns:
        (3, H, W) float32 in [0, 1].

    Raises:
        FileNotFoundError: There is no such file.
        PermissionError: It may not be read.
        DatasetError: The file cannot be decoded (it is cut off, or no picture), its numbers have no known range, or it
            states a size that would not fit into memory.
    """
    with open_picture(path) as file:
        image = _decode(file)  # (3, H, W)
        orientation = _exif_orientation(file) if upright else 1
    return _turn(image, orientation)


@contextmanager
def open_picture(path: str | Path) -> Iterator[Image.Image]:
    """A picture file for Pillow; whatever damaged files make it raise in the block becomes one kind of error.

    Raises:
        FileNotFoundError: There is no such file.
        PermissionError: It may not be read.
        DatasetError: It cannot be decoded, or states a size that would not fit into memory; without the path.
    """
    try:
        # Given a path, Pillow (13) maps some files into memory and garbles those that a TIFF's tag turns.
        with Path(path).open("rb") as stream, Image.open(stream) as file:
            yield file
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such picture; check the path") from None
    except PermissionError:
        raise PermissionError(f"{path}: may not be read; change its permissions") from None
    except DatasetError:
        raise
    # The second is a warning of Pillow's, which arrives here where a caller has made an error of it.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = str(error).partition(",")[0]
        raise DatasetError(f"the picture is too large to be read safely ({reason}); make it smaller") from error
    # Damaged files make Pillow's readers raise nearly anything: SyntaxError for a PNG, RuntimeError for an AVIF, …
    except Exception as error:
        unknown = isinstance(error, UnidentifiedImageError)  # whose own words are little more than the path
        reason = "no picture of a known kind" if unknown else str(error) or type(error).__name__
        raise DatasetError(f"the picture cannot be decoded ({reason}); fetch or write the file again") from error


def _decode(file: Image.Image) -> Tensor:
    """The pixels of an opened file, as they lie in it: (3, H, W) float32 in [0, 1]."""
    if file.format == "EPS":  # which Pillow would give to Ghostscript to run, whatever the file is called
        raise DatasetError("PostScript is a program and is not run; save the picture as PNG or JPEG")
    file.load()  # now, because it may turn a TIFF, and exchange its height and width
    if file.mode == "F":
        raise DatasetError("its values are floats without a known range; save the picture with 8 or 16 bits")
    if file.mode.startswith("I"):  # 16-bit grey; "I" itself is how older Pillows open it
        grey = np.asarray(file).astype(np.float32) / 65535.0  # (H, W)
        return torch.from_numpy(grey).clamp(0, 1).expand(3, -1, -1).contiguous()  # (3, H, W)
    # Through RGBA, because a palette with transparent entries makes Pillow warn on the direct way.
    rgb = file.convert("RGBA").convert("RGB") if file.mode == "P" else file.convert("RGB")
    pixels = np.array(rgb)  # (H, W, 3) uint8
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float().div_(255)  # (3, H, W)


def _exif_orientation(file: Image.Image) -> int:
    """What the EXIF tag says about the first row and column, from 1 (all is upright) to 8."""
    if file.format == "TIFF":  # already obeyed; older Pillows keep the tag all the same
        return 1
    try:
        return file.getexif().get(_ORIENTATION, 1)
    except Exception:  # whatever a damaged tag makes Pillow raise; the pixels are there all the same
        return 1


def _turn(image: Tensor, orientation: int) -> Tensor:
    """A picture upright: (3, H, W) to (3, H, W), or to (3, W, H) for orientations from 5 on."""
    exchanged, flipped = _TURNS.get(orientation, (False, ()))
    image = image.transpose(1, 2) if exchanged else image
    return image.flip(flipped).contiguous() if flipped else image.contiguous()


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
