"""How good is a detector? Average precision for boxes and masks, by COCO's and PASCAL VOC's rules.

The road of a detection through this package, one file a step:

* :mod:`tables <minircnn.evaluation.tables>`: the lists of images become two tables over the whole data set;
* :mod:`overlap <minircnn.evaluation.overlap>`: how much it overlaps each object;
* :mod:`assignment <minircnn.evaluation.assignment>`: which object it found, by which rule;
* :mod:`outcome <minircnn.evaluation.outcome>`: right, wrong or ignored, ranked with those of all other images;
* :mod:`curves <minircnn.evaluation.curves>`: precision and recall, and their average;
* :mod:`protocols <minircnn.evaluation.protocols>`: the numbers in which COCO and VOC differ;
* :mod:`evaluator <minircnn.evaluation.evaluator>` and :mod:`result <minircnn.evaluation.result>`: the whole, and what
  comes out of it.

:mod:`proposals <minircnn.evaluation.proposals>` measures boxes before they have a class.

Letters in shape comments here: D detections, G objects, T IoU thresholds, R recall points, K classes (without
the background), A ranges of area, M limits on the number of detections.
"""

from minircnn.evaluation.curves import area_under_curve, average_at_points, envelope, precision_recall
from minircnn.evaluation.evaluator import evaluate
from minircnn.evaluation.proposals import mean_best_overlap, proposal_recall
from minircnn.evaluation.result import ClassResult, Curve, Result
from minircnn.evaluation.tables import encode_masks

__all__ = [
    "ClassResult",
    "Curve",
    "Result",
    "area_under_curve",
    "average_at_points",
    "encode_masks",
    "envelope",
    "evaluate",
    "mean_best_overlap",
    "precision_recall",
    "proposal_recall",
]
