"""From a sketch to pixels: draw at four times the size with hard edges, then reduce with a good filter."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from workshop.toytown.palette import Color
from workshop.toytown.sketch import Outline, Shape, Sketch

SUPERSAMPLE = 4
Window = tuple[int, int, int, int]  # left, top, width, height in canvas pixels
_MARGIN = 2  # transparent pixels around the object, so that the filter has something to fade into


@dataclass(frozen=True)
class Light:
    """Where the light comes from: the same for every object of an image."""

    x: float  # -1 (from the left) to 1 (from the right)
    y: float  # -1 (from above) to 1

    @staticmethod
    def random(rng: np.random.Generator) -> "Light":
        """Daylight from the upper left or the upper right."""
        slope = rng.uniform(0.35, 1.2)
        side = 1.0 if rng.random() < 0.5 else -1.0
        return Light(side * float(np.sin(slope)), -float(np.cos(slope)))


@dataclass(frozen=True)
class Sprite:
    """A painted object."""

    color: np.ndarray  # (h, w, 3) float32 in 0..255, already multiplied by alpha
    alpha: np.ndarray  # (h, w) float32 in 0..1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.alpha.shape[0], self.alpha.shape[1]


@dataclass(frozen=True)
class _Frame:
    """How sketch coordinates become canvas pixels: `pixel = point @ matrix + offset`."""

    matrix: np.ndarray  # (2, 2): mirror, rotation and scale
    offset: np.ndarray  # (2,)

    def pixels(self, outlines: tuple[Outline, ...]) -> list[np.ndarray]:
        return [o @ self.matrix + self.offset for o in outlines]

    def sketch_grid(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """The sketch coordinates of the pixel centers of a window, each (h, w)."""
        inverse = np.linalg.inv(self.matrix).astype(np.float32)
        x = (np.arange(window[2]) + (window[0] + 0.5 - self.offset[0])).astype(np.float32)[None, :]
        y = (np.arange(window[3]) + (window[1] + 0.5 - self.offset[1])).astype(np.float32)[:, None]
        return x * inverse[0, 0] + y * inverse[1, 0], x * inverse[0, 1] + y * inverse[1, 1]


def render(sketch: Sketch, longest: float, light: Light, mirror: bool = False, tilt: float = 0.0) -> Sprite:
    """Paint a sketch so that the longer side of its box has `longest` pixels.

    Left and right are exchanged by `mirror`, and it is turned clockwise by `tilt`, in radians; the light stays.
    """
    frame, (width, height) = _fit(sketch, longest * SUPERSAMPLE, mirror, tilt)
    canvas = Image.new("RGBA", (width, height))
    pen = ImageDraw.Draw(canvas)
    for shape in sketch.shapes:
        if shape.paint.pattern is None and not shape.shade and shape.clip is None and shape.paint.opacity == 1:
            _draw_flat(pen, frame.pixels(shape.outlines), shape.paint.color)
        else:
            _fill(canvas, shape, frame, light)
    # RGBa is multiplied by alpha: colors of transparent pixels must not bleed into the edge.
    small = canvas.convert("RGBa").resize((width // SUPERSAMPLE, height // SUPERSAMPLE), Image.Resampling.HAMMING)
    pixels = np.asarray(small, np.float32)
    color, alpha = pixels[..., :3], pixels[..., 3] / 255
    return Sprite(color * _relief(alpha, light)[..., None], alpha)


def _fit(sketch: Sketch, longest: float, mirror: bool, tilt: float) -> tuple[_Frame, tuple[int, int]]:
    """The frame that makes the longer side of the sketch `longest` canvas pixels, and the canvas's (width, height)."""
    cos, sin = np.cos(tilt), np.sin(tilt)
    matrix = np.array([[cos, sin], [-sin, cos]])
    if mirror:
        matrix = np.diag([-1.0, 1.0]) @ matrix
    points = np.concatenate([o for s in sketch.shapes if s.clip is None for o in s.outlines]) @ matrix
    low, high = points.min(axis=0), points.max(axis=0)
    scale = longest / (high - low).max()
    margin = _MARGIN * SUPERSAMPLE
    # The small number keeps a whole number of pixels whole, whatever the last digit of a product on this processor.
    size = SUPERSAMPLE * np.ceil(((high - low) * scale + 2 * margin) / SUPERSAMPLE - 1e-6).astype(int)
    spare = (size - (high - low) * scale) / 2
    return _Frame(matrix * scale, spare - low * scale), (int(size[0]), int(size[1]))


