"""What the shipped detectors computed on a day on which everything was proved: a record that later code must repeat.

``python -m tests.reference`` in the project's folder writes ``tests/reference.json`` anew. Do that only where a change
is meant to change figures, and say so in its message. It takes minutes, most of them for the average precision.
"""

import json
from dataclasses import replace
from pathlib import Path

import torch

from minircnn.datasets import ToyTown
from minircnn.evaluation import evaluate
from minircnn.fast_rcnn import load_fast_rcnn
from minircnn.faster_rcnn import load_faster_rcnn
from minircnn.mask_rcnn import binary_masks, load_mask_rcnn
from minircnn.rcnn import load_rcnn
from minircnn.selective_search import selective_search

FILE = Path(__file__).with_name("reference.json")
SCENES, BATCHES, IMAGES_PER_BATCH, PROPOSALS = 20, 10, 2, 300
LEAST_SCORE = 0.3  # a probability, of R-CNN a margin: what is seen on a scene


def detect(images):
    """What each detector finds: the name of it, and for each image all that it gives, masks as pixels."""
    rcnn, fast, faster, mask = load_rcnn(), load_fast_rcnn(), load_faster_rcnn(), load_mask_rcnn()
    found = {"rcnn": [], "fast_rcnn": [], "faster_rcnn": [], "mask_rcnn": []}
    for image in images:
        boxes = selective_search(image, max_proposals=PROPOSALS)
        found["rcnn"] += rcnn.detect([image], [boxes])
        found["fast_rcnn"] += fast.detect([image], [boxes])
        found["faster_rcnn"] += faster.detect([image])
        found["mask_rcnn"].append(binary_masks(mask.detect([image])[0]))
    return found


def detections():
    """What each detector finds on the first scenes of the test split: rows of scene, label, score, box (and pixels)."""
    test = ToyTown("test", masks=False)
    found = detect(test[index][0] for index in range(SCENES))
    return {
        name: [row for scene, one in enumerate(of_scenes) for row in _rows(scene, one)]
        for name, of_scenes in found.items()
    }


def averages():
    """Average precision on the whole test split, and at IoU 0.5, by COCO's rules: of boxes, and of masks."""
    test = ToyTown("test")
    targets = [test[index][1] for index in range(len(test))]
    found = detect(test[index][0] for index in range(len(test)))
    results = {name: evaluate(of_images, targets, classes=test.classes) for name, of_images in found.items()}
    results["mask_rcnn, masks"] = evaluate(found["mask_rcnn"], targets, classes=test.classes, kind="masks")
    return {name: {"ap": round(result.ap, 5), "ap50": round(result.ap50, 5)} for name, result in results.items()}


def _rows(scene, found):
    pixels = found["masks"].flatten(1).sum(dim=1).tolist() if "masks" in found else [None] * len(found["labels"])
    rows = zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), pixels, strict=True)
    return [
        [scene, label, round(score, 5), *(round(side, 3) for side in box), *([] if area is None else [area])]
        for label, score, box, area in rows
        if score > LEAST_SCORE
    ]


def losses():
    """The losses of fixed batches. All anchors and regions count, so that nothing is drawn at random."""
    train = ToyTown("train")
    everything = {"positive_fraction": 1.0}
    models = {"fast_rcnn": load_fast_rcnn(), "faster_rcnn": load_faster_rcnn(), "mask_rcnn": load_mask_rcnn()}
    measured = {name: [] for name in models}
    for name, model in models.items():
        model.train()
        model.roi_heads.config = replace(model.roi_heads.config, batch_size_per_image=10**6, **everything)
        if name != "fast_rcnn":
            model.rpn.config = replace(model.rpn.config, batch_size_per_image=10**6, **everything)
    with torch.no_grad():
        for batch in range(BATCHES):
            samples = [train[batch * IMAGES_PER_BATCH + place] for place in range(IMAGES_PER_BATCH)]
            images, targets = zip(*samples, strict=True)
            proposals = [selective_search(image, max_proposals=PROPOSALS) for image in images]
            for name, model in models.items():
                given = (images, proposals, targets) if name == "fast_rcnn" else (images, targets)
                found = model.losses(*given)
                measured[name].append({loss: float(f"{value.item():.6g}") for loss, value in sorted(found.items())})
    return measured


if __name__ == "__main__":
    record = {"averages": averages(), "detections": detections(), "losses": losses()}
    lines = ",\n ".join(
        f'"{part}": {{\n  '
        + ",\n  ".join(f'"{name}": {json.dumps(value)}' for name, value in record[part].items())
        + "}"
        for part in record
    )
    FILE.write_text(f"{{{lines}}}\n", encoding="utf-8")
