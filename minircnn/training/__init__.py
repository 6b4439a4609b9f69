"""How the networks of this course are trained: the loop that all share, and a recipe for each detector."""

from minircnn.training.batches import Augmentation, Batch, Samples, draw_batch
from minircnn.training.checkpoints import Log
from minircnn.training.loop import LoopSettings, fit, is_main, main_first, processes, rank, share, world_size
from minircnn.training.recipes import (
    FasterRCNNTrainingSettings,
    FastRCNNTrainingSettings,
    FineTuningSettings,
    JointTrainingSettings,
    MaskRCNNTrainingSettings,
    RCNNTrainingSettings,
    fine_tune,
    joint_losses,
    proposals_of,
    train_alternating,
    train_fast_rcnn,
    train_faster_rcnn,
    train_jointly,
    train_mask_rcnn,
    train_rcnn,
)

__all__ = [
    "Augmentation",
    "Batch",
    "FastRCNNTrainingSettings",
    "FasterRCNNTrainingSettings",
    "FineTuningSettings",
    "JointTrainingSettings",
    "Log",
    "LoopSettings",
    "MaskRCNNTrainingSettings",
    "RCNNTrainingSettings",
    "Samples",
    "draw_batch",
    "fine_tune",
    "fit",
    "is_main",
    "joint_losses",
    "main_first",
    "processes",
    "proposals_of",
    "rank",
    "share",
    "train_alternating",
    "train_fast_rcnn",
    "train_faster_rcnn",
    "train_jointly",
    "train_mask_rcnn",
    "train_rcnn",
    "world_size",
]
