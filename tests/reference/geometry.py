"""Overlaps of boxes and of keypoints in float64, elementwise over broadcast pairs."""

import math

import torch
from torch import Tensor

EPS = 1e-7
COCO_SIGMAS = [s / 10 for s in (0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62)]
COCO_SIGMAS += [s / 10 for s in (1.07, 1.07, 0.87, 0.87, 0.89, 0.89)]


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of xyxy boxes `[..., 4]`."""
    return _intersection_and_union(a, b)[0]


def giou(a: Tensor, b: Tensor) -> Tensor:
    """arXiv 1902.09630: IoU less the empty part of the enclosing box."""
    overlap, union = _intersection_and_union(a, b)
    width, height = _enclosing(a, b)
    hull = width * height + EPS
    return overlap - (hull - union) / hull


def diou(a: Tensor, b: Tensor) -> Tensor:
    """arXiv 1911.08287: IoU less the squared centre distance over the squared enclosing diagonal."""
    return iou(a, b) - _centre_distance(a, b)


def ciou(a: Tensor, b: Tensor) -> Tensor:
    """arXiv 1911.08287: DIoU less the aspect-ratio term, whose weight carries no gradient."""
    overlap = iou(a, b)
    aspect_a = torch.atan((a[..., 2] - a[..., 0]) / (a[..., 3] - a[..., 1] + EPS))
    aspect_b = torch.atan((b[..., 2] - b[..., 0]) / (b[..., 3] - b[..., 1] + EPS))
    v = 4 / math.pi**2 * (aspect_b - aspect_a) ** 2
    weight = (v / (v - overlap + 1 + EPS)).detach()
    return overlap - (_centre_distance(a, b) + v * weight)


def oks(
    predicted: Tensor,  # [K, 2]
    true: Tensor,  # [K, 2]
    visible: list[bool],
    area: float,
    sigmas: list[float],
) -> float:
    """Object keypoint similarity of one pair: the mean over its visible keypoints; 0 if there are none."""
    similarities = []
    for k, sigma in enumerate(sigmas):
        if visible[k]:
            distance = float(((predicted[k].double() - true[k].double()) ** 2).sum())
            similarities.append(math.exp(-distance / ((2 * sigma) ** 2 * (area + 1e-9) * 2)))
    return sum(similarities) / len(similarities) if similarities else 0.0


def _intersection_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    width = torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])
    height = torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])
    shared = width.clamp(min=0) * height.clamp(min=0)
    area_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1] + EPS)
    area_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1] + EPS)
    union = area_a + area_b - shared + EPS
    return shared / union, union


def _enclosing(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    width = torch.maximum(a[..., 2], b[..., 2]) - torch.minimum(a[..., 0], b[..., 0])
    height = torch.maximum(a[..., 3], b[..., 3]) - torch.minimum(a[..., 1], b[..., 1])
    return width, height


def _centre_distance(a: Tensor, b: Tensor) -> Tensor:
    width, height = _enclosing(a, b)
    dx = (b[..., 0] + b[..., 2] - a[..., 0] - a[..., 2]) / 2
    dy = (b[..., 1] + b[..., 3] - a[..., 1] - a[..., 3]) / 2
    return (dx**2 + dy**2) / (width**2 + height**2 + EPS)
