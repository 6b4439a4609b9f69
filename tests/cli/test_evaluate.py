"""``minircnn evaluate`` against evaluate() called directly, a recall counted object by object, classes by names."""

import json
import math
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.ops import box_iou

from minircnn.cli.common import RefusedError
from minircnn.cli.evaluate import common_classes
from minircnn.datasets import ToyTown
from minircnn.datasets.named import open_data
from minircnn.errors import KINDS
from minircnn.evaluation import evaluate
from minircnn.shipped import DETECTOR_WEIGHTS
from tests.cli.conftest import LOAD, ON_PROPOSALS, changed, directly, own, regions
from tests.datasets.conftest import an_object, write_voc, xml

NAMES = {"rcnn": "R-CNN", "fast_rcnn": "Fast R-CNN", "faster_rcnn": "Faster R-CNN", "mask_rcnn": "Mask R-CNN"}
PROPOSALS = 40


def without_nan(values):
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in values.items()}


@pytest.mark.parametrize(("name", "split"), [("rcnn", "test"), ("fast_rcnn", "val"), ("faster_rcnn", "val")])
def test_numbers_are_those_of_evaluate(call, files, name, split, tmp_path):
    file = DETECTOR_WEIGHTS[name] if name == "faster_rcnn" else files[name]  # a random one finds nothing
    data, model = ToyTown(split), LOAD[name](file)
    samples = [data[index] for index in range(3)]
    targets = [target for _, target in samples]
    found = [directly(name, file, image, proposals=PROPOSALS) for image, _ in samples]
    wanted = evaluate(found, targets, classes=data.classes)
    few = ("--max-proposals", PROPOSALS) if name in ON_PROPOSALS else ()
    options = ("--weights", file, "--split", split, "--images", 3, *few, "--json", tmp_path / "x.json")
    result = call("evaluate", name, *options)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{NAMES[name]} on 3 images, Toy Town's {split} split: {wanted}\n\n")
    shares = "   ".join(f"{kind} {100 * getattr(wanted, kind.lower()):.1f} %" for kind in ("AP", "AP50", "AP75"))
    assert f"\n{shares}\n" in result.stdout and wanted.ap50 > 0
    written = json.loads((tmp_path / "x.json").read_text())
    classes = written["result"].pop("classes")
    assert written["result"] == without_nan(wanted.summary())
    assert None in written["result"].values(), "no object is large, which JSON has to say with null"
    assert classes == [without_nan(asdict(row)) for row in wanted.per_class.values()]
    assert (written["detector"], written["images"], written["device"]) == (name, 3, "cpu")
    given = [[[regions(image)[:PROPOSALS]]] if name in ON_PROPOSALS else [] for image, _ in samples]
    proposals = [one[0][0] for one in given if one] or [model.propose([image])[0]["boxes"] for image, _ in samples]
    recalls, most = {}, max(map(len, proposals))
    for limit in (10, min(50, most), most):
        covered = [
            bool((box_iou(one[None], boxes[:limit]) >= 0.5).any())
            for target, boxes in zip(targets, proposals, strict=True)
            for one in target["boxes"]
        ]
        recalls[str(limit)] = sum(covered) / len(covered)
    assert max(recalls.values()) > 0
    assert written["proposal_recall"] == {"iou": 0.5, "recall": pytest.approx(recalls)}
    shares = ", ".join(f"{limit}: {100 * recall:.1f} %" for limit, recall in recalls.items())
    assert f"recall of the first proposals at IoU 0.5: {shares}\nseconds an image: " in result.stdout
    fixed = [model.detect([image], *one, regress=False)[0] for one, (image, _) in zip(given, samples, strict=True)]
    plain = evaluate(fixed, targets, classes=data.classes)
    assert call("evaluate", name, *options, "--no-regression").stdout.count(f"\n\nAP {100 * plain.ap:.1f} %") == 1
    assert json.loads((tmp_path / "x.json").read_text())["result"]["ap"] == plain.ap != wanted.ap


def test_masks_too_results_for_pycocotools_and_errors_as_a_drawing(call, folder, tmp_path):
    """By default of the project's weights. pycocotools reads the results and gets the same AP of boxes and of masks."""
    options = (*own(folder), "--classes", "tree,person", "--split", "all", "--json", tmp_path / "x.json")
    written = ("--coco-results", tmp_path / "results.json", "--errors", tmp_path / "errors.png")
    for _ in range(2):  # its own files are written over
        result = call("evaluate", "mask_rcnn", *options, *written)
        assert result.exit_code == 0, result.output
    truth = COCO(str(folder / "instances.json"))
    found = truth.loadRes(str(tmp_path / "results.json"))
    numbers = json.loads((tmp_path / "x.json").read_text())
    assert numbers["weights"] == str(DETECTOR_WEIGHTS["mask_rcnn"])
    for kind, key, name in (("bbox", "result", "boxes"), ("segm", "mask_result", "masks")):
        judge = COCOeval(truth, found, kind)
        judge.params.catIds = truth.getCatIds(catNms=["tree", "person"])
        judge.evaluate(), judge.accumulate(), judge.summarize()
        ap, count = numbers[key]["ap"], len(truth.imgs)
        assert judge.stats[0] == pytest.approx(ap, abs=1e-4) and ap > 0.3
        said = rf"Mask R-CNN on {count} images, all of coco, {name}: .*?\n\nAP {100 * ap:.1f} %"
        assert re.search(said, result.stdout, re.DOTALL)
    lines = result.stdout.splitlines()
    first = next(row for row, line in enumerate(lines) if line.startswith("error "))
    assert [line.split()[0] for line in lines[first : first + 7]] == ["error", *KINDS]
    assert f"(AP50 {100 * numbers['mask_result']['ap50']:.1f} %)" in lines[first]
    with Image.open(tmp_path / "errors.png") as drawing:
        assert min(drawing.size) > 100


