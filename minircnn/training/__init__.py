"""How the networks of this course are trained: the loop that all share, and a recipe for each detector."""
# ruff: noqa: F401 - imported to be found here

from minircnn.training.batches import Augmentation, Batch, KeptSamples, Samples, draw_batch
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
    with_new_head,
)
from minircnn.training.settings import DataSettings, Measured, anchor_recall, measure, settings_for
from minircnn.training.starts import Start, build, read_start
