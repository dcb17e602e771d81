"""Assigners that give every row its anchors of least cost, as many as its overlaps add up to.

Letters: B images, N rows, A anchors, C classes, G pages, S candidates of a page, k anchors of a row.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from compiled_loss.assign.centres import NearCentre, centre_of, inside_box, near_centre
from compiled_loss.assign.keys import descending
from compiled_loss.assign.parts import Pairs
from compiled_loss.assign.regions import Region, WholeImage, check_region
from compiled_loss.assign.select import Held, select
from compiled_loss.assign.top_k import first_top_k
from compiled_loss.checks import finite_number, kind_of, require, whole_number
from compiled_loss.numerics import at_least_float32, exact, pick, sigmoid, softplus
from compiled_loss.types import Assignment

# Added to the cost of a pair outside the preferred region, and of one outside the row's own region.
_OUTSIDE = 1e5
_ELSEWHERE = 1e6


@dataclass(frozen=True)
class SimOTA:
    """Assign to every row the anchors of least cost, as many as its largest overlaps add up to.

    A pair costs `sum over classes of BCE(score, one-hot) - w ln(overlap)`. A row selects the
    `max(1, floor(sum of its k largest overlaps))` candidates of least cost, ties by lowest anchor. An anchor selected
    by several rows goes to the row with the least cost there. Target scores are the overlaps. Every positive has
    weight 1 in the other terms, and terms are divided by the number of positives. The source's overlap is `iou`.

    Args:
        top_k: number k of overlaps that are added up, and the most anchors that a row selects.
        overlap_weight: w.
        region: where candidates come from. If it combines square and box, as `NearCentre(2.5, or_inside=True)` does,
            pairs that are not in both cost 100000 more, as in the first version of the source.
        shared: as for `DynamicSoftLabel`. Pairs outside the row's own region then cost 1000000 more; if this region
            combines square and box, pairs that are not in both cost 100000 more instead.

    Raises:
        ValueError: if `top_k` is not positive, or the weight is negative or not finite.

    Source: YOLOX, arXiv 2107.08430.

    Example:
        >>> from compiled_loss import DetectionLoss
        >>> from compiled_loss.geometry.boxes import iou
        >>> DetectionLoss(80, assigner=SimOTA(), overlap=iou).assigner.slots
        10
    """

    top_k: int = 10
    overlap_weight: float = 3.0
    region: Region | None = field(default_factory=NearCentre)
    shared: NearCentre | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "top_k", whole_number("top_k", self.top_k))
        object.__setattr__(self, "overlap_weight", finite_number("overlap_weight", self.overlap_weight))
        object.__setattr__(self, "region", _region(self.region, self.shared))

    @property
    def slots(self) -> int:
        """Positive slots of each row."""
        return self.top_k

    @torch.no_grad()
    def __call__(self, pairs: Pairs) -> Assignment:
        """The positives of a batch."""
        elsewhere = None
        if self.shared is not None:
            pairs, elsewhere = _shared(pairs, self.shared)
        logits = pairs.logits()
        overlaps = pairs.overlaps(logits)
        classes = softplus(at_least_float32(pairs.scores.detach())).sum(1)  # [B, A]
        cost = exact(pairs.candidates.take(classes)) - exact(logits)
        cost = cost - self.overlap_weight * exact(overlaps).clamp(min=1e-8).log()
        region = self.shared or self.region
        if isinstance(region, NearCentre) and region.or_inside:
            points, strides = (x[pairs.candidates.anchor] for x in (pairs.points, pairs.strides))
            boxes = pairs.candidates.of_rows(pairs.boxes)
            both = near_centre(points, boxes, strides, region.radius) & inside_box(points, boxes)
            cost = torch.where(both, cost, cost + _OUTSIDE)
        elif elsewhere is not None:
            cost = torch.where(elsewhere, cost + _ELSEWHERE, cost)
        held = least_cost(pairs, cost, overlaps, logits, self.top_k)
        return held.assignment(pairs, held.read(overlaps), held.valid.float())


@dataclass(frozen=True)
class DynamicSoftLabel:
    """Assign to every row the anchors of least cost by soft labels, as many as its largest overlaps add up to.

    With scores p, overlap o and the distance d from the row's centre in strides, a pair costs
    `sum over classes of BCE(p, y) |y - p|^2 - w ln(o) + 10^(d - r)`, y being o for the row's class and 0 for others.
    A row selects the `max(1, floor(sum of its k largest overlaps))` candidates of least cost, ties by lowest anchor.
    An anchor selected by several rows goes to the row with the least cost there. Target scores are the overlaps. The
    source's overlap is `iou`.

    Args:
        top_k: number k of overlaps that are added up, and the most anchors that a row selects.
        overlap_weight: w.
        radius: r, strides.
        region: where candidates come from; None means from inside the task's boxes, with small ones enlarged.
        shared: a row may select, and adds up the overlaps of, all anchors in this region of any row of its image, as in
            the source's code with `NearCentre(0.0, or_inside=True)`. `region` is then the whole image, and every row is
            compared with all A anchors. None: each row uses its own region.

    Raises:
        ValueError: if `top_k` is not positive, or another number is negative or not finite.

    Source: RTMDet, arXiv 2212.07784.

    Example:
        >>> from compiled_loss import DetectionLoss
        >>> from compiled_loss.geometry.boxes import iou
        >>> DetectionLoss(80, assigner=DynamicSoftLabel(), overlap=iou).assigner.slots
        13
    """

    top_k: int = 13
    overlap_weight: float = 3.0
    radius: float = 3.0
    region: Region | None = None
    shared: NearCentre | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "top_k", whole_number("top_k", self.top_k))
        for name in ("overlap_weight", "radius"):
            object.__setattr__(self, name, finite_number(name, getattr(self, name)))
        object.__setattr__(self, "region", _region(self.region, self.shared))

    @property
    def slots(self) -> int:
        """Positive slots of each row."""
        return self.top_k

    @torch.no_grad()
    def __call__(self, pairs: Pairs) -> Assignment:
        """The positives of a batch."""
        if self.shared is not None:
            pairs, _ = _shared(pairs, self.shared)
        candidates, logits = pairs.candidates, pairs.logits()
        overlaps, scores = pairs.overlaps(logits), at_least_float32(pairs.scores.detach())
        background = candidates.take((softplus(scores) * sigmoid(scores).square()).sum(1))
        soft, logit = exact(overlaps), exact(logits)
        # The row's own class, written out: ONNX Runtime has no softplus for float64.
        e = (-logit.abs()).exp()
        score, alone = torch.where(logit >= 0, 1.0, e) / (1 + e), logit.clamp(min=0.0) + (1 + e).log()
        cost = exact(background) - alone * score.square() + (alone - soft * logit) * (soft - score).square()
        cost = cost - self.overlap_weight * soft.clamp(min=1e-7).log()
        away = exact(pairs.points[candidates.anchor]) - exact(candidates.of_rows(centre_of(pairs.boxes)))
        far = (away * away).sum(-1).sqrt() / exact(pairs.strides[candidates.anchor])
        cost = cost + ((far - self.radius).clamp(max=30.0) * 2.302585092994046).exp()
        held = least_cost(pairs, cost, overlaps, logits, self.top_k)
        return held.assignment(pairs, held.read(overlaps))


def least_cost(pairs: Pairs, cost: Tensor, overlaps: Tensor, logits: Tensor, k: int) -> Held:
    """Every row selects its candidates of least cost, `max(1, floor(sum of its k largest overlaps))` of them.

    Args:
        pairs: the rows and their candidates.
        cost: `[G, S]`, rounded to float32 before costs are compared; negative costs count as 0.
        overlaps: `[G, S]` from 0 to 1.
        logits: `[G, S]` logits of the rows' classes.
        k: the most candidates that a row selects.

    Returns:
        `Held`, `P = N k`.
    """
    cost = cost.float()
    usable = pairs.usable(logits) & cost.isfinite()
    largest, _ = first_top_k(torch.where(usable, overlaps, 0.0), pairs.candidates.layout, k)
    number = exact(largest).sum(1).floor().clamp(min=1)
    merit = torch.where(usable, descending(cost), 0.0)
    return select(pairs, merit, merit, k, number)


def _region(region: Region | None, shared: NearCentre | None) -> Region | None:
    """Check the regions and return where candidates come from: the whole image if rows share theirs."""
    check_region("region", region)
    require(shared is None or isinstance(shared, NearCentre), "shared", "a NearCentre(...) or None", kind_of(shared))
    return region if shared is None else WholeImage()


def _shared(pairs: Pairs, own: NearCentre) -> tuple[Pairs, Tensor]:
    """The candidates in the region of any row of their image, and `[G, S]` which lie outside their own row's region."""
    candidates, (batch, _, anchors) = pairs.candidates, pairs.scores.shape
    points, strides = (x[candidates.anchor] for x in (pairs.points, pairs.strides))
    mine = candidates.inside & own.holds(points, candidates.of_rows(pairs.boxes), strides)
    places = candidates.image[:, None] * anchors + candidates.anchor
    taken = torch.where(mine, places, batch * anchors).flatten()
    some = taken.new_zeros(batch * anchors + 1).scatter(0, taken, torch.ones_like(taken))
    return pairs._replace(candidates=candidates.only(pick(some, places) > 0)), ~mine
