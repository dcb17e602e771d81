"""Candidates of oriented boxes: the rectangle of cells around a box, and the anchors there that lie inside it.

Letters: N rows, A anchors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compiled_loss.assign.candidates import Candidates
from compiled_loss.assign.regions import Region
from compiled_loss.checks import check_shape
from compiled_loss.geometry.rotated import inside_rotated, rotated_hull

# An anchor on a side may count as inside even though, by rounding, the hull does not quite reach it.
_SLACK = 4e-6


@dataclass(frozen=True)
class InRotatedBox(Region):
    """The anchors inside an oriented box or on its sides; sides below the second level's stride are enlarged to it.

    Example:
        >>> InRotatedBox().reach(torch.tensor([[32.0, 32.0, 40.0, 20.0, 0.0]]), [8, 16]).round()
        tensor([[12., 22., 52., 42.]])
    """

    oriented = True

    def reach(self, boxes: Tensor, strides: Sequence[int], grid_sizes: Sequence[tuple[int, int]] = ()) -> Tensor:
        """Upright boxes around the oriented ones."""
        check_shape("boxes of a region inside oriented boxes", boxes, ["N", 5])
        return rotated_reach(boxes, strides)

    def keep(
        self,
        candidates: Candidates,
        boxes: Tensor,
        anchors: Tensor,
        strides: Sequence[int],
        grid_sizes: Sequence[tuple[int, int]] = (),
    ) -> Candidates:
        """The anchors inside the boxes or on their sides."""
        return keep_inside(candidates, boxes, anchors, strides)


def enlarge_rotated(boxes: Tensor, smallest: int) -> Tensor:
    """Enlarge sides shorter than `smallest` to it, keeping the box centre.

    Args:
        boxes: `[N, 5]` (cx, cy, w, h, angle), pixels.
        smallest: least side, pixels.

    Returns:
        `[N, 5]`.

    Example:
        >>> enlarge_rotated(torch.tensor([[9.0, 9.0, 2.0, 20.0, 0.5]]), 16)
        tensor([[ 9.0000,  9.0000, 16.0000, 20.0000,  0.5000]])
    """
    sides = boxes[:, 2:4]
    return torch.cat([boxes[:, :2], torch.where(sides < smallest, smallest, sides), boxes[:, 4:]], 1)


def rotated_reach(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """Upright boxes around all candidates of oriented ones, whose cells are examined.

    Args:
        boxes: `[N, 5]` (cx, cy, w, h, angle), float32 pixels.
        strides: pixels per grid unit of each level, finest first.

    Returns:
        `[N, 4]` xyxy, pixels.

    Example:
        >>> rotated_reach(torch.tensor([[32.0, 32.0, 40.0, 20.0, 0.0]]), [8, 16]).round()
        tensor([[12., 22., 52., 42.]])
    """
    boxes = enlarge_rotated(boxes, strides[min(1, len(strides) - 1)])
    low, high = rotated_hull(boxes).chunk(2, -1)
    slack = boxes[:, :4].abs().sum(1, keepdim=True) * _SLACK
    return torch.cat([low - slack, high + slack], -1)


def keep_inside(candidates: Candidates, boxes: Tensor, anchors: Tensor, strides: Sequence[int]) -> Candidates:
    """Keep the anchors inside oriented boxes or on their sides, with short sides enlarged to the second stride.

    Args:
        candidates: the anchors in the upright boxes of `rotated_reach`.
        boxes: `[N, 5]` (cx, cy, w, h, angle), float32 pixels.
        anchors: `[A, 2]` anchor points, pixels.
        strides: pixels per grid unit of each level, finest first.

    Returns:
        `Candidates`, reduced to these.

    Example:
        >>> from compiled_loss.assign.candidates import find_cells, list_candidates
        >>> from compiled_loss.grid import make_anchors
        >>> from compiled_loss.pages import lay_out
        >>> grids, row = [(4, 4), (2, 2)], torch.tensor([0])
        >>> points, strides = make_anchors(grids, [8, 16])
        >>> box = torch.tensor([[16.0, 16.0, 40.0, 1.0, torch.pi / 4]])
        >>> cells = find_cells(rotated_reach(box, [8, 16]), row == 0, grids, [8, 16])
        >>> around = list_candidates(cells, lay_out(cells.counts[:-1], 1), row, grids)
        >>> c = keep_inside(around, box, points * strides[:, None], [8, 16])
        >>> c.anchor[c.inside], cells.counts
        (tensor([ 0,  1,  4,  5,  6,  9, 10, 11, 14, 15, 16, 19]), tensor([20,  0], dtype=torch.int32))
    """
    enlarged = candidates.of_rows(enlarge_rotated(boxes, strides[min(1, len(strides) - 1)]))
    return candidates.only(inside_rotated(anchors[candidates.anchor], enlarged))
