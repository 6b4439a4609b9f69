"""The pictures that a command is to look at, and the files that it is to write: what can be said before any work."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from minircnn.cli.errors import RefusedError
from minircnn.cli.options import check_new_file, check_place

# What is taken for a picture in a folder. A file that is named may end as it likes.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".webp", ".avif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
LARGEST_GRID = 60  # pictures; more are slow to draw and too many to look at


@dataclass(frozen=True)
class Plan:
    """What to read and what to write.

    Attributes:
        pictures: the files to read, each once.
        skipped: what was named but cannot be read, and why.
        out: the one PNG that will show all pictures, or the folder of ``targets``.
        targets: a PNG for each picture; empty if one shows all.
        json_file: where to write the numbers, or None.
    """

    pictures: tuple[Path, ...]
    skipped: tuple[tuple[Path, str], ...]
    out: Path
    targets: tuple[Path, ...]
    json_file: Path | None


def make_plan(arguments: Sequence[Path], out: Path, json_file: Path | None) -> Plan:
    """Finds the pictures and decides which files will be written.

    Args:
        arguments: picture files and folders.
        out: a file that ends in ``.png``, or a folder, which may have to be made.
        json_file: a file, or None.

    Raises:
        RefusedError: ``out`` or ``json_file`` could not be written, or something that is there would be lost.
    """
    one_png = out.suffix.lower() == ".png"
    if one_png:
        check_new_file("--out", out)
    else:
        _check_folder(out)
    if json_file:
        check_new_file("--json", json_file)
    pictures, skipped = find_pictures(arguments)
    if one_png and len(pictures) > LARGEST_GRID:
        raise RefusedError(
            f"--out {out}: {len(pictures)} pictures, but one PNG shows at most {LARGEST_GRID}; name a folder instead"
        )
    targets = () if one_png else tuple(out / f"{name}.png" for name in distinct_stems(pictures))
    _check_nothing_is_lost(pictures, [*([out] if one_png else targets), *([json_file] if json_file else [])])
    return Plan(tuple(pictures), tuple(skipped), out, targets, json_file)


def find_pictures(arguments: Iterable[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The files that are meant: those that are named, and of a folder all pictures, by suffix and in order of name.

    Args:
        arguments: files and folders. Folders in folders, and hidden files in folders, are left alone.

    Returns:
        The files, each once, and what is none of both, each with the reason.
    """
    pictures: dict[Path, None] = {}
    skipped = []
    for argument in arguments:
        try:
            if argument.is_dir():
                # By their names as they are: paths would be sorted in another way on Windows.
                inside = sorted(argument.iterdir(), key=lambda path: path.name)
                found = [path for path in inside if _looks_like_a_picture(path)]
                if not found:
                    skipped.append((argument, "no pictures in this folder"))
                pictures |= dict.fromkeys(found)
            elif argument.is_file():
                pictures[argument] = None
            else:
                reason = "neither a file nor a folder" if argument.exists() else "there is no such file; check the path"
                skipped.append((argument, reason))
        except OSError as error:
            skipped.append((argument, f"cannot be opened ({error.strerror})"))
    return list(pictures), skipped


def distinct_stems(paths: Iterable[Path]) -> list[str]:
    """A name for each file: its own without the suffix, or with a number behind it where an earlier one has that.

    >>> distinct_stems([Path("a/cat.jpg"), Path("b/cat.jpg"), Path("cat_2.png"), Path("dog.jpg")])
    ['cat', 'cat_2', 'cat_2_2', 'dog']
    """
    names: list[str] = []
    taken: set[str] = set()
    for path in paths:
        name, number = path.stem, 2
        while name.casefold() in taken:  # on most machines Cat.png and cat.png are one file
            name, number = f"{path.stem}_{number}", number + 1
        names.append(name)
        taken.add(name.casefold())
    return names


def _looks_like_a_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _check_folder(out: Path) -> None:
    """Refuses a folder that could not be made or written into, or a name that is more likely a slip."""
    if out.is_dir():
        check_place("--out", out, out)
        return
    if out.exists():
        raise RefusedError(f"--out {out}: this is a file; name a folder, or a file that ends in .png")
    if out.suffix.lower() in SUFFIXES:
        raise RefusedError(f"--out {out}: pictures are written as PNG; let the name end in .png, or name a folder")
    check_place("--out", out, out.parent)


def _check_nothing_is_lost(pictures: Iterable[Path], new: Sequence[Path]) -> None:
    """Refuses to write over the pictures themselves, or one file over another."""
    read = {_identity(path) for path in pictures}
    for path in new:
        if path.is_dir():
            raise RefusedError(f"--out: {path} would be written, but this is a folder; name another place")
        if path.exists() and _identity(path) in read:
            raise RefusedError(f"{path} is one of the pictures and would be written over; name another place")
    if len({os.path.normcase(path.absolute()) for path in new}) < len(new):
        raise RefusedError(f"--json {new[-1]}: --out writes this file, too; name another one")


def _identity(path: Path) -> tuple[int, int]:
    """Two numbers that are the same for all names of one file."""
    status = path.stat()
    return status.st_dev, status.st_ino
