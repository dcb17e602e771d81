"""Anchor points of a head's levels, and the codes between raw outputs, distances, boxes and keypoints.

Letters: B images, A anchors, L levels, R distance bins, K keypoints, P any leading shape. Grid units
unless said otherwise.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from compiled_loss.checks import require
from compiled_loss.numerics import decay, stack_planes


class Sides(NamedTuple):
    """The distances that side-distance logits mean, and what their softmax was made of.

    Args:
        distances: `[P, 4]` expected distance over the bins.
        peaks: `[P, 4]` largest logit of each side.
        masses: `[P, 4]` sum over the bins of `exp(logit - peak)`.
    """

    distances: Tensor
    peaks: Tensor
    masses: Tensor


class Anchors(NamedTuple):
    """Anchor points of all levels, finest first, row-major within a level.

    Args:
        points: `[A, 2]` (x, y) in grid units of the level.
        strides: `[A]` pixels per grid unit.
    """

    points: Tensor
    strides: Tensor


def make_anchors(
    grid_sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Anchors:
    """Anchor points `(x + 0.5, y + 0.5)` of every level's cells.

    Args:
        grid_sizes: rows and columns `(h, w)` of each level, finest first.
        strides: pixels per grid unit of each level.
        dtype: of the result.
        device: of the result.

    Returns:
        `Anchors(points [A, 2], strides [A])`.

    Raises:
        ValueError: when the two sequences differ in length.

    Example:
        >>> make_anchors([(1, 2), (1, 1)], [8, 16]).points
        tensor([[0.5000, 0.5000],
                [1.5000, 0.5000],
                [0.5000, 0.5000]])
    """
    require(len(grid_sizes) == len(strides), "grid_sizes", f"{len(strides)} levels as strides", len(grid_sizes))
    points, scales = [], []
    for (height, width), stride in zip(grid_sizes, strides, strict=True):
        x = torch.arange(width, dtype=dtype, device=device) + 0.5
        y = torch.arange(height, dtype=dtype, device=device) + 0.5
        points.append(torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1).reshape(-1, 2))
        scales.append(torch.full((height * width,), stride, dtype=dtype, device=device))
    return Anchors(torch.cat(points), torch.cat(scales))


def decode_sides(logits: Tensor, dim: int = -1) -> Sides:
    """Expected distance over the bins: `d = sum_j j softmax(z)_j`; with one bin the raw value.

    Args:
        logits: `[P, 4, R]` side-distance logits, sides left, top, right, bottom; or the bins on another dimension.
        dim: the dimension of the bins.

    Returns:
        `Sides`, each of the shape of `logits` without `dim`.

    Source: Generalized Focal Loss, arXiv 2006.04388.

    Example:
        >>> decode_sides(torch.zeros(1, 4, 3)).distances
        tensor([[1., 1., 1., 1.]])
    """
    if logits.shape[dim] == 1:
        raw = logits.squeeze(dim)
        return Sides(raw, raw, torch.ones_like(raw))
    # Bin by bin for both sums at once: a softmax, or its numerators, would be written out first.
    peak = logits.detach().amax(dim)
    weights = [decay(logit - peak) for logit in logits.unbind(dim)]
    moment, mass = torch.zeros_like(peak), weights[0]
    for distance, weight in enumerate(weights[1:], start=1):
        moment, mass = moment + weight * distance, mass + weight
    return Sides(moment / mass, peak, mass)


def decode_distances(logits: Tensor, dim: int = -1) -> Tensor:
    """The distances of `decode_sides` alone.

    Args:
        logits: `[P, 4, R]` side-distance logits; or the bins on another dimension.
        dim: the dimension of the bins.

    Returns:
        `[P, 4]` distances: the shape of `logits` without `dim`.

    Example:
        >>> decode_distances(torch.zeros(1, 4, 3))
        tensor([[1., 1., 1., 1.]])
    """
    return decode_sides(logits, dim).distances


def distances_to_boxes(points: Tensor, distances: Tensor) -> Tensor:
    """Boxes `(x-l, y-t, x+r, y+b)` around anchor points.

    Args:
        points: `[P, 2]` anchor points.
        distances: `[P, 4]` left, top, right, bottom.

    Returns:
        `[P, 4]` xyxy, in the units given.

    Example:
        >>> distances_to_boxes(torch.tensor([[5.0, 5.0]]), torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        tensor([[4., 3., 8., 9.]])
    """
    (x, y), (left, top, right, bottom) = points.unbind(-1), distances.unbind(-1)
    return stack_planes(x - left, y - top, x + right, y + bottom)


def boxes_to_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances from anchor points to the sides of boxes, the inverse of `distances_to_boxes`.

    Args:
        points: `[P, 2]` anchor points.
        boxes: `[P, 4]` xyxy.

    Returns:
        `[P, 4]` left, top, right, bottom; negative where the point lies beyond that side.

    Example:
        >>> boxes_to_distances(torch.tensor([[5.0, 5.0]]), torch.tensor([[4.0, 3.0, 8.0, 9.0]]))
        tensor([[1., 2., 3., 4.]])
    """
    left_top, right_bottom = boxes.chunk(2, -1)
    return torch.cat([points - left_top, right_bottom - points], -1)


def decode_keypoints(raw: Tensor, points: Tensor) -> Tensor:
    """Keypoint positions `2 raw + (anchor - 0.5)` (v8 heads).

    Args:
        raw: `[P, K, 2]` raw (x, y).
        points: `[P, 2]` anchor points.

    Returns:
        `[P, K, 2]` positions in grid units.

    Example:
        >>> decode_keypoints(torch.zeros(1, 1, 2), torch.tensor([[2.5, 3.5]]))
        tensor([[[2., 3.]]])
    """
    return 2.0 * raw + (points[..., None, :] - 0.5)
