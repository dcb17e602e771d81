"""What goes into a file is checked against its table, and in whatever layout it comes gives the same numbers."""

import pytest
import torch

from compiled_loss import DetectionLoss
from compiled_loss.exporting import Setting, export_assignment, load
from compiled_loss.exporting.graphs import AssignmentGraph
from compiled_loss.exporting.interface import check_inputs, examples, prediction_ports
from compiled_loss.exporting.verifying.batches import Draw, make

LOSS, SMALL = DetectionLoss(3, (32,), reg_max=1), Setting((64, 96))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("pred_scores", lambda x: x.double(), r"pred_scores: expected torch.float32, got torch.float64"),
        ("cls", lambda x: x.int(), r"cls: expected torch.int64, got torch.int32"),
        ("pred_scores", lambda x: x[0], r"pred_scores: expected shape \[B, 3, 6\], got \(3, 6\)"),
        ("pred_scores", lambda x: x[:, :1], r"pred_scores: expected shape \[B, 3, 6\], got \(3, 1, 6\)"),
        ("pred_scores", lambda x: x[:1], r"pred_scores: expected shape \[3, 3, 6\], got \(1, 3, 6\)"),
        ("boxes", lambda x: x[:2], r"boxes: expected shape \[7, 4\], got \(2, 4\)"),
        ("boxes", lambda x: x.to("meta"), "boxes: expected a tensor on the CPU, got meta"),
        ("boxes", lambda x: x.tolist(), r"boxes: expected shape \[N, 4\], got list"),
    ],
)
def test_a_tensor_that_is_not_that_of_the_table_is_refused(name, change, message):
    ports = AssignmentGraph(LOSS, SMALL).inputs
    inputs = examples(ports)
    with pytest.raises(ValueError, match=message):
        check_inputs(ports, {**inputs, name: change(inputs[name])})


def test_every_level_has_a_multiple_of_the_same_size():
    ports = prediction_ports(DetectionLoss(3, (8, 32)), Setting(None))
    inputs = examples(ports)
    assert list(check_inputs(ports, inputs)) == [port.name for port in ports]
    for wrong in (inputs["pred_boxes_8"][..., 1:], inputs["pred_boxes_8"][..., 4:]):
        with pytest.raises(ValueError, match="expected shape"):
            check_inputs(ports, {**inputs, "pred_boxes_8": wrong})


def test_any_layout_gives_the_same_numbers(tmp_path):
    path = tmp_path / "assignment.pt2"
    export_assignment(LOSS, path, SMALL)
    file = load(path)
    inputs = make(file.metadata, Draw("plain", {"B": 2, "N": 7}), seed=0)
    turned = {name: x.mT.contiguous().mT if x.dim() > 1 else x for name, x in inputs.items()}
    turned["pred_boxes"].requires_grad_()
    assert not turned["boxes"].is_contiguous()
    assert all(x.is_contiguous() for x in check_inputs(file.metadata.inputs, turned).values())
    expected = file.run(inputs)
    for name, x in file.run(turned).items():
        assert torch.equal(x, expected[name])
        assert not x.requires_grad
