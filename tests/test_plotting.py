"""What is drawn against what was given: rectangles, texts, pixels, colors, alt texts."""

import copy
import io

import matplotlib
import numpy as np
import pytest
import skimage.data
import torch
from matplotlib import pyplot as plt
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from minircnn.course import figures as plotting
from minircnn.course.figures import display
from minircnn.evaluation import evaluate
from tests.course.conftest import close_figures  # noqa: F401 - a fixture

CLASSES = ["background", "person", "car"]


def square(height=40, width=60):
    return torch.rand((3, height, width), generator=torch.Generator().manual_seed(0))


def target():
    masks = torch.zeros((2, 40, 60), dtype=torch.bool)
    masks[0, 5:20, 10:30] = True
    masks[1, 15:40, 20:60] = True
    return {
        "boxes": torch.tensor([[10.0, 5.0, 30.0, 20.0], [20.0, 15.0, 60.0, 40.0]]),
        "labels": torch.tensor([1, 2]),
        "masks": masks,
        "iscrowd": torch.tensor([False, True]),
        "area": torch.tensor([300.0, 1000.0]),
        "image_id": 3,
    }


def rectangles(ax):
    """Corners of the rectangles drawn on axes, in the order of drawing."""
    boxes = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    return [[*patch.get_xy(), patch.get_x() + patch.get_width(), patch.get_y() + patch.get_height()] for patch in boxes]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def render(ax):
    """(h, w, 3) uint8 as the reader sees it."""
    return np.asarray(Image.open(io.BytesIO(display.render_png(ax.get_figure()))).convert("RGB"))


# ------------------------------------------------------------------------------------------------------------ images


def test_all_forms_of_an_image_show_the_same():
    tensor = square()
    tensor = (tensor * 255).round() / 255
    array = tensor.permute(1, 2, 0).numpy()
    forms = [tensor, tensor.double(), array, (array * 255).round().astype(np.uint8)]
    shown = [plotting.show_image(form).images[0].get_array() for form in forms]
    for other in shown:
        np.testing.assert_allclose(other, array, atol=1e-6)
    gray = [tensor[:1], tensor[0], array[..., 0]]
    for form in gray:
        other = plotting.show_image(form).images[0].get_array()
        np.testing.assert_allclose(other, np.repeat(array[..., :1], 3, axis=2), atol=1e-6)
    ax = plotting.show_image(tensor)
    assert (ax.get_xlim(), ax.get_ylim(), len(ax.get_xticks()), len(ax.get_yticks())) == ((0, 60), (40, 0), 0, 0)
    assert ax.images[0].get_extent() == [0, 60, 40, 0]  # pixel (0, 0) covers 0…1, as boxes count


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(40, 60, 3), "shape"),
        (torch.zeros(3, 0, 5), "shape"),
        (np.zeros((3, 40, 60)), "shape"),
        (torch.full((3, 4, 5), -2.0), "undo normalization"),
        (torch.full((3, 4, 5), float("nan")), "must lie in"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        plotting.show_image(image)


# ------------------------------------------------------------------------------------------------------------- objects


def test_boxes_names_and_scores_are_those_given():
    objects = {key: target()[key] for key in ("boxes", "labels")} | {"scores": torch.tensor([0.987, 0.5])}
    ax = plotting.plot_detections(square(), objects, CLASSES, title="Found")
    assert sorted(rectangles(ax)) == sorted(objects["boxes"].tolist())
    assert texts(ax) == ["person 0.99", "car 0.50"]
    assert ax.get_title() == "Found"
    edges = {tuple(np.round(patch.get_edgecolor()[:3], 6)) for patch in ax.patches}
    assert edges == {tuple(np.round(plotting.class_color(label), 6)) for label in (1, 2)}
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 60), (40, 0))


def test_crowds_are_dashed_and_labels_without_a_name_are_numbers():
    crowd = target() | {"labels": torch.tensor([17, 2])}
    ax = plotting.plot_detections(square(), crowd, CLASSES)
    assert texts(ax) == ["class 17", "car (crowd)"]
    assert texts(plotting.plot_detections(square(), crowd)) == ["class 17", "class 2 (crowd)"]
    styles = {tuple(patch.get_xy()): patch.get_linestyle() for patch in ax.patches}
    assert styles[(10.0, 5.0)] in ("-", "solid")
    assert styles[(20.0, 15.0)] not in ("-", "solid")


