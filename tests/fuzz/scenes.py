"""What a batch is: rows and a head's raw maps, everything from one seed; ties among them on purpose."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.fuzz.setups import Setup
from tests.reference.dense_match import Rows
from tests.reference.parts import anchor_grid

BOXES = ("spread", "tiny", "crowded", "on_grid", "same", "large")
GUESSES = ("random", "truth", "mixed", "equal")
SCORES = ("random", "steps", "equal", "saturated")


@dataclass
class Scene:
    """Rows in any order, none of them padding, and maps of each branch in the setup's dtype."""

    setup: Setup
    rows: Rows
    heads: list[dict[str, Tensor]]
    drawn: str  # of which kinds


def draw_scene(setup: Setup, rng: np.random.Generator) -> Scene:
    """Everything about a batch but the form in which its rows come."""
    counts = rng.choice((0, 1, 2, 3, 5, 9), setup.batch_size, p=(0.15, 0.2, 0.2, 0.25, 0.15, 0.05))
    image = np.repeat(np.arange(setup.batch_size), counts)
    rng.shuffle(image)
    boxes = str(rng.choice(BOXES))
    rows = _rows(setup, rng, image, _boxes(setup, rng, boxes, len(image)))
    heads, drawn = [], [boxes]
    for _ in range(setup.branches):
        guess, scores = str(rng.choice(GUESSES)), str(rng.choice(SCORES))
        drawn += [guess, scores]
        maps = _maps(setup, rng, rows, guess, scores)
        heads.append({name: torch.from_numpy(x.astype(np.float32)).to(setup.dtype) for name, x in maps.items()})
    return Scene(setup, rows, heads, " ".join(drawn))


