"""What was found in one picture."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from faster_coco_eval.core import mask as run_lengths


class Detections(NamedTuple):
    """What was found in one picture, `n` objects, best first; what a task does not find is None.

    Args:
        scores: `[n]`.
        classes: `[n]`.
        boxes: `[n, 4]` x1, y1, x2, y2 in pixels.
        keypoints: `[n, K, 3]` x, y in pixels and visibility.
        rotated: `[n, 5]` centre x, y, width, height in pixels and angle in radians, whose hulls are `boxes`.
        runs: masks as run lengths, which take little room.
    """

    scores: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    keypoints: np.ndarray | None = None
    rotated: np.ndarray | None = None
    runs: list[dict] | None = None

    def take(self, chosen: np.ndarray) -> Detections:
        """The objects where `chosen` `[n]` is True."""
        runs = None if self.runs is None else [run for run, wanted in zip(self.runs, chosen, strict=True) if wanted]
        keypoints, rotated = (None if x is None else x[chosen] for x in (self.keypoints, self.rotated))
        return Detections(self.scores[chosen], self.classes[chosen], self.boxes[chosen], keypoints, rotated, runs)

    def masks(self) -> np.ndarray | None:
        """`[n, size, size]` bool."""
        return None if self.runs is None else np.array([run_lengths.decode(run) > 0 for run in self.runs])


def encode(masks: np.ndarray) -> list[dict]:
    """Run lengths of masks `[n, H, W]` bool."""
    if len(masks) == 0:
        return []
    return run_lengths.encode(np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8))  # pyright: ignore
