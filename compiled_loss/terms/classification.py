"""Classification over all anchors without a dense target tensor.

Letters: B images, C classes, A anchors, P positive slots.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from compiled_loss.numerics import log1p, masked, total
from compiled_loss.types import Assignment

# Logits that share one logarithm.
_GROUP = 8


def classification_sum(
    scores: Tensor,  # [B, C, A] class logits
    assignment: Assignment,
    labels: Tensor,  # [N]
    class_weights: Tensor | None = None,  # [C]
) -> Tensor:
    """Binary cross-entropy summed over all `B*C*A` logits against one-hot times target score.

    `sum softplus(x) - sum over positives of t x`: background needs no target, so none is built.

    Args:
        scores: `[B, C, A]` class logits.
        assignment: the positives and their target scores t.
        labels: `[N]` class ids of the target rows.
        class_weights: `[C]` factor of every logit's loss, or None.

    Returns:
        scalar, not normalised.

    Example:
        >>> empty = Assignment(*torch.zeros(3, 0, dtype=torch.long), torch.ones(0, dtype=torch.bool),
        ...                    torch.zeros(0), torch.tensor(0))
        >>> round(classification_sum(torch.zeros(1, 2, 3), empty, torch.zeros(0)).item(), 4)
        4.1589
    """
    # Anchors first: partial sums keep the rounding of a sum over millions small.
    background = softplus_sum(scores)
    label = torch.where(assignment.valid, labels.long()[assignment.row], 0)
    logit = masked(scores[assignment.image, label, assignment.anchor], assignment.valid)
    positive = assignment.score.to(logit.dtype) * logit
    if class_weights is not None:
        weights = class_weights.to(background.dtype)
        background, positive = background * weights, positive * weights[label]
    return total(background) - total(positive)


def softplus_sum(x: Tensor) -> Tensor:
    """Sum of `softplus(x) = ln(1 + e^x)` over the last dimension, with one logarithm for several entries.

    `softplus(x) = max(x, 0) + ln(1 + e^-|x|)`, and the logarithms of a group are one of a product. That product less
    one, `q`, is built from sums and products of positive numbers, `q <- q + e + q e`, so that small terms keep their
    digits.

    Args:
        x: `[..., A]`.

    Returns:
        `[...]`.

    Example:
        >>> softplus_sum(torch.zeros(1, 2, 3))
        tensor([[2.0794, 2.0794]])
    """
    # The plain sum lends its gradient, which is the cheaper one; compiled, its own value is not computed.
    plain = F.softplus(x).sum(-1)
    with torch.no_grad():
        return plain.copy_(_softplus_sum(x))


def _softplus_sum(x: Tensor) -> Tensor:
    groups = x.shape[-1] // _GROUP
    grouped, rest = x[..., : groups * _GROUP], x[..., groups * _GROUP :]
    product = above = torch.zeros_like(grouped[..., :groups])
    for part in grouped.unflatten(-1, (_GROUP, groups)).unbind(-2):
        e = (-part.abs()).exp()
        product = product + e + product * e
        above = above + part.clamp(min=0)
    return (log1p(product) + above).sum(-1) + F.softplus(rest).sum(-1)
