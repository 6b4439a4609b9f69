"""How the networks of this course learn: the loop that all share, and what each of them is taught."""

from minircnn.training.batches import Augmentation, Batch, draw_batch
from minircnn.training.fast_rcnn import FastRCNNTrainingSettings, joint_losses, train_fast_rcnn
from minircnn.training.faster_rcnn import (
    FasterRCNNTrainingSettings,
    proposals_of,
    train_alternating,
    train_faster_rcnn,
)
from minircnn.training.joint import JointTrainingSettings, train_jointly
from minircnn.training.log import Log
from minircnn.training.loop import LoopSettings, fit
from minircnn.training.mask_rcnn import FineTuningSettings, MaskRCNNTrainingSettings, fine_tune, train_mask_rcnn
from minircnn.training.parallel import is_main, main_first, processes, rank, share, world_size
from minircnn.training.rcnn import RCNNTrainingSettings, train_rcnn

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
