"""Task-aligned assignment on flat rows: work and memory follow the candidates there are.

Letters: B images, N rows, A anchors, C classes, G pages, S candidates of a page, k top-k, P = N*k positive slots.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from compiled_loss.assign.keys import from_keys, largest_keys, to_keys
from compiled_loss.assign.parts import Pairs
from compiled_loss.assign.regions import Region
from compiled_loss.assign.top_k import first_top_k
from compiled_loss.checks import finite_number, whole_number
from compiled_loss.numerics import add_epsilon, pick, power
from compiled_loss.types import Assignment

EPS = 1e-9


class _Selection(NamedTuple):
    """The selected anchors of each row, flattened: `[P]` each."""

    flat: Tensor  # image * A + anchor; B*A in empty slots
    row: Tensor
    valid: Tensor
    overlap: Tensor


@dataclass(frozen=True)
class TaskAligned:
    """Give every target row its best-aligned anchors, and every anchor at most one row.

    With `o = max(overlap, 0)` and `m = sigmoid(score)^alpha o^beta` over a row's candidate anchors, a row selects its
    k anchors of largest m > 0, equal m by lowest anchor index. An anchor selected by several rows goes to the row of
    its image with the largest o there, equal o by lowest row. Of the anchors that a row then holds, the `keep` of
    largest m stay. The target score of a positive is `m max(o) / (max(m) + 1e-9)`, maxima over the row's positives.
    A row for which there are too few pages keeps its first candidates, and is counted in `overflow`.

    Args:
        top_k: anchors that a row selects.
        keep: anchors that a row keeps, where that is less than `top_k`; None keeps all.
        alpha: power of the class score.
        beta: power of the overlap.
        region: where candidates come from; None: from inside the task's boxes.

    Raises:
        ValueError: for a number that is not positive, or a power that is negative or not finite.

    Source: TOOD, arXiv 2108.07755; one anchor a row: YOLOv10, arXiv 2405.14458.

    Example:
        >>> TaskAligned(top_k=7, keep=1).slots
        1
    """

    top_k: int = 10
    keep: int | None = None
    alpha: float = 0.5
    beta: float = 6.0
    region: Region | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "top_k", whole_number("top_k", self.top_k))
        if self.keep is not None:
            object.__setattr__(self, "keep", whole_number("keep", self.keep))
        for name in ("alpha", "beta"):
            object.__setattr__(self, name, finite_number(name, getattr(self, name)))

    @property
    def slots(self) -> int:
        """Positive slots of each row."""
        return self.top_k if self.keep is None else min(self.top_k, self.keep)

    @torch.no_grad()
    def __call__(self, pairs: Pairs) -> Assignment:
        """The positives of a batch."""
        pairs = pairs._replace(scores=pairs.scores.detach())  # forward-mode derivatives ignore `no_grad`
        scores, candidates, top_k = pairs.scores, pairs.candidates, self.top_k
        batch, _, num_anchors = scores.shape
        rows, layout = pairs.labels.shape[0], candidates.layout
        image, labels = pairs.image(), pairs.label()
        logits = pairs.logits()
        overlaps = pairs.overlaps(logits)

        best, entry = first_top_k(self.alignment(logits, overlaps), layout, top_k)
        entry, valid = entry.flatten(), (best > 0).flatten()
        nowhere = batch * num_anchors
        flat = torch.where(overlaps > 0, candidates.image[:, None] * num_anchors + candidates.anchor, nowhere)
        selection = _Selection(
            flat=torch.where(valid, pick(flat.flatten(), entry), nowhere),
            row=torch.arange(rows, device=scores.device)[:, None].expand(rows, top_k).flatten(),
            valid=valid,
            overlap=pick(overlaps.flatten(), entry),
        )
        held = _resolve_conflicts(selection, flat, overlaps, layout.group, nowhere + 1)

        anchor = torch.where(held.valid, held.flat - image[held.row] * num_anchors, 0)
        aligned = self.alignment(scores[image[held.row], labels[held.row], anchor], held.overlap)
        if self.slots < top_k:
            kept, valid = _best_slots(aligned, held, rows, self.slots)
            held = _Selection(*(x[kept] for x in held))._replace(valid=valid)
            anchor, aligned = anchor[kept], aligned[kept]
        aligned = torch.where(held.valid, aligned, 0.0)
        overlaps = torch.where(held.valid, held.overlap, 0.0)
        largest = add_epsilon(_row_maximum(aligned, held.row, rows), EPS)
        score = aligned * _row_maximum(overlaps, held.row, rows) / largest
        return Assignment(image[held.row], anchor, held.row, held.valid, score, (~layout.fits).sum())

    def alignment(self, logits: Tensor, overlap: Tensor) -> Tensor:
        """`sigmoid(score)^alpha o^beta`, in float32 like the overlap; 0 without overlap and at broken scores."""
        score = logits.to(overlap.dtype).sigmoid()
        aligned = power(score, self.alpha) * power(overlap, self.beta)
        return torch.where((aligned > 0) & (overlap > 0) & logits.isfinite(), aligned, 0.0)


def _row_maximum(x: Tensor, row: Tensor, rows: int) -> Tensor:
    """`[P]` largest entry among the slots of the same row, at least 0."""
    return from_keys(largest_keys(to_keys(x, torch.zeros_like(row)), row, rows))[0][row]


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
    slots = aligned.shape[0]
    slot = torch.arange(slots, device=aligned.device)
    # An anchor won from another row may have no alignment, and is still held.
    left = torch.where(held.valid, to_keys(aligned.clamp(min=torch.finfo(torch.float32).tiny), held.flat), 0)
    best = []
    for _ in range(keep):
        leads = (left > 0) & (left == largest_keys(left, held.row, rows)[held.row])
        best.append(slot.new_full((rows,), slots).scatter_reduce(0, held.row, torch.where(leads, slot, slots), "amin"))
        left = torch.where(leads, 0, left)
    found = torch.stack(best, 1).flatten()
    return torch.where(found < slots, found, 0), found < slots


def _resolve_conflicts(selection: _Selection, flat: Tensor, overlap: Tensor, row: Tensor, size: int) -> _Selection:
    """Leave every anchor to one row, in one slot.

    Args:
        selection: `[P]` selected anchors; one anchor may stand in several slots.
        flat: `[G, S]` places of all candidates with positive overlap, `size - 1` elsewhere.
        overlap: `[G, S]` their overlaps.
        row: `[G]` row of each page.
        size: number of places, B*A + 1.
    """
    slots = selection.row.shape[0]
    slot = torch.arange(slots, device=flat.device)
    claims = overlap.new_zeros(size).scatter_add(0, selection.flat, selection.valid.to(overlap.dtype))
    contested = claims[selection.flat] > 1

    # The winner may be a row that had not selected the anchor, hence a look at all candidates.
    keys = to_keys(overlap, row[:, None])
    largest, winner = from_keys(largest_keys(keys.flatten(), flat.flatten(), size)[selection.flat])

    # The first of the slots that selected a contested anchor carries it; the others become empty.
    carrier = slot.new_full((size,), slots).scatter_reduce(0, selection.flat, slot, "amin")
    return _Selection(
        flat=selection.flat,
        row=torch.where(contested & selection.valid, winner, selection.row),
        valid=selection.valid & (carrier[selection.flat] == slot),
        overlap=torch.where(contested, largest, selection.overlap),
    )
