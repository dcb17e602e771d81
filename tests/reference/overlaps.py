"""Further overlaps and box terms in float64, written from their papers, over broadcast pairs."""

import math

import torch
from torch import Tensor

from .geometry import iou

FLOOR = 1e-4  # of the package's Gaussians


def eiou(a: Tensor, b: Tensor) -> Tensor:
    """arXiv 2101.08158, equation 6, as an overlap."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = _centred(a), _centred(b)
    width, height = _hull(a, b)
    centre = ((ax - bx) ** 2 + (ay - by) ** 2) / (width**2 + height**2)
    return iou(a, b) - centre - (aw - bw) ** 2 / width**2 - (ah - bh) ** 2 / height**2


def siou(a: Tensor, b: Tensor) -> Tensor:
    """arXiv 2205.12740: angle, distance and shape cost, as an overlap."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = _centred(a), _centred(b)
    sigma = ((ax - bx) ** 2 + (ay - by) ** 2).sqrt()
    angle_cost = 1 - 2 * torch.sin(torch.arcsin((ay - by).abs() / sigma) - math.pi / 4) ** 2
    width, height = _hull(a, b)
    gamma = 2 - angle_cost
    rho_x, rho_y = ((bx - ax) / width) ** 2, ((by - ay) / height) ** 2
    distance_cost = (1 - torch.exp(-gamma * rho_x)) + (1 - torch.exp(-gamma * rho_y))
    omega_w, omega_h = (aw - bw).abs() / torch.maximum(aw, bw), (ah - bh).abs() / torch.maximum(ah, bh)
    shape_cost = (1 - torch.exp(-omega_w)) ** 4 + (1 - torch.exp(-omega_h)) ** 4
    return iou(a, b) - (distance_cost + shape_cost) / 2


def inner_iou(a: Tensor, b: Tensor, ratio: float) -> Tensor:
    """arXiv 2311.02877: the IoU of boxes scaled about their centres."""
    scaled = []
    for box in (a, b):
        x, y, w, h = _centred(box)
        half_w, half_h = w * ratio / 2, h * ratio / 2
        scaled.append(torch.stack([x - half_w, y - half_h, x + half_w, y + half_h], -1))
    return iou(*scaled)


def mpdiou(a: Tensor, b: Tensor, height: int, width: int) -> Tensor:
    """arXiv 2307.07662: both corners' squared distances over the image's squared diagonal."""
    first = (a[..., 0] - b[..., 0]) ** 2 + (a[..., 1] - b[..., 1]) ** 2
    second = (a[..., 2] - b[..., 2]) ** 2 + (a[..., 3] - b[..., 3]) ** 2
    return iou(a, b) - first / (width**2 + height**2) - second / (width**2 + height**2)


def nwd(a: Tensor, b: Tensor, constant: float) -> Tensor:
    """arXiv 2110.13389, equations 4 to 6."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = _centred(a), _centred(b)
    first, second = torch.stack([ax, ay, aw / 2, ah / 2], -1), torch.stack([bx, by, bw / 2, bh / 2], -1)
    return torch.exp(-torch.linalg.vector_norm(first - second, dim=-1) / constant)


def wiou(a: Tensor, b: Tensor, mean: float | None, alpha: float = 1.9, delta: float = 3.0) -> Tensor:
    """arXiv 2301.10051: version 3's error, of version 1 where there is no mean."""
    (ax, ay, *_), (bx, by, *_) = _centred(a), _centred(b)
    width, height = _hull(a.detach(), b.detach())
    error = 1 - iou(a, b)
    first = torch.exp(((ax - bx) ** 2 + (ay - by) ** 2) / (width**2 + height**2)) * error
    if mean is None:
        return first
    beta = error.detach() / mean
    return beta / (delta * alpha ** (beta - delta)) * first


def gaussian(box: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, covariance and its root of oriented boxes `[..., 5]`."""
    cos, sin = torch.cos(box[..., 4]), torch.sin(box[..., 4])
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    variances = box[..., 2:4] ** 2 / 4 + FLOOR

    def turned(x: Tensor) -> Tensor:
        return turn @ torch.diag_embed(x) @ turn.transpose(-1, -2)

    return box[..., :2], turned(variances), turned(variances.sqrt())


def kfiou(a: Tensor, b: Tensor) -> Tensor:
    """arXiv 2201.12558: areas of Gaussians, and of what a Kalman filter makes of both."""
    (_, first, _), (_, second, _) = gaussian(a), gaussian(b)
    gain = first @ torch.linalg.inv(first + second)
    volumes = [4 * torch.linalg.det(x).sqrt() for x in (first, second, first - gain @ first)]
    return volumes[2] / (volumes[0] + volumes[1] - volumes[2])


def kfiou_loss(a: Tensor, b: Tensor) -> Tensor:
    """arXiv 2201.12558: centre and shape."""
    (centre, _, _), (true, covariance, _) = gaussian(a), gaussian(b)
    d = (centre - true)[..., None]
    mahalanobis = (d.transpose(-1, -2) @ torch.linalg.inv(covariance) @ d)[..., 0, 0]
    return torch.log(mahalanobis + 1) + torch.exp(1 - kfiou(a, b)) - 1


def gwd(a: Tensor, b: Tensor, tau: float) -> Tensor:
    """arXiv 2101.11952, equations 2 and 6, as an overlap."""
    (mean1, first, root), (mean2, second, _) = gaussian(a), gaussian(b)
    inner = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum(-1)
    trace = torch.diagonal(first + second, dim1=-2, dim2=-1).sum(-1)
    squared = ((mean1 - mean2) ** 2).sum(-1) + trace - 2 * inner
    return 1 / (tau + torch.log(squared + 1))


def kld_loss(a: Tensor, b: Tensor, tau: float) -> Tensor:
    """arXiv 2106.01883, the divergence by torch's own distributions."""
    (mean1, first, _), (mean2, second, _) = gaussian(a), gaussian(b)
    normal = torch.distributions.MultivariateNormal
    divergence = torch.distributions.kl_divergence(normal(mean1, first), normal(mean2, second))
    return 1 - 1 / (tau + torch.log(divergence + 1))


def _centred(box: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = box.unbind(-1)
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def _hull(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    width = torch.maximum(a[..., 2], b[..., 2]) - torch.minimum(a[..., 0], b[..., 0])
    height = torch.maximum(a[..., 3], b[..., 3]) - torch.minimum(a[..., 1], b[..., 1])
    return width, height
