"""The fixed set: paints the images of the three splits and writes them with their annotations in COCO format."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils

from minircnn.datasets.toytown import CHECKSUMS, CLASSES, SUBTYPES, listable_files
from minircnn.files import sha256, write_atomically
from workshop.toytown.photographs import TRAIN_PHOTOGRAPHS, VAL_PHOTOGRAPHS
from workshop.toytown.scene import SIZE, Scene, paint_scene

JPEG = {"format": "JPEG", "quality": 92, "subsampling": 0, "optimize": True}  # 4:4:4: thin things keep color


@dataclass(frozen=True)
class Split:
    """One part of the set: image i (from 1) is painted from seed `first_seed + i`, in front of these photographs."""

    first_seed: int
    count: int
    photographs: tuple[str, ...]


SPLITS = {
    "train": Split(1_000_000, 1000, TRAIN_PHOTOGRAPHS),
    "val": Split(2_000_000, 200, VAL_PHOTOGRAPHS),
    "test": Split(3_000_000, 200, VAL_PHOTOGRAPHS),
}


def repaint(split: str, number: int) -> Scene:
    """The scene of image `number` (from 1) of a split, painted anew."""
    part = SPLITS[split]
    return paint_scene(part.first_seed + number, SIZE, part.photographs)


def build(folder: Path, counts: dict[str, int] | None = None, progress: Callable[[str], None] = print) -> None:
    """Write images, annotations and checksums of all splits into `folder`; files of an earlier build are replaced.

    `counts` are images of each split, where fewer than the fixed set's are wanted; `progress` is told what was done.
    """
    for name, split in SPLITS.items():
        count = split.count if counts is None else counts[name]
        content = _empty_annotations(name)
        for number in range(1, count + 1):
            scene = repaint(name, number)
            file = f"{name}/{number:06d}.jpg"
            write_atomically(folder / file, encoded(scene.image, **JPEG))
            _describe(content, scene, number, file, split.first_seed + number)
        text = json.dumps(content, separators=(",", ":"), ensure_ascii=True)
        write_atomically(folder / f"instances_{name}.json", text.encode() + b"\n")
        progress(f"{name}: {count} images, {len(content['annotations'])} objects")
    write_checksums(folder)


def _empty_annotations(split: str) -> dict[str, Any]:
    categories = [{"id": i, "name": name, "supercategory": "toy town"} for i, name in enumerate(CLASSES[1:], start=1)]
    info = {"description": f"Toy Town, {split}: painted scenes with instance masks", "version": "1.0"}
    name, url = "MIT; photographs in the backgrounds: see data/README.md", "https://opensource.org/license/mit"
    licenses = [{"id": 1, "name": name, "url": url}]
    return {"info": info, "licenses": licenses, "categories": categories, "images": [], "annotations": []}


def _describe(content: dict[str, Any], scene: Scene, number: int, file: str, seed: int) -> None:
    """Add one image and its objects to the annotations."""
    height, width = scene.image.shape[:2]
    content["images"].append({
        "id": number, "file_name": file, "height": height, "width": width, "license": 1, "seed": seed,
        "background": scene.background,
    })  # fmt: skip
    for i, mask in enumerate(scene.masks):
        rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
        content["annotations"].append({
            "id": len(content["annotations"]) + 1, "image_id": number, "category_id": int(scene.labels[i]),
            "bbox": [float(v) for v in mask_utils.toBbox(rle)], "area": int(mask_utils.area(rle)), "iscrowd": 0,
            "segmentation": {"size": [height, width], "counts": rle["counts"].decode("ascii")},
            "subtype": SUBTYPES[int(scene.subtypes[i])], "full_area": int(scene.full_areas[i]),
        })  # fmt: skip


def write_checksums(folder: Path) -> None:
    """List the SHA-256 of every file below `folder` in its SHA256SUMS, as `sha256sum --check` reads it."""
    lines = [f"{sha256(folder / name)}  {name}\n" for name in listable_files(folder)]
    write_atomically(folder / CHECKSUMS, "".join(lines).encode())


def encoded(image: np.ndarray, **options: Any) -> bytes:  # noqa: ANN401 - Pillow's
    """An image, (H, W, 3) uint8, as the bytes of a file; options as of `PIL.Image.save`."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, **options)
    return buffer.getvalue()
