"""The figure merges as the package does: the same pairs in the same order, also where similarities are equal."""

from itertools import combinations

import numpy as np
import pytest
import torch

from minircnn.course.explorables import Merging
from minircnn.selective_search import SIMILARITIES, Regions, hierarchical_grouping

CASES = 1000


def histograms(rng, count, bins, tied):
    values = rng.integers(1, 3 if tied else 50, (count, bins)).astype(np.float32)
    return values / values.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def cases():
    """Random regions, neighbors and similarities; in every third case many pairs are equally similar."""
    rng, found = np.random.default_rng(0), []
    for number in range(CASES):
        count, tied = int(rng.integers(2, 14)), number % 3 == 0
        low = rng.integers(0, 4 if tied else 40, (count, 2))
        boxes = np.concatenate([low, low + rng.integers(1, 3 if tied else 20, (count, 2))], axis=1)
        pairs = {(int(rng.integers(k)), k) for k in range(1, count)}  # all are connected
        pairs |= {pair for pair in combinations(range(count), 2) if rng.random() < 0.2}
        regions = Regions(
            labels=np.zeros((60, 60), dtype=np.int64),
            sizes=rng.integers(1, 3 if tied else 200, count).astype(np.float32),
            boxes=boxes.astype(np.float32),
            color=histograms(rng, count, int(rng.choice([4, 25, 75])), tied),
            texture=histograms(rng, count, int(rng.choice([5, 80, 240])), tied),
            neighbors=np.array(sorted(pairs)),
        )
        weights = rng.integers(0, 2, 4)
        weights[number % 4] = 1
        found.append((regions, weights.tolist()))
    return found


@pytest.fixture(scope="module")
def answers(browser, pages, cases):
    given = []
    for regions, weights in cases:
        used = [values for values, weight in zip((regions.color, regions.texture), weights, strict=False) if weight]
        both = np.concatenate(used, axis=1) if used else np.empty((len(regions.sizes), 0))
        rows = {name: getattr(regions, name).tolist() for name in ("sizes", "boxes", "neighbors")}
        given.append({**rows, "area": regions.labels.size, "histograms": both.tolist(), "weights": weights})
    page = browser.new_page()
    page.goto((pages / "merging.html").as_uri())
    page.wait_for_function("document.getElementById('merging')?.explorable")
    return page.evaluate(
        """(cases) => cases.map((one) => {
          const histograms = one.histograms.map((row) => Float32Array.from(row));
          const { nodes, merges } = merging.explorable.math.mergeAll({ ...one, histograms }, one.weights.slice(2));
          return { merges, boxes: nodes.map(({ box }) => box), sizes: nodes.map(({ size }) => size) };
        })""",
        given,
    )


def test_merges_are_those_of_the_package_in_their_order(cases, answers):
    for (regions, weights), answer in zip(cases, answers, strict=True):
        tree = hierarchical_grouping(regions, [n for n, w in zip(SIMILARITIES, weights, strict=True) if w])
        assert [merge[:2] for merge in answer["merges"]] == tree.children.tolist()
        np.testing.assert_allclose([merge[2] for merge in answer["merges"]], tree.similarity, atol=1e-6)
        assert answer["boxes"] == tree.boxes.tolist()
        assert answer["sizes"] == tree.sizes.tolist()


@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
def test_next_cell_compares_what_the_browser_found_with_the_package(shown, capsys, weights):
    bench, figure = Merging.example(), shown("merging")
    bench.weights, bench.step = weights, 70
    figure.run("model.set('weights', given)", weights)
    figure.run("model.set('step', 70)")
    bench.found = figure.state("found")
    bench.compare()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert not any("DIFFERENT" in line for line in lines), lines


def test_steps_and_similarities_follow_mouse_and_keys(shown):
    figure = shown("merging")
    page = figure.page
    page.get_by_role("button", name="Next merge").click()
    assert figure.state("step") == 46
    page.get_by_role("slider", name="merges on the curve").press("ArrowLeft")
    assert figure.state("step") == 45
    words = page.locator("p[aria-live]")
    assert "(off)" not in words.inner_text()
    page.get_by_label("color").click()
    assert figure.state("weights") == [0, 1, 1, 1]
    assert "(off)" in words.inner_text()
    page.get_by_role("slider", name="merges", exact=True).fill("105")
    assert "One region is left" in words.inner_text()


def test_python_refuses_what_does_not_exist():
    bench = Merging.example()
    with pytest.raises(Exception, match="step"):
        bench.step = 106
    with pytest.raises(Exception, match="weights"):
        bench.weights = [0, 0, 0, 0]
    with pytest.raises(ValueError, match=r"image must be \(3, h, w\)"):
        Merging(torch.rand(20, 30), [[0, 0, 5, 5]])
