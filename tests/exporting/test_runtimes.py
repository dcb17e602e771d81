"""A runtime of another process: right, wrong, refused and ended are told apart, and a fault in a file is caught."""

import json
import shutil
import sys
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from compiled_loss.exporting.verifying import adaptors, child
from compiled_loss.exporting.verifying.compare import VERDICTS, error_of
from compiled_loss.exporting.verifying.runtimes import NODE, OF_ARCHIVES
from compiled_loss.exporting.verifying.verify import verify
from export.consumers.web.build import HERE as WEB
from tests.export.programs import export

SMALL = ["--image-size", "64", "64", "--classes", "2", "--strides", "16", "32"]

# A runtime that is the real one but for batches of no, one and two rows, and of eight images.
UNRELIABLE = """
import os, sys, time
here = os.path.dirname(__file__)
sys.path.remove(here)
this = sys.modules.pop("onnxruntime")
import onnxruntime as real
sys.modules["onnxruntime"] = this
__version__ = "0.0 of the test"
SessionOptions = real.SessionOptions

class InferenceSession(real.InferenceSession):
    def run(self, names, inputs):
        print("words of its own")
        rows = len(inputs["cls"])
        if rows == 0:
            os.abort()
        if rows == 1:
            time.sleep(60)
        if rows == 2:
            raise RuntimeError("no rows\\nin pairs")
        found = super().run(names, inputs)
        if len(inputs["pred_boxes"]) == 8:
            found[names.index("weight")] = found[names.index("weight")] * 1.001
        return found
"""


@pytest.fixture(scope="module")
def assignment(tmp_path_factory):
    """A small assignment of detection."""
    path = tmp_path_factory.mktemp("runtimes") / "assignment.onnx"
    assert export("assignment", *SMALL, "--out", path) == 0
    return path


def test_every_way_to_fail_has_its_verdict(assignment, tmp_path, monkeypatch, capfd):
    (tmp_path / "onnxruntime.py").write_text(UNRELIABLE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert export("verify", assignment, "--limit", "5", "--json", tmp_path / "verdicts.json") == 1
    text = capfd.readouterr()
    assert "words of its own" not in text.out
    assert "plain B=1 N=1: ended: not done after 5 s" in text.err
    assert text.err.count("no rows in pairs") == 1
    report = json.loads((tmp_path / "verdicts.json").read_text())
    assert report["version"] == "0.0 of the test"
    for x in report["verdicts"]:
        expected = {0: "ended", 1: "ended", 2: "refused"}.get(x["rows"], "wrong" if x["images"] == 8 else "right")
        assert x["verdict"] == expected, x
    reasons = {x["rows"]: x["reason"] for x in report["verdicts"]}
    assert reasons[0] == "SIGABRT: words of its own"
    assert reasons[2] == "RuntimeError: no rows in pairs"
    assert [x["verdict"] for x in report["verdicts"]] != ["ended"] * len(report["verdicts"])
    assert "weight" in text.out.split("FAILED in ")[1]


def test_what_cannot_be_loaded_is_refused_once(assignment, capsys):
    wrong = assignment.with_name("unknown.onnx")
    model = onnx.load(assignment)
    model.graph.node[0].op_type = "Mystery"
    onnx.save(model, wrong)
    assert export("verify", wrong) == 1
    text = capsys.readouterr()
    assert text.err.count("refused") == 1
    assert "batches: 28 refused; FAILED" in text.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--runtime", "torch"],
            "tract, iree, tvm, onnxruntime-web, onnxruntime-node for a .onnx file, got torch",
        ),
        (["--limit", "0"], "limit: expected seconds above 0, got 0.0"),
        (["--python", "nowhere/python"], "No such file or directory: 'nowhere/python'"),
        (["--json", "nowhere/verdicts.json"], "No such file or directory: 'nowhere'"),
    ],
)
def test_what_cannot_run_ends_with_status_2(assignment, arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        export("verify", assignment, *arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_runtime_that_is_not_there_ends_with_status_2(assignment, tmp_path, monkeypatch, capsys):
    (tmp_path / "tract.py").write_text("import no_such_module_at_all")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        export("verify", assignment, "--runtime", "tract")
    assert end.value.code == 2
    assert f"No module named 'no_such_module_at_all', in {sys.executable}" in capsys.readouterr().err


def wrong_constant(model) -> int:
    """Scale the first floating constants that arithmetic reads."""
    read = {name for node in model.graph.node if node.op_type in ("Mul", "Div", "Add", "Sub") for name in node.input}
    changed = 0
    for x in model.graph.initializer:
        values = onnx.numpy_helper.to_array(x)
        if x.name in read and values.dtype == np.float32 and values.size == 1 and 0.1 < abs(values.item()) < 10:
            x.CopyFrom(onnx.numpy_helper.from_array((values * 1.25).astype(np.float32), x.name))
            changed += 1
    return changed


def dropped_reduction(model) -> int:
    """Scatter without a reduction, as runtimes do that ignore the attribute."""
    changed = 0
    for node in model.graph.node:
        for x in [x for x in node.attribute if x.name == "reduction" and x.s != b"none"]:
            node.attribute.remove(x)
            changed += 1
    return changed


def skip_without(runtime: str) -> None:
    """Skip where the runtime is not installed."""
    if runtime not in NODE:
        pytest.importorskip(adaptors.RUNTIMES[runtime][0], reason=f"{runtime} is not installed")
    elif shutil.which("node") is None or not (WEB / "node_modules" / runtime).is_dir():
        pytest.skip(f"{runtime} is not installed: npm ci --prefix export/consumers/web")


@pytest.mark.slow
@pytest.mark.parametrize("fault", [wrong_constant, dropped_reduction])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "reference", "tract", "tvm", "onnxruntime-web"])
def test_a_fault_in_the_file_is_caught_in_every_runtime(assignment, runtime, fault, tmp_path):
    skip_without(runtime)
    before = verify(str(assignment), runtime, modules=str(WEB))
    if not any(x.verdict == "right" for x in before.verdicts):
        pytest.skip(f"{runtime} {before.version} has no batch right without a fault: {before.verdicts[0].reason}")
    model = onnx.load(assignment)
    assert fault(model)
    path = tmp_path / "fault.onnx"
    onnx.save(model, path)
    after = verify(str(path), runtime, modules=str(WEB))
    lost = [x for x, y in zip(after.verdicts, before.verdicts, strict=True) if y.verdict == "right" != x.verdict]
    assert lost
    assert all(x.verdict in VERDICTS for x in after.verdicts)
    assert not after.right


