"""Operators of a written graph in the forms that every runtime computes alike."""

from typing import Any

# The same comparison with its sides swapped.
_SWAPPED = {"Greater": "Less", "GreaterOrEqual": "LessOrEqual"}
_ZERO = "zero_of_absolute_values"


def plain_forms(model: Any, *, for_onnx_runtime: bool) -> None:
    """Rewrite an ONNX model in place, one operator by one.

    Greater and GreaterOrEqual hold beside NaN in OpenVINO, Less and LessOrEqual do not; it takes the absolute value of
    what Concat made in place, and who else reads that is given it too. OpenCV takes no ConstantOfShape without a value.
    The reference evaluator of onnx takes no GatherElements from more than 63 entries; Gather, which is the same for
    vectors, takes ten times as long in ONNX Runtime. tract calls outputs as the operators that make them.

    Args:
        model: an `onnx.ModelProto`.
        for_onnx_runtime: leave GatherElements where it is.
    """
    import onnx  # noqa: PLC0415  (an optional dependency)

    ranks = {} if for_onnx_runtime else _ranks(model)
    told = {x.name for x in model.graph.output}
    joined = {node.output[0] for node in model.graph.node if node.op_type == "Concat"}
    nodes = []
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
            node.op_type = "Gather"  # its axis is 0, the only one
        nodes += _absolute(node) if node.op_type == "Abs" and node.input[0] in joined else [node]
    if any(_ZERO in node.input for node in nodes):
        model.graph.initializer.append(onnx.helper.make_tensor(_ZERO, onnx.TensorProto.FLOAT, [], [0.0]))
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


def needs_of(model: Any) -> dict[str, Any]:
    """What a runtime must know of an ONNX model: the opset, the operators, and the types of all tensors."""
    import onnx  # noqa: PLC0415  (an optional dependency)

    graph = onnx.shape_inference.infer_shapes(model).graph
    kinds = {x.type.tensor_type.elem_type for x in (*graph.value_info, *graph.input, *graph.output)}
    kinds |= {x.data_type for x in graph.initializer}
    names = {onnx.helper.tensor_dtype_to_np_dtype(kind).name for kind in kinds}
    (opset,) = (x.version for x in model.opset_import if x.domain in ("", "ai.onnx"))
    return {"opset": opset, "operators": sorted({x.op_type for x in graph.node}), "dtypes": sorted(names)}


def _ranks(model: Any) -> dict[str, int]:
    """Dimensions of every tensor whose shape is known."""
    import onnx  # noqa: PLC0415  (an optional dependency)

    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    found = {x.name: len(x.type.tensor_type.shape.dim) for x in values if x.type.tensor_type.HasField("shape")}
    return {**found, **{x.name: len(x.dims) for x in graph.initializer}}
