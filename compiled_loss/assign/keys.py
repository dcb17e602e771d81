"""Keys that order numbers, and equal numbers by an index, so that a plain maximum finds the first of the largest.

Letters: N groups.
"""

import torch
from torch import Tensor

# Indices that keys of exported graphs have room for.
MOST_EXPORTED = 2**25
# What is left of 64 bits for the index beside a number's 32, less the sign's.
_LAST = 2**31 - 1
# Of costs, so that no merit is zero, and none so small that a device may take it for zero.
_LEAST, _MOST = 2.0**-60, 2.0**66
# The bits of the largest finite number.
_FINITE = 0x7F7FFFFF


def to_keys(x: Tensor, index: Tensor) -> Tensor:
    """Keys of non-negative float32 numbers: larger for a larger number, and among equals for a lower index.

    A number's bits, read as an integer, have the order of the numbers, and leave half of an int64 to the index. The
    maximum of integers is several times faster than that of floating-point numbers, which looks for NaN. ONNX cannot
    read bits: exported graphs hold `x (1 - index 2^-50)` in float64, which keeps the order of different numbers, 2^-24
    apart.

    Args:
        x: finite float32, 0 or more.
        index: integer, 0 or more and below 2^31; below 2^25 in exported graphs.

    Returns:
        keys of the shape that both broadcast to, more than 0 where x is.

    Example:
        >>> keys = to_keys(torch.tensor([1.0, 3.0, 3.0]), torch.arange(3))
        >>> from_keys(keys.max())
        (tensor(3.), tensor(1))
    """
    if torch.compiler.is_exporting():
        return x.double() * (1 - index.double() * 2.0**-50)
    return torch.where(x > 0, (x.view(torch.int32).long() << 32) | (_LAST - index), 0)


def from_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers and indices of keys.

    Args:
        keys: as from `to_keys`, or 0.

    Returns:
        `(x, index)`, float32 and int64; index 0 where x is 0.

    Example:
        >>> from_keys(torch.tensor([0]))
        (tensor([0.]), tensor([0]))
    """
    if torch.compiler.is_exporting():
        x = keys.float()
        share = keys / torch.where(x > 0, x, 1.0).double()
        return x, torch.where(x > 0, ((1 - share) * 2.0**50).round(), 0.0).long()
    index = torch.where(keys > 0, _LAST - (keys & _LAST), 0)
    return (keys >> 32).int().view(torch.float32), index


def largest_keys(keys: Tensor, group: Tensor, groups: int) -> Tensor:
    """The largest key of each group.

    Args:
        keys: `[P]` as from `to_keys`.
        group: `[P]` group of each, below N.
        groups: N.

    Returns:
        `[N]`; 0 for a group without a number above 0.

    Example:
        >>> keys = to_keys(torch.tensor([1.0, 3.0, 3.0]), torch.arange(3))
        >>> from_keys(largest_keys(keys, torch.tensor([0, 2, 2]), 3))
        (tensor([1., 0., 3.]), tensor([0, 0, 1]))
    """
    return keys.new_zeros(groups).scatter_reduce(0, group, keys, "amax")


def descending(cost: Tensor) -> Tensor:
    """Numbers above 0 that are the larger, the smaller a cost is: exactly, so that different costs stay different.

    Read as integers, the bits of numbers have their order, so a difference of bits turns it round. Where ONNX cannot
    read bits it is `(3 - c / p) / (2 p)`, p the largest power of two that is not above c: every step is exact.

    Args:
        cost: float32, 0 or more; below 2^-60 and above 2^66 all are alike.

    Returns:
        float32 of the same shape.

    Example:
        >>> (descending(torch.tensor([0.5, 2.0, 2.5])).diff() < 0).all()
        tensor(True)
    """
    cost = cost.clamp(_LEAST, _MOST)
    if not torch.compiler.is_exporting():
        return (_FINITE - cost.view(torch.int32)).view(torch.float32)
    # By halving: is 2^64 times more still not above, then 2^32 times, ...
    power = torch.full_like(cost, _LEAST)
    for step in (64, 32, 16, 8, 4, 2, 1):
        power = torch.where(cost >= power * 2.0**step, power * 2.0**step, power)
    return (3 - cost / power) / (2 * power)
