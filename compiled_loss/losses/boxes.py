"""The two kinds of boxes: upright ones, and oriented ones with an angle.

Letters: B images, N rows, A anchors, P positive slots.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from compiled_loss.assign.regions import InBox, Region
from compiled_loss.assign.rotated import InRotatedBox
from compiled_loss.checks import given
from compiled_loss.data.targets import Targets
from compiled_loss.geometry.boxes import cxcywh_to_xyxy
from compiled_loss.geometry.rotated import decode_rotated, rotated_distances
from compiled_loss.grid import Anchors, Sides, boxes_to_distances, distances_to_boxes
from compiled_loss.losses.fields import Field, Map
from compiled_loss.losses.scene import Positives, to_pixels
from compiled_loss.numerics import at_least_float32
from compiled_loss.types import Predictions

# Oriented rows with a side shorter than this, in pixels, match nothing.
_SHORTEST_SIDE = 2


class UprightBoxes:
    """Upright boxes (x1, y1, x2, y2).

    Args:
        region: where candidates come from if the assigner's own region is None.
    """

    values = 4
    maps: Sequence[Map] = ()
    fields: Sequence[Field] = ()
    inside = InBox()

    def __init__(self, region: Region = inside) -> None:
        self.region = region

    def check(self, targets: Targets) -> None:
        """Nothing to check: every batch has boxes."""

    def place(self, targets: Targets, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """`[N, 4]` true boxes in pixels; all may have candidates."""
        return cxcywh_to_xyxy(to_pixels(targets.boxes, image_size)), torch.ones_like(
            targets.batch_idx, dtype=torch.bool
        )

    def predicted(self, predictions: Predictions, sides: Sides, anchors: Anchors) -> Tensor:
        """`[B, A, 4]` boxes of all anchors, pixels."""
        points, strides = anchors
        distances = (sides.distances * strides).transpose(1, 2)
        return distances_to_boxes(points * strides[:, None], distances).float()

    def scaled(self, boxes: Tensor, strides: Tensor) -> Tensor:
        """Boxes `[P, 4]` in units of strides `[P]`."""
        return boxes / strides[:, None]

    def distances(self, points: Tensor, boxes: Tensor) -> Tensor:
        """`[P, 4]` distances from points to the sides."""
        return boxes_to_distances(points, boxes)

    def read(self, positives: Positives, distances: Tensor) -> Tensor:
        """`[P, 4]` predicted boxes of the positives, grid units."""
        return distances_to_boxes(positives.points, distances)


class OrientedBoxes:
    """Oriented boxes (cx, cy, w, h, angle), with distances along their own axes."""

    values = 5
    maps: Sequence[Map] = (Map("angles", 1, "turn of the box, radians"),)
    fields: Sequence[Field] = (
        Field("angles", (), "float32", "turn of the box about its centre, radians, x towards y"),
    )
    region = inside = InRotatedBox()

    def check(self, targets: Targets) -> None:
        """Check that rows have angles."""
        given("targets.angles", targets.angles)

    def place(self, targets: Targets, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """`[N, 5]` true boxes in pixels; those with a side below 2 pixels have no candidates."""
        angles = given("targets.angles", targets.angles).float()
        boxes = torch.cat([to_pixels(targets.boxes, image_size), angles[:, None]], 1)
        return boxes, (boxes[:, 2:4] >= _SHORTEST_SIDE).all(1)

    def predicted(self, predictions: Predictions, sides: Sides, anchors: Anchors) -> Tensor:
        """`[B, A, 5]` boxes of all anchors, pixels."""
        points, strides = anchors
        angles = at_least_float32(angles_of(predictions)).squeeze(1)
        distances = (sides.distances * strides).transpose(1, 2)
        return decode_rotated(points * strides[:, None], distances, angles).float()

    def scaled(self, boxes: Tensor, strides: Tensor) -> Tensor:
        """Boxes `[P, 5]` in units of strides `[P]`; angles are unchanged."""
        return torch.cat([boxes[..., :4] * (1 / strides)[:, None], boxes[..., 4:]], -1)

    def distances(self, points: Tensor, boxes: Tensor) -> Tensor:
        """`[P, 4]` distances from points to the sides, along the boxes' axes."""
        return rotated_distances(points, boxes)

    def read(self, positives: Positives, distances: Tensor) -> Tensor:
        """`[P, 5]` predicted boxes of the positives, grid units."""
        angles = positives.read(angles_of(positives.view.predictions)).squeeze(-1)
        return decode_rotated(positives.points, distances, angles)


def angles_of(predictions: Predictions) -> Tensor:
    """`[B, 1, A]` predicted angles."""
    return given("predictions.angles", predictions.angles)
