"""Whole numbers of a graph have 32 bits but for sizes, and the same values."""

import numpy as np
import onnx
from onnx import parser
from onnx.reference import ReferenceEvaluator

from compiled_loss.exporting.narrow import narrow

GRAPH = """<ir_version: 8, opset_import: ["" : 20]>
g (float[N] x, int64[N] index) => (int64[N] sums, int64[N] order, float[K] taken, int64[L] filled, float[M] wide)
<int64 zero = {0}, int64 one = {1}, int64[1] two = {2}, int64[1] axis = {1}>
{
    size = Shape(x)
    number = Squeeze(size)
    row = Range(zero, number, one)
    place = Add(row, index)
    sums = CumSum(place, zero)
    best, order = TopK<axis = 0>(place, size)
    entry = Unsqueeze(order, axis)
    taken = GatherND(x, entry)
    double = Mul(size, two)
    empty = ConstantOfShape<value = int64[1] {7}>(double)
    filled = ScatterElements<reduction = "add">(empty, order, sums)
    repeated = Concat<axis = 0>(x, x)
    wide = Reshape(repeated, double)
}"""


def test_numbers_have_32_bits_and_sizes_64():
    model = parser.parse_model(GRAPH)
    x, index = np.array([0.5, 1.5, 2.5], np.float32), np.array([4, 0, 5])
    expected = ReferenceEvaluator(model).run(None, {"x": x, "index": index})
    narrow(model)
    onnx.checker.check_model(model, full_check=True)
    names = [x.name for x in model.graph.output]
    got = ReferenceEvaluator(model).run(None, {"x": x, "index": index})
    for name, found, right in zip(names, map(np.asarray, got), map(np.asarray, expected), strict=True):
        assert found.dtype == right.dtype, name
        np.testing.assert_array_equal(found, right)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {x.name: x.type.tensor_type.elem_type for x in inferred.value_info}
    made = {name: node.op_type for node in model.graph.node for name in node.output}
    wide = {
        name for name, kind in types.items() if kind == onnx.TensorProto.INT64 and made[name] not in ("Cast", "Clip")
    }
    assert wide == {"size", "double", "entry"}
    assert types["row"] == types["place"] == types["sums_narrow"] == types["empty"] == onnx.TensorProto.INT32


def test_what_is_beyond_32_bits_comes_round_to_nothing_valid():
    text = """<ir_version: 8, opset_import: ["" : 20]>
    g (int64[N] x, int64 three) => (bool[N] y) {
        low = Less(x, three)
        negative = Neg(three)
        high = Less(negative, x)
        y = And(low, high)
    }"""
    model = parser.parse_model(text)
    narrow(model)
    onnx.checker.check_model(model, full_check=True)
    x = np.array([2**32 + 1, 2, -(2**33), -1, 2**31, 3])
    (found,) = ReferenceEvaluator(model).run(None, {"x": x, "three": np.array(3)})
    assert np.asarray(found).tolist() == [False, True, False, True, False, False]
