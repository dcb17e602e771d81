"""The largest entries, of equal ones the first, in every mode.

Float64 keys `x (1 - i 2^-50)` of float32 numbers `x >= 0` keep the order of different numbers, which lie 2^-24 apart,
and put equal ones in the order of their `i`. Exact for `i` up to 2^20.

Letters: N rows, W entries of each, k of them wanted, P queries.
"""

import torch
from torch import Tensor

from compiled_loss.numerics import has_float64


def first_top_k(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest entries of each row of non-negative float32 numbers; of equal ones the first.

    `torch.topk` promises no order among equals, so its keys have none. Zeros stay equal; their order means nothing.

    Args:
        x: `[N, W]` float32, 0 or more.
        k: entries per row, at most W.

    Returns:
        `(values [N, k], indices [N, k])`, largest first.

    Example:
        >>> first_top_k(torch.tensor([[1.0, 3.0, 3.0]]), 2)
        (tensor([[3., 3.]]), tensor([[1, 2]]))
    """
    if not has_float64(x.device):
        return by_passes(x, k)
    indices = _keys(x, 1).topk(k).indices
    return x.gather(1, indices), indices


def by_passes(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The same in k passes of `max`, which finds the first of equals: slower, but without float64.

    Example:
        >>> by_passes(torch.tensor([[1.0, 3.0, 3.0]]), 2)
        (tensor([[3., 3.]]), tensor([[1, 2]]))
    """
    slot = torch.arange(x.shape[1], device=x.device)
    values, indices = [], []
    for _ in range(k):
        value, index = x.max(dim=1)
        values.append(value)
        indices.append(index)
        x = torch.where(slot == index[:, None], -1.0, x)
    return torch.stack(values, 1), torch.stack(indices, 1)


def first_maximum(x: Tensor, place: Tensor, size: int, at: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of the numbers at a place, and the first row that has it there.

    Args:
        x: `[N, W]`, 0 or more and finite.
        place: `[N, W]` place of each number, below the size.
        size: number of places.
        at: `[P]` places asked for.

    Returns:
        `(values [P], rows [P])`; the value 0 where there is no larger one, whose row means nothing.

    Example:
        >>> x, place = torch.tensor([[1.0, 3.0], [2.0, 3.0]]), torch.tensor([[0, 1], [0, 1]])
        >>> first_maximum(x, place, 2, torch.tensor([0, 1]))
        (tensor([2., 3.]), tensor([1, 0]))
    """
    if x.dtype != torch.float32 or not has_float64(x.device):
        return first_maximum_by_passes(x, place, size, at)
    keys = _keys(x, 0)
    key = keys.new_zeros(size).scatter_reduce(0, place.flatten(), keys.flatten(), "amax")[at]
    value = key.to(x.dtype)
    share = key / torch.where(value > 0, value, 1.0).double()
    return value, torch.where(value > 0, ((1 - share) * 2.0**50).round(), 0.0).long()


def first_maximum_by_passes(x: Tensor, place: Tensor, size: int, at: Tensor) -> tuple[Tensor, Tensor]:
    """The same with a pass for the value and one for the row."""
    rows = x.shape[0]
    largest = x.new_zeros(size).scatter_reduce(0, place.flatten(), x.flatten(), "amax")
    row = torch.arange(rows, device=x.device)[:, None]
    holder = torch.where((x == largest[place]) & (x > 0), row, rows).flatten()
    first = holder.new_full((size,), rows).scatter_reduce(0, place.flatten(), holder, "amin")[at]
    return largest[at], torch.where(first < rows, first, 0)


def _keys(x: Tensor, dim: int) -> Tensor:
    """`[N, W]` float64; different for equal numbers along a dimension."""
    index = torch.arange(x.shape[dim], dtype=torch.float64, device=x.device)
    return x.double() * (1 - (index if dim else index[:, None]) * 2.0**-50)
