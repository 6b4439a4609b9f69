"""Filters, maps, sheets and losses as they are drawn, against the numbers that were given."""

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle

from minircnn.course import figures as plotting
from minircnn.course.figures import display


def squares(count, height=20, width=30):
    return torch.rand((count, 3, height, width), generator=torch.Generator().manual_seed(0))


def shown(ax):
    """(H, W, 3) as the axes hold it."""
    return np.asarray(ax.images[0].get_array())


def rectangles(ax):
    """Corners, color and linewidth of each rectangle."""
    patches = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    return [
        ([*p.get_xy(), p.get_x() + p.get_width(), p.get_y() + p.get_height()], p.get_edgecolor()[:3]) for p in patches
    ]


def test_gray_is_no_weight_and_the_largest_has_full_color():
    weight = torch.zeros(3, 3, 2, 2)
    weight[0, 0, 0, 0] = 4.0  # red
    weight[0, 2, 1, 1] = -1.0  # a little of the opposite of blue
    weight[1, 1, 0, 1] = -0.001  # scaled on its own: full magenta
    ax = plotting.plot_filters(weight, columns=3, title="conv1")
    square = shown(ax)
    assert square.shape == (2, 3 * 2 + 2, 3)  # a pixel between two
    np.testing.assert_allclose(square[0, 0], [1, 0.5, 0.5])
    np.testing.assert_allclose(square[1, 1], [0.5, 0.5, 0.375])
    np.testing.assert_allclose(square[0, 4], [0.5, 0, 0.5])
    np.testing.assert_allclose(square[:, 6:], 0.5)  # a filter without weights
    assert (square[:, [2, 5]] == 1).all()
    assert ax.images[0].get_interpolation() == "nearest" and ax.get_title() == "conv1"
    assert weight[0, 0, 0, 0] == 4
    assert shown(plotting.plot_filters(torch.nn.Conv2d(3, 32, 7).weight)).shape == (47, 47, 3)  # 6 in a row


@pytest.mark.parametrize(
    ("draw", "given", "message"),
    [
        (plotting.plot_filters, torch.zeros(8, 1, 3, 3), r"\(F, 3, h, w\).*\(8, 1, 3, 3\)"),
        (plotting.plot_filters, torch.zeros(0, 3, 7, 7), "filters that look at colors"),
        (plotting.plot_filters, torch.full((2, 3, 2, 2), torch.nan), "nan or infinity"),
        (plotting.plot_maps, torch.zeros(1, 3, 4, 4), r"\(C, h, w\), those of one image, not \(1, 3, 4, 4\)"),
        (plotting.plot_maps, torch.tensor([[[-0.5, 1.0]]]), r"from -0\.5: show what comes out of a ReLU"),
        (plotting.plot_maps, torch.tensor([[[torch.inf, 1.0]]]), "ReLU"),
    ],
)
def test_what_are_no_filters_or_maps_is_refused(draw, given, message):
    with pytest.raises(ValueError, match=message):
        draw(given)


def brightness(square):
    return square @ [0.2126, 0.7152, 0.0722]


def test_maps_are_brighter_where_they_are_larger_on_scales_of_their_own_or_on_one():
    ramp = brightness(shown(plotting.plot_maps(torch.arange(16.0).view(1, 4, 4))))
    assert (np.diff(ramp.ravel()) > 0).all() and ramp[0, 0] < 0.01 and ramp[3, 3] > 0.9
    maps = torch.zeros(3, 4, 4)
    maps[0, 1, 1], maps[1, 2, 2] = 1.0, 4.0
    own = shown(plotting.plot_maps(maps, columns=3))
    one = shown(plotting.plot_maps(maps, columns=3, together=True))
    quarter = shown(plotting.plot_maps(torch.tensor([[[1.0, 4.0]]])))[0, 0]
    np.testing.assert_allclose(own[1, 1], own[2, 7])
    np.testing.assert_allclose(one[2, 7], own[2, 7])
    np.testing.assert_allclose(one[1, 1], quarter)
    for square in (own, one):
        assert (brightness(square[:, 10:]) < 0.01).all()  # nothing there: black, not nan


