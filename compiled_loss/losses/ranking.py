"""The best of each row of logits, the first of ties, with the same result in every mode.

Letters: B images, n entries of an image, k of them wanted.
"""

import torch
from torch import Tensor

from compiled_loss.numerics import for_any_runtime, has_float64

# Rank of entries that are no detection, and the rank of all logits at or below it, including -inf.
NOTHING = torch.finfo(torch.float32).min
LOWEST = NOTHING / 2
# The most entries of a row whose order the keys can represent.
MOST = 2**25
# Logits nearer to 0 than this count as 0, where every probability is a half.
_ZERO = 2.0**-60


def first_of_largest(ranks: Tensor, k: int) -> Tensor:
    """Places of the k largest entries of each row, largest first; the first of ties.

    `torch.topk` guarantees no order among ties, and a stable sort takes five times as long. Hence distinct float64
    keys, `x - max(2^-50 |x|, 2^-115) i` for entry i: different float32 numbers, which are 2^-24 apart, keep their
    order. Exported graphs have no float64, and find the k-th number first.

    Args:
        ranks: `[B, n]` finite float32, n at least k and at most 2^25.
        k: entries per row.

    Returns:
        `[B, k]` int64.

    Example:
        >>> first_of_largest(torch.tensor([[0.5, 0.0, -3.0, 0.5, 0.0]]), 4)
        tensor([[0, 3, 1, 4]])
    """
    if for_any_runtime():
        x = _normal(ranks)
        return _in_order(x, _by_the_last_number(x, k))
    if not has_float64(ranks.device):
        return torch.sort(ranks, stable=True, dim=1, descending=True).indices[:, :k]
    place = torch.arange(ranks.shape[1], dtype=torch.float64, device=ranks.device)
    x = _normal(ranks).double()
    # Not a sum with the smallest step, which ONNX Runtime's optimiser would drop.
    step = (x.abs() * 2.0**-50).clamp(min=2.0**-115)
    return (x - step * place).topk(k, 1).indices


def places_of_largest(ranks: Tensor, k: int) -> Tensor:
    """The same places, lowest place first.

    Args:
        ranks: `[B, n]` finite float32, n at least k and at most 2^25.
        k: entries per row.

    Returns:
        `[B, k]` int64.

    Example:
        >>> places_of_largest(torch.tensor([[0.5, 0.0, -3.0, 0.5, 0.0]]), 4)
        tensor([[0, 1, 3, 4]])
    """
    if for_any_runtime():  # without a sort, which ExecuTorch lacks
        return _by_the_last_number(_normal(ranks), k)
    return first_of_largest(ranks, k).sort(1).values


def _normal(x: Tensor) -> Tensor:
    """The numbers, with those that a runtime may treat as 0 set to 0."""
    return torch.where(x.abs() < _ZERO, 0.0, x)


def _by_the_last_number(x: Tensor, k: int) -> Tensor:
    """Places of the k largest, lowest first, from the k-th number, which does not depend on the order of ties.

    All larger numbers are included, and of those equal to it, as many of the first as there is room for.
    """
    rows, n = x.shape
    last = x.topk(k, 1).values[:, k - 1 :]
    above, equal = x > last, x == last
    room = k - above.long().sum(1, keepdim=True)
    among = above | (equal & (equal.long().cumsum(1) <= room))
    # Slot j holds the j-th of them. All others share one extra slot.
    slot = torch.where(among, among.long().cumsum(1) - 1, k)
    place = torch.arange(n, device=x.device).expand(rows, n)
    return torch.zeros(rows, k + 1, dtype=torch.int64, device=x.device).scatter(1, slot, place)[:, :k]


def _in_order(x: Tensor, places: Tensor) -> Tensor:
    """The places ordered by their numbers, largest first, by counting for each how many come before it."""
    value, index = x.gather(1, places), torch.arange(places.shape[1], device=x.device)
    theirs, own = value[:, None, :], value[:, :, None]
    before = (theirs > own) | ((theirs == own) & (index < index[:, None]))
    return torch.zeros_like(places).scatter(1, before.long().sum(2), places)
