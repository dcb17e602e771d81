"""Further overlaps of upright boxes, pair by pair: the two arguments broadcast against each other.

A box is (x1, y1, x2, y2), in any one unit; in pixels for overlaps with `in_pixels`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compiled_loss.checks import check_part, finite_number, whole_pair
from compiled_loss.geometry.boxes import EPS, comparable, diagonal, iou, measure
from compiled_loss.numerics import one_minus_exp, power, root

# The power of SIoU's shape cost; its source finds the best between 2 and 6, near 4.
_SHAPE_POWER = 4


def eiou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Efficient IoU: `iou - (rho^2 / c^2 + (w1 - w2)^2 / c_w^2 + (h1 - h2)^2 / c_h^2)`, with rho the centre distance,
    c_w and c_h the sides of the enclosing box and c its diagonal.

    Args:
        boxes1: `[..., 4]` xyxy.
        boxes2: `[..., 4]` xyxy.

    Returns:
        `[...]` in `[-3, 1]`.

    Source: arXiv 2101.08158.

    Example:
        >>> round(eiou(torch.tensor([0.0, 0, 2, 2]), torch.tensor([0.0, 0, 4, 2])).item(), 4)
        0.2
    """
    pair = measure(boxes1, boxes2)
    w1, h1, w2, h2 = pair.sizes
    wider = (w1 - w2).square() / (pair.hull_width.square() + EPS)
    higher = (h1 - h2).square() / (pair.hull_height.square() + EPS)
    return pair.iou - (pair.centre_distance / diagonal(pair) + wider + higher)


def siou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """SCYLLA IoU: `iou - (distance + shape) / 2`, with a distance cost that grows as the centres align with an axis.

    With (dx, dy) the difference of the centres, at the angle a to an axis, and c_w and c_h the sides of the enclosing
    box: `distance = 2 - exp(-g dx^2 / c_w^2) - exp(-g dy^2 / c_h^2)`, `g = 2 - sin 2a`, and
    `shape = (1 - exp(-|w1 - w2| / max(w1, w2)))^4`, plus the same for the heights.

    Args:
        boxes1: `[..., 4]` xyxy.
        boxes2: `[..., 4]` xyxy.

    Returns:
        `[...]`, at most 1 and above -1.03.

    Source: arXiv 2205.12740.

    Example:
        >>> round(siou(torch.tensor([0.0, 0, 1, 1]), torch.tensor([1.0, 0, 2, 1])).item(), 4)
        -0.1967
    """
    boxes1, boxes2 = comparable(4, boxes1=boxes1, boxes2=boxes2)
    pair = measure(boxes1, boxes2)
    w1, h1, w2, h2 = pair.sizes
    dx, dy = _centres(boxes1, boxes2)
    # `1 - 2 sin^2(arcsin(|dy| / rho) - pi / 4)` is the sine of twice the angle, without an arcsine's infinite slopes.
    gamma = 2 - 2 * (dx * dy).abs() / (pair.centre_distance + EPS)
    distance = one_minus_exp(gamma * dx.square() / (pair.hull_width.square() + EPS))
    distance = distance + one_minus_exp(gamma * dy.square() / (pair.hull_height.square() + EPS))
    return pair.iou - (distance + _differ(w1, w2) + _differ(h1, h2)) / 2


