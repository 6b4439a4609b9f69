"""Whole images: background, objects with their shadows, and what a camera adds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from workshop.toytown.background import Backdrop, paint_backdrop
from workshop.toytown.layout import Thing, arrange, overlap, visible_masks
from workshop.toytown.paint import chance
from workshop.toytown.photographs import TRAIN_PHOTOGRAPHS
from workshop.toytown.render import Light

SIZE = 128


@dataclass(frozen=True)
class Scene:
    """An image and what is in it; G objects, far ones first."""

    image: np.ndarray  # (S, S, 3) uint8
    labels: np.ndarray  # (G,) int64, 1..6
    subtypes: np.ndarray  # (G,) int64, indices into `SUBTYPES`
    masks: np.ndarray  # (G, S, S) bool: the visible pixels. They do not overlap
    full_areas: np.ndarray  # (G,) int64: pixels of each whole object, hidden ones and those outside the image included
    background: str  # name of the background, such as "photograph/coffee" or "landscape/sunset"


def paint_scene(seed: int, size: int = SIZE, photographs: Sequence[str] = TRAIN_PHOTOGRAPHS) -> Scene:
    """Paint the scene that belongs to a seed, a whole number from 0.

    `size` is the side of the image in pixels, 32 to 1024; everything in it grows alike. `photographs` are keys of
    `PHOTOGRAPHS` that may serve as background; empty for landscapes only.
    """
    rng = np.random.default_rng(seed)
    light = Light.random(rng)
    backdrop = paint_backdrop(rng, size, light, photographs)
    things = arrange(rng, backdrop, size, light)
    image = compose(rng, backdrop, things, light)
    objects = [(t, m) for t, m in zip(things, visible_masks(things, size), strict=True) if t.label]
    labels, subtypes, areas = np.array([(t.label, t.subtype, t.full_area) for t, _ in objects], np.int64).T
    return Scene(image, labels, subtypes, np.stack([m for _, m in objects]), areas, backdrop.name)


def compose(rng: np.random.Generator, backdrop: Backdrop, things: list[Thing], light: Light) -> np.ndarray:
    """Paint the things over the background, far ones first: (S, S, 3) uint8."""
    image = np.array(backdrop.image, np.float32)
    strength = rng.uniform(0.25, 0.5)
    for thing in things:
        if thing.grounded:
            _ground_shadow(image, thing, light, strength)
        elif backdrop.horizon is None:
            _drop_shadow(image, thing, light, strength)
        window, part = thing.overlap(len(image))
        alpha = thing.sprite.alpha[part][..., None]
        color = thing.sprite.color[part] * backdrop.tint
        if backdrop.haze is not None:
            haze = 0.32 * (1 - thing.depth) ** 2
            color = color * (1 - haze) + backdrop.haze * (haze * alpha)
        image[window] = image[window] * (1 - alpha) + color
    return develop(rng, image)


def _ground_shadow(image: np.ndarray, thing: Thing, light: Light, strength: float) -> None:
    """The object's outline, flattened, leaning away from the light and softened, and a darker line where it stands."""
    height, width = thing.sprite.size
    flat = max(4, round(0.3 * height))
    lean = -light.x * 0.55 * height  # how far the shadow of the top falls to the side
    margin = round(abs(lean)) + 6
    foot = flat + 5
    # Pixel (X, Y) of the shadow takes the sprite's pixel (X - margin - shift, Y * height / flat); shift grows upwards.
    step = lean / flat
    coefficients = (1.0, step, -margin - step * flat, 0.0, height / flat, 0.0)
    alpha = Image.fromarray(np.round(thing.sprite.alpha * 255).astype(np.uint8))
    cast = alpha.transform((width + 2 * margin, foot), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    shadow = np.asarray(cast.filter(ImageFilter.GaussianBlur(max(0.8, 0.018 * height))), np.float32) / 255
    base = np.flatnonzero(thing.sprite.alpha[-max(5, height // 12) :].max(axis=0) > 0.5)
    contact = np.zeros_like(shadow)
    if len(base):
        x = np.arange(contact.shape[1], dtype=np.float32)[None, :] - margin
        y = np.arange(foot, dtype=np.float32)[:, None] - (flat - 1)
        middle, half = (base[0] + base[-1]) / 2, (base[-1] - base[0]) / 2 + 2
        contact = np.clip(1.2 - ((x - middle) / (1.1 * half)) ** 2 - (y / max(2.0, 0.05 * height)) ** 2, 0, 1)
    _darken(image, np.maximum(shadow, 0.9 * contact), thing.x - margin, thing.y + height - 1 - flat, strength)


def _drop_shadow(image: np.ndarray, thing: Thing, light: Light, strength: float) -> None:
    """The shadow that a paper figure throws on the image it is glued to."""
    margin = 6
    alpha = np.pad(np.round(thing.sprite.alpha * 255).astype(np.uint8), margin)
    reach = 0.03 * max(thing.sprite.size) + 1
    soft = np.asarray(Image.fromarray(alpha).filter(ImageFilter.GaussianBlur(reach * 0.6)), np.float32) / 255
    x, y = thing.x - margin - round(light.x * reach), thing.y - margin - round(light.y * reach)
    _darken(image, soft, x, y, strength * 0.8)


def _darken(image: np.ndarray, shadow: np.ndarray, x: int, y: int, strength: float) -> None:
    window, part = overlap(x, y, (shadow.shape[0], shadow.shape[1]), len(image))
    # Shadows are lit by the sky, so they lose more red than blue.
    image[window] *= 1 - shadow[part][..., None] * strength * np.array([1.05, 1.0, 0.88], np.float32)


def develop(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """What a camera adds: exposure, color cast, vignette, blur and noise. (S, S, 3) floats to uint8."""
    size = len(image)
    gain = rng.uniform(0.88, 1.12) * (1 + rng.uniform(-0.08, 0.08, 3))
    image = image * gain.astype(np.float32)
    if chance(rng, 0.4):
        ramp = (np.arange(size, dtype=np.float32) - size / 2) / (size / 2)
        image = image * (1 - rng.uniform(0.05, 0.22) * (ramp[:, None] ** 2 + ramp[None, :] ** 2))[..., None]
    if chance(rng, 0.3):
        blur = ImageFilter.GaussianBlur(rng.uniform(0.3, 0.85) * size / 128)
        image = np.asarray(Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).filter(blur), np.float32)
    noise = rng.standard_normal((size, size, 3), dtype=np.float32)
    if chance(rng, 0.5):
        noise = noise[..., :1]  # grain, as of film, without color
    image = image + noise * np.float32(rng.uniform(0.5, 4.5))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
