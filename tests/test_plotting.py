"""What is drawn against what was given: rectangles, texts, pixels, colors, alt texts."""

import io
import re

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.data import astronaut

from minircnn.course import figures as plotting
from minircnn.course.figures import display
from minircnn.evaluation import evaluate
from tests.course.conftest import close_figures  # noqa: F401 - a fixture

CLASSES = ["background", "person", "car"]
TEMPLATES = ["lab", "classic"]  # of nbconvert; it takes the first by default


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
    return [patch.get_bbox().extents.tolist() for patch in ax.patches if isinstance(patch, Rectangle)]


def texts(ax):
    return [text.get_text() for text in ax.texts]


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


def test_boxes_names_and_scores_are_those_given():
    objects = {key: target()[key] for key in ("boxes", "labels")} | {"scores": torch.tensor([0.987, 0.5])}
    ax = plotting.plot_detections(square(), objects, CLASSES, title="Found")
    assert sorted(rectangles(ax)) == sorted(objects["boxes"].tolist())
    assert texts(ax) == ["person 0.99", "car 0.50"]
    assert ax.get_title() == "Found"
    edges = {tuple(np.round(patch.get_edgecolor()[:3], 6)) for patch in ax.patches}
    assert edges == {tuple(np.round(plotting.class_color(label), 6)) for label in (1, 2)}
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 60), (40, 0))


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


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plotting.show_image(torch.zeros(40, 60, 3)), "shape"),
        (lambda: plotting.show_image(torch.full((3, 4, 5), -2.0)), "undo normalization"),
        (lambda: plotting.plot_detections(square(), {**target(), "labels": None}), "need 'boxes' and 'labels'"),
        (lambda: plotting.plot_detections(square(39), target()), r"size \(40, 60\) for an image of size \(39, 60\)"),
        (lambda: plotting.plot_detections(square(), {**target(), "scores": torch.ones(1)}), "different numbers"),
        (lambda: plotting.plot_detections(square(), {**target(), "masks": torch.rand(2, 40, 60)}), "compare probab"),
        # Every name would be one too far, without a word.
        (lambda: plotting.plot_detections(square(), target(), ["person", "car"]), 'must be "background"'),
        (lambda: plotting.image_grid([]), "images is empty"),
        (lambda: plotting.image_grid([square()] * 2, titles=["one"]), "1 titles for 2 images"),
        (lambda: plotting.plot_label_map(np.full((40, 60), -1), square()), "labels"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


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


def test_curves_are_those_of_the_result():
    """Of class 1 the first and third detection are right (2 of 4 objects found); class 2 has no detection."""
    truth = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10], [80, 0, 90, 10]])
    wanted = {"boxes": truth, "labels": torch.tensor([1, 1, 1, 1, 2])}
    found = {
        "boxes": torch.tensor([[0.0, 0, 10, 10], [0, 50, 10, 60], [20, 0, 30, 10]]),
        "labels": torch.tensor([1, 1, 1]),
        "scores": torch.tensor([0.9, 0.8, 0.7]),
    }
    result = evaluate([found], [wanted], classes=CLASSES)
    ax = plotting.plot_pr_curves(result, 0.5)
    raw, thick, *_ = ax.lines
    np.testing.assert_allclose(raw.get_xdata(), [0.25, 0.25, 0.5])
    np.testing.assert_allclose(raw.get_ydata(), [1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(thick.get_ydata(), result.curve(1).interpolated)
    assert len(ax.lines) == 4
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == [f"person: AP {100 * result.per_class[1].ap50:.1f}", "car: AP 0.0"]


def test_a_label_map_lies_over_its_image():
    labels, image = np.zeros((40, 60), dtype=np.int32), square()
    shown = np.asarray(plotting.plot_label_map(torch.from_numpy(labels), image, opacity=0.25).images[0].get_array())
    expected = 0.25 * plotting.label_map_colors(labels) + 0.75 * image.permute(1, 2, 0).numpy()
    np.testing.assert_allclose(shown, expected, atol=1e-6)


# Machado, Oliveira and Fernandes 2009, "A physiologically-based model for simulation of color vision deficiency",
# severity 1.
COLOR_BLIND = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def test_colors_of_toy_town_are_far_apart_for_every_reader():
    """By CIEDE2000."""
    colors = np.array([plotting.class_color(label) for label in range(1, 7)])
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    for matrix in COLOR_BLIND.values():
        seen = np.clip(linear @ np.asarray(matrix).T, 0, 1)
        lab = rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055))
        difference = deltaE_ciede2000(lab[:, None], lab[None])
        assert difference[~np.eye(6, dtype=bool)].min() > 15


@pytest.fixture
def outputs(monkeypatch):
    """What is shown: pairs of data and metadata."""
    outputs = []
    monkeypatch.setattr(display, "publish", lambda *given: outputs.append(given))
    return outputs


def test_show_gives_the_image_with_its_text_and_closes_the_figure(outputs):
    plotting.show(plotting.show_image(square()), alt="A red square on white.")
    ((data, metadata),) = outputs
    assert data["text/plain"] == "A red square on white."
    assert metadata == {"image/png": {"alt": "A red square on white.", "width": 600}}
    assert set(data) == {"image/png", "text/plain"}
    assert Image.open(io.BytesIO(data["image/png"])).size == (900, 600), "150 dots an inch"
    assert plt.get_fignums() == []
    with pytest.raises(ValueError, match="alt is empty"):
        plotting.show(plotting.show_image(square()), alt="  \n")
    with pytest.raises(ValueError, match="belong to 2 figures"):
        plotting.show([plotting.show_image(square()), plotting.show_image(square())], alt="Two figures.")


def test_photographs_become_jpeg_in_full_color_and_drawings_stay_png(outputs):
    photograph = torch.from_numpy(astronaut()).permute(2, 0, 1) / 255
    plotting.show(plotting.show_image(photograph), alt="An astronaut.")
    _, ax = plt.subplots(figsize=(9, 9))
    ax.scatter(*np.random.default_rng(0).uniform(size=(2, 5000)), s=100, c=np.arange(5000), alpha=0.5)
    plotting.show(ax, alt="Many dots.")
    (first, about), (second, _) = outputs
    assert set(first) == {"image/jpeg", "text/plain"} and set(about) == {"image/jpeg"}
    assert set(second) == {"image/png", "text/plain"} and len(second["image/png"]) > display.HEAVY
    file = Image.open(io.BytesIO(first["image/jpeg"]))
    assert file.size == (900, 900) and {layer[1:3] for layer in file.layer} == {(1, 1)}, "no subsampling"
    assert len(np.unique(np.asarray(file).reshape(-1, 3), axis=0)) > 20_000, "colors"


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg"])
def test_pages_of_the_classic_template_have_the_text_for_screen_readers(kind):
    """The default template, lab, has no place for it; once it has, the docstring of show may say so."""
    nbformat, nbconvert = pytest.importorskip("nbformat.v4"), pytest.importorskip("nbconvert")
    output = nbformat.new_output("display_data", {kind: "AAAA"}, metadata={kind: {"alt": "A “red” square", "width": 9}})
    notebook = nbformat.new_notebook(cells=[nbformat.new_code_cell("show()", outputs=[output])])
    pages = {name: nbconvert.HTMLExporter(template_name=name).from_notebook_node(notebook)[0] for name in TEMPLATES}
    images = {name: re.search(r"<img[^>]*base64,AAAA[^>]*>", page)[0] for name, page in pages.items()}
    assert 'alt="A “red” square"' in images["classic"] and 'width="9"' in images["classic"]
    assert 'alt="No description' in images["lab"] and 'width="9"' in images["lab"]
