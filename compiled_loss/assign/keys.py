"""The largest of each group of numbers, and of equal ones the first by an index.

Letters: N groups.
"""

import torch
from torch import Tensor

from compiled_loss.numerics import for_any_runtime

# Indices of exported graphs: what a runtime that computes integers in float32 tells apart.
MOST_EXPORTED = 2**24
# What is left of 64 bits for the index beside a number's 32, less the sign's.
_LAST = 2**31 - 1
# Of costs, so that no merit is zero, and none so small that a device may take it for zero.
_LEAST, _MOST = 2.0**-60, 2.0**66
# The bits of the largest finite number.
_FINITE = 0x7F7FFFFF


def to_keys(x: Tensor, index: Tensor) -> Tensor:
    """Keys of non-negative float32 numbers: larger for a larger number, and among equals for a lower index.

    A number's bits, read as an integer, have the order of the numbers, and leave half of an int64 to the index. The
    maximum of integers is several times faster than that of floating-point numbers, which looks for NaN. Not for
    exported graphs: ONNX cannot read bits.

    Args:
        x: finite float32, 0 or more.
        index: integer, 0 or more and below 2^31.

    Returns:
        int64 keys of the shape that both broadcast to, more than 0 where x is.

    Example:
        >>> keys = to_keys(torch.tensor([1.0, 3.0, 3.0]), torch.arange(3))
        >>> from_keys(keys.max())
        (tensor(3.), tensor(1))
    """
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


def largest_of_groups(x: Tensor, group: Tensor, groups: int) -> Tensor:
    """The largest number of each group.

    Args:
        x: `[P]` finite float32, 0 or more.
        group: `[P]` group of each, below N.
        groups: N.

    Returns:
        `[N]`; 0 for a group without a number above 0.

    Example:
        >>> largest_of_groups(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([0, 2, 2]), 3)
        tensor([1., 0., 3.])
    """
    if for_any_runtime():
        return x.new_zeros(groups).scatter_reduce(0, group, x, "amax")
    return from_keys(largest_keys(to_keys(x, torch.zeros_like(group)), group, groups))[0]


def largest_with_index(x: Tensor, index: Tensor, below: int, group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """The largest number of each group, and the lowest index that it has there.

    Exported graphs find the number first and then its index: what two numbers would be packed into, float64 or int64,
    is fewer bits in some runtimes.

    Args:
        x: `[P]` finite float32, 0 or more.
        index: `[P]` int64, 0 or more.
        below: what all indices are below, at most 2^31. No larger than it must be: there are runtimes that compute
            integers in float32.
        group: `[P]` group of each, below N.
        groups: N.

    Returns:
        `(x, index)`, both `[N]`; 0 and 0 for a group without a number above 0.

    Example:
        >>> largest_with_index(torch.tensor([1.0, 3.0, 3.0]), torch.arange(3), 3, torch.tensor([0, 2, 2]), 3)
        (tensor([1., 0., 3.]), tensor([0, 0, 1]))
    """
    if not for_any_runtime():
        return from_keys(largest_keys(to_keys(x, index), group, groups))
    found = largest_of_groups(x, group, groups)
    leads = (x > 0) & (x == found[group])
    first = index.new_full((groups,), below).scatter_reduce(0, group, torch.where(leads, index, below), "amin")
    return found, torch.where(found > 0, first, 0)


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
    if not for_any_runtime():
        return (_FINITE - cost.view(torch.int32)).view(torch.float32)
    # By halving: is 2^64 times more still not above, then 2^32 times, ...
    power = torch.full_like(cost, _LEAST)
    for step in (64, 32, 16, 8, 4, 2, 1):
        power = torch.where(cost >= power * 2.0**step, power * 2.0**step, power)
    return (3 - cost / power) / (2 * power)
