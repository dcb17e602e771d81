"""Candidate windows of oriented boxes: the rectangle of cells around a box, and in it the anchors that lie inside.

Letters: N rows, W window width (slots per row).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from compiled_loss.assign.windows import Windows, candidate_windows
from compiled_loss.geometry.rotated import inside_rotated, rotated_hull

# An anchor on a side may count as inside although rounding leaves the hull short of it.
_SLACK = 4e-6


def enlarge_rotated(boxes: Tensor, smallest: int) -> Tensor:
    """Sides shorter than `smallest` grow to it about the box centre.

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
    """Upright boxes around all candidates of oriented ones; the cells in them are the slots of a window.

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


def rotated_windows(
    boxes: Tensor,  # [N, 5] (cx, cy, w, h, angle), pixels
    real: Tensor,  # [N] bool
    grid_sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    width: int | None,
    anchors: Tensor,  # [A, 2] pixels
) -> Windows:
    """List the anchors inside every oriented box or on its sides, small boxes enlarged to the second level's stride.

    Args:
        boxes: `[N, 5]` (cx, cy, w, h, angle), float32 pixels.
        real: `[N]` bool; rows without it have no candidates.
        grid_sizes: rows and columns `(h, w)` of each level, finest first.
        strides: pixels per grid unit of each level.
        width: slots per row W; None makes room for every anchor.
        anchors: `[A, 2]` anchor points, pixels.

    Returns:
        `Windows(anchor [N, W], inside [N, W], counts [N])`; `counts` are the cells around the box, which W must hold.

    Example:
        >>> from compiled_loss.grid import make_anchors
        >>> points, strides = make_anchors([(4, 4), (2, 2)], [8, 16])
        >>> box = torch.tensor([[16.0, 16.0, 40.0, 1.0, torch.pi / 4]])
        >>> w = rotated_windows(box, torch.tensor([True]), [(4, 4), (2, 2)], [8, 16], None, points * strides[:, None])
        >>> w.anchor[w.inside], w.counts
        (tensor([ 0,  1,  4,  5,  6,  9, 10, 11, 14, 15, 16, 19]), tensor([20]))
    """
    windows = candidate_windows(rotated_reach(boxes, strides), real, grid_sizes, strides, width)
    enlarged = enlarge_rotated(boxes, strides[min(1, len(strides) - 1)])
    inside = windows.inside & inside_rotated(anchors[windows.anchor], enlarged[:, None])
    return Windows(torch.where(inside, windows.anchor, 0), inside, windows.counts)
