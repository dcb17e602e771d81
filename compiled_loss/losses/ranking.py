"""The best of each row of logits, of equal ones the first, in every mode alike.

Letters: B images, n entries of an image, k of them wanted.
"""

import torch
from torch import Tensor

from compiled_loss.numerics import has_float64

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
    their order.

    Args:
        ranks: `[B, n]` finite float32, n at least k and at most 2^25.
        k: entries per row.

    Returns:
        `[B, k]` int64.

    Example:
        >>> first_of_largest(torch.tensor([[0.5, 0.0, -3.0, 0.5, 0.0]]), 4)
        tensor([[0, 3, 1, 4]])
    """
    if not has_float64(ranks.device):
        return torch.sort(ranks, stable=True, dim=1, descending=True).indices[:, :k]
    place = torch.arange(ranks.shape[1], dtype=torch.float64, device=ranks.device)
    x = torch.where(ranks.abs() < _ZERO, 0.0, ranks).double()
    # Not a sum with the smallest step, which ONNX Runtime's optimiser would drop.
    step = (x.abs() * 2.0**-50).clamp(min=2.0**-115)
    return (x - step * place).topk(k, 1).indices
