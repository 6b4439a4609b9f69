"""Comparisons that take longer than a notebook may. Each writes its figures into data/results, which notebooks read."""

from pathlib import Path

import minircnn

RESULTS_FOLDER = Path(minircnn.__file__).resolve().parent.parent / "data" / "results"
"""Where the results lie that come with a clone of the project."""
