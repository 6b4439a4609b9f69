"""Reads detections and targets, image by image, into two tables that span the whole data set.

Average precision ranks the detections of *all* images together, so the image is only a column here. Every check of
the input happens in this file; the files after it can trust what they get.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor

from minircnn.datasets.coco_format import RunLengthError, decode_counts
from minircnn.targets import check_target

KINDS = ("boxes", "masks")


@dataclass(frozen=True)
class Table:
    """All objects of a data set, or all detections: N rows in the order of the images, then of the list given.

    Attributes:
        image: ``(N,)`` int64, position of the image in the lists.
        label: ``(N,)`` int64, at least 1.
        area: ``(N,)`` float64, square pixels.
        regions: ``(N, 4)`` float64 boxes, or a list of N run-length encoded masks.
        score: ``(N,)`` float64 for detections; zeros for objects.
        crowd: ``(N,)`` bool, the regions that stand for many objects; all False for detections.
        difficult: ``(N,)`` bool, objects that PASCAL VOC leaves out of the count; all False for detections.
    """

    image: np.ndarray
    label: np.ndarray
    area: np.ndarray
    regions: np.ndarray | list[dict]
    score: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def regions_at(self, rows: np.ndarray) -> np.ndarray | list[dict]:
        """The boxes or masks of some rows."""
        if isinstance(self.regions, np.ndarray):
            return self.regions[rows]
        return [self.regions[row] for row in rows]


def read_tables(
    detections: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]], kind: str
) -> tuple[Table, Table]:
    """Checks the input of :func:`minircnn.evaluation.evaluate` and turns it into two tables.

    Returns:
        ``(detections, objects)``.

    Raises:
        ValueError: naming the list, the image's index and what is wrong.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}, but is {kind!r}")
    if len(detections) != len(targets):
        raise ValueError(
            f"detections and targets must have one entry for each image, in the same order, "
            f"but there are {len(detections)} and {len(targets)}"
        )
    if kind == "masks":
        _check_runs(detections, "detections")
        _check_runs(targets, "targets")
    found, wanted = [], []
    for index, (detection, target) in enumerate(zip(detections, targets, strict=True)):
        found.append(_read_detections(detection, kind, f"detections[{index}]"))
        wanted.append(_read_objects(target, kind, f"targets[{index}]"))
        if kind == "masks":
            _check_mask_sizes(found[-1]["regions"], wanted[-1]["regions"], index)
    return _stack(found, kind, "detections"), _stack(wanted, kind, "targets")


