"""R-CNN as in 2014 on photographs: the network of 2012, its trained convolutions against random ones.

    python -m minircnn.experiments.rcnn_2014 --root …/images --annotations …/instances.json --network …/alexnet_conv.npz

Runs ``minircnn train rcnn`` and ``minircnn evaluate rcnn`` for one class of a COCO file, once with trained and once
with random convolutions, all else the same: selective search, pool5 as features, a support vector machine with hard
negatives, box regression (Girshick et al. 2014, sections 2 and 3.2). Every fifth picture measures, the others teach.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from minircnn.experiments import RESULTS_FOLDER, in_percent, write_results

RESULTS = RESULTS_FOLDER / "rcnn_2014.json"
STARTS = {"trained": [], "random": ["--from-scratch"]}


@dataclass(frozen=True)
class Row:
    """One detector; averages and recalls in [0, 1].

    Attributes:
        start: what its convolutions were, see ``STARTS``.
        pictures: that measured it.
        objects: of the class, in these pictures.
        recall: share of them that proposals cover by half, before any network looks.
        ap50: with box regression.
        ap50_without: without.
        ap: over IoU 0.50 to 0.95, with box regression.
    """

    start: str
    pictures: int
    objects: int
    recall: float
    ap50: float
    ap50_without: float
    ap: float


def compare(data: Sequence[str], network: Path, max_proposals: int, run: Callable[[list[str]], None]) -> list[Row]:
    """Trains and measures both.

    Args:
        data: the options that say which pictures and which class.
        network: the file of the trained convolutions.
        max_proposals: of each picture.
        run: runs ``minircnn`` with these arguments.
    """
    rows, shared = [], [*data, "--max-proposals", str(max_proposals)]
    with TemporaryDirectory() as folder:
        for start, options in STARTS.items():
            weights, measured = Path(folder) / f"{start}.safetensors", Path(folder) / f"{start}.measured.json"
            run(["train", "rcnn", *shared, "--weights", str(network), *options, "--out", str(weights)])
            run(["evaluate", "rcnn", *shared, "--weights", str(weights), "--json", str(measured)])
            rows.append(_row(start, json.loads(measured.read_text(encoding="utf-8"))))
            print(describe(rows[-1]), flush=True)
    return rows


def _row(start: str, found: dict) -> Row:
    """From what ``minircnn evaluate --json`` writes."""
    moved, fixed = found["with_box_regression"], found["without_box_regression"]
    return Row(
        start=start,
        pictures=found["pictures"],
        objects=sum(one["objects"] for one in moved["classes"]),
        recall=found["proposal_recall"]["recall"],
        ap50=moved["ap50"],
        ap50_without=fixed["ap50"],
        ap=moved["ap"],
    )


def describe(row: Row) -> str:
    """One line of the table, figures in percent.

    >>> describe(Row("trained", 40, 109, 0.67, 0.25, 0.23, 0.08))
    'trained   AP50 25.0  without box regression 23.0  AP 8.0  of 109 objects in 40 pictures'
    """
    figures = in_percent(AP50=row.ap50, **{"without box regression": row.ap50_without}, AP=row.ap)
    return f"{row.start:<8}  {figures}  of {row.objects} objects in {row.pictures} pictures"


def _minircnn(arguments: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "minircnn", *arguments], check=True)


def main(arguments: list[str] | None = None, run: Callable[[list[str]], None] = _minircnn) -> None:
    """Runs the comparison and writes the results."""
    parser = argparse.ArgumentParser(prog="python -m minircnn.experiments.rcnn_2014", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the folder of the pictures")
    parser.add_argument("--annotations", type=Path, required=True, help="their file in COCO's format")
    parser.add_argument("--network", type=Path, required=True, help="the convolutions of 2012, an .npz file")
    parser.add_argument("--class", dest="name", default="person", help="the class to find")
    parser.add_argument("--max-proposals", type=int, default=500, help="of each picture")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    options = parser.parse_args(arguments)
    data = ["--data", "coco", "--root", str(options.root), "--annotations", str(options.annotations)]
    rows = compare([*data, "--classes", options.name], options.network, options.max_proposals, run)
    record = {"class": options.name, "max_proposals": options.max_proposals, "rows": [asdict(row) for row in rows]}
    write_results(options.out, "rcnn_2014 --root … --annotations … --network …", record)


if __name__ == "__main__":
    main()
