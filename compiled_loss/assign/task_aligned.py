"""Task-aligned assignment on flat rows: work and memory follow rows times window, not images times anchors.

Which anchors are candidates, and how well a prediction overlaps a row, is given: tasks differ in these two alone.

Letters: B images, N rows, A anchors, C classes, W window width, k top-k, P = N*k positive slots.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from compiled_loss.assign.top_k import first_maximum, first_top_k
from compiled_loss.assign.windows import Windows
from compiled_loss.numerics import add_epsilon, power, stack_planes
from compiled_loss.types import Assignment

EPS = 1e-9


class Candidates(NamedTuple):
    """The pairs of a row and an anchor whose overlap is asked for.

    Args:
        image: `[N]` image of each row; 0 in padding rows.
        anchor: `[N, W]` anchor index; 0 in slots without candidate.
        inside: `[N, W]` bool, True where the slot holds a candidate.
        logits: `[N, W]` logit of the row's class at the anchor.

    Example:
        >>> one = Candidates(torch.tensor([0]), torch.tensor([[3, 4]]), torch.ones(1, 2).bool(), torch.zeros(1, 2))
        >>> one.take(torch.arange(5.0).view(1, 5, 1))
        tensor([[[3.],
                 [4.]]])
    """

    image: Tensor
    anchor: Tensor
    inside: Tensor
    logits: Tensor

    def take(self, x: Tensor) -> Tensor:
        """`[N, W, ...]` of `[B, A, ...]` predictions; of the coordinates `[B, A, k]` of a box each is contiguous."""
        flat, places = self.image[:, None] * x.shape[1] + self.anchor, x.flatten(0, 1)
        return stack_planes(*(plane[flat] for plane in places.unbind(-1))) if x.dim() == 3 else places[flat]


Overlap = Callable[[Candidates], Tensor]  # -> [N, W], at most 1; what is not a candidate may hold anything


class _Selection(NamedTuple):
    """The selected anchors of each row, flattened: `[P]` each."""

    flat: Tensor  # image * A + anchor; B*A in empty slots
    row: Tensor
    valid: Tensor
    overlap: Tensor


@torch.no_grad()
def assign_task_aligned(
    scores: Tensor,  # [B, C, A] class logits
    batch_idx: Tensor,  # [N]
    labels: Tensor,  # [N]
    windows: Windows,
    overlap: Overlap,
    *,
    top_k: int = 10,
    keep: int | None = None,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> Assignment:
    """Give every target row its best-aligned anchors, and every anchor at most one row.

    With `o = max(overlap, 0)` and `m = sigmoid(score)^alpha o^beta` over a row's candidate anchors, a row selects its
    k anchors of largest m > 0, equal m by lowest anchor index. An anchor selected by several rows goes to the row of
    its image with the largest o there, equal o by lowest row. Of the anchors that a row then holds, the `keep` of
    largest m stay. The target score of a positive is `m max(o) / (max(m) + 1e-9)`, maxima over the row's positives.

    Args:
        scores: `[B, C, A]` class logits.
        batch_idx: `[N]` image of each row; rows outside `[0, B)` are padding.
        labels: `[N]` class ids.
        windows: the candidate anchors of every row, as from `candidate_windows`; rows with more than W keep their
            first W, and are counted in `overflow`.
        overlap: a function of `Candidates` that tells `[N, W]` overlaps, such as CIoU.
        top_k: anchors that a row selects.
        keep: anchors that a row keeps, where that is less than `top_k`; None keeps all.
        alpha: power of the class score.
        beta: power of the overlap.

    Returns:
        `Assignment` with `P = N*k` slots, k no more than W, or `N*keep` where fewer are kept. No gradient flows
        through it.

    Source: TOOD, arXiv 2108.07755; one anchor a row: YOLOv10, arXiv 2405.14458.

    Example:
        >>> from compiled_loss.assign.windows import candidate_windows
        >>> box, row = torch.tensor([[0.0, 0.0, 16.0, 16.0]]), torch.tensor([0])
        >>> windows = candidate_windows(box, row == 0, [(2, 2), (1, 1)], [8, 16], None)
        >>> perfect = lambda candidates: torch.ones(candidates.anchor.shape)
        >>> a = assign_task_aligned(torch.zeros(1, 1, 5), row, row, windows, perfect, top_k=3)
        >>> a.anchor, a.valid
        (tensor([0, 1, 2]), tensor([True, True, True]))
    """
    scores = scores.detach()  # forward-mode derivatives ignore `no_grad`
    batch, num_classes, num_anchors = scores.shape
    rows = batch_idx.shape[0]
    real = (batch_idx >= 0) & (batch_idx < batch)
    image = torch.where(real, batch_idx, 0).long()
    # A negative class id must fail like one that is too large, instead of counting from the end.
    labels = torch.where(real, torch.where(labels < 0, num_classes, labels), 0).long()

    inside = windows.inside & real[:, None]
    logits = scores[image[:, None], labels[:, None], windows.anchor]
    overlaps = overlap(Candidates(image, windows.anchor, inside, logits))
    # A broken prediction has no overlap and is never picked.
    overlaps = torch.where(inside & (overlaps > 0) & overlaps.isfinite(), overlaps, 0.0)
    aligned = alignment(logits, overlaps, alpha, beta)

    best, slot = first_top_k(aligned, min(top_k, aligned.shape[1]))
    flat = image[:, None] * num_anchors + windows.anchor  # [N, W]
    row = torch.arange(rows, device=scores.device)
    nowhere = batch * num_anchors
    selection = _Selection(
        flat=torch.where(best > 0, flat.gather(1, slot), nowhere).flatten(),
        row=row[:, None].expand_as(slot).flatten(),
        valid=(best > 0).flatten(),
        overlap=overlaps.gather(1, slot).flatten(),
    )
    held = _resolve_conflicts(selection, torch.where(overlaps > 0, flat, nowhere), overlaps, nowhere + 1)

    anchor = torch.where(held.valid, held.flat - image[held.row] * num_anchors, 0)
    aligned = alignment(scores[image[held.row], labels[held.row], anchor], held.overlap, alpha, beta)
    if keep is not None and keep < top_k:
        kept, valid = _best_slots(aligned, held, rows, keep)
        held = _Selection(*(x[kept] for x in held))._replace(valid=valid)
        anchor, aligned = anchor[kept], aligned[kept]
    aligned = torch.where(held.valid, aligned, 0.0)
    overlaps = torch.where(held.valid, held.overlap, 0.0)
    largest = add_epsilon(_row_maximum(aligned, held.row, rows), EPS)
    score = aligned * _row_maximum(overlaps, held.row, rows) / largest
    overflow = (windows.counts > windows.anchor.shape[1]).sum()
    return Assignment(image[held.row], anchor, held.row, held.valid, score, overflow)


def alignment(logits: Tensor, overlap: Tensor, alpha: float, beta: float) -> Tensor:
    """`sigmoid(score)^alpha o^beta`, in float32 like the overlap; 0 without overlap and at broken scores."""
    score = logits.to(overlap.dtype).sigmoid()
    aligned = power(score, alpha) * power(overlap, beta)
    return torch.where((aligned > 0) & (overlap > 0) & logits.isfinite(), aligned, 0.0)


def _row_maximum(x: Tensor, row: Tensor, rows: int) -> Tensor:
    """`[P]` largest entry among the slots of the same row, at least 0."""
    return x.new_zeros(rows).scatter_reduce(0, row, x, "amax")[row]


def _best_slots(aligned: Tensor, held: _Selection, rows: int, keep: int) -> tuple[Tensor, Tensor]:
    """Slots of the `keep` best anchors that each row holds, equal m by lowest anchor, and whether there is one.

    Args:
        aligned: `[P]` m of each slot.
        held: every anchor in one slot.
        rows: N.
        keep: anchors wanted of each row; found in as many passes.

    Returns:
        `(slots, found)`, both `[N*keep]`.
    """
    slots, nowhere = aligned.shape[0], torch.iinfo(torch.int64).max
    slot = torch.arange(slots, device=aligned.device)
    left = torch.where(held.valid, aligned, -1.0)
    best = []
    for _ in range(keep):
        largest = left.new_full((rows,), -1.0).scatter_reduce(0, held.row, left, "amax")
        leads = (left >= 0) & (left == largest[held.row])
        flat = torch.where(leads, held.flat, nowhere)
        first = flat.new_full((rows,), nowhere).scatter_reduce(0, held.row, flat, "amin")
        leads = leads & (flat == first[held.row])
        best.append(slot.new_full((rows,), slots).scatter_reduce(0, held.row, torch.where(leads, slot, slots), "amin"))
        left = torch.where(leads, -1.0, left)
    found = torch.stack(best, 1).flatten()
    return torch.where(found < slots, found, 0), found < slots


def _resolve_conflicts(selection: _Selection, flat: Tensor, overlap: Tensor, size: int) -> _Selection:
    """Leave every anchor to one row, in one slot.

    Args:
        selection: `[P]` selected anchors; one anchor may stand in several slots.
        flat: `[N, W]` places of all candidates with positive overlap, `size - 1` elsewhere.
        overlap: `[N, W]` their overlaps.
        size: number of places, B*A + 1.
    """
    slots = selection.row.shape[0]
    slot = torch.arange(slots, device=flat.device)
    claims = overlap.new_zeros(size).scatter_add(0, selection.flat, selection.valid.to(overlap.dtype))
    contested = claims[selection.flat] > 1

    # The winner may be a row that had not selected the anchor, hence a look at all candidates.
    largest, winner = first_maximum(overlap, flat, size, selection.flat)

    # The first of the slots that selected a contested anchor carries it; the others become empty.
    carrier = slot.new_full((size,), slots).scatter_reduce(0, selection.flat, slot, "amin")
    return _Selection(
        flat=selection.flat,
        row=torch.where(contested & selection.valid, winner, selection.row),
        valid=selection.valid & (carrier[selection.flat] == slot),
        overlap=torch.where(contested, largest, selection.overlap),
    )
