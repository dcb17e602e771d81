"""Keypoint terms.

Letters: P positive slots, K keypoints.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from compiled_loss.geometry.keypoints import keypoint_errors
from compiled_loss.numerics import add_epsilon, masked

# Errors are clamped to this many sigmas.
_FARTHEST = 100.0


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
    # Unlabelled keypoints may hold any value, including NaN.
    predicted, target = masked(predicted, visible), masked(target, visible)
    factor = mask.shape[-1] / mask.sum(-1, keepdim=True).clamp(min=1)
    # Not expm1: its derivative, taken as result + 1, cancels where e is large.
    return factor * mask * (1 - torch.exp(-keypoint_errors(predicted, target, area, sigmas)))


def residual_log_likelihood(
    predicted: Tensor,  # [P, K, 2]
    target: Tensor,  # [P, K, 2]
    raw_sigmas: Tensor,  # [P, K, 2]
    visible: Tensor,  # [P, K] bool
    flow: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of a keypoint under a Laplacian that a normalising flow reshapes.

    With `s = sigmoid(raw)` and `err = (predicted - target) / (s + 1e-9)`, clamped to 100 either way:
    `sum over x, y of (log s + log 2 s + |err|) - 2 log phi(err)`.

    Args:
        predicted: `[P, K, 2]` (x, y), grid units.
        target: `[P, K, 2]` (x, y), grid units.
        raw_sigmas: `[P, K, 2]` logits of the spread in x and in y.
        visible: `[P, K]` bool.
        flow: `log phi`, from `[P*K, 2]` errors to `[P*K]`. It sees every slot, so that its parameters always have a
            gradient; errors of invisible keypoints are 0.

    Returns:
        `(loss [P, K], counted [P, K])`: the loss of the keypoints counted, which are those visible whose error is
        finite.

    Source: residual log-likelihood estimation, arXiv 2107.11291.

    Example:
        >>> zero = torch.zeros(1, 1, 2)
        >>> flow = lambda err: -err.square().sum(-1)
        >>> loss, counted = residual_log_likelihood(zero + 1, zero, zero, torch.ones(1, 1).bool(), flow)
        >>> loss, counted
        (tensor([[18.6137]]), tensor([[True]]))
    """
    with torch.no_grad():
        error = (predicted - target) / add_epsilon(raw_sigmas.sigmoid(), 1e-9)
        counted = visible & error.isfinite().all(-1)
    predicted, target, raw_sigmas = (masked(x, counted) for x in (predicted, target, raw_sigmas))
    error = (predicted - target) / add_epsilon(raw_sigmas.sigmoid(), 1e-9)
    error = error.clamp(-_FARTHEST, _FARTHEST)
    log_sigma = -F.softplus(-raw_sigmas)
    laplacian = (2 * log_sigma + math.log(2) + error.abs()).sum(-1)
    log_phi = flow(error.flatten(0, 1)).to(error.dtype).view_as(laplacian)
    return masked(laplacian - 2 * log_phi, counted), counted
