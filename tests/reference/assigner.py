"""Task-aligned assignment (arXiv 2108.07755), one target row at a time."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .geometry import ciou


class Positive(NamedTuple):
    """One anchor given to one target row, with its target score."""

    image: int
    anchor: int
    row: int
    score: float


def pixel_boxes(normalised: Tensor, height: int, width: int) -> np.ndarray:
    """Normalised (cx, cy, w, h) as xyxy pixels; in float32, because anchors can lie exactly on a side."""
    scaled = normalised.float().numpy() * np.array([width, height, width, height], np.float32)
    half = scaled[:, 2:] / np.float32(2)
    return np.concatenate([scaled[:, :2] - half, scaled[:, :2] + half], 1)


def candidates(
    anchors: np.ndarray,  # [A, 2] float32, pixels
    box: np.ndarray,  # [4] float32 xyxy, pixels
    small: float,
) -> np.ndarray:  # [A] bool
    """Anchors strictly inside the box, each of whose sides is first made at least `small` long.

    Every box takes the way over centre and half sides, enlarged or not: its rounding moves a side by up to one
    float32 step, and that decides anchors that lie on the side.
    """
    centre = (box[:2] + box[2:]) / np.float32(2)
    side = box[2:] - box[:2]
    half = np.where(side < np.float32(small), np.float32(small), side) / np.float32(2)
    inside = np.concatenate([anchors - (centre - half), (centre + half) - anchors], 1)
    return np.all(inside > np.float32(1e-9), axis=1)


def level_gate(
    inside: np.ndarray,  # [A] bool
    stride: np.ndarray,  # [A] float32
    box: np.ndarray,  # [4] float32 xyxy, pixels
) -> np.ndarray:  # [A] bool
    """Candidates on levels whose stride s fits the box, `2 s <= sqrt(w h) <= 12 s`; all if none is left.

    The finest level takes boxes of any smallness, the coarsest of any largeness.
    """
    width, height = box[2:] - box[:2]
    scale = np.sqrt(width * height)
    fits = (stride == stride.min()) | (2 * stride <= scale)
    fits &= (stride == stride.max()) | (scale <= 12 * stride)
    return inside & fits if (inside & fits).any() else inside


def clamped(overlap: Tensor) -> np.ndarray:
    """At least 0, and 0 where it is NaN."""
    return np.nan_to_num(overlap.numpy(), nan=0.0).clip(min=0)


def assign(
    scores: Tensor,  # [B, A, C] probabilities
    boxes: Tensor,  # [B, A, 4] float64 predicted xyxy, pixels
    anchors: np.ndarray,  # [A, 2] float32, pixels
    batch_idx: list[int],  # [N]
    labels: list[int],  # [N]
    targets: np.ndarray,  # [N, 4] float32 xyxy, pixels
    *,
    small: float,
    **options,
) -> list[Positive]:
    """Every positive of the batch for upright boxes: strictly inside, and CIoU."""
    inside = np.zeros((len(batch_idx), len(anchors)), bool)
    overlap = np.zeros((len(batch_idx), len(anchors)))
    for n, image in enumerate(batch_idx):
        if 0 <= image < len(scores):
            inside[n] = candidates(anchors, targets[n], small)
            overlap[n] = clamped(ciou(boxes[image], torch.from_numpy(targets[n]).double()))
    return assign_overlaps(scores, inside, overlap, batch_idx, labels, **options)


def ranking_of(score: np.ndarray, overlap: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """The alignment in float32, in which an overlap power that underflows counts as 0."""
    with np.errstate(under="ignore"):
        return score.astype(np.float32) ** np.float32(alpha) * overlap.astype(np.float32) ** int(beta)


def best_of(ranking: np.ndarray, k: int, *, oracle_ties: bool) -> np.ndarray:
    """The k largest, the lowest index first among equals; or whichever `torch.topk` lists."""
    if oracle_ties:
        return torch.topk(torch.from_numpy(ranking), min(k, len(ranking))).indices.numpy()
    return np.argsort(-ranking, kind="stable")[:k]


def assign_overlaps(
    scores: Tensor,  # [B, A, C] probabilities
    inside: np.ndarray,  # [N, A] bool
    overlaps: np.ndarray,  # [N, A] float64
    batch_idx: list[int],  # [N]
    labels: list[int],  # [N]
    *,
    top_k: int = 10,
    keep: int | None = None,
    alpha: float = 0.5,
    beta: float = 6.0,
    oracle_ties: bool = False,
    keep_zeros: bool = False,
) -> list[Positive]:
    """Every positive of the batch, in order of image and anchor.

    A row picks its `top_k` anchors of largest `score^alpha * overlap^beta`, the lowest index first among equals and
    only those above 0. With `oracle_ties` it takes `torch.topk` over all anchors, zeros included, less those that
    are not candidates: what a dense implementation does. Of those it holds after conflicts, it keeps the best `keep`.
    With `keep_zeros` it takes these too, but keeps the lowest index among equals.
    """
    positives, listed = [], oracle_ties or keep_zeros
    overlaps = np.where(inside, overlaps, 0)
    anchors = inside.shape[1]
    for image in range(len(scores)):
        rows = [n for n, owner in enumerate(batch_idx) if owner == image]
        overlap = overlaps[rows]
        contest = overlap.astype(np.float32)  # boxes of the same shape are equal then
        alignment = np.zeros((len(rows), anchors))
        ranking = np.zeros((len(rows), anchors), np.float32)
        picked = np.zeros((len(rows), anchors), bool)
        for i, n in enumerate(rows):
            score = np.nan_to_num(scores[image, :, labels[n]].double().numpy(), nan=0.0)
            alignment[i] = score**alpha * overlap[i] ** beta
            ranking[i] = ranking_of(score, overlap[i], alpha, beta)
            best = best_of(ranking[i], top_k, oracle_ties=listed)
            picked[i, best] = inside[n, best] if listed else ranking[i, best] > 0
        owner = np.full(anchors, -1)
        for anchor in np.flatnonzero(picked.any(0)):
            claims = np.flatnonzero(picked[:, anchor])
            owner[anchor] = claims[0] if len(claims) == 1 else int(np.argmax(contest[:, anchor]))
        if keep is not None and keep < top_k:
            for i in range(len(rows)):
                held = np.where(owner == i, ranking[i], np.float32(0 if oracle_ties else -1))
                best = best_of(held, keep, oracle_ties=oracle_ties)
                owner[(owner == i) & ~np.isin(np.arange(anchors), best)] = -1
        for anchor in np.flatnonzero(owner >= 0):
            i = owner[anchor]
            mine = owner == i
            target_score = alignment[i, anchor] * overlap[i, mine].max() / (alignment[i, mine].max() + 1e-9)
            positives.append(Positive(image, int(anchor), rows[i], float(target_score)))
    return positives
