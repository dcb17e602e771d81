"""Candidate slots in pieces: a row with many candidates takes several rows of the table, one with none takes none.

A table as wide as the widest row's need would be mostly empty where few boxes are large. Pieces of a fixed width leave
at most one of them unfilled per row.

Letters: N rows, Q pieces, V slots of a piece, S most pieces of a row, k entries wanted.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from compiled_loss.assign.top_k import first_top_k

# Slots of a piece. With more of them half a piece per row is wasted, with fewer a row has more pieces to merge.
PIECE = 128


class Pieces(NamedTuple):
    """Which pieces a row has: consecutive ones, in row order.

    Args:
        row: `[Q]` row of each piece; N in empty pieces.
        first: `[N]` first piece of each row.
        owned: `[N]` pieces of each row.
        most: S, no row has more.

    Example:
        >>> list_pieces(torch.tensor([300, 0, 5]), 5, 4)
        Pieces(row=tensor([0, 0, 0, 2, 3]), first=tensor([0, 3, 3]), owned=tensor([3, 0, 1]), most=4)
    """

    row: Tensor
    first: Tensor
    owned: Tensor
    most: int

    def spread(self, x: Tensor) -> Tensor:
        """`[Q, ...]` of `[N, ...]` values of the rows; 0 in empty pieces."""
        # The row more is there to be read by empty pieces.
        return torch.cat([x, x.new_zeros(1, *x.shape[1:])])[self.row]

    def slots(self) -> Tensor:
        """`[Q, V]` int32 number of each slot among its row's."""
        piece = torch.arange(self.row.shape[0], dtype=torch.int32, device=self.row.device)
        within = torch.arange(PIECE, dtype=torch.int32, device=self.row.device)
        return (piece - self.spread(self.first.int()))[:, None] * PIECE + within


def list_pieces(counts: Tensor, capacity: int, most: int) -> Pieces:
    """One piece after the other, those of the first row first; what exceeds Q pieces, or S of a row, is left out.

    Args:
        counts: `[N]` int64 slots that the row needs.
        capacity: Q.
        most: S.

    Returns:
        `Pieces`.
    """
    ends = ((counts + PIECE - 1) // PIECE).clamp(max=most).cumsum(0).clamp(max=capacity)
    # A piece belongs to the row that as many rows end before: a search by counting.
    ended = ends.new_zeros(capacity + 1).scatter_add(0, ends, torch.ones_like(ends))
    first = torch.cat([ends.new_zeros(1), ends])[:-1]
    return Pieces(ended.cumsum(0)[:capacity], first, ends - first, most)


def first_top_k_of_rows(x: Tensor, pieces: Pieces | None, k: int) -> tuple[Tensor, Tensor]:
    """The k largest entries of each row in all its pieces; of equal ones the first.

    Args:
        x: `[Q, V]` float32, 0 or more.
        pieces: which pieces a row has; None where every row has one.
        k: entries per row; fewer where its pieces hold fewer.

    Returns:
        `(values [N, k], places [N, k])`, largest first, places in the flattened `x`; those of zeros mean nothing.

    Example:
        >>> x = torch.zeros(3, PIECE)
        >>> x[0, 7], x[1, 5], x[1, 6] = 3, 3, 4
        >>> first_top_k_of_rows(x, list_pieces(torch.tensor([2 * PIECE]), 3, 2), 2)
        (tensor([[4., 3.]]), tensor([[134,   7]]))
    """
    values, slot = first_top_k(x, min(k, x.shape[1]))
    places = torch.arange(x.shape[0], device=x.device)[:, None] * x.shape[1] + slot
    if pieces is None:
        return values, places
    # Side by side pieces and their entries ascend, so that the first of equals is still the one of the lowest slot.
    number = torch.arange(pieces.most, device=x.device)
    own = number < pieces.owned[:, None]  # [N, S]
    piece = torch.where(own, pieces.first[:, None] + number, 0)
    values = torch.where(own[..., None], values[piece], 0.0).flatten(1)
    values, index = first_top_k(values, min(k, values.shape[1]))
    return values, places[piece].flatten(1).gather(1, index)
