"""The angle term of oriented boxes.

Letters: P positive slots.
"""

import torch
from torch import Tensor

from compiled_loss.numerics import add_epsilon


def angle_error(
    predicted: Tensor,  # [P] radians
    target: Tensor,  # [P] radians
    width: Tensor,  # [P]
    height: Tensor,  # [P]
) -> Tensor:
    """`exp(-ln(w / h)^2 / 9) sin^2(2 (predicted - true))`: squares count in full, long boxes little.

    A quarter turn costs nothing: the box term tells a long box from the same one turned.

    Args:
        predicted: `[P]` predicted angle, radians.
        target: `[P]` true angle, radians.
        width: `[P]` true width.
        height: `[P]` true height, same unit.

    Returns:
        `[P]` in `[0, 1]`.

    Example:
        >>> angle_error(torch.tensor([torch.pi / 4]), torch.zeros(1), torch.ones(1), torch.ones(1))
        tensor([1.])
    """
    ratio = (add_epsilon(width, 1e-9) / add_epsilon(height, 1e-9)).log()
    return torch.exp(-ratio.square() / 9) * (2 * (predicted - target)).sin().square()
