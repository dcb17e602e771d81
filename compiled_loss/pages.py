"""Pages: entries of groups of any size, in pieces of one static width that belong to one group each.

Candidate anchors of a row, mask pixels of a box, positives of an image: a table as wide as the largest group would make
every group pay for it. Pages make work and memory follow the entries there are, and what a group's entries share is
read once a page.

Letters: N groups, G pages, S entries of a page, P slots.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from compiled_loss.ragged import positions

# Entries of a page of candidates or pixels. With more half a page a group is wasted, with fewer loops are short.
PAGE = 64


class Layout(NamedTuple):
    """Which group's entries stand on which page: the first group's pages first, those of one group in order.

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
    """Pages that each group needs.

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
    """Pages for so many groups of no more entries than `most`; at least one, without groups too.

    Example:
        >>> room_for(2, 65), room_for(0, 65)
        (5, 1)
    """
    return groups * ((most + PAGE - 1) // PAGE) + 1


def number_of(planned: Tensor | int) -> int:
    """Of planned pages, given as a number or as the length of a tensor.

    Example:
        >>> number_of(5), number_of(torch.zeros(8))
        (5, 8)
    """
    return planned.shape[0] if isinstance(planned, Tensor) else planned


def capacity(planned: Tensor | int | None, needed: Tensor) -> int | None:
    """How many pages to make room for, where that is known.

    Args:
        planned: a number of pages, or a tensor of that length; None leaves it to what is needed.
        needed: `[N]` pages that each group needs.

    Returns:
        What is planned; without a plan what is needed, at least 1, where the host can read that without a wait. None in
        traced code and on a device.

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
    except RuntimeError:  # of a tensor that stands for others, as under `torch.func.vmap`
        return None


def lay_out(counts: Tensor, pages: int, width: int = PAGE, usable: int | None = None) -> Layout:
    """Give every group the pages that it needs, one group after the other; what exceeds G pages has none.

    Args:
        counts: `[N]` integer, entries of each group.
        pages: G, at least 1.
        width: entries of a page S.
        usable: pages that may be used, where these can be fewer than G; the others stay empty.

    Returns:
        `Layout`.

    Example:
        >>> layout = lay_out(torch.tensor([70, 0, 3]), 4)
        >>> layout.group, layout.begin, layout.fits
        (tensor([0, 0, 2, 3]), tensor([ 0, 64,  0,  0], dtype=torch.int32), tensor([True, True, True]))
    """
    needed = pages_of(counts, width)
    ends = needed.cumsum(0)
    # A page belongs to the group that as many groups end before: a search by counting.
    last = ends.clamp(max=pages)
    if usable is not None:  # in tensors: the number of pages may be open, and a graph does not branch on it
        last = last.clamp(max=usable)
    ended = ends.new_zeros(pages + 1).scatter_add(0, last, torch.ones_like(ends))
    group = ended.cumsum(0)[:pages]
    first = torch.cat([ends - needed, ends.new_zeros(1)])
    page = torch.arange(pages, device=counts.device)
    begin = torch.where(group < counts.shape[0], (page - first[group]) * width, 0).int()
    return Layout(group, begin, first, (ends == last) | (needed == 0))


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

    The further ones come last, so that where too little is planned they are the first to lack it.

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