def test_mask_overlay_is_colored_where_the_mask_is_and_only_there():
    objects = target()
    ax = plotting.plot_detections(square(), objects, CLASSES)
    overlay = np.asarray(ax.images[1].get_array())
    inside = objects["masks"].any(dim=0).numpy()
    assert np.array_equal(overlay[..., 3] > 0, inside)
    first, second = objects["masks"].numpy()
    np.testing.assert_allclose(overlay[first][:, :3], [plotting.class_color(1)] * first.sum())  # the best lies on top
    below = second & ~first
    np.testing.assert_allclose(overlay[below][:, :3], [plotting.class_color(2)] * below.sum())
    assert ax.images[1].get_extent() == [0, 60, 40, 0]
    # matplotlib before 3.8 puts the lines of a contour set into the axes, later ones the set itself.
    outlines = [path for collection in ax.collections for path in collection.get_paths() if len(path)]
    corners = [outline.get_extents() for outline in outlines]
    # Outlines follow the edge, at the border of the image, too: both masks fill their boxes. The last is drawn first.
    np.testing.assert_allclose([[c.x0, c.y0, c.x1, c.y1] for c in corners], objects["boxes"].flip(0))


EDGE_BOXES = [
    [0.0, 0.0, 10.0, 10.0],
    [58.0, 38.0, 60.0, 40.0],
    [0.0, 39.0, 60.0, 40.0],
    [-20.0, -20.0, 5.0, 5.0],
    [-5.0, -5.0, 65.0, 45.0],
    [100.0, 100.0, 120.0, 120.0],
    [30.0, 20.0, 30.0, 20.0],
]


@pytest.mark.parametrize("size", [1.2, 9.0])
def test_labels_stay_within_the_image(size):
    labels = torch.ones(len(EDGE_BOXES), dtype=torch.int64)
    ax = plotting.plot_detections(
        square(), {"boxes": torch.tensor(EDGE_BOXES), "labels": labels}, ["background", "$5 jumping gypsy"], width=size
    )
    render(ax)  # matplotlib parses a formula when it draws it
    frame = ax.get_window_extent().padded(1.5)  # dots on the screen
    for text in ax.texts:
        label = text.get_bbox_patch().get_window_extent()
        assert frame.x0 <= label.x0 and label.x1 <= frame.x1 and frame.y0 <= label.y0 and label.y1 <= frame.y1
        assert text.get_text() == "$5 jumping gypsy"
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 60), (40, 0))


def test_labels_of_the_same_place_do_not_hide_each_other():
    objects = {"boxes": torch.tensor([[20.0, 15, 40, 30]] * 3), "labels": torch.tensor([1, 2, 1])}
    ax = plotting.plot_detections(square(), objects, CLASSES, width=6)
    render(ax)
    frames = [text.get_bbox_patch().get_window_extent().padded(-1) for text in ax.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(frames) for b in frames[:i])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "need 'boxes' and 'labels'"),
        (
            {"masks": torch.zeros(2, 39, 60, dtype=torch.bool)},
            r"masks of size \(39, 60\) for an image of size \(40, 60\)",
        ),
        ({"scores": torch.tensor([0.5])}, "different numbers"),
        ({"masks": target()["masks"] * 0.4}, r"compare probabilities with 0\.5 first"),
    ],
)
def test_objects_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        plotting.plot_detections(square(), target() | change, CLASSES)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        # Every name would be one too far, without a word.
        (lambda: plotting.plot_detections(square(), target(), ["person", "car"]), 'must be "background"'),
        (lambda: plotting.plot_proposals(square(), torch.zeros(0, 4), target(), ["person"]), 'must be "background"'),
        (lambda: plotting.image_grid([]), "images is empty"),
        (lambda: plotting.image_grid([square()] * 2, titles=["one"]), "1 titles for 2 images"),
        (lambda: plotting.image_grid([square()] * 2, objects=[target()] * 3), "3 objects for 2 images"),
    ],
)
def test_names_and_lists_that_do_not_fit_are_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_inputs_are_not_changed():
    image, objects = square(), target()
    before_image, before = image.clone(), copy.deepcopy(objects)
    plotting.plot_detections(image, objects, CLASSES)
    plotting.plot_proposals(image, objects["boxes"], objects, CLASSES)
    array = image.permute(1, 2, 0).numpy()
    labels = np.arange(2400).reshape(40, 60) // 600
    plotting.plot_label_map(labels, array, opacity=0.0)
    assert torch.equal(image, before_image)
    assert np.array_equal(labels, np.arange(2400).reshape(40, 60) // 600)
    for key, value in objects.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(before[key]))


