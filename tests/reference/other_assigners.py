"""SimOTA, dynamic soft labels and ATSS, one target row at a time, as their papers tell them.

Costs are computed in float64 and rounded to float32 before they are compared; whether an anchor lies in a region is
decided in float32, because anchors can lie exactly on a side.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch

from .geometry import ciou

Found = dict[tuple[int, int, int], float]


class Given(NamedTuple):
    """A batch."""

    logits: np.ndarray  # [B, C, A] float64
    predicted: np.ndarray  # [B, A, 4] float64 xyxy, pixels
    anchors: np.ndarray  # [A, 2] float32, pixels
    strides: np.ndarray  # [A]
    batch_idx: list[int]  # [N]
    labels: list[int]  # [N]
    boxes: np.ndarray  # [N, 4] float32 xyxy, pixels


def iou(a: Any, b: Any) -> float:
    """Of two boxes, rounded to float32."""
    (x1, y1, x2, y2), (u1, v1, u2, v2) = (list(map(float, box)) for box in (a, b))
    both = max(min(x2, u2) - max(x1, u1), 0.0) * max(min(y2, v2) - max(y1, v1), 0.0)
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - both
    return float(np.float32(both / union)) if both > 0 else 0.0


def inside(point: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    """Strictly, in float32."""
    return bool(((point - low) > np.float32(1e-9)).all() and ((high - point) > np.float32(1e-9)).all())


def grown(box: np.ndarray, small: int) -> tuple[np.ndarray, np.ndarray]:
    """A box whose sides are at least `small` long."""
    centre, side = (box[:2] + box[2:]) / np.float32(2), box[2:] - box[:2]
    half = np.where(side < np.float32(small), np.float32(small), side) / np.float32(2)
    return centre - half, centre + half


def near_centre(point: np.ndarray, stride: float, box: np.ndarray, radius: float) -> bool:
    centre, half = (box[:2] + box[2:]) / np.float32(2), np.float32(radius * stride)
    return inside(point, centre - half, centre + half)


def entropy(logit: float, target: float) -> float:
    return max(logit, 0.0) - logit * target + math.log1p(math.exp(-abs(logit)))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def rows_of(given: Given) -> list[list[int]]:
    return [[n for n, owner in enumerate(given.batch_idx) if owner == b] for b in range(len(given.logits))]


def sim_ota(
    given: Given,
    *,
    top_k: int = 10,
    weight: float = 3.0,
    radius: float = 1.5,
    or_inside: bool = False,
    shared: bool = False,
) -> Found:
    """YOLOX, arXiv 2107.08430; with `shared` a row may have what any row of the image may."""

    def near_to(n: int, a: int) -> bool:
        return near_centre(given.anchors[a], float(given.strides[a]), given.boxes[n], radius)

    def holds(n: int, a: int) -> bool:
        return near_to(n, a) or (or_inside and inside(given.anchors[a], given.boxes[n][:2], given.boxes[n][2:]))

    everyone = union(given, holds) if shared else None

    def cost(n: int, image: int, a: int) -> float:
        box, point = given.boxes[n], given.anchors[a]
        near, within = near_to(n, a), inside(point, box[:2], box[2:])
        if (image, a) not in everyone if everyone is not None else not (near or (or_inside and within)):
            return math.inf
        classes = range(given.logits.shape[1])
        of_class = sum(entropy(given.logits[image, c, a], float(c == given.labels[n])) for c in classes)
        of_box = -math.log(max(iou(given.predicted[image, a], box), 1e-8))
        if or_inside:
            return of_class + weight * of_box + (0.0 if near and within else 1e5)
        return of_class + weight * of_box + (1e6 if shared and not near else 0.0)

    return least_cost(given, cost, top_k)


def union(given: Given, holds: Any) -> set[tuple[int, int]]:
    """Images and anchors that a row of the image may have."""
    every = range(len(given.anchors))
    return {(i, a) for i, rows in enumerate(rows_of(given)) for a in every if any(holds(n, a) for n in rows)}


def dynamic_soft_label(
    given: Given, *, small: int = 0, top_k: int = 13, weight: float = 3.0, radius: float = 3.0, shared: bool = False
) -> Found:
    """RTMDet, arXiv 2212.07784, within the boxes; with `shared` within any box of the image."""

    def holds(n: int, a: int) -> bool:
        return inside(given.anchors[a], given.boxes[n][:2], given.boxes[n][2:])

    everyone = union(given, holds) if shared else None

    def cost(n: int, image: int, a: int) -> float:
        box, point, stride = given.boxes[n], given.anchors[a], float(given.strides[a])
        if (image, a) not in everyone if everyone is not None else not inside(point, *grown(box, small)):
            return math.inf
        overlap, of_class = iou(given.predicted[image, a], box), 0.0
        for c in range(given.logits.shape[1]):
            logit, soft = given.logits[image, c, a], overlap if c == given.labels[n] else 0.0
            of_class += entropy(logit, soft) * (soft - sigmoid(logit)) ** 2
        centre = (box[:2] + box[2:]) / np.float32(2)
        far = math.dist(point.astype(float), centre.astype(float)) / stride
        return of_class - weight * math.log(max(overlap, 1e-7)) + 10 ** (far - radius)

    return least_cost(given, cost, top_k)


def least_cost(given: Given, cost_of: Any, top_k: int) -> Found:
    """Every row takes as many anchors of least cost as its largest overlaps add up to; the cheapest row wins."""
    found: Found = {}
    for image, rows in enumerate(rows_of(given)):
        costs, wanted = {}, {}
        for n in rows:
            mine = [(float(np.float32(cost_of(n, image, a))), a) for a in range(len(given.anchors))]
            mine = [(cost, a) for cost, a in mine if math.isfinite(cost)]
            overlaps = sorted((iou(given.predicted[image, a], given.boxes[n]) for _, a in mine), reverse=True)
            costs |= {(n, a): cost for cost, a in mine}
            for _, a in sorted(mine)[: max(1, int(sum(overlaps[:top_k])))]:
                wanted.setdefault(a, []).append(n)
        for a, claims in wanted.items():
            n = claims[0] if len(claims) == 1 else min((costs[n, a], n) for n in rows if (n, a) in costs)[1]
            found[image, a, n] = iou(given.predicted[image, a], given.boxes[n])
    return found


def atss(given: Given, *, top_k: int = 9, scale: float = 8.0) -> Found:
    """arXiv 1912.02424, soft scores by the predictions."""
    found: Found = {}
    for image, rows in enumerate(rows_of(given)):
        wanted: dict[int, list[tuple[float, int]]] = {}
        for n in rows:
            box = given.boxes[n]
            centre = ((box[:2] + box[2:]) / np.float32(2)).astype(float)
            candidates: list[int] = []
            for stride in sorted(set(given.strides.tolist())):
                level = np.flatnonzero(given.strides == stride).tolist()
                away = [(float(np.float32(((given.anchors[a].astype(float) - centre) ** 2).sum())), a) for a in level]
                candidates += [a for _, a in sorted(away)[:top_k]]
            overlap = {}
            for a in candidates:
                half = np.float32(scale / 2 * given.strides[a])
                overlap[a] = iou([*(given.anchors[a] - half), *(given.anchors[a] + half)], box)
            values = np.array(list(overlap.values()))
            threshold = values.mean() + (values.std(ddof=1) if len(values) > 1 else 0.0)
            for a in candidates:
                if overlap[a] > 0 and overlap[a] >= threshold and inside(given.anchors[a], box[:2], box[2:]):
                    wanted.setdefault(a, []).append((-overlap[a], n))
        for a, claims in wanted.items():
            n = min(claims)[1]
            found[image, a, n] = iou(given.predicted[image, a], given.boxes[n])
    return found


def aligned(given: Given, *, top_k: int = 10, farthest: float | None = None) -> Found:
    """Task-aligned, arXiv 2108.07755, by the rules of YOLOv9's MIT form: no row that overlaps anything goes without.

    Candidates lie in the box or on its sides, and no farther than so many strides from any.
    """
    found: Found = {}
    points, strides = given.anchors, given.strides.astype(np.float32)
    for image, rows in enumerate(rows_of(given)):
        predicted, m, o, wanted = torch.from_numpy(given.predicted[image]), {}, {}, {}
        for n in rows:
            box, scores = given.boxes[n], given.logits[image, given.labels[n]]
            o[n] = np.nan_to_num(ciou(predicted, torch.from_numpy(box).double()).numpy(), nan=0.0).clip(min=0)
            m[n] = np.array([sigmoid(x) for x in scores]) ** 0.5 * o[n] ** 6
            rank = np.sqrt(np.array([sigmoid(x) for x in scores], np.float32)) * o[n].astype(np.float32) ** 6
            sides = np.concatenate([points - box[:2], box[2:] - points], 1)
            near = sides / strides[:, None] <= (np.inf if farthest is None else farthest)
            mine = np.asarray(((sides >= 0) & near).all(1))
            best = [a for a in np.argsort(-np.where(mine, rank, 0), kind="stable")[:top_k] if mine[a] and rank[a] > 0]
            if not best and rank.max() > 0:
                best = [int(rank.argmax())]
            for a in best:
                wanted.setdefault(int(a), []).append(n)
        owner = {a: max(claims, key=lambda n, a=a: (np.float32(o[n][a]), -n)) for a, claims in wanted.items()}
        for a, n in owner.items():
            held = [b for b, other in owner.items() if other == n]
            found[image, a, n] = m[n][a] * o[n][held].max() / (m[n][held].max() + 1e-9)
    return found
