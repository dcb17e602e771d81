"""Checks of static facts (rank, shape, dtype, device) at the public edge. None reads a tensor's value."""

from collections.abc import Sequence

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
