"""What all embedded data shares: pictures drawn on the fly by index, a crowd of objects, and a painter's tools."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image, ImageDraw

from demo.labels import Info, Labels
from demo.recent import Recent

MOST_OBJECTS = 12
SUPERSAMPLE = 2
CACHED_PICTURES = 4096

Brush = ImageDraw.ImageDraw
Ink = tuple[int, ...]


class Placed(Protocol):
    """Anything with an extent in pixels, x1, y1, x2, y2."""

    @property
    def box(self) -> np.ndarray: ...


T = TypeVar("T", bound=Placed)


class Rendered:
    """`length` scenes of a split; `size` is the side of the square picture in pixels."""

    info: Info
    augmented = False
    notes: Sequence[str] = ()

    def __init__(self, size: int, length: int, seed: int = 0, split: int = 0):
        self.size, self.length, self.seed, self.split = size, length, seed, split
        # Rendering takes longer than a training step leaves time for: from the second epoch on pictures are ready.
        self._rendered = Recent(self._render, CACHED_PICTURES)

    def __len__(self) -> int:
        return self.length

    def labels(self, index: int, epoch: int | None = None) -> Labels:
        return self._rendered(index)[1]

    def sample(self, index: int, epoch: int | None = None) -> tuple[np.ndarray, Labels]:
        return self._rendered(index)

    def random(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.split, index])

    def _render(self, index: int) -> tuple[np.ndarray, Labels]:
        """Picture and labels, a pure function of the index."""
        raise NotImplementedError


def crowd(size: int, rng: np.random.Generator, place: Callable[[float], T]) -> list[T]:
    """0 to 12 objects, far (drawn first) to near, that cover each other only in part; `place` makes one of a length."""
    wanted = int(rng.choice(MOST_OBJECTS + 1, p=_COUNTS))
    longest = 0.95 if wanted <= 3 else 0.6 if wanted <= 6 else 0.42
    objects: list[T] = []
    boxes: list[list[float]] = []
    for _ in range(4 * wanted):
        if len(objects) == wanted:
            break
        placed = place(size * math.exp(rng.uniform(math.log(0.16), math.log(longest))))
        box = placed.box.clip(0, size).tolist()
        area, full = _area(box), _area(placed.box.tolist())
        if area >= 0.6 * full and all(_overlap(box, other) <= 0.3 * min(area, _area(other)) for other in boxes):
            objects.append(placed)
            boxes.append(box)
    return objects


def paint(
    objects: list[T], size: int, rng: np.random.Generator, draw: Callable[[Brush, T, int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """The picture `[size, size, 3]` and, per pixel, the number of the object seen there (0: none).

    `draw(brush, object, number)` draws one, the number as the fourth part of every ink.
    """
    wash = Image.fromarray(rng.integers(40, 216, (3, 3, 3), dtype=np.uint8))
    canvas = wash.resize((size * SUPERSAMPLE, size * SUPERSAMPLE), Image.Resampling.BICUBIC)
    # The fourth channel is no transparency: it carries the number of the object through every brush stroke.
    canvas.putalpha(0)
    brush = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(0, 6)):
        _bar(brush, size, rng, thickness=(0.01, 0.12))
    for number, placed in enumerate(objects, start=1):
        draw(brush, placed, number)
    for _ in range(rng.integers(0, 4)):
        _bar(brush, size, rng, thickness=(0.02, 0.06))
    image = np.asarray(canvas.convert("RGB").reduce(SUPERSAMPLE))
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(1, 8))
    half = SUPERSAMPLE // 2
    owner = np.asarray(canvas.getchannel("A"))[half::SUPERSAMPLE, half::SUPERSAMPLE]
    return (image + noise).clip(0, 255).astype(np.uint8), owner


def stroke(brush: Brush, points: np.ndarray, radius: float, ink: Ink) -> None:
    """A line with round joints and ends; lengths in pixels of the picture."""
    brush.line(_points(points), fill=ink, width=max(1, round(2 * radius * SUPERSAMPLE)))
    for point in points:
        disc(brush, point, radius, ink)


def disc(brush: Brush, centre: np.ndarray, radius: float, ink: Ink) -> None:
    x, y, r = float(centre[0]) * SUPERSAMPLE, float(centre[1]) * SUPERSAMPLE, radius * SUPERSAMPLE
    brush.ellipse((x - r, y - r, x + r, y + r), fill=ink)


def polygon(brush: Brush, points: np.ndarray, ink: Ink) -> None:
    brush.polygon(_points(points), fill=ink)


def colour(rng: np.random.Generator, low: float, high: float, saturation: float = 0.85) -> tuple[int, int, int]:
    """A bright colour with a hue from `low` to `high`."""
    hue, s, v = rng.random(3).tolist()
    r, g, b = colorsys.hsv_to_rgb(low + (high - low) * hue, saturation * (0.75 + 0.25 * s), 0.55 + 0.45 * v)
    return round(255 * r), round(255 * g), round(255 * b)


def shade(ink: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    """The colour, darker (below 1) or lighter."""
    r, g, b = (min(255, round(x * factor)) for x in ink)
    return r, g, b


def _bar(brush: Brush, size: int, rng: np.random.Generator, thickness: tuple[float, float]) -> None:
    ends = rng.uniform(-0.1, 1.1, (2, 2)) * size
    ink = colour(rng, 0, 1, saturation=0.4)
    stroke(brush, ends, rng.uniform(*thickness) * size / 2, (*ink, 0))


def _points(points: np.ndarray) -> list[tuple[float, float]]:
    return [(x, y) for x, y in (points * SUPERSAMPLE).tolist()]


def _area(box: list[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(a: list[float], b: list[float]) -> float:
    """Area that two boxes share."""
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)


# One picture in twenty is empty; few objects are more common than many.
_COUNTS = np.array([0.05, *(0.95 * np.linspace(1.6, 0.4, MOST_OBJECTS) / np.linspace(1.6, 0.4, MOST_OBJECTS).sum())])
