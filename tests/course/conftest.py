"""A record of the history with numbers that everybody can check, the shipped detectors, and some scenes."""

import json

import matplotlib
import pytest
from matplotlib import pyplot as plt

from minircnn.course.claims import gather
from minircnn.course.history import load_all
from minircnn.datasets import ToyTown

matplotlib.use("Agg")

COUNT = 2


@pytest.fixture(autouse=True)
def close_figures():
    """Each test leaves no figure and no changed setting behind; all are drawn without a screen."""
    settings = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == settings


@pytest.fixture(scope="session")
def models():
    return load_all()


@pytest.fixture(scope="session")
def toytown():
    return ToyTown("test")


@pytest.fixture(scope="session")
def samples(toytown):
    return [toytown[index] for index in range(COUNT)]


def averages(*values):
    return dict(zip(("ap", "ap50", "ap75"), values, strict=True))


def times(*values):
    """Milliseconds by stage, and of all stages."""
    stages = dict(zip(("proposals", "features", "heads", "selection", "masks"), values, strict=False))
    return {**stages, "all": sum(values)}


def detector(name, year, box, mask, proposals, passes, milliseconds, parameters, trainings, learned_from):
    """A record's entry."""
    ap, ap50, ap75 = box
    return {
        "name": name,
        "year": year,
        "box": averages(*box),
        "unmoved": averages(ap - 0.1, ap50 - 0.01, ap75 - 0.2),
        "mask": mask and averages(*mask),
        "proposals": proposals,
        "recall": 0.96,
        "passes": passes,
        "milliseconds": times(*milliseconds),
        "parameters": parameters,
        "file_bytes": 4_200_000,
        "sha256": name,
        "trainings": trainings,
        "learned_from": learned_from,
        "detections": 12.4,
    }


DETECTORS = {
    "rcnn": (
        *("R-CNN", 2014, (0.46, 0.78, 0.5), None, 286.4, 286.4, (120, 300, 20, 1), 1_976_261, 3),
        {"batches": 2000, "crops": 256_000},
    ),
    "fast_rcnn": (
        *("Fast R-CNN", 2015, (0.42, 0.79, 0.4), None, 286.4, 1, (120, 10, 12, 4), 1_871_299, 1),
        {"batches": 20_000, "images": 80_000},
    ),
    "faster_rcnn": (
        *("Faster R-CNN", 2016, (0.52, 0.85, 0.57), None, 60, 1, (5, 10, 4, 1), 2_026_623, 1),
        {"batches": 20_000, "images": 80_000},
    ),
    "mask_rcnn": (
        *("Mask R-CNN", 2017, (0.59, 0.87, 0.67), (0.51, 0.82, 0.55)),
        *(100, 1, (5, 10, 5, 1, 9.5), 2_228_102, 1, {"batches": 15_000, "images": 60_000}),
    ),
}
TIMES_AT_SCALE = {
    "rcnn": (1000, 60_000, 5000, 10),
    "fast_rcnn": (1000, 250, 2500, 10),
    "faster_rcnn": (30, 250, 400, 5),
    "mask_rcnn": (30, 250, 400, 5, 600),
}
RECORD = {
    "command": "python -m workshop.history",
    "split": "test",
    "images": 200,
    "images_of_split": 200,
    "max_proposals": 300,
    "thresholds": {
        "score_threshold": 0.003,
        "nms_threshold": 0.5,
        "rcnn": {"score_threshold": -1.5, "nms_threshold": 0.3},
    },
    "machine": {},
    "scenes": {"objects": 3.18, "several": 0.905, "kinds": 0.865, "crowded": 0.785},
    "alignment": {"exact": 2.9296875, "rounded_down": 2.0, "pooled": 4.0, "aligned": 2.9296875},
    "transfer": {"training_images": 300, "images": 200}
    | {"learned": 0.91, "random": 0.74, "hand_made": 0.86, "guessing": 0.18},
    "detectors": {key: detector(*row) for key, row in DETECTORS.items()},
    "training": {
        "rcnn": {"iterations": 12.0, "proposals": 2.0, "features": 5.5, "all": 19.5},
        "fast_rcnn": {"iterations": 30.0, "proposals": 2.0, "all": 32.0},
        "faster_rcnn": {"iterations": 50.0, "all": 50.0},
        "mask_rcnn": {"iterations": 75.25, "all": 75.25},
    },
    "paper_scale": {
        "size": [600, 800],
        "proposals": 2000,
        "crops": 100,
        "rounds": 3,
        "found": 1631,
        "own": 300,
        "outlined": 88,
        "milliseconds": {key: times(*row) for key, row in TIMES_AT_SCALE.items()},
    },
}


@pytest.fixture
def record():
    """A record of a run on all images, which a test may change."""
    return json.loads(json.dumps(RECORD))


@pytest.fixture
def results(record):
    """The record beside the experiments' shipped results; all of it may be changed."""
    return gather(record)
