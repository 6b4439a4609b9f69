"""2014: R-CNN. Proposals, warped one by one, through AlexNet; an SVM names them; a regression moves their boxes."""

from minircnn.boxes import select_detections
from minircnn.rcnn.box_regression import fit_box_regressor
from minircnn.rcnn.detector import RCNN, RCNNConfig
from minircnn.rcnn.finetuning import FineTuningSettings, ProposalPool
from minircnn.rcnn.saving import RCNN_WEIGHTS, load_rcnn, save_rcnn
from minircnn.rcnn.svms import (
    MiningRecord,
    SVMSettings,
    far_from_class,
    mine_hard_negatives,
    scale_to,
    train_svm,
)

__all__ = [
    "RCNN",
    "RCNN_WEIGHTS",
    "FineTuningSettings",
    "MiningRecord",
    "ProposalPool",
    "RCNNConfig",
    "SVMSettings",
    "far_from_class",
    "fit_box_regressor",
    "load_rcnn",
    "mine_hard_negatives",
    "save_rcnn",
    "scale_to",
    "select_detections",
    "train_svm",
]
