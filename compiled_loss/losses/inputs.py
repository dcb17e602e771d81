"""Checks of a loss's two arguments, and of its parts.

Letters: B images, A anchors.
"""

from collections.abc import Mapping, Sequence

from torch import nn

from compiled_loss.checks import check_floating, check_same_device, check_shape, finite_number, kind_of, require
from compiled_loss.data.rows import check_kind
from compiled_loss.data.targets import Targets, check_structure
from compiled_loss.losses.fields import Map
from compiled_loss.losses.parts import Extra, Term
from compiled_loss.types import Predictions

# Gains whose arguments have other names than their terms.
_ARGUMENTS = {"seg": "mask", "sem": "semantic"}


def check_extra(argument: str, value: Extra) -> None:
    """Check that an argument is an extra, and not a class of extras.

    Raises:
        ValueError: for anything else.
    """
    members = ("maps", "fields", "gains", "check", "overflow", "decoded")
    is_one = callable(value) and not isinstance(value, type) and all(hasattr(value, x) for x in members)
    require(is_one, argument, "an object whose class derives from parts.Extra", kind_of(value))


def check_terms(argument: str, value: dict[str, Term]) -> dict[str, Term]:
    """Check that an extra returned terms by name, and return them.

    Raises:
        ValueError: for anything else.
    """
    require(isinstance(value, dict), argument, "a dict of terms by name, see parts.Extra", kind_of(value))
    return value


def checked_gains(gains: Mapping[str, float], extras: Sequence[Extra], bins: int) -> dict[str, float]:
    """The factor of each term by name: those from a loss's arguments, then those from its extras.

    Raises:
        ValueError: if a factor is not a finite number of 0 or more, or two terms have the same name.
    """
    side = "l1" if bins == 1 else "dfl"
    own = {name: finite_number(f"{_ARGUMENTS.get(name, name)}_gain", gain) for name, gain in gains.items()}
    found = {side if name == "dfl" else name: gain for name, gain in own.items()}
    for i, extra in enumerate(extras):
        for name, gain in extra.gains.items():
            require(name not in found, f"extras[{i}].gains", f"a name not among {[*found]}", name)
            found[name] = finite_number(f"extras[{i}].gains['{name}']", gain)
    return found


def check_inputs(predictions: Predictions, targets: Targets, maps: Sequence[Map], strides: tuple[int, ...]) -> None:
    """Check ranks, sizes, dtypes and devices of predictions and targets, without reading values.

    Args:
        predictions: the head's raw output.
        targets: the batch's rows.
        maps: the fields that the loss reads, boxes and scores first.
        strides: pixels per grid unit of each level.

    Raises:
        ValueError: naming the argument, what was expected and what was given.
    """
    check_predictions(predictions, maps, strides)
    check_kind(targets, "targets", "Targets or PaddedTargets")
    check_structure(targets, "targets")
    check_same_device(**{"predictions.scores": predictions.scores, "targets": targets.batch_idx})


def check_predictions(predictions: Predictions, maps: Sequence[Map], strides: tuple[int, ...]) -> None:
    """Check ranks, sizes, dtypes and devices of predictions, without reading values.

    Args:
        predictions: the head's raw output.
        maps: the fields that are read, boxes and scores first.
        strides: pixels per grid unit of each level.

    Raises:
        ValueError: naming the argument, what was expected and what was given.
    """
    require(isinstance(predictions, Predictions), "predictions", "Predictions", type(predictions).__name__)
    boxes, scores, *others = maps
    check_shape("predictions.boxes", predictions.boxes, ["B", boxes.channels, "A"], boxes.why)
    batch, _, anchors = predictions.boxes.shape
    require(batch >= 1 and anchors >= 1, "predictions.boxes", "at least one image and one anchor", (batch, anchors))
    check_shape("predictions.scores", predictions.scores, [batch, scores.channels, anchors], scores.why)
    check_floating("predictions.boxes", predictions.boxes)
    check_floating("predictions.scores", predictions.scores)
    _check_grids(predictions.grid_sizes, anchors, strides)
    for x in others:
        x.check(predictions)
    check_same_device(**{x.name: getattr(predictions, x.name) for x in maps})


def check_buffers(predictions: Predictions, loss: nn.Module) -> None:
    """Check that a loss's buffers are on the device of the predictions.

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
    whole = not any(isinstance(n, float | str) for size in grid_sizes for n in size)
    require(whole, argument, "whole numbers of cells", grid_sizes)
    if len(grid_sizes) != len(strides):
        expected = f"{len(strides)} levels, one for each of strides={strides}"
        require(False, argument, expected, f"{len(grid_sizes)}: {grid_sizes}")
    cells = sum([height * width for height, width in grid_sizes])
    if cells != anchors:  # only then format sizes, which a graph may leave open
        expected = f"as many cells as predictions.boxes has anchors, {anchors}"
        require(False, argument, expected, f"{cells}: {grid_sizes}")
    for size, stride in zip(grid_sizes, strides, strict=True):
        # Every level covers the image, rounded up to its stride. Inequalities keep image sizes dynamic.
        covers = all(
            abs(n * stride - first * strides[0]) < stride for n, first in zip(size, grid_sizes[0], strict=True)
        )
        require(covers, argument, f"levels of one image, finest first, as strides={strides}", grid_sizes)
