"""Oriented boxes and their overlap, pair by pair: the two arguments broadcast against each other.

A box is (cx, cy, w, h, angle): its centre and sides in any one unit, and the angle in radians by which its width is
rotated from the x axis towards the y axis.

Values that depend on a single box are stacked, so that they are not recomputed for every pair.
"""

import torch
from torch import Tensor

from compiled_loss.geometry.boxes import comparable
from compiled_loss.numerics import log1p, one_minus_exp, root, stack_planes

EPS = 1e-7


def decode_rotated(points: Tensor, distances: Tensor, angles: Tensor) -> Tensor:
    """Boxes from the distances from anchor points to the four sides, measured along axes rotated by an angle.

    With `(dx, dy) = ((r - l) / 2, (b - t) / 2)`, the centre is the point plus `(dx, dy)` rotated by the angle; the
    sides are `l + r` and `t + b`.

    Args:
        points: `[..., 2]` anchor points.
        distances: `[..., 4]` left, top, right, bottom.
        angles: `[...]` radians.

    Returns:
        `[..., 5]` boxes in the unit given.

    Example:
        >>> decode_rotated(torch.zeros(2), torch.tensor([0.0, 1.0, 4.0, 1.0]), torch.tensor(0.0))
        tensor([2., 0., 4., 2., 0.])
    """
    (x, y), (left, top, right, bottom) = points.unbind(-1), distances.unbind(-1)
    dx, dy, cos, sin = (right - left) / 2, (bottom - top) / 2, angles.cos(), angles.sin()
    centre = x + (dx * cos - dy * sin), y + (dx * sin + dy * cos)
    return stack_planes(*centre, left + right, top + bottom, angles)


def rotated_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances from points to the sides of boxes along the boxes' own axes, the inverse of `decode_rotated`.

    Args:
        points: `[..., 2]`.
        boxes: `[..., 5]`, same unit.

    Returns:
        `[..., 4]` left, top, right, bottom; negative if the point lies beyond that side.

    Example:
        >>> rotated_distances(torch.zeros(2), torch.tensor([2.0, 0.0, 4.0, 2.0, 0.0]))
        tensor([0., 1., 4., 1.])
    """
    (x, y), (centre_x, centre_y, width, height, angle) = points.unbind(-1), boxes.unbind(-1)
    dx, dy, cos, sin = centre_x - x, centre_y - y, angle.cos(), angle.sin()
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    return stack_planes(width / 2 - along, height / 2 - across, width / 2 + along, height / 2 + across)


def rotated_hull(boxes: Tensor) -> Tensor:
    """The smallest upright box around each oriented box.

    Args:
        boxes: `[..., 5]`.

    Returns:
        `[..., 4]` xyxy.

    Example:
        >>> rotated_hull(torch.tensor([5.0, 5.0, 4.0, 2.0, 0.0]))
        tensor([3., 4., 7., 6.])
    """
    centre, (width, height) = boxes[..., :2], boxes[..., 2:4].unbind(-1)
    cos, sin = boxes[..., 4].cos().abs(), boxes[..., 4].sin().abs()
    half = torch.stack([width * cos + height * sin, width * sin + height * cos], -1) / 2
    return torch.cat([centre - half, centre + half], -1)


def inside_rotated(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether points lie inside boxes or on their sides.

    Args:
        points: `[..., 2]`.
        boxes: `[..., 5]`, same unit.

    Returns:
        `[...]` bool; False where anything is NaN.

    Example:
        >>> inside_rotated(torch.tensor([[7.0, 5.0], [7.5, 5.0]]), torch.tensor([5.0, 5.0, 4.0, 2.0, 0.0]))
        tensor([ True, False])
    """
    # By projections on the two sides that meet in a corner. For points on a side rounding decides, and this is the
    # customary way to compute it.
    (x, y), (corner_x, corner_y, *sides) = points.unbind(-1), _corners(boxes).unbind(-1)

    def within(side_x: Tensor, side_y: Tensor) -> Tensor:
        reach = (x - corner_x) * side_x + (y - corner_y) * side_y
        return (reach >= 0) & (reach <= side_x * side_x + side_y * side_y)

    return within(*sides[:2]) & within(*sides[2:])


