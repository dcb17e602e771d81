"""Checks of a loss's two arguments.

Letters: B images, A anchors.
"""

from collections.abc import Sequence

from torch import nn

from compiled_loss.checks import check_floating, check_same_device, check_shape, require
from compiled_loss.data.targets import Targets, check_structure
from compiled_loss.losses.parts import Map
from compiled_loss.types import Predictions


def check_inputs(predictions: Predictions, targets: Targets, maps: Sequence[Map], strides: tuple[int, ...]) -> None:
    """Check ranks, sizes, dtypes and devices of predictions and targets; no value is read.

    Args:
        predictions: the head's raw output.
        targets: the batch's rows.
        maps: the fields that the loss reads, boxes and scores first.
        strides: pixels per grid unit of each level.

    Raises:
        ValueError: naming the argument, what was expected and what came.
    """
    check_predictions(predictions, maps, strides)
    require(isinstance(targets, Targets), "targets", "Targets or PaddedTargets", type(targets).__name__)
    check_structure(targets, "targets")
    check_same_device(**{"predictions.scores": predictions.scores, "targets": targets.batch_idx})


def check_predictions(predictions: Predictions, maps: Sequence[Map], strides: tuple[int, ...]) -> None:
    """Check ranks, sizes, dtypes and devices of predictions; no value is read.

    Args:
        predictions: the head's raw output.
        maps: the fields that are read, boxes and scores first.
        strides: pixels per grid unit of each level.

    Raises:
        ValueError: naming the argument, what was expected and what came.
    """
    require(isinstance(predictions, Predictions), "predictions", "Predictions", type(predictions).__name__)
    boxes, scores, *others = maps
    check_shape("predictions.boxes", predictions.boxes, ["B", boxes.channels, "A"])
    batch, _, anchors = predictions.boxes.shape
    require(batch >= 1 and anchors >= 1, "predictions.boxes", "at least one image and one anchor", (batch, anchors))
    check_shape("predictions.scores", predictions.scores, [batch, scores.channels, anchors])
    check_floating("predictions.boxes", predictions.boxes)
    check_floating("predictions.scores", predictions.scores)
    _check_grids(predictions.grid_sizes, anchors, strides)
    for x in others:
        x.check(predictions)
    check_same_device(**{x.name: getattr(predictions, x.name) for x in maps})


def check_buffers(predictions: Predictions, loss: nn.Module) -> None:
    """Check that a loss's own numbers are where the predictions are.

    Raises:
        ValueError: naming the buffer.
    """
    for name, x in loss.named_buffers():
        check_same_device(**{"predictions": predictions.scores, name.rpartition(".")[2]: x})


def _check_grids(grid_sizes: object, anchors: int, strides: tuple[int, ...]) -> None:
    argument = "predictions.grid_sizes"
    pairs = isinstance(grid_sizes, Sequence) and all(isinstance(x, Sequence) and len(x) == 2 for x in grid_sizes)
    require(pairs, argument, "(height, width) of each level", grid_sizes)
    assert isinstance(grid_sizes, Sequence)
    require(len(grid_sizes) == len(strides), argument, "as many levels as strides", grid_sizes)
    cells = sum(height * width for height, width in grid_sizes)
    require(cells == anchors, argument, "as many cells as predictions.boxes has anchors", grid_sizes)
    for size, stride in zip(grid_sizes, strides, strict=True):
        # Every level covers the image, rounded up to its stride. Inequalities, which leave image sizes dynamic.
        covers = all(
            abs(n * stride - first * strides[0]) < stride for n, first in zip(size, grid_sizes[0], strict=True)
        )
        require(covers, argument, "levels of one image, finest first, as strides", grid_sizes)
