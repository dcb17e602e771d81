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