def _centres(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of the centres along x and y."""
    x, y, far_x, far_y = (boxes2 - boxes1).unbind(-1)
    return (x + far_x) / 2, (y + far_y) / 2


def _differ(side1: Tensor, side2: Tensor) -> Tensor:
    longer = torch.maximum(side1, side2).clamp(min=EPS)
    return power(one_minus_exp((side1 - side2).abs() / longer), _SHAPE_POWER)


@dataclass(frozen=True)
class InnerIoU:
    """Inner IoU: another overlap whose IoU is taken of boxes scaled about their centres, `overlap - iou + inner iou`.

    A ratio below 1 sharpens the gradient for boxes that fit well; one above 1 also reaches boxes that do not touch.

    Args:
        ratio: ratio of the scaled boxes' sides to the original ones; the source tries 0.5 to 1.5.
        overlap: the other overlap; with `iou`, the result is just the IoU of the scaled boxes.

    Raises:
        ValueError: if the ratio is not a finite number above 0, or the overlap is not callable.

    Source: arXiv 2311.02877.

    Example:
        >>> inner = InnerIoU(ratio=0.5)
        >>> round(inner(torch.tensor([0.0, 0, 4, 4]), torch.tensor([1.0, 0, 5, 4])).item(), 4)
        0.3333
    """

    ratio: float = 0.75
    overlap: Callable[[Tensor, Tensor], Tensor] = iou

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratio", finite_number("ratio", self.ratio, zero=False))
        check_part("overlap", self.overlap, "boxes1", "boxes2")

    @property
    def in_pixels(self) -> bool:
        """Whether the other overlap expects boxes in pixels."""
        return getattr(self.overlap, "in_pixels", False)

    def __call__(self, boxes1: Tensor, boxes2: Tensor) -> Tensor:
        """`[...]`, at most 1."""
        boxes1, boxes2 = comparable(4, boxes1=boxes1, boxes2=boxes2)
        inner = iou(self._scaled(boxes1), self._scaled(boxes2))
        return self.overlap(boxes1, boxes2) - iou(boxes1, boxes2) + inner

    def _scaled(self, boxes: Tensor) -> Tensor:
        low, high = boxes.chunk(2, -1)
        centre, half = (low + high) / 2, (high - low) * (self.ratio / 2)
        return torch.cat([centre - half, centre + half], -1)


@dataclass(frozen=True)
class MPDIoU:
    """IoU minus the squared distances of the top left and bottom right corners, relative to the squared image diagonal:
    `iou - (d1^2 + d2^2) / (H^2 + W^2)`.

    Args:
        image_size: (height, width) of the network's input, pixels.

    Raises:
        ValueError: if it is not two whole numbers of at least 1.

    Source: arXiv 2307.07662.

    Example:
        >>> round(MPDIoU((30, 40))(torch.tensor([0.0, 0, 10, 10]), torch.tensor([0.0, 0, 10, 20])).item(), 4)
        0.46
    """

    image_size: Sequence[int]

    in_pixels = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", whole_pair("image_size", self.image_size, "(height, width) in pixels"))

    def __call__(self, boxes1: Tensor, boxes2: Tensor) -> Tensor:
        """`[...]`, at most 1; above -2 for boxes inside the image."""
        boxes1, boxes2 = comparable(4, boxes1=boxes1, boxes2=boxes2)
        height, width = self.image_size
        return iou(boxes1, boxes2) - (boxes1 - boxes2).square().sum(-1) / (height**2 + width**2)


@dataclass(frozen=True)
class NWD:
    """Normalised Wasserstein distance, `exp(-W / constant)`, for tiny boxes, whose IoU jumps between 0 and 1.

    `W^2 = dx^2 + dy^2 + (w1 - w2)^2 / 4 + (h1 - h2)^2 / 4` is the squared 2-Wasserstein distance of the Gaussians
    centred on the boxes, with half their sides as standard deviations.

    Args:
        constant: about the mean side of a data set's objects, pixels; the source uses 12.8 for AI-TOD.

    Raises:
        ValueError: if the constant is not a finite number above 0.

    Source: arXiv 2110.13389.

    Example:
        >>> round(NWD(constant=5.0)(torch.tensor([0.0, 0, 2, 2]), torch.tensor([3.0, 4, 5, 6])).item(), 4)
        0.3679
    """

    constant: float = 12.8

    in_pixels = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "constant", finite_number("constant", self.constant, zero=False))

    def __call__(self, boxes1: Tensor, boxes2: Tensor) -> Tensor:
        """`[...]` in `[0, 1]`."""
        boxes1, boxes2 = comparable(4, boxes1=boxes1, boxes2=boxes2)
        dx, dy = _centres(boxes1, boxes2)
        x, y, far_x, far_y = (boxes2 - boxes1).unbind(-1)
        spread = (far_x - x).square() + (far_y - y).square()
        return (-root(dx.square() + dy.square() + spread / 4) / self.constant).exp()
