"""The pictures that a command is to look at, and the files that it is to write: what can be said before any work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from minircnn.cli.errors import RefusedError
from minircnn.cli.outputs import SUFFIXES, Output, check_folder, check_outputs

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


def make_plan(
    arguments: Sequence[Path], out: Path, json_file: Path | None, *, named: bool = True, inputs: Sequence[Path] = ()
) -> Plan:
    """Finds the pictures and decides which files will be written.

    Args:
        arguments: picture files and folders.
        out: a file that ends in ``.png``, or a folder, which may have to be made.
        json_file: a file, or None.
        named: whether the user has named ``out``.
        inputs: what else is read.

    Raises:
        RefusedError: ``out`` or ``json_file`` could not be written, or something that is there would be lost.
    """
    one_png = out.suffix.lower() == ".png"
    pictures, skipped = find_pictures(arguments)
    targets = () if one_png else tuple(out / f"{name}.png" for name in distinct_stems(pictures))
    if not one_png:
        if not out.exists() and out.suffix.lower() in SUFFIXES:
            raise RefusedError(f"--out {out}: pictures are written as PNG; let the name end in .png, or name a folder")
        check_folder("--out", out)
    outputs = [Output("--out", out, named)] if one_png else [Output("--out", path, named=False) for path in targets]
    outputs += [Output("--json", json_file)] if json_file else []
    check_outputs(outputs, [*pictures, *inputs])
    if one_png and len(pictures) > LARGEST_GRID:
        raise RefusedError(
            f"--out {out}: {len(pictures)} pictures, but one PNG shows at most {LARGEST_GRID}; name a folder instead"
        )
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
