"""A search of all anchors, for rows that find nothing among their candidates.

Letters: N rows, A anchors, G pages, S candidates of a page.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from compiled_loss.assign.candidates import Candidates
from compiled_loss.assign.parts import Pairs
from compiled_loss.numerics import pick
from compiled_loss.pages import Layout


def look_further(
    pairs: Pairs, merit: Tensor, overlaps: Tensor, merit_of: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Pairs, Tensor, Tensor]:
    """Give every row without a merit above 0 the anchor of its image with the largest merit, ties by lowest anchor.

    It replaces the first candidate, so it is only found for rows with a page, that is, with a candidate within reach.

    Args:
        pairs: the rows and their candidates.
        merit: `[G, S]` of the candidates.
        overlaps: `[G, S]` of the candidates.
        merit_of: merit of logits and overlaps.

    Returns:
        `(pairs, merit, overlaps)` with that anchor among the candidates, and its merit and overlap.

    Example:
        >>> from compiled_loss.pages import lay_out
        >>> row, box = torch.tensor([0]), torch.zeros(1, 4)
        >>> candidates = Candidates(lay_out(torch.tensor([1]), 1), row, *torch.zeros(2, 1, 64).long())
        >>> scores = torch.tensor([[[0.25, 0.5, 0.75]]])
        >>> pairs = Pairs(scores, row, row, box, box[:, :2], row, candidates, lambda candidates, logits: logits)
        >>> nothing = torch.zeros(1, 64)
        >>> found, merit, _ = look_further(pairs, nothing, nothing, lambda logits, overlaps: overlaps)
        >>> found.candidates.anchor[0, 0], merit[0, 0]
        (tensor(2), tensor(0.7500))
    """
    candidates = pairs.candidates
    layout, (rows, anchors) = candidates.layout, (pairs.labels.shape[0], pairs.scores.shape[2])
    everywhere = pairs._replace(candidates=_all_anchors(pairs))
    logits = everywhere.logits()
    overlap = everywhere.overlaps(logits)
    best, anchor = merit_of(logits, overlap).max(1)  # the first of ties, on a CPU and in ONNX Runtime
    overlap = pick(overlap.flatten(), torch.arange(rows, device=anchor.device) * anchors + anchor)

    found = (merit > 0).any(1).int()
    found = found.new_zeros(rows + 1).scatter_reduce(0, layout.group, found, "amax")[:rows]
    missing = (found == 0) & (best > 0)
    first = (layout.begin == 0)[:, None] & (torch.arange(merit.shape[1], device=merit.device) == 0)
    here = first & candidates.of_rows(missing)
    moved = candidates._replace(
        anchor=torch.where(here, candidates.of_rows(anchor), candidates.anchor), inside=here | candidates.inside
    )
    merit = torch.where(here, candidates.of_rows(best), merit)
    return pairs._replace(candidates=moved), merit, torch.where(here, candidates.of_rows(overlap), overlaps)


def _all_anchors(pairs: Pairs) -> Candidates:
    """Every anchor as a candidate of every row, each row on one page of A."""
    rows, anchors = pairs.labels.shape[0], pairs.scores.shape[2]
    row = torch.arange(rows, device=pairs.labels.device)
    real = pairs.real()[:, None].expand(rows, anchors)
    first = torch.arange(rows + 1, device=row.device)
    layout = Layout(row, torch.zeros_like(row, dtype=torch.int32), first, torch.ones_like(row, dtype=torch.bool))
    anchor = torch.arange(anchors, device=row.device).expand(rows, anchors)
    return Candidates(layout, pairs.image(), anchor, real)
