"""Regions: which anchors a row may have, before any are compared.

Letters: N rows, L levels, A anchors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from compiled_loss.assign.candidates import Candidates, find_cells, list_candidates
from compiled_loss.assign.keys import MOST_EXPORTED
from compiled_loss.checks import check_shape, finite_number, kind_of, require, true_or_false
from compiled_loss.numerics import for_any_runtime
from compiled_loss.pages import PAGE, capacity, lay_out, pages_of, room_for


class Region(Protocol):
    """Where a row's candidates lie; the host counts pages from `reach` alone.

    A subclass has all anchors within reach as candidates, on every level, unless it overrides the other methods. Boxes
    are `[N, 4]` xyxy pixels; `[N, 5]` (cx, cy, w, h, angle) for the region of an oriented loss, which must set a true
    attribute `oriented` to tell the host so.

    Args:
        boxes: boxes of the rows, as above.
        strides: pixels per grid unit of each level, finest first.
        grid_sizes: rows and columns `(h, w)` of each level.

    Example:
        >>> class Middle(Region):  # the anchors in the middle third of a box
        ...     def reach(self, boxes, strides, grid_sizes):
        ...         low, high = boxes.chunk(2, -1)
        ...         return torch.cat([(2 * low + high) / 3, (low + 2 * high) / 3], -1)
        >>> Middle().reach(torch.tensor([[0.0, 0, 30, 60]]), [8], [(8, 8)])
        tensor([[10., 20., 20., 40.]])
    """

    def reach(self, boxes: Tensor, strides: Sequence[int], grid_sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Upright boxes strictly around each row's candidates, `[N, 4]` or per level `[L, N, 4]`, xyxy pixels."""
        ...

    def levels(self, boxes: Tensor, strides: Sequence[int]) -> Tensor | None:
        """`[N, L]` bool, the levels to which a row is limited, if it has candidates there; None means all."""
        return None

    @property
    def most(self) -> int | None:
        """The most anchors within reach of a row whose centre lies in the image; None means no limit."""
        return None

    def keep(
        self,
        candidates: Candidates,
        boxes: Tensor,
        anchors: Tensor,
        strides: Sequence[int],
        grid_sizes: Sequence[tuple[int, int]],
    ) -> Candidates:
        """Select the candidates among the anchors within reach; `anchors` are points `[A, 2]`, pixels."""
        return candidates


@dataclass(frozen=True)
class InBox(Region):
    """The anchors strictly inside an upright box; sides shorter than the second level's stride are enlarged to it.

    `grown=False` is meant for `TaskAligned(at_least_one=True)`, which searches further if a row finds nothing.

    Args:
        fitting_levels: use only levels whose stride s fits the box, `2 s <= sqrt(w h) <= 12 s`, or all levels if none
            of these has an anchor inside.
        farthest: use only anchors whose distance to each side is below this many strides, such as `reg_max - 1.01`, the
            most that a head can predict. A box too large for every level gets the coarsest level's anchors next to its
            centre. None means any distance.
        grown: False uses the box as it is, including anchors on its sides and at the farthest distance; a small box,
            or one too large for every level, may then have no candidates.

    Raises:
        ValueError: if the distance is below 1 or not finite, for oriented boxes, or if `grown` is not True or False.

    Source: the in-box test of the task-aligned assigner, arXiv 2108.07755; limited distances: YOLOv9 in its MIT form.

    Example:
        >>> InBox().reach(torch.tensor([[8.0, 8.0, 10.0, 48.0]]), [8, 16])
        tensor([[ 1.,  8., 17., 48.]])
    """

    fitting_levels: bool = False
    farthest: float | None = None
    grown: bool = True

    def __post_init__(self) -> None:
        true_or_false("grown", self.grown)
        if self.farthest is not None:
            object.__setattr__(self, "farthest", finite_number("farthest", self.farthest))
            require(self.farthest >= 1, "farthest", "a finite number of 1 or more", self.farthest)

    def reach(self, boxes: Tensor, strides: Sequence[int], grid_sizes: Sequence[tuple[int, int]] = ()) -> Tensor:
        """The boxes, with small ones enlarged; with `farthest`, on each level the part where all sides are near."""
        check_shape("boxes of a region inside upright boxes", boxes, ["N", 4])
        grown = enlarge_small_sides(boxes, strides[min(1, len(strides) - 1)])
        if self.farthest is None:
            return grown if self.grown else _widened(grown, strides[0])
        near = [_near_sides(grown, boxes, self.farthest * s, s == strides[-1], s) for s in strides]
        return torch.stack(near if self.grown else [_widened(x, s) for x, s in zip(near, strides, strict=True)])

    def keep(
        self,
        candidates: Candidates,
        boxes: Tensor,
        anchors: Tensor,
        strides: Sequence[int],
        grid_sizes: Sequence[tuple[int, int]],
    ) -> Candidates:
        """All within reach; if boxes do not grow, those inside. Every row has a page either way."""
        if self.grown:
            return candidates
        points, of_rows = anchors[candidates.anchor], candidates.of_rows(boxes)
        sides = torch.cat([points - of_rows[..., :2], of_rows[..., 2:] - points], -1)
        inside = (sides >= 0).all(-1)
        if self.farthest is not None:
            steps = of_levels(strides, candidates.anchor, grid_sizes)
            inside = inside & (sides / steps[..., None] <= self.farthest).all(-1)
        return candidates.only(inside)

    def levels(self, boxes: Tensor, strides: Sequence[int]) -> Tensor | None:
        """The levels that fit, if `fitting_levels` is set."""
        return fitting_levels(boxes, strides) if self.fitting_levels else None


