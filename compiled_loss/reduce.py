"""The only place where sums become losses: normalisers, plain or over ranks."""

import torch.distributed as dist
from torch import Tensor

from compiled_loss.checks import require
from compiled_loss.numerics import masked, total


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
        >>> import torch
        >>> score_normaliser(torch.tensor(0.25))
        tensor(1.)
    """
    if not over_ranks:
        return score_sum.clamp(min=1)
    require(dist.is_available() and dist.is_initialized(), "distributed", "an initialised process group", None)
    from torch.distributed import _functional_collectives as collectives  # noqa: PLC0415  (absent in some builds)

    group = dist.group.WORLD
    assert group is not None
    global_sum = collectives.all_reduce(score_sum, "sum", group)
    return global_sum.clamp(min=1) / dist.get_world_size()


def weighted_sum(term: Tensor, weights: Tensor, valid: Tensor) -> Tensor:
    """`sum w * term` over the positives.

    Args:
        term: `[P]` unreduced loss.
        weights: `[P]` target scores.
        valid: `[P]` bool; other slots count nothing, whatever they hold.

    Returns:
        scalar.

    Example:
        >>> import torch
        >>> weighted_sum(torch.tensor([1.0, float("nan")]), torch.tensor([0.5, 0.0]), torch.tensor([True, False]))
        tensor(0.5000)
    """
    return total(masked(term, valid) * weights.to(term.dtype))


def mean_where(term: Tensor, mask: Tensor) -> Tensor:
    """Mean over the entries that a mask selects; 0 if it selects none.

    Args:
        term: any shape, unreduced loss.
        mask: bool, the same shape; other entries count nothing, whatever they hold.

    Returns:
        scalar.

    Example:
        >>> import torch
        >>> mean_where(torch.tensor([1.0, 3.0, float("nan")]), torch.tensor([True, True, False]))
        tensor(2.)
    """
    return total(masked(term, mask)) / mask.sum().clamp(min=1)


def mean_over_positives(term: Tensor, valid: Tensor) -> Tensor:
    """Mean over the positives and the trailing dimension; 0 without positives.

    Args:
        term: `[P, K]` unreduced loss.
        valid: `[P]` bool; other slots count nothing, whatever they hold.

    Returns:
        scalar.

    Example:
        >>> import torch
        >>> mean_over_positives(torch.tensor([[1.0, 3.0], [9.0, 9.0]]), torch.tensor([True, False]))
        tensor(2.)
    """
    count = valid.sum().clamp(min=1) * term.shape[-1]
    return total(masked(term, valid)) / count
