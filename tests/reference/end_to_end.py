"""Two branches of a head under the same loss."""

from torch import Tensor

from .parts import ReferenceLoss

KEEP = {"top_k": 7, "keep": 1}  # the one-to-one branch's assignment
KEEP_V10 = {"top_k": 1}


def share_of_many(updates: int, epochs: int) -> float:
    """Weight of the one-to-many branch after so many updates: from 0.8 down to 0.1."""
    return 0.1 + 0.7 * max(0.0, 1 - updates / max(epochs - 1, 1))


def combine(many: ReferenceLoss, one: ReferenceLoss, shares: tuple[float, float]) -> ReferenceLoss:
    """Terms and gradients weighted; a gradient's name begins with its branch; positives of both, many first."""
    gradients: dict[str, Tensor] = {}
    for branch, loss, share in (("one2many", many, shares[0]), ("one2one", one, shares[1])):
        gradients |= {f"{branch}.{name}": share * x for name, x in loss.gradients.items()}
    terms = {name: shares[0] * value + shares[1] * one.terms[name] for name, value in many.terms.items()}
    return ReferenceLoss(terms, gradients, many.positives + one.positives, one.score_sum)
