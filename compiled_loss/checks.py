"""Checks of arguments, where they enter the package: settings, shapes, dtypes and devices, but no values of a batch."""

import inspect
import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

_T = TypeVar("_T")


def require(condition: bool, argument: str, expected: str | Sequence[int | str], got: object) -> None:
    """Raise a ValueError that names the argument unless the condition holds.

    The message is built only on failure, since traced code cannot turn a dynamic size into text.

    Args:
        condition: what must hold.
        argument: name of the argument.
        expected: what was expected, in words or as a shape.
        got: what was given.

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


def given(argument: str, value: _T | None) -> _T:
    """Return an optional value in a place where it is required.

    Raises:
        ValueError: for None.

    Example:
        >>> given("targets.angles", None)
        Traceback (most recent call last):
        ValueError: targets.angles: expected a tensor, got None
    """
    require(value is not None, argument, "a tensor", None)
    assert value is not None
    return value


def whole_number(argument: str, value: Any, least: int = 1) -> int:
    """Return an argument as an int, if it is an integer of any kind (NumPy's included) that is not below `least`.

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
    require(number >= least and not isinstance(value, bool), argument, f"an integer of at least {least}", shown(value))
    return number


def finite_number(argument: str, value: Any, *, zero: bool = True) -> float:
    """Return an argument as a float, if it is a real number of any kind (NumPy's included), finite and not negative.

    Args:
        argument: its name.
        value: the number.
        zero: whether 0 is allowed.

    Raises:
        ValueError: for anything else.

    Example:
        >>> finite_number("box_gain", float("nan"))
        Traceback (most recent call last):
        ValueError: box_gain: expected a finite number of 0 or more, got nan
    """
    try:
        number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an int that no float holds
        number = math.inf
    fits = 0 <= number < math.inf if zero else 0 < number < math.inf
    require(fits, argument, f"a finite number {'of 0 or more' if zero else 'above 0'}", shown(value))
    return number


def share(argument: str, value: Any) -> float:
    """Return an argument as a float, if it is a number from 0 to 1.

    Raises:
        ValueError: for anything else.

    Example:
        >>> share("alpha", 1.5)
        Traceback (most recent call last):
        ValueError: alpha: expected a number from 0 to 1, got 1.5
    """
    number = finite_number(argument, value)
    require(number <= 1, argument, "a number from 0 to 1", value)
    return number


def numbers_for_each(argument: str, values: Any, size: int | None = None, *, zero: bool = True) -> Tensor:
    """Return an argument as a new float32 tensor, if it holds `size` finite numbers, none negative.

    Args:
        argument: its name.
        values: a tensor or a sequence.
        size: how many numbers; None means any number of them.
        zero: whether 0 is allowed.

    Raises:
        ValueError: for anything else.

    Example:
        >>> numbers_for_each("sigmas", [0.5, 0.0], 2, zero=False)
        Traceback (most recent call last):
        ValueError: sigmas: expected finite numbers above 0, got [0.5, 0.0]
    """
    try:
        given = values if isinstance(values, Tensor) else torch.as_tensor(values, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        given = None
    real = given is not None and not given.is_complex() and given.dtype != torch.bool
    require(real, argument, "numbers" if size is None else f"{size} numbers", values)
    assert given is not None
    check_shape(argument, given, ["C" if size is None else size])
    require(not given.requires_grad, argument, "numbers without a gradient", "a tensor that requires a gradient")
    found = given.detach().to(torch.float32, copy=True)
    if not found.is_meta:
        fits = ((found >= 0) if zero else (found > 0)) & found.isfinite()
        require(bool(fits.all()), argument, f"finite numbers {'of 0 or more' if zero else 'above 0'}", given.tolist())
    return found


def true_or_false(argument: str, value: Any) -> bool:
    """Return an argument that is True or False.

    Raises:
        ValueError: for anything else, such as a string, which would count as True.

    Example:
        >>> true_or_false("distributed", "no")
        Traceback (most recent call last):
        ValueError: distributed: expected True or False, got 'no'
    """
    require(isinstance(value, bool), argument, "True or False", shown(value))
    return value


def shown(value: Any) -> Any:
    """A wrong value for a message: a string in quotes, since it might look like a number without them."""
    return repr(value) if isinstance(value, str) else value


def kind_of(value: Any) -> str:
    """The kind of a wrong value for a message: "the class X", or the name of its class.

    Example:
        >>> kind_of(dict), kind_of({})
        ('the class dict', 'dict')
    """
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def check_part(argument: str, value: Any, *takes: str) -> None:
    """Check that a part of a loss is a function or a callable instance, and not a class.

    `takes` names the arguments that it is called with; they are compared with its signature where it has one.

    Raises:
        ValueError: for anything else, or if it cannot be called with these arguments.

    Example:
        >>> check_part("box_term", dict)
        Traceback (most recent call last):
        ValueError: box_term: expected a function or a callable instance, got the class dict
    """
    is_class = isinstance(value, type)
    got = kind_of(value) if is_class else repr(value)
    require(callable(value) and not is_class, argument, "a function or a callable instance", got)
    if not takes or torch.compiler.is_compiling():  # in a loss made inside a graph: the tracer cannot follow `inspect`
        return
    try:
        signature = inspect.signature(value.forward if isinstance(value, torch.nn.Module) else value)
    except (TypeError, ValueError):  # functions written in C may have no signature
        return
    try:
        signature.bind(*takes)
    except TypeError:
        got = f"{getattr(value, '__name__', type(value).__name__)}{signature}"
        require(False, argument, f"a function of ({', '.join(takes)}), see compiled_loss.parts", got)


def whole_pair(argument: str, value: Any, expected: str) -> tuple[int, int]:
    """Return an argument as two ints, such as a height and a width, if it is a pair of integers of at least 1.

    Raises:
        ValueError: if it is not a pair, with `expected` as what was expected, or if its numbers are not such integers.

    Example:
        >>> whole_pair("image_size", 640, "(height, width) in pixels")
        Traceback (most recent call last):
        ValueError: image_size: expected (height, width) in pixels, got 640
    """
    require(isinstance(value, Sequence) and len(value) == 2, argument, expected, value)
    first, second = (whole_number(argument, x) for x in value)
    return first, second


def check_strides(strides: Any) -> tuple[int, ...]:
    """Return the pixels per grid unit of each level as ints, finest first.

    Raises:
        ValueError: if there is no level, a number is not whole and positive, or the levels are out of order.

    Example:
        >>> check_strides([8.0, 16.0]), check_strides(torch.tensor([8.0, 16.0]))
        ((8, 16), (8, 16))
    """
    given = strides.tolist() if hasattr(strides, "tolist") and not getattr(strides, "is_meta", False) else strides
    several = isinstance(given, Sequence) and all(isinstance(s, numbers.Real) for s in given)
    whole = several and len(given) >= 1 and all(s >= 1 and s % 1 == 0 and not isinstance(s, bool) for s in given)
    ascending = whole and list(given) == sorted(set(given))
    require(ascending, "strides", "different positive whole numbers, finest level first", strides)
    return tuple(int(s) for s in given)


def check_shape(argument: str, x: Tensor, shape: Sequence[int | str], why: str = "") -> None:
    """Check the rank of `x`, and its size wherever `shape` gives a number (a letter stands for any size).

    `why` is added to the end of the message, to explain where the numbers come from.

    Raises:
        ValueError: when the rank or one of the sizes differs.

    Example:
        >>> check_shape("boxes", torch.zeros(3, 4), ["N", 4])
    """
    require(isinstance(x, Tensor), argument, shape, kind_of(x))
    fits = x.dim() == len(shape)
    for got, expected in zip(x.shape, shape, strict=False):
        fits = fits and (isinstance(expected, str) or got == expected)
    if not fits:
        require(False, argument, shape, f"{tuple(x.shape)}{why and '; '}{why}")


def check_integer(argument: str, x: Tensor) -> None:
    """Check that `x` holds 32- or 64-bit integers; sizes and flat indices would overflow smaller ones.

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
        require(x.device == reference.device, name, f"device {reference.device}, like {first}", x.device)
