"""SHA256SUMS, the list that `sha256sum --check` reads: proof that no file of the set has changed."""

from pathlib import Path

from minircnn.files import sha256, write_atomically

NAME = "SHA256SUMS"


def write_checksums(folder: Path) -> None:
    """List the SHA-256 of every file below `folder` in its SHA256SUMS."""
    lines = [f"{sha256(folder / name)}  {name}\n" for name in _files(folder)]
    write_atomically(folder / NAME, "".join(lines).encode())


def check_checksums(folder: Path) -> list[str]:
    """What is wrong with the files below `folder`, one line for each fault; empty when all is well.

    Raises:
        FileNotFoundError: if there is no SHA256SUMS.
    """
    listing = folder / NAME
    if not listing.is_file():
        raise FileNotFoundError(
            f"{listing}: not found; is this the folder of Toy Town? `python -m minircnn.datasets.toytown` builds it"
        )
    faults, listed = [], set()
    for line_number, line in enumerate(listing.read_text(encoding="utf-8").splitlines(), start=1):
        digest, separator, name = line.partition("  ")
        if not separator or len(digest) != 64:
            faults.append(f"{listing}: line {line_number} is not 'checksum, two spaces, name': {line!r}")
            continue
        listed.add(name)
        if not (folder / name).is_file():
            faults.append(f"{folder / name}: missing")
        elif sha256(folder / name) != digest:
            faults.append(f"{folder / name}: its content has changed")
    faults += [f"{folder / name}: not listed in {NAME}: delete it" for name in _files(folder) if name not in listed]
    return faults


def _files(folder: Path) -> list[str]:
    """Every file but the listing itself and what hides behind a dot (.DS_Store, .ipynb_checkpoints/…)."""
    names = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return sorted(n.as_posix() for n in names if n.as_posix() != NAME and not any(p.startswith(".") for p in n.parts))
