"""Anchors are placed, labeled and encoded as in the package and torchvision; mouse, finger and keys move objects."""

import numpy as np
import pytest
import torch
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator

from minircnn.boxes import box_iou, encode_boxes, match
from minircnn.course.explorables import Anchors
from minircnn.faster_rcnn import base_anchors, grid_anchors

CASES = 1000


@pytest.fixture(scope="module")
def cases():
    """Grids and objects; some objects are anchors themselves, touch them, lie outside of all, or are missing."""
    rng, found = np.random.default_rng(0), []
    for number in range(CASES):
        grid, stride = rng.integers(1, 7, 2).tolist(), int(rng.integers(2, 33))
        sizes = rng.integers(4, 70, rng.integers(1, 4)).astype(float).tolist()
        if number % 3 == 0:
            sizes = rng.uniform(4, 70, len(sizes)).tolist()
        ratios = rng.choice([0.1, 0.25, 1 / 3, 0.5, 1, 1.5, 2, 3, 4, 10], rng.integers(1, 4), replace=False).tolist()
        offset = float(rng.choice([0, 0.5, 0.25, 0.1]))
        corner, size = rng.uniform(-20, 150, (rng.integers(0, 4), 2)), rng.uniform(1, 90, 2)
        objects = np.concatenate([corner, corner + size], axis=1)
        if len(objects) and number % 2 == 0:
            anchors = grid_anchors(grid, (stride, stride), sizes, ratios, offset).double().numpy()
            objects[0] = anchors[rng.integers(len(anchors))]
            objects[-1] = anchors[rng.integers(len(anchors))] + stride / 2 * (number % 4)
        low, high = np.sort(rng.choice([0.0, 0.1, 0.3, 1 / 3, 0.5, 0.7, 1.0], 2)).tolist()
        case = {"grid": grid, "stride": stride, "sizes": sizes, "ratios": ratios, "offset": offset}
        found.append({**case, "objects": objects.tolist(), "low": low, "high": high})
    return found


@pytest.fixture(scope="module")
def answers(compute, cases):
    return compute(
        "anchors",
        cases,
        """
        const anchors = math.gridAnchors(c.grid, c.stride, c.sizes, c.ratios, c.offset);
        const found = math.labelAnchors(c.objects, anchors, c.high, c.low);
        const deltas = c.objects.map((object, k) => math.encode(anchors[found.best[k]], object));
        return { ...found, anchors, deltas, base: math.baseAnchors(c.sizes, c.ratios) };
        """,
    )


def test_anchors_are_those_of_the_package_and_torchvision(cases, answers):
    for case, answer in zip(cases, answers, strict=True):
        base = base_anchors(case["sizes"], case["ratios"])
        assert answer["base"] == base.tolist()
        theirs = AnchorGenerator((tuple(case["sizes"]),), (tuple(case["ratios"]),)).cell_anchors[0]
        assert answer["base"] == theirs.tolist()
        stride = (case["stride"], case["stride"])
        wanted = grid_anchors(case["grid"], stride, case["sizes"], case["ratios"], case["offset"])
        assert answer["anchors"] == wanted.tolist()


def test_labels_are_those_of_the_package_and_torchvision(cases, answers):
    compared = 0
    for case, answer in zip(cases, answers, strict=True):
        objects = torch.tensor(case["objects"], dtype=torch.float64).view(-1, 4)
        iou = box_iou(objects, torch.tensor(answer["anchors"], dtype=torch.float64))
        matched, label = match(iou, case["high"], case["low"], allow_low_quality_matches=True)
        assert answer["label"] == label.tolist()
        if not len(objects):
            continue
        assert answer["matched"] == matched.tolist()
        assert answer["best"] == [int(np.argmax(row)) for row in iou.numpy()]
        np.testing.assert_array_equal(answer["best_iou"], iou.amax(dim=1))
        strict = match(iou, case["high"], case["low"])[1]
        assert answer["low_quality"] == int(((label == 1) & (strict != 1)).sum())
        if bool((iou.amax(dim=1) > 0).all()):  # else torchvision makes every anchor positive that misses the object
            theirs = Matcher(case["high"], case["low"], allow_low_quality_matches=True)(iou)
            assert (theirs >= 0).tolist() == [value == 1 for value in answer["label"]]
            assert (theirs == Matcher.BELOW_LOW_THRESHOLD).tolist() == [value == 0 for value in answer["label"]]
            compared += 1
    assert compared > 300


