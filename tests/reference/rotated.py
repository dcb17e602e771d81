"""Rotated boxes (cx, cy, w, h, angle) in float64: decoding, candidates, overlap and the oriented-box loss.

Angles are in radians, from +x towards +y.
"""

import numpy as np
import torch
from torch import Tensor

from .assigner import assign_overlaps, clamped
from .parts import GAINS, Opened, ReferenceLoss, by_row, close, distance_name, distance_term, open_head, score_sum

EPS = 1e-7


def decode(anchor: Tensor, distances: Tensor, angle: Tensor) -> Tensor:
    """Boxes `[..., 5]` in the anchors' unit of distances `[..., 4]` along axes turned by `angle` `[...]`."""
    left, top, right, bottom = distances.unbind(-1)
    dx, dy = (right - left) / 2, (bottom - top) / 2
    x = anchor[..., 0] + dx * torch.cos(angle) - dy * torch.sin(angle)
    y = anchor[..., 1] + dx * torch.sin(angle) + dy * torch.cos(angle)
    return torch.stack([x, y, left + right, top + bottom, angle], -1)


def encode(anchor: Tensor, box: Tensor) -> Tensor:
    """Distances `[P, 4]` of anchors `[P, 2]` to the sides of boxes `[P, 5]`, in each box's own frame."""
    x, y, width, height, angle = box.unbind(-1)
    dx, dy = x - anchor[:, 0], y - anchor[:, 1]
    along = dx * torch.cos(angle) + dy * torch.sin(angle)
    across = -dx * torch.sin(angle) + dy * torch.cos(angle)
    return torch.stack([width / 2 - along, height / 2 - across, width / 2 + along, height / 2 + across], -1)


