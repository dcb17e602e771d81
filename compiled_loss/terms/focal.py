"""Class terms that weight every logit by how wrong it is: the focal family, without a dense target tensor.

The members differ only at positives. A background logit of probability `s = sigmoid(x)` costs `s^gamma softplus(x)`,
times a factor; this is summed over all logits except the positives.

Letters: B images, C classes, A anchors, P positive slots.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compiled_loss.checks import finite_number, require, share
from compiled_loss.numerics import has_float64, masked, pick, power
from compiled_loss.terms.classification import WeightedClasses
from compiled_loss.torch_private import is_exporting
from compiled_loss.types import Assignment


class Modulated(WeightedClasses):
    """Base of the focal family.

    Args:
        gamma: power of the probability of a background logit, 0 or more.
        background: factor of all background losses.
        class_weights: `[C]` factor of the loss of each class's logits, or None.
    """

    def __init__(self, gamma: float, background: float, class_weights: Tensor | Sequence[float] | None) -> None:
        super().__init__(class_weights)
        # As a text, which is a constant of every graph. In a graph of open sizes torch treats a number of a module as
        # one that may change, and the tracer cannot follow it into a second autograd function, of another branch.
        self._power, self._background = str(gamma), background

    def positive(self, logit: Tensor, score: Tensor) -> Tensor:
        """`[P]` errors of positives, from their logits and target scores `[P]`."""
        raise NotImplementedError

    def _parts(
        self, scores: Tensor, assignment: Assignment, labels: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Sums over background, and the positives' errors minus their share of these sums."""
        image, anchor, row, valid, score = assignment[:5]
        label, gamma = torch.where(valid, labels.long()[row], 0), float(self._power)
        factor = torch.ones_like(score) if weights is None else pick(weights.to(scores.dtype), image, anchor)
        if weights is None:
            sums, logit, own = _sums_and_entries(scores, image, label, anchor, valid, gamma)
        else:
            ordinary, apart = valid & (factor == 1), valid & (factor != 1) & (factor > 0)
            # As in `BinaryCrossEntropy`: anchors of weight 1 are summed together, the few others added one by one.
            common = torch.where((weights == 1)[:, None], scores, -torch.inf)
            sums, logit, own = _sums_and_entries(common, image, label, anchor, ordinary, gamma)
            rows, mine = masked(scores[image, :, anchor], apart), torch.arange(scores.shape[1], device=scores.device)
            further = torch.where(mine == label[:, None], 0.0, _modulated(rows, gamma) * factor[:, None])
            further = masked(further, apart).to(sums.dtype)
            sums = sums + torch.zeros_like(sums).scatter_add(0, image[:, None].expand_as(further), further)
            logit = torch.where(apart, rows.gather(1, label[:, None])[:, 0], logit)
            own, valid = masked(own, ordinary), ordinary | apart
        # In the sums' precision, so that exactly what was added is subtracted.
        error = self.positive(logit, score.to(logit.dtype)).to(sums.dtype) - self._background * own.to(sums.dtype)
        error = masked(error, valid) * masked(factor, valid)
        return self.weighted(self._background * sums, error, label)


class FocalLoss(Modulated):
    """Focal loss summed over all `B*C*A` logits: `-a (1 - p)^gamma ln p`, with p the probability of the true answer.

    The factor a is alpha at positives, whose target is 1 regardless of their score, and `1 - alpha` elsewhere.

    Args:
        alpha: weight of positives relative to background, in `[0, 1]`.
        gamma: focusing power, 0 or more; larger values reduce the weight of logits that are already right.
        class_weights: `[C]` factor of the loss of each class's logits, or None.

    Raises:
        ValueError: if a number is outside these ranges.

    Source: arXiv 1708.02002.

    Example:
        >>> one = Assignment(*torch.tensor([[0], [2], [0]]), torch.tensor([True]), torch.tensor([0.9]), torch.tensor(0))
        >>> round(FocalLoss()(torch.zeros(1, 2, 3), one, torch.tensor([1])).item(), 4)  # (5 x 0.75 + 0.25) ln(2) / 4
        0.6931
    """

    def __init__(
        self, alpha: float = 0.25, gamma: float = 2.0, class_weights: Tensor | Sequence[float] | None = None
    ) -> None:
        alpha, gamma = share("alpha", alpha), finite_number("gamma", gamma)
        super().__init__(gamma, 1 - alpha, class_weights)
        self.alpha, self.gamma = alpha, gamma

    def positive(self, logit: Tensor, score: Tensor) -> Tensor:
        """`alpha (1 - s)^gamma softplus(-x)`."""
        return self.alpha * _probability(-logit, self.gamma) * F.softplus(-logit)


class QualityFocalLoss(Modulated):
    """Quality focal loss summed over all `B*C*A` logits: `|t - s|^beta` times the binary cross-entropy with target t.

    Args:
        beta: focusing power, 0 or at least 1; larger values reduce the weight of logits that are already right.
        class_weights: `[C]` factor of the loss of each class's logits, or None.

    Raises:
        ValueError: if a number is outside these ranges.

    Source: Generalized Focal Loss, arXiv 2006.04388.

    Example:
        >>> one = Assignment(*torch.tensor([[0], [2], [0]]), torch.tensor([True]), torch.tensor([0.5]), torch.tensor(0))
        >>> round(QualityFocalLoss()(torch.zeros(1, 2, 3), one, torch.tensor([1])).item(), 4)  # 5 ln(2) / 4
        0.8664
    """

    def __init__(self, beta: float = 2.0, class_weights: Tensor | Sequence[float] | None = None) -> None:
        beta = finite_number("beta", beta)
        # Between 0 and 1 the slope is infinite where a prediction is right.
        require(beta == 0 or beta >= 1, "beta", "0, or a number of 1 or more", beta)
        super().__init__(beta, 1.0, class_weights)
        self.beta = beta

    def positive(self, logit: Tensor, score: Tensor) -> Tensor:
        """`|t - s|^beta (t softplus(-x) + (1 - t) softplus(x))`."""
        # Instead of `t - s`, which loses precision where both are near 1.
        away = (score * (-logit).sigmoid() - (1 - score) * logit.sigmoid()).abs()
        return power(away, self.beta) * _cross_entropy(logit, score)


