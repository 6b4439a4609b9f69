"""Regions merge in the order of the package, to the last pair, and mouse, finger and keys choose the step."""

import numpy as np
import pytest
import torch

from minircnn.boxes import box_iou
from minircnn.course.explorables import Merging
from minircnn.metrics import proposal_recall
from minircnn.selective_search import SIMILARITIES, Regions, Strategy, hierarchical_grouping, merge_trees

CASES = 1000
KEYS = ("sizes", "boxes", "color", "texture")


def touching(rng, count, connected):
    """Pairs of neighbors in ascending order: a tree over all regions and some more, or pairs at random."""
    tree = {(int(rng.integers(b)), b) for b in range(1, count)} if connected else set()
    some = {tuple(sorted(pair)) for pair in rng.integers(0, count, (rng.integers(0, 2 * count + 1), 2)).tolist()}
    return np.array(sorted(tree | {(a, b) for a, b in some if a != b}), dtype=np.int64).reshape(-1, 2)


def histograms(rng, count, bins, ties):
    """Rows of sum 1; with ties few different ones, of few values, so that many pairs are equally similar."""
    counts = rng.integers(0, 3, (count, bins)) if ties else rng.gamma(0.5, size=(count, bins))
    if ties:
        counts = counts[rng.integers(0, min(count, 3), count)]
    counts = counts + 1e-3 * (counts.sum(axis=1, keepdims=True) == 0)
    return counts / counts.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def cases():
    """Sets of regions of any size, some of which touch nobody; in every third many pairs are equally similar."""
    rng, found = np.random.default_rng(0), []
    for number in range(CASES):
        count, ties, bins = int(rng.integers(1, 25)), number % 3 == 0, rng.integers(1, [40, 160])
        side = rng.integers(8, 64, 2).tolist()
        corner = rng.integers(0, [side[1] - 4, side[0] - 4], (count, 2))
        boxes = np.concatenate([corner, corner + rng.integers(1, 5, (count, 2))], axis=1)
        sizes = rng.integers(1, 3 if ties else 30, count)
        chosen = [name for name in SIMILARITIES if rng.random() < 0.6] or [SIMILARITIES[number % 4]]
        objects = boxes[rng.integers(0, count, 2)] + rng.integers(0, 2, (2, 1)) * rng.uniform(0, 4, (2, 4)).cumsum(
            axis=1
        )
        case = {
            "area": side[0] * side[1],
            "sizes": sizes.astype(float).tolist(),
            "boxes": boxes.astype(float).tolist(),
            "color": histograms(rng, count, int(bins[0]), ties).tolist(),
            "texture": histograms(rng, count, int(bins[1]), ties).tolist(),
            "neighbors": touching(rng, count, connected=number % 10 > 0).tolist(),
            "chosen": [chosen[k] for k in rng.permutation(len(chosen))],
            "objects": objects[: number % 3].tolist(),
        }
        found.append(case)
    return found


@pytest.fixture(scope="module")
def answers(compute, cases):
    return compute(
        "merging",
        cases,
        """
        const row = (k) => Float64Array.from([...c.color[k], ...c.texture[k]]);
        const first = c.sizes.map((size, k) => ({ size, box: c.boxes[k], histogram: row(k) }));
        const { nodes, merges } = math.grouping(first, c.neighbors, c.area, c.chosen, c.color[0].length);
        const boxes = nodes.map(({ box }) => box);
        return {
          children: merges.map(({ best }) => [best.a, best.b]),
          similarity: merges.map(({ best }) => best.value),
          next: merges.map(({ next }) => next?.value ?? null),
          boxes, sizes: nodes.map(({ size }) => size),
          roots: [0, 0.3, 1].map((part) =>
            math.rootsAfter(merges, first.length, Math.floor(part * merges.length))),
          best: math.coverage(c.objects, boxes, first.length).map((line) => line.map(([, iou]) => iou)),
        };
        """,
    )


def tree_of(case):
    arrays = {name: np.array(case[name]) for name in KEYS}
    labels = np.zeros((1, case["area"]), dtype=np.int64)
    labels[0, : len(case["sizes"])] = np.arange(len(case["sizes"]))  # so that its roots can be read from them
    neighbors = np.array(case["neighbors"], dtype=np.int64).reshape(-1, 2)
    return hierarchical_grouping(Regions(labels=labels, neighbors=neighbors, **arrays), case["chosen"])


