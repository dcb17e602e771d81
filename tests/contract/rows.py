"""The rows of the contract's cases, and room for them."""

import torch
from torch import Tensor

from compiled_loss import TargetPlan, Targets
from compiled_loss.assign.regions import Region
from compiled_loss.data.rows import pad_rows
from tests.reference.batches import make_batch

SIZE, STRIDES, IMAGES, CLASSES = (64, 96), (8, 16, 32), 3, 2
GRIDS = ((8, 12), (4, 6), (2, 3))
ANCHORS = sum(h * w for h, w in GRIDS)
FEW = 3  # anchors a row, for smaller graphs where the number is of no interest


def rows_of(
    n: int, padded: bool, *, layout: str = "mixed", keypoints: int = 0, in_order: bool = False, oriented: bool = False
) -> Targets:
    """`n` rows over three images (the middle one always empty), shuffled unless asked for in order."""
    batch = make_batch(
        n,
        layout=layout,
        counts=(n - n // 3, 0, n // 3),
        size=SIZE,
        num_classes=CLASSES,
        num_keypoints=keypoints,
        oriented=oriented,
    )
    order = torch.arange(n) if in_order else torch.randperm(n, generator=torch.Generator().manual_seed(n))
    points = None if batch.keypoints is None else batch.keypoints[order]
    boxes = batch.boxes[order]
    angles = boxes[:, 4] if oriented else None
    targets = Targets(batch.batch_idx[order], batch.labels[order], boxes[:, :4], points, angles=angles)
    return pad_rows(targets) if padded else targets


def pages_of(targets: Targets, region: Region | None = None) -> Tensor:
    """As long as the pages that a plan keeps for the rows, and for few rows of another length for each number."""
    pages, rows = TargetPlan(SIZE, STRIDES, region=region).apply(targets).pages, len(targets.batch_idx)
    assert isinstance(pages, Tensor)
    return pages.new_zeros(len(pages) + rows)
