"""Candidates: the anchors inside a box, listed by integer arithmetic instead of a search.

The anchors of one level that lie inside a box form a rectangle of grid cells. Its corners follow from the box, so
candidate j of a row is turned into (level, y, x), and so into an anchor index, without looking at the others. They are
listed on pages, so that work scales with their number. A row's candidates are in order of their anchor index.

Letters: B images, N rows, L levels, A anchors, G pages, S candidates of a page.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from compiled_loss.numerics import pick, stack_planes
from compiled_loss.pages import PAGE, Layout

# A candidate's distance to each side must exceed this, in pixels.
MARGIN = 1e-9
# Beyond any grid; a whole number in float32.
_FARTHEST = 2.0**20


class Cells(NamedTuple):
    """The cells of every level inside each box, plus an extra row without cells.

    32-bit, since 64-bit integers halve the vector width and convert slowly to float; anchors are far fewer than 2^31.

    Args:
        start: `[L, N + 1]` int32, number of cells on finer levels.
        columns: `[L, N + 1]` int32, columns of the level's rectangle.
        anchor: `[L, N + 1]` int32, anchor index of its first cell.
        counts: `[N + 1]` int32, number of cells on all levels.
    """

    start: Tensor
    columns: Tensor
    anchor: Tensor
    counts: Tensor


class Candidates(NamedTuple):
    """The candidate anchors of every row, on pages that belong to one row each.

    Args:
        layout: the rows' pages.
        image: `[G]` image of each page's row; 0 on empty pages.
        anchor: `[G, S]` anchor index, ascending within a row; 0 where there is no candidate.
        inside: `[G, S]` bool, True where there is a candidate.

    Example:
        >>> from compiled_loss.pages import lay_out
        >>> layout = lay_out(torch.tensor([2]), 1, width=2)
        >>> one = Candidates(layout, torch.tensor([0]), torch.tensor([[3, 4]]), torch.ones(1, 2).bool())
        >>> one.take(torch.arange(5.0).view(1, 5, 1)), one.of_rows(torch.tensor([7.0]))
        (tensor([[[3.],
                 [4.]]]), tensor([[7.]]))
    """

    layout: Layout
    image: Tensor
    anchor: Tensor
    inside: Tensor

    def take(self, x: Tensor) -> Tensor:
        """Read `[B, A, ...]` predictions at the candidates, `[G, S, ...]`; each channel of a 3-D input contiguous."""
        places = self.image[:, None] * x.shape[1] + self.anchor
        if x.dim() != 3:
            return x.flatten(0, 1)[places]
        return stack_planes(*(pick(plane, places) for plane in x.flatten(0, 1).unbind(-1)))

    def of_rows(self, x: Tensor) -> Tensor:
        """Spread per-row values `[N, ...]` over the pages, `[G, 1, ...]`; 0 on empty pages."""
        return torch.cat([x, x.new_zeros(1, *x.shape[1:])])[self.layout.group][:, None]

    def only(self, mask: Tensor) -> "Candidates":
        """The candidates that are also in a `[G, S]` mask."""
        inside = self.inside & mask
        return self._replace(anchor=torch.where(inside, self.anchor, 0), inside=inside)

    def on_first(self, pages: int) -> "Candidates":
        """The candidates on the first `pages` pages, which may be fewer or more than exist; rows beyond do not fit."""
        (group, begin, first, fits), there = self.layout, self.anchor.shape[0]
        page, every = (torch.arange(x, device=group.device) for x in (pages, there))
        # In tensors, since a graph cannot branch on which of the two numbers is larger.
        some, page = page < there, page.clamp(max=there - 1)
        beyond = torch.where(every < pages, fits.shape[0], group)
        cut = fits.new_zeros(fits.shape[0] + 1).scatter(0, beyond, torch.ones_like(beyond, dtype=torch.bool))[:-1]
        group = torch.where(some, group[page], fits.shape[0])
        image, anchor, inside = (x[page] for x in (self.image, self.anchor, self.inside))
        return Candidates(Layout(group, begin[page], first, fits & ~cut), image, anchor, inside & some[:, None])


def find_cells(
    boxes: Tensor,  # [N, 4] xyxy, pixels, or [L, N, 4]
    real: Tensor,  # [N] bool
    grid_sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    *,
    levels: Tensor | None = None,  # [N, L] bool
) -> Cells:
    """Find, for every box, the cells whose anchors lie strictly inside it.

    Args:
        boxes: `[N, 4]` xyxy, float32 pixels; `[L, N, 4]` if they differ between levels.
        real: `[N]` bool; rows where it is False have no cells.
        grid_sizes: rows and columns `(h, w)` of each level, finest first.
        strides: pixels per grid unit of each level.
        levels: `[N, L]` bool, levels on which a row may have candidates. A row left without candidates by this uses
            all levels, and so does every row if it is None.

    Returns:
        `Cells`.

    Source: the in-box test of the task-aligned assigner, arXiv 2108.07755.

    Example:
        >>> find_cells(torch.tensor([[0.0, 0.0, 16.0, 16.0]]), torch.tensor([True]), [(8, 8), (4, 4)], [8, 16]).counts
        tensor([5, 0], dtype=torch.int32)
    """
    # An extra row, so that empty pages have something to read even in an empty batch.
    boxes = torch.cat([boxes, boxes.new_zeros(*boxes.shape[:-2], 1, 4)], -2)
    real = torch.cat([real, real.new_zeros(1)])
    low, high = boxes.mT.chunk(2, -2)
    (x, y), (across, down) = _cells(low, high, grid_sizes, strides)  # [L, N + 1] each
    areas = torch.where(real, across * down, 0)
    if levels is not None:
        allowed = torch.where(torch.cat([levels, levels.new_zeros(1, levels.shape[1])]).T, areas, 0)
        areas = torch.where(allowed.sum(0) > 0, allowed, areas)
    anchors, finer = [], 0
    for i, (height, width) in enumerate(grid_sizes):
        anchors.append(finer + y[i] * width + x[i])
        finer = finer + height * width
    ends = areas.cumsum(0, dtype=torch.int32)
    return Cells(ends - areas, across.clamp(min=1), torch.stack(anchors), ends[-1])


def list_candidates(
    cells: Cells,
    layout: Layout,
    image: Tensor,  # [N]
    grid_sizes: Sequence[tuple[int, int]],
) -> Candidates:
    """List the anchors of every row's cells on its pages.

    Args:
        cells: the cells inside every row's box.
        layout: the rows' pages.
        image: `[N]` image of each row.
        grid_sizes: rows and columns `(h, w)` of each level, finest first.

    Returns:
        `Candidates`.

    Example:
        >>> from compiled_loss.pages import lay_out
        >>> box, grids = torch.tensor([[8.0, 0.0, 25.0, 16.0]]), [(2, 4), (1, 2)]
        >>> cells = find_cells(box, torch.tensor([True]), grids, [8, 16])
        >>> c = list_candidates(cells, lay_out(cells.counts[:-1], 1), torch.tensor([0]), grids)
        >>> c.anchor[c.inside]
        tensor([1, 2, 5, 6, 9])
    """
    row = layout.group
    column = torch.arange(PAGE, dtype=torch.int32, device=row.device)
    slot = layout.begin[:, None] + column
    # A stack is computed once; its parts would be recomputed for every candidate.
    of_pages = torch.stack(cells[:3])[:, :, row, None]
    starts, columns, anchors = (x.unbind(0) for x in of_pages.unbind(0))
    # The values of the slot's own level: overwritten level by level.
    local, width, first, length = slot, columns[0], anchors[0], torch.full_like(slot, grid_sizes[0][1])
    for i in range(1, len(grid_sizes)):
        here = slot >= starts[i]
        local = torch.where(here, slot - starts[i], local)
        width = torch.where(here, columns[i], width)
        first = torch.where(here, anchors[i], first)
        length = torch.where(here, grid_sizes[i][1], length)
    # Integer division by a tensor is slow; the half keeps the quotient clear of integers, so floor is exact.
    y = torch.floor((local + 0.5) / width).int()
    inside = slot < cells.counts[row][:, None]
    anchor = torch.where(inside, first + y * (length - width) + local, 0)
    image = torch.cat([image, image.new_zeros(1)])[row]
    return Candidates(layout, image, anchor.long(), inside)


def _cells(
    low: Tensor, high: Tensor, grid_sizes: Sequence[tuple[int, int]], strides: Sequence[int]
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """First cell and number of cells, `[L, N]` along x and along y, with centres strictly between coordinates.

    These are `[2, N]`, or `[L, 2, N]`.

    The quotients are off by less than a cell; testing the cell found with the very comparison that
    defines a candidate makes the result exact for any stride.
    """
    step = torch.stack([low.new_full((1, 1), stride) for stride in strides])
    first = (low / step - 0.5).floor().clamp(-1.0, _FARTHEST)
    first = torch.where((first + 0.5) * step - low > MARGIN, first, first + 1).clamp(min=0)
    last = (high / step - 0.5).ceil().clamp(-1.0, _FARTHEST)
    last = torch.where(high - (last + 0.5) * step > MARGIN, last, last - 1)
    ends = [
        torch.stack([x.clamp(max=columns - 1), y.clamp(max=rows - 1)])
        for (x, y), (rows, columns) in zip(last.unbind(0), grid_sizes, strict=True)
    ]
    count = torch.stack(ends) - first + 1
    # A NaN or reversed side compares False and counts no cell.
    some = count > 0
    return torch.where(some, first, 0).int().unbind(1), torch.where(some, count, 0).int().unbind(1)
