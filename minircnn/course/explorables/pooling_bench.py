"""The pooling bench: a region of an image on its feature map, rounded in three ways and not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import traitlets
from torch import Tensor

from minircnn.course.explorables.base import Explorable, as_bytes, as_png, as_text, module
from minircnn.datasets import ToyTown
from minircnn.pooling import Misalignment, misalignment, roi_align, roi_pool

Numbers = traitlets.List(traitlets.Float())


class PoolingBench(Explorable):
    """A region of an image on its feature map, as four ways of rounding and RoIAlign see it.

    The map is the mean brightness of the pixels of each cell, from 0 to 255.

    Args:
        image: ``(3, h, w)`` in [0, 1].
        region: x1, y1, x2, y2 in pixels; the story's 15 pixels, if it is not given.
        traits: any of the others, by name.

    >>> bench = PoolingBench(torch.rand(3, 128, 128), feature_size=(25, 25))
    >>> bench.region = (0, 0, 20, 15)
    >>> round(bench.misalignment.exact[2], 2)
    3.91
    """

    name, title = "pooling_bench", "Pooling bench"
    alt = (
        "A region of 15 by 15 pixels on an image and on its feature map of 25 by 25 cells. It ends at 2.93 cells; "
        "rounded down at 2, to the nearest at 3, and the published RoIPool takes 4. RoIAlign's points lie inside of "
        "the region."
    )
    _esm = module("pooling_bench")
    region = traitlets.List(traitlets.Float(), [0.0, 0.0, 15.0, 15.0], 4, 4).tag(sync=True)  # x1, y1, x2, y2 in pixels
    feature_size = traitlets.List(traitlets.Int(min=1), [25, 25], 2, 2).tag(sync=True)  # rows and columns of cells
    output_size = traitlets.Int(2, min=1).tag(sync=True)  # bins a side
    sampling_ratio = traitlets.Int(2, min=1).tag(sync=True)  # points of a bin a side
    aligned = traitlets.Bool(True).tag(sync=True)
    point = traitlets.List(traitlets.Float(), [2.56, 2.56], 2, 2).tag(sync=True)  # x, y in cells
    window = traitlets.Int(36, min=1).tag(sync=True)  # pixels a side in sight
    image_size = traitlets.List(traitlets.Int(min=1), [1, 1], 2, 2).tag(sync=True)  # height and width
    image = traitlets.Unicode().tag(sync=True)
    brightness = traitlets.Unicode().tag(sync=True)  # a byte a pixel, in base64

    def __init__(self, image: Tensor, region: Sequence[float] = (0, 0, 15, 15), **traits: Any) -> None:  # noqa: ANN401
        if image.dim() != 3 or len(image) != 3:
            raise ValueError(f"image must be (3, h, w), but has shape {tuple(image.shape)}")
        self._gray = as_bytes(image).mean(axis=2).round().astype(np.uint8)
        stage = {"image": as_png(image), "brightness": as_text(self._gray.tobytes()), "image_size": self._gray.shape}
        super().__init__(region=region, **stage, **traits)

    @classmethod
    def example(cls) -> PoolingBench:
        """The story's 15 pixels on a balloon, whose white stripe ends where they end."""
        return cls(ToyTown("train")[384][0])

    @traitlets.validate("region")
    def _in_the_image(self, proposal: dict[str, Any]) -> list[float]:
        x1, y1, x2, y2 = (float(value) for value in proposal["value"])
        if not (0 <= x1 < x2 and 0 <= y1 < y2):
            raise traitlets.TraitError(f"region must be x1 < x2 and y1 < y2 from 0 on, but is {(x1, y1, x2, y2)}")
        return [x1, y1, x2, y2]

    @property
    def features(self) -> Tensor:
        """The map ``(h, w)``."""
        pixels = torch.from_numpy(self._gray).double()
        return F.adaptive_avg_pool2d(pixels[None, None], self.feature_size)[0, 0]

    @property
    def misalignment(self) -> Misalignment:
        """What the package says of this region: :func:`minircnn.pooling.misalignment`."""
        sizes = tuple(self.image_size), tuple(self.feature_size)
        return misalignment(self.region, *sizes, self.output_size, self.sampling_ratio)

    @property
    def by_package(self) -> dict[str, Any]:
        """Edges in cells, and the values of the bins."""
        found, features = self.misalignment, self.features[None, None]
        rois = torch.tensor([[0.0, *found.exact]], dtype=features.dtype)  # in cells
        aligned = roi_align(features, rois, self.output_size, 1.0, self.sampling_ratio, self.aligned)
        return {
            "exact": found.exact,
            "rounded_down": found.rounded_down,
            "pooled": found.pooled,
            "roi_pool": roi_pool(features, rois, self.output_size, 1.0)[0, 0],
            "roi_align": aligned[0, 0],
        }
