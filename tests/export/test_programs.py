"""The programs: written files, their verification, a fault that it finds, wrong arguments."""

import numpy as np
import onnx
import onnxruntime
import pytest

from compiled_loss.exporting import load
from compiled_loss.exporting.verifying.batches import Draw, make
from export.consumers.web import build
from tests.export.programs import export
from tests.sampling import sampled

SMALL = ["--image-size", "64", "96", "--classes", "3"]


@pytest.fixture(scope="module")
def detection(tmp_path_factory):
    """The assignment of detection in the padded form."""
    path = tmp_path_factory.mktemp("detection") / "assignment.onnx"
    assert export("assignment", *SMALL, "--slots", "4", "--out", path) == 0
    return path


def test_the_file_is_small_plain_onnx_with_named_axes(detection):
    assert detection.stat().st_size < 2**20
    model = onnx.load(detection)
    onnx.checker.check_model(model, full_check=True)
    assert [(x.domain, x.version) for x in model.opset_import] == [("", 20)]
    assert {node.domain for node in model.graph.node} == {""}
    axes = {x.name: [d.dim_param or d.dim_value for d in x.type.tensor_type.shape.dim] for x in model.graph.input}
    assert axes["pred_scores"] == ["B", 3, 126]
    assert axes["boxes"] == ["N", 4]
    assert "dense_slot" in [x.name for x in model.graph.output]
    assert "site-packages" not in str(model)


def test_the_file_agrees_with_eager_torch(detection, capsys):
    assert export("verify", detection) == 0
    assert "all outputs agree" in capsys.readouterr().out


def test_a_wrong_constant_in_the_graph_fails_the_verification(detection, tmp_path, capsys):
    model = onnx.load(detection)
    changed = 0
    for x in model.graph.initializer:
        values = onnx.numpy_helper.to_array(x)
        if values.dtype == "float32" and values.size == 1 and values.item() == 0.5:
            x.CopyFrom(onnx.numpy_helper.from_array(values * 1.01, x.name))
            changed += 1
    assert changed
    path = tmp_path / "wrong.onnx"
    onnx.save(model, path)
    assert export("verify", path) == 1
    assert "FAILED in" in capsys.readouterr().out


def test_an_inexact_sigmoid_fails_the_verification(detection, tmp_path, capsys):
    model = onnx.load(detection)
    made_by, nodes = {name: node for node in model.graph.node for name in node.output}, []
    for node in model.graph.node:
        if node.op_type == "Reciprocal":  # of 1 + e^-x, scaled down or not
            x = node.input[0]
            while made_by[x].op_type != "Exp":
                x = made_by[x].input[0]
            half = made_by[made_by[x].input[0]]
            assert half.op_type == "Mul"
            within = made_by[node.input[0]]
            inexact = onnx.helper.make_node("Sigmoid", [half.input[0]], [f"{node.output[0]}_inexact"])
            nodes.append(inexact)
            scaled = [*inexact.output, within.input[1]] if within.op_type == "Mul" else [*inexact.output]
            node.op_type, node.input[:] = ("Div" if within.op_type == "Mul" else "Identity"), scaled
        nodes.append(node)
    assert len(nodes) > len(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    path = tmp_path / "wrong.onnx"
    onnx.save(model, path)
    assert export("verify", path) == 1
    assert "FAILED in" in capsys.readouterr().out


def test_wrong_metadata_fails_the_verification(detection, tmp_path):
    model = onnx.load(detection)
    for x in model.metadata_props:
        if x.key == "constants":
            x.value = x.value.replace('"beta": 6.0', '"beta": 5.0')
    path = tmp_path / "wrong.onnx"
    onnx.save(model, path)
    assert export("verify", path) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("constants", "{}"),
        ("constants", "[]"),
        ("constants", "not json"),
        ("graph", '"cook"'),
        ("task", '"pose"'),
        ("inputs", "[1]"),
        ("outputs", "null"),
    ],
)
def test_broken_metadata_ends_with_status_2_and_the_name_of_the_file(key, value, detection, tmp_path, capsys):
    model = onnx.load(detection)
    next(x for x in model.metadata_props if x.key == key).value = value
    path = tmp_path / "broken.onnx"
    onnx.save(model, path)
    with pytest.raises(SystemExit) as end:
        export("verify", path)
    assert end.value.code == 2
    assert f"error: {path}: " in capsys.readouterr().err


