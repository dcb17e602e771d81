"""The export stage: what it leaves as it was, and arguments and outputs of every shape."""

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compiled_loss.audit import STAGES, audit

ALONE: dict[str, Any] = {"exportable": True, "skip": set(STAGES) - {"eager", "export"}}


@dataclasses.dataclass
class Scene:
    boxes: Tensor
    labels: list[Tensor]
    scale: float = 2.0


def scenes(*scales: float) -> list[Scene]:
    return [Scene(torch.randn(n, 4), [torch.randn(n)], scale) for n, scale in zip((3, 5, 7), scales, strict=True)]


def test_buffers_and_arguments_are_as_before():
    class Counts(nn.Module):
        mean: Tensor

        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(()))

        def forward(self, x):
            self.mean.mul_(0.9).add_(x.mean())
            x.mul_(2)
            return x + 1

    function, given = Counts(), [torch.ones(n) for n in (3, 5, 7)]
    report = audit(function, given, **ALONE)
    assert report.ok, str(report)
    assert function.mean == 0
    assert all(bool((x == 1).all()) for x in given)


def test_an_input_may_be_an_output():
    report = audit(lambda x, y: (x, y * 2), [(torch.randn(n), torch.randn(n)) for n in (3, 5, 7)], **ALONE)
    assert report.ok, str(report)


def test_tensors_in_a_dataclass_are_inputs_and_outputs():
    def halves(scene):
        return Scene(scene.boxes / scene.scale, [x.sin() for x in scene.labels])

    report = audit(halves, scenes(2.0, 2.0, 2.0), **ALONE)
    assert report.ok, str(report)
    assert {"exported: output 0", "ONNX Runtime: output 1"} <= set(report.largest_errors)


def test_a_number_in_a_dataclass_that_changes_is_found():
    report = audit(lambda scene: scene.boxes * scene.scale, scenes(2.0, 2.0, 3.0), **ALONE)
    assert [x.message.split(" is not a tensor")[0] for x in report.findings] == ["args[0].scale"]


def test_arrays_among_the_arguments_do_not_stop_it():
    report = audit(lambda x, a: x * float(a[0]), [(torch.randn(n), np.ones(3)) for n in (3, 5, 7)], **ALONE)
    assert report.ok, str(report)


def test_views_of_a_part_of_each_row_are_inputs_as_any():
    report = audit(lambda x: x.sum(1), [torch.randn(n, 5)[:, :4] for n in (3, 5, 7)], **ALONE)
    assert report.ok, str(report)
