"""Our selective search against OpenCV's, on photographs with known objects: what is found, and in what time.

    python -m workshop.benchmarks.selective_search --root IMAGES --annotations instances.json

Photographs at even places of the list sorted by image id were for choosing our settings; those at odd places are for
reporting them (``--part report``, which is what you get).
"""

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from skimage import data
from torch import Tensor

from minircnn.boxes import box_iou
from minircnn.course.environment import available_cores
from minircnn.datasets import CocoDataset
from minircnn.evaluation import mean_best_overlap, proposal_recall
from minircnn.selective_search import selective_search
from workshop.benchmarks.timing import Case, limit_threads, quartiles

COUNTS = (100, 500, 1000, 2000)


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
    images = {name: torch.from_numpy(getattr(data, name)()).permute(2, 0, 1) / 255 for name in ("astronaut", "coffee")}
    return [
        Case(
            name=f"selective search, {name} {image.shape[1]}×{image.shape[2]}",
            reference="OpenCV fast",
            ours=partial(selective_search, image),
            theirs=partial(opencv_selective_search, image),
            check=cover_most,
        )
        for name, image in images.items()
    ]


def cover_most(ours: Tensor, theirs: Tensor) -> bool:
    """Whether three quarters of the reference's proposals have one of ours at an IoU of a half or more.

    The two programs start from different regions, so equal boxes cannot be asked for. Nor can the other direction: our
    lists are about twice as long, and hold small boxes that OpenCV, with larger first regions, never makes.
    """
    if not len(ours) or not len(theirs):
        return not len(theirs)
    return bool((box_iou(ours, theirs).amax(dim=0) >= 0.5).float().mean() >= 0.75)


def compare(dataset: CocoDataset, indices: Sequence[int]) -> tuple[dict[str, list[Tensor]], list[float]]:
    """Run both searches on each image in turn: the proposals of each, and for each image our time over OpenCV's."""
    searches = {"ours": selective_search, "OpenCV fast": opencv_selective_search}
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


def table(proposals: dict[str, list[Tensor]], targets: Sequence[dict[str, Tensor]]) -> str:
    """Recall at two IoUs and the mean best overlap, by number of proposals: ours, OpenCV's, and the difference."""
    measures = {
        f"recall at IoU {iou}": partial(proposal_recall, iou_threshold=iou, counts=COUNTS) for iou in (0.5, 0.7)
    }
    measures["mean best overlap"] = partial(mean_best_overlap, counts=COUNTS)
    lines = [f"{'proposals':<32}" + "".join(f"{count:>8}" for count in COUNTS)]
    for measure, function in measures.items():
        rows = {name: function(boxes, targets) for name, boxes in proposals.items()}
        rows["difference"] = rows["ours"] - rows["OpenCV fast"]
        for name, values in rows.items():
            sign = "+" if name == "difference" else ""
            lines.append(f"{measure:<19}{name:<13}" + "".join(f"{value:>{sign}8.3f}" for value in values.tolist()))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of quality and the ratios of time."""
    parser = argparse.ArgumentParser(description="Selective search: ours against OpenCV's fast mode.")
    parser.add_argument("--root", type=Path, required=True, help="folder of the images")
    parser.add_argument("--annotations", type=Path, required=True, help="their objects, a COCO instances file")
    parser.add_argument("--part", choices=["tune", "report", "all"], default="report", help="which images")
    parser.add_argument("--limit", type=int, help="no more than so many images")
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 2:
        parser.error("--limit must be at least 2, so that there is a spread")
    dataset = CocoDataset(options.root, options.annotations, masks=False)
    by_id = sorted(range(len(dataset)), key=dataset.image_ids.__getitem__)
    indices = {"tune": by_id[0::2], "report": by_id[1::2], "all": by_id}[options.part][: options.limit]
    targets = [dataset.load_target(index) for index in indices]
    objects = sum(int((~target["iscrowd"]).sum()) for target in targets)
    print(f"{len(indices)} images ({options.part}), {objects} objects, crowds left out")
    for threads in sorted({1, available_cores()}):
        with limit_threads(threads):
            proposals, ratios = compare(dataset, indices if threads == 1 or len(indices) < 10 else indices[::5])
        if threads == 1:
            print(table(proposals, targets))
        low, middle, high = quartiles(ratios)
        spread = f"{middle:.2f} (middle half {low:.2f} – {high:.2f}, {len(ratios)} images)"
        print(f"time, ours / OpenCV, {threads} thread(s): {spread}")


if __name__ == "__main__":
    main()
