"""Embedded data: articulated figures with 13 keypoints, occlusion and clutter, rendered on the fly by index.

Left limbs are drawn warm and right limbs cool, so that left and right can be told from the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from demo.labels import Info, Labels
from demo.rendered import Brush, Rendered, colour, crowd, disc, paint, polygon, stroke

JOINTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
KEYPOINTS = ("head", *(f"{side}_{joint}" for joint in JOINTS for side in ("left", "right")))
# Arm and leg of each side, from trunk to tip, and the corners of the trunk.
SIDES = {"left": ([1, 3, 5], [7, 9, 11]), "right": ([2, 4, 6], [8, 10, 12])}
TRUNK = [1, 2, 8, 7]
LIMBS = (
    *((1, 3), (3, 5), (7, 9), (9, 11), (2, 4), (4, 6), (8, 10), (10, 12)),
    *((1, 2), (7, 8), (1, 7), (2, 8), (0, 1), (0, 2)),
)
SIGMAS = (0.079, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089)
INFO = Info("figures", ("figure",), KEYPOINTS, LIMBS, SIGMAS)
# COCO scales OKS by the area of the body, not of its box: on people it is about this part of the box.
BODY_SHARE = 0.53


@dataclass(frozen=True)
class Figure:
    """One figure in pixels: joints `[13, 2]`, extent (x1, y1, x2, y2), limb and head radius, nearer side, colours."""

    joints: np.ndarray
    box: np.ndarray
    limb_radius: float
    head_radius: float
    left_is_near: bool
    colours: dict[str, tuple[int, int, int]]


class Figures(Rendered):
    """Scenes of figures with their keypoints, or with their boxes alone."""

    info = INFO

    def __init__(self, size: int, length: int, seed: int = 0, split: int = 0, keypoints: bool = True):
        super().__init__(size, length, seed, split)
        self.keypoints = keypoints
        if not keypoints:
            self.info = Info("figures", INFO.classes)

    def labels(self, index: int, epoch: int | None = None) -> Labels:
        return self._labels(scene(self.size, self.random(index)))

    def _render(self, index: int) -> tuple[np.ndarray, Labels]:
        rng = self.random(index)
        figures = scene(self.size, rng)
        image, owner = paint(figures, self.size, rng, draw)
        return image, self._labels(figures, owner)

    def _labels(self, figures: list[Figure], owner: np.ndarray | None = None) -> Labels:
        n, side = len(figures), self.size
        boxes = np.array([f.box for f in figures]).reshape(n, 4).clip(0, side)
        keypoints = np.zeros((n, len(KEYPOINTS), 3))
        for i, figure in enumerate(figures):
            inside = ((figure.joints >= 0) & (figure.joints < side)).all(1)
            keypoints[i, inside, :2] = figure.joints[inside]
            keypoints[i, inside, 2] = 2
            if owner is not None:
                x, y = figure.joints[inside].astype(int).T
                keypoints[i, inside, 2] = np.where(owner[y, x] == i + 1, 2, 1)
        areas = BODY_SHARE * (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return Labels(np.zeros(n, int), boxes, areas, np.zeros(n, bool), keypoints if self.keypoints else None)


def scene(size: int, rng: np.random.Generator) -> list[Figure]:
    return crowd(size, rng, lambda height: pose(height, size, rng))


def pose(height: float, size: int, rng: np.random.Generator) -> Figure:
    """A figure `height` pixels tall in a random pose, place and dress; lengths are in torso lengths until scaled."""
    # Plain floats: on vectors this short they are several times faster than arrays.
    yaw, lean = rng.random() * 2 * math.pi, rng.normal(0, 0.3)
    sin, cos = math.sin(lean), math.cos(lean)
    joints = [(0.0, 0.0)] * len(KEYPOINTS)
    joints[0] = (1.42 * sin + rng.normal(0, 0.05), -1.42 * cos + rng.normal(0, 0.05))
    for side, sign in ((0, 1.0), (1, -1.0)):
        across = sign * math.cos(yaw)
        arm, leg = lean + sign * (3 * rng.random() - 0.6), lean + sign * rng.normal(0.15, 0.4)
        shoulder = (sin + 0.42 * across * cos, -cos + 0.42 * across * sin)
        elbow = _swing(shoulder, 0.66, arm)
        hip = (0.26 * across * cos, 0.26 * across * sin)
        knee = _swing(hip, 0.82, leg)
        joints[1 + side], joints[3 + side] = shoulder, elbow
        joints[5 + side] = _swing(elbow, 0.62, arm + 3.2 * rng.random() - 1.6)
        joints[7 + side], joints[9 + side] = hip, knee
        joints[11 + side] = _swing(knee, 0.8, leg + rng.normal(0, 0.45))
    xy = np.array(joints)
    low, high = xy.min(0), xy.max(0)
    scale = height / (high[1] - low[1] + 0.45)
    room = np.maximum(size / 2 - 0.4 * (high - low) * scale, 0.05 * size)
    xy = (xy - (low + high) / 2) * scale + size / 2 + (2 * rng.random(2) - 1) * room
    limb_radius, head_radius = max(0.09 * scale, 0.6), 0.27 * scale
    reach = np.full((len(xy), 1), limb_radius)
    reach[0] = head_radius
    box = np.concatenate([(xy - reach).min(0), (xy + reach).max(0)])
    colours = {
        "left": colour(rng, 0.0, 0.11),
        "right": colour(rng, 0.52, 0.64),
        "trunk": colour(rng, 0.0, 1.0, saturation=0.4),
        "head": colour(rng, 0.06, 0.09, saturation=0.35),
    }
    return Figure(xy, box, limb_radius, head_radius, math.sin(yaw) > 0, colours)


def draw(brush: Brush, figure: Figure, number: int) -> None:
    """One figure, its number in every stroke."""
    near, far = ("left", "right") if figure.left_is_near else ("right", "left")
    trunk = figure.joints[TRUNK]
    _draw_side(brush, figure, far, number)
    stroke(brush, trunk[[0, 1, 2, 3, 0]], figure.limb_radius, (*figure.colours["trunk"], number))
    polygon(brush, trunk, (*figure.colours["trunk"], number))
    neck, skin = np.stack([trunk[:2].mean(0), figure.joints[0]]), (*figure.colours["head"], number)
    stroke(brush, neck, figure.limb_radius, skin)
    disc(brush, figure.joints[0], figure.head_radius, skin)
    _draw_side(brush, figure, near, number)


def _draw_side(brush: Brush, figure: Figure, side: str, number: int) -> None:
    for limb in SIDES[side]:
        stroke(brush, figure.joints[limb], figure.limb_radius, (*figure.colours[side], number))


def _swing(start: tuple[float, float], length: float, angle: float) -> tuple[float, float]:
    """The far end of a limb that hangs straight down at angle 0 and swings towards +x."""
    return start[0] + length * math.sin(angle), start[1] + length * math.cos(angle)
