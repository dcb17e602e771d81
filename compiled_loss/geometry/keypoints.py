"""Keypoint similarity.

Letters: K keypoints.
"""

import torch
from torch import Tensor

from compiled_loss.numerics import add_epsilon, masked

# For the nose, then left and right: eye, ear, shoulder, elbow, wrist, hip, knee, ankle.
COCO_SIGMAS = (0.026, *(s for s in (0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089) for _ in range(2)))


def keypoint_errors(predicted: Tensor, target: Tensor, area: Tensor, sigmas: Tensor) -> Tensor:
    """Scaled squared distance `e = d^2 / ((2 sigma)^2 (area + 1e-9) 2)` of every keypoint.

    Args:
        predicted: `[..., K, 2]` (x, y).
        target: `[..., K, 2]` (x, y), same unit.
        area: `[...]` object area, that unit squared.
        sigmas: `[K]` per-keypoint spread, a fraction of the object's scale.

    Returns:
        `[..., K]`; `exp(-e)` is the keypoint's similarity.

    Source: COCO keypoint evaluation.

    Example:
        >>> keypoint_errors(torch.ones(1, 2), torch.zeros(1, 2), torch.tensor(1.0), torch.tensor([0.5]))
        tensor([1.])
    """
    squared = (predicted - target).square().sum(-1)
    return squared / ((2 * sigmas).square() * add_epsilon(area, 1e-9)[..., None] * 2)


def oks(predicted: Tensor, target: Tensor, visible: Tensor, area: Tensor, sigmas: Tensor) -> Tensor:
    """Object keypoint similarity: mean over visible keypoints of `exp(-e)`; 0 if none is visible.

    Args:
        predicted: `[..., K, 2]` (x, y).
        target: `[..., K, 2]` (x, y), same unit.
        visible: `[..., K]` bool or 0/1.
        area: `[...]` object area, that unit squared.
        sigmas: `[K]` per-keypoint spread.

    Returns:
        `[...]` in `[0, 1]`.

    Source: COCO keypoint evaluation.

    Example:
        >>> oks(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1), torch.tensor(1.0), torch.tensor([0.1]))
        tensor(1.)
    """
    visible, mask = visible.bool(), visible.to(predicted.dtype)
    # Unlabelled keypoints may hold any value, including NaN.
    predicted, target = masked(predicted, visible), masked(target, visible)
    similarity = torch.exp(-keypoint_errors(predicted, target, area, sigmas))
    return (similarity * mask).sum(-1) / mask.sum(-1).clamp(min=1)
