"""Sums of all entries that keep their digits in float32."""

from collections.abc import Sequence
from typing import Any

# The number of partial sums is the square of this.
_LANES = 32


def sum_in_steps(x: Any, dtype: int = -1) -> Any:
    """The sum of 1024 partial sums. It keeps six digits of a sum of millions of numbers in any order.

    Runtimes add float32 numbers one by one, some even if float64 is requested, which keeps three digits of a sum of a
    million. The partial sums are reshaped before they are added, so that no optimiser joins the two sums. Zeros are
    appended, so that no batch leads to an empty sum, on which runtimes do not agree.

    Args:
        x: float32 of any shape, also if it was cast to float64 for this sum; other dtypes are added directly.
        dtype: requested dtype of the sum.
    """
    import onnx_ir  # noqa: PLC0415  (optional dependencies)
    from onnxscript import opset20  # noqa: PLC0415
    from onnxscript.function_libs.torch_lib.ops.core import aten_sum  # noqa: PLC0415

    op: Any = opset20
    maker = x.producer()
    if x.dtype == onnx_ir.DataType.DOUBLE and maker is not None and maker.op_type == "Cast":
        x = maker.inputs[0]
    if x.dtype != onnx_ir.DataType.FLOAT:
        return aten_sum(x, dtype=dtype)
    flat, width = op.Reshape(x, op.Constant(value_ints=[-1])), op.Constant(value_ints=[_LANES**2])
    missing = op.Sub(width, op.Mod(op.Shape(flat), width))
    padded = op.Concat(flat, op.Expand(op.Constant(value_floats=[0.0]), missing), axis=0)
    lanes = op.ReduceSum(op.Reshape(padded, op.Constant(value_ints=[-1, _LANES**2])), [0], keepdims=0)
    return op.ReduceSum(op.Reshape(lanes, op.Constant(value_ints=[_LANES, _LANES])), keepdims=0)


def sum_of_dimensions(x: Any, dim: Sequence[int] | None = None, keepdim: bool = False, dtype: int = -1) -> Any:
    """The sum over some dimensions; in steps if it is over all of them, as in graphs of gradients."""
    from onnxscript.function_libs.torch_lib.ops.core import aten_sum_dim_IntList  # noqa: PLC0415  (optional)

    dims = [dim] if isinstance(dim, int) else list(dim or [])
    if not keepdim and (not dims or len(dims) == len(x.shape)):
        return sum_in_steps(x, dtype)
    return aten_sum_dim_IntList(x, dim, keepdim=keepdim, dtype=dtype)  # type: ignore[arg-type]  (says int, takes several)
