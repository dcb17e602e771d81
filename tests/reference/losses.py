"""Detection and pose losses of anchor-free heads in float64, one target row at a time, gradients by autograd."""

import torch
from torch import Tensor

from .assigner import assign, pixel_boxes
from .geometry import COCO_SIGMAS, ciou
from .parts import (
    GAINS,
    ReferenceLoss,
    anchor_grid,
    by_row,
    close,
    distance_name,
    distance_term,
    entropy,
    open_head,
    score_sum,
)

__all__ = ["GAINS", "ReferenceLoss", "anchor_grid", "keypoint_sums", "loss", "spread_of"]


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
    **options,
) -> ReferenceLoss:
    """The detection loss; with `keypoints`, the pose loss. Options: those of `assign`."""
    head = open_head({"boxes": boxes, "scores": scores, "keypoints": keypoints}, grid_sizes, strides)
    predicted = torch.cat([head.grid - head.distances[..., :2], head.grid + head.distances[..., 2:]], -1)
    targets = pixel_boxes(target_boxes, *head.size)
    positives = assign(
        head.leaves["scores"].detach().sigmoid().transpose(1, 2),
        (predicted * head.step[:, None]).detach(),
        head.points,
        batch_idx.tolist(),
        labels.tolist(),
        targets,
        small=strides[:2][-1],
        **options,
    )
    sums = dict.fromkeys(("box", distance_name(head)), torch.zeros((), dtype=torch.float64))
    means = dict.fromkeys(("pose", "kobj"), torch.zeros((), dtype=torch.float64))
    for row, image, at, weight in by_row(positives):
        grid, step = head.grid[at], head.step[at]
        true = torch.from_numpy(targets[row]).double() / step[:, None]  # [P, 4] grid units
        sums["box"] = sums["box"] + (weight * (1 - ciou(predicted[image, at], true))).sum()
        sides = torch.cat([grid - true[:, :2], true[:, 2:] - grid], 1)  # [P, 4]
        name = distance_name(head)
        sums[name] = sums[name] + (weight * distance_term(head, image, at, sides)).sum()
        if target_keypoints is not None:
            raw = head.leaves["keypoints"][image, :, at].T.reshape(len(at), num_keypoints, -1)  # [P, K, D]
            points = 2 * raw[..., :2] + grid[:, None] - 0.5
            location, visibility = keypoint_sums(
                raw, points, target_keypoints[row].double(), step, true, head.size, spread_of(raw, sigmas)
            )
            means["pose"], means["kobj"] = means["pose"] + location, means["kobj"] + visibility
    terms = {name: value / score_sum(positives) for name, value in sums.items()}
    if target_keypoints is not None:
        terms |= {name: value / max(len(positives), 1) for name, value in means.items()}
    return close(head, terms, positives, labels, class_weights, gains)


def spread_of(raw: Tensor, sigmas: list[float] | None) -> list[float]:
    """The sigmas given; else COCO's for 17 keypoints with visibility, else 1/K."""
    count, dims = raw.shape[1], raw.shape[2]
    if sigmas is not None:
        return sigmas
    return COCO_SIGMAS if (count, dims) == (17, 3) else [1 / count] * count


def keypoint_sums(
    raw: Tensor,  # [P, K, D]
    points: Tensor,  # [P, K, 2] grid units
    target: Tensor,  # [K, 2 or 3] normalised
    step: Tensor,  # [P]
    box: Tensor,  # [P, 4] grid units
    size: tuple[int, int],  # height, width
    sigmas: list[float],
) -> tuple[Tensor, Tensor]:
    """Sums over one row's positives of the location loss and of the visibility loss, each a mean over keypoints."""
    height, width = size
    count, dims = raw.shape[1], raw.shape[2]
    flags = [bool(target[k, 2] != 0) if target.shape[1] == 3 else True for k in range(count)]
    factor = count / (sum(flags) + 1e-9)
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    location = visibility = torch.zeros((), dtype=torch.float64)
    for k, sigma in enumerate(sigmas):
        true = target[k, :2] * torch.tensor([width, height], dtype=torch.float64) / step[:, None]
        if flags[k]:
            error = ((points[:, k] - true) ** 2).sum(1) / ((2 * sigma) ** 2 * (area + 1e-9) * 2)
            location = location + (factor * (1 - torch.exp(-error))).sum() / count
        if dims == 3:
            visibility = visibility + entropy(raw[:, k, 2], torch.tensor(float(flags[k]))).sum() / count
    return location, visibility
