"""The largest entries of rows on pages, the first of ties.

Letters: N rows, G pages, S entries of a page, k entries of a row wanted.
"""

import torch
from torch import Tensor

from compiled_loss.assign.keys import from_keys, largest_keys, largest_with_index, to_keys
from compiled_loss.numerics import for_any_runtime
from compiled_loss.pages import Layout


def first_top_k(x: Tensor, layout: Layout, k: int) -> tuple[Tensor, Tensor]:
    """The k largest entries over the pages of each row; the first of ties.

    Each page offers its largest entry. In each of k turns, a row takes the largest entry that its pages offer, and that
    page then offers its next one: `G + N S` work per turn. `torch.topk` guarantees no order among ties, and needs a
    table as wide as the longest row.

    Args:
        x: `[G, S]` float32, finite and 0 or more.
        layout: the rows' pages.
        k: entries per row.

    Returns:
        `(values [N, k], entries [N, k])`, largest first; an entry is `page * S + column`. Value and entry are 0 if a
        row has no further entry above 0.

    Example:
        >>> from compiled_loss.pages import lay_out
        >>> first_top_k(torch.tensor([[1.0, 3.0], [3.0, 0.0]]), lay_out(torch.tensor([3]), 2, width=2), 2)
        (tensor([[3., 3.]]), tensor([[1, 2]]))
    """
    return (_by_number_and_index if for_any_runtime() else _by_keys)(x, layout, k)


def _by_keys(x: Tensor, layout: Layout, k: int) -> tuple[Tensor, Tensor]:
    """With a number and its entry packed into one integer."""
    (pages, width), rows = x.shape, layout.fits.shape[0]
    column = torch.arange(width, device=x.device)
    keys = to_keys(x, torch.arange(pages, device=x.device)[:, None] * width + column)
    # One extra page and row: rows without a further entry write there.
    group = torch.cat([layout.group, layout.group.new_full((1,), rows)])
    shown = torch.cat([keys.amax(1), keys.new_zeros(1)])
    taken = []
    for turn in range(k):
        best = largest_keys(shown, group, rows + 1)[:rows]
        taken.append(best)
        if turn + 1 < k:
            page = from_keys(best)[1] // width
            following = torch.where(keys[page] < best[:, None], keys[page], 0).amax(1)
            shown = shown.scatter(0, torch.where(best > 0, page, pages), following)
    return from_keys(torch.stack(taken, 1))


def _by_number_and_index(x: Tensor, layout: Layout, k: int) -> tuple[Tensor, Tensor]:
    """With numbers and their columns kept separately."""
    (pages, width), rows = x.shape, layout.fits.shape[0]
    x = torch.cat([x, x.new_zeros(1, width)])
    page, column = (torch.arange(n, device=x.device) for n in (pages + 1, width))
    group = torch.cat([layout.group, layout.group.new_full((1,), rows)])
    shown = x.amax(1)
    place = _first_column(x, shown, column)
    values, entries = [], []
    for turn in range(k):
        best, of = (found[:rows] for found in largest_with_index(shown, page, pages + 1, group, rows + 1))
        at = place[of]
        values.append(best)
        entries.append(torch.where(best > 0, of * width + at, 0))
        if turn + 1 < k:
            of = torch.where(best > 0, of, pages)
            entry, best = x[of], best[:, None]
            left = torch.where((entry < best) | ((entry == best) & (column > at[:, None])), entry, 0.0)
            following = left.amax(1)
            shown = shown.scatter(0, of, following)
            place = place.scatter(0, of, _first_column(left, following, column))
    return torch.stack(values, 1), torch.stack(entries, 1)


def _first_column(x: Tensor, value: Tensor, column: Tensor) -> Tensor:
    """`[G]` first column of each row of `x` `[G, S]` that holds a value `[G]`; S if none does.

    Not an argmax: a runtime may return any of several ties.
    """
    return torch.where(x == value[:, None], column, column.shape[0]).amin(1)