# --------------------------------------------------------------------------------------------------------------- grids


def test_grid_draws_the_objects_of_each_image():
    one = {"boxes": torch.tensor([[1.0, 2, 3, 4]]), "labels": torch.tensor([2])}
    axes = plotting.image_grid([square(), square()], objects=[target(), one], classes=CLASSES, masks=False)
    assert [len(rectangles(ax)) for ax in axes] == [2, 1]
    assert texts(axes[1]) == ["car"]
    assert len(axes[0].images) == 1


# ----------------------------------------------------------------------------------------------------------- proposals


def test_proposals_are_all_drawn_and_the_best_is_named():
    boxes = torch.tensor([[0.0, 0, 5, 5], [10, 5, 30, 15], [10, 5, 30, 20], [22, 15, 60, 40]])
    ax = plotting.plot_proposals(square(), boxes, {**target(), "iscrowd": torch.tensor([False, False])}, CLASSES)
    (collection,) = [c for c in ax.collections if isinstance(c, PatchCollection)]
    drawn = [[p.vertices[:, 0].min(), p.vertices[:, 1].min(), *p.vertices.max(axis=0)] for p in collection.get_paths()]
    np.testing.assert_allclose(drawn, boxes)
    assert texts(ax) == ["person: IoU 1.00", "car: IoU 0.95"]  # 38·25 / (40·25)
    assert rectangles(ax) == [*target()["boxes"].tolist(), boxes[2].tolist(), boxes[3].tolist()]
    styles = [patch.get_linestyle() in ("-", "solid") for patch in ax.patches]
    assert styles == [False, False, True, True]


# -------------------------------------------------------------------------------------------------------------- curves


def pr_result():
    """Of class 1 the first and third detection are right (2 of 4 objects found); class 2 has no detection."""
    truth = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10], [80, 0, 90, 10]])
    wanted = {"boxes": truth, "labels": torch.tensor([1, 1, 1, 1, 2])}
    found = {
        "boxes": torch.tensor([[0.0, 0, 10, 10], [0, 50, 10, 60], [20, 0, 30, 10]]),
        "labels": torch.tensor([1, 1, 1]),
        "scores": torch.tensor([0.9, 0.8, 0.7]),
    }
    return evaluate([found], [wanted], classes=CLASSES)


def test_curves_are_those_of_the_result():
    result = pr_result()
    ax = plotting.plot_pr_curves(result, 0.5)
    raw, thick, *_ = ax.lines
    np.testing.assert_allclose(raw.get_xdata(), [0.25, 0.25, 0.5])
    np.testing.assert_allclose(raw.get_ydata(), [1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(thick.get_ydata(), result.curve(1).interpolated)
    assert len(ax.lines) == 4
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == [f"person: AP {100 * result.per_class[1].ap50:.1f}", "car: AP 0.0"]
    assert raw.get_color() == plotting.class_color(1)
    assert ax.get_title() == "Precision and recall at IoU 0.5 (boxes)"


def test_curves_without_objects():
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    result = evaluate([nothing | {"scores": torch.zeros(0)}], [nothing], classes=CLASSES)
    assert texts(plotting.plot_pr_curves(result)) == ["no class has objects"]


# ----------------------------------------------------------------------------------------------------------- label map


def test_label_map_has_one_color_for_each_region_and_lines_between():
    labels = np.zeros((20, 30), dtype=np.int64)
    labels[:, 10:20], labels[:, 20:] = 1, 7
    shown = np.asarray(plotting.plot_label_map(labels).images[0].get_array())
    inner = {number: {tuple(c) for c in np.round(shown[labels == number], 9)} for number in (0, 1, 7)}
    assert [len(inner[number]) for number in (0, 1, 7)] == [2, 2, 1]  # its color, and its dark line at the right
    colors = plotting.label_map_colors(labels)
    line = np.zeros((20, 30), dtype=bool)
    line[:, [9, 19]] = True
    np.testing.assert_allclose(shown[~line], colors[~line])
    np.testing.assert_allclose(shown[line], 0.35 * colors[line])
    labels = np.zeros((40, 60), dtype=np.int32)
    image = square()
    shown = np.asarray(plotting.plot_label_map(torch.from_numpy(labels), image, opacity=0.25).images[0].get_array())
    expected = 0.25 * plotting.label_map_colors(labels) + 0.75 * image.permute(1, 2, 0).numpy()
    np.testing.assert_allclose(shown, expected, atol=1e-6)


@pytest.mark.parametrize("labels", [np.zeros((4, 5)), np.full((4, 5), -1), np.zeros((39, 60), dtype=int)])
def test_what_is_no_label_map_is_refused(labels):
    with pytest.raises(ValueError, match="labels"):
        plotting.plot_label_map(labels, square())


# ------------------------------------------------------------------------------------------------------------- colors

# Machado, Oliveira and Fernandes 2009, "A physiologically-based model for simulation of color vision deficiency",
# severity 1.
COLOR_BLIND = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def least_difference(colors):
    """The smallest CIEDE2000 difference between two of some colors."""
    lab = rgb2lab(np.asarray(colors)[None])[0]
    difference = deltaE_ciede2000(lab[:, None], lab[None])
    return difference[~np.eye(len(lab), dtype=bool)].min()


def linear(colors):
    colors = np.asarray(colors)
    return np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)


def test_colors_of_toy_town_are_far_apart_for_every_reader():
    colors = [plotting.class_color(label) for label in range(1, 7)]
    for matrix in COLOR_BLIND.values():
        seen = np.clip(linear(colors) @ np.asarray(matrix).T, 0, 1)
        assert least_difference(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)) > 15


