"""The six classes: their names, sub-types and painters."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minircnn.datasets.toytown import CLASSES, SUBTYPES
from workshop.toytown import balloon, car, cat, house, person, tree
from workshop.toytown.palette import choose
from workshop.toytown.sketch import Sketch


@dataclass(frozen=True)
class _Painter:
    subtypes: tuple[str, ...]
    sketch: Callable[[np.random.Generator, str], Sketch]


_PAINTERS = {
    "person": _Painter(person.SUBTYPES, person.sketch_person),
    "car": _Painter(car.SUBTYPES, car.sketch_car),
    "cat": _Painter(cat.SUBTYPES, cat.sketch_cat),
    "tree": _Painter(tree.SUBTYPES, tree.sketch_tree),
    "house": _Painter(house.SUBTYPES, house.sketch_house),
    "balloon": _Painter(balloon.SUBTYPES, balloon.sketch_balloon),
}


def sketch_object(rng: np.random.Generator, label: int) -> tuple[Sketch, int]:
    """One object of class `label` (1..6) and its sub-type, an index into `SUBTYPES`."""
    name = CLASSES[label]
    painter = _PAINTERS[name]
    subtype = choose(rng, painter.subtypes)
    return painter.sketch(rng, subtype), SUBTYPES.index(f"{name}/{subtype}")