@pytest.mark.slow
@pytest.mark.parametrize("runtime", OF_ARCHIVES)
def test_a_decoding_is_right_wherever_archives_run(runtime, tmp_path):
    skip_without(runtime)
    path = tmp_path / "decode.pt2"
    assert export("decode", *SMALL, "--k", "0", "--out", path) == 0
    assert verify(str(path), runtime).right


REDUCED = """<ir_version: 8, opset_import: ["" : 20]>
g (float[N] x, int32[M] i, float[M] u) => (float[N] most, float[N] least, float[N] sum) {
    most = ScatterElements <axis = 0, reduction = "max"> (x, i, u)
    least = ScatterElements <axis = 0, reduction = "min"> (x, i, u)
    sum = ScatterElements <axis = 0, reduction = "add"> (x, i, u)
}"""

SIZES = """<ir_version: 8, opset_import: ["" : 20]>
g (float[B, N] x) => (float[M] y) <int64[1] last = {-1}, int64[1] one = {1}, int64[1] two = {2}> {
    shape = Shape (x)
    rows = Slice (shape, one, two)
    flat = Reshape (x, last)
    zeros = ConstantOfShape <value = float[1] {0.5}> (rows)
    joined = Concat <axis = 0> (flat, zeros)
    all = Shape (joined)
    half = Div (all, two)
    begin = Sub (half, half)
    y = Slice (joined, begin, half)
}"""


def test_the_same_maxima_by_scatter_nd():
    model, inputs = onnx.parser.parse_model(REDUCED), {"x": np.zeros(4, np.float32)}
    inputs |= {"i": np.array([2, 2, 0, 3, 3], np.int32), "u": np.array([-1, -2, 5, 1, 3], np.float32)}
    adaptors.by_scatter_nd(model)
    onnx.checker.check_model(model, full_check=True)
    assert [x.op_type for x in model.graph.node if "Scatter" in x.op_type] == ["ScatterND"] * 2 + ["ScatterElements"]
    found: Any = ReferenceEvaluator(model).run(None, inputs)
    assert [x.tolist() for x in found] == [[5, 0, 0, 3], [0, 0, -2, 0], [5, 0, -3, 4]]


def test_sizes_that_are_fixed_leave_nothing_to_compute_of_them():
    model, x = onnx.parser.parse_model(SIZES), np.arange(6, dtype=np.float32).reshape(2, 3)

    def run(model) -> Any:
        return ReferenceEvaluator(model).run(None, {"x": x})

    (expected,) = run(model)
    assert expected.tolist() == [0, 1, 2, 3]
    adaptors.fix_sizes(model, {"x": x.shape})
    assert [node.op_type for node in model.graph.node] == ["Reshape", "Concat", "Slice"]
    assert run(model)[0].tolist() == expected.tolist()


def test_tensors_survive_the_way_to_another_process(tmp_path):
    arrays = {
        "numbers": np.array([[1.5, np.nan], [-0.0, np.inf]], np.float32),
        "places": np.arange(6, dtype=np.int64).reshape(1, 2, 3),
        "valid": np.array([True, False]),
        "none": np.zeros((0, 4), np.float32),
        "one": np.array(7, np.int32),
    }
    child.write(str(tmp_path / "arrays"), arrays, note="a note")
    found = child.read(str(tmp_path / "arrays"))
    assert list(found) == list(arrays)
    for name, x in arrays.items():
        assert (found[name].dtype, found[name].shape) == (x.dtype, x.shape)
        np.testing.assert_array_equal(found[name], x)
    size = int.from_bytes((tmp_path / "arrays").read_bytes()[:8], "little")
    assert size % 8 == 0
    assert json.loads((tmp_path / "arrays").read_bytes()[8 : 8 + size])["__metadata__"] == {"note": "a note"}


def test_an_error_of_another_kind_is_infinite():
    ones = torch.ones(2)
    assert error_of(ones * 1.5, ones) == 0.5
    assert error_of(torch.tensor([1.0, float("nan")]), ones) == float("inf")
    assert error_of(ones.long(), ones) == error_of(ones[:1], ones) == float("inf")
    assert error_of(torch.tensor([1, 2]), torch.tensor([1, 3])) == float("inf")