def test_deltas_are_those_of_the_package_and_torchvision(cases, answers):
    for case, answer in zip(cases, answers, strict=True):
        if not case["objects"]:
            continue
        objects = torch.tensor(case["objects"], dtype=torch.float64)
        anchors = torch.tensor(answer["anchors"], dtype=torch.float64)[answer["best"]]
        found = torch.tensor(answer["deltas"], dtype=torch.float64)
        np.testing.assert_allclose(found, encode_boxes(anchors, objects), atol=1e-9)
        np.testing.assert_allclose(found, BoxCoder((1.0, 1.0, 1.0, 1.0)).encode_single(objects, anchors), atol=1e-9)


def middle(locator):
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def cells(figure, row):
    return figure.page.locator(".explorable tbody tr").nth(row).inner_text().split("\t")


def words(figure):
    return figure.page.locator(".explorable [aria-live]").inner_text()


def test_poplar_is_reached_by_its_own_aspect_ratio(shown):
    figure = shown("anchors")
    assert words(figure) == (
        "576 anchors: ● 4 positive (2 of them below the threshold: an object’s best), ● 36 ignored, ● 536 negative. "
        "Objects that no anchor reaches at IoU 0.5: 1 of 2."
    )
    assert cells(figure, 0) == ["A", "32 px, ratio 2", "0.36", "2", "−0.32", "+0.17", "−0.10", "+0.42"]
    assert "dx = (81 − 88) / 22 = −0.32" in figure.page.locator(".explorable").inner_text()
    figure.page.get_by_label("ratio 4").check()
    figure.page.get_by_label("stride").select_option("8")
    assert figure.state("aspect_ratios") == [0.5, 1, 2, 4]
    assert figure.state("found")["unreached"] == 0
    assert cells(figure, 0)[1] == "32 px, ratio 4"
    figure.page.get_by_role("button", name="Start over").click()
    assert figure.state("aspect_ratios") == [0.5, 1, 2]
    assert figure.state("stride") == 16


def test_thresholds_stay_in_order_and_the_last_size_stays(shown):
    figure = shown("anchors")
    positive, negative = figure.page.get_by_label("positive from IoU"), figure.page.get_by_label("negative below")
    positive.fill("0.2")
    assert (figure.state("positive"), figure.state("negative")) == (0.2, 0.2)
    assert "● 0 ignored" in words(figure)
    negative.fill("0.6")
    assert (figure.state("positive"), figure.state("negative")) == (0.6, 0.6)
    for size in ("16", "32"):
        figure.page.get_by_label(f"size {size}").uncheck()
    figure.page.get_by_label("size 64").click()
    assert figure.state("sizes") == [64]
    assert figure.page.get_by_label("size 64").is_checked()


def test_what_is_drawn_and_how_many_objects_there_are(shown):
    figure = shown("anchors")
    outlines = (
        "(kind) => [...document.querySelectorAll('.explorable svg path')].filter((p) => p.getAttribute('d')"
        "?.split('Z').length - 1 === kind).length"
    )
    assert figure.page.evaluate(outlines, 4) == 1
    figure.page.get_by_label("draw boxes").select_option("ignored")
    assert figure.page.evaluate(outlines, 36) == 1
    figure.page.get_by_role("button", name="object B").press("Enter")
    assert figure.state("selected") == 1
    figure.page.get_by_label("two objects").uncheck()
    assert (len(figure.state("objects")), figure.state("selected")) == (1, 0)
    assert figure.page.locator(".explorable tbody tr").count() == 1
    figure.run("model.set('selected', 1)")  # which is not there
    assert "object A" in figure.page.locator("figcaption").nth(1).inner_text()
    figure.page.get_by_label("two objects").check()
    assert figure.state("objects")[1] == [0, 26, 42, 101]


