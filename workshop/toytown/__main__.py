"""`python -m workshop.toytown`: build the fixed set, check it, or renew the tables of its data card."""

import argparse
import sys
from pathlib import Path

from minircnn.datasets.toytown import DATA_FOLDER, check_checksums
from workshop.toytown.build import build
from workshop.toytown.card import write_card


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m workshop.toytown", description="Paint Toy Town, or check it.")
    parser.add_argument(
        "--out", type=Path, default=DATA_FOLDER, help="folder of the set (default: data/toytown of the clone)"
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="compare every file with SHA256SUMS instead of painting")
    action.add_argument(
        "--card", action="store_true", help="renew the tables of the data card (README.md beside the folder)"
    )
    options = parser.parse_args(arguments)
    if options.check:
        return _check(options.out)
    if options.card:
        write_card(options.out, options.out.parent / "README.md")
        return 0
    build(options.out)
    return 0


def _check(folder: Path) -> int:
    try:
        faults = check_checksums(folder)
    except FileNotFoundError as error:
        faults = [str(error)]
    for fault in faults:
        print(fault, file=sys.stderr)
    if not faults:
        print(f"{folder}: every file is as listed in SHA256SUMS")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
