"""Among equal alignments the anchors of lowest index are taken: eager, compiled and in ONNX Runtime."""

import pytest
import torch

from compiled_loss import DetectionLoss, TaskAligned
from compiled_loss.exporting import Setting, export_assignment, load
from compiled_loss.exporting.graphs import AssignmentGraph
from compiled_loss.exporting.interface import examples, sizes

# Without a power of the overlap every alignment is sqrt(sigmoid(score)): equal scores are equal alignments.
LOSS, SETTING = DetectionLoss(2, reg_max=1, assigner=TaskAligned(beta=0)), Setting((64, 96))
GRAPH = AssignmentGraph(LOSS, SETTING)
# Rows of image 0, 1 and 1; the box of the first and the last leaves out the outermost column of 8-pixel cells.
WIDE, LOW = [0.5, 0.5, 0.9, 0.9], [0.5, 0.75, 0.9, 0.45]


def inputs():
    found = {port.name: torch.zeros(sizes(port, {"B": 2, "N": 2})) for port in GRAPH.inputs}
    found |= {name: x[:2] for name, x in examples(GRAPH.inputs).items() if name in ("batch_idx", "cls")}
    found["pred_boxes"][:] = 7.0
    found["pred_scores"][:] = 0.25
    return found | {"batch_idx": torch.tensor([0, 1]), "boxes": torch.tensor([WIDE, LOW])}


def check(function):
    found = function(inputs())
    assert found["valid"].all()
    anchors = found["anchor"].view(2, 10).tolist()
    assert anchors[0] == [*range(1, 11)]  # cells 1 to 10 of the first of 8 rows of 12 cells
    assert anchors[1] == [4 * 12 + x for x in range(1, 11)]  # of the fifth row, the first below 33.6 pixels
    assert found["dense_foreground"].sum() == 20


def test_eager():
    check(GRAPH)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled(backend):
    torch._dynamo.reset()
    check(torch.compile(GRAPH, fullgraph=True, backend=backend))


def test_in_onnx_runtime(tmp_path):
    export_assignment(LOSS, tmp_path / "a.onnx", SETTING)
    check(load(tmp_path / "a.onnx").run)
