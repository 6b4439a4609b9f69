"""The two pictures of the history as PNG files, each with a fingerprint of what it shows.

Whether a PNG belongs to a record cannot be seen from its pixels, which differ from one version of matplotlib to the
next. So a text inside the file says from which figures, or from which weights, it was drawn.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin
from torch import Tensor, nn

from minircnn.cache import fingerprint
from minircnn.course.figures.display import compress_png
from minircnn.course.figures.history import Row, plot_generations, plot_history
from minircnn.datasets import ToyTown
from minircnn.files import sha256
from minircnn.history.detectors import GENERATIONS, Generation, load_all
from minircnn.history.measure import MAX_PROPOSALS
from minircnn.history.stages import STAGES, all_by_stages
from minircnn.mask_rcnn import binary_masks
from minircnn.plotting import render_png

PICTURE = 44
"""Which scene of the test split the four detectors are shown with: one where much overlaps."""

_CHUNK = "minircnn"  # the name of the text in the PNG


def rows_of(record: Mapping[str, Any]) -> list[Row]:
    """What the figure of accuracy and time shows."""
    rows = []
    for one in GENERATIONS:
        own, scale = record["detectors"][one.key], record["paper_scale"]
        times = [own["milliseconds"], *([scale["milliseconds"][one.key]] if scale else [])]
        mask = own["mask"] and own["mask"]["ap50"]
        stages, totals = [_named(one, by_stage) for by_stage in times], [by_stage["all"] for by_stage in times]
        rows.append(Row(f"{own['name']}\n{own['year']}", own["box"]["ap50"], mask, stages, totals))
    return rows


def _named(generation: Generation, times: Mapping[str, float]) -> dict[str, float]:
    """Stages as the figure calls them, in the order in which they run."""
    first = ("proposals", "features") if generation.searches else ("features", "proposals")
    names = {"features": "convolutions", "proposals": "region proposal network"}
    if generation.searches:
        names["proposals"] = "selective search"
    return {names.get(stage, stage): times[stage] for stage in (*first, *STAGES[2:]) if stage in times}


def titles_of(record: Mapping[str, Any]) -> list[str]:
    """Titles of the panels of times."""
    titles = [f"Toy Town, 128 × 128, up to {record['max_proposals']} proposals"]
    if scale := record["paper_scale"]:
        height, width = scale["size"]
        titles.append(f"{height} × {width}, up to {scale['proposals']:,} proposals")
    return titles


def draw_history(record: Mapping[str, Any]) -> bytes:
    """The figure of accuracy and time, as PNG."""
    return _finish(plot_history(rows_of(record), titles_of(record)), fingerprint_of_record(record))


def fingerprint_of_record(record: Mapping[str, Any]) -> str:
    """A name for what the figure of a record shows; of another record that shows the same, the same."""
    return fingerprint(json.dumps([[asdict(row) for row in rows_of(record)], titles_of(record)]))


def views_of(image: Tensor, models: Mapping[str, nn.Module]) -> list[dict[str, Any]]:
    """A picture as each detector sees it: ``name``, ``proposals``, and ``found``, what it is sure enough of to show."""
    views, traces = [], all_by_stages(models, image, MAX_PROPOSALS)
    for one in GENERATIONS:
        trace = traces[one.key]
        sure = trace.detections["scores"] > one.surest
        shown = {key: value[sure] for key, value in trace.detections.items()}
        if "masks" in shown:
            shown = binary_masks(shown)
        views.append({"name": f"{one.name}, {one.year}", "proposals": trace.proposals, "found": shown})
    return views


def draw_pictures(models: Mapping[str, nn.Module] | None = None, picture: int = PICTURE) -> bytes:
    """One scene as all four detectors see it, as PNG.

    Args:
        models: by key; by default those that come with the project.
        picture: its number in the test split.
    """
    test = ToyTown("test", masks=False)
    models = load_all() if models is None else models
    with torch.no_grad():
        axes = plot_generations(test.load_image(picture), views_of(test.load_image(picture), models), test.classes)
    return _finish(axes[0, 0].get_figure(), fingerprint_of_weights(picture))


def fingerprint_of_weights(picture: int = PICTURE, record: Mapping[str, Any] | None = None) -> str:
    """A name for what the scene was drawn from: its number and the four files of weights.

    Args:
        picture: its number.
        record: the files that it was measured with; by default those that are there.
    """
    names = [record["detectors"][one.key]["sha256"] if record else sha256(one.weights) for one in GENERATIONS]
    return fingerprint(picture, *names)


def _finish(figure: Figure, name: str) -> bytes:
    try:
        png = compress_png(render_png(figure))
    finally:
        plt.close(figure)
    info, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_text(_CHUNK, name)
    with Image.open(io.BytesIO(png)) as image:
        image.save(buffer, format="png", pnginfo=info, optimize=True)
    return buffer.getvalue()
