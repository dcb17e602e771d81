"""Task-aligned assignment on flat rows: work and memory follow rows times window, not images times anchors.

Letters: B images, N rows, A anchors, C classes, W window width, k top-k, P = N*k positive slots.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from compiled_loss.assign.top_k import first_top_k
from compiled_loss.assign.windows import candidate_windows
from compiled_loss.geometry.boxes import ciou
from compiled_loss.numerics import add_epsilon, power
from compiled_loss.types import Assignment

EPS = 1e-9


class _Selection(NamedTuple):
    """The k anchors of each row, flattened: `[P]` each."""

    flat: Tensor  # image * A + anchor; B*A in empty slots
    row: Tensor
    valid: Tensor
    overlap: Tensor


@torch.no_grad()
def assign_task_aligned(
    scores: Tensor,  # [B, C, A] class logits
    predicted: Tensor,  # [B, A, 4] xyxy, pixels
    batch_idx: Tensor,  # [N]
    labels: Tensor,  # [N]
    boxes: Tensor,  # [N, 4] xyxy, float32 pixels
    grid_sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    *,
    window: int | None = None,
    top_k: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> Assignment:
    """Give every target row its best-aligned anchors, and every anchor at most one row.

    With `o = max(CIoU, 0)` and `m = sigmoid(score)^alpha o^beta` over a row's candidate anchors (those strictly
    inside its box), a row selects its k anchors of largest m > 0, equal m by lowest anchor index. An anchor
    selected by several rows goes to the row of its image with the largest o there, equal o by lowest row.
    The target score of a positive is `m max(o) / (max(m) + 1e-9)`, maxima over the row's positives.

    Args:
        scores: `[B, C, A]` class logits.
        predicted: `[B, A, 4]` predicted boxes, xyxy pixels.
        batch_idx: `[N]` image of each row; rows outside `[0, B)` are padding.
        labels: `[N]` class ids.
        boxes: `[N, 4]` target boxes, xyxy float32 pixels.
        grid_sizes: rows and columns `(h, w)` of each level, finest first.
        strides: pixels per grid unit of each level.
        window: slots kept per row W, planned by the host; None makes room for every anchor. Rows with
            more candidates keep their first W, and are counted in `overflow`.
        top_k: anchors per row.
        alpha: power of the class score.
        beta: power of the overlap.

    Returns:
        `Assignment` with `P = N*k` slots. No gradient flows through it.

    Source: TOOD, arXiv 2108.07755.

    Example:
        >>> box = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
        >>> a = assign_task_aligned(torch.zeros(1, 1, 5), box.expand(1, 5, 4), torch.tensor([0]),
        ...                         torch.tensor([0]), box, [(2, 2), (1, 1)], [8, 16], top_k=3)
        >>> a.anchor, a.valid
        (tensor([0, 1, 2]), tensor([True, True, True]))
    """
    batch, num_classes, num_anchors = scores.shape
    rows = batch_idx.shape[0]
    real = (batch_idx >= 0) & (batch_idx < batch)
    image = torch.where(real, batch_idx, 0).long()
    # A negative class id must fail like one that is too large, instead of counting from the end.
    labels = torch.where(real, torch.where(labels < 0, num_classes, labels), 0).long()

    windows = candidate_windows(boxes, real, grid_sizes, strides, window)
    flat = image[:, None] * num_anchors + windows.anchor  # [N, W]
    overlap = ciou(boxes[:, None], predicted.reshape(-1, 4)[flat])
    # Comparisons with NaN are False: a broken prediction has no overlap and is never picked.
    overlap = torch.where(windows.inside & (overlap > 0), overlap, 0.0)
    alignment = _alignment(scores[image[:, None], labels[:, None], windows.anchor], overlap, alpha, beta)

    best, slot = first_top_k(alignment, min(top_k, alignment.shape[1]))
    row = torch.arange(rows, device=boxes.device)
    nowhere = batch * num_anchors
    selection = _Selection(
        flat=torch.where(best > 0, flat.gather(1, slot), nowhere).flatten(),
        row=row[:, None].expand_as(slot).flatten(),
        valid=(best > 0).flatten(),
        overlap=overlap.gather(1, slot).flatten(),
    )
    held = _resolve_conflicts(selection, torch.where(overlap > 0, flat, nowhere), overlap, nowhere + 1)

    anchor = torch.where(held.valid, held.flat - image[held.row] * num_anchors, 0)
    alignment = _alignment(scores[image[held.row], labels[held.row], anchor], held.overlap, alpha, beta)
    alignment = torch.where(held.valid, alignment, 0.0)
    overlap = torch.where(held.valid, held.overlap, 0.0)
    largest = add_epsilon(_row_maximum(alignment, held.row, rows), EPS)
    score = alignment * _row_maximum(overlap, held.row, rows) / largest
    overflow = (windows.counts > windows.anchor.shape[1]).sum()
    return Assignment(image[held.row], anchor, held.row, held.valid, score, overflow)


def _alignment(logits: Tensor, overlap: Tensor, alpha: float, beta: float) -> Tensor:
    """`sigmoid(score)^alpha o^beta`, in float32 like the overlap; 0 without overlap and at broken scores."""
    score = logits.to(overlap.dtype).sigmoid()
    alignment = power(score, alpha) * power(overlap, beta)
    return torch.where((alignment > 0) & (overlap > 0) & logits.isfinite(), alignment, 0.0)


def _row_maximum(x: Tensor, row: Tensor, rows: int) -> Tensor:
    """`[P]` largest entry among the slots of the same row, at least 0."""
    return x.new_zeros(rows).scatter_reduce(0, row, x, "amax")[row]


def _resolve_conflicts(selection: _Selection, flat: Tensor, overlap: Tensor, size: int) -> _Selection:
    """Leave every anchor to one row, in one slot.

    Args:
        selection: `[P]` selected anchors; one anchor may stand in several slots.
        flat: `[N, W]` places of all candidates with positive overlap, `size - 1` elsewhere.
        overlap: `[N, W]` their overlaps.
        size: number of places, B*A + 1.
    """
    slots, rows = selection.row.shape[0], flat.shape[0]
    slot = torch.arange(slots, device=flat.device)
    claims = overlap.new_zeros(size).scatter_add(0, selection.flat, selection.valid.to(overlap.dtype))
    contested = claims[selection.flat] > 1

    # The winner may be a row that had not selected the anchor, hence a look at all candidates.
    largest = overlap.new_zeros(size).scatter_reduce(0, flat.flatten(), overlap.flatten(), "amax")
    row = torch.arange(rows, device=flat.device)[:, None]
    holder = torch.where(overlap == largest[flat], row, rows)
    winner = holder.new_full((size,), rows).scatter_reduce(0, flat.flatten(), holder.flatten(), "amin")

    # The first of the slots that selected a contested anchor carries it; the others become empty.
    carrier = slot.new_full((size,), slots).scatter_reduce(0, selection.flat, slot, "amin")
    return _Selection(
        flat=selection.flat,
        row=torch.where(contested & selection.valid, winner[selection.flat], selection.row),
        valid=selection.valid & (carrier[selection.flat] == slot),
        overlap=torch.where(contested, largest[selection.flat], selection.overlap),
    )
