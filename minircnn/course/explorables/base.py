"""What the explorables have in common: a module of JavaScript, a state that Python reads and sets, a page, a still."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from PIL import Image as PILImage
from torch import Tensor

from minircnn.course.compare import equal

FOLDER = Path(__file__).parent
_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>{style}</style></head>
<body><main>{figure}</main></body>
</html>
"""
# A stand-in for the model that a notebook's kernel keeps: the same four functions over a plain object.
_FIGURE = """<div id="{name}"></div>
<script type="application/json" id="{name}-state">{state}</script>
<script type="module">
const state = JSON.parse(document.getElementById("{name}-state").textContent);
const listeners = {{}};
const model = {{
  get: (key) => state[key],
  set: (key, value) => {{ state[key] = value; for (const call of listeners[`change:${{key}}`] ?? []) call(); }},
  on: (event, call) => (listeners[event] ??= []).push(call),
  off: (event, call) => {{ listeners[event] = (listeners[event] ?? []).filter((other) => other !== call); }},
  save_changes: () => {{}},
}};
const url = URL.createObjectURL(new Blob([{module}], {{ type: "text/javascript" }}));
const {{ default: figure, math }} = await import(url);
const place = document.getElementById("{name}");
const remove = figure.render({{ model, el: place }});
place.explorable = {{ model, math, remove }};
</script>"""


def module(name: str) -> str:
    """The ES module of an explorable: its own file behind what all of them share."""
    return "\n".join((FOLDER / f"{file}.js").read_text(encoding="utf-8") for file in ("common", name))


class Explorable(anywidget.AnyWidget):
    """A figure that one takes hold of, in a notebook or on a page.

    Every trait but ``found`` may be read and set, and the figure follows; ``found`` is what the figure has computed
    from them. It is empty until a browser shows the figure.
    """

    name = title = ""  # of the module, of the page
    alt = ""  # what the figure shows, in a sentence or two, for those who cannot see it
    _css = (FOLDER / "style.css").read_text(encoding="utf-8")
    found = traitlets.Dict(read_only=False).tag(sync=True)

    @property
    def state(self) -> dict[str, Any]:
        """What the module is given: all that is shared with it, by name."""
        return {name: getattr(self, name) for name in self.traits(sync=True) if name not in _OF_WIDGETS}

    @classmethod
    def example(cls) -> Explorable:
        """The one of the course, over its own stage."""
        raise NotImplementedError

    @classmethod
    def still(cls) -> Path:
        """The example as an image, for where nothing runs; ``python -m workshop.stills`` makes it."""
        return FOLDER / "stills" / f"{cls.name}.jpg"

    @property
    def by_package(self) -> dict[str, Any]:
        """What the package computes from the same state, by the names of ``found``."""
        raise NotImplementedError

    def compare(self) -> None:
        """Print whether the figure, in the browser, has computed what the package computes, a line for each result."""
        if not self.found:
            print("No browser shows the figure yet, so there is nothing to compare.")
            return
        for name, value in self.by_package.items():
            equal(f"{name.replace('_', ' ')}, the figure's and the package's", np.asarray(self.found[name]), value)

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        """The figure, and for viewers without a kernel the still and what it shows."""
        data, metadata = super()._repr_mimebundle_()
        still = self.still()
        if still.is_file():
            data["image/jpeg"], metadata = as_text(still.read_bytes()), {"image/jpeg": {"alt": self.alt}, **metadata}
        return {**data, "text/plain": self.alt}, metadata

    def figure(self) -> str:
        """The figure as a part of a page, without a kernel and without a network."""
        # "</script>" in a text would end the script that holds it.
        state, code = (json.dumps(part).replace("</", "<\\/") for part in (self.state, module(self.name)))
        return _FIGURE.format(name=self.name, state=state, module=code)

    def page(self) -> str:
        """The figure as a page of its own."""
        return _PAGE.format(title=self.title, style=self._css, figure=self.figure())


_OF_WIDGETS = set(anywidget.AnyWidget.class_trait_names(sync=True)) | {"_esm", "_css", "_anywidget_id"}


def as_png(image: Tensor) -> str:
    """A ``(3, h, w)`` image in [0, 1] as a data URI."""
    buffer = io.BytesIO()
    PILImage.fromarray(as_bytes(image)).save(buffer, format="png")
    return f"data:image/png;base64,{as_text(buffer.getvalue())}"


def as_bytes(image: Tensor) -> np.ndarray:
    """``(3, h, w)`` in [0, 1] as ``(h, w, 3)`` whole numbers from 0 to 255."""
    return (255 * image.permute(1, 2, 0)).round().byte().numpy()


def as_text(data: bytes) -> str:
    """Bytes in base64."""
    return base64.b64encode(data).decode("ascii")


def boxes_of(proposal: dict[str, Any], image_size: Sequence[int]) -> list[list[float]]:
    """What a trait of boxes is about to be, refused if one has no area or leaves the image."""
    (height, width), rows = image_size, [list(map(float, box)) for box in proposal["value"]]
    for x1, y1, x2, y2 in rows:
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            name = proposal["trait"].name
            raise traitlets.TraitError(f"{name}: {(x1, y1, x2, y2)} has no area within {width} × {height} pixels")
    return rows
