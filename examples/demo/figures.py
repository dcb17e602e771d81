"""Embedded data: articulated figures with 13 keypoints, occlusion and clutter, rendered on the fly by index.

Left limbs are drawn warm and right limbs cool, so that left and right can be told from the picture.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from demo.labels import Info, Labels

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
MAX_FIGURES = 12
SUPERSAMPLE = 2
CACHED_PICTURES = 4096


@dataclass(frozen=True)
class Figure:
    """One figure in pixels: joints `[13, 2]`, extent (x1, y1, x2, y2), limb and head radius, nearer side, colours."""

    joints: np.ndarray
    box: np.ndarray
    limb_radius: float
    head_radius: float
    left_is_near: bool
    colours: dict[str, tuple[int, int, int]]


class Figures:
    """`length` scenes of a split; `size` is the side of the square picture in pixels."""

    info = INFO
    augmented = False

    def __init__(self, size: int, length: int, seed: int = 0, split: int = 0, keypoints: bool = True):
        self.size, self.length, self.seed, self.split = size, length, seed, split
        self.keypoints = keypoints
        # Rendering takes longer than a training step leaves time for: from the second epoch on pictures are ready.
        self._rendered = lru_cache(CACHED_PICTURES)(self._render)
        if not keypoints:
            self.info = Info("figures", INFO.classes)

    def __len__(self) -> int:
        return self.length

    def labels(self, index: int, epoch: int | None = None) -> Labels:
        return self._labels(self._scene(index)[0])

    def sample(self, index: int, epoch: int | None = None) -> tuple[np.ndarray, Labels]:
        return self._rendered(index)

    def _render(self, index: int) -> tuple[np.ndarray, Labels]:
        figures, rng = self._scene(index)
        image, owner = draw(figures, self.size, rng)
        return image, self._labels(figures, owner)

    def _scene(self, index: int) -> tuple[list[Figure], np.random.Generator]:
        rng = np.random.default_rng([self.seed, self.split, index])
        return scene(self.size, rng), rng

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
    """0 to 12 figures, far (drawn first) to near, that cover each other only in part."""
    wanted = int(rng.choice(MAX_FIGURES + 1, p=_COUNTS))
    tallest = 0.95 if wanted <= 3 else 0.6 if wanted <= 6 else 0.42
    figures: list[Figure] = []
    boxes: list[list[float]] = []
    for _ in range(4 * wanted):
        if len(figures) == wanted:
            break
        height = size * math.exp(rng.uniform(math.log(0.16), math.log(tallest)))
        figure = pose(height, size, rng)
        box = figure.box.clip(0, size).tolist()
        area, full = _area(box), _area(figure.box.tolist())
        if area >= 0.6 * full and all(_overlap(box, other) <= 0.3 * min(area, _area(other)) for other in boxes):
            figures.append(figure)
            boxes.append(box)
    return figures


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
        "left": _colour(rng, 0.0, 0.11),
        "right": _colour(rng, 0.52, 0.64),
        "trunk": _colour(rng, 0.0, 1.0, saturation=0.4),
        "head": _colour(rng, 0.06, 0.09, saturation=0.35),
    }
    return Figure(xy, box, limb_radius, head_radius, math.sin(yaw) > 0, colours)


def draw(figures: list[Figure], size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The picture `[size, size, 3]` and, per pixel, the number of the figure seen there (0: none)."""
    wash = Image.fromarray(rng.integers(40, 216, (3, 3, 3), dtype=np.uint8))
    canvas = wash.resize((size * SUPERSAMPLE, size * SUPERSAMPLE), Image.Resampling.BICUBIC)
    # The fourth channel is no transparency: it carries the number of the figure through every brush stroke.
    canvas.putalpha(0)
    brush = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(0, 6)):
        _bar(brush, size, rng, thickness=(0.01, 0.12))
    for number, figure in enumerate(figures, start=1):
        _draw_figure(brush, figure, number)
    for _ in range(rng.integers(0, 4)):
        _bar(brush, size, rng, thickness=(0.02, 0.06))
    image = np.asarray(canvas.convert("RGB").reduce(SUPERSAMPLE))
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(1, 8))
    half = SUPERSAMPLE // 2
    owner = np.asarray(canvas.getchannel("A"))[half::SUPERSAMPLE, half::SUPERSAMPLE]
    return (image + noise).clip(0, 255).astype(np.uint8), owner


def _draw_figure(brush: ImageDraw.ImageDraw, figure: Figure, number: int) -> None:
    near, far = ("left", "right") if figure.left_is_near else ("right", "left")
    trunk = figure.joints[TRUNK]
    _draw_side(brush, figure, far, number)
    _stroke(brush, trunk[[0, 1, 2, 3, 0]], figure.limb_radius, (*figure.colours["trunk"], number))
    brush.polygon(_points(trunk), fill=(*figure.colours["trunk"], number))
    neck, skin = np.stack([trunk[:2].mean(0), figure.joints[0]]), (*figure.colours["head"], number)
    _stroke(brush, neck, figure.limb_radius, skin)
    _disc(brush, figure.joints[0], figure.head_radius, skin)
    _draw_side(brush, figure, near, number)


def _draw_side(brush: ImageDraw.ImageDraw, figure: Figure, side: str, number: int) -> None:
    for limb in SIDES[side]:
        _stroke(brush, figure.joints[limb], figure.limb_radius, (*figure.colours[side], number))


def _bar(brush: ImageDraw.ImageDraw, size: int, rng: np.random.Generator, thickness: tuple[float, float]) -> None:
    ends = rng.uniform(-0.1, 1.1, (2, 2)) * size
    colour = _colour(rng, 0, 1, saturation=0.4)
    _stroke(brush, ends, rng.uniform(*thickness) * size / 2, (*colour, 0))


def _stroke(brush: ImageDraw.ImageDraw, points: np.ndarray, radius: float, ink: tuple[int, ...]) -> None:
    brush.line(_points(points), fill=ink, width=max(1, round(2 * radius * SUPERSAMPLE)))
    for point in points:
        _disc(brush, point, radius, ink)


def _disc(brush: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, ink: tuple[int, ...]) -> None:
    x, y, r = float(centre[0]) * SUPERSAMPLE, float(centre[1]) * SUPERSAMPLE, radius * SUPERSAMPLE
    brush.ellipse((x - r, y - r, x + r, y + r), fill=ink)


def _points(points: np.ndarray) -> list[tuple[float, float]]:
    return [(x, y) for x, y in (points * SUPERSAMPLE).tolist()]


def _area(box: list[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(a: list[float], b: list[float]) -> float:
    """Area that two boxes share."""
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)


def _swing(start: tuple[float, float], length: float, angle: float) -> tuple[float, float]:
    """The far end of a limb that hangs straight down at angle 0 and swings towards +x."""
    return start[0] + length * math.sin(angle), start[1] + length * math.cos(angle)


def _colour(rng: np.random.Generator, low: float, high: float, saturation: float = 0.85) -> tuple[int, int, int]:
    hue, s, v = rng.random(3).tolist()
    r, g, b = colorsys.hsv_to_rgb(low + (high - low) * hue, saturation * (0.75 + 0.25 * s), 0.55 + 0.45 * v)
    return round(255 * r), round(255 * g), round(255 * b)


# One picture in twenty is empty; few figures are more common than many.
_COUNTS = np.array([0.05, *(0.95 * np.linspace(1.6, 0.4, MAX_FIGURES) / np.linspace(1.6, 0.4, MAX_FIGURES).sum())])
