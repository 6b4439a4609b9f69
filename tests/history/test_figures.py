"""What the figures show, read back from the axes, and whether the project's PNGs belong to its record."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from PIL import Image

from minircnn.course.figures.history import STAGE_COLORS, Row, plot_generations, plot_history
from minircnn.history import draw_history, draw_pictures, read_record, views_of
from minircnn.history import figures as module
from minircnn.history.figures import (
    fingerprint_of_record,
    fingerprint_of_weights,
    rows_of,
    titles_of,
)
from minircnn.mask_rcnn import binary_masks
from tests.history.conftest import stored_fingerprint

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def bars(ax):
    """(row, colour, left, right) of every bar, from the top."""
    found = [p for p in ax.patches if isinstance(p, Rectangle)]
    return [
        (p.get_y() + p.get_height() / 2, to_hex(p.get_facecolor()), p.get_x(), p.get_x() + p.get_width()) for p in found
    ]


def texts(ax):
    return [text.get_text() for text in ax.texts]


ROWS = [
    Row("A", 0.5, None, [{"selective search": 750.0, "heads": 240.0}], [1000.0]),
    Row("B", 0.75, 0.25, [{"convolutions": 10.0, "selection": 1.5, "masks": 8.5}], [20.0]),
]


class TestAccuracyAndTime:
    def test_bars_of_accuracy(self):
        ax = plot_history(ROWS, ["T"]).axes[0]
        rows = bars(ax)
        assert [(left, right) for _, _, left, right in rows] == [(0, 50), (0, 75), (0, 25)]
        assert texts(ax) == ["50", "75 boxes", "25 masks"]
        middles = [middle for middle, *_ in rows]
        assert middles[0] == 0 and middles[1] < 1 < middles[2], "boxes above masks, around their row"
        assert rows[2][1] == STAGE_COLORS["masks"] != rows[1][1]
        assert [label.get_text() for label in ax.get_yticklabels()] == ["A", "B"]
        assert ax.yaxis_inverted()

    def test_bars_of_time_are_linear_and_divided_by_shares(self):
        """20 of 1000 ms are 2 percent. 750 and 240 fill a bar at 750 / 990; numbers are percent of the total."""
        ax = plot_history(ROWS, ["T"]).axes[1]
        assert ax.get_xscale() == "linear" and ax.get_xlim()[0] == 0
        first, search, heads, second, convolutions, selection, masks = bars(ax)
        assert first[1:] == ("#4d4d4d", 0, 100) and second[1:] == ("#4d4d4d", 0, pytest.approx(2))
        assert search[1:] == (STAGE_COLORS["selective search"], 0, pytest.approx(100 * 750 / 990))
        assert heads[1:] == (STAGE_COLORS["heads"], pytest.approx(100 * 750 / 990), pytest.approx(100))
        assert convolutions[1:] == (STAGE_COLORS["convolutions"], 0, pytest.approx(50))
        assert selection[1:] == (STAGE_COLORS["selection"], pytest.approx(50), pytest.approx(57.5))
        assert masks[1:] == (STAGE_COLORS["masks"], pytest.approx(57.5), pytest.approx(100))
        assert first[0] < 0 < search[0] == heads[0] < 0.5 < second[0] < 1 < masks[0], "the time above its stages"
        assert texts(ax) == ["1 s", "75", "24", "20 ms", "50", "42"], "7.5 percent have no room for a number"
        assert ax.get_title() == "T" and "percent of the longest" in ax.get_xlabel()

    def test_every_time_fits_into_its_axes_and_the_legend_names_what_is_there(self, record):
        figure = plot_history(rows_of(record), titles_of(record))
        figure.canvas.draw()
        assert len(figure.axes) == 3
        for ax in figure.axes[1:]:
            for text in ax.texts:
                assert text.get_window_extent().x1 <= ax.get_window_extent().x1 + 1
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == list(STAGE_COLORS)
        (legend,) = plot_history(ROWS, ["T"]).legends
        assert [text.get_text() for text in legend.get_texts()] == [
            "selective search",
            "convolutions",
            "heads",
            "selection",
            "masks",
        ]

    def test_rows_of_a_record(self, record):
        first, second, third, fourth = rows_of(record)
        assert first.name == "R-CNN\n2014" and (first.box, first.mask) == (0.78, None)
        assert (fourth.box, fourth.mask) == (0.87, 0.82)
        assert list(second.times[0].items()) == [
            *(("selective search", 120), ("convolutions", 10), ("heads", 12), ("selection", 4))
        ]
        assert list(third.times[0].items()) == [
            *(("convolutions", 10), ("region proposal network", 5), ("heads", 4), ("selection", 1))
        ]
        assert fourth.times[1]["masks"] == 600 and fourth.totals == [30.5, 1285]
        assert titles_of(record) == [
            "Toy Town, 128 × 128, up to 300 proposals",
            "600 × 800, up to 2,000 proposals",
        ]
        record["paper_scale"] = None
        assert [len(row.times) for row in rows_of(record)] == [1] * 4 and len(titles_of(record)) == 1

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([], "rows must hold at least one detector"),
            ([Row("A", 0.5, None, [], [])], "A must have times and a total for each of the 1 titles"),
            ([Row("A", 0.5, None, [{"heads": 1.0}], [])], "A must have times and a total for each"),
            ([Row("A", 0.5, None, [{"heads": 1.0}], [0.0])], "A: times and totals must be positive"),
            ([Row("A", 0.5, None, [{"heads": 0.0}], [1.0])], "A: times and totals must be positive"),
            ([Row("A", 0.5, None, [{"coffee": 1.0}], [1.0])], "A: there is no stage 'coffee'; there are selective"),
        ],
    )
    def test_what_is_refused(self, rows, message):
        with pytest.raises(ValueError, match=message):
            plot_history(rows, ["T"])


VIEW = {
    "name": "A, 2000",
    "proposals": torch.tensor([[1.0, 2, 30, 40], [5, 5, 20, 20]]),
    "found": {"boxes": torch.tensor([[1.0, 2, 30, 40]]), "labels": torch.tensor([1]), "scores": torch.ones(1)},
}


class TestOneScene:
    def test_proposals_above_detections(self):
        empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
        masks = {**VIEW["found"], "masks": torch.ones(1, 50, 60, dtype=torch.bool)}
        views = [VIEW, {**VIEW, "found": empty}, {**VIEW, "found": masks}]
        axes = plot_generations(torch.rand(3, 50, 60), views, ["background", "cat"])
        assert axes.shape == (2, 3)
        assert [ax.get_title() for ax in axes[0]] == ["A, 2000\n2 proposals"] * 3
        assert [ax.get_title() for ax in axes[1]] == ["1 found", "nothing found", "1 outlined"]
        (boxes,) = [c for c in axes[0, 0].collections if isinstance(c, PatchCollection)]
        assert len(boxes.get_paths()) == 2
        assert len(axes[1, 0].patches) == 1 and axes[1, 0].patches[0].get_bbox().bounds == (1, 2, 29, 38)
        assert texts(axes[1, 0]) == ["cat"], "scores of different kinds are not shown"
        assert len(axes[1, 2].images) == len(axes[1, 0].images) + 1, "the masks"
        with pytest.raises(ValueError, match="views must hold at least one detector"):
            plot_generations(torch.rand(3, 50, 60), [], ["background"])

    def test_views_hold_what_detectors_are_sure_of(self, models, toytown):
        image = toytown.load_image(44)
        views = views_of(image, models)
        names = ["R-CNN, 2014", "Fast R-CNN, 2015", "Faster R-CNN, 2016", "Mask R-CNN, 2017"]
        assert [view["name"] for view in views] == names
        (rcnn,) = models["rcnn"].detect([image], [views[0]["proposals"]])
        assert ((rcnn["scores"] > 0) & (rcnn["scores"] < 0.5)).any(), "margins, which say yes from 0 on"
        assert torch.equal(views[0]["found"]["boxes"], rcnn["boxes"][rcnn["scores"] > 0])
        (fast,) = models["fast_rcnn"].detect([image], [views[1]["proposals"]])
        assert torch.equal(views[1]["found"]["boxes"], fast["boxes"][fast["scores"] > 0.5])
        (mask,) = models["mask_rcnn"].detect([image])
        sure = mask["scores"] > 0.5
        assert torch.equal(views[3]["found"]["masks"], binary_masks(mask)["masks"][sure])
        assert 0 < sure.sum() < len(sure)


class TestFiles:
    def test_a_png_says_what_it_shows(self, record):
        png = draw_history(record)
        assert stored_fingerprint(png) == fingerprint_of_record(record)
        with Image.open(io.BytesIO(png)) as image:
            pixels = np.asarray(image.convert("RGB"))
        assert pixels.shape[1] == 900 and 250 < pixels.shape[0] < 500
        assert len(png) < 100_000
        for colour in STAGE_COLORS.values():
            wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
            assert (np.abs(pixels.astype(int) - wanted).max(axis=2) < 12).any(), colour

    @pytest.mark.parametrize(
        "way",
        [
            ("detectors", "rcnn", "box", "ap50"),
            ("detectors", "mask_rcnn", "mask", "ap50"),
            ("detectors", "faster_rcnn", "milliseconds", "proposals"),
            ("detectors", "fast_rcnn", "milliseconds", "all"),
            ("paper_scale", "milliseconds", "rcnn", "features"),
            ("paper_scale", "proposals"),
            ("max_proposals",),
        ],
    )
    def test_other_figures_other_fingerprint(self, way, record):
        before = fingerprint_of_record(record)
        place = record
        for key in way[:-1]:
            place = place[key]
        place[way[-1]] += 1
        assert fingerprint_of_record(record) != before

    def test_what_is_not_shown_does_not_matter(self, record):
        before = fingerprint_of_record(record)
        record["detectors"]["rcnn"]["recall"] = 0.1
        record["command"] = "other"
        assert fingerprint_of_record(record) == before

    def test_weights_have_a_fingerprint(self, record, monkeypatch):
        before = fingerprint_of_weights(record=record)
        assert fingerprint_of_weights(picture=5, record=record) != before
        record["detectors"]["mask_rcnn"]["sha256"] = "other"
        assert fingerprint_of_weights(record=record) != before
        monkeypatch.setattr(module, "sha256", lambda path: path.stem)
        for key in record["detectors"]:
            record["detectors"][key]["sha256"] = key
        assert fingerprint_of_weights() == fingerprint_of_weights(record=record)

    def test_the_scene_is_drawn(self, models):
        png = draw_pictures(models)
        assert stored_fingerprint(png) == fingerprint_of_weights()
        with Image.open(io.BytesIO(png)) as image:
            assert image.size[0] == 900
        assert not plt.get_fignums()

    def test_a_png_of_somebody_else_says_nothing(self, tmp_path):
        Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
        assert stored_fingerprint(tmp_path / "x.png") is None

    def test_the_projects_figures_belong_to_its_record(self):
        """After new weights or results: minircnn history --update."""
        record = read_record()
        assert stored_fingerprint(DOCS / "history.png") == fingerprint_of_record(record)
        assert stored_fingerprint(DOCS / "history_pictures.png") == fingerprint_of_weights(record=record)
