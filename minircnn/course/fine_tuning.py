"""How good a detector is that has learned from little, for notebook 12 and the ablation of that name."""

from collections.abc import Sequence

from minircnn.course.history import above
from minircnn.evaluation import evaluate
from minircnn.mask_rcnn import MaskRCNN, binary_masks
from minircnn.targets import Sample

FIGURES = ("box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75", "objects", "found", "wrong")


def measure(model: MaskRCNN, test: Sequence[Sample]) -> tuple[float, ...]:
    """How good a detector is on images: its :data:`FIGURES`, averages in [0, 1].

    The last three count objects, and of detections of a score above 0.5 the true and false ones, by masks at IoU 0.5.
    """
    found = [binary_masks(model.detect([image])[0]) for image, _ in test]
    targets = [target for _, target in test]
    results = [evaluate(found, targets, classes=model.classes, kind=kind) for kind in ("boxes", "masks")]
    sure = [above(one, 0.5) for one in found]
    counts = evaluate(sure, targets, classes=model.classes, kind="masks", iou_thresholds=[0.5]).rankings.values()
    return (
        *(value for result in results for value in (result.ap, result.ap50, result.ap75)),
        int(sum(ranking.num_objects[0] for ranking in counts)),
        *(int(sum(getattr(ranking, name)[0].sum() for ranking in counts)) for name in ("tp", "fp")),
    )
