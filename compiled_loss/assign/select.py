"""From the merit of candidates to the positives that rows hold: the last step of every assigner.

Letters: N rows, A anchors, B images, G pages, S candidates of a page, k candidates of a row, P positive slots.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from compiled_loss.assign.keys import largest_with_index
from compiled_loss.assign.parts import Pairs
from compiled_loss.assign.top_k import first_top_k
from compiled_loss.checks import check_shape
from compiled_loss.numerics import pick
from compiled_loss.types import Assignment


class Held(NamedTuple):
    """The pairs that became positive, one per slot, with every anchor in at most one slot.

    Args:
        entry: `[P]` position of the pair among the candidates, `page * S + column`; arbitrary in empty slots.
        row: `[P]` row that holds it.
        valid: `[P]` bool, False in empty slots.
    """

    entry: Tensor
    row: Tensor
    valid: Tensor

    def read(self, x: Tensor) -> Tensor:
        """Read a value per candidate `[G, S]` at the positives, `[P]`; 0 in empty slots."""
        return torch.where(self.valid, pick(x.flatten(), self.entry), 0.0)

    def anchor(self, pairs: Pairs) -> Tensor:
        """`[P]` anchor of each pair; 0 in empty slots."""
        return torch.where(self.valid, pick(pairs.candidates.anchor.flatten(), self.entry), 0)

    def assignment(self, pairs: Pairs, score: Tensor, weight: Tensor | None = None) -> Assignment:
        """The positives with their target scores `[P]`, and with weights `[P]` if these differ from the scores."""
        overflow = (~pairs.candidates.layout.fits).sum()
        return Assignment(pairs.image()[self.row], self.anchor(pairs), self.row, self.valid, score, overflow, weight)


def select(
    pairs: Pairs,
    merit: Tensor,
    contest: Tensor,
    k: int,
    number: Tensor | None = None,
    *,
    among_selecting: bool = False,
) -> Held:
    """Let every row select its best candidates, and give every selected anchor to one row.

    A row selects the k candidates with the largest merit above 0, ties by lowest anchor. An anchor selected by several
    rows goes to the row of its image with the largest contest value there, ties by lowest row. That may be a row that
    did not select it, unless `among_selecting` restricts the contest to the rows that did. To minimise a cost instead
    of maximising a merit, convert it with `assign.keys.descending`.

    Args:
        pairs: the rows and their candidates.
        merit: `[G, S]`, rounded to float32; candidates with 0, NaN or infinite merit are not selected.
        contest: `[G, S]`, rounded to float32; candidates with 0 can neither be selected nor win.
        k: the most candidates that a row selects.
        number: `[N]` the most candidates that each row selects, if fewer than k; None means k.
        among_selecting: give an anchor only to one of the rows that selected it.

    Returns:
        `Held`, `P = N k`.

    Raises:
        ValueError: if merit or contest does not have the candidates' shape.

    Example:
        >>> from compiled_loss.assign.candidates import Candidates
        >>> from compiled_loss.pages import lay_out
        >>> row, box = torch.tensor([0, 0]), torch.zeros(2, 4)
        >>> anchors, all_of_them = torch.tensor([[0, 1], [0, 1]]), torch.ones(2, 2).bool()
        >>> candidates = Candidates(lay_out(torch.tensor([2, 2]), 2, width=2), row, anchors, all_of_them)
        >>> pairs = Pairs(torch.zeros(1, 1, 2), row, row, box, box[:, :2], row, candidates, lambda c, logits: logits)
        >>> merit = torch.tensor([[0.5, 0.25], [0.75, 0.0]])
        >>> held = select(pairs, merit, merit, 2)
        >>> held.row[held.valid], held.anchor(pairs)[held.valid], held.read(merit)[held.valid]
        (tensor([1, 0]), tensor([0, 1]), tensor([0.7500, 0.2500]))
    """
    candidates = pairs.candidates
    check_shape("merit", merit, candidates.anchor.shape)
    merit, contest = merit.float(), contest.float()
    eligible = candidates.inside & (contest > 0) & (merit > 0) & merit.isfinite()
    best, entry = first_top_k(torch.where(eligible, merit, 0.0), candidates.layout, k)
    valid = best > 0
    if number is not None:
        valid = valid & (torch.arange(k, device=valid.device) < number[:, None])
    if among_selecting:
        entries = contest.numel()
        place = torch.where(valid, entry, entries).flatten()
        selected = place.new_zeros(entries + 1).scatter(0, place, torch.ones_like(place))[:-1]
        contest = torch.where(selected.view_as(contest) > 0, contest, 0.0)
    return hold(pairs, entry, valid, contest)


def hold(pairs: Pairs, entry: Tensor, selected: Tensor, contest: Tensor) -> Held:
    """Leave every selected anchor to one row, in one slot.

    Args:
        pairs: the rows and their candidates.
        entry: `[N, k]` selected candidates of each row, `page * S + column`.
        selected: `[N, k]` bool, whether the entry is in use.
        contest: `[G, S]`, rounded to float32, more than 0 at selected candidates; the largest wins.

    Returns:
        `Held`, `P = N k`.

    Raises:
        ValueError: if contest does not have the candidates' shape.
    """
    candidates, width = pairs.candidates, pairs.candidates.anchor.shape[1]
    check_shape("contest", contest, candidates.anchor.shape)
    contest = contest.float()
    batch, _, anchors = pairs.scores.shape
    (rows, k), nowhere, group = entry.shape, batch * anchors, candidates.layout.group
    entry, valid = entry.flatten(), selected.flatten()
    row = torch.arange(rows, device=entry.device)[:, None].expand(rows, k).flatten()
    some = candidates.inside & (contest > 0)
    places = torch.where(some, candidates.image[:, None] * anchors + candidates.anchor, nowhere).flatten()
    place = torch.where(valid, pick(places, entry), nowhere)
    claims = contest.new_zeros(nowhere + 1).scatter_add(0, place, valid.to(contest.dtype))
    contested = valid & (claims[place] > 1)

    # The winner may be a row that did not select the anchor, so all candidates are searched. The first of an anchor's
    # pairs belongs to the lowest row.
    index = torch.arange(contest.numel(), device=contest.device)
    values = torch.where(some, contest, 0.0).flatten()
    winner = largest_with_index(values, index, contest.numel(), places, nowhere + 1)[1][place]

    # The first of the slots that selected an anchor carries it; the others become empty.
    slot = torch.arange(place.shape[0], device=place.device)
    carrier = slot.new_full((nowhere + 1,), place.shape[0]).scatter_reduce(0, place, slot, "amin")
    return Held(
        entry=torch.where(contested, winner, entry),
        row=torch.where(contested, group[winner // width], row),
        valid=valid & (carrier[place] == slot),
    )


def best_slots(merit: Tensor, row: Tensor, anchor: Tensor, rows: int, anchors: int, keep: int) -> tuple[Tensor, Tensor]:
    """Slots of the `keep` largest merits above 0 of each row, ties by lowest anchor.

    Args:
        merit: `[P]` merit of each slot, 0 or more.
        row: `[P]` row of each slot.
        anchor: `[P]` anchor of each slot; those of a row are all in one image.
        rows: N.
        anchors: A.
        keep: number of slots to find for each row; takes as many passes.

    Returns:
        `(slots, found)`, both `[N keep]`: the slot, 0 where there is none, and whether there is one.
    """
    slot = torch.arange(merit.shape[0], device=merit.device)
    best = []
    for _ in range(keep):
        _, first = largest_with_index(merit, anchor, anchors, row, rows)
        leads = (merit > 0) & (anchor == first[row])
        none = slot.new_full((rows,), merit.shape[0])
        best.append(none.scatter_reduce(0, row, torch.where(leads, slot, merit.shape[0]), "amin"))
        merit = torch.where(leads, 0.0, merit)
    slots = torch.stack(best, 1).flatten()
    found = slots < merit.shape[0]
    return torch.where(found, slots, 0), found


def every(pairs: Pairs, chosen: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """All chosen candidates of each row, without ranking them.

    Args:
        pairs: the rows and their candidates.
        chosen: `[G, S]` bool.
        slots: the most candidates of a row; further ones are left out.

    Returns:
        `(entry, found)`, both `[N, slots]`: positions `page * S + column`, and whether there is one.
    """
    layout, width = pairs.candidates.layout, chosen.shape[1]
    rows, pages = layout.fits.shape[0], chosen.shape[0]
    counted = chosen.flatten().long().cumsum(0)
    before = torch.cat([counted.new_zeros(1), counted])[(layout.first * width).clamp(max=pages * width)]  # [N + 1]
    rank = counted.view(pages, width) - 1 - before[layout.group][:, None]
    taken = chosen & (rank < slots)
    place = torch.where(taken, layout.group[:, None] * slots + rank, rows * slots).flatten()
    table = place.new_full((rows * slots + 1,), -1).scatter(0, place, torch.arange(pages * width, device=place.device))
    entry = table[:-1].view(rows, slots)
    return entry.clamp(min=0), entry >= 0
