"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photographs (coco-mini, nuclei …) that MINIRCNN_DATA names."""
    folder = os.environ.get("MINIRCNN_DATA")
    if not folder:
        pytest.skip(
            "set MINIRCNN_DATA to a folder that holds coco-mini/images/*.jpg and coco-mini/instances.json "
            "(any 200 pictures of COCO train2017 with their annotations)"
        )
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"MINIRCNN_DATA={folder} is not a folder")
    return path
