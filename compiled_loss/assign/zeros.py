"""Selection as by a dense assigner, which lists anchors of alignment 0 where a row has too few above.

Letters: N rows, A anchors, B images, G pages, S candidates of a page, k candidates of a row, P positive slots.
"""

import torch
from torch import Tensor

from compiled_loss.assign.parts import Pairs
from compiled_loss.assign.select import Held, hold
from compiled_loss.checks import require
from compiled_loss.numerics import pick


def select_listed(pairs: Pairs, logits: Tensor, merit: Tensor, contest: Tensor, k: int) -> Held:
    """Every row selects the candidates that `torch.topk` lists among all anchors, and every anchor goes to one row.

    An anchor selected by several rows goes to the row of its image with the largest contest value there, and where all
    of these are 0 to the image's first row, whether that has it as a candidate or not.

    Args:
        pairs: the rows and their candidates.
        logits: `[G, S]` logits of the rows' classes.
        merit: `[G, S]` float32, 0 or more.
        contest: `[G, S]` float32, 0 or more.
        k: anchors that a row selects at most.

    Returns:
        `Held`, `P = N k`.

    Raises:
        ValueError: in an exported graph.

    Source: TOOD, arXiv 2108.07755, as `torch.topk` over all anchors computes it.
    """
    expected = "False in an exported graph, since every runtime lists equal numbers in an order of its own"
    require(not torch.compiler.is_exporting(), "keep_zeros", expected, True)
    candidates, rows = pairs.candidates, pairs.labels.shape[0]
    anchors = pairs.scores.shape[2]
    place = torch.where(
        candidates.inside, candidates.layout.group[:, None] * anchors + candidates.anchor, rows * anchors
    )
    listed = _listed(merit, place, rows, anchors, k)
    index = torch.arange(merit.numel(), dtype=torch.int32, device=merit.device)  # half the memory of the widest table
    entry = pick(index.new_full((rows * anchors + 1,), -1).scatter(0, place.flatten(), index), listed.flatten())
    entry = torch.where(listed < rows * anchors, entry.view_as(listed).long(), -1)
    # As for any assigner: never an anchor with a broken prediction.
    selected = (entry >= 0) & pick(pairs.usable(logits).flatten(), entry.clamp(min=0))
    entry = entry.clamp(min=0)
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
    """Of the anchors that each row holds, those that `torch.topk` lists among all anchors.

    Args:
        pairs: the rows and their candidates.
        held: every anchor in one slot.
        merit: `[P]` of each slot, 0 or more.
        keep: anchors that a row keeps at most.

    Returns:
        `(slots, found)`, both `[N keep]`.
    """
    rows, anchors = pairs.labels.shape[0], pairs.scores.shape[2]
    place = torch.where(held.valid, held.row * anchors + held.anchor(pairs), rows * anchors)
    listed = _listed(merit, place, rows, anchors, keep).flatten()
    slot = torch.arange(place.shape[0], device=place.device)
    slots = slot.new_full((rows * anchors + 1,), -1).scatter(0, place, slot)
    slots = torch.where(listed < rows * anchors, pick(slots, listed), -1)
    return slots.clamp(min=0), slots >= 0


def _listed(merit: Tensor, place: Tensor, rows: int, anchors: int, k: int) -> Tensor:
    """`[N, k]` places `row A + anchor` of each row's k largest merits, 0 elsewhere; `N A` where there are fewer."""
    dense = merit.new_zeros(rows * anchors + 1).scatter(0, place.flatten(), merit.flatten())[:-1].view(rows, anchors)
    if anchors < k:  # fill up with empty ones
        dense = torch.cat([dense, dense.new_full((rows, k - anchors), -1.0)], 1)
    listed = dense.topk(k).indices
    row = torch.arange(rows, device=merit.device)[:, None]
    return torch.where(listed < anchors, row * anchors + listed, rows * anchors)
