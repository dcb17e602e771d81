"""Embedded data for rotated boxes: boats and rafts from above, in any direction, under bars and booms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo.labels import Info, Labels
from demo.rendered import Brush, Rendered, colour, crowd, paint, polygon, shade, stroke
from demo.rotated import half_turn, hulls

INFO = Info("boats", ("boat", "raft"))
# Corners from stern to bow and back, in lengths and beams.
HULLS = (
    np.array([(-0.5, -0.35), (-0.4, -0.5), (0.1, -0.5), (0.34, -0.3), (0.5, 0), (0.34, 0.3), (0.1, 0.5), (-0.4, 0.5)]),
    np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]),
)
CABIN = np.array([(-0.3, -0.3), (0.02, -0.22), (0.02, 0.22), (-0.3, 0.3)])


@dataclass(frozen=True)
class Boat:
    """Kind (a class), rotated box `[5]` in pixels, whose angle is the heading, and colour."""

    kind: int
    rotated: np.ndarray
    ink: tuple[int, int, int]

    @property
    def box(self) -> np.ndarray:
        return hulls(self.rotated[None])[0]

    def points(self, local: np.ndarray) -> np.ndarray:
        """Points in lengths and beams, as seen from the middle towards the bow, in pixels."""
        x, y, length, beam, heading = self.rotated
        cos, sin = np.cos(heading), np.sin(heading)
        return local * (length, beam) @ np.array([[cos, sin], [-sin, cos]]) + (x, y)


class Boats(Rendered):
    """Scenes of boats with their rotated boxes."""

    info = INFO

    def labels(self, index: int, epoch: int | None = None) -> Labels:
        return self._labels(self._scene(self.random(index)))

    def _render(self, index: int) -> tuple[np.ndarray, Labels]:
        rng = self.random(index)
        boats = self._scene(rng)
        return paint(boats, self.size, rng, draw)[0], self._labels(boats)

    def _scene(self, rng: np.random.Generator) -> list[Boat]:
        return crowd(self.size, rng, lambda length: moor(length, self.size, rng))

    def _labels(self, boats: list[Boat]) -> Labels:
        n = len(boats)
        rotated = np.array([boat.rotated for boat in boats]).reshape(n, 5)
        rotated[:, 4] = half_turn(rotated[:, 4])
        return Labels(
            classes=np.array([boat.kind for boat in boats], dtype=int),
            boxes=hulls(rotated).clip(0, self.size),
            areas=rotated[:, 2:4].prod(1),
            crowd=np.zeros(n, bool),
            rotated=rotated,
        )


def moor(length: float, size: int, rng: np.random.Generator) -> Boat:
    """A boat `length` pixels long of a random kind, beam, place, heading and colour."""
    kind = int(rng.integers(len(HULLS)))
    beam = length * rng.uniform(0.22, 0.5 if kind == 0 else 0.75)
    x, y = rng.uniform(0.05, 0.95, 2) * size
    rotated = np.array([x, y, length, beam, rng.uniform(-np.pi, np.pi)])
    return Boat(kind, rotated, colour(rng, 0.0, 1.0, saturation=0.6))


def draw(brush: Brush, boat: Boat, number: int) -> None:
    """One boat, its number in every stroke."""
    outline = HULLS[boat.kind]
    polygon(brush, boat.points(outline), (*boat.ink, number))
    polygon(brush, boat.points(0.82 * outline), (*shade(boat.ink, 0.75), number))
    if boat.kind == 0:
        polygon(brush, boat.points(CABIN), (*shade(boat.ink, 1.5), number))
        return
    dark = (*shade(boat.ink, 0.5), number)
    for x in (-0.25, 0.0, 0.25):
        stroke(brush, boat.points(np.array([(x, -0.45), (x, 0.45)])), 0.015 * boat.rotated[2], dark)