def _corners(boxes: Tensor) -> Tensor:
    """`[..., 6]`: a corner, and the two sides from there to its neighbours."""
    centre_x, centre_y, width, height, angle = boxes.unbind(-1)
    half_width, half_height, cos, sin = width / 2, height / 2, angle.cos(), angle.sin()
    along_x, along_y = half_width * cos, half_width * sin
    across_x, across_y = -half_height * sin, half_height * cos
    corner_x, corner_y = centre_x + along_x + across_x, centre_y + along_y + across_y
    across = centre_x + along_x - across_x - corner_x, centre_y + along_y - across_y - corner_y
    along = centre_x - along_x + across_x - corner_x, centre_y - along_y + across_y - corner_y
    return stack_planes(corner_x, corner_y, *across, *along)


def probiou(boxes1: Tensor, boxes2: Tensor, floor: float = 0.0) -> Tensor:
    """Probabilistic IoU: one minus the Hellinger distance of the Gaussians that represent two boxes.

    A box has the variances `p = w^2 / 12 + floor` and `q = h^2 / 12 + floor` along its axes. With C the sum of both
    covariances, `S = det C` and d the difference of the centres, the Bhattacharyya distance is
    `D = d' adj(C) d / (4 (S + eps)) + ln(S / (4 sqrt(p1 q1 p2 q2) + eps) + eps) / 2`, clamped to `[eps, 100]`, and the
    overlap is `1 - sqrt(1 - exp(-D) + eps)`.

    Args:
        boxes1: `[..., 5]`.
        boxes2: `[..., 5]`, same unit.
        floor: smallest variance, in that unit squared; above 0, it keeps gradients small for boxes without extent.

    Returns:
        `[...]`, below 1.

    Source: arXiv 2106.06072.

    Example:
        >>> square, line = torch.tensor([0.0, 0, 4, 4, 0]), torch.tensor([0.0, 0, 8, 2, 0.5])
        >>> round(probiou(square, square).item(), 3), round(probiou(square, line).item(), 3)
        (1.0, 0.553)
    """
    boxes1, boxes2 = comparable(5, boxes1=boxes1, boxes2=boxes2)
    return gaussian_overlap(gaussians(boxes1, floor), gaussians(boxes2, floor))


def gaussians(boxes: Tensor, floor: float = 0.0) -> Tensor:
    """The Gaussians that represent boxes in `probiou`.

    Args:
        boxes: `[..., 5]`.
        floor: smallest variance, in that unit squared.

    Returns:
        `[..., 6]`: the centre, the standard deviations along the width and along the height, cosine and sine of the
        angle.

    Example:
        >>> gaussians(torch.tensor([5.0, 7.0, 12.0, 6.0, 0.0])).square()
        tensor([25., 49., 12.,  3.,  1.,  0.])
    """
    (boxes,) = comparable(5, boxes=boxes)
    x, y, width, height, angle = boxes.unbind(-1)
    deviations = root(width.square() / 12 + floor), root(height.square() / 12 + floor)
    return stack_planes(x, y, *deviations, angle.cos(), angle.sin())


def gaussian_overlap(first: Tensor, second: Tensor) -> Tensor:
    """`probiou` of boxes given by their Gaussians.

    Args:
        first: `[..., 6]` as from `gaussians`.
        second: `[..., 6]`, same unit.

    Returns:
        `[...]`, below 1.

    Example:
        >>> one, other = gaussians(torch.tensor([[0.0, 0, 4, 4, 0], [0.0, 0, 8, 2, 0.5]]))
        >>> round(gaussian_overlap(one, other).item(), 3)
        0.553
    """
    (x1, y1, p1, q1, cos1, sin1), (x2, y2, p2, q2, cos2, sin2) = first.unbind(-1), second.unbind(-1)
    cos, sin = cos1 * cos2 + sin1 * sin2, sin1 * cos2 - cos1 * sin2
    area1, area2 = p1 * q1, p2 * q2
    # det C minus 4 sqrt(p1 q1 p2 q2), as a sum of squares: it is small if boxes agree, and the determinants of thin
    # boxes would cancel.
    excess = (area1 - area2).square()
    excess = excess + (cos * (p1 * q2 - q1 * p2)).square() + (sin * (p1 * p2 - q1 * q2)).square()
    quadruple = 4 * area1 * area2
    dx, dy = x1 - x2, y1 - y2
    # d' adj(C) d: each part of d along an axis times the deviation along the other, squared.
    offset = (q1 * (dx * cos1 + dy * sin1)).square() + (p1 * (dx * sin1 - dy * cos1)).square()
    offset = offset + (q2 * (dx * cos2 + dy * sin2)).square() + (p2 * (dx * sin2 - dy * cos2)).square()
    distance = offset / (4 * (excess + quadruple + EPS)) + log1p((excess - EPS) / (quadruple + EPS) + EPS) / 2
    return 1 - (one_minus_exp(distance.clamp(EPS, 100.0)) + EPS).sqrt()
