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


def normaliser(amount: Tensor, *, over_ranks: bool = False) -> Tensor:
    """The divisor for sums over positives: `max(1, amount)`, from their target scores or their number.

    Over ranks it is the mean, `max(1, all-reduced amount) / world size`, so that the mean of quotients over ranks is
    the result of the joined batch. The collective is issued on every call, whatever the rank's batch holds.

    Args:
        amount: amount of this rank's batch; or several, each treated separately.
        over_ranks: average over the default process group.

    Returns:
        One for each amount.

    Raises:
        ValueError: if `over_ranks` is set without an initialised process group.

    Example:
        >>> normaliser(torch.tensor(0.25))
        tensor(1.)
    """
    if not over_ranks:
        return amount.clamp(min=1)
    return sum_over_ranks(amount).clamp(min=1) / dist.get_world_size()


def has_ranks() -> bool:
    """Whether there is a default process group."""
    return dist.is_available() and dist.is_initialized()


def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum of a tensor over the ranks of the default process group, in graphs too; without a gradient.

    Raises:
        ValueError: without an initialised process group.
    """
    require(has_ranks(), "distributed", "an initialised process group", None)
    from torch.distributed import _functional_collectives as collectives  # noqa: PLC0415  (absent in some builds)

    group = dist.group.WORLD
    assert group is not None
    return collectives.all_reduce(x, "sum", group)


class Sums(NamedTuple):
    """A sum, and each image's contribution to it.

    Args:
        batch: scalar.
        images: `[B]`; None if not requested.

    Example:
        >>> Sums(torch.tensor(6.0), torch.tensor([4.0, 2.0])).map(lambda x: x / 2)
        Sums(batch=tensor(3.), images=tensor([2., 1.]))
    """

    batch: Tensor
    images: Tensor | None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Sums":
        """Apply a linear function to both."""
        return Sums(function(self.batch), None if self.images is None else function(self.images))

    def zero_where(self, below: Tensor) -> "Sums":
        """Set both to 0, without a gradient, if a scalar bool is True."""
        return self.map(lambda x: torch.where(below, 0.0, x))


def sums(entries: Tensor, image: Tensor, images: int | None) -> Sums:
    """Sum unreduced terms that are already weighted and masked.

    Args:
        entries: `[P]` or `[P, K]`.
        image: `[P]` image of each entry.
        images: B, to also return each image's sum; or None.

    Returns:
        `Sums`; the images' sums add up to the batch's, up to rounding.

    Example:
        >>> sums(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1, 0, 1]), 2)
        Sums(batch=tensor(6.), images=tensor([2., 4.]))
    """
    return Sums(total(entries), None if images is None else totals(entries, image, images))
