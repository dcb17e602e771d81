"""Exported ONNX files hold nothing that a runtime is known to compute otherwise.

Those of every task are looked at where they are made: `tests/export/test_agreement.py`.
"""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import parser
from onnx.reference import ReferenceEvaluator

from compiled_loss import DetectionLoss, EndToEndLoss
from compiled_loss.exporting import Setting, eager, export_assignment, export_loss, load
from compiled_loss.exporting.files import write
from compiled_loss.exporting.graphs import AssignmentGraph
from compiled_loss.exporting.metadata import describe
from compiled_loss.exporting.plain import plain_forms
from compiled_loss.exporting.programs import export_program
from compiled_loss.exporting.translations import translations
from compiled_loss.exporting.verifying.batches import Draw, make
from compiled_loss.exporting.verifying.compare import error_of
from compiled_loss.numerics import total
from compiled_loss.torch_private import quiet
from tests.exporting.portable import suspects

SMALL = Setting((64, 96))
BAD = """<ir_version: 8, opset_import: ["" : 20]>
bad (float[N] x, int64[1] shape, int64[N] index) => (float[N] y, bool[N] z, float[K] e, float[M] s, float[N] taken,
float[L] size)
<int64[1] three = {3}>
{
    wide = Cast<to = 11>(x)
    y = Cast<to = 1>(wide)
    z = Greater(x, y)
    e = ConstantOfShape(shape)
    s = Slice(x, three, three)
    taken = GatherElements<axis = 0>(x, index)
    soft = Softplus(x)
    joined = Concat<axis = 0>(x, soft)
    size = Abs(joined)
}"""


def test_what_runtimes_compute_otherwise_is_found():
    found = suspects(parser.parse_model(BAD))
    kinds = [x.split(":")[0] for x in found]
    wrong = ["float64", "Greater", "ConstantOfShape without a value", "empty Slice", "GatherElements"]
    assert kinds == [*wrong, "Softplus", "Abs of Concat"]


@pytest.mark.slow
def test_files_of_open_sizes_slots_plans_and_two_branches_hold_nothing_of_that(tmp_path):
    path = tmp_path / "graph.onnx"
    export_assignment(DetectionLoss(3), path, Setting(None, slots=4, pages=9))
    assert not suspects(onnx.load(path))
    export_loss(EndToEndLoss(DetectionLoss(3, reg_max=1)), path, SMALL)
    assert not suspects(onnx.load(path))


def test_the_form_for_onnx_runtime_differs_in_its_gathers_and_bits_alone(tmp_path):
    plain, quick = tmp_path / "plain.onnx", tmp_path / "quick.onnx"
    loss = DetectionLoss(3)
    graph = AssignmentGraph(loss, SMALL)
    program = export_program(graph)
    for path, setting in ((plain, SMALL), (quick, SMALL._replace(for_onnx_runtime=True))):
        write(program, describe(loss, setting, "assignment", graph.inputs, graph.outputs), path)
    models = [onnx.load(x) for x in (plain, quick)]
    # Casts, and limits of the inputs, are what 32 bits cost.
    rest = [[n for n in x.graph.node if n.op_type != "Cast" and not n.output[0].endswith("_clipped")] for x in models]
    pairs = list(zip(*rest, strict=True))
    differing = {(a.op_type, b.op_type) for a, b in pairs if a.op_type != b.op_type}
    assert differing == {("Gather", "GatherElements")}
    assert {x.split(":")[0] for x in suspects(models[1])} == {"GatherElements"}

    metadata = load(plain).metadata
    assert metadata.needs["opset"] == 20
    assert metadata.needs["operators"] == sorted({node.op_type for node in models[0].graph.node})
    assert metadata.needs["dtypes"] == ["bool", "float32", "int32", "int64"]
    inputs = make(metadata, Draw("unsorted with padding", {"B": 2, "N": 7}), seed=0)
    expected = eager(metadata)(inputs)
    reference = ReferenceEvaluator(models[0])
    named = zip(reference.output_names, reference.run(None, {k: x.numpy() for k, x in inputs.items()}), strict=True)
    for found in (load(plain).run(inputs), load(quick).run(inputs), {k: torch.as_tensor(x) for k, x in named}):
        assert max(error_of(found[name], x) for name, x in expected.items()) < 1e-5


def test_the_absolute_value_of_what_was_joined_is_written_apart():
    text = """<ir_version: 8, opset_import: ["" : 20]>
    g (float[N] x) => (float[M] y, float[M] z) { joined = Concat<axis = 0>(x, x) y = Abs(joined) z = Neg(joined) }"""
    model = parser.parse_model(text)
    plain_forms(model, for_onnx_runtime=False)
    onnx.checker.check_model(model, full_check=True)
    assert "Abs" not in {node.op_type for node in model.graph.node}
    x = np.array([-2.5, np.nan, 0.0, 3.0, -np.inf], np.float32)
    found, negative = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_array_equal(found, np.abs(np.concatenate([x, x])))
    np.testing.assert_array_equal(negative, -np.concatenate([x, x]))


