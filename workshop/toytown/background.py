"""What lies behind the objects of an image: a crop of a photograph, or a painted landscape.

A landscape has a sky, hills and a ground that is textured with a photograph of grass or gravel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from workshop.toytown.paint import chance, choose, jitter, mixed, scaled
from workshop.toytown.palette import WHITE, Color
from workshop.toytown.photographs import crop_photograph, load_photograph
from workshop.toytown.render import SUPERSAMPLE, Light

_LANDSCAPE_SHARE = 0.45


@dataclass(frozen=True)
class Backdrop:
    """A background."""

    image: np.ndarray  # (size, size, 3) float32 in 0..255
    name: str  # "photograph/…" or "landscape/…"
    horizon: float | None  # where the ground begins, in pixels from the top; None where there is no ground
    tint: np.ndarray  # what the light of the place does to white, (3,) in 0..1; objects are multiplied by it
    haze: np.ndarray | None  # color of the air between the eye and distant objects, or None


def paint_backdrop(rng: np.random.Generator, size: int, light: Light, photographs: Sequence[str]) -> Backdrop:
    """A background of `size` pixels; a photograph, if it is one, comes from those named."""
    if not photographs or chance(rng, _LANDSCAPE_SHARE):
        name = choose(rng, list(MOODS))
        mood = MOODS[name]
        image, horizon = paint_landscape(rng, mood, size, light)
        tint, haze = (np.asarray(color, np.float32) for color in (mood.tint, mood.bottom))
        return Backdrop(image, f"landscape/{name}", horizon, tint, haze)
    name = choose(rng, photographs)
    image = crop_photograph(rng, name, size)
    image = np.clip(image * rng.uniform(0.8, 1.15) + rng.uniform(-12, 24), 0, 255)
    # A little of the photograph's own color falls on the objects, so that they belong to it.
    mean = image.mean(axis=(0, 1))
    tint = 1 - 0.16 * (1 - mean / np.asarray(WHITE, np.float32))
    ground = rng.uniform(0.1, 0.5) * size if chance(rng, 0.5) else None
    return Backdrop(image, f"photograph/{name}", ground, tint.astype(np.float32), None)


@dataclass(frozen=True)
class Mood:
    """The colors of a time of day or a place."""

    top: Color  # the sky, from above to the horizon
    bottom: Color
    hills: Color  # the furthest range; nearer ones turn towards `ground`
    ground: Color  # what the objects stand on
    tint: Color  # what white looks like in this light, 0..1 for each channel
    disc: Color  # color of the sun or the moon
    stars: bool = False  # whether they are out


MOODS = {
    "day": Mood((92, 164, 222), (206, 232, 240), (142, 184, 176), (126, 176, 88), (1.0, 1.0, 0.99), (255, 244, 190)),
    "spring": Mood(
        (132, 196, 220), (244, 238, 214), (164, 200, 150), (150, 190, 92), (1.0, 1.0, 0.96), (255, 246, 196)
    ),
    "overcast": Mood(
        (158, 170, 182), (212, 216, 214), (140, 156, 158), (122, 142, 104), (0.93, 0.95, 0.97), (226, 226, 222)
    ),
    "sunset": Mood((94, 98, 162), (252, 178, 120), (150, 106, 136), (142, 118, 84), (1.0, 0.9, 0.82), (255, 210, 130)),
    "dawn": Mood(
        (140, 164, 208), (252, 214, 206), (168, 158, 186), (138, 164, 116), (1.0, 0.95, 0.94), (255, 232, 206)
    ),
    "night": Mood((24, 30, 66), (72, 84, 128), (48, 58, 96), (58, 78, 82), (0.72, 0.76, 0.92), (244, 240, 214), True),
    "beach": Mood((86, 176, 214), (214, 238, 236), (72, 150, 186), (232, 208, 156), (1.0, 0.99, 0.95), (255, 246, 200)),
    "desert": Mood(
        (108, 176, 206), (250, 226, 180), (206, 146, 110), (222, 174, 116), (1.0, 0.97, 0.9), (255, 240, 190)
    ),
    "snow": Mood(
        (146, 184, 216), (230, 238, 244), (176, 196, 214), (212, 222, 234), (0.97, 0.99, 1.0), (250, 246, 224)
    ),
    "autumn": Mood((132, 170, 200), (246, 228, 190), (186, 138, 96), (176, 150, 78), (1.0, 0.96, 0.9), (255, 236, 180)),
}


def paint_landscape(rng: np.random.Generator, mood: Mood, size: int, light: Light) -> tuple[np.ndarray, float]:
    """A landscape, (size, size, 3) float32 in 0..255, and the height of its horizon in pixels from the top."""
    large = size * SUPERSAMPLE
    horizon = rng.uniform(0.32, 0.6) * large
    canvas = _sky(rng, mood, large, horizon)
    pen = ImageDraw.Draw(canvas)
    if mood.stars:
        for x, y in rng.uniform(0, 1, (int(rng.integers(20, 60)), 2)):
            radius = float(choose(rng, [1.5, 2.0, 3.0]))
            _disc(pen, x * large, y * horizon, radius, mixed(mood.top, WHITE, 0.8))
    if chance(rng, 0.6):
        x = large * (0.5 + 0.4 * np.sign(light.x) * rng.uniform(0.2, 1.0))  # the light comes from here
        y, radius = horizon * rng.uniform(0.15, 0.7), large * rng.uniform(0.035, 0.07)
        for k, share in ((1.7, 0.25), (1.35, 0.45), (1.0, 1.0)):
            _disc(pen, x, y, k * radius, mixed(mood.bottom, mood.disc, share))
    if not mood.stars:
        for _ in range(int(rng.integers(0, 4))):
            _cloud(pen, rng, mood, large, horizon)
    _hills(pen, rng, mood, large, horizon)
    image = np.asarray(canvas.reduce(SUPERSAMPLE), np.float32)
    ground = _ground(rng, mood, size, horizon / SUPERSAMPLE)
    edge = round(horizon / SUPERSAMPLE)
    return np.concatenate([image[:edge], ground[edge:]]), horizon / SUPERSAMPLE


def _sky(rng: np.random.Generator, mood: Mood, large: int, horizon: float) -> Image.Image:
    top, bottom = jitter(rng, mood.top, 14), jitter(rng, mood.bottom, 10)
    share = np.clip(np.arange(large) / horizon, 0, 1)[:, None]
    column = np.asarray(top) * (1 - share) + np.asarray(bottom) * share  # (large, 3)
    return Image.fromarray(column.astype(np.uint8)[:, None, :]).resize((large, large), Image.Resampling.NEAREST)


def _disc(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, color: Color) -> None:
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_rgb(color))


def _rgb(color: Color) -> tuple[int, int, int]:
    red, green, blue = (round(c) for c in color)
    return red, green, blue


def _cloud(pen: ImageDraw.ImageDraw, rng: np.random.Generator, mood: Mood, large: int, horizon: float) -> None:
    x, y = rng.uniform(0, large), rng.uniform(0.05, 0.75) * horizon
    width = large * rng.uniform(0.06, 0.14)
    radii = width * np.array([0.2, 0.32, 0.45, 0.34, 0.22]) * rng.uniform(0.8, 1.2, 5)
    puffs = [(x + width * 0.5 * k, y - 0.7 * float(r), float(r)) for k, r in zip((-2, -1, 0, 1, 2), radii, strict=True)]
    for lower, color in ((0.1, mixed(mood.bottom, mood.top, 0.12)), (0.0, mixed(mood.bottom, WHITE, 0.75))):
        for px, py, radius in puffs:
            _disc(pen, px, py + lower * width, radius, color)


def _hills(pen: ImageDraw.ImageDraw, rng: np.random.Generator, mood: Mood, large: int, horizon: float) -> None:
    count = int(rng.integers(0, 4))
    x = np.linspace(0, large, 33)
    for k in range(count):
        near = (k + 1) / (count + 1)
        color = jitter(rng, mixed(mixed(mood.hills, mood.bottom, 0.35 * (1 - near)), mood.ground, 0.5 * near), 6)
        height = large * rng.uniform(0.04, 0.16) * (1.2 - near)
        waves = sum(np.sin(x / large * f + rng.uniform(0, 6.3)) / f**0.5 for f in rng.uniform(2, 16, 3))
        ridge = horizon - height * (1 + 0.45 * np.asarray(waves))
        pen.polygon([*zip(x.tolist(), ridge.tolist(), strict=True), (large, large), (0, large)], fill=_rgb(color))


def _ground(rng: np.random.Generator, mood: Mood, size: int, horizon: float) -> np.ndarray:
    """The ground, (size, size, 3): paler and smoother towards the horizon, textured near the eye."""
    base = np.asarray(jitter(rng, mood.ground, 14), np.float32)
    far = np.asarray(mixed(mood.ground, mood.bottom, 0.35), np.float32)
    depth = np.clip((np.arange(size) - horizon) / max(1.0, size - horizon), 0, 1).astype(np.float32)[:, None, None]
    ground = far + (base - far) * np.sqrt(depth)
    texture = _receding(rng, choose(rng, ["grass", "gravel"]), size, horizon)
    grain = (texture - texture.mean()) / 128 * rng.uniform(0.2, 0.6) * depth
    coarse = Image.fromarray((rng.random((4, 5)) * 255).astype(np.uint8))
    patches = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    image = ground * (1 + grain + (patches[..., None] - 128) / 128 * 0.07)
    if chance(rng, 0.3):
        _path(rng, image, scaled(mixed(mood.ground, (206, 186, 156), 0.6), rng.uniform(0.85, 1.05)), horizon)
    return np.clip(image, 0, 255)


def _receding(rng: np.random.Generator, name: str, size: int, horizon: float) -> np.ndarray:
    """A photograph of a texture, laid down on the ground and seen in perspective: (size, size, 1), 0..255."""
    photograph = load_photograph(name)
    eye = 0.2 * size  # how quickly the ground recedes: at the horizon all is 1 + (size - horizon) / eye times smaller
    far = rng.uniform(0.75, 0.98) * photograph.width / size  # photograph pixels for one image pixel, at the horizon
    length = rng.uniform(0.55, 0.98) * photograph.height
    middle = photograph.width / 2
    # PERSPECTIVE: source x = (a X + b Y + c) / (g X + h Y + 1), source y = (d X + e Y + f) / (g X + h Y + 1).
    shift = 1 - horizon / eye  # the denominator is 1 at the horizon row, so everything is divided by `shift` at Y = 0
    a, b, c = far, middle / eye, middle * shift - far * size / 2
    d, e, f = 0.0, length / eye, -length * horizon / eye
    if abs(shift) < 1e-3:
        return np.full((size, size, 1), 128, np.float32)
    coefficients = tuple(k / shift for k in (a, b, c, d, e, f, 0.0, 1 / eye))
    view = (Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR)
    return np.asarray(photograph.convert("L").transform((size, size), *view), np.float32)[..., None]


def _path(rng: np.random.Generator, image: np.ndarray, color: Color, horizon: float) -> None:
    """A winding path from the lower edge to the horizon, painted into `image`."""
    size = len(image)
    y = np.arange(size, dtype=np.float32)
    depth = np.clip((y - horizon) / max(1.0, size - horizon), 0, 1)
    middle = rng.uniform(0.2, 0.8) + rng.uniform(-0.3, 0.3) * depth
    middle = size * (middle + 0.06 * np.sin(rng.uniform(2, 6) * depth + rng.uniform(0, 6)))
    half = size * rng.uniform(0.05, 0.13) * depth + 0.5
    off = np.abs(np.arange(size)[None, :] - middle[:, None])
    inside = np.clip(half[:, None] - off + 0.5, 0, 1) * (depth > 0)[:, None]
    image += (np.asarray(color, np.float32) - image) * (0.8 * inside[..., None])
