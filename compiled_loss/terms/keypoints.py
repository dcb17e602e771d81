"""Keypoint terms.

Letters: P positive slots, K keypoints.
"""

import torch
from torch import Tensor

from compiled_loss.geometry.keypoints import keypoint_errors
from compiled_loss.numerics import masked


def keypoint_location(
    predicted: Tensor,  # [P, K, 2]
    target: Tensor,  # [P, K, 2]
    visible: Tensor,  # [P, K] bool
    area: Tensor,  # [P]
    sigmas: Tensor,  # [K]
) -> Tensor:
    """`K / visible (1 - exp(-e))` on visible keypoints, 0 on others: one minus OKS, spread over K.

    Args:
        predicted: `[P, K, 2]` (x, y), grid units.
        target: `[P, K, 2]` (x, y), grid units.
        visible: `[P, K]` bool.
        area: `[P]` box area, grid units squared.
        sigmas: `[K]` per-keypoint spread.

    Returns:
        `[P, K]`; its mean is the loss.

    Source: YOLO-Pose, arXiv 2204.06806.

    Example:
        >>> keypoint_location(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), torch.ones(1, 2), torch.ones(1),
        ...                   torch.ones(2))
        tensor([[0., 0.]])
    """
    visible, mask = visible.bool(), visible.to(predicted.dtype)
    # What is not labelled may hold anything, NaN included.
    predicted, target = masked(predicted, visible), masked(target, visible)
    factor = mask.shape[-1] / mask.sum(-1, keepdim=True).clamp(min=1)
    # Not expm1: its derivative, taken as result + 1, cancels where e is large.
    return factor * mask * (1 - torch.exp(-keypoint_errors(predicted, target, area, sigmas)))