def test_numbers_of_many_rows_are_taken_from_one_vector():
    text = """<ir_version: 8, opset_import: ["" : 20]>
    g (float[B, N] x, int32[B, K] index) => (float[B, K] y) { y = GatherElements<axis = 1>(x, index) }"""
    model = parser.parse_model(text)
    plain_forms(model, for_onnx_runtime=False)
    onnx.checker.check_model(model, full_check=True)
    assert "GatherElements" not in {node.op_type for node in model.graph.node}
    x, index = np.random.default_rng(0).random((3, 100), np.float32), np.array([[99, 0], [5, 5], [7, 98]], np.int32)
    expected, inputs = np.take_along_axis(x, index.astype(np.int64), 1), {"x": x, "index": index}
    (found,) = ReferenceEvaluator(model).run(None, inputs)
    (same,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, inputs)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(same, expected)


def test_scores_below_the_smallest_normal_number_come_up_scaled_alone():
    text = """<ir_version: 8, opset_import: ["" : 20]>
    g (float[N] x) => (float[N] y, float[N] z) <float one = {1}, float large = {16777216}, float odd = {3}>
    { root = Exp(x) sum = Add(root, one) score = Reciprocal(sum) y = Mul(score, large) z = Mul(score, odd) }"""
    model = parser.parse_model(text)
    x = np.array([0.0, 30.0, 88.5, 89.0], np.float32)
    with np.errstate(over="ignore"):
        before: Any = ReferenceEvaluator(model).run(None, {"x": x})
    plain_forms(model, for_onnx_runtime=False)
    onnx.checker.check_model(model, full_check=True)
    made = {node.output[0]: node.op_type for node in model.graph.node}
    assert (made["y"], made["z"], made["score"]) == ("Reciprocal", "Mul", "Reciprocal")
    with np.errstate(over="ignore"):
        after: Any = ReferenceEvaluator(model).run(None, {"x": x})
    for found, expected in zip(after, before, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert before[0][2] > 0
    assert before[0][3] == 0


def test_the_form_for_onnx_runtime_is_of_onnx_files_alone(tmp_path):
    with pytest.raises(ValueError, match="for_onnx_runtime: expected False, since it applies only to ONNX files"):
        export_assignment(DetectionLoss(3), tmp_path / "a.pt2", SMALL._replace(for_onnx_runtime=True))


def test_nothing_is_reduced_that_is_empty_where_there_are_no_rows(tmp_path):
    """ONNX Runtime up to 1.31 gives what is empty back unreduced."""
    path = tmp_path / "loss.onnx"
    export_loss(DetectionLoss(2, (32,), reg_max=4), path, SMALL)
    model, metadata = onnx.load(path), load(path).metadata
    inputs = make(metadata, Draw("plain", {"B": 2, "N": 0}), seed=0)
    expected = eager(metadata)(inputs)
    reduced = {node.input[0] for node in model.graph.node if node.op_type.startswith(("Reduce", "TopK"))}
    assert reduced
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in sorted(reduced))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_outputs()]
    found = dict(zip(names, session.run(None, {k: x.numpy() for k, x in inputs.items()}), strict=True))
    assert not [name for name in reduced if np.asarray(found[name]).size == 0]
    for name, x in expected.items():
        assert error_of(torch.as_tensor(found[name]), x) < 1e-5


class Total(torch.nn.Module):
    def forward(self, x):
        return total(x)


def test_sums_keep_six_digits_in_float32(tmp_path):
    with quiet():
        dynamic = ({0: torch.export.Dim("N", min=0)},)
        program = torch.export.export(Total(), (torch.rand(3, 3),), dynamic_shapes=dynamic)
        made = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=20, custom_translation_table=translations()
        )
    assert made is not None
    assert not suspects(made.model_proto)
    assert sum(node.op_type == "ReduceSum" for node in made.model_proto.graph.node) == 2
    evaluator = ReferenceEvaluator(made.model_proto)
    draw = np.random.default_rng(0)
    for rows in (0, 1, 341, 342, 700_000):
        for x in (
            draw.random((rows, 3)),
            np.sort(draw.random((rows, 3)) ** 6, 0),
            1e3 * (draw.random((rows, 3)) > 0.999),
        ):
            x = x.astype(np.float32)
            (found,) = evaluator.run(None, {str(evaluator.input_names[0]): x})
            exact = x.astype(np.float64).sum()
            assert abs(found - exact) <= 1e-6 * exact
            # What a runtime that adds one by one makes of it, lane by lane and then the lanes.
            flat = np.concatenate([x.ravel(), np.zeros(-x.size % 1024, np.float32)]).reshape(-1, 1024)
            lanes = flat.cumsum(0, dtype=np.float32)[-1] if len(flat) else np.zeros(1024, np.float32)
            assert abs(lanes.cumsum(dtype=np.float32)[-1] - exact) <= 1e-5 * exact
