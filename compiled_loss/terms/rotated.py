"""The angle term and further box terms for oriented boxes.

Letters: P positive slots.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from compiled_loss.checks import finite_number, require
from compiled_loss.geometry.boxes import comparable
from compiled_loss.geometry.gaussians import FLOOR, kalman_divergence, kullback_leibler
from compiled_loss.numerics import add_epsilon, log1p


def angle_error(
    predicted: Tensor,  # [P] radians
    target: Tensor,  # [P] radians
    width: Tensor,  # [P]
    height: Tensor,  # [P]
) -> Tensor:
    """`exp(-ln(w / h)^2 / 9) sin^2(2 (predicted - true))`: squares have full weight, elongated boxes little.

    A quarter turn has no error; for an elongated box, the box term penalises it.

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


@dataclass(frozen=True)
class KFIoU:
    """The box term `ln(1 + d' inv(C) d) + exp(1 - kfiou) - 1` for oriented boxes, taken as Gaussians.

    d is the difference of the centres and C the covariance of the true box. The second part compares only shapes, and
    is `exp(2/3) - 1` for equal boxes.

    Args:
        floor: smallest variance of a box, in grid units squared.

    Raises:
        ValueError: if the floor is not a finite number above 0.

    Source: arXiv 2201.12558.

    Example:
        >>> box = torch.tensor([[0.0, 0, 4, 2, 0.3]])
        >>> KFIoU()(box, box, torch.ones(1)).round(decimals=4)
        tensor([0.9477])
    """

    floor: float = FLOOR

    def __post_init__(self) -> None:
        object.__setattr__(self, "floor", finite_number("floor", self.floor, zero=False))

    def __call__(self, predicted: Tensor, true: Tensor, strides: Tensor) -> Tensor:
        """`[P]` errors."""
        predicted, true = comparable(5, predicted=predicted, true=true)
        centre, shape = kalman_divergence(predicted, true, self.floor)
        return centre + shape


@dataclass(frozen=True)
class KullbackLeibler:
    """The box term `1 - 1 / (tau + ln(1 + D))`, with D the Kullback-Leibler divergence of predicted from true boxes.

    Args:
        tau: 1 or more; with 1, equal boxes have error 0.
        floor: smallest variance of a box, in grid units squared.

    Raises:
        ValueError: if tau is below 1, or a number is not finite and above 0.

    Source: arXiv 2106.01883.

    Example:
        >>> two = torch.tensor([[0.0, 0, 4, 2, 0], [2.0, 0, 4, 2, 0]])
        >>> KullbackLeibler()(two, two[:1], torch.ones(2)).round(decimals=4)
        tensor([0.0000, 0.2885])
    """

    tau: float = 1.0
    floor: float = FLOOR

    def __post_init__(self) -> None:
        for name in ("tau", "floor"):
            object.__setattr__(self, name, finite_number(name, getattr(self, name), zero=False))
        require(self.tau >= 1, "tau", "a finite number of 1 or more", self.tau)

    def __call__(self, predicted: Tensor, true: Tensor, strides: Tensor) -> Tensor:
        """`[P]` errors."""
        predicted, true = comparable(5, predicted=predicted, true=true)
        return 1 - 1 / (self.tau + log1p(kullback_leibler(predicted, true, self.floor)))
