"""Oriented boxes as Gaussians with half the sides as deviations, and distances between them, pair by pair.

A box is (cx, cy, w, h, angle), as in `rotated`: its variances along its axes are `p^2 = w^2 / 4 + floor` and
`q^2 = h^2 / 4 + floor`. The floor keeps values and gradients of boxes without extent finite.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from compiled_loss.checks import finite_number, require
from compiled_loss.geometry.boxes import comparable
from compiled_loss.numerics import log1p

# Least variance, in the boxes' unit squared: a hundredth of a unit.
FLOOR = 1e-4


class _Pair(NamedTuple):
    """Deviations of both Gaussians, their relative rotation, and the centres' difference along the second's axes."""

    p1: Tensor
    q1: Tensor
    p2: Tensor
    q2: Tensor
    cos: Tensor
    sin: Tensor
    along: Tensor  # the second box's axes
    across: Tensor


def _measure(boxes1: Tensor, boxes2: Tensor, floor: float) -> _Pair:
    boxes1, boxes2 = comparable(5, boxes1=boxes1, boxes2=boxes2)
    x1, y1, w1, h1, angle1 = boxes1.unbind(-1)
    x2, y2, w2, h2, angle2 = boxes2.unbind(-1)
    p1, q1, p2, q2 = ((side.square() / 4 + floor).sqrt() for side in (w1, h1, w2, h2))
    dx, dy, cos, sin, turn = x1 - x2, y1 - y2, angle2.cos(), angle2.sin(), angle1 - angle2
    return _Pair(p1, q1, p2, q2, turn.cos(), turn.sin(), dx * cos + dy * sin, dy * cos - dx * sin)


def kfiou(boxes1: Tensor, boxes2: Tensor, floor: float = FLOOR) -> Tensor:
    """Kalman-filter IoU: `V3 / (V1 + V2 - V3)`, with V the areas that represent two Gaussians and their product.

    With the covariances C1 and C2 and `a = p q`: `V1 = 4 a1`, `V2 = 4 a2` and `V3 = 4 a1 a2 / sqrt(det(C1 + C2))`. It
    compares only shapes and angles; the positions of the centres have no effect.

    Args:
        boxes1: `[..., 5]`.
        boxes2: `[..., 5]`, same unit.
        floor: smallest variance, in that unit squared.

    Returns:
        `[...]` in `(0, 1/3]`; 1/3 for boxes of equal shape.

    Source: arXiv 2201.12558.

    Example:
        >>> import torch
        >>> square, line = torch.tensor([0.0, 0, 4, 4, 0]), torch.tensor([9.0, 9, 8, 2, 0.5])
        >>> round(kfiou(square, square).item(), 4), round(kfiou(square, line).item(), 4)
        (0.3333, 0.25)
    """
    return _kfiou(_measure(boxes1, boxes2, floor))


def _kfiou(pair: _Pair) -> Tensor:
    p1, q1, p2, q2, cos, sin = pair[:6]
    area1, area2 = p1 * q1, p2 * q2
    # det(C1 + C2), a sum of squares: nothing cancels.
    determinant = area1.square() + area2.square() + cos.square() * ((p1 * q2).square() + (q1 * p2).square())
    determinant = determinant + sin.square() * ((p1 * p2).square() + (q1 * q2).square())
    product = area1 * area2 / determinant.sqrt()
    return product / (area1 + area2 - product)


def kalman_divergence(boxes: Tensor, true: Tensor, floor: float = FLOOR) -> tuple[Tensor, Tensor]:
    """The two parts of the KFIoU loss: `ln(1 + d' inv(C_true) d)`, d the centres' difference, and `exp(1 - kfiou) - 1`.

    Args:
        boxes: `[..., 5]`.
        true: `[..., 5]`, same unit.
        floor: smallest variance, in that unit squared.

    Returns:
        `([...], [...])`, at least 0 and `exp(2/3) - 1`.

    Source: arXiv 2201.12558.

    Example:
        >>> import torch
        >>> box = torch.tensor([0.0, 0, 4, 4, 0])
        >>> [round(x.item(), 4) for x in kalman_divergence(box, box)]
        [0.0, 0.9477]
    """
    pair = _measure(boxes, true, floor)
    return log1p(_offset(pair)), (1 - _kfiou(pair)).exp() - 1


def kullback_leibler(boxes: Tensor, true: Tensor, floor: float = FLOOR) -> Tensor:
    """Kullback-Leibler divergence of predicted boxes' Gaussians from the true ones', independent of scale:
    `(d' inv(C_t) d + tr(inv(C_t) C_p) + ln(det C_t / det C_p)) / 2 - 1`, d the centres' difference.

    Args:
        boxes: `[..., 5]`.
        true: `[..., 5]`, same unit.
        floor: smallest variance, in that unit squared.

    Returns:
        `[...]`, 0 or more.

    Source: arXiv 2106.01883.

    Example:
        >>> import torch
        >>> wide, high = torch.tensor([[2.0, 0, 4, 4, 0], [0.0, 0, 4, 8, 0]])
        >>> round(kullback_leibler(wide, high).item(), 3), round(kullback_leibler(high, wide).item(), 3)
        (0.818, 1.307)
    """
    pair = _measure(boxes, true, floor)
    p1, q1, p2, q2, cos, sin = pair[:6]
    trace = cos.square() * ((p1 / p2).square() + (q1 / q2).square())
    trace = trace + sin.square() * ((p1 / q2).square() + (q1 / p2).square())
    found = (_offset(pair) + trace) / 2 + (p2 * q2 / (p1 * q1)).log() - 1
    return found.clamp(min=0)  # where it is 0, rounding is not


def _offset(pair: _Pair) -> Tensor:
    return (pair.along / pair.p2).square() + (pair.across / pair.q2).square()


def wasserstein(boxes1: Tensor, boxes2: Tensor, floor: float = FLOOR) -> Tensor:
    """Squared 2-Wasserstein distance of two boxes' Gaussians: the squared distance of the centres plus
    `tr(C1) + tr(C2) - 2 sqrt(tr(C1 C2) + 2 sqrt(det C1 det C2))`.

    Args:
        boxes1: `[..., 5]`.
        boxes2: `[..., 5]`, same unit.
        floor: smallest variance, in that unit squared.

    Returns:
        `[...]`, 0 or more, that unit squared.

    Source: arXiv 2101.11952.

    Example:
        >>> import torch
        >>> round(wasserstein(torch.tensor([3.0, 4, 2, 2, 0]), torch.tensor([0.0, 0, 4, 2, 0])).item(), 3)
        26.0
    """
    pair = _measure(boxes1, boxes2, floor)
    p1, q1, p2, q2, cos, sin = pair[:6]
    half = (p1.square() + q1.square() + p2.square() + q2.square()) / 2
    cross = cos.square() * (p1 * p2 + q1 * q2).square() + sin.square() * (p1 * q2 + q1 * p2).square()
    # `half^2 - cross`, factored: this difference of two squares is small if boxes agree.
    aligned = ((p1 - p2).square() + (q1 - q2).square()) * ((p1 + p2).square() + (q1 + q2).square())
    crossed = ((p1 - q2).square() + (q1 - p2).square()) * ((p1 + q2).square() + (q1 + p2).square())
    excess = (cos.square() * aligned + sin.square() * crossed) / 4
    return pair.along.square() + pair.across.square() + 2 * excess / (half + cross.sqrt())


@dataclass(frozen=True)
class GWD:
    """Overlap by the Gaussian Wasserstein distance W, `1 / (tau + ln(1 + W^2))`, for boxes in pixels.

    Args:
        tau: 1 or more; the overlap of equal boxes is `1 / tau`.

    Raises:
        ValueError: if tau is not a finite number of 1 or more.

    Source: arXiv 2101.11952.

    Example:
        >>> import torch
        >>> box = torch.tensor([0.0, 0, 4, 2, 0])
        >>> round(GWD()(box, box).item(), 4), round(GWD()(box, box + torch.tensor([3.0, 4, 0, 0, 0])).item(), 4)
        (1.0, 0.2348)
    """

    tau: float = 1.0

    in_pixels = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "tau", finite_number("tau", self.tau))
        require(self.tau >= 1, "tau", "a finite number of 1 or more", self.tau)

    def __call__(self, boxes1: Tensor, boxes2: Tensor) -> Tensor:
        """`[...]` in `(0, 1 / tau]`."""
        return 1 / (self.tau + log1p(wasserstein(boxes1, boxes2)))