def test_text_is_read_on_every_class_color():
    for label in range(91):
        back = linear(plotting.class_color(label)) @ [0.2126, 0.7152, 0.0722]
        text = {"black": 0.0, "white": 1.0}[plotting.text_color(plotting.class_color(label))]
        assert (max(back, text) + 0.05) / (min(back, text) + 0.05) >= 4.5


def test_first_24_colors_and_the_background_are_distinct():
    assert least_difference([plotting.class_color(label) for label in range(25)]) > 12
    everything = [plotting.class_color(label) for label in range(1, 91)]
    assert len(set(everything)) == 90


# ------------------------------------------------------------------------------------------------------------- showing


@pytest.fixture
def published(monkeypatch):
    """What `show` hands to the notebook."""
    outputs = []
    monkeypatch.setattr(display, "publish", lambda data, metadata: outputs.append((data, metadata)))
    return outputs


def test_show_gives_the_image_with_its_text_and_closes_the_figure(published):
    plotting.show(plotting.show_image(square()), alt="A red square on white.")
    ((data, metadata),) = published
    assert data["text/plain"] == "A red square on white."
    assert metadata == {"image/png": {"alt": "A red square on white."}}
    assert set(data) == {"image/png", "text/plain"}
    assert Image.open(io.BytesIO(data["image/png"])).size == (600, 400)
    assert plt.get_fignums() == []
    with pytest.raises(ValueError, match="alt is empty"):
        plotting.show(plotting.show_image(square()), alt="  \n")


def test_size_does_not_depend_on_the_readers_settings(published):
    plotting.show(plotting.show_image(square()), alt="as it is")
    with plt.rc_context({"savefig.bbox": "tight", "savefig.dpi": 37, "savefig.facecolor": "black"}):
        plotting.show(plotting.show_image(square()), alt="with other settings")
        assert matplotlib.rcParams["savefig.bbox"] == "tight"
    first, second = (data["image/png"] for data, _ in published)
    assert first == second


def test_a_photograph_becomes_lighter_unless_256_colors_would_spoil_it(monkeypatch):
    png = display.render_png(plotting.show_image(skimage.data.astronaut(), title="An astronaut").get_figure())
    light = display.compress_png(png)
    assert len(light) < 0.5 * len(png)
    before, after = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (png, light))
    assert before.shape == after.shape
    assert (after[0, 0] == 255).all()  # paper stays white
    # Seen from a distance at which 8×8 pixels melt together, the two are the same.
    high, wide = before.shape[0] // 8 * 8, before.shape[1] // 8 * 8
    means = [p[:high, :wide].reshape(high // 8, 8, wide // 8, 8, 3).mean(axis=(1, 3)) for p in (before, after)]
    assert np.abs(means[0] - means[1]).mean() < 1.5
    monkeypatch.setattr(display, "ALIKE", 0.0)
    for spoiled in (png, display.render_png(plotting.plot_pr_curves(pr_result()).get_figure())):
        assert display.compress_png(spoiled) == spoiled
