"""Operators of a converted graph in the forms that every runtime computes in the same way."""

import math
from typing import Any

# The same comparison with its sides swapped.
_SWAPPED = {"Greater": "Less", "GreaterOrEqual": "LessOrEqual"}
_ZERO = "zero_of_absolute_values"
_FIRST, _SECOND, _LAST = "first_of_two", "second_of_two", "last_of_two"


def plain_forms(model: Any, *, for_onnx_runtime: bool) -> None:
    """Rewrite single operators of an ONNX model, in place. The reasons:

    - In OpenVINO, Greater and GreaterOrEqual are true for NaN; Less and LessOrEqual are not.
    - OpenVINO computes the absolute value of a Concat's output in place, which changes it for other readers.
    - OpenCV refuses ConstantOfShape without a value.
    - The reference evaluator of onnx refuses GatherElements from more than 63 entries. Gather, which does the same for
      vectors, takes ten times as long in ONNX Runtime.
    - OpenVINO replaces numbers below 2^-126 by 0: what is scaled up after a Reciprocal is scaled down before it.
    - tract names outputs after the operators that produce them.

    Args:
        model: an `onnx.ModelProto` after `narrow`, or one for ONNX Runtime.
        for_onnx_runtime: leave GatherElements where it is.
    """
    import onnx  # noqa: PLC0415  (an optional dependency)

    ranks = {} if for_onnx_runtime else _ranks(model)
    told = {x.name for x in model.graph.output}
    joined = {node.output[0] for node in model.graph.node if node.op_type == "Concat"}
    inverted = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Reciprocal"}
    powers = _powers_of_two(model)
    nodes: list[Any] = []
    for node in model.graph.node:
        if len(node.output) == 1 and node.output[0] in told:
            node.name = node.output[0]
        if node.op_type in _SWAPPED:
            node.op_type = _SWAPPED[node.op_type]
            first, second = node.input
            node.input[:] = [second, first]
        elif node.op_type == "ConstantOfShape" and not node.attribute:
            zero = onnx.helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [0.0])
            node.attribute.append(onnx.helper.make_attribute("value", zero))
        elif node.op_type == "GatherElements" and ranks.get(node.input[0]) == 1:
            node.op_type = "Gather"  # along axis 0, the only one
        elif node.op_type == "GatherElements" and ranks.get(node.input[0]) == 2 and _axis(node) in (1, -1):
            nodes += _from_rows(node)
        elif node.op_type == "Mul" and node.input[0] in inverted and node.input[1] in powers:
            nodes.append(_smaller(node, inverted[node.input[0]]))
            node.op_type, node.input[:] = "Reciprocal", nodes[-1].output
        nodes += _absolute(node) if node.op_type == "Abs" and node.input[0] in joined else [node]
    read = {name for node in nodes for name in node.input} | told
    nodes = [node for node in nodes if node.op_type != "Reciprocal" or node.output[0] in read]
    # Runtimes warn about constants that nothing reads any more.
    kept = [x for x in model.graph.initializer if x.name in read or x.name not in powers]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    given = {x.name for x in kept}
    constants = [*_constants(), *(onnx.numpy_helper.from_array(1 / x, f"{name}_inverse") for name, x in powers.items())]
    model.graph.initializer.extend(x for x in constants if x.name in read - given)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _absolute(node: Any) -> list[Any]:
    """`x < 0 ? -x : x` for the absolute value of float32 numbers."""
    import onnx  # noqa: PLC0415  (an optional dependency)

    make = onnx.helper.make_node
    (x,), (y,) = node.input, node.output
    below, negative = f"{y}_below", f"{y}_negative"
    return [
        make("Less", [x, _ZERO], [below], name=f"node_{below}"),
        make("Neg", [x], [negative], name=f"node_{negative}"),
        make("Where", [below, negative, x], [y], name=node.name),
    ]


def _axis(node: Any) -> int:
    return next((x.i for x in node.attribute if x.name == "axis"), 0)


