"""Boxes and their overlaps, pair by pair: the two arguments broadcast against each other.

A box is (x1, y1, x2, y2), in any one unit, unless a name says otherwise.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from compiled_loss.checks import require
from compiled_loss.numerics import at_least_float32

EPS = 1e-7


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(centre x, centre y, width, height) to corners.

    Args:
        boxes: `[..., 4]`.

    Returns:
        `[..., 4]`.

    Example:
        >>> cxcywh_to_xyxy(torch.tensor([5.0, 5.0, 2.0, 4.0]))
        tensor([4., 3., 6., 7.])
    """
    centre, size = boxes.chunk(2, -1)
    half = size / 2
    return torch.cat([centre - half, centre + half], -1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Corners to (centre x, centre y, width, height).

    Args:
        boxes: `[..., 4]`.

    Returns:
        `[..., 4]`.

    Example:
        >>> xyxy_to_cxcywh(torch.tensor([4.0, 3.0, 6.0, 7.0]))
        tensor([5., 5., 2., 4.])
    """
    low, high = boxes.chunk(2, -1)
    return torch.cat([(low + high) / 2, high - low], -1)


def comparable(values: int, **boxes: Tensor) -> list[Tensor]:
    """Convert boxes to float32 or wider: areas of half-precision boxes overflow from sides of 256.

    Args:
        values: number of values of a box: 4 for upright, 5 for oriented boxes.
        boxes: `[..., values]`, by the names of the arguments.

    Raises:
        ValueError: naming the argument, if its boxes have another number of values.

    Example:
        >>> comparable(5, predicted=torch.zeros(3, 4))
        Traceback (most recent call last):
        ValueError: predicted: expected oriented boxes [..., 5], got (3, 4)
    """
    kind = "upright" if values == 4 else "oriented"
    for name, x in boxes.items():
        require(isinstance(x, Tensor), name, f"{kind} boxes [..., {values}]", type(x).__name__)
        fits = x.dim() > 0 and x.shape[-1] == values
        require(fits, name, f"{kind} boxes [..., {values}]", tuple(x.shape) or "a scalar")
    return [at_least_float32(x) for x in boxes.values()]


class Pair(NamedTuple):
    """The quantities shared by the members of the IoU family."""

    iou: Tensor
    union: Tensor
    hull_width: Tensor
    hull_height: Tensor
    centre_distance: Tensor  # squared
    sizes: tuple[Tensor, Tensor, Tensor, Tensor]  # w1, h1, w2, h2


def measure(boxes1: Tensor, boxes2: Tensor) -> Pair:
    """Measure two boxes `[..., 4]`, xyxy, in float32 or wider.

    Raises:
        ValueError: for boxes that are not upright.
    """
    boxes1, boxes2 = comparable(4, boxes1=boxes1, boxes2=boxes2)
    left1, top1, right1, bottom1 = boxes1.unbind(-1)
    left2, top2, right2, bottom2 = boxes2.unbind(-1)
    w1, h1 = right1 - left1, bottom1 - top1 + EPS
    w2, h2 = right2 - left2, bottom2 - top2 + EPS
    overlap_width = (torch.minimum(right1, right2) - torch.maximum(left1, left2)).clamp(min=0)
    overlap_height = (torch.minimum(bottom1, bottom2) - torch.maximum(top1, top2)).clamp(min=0)
    intersection = overlap_width * overlap_height
    union = w1 * h1 + w2 * h2 - intersection + EPS
    dx, dy = left2 + right2 - left1 - right1, top2 + bottom2 - top1 - bottom1
    return Pair(
        iou=intersection / union,
        union=union,
        hull_width=torch.maximum(right1, right2) - torch.minimum(left1, left2),
        hull_height=torch.maximum(bottom1, bottom2) - torch.minimum(top1, top2),
        centre_distance=(dx * dx + dy * dy) / 4,
        sizes=(w1, h1, w2, h2),
    )


def iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union, `|A and B| / (|A or B| + eps)`.

    Args:
        boxes1: `[..., 4]` xyxy.
        boxes2: `[..., 4]` xyxy.

    Returns:
        `[...]` in `[0, 1]`.

    Example:
        >>> round(iou(torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 0, 3, 2])).item(), 4)
        0.3333
    """
    return measure(boxes1, boxes2).iou


def giou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Generalised IoU: `iou - (hull - union) / hull`, with hull the area of the smallest enclosing box.

    Args:
        boxes1: `[..., 4]` xyxy.
        boxes2: `[..., 4]` xyxy.

    Returns:
        `[...]` in `[-1, 1]`.

    Source: arXiv 1902.09630.

    Example:
        >>> round(giou(torch.tensor([0.0, 0, 1, 1]), torch.tensor([2.0, 0, 3, 1])).item(), 4)
        -0.3333
    """
    pair = measure(boxes1, boxes2)
    hull = pair.hull_width * pair.hull_height + EPS
    return pair.iou - (hull - pair.union) / hull


def diou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Distance IoU: `iou - rho^2 / c^2`, with rho the centre distance and c the diagonal of the enclosing box.

    Args:
        boxes1: `[..., 4]` xyxy.
        boxes2: `[..., 4]` xyxy.

    Returns:
        `[...]` in `[-1, 1]`.

    Source: arXiv 1911.08287.

    Example:
        >>> round(diou(torch.tensor([0.0, 0, 1, 1]), torch.tensor([2.0, 0, 3, 1])).item(), 4)
        -0.4
    """
    pair = measure(boxes1, boxes2)
    return pair.iou - pair.centre_distance / diagonal(pair)


def ciou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Complete IoU: `iou - (rho^2 / c^2 + v alpha)` with the aspect term
    `v = 4/pi^2 (atan(w2/h2) - atan(w1/h1))^2` and `alpha = v / (v - iou + 1 + eps)`, which carries no gradient.

    Args:
        boxes1: `[..., 4]` xyxy.
        boxes2: `[..., 4]` xyxy.

    Returns:
        `[...]`, at most 1.

    Source: arXiv 1911.08287.

    Example:
        >>> round(ciou(torch.tensor([0.0, 0, 1, 1]), torch.tensor([2.0, 0, 3, 1])).item(), 4)
        -0.4
    """
    pair = measure(boxes1, boxes2)
    w1, h1, w2, h2 = pair.sizes
    angle = torch.atan(w2 / h2) - torch.atan(w1 / h1)
    aspect = 4 / math.pi**2 * angle * angle
    alpha = (aspect / (aspect - pair.iou + (1 + EPS))).detach()
    return pair.iou - (pair.centre_distance / diagonal(pair) + aspect * alpha)


def diagonal(pair: Pair) -> Tensor:
    """Squared diagonal of the enclosing box."""
    return pair.hull_width * pair.hull_width + pair.hull_height * pair.hull_height + EPS
