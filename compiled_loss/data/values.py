"""Checks of the values of target rows in eager calls, wherever the host can read them without a wait.

Letters: B images, N rows, C classes.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from compiled_loss.checks import require
from compiled_loss.data.targets import Targets, out_of_order

# Ranges of whole columns, within what `Targets.validate` allows: with these, boxes reach at most 4 image sizes beyond
# the image. Anything outside is checked row by row there.
_CENTRES, _SIZES, _PLACES, _FLAGS, _ANGLES = (-1.0, 2.0), (0.0, 6.0), (-4.0, 5.0), (0.0, 255.0), (-6.28, 6.28)


def check_row_values(targets: Targets, batch_size: int, num_classes: int) -> None:
    """Reject what `Targets.validate` rejects; reads nothing in traced code, on a device or from tensors without values.

    For a batch of valid rows, it is usually enough to check the smallest and largest entry of every column. If these
    are not conclusive, as for padding with unusual labels, rows are checked one by one.

    Args:
        targets: rows whose shapes and dtypes have been checked.
        batch_size: B.
        num_classes: C.

    Raises:
        ValueError: naming the field, what was expected and given, the first bad row and the number of bad rows.

    Example:
        >>> rows = Targets(torch.tensor([0, 1]), torch.tensor([0, 7]), torch.full((2, 4), 0.5))
        >>> check_row_values(rows, 2, 5)
        Traceback (most recent call last):
        ValueError: Targets.labels: expected a class id in [0, 5), got 7 in row 1 (image 1); bad rows: 1 of 2
    """

    def look() -> bool:
        if not _columns_are_sound(targets, batch_size, num_classes):
            targets.validate(batch_size, num_classes)
        return True

    on_host(look, targets.batch_idx)


def check_whole(argument: str, x: Tensor) -> None:
    """Reject floating-point numbers that are not whole but are to become integers; reads nothing where above does not.

    Args:
        argument: name of the argument.
        x: any shape and dtype.

    Raises:
        ValueError: naming the first such number.

    Example:
        >>> check_whole("batch['cls']", torch.tensor([1.0, 1.5]))
        Traceback (most recent call last):
        ValueError: batch['cls']: expected whole numbers, got 1.5
    """
    if x.is_floating_point() and not on_host(lambda: bool((x - x.trunc() == 0).all()), x):
        require(False, argument, "whole numbers", x[x - x.trunc() != 0][0].item())


def on_host(look: Callable[[], bool], x: Tensor) -> bool:
    """The result of `look`, which reads tensors like `x`; True if the host must not read them."""
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return True
    try:
        return look()
    except RuntimeError:  # raised for tensors without values, fake ones or those under `torch.func.vmap`
        return True


def _columns_are_sound(targets: Targets, batch_size: int, num_classes: int) -> bool:
    boxes, keypoints, angles, masks = targets.boxes, targets.keypoints, targets.angles, targets.masks
    sound = (
        (targets.rows is None or int(targets.rows) == targets.batch_idx.shape[0])
        and _within(targets.batch_idx, -1, batch_size - 1)
        and _within(targets.labels, 0, num_classes - 1)
        and _within(boxes[:, :2], *_CENTRES)
        and _within(boxes[:, 2:], *_SIZES)
    )
    if sound and targets.is_sorted:
        sound = not out_of_order(targets.batch_idx.long()).any()
    if sound and targets.weights is not None:
        sound = _within(targets.weights, 0, torch.finfo(targets.weights.dtype).max)
    if sound and targets.attributes is not None:
        largest = torch.finfo(targets.attributes.dtype).max
        sound = _within(targets.attributes, -largest, largest)
    if sound and keypoints is not None:
        sound = _within(keypoints[..., :2], *_PLACES) and _within(keypoints[..., 2:], *_FLAGS)
    if sound and angles is not None:
        sound = _within(angles, *_ANGLES)
    if sound and masks is not None and masks.dtype != torch.bool:
        sound = _within(masks, 0, 1)
    if sound and targets.index_map is not None and targets.index_map.dtype.is_signed:
        sound = _within(targets.index_map, 0, math.inf)
    return sound


def _within(x: Tensor, low: float, high: float) -> bool:
    """Whether all entries lie between two numbers; False with NaN."""
    if x.numel() == 0:
        return True
    least, largest = x.aminmax()
    return low <= least.item() and largest.item() <= high
