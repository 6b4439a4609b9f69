"""Toy Town as a data set of ``(image, target)`` pairs; ``data/README.md`` describes it, ``workshop/`` paints it."""

from pathlib import Path

from minircnn.datasets.coco import CocoDataset
from minircnn.datasets.named import no_such
from minircnn.files import sha256
from minircnn.shipped import TOYTOWN_FOLDER as DATA_FOLDER

CLASSES = ("background", "person", "car", "cat", "tree", "house", "balloon")
"""Names by label, as every data set of this package has them: ``CLASSES[0]`` is the background."""

SUBTYPES = (
    *("person/trousers", "person/dress", "person/coat", "person/shorts"),
    *("car/saloon", "car/hatchback", "car/van", "car/pickup"),
    *("cat/sitting", "cat/walking", "cat/lying"),
    *("tree/broadleaf", "tree/conifer", "tree/poplar", "tree/palm"),
    *("house/cottage", "house/tower", "house/shop"),
    *("balloon/gored", "balloon/banded", "balloon/party"),
)
"""Finer kinds, each "class/kind"; a sub-type is an index into this tuple."""

SPLITS = ("train", "val", "test")
CHECKSUMS = "SHA256SUMS"


class ToyTown(CocoDataset):
    """One split of the fixed set: "train" (1000 images), "val" (200) or "test" (200), each 128 × 128.

    ``folder`` is where the annotation files lie; None for the clone that this package is in.
    """

    def __init__(self, split: str = "train", folder: str | Path | None = None, *, masks: bool = True) -> None:
        if split not in SPLITS:
            raise ValueError(f"split: {no_such(split, SPLITS, ' in Toy Town')}")
        root = DATA_FOLDER if folder is None else Path(folder)
        annotations = root / f"instances_{split}.json"
        if not annotations.is_file():
            remedy = "install the package from a clone (pip install -e .), or pass folder="
            raise FileNotFoundError(f"{annotations}: not found. Toy Town lies in the project's clone: {remedy}")
        super().__init__(root, annotations, masks=masks)


def check_checksums(folder: Path) -> list[str]:
    """Compare the files below `folder` with its SHA256SUMS: one line for each fault, none when all is well."""
    lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = {name: sha256(folder / name) for name in listable_files(folder)}
    faults = [f"{folder / name}: missing" for name in listed if name not in found]
    changed = [name for name, digest in found.items() if listed.get(name, digest) != digest]
    faults += [f"{folder / name}: its content has changed" for name in changed]
    return faults + [f"{folder / name}: not listed in {CHECKSUMS}: delete it" for name in found if name not in listed]


def listable_files(folder: Path) -> list[str]:
    """Every file but the listing itself and what hides behind a dot (.DS_Store, .ipynb_checkpoints/…)."""
    names = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return sorted(
        n.as_posix() for n in names if n.as_posix() != CHECKSUMS and not any(p.startswith(".") for p in n.parts)
    )
