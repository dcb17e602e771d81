"""What an ONNX graph holds that some runtime computes otherwise."""

import onnx
from onnx import numpy_helper

SUSPECT = {
    "Greater",
    "GreaterOrEqual",
    "GatherElements",
    "ArgMax",
    "ArgMin",
    "Loop",
    "If",
    "Scan",
    "Sigmoid",
    "Softplus",
}


def suspects(model: onnx.ModelProto, *, vectors_only: bool = True) -> list[str]:
    """One line for each; `GatherElements` of vectors alone counts, which has another form."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    constants = {x.name: numpy_helper.to_array(x) for x in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    values = {x.name: x.type.tensor_type for x in (*graph.value_info, *graph.input, *graph.output)}
    types = {name: x.elem_type for name, x in values.items()} | {x.name: x.data_type for x in graph.initializer}
    ranks = {name: len(x.shape.dim) for name, x in values.items() if x.HasField("shape")}
    found = [f"float64: {name}" for name, kind in types.items() if kind == onnx.TensorProto.DOUBLE]
    joined = {node.output[0] for node in graph.node if node.op_type == "Concat"}
    for node in graph.node:
        vector = ranks.get(node.input[0]) == 1 if node.input else False
        if node.op_type in SUSPECT and (node.op_type != "GatherElements" or vector or not vectors_only):
            found.append(f"{node.op_type}: {node.name}")
        if node.op_type == "Abs" and node.input[0] in joined:
            found.append(f"Abs of Concat: {node.name}")
        if node.op_type == "ConstantOfShape" and not any(x.name == "value" for x in node.attribute):
            found.append(f"ConstantOfShape without a value: {node.name}")
        if node.op_type == "Slice" and all(x in constants for x in node.input[1:3]):
            begin, end = (constants[x].tolist() for x in node.input[1:3])
            if any(a >= b for a, b in zip(begin, end, strict=True) if (a < 0) == (b < 0)):
                found.append(f"empty Slice: {node.name}")
    return found
