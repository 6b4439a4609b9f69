"""Overlaps computes IoU, NMS and AP as the package, torchvision and pycocotools do; mouse, finger and keys move it."""

import contextlib
import io

import numpy as np
import pytest
import torch
import torchvision
from pycocotools.cocoeval import COCOeval

from minircnn.boxes import box_iou, nms
from minircnn.course.compare import for_pycocotools
from minircnn.course.explorables import Overlaps
from minircnn.evaluation import evaluate
from minircnn.metrics import RECALLS_COCO, average_at_points, precision_recall

CASES = 1000


def drawn(rng, count, whole):
    """Boxes within 40 pixels; whole-numbered ones touch, repeat and have IoUs of exactly one half."""
    corner, size = rng.uniform(0, 30, (count, 2)), rng.uniform(1, 12, (count, 2))
    if whole:
        corner, size = 2 * rng.integers(0, 4, (count, 2)), 2 * rng.integers(1, 4, (count, 2))
    return np.concatenate([corner, corner + size], axis=1).astype(float)


@pytest.fixture(scope="module")
def cases():
    rng, found = np.random.default_rng(0), []
    for number in range(CASES):
        whole, objects, detections = number % 2 == 0, int(rng.integers(0, 6)), int(rng.integers(0, 14))
        truths, boxes = drawn(rng, objects, whole), drawn(rng, detections, whole)
        near = rng.random(detections) < 0.6
        if objects and near.any() and not whole:  # most detections lie near an object
            boxes[near] = truths[rng.integers(0, objects, near.sum())] + rng.normal(0, 0.6, (near.sum(), 4))
            boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 0.5)
        if detections and number % 17 == 0:
            boxes[0, 2:] = boxes[0, :2]  # without area
        if objects and number % 17 == 0:
            truths[0, 2:] = truths[0, :2]
        scores = rng.integers(0, 5, detections) / 4 if number % 3 else rng.random(detections)  # often equal
        of_nms, of_iou = (rng.choice([0.5, 1 / 3, 0.25, 0.0, 1.0, 0.7]) for _ in range(2))
        case = {"truths": truths, "boxes": boxes, "scores": scores, "nms_threshold": of_nms, "iou_threshold": of_iou}
        case["iou_threshold"] = max(of_iou, 0.01)
        found.append({key: np.asarray(value).tolist() for key, value in case.items()})
        objects = int(rng.integers(1, 101))  # of a long list: COCO's 101 recalls are not all numbers of two decimals
        found[-1]["long"] = {"objects": objects, "right": (rng.random(objects) < 0.8).tolist()}
        found[-1]["counted"] = int(rng.integers(0, detections + 2)) if number % 4 == 0 else detections
    return found


@pytest.fixture(scope="module")
def answers(compute, cases):
    return compute(
        "overlaps",
        cases,
        """
        const { precision, recall } = math.precisionRecall(c.long.right, c.long.objects);
        const average = math.averagePrecision(precision, recall);
        return { ...math.evaluate(c), among: math.pairs(c.boxes, c.boxes), long: { precision, recall, average } };
        """,
    )


def tensors(case):
    shapes = {"truths": (-1, 4), "boxes": (-1, 4), "scores": (-1,)}
    return (torch.tensor(case[key], dtype=torch.float64).view(shape) for key, shape in shapes.items())


def test_overlaps_are_those_of_the_package_and_torchvision(cases, answers):
    for case, answer in zip(cases, answers, strict=True):
        truths, boxes, _ = tensors(case)
        for other, found in ((truths, answer["iou"]), (boxes, answer["among"])):
            found = np.array(found, dtype=float).reshape(len(boxes), len(other))
            np.testing.assert_array_equal(found, box_iou(boxes, other))  # nan where there is no area
            np.testing.assert_allclose(found, torchvision.ops.box_iou(boxes, other), atol=1e-9)


def test_same_boxes_survive_as_in_the_package_and_torchvision_and_the_first_that_can_suppresses(cases, answers):
    for case, answer in zip(cases, answers, strict=True):
        _, boxes, scores = tensors(case)
        order = scores.argsort(descending=True, stable=True)
        assert answer["order"] == order.tolist()
        best = order[: case["counted"]]
        kept = best[nms(boxes[best], scores[best], case["nms_threshold"])].tolist()
        assert answer["kept"] == kept
        assert kept == best[torchvision.ops.nms(boxes[best], scores[best], case["nms_threshold"])].tolist()
        iou = box_iou(boxes, boxes)
        for box, by in enumerate(answer["suppressed_by"]):
            able = [other for other in kept if iou[other, box] > case["nms_threshold"]]
            assert by == (able[0] if box in best.tolist() and box not in kept else -1)


