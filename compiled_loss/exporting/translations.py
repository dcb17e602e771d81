"""Operators that `torch.onnx.export` must translate in another way than it does by default."""

import math
from collections.abc import Callable
from typing import Any

import torch

from compiled_loss.exporting.gathers import quick_gathers
from compiled_loss.exporting.sums import sum_in_steps, sum_of_dimensions


def translations() -> dict[Callable, Callable]:
    """The table for `torch.onnx.export`: fast indexing, functions that stay precise at low logits, and sums."""
    ops = torch.ops.aten
    functions = {ops.sigmoid.default: _sigmoid, ops.log1p.default: _log1p}
    functions |= {ops.logaddexp.default: _logaddexp, ops.logaddexp2.default: _logaddexp2}
    functions |= {ops.softplus.default: _softplus, ops.floor_divide.default: _floor_divide}
    sums = {ops.sum.default: sum_in_steps, ops.sum.dim_IntList: sum_of_dimensions}
    return {**quick_gathers(), **functions, **sums}


def _sigmoid(x: Any) -> Any:
    """`1 / (1 + e^-x)`, torch's own form.

    On a CPU, ONNX Runtime's Sigmoid has an absolute error: it is off by 17 % at -15, and 0 at -20, where a fresh head
    starts. The exponential is computed as a square, because OpenVINO's is infinite beyond 88.37 instead of 88.73.
    """
    op = _operators()
    root = op.Exp(op.Mul(x, _number(-0.5, x)))
    return op.Reciprocal(op.Add(op.Mul(root, root), _number(1.0, x)))


def _log1p(x: Any) -> Any:
    """`ln(1 + x)` without the rounding error of `1 + x`; the default translation is `Log(1 + x)`.

    In a gradient graph it is part of softplus.
    """
    op = _operators()
    one = _number(1.0, x)
    rounded = op.Add(one, x)
    is_it = op.Or(op.Equal(rounded, one), op.IsInf(x))
    return op.Where(is_it, x, op.Mul(op.Log(rounded), op.Div(x, op.Sub(rounded, one))))


def _softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """`max(x, 0) + ln(1 + e^-|x|)`, since OpenVINO's Softplus is 1 % off at -18. Above the threshold it rounds to x."""
    op = _operators()
    zero = _number(0.0, x)
    x = x if beta == 1 else op.Mul(x, _number(beta, x))
    # Not a maximum, since runtimes lose NaN there.
    found = op.Add(op.Where(op.Less(zero, x), x, zero), _log1p(op.Exp(op.Neg(op.Abs(x)))))
    return found if beta == 1 else op.Div(found, _number(beta, x))


def _logaddexp(x: Any, y: Any, unit: float = 1.0) -> Any:
    """`max + ln(1 + e^(min - max))`; the default `Log(Exp(x) + Exp(y))` is infinite above 100 and below -100.

    A normalising flow's density is often a sum of several densities. `unit` is the logarithm of the base.
    """
    op = _operators()
    larger, distance = op.Max(x, y), op.Neg(op.Abs(op.Sub(x, y)))
    # Equal infinities have distance 0.
    distance = op.Where(op.Equal(x, y), _number(0.0, x), op.Mul(distance, _number(unit, x)))
    return op.Add(larger, op.Div(_log1p(op.Exp(distance)), _number(unit, x)))


def _floor_divide(x: Any, y: Any) -> Any:
    """Floor division. The default for integers has seven operators; one compares booleans, which tract cannot do."""
    op = _operators()
    if x.dtype.is_floating_point():
        return op.Floor(op.Div(x, y))
    return op.Div(op.Sub(x, op.Mod(x, y)), y)


def _logaddexp2(x: Any, y: Any) -> Any:
    """`_logaddexp` to the base 2."""
    return _logaddexp(x, y, math.log(2))


def _operators() -> Any:
    from onnxscript import opset20  # noqa: PLC0415  (an optional dependency)

    return opset20


def _number(value: float, x: Any) -> Any:
    """A constant of the type of x."""
    op = _operators()
    return op.CastLike(op.Constant(value_float=value), x)
