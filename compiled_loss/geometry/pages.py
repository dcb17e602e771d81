"""Pages: slots that need the same thing side by side, so that they read it once.

A mask is the product of a slot's coefficients with the prototypes of every pixel. Slots of one row need the pixels of
one box, slots of one image the same prototypes. Pages, each of so many slots of one group, turn that into a batched
matrix product of static size.

Letters: P slots, G pages, S slots of a page.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_loss.ragged import positions

# Asked once: torch 2.11 cannot trace the question.
_AUTOCAST = tuple(
    kind for kind in ("cpu", "cuda", "mps", "xpu", "hpu", "mtia") if torch.amp.is_autocast_available(kind)
)


class Pages(NamedTuple):
    """Slots on pages, each page of one group; page g is the first of group g.

    Args:
        page: `[P]` page of each slot; G for slots that are left out.
        column: `[P]` place on the page, below S.
        group: `[G]` group of each page; the number of groups on empty pages.
        width: S.
    """

    page: Tensor
    column: Tensor
    group: Tensor
    width: int

    def write(self, values: Tensor) -> Tensor:
        """`[G, S, ...]` from `[P, ...]`: every slot's value at its place, 0 elsewhere."""
        pages = self.group.shape[0]
        paged = values.new_zeros(pages + 1, self.width, *values.shape[1:])
        return paged.index_put((self.page, self.column), values)[:pages]

    def read(self, paged: Tensor) -> Tensor:
        """`[P]` from `[G, S]`; 0 for slots that are left out."""
        return torch.cat([paged, paged.new_zeros(1, self.width)])[self.page, self.column]


def paginate(group: Tensor, valid: Tensor, groups: int, width: int) -> Pages:
    """Put slots on pages of their group: one page for each group, further ones where a group is larger than a page.

    Args:
        group: `[P]` group of each slot.
        valid: `[P]` bool; other slots are left out.
        groups: number of groups.
        width: slots of a page S.

    Returns:
        `Pages`, `G = groups + P // S + 1`: enough for every distribution, and never 0.

    Example:
        >>> group = torch.tensor([1, 1, 0, 1])
        >>> pages = paginate(group, torch.ones(4).bool(), 2, 2)
        >>> pages.page, pages.column, pages.group
        (tensor([1, 1, 0, 2]), tensor([0, 1, 0, 0]), tensor([0, 1, 1, 2, 2]))
    """
    pages = groups + group.shape[0] // width + 1
    rank, counts = positions(torch.where(valid, group, -1), groups)
    further = (counts - 1).clamp(min=0) // width
    turn = rank // width
    page = torch.where(turn == 0, group, (groups + further.cumsum(0) - further)[group] + turn - 1)
    page = torch.where(valid, page, pages)
    owner = group.new_full((pages + 1,), groups).scatter(0, page, group)[:pages]
    return Pages(page, torch.where(valid, rank % width, 0), owner, width)


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
