"""Ragged rows and padded slots: `fill` scatters rows into per-image slots, `unfill` gathers them back.

Letters: N rows, B images, M slots per image.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from compiled_loss.checks import check_integer, check_same_device, check_shape, kind_of, require


class Filled(NamedTuple):
    """What `fill` returns.

    Args:
        values: `[B, M, ...]` the rows of each image in input order, then `fill_value`.
        mask: `[B, M]` bool, True where a slot holds a row.
        dropped: `[B]` number of rows of each image beyond `M`, which were not written.

    Example:
        >>> fill(torch.tensor([5, 6, 7]), torch.tensor([0, 0, 1]), batch_size=2, capacity=1).dropped
        tensor([1, 0])
    """

    values: Tensor
    mask: Tensor
    dropped: Tensor


def positions(batch_idx: Tensor, batch_size: int, *, is_sorted: bool = False) -> tuple[Tensor, Tensor]:
    """Slot of every row within its image, and the number of rows of every image.

    Row n's slot is the number of earlier rows with the same `batch_idx`.

    Args:
        batch_idx: `[N]` integer, image of each row; rows outside `[0, batch_size)` are padding.
        batch_size: number of images B.
        is_sorted: promise that the real rows are in image order and padding comes last.

    Returns:
        `(slots [N], counts [B])`, both int64. The slots of padding rows are meaningless.

    Raises:
        ValueError: if `batch_idx` is not a vector of integers or `batch_size` is negative.

    Example:
        >>> positions(torch.tensor([1, 0, 1, -1]), 2)[0][:3]
        tensor([0, 0, 1])
    """
    check_shape("batch_idx", batch_idx, ["N"])
    check_integer("batch_idx", batch_idx)
    require(batch_size >= 0, "batch_size", "0 or more", batch_size)
    image = _image_or_last(batch_idx, batch_size)
    rows = torch.arange(batch_idx.shape[0], device=batch_idx.device)
    counts = image.new_zeros(batch_size + 1).scatter_add(0, image, torch.ones_like(image))
    starts = counts.cumsum(0) - counts
    if is_sorted:
        return rows - starts[image], counts[:batch_size]
    # Keys are unique, so a plain sort keeps the rows of one image in order (a stable sort does not export).
    order = (image * batch_idx.shape[0] + rows).sort().indices
    slots = torch.zeros_like(image).scatter(0, order, rows - starts[image[order]])
    return slots, counts[:batch_size]


def fill(
    values: Tensor,  # [N, ...]
    batch_idx: Tensor,  # [N]
    batch_size: int,
    capacity: int,
    fill_value: float | int | bool = 0,
    *,
    is_sorted: bool = False,
) -> Filled:
    """Turn ragged rows into padded slots: row n goes to `values[batch_idx[n], p_n]`.

    `p_n` counts the earlier rows of the same image, so images may be interleaved in any order. No size
    depends on a tensor's value and nothing is read from the device. Differentiable in `values`.

    Args:
        values: `[N, ...]` rows of any trailing shape and dtype.
        batch_idx: `[N]` integer, image of each row; rows outside `[0, batch_size)` are padding and are skipped.
        batch_size: number of images B.
        capacity: slots per image M. Rows beyond it are not written, but counted in `dropped`.
        fill_value: value of empty slots.
        is_sorted: promise that the real rows are in image order and padding comes last; saves a sort.
            `Targets.validate` checks it. If it does not hold, the slots are wrong.

    Returns:
        `Filled(values [B, M, ...], mask [B, M], dropped [B])`.

    Raises:
        ValueError: for a wrong rank, a `batch_idx` that is not integer, lengths or devices that differ,
            a negative size, or a `fill_value` that the dtype cannot represent.

    Example:
        >>> fill(torch.tensor([10, 20, 30]), torch.tensor([1, 0, 1]), batch_size=2, capacity=2).values
        tensor([[20,  0],
                [10, 30]])
    """
    require(isinstance(values, Tensor), "values", "shape [N, ...]", kind_of(values))
    require(values.dim() >= 1, "values", "shape [N, ...]", tuple(values.shape))
    require(capacity >= 0, "capacity", "0 or more", capacity)
    slots, counts = positions(batch_idx, batch_size, is_sorted=is_sorted)
    check_shape("values", values, [batch_idx.shape[0], *values.shape[1:]])
    check_same_device(batch_idx=batch_idx, values=values)
    _check_fill_value(fill_value, values.dtype)
    flat = values.new_full((batch_size * capacity + 1, *values.shape[1:]), fill_value)
    flat = flat.index_put((_destination(batch_idx, slots, batch_size, capacity),), values)
    filled = flat[: batch_size * capacity].reshape(batch_size, capacity, *values.shape[1:])
    mask = torch.arange(capacity, device=values.device) < counts[:, None]
    return Filled(filled, mask, (counts - capacity).clamp(min=0))


def unfill(
    filled: Tensor,  # [B, M, ...]
    batch_idx: Tensor,  # [N]
    capacity: int,
    fill_value: float | int | bool = 0,
    *,
    is_sorted: bool = False,
) -> Tensor:
    """Turn padded slots back into ragged rows: the inverse of `fill`.

    Args:
        filled: `[B, M, ...]` slots.
        batch_idx: `[N]` integer, image of each row, as given to `fill`.
        capacity: slots per image M, as given to `fill`.
        fill_value: value of padding rows and of rows beyond the capacity.
        is_sorted: the same promise as for `fill`.

    Returns:
        `[N, ...]` rows.

    Raises:
        ValueError: for a wrong rank, a `batch_idx` that is not integer, devices that differ, a capacity
            other than that of `filled`, or a `fill_value` that the dtype cannot represent.

    Example:
        >>> unfill(torch.tensor([[20, 0], [10, 30]]), torch.tensor([1, 0, 1]), capacity=2)
        tensor([10, 20, 30])
    """
    require(isinstance(filled, Tensor), "filled", "shape [B, M, ...]", kind_of(filled))
    require(filled.dim() >= 2, "filled", "shape [B, M, ...]", tuple(filled.shape))
    check_shape("filled", filled, ["B", capacity, *filled.shape[2:]])
    check_same_device(filled=filled, batch_idx=batch_idx)
    batch_size = filled.shape[0]
    slots, _ = positions(batch_idx, batch_size, is_sorted=is_sorted)
    _check_fill_value(fill_value, filled.dtype)
    last = filled.new_full((1, *filled.shape[2:]), fill_value)
    return torch.cat([filled.flatten(0, 1), last])[_destination(batch_idx, slots, batch_size, capacity)]


def _check_fill_value(fill_value: float | int | bool, dtype: torch.dtype) -> None:
    """Check that a fill value for an integer dtype is whole and in range."""
    if dtype.is_floating_point or dtype.is_complex:
        return
    low, high = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    fits = low <= fill_value <= high and fill_value == int(fill_value)
    require(fits, "fill_value", f"a whole number from {low} to {high}, as the values are {dtype}", fill_value)


def _image_or_last(batch_idx: Tensor, batch_size: int) -> Tensor:
    """Map padding rows to image `batch_size`, one past the last."""
    real = (batch_idx >= 0) & (batch_idx < batch_size)
    return torch.where(real, batch_idx, batch_size).long()


def _destination(batch_idx: Tensor, slots: Tensor, batch_size: int, capacity: int) -> Tensor:
    """Position of each row among the flattened slots; padding and dropped rows share the one past the last."""
    image = _image_or_last(batch_idx, batch_size)
    written = (image < batch_size) & (slots < capacity)
    return torch.where(written, image * capacity + slots, batch_size * capacity)
