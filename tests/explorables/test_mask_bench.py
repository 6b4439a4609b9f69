"""Masks are cut out and pasted back as in the package and torchvision; mouse, finger and keys move the box."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as rle
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.roi_heads import project_masks_on_boxes as torchvisions
from torchvision.ops import roi_align

from minircnn.course.explorables import MaskBench
from minircnn.mask_rcnn import paste_masks, project_masks_on_boxes

CASES = 1000


def random_mask(rng, height, width):
    """An ellipse, pixels at random, all of them or none."""
    y, x = np.mgrid[:height, :width] + 0.5
    radii = rng.uniform(0.1, 0.6, 2) * (height, width)
    ellipse = ((y - rng.uniform(0, height)) / radii[0]) ** 2 + ((x - rng.uniform(0, width)) / radii[1]) ** 2 < 1
    kinds = ellipse, rng.random((height, width)) < 0.5, np.ones_like(ellipse), np.zeros_like(ellipse)
    return kinds[rng.choice(4, p=[0.7, 0.2, 0.05, 0.05])]


@pytest.fixture(scope="module")
def cases():
    """Masks and boxes: on whole and half pixels, smaller than a pixel, beyond the border, and far outside of it."""
    rng, found = np.random.default_rng(0), []
    for number in range(CASES):
        height, width = rng.integers(1, 60, 2).tolist()
        low = rng.uniform(-0.3, 0.9, 2) * (width, height)
        side = rng.uniform(0.05, 1.0, 2) * (width, height)
        if number % 3 == 0:
            low, side = np.round(2 * low) / 2, np.maximum(np.round(2 * side), 1) / 2
        if number % 10 == 1:
            side = rng.uniform(0.01, 1, 2)
        if number % 50 == 2:
            low = low + 3 * width * height
        m = int(rng.choice([1, 2, 5, 7, 14, 28, 56, rng.integers(1, 57)]))
        case = {"mask": random_mask(rng, height, width).astype(int).tolist(), "box": [*low, *(low + side)], "m": m}
        found.append({**case, "threshold": round(0.05 * rng.integers(0, 21), 2), "aligned": bool(number % 2)})
    return found


@pytest.fixture(scope="module")
def answers(compute, cases):
    return compute(
        "mask_bench",
        cases,
        """
        const found = math.thereAndBack(c.mask, c);
        return { ...found, values: math.paste(found.target, c.box, [c.mask.length, c.mask[0].length], c.aligned) };
        """,
    )


def tensors(case):
    mask, box = torch.tensor(case["mask"], dtype=torch.bool), torch.tensor([case["box"]], dtype=torch.float64)
    return mask, box, tuple(mask.shape)


def test_targets_are_those_of_the_package_and_torchvision(cases, answers):
    for case, answer in zip(cases, answers, strict=True):
        (mask, box, _), m, first = tensors(case), case["m"], torch.tensor([0])
        wanted = project_masks_on_boxes(mask[None], box, first, m, case["aligned"])[0]
        np.testing.assert_allclose(answer["target"], wanted, atol=1e-9)
        if case["aligned"]:
            rois = torch.cat([first[:, None].double(), box], dim=1)
            theirs = roi_align(mask[None, None].double(), rois, m, 1.0, -1, True)[0, 0]
        else:
            theirs = torchvisions(mask[None].byte(), box, first, m)[0]
        np.testing.assert_allclose(answer["target"], theirs, atol=1e-9)


def test_pasted_masks_are_those_of_the_package_and_torchvision(cases, answers):
    seen = 0
    for case, answer in zip(cases, answers, strict=True):
        _, box, size = tensors(case)
        target = torch.tensor(answer["target"], dtype=torch.float64)[None]
        wanted = paste_masks(target, box, size, case["aligned"])[0, 0]
        np.testing.assert_allclose(answer["values"], wanted, atol=1e-9)
        over = (1e9 * wanted).round() > round(1e9 * case["threshold"])
        assert answer["pasted"] == over.int().tolist()
        x1, y1, x2, y2 = case["box"]
        if case["aligned"]:
            np.testing.assert_allclose(answer["values"], by_grid_sample(target, case["box"], size), atol=1e-4)
        elif x1 < size[1] and y1 < size[0] and x2 > 0 and y2 > 0:  # torchvision cannot paste what misses the image
            theirs = paste_masks_in_image(target[None], box.float(), size)[0, 0]
            np.testing.assert_allclose(answer["values"], theirs, atol=1e-9)
            seen += 1
    assert seen > 400


def by_grid_sample(target, box, size):
    """The same by torch's sampler, in double precision throughout."""
    x, y = (
        2 * (torch.arange(count, dtype=torch.float64) + 0.5 - low) / (high - low) - 1
        for count, low, high in zip(size[::-1], box[:2], box[2:], strict=True)
    )
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
    return F.grid_sample(target[None], grid, padding_mode="zeros", align_corners=False)[0, 0]