def test_merges_are_those_of_the_package(cases, answers):
    tied = 0
    for case, answer in zip(cases, answers, strict=True):
        tree, count = tree_of(case), len(case["sizes"])
        merges = len(tree.children)
        assert answer["children"] == tree.children.tolist()
        np.testing.assert_allclose(answer["similarity"], tree.similarity, rtol=1e-6)  # which it keeps in 4 bytes
        assert answer["boxes"] == tree.boxes[: count + merges].tolist()
        assert answer["sizes"] == tree.sizes[: count + merges].tolist()
        assert all(b is None or a >= b for a, b in zip(answer["similarity"], answer["next"], strict=True))
        tied += sum(a == b for a, b in zip(answer["similarity"], answer["next"], strict=True))
        if merges == count - 1:
            for part, roots in zip((0, 0.3, 1), answer["roots"], strict=True):
                assert roots == tree.labels_after(int(part * merges))[0, :count].tolist()
    assert tied > 500


def test_coverage_is_that_of_the_package(cases, answers):
    for case, answer in zip(cases, answers, strict=True):
        objects, count = torch.tensor(case["objects"], dtype=torch.float64).view(-1, 4), len(case["sizes"])
        boxes = torch.tensor(answer["boxes"], dtype=torch.float64)
        best = box_iou(objects, boxes).cummax(dim=1).values[:, count - 1 :]
        np.testing.assert_allclose(np.array(answer["best"]).reshape(best.shape), best, atol=1e-12)
        if len(objects):
            counts = list(range(count, len(boxes) + 1))
            recall = proposal_recall([boxes], [{"boxes": objects}], 0.5, counts)
            found = (np.array(answer["best"]) >= 0.5).mean(axis=0)
            np.testing.assert_allclose(found, recall, atol=1e-12)


def test_similarities_are_those_of_the_paper_by_hand(shown):
    figure = shown("merging")
    code = """
      const frame = { size: 32, box: [0, 0, 6, 6] }, hole = { size: 4, box: [2, 2, 4, 4] };
      const strip = { size: 12, box: [6, 0, 8, 6] };
      return [math.sizeSimilarity(frame, hole, 48), math.fillSimilarity(frame, hole, 48),
        math.fillSimilarity(hole, strip, 48), math.intersection([0.5, 0.5, 0], [0, 0.25, 0.75])];
    """
    assert figure.run(code) == pytest.approx([0.25, 1, 1 - 20 / 48, 0.25])


def words(figure):
    return figure.page.locator(".explorable [aria-live]").inner_text()


def cells(figure, row):
    return figure.page.locator(".explorable table tr").nth(row + 1).inner_text().split("\t")


def test_scene_is_covered_merge_by_merge_and_not_by_color_alone(shown):
    figure = shown("merging")
    assert words(figure) == (
        "After 50 of 86 merges: 37 regions are left, 137 boxes are proposed, and 2 of 3 objects are covered: "
        "recall 0.67. Next, regions 88 (solid) and 111 (dashed) merge."
    )
    assert cells(figure, 0) == ["next: 88 and 111", "0.40", "0.98", "0.92", "0.97", "3.27"]
    merge = figure.page.get_by_role("button", name="Merge", exact=True)
    for _ in range(8):
        merge.click()
    assert figure.state("found")["recall"] == pytest.approx(2 / 3)
    merge.click()
    assert (figure.state("step"), figure.state("found")["recall"]) == (59, 1)
    figure.page.get_by_role("button", name="Back").click()
    assert figure.state("step") == 58
    for name in ("texture", "size", "fill"):
        figure.page.get_by_label(name).uncheck()
    assert figure.state("similarities") == ["color"]
    figure.page.get_by_label("color").click()  # the last one stays
    assert figure.page.get_by_label("color").is_checked()
    figure.page.locator(".explorable input[type=range]").fill("86")
    assert words(figure).endswith(
        "1 region is left, 173 boxes are proposed, and 1 of 3 objects are covered: recall 0.33."
    )
    assert cells(figure, 0) == ["–"] * 6
    merge.click()  # nothing is left to merge
    assert figure.state("step") == 86
    assert "A: IoU 0.38, never covered" in figure.page.locator(".explorable").inner_text()
    figure.page.get_by_role("button", name="Start over").click()
    assert (figure.state("step"), figure.state("similarities")) == (50, list(SIMILARITIES))


