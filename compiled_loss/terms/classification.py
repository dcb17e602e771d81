"""Classification over all anchors without a dense target tensor.

Letters: B images, C classes, A anchors, P positive slots.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compiled_loss.checks import check_shape, numbers_for_each, share
from compiled_loss.exact import ExactModule
from compiled_loss.numerics import decay, masked, pick, total, totals
from compiled_loss.torch_private import is_exporting
from compiled_loss.types import Assignment

# Logits that share one logarithm.
_GROUP = 16


class WeightedClasses(ExactModule):
    """Base of class terms: a sum over background, corrected at positives, with optional class weights.

    Args:
        class_weights: `[C]` factor of the loss of each class's logits, or None.

    Raises:
        ValueError: if weights are not finite numbers of 0 or more.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Tensor | Sequence[float] | None = None) -> None:
        super().__init__()
        if class_weights is not None:
            class_weights = numbers_for_each("class_weights", class_weights)
        self.register_buffer("class_weights", class_weights, persistent=False)

    def check(self, num_classes: int) -> None:
        """Check that there is one weight per class.

        Raises:
            ValueError: if there is another number of weights.
        """
        if self.class_weights is not None:
            check_shape("class_weights", self.class_weights, [num_classes])

    def weighted(self, sums: Tensor, errors: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Sums `[B, C]`, and errors of classes `label`, multiplied by their class weights."""
        if self.class_weights is None:
            return sums, errors
        weights = self.class_weights.to(errors.dtype)
        of_errors = weights[label]
        # An error of weight 0 may be infinite.
        return sums * weights, torch.where(of_errors > 0, errors * of_errors, 0.0)

    def forward(
        self,
        scores: Tensor,  # [B, C, A] class logits
        assignment: Assignment,
        labels: Tensor,  # [N]
    ) -> Tensor:
        """The sum, not normalised.

        Args:
            scores: `[B, C, A]` class logits.
            assignment: the positives and their target scores t.
            labels: `[N]` class ids of the target rows.

        Returns:
            scalar.
        """
        background, error = self._parts(scores, assignment, labels, None)
        return (total(background) + total(error)).to(scores.dtype)

    def sums(
        self,
        scores: Tensor,  # [B, C, A] class logits
        assignment: Assignment,
        labels: Tensor,  # [N]
        weights: Tensor | None = None,  # [B, A]
    ) -> tuple[Tensor, Tensor]:
        """The sum with anchors weighted, and each image's contribution to it.

        Args:
            scores: `[B, C, A]` class logits.
            assignment: the positives and their target scores t.
            labels: `[N]` class ids of the target rows.
            weights: `[B, A]` factor of all C losses of an anchor: 1 or 0 for background, any number of 0 or more for
                positives; None means all 1.

        Returns:
            `(scalar, [B])`.
        """
        background, error = self._parts(scores, assignment, labels, weights)
        images = torch.arange(scores.shape[0], device=scores.device)
        of_images = totals(background, images, scores.shape[0]) + totals(error, assignment.image, scores.shape[0])
        return (total(background) + total(error)).to(scores.dtype), of_images.to(scores.dtype)

    def _parts(
        self, scores: Tensor, assignment: Assignment, labels: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """`[B, C]` sums with all anchors as background, and `[P]` or `[P, C]` corrections at positives."""
        raise NotImplementedError


class BinaryCrossEntropy(WeightedClasses):
    """Binary cross-entropy summed over all `B*C*A` logits, with one-hot times target score as target.

    `sum softplus(x) - sum over positives of t x`: background needs no target, so no dense target is built.

    Args:
        class_weights: `[C]` factor of the loss of each class's logits, or None.
        label_smoothing: share e of a positive's target spread evenly over all C classes: `t (1 - e) one-hot + t e / C`.
            Background targets stay 0. With smoothing, a logit of -inf in any class of a positive has infinite loss.

    Raises:
        ValueError: if weights are not finite numbers of 0 or more, or the share is not in `[0, 1]`.

    Source: label smoothing, arXiv 1512.00567.

    Example:
        >>> empty = Assignment(*torch.zeros(3, 0, dtype=torch.long), torch.ones(0, dtype=torch.bool),
        ...                    torch.zeros(0), torch.tensor(0))
        >>> round(BinaryCrossEntropy()(torch.zeros(1, 2, 3), empty, torch.zeros(0)).item(), 4)
        4.1589
    """

    def __init__(self, class_weights: Tensor | Sequence[float] | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__(class_weights)
        self.label_smoothing = share("label_smoothing", label_smoothing)

    def _parts(
        self, scores: Tensor, assignment: Assignment, labels: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Sums of softplus over the anchors, and `-t x` at the positives, for every class if smoothed."""
        image, anchor, row, valid, score = assignment[:5]
        label = torch.where(valid, labels.long()[row], 0)
        places = image, label, anchor
        if self.label_smoothing > 0:  # every class of a positive has a target
            classes = torch.arange(scores.shape[1], device=scores.device)
            smooth = self.label_smoothing / len(classes)
            shared, own = smooth * score[:, None], (1 - self.label_smoothing) * score[:, None]
            score, label = torch.where(classes == label[:, None], own + shared, shared), classes
            places = image[:, None], classes, anchor[:, None]
        # Anchors first: partial sums keep the rounding of a sum over millions small.
        if weights is None:
            background, logit = _sums_and_entries(scores, *torch.broadcast_tensors(*places))
            positive = _times(score, masked(logit, valid))
        else:
            background, logit, weight = _weighted(scores, assignment, places, weights.to(scores.dtype))
            positive = _times(score, logit) * weight
        return self.weighted(background, positive, label)


def _times(score: Tensor, logit: Tensor) -> Tensor:
    """`-t x`; 0 for a target of 0, even if the logit is -inf."""
    return torch.where(score == 0, 0.0, -score.to(logit.dtype) * logit)


def _weighted(
    scores: Tensor, assignment: Assignment, places: tuple[Tensor, Tensor, Tensor], weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`[B, C]` weighted sums of softplus, the logits at places, 0 where they do not count, and their weights.

    There is one place per positive, `[P]`, or one per class of each, `[P, C]`. Anchors of weight 1 are computed as
    without weights, with the others set to -inf, which adds nothing. The others are few, positives, added one by one.
    """
    image, anchor, valid = assignment.image, assignment.anchor, assignment.valid
    ordinary = torch.where((weights == 1)[:, None], scores, -torch.inf)
    background, logit = _sums_and_entries(ordinary, *torch.broadcast_tensors(*places))
    weight = pick(weights, image, anchor)
    apart, rest = valid & (weight != 1) & (weight > 0), valid & (weight == 1)
    rows = masked(scores[image, :, anchor], apart)  # [P, C]
    further = masked(F.softplus(rows) * weight[:, None], apart)
    background = background + torch.zeros_like(background).scatter_add(0, image[:, None].expand_as(further), further)
    if logit.dim() == 2:
        return background, torch.where(apart[:, None], rows, masked(logit, rest)), weight[:, None]
    own = rows.gather(1, places[1][:, None])[:, 0]
    return background, torch.where(apart, own, masked(logit, rest)), weight


class _SumsAndEntries(torch.autograd.Function):
    """Writes one gradient of the logits' size; two separate operations would write two and add them."""

    generate_vmap_rule = True

    @staticmethod
    def forward(scores: Tensor, image: Tensor, label: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
        return _grouped_softplus_sum(scores), scores[image, label, anchor]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (of_sums, of_entries), (scores, *places) = gradients, ctx.saved_tensors
        gradient = of_sums[..., None] * scores.sigmoid()
        return gradient.index_put(tuple(places), of_entries, accumulate=True), None, None, None


def _sums_and_entries(scores: Tensor, image: Tensor, label: Tensor, anchor: Tensor) -> tuple[Tensor, Tensor]:
    """`[B, C]` sums of `softplus` over the anchors, and `[P]` logits at places."""
    # If no gradient is needed, the tracer instantiates the function, of which torch warns. Export looks inside the
    # function and differentiates what it finds there.
    if torch.is_grad_enabled() and scores.requires_grad and not is_exporting():
        return _SumsAndEntries.apply(scores, image, label, anchor)
    return softplus_sum(scores), scores[image, label, anchor]


def softplus_sum(x: Tensor) -> Tensor:
    """Sum of `softplus(x) = ln(1 + e^x)` over the last dimension, with one logarithm for several entries.

    `softplus(x) = max(x, 0) + ln(1 + e^-|x|)`, and the logarithms of a group add up to the logarithm of a product. The
    product minus one, `q`, is built from sums and products of positive numbers, `q <- q + e + q e`, so that small
    terms keep their precision.

    Args:
        x: `[..., A]`, float32 or float64.

    Returns:
        `[...]`.

    Example:
        >>> softplus_sum(torch.zeros(1, 2, 3))
        tensor([[2.0794, 2.0794]])
    """
    # The plain sum provides the gradient, which is cheaper; when compiled, its own value is not computed.
    plain = F.softplus(x).sum(-1)
    with torch.no_grad():
        return plain.copy_(_grouped_softplus_sum(x))


def _grouped_softplus_sum(x: Tensor) -> Tensor:
    # At least two entries are left over for any A: with varying sizes, none or one would need a separate graph.
    groups = (x.shape[-1] - 2) // _GROUP
    if is_exporting() and not isinstance(groups, int):
        # Zero or one group, or remaining entry, would need a separate graph. Padding with entries that add nothing
        # leaves at least two groups and no rest.
        groups = groups + 2
        x = torch.cat([x, x.new_full((*x.shape[:-1], groups * _GROUP - x.shape[-1]), -torch.inf)], -1)
    elif isinstance(groups, int) and groups <= 0:
        return F.softplus(x).sum(-1)  # ONNX has no way to take an empty tensor apart
    grouped, rest = x[..., : groups * _GROUP], x[..., groups * _GROUP :]
    whole = isinstance(groups, int) and groups * _GROUP == x.shape[-1]
    product = above = torch.zeros_like(grouped[..., :groups])
    for part in grouped.unflatten(-1, (_GROUP, groups)).unbind(-2):
        e = decay(-part.abs())
        product = product + e + product * e
        above = above + part.clamp(min=0)
    # log1p, cheaper than `numerics.log1p` and without its gradient: the rounding of 1 + q cancels in the quotient.
    rounded = 1 + product
    exact = rounded == 1
    log = torch.where(exact, product, rounded.log() * (product / torch.where(exact, 1.0, rounded - 1)))
    sums = (log + above).sum(-1)
    # Runtimes differ in the sum of an empty tensor.
    return sums if whole else sums + F.softplus(rest).sum(-1)
