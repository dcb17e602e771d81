"""What a head says of every anchor, and its k best pairs, one number after the other in float64.

Letters: B images, A anchors, C classes.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from compiled_loss import Predictions


class Anchor(NamedTuple):
    """Of one anchor: its box in pixels, probabilities of the classes, keypoints in pixels."""

    box: list[float]
    scores: list[float]
    keypoints: list[list[float]]


def decode(
    predictions: Predictions, strides: Sequence[int], reg_max: int, *, dims: int = 3, offsets: bool = False
) -> list[list[Anchor]]:
    """Every anchor of every image."""
    cells = [
        (x + 0.5, y + 0.5, stride)
        for (rows, columns), stride in zip(predictions.grid_sizes, strides, strict=True)
        for y in range(rows)
        for x in range(columns)
    ]
    images = []
    for i in range(predictions.boxes.shape[0]):
        raw = {name: x[i].double().tolist() for name, x in predictions._asdict().items() if isinstance(x, Tensor)}
        images.append([_anchor(raw, j, *cell, reg_max, dims, offsets) for j, cell in enumerate(cells)])
    return images


def _anchor(
    raw: dict[str, Any], j: int, x: float, y: float, stride: int, reg_max: int, dims: int, offsets: bool
) -> Anchor:
    left, top, right, bottom = (_distance([raw["boxes"][s * reg_max + b][j] for b in range(reg_max)]) for s in range(4))
    if "angles" in raw:
        angle = raw["angles"][0][j]
        dx, dy = (right - left) / 2, (bottom - top) / 2
        centre_x = x + dx * math.cos(angle) - dy * math.sin(angle)
        centre_y = y + dx * math.sin(angle) + dy * math.cos(angle)
        box = [*(stride * v for v in (centre_x, centre_y, left + right, top + bottom)), angle]
    else:
        box = [stride * v for v in (x - left, y - top, x + right, y + bottom)]
    keypoints = []
    for p in range(len(raw.get("keypoints", [])) // dims):
        values = [raw["keypoints"][p * dims + d][j] for d in range(dims)]
        moved = [v + c if offsets else 2 * v + c - 0.5 for v, c in zip(values[:2], (x, y), strict=True)]
        keypoints.append([*(stride * v for v in moved), *map(sigmoid, values[2:])])
    return Anchor(box, [sigmoid(row[j]) for row in raw["scores"]], keypoints)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def _distance(logits: list[float]) -> float:
    if len(logits) == 1:
        return logits[0]
    peak = max(logits)
    weights = [math.exp(v - peak) for v in logits]
    return sum(i * w for i, w in enumerate(weights)) / sum(weights)


def best(logits: list[list[float]], k: int) -> list[tuple[int, int]]:
    """(anchor, class) of the k highest of logits `[C][A]`, of equal ones the first anchor's, then the first class."""
    pairs = [(-x, anchor, label) for label, row in enumerate(logits) for anchor, x in enumerate(row)]
    return [(anchor, label) for _, anchor, label in sorted(pairs)[:k]]


def mask(
    coefficients: list[float], prototypes: list, box: list[float], image: tuple[int, int], size: tuple[int, int]
) -> list[list[float]]:
    """`[H][W]` probabilities of enlarged prototypes `[D][h][w]`; 0 where a pixel's centre is outside the box."""
    height, width = len(prototypes[0]), len(prototypes[0][0])
    rows = []
    for row in range(size[0]):
        rows.append([])
        for column in range(size[1]):
            y, x = (row + 0.5) * image[0] / size[0], (column + 0.5) * image[1] / size[1]
            if not (box[0] < x < box[2] and box[1] < y < box[3]):
                rows[-1].append(0.0)
                continue
            (y0, y1, v), (x0, x1, u) = _between(row, size[0], height), _between(column, size[1], width)
            logit = 0.0
            for c, p in zip(coefficients, prototypes, strict=True):
                upper, lower = p[y0][x0] * (1 - u) + p[y0][x1] * u, p[y1][x0] * (1 - u) + p[y1][x1] * u
                logit += c * (upper * (1 - v) + lower * v)
            rows[-1].append(sigmoid(logit))
    return rows


def _between(index: int, size: int, given: int) -> tuple[int, int, float]:
    """The two of `given` pixels that pixel `index` of `size` lies between, and the share of the second."""
    place = max((index + 0.5) * given / size - 0.5, 0.0)
    low = int(place)
    return low, min(low + 1, given - 1), place - low