def _fill(canvas: Image.Image, shape: Shape, frame: _Frame, light: Light) -> None:
    """Draw one shape that has a pattern, shading, a clip or an opacity."""
    outlines = frame.pixels(shape.outlines)
    bounds = _bounds(outlines)
    left, top = max(0, math.floor(bounds[0])), max(0, math.floor(bounds[1]))
    size = (min(canvas.width, math.ceil(bounds[2]) + 1) - left, min(canvas.height, math.ceil(bounds[3]) + 1) - top)
    if min(size) <= 0:
        return
    flat = shape.paint.pattern is None and shape.clip is None and shape.paint.opacity == 1
    if flat and min(size) < 3 * SUPERSAMPLE:  # too small for anyone to see the light on it
        _draw_flat(ImageDraw.Draw(canvas), outlines, shape.paint.color)
        return
    window = (left, top, *size)
    mask = _mask(outlines, window, round(255 * shape.paint.opacity))
    if shape.clip is not None:
        clip = frame.pixels(shape.clip)
        mask = ImageChops.multiply(mask, _mask(clip, window, 255))
        bounds = _bounds(clip)
    lighting = _lighting(window, bounds, shape, light) if shape.shade else None
    _paste(canvas, shape.paint.color, lighting, window, mask)
    if shape.paint.pattern is not None and shape.paint.accent is not None:
        weight = shape.paint.weight(*frame.sketch_grid(window))  # (h, w) in 0..1
        accent = Image.fromarray((weight * np.float32(255)).astype(np.uint8))
        _paste(canvas, shape.paint.accent, lighting, window, ImageChops.multiply(mask, accent))


def _draw_flat(pen: ImageDraw.ImageDraw, outlines: list[np.ndarray], color: Color) -> None:
    fill = (*(round(c) for c in color), 255)
    for outline in outlines:
        pen.polygon(outline.ravel().tolist(), fill=fill)


def _bounds(outlines: list[np.ndarray]) -> tuple[float, float, float, float]:
    """The box (x1, y1, x2, y2) around some outlines."""
    points = outlines[0] if len(outlines) == 1 else np.concatenate(outlines)
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return x1, y1, x2, y2


def _paste(canvas: Image.Image, color: Color, lighting: np.ndarray | None, window: Window, mask: Image.Image) -> None:
    """Lay a color, lit by `lighting`, on the canvas where the mask is white."""
    if lighting is None:
        canvas.paste((*(round(c) for c in color), 255), window[:2], mask)
        return
    lit = np.minimum(lighting[..., None] * np.asarray(color, np.float32), 255).astype(np.uint8)
    canvas.paste(Image.fromarray(lit).resize(window[2:], Image.Resampling.NEAREST), window[:2], mask)


def _mask(outlines: list[np.ndarray], window: Window, value: int) -> Image.Image:
    mask = Image.new("L", window[2:])
    pen = ImageDraw.Draw(mask)
    for outline in outlines:
        pen.polygon((outline - window[:2]).ravel().tolist(), fill=value)
    return mask


def _lighting(window: Window, bounds: tuple[float, float, float, float], shape: Shape, light: Light) -> np.ndarray:
    """How bright a shape is, about 1 and never below 0, more towards the light, less away from it.

    Light changes slowly, so one value for each final pixel is enough: the result is about `size / SUPERSAMPLE`.
    """
    axes = []
    for i in (0, 1):
        steps = -(-window[2 + i] // SUPERSAMPLE)
        middle, half = (bounds[i] + bounds[2 + i]) / 2, max(1.0, (bounds[2 + i] - bounds[i]) / 2)
        spacing = window[2 + i] / steps
        first = window[i] + spacing / 2 - middle
        axes.append((np.arange(steps, dtype=np.float32) * (spacing / half) + first / half).astype(np.float32))
    u, v = axes[0][None, :], axes[1][:, None]
    if shape.ball:
        distance = (u - 0.45 * light.x) ** 2 + (v - 0.45 * light.y) ** 2
        return np.maximum(1 + shape.shade * np.maximum(0.55 - distance, -1.0), 0)
    return np.maximum(1 + shape.shade * 0.75 * (u * light.x + v * light.y), 0)


def _relief(alpha: np.ndarray, light: Light) -> np.ndarray:
    """A soft rim over the whole object: lighter on the side of the light, darker on the other, (h, w)."""
    radius = 0.04 * max(alpha.shape)
    image = Image.fromarray(np.round(alpha * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    down, right = np.gradient(np.asarray(image, np.float32) / 255)
    return 1 - 0.55 * radius * (right * light.x + down * light.y)  # the gradient points inwards