def test_agreement_is_that_of_pycocotools(cases, answers):
    for case, answer in zip(cases, answers, strict=True):
        mask, pasted = (np.array(one, dtype=np.uint8) for one in (case["mask"], answer["pasted"]))
        (x1, y1, x2, y2), (height, width) = case["box"], mask.shape
        y, x = np.mgrid[:height, :width] + 0.5
        inside = ((x1 <= x) & (x <= x2) & (y1 <= y) & (y <= y2)).astype(np.uint8)
        for name, part in (("whole", np.ones_like(mask)), ("inside", inside)):
            found, truth = (rle.encode(np.asfortranarray(one * part)) for one in (pasted, mask))
            assert answer[name]["iou"] == pytest.approx(rle.iou([found], [truth], [0])[0, 0], abs=1e-12)
            assert answer[name]["lost"] == ((mask > pasted) * part).sum()
            assert answer[name]["gained"] == ((mask < pasted) * part).sum()
            assert answer[name]["shared"] == (mask * pasted * part).sum()


def cells(figure, row):
    return figure.page.locator(".explorable table tr").nth(row + 1).inner_text().split("\t")


def words(figure):
    return figure.page.locator(".explorable [aria-live]").inner_text()


def test_proposal_loses_the_tail_and_few_cells_lose_the_legs(shown):
    figure = shown("mask_bench")
    assert cells(figure, 0) == ["whole mask", "833", "92", "26", "0.88"]
    assert cells(figure, 1) == ["part in the box", "833", "47", "26", "0.92"]
    assert words(figure) == (
        "A cell has 4.2 × 3.5 pixels. IoU = both / (both + lost + gained) = 833 / 951 = 0.88. "
        "Of the lost pixels 45 lie outside of the box."
    )
    figure.page.get_by_role("button", name="Fit the box").click()
    assert figure.state("box") == [8, 16, 69, 58]
    assert "outside" not in words(figure)
    figure.page.get_by_label("m, cells a side").fill("5")
    assert figure.page.locator(".explorable svg text").count() == 25
    assert "in percent" in figure.page.locator("figcaption").nth(1).inner_text()
    assert figure.state("found")["iou"] < 0.75
    figure.page.get_by_label("m, cells a side").fill("56")
    assert figure.page.locator(".explorable svg text").count() == 0
    assert figure.state("found")["iou"] > 0.97
    figure.page.get_by_label("threshold").fill("0.95")
    assert figure.state("found")["gained"] == 0
    figure.page.get_by_role("button", name="Start over").click()
    assert (figure.state("box"), figure.state("m"), figure.state("threshold")) == ([5, 13, 64, 62], 14, 0.5)


def test_not_aligned_is_shifted_and_says_so(shown):
    figure = shown("mask_bench")
    assert "Not aligned" not in words(figure)
    figure.page.get_by_role("button", name="Fit the box").click()
    figure.page.get_by_label("m, cells a side").fill("28")
    straight = figure.state("found")["iou"]
    figure.page.get_by_label("aligned").uncheck()
    assert "half a pixel too far right and down" in words(figure)
    assert figure.state("found")["iou"] < straight


