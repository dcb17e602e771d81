"""The form that exported graphs hold assigns as the eager one, where rounding could part them."""

import torch

from compiled_loss import ATSS, DetectionLoss, Predictions, Targets
from compiled_loss.overlaps import iou

ROWS, CELLS = 100, 16


def test_atss_takes_anchors_of_equal_overlap(monkeypatch):
    # A box of a few thousandths of a pixel is inside all seven squares about it: their overlaps are the same number,
    # and none is above the mean of all unless the mean is rounded.
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(3, CELLS - 3, (ROWS, 2), generator=generator) + 0.5
    centres = cells / CELLS + (torch.rand(ROWS, 2, generator=generator) - 0.5) * 4e-4
    sizes = 0.001 + 0.002 * torch.rand(ROWS, 2, generator=generator)
    rows = torch.arange(ROWS)
    targets = Targets(rows, torch.zeros_like(rows), torch.cat([centres, sizes], 1))
    maps = torch.randn(ROWS, 64, CELLS**2, generator=generator), torch.randn(ROWS, 1, CELLS**2, generator=generator)
    criterion = DetectionLoss(1, strides=(8,), assigner=ATSS(top_k=7, levels=1), overlap=iou)

    eager = criterion.assign(Predictions(*maps, ((CELLS, CELLS),)), targets)
    monkeypatch.setattr(torch.compiler, "_is_exporting_flag", True)
    exported = criterion.assign(Predictions(*maps, ((CELLS, CELLS),)), targets)
    assert eager.valid.sum() == ROWS  # the anchor in each box
    assert torch.equal(eager.valid, exported.valid)
    assert torch.equal(eager.anchor, exported.anchor)
