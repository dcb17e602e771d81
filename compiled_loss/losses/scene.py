"""What the parts of a loss see of a batch, and how they read it.

Letters: B images, N rows, A anchors, P positive slots.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from compiled_loss.assign.candidates import Candidates
from compiled_loss.grid import Anchors, Sides
from compiled_loss.numerics import at_least_float32, masked
from compiled_loss.targets import Targets
from compiled_loss.types import Assignment, Predictions


class Scene(NamedTuple):
    """Anchors and targets of one batch, on the image's own scale: what the branches of a head share.

    Args:
        targets: the batch's rows.
        anchors: points and strides of all levels.
        pixels: `[A, 2]` the points, float32 pixels.
        boxes: `[N, 4]` target boxes, xyxy float32 pixels; of oriented boxes `[N, 5]` (cx, cy, w, h, angle).
        image_size: (height, width) in pixels.
        candidates: candidate anchors of every row.
    """

    targets: Targets
    anchors: Anchors
    pixels: Tensor
    boxes: Tensor
    image_size: tuple[int, int]
    candidates: Candidates


class View(NamedTuple):
    """A branch's predictions in a scene.

    Args:
        predictions: the head's raw output.
        sides: `[B, 4, A]` decoded distances, grid units; without a gradient.
        scene: anchors and targets.
    """

    predictions: Predictions
    sides: Sides
    scene: Scene


class Positives(NamedTuple):
    """The positives of a branch, one slot each, most of them empty.

    Args:
        view: the predictions in their scene.
        assignment: which anchor belongs to which row.
        slots: of each row, so that `P = N * slots`.
        points: `[P, 2]` anchor points, grid units.
        strides: `[P]` pixels per grid unit.
        boxes: `[P, 4 or 5]` true boxes, grid units; 0 in empty slots.
    """

    view: View
    assignment: Assignment
    slots: int
    points: Tensor
    strides: Tensor
    boxes: Tensor

    def read(self, x: Tensor) -> Tensor:
        """`[P, channels]` of a `[B, channels, A]` map; 0, in value and gradient, in empty slots."""
        found = x[self.assignment.image, :, self.assignment.anchor]
        return masked(at_least_float32(found), self.assignment.valid)

    def of_rows(self, x: Tensor) -> Tensor:
        """`[P, ...]` of a `[N, ...]` target field; 0 in empty slots."""
        return masked(x[self.assignment.row], self.assignment.valid)


def detached(predictions: Predictions) -> Predictions:
    """The same values without a derivative."""
    maps = {name: x.detach() for name, x in predictions._asdict().items() if isinstance(x, Tensor)}
    return predictions._replace(**maps)


def image_size_of(predictions: Predictions, strides: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) in pixels: the finest level's grid times its stride."""
    height, width = predictions.grid_sizes[0]
    return height * strides[0], width * strides[0]


def to_pixels(normalised: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Float32; even coordinates times the image's width, odd ones times its height."""
    height, width = image_size
    x, y = normalised.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([x * width, y * height], -1).flatten(-2)


def keypoints_in_pixels(keypoints: Tensor, image_size: tuple[int, int]) -> Tensor:
    """`[N, K, 2]` float32 pixel positions of normalised keypoints; a third value is left aside."""
    return to_pixels(keypoints[..., :2], image_size)
