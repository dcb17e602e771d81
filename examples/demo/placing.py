"""Where a picture lies in the network's square, and what that does to every kind of label."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from faster_coco_eval.core import mask as run_lengths
from PIL import Image

from compiled_loss.data.segmentations import decode_runs
from demo.rotated import half_turn


class Placing(NamedTuple):
    """Scale, shift in pixels and mirroring of a picture in a square of `size` pixels."""

    size: int
    scale: float
    shift: np.ndarray
    mirrored: bool

    def picture(self, picture: Image.Image, fill: Any, resample: Image.Resampling) -> np.ndarray:
        dx, dy = self.shift
        inverse = (1 / self.scale, 0, -dx / self.scale, 0, 1 / self.scale, -dy / self.scale)
        size = (self.size, self.size)
        placed = np.asarray(picture.transform(size, Image.Transform.AFFINE, inverse, resample, fillcolor=fill))
        return placed[:, ::-1] if self.mirrored else placed

    def points(self, xy: np.ndarray) -> np.ndarray:
        """`[..., 2]`."""
        placed = xy * self.scale + self.shift
        if self.mirrored:
            placed[..., 0] = self.size - placed[..., 0]
        return placed

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """`[n, 4]` x1, y1, x2, y2."""
        corners = self.points(boxes.reshape(-1, 2, 2))
        return np.concatenate([corners.min(1), corners.max(1)], axis=1)

    def rotated(self, boxes: np.ndarray) -> np.ndarray:
        """`[n, 5]` centre x, y, width, height, angle."""
        angles = half_turn(-boxes[:, 4] if self.mirrored else boxes[:, 4])
        return np.column_stack([self.points(boxes[:, :2]), boxes[:, 2:4] * self.scale, angles])

    def keypoints(self, keypoints: np.ndarray) -> np.ndarray:
        """`[n, K, 3]`; what falls outside counts as not labelled, and zeros stand where nothing is labelled."""
        placed = np.concatenate([self.points(keypoints[..., :2]), keypoints[..., 2:]], axis=-1)
        outside = ((placed[..., :2] < 0) | (placed[..., :2] >= self.size)).any(-1)
        placed[outside | (placed[..., 2] == 0)] = 0
        return placed

    def index_map(self, segmentations: list[Any], boxes: np.ndarray) -> np.ndarray:
        """`[size, size]` int16: i + 1 on the pixels of segmentation i. Where two share pixels the smaller box wins."""
        index_map = np.zeros((self.size, self.size), dtype=np.int16)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        for i in np.argsort(-areas, kind="stable").tolist():
            index_map[self._mask(segmentations[i])] = i + 1
        return index_map

    def _mask(self, segmentation: Any) -> np.ndarray:
        """Bool, of COCO polygons or of run lengths in pixels of the picture, checked before."""
        if isinstance(segmentation, dict):
            height, width = segmentation["size"]
            drawn = decode_runs(segmentation, (height, width), "segmentation").numpy()
            return self.picture(Image.fromarray(drawn * 255), 0, Image.Resampling.BILINEAR) > 127
        polygons: Any = [np.array(flat, dtype=float).reshape(-1, 2) for flat in segmentation]
        polygons = [self.points(polygon).ravel().tolist() for polygon in polygons]
        return run_lengths.decode(run_lengths.segmToRle(polygons, self.size, self.size)) > 0
