"""Detection and pose losses of anchor-free heads in float64, one target row at a time, gradients by autograd."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .assigner import Positive, assign, pixel_boxes
from .geometry import COCO_SIGMAS, ciou

GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "l1": 1.5, "pose": 12.0, "kobj": 1.0}


class ReferenceLoss(NamedTuple):
    """Terms times gain times batch size, the gradient of their sum, and what was matched."""

    terms: dict[str, float]
    gradients: dict[str, Tensor]
    positives: list[Positive]
    score_sum: float


def anchor_grid(grid_sizes: tuple[tuple[int, int], ...], strides: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Anchor points `[A, 2]` in grid units and the stride `[A]` of each, finest level first, row by row."""
    points = [(x + 0.5, y + 0.5) for h, w in grid_sizes for y in range(h) for x in range(w)]
    repeated = [s for (h, w), s in zip(grid_sizes, strides, strict=True) for _ in range(h * w)]
    return np.array(points, np.float32), np.array(repeated, np.float32)


def loss(
    boxes: Tensor,  # [B, 4*R, A] logits, or distances in grid units with R = 1
    scores: Tensor,  # [B, C, A] logits
    grid_sizes: tuple[tuple[int, int], ...],
    batch_idx: Tensor,  # [N]
    labels: Tensor,  # [N]
    target_boxes: Tensor,  # [N, 4] normalised cxcywh
    keypoints: Tensor | None = None,  # [B, K*D, A] raw
    target_keypoints: Tensor | None = None,  # [N, K, 2 or 3] normalised
    *,
    num_keypoints: int = 0,
    strides: tuple[int, ...] = (8, 16, 32),
    sigmas: list[float] | None = None,
    class_weights: list[float] | None = None,
    gains: dict[str, float] = GAINS,
    top_k: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
    oracle_ties: bool = False,
) -> ReferenceLoss:
    """The detection loss; with `keypoints`, the pose loss."""
    inputs = {"boxes": boxes, "scores": scores} | ({} if keypoints is None else {"keypoints": keypoints})
    inputs = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    height, width = grid_sizes[0][0] * strides[0], grid_sizes[0][1] * strides[0]
    points, stride = anchor_grid(grid_sizes, strides)
    grid, step = torch.from_numpy(points).double(), torch.from_numpy(stride).double()
    batch_size, anchors = len(boxes), len(points)

    logits = inputs["boxes"].transpose(1, 2).reshape(batch_size, anchors, 4, -1)  # [B, A, 4, R]
    bins = logits.shape[-1]
    distances = logits[..., 0]
    if bins > 1:
        distances = (logits.softmax(-1) * torch.arange(bins, dtype=torch.float64)).sum(-1)
    predicted = torch.cat([grid - distances[..., :2], grid + distances[..., 2:]], -1)  # [B, A, 4] grid units

    targets = pixel_boxes(target_boxes, height, width)
    positives = assign(
        inputs["scores"].detach().sigmoid().transpose(1, 2),
        (predicted * step[:, None]).detach(),
        points * stride[:, None],
        batch_idx.tolist(),
        labels.tolist(),
        targets,
        small=strides[:2][-1],
        top_k=top_k,
        alpha=alpha,
        beta=beta,
        oracle_ties=oracle_ties,
    )
    score_sum = max(1.0, sum(p.score for p in positives))

    zero = torch.zeros((), dtype=torch.float64)
    sums = dict.fromkeys(("box", "dfl" if bins > 1 else "l1", "pose", "kobj"), zero)
    class_target = torch.zeros(batch_size, anchors, scores.shape[1], dtype=torch.float64)
    for row in sorted({p.row for p in positives}):
        mine = [p for p in positives if p.row == row]
        image, at = mine[0].image, torch.tensor([p.anchor for p in mine])
        weight = torch.tensor([p.score for p in mine], dtype=torch.float64)
        class_target[image, at, int(labels[row])] = weight
        true = torch.from_numpy(targets[row]).double() / step[at, None]  # [P, 4] grid units
        sums["box"] = sums["box"] + (weight * (1 - ciou(predicted[image, at], true))).sum()
        sides = torch.cat([grid[at] - true[:, :2], true[:, 2:] - grid[at]], 1)  # [P, 4]
        if bins > 1:
            sums["dfl"] = sums["dfl"] + (weight * _distribution(logits[image, at], sides)).sum()
        else:
            scale = step[at, None] / torch.tensor([width, height, width, height], dtype=torch.float64)
            sums["l1"] = sums["l1"] + (weight * ((distances[image, at] - sides) * scale).abs().mean(1)).sum()
        if target_keypoints is not None:
            raw = inputs["keypoints"][image, :, at].T.reshape(len(mine), num_keypoints, -1)  # [P, K, D]
            location, visibility = _keypoints(
                raw, target_keypoints[row].double(), grid[at], step[at], true, (width, height), sigmas
            )
            sums["pose"], sums["kobj"] = sums["pose"] + location, sums["kobj"] + visibility

    x = inputs["scores"].transpose(1, 2)
    entropy = x.clamp(min=0) - x * class_target + torch.log1p(torch.exp(-x.abs()))
    if class_weights is not None:
        entropy = entropy * torch.tensor(class_weights, dtype=torch.float64)
    divisor = {"pose": max(len(positives), 1), "kobj": max(len(positives), 1)}
    terms = {name: value / divisor.get(name, score_sum) for name, value in sums.items()}
    terms["cls"] = entropy.sum() / score_sum
    if target_keypoints is None:
        del terms["pose"], terms["kobj"]
    terms = {name: value * gains[name] * batch_size for name, value in terms.items()}
    total = torch.stack(list(terms.values())).sum()
    gradients = torch.autograd.grad(total, list(inputs.values()), allow_unused=True, materialize_grads=True)
    return ReferenceLoss(
        {name: value.item() for name, value in terms.items()},
        dict(zip(inputs, gradients, strict=True)),
        positives,
        score_sum,
    )


