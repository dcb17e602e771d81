"""The largest of each group of numbers, with ties broken by the lowest index.

Letters: N groups.
"""

import torch
from torch import Tensor

from compiled_loss.numerics import for_any_runtime

# Limit of indices in exported graphs: those that a runtime computing integers in float32 can distinguish.
MOST_EXPORTED = 2**24
# What is left of 64 bits for the index after a number's 32 bits and the sign.
_LAST = 2**31 - 1
# Limits of costs, so that no merit is zero, or so small that a device may treat it as zero.
_LEAST, _MOST = 2.0**-60, 2.0**66
# The bits of the largest finite number.
_FINITE = 0x7F7FFFFF


def to_keys(x: Tensor, index: Tensor) -> Tensor:
    """Keys of non-negative float32 numbers: larger for a larger number, and among ties for a lower index.

    The bits of numbers, read as integers, have the same order as the numbers, and leave half of an int64 for the index.
    The maximum of integers is several times faster than that of floating-point numbers, which checks for NaN. Not for
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

    Exported graphs find the number first and then its index: the type to pack both into, float64 or int64, has fewer
    bits in some runtimes.

    Args:
        x: `[P]` finite float32, 0 or more.
        index: `[P]` int64, 0 or more.
        below: upper bound of all indices, at most 2^31. Keep it as small as possible: some runtimes compute integers
            in float32.
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
    """Convert costs to numbers above 0 in reverse order, exactly, so that different costs stay different.

    The bits of numbers, read as integers, have the order of the numbers, so subtracting them reverses it. ONNX cannot
    read bits, so exported graphs use `(3 - c / p) / (2 p)`, p the largest power of two not above c: every step is
    exact.

    Args:
        cost: float32, 0 or more; all costs below 2^-60 count as equal, and all above 2^66.

    Returns:
        float32 of the same shape.

    Example:
        >>> (descending(torch.tensor([0.5, 2.0, 2.5])).diff() < 0).all()
        tensor(True)
    """
    cost = cost.clamp(_LEAST, _MOST)
    if not for_any_runtime():
        return (_FINITE - cost.view(torch.int32)).view(torch.float32)
    # By halving steps: multiply by 2^64 if the result is still not above the cost, then by 2^32, ...
    power = torch.full_like(cost, _LEAST)
    for step in (64, 32, 16, 8, 4, 2, 1):
        power = torch.where(cost >= power * 2.0**step, power * 2.0**step, power)
    return (3 - cost / power) / (2 * power)
