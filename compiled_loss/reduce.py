"""The only place where sums become losses: of the batch and of each image; normalisers, plain or over ranks.

Letters: B images, P positive slots.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from compiled_loss.checks import require
from compiled_loss.numerics import total, totals


def score_normaliser(score_sum: Tensor, *, over_ranks: bool = False) -> Tensor:
    """What the positives' weighted sums are divided by: `max(1, sum of target scores)`.

    Over ranks it is the mean: `max(1, all-reduced sum) / world size`. The collective is issued on every
    call, whatever the rank's batch holds.

    Args:
        score_sum: scalar, sum of the target scores of this rank's batch.
        over_ranks: average over the default process group.

    Returns:
        scalar.

    Raises:
        ValueError: when `over_ranks` is asked for without an initialised process group.

    Example:
        >>> score_normaliser(torch.tensor(0.25))
        tensor(1.)
    """
    if not over_ranks:
        return score_sum.clamp(min=1)
    return sum_over_ranks(score_sum).clamp(min=1) / dist.get_world_size()


def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum of a tensor over the ranks of the default process group, in graphs too; without a gradient.

    Raises:
        ValueError: without an initialised process group.
    """
    require(dist.is_available() and dist.is_initialized(), "distributed", "an initialised process group", None)
    from torch.distributed import _functional_collectives as collectives  # noqa: PLC0415  (absent in some builds)

    group = dist.group.WORLD
    assert group is not None
    return collectives.all_reduce(x, "sum", group)


class Sums(NamedTuple):
    """A sum, and what each image adds to it.

    Args:
        batch: scalar.
        images: `[B]`; None where nobody asked.

    Example:
        >>> Sums(torch.tensor(6.0), torch.tensor([4.0, 2.0])).map(lambda x: x / 2)
        Sums(batch=tensor(3.), images=tensor([2., 1.]))
    """

    batch: Tensor
    images: Tensor | None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Sums":
        """Both changed by something linear."""
        return Sums(function(self.batch), None if self.images is None else function(self.images))

    def at_least_0(self) -> "Sums":
        """0 in all, without a gradient, where the sum is below 0; an image's own may be."""
        images = None if self.images is None else torch.where(self.batch < 0, 0.0, self.images)
        return Sums(self.batch.clamp(min=0), images)


def sums(entries: Tensor, image: Tensor, images: int | None) -> Sums:
    """Add up unreduced terms, weighted and masked already.

    Args:
        entries: `[P]` or `[P, K]`.
        image: `[P]` image of each row of them.
        images: B, to be told what each adds; or None.

    Returns:
        `Sums`; those of the images add up to the batch's, to rounding.

    Example:
        >>> sums(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1, 0, 1]), 2)
        Sums(batch=tensor(6.), images=tensor([2., 4.]))
    """
    return Sums(total(entries), None if images is None else totals(entries, image, images))
