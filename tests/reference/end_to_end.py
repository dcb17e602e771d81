"""Two branches of a head under the same loss."""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from .batches import Raw
from .parts import ReferenceLoss

BRANCHES = ("one2many", "one2one")
KEEP = {"top_k": 7, "keep": 1}  # the one-to-one branch's assignment
KEEP_V10 = {"top_k": 1}


class Pair(NamedTuple):
    """Raw predictions of the two branches of an end-to-end head."""

    one2many: Raw
    one2one: Raw


def branches_of(raw: Raw | Pair) -> Iterator[tuple[str, Raw]]:
    """Each set of maps, and what the names of its gradients begin with."""
    if isinstance(raw, Raw):
        yield "", raw
    else:
        yield from ((f"{branch}.", x) for branch, x in zip(BRANCHES, raw, strict=True))


def share_of_many(updates: int, epochs: int) -> float:
    """Weight of the one-to-many branch after so many updates: from 0.8 down to 0.1."""
    return 0.1 + 0.7 * max(0.0, 1 - updates / max(epochs - 1, 1))


def combine(many: ReferenceLoss, one: ReferenceLoss, shares: tuple[float, float]) -> ReferenceLoss:
    """Weighted terms and gradients, and the positives of both.

    A gradient's name begins with its branch, and the images of the one-to-one branch count on from the other's.
    """
    batch = len(many.gradients["scores"])
    gradients: dict[str, Tensor] = {}
    for branch, loss, share in zip(BRANCHES, (many, one), shares, strict=True):
        gradients |= {f"{branch}.{name}": share * x for name, x in loss.gradients.items()}
    terms = {name: shares[0] * value + shares[1] * one.terms[name] for name, value in many.terms.items()}
    positives = many.positives + [p._replace(image=p.image + batch) for p in one.positives]
    return ReferenceLoss(terms, gradients, positives, one.score_sum, one.terms)