def test_the_file_runs_with_numpy_alone(detection):
    session = onnxruntime.InferenceSession(detection, providers=["CPUExecutionProvider"])
    inputs = make(load(detection).metadata, Draw("plain", {"B": 2, "N": 0}), 0)
    (foreground,) = session.run(["dense_foreground"], {name: x.numpy() for name, x in inputs.items()})
    assert not np.asarray(foreground).any()


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("assignment", ["--image-size", "64"], "--image-size: expected HEIGHT WIDTH in pixels, or any, got 64"),
        (
            "assignment",
            ["--image-size", "60", "64"],
            "error: --image-size: expected multiples of [8, 16, 32], got (60, 64)",
        ),
        ("assignment", ["--slots", "0"], "error: --slots: expected a positive integer, or None, got 0"),
        ("assignment", ["--task", "cook"], "argument --task: invalid choice: 'cook'"),
        ("assignment", ["--out", "a.txt"], "error: --out: expected a name that ends in"),
        ("loss", ["--gain", "nose=1"], "--gain: expected a term of task detect (box, cls, dfl), got nose"),
        ("loss", ["--gain", "box=-1"], "--gain: expected a finite number of 0 or more, got box=-1"),
        ("loss", ["--gain", "box=inf"], "--gain: expected a finite number of 0 or more, got box=inf"),
        ("loss", ["--end-to-end", "--top-k", "5"], "--top-k: expected without --end-to-end"),
        ("loss", ["--residual"], "--residual: expected only with --task pose, got --task detect"),
        ("assignment", ["--mask-stride", "7"], "--mask-stride: expected only with --task segment, got --task detect"),
        ("assignment", ["--beta", "inf"], "error: --beta: expected a finite number of 0 or more, got inf"),
        (
            "assignment",
            ["--image-size", "²", "640"],
            "--image-size: expected HEIGHT WIDTH in pixels, or any, got ² 640",
        ),
        ("assignment", ["--out", f"{'x' * 300}.onnx"], "error: --out: expected a file that can be written, got xxx"),
        ("loss", ["--gain", "box"], "--gain: expected TERM=NUMBER, got box"),
        ("loss", ["--classes", "0"], "error: --classes: expected an integer of at least 1, got 0"),
        ("loss", ["--strides", "16", "8"], "error: --strides: expected different positive whole numbers"),
        ("assignment", ["--task", "pose", "--keypoints", "0"], "error: --keypoints: expected an integer of at least 1"),
        ("verify", ["nothing.onnx"], "error: file: expected a file, got nothing.onnx"),
        ("verify", ["README.md"], "error: file: expected a name that ends in"),
    ],
)
def test_wrong_arguments_end_with_status_2_and_a_reason(program, arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        export(program, *arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_the_page_is_no_file(capsys):
    with pytest.raises(SystemExit) as end:
        build.main(["--out", "README.md"])
    assert end.value.code == 2
    assert "--out: expected a folder, got README.md, as README.md is a file" in capsys.readouterr().err


@pytest.mark.parametrize("program", ["assignment", "loss", "decode", "verify"])
def test_every_program_explains_itself(program, capsys):
    with pytest.raises(SystemExit) as end:
        export(program, "--help")
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert f"python -m compiled_loss export {program}" in text
    assert program == "verify" or "(default: 640 640)" in " ".join(text.split())


@pytest.mark.slow
@pytest.mark.thorough  # `tests/exporting/test_portable.py` writes one each time
@pytest.mark.apart
@pytest.mark.parametrize("task", ["segment", "pose"])
def test_the_assignment_and_loss_agree_with_the_image_size_open(task, tmp_path):
    options = ["--task", task, "--classes", "3", "--image-size", "any"]
    for program in ("assignment", "loss"):
        path = tmp_path / "any.onnx"
        assert export(program, *options, "--out", path) == 0
        assert path.stat().st_size < 2**20
        assert export("verify", path) == 0


OPTIONS = (
    ("a.onnx", ["--image-size", "64", "64", "--strides", "32", "--pages", "3", "--gradients"]),
    ("b.onnx", ["--end-to-end", "--reg-max", "1"]),
    ("c.onnx", ["--task", "segment", "--semantic", "--mask-overlap", "--pages", "64", "--mask-tiles", "256"]),
    ("d.onnx", ["--task", "pose", "--image-size", "any", "--gradients"]),
    ("e.onnx", ["--strides", "8", "16", "--reg-max", "1", "--image-size", "any", "--gradients"]),
    ("e.pt2", ["--strides", "8", "16", "--reg-max", "1", "--image-size", "any", "--gradients"]),
)


@pytest.mark.slow
@pytest.mark.apart
@pytest.mark.parametrize(("name", "options"), sampled(OPTIONS, 6))
def test_other_options_agree(name, options, tmp_path):
    path = tmp_path / name
    assert export("loss", *SMALL, *options, "--out", path) == 0
    assert export("verify", path) == 0
