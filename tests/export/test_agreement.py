"""Every form of every task's graphs agrees with eager torch over the batches of the verification."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from compiled_loss.audit.torch_private import quiet
from compiled_loss.exporting import Setting, eager
from compiled_loss.exporting.files import cpp_compiler, write
from compiled_loss.exporting.graphs import AssignmentGraph, LossGraph
from compiled_loss.exporting.metadata import Metadata, describe
from compiled_loss.exporting.outputs import gradient_outputs
from compiled_loss.exporting.programs import JointGraph, export_program
from export import loss
from export.batches import draws
from export.settings import TASKS
from export.verify import TOLERANCE, errors_of, main

SMALL = Setting((64, 96))
KINDS = ("assignment", "loss", "gradients")


def graph_of(task, kind):
    options: dict[str, Any] = {"num_keypoints": 5} if task == "pose" else {}
    made = TASKS[task](3, **options).requires_grad_(False)
    graph = AssignmentGraph(made, SMALL) if kind == "assignment" else LossGraph(made, SMALL)
    gradients = gradient_outputs(graph.predictions) if kind == "gradients" else []
    return graph, describe(made, SMALL, kind, graph.inputs, [*graph.outputs, *gradients])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", TASKS)
def test_archives_and_onnx_files_of_every_task_agree(task, kind, tmp_path):
    graph, metadata = graph_of(task, kind)
    joint = JointGraph(graph) if kind == "gradients" and isinstance(graph, LossGraph) else graph
    program = export_program(joint)  # most of the time, hence once for both
    for name in ("graph.onnx", "graph.pt2"):
        path = tmp_path / name
        write(program, metadata, path)
        assert path.suffix == ".pt2" or path.stat().st_size < 2**20
        assert main([str(path)]) == 0


@pytest.mark.slow
@pytest.mark.skipif(cpp_compiler() is None, reason="AOTInductor needs a C++ compiler: CXX, or g++ on the path")
@pytest.mark.parametrize(("task", "options"), [("pose", []), ("detect", ["--gradients"])])
def test_packages_of_aotinductor_agree(task, options, tmp_path):
    path = tmp_path / "loss.aoti.pt2"
    small = ["--image-size", "64", "96", "--classes", "3"]
    assert loss.main([*small, "--task", task, *options, "--out", str(path)]) == 0
    assert main([str(path)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["assignment", "gradients"])
@pytest.mark.parametrize("task", TASKS)
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
        errors = errors_of(
            lambda x: _cut(compiled(_padded(metadata, x)), metadata, x), eager(metadata), metadata, draw, i
        )
        assert max(errors.values()) <= TOLERANCE, (draw.title, errors)


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


def _cut(outputs: dict[str, Tensor], metadata: Metadata, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The outputs without the slots of the padding rows."""
    slots = len(inputs["cls"]) * metadata.constants["arguments"]["top_k"]
    return {
        port.name: outputs[port.name][:slots] if port.shape == ("P",) else outputs[port.name]
        for port in metadata.outputs
    }