def covariance(box: Tensor, floor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Entries (xx, yy, xy) of the Gaussian that stands for a box."""
    p, q = box[..., 2] ** 2 / 12 + floor, box[..., 3] ** 2 / 12 + floor
    cos, sin = torch.cos(box[..., 4]), torch.sin(box[..., 4])
    return p * cos**2 + q * sin**2, p * sin**2 + q * cos**2, (p - q) * sin * cos


def probiou(first: Tensor, second: Tensor, floor: float = 0.0) -> Tensor:
    """arXiv 2106.06072: one minus the Hellinger distance of two Gaussians, over broadcast boxes `[..., 5]`."""
    a1, b1, c1 = covariance(first, floor)
    a2, b2, c2 = covariance(second, floor)
    dx, dy = first[..., 0] - second[..., 0], first[..., 1] - second[..., 1]
    a, b, c = a1 + a2, b1 + b2, c1 + c2
    s = a * b - c**2
    t1 = (a * dy**2 + b * dx**2) / (s + EPS) / 4
    t2 = c * -dx * dy / (s + EPS) / 2
    spread = (a1 * b1 - c1**2).clamp(min=0) * (a2 * b2 - c2**2).clamp(min=0)
    t3 = torch.log(s / (4 * spread.sqrt() + EPS) + EPS) / 2
    distance = (t1 + t2 + t3).clamp(EPS, 100)
    return 1 - torch.sqrt(1 - torch.exp(-distance) + EPS)


def pixel_rboxes(normalised: Tensor, height: int, width: int) -> np.ndarray:
    """Normalised (cx, cy, w, h, angle) with pixels for fractions, float32."""
    return normalised.float().numpy() * np.array([width, height, width, height, 1], np.float32)


def candidates(
    anchors: np.ndarray,  # [A, 2] float32, pixels
    box: np.ndarray,  # [5] float32, pixels
    small: float,
) -> np.ndarray:  # [A] bool
    """Anchors inside the box or on its sides, each of which is first made at least `small` long.

    By the projections on two edges from a corner, in float32: the rounding decides anchors that lie on a side.
    """
    x, y, width, height, angle = torch.from_numpy(box)
    width, height = width.clamp(min=small), height.clamp(min=small)
    cos, sin = torch.cos(angle), torch.sin(angle)
    centre = torch.stack([x, y])
    along = torch.stack([width / 2 * cos, width / 2 * sin])
    across = torch.stack([-height / 2 * sin, height / 2 * cos])
    corner = centre + along + across
    inside = torch.ones(len(anchors), dtype=torch.bool)
    for other in (centre + along - across, centre - along + across):
        edge = other - corner
        projection = ((torch.from_numpy(anchors) - corner) * edge).sum(1)
        inside &= (projection >= 0) & (projection <= (edge * edge).sum())
    return inside.numpy()


def counted(boxes: np.ndarray) -> np.ndarray:
    """Rows `[N]` bool whose two sides are 2 pixels or more; the others match nothing."""
    return (boxes[:, 2] >= 2) & (boxes[:, 3] >= 2)


def oriented_loss(
    boxes: Tensor,  # [B, 4*R, A] logits, or distances in grid units with R = 1
    scores: Tensor,  # [B, C, A] logits
    angles: Tensor,  # [B, 1, A] radians
    grid_sizes: tuple[tuple[int, int], ...],
    batch_idx: Tensor,  # [N]
    labels: Tensor,  # [N]
    target_boxes: Tensor,  # [N, 5] normalised cx, cy, w, h and the angle
    *,
    strides: tuple[int, ...] = (8, 16, 32),
    class_weights: list[float] | None = None,
    gains: dict[str, float] = GAINS,
    **options,
) -> ReferenceLoss:
    """Box, distance, class and angle terms. Options: those of `assign_overlaps`."""
    head = open_head({"boxes": boxes, "scores": scores, "angles": angles}, grid_sizes, strides)
    predicted = decode(head.grid, head.distances, head.leaves["angles"][:, 0])  # [B, A, 5] grid units
    targets = pixel_rboxes(target_boxes, *head.size)
    inside, overlap = _match(head, predicted.detach(), batch_idx.tolist(), targets, strides[:2][-1])
    positives = assign_overlaps(
        head.leaves["scores"].detach().sigmoid().transpose(1, 2),
        inside,
        overlap,
        batch_idx.tolist(),
        labels.tolist(),
        **options,
    )
    sums = dict.fromkeys(("box", distance_name(head), "angle"), torch.zeros((), dtype=torch.float64))
    for row, image, at, weight in by_row(positives):
        true = torch.from_numpy(targets[row]).double().expand(len(at), 5).clone()
        true[:, :4] /= head.step[at, None]
        guess = predicted[image, at]
        error = {
            "box": 1 - probiou(guess, true, 0.01),
            distance_name(head): distance_term(head, image, at, encode(head.grid[at], true)),
            "angle": _angle_error(guess[:, 4], true),
        }
        sums = {name: value + (weight * error[name]).sum() for name, value in sums.items()}
    terms = {name: value / score_sum(positives) for name, value in sums.items()}
    return close(head, terms, positives, labels, class_weights, gains)


def _match(
    head: Opened, predicted: Tensor, batch_idx: list[int], targets: np.ndarray, small: float
) -> tuple[np.ndarray, np.ndarray]:
    """Candidates and overlaps `[N, A]`, in pixels."""
    pixels = predicted.clone()
    pixels[..., :4] *= head.step[:, None]
    inside = np.zeros((len(targets), len(head.step)), bool)
    overlap = np.zeros((len(targets), len(head.step)))
    for n in np.flatnonzero(counted(targets)):
        if 0 <= batch_idx[n] < len(pixels):
            inside[n] = candidates(head.points, targets[n], small)
            overlap[n] = clamped(probiou(torch.from_numpy(targets[n]).double(), pixels[batch_idx[n]]))
    return inside, overlap


def _angle_error(angle: Tensor, true: Tensor) -> Tensor:
    """`[P]`: squared sine of twice the difference, less the nearer the true box is to a very long one."""
    ratio = torch.log((true[:, 2] + 1e-9) / (true[:, 3] + 1e-9))
    return torch.exp(-(ratio**2) / 9) * torch.sin(2 * (angle - true[:, 4])) ** 2
