"""Where the files lie that come with a clone of the project. This file imports nothing that takes time."""

from pathlib import Path

PROJECT_FOLDER = Path(__file__).resolve().parent.parent
"""The clone; an installed wheel lies in site-packages, where there is no ``data``."""
WEIGHTS_FOLDER = PROJECT_FOLDER / "data" / "weights"
TOYTOWN_FOLDER = PROJECT_FOLDER / "data" / "toytown"
ONE_OBJECT_FOLDER = PROJECT_FOLDER / "data" / "one_object"
RESULTS_FOLDER = PROJECT_FOLDER / "data" / "results"

SMALL_WEIGHTS = WEIGHTS_FOLDER / "alexnet.safetensors"
"""The small AlexNet at stride 8, trained on images of one object by ``python -m workshop.pretraining``."""
SMALL_STRIDE_16_WEIGHTS = WEIGHTS_FOLDER / "alexnet_stride16.safetensors"
"""The same at stride 16."""
RCNN_WEIGHTS = WEIGHTS_FOLDER / "rcnn.safetensors"
"""The R-CNN that ``minircnn train rcnn`` trained on Toy Town; the others likewise."""
FAST_RCNN_WEIGHTS = WEIGHTS_FOLDER / "fast_rcnn.safetensors"
FASTER_RCNN_WEIGHTS = WEIGHTS_FOLDER / "faster_rcnn.safetensors"
MASK_RCNN_WEIGHTS = WEIGHTS_FOLDER / "mask_rcnn.safetensors"
DETECTOR_WEIGHTS = {
    "rcnn": RCNN_WEIGHTS,
    "fast_rcnn": FAST_RCNN_WEIGHTS,
    "faster_rcnn": FASTER_RCNN_WEIGHTS,
    "mask_rcnn": MASK_RCNN_WEIGHTS,
}
"""The four by the names of their commands."""
