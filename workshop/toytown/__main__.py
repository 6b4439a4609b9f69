"""`python -m workshop.toytown`: build the fixed set or the images of one object, check, or renew the data card."""

import argparse
import sys
from pathlib import Path

from minircnn.datasets.toytown import CHECKSUMS, check_checksums
from minircnn.shipped import ONE_OBJECT_FOLDER, TOYTOWN_FOLDER
from workshop.toytown.build import build
from workshop.toytown.card import write_card
from workshop.toytown.single import build_one_object


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m workshop.toytown", description="Paint Toy Town, or check it.")
    parser.add_argument("--out", type=Path, help="folder of the set (default: data/toytown or data/one_object)")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="compare every file with SHA256SUMS instead of painting")
    action.add_argument("--card", action="store_true", help="renew the tables of the card (README.md beside it)")
    action.add_argument("--one-object", action="store_true", help="paint the images of one object instead")
    options = parser.parse_args(arguments)
    folder = options.out or (ONE_OBJECT_FOLDER if options.one_object else TOYTOWN_FOLDER)
    if options.card:
        write_card(folder, folder.parent / "README.md")
    elif options.one_object:
        build_one_object(folder)
    elif not options.check:
        build(folder)
    else:
        faults = check_checksums(folder) if (folder / CHECKSUMS).is_file() else [f"{folder / CHECKSUMS}: not found"]
        print("\n".join(faults) or f"{folder}: every file is as listed in SHA256SUMS")
        return 1 if faults else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
