"""Matrix products in the precision of their arguments.

A mask is the product of a slot's coefficients with the prototypes of every pixel. Slots of one row need the pixels of
one box, slots of one image the same prototypes: pages of either make it a batched product of static size.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

# Asked once: torch 2.11 cannot trace the question.
_AUTOCAST = tuple(
    kind for kind in ("cpu", "cuda", "mps", "xpu", "hpu", "mtia") if torch.amp.is_autocast_available(kind)
)


class _Product(torch.autograd.Function):
    """Around a whole step, and where both passes are compiled, autocast is on for the backward pass too."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        with without_autocast(a):
            return a @ b

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,), (a, b) = gradients, ctx.saved_tensors
        with without_autocast(a):
            return gradient @ b.transpose(-1, -2), a.transpose(-1, -2) @ gradient


def product(a: Tensor, b: Tensor) -> Tensor:
    """Batched matrix product in the precision of the arguments, forward and backward, whatever autocast is on.

    Example:
        >>> product(torch.ones(1, 1, 2), torch.ones(1, 2, 1))
        tensor([[[2.]]])
    """
    # The tracer makes an instance of a function that needs no gradient, and torch warns of that.
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return _Product.apply(a, b)
    with without_autocast(a):
        return a @ b


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """A context in which matrix products keep the precision of `x` and its like, for code without a gradient."""
    kind = x.device.type
    cast = kind in _AUTOCAST and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if cast else nullcontext()
