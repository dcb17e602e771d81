"""Steps that every loss begins with: check, place targets on the image, gather the positives' predictions.

Letters: B images, N rows, A anchors, C classes, P positive slots.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from compiled_loss.assign.candidates import Candidates, Cells, find_cells, list_candidates
from compiled_loss.checks import check_floating, check_same_device, check_shape, require
from compiled_loss.geometry.boxes import cxcywh_to_xyxy
from compiled_loss.grid import Anchors, make_anchors
from compiled_loss.numerics import at_least_float32, masked
from compiled_loss.padded import PaddedTargets
from compiled_loss.pages import PAGE, capacity, lay_out, pages_of
from compiled_loss.targets import Targets, check_structure
from compiled_loss.types import Assignment, Predictions


class Scene(NamedTuple):
    """Anchors and targets of one batch, on the image's own scale.

    Args:
        anchors: points and strides of all levels.
        boxes: `[N, 4]` target boxes, xyxy float32 pixels; of oriented boxes `[N, 5]` (cx, cy, w, h, angle).
        image_size: (height, width) in pixels.
        candidates: candidate anchors of every row.
    """

    anchors: Anchors
    boxes: Tensor
    image_size: tuple[int, int]
    candidates: Candidates


def to_rows(predictions: Predictions, targets: Targets | PaddedTargets) -> tuple[Targets, Tensor | int]:
    """Targets of either form as flat rows, and how many objects have none, as there was no slot for them.

    Raises:
        ValueError: for padded targets of another number of images than the predictions', or of sizes that do not fit.
    """
    if not isinstance(targets, PaddedTargets):
        return targets, 0
    require(isinstance(predictions, Predictions), "predictions", "Predictions", type(predictions).__name__)
    check_shape("predictions.scores", predictions.scores, ["B", "C", "A"])
    check_shape("targets.counts", targets.counts, [predictions.scores.shape[0]])
    return targets.flat(), targets.dropped().sum()


def check_inputs(
    predictions: Predictions, targets: Targets, num_classes: int, reg_max: int, strides: tuple[int, ...]
) -> None:
    """Check ranks, sizes, dtypes and devices of a loss's two arguments; no value is read.

    Raises:
        ValueError: naming the argument, what was expected and what came.
    """
    require(isinstance(predictions, Predictions), "predictions", "Predictions", type(predictions).__name__)
    require(isinstance(targets, Targets), "targets", "Targets or PaddedTargets", type(targets).__name__)
    check_shape("predictions.boxes", predictions.boxes, ["B", 4 * reg_max, "A"])
    batch, _, anchors = predictions.boxes.shape
    require(batch >= 1 and anchors >= 1, "predictions.boxes", "at least one image and one anchor", (batch, anchors))
    check_shape("predictions.scores", predictions.scores, [batch, num_classes, anchors])
    check_floating("predictions.boxes", predictions.boxes)
    check_floating("predictions.scores", predictions.scores)
    grid_sizes = predictions.grid_sizes
    pairs = isinstance(grid_sizes, Sequence) and all(isinstance(x, Sequence) and len(x) == 2 for x in grid_sizes)
    require(pairs, "predictions.grid_sizes", "(height, width) of each level", grid_sizes)
    require(len(grid_sizes) == len(strides), "predictions.grid_sizes", "as many levels as strides", grid_sizes)
    cells = sum(height * width for height, width in grid_sizes)
    require(cells == anchors, "predictions.grid_sizes", "as many cells as predictions.boxes has anchors", grid_sizes)
    for size, stride in zip(grid_sizes, strides, strict=True):
        # Every level covers the image, rounded up to its stride. Inequalities, which leave image sizes dynamic.
        covers = all(
            abs(n * stride - first * strides[0]) < stride for n, first in zip(size, grid_sizes[0], strict=True)
        )
        require(covers, "predictions.grid_sizes", "levels of one image, finest first, as strides", grid_sizes)
    check_structure(targets, "targets")
    check_same_device(
        boxes=predictions.boxes, scores=predictions.scores, keypoints=predictions.keypoints, targets=targets.batch_idx
    )


def detached(predictions: Predictions) -> Predictions:
    """The same values without a derivative."""
    maps = {name: x.detach() for name, x in predictions._asdict().items() if isinstance(x, Tensor)}
    return predictions._replace(**maps)


def make_scene(predictions: Predictions, targets: Targets, strides: tuple[int, ...]) -> Scene:
    """Anchors in the predictions' precision, target boxes in float32 pixels, the anchors inside each."""
    image_size = image_size_of(predictions, strides)
    boxes = cxcywh_to_xyxy(to_pixels(targets.boxes, image_size))
    real = real_rows(predictions, targets)
    cells = find_cells(boxes, real, predictions.grid_sizes, strides)
    return Scene(anchors_of(predictions, strides), boxes, image_size, candidates_of(cells, predictions, targets))


def candidates_of(cells: Cells, predictions: Predictions, targets: Targets) -> Candidates:
    """The anchors of the cells in every row's box, on the pages that the host planned."""
    counts, anchors = cells.counts[:-1], predictions.scores.shape[2]
    room = capacity(targets.pages, pages_of(counts))
    if room is None:
        room = counts.shape[0] * ((anchors + PAGE - 1) // PAGE) + 1  # at least one, without rows too
    layout = lay_out(counts, room)
    image = torch.where(real_rows(predictions, targets), targets.batch_idx, 0).long()
    return list_candidates(cells, layout, image, predictions.grid_sizes)


def anchors_of(predictions: Predictions, strides: tuple[int, ...]) -> Anchors:
    """Anchors in the predictions' precision, float32 at least, and on their device."""
    dtype = at_least_float32(predictions.boxes).dtype
    return make_anchors(predictions.grid_sizes, strides, dtype=dtype, device=predictions.boxes.device)


def image_size_of(predictions: Predictions, strides: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) in pixels: the finest level's grid times its stride."""
    height, width = predictions.grid_sizes[0]
    return height * strides[0], width * strides[0]


def real_rows(predictions: Predictions, targets: Targets) -> Tensor:
    """`[N]` bool: rows of an image of the batch; the others are padding."""
    return (targets.batch_idx >= 0) & (targets.batch_idx < predictions.scores.shape[0])


def keypoints_in_pixels(keypoints: Tensor, image_size: tuple[int, int]) -> Tensor:
    """`[N, K, 2]` float32 pixel positions of normalised keypoints; a third value is left aside."""
    return to_pixels(keypoints[..., :2], image_size)


def gather_positives(x: Tensor, assignment: Assignment) -> Tensor:
    """`[P, channels]` of a `[B, channels, A]` output at the positives; 0, in value and gradient, in empty slots."""
    return masked(at_least_float32(x[assignment.image, :, assignment.anchor]), assignment.valid)


def gather_rows(x: Tensor, assignment: Assignment) -> Tensor:
    """`[P, ...]` of a `[N, ...]` target field at the positives; 0 in empty slots."""
    return masked(x[assignment.row], assignment.valid)


def to_pixels(normalised: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Float32; even coordinates times the image's width, odd ones times its height."""
    height, width = image_size
    x, y = normalised.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([x * width, y * height], -1).flatten(-2)
