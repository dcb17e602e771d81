"""One export serves other batch sizes too, and rows that get no positive."""

import pytest
import torch
from torch import Tensor
from torch.export import Dim

from compiled_loss import PoseLoss, Predictions, Targets
from tests.contract.checks import OnnxFunction, assert_same

GRIDS = ((8, 8), (4, 4), (2, 2))


class Flat(torch.nn.Module):
    """A pose loss over plain tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.criterion = PoseLoss(2, 5)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        boxes, scores, points, batch_idx, labels, true_boxes, true_points = inputs
        targets = Targets(batch_idx, labels, true_boxes, true_points)
        out = self.criterion(Predictions(boxes, scores, GRIDS, points), targets)
        return out.total, *out.terms.values(), out.num_positives


def arguments(images: int, rows: int) -> tuple[Tensor, ...]:
    anchors = sum(h * w for h, w in GRIDS)
    maps = torch.randn(images, 64, anchors), torch.randn(images, 2, anchors), torch.randn(images, 15, anchors)
    boxes = torch.cat([torch.rand(rows, 2), torch.rand(rows, 2) * 0.5 + 0.02], 1)
    points = torch.rand(rows, 5, 3).round(decimals=1)
    return *maps, torch.randint(-1, images, (rows,)), torch.randint(0, 2, (rows,)), boxes, points


@pytest.mark.slow
def test_the_pose_loss_exports_with_the_numbers_of_images_and_rows_dynamic():
    function, images, rows = Flat(), Dim("B"), Dim("N")
    shapes = ({0: images},) * 3 + ({0: rows},) * 4
    program = torch.export.export(function, arguments(3, 7), dynamic_shapes=(shapes,))
    onnx = OnnxFunction(program)
    for size in ((3, 7), (2, 0), (2, 1), (1, 2), (1, 0), (4, 40), (8, 100)):
        inputs = arguments(*size)
        expected = function(*inputs)
        assert_same(program.module()(*inputs), expected)
        assert_same(onnx(*inputs), expected)
