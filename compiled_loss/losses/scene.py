"""A batch as the parts of a loss see it, and how they read it.

Letters: B images, N rows, A anchors, P positive slots.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from compiled_loss.assign.candidates import Candidates
from compiled_loss.assign.parts import Overlap
from compiled_loss.checks import check_shape, given, require
from compiled_loss.data.padded import PaddedTargets
from compiled_loss.data.targets import Targets
from compiled_loss.grid import Anchors, Sides, make_anchors
from compiled_loss.losses.fields import Map
from compiled_loss.numerics import at_least_float32, masked
from compiled_loss.types import Assignment, Predictions


class Scene(NamedTuple):
    """Anchors and targets of one batch in pixels, shared by the branches of a head.

    Args:
        targets: the batch's rows.
        anchors: points and strides of all levels.
        pixels: `[A, 2]` the points, float32 pixels.
        boxes: `[N, 4]` target boxes, xyxy float32 pixels; oriented boxes are `[N, 5]` (cx, cy, w, h, angle).
        image_size: (height, width) in pixels.
        candidates: candidate anchors of every row.
        dropped: number of objects without a row, because there was no slot for them.
        ignored: `[B, A]` bool, anchors inside an ignore row; None without such rows.
        cut: number of ignore rows that lack candidates because there were too few pages.
    """

    targets: Targets
    anchors: Anchors
    pixels: Tensor
    boxes: Tensor
    image_size: tuple[int, int]
    candidates: Candidates
    dropped: Tensor | int
    ignored: Tensor | None = None
    cut: Tensor | int = 0


def to_rows(predictions: Predictions, targets: Targets | PaddedTargets) -> tuple[Targets, Tensor | int]:
    """Targets of either form as flat rows, and how many objects have no row because there was no slot for them.

    Raises:
        ValueError: if padded targets have another number of images than the predictions, or sizes that do not fit.
    """
    if not isinstance(targets, PaddedTargets):
        return targets, 0
    require(isinstance(predictions, Predictions), "predictions", "Predictions", type(predictions).__name__)
    check_shape("predictions.scores", predictions.scores, ["B", "C", "A"])
    check_shape("targets.counts", targets.counts, [predictions.scores.shape[0]])
    return targets.flat(), targets.dropped().sum()


class View(NamedTuple):
    """A branch's predictions in a scene.

    Args:
        predictions: the head's raw output.
        sides: `[B, 4, A]` decoded distances, grid units; without gradients.
        boxes: `[B, A, 4 or 5]` boxes decoded from these and the angles, float32 pixels; without gradients.
        scene: anchors and targets.
    """

    predictions: Predictions
    sides: Sides
    boxes: Tensor
    scene: Scene


class Positives(NamedTuple):
    """The positives of a branch, one slot each; most slots are empty.

    Args:
        view: the predictions in their scene.
        assignment: which anchor belongs to which row.
        slots: number of slots of each row, so that `P = N * slots`.
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
        """Read a `[B, channels, A]` map at the positives, `[P, channels]`; value and gradient are 0 in empty slots."""
        found = x[self.assignment.image, :, self.assignment.anchor]
        return masked(at_least_float32(found), self.assignment.valid)

    def of_rows(self, x: Tensor) -> Tensor:
        """Read a `[N, ...]` target field for the positives, `[P, ...]`; 0 in empty slots."""
        return masked(x[self.assignment.row], self.assignment.valid)


def detached(predictions: Predictions) -> Predictions:
    """The same values, detached."""
    maps = {name: x.detach() for name, x in predictions._asdict().items() if isinstance(x, Tensor)}
    return predictions._replace(**maps)


def widened(predictions: Predictions, maps: Sequence[Map]) -> Predictions:
    """Convert maps that several parts read to float32 or wider, so that gradients are summed before rounding."""
    wide = {x.name: at_least_float32(given(f"predictions.{x.name}", getattr(predictions, x.name))) for x in maps}
    return predictions._replace(**wide)


def anchors_of(predictions: Predictions, strides: tuple[int, ...]) -> Anchors:
    """Anchors in the predictions' precision, at least float32, on their device."""
    dtype = at_least_float32(predictions.boxes).dtype
    return make_anchors(predictions.grid_sizes, strides, dtype=dtype, device=predictions.boxes.device)


def image_size_of(predictions: Predictions, strides: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) in pixels: the finest level's grid times its stride."""
    height, width = predictions.grid_sizes[0]
    return height * strides[0], width * strides[0]


def real_rows(predictions: Predictions, targets: Targets) -> Tensor:
    """`[N]` bool: valid rows of an image of the batch; the others are padding.

    Even if values are not checked, a row with NaN, an infinite number or a negative size matches nothing.
    """
    boxes, keypoints, masks, weights = targets.boxes, targets.keypoints, targets.masks, targets.weights
    real = (targets.batch_idx >= 0) & (targets.batch_idx < predictions.scores.shape[0])
    real = real & boxes.isfinite().all(1) & (boxes[:, 2:] >= 0).all(1)
    if keypoints is not None:
        known = keypoints.isfinite().all(2)
        if keypoints.shape[2] == 3:
            known = known | (keypoints[..., 2] == 0)  # unlabelled keypoints may hold any value
        real = real & known.all(1)
    if targets.angles is not None:
        real = real & targets.angles.isfinite()
    if masks is not None and masks.is_floating_point():
        real = real & sums_are_finite(masks.flatten(1), 1)
    if targets.attributes is not None:
        real = real & targets.attributes.isfinite().all(1)
    if weights is not None:
        real = real & weights.isfinite() & (weights >= 0)
    return real


def sums_are_finite(x: Tensor, dim: int) -> Tensor:
    """Whether all entries along a dimension are finite, in one pass: the sum is NaN or infinite if an entry is.

    Entries so large that their sum overflows also count as not finite.
    """
    return x.sum(dim, dtype=at_least_float32(x).dtype).isfinite()


def where_sound(overlap: Overlap, maps: Sequence[Tensor]) -> Overlap:
    """An overlap that is 0 at anchors with a non-finite value in any of the `[B, channels, A]` maps."""
    if not maps:
        return overlap
    sound = sound_anchors(maps)
    return lambda candidates, logits: torch.where(candidates.take(sound), overlap(candidates, logits), 0.0)


def sound_anchors(maps: Sequence[Tensor]) -> Tensor:
    """`[B, A]` bool: anchors whose values in all of the `[B, channels, A]` maps are finite."""
    return torch.stack([sums_are_finite(x, 1) for x in maps]).all(0)


def to_pixels(normalised: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Convert to float32 pixels: even coordinates times the image's width, odd ones times its height."""
    height, width = image_size
    x, y = normalised.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([x * width, y * height], -1).flatten(-2)


def keypoints_in_pixels(keypoints: Tensor, image_size: tuple[int, int]) -> Tensor:
    """`[N, K, 2]` float32 pixel positions of normalised keypoints; a third value is ignored."""
    return to_pixels(keypoints[..., :2], image_size)
