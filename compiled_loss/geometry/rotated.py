"""Oriented boxes and their overlap, pair by pair: the two arguments broadcast against each other.

A box is (cx, cy, w, h, angle): its centre and sides in any one unit, and the angle in radians by which its width is
turned from the x axis towards the y axis.
"""

import torch
from torch import Tensor

from compiled_loss.numerics import log1p, one_minus_exp

EPS = 1e-7


def decode_rotated(points: Tensor, distances: Tensor, angles: Tensor) -> Tensor:
    """Boxes of the distances from anchor points to the four sides, measured along axes turned by an angle.

    With `(dx, dy) = ((r - l) / 2, (b - t) / 2)` the centre is the point plus `(dx, dy)` turned by the angle; the sides
    are `l + r` and `t + b`.

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
    low, high = distances.chunk(2, -1)
    dx, dy = ((high - low) / 2).unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    turned = torch.stack([dx * cos - dy * sin, dx * sin + dy * cos], -1)
    return torch.cat([points + turned, low + high, angles[..., None]], -1)


def rotated_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances from points to the sides of boxes along the boxes' own axes, the inverse of `decode_rotated`.

    Args:
        points: `[..., 2]`.
        boxes: `[..., 5]`, same unit.

    Returns:
        `[..., 4]` left, top, right, bottom; negative where the point lies beyond that side.

    Example:
        >>> rotated_distances(torch.zeros(2), torch.tensor([2.0, 0.0, 4.0, 2.0, 0.0]))
        tensor([0., 1., 4., 1.])
    """
    half, cos, sin = boxes[..., 2:4] / 2, boxes[..., 4].cos(), boxes[..., 4].sin()
    dx, dy = (boxes[..., :2] - points).unbind(-1)
    centre = torch.stack([dx * cos + dy * sin, dy * cos - dx * sin], -1)
    return torch.cat([half - centre, half + centre], -1)


def rotated_hull(boxes: Tensor) -> Tensor:
    """The smallest upright box around each.

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
    # By projections on the two sides that meet in a corner. Where a point lies on a side the rounding decides, and this
    # way of computing it is the customary one. Coordinate by coordinate: pairs on a last dimension are slow to compile.
    (x, y), (centre_x, centre_y, width, height, angle) = points.unbind(-1), boxes.unbind(-1)
    half_width, half_height, cos, sin = width / 2, height / 2, angle.cos(), angle.sin()
    along_x, along_y = half_width * cos, half_width * sin
    across_x, across_y = -half_height * sin, half_height * cos
    corner_x, corner_y = centre_x + along_x + across_x, centre_y + along_y + across_y

    def within(side_x: Tensor, side_y: Tensor) -> Tensor:
        reach = (x - corner_x) * side_x + (y - corner_y) * side_y
        return (reach >= 0) & (reach <= side_x * side_x + side_y * side_y)

    first = within(centre_x + along_x - across_x - corner_x, centre_y + along_y - across_y - corner_y)
    return first & within(centre_x - along_x + across_x - corner_x, centre_y - along_y + across_y - corner_y)


def probiou(boxes1: Tensor, boxes2: Tensor, floor: float = 0.0) -> Tensor:
    """Probabilistic IoU: one minus the Hellinger distance of the Gaussians that stand for two boxes.

    A box has the variances `p = w^2 / 12 + floor` and `q = h^2 / 12 + floor` along its axes. With the sum C of both
    covariances, `S = det C` and the centres' difference d, the Bhattacharyya distance is
    `D = d' adj(C) d / (4 (S + eps)) + ln(S / (4 sqrt(p1 q1 p2 q2) + eps) + eps) / 2`, clamped to `[eps, 100]`, and the
    overlap is `1 - sqrt(1 - exp(-D) + eps)`.

    Args:
        boxes1: `[..., 5]`.
        boxes2: `[..., 5]`, same unit.
        floor: least variance, that unit squared; above 0 the gradient stays small for boxes without extent.

    Returns:
        `[...]`, below 1.

    Source: arXiv 2106.06072.

    Example:
        >>> square, line = torch.tensor([0.0, 0, 4, 4, 0]), torch.tensor([0.0, 0, 8, 2, 0.5])
        >>> round(probiou(square, square).item(), 3), round(probiou(square, line).item(), 3)
        (1.0, 0.553)
    """
    (p1, q1), (p2, q2) = _deviations(boxes1, floor), _deviations(boxes2, floor)
    turn = boxes1[..., 4] - boxes2[..., 4]
    area1, area2 = p1 * q1, p2 * q2
    # det C less 4 sqrt(p1 q1 p2 q2), as a sum of squares: it is what is small where boxes agree, and the determinants
    # of thin boxes would cancel.
    excess = (area1 - area2).square()
    excess = excess + (turn.cos() * (p1 * q2 - q1 * p2)).square() + (turn.sin() * (p1 * p2 - q1 * q2)).square()
    quadruple = 4 * area1 * area2
    dx, dy = (boxes1[..., :2] - boxes2[..., :2]).unbind(-1)
    offset = _stretched(dx, dy, boxes1[..., 4], p1, q1) + _stretched(dx, dy, boxes2[..., 4], p2, q2)
    distance = offset / (4 * (excess + quadruple + EPS)) + log1p((excess - EPS) / (quadruple + EPS) + EPS) / 2
    return 1 - (one_minus_exp(distance.clamp(EPS, 100.0)) + EPS).sqrt()


def _deviations(boxes: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Standard deviations along the width and along the height."""
    variance = boxes[..., 2:4].square() / 12 + floor
    # The root's slope at 0 is infinite.
    deviation = torch.where(variance > 0, torch.where(variance > 0, variance, 1.0).sqrt(), variance)
    return deviation[..., 0], deviation[..., 1]


def _stretched(dx: Tensor, dy: Tensor, angle: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """`d' adj(C) d` of one box: each part of d along one of its axes times the deviation along the other, squared."""
    cos, sin = angle.cos(), angle.sin()
    return (q * (dx * cos + dy * sin)).square() + (p * (dx * sin - dy * cos)).square()