def _distribution(logits: Tensor, sides: Tensor) -> Tensor:
    """Cross-entropy `[P]` against each distance split over its two neighbouring bins (arXiv 2006.04388)."""
    bins = logits.shape[-1]
    sides = sides.clamp(0, bins - 1 - 0.01)
    log = logits.log_softmax(-1)
    result = torch.zeros(len(logits), dtype=torch.float64)
    for side in range(4):
        left = sides[:, side].floor().long()
        upper = sides[:, side] - left
        each = torch.arange(len(logits))
        result = result - (1 - upper) * log[each, side, left] - upper * log[each, side, left + 1]
    return result / 4


def _keypoints(
    raw: Tensor,  # [P, K, D]
    target: Tensor,  # [K, 2 or 3] normalised
    anchor: Tensor,  # [P, 2] grid units
    step: Tensor,  # [P]
    box: Tensor,  # [P, 4] grid units
    size: tuple[int, int],
    sigmas: list[float] | None,
) -> tuple[Tensor, Tensor]:
    """Sums over one row's positives of the location loss and of the visibility loss, each a mean over keypoints."""
    count, dims = raw.shape[1], raw.shape[2]
    if sigmas is None:
        sigmas = COCO_SIGMAS if (count, dims) == (17, 3) else [1 / count] * count
    flags = [bool(target[k, 2] != 0) if target.shape[1] == 3 else True for k in range(count)]
    factor = count / (sum(flags) + 1e-9)
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    location = visibility = torch.zeros((), dtype=torch.float64)
    for k, sigma in enumerate(sigmas):
        point = 2 * raw[:, k, :2] + anchor - 0.5
        true = target[k, :2] * torch.tensor(size, dtype=torch.float64) / step[:, None]
        if flags[k]:
            error = ((point - true) ** 2).sum(1) / ((2 * sigma) ** 2 * (area + 1e-9) * 2)
            location = location + (factor * (1 - torch.exp(-error))).sum() / count
        if dims == 3:
            logit = raw[:, k, 2]
            entropy = logit.clamp(min=0) - logit * float(flags[k]) + torch.log1p(torch.exp(-logit.abs()))
            visibility = visibility + entropy.sum() / count
    return location, visibility
