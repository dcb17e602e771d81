"""Sums at repeated indices, in the only form that ONNX Runtime computes in order."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule


def without_races(module: GraphModule) -> GraphModule:
    """Replace `index_put(accumulate=True)` by `scatter_add` in a module, in place.

    The former is exported as ScatterND with a sum. ONNX Runtime adds its rows on several threads without a lock, so
    that sums at repeated indices lose terms. The latter is exported as ScatterElements, which it computes in order.

    The new calls are Python functions, which the next trace replaces by operators.
    """
    for node in module.graph.nodes:
        if node.target is torch.ops.aten.index_put.default:
            node.target = _index_put
    module.recompile()
    return module


def _index_put(values: Tensor, indices: list[Tensor | None], rows: Tensor, accumulate: bool = False) -> Tensor:
    given: list[Any] = [x for x in indices if x is not None]
    if not accumulate or any(x.dtype == torch.bool for x in given):
        return torch.ops.aten.index_put(values, indices, rows, accumulate)
    return _scatter_add(values, indices, rows)


def _scatter_add(values: Tensor, indices: list[Tensor | None], rows: Tensor) -> Tensor:
    """`values` with `rows` added at the indices of some of its dimensions."""
    given = [x for x in indices if x is not None]
    indexed = [dim for dim, x in enumerate(indices) if x is not None]
    order = indexed + [dim for dim in range(values.ndim) if dim not in indexed]
    in_front = values.permute(order)
    sizes, rest = in_front.shape[: len(indexed)], in_front.shape[len(indexed) :]
    places = torch.broadcast_tensors(*given)
    # As in NumPy: the dimensions of adjacent indices replace these; if the indices are apart, theirs come first.
    parted = indexed[-1] - indexed[0] >= len(indexed)
    first, width = 0 if parted else indexed[0], places[0].ndim
    shape = [*rest[:first], *places[0].shape, *rest[first:]]
    rows = rows.expand(shape).movedim(tuple(range(first, first + width)), tuple(range(width)))
    flat = torch.zeros_like(places[0])
    for place, size in zip(places, sizes, strict=True):
        flat = flat * size + torch.where(place < 0, place + size, place)
    columns = math.prod(rest)
    index = flat.reshape(-1, 1).expand(-1, columns)
    added = in_front.reshape(-1, columns).scatter_add(0, index, rows.reshape(-1, columns))
    return added.reshape(in_front.shape).permute([order.index(dim) for dim in range(values.ndim)])