@dataclass(frozen=True)
class WholeImage(Region):
    """All anchors of the image, for assigners that make their own choice among them.

    Example:
        >>> WholeImage().reach(torch.tensor([[8.0, 8.0, 10.0, 48.0]]), [8, 16], [(8, 8), (4, 4)])
        tensor([[-1., -1., 65., 65.]])
    """

    def reach(self, boxes: Tensor, strides: Sequence[int], grid_sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Boxes slightly larger than the image."""
        height, width = (cells * strides[0] for cells in grid_sizes[0])
        return torch.stack([torch.full_like(boxes[:, 0], x) for x in (-1, -1, width + 1, height + 1)], -1)


def candidates_in(
    region: Region,
    boxes: Tensor,  # [N, 4 or 5] pixels
    real: Tensor,  # [N] bool
    image: Tensor,  # [N]
    anchors: Tensor,  # [A, 2] pixels
    grid_sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    pages: Tensor | int | None = None,
) -> Candidates:
    """The candidates of every row, on the pages that the host planned.

    Args:
        region: where they lie.
        boxes: `[N, 4]` xyxy, float32 pixels; `[N, 5]` (cx, cy, w, h, angle) for oriented boxes.
        real: `[N]` bool; rows where it is False have no candidates.
        image: `[N]` image of each row, in `[0, B)` even for padding.
        anchors: `[A, 2]` anchor points, pixels.
        grid_sizes: rows and columns `(h, w)` of each level, finest first.
        strides: pixels per grid unit of each level.
        pages: as for `Targets.pages`.

    Returns:
        `Candidates`.

    Example:
        >>> from compiled_loss.grid import make_anchors
        >>> grids, one = [(2, 4), (1, 2)], torch.tensor([0])
        >>> points, steps = make_anchors(grids, [8, 16])
        >>> box = torch.tensor([[8.0, 0.0, 25.0, 16.0]])
        >>> c = candidates_in(InBox(), box, one == 0, one, points * steps[:, None], grids, [8, 16])
        >>> c.anchor[c.inside]
        tensor([1, 2, 5, 6, 9])
    """
    reach, levels = region.reach(boxes, strides, grid_sizes), region.levels(boxes, strides)
    near = isinstance(reach, Tensor) and reach.dim() in (2, 3) and reach.shape[-2:] == (boxes.shape[0], 4)
    expected = "boxes [N, 4] or [L, N, 4], see parts.Region"
    require(near, "region.reach(...)", expected, tuple(reach.shape) if isinstance(reach, Tensor) else kind_of(reach))
    cells = find_cells(reach, real, grid_sizes, strides, levels=levels)
    counts = cells.counts[:-1]
    room = capacity(pages, pages_of(counts))
    if room is None:
        room = room_for(counts.shape[0], anchors.shape[0])
    # Candidates on further pages would be mistaken for others: they are left out, and counted. Each level's candidates
    # may be processed apart from the others (`Nearest`), with indices of their own.
    usable = MOST_EXPORTED // (PAGE * len(strides)) if for_any_runtime() else None
    found = list_candidates(cells, lay_out(counts, room, usable=usable), image, grid_sizes)
    return region.keep(found, boxes, anchors, strides, grid_sizes)


def enlarge_small_sides(boxes: Tensor, smallest: int) -> Tensor:
    """Enlarge sides shorter than `smallest` to it, keeping the box centre.

    Args:
        boxes: `[N, 4]` xyxy, pixels.
        smallest: least side, pixels.

    Returns:
        `[N, 4]`.

    Example:
        >>> enlarge_small_sides(torch.tensor([[8.0, 8.0, 10.0, 48.0]]), 16)
        tensor([[ 1.,  8., 17., 48.]])
    """
    low, high = boxes.chunk(2, -1)
    # Every box is rebuilt from its centre, since rounding decides which anchors on a side are inside.
    centre, side = (low + high) / 2, high - low
    half = torch.where(side < smallest, smallest, side) / 2
    return torch.cat([centre - half, centre + half], -1)


def _near_sides(grown: Tensor, boxes: Tensor, far: float, never_empty: bool, stride: int) -> Tensor:
    """`[N, 4]`, the part of the grown boxes whose points are less than `far` from every side of the box."""
    low, high = boxes.chunk(2, -1)
    least, most = torch.maximum(grown[:, :2], high - far), torch.minimum(grown[:, 2:], low + far)
    if never_empty:
        # A little more than a cell always holds an anchor.
        centre, half = (low + high) / 2, 0.505 * stride
        narrow = most - least < 2 * half
        least, most = torch.where(narrow, centre - half, least), torch.where(narrow, centre + half, most)
    return torch.cat([least, most], -1)


def _widened(boxes: Tensor, stride: int) -> Tensor:
    """`[N, 4]`, enlarged just enough for anchors on their sides to lie strictly inside."""
    return torch.cat([boxes[:, :2] - 0.01 * stride, boxes[:, 2:] + 0.01 * stride], -1)


def fitting_levels(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """Levels whose stride s fits a box, `2 s <= sqrt(w h) <= 12 s`; the finest and coarsest have no outer limit.

    Args:
        boxes: `[N, 4]` xyxy, float32 pixels.
        strides: pixels per grid unit of each level, finest first.

    Returns:
        `[N, L]` bool.

    Example:
        >>> fitting_levels(torch.tensor([[0.0, 0.0, 96.0, 96.0]]), [8, 16, 32, 64])
        tensor([[ True,  True,  True, False]])
    """
    scale = (boxes[:, 2:] - boxes[:, :2]).prod(-1).sqrt()
    fits = [(2 * stride <= scale) & (scale <= 12 * stride) for stride in strides]
    fits[0] = fits[0] | (scale < 2 * strides[0])
    fits[-1] = fits[-1] | (scale > 12 * strides[-1])
    return torch.stack(fits, 1)


def of_levels(values: Sequence[int], anchor: Tensor, grid_sizes: Sequence[tuple[int, int]]) -> Tensor:
    """The value of each anchor's level, int64 of the anchors' shape.

    Args:
        values: one for each level.
        anchor: anchor indices of any shape.
        grid_sizes: rows and columns `(h, w)` of each level, finest first.

    Example:
        >>> of_levels([8, 16], torch.tensor([0, 3, 4]), [(2, 2), (1, 1)])
        tensor([ 8,  8, 16])
    """
    found, finer = torch.full_like(anchor, values[0]), 0
    for value, (height, width) in zip(values[1:], grid_sizes, strict=False):
        finer = finer + height * width
        found = torch.where(anchor >= finer, value, found)
    return found


def check_region(argument: str, value: Region | None) -> None:
    """Check that an argument is a region or None.

    Raises:
        ValueError: for anything else, such as a region's class.
    """
    is_one = value is None or (hasattr(value, "reach") and not isinstance(value, type))
    require(is_one, argument, "a region, such as loss.region", kind_of(value))
