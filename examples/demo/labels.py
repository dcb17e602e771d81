"""What a data set says about a picture, in pixels of the network's input, and its way into `Targets`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from compiled_loss import Targets

_PAIRS = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
COCO_NAMES = ("nose", *(f"{side}_{part}" for part in _PAIRS for side in ("left", "right")))
COCO_SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
# Pairs of COCO's keypoints, counted from 0.
COCO_LIMBS = (
    *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10)),
    *((1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
)
# Masks are learned at half the size of the picture.
MASK_STRIDE = 2


class DataError(ValueError):
    """The data cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Info:
    """What is the same for every picture: class and keypoint names, limbs (keypoint pairs) and OKS sigmas."""

    name: str
    classes: tuple[str, ...]
    keypoints: tuple[str, ...] = ()
    limbs: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] = ()

    @property
    def count(self) -> str:
        """How many classes there are, in words."""
        return "1 class" if len(self.classes) == 1 else f"{len(self.classes)} classes"

    def with_keypoints(self, names: Sequence[str], limbs: Sequence[tuple[int, int]]) -> Info:
        """Of poses: COCO's sigmas for COCO's keypoints, else the same for all; COCO's limbs where none are given."""
        person, names = tuple(names) == COCO_NAMES, tuple(names)
        sigmas = COCO_SIGMAS if person else np.full(len(names), 1 / len(names))
        limbs = tuple(limbs) or (COCO_LIMBS if person else ())
        return Info(self.name, self.classes, names, limbs, tuple(sigmas.tolist()))


@dataclass(frozen=True)
class Labels:
    """The objects of one picture, `n` of them.

    Args:
        classes: `[n]` class ids.
        boxes: `[n, 4]` x1, y1, x2, y2 in pixels.
        areas: `[n]` area in square pixels that the evaluation scales keypoint errors by.
        crowd: `[n]` bool, regions that are neither trained on nor counted as missed.
        keypoints: `[n, K, 3]` x, y in pixels and flag (0 not labelled, 1 hidden, 2 visible); or None.
        rotated: `[n, 5]` centre x, y, width, height in pixels and angle in radians, whose hulls are `boxes`; or None.
        index_map: `[size, size]` int16, i + 1 where object i is seen, 0 elsewhere; or None.
    """

    classes: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    keypoints: np.ndarray | None = None
    rotated: np.ndarray | None = None
    index_map: np.ndarray | None = None

    def take(self, chosen: np.ndarray) -> Labels:
        """The objects where `chosen` `[n]` is True."""
        classes, boxes, areas, crowd = (x[chosen] for x in (self.classes, self.boxes, self.areas, self.crowd))
        keypoints, rotated = (None if x is None else x[chosen] for x in (self.keypoints, self.rotated))
        index_map = self.index_map
        if index_map is not None:
            numbers = np.concatenate([[0], np.where(chosen, np.cumsum(chosen), 0)]).astype(np.int16)
            index_map = numbers[index_map]
        return Labels(classes, boxes, areas, crowd, keypoints, rotated, index_map)

    def masks(self) -> np.ndarray | None:
        """`[n, size, size]` bool."""
        if self.index_map is None:
            return None
        return self.index_map == np.arange(1, len(self.boxes) + 1)[:, None, None]

    def targets(self, size: int) -> Targets:
        """The same objects as rows of image 0, normalised by the side of the square picture."""
        real = self.take(~self.crowd)
        x1, y1, x2, y2 = real.boxes.T
        boxes = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=1) / size
        fields: dict[str, Any] = {}
        if real.keypoints is not None:
            fields["keypoints"] = torch.tensor(real.keypoints / (size, size, 1), dtype=torch.float32)
        if real.rotated is not None:
            boxes = real.rotated[:, :4] / size
            fields["angles"] = torch.tensor(real.rotated[:, 4], dtype=torch.float32)
        if real.index_map is not None:
            half = MASK_STRIDE // 2
            fields["index_map"] = torch.tensor(real.index_map[None, half::MASK_STRIDE, half::MASK_STRIDE])
        return Targets(
            batch_idx=torch.zeros(len(boxes), dtype=torch.int64),
            labels=torch.tensor(real.classes, dtype=torch.int64),
            boxes=torch.tensor(boxes, dtype=torch.float32),
            **fields,
        )


class Dataset(Protocol):
    """Pictures by index, a pure function of (index, epoch), so that a run can be resumed and planned.

    `augmented` says whether a picture differs from epoch to epoch, `notes` what somebody should know of the data.
    """

    info: Info
    size: int
    augmented: bool
    notes: Sequence[str]

    def __len__(self) -> int: ...

    def labels(self, index: int, epoch: int | None = None) -> Labels:
        """The objects as `sample` gives them, from a folder without loading the picture: masks are None there.

        Nor are they drawn where that takes long: a hidden keypoint then counts as visible.
        """
        ...

    def sample(self, index: int, epoch: int | None = None) -> tuple[np.ndarray, Labels]:
        """Picture `[size, size, 3]` uint8 and its objects; `epoch` chooses the augmentation, None asks for none."""
        ...


def image_tensor(image: np.ndarray) -> torch.Tensor:
    """`[H, W, 3]` uint8 to `[3, H, W]` float in [0, 1]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1).float().div_(255)
