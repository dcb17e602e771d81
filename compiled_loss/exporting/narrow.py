"""Convert the integers of a converted graph to 32 bits, except for sizes."""

from typing import Any

# Inputs that ONNX requires in 64 bits, by position: sizes, axes and the indices of some operators.
_WIDE = {
    "ConstantOfShape": (0,), "CumSum": (1,), "Expand": (1,), "GatherND": (1,), "Pad": (1, 3), "Reshape": (1,),
    "Resize": (3,), "ScatterND": (1,), "Slice": (1, 2, 3, 4), "Split": (1,), "Squeeze": (1,), "Tile": (1,),
    "TopK": (1,), "Trilu": (1,), "Unsqueeze": (1,),
    **{f"Reduce{x}": (1,) for x in ("Sum", "Max", "Min", "Mean", "Prod")},
}  # fmt: skip
# Operators that always produce 64-bit integers, with the position of that output.
_BORN_WIDE = {"ArgMax": 0, "ArgMin": 0, "NonZero": 0, "Shape": 0, "Size": 0, "TopK": 1}


def narrow(model: Any) -> None:
    """Rewrite an ONNX model in place: int64 inputs and outputs stay, integers between them become int32.

    Integers from which only sizes are computed also stay in 64 bits. tract treats 64-bit integers that come from sizes,
    such as row numbers, as sizes to solve for, and cannot sort, add up or scatter them. On a graphics card, browsers
    have no 64-bit integers.

    Args:
        model: an `onnx.ModelProto` without control flow.
    """
    _Narrowing(model).run()


class _Narrowing:
    def __init__(self, model: Any) -> None:
        import onnx  # noqa: PLC0415  (an optional dependency)

        self.onnx, self.graph = onnx, model.graph
        inferred = onnx.shape_inference.infer_shapes(model).graph
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        types = {x.name: x.type.tensor_type.elem_type for x in values}
        self.constants = {x.name: x for x in model.graph.initializer}
        types |= {name: x.data_type for name, x in self.constants.items()}
        self.int64 = {name for name, kind in types.items() if kind == onnx.TensorProto.INT64}
        self.inputs, self.outputs = ({x.name for x in found} for found in (model.graph.input, model.graph.output))
        self.narrow = self._data()
        self.made: dict[tuple[str, bool], str] = {}
        self.nodes: list[Any] = []

    def run(self) -> None:
        for node in list(self.graph.node):
            kept, wide = {*node.output} & self.narrow, _WIDE.get(node.op_type, ())
            data = self._reads_data(node, kept)
            for i, name in enumerate(node.input):
                if name in self.int64:
                    node.input[i] = self._as(name, narrow=data and i not in wide)
            self.nodes.append(node)
            if kept:
                self._retype(node)
            for i, name in enumerate(node.output):
                if name in kept & self.outputs:
                    node.output[i] = self.made[name, True] = f"{name}_narrow"
                    self._cast(node.output[i], name, narrow=False)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input} | self.outputs
        for x in [x for x in self.graph.initializer if x.name not in used]:
            self.graph.initializer.remove(x)

    def _data(self) -> set[str]:
        """Computed 64-bit values that are outputs, or from which something other than a size is computed."""
        data, found = set(self.outputs), set()
        for node in reversed(self.graph.node):
            kept = self._whole(node) & data
            found |= kept
            if self._reads_data(node, kept):
                wide = _WIDE.get(node.op_type, ())
                data |= {name for i, name in enumerate(node.input) if i not in wide}
        return found

    def _whole(self, node: Any) -> set[str]:
        """Outputs of 64 bits that can have 32."""
        born = _BORN_WIDE.get(node.op_type)
        return {name for i, name in enumerate(node.output) if name in self.int64 and i != born}

    def _reads_data(self, node: Any, kept: set[str]) -> bool:
        """Whether a node reads data: integers computed from sizes are sizes, floats and booleans never are."""
        return bool(kept) or not self._whole(node) or node.op_type in _BORN_WIDE

    def _as(self, name: str, *, narrow: bool) -> str:
        """The name of a value in 32 (narrow) or 64 bits; a cast is added if it has others."""
        if (name, narrow) in self.made:
            return self.made[name, narrow]
        if narrow == (name in self.narrow - self.outputs):
            return name
        made = self.made[name, narrow] = f"{name}_{'narrow' if narrow else 'wide'}"
        if name in self.constants:
            values = self.onnx.numpy_helper.to_array(self.constants[name])
            self.graph.initializer.append(self.onnx.numpy_helper.from_array(values.astype("int32"), made))
            return made
        if name in self.inputs:  # a number beyond 32 bits must not wrap around to a valid one
            name, given = f"{name}_clipped", name
            limits = [self._limit("least", -(2**31)), self._limit("most", 2**31 - 1)]
            self.nodes.append(self.onnx.helper.make_node("Clip", [given, *limits], [name], name=f"node_{name}"))
        self._cast(name, made, narrow=narrow)
        return made

    def _limit(self, name: str, value: int) -> str:
        name = f"{name}_of_32_bits"
        if name not in {x.name for x in self.graph.initializer}:
            tensor = self.onnx.helper.make_tensor(name, self.onnx.TensorProto.INT64, [], [value])
            self.graph.initializer.append(tensor)
        return name

    def _cast(self, name: str, made: str, *, narrow: bool) -> None:
        to = self.onnx.TensorProto.INT32 if narrow else self.onnx.TensorProto.INT64
        self.nodes.append(self.onnx.helper.make_node("Cast", [name], [made], name=f"node_{made}", to=to))

    def _retype(self, node: Any) -> None:
        """Change the attribute that gives the type of an operator's output."""
        for x in node.attribute:
            if node.op_type == "Cast" and x.name == "to":
                x.i = self.onnx.TensorProto.INT32
            elif node.op_type == "ConstantOfShape" and x.name == "value":
                values = self.onnx.numpy_helper.to_array(x.t).astype("int32")
                x.t.CopyFrom(self.onnx.numpy_helper.from_array(values))
