"""Every figure that the notebooks show, those of :mod:`minircnn.plotting` included.

Functions that draw return matplotlib axes, so that you can add to them; :func:`show` puts the result into the notebook
with a text that says what can be seen. The names here are the public functions of the modules below.
"""

from importlib import import_module
from inspect import isfunction

from minircnn.plotting import class_color, draw_objects, image_grid, show_image

_MODULES = ["boxes", "charts", "display", "fast_rcnn", "faster_rcnn", "history", "maps", "mask_rcnn", "rcnn"]
_HERE = {
    name: found
    for module in (import_module(f"{__name__}.{short}") for short in _MODULES)
    for name, found in vars(module).items()
    if isfunction(found) and found.__module__ == module.__name__ and not name.startswith("_")
}
globals().update(_HERE)
__all__ = ["class_color", "draw_objects", "image_grid", "show_image", *_HERE]


def __dir__() -> list[str]:
    """What a notebook offers after a point and the tab key."""
    return sorted(__all__)