def measured(call, tmp_path, files, *options, name="rcnn"):
    """What `evaluate` writes, and what it prints."""
    few = ("--max-proposals", 60) if name in ON_PROPOSALS else ()
    result = call("evaluate", name, "--weights", files[name], *few, "--json", tmp_path / "x.json", *options)
    assert result.exit_code == 0, result.output
    return json.loads((tmp_path / "x.json").read_text()), result.stdout


def test_classes_go_by_their_names(call, folder, files, tmp_path):
    """Categories in another order change nothing, and a detector that knows more, or less, is measured on the rest."""
    data = open_data("coco", folder / "images", folder / "instances.json", masks=False)
    classes, targets = data.classes, [data.load_target(index) for index in range(5)]
    found = [directly("rcnn", files["rcnn"], data.load_image(index), proposals=60) for index in range(5)]

    def reverse(content):
        for one in content["categories"]:
            one["id"] = 100 - one["id"]
        for one in content["annotations"]:
            one["category_id"] = 100 - one["category_id"]

    def add_zebras(content):
        content["categories"].append({"id": 99, "name": "zebra"})
        zebras = [{**one, "id": one["id"] + 10**6, "category_id": 99} for one in content["annotations"]]
        content["annotations"] += zebras

    wanted = evaluate(found, targets, classes=classes)
    assert wanted.ap50 > 0
    all_rows = {row.name: without_nan(asdict(row)) for row in wanted.per_class.values()}
    for options, names, left_out in (
        (own(folder), classes[1:], ""),
        (changed(folder, "b.json", reverse), list(reversed(classes[1:])), ""),
        ((*own(folder), "--classes", "tree, car"), ["tree", "car"], "these images do not tell: person, cat, house"),
        (changed(folder, "c.json", add_zebras), classes[1:], "the detector does not know them: zebra\n"),
    ):
        written, printed = measured(call, tmp_path, files, *options, "--split", "all", "--images", 5)
        assert (written["data"], written["images"], written["root"]) == ("all of coco", 5, str(folder / "images"))
        assert "R-CNN on 5 images, all of coco: " in printed and written["annotations"] == str(options[5])
        rows = {row["name"]: row for row in written["result"]["classes"]}
        assert list(rows) == list(names)
        for name, row in rows.items():
            assert {**row, "label": 0} == {**all_rows[name], "label": 0} and (name != "tree" or row["detections"])
        assert (f"not measured, because {left_out}" in printed) if left_out else ("not measured" not in printed)


def test_pascal_voc_is_measured_by_its_own_rules_too(call, files, tmp_path):
    """Every second object is difficult."""
    data, annotations, names = ToyTown("test", masks=False), {}, ["person", "car", "cat"]
    for index in range(6):
        target, objects = data.load_target(index), []
        for box, label in zip(target["boxes"].round().int().tolist(), target["labels"], strict=True):
            if data.classes[label] in names:
                corners = (box[0] + 1, box[1] + 1, *box[2:])
                objects.append(an_object(data.classes[label], corners, str(len(objects) % 2)))
        annotations[f"{index:06}"] = xml(*objects, size=(128, 128))
    write_voc(tmp_path, annotations, {"test": list(annotations)})
    for index, name in enumerate(annotations):
        shutil.copy(data.image_path(index), tmp_path / "JPEGImages" / f"{name}.jpg")
    chosen = ("--root", tmp_path, "--classes", ",".join(names))
    written, printed = measured(call, tmp_path, files, "--data", "voc", *chosen)
    data, found = open_data("voc", tmp_path, split="test", classes=names, masks=False), []
    for index in range(len(data)):
        one = directly("rcnn", files["rcnn"], data.load_image(index), proposals=60)
        found.append({name: value[one["labels"] <= 3] for name, value in one.items()})
    targets = [data.load_target(index) for index in range(len(data))]
    assert any(target["difficult"].any() for target in targets)
    for protocol in ("voc2007", "voc2010"):
        wanted = evaluate(found, targets, classes=["background", *names], protocol=protocol).ap
        assert wanted > 0 and written[protocol] == pytest.approx(wanted, abs=1e-12)
    assert written["voc2007"] != written["voc2010"]
    assert f"\nas PASCAL VOC counts: AP {100 * written['voc2007']:.1f} % at 11 points (2007), " in printed


@pytest.mark.parametrize(
    ("known", "shown", "words"),
    [
        ("a", "d", "--weights x: it knows a, but these images show d$"),
        ("ad", "db", "show d, b; name those that both have with --classes d$"),
        ("a", "bcdefghijklm", "show b, c, d, e, f, g, h, i and 4 more"),
        ("", "d", "--weights x: it knows "),
    ],
)
def test_classes_that_nobody_can_have_meant(known, shown, words):
    with pytest.raises(RefusedError, match=words):
        common_classes(Path("x"), ["background", *known], ["background", *shown])


def test_numbers_of_coco_that_stand_for_no_class_are_not_told_as_left_out():
    for more, left_out in (([], []), (["dog"], ["not measured, because these images do not tell: dog"])):
        assert common_classes(Path("coco"), ["background", "cat", "N/A", *more], ["background", "cat"])[1] == left_out
