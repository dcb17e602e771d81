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


def assign(
    scores: Tensor,  # [B, A, C] probabilities
    boxes: Tensor,  # [B, A, 4] float64 predicted xyxy, pixels
    anchors: np.ndarray,  # [A, 2] float32, pixels
    batch_idx: list[int],  # [N]
    labels: list[int],  # [N]
    targets: np.ndarray,  # [N, 4] float32 xyxy, pixels
    *,
    small: float,
    top_k: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
    oracle_ties: bool = False,
) -> list[Positive]:
    """Every positive of the batch, in order of image and anchor.

    A row picks its `top_k` anchors of largest `score^alpha * overlap^beta`, the lowest index first among equals and
    only those above 0. With `oracle_ties` it takes `torch.topk` over all anchors, zeros included, less those that
    are not candidates: what a dense implementation does.
    """
    positives = []
    for image in range(len(scores)):
        rows = [n for n, owner in enumerate(batch_idx) if owner == image]
        overlap = np.zeros((len(rows), len(anchors)))
        alignment = np.zeros((len(rows), len(anchors)))
        picked = np.zeros((len(rows), len(anchors)), bool)
        for i, n in enumerate(rows):
            inside = candidates(anchors, targets[n], small)
            true = torch.from_numpy(targets[n]).double()
            value = np.nan_to_num(ciou(boxes[image], true).numpy(), nan=0.0).clip(min=0)
            overlap[i] = np.where(inside, value, 0)
            score = np.nan_to_num(scores[image, :, labels[n]].double().numpy(), nan=0.0)
            alignment[i] = score**alpha * overlap[i] ** beta
            with np.errstate(under="ignore"):  # an overlap power that underflows float32 counts as 0
                ranking = score.astype(np.float32) ** np.float32(alpha) * overlap[i].astype(np.float32) ** int(beta)
            if oracle_ties:
                best = torch.topk(torch.from_numpy(ranking), min(top_k, len(anchors))).indices.numpy()
                picked[i, best] = True
                picked[i] &= inside
            else:
                best = np.argsort(-ranking, kind="stable")[:top_k]
                picked[i, best] = ranking[best] > 0
        owner = np.full(len(anchors), -1)
        for anchor in np.flatnonzero(picked.any(0)):
            claims = np.flatnonzero(picked[:, anchor])
            owner[anchor] = claims[0] if len(claims) == 1 else int(np.argmax(overlap[:, anchor]))
        for anchor in np.flatnonzero(owner >= 0):
            i = owner[anchor]
            mine = owner == i
            target_score = alignment[i, anchor] * overlap[i, mine].max() / (alignment[i, mine].max() + 1e-9)
            positives.append(Positive(image, int(anchor), rows[i], float(target_score)))
    return positives
