"""The loss of oriented boxes: detection with an angle.

Letters: B images, N rows, A anchors, P positive slots.
"""

from typing import Any

import torch
from torch import Tensor

from compiled_loss.assign.candidates import find_cells
from compiled_loss.assign.rotated import keep_inside, rotated_reach
from compiled_loss.assign.task_aligned import Overlap
from compiled_loss.checks import (
    check_floating,
    check_keywords,
    check_same_device,
    check_shape,
    finite_number,
    require,
)
from compiled_loss.geometry.rotated import decode_rotated, gaussian_overlap, gaussians, probiou, rotated_distances
from compiled_loss.grid import Sides
from compiled_loss.losses.detection import DetectionLoss
from compiled_loss.losses.scene import (
    Scene,
    anchors_of,
    candidates_of,
    gather_positives,
    gather_rows,
    image_size_of,
    real_rows,
    to_pixels,
)
from compiled_loss.numerics import at_least_float32
from compiled_loss.targets import Targets
from compiled_loss.terms.rotated import angle_error
from compiled_loss.types import Assignment, Predictions

# Rows with a shorter side match nothing, in pixels.
_SHORTEST_SIDE = 2
# Least variance of a box in the box term, in grid units squared.
_FLOOR = 0.01


class OrientedLoss(DetectionLoss):
    """Oriented boxes and classes of a dense, anchor-free head, task-aligned, as one graph.

    As `DetectionLoss`, with `box = sum t (1 - ProbIoU) / S`, distances along the target's own axes, and
    `angle = sum t exp(-ln(w / h)^2 / 9) sin^2(2 (predicted - true)) / S`. Candidates are the anchors inside the
    oriented box or on its sides, and the assigner compares by ProbIoU. A row with a side below 2 pixels counts nothing.

    Targets' angles should lie in the range of the head's, which often is `[-pi/4, 3 pi/4)`. A half turn more changes
    neither a box nor the box and angle terms, but swaps its left with its right and its top with its bottom: the
    distances that the `dfl` term teaches would not be those that the head needs for its own angle.

    Args:
        num_classes: C.
        angle_gain: factor of the angle term.
        options: every other argument of `DetectionLoss`.

    Raises:
        ValueError: for a non-positive size, a negative number or one that is not finite, or an argument of the wrong
            rank, size, dtype or device.
        TypeError: for a keyword that there is not.

    Source: ProbIoU (arXiv 2106.06072), TOOD (arXiv 2108.07755), Generalized Focal Loss (arXiv 2006.04388).

    Example:
        >>> criterion = OrientedLoss(num_classes=2, strides=(8, 16))
        >>> predictions = Predictions(torch.zeros(1, 64, 20), torch.zeros(1, 2, 20), ((4, 4), (2, 2)),
        ...                           angles=torch.zeros(1, 1, 20))
        >>> targets = Targets(torch.tensor([0]), torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.5, 0.5]]),
        ...                   angles=torch.tensor([0.3]))
        >>> list(criterion(predictions, targets).terms)
        ['box', 'cls', 'dfl', 'angle']
    """

    def __init__(self, num_classes: int, *args: Any, angle_gain: float = 1.0, **options: Any) -> None:
        check_keywords(type(self).__name__, options, type(self))
        super().__init__(num_classes, *args, **options)
        self.angle_gain = finite_number("angle_gain", angle_gain)

    def _check(self, predictions: Predictions, targets: Targets) -> None:
        super()._check(predictions, targets)
        require(predictions.angles is not None, "predictions.angles", "a tensor", None)
        require(targets.angles is not None, "targets.angles", "a tensor", None)
        assert predictions.angles is not None
        batch, _, anchors = predictions.scores.shape
        check_shape("predictions.angles", predictions.angles, [batch, 1, anchors])
        check_floating("predictions.angles", predictions.angles)
        check_same_device(boxes=predictions.boxes, angles=predictions.angles)

    def _scene(self, predictions: Predictions, targets: Targets) -> Scene:
        assert targets.angles is not None
        image_size = image_size_of(predictions, self.strides)
        boxes = torch.cat([to_pixels(targets.boxes, image_size), targets.angles.float()[:, None]], 1)
        real = real_rows(predictions, targets) & (boxes[:, 2:4] >= _SHORTEST_SIDE).all(1)
        anchors = anchors_of(predictions, self.strides)
        pixels = (anchors.points * anchors.strides[:, None]).float()
        cells = find_cells(rotated_reach(boxes, self.strides), real, predictions.grid_sizes, self.strides)
        around = candidates_of(cells, predictions, targets)
        return Scene(anchors, boxes, image_size, keep_inside(around, boxes, pixels, self.strides))

    def _overlap(self, predictions: Predictions, sides: Sides, targets: Targets, scene: Scene) -> Overlap:
        assert predictions.angles is not None
        points, strides = scene.anchors
        angles = at_least_float32(predictions.angles).squeeze(1)
        pixels, distances = points * strides[:, None], sides.distances.transpose(1, 2) * strides[:, None]
        predicted = gaussians(decode_rotated(pixels, distances, angles).float())
        true = gaussians(scene.boxes)
        return lambda candidates, logits: gaussian_overlap(candidates.of_rows(true), candidates.take(predicted))

    def _terms(
        self, predictions: Predictions, sides: Sides, targets: Targets, scene: Scene, assignment: Assignment
    ) -> dict[str, Tensor]:
        assert predictions.angles is not None
        points, strides = scene.anchors.points[assignment.anchor], scene.anchors.strides[assignment.anchor]
        angles = gather_positives(predictions.angles, assignment).squeeze(-1)
        true = _scaled(gather_rows(scene.boxes, assignment), 1 / strides)
        distances, error = self._sides_of_positives(
            predictions, sides, assignment, rotated_distances(points, true), strides, scene.image_size
        )
        errors = {
            "box": 1 - probiou(decode_rotated(points, distances, angles), true, _FLOOR),
            **error,
            "angle": angle_error(angles, true[:, 4], true[:, 2], true[:, 3]),
        }
        return self._weighted(predictions, targets, assignment, errors)


def _scaled(boxes: Tensor, factor: Tensor) -> Tensor:
    """`[..., 5]` boxes in another unit: everything but the angle times `factor`, one for each of the last rows."""
    return torch.cat([boxes[..., :4] * factor[:, None], boxes[..., 4:]], -1)
