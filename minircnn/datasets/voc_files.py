"""Which files make up a data set in VOC's format, whoever has written it: annotations, images, splits, classes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from minircnn.datasets.coco_format import DatasetError
from minircnn.datasets.splits import did_you_mean, indices_by_id
from minircnn.datasets.voc_format import BACKGROUND, CLASSES, VocAnnotation, read_annotation

MOST_FOLDERS = 4  # below the root, one in the other, that are looked into
WHAT = "a folder with images and their annotations (.xml), such as VOCdevkit/VOC2007"
_MASKS = ("SegmentationObject", "SegmentationClass")  # PASCAL's folders of images that are masks


def read_folder(root: Path) -> tuple[dict[str, VocAnnotation | Exception], list[Path]]:
    """All annotations of a data set, whatever their split.

    Returns:
        By name the annotation with its image, or what is wrong with either; and the images that no annotation is about.
        A name is that of the file, and before it the folders that not all annotations share: "000005", "train/cat 1".

    Raises:
        FileNotFoundError: There are no annotations, or ``root`` is one level off.
    """
    files, images = _find_files(root)
    if files[0].is_relative_to(root / "Annotations"):
        shared = root / "Annotations"
    else:
        shared = os.path.commonpath([path.parent for path in files])
    found: dict[str, VocAnnotation | Exception] = {}
    stems = {path.stem for path in files}
    for path in files:
        name = path.relative_to(shared).with_suffix("").as_posix()
        try:
            found[name] = read_annotation(path)
            found[name].image = _take_image(found[name], images, stems)
        except (DatasetError, OSError) as error:
            found[name] = error
    # What is left of the other stems are masks or copies.
    return found, [path for stem, paths in images.items() if stem not in stems for path in paths]


def _find_files(root: Path) -> tuple[list[Path], dict[str, list[Path]]]:
    """The annotation files: all in Annotations, or else all below the root; and the images by stem."""
    endings = Image.registered_extensions()
    annotations: list[Path] = []
    images: dict[str, list[Path]] = {}
    for place, folders, files in os.walk(root, onerror=_refuse, followlinks=True):
        here = Path(place)
        deep = len(here.relative_to(root).parts) >= MOST_FOLDERS
        folders[:] = [] if deep else sorted(name for name in folders if name[0] not in "._" and name not in _MASKS)
        for path in (here / name for name in sorted(files) if name[0] != "."):
            if path.suffix.lower() == ".xml":
                annotations.append(path)
            elif path.suffix.lower() in endings:
                images.setdefault(path.stem, []).append(path)
    annotations = [path for path in annotations if path.is_relative_to(root / "Annotations")] or annotations
    off = [] if (root / "ImageSets").is_dir() else sorted(root.glob("*/ImageSets"))
    if off or not annotations:
        hint = f"did you mean {off[0].parent}?" if off else f"name {WHAT}"
        raise FileNotFoundError(f"{root}: there are no annotation files (.xml) of images in this folder; {hint}")
    return annotations, images


def _refuse(error: OSError) -> None:
    raise DatasetError(f"{error.filename}: this folder cannot be read ({error.strerror}); change its permissions")


def _take_image(annotation: VocAnnotation, images: dict[str, list[Path]], stems: set[str]) -> Path:
    """Take the image that an annotation is about out of all images.

    It has the stem of the annotation, or else that of <filename> if this is of no annotation (``stems`` are those of
    all), and any ending. Several may have it, since masks are images, too: then the one is meant that <filename> names
    in full, that lies beside the annotation, in JPEGImages, or of folders of one name (train/images, test/images) in
    the nearest. Whatever is left to guess is refused.
    """
    path, named = annotation.path, Path(annotation.file_name).stem
    found = images.get(path.stem) or images.get("" if named in stems else named) or []
    meant = [image for image in found if image.name == annotation.file_name] or found
    meant = [image for image in meant if image.parent == path.parent] or meant
    meant = [image for image in meant if image.parent.name == "JPEGImages"] or meant
    if len(meant) > 1 and len({image.parent.name for image in meant}) == 1:
        shared = [len(os.path.commonpath([path, image])) for image in meant]
        meant = [image for image, length in zip(meant, shared, strict=True) if length == max(shared)]
    if not meant:
        raise DatasetError(
            f"{path}: no image {path.stem}.jpg (or .png …) that no other annotation is about; put it there, or remove "
            "this file"
        )
    if len(meant) > 1:
        raise DatasetError(f"{path}: is it about {meant[0]} or {meant[1]}? Remove one, or name it in <filename>")
    return found.pop(found.index(meant[0]))


def class_names(annotations: Iterable[VocAnnotation]) -> list[str]:
    """The classes of a data set, from the annotations of all of its splits.

    PASCAL's twenty in their own order if every object is of one of them, even if not all occur; else the names found,
    sorted. Names that differ in case or spaces are different classes.
    """
    found = {one.name for annotation in annotations for one in annotation.objects} - {"", BACKGROUND}
    return list(CLASSES) if found <= set(CLASSES) else sorted(found)


def alike(names: list[str]) -> list[str]:
    """A sentence about each group of classes whose names differ in nothing but case and spaces."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault("".join(name.split()).lower(), []).append(name)
    return [
        f"classes {' and '.join(map(repr, group))} differ in case or spaces only, and are different classes here; if "
        "they are one, correct the files"
        for group in groups.values()
        if len(group) > 1
    ]