def _read_detections(entry: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
    columns = _read_regions(entry, kind, where)
    columns["score"] = _column(entry, "scores", columns["label"], where).astype(np.float64)
    return columns


def _read_objects(entry: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
    entry = check_target(entry, where, needs=(kind, "labels"))
    columns = _read_regions(entry, kind, where)
    for name, key in (("crowd", "iscrowd"), ("difficult", "difficult")):
        if key in entry:
            columns[name] = _column(entry, key, columns["label"], where)
    if "area" in entry:
        # What the annotation states: for COCO the area of the mask, also when boxes are compared.
        columns["area"] = _column(entry, "area", columns["label"], where)
    return columns


def _read_regions(entry: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
    """Labels, regions and their areas; crowd, difficult and score as they are where nothing is said."""
    if not isinstance(entry, Mapping) or kind not in entry or "labels" not in entry:
        has = sorted(entry) if isinstance(entry, Mapping) else type(entry).__name__
        raise ValueError(f'{where} must be a dict with "{kind}" and "labels", but has {has}')
    label = _as_array(entry["labels"]).reshape(-1)
    if len(label) and label.dtype.kind not in "iu":
        raise ValueError(f"{where}: labels must be whole numbers, but are {label.dtype}")
    label = label.astype(np.int64)
    regions, area = (_read_boxes if kind == "boxes" else _read_masks)(entry[kind], where)
    if len(regions) != len(label):
        raise ValueError(f"{where} has {len(regions)} {kind} but {len(label)} labels")
    nothing = np.zeros(len(label), dtype=bool)
    return {
        "label": label,
        "regions": regions,
        "area": area,
        "score": np.zeros(len(label)),
        "crowd": nothing,
        "difficult": nothing,
    }


def _column(entry: Mapping[str, Any], key: str, label: np.ndarray, where: str) -> np.ndarray:
    """One number for each label, or an error that says what is there instead."""
    if key not in entry:
        raise ValueError(f'{where} must have "{key}", but has {sorted(entry)}')
    values = _as_array(entry[key])
    if values.shape != label.shape:
        raise ValueError(f"{where} has {len(label)} labels but {key} of shape {values.shape}")
    return values


def _as_array(values: Tensor | Sequence[Any]) -> np.ndarray:
    """Floating-point numbers as float64: differences and products of float32 numbers are then exact, as are ties."""
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.double() if values.is_floating_point() else values).numpy()


def _read_boxes(boxes: Tensor, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Boxes ``(N, 4)`` float64 and their areas ``(N,)``."""
    boxes = _as_array(boxes).astype(np.float64, copy=False)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{where}: boxes must have shape (N, 4), but have shape {boxes.shape}")
    return boxes, (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _read_masks(masks: Tensor | list[dict], where: str) -> tuple[list[dict], np.ndarray]:
    """Run-length encoded masks and their areas."""
    encoded = encode_masks(masks, where) if isinstance(masks, Tensor) else _as_compressed(masks)
    # One by one: pycocotools (2.0.11) counts the masks of a list in 8 bits, and fails at 256 of them.
    return encoded, np.array([rle.area(mask) for mask in encoded], dtype=np.float64)


def encode_masks(masks: Tensor, where: str = "masks") -> list[dict]:
    """Masks ``(N, H, W)`` bool as COCO's compressed run-length encodings.

    Args:
        masks: of a picture.
        where: stands in front of a complaint.
    """
    if masks.dim() != 3 or masks.dtype != torch.bool:
        raise ValueError(
            f"{where}: masks must be bool of shape (N, H, W) or a list of run-length encodings, but are "
            f"{masks.dtype} of shape {tuple(masks.shape)}; compare probabilities with 0.5 first"
        )
    # Runs go down the columns, so pycocotools wants H the fastest in memory; one mask at a time is copied for that.
    return [rle.encode(np.asfortranarray(mask)) for mask in masks.detach().cpu().numpy().view(np.uint8)]


def _as_compressed(masks: Sequence[dict]) -> list[dict]:
    """COCO's files hold runs as compressed bytes, as the same in text, or as plain lists of numbers."""
    return [rle.frPyObjects(mask, *mask["size"]) if isinstance(mask["counts"], list) else mask for mask in masks]


def _check_runs(entries: Sequence[Mapping[str, Any]], name: str) -> None:
    """Runs must cover their picture: pycocotools does not look, and the overlap of those that do not may never end."""
    places, masks = [], []
    for index, entry in enumerate(entries):
        if isinstance(entry, Mapping) and not isinstance(entry.get("masks"), Tensor):
            for row, mask in enumerate(entry.get("masks") or ()):
                places.append(f"{name}[{index}]: mask {row}")
                masks.append(mask)
    for place, mask in zip(places, masks, strict=True):
        if not isinstance(mask, Mapping) or not {"size", "counts"} <= set(mask):
            raise ValueError(f'{place} is not a run-length encoding with "size" and "counts"')
    strings = [number for number, mask in enumerate(masks) if not isinstance(mask["counts"], list)]
    runs = [mask["counts"] for mask in masks]
    try:
        for number, decoded in zip(strings, decode_counts([runs[number] for number in strings]), strict=True):
            runs[number] = decoded
    except RunLengthError as error:
        raise ValueError(
            f"{places[strings[error.number]]}: its run-length string {error.what}; encode it again"
        ) from error
    for place, mask, lengths in zip(places, masks, runs, strict=True):
        covered, (height, width) = sum(lengths) if isinstance(lengths, list) else lengths.sum(), mask["size"]
        if covered != height * width or (isinstance(lengths, list) and min(lengths) < 0):
            raise ValueError(
                f"{place}: its runs cover {covered} pixels, but its size is {height} × {width}; encode it again"
            )


def _check_mask_sizes(found: list[dict], wanted: list[dict], index: int) -> None:
    sizes = {tuple(mask["size"]) for mask in (*found, *wanted)}
    if len(sizes) > 1:
        raise ValueError(f"image {index}: masks of different (height, width): {sorted(sizes)}")


def _stack(images: list[dict[str, Any]], kind: str, name: str) -> Table:
    """Puts the images under one another, and checks the values of all of them at once."""
    if not images:
        images = [_read_regions({kind: [], "labels": []}, kind, name)]
    image = np.repeat(np.arange(len(images)), [len(columns["label"]) for columns in images])
    columns = {
        key: np.concatenate([columns[key] for columns in images])
        for key in ("label", "area", "score", "crowd", "difficult")
    }
    if kind == "boxes":
        regions = np.concatenate([columns["regions"] for columns in images])
    else:
        regions = [mask for columns in images for mask in columns["regions"]]
    table = Table(image=image, regions=regions, **columns)
    _check_values(table, name)
    return table


def _check_values(table: Table, name: str) -> None:
    """Raises an error that names the first row whose numbers cannot be right."""
    if (table.label < 1).any():
        where, row = _place(table, table.label < 1, name)
        raise ValueError(f"{where}: label {table.label[row]} found; 0 is the background, objects start at 1")
    if np.isnan(table.score).any():
        where, row = _place(table, np.isnan(table.score), name)
        raise ValueError(f"{where}: a score is nan, so the detections cannot be ranked")
    if isinstance(table.regions, np.ndarray):
        boxes = table.regions
        broken = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
        if broken.any():
            where, row = _place(table, broken, name)
            raise ValueError(f"{where}: box {boxes[row].tolist()} must be finite, with x1 <= x2 and y1 <= y2")
    sized = np.isfinite(table.area)
    if not sized.all():
        where, row = _place(table, ~sized, name)
        raise ValueError(f"{where}: area {table.area[row]} must be a finite number of square pixels")


def _place(table: Table, wrong: np.ndarray, name: str) -> tuple[str, int]:
    """Where the first wrong row comes from, as the caller would write it, and its number in the table."""
    row = int(wrong.argmax())
    return f"{name}[{table.image[row]}]", row
