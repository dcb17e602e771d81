"""Task-aligned assignment on flat rows: work and memory scale with the number of candidates.

Letters: B images, N rows, A anchors, C classes, G pages, S candidates of a page, k top-k, P = N*k positive slots.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from compiled_loss.assign.further import look_further
from compiled_loss.assign.keys import largest_of_groups
from compiled_loss.assign.parts import Pairs
from compiled_loss.assign.regions import Region, check_region
from compiled_loss.assign.select import Held, best_slots, select
from compiled_loss.assign.zeros import keep_listed, select_listed
from compiled_loss.checks import finite_number, require, true_or_false, whole_number
from compiled_loss.numerics import add_epsilon, power
from compiled_loss.types import Assignment

EPS = 1e-9


@dataclass(frozen=True)
class TaskAligned:
    """Assign to every target row its best-aligned anchors, and every anchor to at most one row.

    With `o = max(overlap, 0)` and `m = sigmoid(score)^alpha o^beta` over a row's candidate anchors, a row selects the
    k anchors with the largest m > 0, ties by lowest anchor index. An anchor selected by several rows goes to the row of
    its image with the largest o there, ties by lowest row. Of the anchors that a row then holds, it keeps the `keep`
    with the largest m. A positive's target score is `m max(o) / (max(m) + 1e-9)`, maxima over the row's positives.
    A row for which there are too few pages keeps its first candidates, and is counted in `overflow`.

    With `keep_zeros` a row selects what a dense assigner does: the result of `torch.topk` over all anchors, restricted
    to candidates. If fewer than k have m > 0, `torch.topk` fills up with zeros, in an order that differs between
    devices and sizes, and some of these may be candidates. Their score is 0, so sums over scores do not change, but
    means over positives, as for masks and keypoints, count them. This takes `N A` numbers if `A < 64 k`, and on any
    device other than a CPU, and cannot be exported.

    YOLOv9 in its MIT form: `TaskAligned(at_least_one=True, region=InBox(farthest=reg_max - 1.01, grown=False))`.

    Args:
        top_k: number of anchors that a row selects.
        keep: number of anchors that a row keeps, if fewer than `top_k`; None keeps all.
        alpha: power of the class score.
        beta: power of the overlap.
        region: where candidates come from; None means from inside the task's boxes.
        keep_zeros: also accept candidates with m = 0 that `torch.topk` returns as positives.
        at_least_one: a row that would select nothing takes the anchor of its image with the largest m > 0, wherever it
            lies, and rows compete only for anchors that they selected. Every row is compared with all A anchors.

    Raises:
        ValueError: if a number is not positive, a power is negative or not finite, or a flag is not True or False.

    Source: TOOD, arXiv 2108.07755; one anchor per row: YOLOv10, arXiv 2405.14458.

    Example:
        >>> TaskAligned(top_k=7, keep=1).slots
        1
    """

    top_k: int = 10
    keep: int | None = None
    alpha: float = 0.5
    beta: float = 6.0
    region: Region | None = None
    keep_zeros: bool = False
    at_least_one: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "top_k", whole_number("top_k", self.top_k))
        if self.keep is not None:
            object.__setattr__(self, "keep", whole_number("keep", self.keep))
        for name in ("alpha", "beta"):
            object.__setattr__(self, name, finite_number(name, getattr(self, name)))
        check_region("region", self.region)
        true_or_false("keep_zeros", self.keep_zeros)
        true_or_false("at_least_one", self.at_least_one)
        require(not (self.keep_zeros and self.at_least_one), "at_least_one", "False with keep_zeros=True", True)

    @property
    def slots(self) -> int:
        """Positive slots of each row."""
        return self.top_k if self.keep is None else min(self.top_k, self.keep)

    @torch.no_grad()
    def __call__(self, pairs: Pairs) -> Assignment:
        """The positives of a batch."""
        pairs = pairs._replace(scores=pairs.scores.detach())  # forward-mode derivatives ignore `no_grad`
        rows, scores = pairs.labels.shape[0], pairs.scores
        logits = pairs.logits()
        overlaps = pairs.overlaps(logits)
        merit = self.alignment(logits, overlaps)
        if self.at_least_one:
            pairs, merit, overlaps = look_further(pairs, merit, overlaps, self.alignment)
        if self.keep_zeros:
            held = select_listed(pairs, logits, merit, overlaps, self.top_k)
        else:
            held = select(pairs, merit, overlaps, self.top_k, among_selecting=self.at_least_one)

        image, anchor, overlap = pairs.image()[held.row], held.anchor(pairs), held.read(overlaps)
        aligned = self.alignment(scores[image, pairs.label()[held.row], anchor], overlap)
        if self.slots < self.top_k:
            if self.keep_zeros:
                kept, valid = keep_listed(pairs, held, aligned, self.slots)
            else:
                # An anchor won from another row is still held if its alignment is 0.
                least = torch.finfo(torch.float32).tiny
                merit = torch.where(held.valid, aligned.clamp(min=least), 0.0)
                kept, valid = best_slots(merit, held.row, anchor, rows, scores.shape[2], self.slots)
            held = Held(held.entry[kept], held.row[kept], valid)
            aligned, overlap = aligned[kept], overlap[kept]
        aligned = torch.where(held.valid, aligned, 0.0)
        largest = add_epsilon(_row_maximum(aligned, held.row, rows), EPS)
        score = aligned * _row_maximum(torch.where(held.valid, overlap, 0.0), held.row, rows) / largest
        return held.assignment(pairs, score)

    def alignment(self, logits: Tensor, overlap: Tensor) -> Tensor:
        """`sigmoid(score)^alpha o^beta`, in float32 like the overlap; 0 without overlap and for non-finite scores."""
        score = logits.to(overlap.dtype).sigmoid()
        aligned = power(score, self.alpha) * power(overlap, self.beta)
        return torch.where((aligned > 0) & (overlap > 0) & logits.isfinite(), aligned, 0.0)


def _row_maximum(x: Tensor, row: Tensor, rows: int) -> Tensor:
    """`[P]` largest entry among the slots of the same row, at least 0."""
    return largest_of_groups(x, row, rows)[row]
