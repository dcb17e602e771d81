"""Candidate windows: the anchors inside a box, listed by integer arithmetic instead of a search.

The anchors of one level that lie inside a box form a rectangle of grid cells. Its corners follow from the
box, so slot j of a row's window is turned into (level, y, x), and so into an anchor index, without
looking at the others. Slots follow the anchor index.

Letters: N rows, L levels, W window width (slots per row), A anchors.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# A candidate's distance to each side must exceed this, in pixels.
MARGIN = 1e-9


class Windows(NamedTuple):
    """Candidate anchors of every row.

    Args:
        anchor: `[N, W]` anchor index of each slot, ascending; 0 in slots without candidate.
        inside: `[N, W]` bool, True where the slot holds a candidate.
        counts: `[N]` slots that the row needs, those beyond W included.

    Example:
        >>> one = Windows(torch.tensor([[3, 4, 0]]), torch.tensor([[True, True, False]]), torch.tensor([2]))
        >>> one.anchor[one.inside]
        tensor([3, 4])
    """

    anchor: Tensor
    inside: Tensor
    counts: Tensor


class _Rectangle(NamedTuple):
    """Cells of one level inside each box: `[N]` each, first column and row, columns and rows."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor


def enlarge_small_sides(boxes: Tensor, smallest: int) -> Tensor:
    """Sides shorter than `smallest` grow to it about the box centre.

    Args:
        boxes: `[N, 4]` xyxy, pixels.
        smallest: least side, pixels.

    Returns:
        `[N, 4]` xyxy, pixels; every side is centre plus or minus half, so longer ones may move by a rounding.

    Example:
        >>> enlarge_small_sides(torch.tensor([[0.0, 0.0, 2.0, 20.0]]), 16)
        tensor([[-7.,  0.,  9., 20.]])
    """
    low, high = boxes.chunk(2, -1)
    side, centre = high - low, (low + high) / 2
    half = torch.where(side < smallest, smallest, side) / 2
    return torch.cat([centre - half, centre + half], -1)


def candidate_counts(boxes: Tensor, grid_sizes: Sequence[tuple[int, int]], strides: Sequence[int]) -> Tensor:
    """Number of anchors strictly inside every box, small boxes enlarged: the window a row needs.

    Args:
        boxes: `[N, 4]` xyxy, float32 pixels.
        grid_sizes: rows and columns `(h, w)` of each level, finest first.
        strides: pixels per grid unit of each level.

    Returns:
        `[N]` int64.

    Example:
        >>> candidate_counts(torch.tensor([[0.0, 0.0, 16.0, 16.0]]), [(8, 8), (4, 4)], [8, 16])
        tensor([5])
    """
    count = torch.zeros(boxes.shape[0], dtype=torch.int64, device=boxes.device)
    for rectangle in _rectangles(boxes, grid_sizes, strides):
        count = count + rectangle.width * rectangle.height
    return count


def fitting_levels(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """Levels whose stride s fits a box, `2 s <= sqrt(w h) <= 12 s`; the outermost levels are open to their side.

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


def candidate_windows(
    boxes: Tensor,  # [N, 4] xyxy, pixels
    real: Tensor,  # [N] bool
    grid_sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    width: int | None,
    *,
    levels: Tensor | None = None,  # [N, L] bool
) -> Windows:
    """List the anchors strictly inside every box, small boxes enlarged to the second level's stride.

    Args:
        boxes: `[N, 4]` xyxy, float32 pixels.
        real: `[N]` bool; rows without it have no candidates.
        grid_sizes: rows and columns `(h, w)` of each level, finest first.
        strides: pixels per grid unit of each level.
        width: slots per row W; None makes room for every anchor.
        levels: `[N, L]` bool, levels on which a row may have candidates; a row that these leave without any, and every
            row where it is None, has them on all levels.

    Returns:
        `Windows(anchor [N, W], inside [N, W], counts [N])`.

    Source: the in-box test of the task-aligned assigner, arXiv 2108.07755.

    Example:
        >>> box = torch.tensor([[8.0, 0.0, 25.0, 16.0]])
        >>> w = candidate_windows(box, torch.tensor([True]), [(2, 4), (1, 2)], [8, 16], 6)
        >>> w.anchor[w.inside], w.counts
        (tensor([1, 2, 5, 6, 9]), tensor([5]))
    """
    if width is None:
        width = sum(height * columns for height, columns in grid_sizes)
    # 32-bit, since 64-bit integers halve the vector width and convert slowly to float; anchors are far fewer than 2^31.
    slot = torch.arange(width, dtype=torch.int32, device=boxes.device)
    start = torch.zeros(boxes.shape[0], 1, dtype=torch.int32, device=boxes.device)
    level_start = 0
    # Values of the slot's own level, overwritten level by level.
    local, columns, base, row_length = slot, start + 1, start, start
    rectangles = _rectangles(boxes, grid_sizes, strides)
    areas = [torch.where(real, rectangle.width * rectangle.height, 0) for rectangle in rectangles]
    if levels is not None:
        allowed = [torch.where(level, area, 0) for level, area in zip(levels.unbind(1), areas, strict=True)]
        some = torch.stack(allowed).sum(0) > 0
        areas = [torch.where(some, part, area) for part, area in zip(allowed, areas, strict=True)]
    for (height, length), rectangle, area in zip(grid_sizes, rectangles, areas, strict=True):
        here = slot >= start
        local = torch.where(here, slot - start, local)
        columns = torch.where(here, rectangle.width[:, None].clamp(min=1), columns)
        base = torch.where(here, (level_start + rectangle.y * length + rectangle.x)[:, None], base)
        row_length = torch.where(here, length, row_length)
        start = start + area[:, None]
        level_start = level_start + height * length
    # Integer division by a tensor is slow; the half keeps the quotient clear of integers, so floor is exact.
    y = torch.floor((local + 0.5) / columns).int()
    inside = slot < start
    anchor = torch.where(inside, base + y * (row_length - columns) + local, 0)
    return Windows(anchor.long(), inside, start.squeeze(1).long())


def _rectangles(boxes: Tensor, grid_sizes: Sequence[tuple[int, int]], strides: Sequence[int]) -> list[_Rectangle]:
    boxes = enlarge_small_sides(boxes, strides[min(1, len(strides) - 1)])
    left, top, right, bottom = boxes.unbind(-1)
    found = []
    for (height, width), stride in zip(grid_sizes, strides, strict=True):
        (x, columns), (y, rows) = _cells(left, right, stride, width), _cells(top, bottom, stride, height)
        found.append(torch.stack([x, y, columns, rows]))
    # A stack is computed once, where its parts would be anew for every slot of a window.
    return [_Rectangle(*corners.unbind(0)) for corners in found]


def _cells(low: Tensor, high: Tensor, stride: int, size: int) -> tuple[Tensor, Tensor]:
    """First cell, and number of cells, whose centres lie strictly between two coordinates.

    The quotients are off by less than a cell; testing the cell found with the very comparison that
    defines a candidate makes the result exact for any stride.
    """
    first = (low / stride - 0.5).floor().clamp(-1, size)
    first = torch.where((first + 0.5) * stride - low > MARGIN, first, first + 1)
    last = (high / stride - 0.5).ceil().clamp(-1, size)
    last = torch.where(high - (last + 0.5) * stride > MARGIN, last, last - 1)
    count = last.clamp(max=size - 1) - first.clamp(min=0) + 1
    # A NaN or reversed side compares False and counts no cell.
    count = torch.where(count > 0, count, 0)
    return torch.where(count > 0, first.clamp(min=0), 0).int(), count.int()
