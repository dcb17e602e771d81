"""How the terms of a loss are reduced, over the batch and for each image.

Letters: B images, A anchors, P positive slots.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from compiled_loss.checks import require
from compiled_loss.losses.counting import anchor_weights, row_weights
from compiled_loss.losses.parts import ClassTerm, Mean, MeanWhere, OfImages, Term, Weighted
from compiled_loss.losses.scene import Positives
from compiled_loss.numerics import at_least_float32, masked, total
from compiled_loss.reduce import Sums, score_normaliser, sums


class Reduction(NamedTuple):
    """What all terms of a batch are reduced with.

    Args:
        positives: the positives.
        weights: `[P]` weights of their rows, 0 in empty slots; None: each counts 1.
        normaliser: what sums of errors times scores (or the assigner's weights) are divided by, without rows' weights.
        images: B, to be told what each image adds; None where nobody asked.
    """

    positives: Positives
    weights: Tensor | None
    normaliser: Tensor
    images: int | None

    def of_term(self, name: str, term: Term, gain: float) -> Sums:
        """A term, times its gain.

        Raises:
            ValueError: for a scalar, which cannot be told for each image where that is asked for.
        """
        assignment = self.positives.assignment
        image, valid = assignment.image, assignment.valid
        if isinstance(term, Weighted):
            scores = assignment.weights().to(term.errors.dtype)
            weighted = sums(self._counted(term.errors) * scores, image, self.images)
            return weighted.map(lambda x: gain * x / self.normaliser)
        if isinstance(term, Mean):
            count = valid.sum().clamp(min=1) * term.errors.shape[-1]
            return sums(self._counted(term.errors), image, self.images).map(lambda x: gain * (x / count))
        if isinstance(term, MeanWhere):
            count = term.mask.sum().clamp(min=1)
            mean = sums(masked(self._counted(term.errors), term.mask), image, self.images).map(lambda x: x / count)
            return mean.at_least_0().map(lambda x: gain * x)
        if isinstance(term, OfImages):
            every = torch.arange(term.errors.shape[0], device=image.device)
            count = term.errors.numel()
            return sums(term.errors, every, self.images).map(lambda x: gain * (x / count))
        expected = "terms that tell their images: Weighted, Mean, MeanWhere or OfImages"
        require(self.images is None, "per_image", expected, f"a scalar for {name!r}")
        return Sums(gain * term, None)

    def of_classes(self, term: ClassTerm, gain: float) -> Sums:
        """The class term, times its gain.

        Raises:
            ValueError: for a plain function where anchors are weighted or images told apart.
        """
        (predictions, *_, scene), assignment, *_ = self.positives
        given = at_least_float32(predictions.scores), assignment, scene.targets.labels
        anchors = anchor_weights(self.positives)
        if anchors is None and self.images is None:
            found = Sums(term(*given), None)
        else:
            weighted = getattr(term, "sums", None)
            expected = "a term with a method `sums` (WeightedClassTerm), for rows' weights, ignore rows or per_image"
            require(weighted is not None, "classification", expected, type(term).__name__)
            assert weighted is not None
            batch, images = weighted(*given, anchors)
            found = Sums(batch, None if self.images is None else images)
        return found.map(lambda x: gain * x / self.normaliser)

    def _counted(self, errors: Tensor) -> Tensor:
        """`[P, ...]` errors times the weights of their rows; those of weight 0 and of empty slots may be anything."""
        valid = self.positives.assignment.valid
        if self.weights is None:
            return masked(errors, valid)
        weights = self.weights.to(errors.dtype).reshape(-1, *[1] * (errors.dim() - 1))
        return masked(errors, valid & (self.weights > 0)) * weights


def reduction_of(positives: Positives, *, over_ranks: bool, per_image: bool) -> Reduction:
    """What the terms of these positives are reduced with.

    Args:
        positives: the positives.
        over_ranks: average the normaliser over the ranks of the default process group.
        per_image: tell what each image adds.
    """
    normaliser = score_normaliser(total(positives.assignment.weights()), over_ranks=over_ranks)
    images = positives.view.predictions.scores.shape[0] if per_image else None
    return Reduction(positives, row_weights(positives), normaliser, images)
