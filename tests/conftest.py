"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run, and no deadline: how fast a machine is says nothing about what is right.
settings.register_profile("minircnn", deadline=None, derandomize=True)
settings.load_profile("minircnn")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photographs (coco-mini, nuclei …) that MINIRCNN_DATA names."""
    folder = os.environ.get("MINIRCNN_DATA")
    if not folder:
        pytest.skip(
            "set MINIRCNN_DATA to a folder that holds coco-mini/images/*.jpg and coco-mini/instances.json "
            "(200 pictures of COCO train2017, some with crowds, and their annotations)"
        )
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"MINIRCNN_DATA={folder} is not a folder")
    return path