def unannotated(images: list[Path]) -> list[str]:
    """A sentence about images of which there is no annotation."""
    if not images:
        return []
    which = f"{len(images)} image{'s' * (len(images) > 1)} of which there is no annotation file, such as {images[0]}"
    return [f"left out: {which}; where nothing is to be found, write one without objects"]


def names_of_split(root: Path, names: list[str], split: str | None) -> list[str]:
    """The names of the images of a split, sorted.

    Args:
        root: If ImageSets/Main in it lists train, val, trainval or test, the splits are its lists. Else they are
            the folders of the annotations if one of these is "train", and else every fifth image is "test" and the
            others are "train", and "all" is all. Where there is no "trainval" it is another word for "train".
        names: Of all images that have an annotation, sorted.
        split: None for "trainval" of lists, and for all without lists.

    Raises:
        DatasetError: There is no such split, or nothing in it.
    """
    folder = root / "ImageSets" / "Main"
    lists = {path.stem: path for path in folder.glob("*.txt") if "_" not in path.stem and path.name[0] != "."}
    if lists.keys() & {"train", "val", "trainval", "test"}:
        split, parts = split or "trainval", {part: _read_names(path) for part, path in lists.items()}
        if "train" in parts:
            parts.setdefault("trainval", parts["train"])
    else:
        folders = {name.partition("/")[0] for name in names}
        if "train" in folders:
            parts = {part: [name for name in names if name.startswith(f"{part}/")] for part in folders}
        else:
            parts = {part: [names[i] for i in indices_by_id(range(len(names)), part)] for part in ("train", "test")}
        folder, split, parts["all"] = root, "train" if split == "trainval" else split or "all", names
    if split not in parts:
        known = sorted(parts)
        raise DatasetError(
            f"split: there is no {split!r}{did_you_mean(split, known)} in {folder}; there are {', '.join(known)}"
        )
    if not parts[split]:
        raise DatasetError(f"split: {split!r} in {folder} holds none of the {len(names)} images; name another")
    return parts[split]


def _read_names(path: Path) -> list[str]:
    """The names in a list of images, one on each line, sorted."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: no UTF-8 text at byte {error.start}; unpack the archive again") from error
    return sorted({line.strip() for line in lines if line.strip()})


def names_with_masks(root: Path) -> set[str]:
    """The names of all images that have masks, whatever their split: as lists say, or else as there are mask files."""
    lists = [path for path in (root / "ImageSets" / "Segmentation").glob("*.txt") if path.name[0] != "."]
    files = {path.stem for path in (root / "SegmentationObject").glob("*.png") if path.name[0] != "."}
    return {name for path in lists for name in _read_names(path)} or files
