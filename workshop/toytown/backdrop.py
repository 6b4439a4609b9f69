"""What lies behind the objects of a picture: a crop of a photograph or a painted landscape."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workshop.toytown.landscape import MOODS, paint_landscape
from workshop.toytown.palette import WHITE, chance, choose
from workshop.toytown.photographs import crop_photograph
from workshop.toytown.render import Light

_LANDSCAPE_SHARE = 0.45


@dataclass(frozen=True)
class Backdrop:
    """A background.

    Attributes:
        image: (size, size, 3) float32 in 0..255.
        name: "photograph/…" or "landscape/…".
        horizon: where the ground begins, in pixels from the top; None where there is no ground.
        tint: what the light of the place does to white, (3,) in 0..1; objects are multiplied by it.
        haze: colour of the air between the eye and distant objects, or None.
    """

    image: np.ndarray
    name: str
    horizon: float | None
    tint: np.ndarray
    haze: np.ndarray | None


def paint_backdrop(rng: np.random.Generator, size: int, light: Light, photographs: Sequence[str]) -> Backdrop:
    """A background of `size` pixels; a photograph, if it is one, comes from those named."""
    if not photographs or chance(rng, _LANDSCAPE_SHARE):
        name = choose(rng, list(MOODS))
        mood = MOODS[name]
        image, horizon = paint_landscape(rng, mood, size, light)
        return Backdrop(
            image, f"landscape/{name}", horizon, np.asarray(mood.tint, np.float32), np.asarray(mood.bottom, np.float32)
        )
    name = choose(rng, photographs)
    image = crop_photograph(rng, name, size)
    image = np.clip(image * rng.uniform(0.8, 1.15) + rng.uniform(-12, 24), 0, 255)
    # A little of the photograph's own colour falls on the objects, so that they belong to it.
    mean = image.mean(axis=(0, 1))
    tint = 1 - 0.16 * (1 - mean / np.asarray(WHITE, np.float32))
    ground = rng.uniform(0.1, 0.5) * size if chance(rng, 0.5) else None
    return Backdrop(image, f"photograph/{name}", ground, tint.astype(np.float32), None)
