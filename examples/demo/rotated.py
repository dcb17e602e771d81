"""Rotated boxes `[n, 5]`: centre x, y, width, height in pixels, and the angle in radians, x towards y."""

from __future__ import annotations

import numpy as np
import torch

from compiled_loss.geometry.rotated import probiou


def corners(rotated: np.ndarray) -> np.ndarray:
    """`[n, 4, 2]` in turn around each box."""
    cos, sin = np.cos(rotated[:, 4]), np.sin(rotated[:, 4])
    along = rotated[:, 2, None] / 2 * np.stack([cos, sin], -1)
    across = rotated[:, 3, None] / 2 * np.stack([-sin, cos], -1)
    return rotated[:, None, :2] + np.stack([along + across, across - along, -along - across, along - across], 1)


def hulls(rotated: np.ndarray) -> np.ndarray:
    """`[n, 4]` upright boxes around them, x1, y1, x2, y2."""
    points = corners(rotated)
    return np.concatenate([points.min(1), points.max(1)], axis=1)


def half_turn(angle: np.ndarray | float) -> np.ndarray:
    """The same direction of a box's side, from -pi/4 up to 3/4 pi: the range of the model's angles.

    A half turn changes no box but swaps its left and right: out of the range, the distances that the loss teaches
    would not be those that the model needs for its own angle.
    """
    return np.asarray((angle + np.pi / 4) % np.pi - np.pi / 4)


def overlaps(rotated: np.ndarray) -> np.ndarray:
    """`[n, n]` ProbIoU of every two boxes."""
    boxes = torch.from_numpy(rotated)
    return probiou(boxes[:, None], boxes).numpy()


def around(points: np.ndarray) -> np.ndarray:
    """`[5]` the smallest rotated box around points `[n, 2]`, its longer side first.

    One of its sides runs along a side of the points' hull, so that the directions between every two will do.
    """
    first, second = np.triu_indices(len(points), 1)
    across = points[second] - points[first]
    angles = np.arctan2(across[:, 1], across[:, 0]) % (np.pi / 2)
    along = np.stack([np.cos(angles), np.sin(angles)], -1)
    normal = np.stack([-along[:, 1], along[:, 0]], -1)
    places = np.stack([along @ points.T, normal @ points.T], 1)
    low, high = places.min(2), places.max(2)
    best = (high - low).prod(1).argmin()
    middle, sides = (low + high)[best] / 2, (high - low)[best]
    angle = angles[best] + (np.pi / 2 if sides[0] < sides[1] else 0)
    centre = middle @ np.stack([along[best], normal[best]])
    return np.array([*centre, sides.max(), sides.min(), half_turn(angle)])
