"""The record of the history that tests of the course read, too."""

import matplotlib

from tests.course.conftest import record, results  # noqa: F401 - fixtures

matplotlib.use("Agg")
