"""Classification over all anchors without a dense target tensor.

Letters: B images, C classes, A anchors, P positive slots.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from compiled_loss.numerics import masked, total
from compiled_loss.types import Assignment


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
    background = F.softplus(scores).sum(-1)
    label = torch.where(assignment.valid, labels.long()[assignment.row], 0)
    logit = masked(scores[assignment.image, label, assignment.anchor], assignment.valid)
    positive = assignment.score.to(logit.dtype) * logit
    if class_weights is not None:
        weights = class_weights.to(background.dtype)
        background, positive = background * weights, positive * weights[label]
    return total(background) - total(positive)
