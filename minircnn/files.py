"""Files that are written whole or not at all."""

from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that it is there complete or not at all, even if the program is stopped in between.

    Args:
        path: where to; folders that are missing are made, and a file of that name is replaced in one step.
        content: all of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