def test_matches_curve_and_average_are_those_of_the_package(cases, answers):
    for case, answer in zip(cases, answers, strict=True):
        truths, boxes, scores = tensors(case)
        kept = torch.tensor(answer["kept"], dtype=torch.int64)
        found = {"boxes": boxes[kept], "scores": scores[kept], "labels": torch.ones_like(kept)}
        target = {"boxes": truths, "labels": torch.ones(len(truths), dtype=torch.int64)}
        if not len(truths):
            assert np.isnan(answer["average_precision"])
        if not len(truths) or not len(kept):
            assert answer["average_precision"] == 0 or not len(truths)
            continue
        result = evaluate([found], [target], iou_thresholds=[case["iou_threshold"]])
        curve = result.curve(1, case["iou_threshold"])
        assert answer["true_positive"] == result.rankings[1].tp[0, 0].tolist()
        np.testing.assert_array_equal(answer["precision"], curve.precision)
        np.testing.assert_array_equal(answer["recall"], curve.recall)
        np.testing.assert_allclose(answer["average_precision"], curve.average_precision, atol=1e-12)


def test_averages_of_long_lists_are_those_of_the_package(cases, answers):
    for case, answer in zip(cases, answers, strict=True):
        right = np.array(case["long"]["right"])
        precision, recall = precision_recall(right, ~right, case["long"]["objects"])
        np.testing.assert_array_equal(answer["long"]["precision"], precision)
        np.testing.assert_array_equal(answer["long"]["recall"], recall)
        average = average_at_points(precision, recall, RECALLS_COCO)
        np.testing.assert_allclose(answer["long"]["average"], average, atol=1e-12)


def test_average_is_that_of_pycocotools(cases, answers):
    """Of whole-numbered boxes: it adds widths to corners, which rounds others to the other side of a threshold."""
    compared = 0
    for case, answer in list(zip(cases, answers, strict=True))[::2]:
        truths, boxes, scores = tensors(case)
        if not len(truths) or not answer["kept"] or bool(((boxes[:, 2:] - boxes[:, :2]) == 0).any()):
            continue
        kept = torch.tensor(answer["kept"])
        found = {"boxes": boxes[kept], "scores": scores[kept], "labels": torch.ones_like(kept)}
        target = {"boxes": truths, "labels": torch.ones(len(truths), dtype=torch.int64)}
        target |= {"iscrowd": torch.zeros(len(truths)), "area": torch.ones(len(truths))}
        judge = COCOeval(*for_pycocotools([found], [target], "boxes", 1), "bbox")
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.params.iouThrs = np.array([case["iou_threshold"]])
        with contextlib.redirect_stdout(io.StringIO()):
            judge.evaluate()
            judge.accumulate()
        theirs = judge.eval["precision"][0, :, 0, 0, -1].mean()
        assert answer["average_precision"] == pytest.approx(theirs, abs=1e-9)
        compared += 1
    assert compared > 300


def drag(page, place, x, y):
    page.mouse.move(*place)
    page.mouse.down()
    page.mouse.move(place[0] + x / 2, place[1] + y / 2)
    page.mouse.move(place[0] + x, place[1] + y)
    page.mouse.up()


def middle(locator):
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def row(figure, box):
    rows = figure.page.locator(".explorable tbody tr")
    return rows.nth(figure.state("found")["order"].index(box)).inner_text().split("\t")


def test_thresholds_decide_what_is_kept_and_what_is_right(shown):
    figure = shown("overlaps")
    said = figure.page.locator(".explorable [aria-live]")
    assert said.inner_text() == (
        "Detection 3 and object C: intersection / union = 1748 / 2660 px² = IoU 0.66. "
        "Detection 3 is suppressed by 0, IoU 0.64."
    )
    assert row(figure, 4) == ["4", "0.70", "0.95 A", "true positive: A", "0.75", "1.00"]
    figure.page.get_by_label("NMS threshold").fill("0.3")
    assert row(figure, 4)[3:] == ["suppressed by 1, IoU 0.36", "–", "–"]
    assert figure.state("found")["recall"][-1] == pytest.approx(2 / 3)
    figure.page.get_by_label("NMS threshold").fill("0.8")
    assert row(figure, 3)[3] == "false positive: C is already found"
    assert row(figure, 4)[4] == "0.60"  # of five detections three
    figure.page.get_by_label("IoU for a true positive").fill("0.95")
    assert row(figure, 4)[3] == "false positive: IoU < 0.95"
    assert "AP = 0.000" in figure.page.locator(".explorable svg").nth(1).text_content()
    figure.page.get_by_role("button", name="Start over").click()
    assert figure.state("nms_threshold") == figure.state("iou_threshold") == 0.5
    assert "AP = 0.916" in figure.page.locator(".explorable svg").nth(1).text_content()


def test_curve_grows_detection_by_detection(shown):
    figure = shown("overlaps")
    counted = figure.page.get_by_label("detections counted")
    counted.fill("0")
    assert figure.state("found")["average_precision"] == 0
    seen = []
    for _ in range(5):
        counted.press("ArrowRight")
        seen.append(figure.page.locator(".explorable svg").nth(1).locator("circle").count())
    assert seen == [1, 2, 3, 3, 4]  # the fourth is suppressed
    assert row(figure, 6)[3] == "not counted"


