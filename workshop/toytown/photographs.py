"""Photographs for backgrounds: those in scikit-image's wheel that may be used freely and show no object of our classes.

Left out: astronaut, camera (a person), chelsea (a cat), because an unlabeled person or cat would be punished as a
wrong detection; moon, page and the motorcycles, because no license is stated for them; drawings, and images too small
to crop.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import skimage
from PIL import Image

from workshop.toytown.paint import any_color, mixed

_LARGEST = 720  # longer side in memory; the retina is stored at 1411 pixels, far more than a crop can show


class Photograph(NamedTuple):
    """A file in the folder `data` of scikit-image; source and license as its documentation states them."""

    file: str
    title: str
    source: str
    license: str
    held_out: bool = False


_CC0, _PUBLIC, _FREE = "CC0", "public domain", "no known copyright restrictions"
PHOTOGRAPHS = {
    "brick": Photograph("brick.png", "a brick wall", "CC0Textures, Bricks25", _CC0),
    "grass": Photograph("grass.png", "grass", "DeviantArt, Grass-01", _CC0),
    "gravel": Photograph("gravel.png", "gravel", "CC0Textures, Gravel04", _CC0),
    "coffee": Photograph("coffee.png", "a cup of coffee", "given to scikit-image by its photographer", _CC0),
    "hubble": Photograph("hubble_deep_field.jpg", "the Hubble eXtreme Deep Field", "NASA, HubbleSite", _PUBLIC),
    "retina": Photograph("retina.jpg", "the back of an eye", "Häggström 2014, WikiJournal of Medicine 1 (2)", _CC0),
    "tissue": Photograph("ihc.png", "stained tissue", "Center for Microscopy and Molecular Imaging", _FREE),
    "clock": Photograph("clock_motion.png", "a blurred clock", "given to scikit-image by its photographer", _PUBLIC),
    "rocket": Photograph("rocket.jpg", "a rocket before its launch", "SpaceX", _PUBLIC, held_out=True),
    "coins": Photograph("coins.png", "coins from Pompeii", "Brooklyn Museum", _FREE, held_out=True),
    "text": Photograph("text.png", "handwriting on squared paper", "Wikipedia, Corner.png", _PUBLIC, held_out=True),
    "cell": Photograph("cell.png", "a cell", "Müller et al. 2018, Optics Express 26 (8)", _CC0, held_out=True),
}
TRAIN_PHOTOGRAPHS = tuple(name for name, p in PHOTOGRAPHS.items() if not p.held_out)
HELD_OUT_PHOTOGRAPHS = tuple(name for name, p in PHOTOGRAPHS.items() if p.held_out)
VAL_PHOTOGRAPHS = TRAIN_PHOTOGRAPHS[: len(HELD_OUT_PHOTOGRAPHS)] + HELD_OUT_PHOTOGRAPHS
"""Behind the images of val and test: half of them are ones that train never shows."""


@cache
def load_photograph(name: str) -> Image.Image:
    """The photograph called `name` as an RGB image. Read from scikit-image's wheel; nothing is ever downloaded.

    Raises:
        FileNotFoundError: if the installed scikit-image does not carry the file.
    """
    path = Path(skimage.__file__).parent / "data" / PHOTOGRAPHS[name].file
    if not path.is_file():
        raise FileNotFoundError(f"{path}: this scikit-image does not carry it; install scikit-image from its wheel")
    with Image.open(path) as image:
        photograph = image.convert("RGB")
    photograph.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    return photograph


def crop_photograph(rng: np.random.Generator, name: str, size: int, tint: bool = True) -> np.ndarray:
    """A random square crop of a photograph, (size, size, 3) float32 in 0..255; half of them are mirrored.

    With `tint`, gray photographs take on a random, quiet color.
    """
    photograph = load_photograph(name)
    shorter = min(photograph.size)
    side = rng.uniform(min(0.35 * shorter, max(size, 64)), 0.9 * shorter)
    x, y = rng.uniform(0, photograph.width - side), rng.uniform(0, photograph.height - side)
    crop = photograph.resize((size, size), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side), reducing_gap=2.0)
    pixels = np.asarray(crop, np.float32)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if tint and np.array_equal(pixels[..., 0], pixels[..., 2]):
        color = np.asarray(mixed((235.0, 225.0, 210.0), any_color(rng), rng.uniform(0.1, 0.8)), np.float32)
        pixels = pixels * (color / color.mean())
    return pixels