def test_box_and_corners_follow_the_mouse_a_finger_and_keys(shown):
    figure = shown("mask_bench", has_touch=True)
    page, scene = figure.page, figure.page.locator(".explorable svg").first
    pixel = scene.bounding_box()["width"] / 76
    corner = page.get_by_role("slider", name="lower right corner").bounding_box()
    start = corner["x"] + corner["width"] / 2, corner["y"] + corner["height"] / 2
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + 6 * pixel, start[1] - 2 * pixel)
    page.mouse.up()
    assert figure.state("box") == [5, 13, 70, 60]
    origin = scene.bounding_box()
    start = origin["x"] + 40 * pixel, origin["y"] + 30 * pixel
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] - 30 * pixel, start[1] + 3 * pixel)  # as far as the border
    page.mouse.up()
    assert figure.state("box") == [0, 16, 65, 63]
    body = page.get_by_role("button", name="the box, at")
    body.press("ArrowRight")
    body.press("Shift+ArrowUp")
    assert figure.state("box") == [1, 15.9, 66, 62.9]
    assert body.get_attribute("aria-label") == "the box, at 1, 15.9, 66, 62.9"
    page.get_by_role("slider", name="upper left corner").press("ArrowDown")
    assert figure.state("box") == [1, 16.9, 66, 62.9]
    spot = page.get_by_label("aligned").bounding_box()
    page.touchscreen.tap(spot["x"] + 5, spot["y"] + 5)
    assert figure.state("aligned") is False


def test_python_sets_and_reads_the_same_state():
    mask = torch.zeros(30, 40, dtype=torch.bool)
    mask[10:20, 10:30] = True
    bench = MaskBench(torch.rand(3, 30, 40, generator=torch.Generator().manual_seed(0)), mask, m=10)
    assert bench.box == [10, 10, 30, 20]
    assert bench.target.tolist() == torch.ones(10, 10).tolist()
    assert torch.equal(bench.pasted, mask)
    bench.box = (20, 10, 40, 20)
    assert bench.target[0].tolist() == [1] * 5 + [0] * 5
    assert (bench.iou, bench.iou_in_box) == (0.5, 1)
    bench.box = (0, 0, 5, 5)
    assert (bench.iou, bench.iou_in_box) == (0, 0)
    for name, wrong in (
        ("box", (0, 0, 41, 10)),
        ("box", (5, 5, 5, 10)),
        ("box", (1, 2, 3)),
        ("m", 4),
        ("m", 57),
        ("threshold", 1.1),
    ):
        with pytest.raises(Exception, match=name):
            setattr(bench, name, wrong)
    with pytest.raises(ValueError, match=r"image must be \(3, h, w\)"):
        MaskBench(torch.rand(30, 40), mask)
    for wrong in (mask.float(), mask[:9], mask & ~mask):
        with pytest.raises(ValueError, match=r"mask must be \(30, 40\) bool"):
            MaskBench(torch.rand(3, 30, 40), wrong)


def test_next_cell_compares_what_the_browser_found_with_the_package(shown, capsys):
    bench, figure = MaskBench.example(), shown("mask_bench")
    for box, m, threshold, aligned in (
        ([5, 13, 64, 62], 14, 0.5, True),
        ([8.3, 16, 70, 57.7], 28, 0.35, False),
        ([0, 0, 76, 76], 56, 0.95, True),
        ([20, 20, 20.5, 21], 5, 0.05, False),
    ):
        bench.box, bench.m, bench.threshold, bench.aligned = box, m, threshold, aligned
        for name in ("box", "m", "threshold", "aligned"):
            figure.run(f"model.set('{name}', given)", getattr(bench, name))
        bench.found = figure.state("found")
        bench.compare()
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 6
        assert all(line.endswith("equal within 1e-05") for line in lines), lines
