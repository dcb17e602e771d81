"""Adaptive training sample selection: positives follow from the overlaps of anchor boxes, not from predictions.

Letters: N rows, L levels, A anchors, G pages, S candidates of a page.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from compiled_loss.assign.centres import Nearest, centre_of, inside_box
from compiled_loss.assign.keys import largest_of_groups
from compiled_loss.assign.parts import Pairs
from compiled_loss.assign.select import every, hold
from compiled_loss.checks import finite_number, true_or_false, whole_number
from compiled_loss.geometry.boxes import iou
from compiled_loss.numerics import exact
from compiled_loss.types import Assignment


@dataclass(frozen=True)
class ATSS:
    """Assign to every row the anchors near its centre whose overlap with it is high for that row.

    On each level, the k anchors nearest to a row's centre are its candidates. With o the overlap (IoU) of the row and a
    square around the anchor, the positives are the candidates inside the box with `o >= mean(o) + std(o)`, taken over
    all candidates of the row. An anchor claimed by several rows goes to the row with the largest o, ties to the lowest.

    Args:
        top_k: number of candidates k on each level.
        scale: side of the square, in strides.
        levels: number of levels L of the head; each row has `L k` slots.
        soft: use the overlaps of predictions and rows, by the loss's own overlap, as target scores; otherwise 1.

    Raises:
        ValueError: if a number is not positive, if the head has another number of levels, or for oriented boxes.

    Source: ATSS, arXiv 1912.02424, with a square of 8 strides; before task-aligned assignment PP-YOLOE (arXiv
    2203.16250) uses 5. Soft scores: Generalized Focal Loss, arXiv 2006.04388.

    Example:
        >>> ATSS().slots, ATSS().region
        (27, Nearest(number=9, levels_of_head=3))
    """

    top_k: int = 9
    scale: float = 8.0
    levels: int = 3
    soft: bool = True

    def __post_init__(self) -> None:
        for name in ("top_k", "levels"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name)))
        object.__setattr__(self, "scale", finite_number("scale", self.scale, zero=False))
        true_or_false("soft", self.soft)

    @property
    def slots(self) -> int:
        """Positive slots of each row."""
        return self.top_k * self.levels

    @property
    def region(self) -> Nearest:
        """The anchors nearest to a centre."""
        return Nearest(self.top_k, self.levels)

    @torch.no_grad()
    def __call__(self, pairs: Pairs) -> Assignment:
        """The positives of a batch."""
        candidates, logits = pairs.candidates, pairs.logits()
        points = pairs.points[candidates.anchor]
        half = pairs.strides[candidates.anchor, None].to(points.dtype) * (self.scale / 2)  # float64 beside such a head
        centre_of(pairs.boxes)  # checks them
        boxes = candidates.of_rows(pairs.boxes)
        overlap = torch.where(candidates.inside, iou(torch.cat([points - half, points + half], -1), boxes), 0.0)
        # Relative to the row's largest, so that equal overlaps are equal to their mean in float32 too.
        layout = candidates.layout
        largest = largest_of_groups(overlap.float().amax(1), layout.group, layout.fits.shape[0] + 1)
        below = exact(overlap) - exact(largest[layout.group])[:, None]
        enough = below >= _mean_and_deviation(pairs, below)
        usable = pairs.usable(logits) & inside_box(points, boxes) & enough & (overlap > 0)
        contest = torch.where(usable, overlap, 0.0)
        held = hold(pairs, *every(pairs, usable, self.slots), contest)
        score = held.read(pairs.overlaps(logits)) if self.soft else held.valid.float()
        return held.assignment(pairs, score)


def _mean_and_deviation(pairs: Pairs, x: Tensor) -> Tensor:
    """`[G, 1]` mean plus sample deviation over the candidates of each row; with one candidate the deviation is 0."""
    candidates = pairs.candidates
    group, rows = candidates.layout.group, candidates.layout.fits.shape[0]

    def over_rows(values: Tensor) -> Tensor:
        """`[G, 1]`."""
        sums = values.new_zeros(rows + 1).scatter_add(0, group, torch.where(candidates.inside, values, 0.0).sum(1))
        return sums[group][:, None]

    count = over_rows(torch.ones_like(x))
    mean = over_rows(x) / count.clamp(min=1.0)
    return mean + (over_rows((x - mean).square()) / (count - 1).clamp(min=1.0)).sqrt()
