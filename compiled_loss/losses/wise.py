"""Wise IoU, a box term whose weights depend on how wrong recent positives were.

Letters: P positive slots.
"""

import math

import torch
from torch import Tensor

from compiled_loss.checks import finite_number, require, share, true_or_false
from compiled_loss.exact import ExactModule
from compiled_loss.geometry.boxes import comparable, diagonal, measure
from compiled_loss.numerics import masked, total
from compiled_loss.reduce import sum_over_ranks
from compiled_loss.torch_private import is_exporting

# Logarithm of the largest weight allowed.
_MOST = 60.0


class WIoU(ExactModule):
    """The box term Wise IoU, `r exp(rho^2 / c^2) (1 - iou)`.

    rho is the centre distance and c the diagonal of the enclosing box, which carries no gradient. Version 1 has
    `r = 1`. Version 3 weights each positive by how much of an outlier it is, `b = (1 - iou) / mean`, without gradient:
    `r = b / (delta alpha^(b - delta))`, largest at `b = 1 / ln alpha`, so that the largest weights go neither to boxes
    that fit well nor to boxes far off. `mean` is the running mean of `1 - iou` over the positives. In training, each
    call first moves it by `momentum` towards the batch's mean, inside the graph, unless the batch has no positives.
    Evaluation and exported graphs do not update it. `torch.func` must not either: call `eval()` first.

    Args:
        version: 1 or 3.
        alpha: base of the weights, above 1.
        delta: the value of b whose weight is 1, above 0.
        momentum: step of the running mean, in `[0, 1]`; the source uses `1 - 0.05^(1 / n)`, with n the number of steps
            until improvement slows down.
        mean: initial value of the running mean, above 0.
        distributed: take the batch's mean over the ranks of the default process group.

    Raises:
        ValueError: if a number is outside these ranges, or if alpha and delta lead to weights that float32 cannot hold.

    Source: arXiv 2301.10051.

    Example:
        >>> term = WIoU(momentum=0.5)
        >>> predicted, true = torch.tensor([[0.0, 0, 2, 4]]), torch.tensor([[0.0, 0, 4, 4]])
        >>> error, mean = term(predicted, true, torch.ones(1)), term.mean  # b = 0.5 / 0.75
        >>> round(error.item(), 4), round(mean.item(), 4)
        (0.5126, 0.75)
    """

    mean: Tensor

    def __init__(
        self,
        version: int = 3,
        alpha: float = 1.9,
        delta: float = 3.0,
        momentum: float = 0.01,
        mean: float = 1.0,
        distributed: bool = False,
    ) -> None:
        super().__init__()
        require(version in (1, 3), "version", "1 or 3", version)
        self.version = version
        self.alpha = finite_number("alpha", alpha)
        require(self.alpha > 1, "alpha", "a number above 1", alpha)
        self.delta = finite_number("delta", delta, zero=False)
        # The largest weight, of b = 1 / ln alpha, and alpha^delta, of b = 0, are factors of float32 numbers.
        steepness = max(self.delta * math.log(self.alpha), 1e-300)
        fits = steepness < _MOST and steepness - math.log(steepness) - 1 < _MOST
        require(fits, "alpha, delta", "weights that float32 can hold, alpha^delta below 10^26", (alpha, delta))
        self.momentum = share("momentum", momentum)
        self.distributed = true_or_false("distributed", distributed)
        start = torch.tensor(finite_number("mean", mean, zero=False))
        require(bool(0 < start < torch.inf), "mean", "a number above 0 that float32 can hold", mean)
        self.register_buffer("mean", start)

    def forward(self, predicted: Tensor, true: Tensor, strides: Tensor) -> Tensor:
        """Errors of the positives.

        Args:
            predicted: `[P, 4]` xyxy.
            true: `[P, 4]` xyxy, same unit; all zeros for slots that are empty or whose row has weight 0.
            strides: `[P]`, not used.

        Returns:
            `[P]`.
        """
        predicted, true = comparable(4, predicted=predicted, true=true)
        pair = measure(predicted, true)
        error = 1 - pair.iou
        # At most 1, except for a predicted box turned inside out, whose corners enclose less.
        attention = (pair.centre_distance / diagonal(pair).detach()).clamp(max=1).exp()
        if self.version == 1:
            return attention * error
        if self.training and not is_exporting():
            # Non-finite errors must not enter the running mean.
            self._update(error.detach(), (true != 0).any(-1) & error.isfinite())
        return self._focus(error.detach()) * attention * error

    @torch.no_grad()
    def _update(self, error: Tensor, positive: Tensor) -> None:
        sums = torch.stack([total(masked(error, positive)), positive.sum().to(error.dtype)])
        summed, count = (sum_over_ranks(sums) if self.distributed else sums).unbind()
        moved = torch.lerp(self.mean, (summed / count.clamp(min=1)).to(self.mean.dtype), self.momentum)
        self.mean.copy_(torch.where(count > 0, moved, self.mean))

    def _focus(self, error: Tensor) -> Tensor:
        outlier = error / self.mean.to(error.dtype).clamp(min=1e-6)
        return outlier / self.delta * ((self.delta - outlier) * math.log(self.alpha)).exp()
