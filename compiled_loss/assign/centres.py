"""Regions around the centre of a box: the anchors near it, or the nearest ones on every level.

Letters: N rows, L levels, A anchors, G pages, S candidates of a page.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compiled_loss.assign.candidates import MARGIN, Candidates
from compiled_loss.assign.keys import descending
from compiled_loss.assign.regions import Region, of_levels
from compiled_loss.assign.top_k import first_top_k
from compiled_loss.checks import check_shape, finite_number, require, whole_number
from compiled_loss.numerics import exact
from compiled_loss.pages import Layout

# Cells by which a reach is wider than its outermost anchor, which must lie strictly inside.
_SLACK = 1e-3


@dataclass(frozen=True)
class NearCentre(Region):
    """The anchors whose x and y distances to a box's centre are below `radius` strides; for upright boxes only.

    Args:
        radius: distance limit, in strides of the anchor's own level.
        or_inside: also include the anchors strictly inside the box.

    Raises:
        ValueError: if the radius is negative or not finite.

    Source: FCOS, arXiv 1904.01355; YOLOX, arXiv 2107.08430.

    Example:
        >>> NearCentre(1.5).reach(torch.tensor([[20.0, 20.0, 44.0, 60.0]]), [8, 16], [(8, 8), (4, 4)])
        tensor([[[20., 28., 44., 52.]],
        <BLANKLINE>
                [[ 8., 16., 56., 64.]]])
    """

    radius: float = 1.5
    or_inside: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", finite_number("radius", self.radius))

    def reach(self, boxes: Tensor, strides: Sequence[int], grid_sizes: Sequence[tuple[int, int]]) -> Tensor:
        """`[L, N, 4]` squares around the centres; with `or_inside`, boxes around both square and box."""
        centre = centre_of(boxes)
        squares = torch.stack([torch.cat([centre - self.radius * s, centre + self.radius * s], -1) for s in strides])
        if not self.or_inside:
            return squares
        return torch.cat([torch.minimum(squares, boxes)[..., :2], torch.maximum(squares, boxes)[..., 2:]], -1)

    def keep(
        self,
        candidates: Candidates,
        boxes: Tensor,
        anchors: Tensor,
        strides: Sequence[int],
        grid_sizes: Sequence[tuple[int, int]],
    ) -> Candidates:
        """All anchors of a square; with `or_inside`, those in the square or in the box."""
        if not self.or_inside:
            return candidates
        points, steps = anchors[candidates.anchor], of_levels(strides, candidates.anchor, grid_sizes)
        return candidates.only(self.holds(points, candidates.of_rows(boxes), steps))

    def holds(self, points: Tensor, boxes: Tensor, strides: Tensor) -> Tensor:
        """Whether points `[..., 2]` of strides `[...]` are candidates of boxes `[..., 4]`, pixels."""
        near = near_centre(points, boxes, strides, self.radius)
        return near | inside_box(points, boxes) if self.or_inside else near


@dataclass(frozen=True)
class Nearest(Region):
    """The anchors nearest to a box's centre on every level, ties by lowest index; for upright boxes only.

    Args:
        number: anchors on each level.
        levels_of_head: the number of levels L that the head must have; None allows any.

    Raises:
        ValueError: if a number is not positive, or the head has another number of levels.

    Source: ATSS, arXiv 1912.02424.

    Example:
        >>> Nearest(1).reach(torch.tensor([[0.0, 0.0, 8.0, 8.0]]), [8], [(4, 4)]).round(decimals=2)
        tensor([[[3.9900, 3.9900, 4.0100, 4.0100]]])
    """

    number: int = 9
    levels_of_head: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "number", whole_number("number", self.number))
        if self.levels_of_head is not None:
            object.__setattr__(self, "levels_of_head", whole_number("levels_of_head", self.levels_of_head))

    @property
    def most(self) -> int | None:
        """On every level, the anchors in a square whose side is the diagonal of a block of `number` anchors."""
        if self.levels_of_head is None:
            return None
        side = math.ceil(math.sqrt(self.number)) * math.sqrt(2) + 2 * _SLACK
        return self.levels_of_head * (math.floor(side) + 1) ** 2

    def reach(self, boxes: Tensor, strides: Sequence[int], grid_sizes: Sequence[tuple[int, int]]) -> Tensor:
        """`[L, N, 4]` boxes around all anchors that may be among the nearest."""
        fits = self.levels_of_head in (None, len(strides))
        require(fits, "strides", f"the assigner's {self.levels_of_head} levels", len(strides))
        centre = centre_of(boxes)
        squares = []
        for stride, grid in zip(strides, grid_sizes, strict=True):
            half = (self._half(exact(centre) / stride - 0.5, grid).float() + _SLACK) * stride
            squares.append(torch.cat([centre - half, centre + half], -1))
        return torch.stack(squares)

    def keep(
        self,
        candidates: Candidates,
        boxes: Tensor,
        anchors: Tensor,
        strides: Sequence[int],
        grid_sizes: Sequence[tuple[int, int]],
    ) -> Candidates:
        """The nearest anchors on each level."""
        layout, (pages, width) = candidates.layout, candidates.anchor.shape
        rows, count = layout.fits.shape[0], len(strides)
        away = exact(anchors[candidates.anchor]) - exact(candidates.of_rows(centre_of(boxes)))
        merit = descending((away * away).sum(-1).float())
        level = of_levels(range(count), candidates.anchor, grid_sizes)
        # Each pair of a row and a level is a group of its own; all groups are processed together.
        merits = [torch.where(candidates.inside & (level == i), merit, 0.0) for i in range(count)]
        groups = [torch.where(layout.group < rows, layout.group + i * rows, count * rows) for i in range(count)]
        stacked = Layout(torch.cat(groups), layout.begin, layout.first, layout.fits.repeat(count))
        best, entry = first_top_k(torch.cat(merits), stacked, self.number)
        first = torch.arange(count, device=entry.device)[:, None] * (pages * width)
        place = torch.where(best.flatten() > 0, (entry.view(count, -1) - first).flatten(), pages * width)
        kept = place.new_zeros(pages * width + 1).scatter(0, place, torch.ones_like(place))[:-1]
        return candidates.only(kept.view(pages, width) > 0)

    def _half(self, at: Tensor, grid: tuple[int, int]) -> Tensor:
        """`[N, 2]` cells along x and y beyond which no nearest anchor lies, for centres in units of anchor indices.

        The farthest corner of a block of k anchors is at a distance D. No anchor farther away can be among the k
        nearest, so they reach `sqrt(D^2 - d^2)` along one axis, d being the distance to the nearest line of the other.
        """
        height, width = grid
        columns = min(math.ceil(math.sqrt(self.number)), width)
        lines = min(math.ceil(self.number / columns), height)
        columns = min(math.ceil(self.number / lines), width)
        farthest, nearest = [], []
        for x, size, block in zip(at.unbind(-1), (width, height), (columns, lines), strict=True):
            first = (x - (block - 1) / 2).round().clamp(0.0, float(size - block))
            farthest.append(torch.maximum((x - first).abs(), (x - first - (block - 1)).abs()))
            nearest.append(x - x.round().clamp(0.0, float(size - 1)))
        corner = farthest[0].square() + farthest[1].square()
        return torch.stack([corner - nearest[1].square(), corner - nearest[0].square()], -1).sqrt()


def centre_of(boxes: Tensor) -> Tensor:
    """`[N, 2]` centres of upright boxes `[N, 4]` xyxy.

    Raises:
        ValueError: for oriented boxes.
    """
    check_shape("boxes of an assigner that looks at centres", boxes, ["N", 4])
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def inside_box(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether points `[..., 2]` lie strictly inside boxes `[..., 4]` xyxy."""
    return (torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1) > MARGIN).all(-1)


def near_centre(points: Tensor, boxes: Tensor, strides: Tensor, radius: float) -> Tensor:
    """Whether points `[..., 2]` are less than `radius` strides `[...]` from the centres of boxes `[..., 4]`."""
    centre, half = (boxes[..., :2] + boxes[..., 2:]) / 2, radius * strides[..., None]
    return inside_box(points, torch.cat([centre - half, centre + half], -1))
