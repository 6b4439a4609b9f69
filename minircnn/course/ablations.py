"""Ablations: detectors that differ in one thing, trained and measured alike. Their settings, and their stored results.

They take longer than a notebook may: ``python -m workshop.ablations NAME`` runs one, and writes what notebooks read.
"""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from minircnn.faster_rcnn import TOY_TOWN_RPN, RPNConfig
from minircnn.shipped import RESULTS_FOLDER
from minircnn.training import FasterRCNNTrainingSettings, MaskRCNNTrainingSettings

# For images of 128 pixels as they are; as in the paper each size is twice the one before.
SCALES = {1: (36.0,), 3: (18.0, 36.0, 72.0)}
RATIOS = {1: (1.0,), 3: (0.5, 1.0, 2.0)}
# In few batches the new layers must learn fast, and the pre-trained ones are best left nearly as they are.
SHORT = FasterRCNNTrainingSettings(
    iterations=1000, learning_rate=3e-3, backbone_lr_mult=0.1, min_size=128, color_jitter=0, scale_jitter=0
)
# Longer than Faster R-CNN's short training: one loss more, and what rounding costs shows the more, the more is learned.
MASK_SHORT = MaskRCNNTrainingSettings(**{**vars(SHORT), "iterations": 2000})


def anchors(scales: int, ratios: int) -> RPNConfig:
    """The RPN's configuration with so many sizes and aspect ratios of anchors."""
    return replace(TOY_TOWN_RPN, anchor_sizes=(SCALES[scales],), aspect_ratios=RATIOS[ratios])


def read(name: str) -> dict[str, Any]:
    """The stored results of an ablation, ``data/results/NAME.json``; the rows' entries are attributes."""
    record = json.loads((RESULTS_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return {**record, **({"rows": [SimpleNamespace(**row) for row in record["rows"]]} if "rows" in record else {})}
