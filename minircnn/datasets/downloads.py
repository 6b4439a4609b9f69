"""Fetches data sets from their publishers, and unpacks archives.

Only what can be proved to be the published file is fetched: one whose checksum is known from a source that others rely
on. Of the others this says where they are; whoever has fetched one himself can have it unpacked here.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import urllib.request
import uuid
import zipfile
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import HTTPError

from minircnn.datasets.coco_format import DatasetError
from minircnn.weights import cache_folder

BLOCK = 1 << 20  # bytes that are copied at once
TIMEOUT = 60.0  # seconds that a server may be silent


@dataclass(frozen=True)
class Archive:
    """A file that a publisher offers.

    Attributes:
        url: Where.
        size: How large it is, in words.
        md5: Its checksum; None if none is known from a source that can be named.
    """

    url: str
    size: str
    md5: str | None = None

    @property
    def file_name(self) -> str:
        """What the file is called."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    Attributes:
        archives: Its files, which are unpacked over one another.
        folder: The folder that they unpack to.
        root: What ``root`` of the data set is then, below the folder that was named.
        most_bytes: More than this is not unpacked: an archive may be made to fill the disk.
    """

    archives: tuple[Archive, ...]
    folder: str
    root: str
    most_bytes: int


# The checksums are those of torchvision (torchvision/datasets/voc.py, DATASET_YEAR_DICT), and so are the addresses.
SOURCES = {
    "voc": Source(
        (
            Archive(
                "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtrainval_06-Nov-2007.tar",
                "about 450 MB",
                md5="c52e279531787c972589f7e41ab4ae64",
            ),
            Archive(
                "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtest_06-Nov-2007.tar",
                "about 450 MB",
                md5="b6e924de25625d8de591ea690078ad9f",
            ),
        ),
        folder="VOCdevkit",
        root="VOCdevkit/VOC2007",
        most_bytes=4_000_000_000,
    ),
    "pennfudan": Source(
        (Archive("https://www.cis.upenn.edu/~jshi/ped_html/PennFudanPed.zip", "about 54 MB"),),
        folder="PennFudanPed",
        root="PennFudanPed",
        most_bytes=1_000_000_000,
    ),
    "nuclei": Source(
        (Archive("https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip", "some 80 MB"),),
        folder="stage1_train",
        root="stage1_train",
        most_bytes=2_000_000_000,
    ),
}


def fetch(source: Source, place: Path, progress: Callable[[str, int], object] | None = None) -> Path:
    """Download the archives of a data set, as far as they are not in the cache, and unpack them.

    Args:
        source: One whose archives all have a checksum.
        place: The folder to unpack into.
        progress: Called with the file's name and the number of bytes of each block.

    Returns:
        The ``root`` of the data set.

    Raises:
        DatasetError: A file could not be fetched, or is not what was published; nothing of it is left behind. Or a data
            set is there already, or has no known checksum.
    """
    _check_free(source, place)
    files = [download(archive, progress) for archive in source.archives]
    return unpack(source, files, place)


def download(archive: Archive, progress: Callable[[str, int], object] | None = None) -> Path:
    """An archive in the cache, fetched if it is not there.

    Raises:
        DatasetError: It has no known checksum, could not be fetched, or is not what was published.
    """
    if archive.md5 is None:
        raise DatasetError(f"{archive.url}: no checksum of it is known, so it is not fetched; fetch it yourself")
    target = cache_folder() / "downloads" / archive.file_name
    if target.is_file() and _md5(target) == archive.md5:
        return target
    temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
    by_hand = f"fetch this file ({archive.size}) in another way and put it at {target}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The address is one of the list above.
        with urllib.request.urlopen(archive.url, timeout=TIMEOUT) as answer, temporary.open("wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                if progress:
                    progress(archive.file_name, len(block))
        if (found := _md5(temporary)) != archive.md5:
            raise DatasetError(f"{archive.url}: MD5 {found} instead of {archive.md5}; try again, or {by_hand}")
        temporary.replace(target)
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()
        reason = str(error) or type(error).__name__
        raise DatasetError(f"could not fetch {archive.url} ({reason}); try again, or {by_hand}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)  # what the publishers' checksums are; it guards against broken files
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def unpack(source: Source, files: Sequence[Path], place: Path) -> Path:
    """Unpack archives of a data set, whole or not at all.

    Args:
        source: What they are.
        files: ``.zip`` or ``.tar`` files, compressed or not.
        place: The folder to unpack into; made if need be.

    Returns:
        The ``root`` of the data set.

    Raises:
        DatasetError: The data set is there already. Or a file is no archive, is damaged, has another checksum than the
            published file of its name, unpacks to more than such a data set has, or holds links or names that lead out
            of the folder. No file is left behind.
    """
    _check_free(source, place)
    _check_known(source, files)
    place.mkdir(parents=True, exist_ok=True)
    temporary = place / f".{source.folder}.{uuid.uuid4().hex}.part"
    try:
        left = source.most_bytes
        for file in files:
            left -= _unpack_one(file, temporary, left)
        inner = temporary / source.folder  # some archives begin with their folder, others with what is in it
        below = (inner if inner.is_dir() else temporary) / PurePosixPath(source.root).relative_to(source.folder)
        if not below.is_dir():
            raise DatasetError(f"{', '.join(map(str, files))}: no folder {source.root} in it; is it another archive?")
        (inner if inner.is_dir() else temporary).rename(place / source.folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return place / source.root


def _check_free(source: Source, place: Path) -> None:
    """Refuses to unpack over anything."""
    if (place / source.folder).exists():
        raise DatasetError(f"{place / source.folder}: is there already; remove it, or name another folder")


def _check_known(source: Source, files: Sequence[Path]) -> None:
    """Refuses a file that is called as a published one and is not the same."""
    published = {archive.file_name: archive for archive in source.archives if archive.md5}
    for file in files:
        archive = published.get(file.name)
        if archive and file.is_file() and (found := _md5(file)) != archive.md5:
            raise DatasetError(f"{file}: MD5 {found} instead of {archive.md5}; fetch it again from {archive.url}")


def _unpack_one(file: Path, folder: Path, most: int) -> int:
    """Copy the files of an archive into a folder: only their bytes, without rights, owners or links.

    Returns:
        How many bytes they have.
    """
    written = 0
    try:
        with closing(_members(file)) as members:  # otherwise the archive stays open after an error
            for name, member in members:
                with member, _new_file(_inside(file, folder, name)) as out:
                    while block := member.read(BLOCK):
                        written += len(block)
                        if written > most:
                            raise DatasetError(f"{file}: unpacks to more than such a data set has; fetch it again")
                        out.write(block)
    except DatasetError:
        raise
    except FileNotFoundError as error:
        raise DatasetError(f"{file}: there is no such archive; check the path") from error
    except Exception as error:  # damaged archives raise zlib.error, EOFError, NotImplementedError and many more
        reason = str(error) or type(error).__name__
        raise DatasetError(f"{file}: damaged, or cannot be written ({reason}); fetch it again") from error
    return written


def _new_file(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


def _members(file: Path) -> Generator[tuple[str, IO[bytes]], None, None]:
    """The names of the files in an archive, and their contents, opened one at a time."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                if not entry.is_dir():
                    yield entry.filename, archive.open(entry)
        return
    with tarfile.open(file) as archive:
        for entry in archive:
            if entry.isdir():
                continue
            if not entry.isfile():
                kind = f"{entry.name[:100]!r} is a link or a device"
                raise DatasetError(f"{file}: {kind}, which no data set needs; do not trust this archive")
            yield entry.name, archive.extractfile(entry)
        while archive.fileobj.read(BLOCK):  # to the end, where a compressed file has its checksum
            pass


def _inside(file: Path, folder: Path, name: str) -> Path:
    """Where a file of an archive is written to: never outside of the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or any(letter in name for letter in "\\:\0") or not path.parts:
        raise DatasetError(f"{file}: {name[:100]!r} would be written outside of the folder; do not trust this archive")
    return folder.joinpath(*path.parts)
