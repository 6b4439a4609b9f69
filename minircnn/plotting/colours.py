"""One colour for each class, the same through the whole course."""

from __future__ import annotations

import colorsys

import numpy as np

Colour = tuple[float, float, float]

# The first six belong to Toy Town. They were searched for: the least difference between two of them (CIEDE2000) is as
# large as we could make it under normal sight and under simulated protanopia, deuteranopia and tritanopia (Machado et
# al. 2009, full severity) together, with a lightness that shows on white paper and on photographs. The other eighteen
# continue the list; each is as far as possible from all before it for normal sight.
_PALETTE = [
    *("d21414", "5a8bff", "e0b428", "2a7a64", "a2329a", "00ddbe"),  # person, car, cat, tree, house, balloon
    *("ffaabf", "6a5500", "95ea00", "40d4ff", "405580", "ff802a", "ff55ff", "559500", "d4d4ff"),
    *("9580aa", "ff2a80", "956a55", "2a8095", "d4d4aa", "4015ff", "aa0040", "006a00", "95956a"),
]
_BACKGROUND: Colour = (0.55, 0.55, 0.55)
_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, never come close to each other soon


def class_colour(label: int) -> Colour:
    """The colour of a class, wherever the course draws it.

    Labels 1 to 24 have colours that were searched for; later ones, which only sets such as COCO reach, get hues around
    the circle.
    Background (0) and anything below is grey.

    Args:
        label: Label of the class.

    Returns:
        (red, green, blue) in [0, 1].

    Example:
        >>> class_colour(0)
        (0.55, 0.55, 0.55)
        >>> class_colour(1) == class_colour(2)
        False
    """
    label = int(label)
    if label <= 0:
        return _BACKGROUND
    if label <= len(_PALETTE):
        code = _PALETTE[label - 1]
        return tuple(int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))
    step = label - len(_PALETTE)
    return colorsys.hsv_to_rgb(step * _GOLDEN % 1, (0.55, 0.8, 1.0)[step % 3], (0.95, 0.75)[step % 2])


def text_colour(background: Colour) -> str:
    """Black or white, whichever is read better on a background.

    Contrast as in the Web Content Accessibility Guidelines 2.1, "contrast ratio": (lighter + 0.05) / (darker + 0.05) of
    the relative luminances. One of the two always reaches 4.58, more than the 4.5 that the guidelines ask for.

    Args:
        background: (red, green, blue) in [0, 1].

    Returns:
        ``"black"`` or ``"white"``.

    Example:
        >>> text_colour((1.0, 1.0, 0.0)), text_colour((0.0, 0.0, 0.6))
        ('black', 'white')
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"


def label_map_colours(labels: np.ndarray) -> np.ndarray:
    """A colour for every region of a segmentation.

    The colour depends on the region's number alone: a region that survives a merge keeps its colour. Neighbouring
    numbers, which often lie side by side in the picture, get hues far apart.

    Args:
        labels: (H, W) whole numbers ≥ 0.

    Returns:
        (H, W, 3) float in [0, 1].
    """
    numbers, position = np.unique(labels, return_inverse=True)
    saturations, values = (0.45, 0.7, 0.95), (0.95, 0.75, 0.6)
    table = np.array(
        [colorsys.hsv_to_rgb(n * _GOLDEN % 1, saturations[n % 3], values[n // 3 % 3]) for n in map(int, numbers)]
    ).reshape(-1, 3)
    return table[position.reshape(labels.shape)]  # (H, W, 3)
