"""The best of each row of logits, of equal ones the first, in every mode alike.

Letters: B images, n entries of an image, k of them wanted.
"""

import torch
from torch import Tensor

from compiled_loss.numerics import for_any_runtime, has_float64

# Ranks of what is no detection, and of logits so low, -inf included, that no other is told from them.
NOTHING = torch.finfo(torch.float32).min
LOWEST = NOTHING / 2
# Entries of a row whose order the keys hold.
MOST = 2**25
# Logits nearer to 0 than this count as 0, where every probability is a half.
_ZERO = 2.0**-60


def first_of_largest(ranks: Tensor, k: int) -> Tensor:
    """Places of the k largest entries of each row, largest first; of equal ones the first.

    `torch.topk` promises no order among equals, and a stable sort takes five times as long. Hence float64 keys that
    are all different, `x - max(2^-50 |x|, 2^-115) i` of entry i: different float32 numbers, which are 2^-24 apart, keep
    their order. Exported graphs hold no float64, and find the k-th number first.

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
    """The numbers, 0 for those that a runtime may take for it."""
    return torch.where(x.abs() < _ZERO, 0.0, x)


def _by_the_last_number(x: Tensor, k: int) -> Tensor:
    """Places of the k largest, lowest first, from the k-th number, which does not depend on an order among equals.

    Whatever is larger is among them, and of what is equal as many of the first as there is room for.
    """
    rows, n = x.shape
    last = x.topk(k, 1).values[:, k - 1 :]
    above, equal = x > last, x == last
    room = k - above.long().sum(1, keepdim=True)
    among = above | (equal & (equal.long().cumsum(1) <= room))
    # Slot j holds the j-th of them. What is not among them shares one slot more.
    slot = torch.where(among, among.long().cumsum(1) - 1, k)
    place = torch.arange(n, device=x.device).expand(rows, n)
    return torch.zeros(rows, k + 1, dtype=torch.int64, device=x.device).scatter(1, slot, place)[:, :k]


def _in_order(x: Tensor, places: Tensor) -> Tensor:
    """The places by their numbers, largest first, by counting for each how many come before it."""
    value, index = x.gather(1, places), torch.arange(places.shape[1], device=x.device)
    theirs, own = value[:, None, :], value[:, :, None]
    before = (theirs > own) | ((theirs == own) & (index < index[:, None]))
    return torch.zeros_like(places).scatter(1, before.long().sum(2), places)