def test_step_follows_the_mouse_a_finger_and_keys(shown):
    figure = shown("merging", has_touch=True)
    page, plot = figure.page, figure.page.locator(".explorable svg").nth(2).bounding_box()
    unit = plot["width"] / 320

    def at(step):
        return plot["x"] + (30 + step / 86 * 274) * unit

    knob = page.locator(".explorable .handle")
    page.mouse.move(at(50), plot["y"] + 274 * unit)
    page.mouse.down()
    page.mouse.move(at(20), plot["y"] + 200 * unit)
    page.mouse.up()
    assert figure.state("step") == 20
    knob.press("ArrowRight")
    knob.press("ArrowUp")
    knob.press("Shift+ArrowLeft")
    assert figure.state("step") == 21
    assert knob.get_attribute("aria-valuetext") == "21 merges, recall 0.33"
    page.touchscreen.tap(at(70), plot["y"] + 100 * unit)
    assert figure.state("step") == 70
    page.mouse.move(at(10), plot["y"] + 100 * unit)
    page.mouse.down()
    page.mouse.move(at(-20), plot["y"] + 100 * unit)
    page.mouse.up()
    assert figure.state("step") == 0
    assert "87 regions are left" in words(figure)


def test_any_change_is_drawn_within_a_frame(shown):
    """Median of 60 changes of the similarities, each of which computes all merges anew."""
    times = shown("merging").run(
        """
        const sets = [["color"], ["color", "texture", "size", "fill"], ["fill"]];
        return [...Array(60).keys()].map((k) => {
          const start = performance.now();
          model.set("similarities", sets[k % 3]);
          document.documentElement.getBoundingClientRect();
          return performance.now() - start;
        });
        """
    )
    assert sorted(times)[30] < 16


def test_python_sets_and_reads_the_same_state():
    image = torch.zeros(3, 40, 40)
    image[:, :, 10:20], image[:, :, 20:] = 0.4, 1.0
    figure = Merging(image, [[0, 0, 20, 40], [0, 0, 40, 40]], Strategy("rgb", 100, ("size", "fill"), min_size=200))
    assert (figure.step, figure.similarities, len(figure.sizes)) == (0, ["size", "fill"], 3)
    assert figure.proposals.shape == (3, 4)
    assert figure.recall == 1  # the white half covers the image by half of it
    assert figure.best_iou[1] == 0.5
    figure.step = 2
    assert figure.best_iou.tolist() == [1, 1]
    assert figure.tree.children.tolist() == [[0, 1], [2, 3]]
    for name, wrong in (
        ("step", 3),
        ("step", -1),
        ("similarities", []),
        ("similarities", ["shape"]),
        ("objects", []),
        ("objects", [[0, 0, 41, 10]]),
        ("objects", [[0, 0, 9, 9]] * 6),
    ):
        with pytest.raises(Exception, match=name):
            setattr(figure, name, wrong)
    with pytest.raises(ValueError, match=r"image must be \(3, h, w\)"):
        Merging(torch.rand(40, 40), [[0, 0, 9, 9]])
    with pytest.raises(ValueError, match="at most 30 pixels"):
        Merging(image, [[0, 0, 9, 9]], Strategy(max_side=30))
    noise = torch.rand(3, 60, 60, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="larger scale or min_size"):
        Merging(noise, [[0, 0, 9, 9]], Strategy(scale=1, min_size=1))


def test_next_cell_compares_what_the_browser_found_with_the_package(shown, capsys):
    figure, page = Merging.example(), shown("merging")
    for similarities, step in ((list(SIMILARITIES), 50), (["fill", "color"], 86), (["texture"], 0), (["size"], 40)):
        figure.similarities, figure.step = similarities, step
        for name in ("similarities", "step"):
            page.run(f"model.set('{name}', given)", getattr(figure, name))
        figure.found = page.state("found")
        figure.compare()
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 4
        assert all(line.endswith("equal within 1e-05") for line in lines), lines


def test_example_in_double_precision_is_what_notebooks_compute():
    from minircnn.datasets import ToyTown

    image, _ = ToyTown("train")[102]
    (tree,) = merge_trees(image, [Strategy("lab", 50)])
    assert torch.equal(tree.children, Merging.example().tree.children)
