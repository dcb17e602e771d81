"""Selection as by a dense assigner, which also lists anchors of alignment 0 if a row has too few above 0.

Letters: N rows, A anchors, B images, G pages, S candidates of a page, k candidates of a row, P positive slots, E
entries of a list.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from compiled_loss.assign.parts import Pairs
from compiled_loss.assign.select import Held, best_slots, hold
from compiled_loss.assign.top_k import first_top_k
from compiled_loss.checks import require
from compiled_loss.numerics import pick
from compiled_loss.torch_private import is_exporting


def select_listed(pairs: Pairs, logits: Tensor, merit: Tensor, contest: Tensor, k: int) -> Held:
    """Let every row select the candidates that `torch.topk` lists among all anchors, and give every anchor to one row.

    An anchor selected by several rows goes to the row of its image with the largest contest value there. If all of
    these are 0, it goes to the image's first row, even if it is not a candidate of that row.

    Args:
        pairs: the rows and their candidates.
        logits: `[G, S]` logits of the rows' classes.
        merit: `[G, S]` float32, 0 or more.
        contest: `[G, S]` float32, 0 or more.
        k: the most anchors that a row selects.

    Returns:
        `Held`, `P = N k`.

    Raises:
        ValueError: in an exported graph.

    Source: TOOD, arXiv 2108.07755, as `torch.topk` over all anchors computes it.
    """
    expected = "False in an exported graph, since every runtime lists equal numbers in an order of its own"
    require(not is_exporting(), "keep_zeros", expected, True)
    candidates, rows, anchors = pairs.candidates, pairs.labels.shape[0], pairs.scores.shape[2]
    merit = torch.where(candidates.inside, merit, 0.0)
    row = torch.where(candidates.inside, candidates.layout.group[:, None], rows)
    best: _Best | None = None
    if _lists_the_first(merit, anchors, k):
        values, entries = first_top_k(merit, candidates.layout, k)
        best = _Best(values, entries, pick(candidates.anchor.flatten(), entries))
    entry, found = _listed(merit.flatten(), row.flatten(), candidates.anchor.flatten(), rows, anchors, k, best)
    # As in any assigner, never select an anchor with a non-finite prediction.
    selected = found & pick(pairs.usable(logits).flatten(), entry)
    least = torch.finfo(torch.float32).tiny
    held = hold(pairs, entry, selected, torch.where(candidates.inside, contest.clamp(min=least), 0.0))

    nowhere = pairs.scores.shape[0] * anchors
    places = (candidates.image[:, None] * anchors + candidates.anchor).flatten()
    claimed = torch.where(selected, pick(places, entry), nowhere).flatten()
    claims = claimed.new_zeros(nowhere + 1).scatter_add(0, claimed, selected.flatten().long())
    nobodys = held.valid & (claims[pick(places, held.entry)] > 1) & (held.read(contest) == 0)
    number = torch.arange(rows, device=merit.device)
    image = torch.where(pairs.real(), pairs.batch_idx, pairs.scores.shape[0]).long()
    first = number.new_full((pairs.scores.shape[0] + 1,), rows).scatter_reduce(0, image, number, "amin")
    return held._replace(row=torch.where(nobodys, first[pairs.image()[held.row]], held.row))


def keep_listed(pairs: Pairs, held: Held, merit: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The anchors held by each row that `torch.topk` lists among all anchors.

    Args:
        pairs: the rows and their candidates.
        held: every anchor in one slot.
        merit: `[P]` of each slot, 0 or more.
        keep: the most anchors that a row keeps.

    Returns:
        `(slots, found)`, both `[N keep]`.
    """
    rows, anchors, anchor = pairs.labels.shape[0], pairs.scores.shape[2], held.anchor(pairs)
    merit, row = torch.where(held.valid, merit, 0.0), torch.where(held.valid, held.row, rows)
    best: _Best | None = None
    if _lists_the_first(merit, anchors, keep):
        slots, found = best_slots(merit, held.row, anchor, rows, anchors, keep)
        best = _Best(*(x.view(rows, keep) for x in (torch.where(found, merit[slots], 0.0), slots, anchor[slots])))
    entry, found = _listed(merit, row, anchor, rows, anchors, keep, best)
    return entry.flatten(), found.flatten()


class _Best(NamedTuple):
    """`[N, k]` each row's entries of largest merit, 0 where there are fewer: merits, entries, and their anchors."""

    merit: Tensor
    entry: Tensor
    anchor: Tensor


def _lists_the_first(merit: Tensor, anchors: int, k: int) -> bool:
    """Whether `torch.topk` scans the anchors once, so that the zeros it lists are among the first k anchors.

    On the CPU it does if a row is at least 64 times as long as k: a heap starts with the first k entries, and a later
    one enters only if it is larger than the smallest in the heap.
    """
    return merit.device.type == "cpu" and anchors >= 64 * k


def _listed(
    merit: Tensor, row: Tensor, anchor: Tensor, rows: int, anchors: int, k: int, best: _Best | None
) -> tuple[Tensor, Tensor]:
    """Entries that `torch.topk` lists in a table `[N, A]` that is 0 elsewhere, and whether there is one, `[N, k]`.

    Args:
        merit: `[E]` merit of each entry, 0 or more.
        row: `[E]` row of each entry, N for entries that do not count.
        anchor: `[E]` anchor of each entry; those of a row are all different.
        rows: N.
        anchors: A.
        k: anchors listed for each row.
        best: the rows' best entries, if only the first k anchors can be listed with zeros.
    """
    number = torch.arange(rows, device=merit.device)[:, None]
    # The table need not have a column for every anchor: those that cannot be listed are left out.
    width = anchors if best is None else k
    near = (row < rows) & (anchor < width)
    place = torch.where(near, row * width + anchor, rows * width)
    index = torch.arange(merit.numel(), dtype=torch.int32, device=merit.device)  # half the memory of the widest table
    entry = index.new_full((rows * width + 1,), -1).scatter(0, place, index)[:-1].view(rows, width)
    table = merit.new_zeros(rows * width + 1).scatter(0, place, merit)[:-1].view(rows, width)
    if best is not None:
        far = (best.merit > 0) & (best.anchor >= k)
        order = torch.where(far, best.anchor, anchors).argsort(1)
        entry = torch.cat([entry, torch.where(far, best.entry, -1).gather(1, order)], 1)
        table = torch.cat([table, torch.where(far, best.merit, 0.0).gather(1, order), table.new_zeros(rows, 62 * k)], 1)
    elif anchors < k:  # fill up with empty ones
        table = torch.cat([table, table.new_full((rows, k - anchors), -1.0)], 1)
    listed = table.topk(k).indices
    entry = torch.cat([entry, entry.new_full((rows, 1), -1)], 1)
    entry = pick(entry, number, listed.clamp(max=entry.shape[1] - 1)).long()
    return entry.clamp(min=0), entry >= 0
