"""Box regression terms.

Letters: P positive slots, R distance bins.
"""

import torch
from torch import Tensor


def distribution_focal(
    logits: Tensor,  # [P, 4, R]
    distances: Tensor,  # [P, 4] grid units
) -> Tensor:
    """Cross-entropy of a distance split linearly over its two neighbouring bins, mean over the four sides.

    `t` is clamped to `[0, R - 1.01]`; bin j has the weight `max(0, 1 - |t - j|)`.

    Args:
        logits: `[P, 4, R]` side-distance logits.
        distances: `[P, 4]` true distances, grid units.

    Returns:
        `[P]`.

    Source: Generalized Focal Loss, arXiv 2006.04388.

    Example:
        >>> round(distribution_focal(torch.zeros(1, 4, 4), torch.ones(1, 4)).item(), 4)
        1.3863
    """
    bins = torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)
    target = distances.clamp(0.0, logits.shape[-1] - 1 - 0.01)
    weight = (1 - (target[..., None] - bins).abs()).clamp(min=0)
    # A bin of weight 0 may be impossible, and 0 times -inf is NaN.
    return -torch.where(weight > 0, weight * logits.log_softmax(-1), 0.0).sum(-1).mean(-1)


def scaled_l1(
    predicted: Tensor,  # [P, 4] grid units
    distances: Tensor,  # [P, 4] grid units
    strides: Tensor,  # [P] pixels
    image_size: tuple[int, int],
) -> Tensor:
    """`|predicted - true|` distance as a fraction of the image's width (left, right) or height, mean over sides.

    Args:
        predicted: `[P, 4]` left, top, right, bottom, grid units.
        distances: `[P, 4]` true distances; may be negative.
        strides: `[P]` pixels per grid unit.
        image_size: (height, width) in pixels.

    Returns:
        `[P]`.

    Example:
        >>> scaled_l1(torch.zeros(1, 4), torch.ones(1, 4), torch.tensor([8.0]), (16, 16))
        tensor([0.5000])
    """
    height, width = image_size
    error = (predicted - distances).abs() * strides[:, None]
    horizontal, vertical = error[:, 0::2].sum(-1), error[:, 1::2].sum(-1)
    return (horizontal / width + vertical / height) / 4
