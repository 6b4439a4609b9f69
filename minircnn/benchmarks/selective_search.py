"""Our selective search against OpenCV's, on photographs with known objects: what is found, and in what time.

    python -m minircnn.benchmarks.selective_search --root IMAGES --annotations instances.json

Photographs at even places of the list sorted by image id were for choosing our settings; those at odd places are for
reporting them (``--part report``, which is what you get).
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from skimage import data
from torch import Tensor

from minircnn.benchmarks.timing import Case, limit_threads
from minircnn.boxes import box_iou
from minircnn.course.environment import available_cores
from minircnn.datasets import CocoDataset
from minircnn.evaluation import mean_best_overlap, proposal_recall
from minircnn.selective_search import selective_search

COUNTS = (100, 500, 1000, 2000)
Search = Callable[[Tensor], Tensor]


def opencv_selective_search(image: Tensor) -> Tensor:
    """OpenCV's ``SelectiveSearchSegmentation`` in its fast mode.

    Args:
        image: ``(3, H, W)`` float tensor in [0, 1].

    Returns:
        ``(P, 4)`` boxes, best first.

    Raises:
        ModuleNotFoundError: without opencv-contrib-python-headless (the extra ``minircnn[benchmark]``).
    """
    import cv2  # only the comparison needs it

    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(to_opencv(image))
    search.switchToSelectiveSearchFast()
    boxes = torch.from_numpy(np.asarray(search.process())).float().view(-1, 4)  # x, y, width, height
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def to_opencv(image: Tensor) -> np.ndarray:
    """``(3, H, W)`` in [0, 1] to the ``(H, W, 3)`` bytes, blue first, that OpenCV expects."""
    return (image * 255).round().byte().flip(0).permute(1, 2, 0).contiguous().numpy()


def cases() -> list[Case]:
    """Two photographs of scikit-image; empty without OpenCV's contributed modules."""
    try:
        import cv2

        cv2.ximgproc.segmentation.createSelectiveSearchSegmentation  # noqa: B018 - absent from plain opencv-python
    except (ImportError, AttributeError):
        return []
    found = []
    for name in ("astronaut", "coffee"):
        image = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1).float() / 255
        size = f"{image.shape[1]}×{image.shape[2]}"
        found.append(
            Case(
                name=f"selective search, {name} {size}",
                reference="OpenCV fast",
                ours=lambda image=image: selective_search(image),
                theirs=lambda image=image: opencv_selective_search(image),
                check=cover_most,
            )
        )
    return found


def cover_most(ours: Tensor, theirs: Tensor) -> bool:
    """Whether three quarters of the reference's proposals have one of ours at an IoU of a half or more.

    The two programs start from different regions, so equal boxes cannot be asked for. Nor can the other direction: our
    lists are about twice as long, and hold small boxes that OpenCV, with larger first regions, never makes.
    """
    if not len(ours) or not len(theirs):
        return not len(theirs)
    return bool((box_iou(ours, theirs).amax(dim=0) >= 0.5).float().mean() >= 0.75)


def compare(dataset: CocoDataset, indices: Sequence[int]) -> tuple[dict[str, list[Tensor]], list[float]]:
    """Runs both searches on each picture in turn.

    Args:
        dataset: pictures with their objects.
        indices: which pictures.

    Returns:
        The proposals of "ours" and "OpenCV fast", and for each picture our time divided by OpenCV's.
    """
    searches: dict[str, Search] = {"ours": selective_search, "OpenCV fast": opencv_selective_search}
    proposals: dict[str, list[Tensor]] = {name: [] for name in searches}
    ratios = []
    for search in searches.values():  # the first call loads libraries
        search(dataset.load_image(indices[0]))
    for index in indices:
        image, seconds = dataset.load_image(index), []
        for name, search in searches.items():
            start = time.perf_counter()
            proposals[name].append(search(image))
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    return proposals, ratios


def quality(proposals: Sequence[Tensor], targets: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Recall at 0.5 and 0.7, and the mean best overlap over objects, for each of ``COUNTS``."""
    return {
        "recall at IoU 0.5": proposal_recall(proposals, targets, 0.5, COUNTS),
        "recall at IoU 0.7": proposal_recall(proposals, targets, 0.7, COUNTS),
        "mean best overlap": mean_best_overlap(proposals, targets, COUNTS),
    }


def table(results: dict[str, dict[str, Tensor]]) -> str:
    """Rows of figures for each measure: ours, OpenCV's, and the difference."""
    lines = [f"{'proposals':<32}" + "".join(f"{count:>8}" for count in COUNTS)]
    for measure in results["ours"]:
        rows = {name: measures[measure] for name, measures in results.items()}
        rows["difference"] = rows["ours"] - rows["OpenCV fast"]
        for name, values in rows.items():
            sign = "+" if name == "difference" else ""
            lines.append(f"{measure:<19}{name:<13}" + "".join(f"{value:>{sign}8.3f}" for value in values.tolist()))
    return "\n".join(lines)


def spread(ratios: Sequence[float]) -> str:
    """The median and the middle half."""
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.2f} (middle half {low:.2f} – {high:.2f}, {len(ratios)} pictures)"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table of quality and the ratios of time."""
    parser = argparse.ArgumentParser(description="Selective search: ours against OpenCV's fast mode.")
    parser.add_argument("--root", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--annotations", type=Path, required=True, help="their objects, a COCO instances file")
    parser.add_argument("--part", choices=["tune", "report", "all"], default="report", help="which pictures")
    parser.add_argument("--limit", type=int, help="no more than so many pictures")
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 2:
        parser.error("--limit must be at least 2, so that there is a spread")
    dataset = CocoDataset(options.root, options.annotations, masks=False)
    by_id = sorted(range(len(dataset)), key=dataset.image_ids.__getitem__)
    indices = {"tune": by_id[0::2], "report": by_id[1::2], "all": by_id}[options.part][: options.limit]
    targets = [dataset.load_target(index) for index in indices]
    with limit_threads(1):
        proposals, ratios = compare(dataset, indices)
    objects = sum(int((~target["iscrowd"]).sum()) for target in targets)
    print(f"{len(indices)} pictures ({options.part}), {objects} objects, crowds left out")
    print(table({name: quality(boxes, targets) for name, boxes in proposals.items()}))
    print(f"time, ours / OpenCV, 1 thread:  {spread(ratios)}")
    threads = available_cores()
    with limit_threads(threads):
        _, ratios = compare(dataset, indices[::5] if len(indices) >= 10 else indices)
    print(f"time, ours / OpenCV, {threads} threads: {spread(ratios)}")


if __name__ == "__main__":
    main()
