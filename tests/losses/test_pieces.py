"""Every loss gives the same positives and numbers where candidates are planned in pieces."""

import pytest
import torch

from compiled_loss import (
    DetectionLoss,
    OrientedLoss,
    Predictions,
    ResidualPoseLoss,
    SegmentationLoss,
    TargetPlan,
    Targets,
)
from tests.reference.batches import make_batch, make_predictions
from tests.reference.flow import log_density
from tests.reference.mask_batches import add_mask_predictions, add_masks

SIZE, COUNTS = (256, 320), (9, 0, 14, 1)
LOSSES = {
    "detection": DetectionLoss(3),
    "oriented": OrientedLoss(3),
    "residual pose": ResidualPoseLoss(3, 5, flow=log_density),
    "segmentation": SegmentationLoss(3),
    "mask overlap": SegmentationLoss(3, mask_overlap=True, top_k=7, keep=1),
}


def draw(seed: int, criterion: DetectionLoss) -> tuple[Predictions, Targets]:
    """Huge and tiny boxes."""
    posed, masked = isinstance(criterion, ResidualPoseLoss), isinstance(criterion, SegmentationLoss)
    batch = make_batch(
        seed, counts=COUNTS, size=SIZE, num_keypoints=5 * posed, oriented=isinstance(criterion, OrientedLoss)
    )
    boxes = batch.boxes.clone()
    boxes[::3, 2:4] = 0.5 + torch.rand(len(boxes[::3]), 2, generator=torch.Generator().manual_seed(seed)) / 2
    batch = batch._replace(boxes=boxes)
    batch = add_masks(seed, batch, num_classes=3) if masked else batch
    raw = make_predictions(seed + 1, batch, num_keypoints=5 * posed, keypoint_sigmas=posed)
    raw = add_mask_predictions(seed + 2, batch, raw, num_classes=3, semantic=False) if masked else raw
    names = ("boxes", "scores", "grid_sizes", "keypoints", "angles", "keypoint_sigmas", "coefficients", "prototypes")
    angles = boxes[:, 4] if boxes.shape[1] == 5 else None
    targets = Targets(*batch[2:4], boxes[:, :4], batch.keypoints, angles=angles, index_map=batch.masks)
    return Predictions(**{name: getattr(raw, name) for name in names}), targets


@pytest.mark.parametrize("name", LOSSES)
def test_pieces_change_no_positive_and_no_number(name):
    criterion = LOSSES[name]
    for seed in range(3):
        predictions, targets = draw(seed, criterion)
        planned = TargetPlan(SIZE).apply(targets)
        assert planned.pieces is not None
        whole = planned._replace(pieces=None)
        for x, y in zip(criterion.assign(predictions, planned), criterion.assign(predictions, whole), strict=True):
            assert torch.equal(x, y)
        got, wanted = criterion(predictions, planned), criterion(predictions, whole)
        assert got.num_positives > 20
        assert (got.overflow, got.total) == (0, wanted.total)
        torch.testing.assert_close(got.total, criterion(predictions, targets).total)