class VarifocalLoss(Modulated):
    """Varifocal loss summed over all `B*C*A` logits: positives are weighted by their targets.

    A positive with target score t costs t times the binary cross-entropy with target t, and background costs
    `alpha s^gamma softplus(x)`.

    Args:
        alpha: weight of background, 0 or more.
        gamma: focusing power for background, 0 or more; larger values reduce the weight of what is already right.
        class_weights: `[C]` factor of the loss of each class's logits, or None.

    Raises:
        ValueError: if a number is outside these ranges.

    Source: VarifocalNet, arXiv 2008.13367.

    Example:
        >>> one = Assignment(*torch.tensor([[0], [2], [0]]), torch.tensor([True]), torch.tensor([0.5]), torch.tensor(0))
        >>> round(VarifocalLoss()(torch.zeros(1, 2, 3), one, torch.tensor([1])).item(), 4)  # (5 x 3/16 + 1/2) ln(2)
        0.9964
    """

    def __init__(
        self, alpha: float = 0.75, gamma: float = 2.0, class_weights: Tensor | Sequence[float] | None = None
    ) -> None:
        alpha, gamma = finite_number("alpha", alpha), finite_number("gamma", gamma)
        super().__init__(gamma, alpha, class_weights)
        self.alpha, self.gamma = alpha, gamma

    def positive(self, logit: Tensor, score: Tensor) -> Tensor:
        """`t (t softplus(-x) + (1 - t) softplus(x))`; a score of 0 counts as background."""
        background = self.alpha * _modulated(logit, self.gamma)
        return torch.where(score > 0, score * _cross_entropy(logit, score), background)


class _SumsAndEntries(torch.autograd.Function):
    """Writes one gradient of the logits' size, in which the sums contribute nothing at the positives."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        scores: Tensor, image: Tensor, label: Tensor, anchor: Tensor, valid: Tensor, gamma: float
    ) -> tuple[Tensor, Tensor]:
        # A class of probability 0 costs nothing. If subtracted from the sums instead, a positive that is nearly right
        # would leave only the rounding error of its cost as background.
        hidden = torch.where(valid, -torch.inf, 0.0).to(scores.dtype)
        others = scores.index_put((image, label, anchor), hidden, accumulate=True)
        return _sums(others, gamma), scores[image, label, anchor]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.gamma = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (of_sums, of_entries), (scores, *places, valid) = gradients, ctx.saved_tensors
        s = scores.sigmoid()
        slope = _probability(scores, ctx.gamma) * (ctx.gamma * (1 - s) * F.softplus(scores) + s)
        gradient = of_sums[..., None].to(scores.dtype) * slope
        # Subtracted first, which leaves exactly 0: the slope of a positive that is nearly right is many times smaller
        # than as background, and would be lost in their difference.
        places = tuple(places)
        gradient = gradient.index_put(places, -masked(gradient[places], valid), accumulate=True)
        return gradient.index_put(places, of_entries, accumulate=True), None, None, None, None, None


def _sums_and_entries(
    scores: Tensor, image: Tensor, label: Tensor, anchor: Tensor, valid: Tensor, gamma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`[B, C]` sums of logits' errors as background, `[P]` logits at places, 0 in empty slots, and the background
    errors of these that are in the sums and must be subtracted."""
    # As in `terms.classification`: no autograd function if no gradient is needed, nor in an export, where a scatter
    # that adds loses terms.
    if torch.is_grad_enabled() and scores.requires_grad and not is_exporting():
        sums, logit = _SumsAndEntries.apply(scores, image, label, anchor, valid, gamma)
        logit = masked(logit, valid)
        return sums, logit, torch.zeros_like(logit)
    logit = masked(scores[image, label, anchor], valid)
    return _sums(scores, gamma), logit, _modulated(logit, gamma)


def _sums(scores: Tensor, gamma: float) -> Tensor:
    # In float64, so that subtracting the positives from the sums leaves the rest precise.
    dtype = torch.float64 if has_float64(scores.device) else scores.dtype
    return _modulated(scores, gamma).sum(-1, dtype=dtype)


def _modulated(logit: Tensor, gamma: float) -> Tensor:
    """`s^gamma softplus(x)`, the error of a background logit."""
    return F.softplus(logit) * _probability(logit, gamma)


def _probability(logit: Tensor, exponent: float) -> Tensor:
    """`s^exponent`, without an infinite slope for a power below 1 at a probability rounded to 0."""
    if 0 < exponent < 1:
        return (-exponent * F.softplus(-logit)).exp()
    return power(logit.sigmoid(), exponent)


def _cross_entropy(logit: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy without the cancellation of `softplus(x) - t x`; finite for a target of 0 and a logit of -inf."""
    return torch.where(target == 0, 0.0, target * F.softplus(-logit)) + (1 - target) * F.softplus(logit)
