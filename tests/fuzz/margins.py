"""Whether a rounding of float32 explains other positives than the reference's."""

from collections.abc import Iterable

import numpy as np
import torch

from tests.reference.dense_match import LEAST, UNIT, Matching, Rows, Task, coarse

WIDER = 4  # than the spread seen in disturbed runs


def explained(task: Task, exact: Matching, disturbed: Iterable[Matching], rows: Rows, owner: np.ndarray) -> str:
    """What about positives `[B, A]` no rounding explains; nothing, if all is explained.

    Every alignment and overlap lies between two bounds, as far apart as disturbed ones were seen, and numbers that are
    equal by like arguments are equal: among those the lowest index still counts.
    """
    exact = _contested(exact)
    away = [np.zeros_like(exact.alignment), np.zeros_like(exact.overlap)]
    wrong = "no rounding was looked at"
    for sample in disturbed:
        sample = _contested(sample)
        away[0] = np.maximum(away[0], np.abs(sample.alignment - exact.alignment))
        away[1] = np.maximum(away[1], np.abs(sample.overlap - exact.overlap))
        wrong = _judge(task, exact, away, rows, owner)
        if not wrong:
            break
    return wrong


def _contested(matching: Matching) -> Matching:
    """Overlaps of candidates alone."""
    return matching._replace(overlap=np.where(matching.inside, matching.overlap, 0))


def _judge(task: Task, exact: Matching, away: list[np.ndarray], rows: Rows, owner: np.ndarray) -> str:
    low, high = _bounds(away[0], exact.alignment)
    low = np.where(low < LEAST, 0, low)
    best_low, best_high = _bounds(away[1], exact.overlap)
    equal, twins = coarse(exact.alignment), _twins(task, rows)
    # Equal numbers need not come from equal arguments: anchors may lie on two sides of a box, alike far from it.
    alike = (exact.seen[:, :, None] == exact.seen[:, None]).all(3).numpy()
    alike &= not task.mask_overlap
    image, index = rows.image.numpy(), np.arange(low.shape[1])
    surely, maybe = np.zeros(low.shape, bool), np.zeros(low.shape, bool)
    for n in range(len(low)):
        tied = alike[image[n]] & (equal[n][:, None] == equal[n][None])  # [anchor, other]
        before = index[None] < index[:, None]
        better = np.where(tied, before, low[n][None] > high[n][:, None]) & (high[n] > 0)[None]
        perhaps = np.where(tied, before, high[n][None] >= low[n][:, None]) & (index[None] != index[:, None])
        perhaps &= (high[n] > 0)[None]
        maybe[n] = (better.sum(1) < task.top_k) & (high[n] > 0)
        surely[n] = (perhaps.sum(1) < task.top_k) & (low[n] > 0)
    for b in range(len(owner)):
        own = np.flatnonzero(image == b)
        possible = _possible_owners(own, surely, maybe, best_low, best_high, twins)
        wrong = _judge_image(task, b, own, owner[b], surely, possible, low, high)
        if wrong:
            return wrong
    return ""


def _twins(task: Task, rows: Rows) -> np.ndarray:
    """`[N, N]` rows that overlap with everything alike."""
    fields = [rows.boxes]
    if task.kind == "residual" and rows.keypoints is not None:
        fields.append(rows.keypoints.flatten(1))
    values = torch.cat(fields, 1)
    return np.zeros((len(values),) * 2, bool) if task.mask_overlap else (values[:, None] == values).all(2).numpy()


def _bounds(away: np.ndarray, exact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    spread = WIDER * away + 4 * UNIT * exact
    return np.maximum(exact - spread, 0), exact + spread


def _possible_owners(
    own: np.ndarray, surely: np.ndarray, maybe: np.ndarray, low: np.ndarray, high: np.ndarray, twins: np.ndarray
) -> np.ndarray:
    """`[n, A]` which of an image's rows may own an anchor, in the order of `own`."""
    claims, sure = maybe[own].sum(0), surely[own].sum(0)
    winners = np.zeros((len(own), low.shape[1]), bool)
    for i, n in enumerate(own):
        tied, earlier = twins[own, n][:, None], own[:, None] < n
        beaten = np.where(tied & (high[n] > 0), earlier, low[own] > high[n])
        beaten[i] = False
        winners[i] = ~beaten.any(0)
    alone = maybe[own] & (sure <= 1)[None] & ~((sure == 1)[None] & ~surely[own])
    return np.where(claims[None] == 0, False, alone | (winners & (claims >= 2)[None]))


def _judge_image(
    task: Task,
    b: int,
    own: np.ndarray,
    owner: np.ndarray,
    surely: np.ndarray,
    possible: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> str:
    keep = task.keep if task.keep is not None and task.keep < task.top_k else None
    for a in range(len(owner)):
        if owner[a] >= 0 and not possible[np.flatnonzero(own == owner[a])[0], a]:
            return f"image {b}, anchor {a}: row {owner[a]} cannot own it"
        if owner[a] >= 0 or not surely[own, a].any():
            continue
        if keep is None:
            return f"image {b}, anchor {a}: rows {own[surely[own, a]].tolist()} pick it, and it is background"
        # It was held, and dropped for anchors as good.
        for n in own[possible[:, a]]:
            kept = np.flatnonzero(owner == n)
            if len(kept) == keep and (high[n, kept] >= low[n, a]).all():
                break
        else:
            return f"image {b}, anchor {a}: dropped by row {own[possible[:, a]].tolist()} for worse ones"
    return ""
