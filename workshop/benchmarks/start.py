"""How long programs take from the command to the answer, beside `import torch, torchvision`."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

from PIL import Image

REFERENCE = [sys.executable, "-c", "import torch, torchvision"]


def starts(repeats: int = 7) -> Iterator[tuple[str, float, float]]:
    """For each program its name, the ratio to the reference, and its seconds; interleaved, the median."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.png"
        Image.new("RGB", (640, 480), (90, 120, 150)).save(image)
        detect = ["-m", "minircnn", "detect", str(image), "--out", str(image.with_name("found.png"))]
        programs = {
            "minircnn detect IMAGE": [sys.executable, *detect],
            "import minircnn.mask_rcnn": [sys.executable, "-c", "import minircnn.mask_rcnn"],
            "minircnn --help": [sys.executable, "-m", "minircnn", "--help"],
        }
        rounds = [[seconds(program) for program in (REFERENCE, *programs.values())] for _ in range(repeats + 1)][1:]
    for number, name in enumerate(programs, start=1):
        yield name, median(one[number] / one[0] for one in rounds), median(one[number] for one in rounds)


def seconds(program: list[str]) -> float:
    """Of one run, which must succeed."""
    start = perf_counter()
    subprocess.run(program, check=True, capture_output=True)
    return perf_counter() - start
