"""Operators that `torch.onnx.export` is to write in another way than by itself."""

from collections.abc import Callable
from typing import Any

import torch

from compiled_loss.exporting.gathers import quick_gathers


def translations() -> dict[Callable, Callable]:
    """The table for `torch.onnx.export`: quick indices, and a sigmoid that is right at low logits too."""
    return {**quick_gathers(), torch.ops.aten.sigmoid.default: _sigmoid}


def _sigmoid(x: Any) -> Any:
    """`1 / (1 + e^-x)`, torch's own form.

    ONNX Runtime's Sigmoid has an absolute error on the CPU: 17 % at -15, and 0 at -20, where a fresh head starts.
    """
    from onnxscript import opset20  # noqa: PLC0415  (an optional dependency)

    op: Any = opset20
    return op.Reciprocal(op.Add(op.Exp(op.Neg(x)), op.CastLike(op.Constant(value_float=1.0), x)))