def _from_rows(node: Any) -> list[Any]:
    """Turn GatherElements from rows into Gather from one flat vector; returns the nodes that must come before it."""
    import onnx  # noqa: PLC0415  (an optional dependency)

    make, to, y = onnx.helper.make_node, onnx.TensorProto.INT32, node.output[0]
    (x, index), flat, places = node.input, f"{y}_flat", f"{y}_places"
    shape, rows, columns, width, count, small, begin, column = (
        f"{y}_{part}" for part in ("shape", "rows", "columns", "width", "count", "small", "begin", "column")
    )
    node.op_type, node.input[:] = "Gather", [flat, places]
    del node.attribute[:]
    return [
        make("Shape", [x], [shape], name=f"node_{shape}"),
        make("Gather", [shape, _FIRST], [rows], name=f"node_{rows}"),
        make("Gather", [shape, _SECOND], [columns], name=f"node_{columns}"),
        # In 64 bits: ONNX Runtime refuses Range of known sizes that were cast to 32 bits.
        make("Range", [_FIRST, rows, _SECOND], [count], name=f"node_{count}"),
        make("Cast", [count], [small], name=f"node_{small}", to=to),
        make("Cast", [columns], [width], name=f"node_{width}", to=to),
        make("Mul", [small, width], [begin], name=f"node_{begin}"),
        make("Unsqueeze", [begin, _LAST], [column], name=f"node_{column}"),
        make("Add", [index, column], [places], name=f"node_{places}"),
        make("Reshape", [x, _LAST], [flat], name=f"node_{flat}"),
    ]


def _smaller(node: Any, x: str) -> Any:
    """A node for `x / c`: its Reciprocal is `c (1 / x)`, without a smaller number in between."""
    import onnx  # noqa: PLC0415  (an optional dependency)

    y = f"{node.output[0]}_inverse"
    return onnx.helper.make_node("Mul", [x, f"{node.input[1]}_inverse"], [y], name=f"node_{y}")


def _powers_of_two(model: Any) -> dict[str, Any]:
    """The powers of two above 1 among float32 constants: multiplying by them is exact."""
    import onnx  # noqa: PLC0415  (an optional dependency)

    scalars = [x for x in model.graph.initializer if x.data_type == onnx.TensorProto.FLOAT and not x.dims]
    values = {x.name: onnx.numpy_helper.to_array(x) for x in scalars}
    return {name: x for name, x in values.items() if x > 1 and math.frexp(x)[0] == 0.5}


def _constants() -> list[Any]:
    """Constants that these forms read."""
    import onnx  # noqa: PLC0415  (an optional dependency)

    make, kinds = onnx.helper.make_tensor, onnx.TensorProto
    numbers = [make(name, kinds.INT64, [], [x]) for name, x in ((_FIRST, 0), (_SECOND, 1))]
    return [make(_ZERO, kinds.FLOAT, [], [0.0]), *numbers, make(_LAST, kinds.INT64, [1], [-1])]


def needs_of(model: Any) -> dict[str, Any]:
    """What a runtime must support for an ONNX model: the opset, the operators, and the types of all tensors."""
    import onnx  # noqa: PLC0415  (an optional dependency)

    graph = onnx.shape_inference.infer_shapes(model).graph
    kinds = {x.type.tensor_type.elem_type for x in (*graph.value_info, *graph.input, *graph.output)}
    kinds |= {x.data_type for x in graph.initializer}
    names = {onnx.helper.tensor_dtype_to_np_dtype(kind).name for kind in kinds}
    (opset,) = (x.version for x in model.opset_import if x.domain in ("", "ai.onnx"))
    return {"opset": opset, "operators": sorted({x.op_type for x in graph.node}), "dtypes": sorted(names)}


def _ranks(model: Any) -> dict[str, int]:
    """The number of dimensions of every tensor whose shape is known."""
    import onnx  # noqa: PLC0415  (an optional dependency)

    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    found = {x.name: len(x.type.tensor_type.shape.dim) for x in values if x.type.tensor_type.HasField("shape")}
    return {**found, **{x.name: len(x.dims) for x in graph.initializer}}
