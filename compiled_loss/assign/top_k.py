"""The k largest entries of each row, of equal ones the first, in every mode.

Letters: N rows, W entries of each, k of them wanted.
"""

import torch
from torch import Tensor

from compiled_loss.numerics import has_float64


def first_top_k(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest entries of each row of non-negative float32 numbers; of equal ones the first.

    `torch.topk` promises no order among equals, so it is given none: float64 keys `x (1 - slot 2^-50)` keep the order
    of different float32 numbers, which lie 2^-24 apart, and put equal ones in the order of their slots. Exact for
    W up to 2^20. Zeros stay equal; their order means nothing.

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
    slot = torch.arange(x.shape[1], dtype=torch.float64, device=x.device)
    indices = (x.double() * (1 - slot * 2.0**-50)).topk(k).indices
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