def _boxes(setup: Setup, rng: np.random.Generator, kind: str, count: int) -> np.ndarray:
    """`[N, 4]` normalised cxcywh."""
    pixels = np.array(setup.size[::-1], float)
    sides = 0.08 + 0.8 * rng.random((count, 2)) ** 2
    if kind == "tiny":
        sides = (rng.choice((0, 1, 1, 1), (count, 1)) + 11 * rng.random((count, 2))) / pixels
        sides[rng.random(count) < 0.05] = 0
    centre = sides / 2 + rng.random((count, 2)) * (1 - sides).clip(0)
    if kind == "crowded":
        sides = 0.25 + 0.3 * rng.random((count, 2))
        centre = 0.5 + 0.05 * (rng.random((count, 2)) - 0.5)
    elif kind == "large":
        sides, centre = sides * 3, centre + 0.5 * (rng.random((count, 2)) - 0.5)
    elif kind in ("on_grid", "same"):
        # Sides on multiples of half a cell: through anchors, between them, and shared.
        half = setup.strides[0] / 2
        low = (centre - sides / 2) * pixels // half
        high = np.maximum(low + 1, (centre + sides / 2) * pixels // half)
        centre, sides = (low + high) / 2 * half / pixels, (high - low) * half / pixels
    boxes = np.concatenate([centre, sides], 1)
    if kind == "same" and count:
        boxes = boxes[rng.integers(0, max(count // 2, 1), count)]
    return boxes


def _rows(setup: Setup, rng: np.random.Generator, image: np.ndarray, boxes: np.ndarray) -> Rows:
    count = len(image)
    labels = torch.from_numpy(rng.integers(0, setup.num_classes, count))
    keypoints = masks = class_map = None
    if setup.kind in ("pose", "residual"):
        spread = rng.random((count, setup.keypoints, 2)) - 0.5
        flags = rng.choice((0.0, 1.0, 2.0), (count, setup.keypoints, 1)) * (rng.random((count, 1, 1)) > 0.2)
        points = np.concatenate([boxes[:, None, :2] + spread * boxes[:, None, 2:], flags], 2)
        keypoints = torch.from_numpy(points.astype(np.float32))[..., : setup.values].contiguous()
    if setup.kind == "segment":
        masks, class_map = _masks(setup, rng, image, boxes)
    if setup.kind == "obb":
        turns = np.where(rng.random(count) < 0.5, rng.uniform(-3, 3, count), rng.integers(-4, 5, count) * np.pi / 4)
        boxes = np.concatenate([boxes, turns[:, None]], 1)
    rows = torch.from_numpy(boxes.astype(np.float32))
    return Rows(torch.from_numpy(image), labels, rows, keypoints, masks, class_map)


def _masks(setup: Setup, rng: np.random.Generator, image: np.ndarray, boxes: np.ndarray) -> tuple[Tensor, Tensor]:
    """Ellipses in the boxes, as index maps or one for each row, and any class map."""
    height, width = mask_size(setup)
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    centre, sides = boxes[:, :2, None], boxes[:, 2:4, None] + 1e-6
    u, v = (x - centre[:, 0]) / sides[:, 0], (y - centre[:, 1]) / sides[:, 1]  # [N, W], [N, H]
    drawn = u[:, None] ** 2 + v[..., None] ** 2 <= 0.25
    class_map = torch.from_numpy(rng.integers(0, setup.num_classes, (setup.batch_size, height, width)))
    if setup.stacked:
        soft = np.where(rng.random((len(image), 1, 1)) < 0.3, 0.625, 1.0)
        return torch.from_numpy((drawn * soft).astype(np.float32)), class_map
    maps, seen = np.zeros((setup.batch_size, height, width), np.int64), np.zeros(setup.batch_size, int)
    for n, b in enumerate(image):
        seen[b] += 1
        maps[b][drawn[n]] = seen[b]
    if rng.random() < 0.2:
        maps[rng.random(maps.shape) < 0.05] = 99  # of no row
    return torch.from_numpy(maps), class_map


def mask_size(setup: Setup) -> tuple[int, int]:
    """Of true masks; prototypes of losses with stacked ones are half as large."""
    return 2 * setup.grid[0], 2 * setup.grid[1]


def _maps(setup: Setup, rng: np.random.Generator, rows: Rows, guess: str, scores: str) -> dict[str, np.ndarray]:
    """Raw maps `[B, channels, A]`: near the truth of some row, or random, or equal everywhere."""
    points, step = (x.astype(float) for x in anchor_grid(setup.grids, setup.strides))
    batch, anchors, pixels = setup.batch_size, len(step), np.array(setup.size[::-1], float)
    near, at = _near(rng, rows, batch, anchors, {"truth": 0.9, "mixed": 0.5, "random": 0.0, "equal": 0.0}[guess])
    boxes = rows.boxes.double().numpy()
    logits = rng.normal(0, 1.5, (batch, anchors, setup.num_classes)) - 1
    if scores == "steps":
        logits = np.round(logits)
    elif scores == "equal":
        logits = np.full_like(logits, -0.5)
    elif scores == "saturated":
        logits = rng.choice((-60.0, -25.0, 25.0, 60.0), logits.shape)
        if rng.random() < 0.2:
            logits = logits * 2
    sides = np.abs(rng.normal(0, 2, (batch, anchors, 4)))
    if guess == "equal":
        sides = np.ones_like(sides) * rng.integers(0, 4)
    extra: dict[str, np.ndarray] = {}
    if setup.kind == "obb":
        extra["angles"] = rng.normal(0, 1, (batch, anchors, 1)) * (guess != "equal")
    if setup.kind in ("pose", "residual"):
        extra["keypoints"] = rng.normal(0, 1, (batch, anchors, setup.keypoints * setup.dims))
    if len(boxes):
        away = (points * step[:, None] - boxes[at, :2] * pixels) / step[:, None]  # [B, A, 2]
        half = boxes[at, 2:4] * pixels / 2 / step[:, None]
        if setup.kind == "obb":
            cos, sin = np.cos(boxes[at, 4]), np.sin(boxes[at, 4])
            x, y = away[..., 0], away[..., 1]
            away = np.stack([x * cos + y * sin, y * cos - x * sin], 2)
            extra["angles"] = np.where(near, boxes[at, 4:5] + 0.2 * extra["angles"], extra["angles"])
        true = np.concatenate([away + half, half - away], 2)
        if rng.random() < 0.7:
            true = true + rng.normal(0, 0.3, true.shape)
        sides = np.where(near, true, sides)
        logits = logits + near * (np.arange(setup.num_classes) == rows.labels.numpy()[at][..., None]) * (
            scores == "random"
        )
        if rows.keypoints is not None:
            goal = rows.keypoints[..., :2].double().numpy()[at] * pixels / step[:, None, None] - points[:, None]
            offset = goal if setup.kind == "residual" else (goal + 0.5) / 2
            raw = extra["keypoints"].reshape(batch, anchors, setup.keypoints, setup.dims)
            raw[..., :2] = np.where(near[..., None], offset + 0.2 * raw[..., :2], raw[..., :2])
    # Eighths, as exact in float32 as in float64: what is equal in one is equal in the other.
    if setup.reg_max == 1 and rng.random() < 0.4:
        sides = np.round(sides * 8) / 8
    if setup.kind == "residual" and setup.flow:
        extra["keypoint_sigmas"] = rng.normal(0, 1, (batch, anchors, 2 * setup.keypoints))
    found = {"boxes": _sides(setup, rng, sides, guess), "scores": logits, **extra}
    maps = {name: np.swapaxes(x, 1, 2) for name, x in found.items()}
    if setup.kind == "segment":
        height, width = (n // 2 for n in mask_size(setup)) if setup.stacked else mask_size(setup)
        maps["coefficients"] = rng.normal(0, 1, (batch, 3, anchors))
        maps["prototypes"] = rng.normal(0, 1, (batch, 3, height, width))
        if setup.semantic:
            maps["semantic"] = rng.normal(0, 1, (batch, setup.num_classes, setup.grid[0], setup.grid[1]))
    return maps


def _near(rng: np.random.Generator, rows: Rows, batch: int, anchors: int, share: float) -> tuple[Any, Any]:
    """Whether an anchor guesses a row `[B, A, 1]`, and which `[B, A]`; a row of its image, if there is one."""
    near, at = np.zeros((batch, anchors, 1), bool), np.zeros((batch, anchors), int)
    for b in range(batch):
        own = np.flatnonzero(rows.image.numpy() == b)
        if len(own):
            at[b] = rng.choice(own, anchors)
            near[b] = rng.random((anchors, 1)) < share
    return near, at


def _sides(setup: Setup, rng: np.random.Generator, sides: np.ndarray, guess: str) -> np.ndarray:
    """Raw maps that mean these distances, or roughly."""
    bins = setup.reg_max
    if bins == 1:
        return sides
    distance = sides.clip(0, bins - 1)[..., None] - np.arange(bins)
    logits = -2 * distance**2
    if guess == "equal" or rng.random() < 0.2:
        logits = np.where(np.abs(distance) <= 0.5, 60.0, -60.0)  # whole bins
    elif guess == "random":
        logits = rng.normal(0, 2, logits.shape)
    return logits.reshape(*sides.shape[:2], -1)
