"""Pages: the entries of groups of any size, in pieces of one static width that belong to one group each.

For candidate anchors of a row, mask pixels of a box or positives of an image, a table as wide as the largest group
would cost every group as much. With pages, work and memory scale with the number of entries, and data shared by a
group's entries is read once per page.

Letters: N groups, G pages, S entries of a page, P slots.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from compiled_loss.ragged import positions

# Entries of a page of candidates or pixels: more waste more, half a page per group, and fewer make loops short.
PAGE = 64


class Layout(NamedTuple):
    """Which page holds which group's entries: the first group's pages come first, those of one group in order.

    Args:
        group: `[G]` group of each page; N on empty pages, which come last.
        begin: `[G]` int32, the first entry of the page within its group.
        first: `[N + 1]` first page of each group.
        fits: `[N]` bool, whether there are pages for all entries of a group.
    """

    group: Tensor
    begin: Tensor
    first: Tensor
    fits: Tensor


def pages_of(counts: Tensor, width: int = PAGE) -> Tensor:
    """Number of pages that each group needs.

    Args:
        counts: `[N]` integer, entries of each group.
        width: entries of a page S.

    Returns:
        `[N]` int64.

    Example:
        >>> pages_of(torch.tensor([0, 1, 64, 65]))
        tensor([0, 1, 1, 2])
    """
    return (counts.long() + (width - 1)) // width


def room_for(groups: int, most: int) -> int:
    """Number of pages for `groups` groups of at most `most` entries; at least one, even without groups.

    Example:
        >>> room_for(2, 65), room_for(0, 65)
        (5, 1)
    """
    return groups * ((most + PAGE - 1) // PAGE) + 1


def number_of(planned: Tensor | int) -> int:
    """Number of planned pages, given as a number or as the length of a tensor.

    Example:
        >>> number_of(5), number_of(torch.zeros(8))
        (5, 8)
    """
    return planned.shape[0] if isinstance(planned, Tensor) else planned


def capacity(planned: Tensor | int | None, needed: Tensor) -> int | None:
    """How many pages to make room for, if known.

    Args:
        planned: a number of pages, or a tensor of that length; None takes the number needed.
        needed: `[N]` pages that each group needs.

    Returns:
        The planned number; without a plan, the number needed, at least 1, if the host can read it without a wait. None
        in traced code and on a device.

    Example:
        >>> needed = torch.tensor([2, 1])
        >>> capacity(None, needed), capacity(5, needed), capacity(torch.zeros(8), needed)
        (3, 5, 8)
    """
    if planned is not None:
        return number_of(planned)
    if needed.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    try:
        return max(int(needed.sum()), 1)
    except RuntimeError:  # raised for tensors without values, as under `torch.func.vmap`
        return None


def lay_out(counts: Tensor, pages: int, width: int = PAGE, usable: int | None = None) -> Layout:
    """Give every group the pages that it needs, one group after the other; entries beyond G pages get none.

    Args:
        counts: `[N]` integer, entries of each group.
        pages: G, at least 1.
        width: entries of a page S.
        usable: number of pages that may be used, if this can be fewer than G; the others stay empty.

    Returns:
        `Layout`.

    Example:
        >>> layout = lay_out(torch.tensor([70, 0, 3]), 4)
        >>> layout.group, layout.begin, layout.fits
        (tensor([0, 0, 2, 3]), tensor([ 0, 64,  0,  0], dtype=torch.int32), tensor([True, True, True]))
    """
    needed = pages_of(counts, width)
    ends = needed.cumsum(0)
    # The group of a page is the number of groups that end before it: a search by counting.
    last = ends.clamp(max=pages)
    if usable is not None:  # in tensors: the number of pages may be open, and a graph cannot branch on it
        last = last.clamp(max=usable)
    ended = ends.new_zeros(pages + 1).scatter_add(0, last, torch.ones_like(ends))
    group = ended.cumsum(0)[:pages]
    first = torch.cat([ends - needed, ends.new_zeros(1)])
    page = torch.arange(pages, device=counts.device)
    begin = torch.where(group < counts.shape[0], (page - first[group]) * width, 0).int()
    return Layout(group, begin, first, (ends == last) | (needed == 0))


class Pages(NamedTuple):
    """Slots on pages that belong to one group each; page g is the first of group g.

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
    """Put slots on pages of their group: one page per group, and further ones if a group is larger than a page.

    The further pages come last, so that they are the first to be left out if too little is planned.

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
