"""COCO's protocol against pycocotools, VOC's against its devkit's loop, both against values worked by hand."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minircnn.course.compare import encode_masks, for_pycocotools, largest_difference, run_pycocotools
from minircnn.datasets import CocoDataset
from minircnn.datasets.masks import decode_masks
from minircnn.evaluation import evaluate
from minircnn.metrics import RECALLS_VOC2007, average_at_points
from tests.test_boxes import iou_by_hand
from workshop.benchmarks.evaluation import random_detections, random_targets

TOLERANCE = 1e-9


def compare(detections, targets, kind, num_classes):
    """Our result and pycocotools', after checking that all arrays and the twelve numbers agree."""
    names = ["background", *(f"thing {label}" for label in range(1, num_classes + 1))]
    ours = evaluate(detections, targets, kind=kind, classes=names)
    theirs = run_pycocotools(*for_pycocotools(detections, targets, kind, num_classes), kind)
    assert ours.precision.shape == theirs.eval["precision"].shape
    assert largest_difference(ours, theirs) <= TOLERANCE
    return ours, theirs


@pytest.mark.parametrize("kind", ["boxes", "masks"])
@pytest.mark.parametrize(("seed", "size", "crowds"), [(1, (128, 128), 0.2), (2, (300, 260), 0.1)])
def test_random_detections(kind, seed, size, crowds):
    targets = random_targets(40, size, num_classes=6, seed=seed, crowd_fraction=crowds)
    detections = random_detections(targets, num_classes=6, seed=seed)
    ours, _ = compare(detections, encode_masks(targets), kind, num_classes=6)
    # The comparison says something only if there is something to compare.
    assert 0.05 < ours.ap < 0.9
    assert 0 < ours.ap_small != ours.ap_medium > 0
    assert ours.ar_1 < ours.ar_10 < ours.ar_100
    assert (ours.ap_large > 0) == (size != (128, 128))
    assert max((d["labels"] == 1).sum() for d in detections) > 100


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_coco_photographs_with_crowds(real_data, kind):
    root = real_data / "coco-mini"
    dataset = CocoDataset(root / "images", root / "instances.json", masks=kind == "masks")
    boxes_only = CocoDataset(root / "images", root / "instances.json", masks=False)
    indices = range(len(dataset))  # all images with a crowd and a few more: random masks of 200 take long to make
    crowds = [bool(boxes_only.load_target(i)["iscrowd"].any()) for i in indices]
    indices = [i for i in indices if crowds[i]] + [i for i in indices if not crowds[i]][:6]
    targets = [dataset.load_target(i) for i in indices]
    assert sum(int(target["iscrowd"].sum()) for target in targets) == 23
    num_classes = len(dataset.classes) - 1
    detections = random_detections(targets, num_classes, seed=3, noise=4, masks=kind == "masks")
    ours, _ = compare(detections, encode_masks(targets) if kind == "masks" else targets, kind, num_classes)
    assert 0.05 < ours.ap < 0.9
    assert min(ours.ap_small, ours.ap_medium, ours.ap_large) > 0


