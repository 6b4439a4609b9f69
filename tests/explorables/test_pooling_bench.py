"""The pooling bench computes what the package and torchvision compute, and follows mouse, finger and keys."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision

from minircnn.course.explorables import PoolingBench
from minircnn.pooling import misalignment

CASES = 1000


@pytest.fixture(scope="module")
def cases():
    """Regions in images of any size, and maps of random values; some edges lie on halves of a cell."""
    rng, found = np.random.default_rng(0), []
    for number in range(CASES):
        size, grid = rng.integers(8, 200, 2).tolist(), rng.integers(1, 12, 2).tolist()
        x1, x2 = np.sort(rng.uniform(0, size[1], 2))
        y1, y2 = np.sort(rng.uniform(0, size[0], 2))
        if number % 3 == 0:  # a whole number of half cells
            x1, x2 = (round(2 * x * grid[1] / size[1]) * size[1] / grid[1] / 2 for x in (x1, x2))
        region = [x1, y1, max(x2, x1 + 0.1), max(y2, y1 + 0.1)]
        values = rng.normal(size=grid).tolist()
        bins, ratio, aligned = int(rng.integers(1, 6)), int(rng.integers(1, 4)), bool(number % 2)
        found.append({"region": region, "size": size, "grid": grid, "map": values, "n": bins, "s": ratio, "a": aligned})
    return found


@pytest.fixture(scope="module")
def answers(compute, cases):
    return compute(
        "pooling_bench",
        cases,
        """
        const cells = math.roundings(c.region, c.size, c.grid);
        return { ...cells, pool: math.pool(c.map, cells.pooled, c.n), means: math.means(c.map, [2, 3]),
          points: math.pointsOf(cells.exact, c.n, c.s, true),
          align: math.align(c.map, cells.exact, c.n, c.s, c.a) };
        """,
    )


def test_roundings_are_those_of_the_package(cases, answers):
    for case, answer in zip(cases, answers, strict=True):
        wanted = misalignment(case["region"], case["size"], case["grid"], case["n"], case["s"])
        np.testing.assert_allclose(answer["exact"], wanted.exact, atol=1e-9)
        assert answer["rounded_down"] == list(wanted.rounded_down)
        assert answer["pooled"] == list(wanted.pooled)
        assert answer["nearest"] == [math.floor(value) + (value % 1 >= 0.5) for value in wanted.exact]
        points = torch.tensor(answer["points"]).view(wanted.points.shape)
        np.testing.assert_allclose(points, wanted.points, atol=1e-5)


def rois_of(case):
    """A region in cells, so that images need not have the map's proportions."""
    x1, y1, x2, y2 = misalignment(case["region"], case["size"], case["grid"]).exact
    return torch.tensor([[0, x1, y1, x2, y2]], dtype=torch.float64)


def test_pooled_values_are_torchvisions(cases, answers):
    for case, answer in zip(cases, answers, strict=True):
        features, rois = torch.tensor(case["map"], dtype=torch.float64)[None, None], rois_of(case)
        pooled = torchvision.ops.roi_pool(features, rois, case["n"], 1.0)[0, 0]
        np.testing.assert_allclose(answer["pool"], pooled, atol=1e-9)
        aligned = torchvision.ops.roi_align(features, rois, case["n"], 1.0, case["s"], case["a"])[0, 0]
        np.testing.assert_allclose(answer["align"], aligned, atol=1e-6)
        means = F.adaptive_avg_pool2d(features, (2, 3))[0, 0]
        np.testing.assert_allclose(answer["means"], means, atol=1e-9)


def test_story(shown):
    figure = shown("pooling_bench")
    figure.run("model.set('region', [3, 4, 60, 50]); model.set('feature_size', [16, 16])")
    figure.page.get_by_role("button", name="2.93").click()
    found = figure.state("found")
    assert [round(found["exact"][2], 2), *(found[way][2] for way in ("rounded_down", "nearest", "pooled"))] == [
        2.93,
        2,
        3,
        4,
    ]
    assert "2.93" in figure.page.get_by_role("row", name="exact").inner_text()
    assert "−4.76" in figure.page.get_by_role("row", name="down").inner_text()
    assert "+5.48" in figure.page.get_by_role("row", name="published").inner_text()


def test_python_sets_and_reads_the_same_state():
    bench = PoolingBench(torch.rand(3, 64, 128, generator=torch.Generator().manual_seed(0)), feature_size=(8, 16))
    bench.region = (10, 20, 50, 60)
    assert bench.state["region"] == [10, 20, 50, 60]
    assert bench.misalignment.exact == (1.25, 2.5, 6.25, 7.5)
    assert bench.features.shape == (8, 16)
    for wrong in ((0, 0, 0, 10), (20, 0, 10, 10), (-1, 0, 5, 5), (1, 2, 3)):
        with pytest.raises(Exception, match=r"region"):
            bench.region = wrong
    with pytest.raises(ValueError, match=r"image must be \(3, h, w\)"):
        PoolingBench(torch.rand(64, 64))


def test_next_cell_compares_what_the_browser_found_with_the_package(shown, capsys):
    bench, figure = PoolingBench.example(), shown("pooling_bench")
    bench.compare()
    assert "No browser shows the figure yet" in capsys.readouterr().out
    bench.region, bench.output_size, bench.feature_size = (12.3, 4, 60, 50.5), 3, (16, 20)
    for name in ("region", "output_size", "feature_size"):
        figure.run(f"model.set('{name}', given)", getattr(bench, name))
    bench.found = figure.state("found")
    bench.compare()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all(line.endswith("equal within 1e-05") for line in lines), lines
    bench.region = (12.3, 4, 64, 50.5)  # and the browser has not followed
    bench.compare()
    assert "DIFFERENT" in capsys.readouterr().out


def test_edges_follow_the_mouse_a_finger_and_keys(shown):
    figure = shown("pooling_bench", has_touch=True)
    edge = figure.page.get_by_role("slider", name="right edge")
    box = edge.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    pixel = figure.page.locator("svg").first.bounding_box()["width"] / figure.state("window")
    figure.page.mouse.move(x, y)
    figure.page.mouse.down()
    figure.page.mouse.move(x + 5 * pixel, y)
    figure.page.mouse.up()
    assert figure.state("region") == pytest.approx([0, 0, 20, 15], abs=0.2)
    edge.press("ArrowRight")
    edge.press("Shift+ArrowLeft")
    assert figure.state("region") == pytest.approx([0, 0, 20.9, 15], abs=0.2)
    figure.page.get_by_role("button", name="the region").press("ArrowDown")
    assert figure.state("region")[1] == 1
    for _ in range(40):  # never beyond the other edge
        figure.page.get_by_role("slider", name="left edge").press("ArrowRight")
    left, _, right, _ = figure.state("region")
    assert right - left == pytest.approx(1)
    surface = figure.page.locator("svg").nth(1).bounding_box()
    figure.page.touchscreen.tap(surface["x"] + surface["width"] / 2, surface["y"] + surface["height"] / 4)
    cells = figure.state("window") * 25 / 128
    assert figure.state("point") == pytest.approx([cells / 2, cells / 4], abs=0.1)
