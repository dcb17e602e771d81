"""Every form of every task's graphs agrees with eager torch over the batches of the verification."""

from typing import Any

import onnx
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from compiled_loss import DetectionLoss, EndToEndLoss
from compiled_loss.exporting import Setting, eager, export_decoding
from compiled_loss.exporting.command.losses import TASKS
from compiled_loss.exporting.files import cpp_compiler, write
from compiled_loss.exporting.graphs import AssignmentGraph, DecodingGraph, LossGraph
from compiled_loss.exporting.metadata import Metadata, describe
from compiled_loss.exporting.outputs import gradient_outputs
from compiled_loss.exporting.programs import JointGraph, export_program
from compiled_loss.exporting.reference import Function
from compiled_loss.exporting.verifying.batches import draws
from compiled_loss.exporting.verifying.compare import judge
from compiled_loss.torch_private import quiet
from tests.export.programs import export
from tests.exporting.portable import suspects
from tests.sampling import sampled

SMALL = Setting((64, 96))
KINDS = ("assignment", "loss", "gradients", "decoding", "every anchor decoded")


def graph_of(task, kind):
    options: dict[str, Any] = {"num_keypoints": 5} if task == "pose" else {}
    made = TASKS[task](3, **options).requires_grad_(False)
    setting = SMALL._replace(k=50, mask_size=(24, 40) if task == "segment" else None) if kind == "decoding" else SMALL
    graph = {"assignment": AssignmentGraph, "decoding": DecodingGraph, "every anchor decoded": DecodingGraph}.get(
        kind, LossGraph
    )(made, setting)
    gradients = gradient_outputs(graph.predictions) if kind == "gradients" else []
    kind = "decoding" if isinstance(graph, DecodingGraph) else kind
    return graph, describe(made, setting, kind, graph.inputs, [*graph.outputs, *gradients])


@pytest.mark.slow
@pytest.mark.apart
@pytest.mark.parametrize(("task", "kind"), sampled(((t, k) for t in TASKS for k in KINDS), 8))
def test_archives_and_portable_onnx_files_of_every_task_agree(task, kind, tmp_path):
    graph, metadata = graph_of(task, kind)
    joint = JointGraph(graph) if kind == "gradients" and isinstance(graph, LossGraph) else graph
    program = export_program(joint)  # most of the time, hence once for both
    for name in ("graph.onnx", "graph.pt2"):
        path = tmp_path / name
        write(program, metadata, path)
        assert export("verify", path) == 0
        if path.suffix == ".onnx":
            assert path.stat().st_size < 2**20
            assert not suspects(onnx.load(path))


@pytest.mark.slow
@pytest.mark.thorough  # the consumer in C++ runs one each time
@pytest.mark.apart
@pytest.mark.skipif(cpp_compiler() is None, reason="AOTInductor needs a C++ compiler: CXX, or g++ on the path")
@pytest.mark.parametrize(("task", "options"), [("detect", ["--gradients"]), ("pose", [])])
def test_packages_of_aotinductor_agree(task, options, tmp_path):
    path = tmp_path / "loss.aoti.pt2"
    small = ["--image-size", "64", "96", "--classes", "3"]
    assert export("loss", *small, "--task", task, *options, "--out", path) == 0
    assert export("verify", path) == 0


@pytest.mark.slow
def test_the_decoding_of_two_branches_and_of_open_sizes_agrees(tmp_path):
    path = tmp_path / "decode.onnx"
    export_decoding(EndToEndLoss(DetectionLoss(3, reg_max=1)), path, Setting(None, k=300))
    assert export("verify", path) == 0


def test_the_program_of_decoding_takes_no_argument_of_learning(tmp_path, capsys):
    for wrong in (["--top-k", "5"], ["--semantic"], ["--k", "-1"], ["--mask-size", "9", "9"]):
        with pytest.raises(SystemExit) as ended:
            export("decode", *wrong, "--out", tmp_path / "decode.onnx")
        assert ended.value.code == 2
    said = capsys.readouterr().err
    for reason in ("unrecognized arguments: --top-k 5", "--semantic", "k: expected a positive", "there are no masks"):
        assert reason in said


@pytest.mark.slow
@pytest.mark.apart
@pytest.mark.parametrize(("task", "kind"), sampled(((t, k) for t in TASKS for k in ("assignment", "gradients")), 8))
def test_compiled_torch_agrees_for_every_task(task, kind):
    _, metadata = graph_of(task, kind)

    def compiler(module):
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")

        def function(inputs):
            with quiet():
                return compiled(inputs)

        return function

    compiled = eager(metadata, compiler)
    for i, draw in enumerate(draws()):
        found = judge(lambda x: _without_padding(compiled, metadata, x), eager(metadata), metadata, draw, i)
        assert found.verdict == "right", found


def _padded(metadata: Metadata, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Padding rows at the end, as `pad_rows` adds them, so that any number of rows has the same graph."""
    found, extra = {}, 16 - len(inputs["cls"]) % 16
    for port in metadata.inputs:
        x = inputs[port.name]
        if port.shape[:1] == ("N",):
            empty = -1 if port.name == "batch_idx" else 0
            x = F.pad(x, [0, 0] * (x.dim() - 1) + [0, extra], value=empty)
        for dim, size in enumerate(port.shape):
            if isinstance(size, str):
                torch._dynamo.maybe_mark_dynamic(x, dim)
        found[port.name] = x
    return found


def _without_padding(compiled: Function, metadata: Metadata, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The outputs for padded rows, without the slots of the padding."""
    padded = _padded(metadata, inputs)
    rows, of = len(inputs["cls"]), len(padded["cls"])
    outputs = compiled(padded)
    return {
        port.name: outputs[port.name][: len(outputs[port.name]) // of * rows]
        if port.shape == ("P",)
        else outputs[port.name]
        for port in metadata.outputs
    }