# Corners on a coarse grid: equal IoUs, IoUs that equal a threshold, boxes without area, areas of 32² and 96².
corner = st.sampled_from([0, 8, 16, 24, 32, 96, 128])
box = st.tuples(corner, corner, corner, corner).map(
    lambda c: [min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])]
)
found = st.tuples(box, st.integers(1, 2), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
wanted = st.tuples(box, st.integers(1, 2), st.booleans())
image = st.tuples(st.lists(found, max_size=8), st.lists(wanted, max_size=5))


def as_tensors(rows, last):
    boxes, labels, values = zip(*rows, strict=True) if rows else ([], [], [])
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    values = torch.tensor(values, dtype=torch.bool if last == "iscrowd" else torch.float32)
    return {"boxes": boxes, "labels": torch.tensor(labels, dtype=torch.int64), "area": area, last: values}


@settings(max_examples=40)
@given(st.lists(image, min_size=1, max_size=3))
def test_any_small_set(images):
    detections = [as_tensors(rows, "scores") for rows, _ in images]
    compare(detections, [as_tensors(rows, "iscrowd") for _, rows in images], "boxes", num_classes=2)


def boxes_at(*columns):
    """Boxes 10 wide and high that start at these columns."""
    return torch.tensor([[x, 0.0, x + 10.0, 10.0] for x in columns])


def entry(boxes, scores=None, **extra):
    """A detection with scores, or a target with the keys that pycocotools needs."""
    boxes = torch.as_tensor(boxes, dtype=torch.float32)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    more = {"area": area, "iscrowd": torch.zeros(len(boxes), dtype=torch.bool)}
    more = more if scores is None else {"scores": torch.tensor(scores)}
    return {"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.int64), **more, **extra}


def test_nothing_found_is_zero_and_nothing_to_find_is_nan():
    """Where pycocotools has -1; an image with crowds alone has no object."""
    targets = random_targets(5, (64, 64), num_classes=2, seed=0, crowd_fraction=1.0)
    detections = random_detections(targets, num_classes=2)
    for truth in (targets, [entry(torch.zeros(0, 4))] * 5):
        ours, theirs = compare(detections, truth, "boxes", num_classes=2)
        assert all(np.isnan(value) for value in ours.summary().values())
        assert (theirs.stats == -1).all()
    assert evaluate([entry(torch.zeros(0, 4), [])], [entry(boxes_at(0.0))]).ap == 0


def test_a_crowd_forgives_many_detections_inside_it():
    target = entry([[0, 0, 100, 100], [200, 0, 220, 20]], iscrowd=torch.tensor([True, False]))
    inside = [[10 * n, 10, 10 * n + 9, 30] for n in range(5)]
    found = entry([*inside, [200, 0, 220, 20]], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    ours, _ = compare([found], [target], "boxes", num_classes=1)
    assert ours.ap == 1.0
    curve = ours.curve(1)  # which leaves ignored detections out
    assert curve.precision.tolist() == curve.recall.tolist() == [1.0]
    not_a_crowd = {**target, "iscrowd": torch.tensor([0, 0])}
    assert evaluate([found], [not_a_crowd]).ap == pytest.approx(0.5 / 6, abs=0.01)


def test_equal_scores_keep_the_order_of_the_images():
    """Right in the first image, wrong in the second: precision is 1 at the top only in this order."""
    target = entry(boxes_at(0.0))
    right, wrong = entry(boxes_at(0.0), [0.5]), entry(boxes_at(50.0), [0.5])
    ours, _ = compare([right, wrong], [target, target], "boxes", num_classes=1)
    assert ours.ap == pytest.approx(51 / 101)
    ours, _ = compare([wrong, right], [target, target], "boxes", num_classes=1)
    assert ours.ap == pytest.approx(51 / 101 / 2)


def test_pycocotools_loses_an_object_with_id_zero_and_we_do_not():
    """The one place where we differ on purpose; see the docstring of evaluate."""
    found, target = entry(boxes_at(0.0), [0.5]), entry(boxes_at(0.0))
    truth, results = for_pycocotools([found], [target], "boxes", 1)
    truth.dataset["annotations"][0]["id"] = 0
    truth.createIndex()
    assert run_pycocotools(truth, results, "boxes").stats[0] == 0
    assert evaluate([found], [target]).ap == 1


def test_masks_as_pixels_as_runs_and_as_plain_numbers_are_the_same():
    targets = random_targets(6, (60, 40), num_classes=2, seed=4)
    detections = random_detections(targets, num_classes=2, seed=4, noise=2)
    as_pixels = [{**d, "masks": decode_masks(d["masks"], (60, 40))} for d in detections]
    as_numbers = [{**t, "masks": [plain_runs(mask.numpy()) for mask in t["masks"]]} for t in targets]
    expected = evaluate(detections, encode_masks(targets), kind="masks").summary()
    assert expected["ap"] > 0.05
    for truth in (targets, as_numbers):
        assert evaluate(as_pixels, truth, kind="masks").summary() == pytest.approx(expected, nan_ok=True)


def plain_runs(mask):
    """COCO's uncompressed runs: lengths of zeros, ones, zeros … down the columns."""
    pixels = mask.T.reshape(-1)
    borders = np.flatnonzero(np.diff(pixels)) + 1
    runs = np.diff(np.concatenate([[0], borders, [len(pixels)]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if pixels[0] else runs}


def test_any_number_of_masks_in_an_image():
    """Microscopes show hundreds of cells at once; 8 bits count to 255."""
    count = 300
    pixels = np.random.default_rng(count).random((count, 8, 9)) < np.linspace(0.1, 0.9, count)[:, None, None]
    target = {"masks": torch.from_numpy(pixels), "labels": torch.ones(count, dtype=torch.int64)}
    found = {**target, "scores": torch.linspace(0.9, 0.1, count)}
    result = evaluate([found], encode_masks([target]), kind="masks", protocol="voc2010")
    assert (result.ap, result.per_class[1].objects) == (1.0, count)


def devkit(detections, targets, label, threshold):
    """VOCevaldet.m, line by line: (true positives, false positives, number of objects), best detection first."""
    positives = sum(int(((target["labels"] == label) & ~target["difficult"]).sum()) for target in targets)
    rows, taken = [], set()
    for i, detection in enumerate(detections):
        for box, its_label, score in zip(*(detection[k].tolist() for k in ("boxes", "labels", "scores")), strict=True):
            if its_label == label:
                rows.append((-score, i, box))
    rows.sort(key=lambda row: row[0])
    tp, fp = np.zeros(len(rows)), np.zeros(len(rows))
    for d, (_, i, a) in enumerate(rows):
        best, best_j = -np.inf, None
        for j, b in enumerate(targets[i]["boxes"].tolist()):
            iou = iou_by_hand(a, b)
            if targets[i]["labels"][j] == label and iou > max(best, 0):
                best, best_j = iou, j
        if best >= threshold:
            if not targets[i]["difficult"][best_j]:
                tp[d], fp[d] = (1, 0) if (i, best_j) not in taken else (0, 1)
                taken.add((i, best_j))
        else:
            fp[d] = 1
    return tp.cumsum(), fp.cumsum(), positives


def devkit_ap(tp, fp, positives, protocol):
    with np.errstate(invalid="ignore"):  # 0 / 0 where the first detections are ignored, as in MATLAB
        recall, precision = tp / positives, tp / (tp + fp)
    if protocol == "voc2007":
        points = [i / 10 for i in range(11)]
        reached = [precision[(recall >= t) & ~np.isnan(precision)] for t in points]
        return sum(p.max() if len(p) else 0.0 for p in reached) / 11
    recall = np.concatenate([[0], recall, [1]])
    precision = np.concatenate([[0], np.nan_to_num(precision), [0]])
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return ((recall[steps] - recall[steps - 1]) * precision[steps]).sum()


@pytest.mark.parametrize("protocol", ["voc2007", "voc2010"])
@pytest.mark.parametrize("threshold", [0.3, 0.75])
def test_equals_the_devkit_with_difficult_objects(protocol, threshold):
    targets, generator = random_targets(30, (128, 128), num_classes=3, seed=5), torch.Generator().manual_seed(5)
    for target in targets:
        target["difficult"] = torch.rand(len(target["labels"]), generator=generator) < 0.25
    detections = random_detections(targets, num_classes=3, seed=5, masks=False)
    ours = evaluate(detections, targets, protocol=protocol, iou_thresholds=[threshold])
    expected = [devkit_ap(*devkit(detections, targets, label, threshold), protocol) for label in (1, 2, 3)]
    assert [row.ap for row in ours.per_class.values()] == pytest.approx(expected, abs=1e-12)
    assert ours.ap == pytest.approx(np.mean(expected), abs=1e-12)
    assert 0.02 < ours.ap < 0.9


@pytest.mark.parametrize("protocol", ["voc2007", "voc2010", "coco"])
def test_an_object_is_found_once(protocol):
    """The same box twice, then another object: were both right, precision would never fall."""
    target = entry(boxes_at(0.0, 50.0))
    found = entry(boxes_at(0.0, 0.0, 50.0), [0.9, 0.8, 0.7])
    twice = entry(boxes_at(0.0, 100.0, 50.0), [0.9, 0.8, 0.7])  # the second finds nothing
    # Precision is 1, 1/2, 2/3 at recall 1/2, 1/2, 1.
    expected = {"voc2007": (6 + 5 * 2 / 3) / 11, "voc2010": (1 + 2 / 3) / 2, "coco": (51 + 50 * 2 / 3) / 101}[protocol]
    for detection in (found, twice):
        assert evaluate([detection], [target], protocol=protocol).ap == pytest.approx(expected)


@pytest.mark.parametrize("protocol", ["voc2010", "coco"])
def test_an_overlap_equal_to_the_threshold_is_enough(protocol):
    target = entry([[0, 0, 10, 10]])
    assert evaluate([entry([[0, 0, 10, 5]], [0.9])], [target], protocol=protocol).ap50 == 1.0
    assert evaluate([entry([[0, 0, 10, 4.9]], [0.9])], [target], protocol=protocol).ap50 == 0.0
    half = {"masks": torch.arange(100).reshape(1, 10, 10) < 50, "labels": [1], "scores": [0.9]}
    whole = {"masks": torch.ones(1, 10, 10, dtype=torch.bool), "labels": [1]}
    for threshold, ap in ((0.5, 1.0), (0.51, 0.0)):
        assert evaluate([half], [whole], kind="masks", protocol=protocol, iou_thresholds=[threshold]).ap == ap


def test_voc_counts_all_detections_and_defines_no_sizes():
    found = entry(torch.cat([boxes_at(100.0).repeat(150, 1), boxes_at(0.0)]), [0.9] * 150 + [0.1])
    result = evaluate([found], [entry(boxes_at(0.0))], protocol="voc2010")
    assert result.ap == pytest.approx(1 / 151)
    assert np.isnan([result.ap_small, result.ar_100, result.ap75]).all()
    assert evaluate([found], [entry(boxes_at(0.0))]).ap == 0  # COCO stops after 100


def test_a_crowd_around_an_object_does_not_hide_it():
    """VOC has no crowd regions: one counts as a difficult object, by its plain IoU, 0.009 here against 0.9."""
    target = entry([[0, 0, 10, 10], [0, 0, 100, 100]], iscrowd=torch.tensor([False, True]))
    found = entry([[0, 0, 10, 9]], [0.5])
    assert evaluate([found], [target], protocol="voc2010").ap50 == 1.0
    assert evaluate([found], [target], protocol="coco").ap50 == 1.0


NAMES = ["background", "person", "car", "zeppelin"]


@pytest.fixture(scope="module")
def images():
    targets = random_targets(25, (128, 128), num_classes=2, seed=9)
    return random_detections(targets, num_classes=2, seed=9, masks=False), targets


def test_a_curve_holds_what_its_average_was_made_from(images):
    result = evaluate(*images, protocol="voc2007", classes=NAMES)
    curve = result.curve(1)
    assert (curve.name, curve.iou_threshold) == ("person", 0.5)
    assert curve.average_precision == result.per_class[1].ap50
    assert average_at_points(curve.precision, curve.recall, RECALLS_VOC2007) == curve.average_precision
    assert len(curve.recall) == len(curve.precision) == len(curve.scores) == result.per_class[1].detections
    assert (np.diff(curve.scores) <= 0).all()
    assert curve.recall[-1] == pytest.approx(result.per_class[1].recall)
    coco = evaluate(*images, classes=NAMES)
    for (t, threshold), k in product(enumerate(coco.iou_thresholds), range(2)):
        np.testing.assert_array_equal(coco.curve(k + 1, threshold).interpolated, coco.precision[t, :, k, 0, -1])
    # Only the best 100 of an image are part of COCO's curve.
    assert coco.per_class[1].detections < result.per_class[1].detections
    assert [curve.label for curve in coco.curves(0.75)] == [1, 2]  # nobody has seen a zeppelin
    with pytest.raises(ValueError, match="label 4"):
        coco.curve(4)
    with pytest.raises(ValueError, match=r"0\.42.*0\.5, 0\.55"):
        coco.curve(1, 0.42)


def test_the_table_names_the_classes_and_shows_their_figures(images):
    result = evaluate(*images, classes=["background", "per\nson", "c\x1b[31mar", "zeppelin"])
    lines = result.table().splitlines()
    assert [line.split()[0] for line in lines] == ["class", "per?son", "c?[31mar", "zeppelin", "mean"]
    row = result.per_class[1]
    figures = [f"{100 * value:.1f}" for value in (row.ap, row.ap50, row.ap75, row.recall)]
    assert lines[1].split() == ["per?son", str(row.objects), str(row.detections), *figures]
    assert lines[3].split() == ["zeppelin", "0", "0", "–", "–", "–", "–"]
    assert f"ap50 {100 * result.ap50:.1f}" in str(result)
    assert "nan" not in str(result)
    assert len({len(line) for line in lines}) == 1


def test_the_data_set_counts_and_not_the_image():
    """Pitfall: the mean over images of each image's average precision is another number."""
    target = entry(boxes_at(0.0))
    sure, unsure = entry(boxes_at(50.0, 0.0), [0.9, 0.8]), entry(boxes_at(0.0), [0.3])
    of_images = [evaluate([found], [target], protocol="voc2010").ap for found in (sure, unsure)]
    assert of_images == [0.5, 1.0]
    for order in ([sure, unsure], [unsure, sure]):  # scores rank all detections, wherever they were made
        assert evaluate(order, [target, target], protocol="voc2010").ap == pytest.approx(2 / 3)


# Two detections in the first image: the second image's only one is the third of all.
TWO_IMAGES = {"detections": [entry(boxes_at(0, 0), [0.5, 0.4]), entry(boxes_at(0), [0.5])]}
TWO_IMAGES |= {"targets": [entry(boxes_at(0))] * 2}


def second(side, **change):
    """Arguments of which the second image's entry is another one."""
    first, last = TWO_IMAGES[side]
    return {side: [first, {**last, **change}]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (second("detections", scores=torch.tensor([torch.nan])), r"detections\[1\].* scores must be finite numbers"),
        (second("detections", scores=torch.tensor([0.5, 0.4])), r"detections\[1\] has 1 labels but scores of .*\(2,\)"),
        (second("detections", labels=torch.tensor([1, 1])), r"detections\[1\].* boxes for 1 objects, but labels for 2"),
        (second("targets", labels=torch.tensor([0])), r"targets\[1\].* labels\[0\] is 0"),
        (second("targets", area=torch.tensor([torch.inf])), r"targets\[1\].* area must be finite numbers"),
        ({"kind": "polygons"}, "polygons"),
        ({"protocol": "voc2012"}, "voc2012"),
        ({"iou_thresholds": [0.5, 1.5]}, "iou_thresholds"),
        ({"classes": ["person", "car"]}, "background"),
        ({"classes": ["background"]}, "label 1 has no name"),
        ({"kind": "masks"}, r"detections\[0\] must be a dict with masks"),
        ({"targets": []}, "2 and 0"),
        ({"detections": [entry(boxes_at(0.0))] * 2}, r"must be a dict with boxes and labels and scores"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(**{**TWO_IMAGES, **arguments})


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (torch.rand(1, 8, 8), "with a threshold first"),
        (torch.ones(1, 9, 8) > 0, r"image 0: masks of different \(height, width\): \[\(8, 8\), \(9, 8\)\]"),
        # Without a look at them, pycocotools computes overlaps of these for ever.
        ([{"size": [8, 8], "counts": [0, 40]}], r"detections\[0\]: mask 0: its runs cover 40 pixels"),
        ([{"size": [8, 8], "counts": b"0P2"}] * 2, r"detections\[0\] has 2 masks but 1 labels"),
    ],
)
def test_bad_masks_are_named(masks, message):
    target = {"masks": torch.ones(1, 8, 8, dtype=torch.bool), "labels": torch.tensor([1])}
    found = {"masks": masks, "labels": torch.tensor([1]), "scores": torch.tensor([0.5])}
    with pytest.raises(ValueError, match=message):
        evaluate([found], [target], kind="masks")
