"""Indexing by the operator that is fastest in ONNX Runtime on a CPU."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

# Copying a whole row costs as much as reading one in 64 of its entries one by one.
_ROW = 64


def quick_gathers() -> dict[Callable, Callable]:
    """Translations of indexing for `torch.onnx.export`: single numbers are read with GatherElements where possible.

    By default an index becomes GatherND, which takes ten times as long for single numbers. Both check the bounds. Whole
    rows, which torch gathers by an index of the rows' width, are read with Gather.
    """
    import onnx_ir  # noqa: PLC0415  (optional dependencies)
    from onnxscript import opset20  # noqa: PLC0415
    from onnxscript.function_libs.torch_lib.ops.core import aten_gather, aten_index  # noqa: PLC0415

    op: Any = opset20

    def index(values: Any, indices: Sequence[Any]) -> Any:
        given = [x for x in indices if x is not None]
        if len(given) < len(indices) or any(x.dtype != onnx_ir.DataType.INT64 or x.shape is None for x in given):
            return aten_index(values, indices)
        if len(values.shape) == 1 and len(given) == 1:
            taken = op.GatherElements(values, op.Reshape(given[0], op.Constant(value_ints=[-1])), axis=0)
            return op.Reshape(taken, op.Shape(given[0]))
        if _takes_from_rows(values, given):
            *outer, inner = given
            rows = op.GatherND(values, op.Concat(*outer, axis=1))
            return op.GatherElements(rows, inner, axis=1)
        return aten_index(values, indices)

    def gather(values: Any, dim: int, index: Any, sparse_grad: bool = False) -> Any:
        column = _column(index) if dim == 0 and len(values.shape) == 2 else None
        if column is None or not isinstance(width := index.shape[1], int) or width != values.shape[1]:
            return aten_gather(values, dim, index, sparse_grad=sparse_grad)
        return op.Gather(values, op.Reshape(column, op.Constant(value_ints=[-1])), axis=0)

    return {torch.ops.aten.index.Tensor: index, torch.ops.aten.gather.default: gather}


def _column(index: Any) -> Any:
    """The `[N, 1]` numbers that an index `[N, W]` repeats along each of its rows; None for any other index."""
    maker = index.producer()
    if maker is None or maker.op_type != "Expand":
        return None
    sizes = (given := maker.inputs[0]).shape
    return given if sizes is not None and len(sizes) == len(index.shape) == 2 and sizes[1] == 1 else None


def _takes_from_rows(values: Any, given: Sequence[Any]) -> bool:
    """Whether the indices name a row by `[N, 1]`, and many of its entries by `[N, W]`."""
    *outer, inner = given
    if len(given) != len(values.shape) or not outer or any(len(x.shape) != 2 for x in given):
        return False
    columns = [x.shape[1] for x in outer]
    same = all(x.shape[0] == inner.shape[0] for x in outer)
    many, length = inner.shape[1], values.shape[-1]
    known = isinstance(many, int) and isinstance(length, int)
    return same and all(n == 1 for n in columns) and not (known and _ROW * many < length)
