"""The pose loss of heads with a residual log-likelihood term (arXiv 2107.11291), in float64 loops."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .assigner import assign_overlaps, candidates, clamped, level_gate, pixel_boxes
from .geometry import ciou
from .losses import keypoint_sums, spread_of
from .parts import GAINS, ReferenceLoss, by_row, close, distance_name, distance_term, open_head, score_sum

# Share of a box that its figure covers.
FIGURE = 0.53
COCO_WEIGHTS = [1.0] * 7 + [1.2, 1.2, 1.5, 1.5, 1.0, 1.0, 1.2, 1.2, 1.5, 1.5]


def keypoint_overlap(
    predicted: Tensor,  # [A, K, 2] pixels
    target: Tensor,  # [K, 2] pixels
    visible: list[bool],
    box: np.ndarray,  # [4] xyxy pixels
    sigmas: list[float],
) -> Tensor:  # [A]
    """Similarity of every anchor's keypoints to one row's."""
    area = FIGURE * float((box[2] - box[0]) * (box[3] - box[1]))
    total = torch.zeros(len(predicted), dtype=torch.float64)
    for k, sigma in enumerate(sigmas):
        if visible[k]:
            squared = ((predicted[:, k] - target[k]) ** 2).sum(1)
            total = total + torch.exp(-squared / ((2 * sigma) ** 2 * (area + 1e-9) * 2))
    return total / sum(visible)


def pose26_loss(
    boxes: Tensor,  # [B, 4*R, A]
    scores: Tensor,  # [B, C, A]
    keypoints: Tensor,  # [B, K*D, A]
    keypoint_sigmas: Tensor,  # [B, K*2, A]
    grid_sizes: tuple[tuple[int, int], ...],
    batch_idx: Tensor,  # [N]
    labels: Tensor,  # [N]
    target_boxes: Tensor,  # [N, 4] normalised cxcywh
    target_keypoints: Tensor,  # [N, K, 2 or 3] normalised
    flow: Callable[[Tensor], Tensor] | None,
    *,
    num_keypoints: int,
    strides: tuple[int, ...] = (8, 16, 32),
    sigmas: list[float] | None = None,
    keypoint_weights: list[float] | None = None,
    class_weights: list[float] | None = None,
    gains: dict[str, float] = GAINS,
    **options,
) -> ReferenceLoss:
    """Box, keypoint, visibility, class, distance and likelihood terms. Options: those of `assign_overlaps`."""
    maps = {"boxes": boxes, "scores": scores, "keypoints": keypoints, "keypoint_sigmas": keypoint_sigmas}
    head = open_head(dict(maps), grid_sizes, strides)
    height, width = head.size
    batch, anchors = len(boxes), len(head.step)
    raw = head.leaves["keypoints"].reshape(batch, num_keypoints, -1, anchors).permute(0, 3, 1, 2)  # [B, A, K, D]
    points = raw[..., :2] + head.grid[:, None]  # grid units
    predicted = torch.cat([head.grid - head.distances[..., :2], head.grid + head.distances[..., 2:]], -1)
    spread = spread_of(raw[0], sigmas)
    targets = pixel_boxes(target_boxes, height, width)
    inside = np.zeros((len(targets), anchors), bool)
    overlap = np.zeros((len(targets), anchors))
    for n, image in enumerate(batch_idx.tolist()):
        inside[n] = candidates(head.points, targets[n], strides[:2][-1])
        inside[n] = level_gate(inside[n], head.step.float().numpy(), targets[n])
        visible = [flag > 0 for flag in flags_of(target_keypoints[n])]
        if any(visible):
            place = (points[image] * head.step[:, None, None]).detach()
            true = target_keypoints[n, :, :2].double() * torch.tensor([width, height], dtype=torch.float64)
            overlap[n] = clamped(keypoint_overlap(place, true, visible, targets[n], spread))
        else:
            box = (predicted[image] * head.step[:, None]).detach()
            overlap[n] = clamped(ciou(box, torch.from_numpy(targets[n]).double()))
    positives = assign_overlaps(
        head.leaves["scores"].detach().sigmoid().transpose(1, 2),
        inside,
        overlap,
        batch_idx.tolist(),
        labels.tolist(),
        **options,
    )

    sums = dict.fromkeys(("box", distance_name(head)), torch.zeros((), dtype=torch.float64))
    means = dict.fromkeys(("pose", "kobj"), torch.zeros((), dtype=torch.float64))
    errors: list[Tensor] = []  # one [K', 2] of each positive, beside its sigmas and weights
    spreads: list[Tensor] = []
    weights: list[Tensor] = []
    if keypoint_weights is None:
        coco = (num_keypoints, raw.shape[3]) == (17, 3)
        keypoint_weights = COCO_WEIGHTS if coco else [1.0] * num_keypoints
    sigma = head.leaves["keypoint_sigmas"].reshape(batch, num_keypoints, 2, anchors).permute(0, 3, 1, 2).sigmoid()
    for row, image, at, weight in by_row(positives):
        grid, step = head.grid[at], head.step[at]
        true = torch.from_numpy(targets[row]).double() / step[:, None]
        sums["box"] = sums["box"] + (weight * (1 - ciou(predicted[image, at], true))).sum()
        sides = torch.cat([grid - true[:, :2], true[:, 2:] - grid], 1)
        name = distance_name(head)
        sums[name] = sums[name] + (weight * distance_term(head, image, at, sides)).sum()
        target = target_keypoints[row].double()
        location, visibility = keypoint_sums(raw[image, at], points[image, at], target, step, true, head.size, spread)
        means["pose"], means["kobj"] = means["pose"] + location, means["kobj"] + visibility
        seen = [k for k, flag in enumerate(flags_of(target)) if flag != 0]
        for anchor in at.tolist():
            xy = target[seen, :2] * torch.tensor([width, height], dtype=torch.float64) / head.step[anchor]
            errors.append((points[image, anchor, seen] - xy) / (sigma[image, anchor, seen] + 1e-9))
            spreads.append(sigma[image, anchor, seen])
            weights.append(torch.tensor([keypoint_weights[k] for k in seen], dtype=torch.float64))
    terms = {name: value / score_sum(positives) for name, value in sums.items()}
    terms |= {name: value / max(len(positives), 1) for name, value in means.items()}
    terms["rle"] = torch.zeros((), dtype=torch.float64)
    if errors and flow is not None:
        terms["rle"] = likelihood(torch.cat(errors), torch.cat(spreads), torch.cat(weights), flow)
    return close(head, terms, positives, labels, class_weights, gains)


def flags_of(keypoints: Tensor) -> list[float]:
    """`[K]` visibility flags; without them every keypoint is visible."""
    return keypoints[:, 2].tolist() if keypoints.shape[1] == 3 else [2.0] * len(keypoints)


def likelihood(
    errors: Tensor,  # [n, 2] in sigmas
    sigmas: Tensor,  # [n, 2]
    weights: Tensor,  # [n]
    flow: Callable[[Tensor], Tensor],
) -> Tensor:
    """Negative log-likelihood of a Laplacian reshaped by the flow: mean over keypoints, at least 0."""
    finite = errors.isfinite().all(1)
    count = int(finite.sum())
    if count == 0:
        return torch.zeros((), dtype=torch.float64)
    errors, sigmas, weights = errors[finite].clamp(-100, 100), sigmas[finite], weights[finite]
    log_phi = flow(errors)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(count):
        each = sum(torch.log(sigmas[i, j]) + math.log(2) + torch.log(sigmas[i, j]) + errors[i, j].abs() for j in (0, 1))
        total = total + weights[i] * (each - 2 * log_phi[i])
    return (total / count).clamp(min=0)
