"""How the terms of a loss are reduced, over the batch and per image.

Letters: B images, A anchors, P positive slots.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from compiled_loss.checks import check_shape, require
from compiled_loss.losses.counting import anchor_weights, row_weights
from compiled_loss.losses.parts import ClassTerm, Mean, MeanWhere, OfImages, Term, Weighted
from compiled_loss.losses.scene import Positives
from compiled_loss.numerics import at_least_float32, masked, total
from compiled_loss.reduce import Sums, normaliser, sum_over_ranks, sums


class Reduction(NamedTuple):
    """The weights and divisors with which all terms of a batch are reduced.

    Args:
        positives: the positives.
        weights: `[P]` weights of their rows, 0 in empty slots; None means all 1.
        normaliser: divisor for sums of errors times scores (or the assigner's weights), without row weights.
        number: divisor for sums over positives, their number.
        batch: divisor for sums over images, B. All three are averaged over ranks if requested.
        images: B, to return each image's contribution; None if not requested.
        over_ranks: whether a term's own counts are averaged over ranks too.
    """

    positives: Positives
    weights: Tensor | None
    normaliser: Tensor
    number: Tensor
    batch: Tensor | int
    images: int | None
    over_ranks: bool

    def of_term(self, name: str, term: Term, gain: float) -> Sums:
        """A term, multiplied by its gain.

        Raises:
            ValueError: for a scalar if contributions per image are requested.
        """
        assignment = self.positives.assignment
        image = assignment.image
        if isinstance(term, Weighted | Mean | MeanWhere):
            sizes = ["P"] if isinstance(term, Weighted) else ["P", "K"]
            check_shape(f"term {name!r}: {type(term).__name__}.errors", term.errors, sizes, "see parts.Extra")
        if isinstance(term, Weighted):
            scores = assignment.weights().to(term.errors.dtype)
            weighted = sums(self._counted(term.errors) * scores, image, self.images)
            return weighted.map(lambda x: gain * x / self.normaliser)
        if isinstance(term, Mean):
            count = self.number * term.errors.shape[-1]
            return sums(self._counted(term.errors), image, self.images).map(lambda x: gain * (x / count))
        if isinstance(term, MeanWhere):
            found = sums(masked(self._counted(term.errors), term.mask), image, self.images)
            whole, count = found.batch.detach(), term.mask.sum()
            if self.over_ranks:  # the sum too: the joined batch's is clamped at 0
                whole, joined = sum_over_ranks(torch.stack([whole, count.to(whole.dtype)])).unbind()
                count = joined.clamp(min=1) / dist.get_world_size()
            else:
                count = count.clamp(min=1)
            return found.zero_where(whole < 0).map(lambda x: gain * (x / count))
        if isinstance(term, OfImages):
            every = torch.arange(term.errors.shape[0], device=image.device)
            count = self.batch * term.errors.shape[1]
            return sums(term.errors, every, self.images).map(lambda x: gain * (x / count))
        check_shape(f"term {name!r}", term, [], "or Weighted, Mean, MeanWhere or OfImages, see parts.Extra")
        expected = "terms that know their images: Weighted, Mean, MeanWhere or OfImages"
        require(self.images is None, "per_image", expected, f"a scalar for {name!r}")
        return Sums(gain * term, None)

    def of_classes(self, term: ClassTerm, gain: float) -> Sums:
        """The class term, multiplied by its gain.

        Raises:
            ValueError: for a plain function if anchors are weighted or contributions per image are requested.
        """
        (predictions, *_, scene), assignment, *_ = self.positives
        given = at_least_float32(predictions.scores), assignment, scene.targets.labels
        anchors = anchor_weights(self.positives)
        if anchors is None and self.images is None:
            summed = term(*given)
            check_shape("classification(...)", summed, [], "see parts.ClassTerm")
            found = Sums(summed, None)
        else:
            weighted = getattr(term, "sums", None)
            expected = "a term with a method `sums` (WeightedClassTerm), as weights, ignore rows and per_image need it"
            require(weighted is not None, "classification", expected, type(term).__name__)
            assert weighted is not None
            batch, images = weighted(*given, anchors)
            found = Sums(batch, None if self.images is None else images)
        return found.map(lambda x: gain * x / self.normaliser)

    def _counted(self, errors: Tensor) -> Tensor:
        """`[P, ...]` errors times row weights; errors of weight 0 and in empty slots may have any value."""
        valid = self.positives.assignment.valid
        if self.weights is None:
            return masked(errors, valid)
        weights = self.weights.to(errors.dtype).reshape(-1, *[1] * (errors.dim() - 1))
        return masked(errors, valid & (self.weights > 0)) * weights


def reduction_of(positives: Positives, *, over_ranks: bool, per_image: bool) -> Reduction:
    """The reduction for the terms of these positives.

    Args:
        positives: the positives.
        over_ranks: average divisors over the ranks of the default process group.
        per_image: also return each image's contribution.
    """
    assignment, batch = positives.assignment, positives.view.predictions.scores.shape[0]
    scores, count = total(assignment.weights()), assignment.valid.sum()
    images = batch if per_image else None
    if over_ranks:  # in one collective
        amounts = torch.stack([scores, count.to(scores.dtype), torch.full_like(scores, batch)])
        mean, number, every = normaliser(amounts, over_ranks=True).unbind()
        return Reduction(positives, row_weights(positives), mean, number, every, images, over_ranks)
    divisors = normaliser(scores), normaliser(count), batch
    return Reduction(positives, row_weights(positives), *divisors, images, over_ranks)