def test_objects_follow_the_mouse_a_finger_and_keys(shown):
    figure = shown("anchors", has_touch=True)
    page, scene = figure.page, figure.page.locator(".explorable svg").first
    origin, pixel = scene.bounding_box(), scene.bounding_box()["width"] / 128
    page.touchscreen.tap(origin["x"] + 20 * pixel, origin["y"] + 60 * pixel)
    assert figure.state("selected") == 1
    assert "object B" in page.locator("figcaption").nth(1).inner_text()
    start = origin["x"] + 81 * pixel, origin["y"] + 64 * pixel
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + 7 * pixel, start[1] + 100 * pixel)  # as far as the border
    page.mouse.up()
    assert figure.state("objects")[0] == [78, 58, 98, 128]
    body = page.get_by_role("button", name="object A")
    assert body.get_attribute("aria-label").startswith("object A, at 78, 58, 98, 128; its best anchor has an IoU of 0.")
    body.press("ArrowUp")
    body.press("Shift+ArrowLeft")
    assert figure.state("objects")[0] == [77.9, 57, 97.9, 127]
    corner = page.get_by_role("slider", name="upper left corner")
    for _ in range(25):
        corner.press("ArrowRight")
    assert figure.state("objects")[0] == [96.9, 57, 97.9, 127]
    assert corner.get_attribute("aria-valuetext") == "x 96.9, y 57 of object A"


def test_python_sets_and_reads_the_same_state():
    image = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0))
    figure = Anchors(image, [[0, 0, 20, 20]], stride=20, sizes=[20], aspect_ratios=[1.0])
    assert figure.anchors.shape == (6, 4)
    assert figure.best.tolist() == [0]
    assert figure.label.tolist() == [1, 0, 0, 0, 0, 0]
    assert figure.deltas.tolist() == [[0, 0, 0, 0]]
    assert figure.unreached == 0
    figure.objects, figure.selected = [[0, 0, 20, 20], [20, 0, 60, 20]], 1
    figure.objects = [[0, 0, 20, 20]]
    assert figure.selected == 0
    figure.stride = 100  # larger than the image: one cell
    assert figure.anchors.shape == (1, 4)
    figure.stride = 20
    for name, wrong in (
        ("objects", []),
        ("objects", [[0, 0, 61, 10]]),
        ("objects", [[0, 0, 9, 9]] * 3),
        ("selected", 1),
        ("sizes", []),
        ("aspect_ratios", [0]),
        ("positive", 0.2),
        ("negative", 0.8),
        ("stride", 0),
    ):
        with pytest.raises(Exception, match=name):
            setattr(figure, name, wrong)
    with pytest.raises(ValueError, match=r"image must be \(3, h, w\)"):
        Anchors(torch.rand(64, 64), [[0, 0, 9, 9]])


def test_next_cell_compares_what_the_browser_found_with_the_package(shown, capsys):
    figure, page = Anchors.example(), shown("anchors")
    for stride, sizes, positive in ((16, [16, 32, 64], 0.7), (8, [20.0, 36.5], 0.5), (100, [4], 0.9)):
        figure.stride, figure.sizes, figure.positive = stride, sizes, positive
        for name in ("stride", "sizes", "positive"):
            page.run(f"model.set('{name}', given)", getattr(figure, name))
        figure.found = page.state("found")
        figure.compare()
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 6
        assert all(line.endswith("equal within 1e-05") for line in lines), lines
