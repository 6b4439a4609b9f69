"""Where the files lie that come with a clone of the project, and which detectors there are.

This file imports nothing that takes time.
"""

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

DETECTORS = {
    "rcnn": ("RCNN", "an R-CNN"),
    "fast_rcnn": ("FastRCNN", "a Fast R-CNN"),
    "faster_rcnn": ("FasterRCNN", "a Faster R-CNN"),
    "mask_rcnn": ("MaskRCNN", "a Mask R-CNN"),
}
"""The one list of detectors: the name of the command and of the module; its class there, and what people call it."""
DETECTOR_WEIGHTS = {name: WEIGHTS_FOLDER / f"{name}.safetensors" for name in DETECTORS}
"""Those that ``minircnn train`` trained on Toy Town."""
RCNN_WEIGHTS, FAST_RCNN_WEIGHTS, FASTER_RCNN_WEIGHTS, MASK_RCNN_WEIGHTS = DETECTOR_WEIGHTS.values()
