"""How the networks of this course learn: the loop that all share, and what each of them is taught."""

from minircnn.training.loop import LoopSettings, fit
from minircnn.training.pretraining import Accuracy, PretrainingSettings, accuracy, single_objects, train_alexnet
from minircnn.training.rcnn import RCNNTrainingSettings, train_rcnn

__all__ = [
    "Accuracy",
    "LoopSettings",
    "PretrainingSettings",
    "RCNNTrainingSettings",
    "accuracy",
    "fit",
    "single_objects",
    "train_alexnet",
    "train_rcnn",
]