def place_of(ax, image):
    """Upper left corner x, y of an image in a sheet, found by looking for it."""
    canvas, wanted = shown(ax), image.permute(1, 2, 0).numpy()
    height, width = wanted.shape[:2]
    for y in range(canvas.shape[0] - height + 1):
        for x in range(canvas.shape[1] - width + 1):
            part = canvas[y : y + height, x : x + width]
            if np.allclose(part[0, 0], wanted[0, 0]) and np.allclose(part, wanted, atol=1e-6):
                return x, y
    raise AssertionError("the image is not in the sheet")


def test_frames_boxes_and_captions_belong_to_their_images():
    images = squares(6)
    captions = ["a", "b", "c\nd", r"$\foo$", "", "f"]
    boxes = [None, (0, 0, 30, 20), torch.tensor([2.0, 3, 10, 12]), None, None, None]
    labels = [1, 2, 0, -1, torch.tensor(6), None]
    ax = plotting.contact_sheet(images, columns=3, title="Six", labels=labels, captions=captions, boxes=boxes)
    places = [place_of(ax, image) for image in images]
    drawn = rectangles(ax)
    white = [corners for corners, color in drawn if color == (1, 1, 1)]
    frames = [(corners, color) for corners, color in drawn if color != (1, 1, 1)]
    xs, ys = sorted({x for x, _ in places}), sorted({y for _, y in places})
    assert places == [(xs[i % 3], ys[i // 3]) for i in range(6)], "row by row"
    assert xs[1] - xs[0] == xs[2] - xs[1] > 30 and ys[1] - ys[0] > 20
    (x1, y1), (x2, y2) = places[1], places[2]
    assert white == [[x1, y1, x1 + 30, y1 + 20], [x2 + 2, y2 + 3, x2 + 10, y2 + 12]]
    for (x, y), (corners, color), label in zip(places[:5], frames, (1, 2, 0, 0, 6), strict=True):
        assert corners == [x - 0.5, y - 0.5, x + 30.5, y + 20.5]  # around the image, hiding none of it
        assert color == pytest.approx(plotting.class_color(label))
    assert [text.get_text() for text in ax.texts] == captions and ax.get_title() == "Six"
    plain = plotting.contact_sheet(images[:5], columns=3)
    assert not plain.texts and not plain.patches
    display.render_png(ax.get_figure())  # matplotlib parses a formula, or what it takes for one, when it draws it
    for (x, y), text in zip(places, ax.texts, strict=True):
        assert text.get_position()[0] == x + 15
        assert y + 20 < text.get_position()[1] < y + 24


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": []}, "images is empty"),
        ({"images": [torch.zeros(3, 4, 4), torch.zeros(3, 4, 5)]}, r"sizes \(4, 4\) and \(4, 5\)"),
        ({"captions": ["a"] * 4}, "4 captions for 3 images"),
        ({"row_titles": ["a"] * 3}, "3 row_titles for 2 rows"),
        ({"columns": 0}, "columns is 0"),
        ({"images": torch.full((3, 3, 4, 4), -2.0)}, "undo normalization"),
    ],
)
def test_sheets_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        plotting.contact_sheet(**({"images": squares(3), "columns": 2} | change))


def test_losses_and_their_running_mean():
    rng = np.random.default_rng(0)
    history = [{"class": float(a), "box": float(b)} for a, b in rng.uniform(0, 3, (30, 2))]
    ax = plotting.plot_losses(history, window=7, title="Training")
    assert len(ax.lines) == 4
    for name, raw, thick in zip(("class", "box"), ax.lines[::2], ax.lines[1::2], strict=True):
        values = [losses[name] for losses in history]
        np.testing.assert_allclose(raw.get_xydata(), list(zip(range(1, 31), values, strict=True)))
        slow = [np.mean(values[max(0, end - 7) : end]) for end in range(1, 31)]
        np.testing.assert_allclose(thick.get_ydata(), slow)
        assert raw.get_color() == thick.get_color()
        assert raw.get_linewidth() < thick.get_linewidth()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["class", "box"]
    assert ax.lines[0].get_color() != ax.lines[2].get_color()
    assert ax.get_ylim()[0] == 0 and ax.get_title() == "Training"
