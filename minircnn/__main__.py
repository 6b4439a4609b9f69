"""``python -m minircnn`` is the command ``minircnn``."""

from minircnn.cli import app

app()
