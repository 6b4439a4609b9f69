"""The tables that the evaluation ranks, against NumPy's count of pixels."""

import numpy as np
import pytest
import torch

from minircnn.evaluation import encode_masks, evaluate
from minircnn.evaluation.tables import read_tables


@pytest.mark.parametrize("count", [0, 1, 255, 256, 1000])
def test_any_number_of_masks_in_an_image(count):
    """Microscopes show hundreds of cells at once; 8 bits count to 255."""
    pixels = np.random.default_rng(count).random((count, 16, 24)) < np.linspace(0.1, 0.9, count)[:, None, None]
    masks, labels = torch.from_numpy(pixels), torch.ones(count, dtype=torch.int64)
    found = {"masks": masks, "labels": labels, "scores": torch.linspace(0.9, 0.1, count)}
    target = {"masks": encode_masks(masks), "labels": labels}
    for table in read_tables([found], [target], "masks"):
        assert table.area.tolist() == pixels.sum(axis=(1, 2)).tolist()
    if count:
        assert evaluate([found], [target], kind="masks", protocol="voc2010").ap == 1.0
