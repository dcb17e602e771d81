"""The dense view of an assignment: one entry per anchor.

Letters: B images, A anchors, C classes, N rows, P positive slots.
"""

import torch
from torch import Tensor

from compiled_loss.types import Assignment, DenseAssignment


def to_dense(
    assignment: Assignment,
    labels: Tensor,  # [N]
    boxes: Tensor,  # [N, 4 or 5]
    batch_size: int,
    num_anchors: int,
    num_classes: int,
) -> DenseAssignment:
    """Write the positives of a flat assignment into tensors over all anchors.

    Args:
        assignment: flat, `P` slots.
        labels: `[N]` class ids of the target rows.
        boxes: `[N, 4]` target boxes, in the unit in which they are to be returned; `[N, 5]` with an angle.
        batch_size: B.
        num_anchors: A.
        num_classes: C.

    Returns:
        `DenseAssignment(labels [B, A], boxes [B, A, 4], scores [B, A, C], foreground [B, A], row [B, A])`.

    Example:
        >>> image, anchor, row = torch.tensor([[0], [1], [0]])
        >>> flat = Assignment(image, anchor, row, torch.tensor([True]), torch.tensor([0.5]), torch.tensor(0))
        >>> to_dense(flat, torch.tensor([2]), torch.ones(1, 4), 1, 3, 4).labels
        tensor([[4, 2, 4]])
    """
    size = batch_size * num_anchors
    place = torch.where(assignment.valid, assignment.image * num_anchors + assignment.anchor, size)
    row = place.new_full((size + 1,), -1).scatter(0, place, assignment.row)[:size]
    foreground = row >= 0
    # An extra row, so that background anchors have something to read even in an empty batch.
    source = torch.where(foreground, row, labels.shape[0])
    label = torch.cat([labels.long(), labels.new_full((1,), num_classes, dtype=torch.int64)])[source]
    # Gathered, as ONNX Runtime copies whole rows many times faster than it follows an index.
    every = source[:, None].expand(-1, boxes.shape[1])
    box = torch.cat([boxes, boxes.new_zeros(1, boxes.shape[1])]).gather(0, every)
    # Few entries are not zero, and no two slots write the same; empty ones add nothing to the first.
    entry = (assignment.image * num_anchors + assignment.anchor) * num_classes + labels.long()[assignment.row]
    score = torch.where(assignment.valid, assignment.score, 0.0)
    scores = score.new_zeros(size * num_classes).scatter_add(0, torch.where(assignment.valid, entry, 0), score)
    shape = (batch_size, num_anchors)
    return DenseAssignment(
        labels=label.view(shape),
        boxes=box.view(*shape, boxes.shape[1]),
        scores=scores.view(*shape, num_classes),
        foreground=foreground.view(shape),
        row=row.view(shape),
    )
