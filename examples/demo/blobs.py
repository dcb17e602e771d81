"""Embedded data for instance masks: blobs and stars that cover each other, under and over bars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo.labels import Info, Labels
from demo.rendered import Brush, Rendered, colour, crowd, disc, paint, polygon, shade

INFO = Info("blobs", ("blob", "star"))
CORNERS = 48
# Of what is covered further the rest tells little.
LEAST_SEEN, LEAST_PIXELS = 0.3, 12


@dataclass(frozen=True)
class Blob:
    """Kind (a class), outline `[48, 2]` in pixels and colour."""

    kind: int
    outline: np.ndarray
    ink: tuple[int, int, int]

    @property
    def box(self) -> np.ndarray:
        return np.concatenate([self.outline.min(0), self.outline.max(0)])

    @property
    def area(self) -> float:
        (x, y), (after_x, after_y) = self.outline.T, np.roll(self.outline, -1, axis=0).T
        return abs(float((x * after_y - after_x * y).sum())) / 2


class Blobs(Rendered):
    """Scenes of blobs with the mask of what is seen of each, and the box around that."""

    info = INFO

    def _render(self, index: int) -> tuple[np.ndarray, Labels]:
        rng = self.random(index)
        blobs = crowd(self.size, rng, lambda length: place(length, self.size, rng))
        image, owner = paint(blobs, self.size, rng, draw)
        index_map = owner.astype(np.int16)
        masks = index_map == np.arange(1, len(blobs) + 1)[:, None, None]
        areas = masks.sum((1, 2))
        labels = Labels(
            classes=np.array([blob.kind for blob in blobs], dtype=int),
            boxes=np.array([_extent(mask) for mask in masks]).reshape(-1, 4),
            areas=areas.astype(float),
            crowd=np.zeros(len(blobs), bool),
            index_map=index_map,
        )
        full = np.array([blob.area for blob in blobs])
        return image, labels.take((areas >= LEAST_PIXELS) & (areas >= LEAST_SEEN * full))


def place(length: float, size: int, rng: np.random.Generator) -> Blob:
    """A blob or star `length` pixels long in a random shape, place, direction and colour."""
    kind = int(rng.integers(2))
    turn = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    if kind == 0:
        waves = np.arange(2, 5)[:, None]
        radius = 1 + (rng.uniform(0, 0.16, (3, 1)) * np.cos(waves * turn + rng.uniform(0, 2 * np.pi, (3, 1)))).sum(0)
    else:
        tips = int(rng.integers(4, 8))
        # A saw tooth between the valleys and the tips.
        radius = 0.4 + 0.6 * abs(1 - (turn * tips / np.pi) % 2)
    outline = radius[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1) * (1, rng.uniform(0.5, 1))
    heading = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(heading), np.sin(heading)
    outline = outline @ np.array([[cos, sin], [-sin, cos]])
    outline *= length / (outline.max(0) - outline.min(0)).max()
    centre = rng.uniform(0.05, 0.95, 2) * size
    return Blob(kind, outline + centre, colour(rng, 0.0, 1.0, saturation=0.6))


def draw(brush: Brush, blob: Blob, number: int) -> None:
    """One blob, its number in every stroke."""
    middle = blob.outline.mean(0)
    polygon(brush, blob.outline, (*shade(blob.ink, 0.6), number))
    polygon(brush, middle + 0.86 * (blob.outline - middle), (*blob.ink, number))
    disc(brush, middle, 0.12 * np.sqrt(blob.area), (*shade(blob.ink, 0.6), number))


def _extent(mask: np.ndarray) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 around the pixels of a mask; zeros where there is none."""
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        return 0.0, 0.0, 0.0, 0.0
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)