def test_python_may_give_it_other_boxes(shown):
    figure = shown("overlaps")
    figure.run("model.set('boxes', [[0, 0, 10, 10], [20, 20, 50, 50]]); model.set('scores', [0.5, 0.6])")
    assert figure.page.locator(".explorable tbody tr").count() == 2
    assert "Detection 1 and object A" in figure.page.locator(".explorable [aria-live]").inner_text()
    assert figure.page.get_by_role("button", name="detection").count() == 2
    boxes = [[5 * k, 0, 5 * k + 9, 9] for k in range(9)]
    figure.run("model.set('boxes', given); model.set('scores', given.map(() => 0.5))", boxes)
    assert figure.page.get_by_role("button", name="detection").count() == 9


def test_score_changes_the_order_and_the_winner(shown):
    figure = shown("overlaps")
    figure.page.get_by_label("score of box 3").fill("0.99")
    assert figure.state("scores")[3] == 0.99
    assert figure.state("found")["order"][0] == 3
    assert row(figure, 3)[3] == "true positive: C"
    assert row(figure, 0)[3] == "suppressed by 3, IoU 0.64"


def test_boxes_and_corners_follow_the_mouse_a_finger_and_keys(shown):
    figure = shown("overlaps", has_touch=True)
    page, scene = figure.page, figure.page.locator(".explorable svg").first
    pixel = scene.bounding_box()["width"] / 128
    drag(page, middle(page.get_by_role("slider", name="lower right corner")), 5 * pixel, 3 * pixel)
    assert figure.state("boxes")[3] == [44, 60, 93, 110]
    origin = scene.bounding_box()
    cone = origin["x"] + 96 * pixel, origin["y"] + 90 * pixel  # within box 2 alone
    page.touchscreen.tap(*cone)
    assert figure.state("selected") == 2
    assert "Detection 2 is a false positive: IoU < 0.50." in page.locator(".explorable [aria-live]").inner_text()
    drag(page, cone, 100 * pixel, -7 * pixel)  # as far as the border
    assert figure.state("boxes")[2] == [94, 53, 128, 92]
    name = "detection 2, score 0.82, at 94, 53, 128, 92; false positive: IoU < 0.50"
    box = page.get_by_role("button", name=name)
    assert box.get_attribute("aria-pressed") == "true"
    box.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowUp")
    assert figure.state("boxes")[2] == [93, 52.9, 127, 91.9]
    page.get_by_role("button", name="detection 6").press("Enter")
    assert figure.state("selected") == 6
    for _ in range(45):  # never beyond the other corner
        page.get_by_role("slider", name="upper left corner").press("ArrowRight")
    assert figure.state("boxes")[6] == [49, 30, 50, 70]
    page.locator(".explorable tbody tr").first.click()
    assert figure.state("selected") == 0
    page.locator(".explorable g[aria-hidden]").nth(5).dispatch_event("pointerdown", {"pointerId": 1})
    assert figure.state("selected") == 5


def test_python_sets_and_reads_the_same_state():
    image = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0))
    figure = Overlaps(image, [[0, 0, 20, 20]], [[0, 0, 20, 10], [1, 0, 21, 10]], [0.5, 0.5])
    assert figure.state["counted"] == 2
    assert figure.state["image_size"] == [40, 60]
    assert figure.kept.tolist() == [0]  # of equal scores the first
    assert figure.result.ap == 1  # an IoU of the threshold is enough
    figure.selected = 1
    with figure.hold_trait_notifications():
        figure.boxes, figure.scores = [[0, 0, 10, 10]], [1.0]
    assert figure.selected == 0
    assert figure.iou.tolist() == [[0.25]]
    for name, wrong in (
        ("boxes", [[0, 0, 61, 10]]),
        ("boxes", [[5, 5, 5, 10]]),
        ("boxes", [[0, 0, 9, 9], [0, 0, 9, 9]]),
        ("truths", []),
        ("truths", [[0, 0, 5]]),
        ("scores", [0.1, 0.2]),
        ("scores", [1.5]),
        ("selected", 1),
        ("iou_threshold", 0),
    ):
        with pytest.raises(Exception, match=name):
            setattr(figure, name, wrong)
    with pytest.raises(ValueError, match=r"image must be \(3, h, w\)"):
        Overlaps(torch.rand(64, 64), [[0, 0, 9, 9]], [[0, 0, 9, 9]], [0.5])


def test_next_cell_compares_what_the_browser_found_with_the_package(shown, capsys):
    figure, page = Overlaps.example(), shown("overlaps")
    for nms_threshold, iou_threshold, counted in ((0.5, 0.5, 7), (0.8, 0.65, 6), (1.0, 1.0, 0)):
        figure.nms_threshold, figure.iou_threshold, figure.counted = nms_threshold, iou_threshold, counted
        for name in ("nms_threshold", "iou_threshold", "counted"):
            page.run(f"model.set('{name}', given)", getattr(figure, name))
        figure.found = page.state("found")
        figure.compare()
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 6
        assert all(line.endswith("equal within 1e-05") for line in lines), lines
