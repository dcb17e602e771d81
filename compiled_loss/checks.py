"""Checks of static facts (rank, shape, dtype, device) at the public edge. None reads a tensor's value."""

import numbers
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def require(condition: bool, argument: str, expected: str | Sequence[int | str], got: object) -> None:
    """Raise a ValueError that names the argument unless the condition holds.

    The message is put together on failure only, since traced code cannot turn a dynamic size into text.

    Args:
        condition: what must hold.
        argument: name of the argument.
        expected: in words, or as a shape.
        got: what came.

    Raises:
        ValueError: when `condition` is False.

    Example:
        >>> require(False, "boxes", ["N", 4], (3, 5))
        Traceback (most recent call last):
        ValueError: boxes: expected shape [N, 4], got (3, 5)
    """
    if not condition:
        if not isinstance(expected, str):
            expected = "shape [" + ", ".join(str(size) for size in expected) + "]"
        raise ValueError(f"{argument}: expected {expected}, got {got}")


def whole_number(argument: str, value: Any, least: int = 1) -> int:
    """An argument as an int, where it is an integer of any kind (NumPy's included) that is not below `least`.

    Raises:
        ValueError: for anything else.

    Example:
        >>> whole_number("batch_size", 2.0)
        Traceback (most recent call last):
        ValueError: batch_size: expected an integer of at least 1, got 2.0
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    require(number >= least and not isinstance(value, bool), argument, f"an integer of at least {least}", value)
    return number


def check_strides(strides: Any) -> tuple[int, ...]:
    """Pixels per grid unit of each level, as ints, finest first.

    Raises:
        ValueError: for no level, numbers that are not whole and positive, or levels out of order.

    Example:
        >>> check_strides([8.0, 16.0])
        (8, 16)
    """
    several = isinstance(strides, Sequence) and all(isinstance(s, numbers.Real) for s in strides)
    whole = several and len(strides) >= 1 and all(s >= 1 and s % 1 == 0 for s in strides)
    ascending = whole and list(strides) == sorted(set(strides))
    require(ascending, "strides", "different positive whole numbers, finest level first", strides)
    return tuple(int(s) for s in strides)


def check_shape(argument: str, x: Tensor, shape: Sequence[int | str]) -> None:
    """Check the rank of `x`, and its size wherever `shape` gives a number (a letter stands for any size).

    Raises:
        ValueError: when the rank or one of the sizes differs.

    Example:
        >>> check_shape("boxes", torch.zeros(3, 4), ["N", 4])
    """
    require(isinstance(x, Tensor), argument, shape, type(x).__name__)
    require(x.dim() == len(shape), argument, shape, tuple(x.shape))
    for got, expected in zip(x.shape, shape, strict=True):
        require(isinstance(expected, str) or got == expected, argument, shape, tuple(x.shape))


def check_integer(argument: str, x: Tensor) -> None:
    """Check that `x` holds 32- or 64-bit integers; sizes and flat indices overflow the smaller ones.

    Raises:
        ValueError: for any other dtype.

    Example:
        >>> check_integer("batch_idx", torch.tensor([0, 1]))
    """
    require(x.dtype in (torch.int32, torch.int64), argument, "an integer dtype, int32 or int64", x.dtype)


def check_floating(argument: str, x: Tensor) -> None:
    """Check that `x` holds real floating-point numbers.

    Raises:
        ValueError: for any other dtype.

    Example:
        >>> check_floating("boxes", torch.zeros(2, 4))
    """
    require(x.is_floating_point(), argument, "a floating-point dtype", x.dtype)


def check_same_device(**tensors: Tensor | None) -> None:
    """Check that the named tensors live on one device.

    Raises:
        ValueError: naming the first tensor that lives elsewhere.

    Example:
        >>> check_same_device(boxes=torch.zeros(2, 4), scores=torch.zeros(2))
    """
    given = [(name, x) for name, x in tensors.items() if x is not None]
    for name, x in given[1:]:
        first, reference = given[0]
        require(x.device == reference.device, name, f"device {reference.device} as {first}", x.device)
