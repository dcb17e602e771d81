"""Graphs whose batches hold more candidates than their keys can tell apart count what they leave out."""

import pytest
import torch

from compiled_loss import ATSS, DetectionLoss, Predictions, Targets, TaskAligned
from compiled_loss.assign import regions
from compiled_loss.exporting import Setting, export_assignment, load


@pytest.mark.parametrize("assigner", [TaskAligned(), TaskAligned(top_k=7, keep=2), ATSS(3)])
def test_rows_beyond_the_keys_are_counted_and_the_others_are_as_ever(assigner, tmp_path, monkeypatch):
    monkeypatch.setattr(regions, "MOST_EXPORTED", 5 * 64 * 3)  # 5 pages
    torch.manual_seed(0)
    loss, n, anchors = DetectionLoss(2, assigner=assigner), 9, 84
    export_assignment(loss, tmp_path / "assignment.pt2", Setting(image_size=(64, 64)))
    boxes, scores = torch.randn(2, 64, anchors), torch.randn(2, 2, anchors)
    rows = torch.arange(n) % 2, torch.arange(n) % 2, torch.rand(n, 4) * 0.3 + 0.3
    inputs = {"pred_boxes": boxes, "pred_scores": scores}
    found = load(tmp_path / "assignment.pt2").run(inputs | dict(zip(("batch_idx", "cls", "boxes"), rows, strict=True)))
    predictions = Predictions(boxes, scores, ((8, 8), (4, 4), (2, 2)))
    # Boxes of up to 40 pixels hold one page each.
    with pytest.warns(UserWarning, match="lose candidate anchors"):
        wanted = loss.assign(predictions, Targets(*rows, pages=5))
    assert found["overflow"] == wanted.overflow == n - 5
    assert torch.equal(found["valid"], wanted.valid)
    assert torch.equal(found["anchor"][wanted.valid], wanted.anchor[wanted.valid])
    enough = loss.assign(predictions, Targets(*rows))
    assert enough.overflow == 0
    assert enough.valid.sum() > wanted.valid.sum() > 0


def test_so_many_detections_that_their_order_is_lost_are_refused():
    with pytest.raises(
        ValueError, match="k: expected at most 33554432 pairs of a detection and a class, got 30000, 36"
    ):
        DetectionLoss(1203).detect(Predictions(torch.zeros(1, 64, 84), torch.zeros(1, 1203, 84), ((8, 8),)), k=30_000)
