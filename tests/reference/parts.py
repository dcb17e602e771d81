"""What every reference loss begins and ends with: decoded maps, and sums made into terms with their gradients."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .assigner import Positive

GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "l1": 1.5, "pose": 12.0, "kobj": 1.0, "rle": 1.0, "angle": 1.0}


class ReferenceLoss(NamedTuple):
    """Terms times gain times batch size, the gradient of their sum, and what was matched."""

    terms: dict[str, float]
    gradients: dict[str, Tensor]
    positives: list[Positive]
    score_sum: float
    items: dict[str, float] | None = None  # terms that are reported, where they are not those of the sum


class Opened(NamedTuple):
    """A head's maps as float64 leaves, and its boxes' distances."""

    leaves: dict[str, Tensor]
    size: tuple[int, int]  # height, width in pixels
    points: np.ndarray  # [A, 2] float32, pixels
    grid: Tensor  # [A, 2] grid units
    step: Tensor  # [A] stride
    logits: Tensor  # [B, A, 4, R]
    distances: Tensor  # [B, A, 4] grid units


def anchor_grid(grid_sizes: tuple[tuple[int, int], ...], strides: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Anchor points `[A, 2]` in grid units and the stride `[A]` of each, finest level first, row by row."""
    points = [(x + 0.5, y + 0.5) for h, w in grid_sizes for y in range(h) for x in range(w)]
    repeated = [s for (h, w), s in zip(grid_sizes, strides, strict=True) for _ in range(h * w)]
    return np.array(points, np.float32), np.array(repeated, np.float32)


def open_head(
    maps: dict[str, Tensor | None],  # boxes [B, 4*R, A], scores [B, C, A] and others
    grid_sizes: tuple[tuple[int, int], ...],
    strides: tuple[int, ...],
) -> Opened:
    """Distances: the mean bin under a softmax; with one bin the raw output itself."""
    leaves = {name: x.detach().double().requires_grad_() for name, x in maps.items() if x is not None}
    points, stride = anchor_grid(grid_sizes, strides)
    boxes = leaves["boxes"]
    logits = boxes.transpose(1, 2).reshape(len(boxes), len(points), 4, -1)
    distances = logits[..., 0]
    if logits.shape[-1] > 1:
        distances = (logits.softmax(-1) * torch.arange(logits.shape[-1], dtype=torch.float64)).sum(-1)
    return Opened(
        leaves,
        (grid_sizes[0][0] * strides[0], grid_sizes[0][1] * strides[0]),
        points * stride[:, None],
        torch.from_numpy(points).double(),
        torch.from_numpy(stride).double(),
        logits,
        distances,
    )


def by_row(positives: list[Positive]) -> list[tuple[int, int, Tensor, Tensor]]:
    """Of each row with positives: row, image, anchors `[P]` and target scores `[P]`."""
    result = []
    for row in sorted({p.row for p in positives}):
        mine = [p for p in positives if p.row == row]
        score = torch.tensor([p.score for p in mine], dtype=torch.float64)
        result.append((row, mine[0].image, torch.tensor([p.anchor for p in mine]), score))
    return result


def score_sum(positives: list[Positive]) -> float:
    return max(1.0, sum(p.score for p in positives))


def distance_term(head: Opened, image: int, at: Tensor, sides: Tensor) -> Tensor:
    """`[P]` error of the distances to the true `sides` [P, 4] (grid units): over bins, or as a share of the image."""
    if head.logits.shape[-1] > 1:
        return _distribution(head.logits[image, at], sides)
    height, width = head.size
    scale = head.step[at, None] / torch.tensor([width, height, width, height], dtype=torch.float64)
    return ((head.distances[image, at] - sides) * scale).abs().mean(1)


def distance_name(head: Opened) -> str:
    return "dfl" if head.logits.shape[-1] > 1 else "l1"


def entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy, elementwise; the derivative of a clamp would be wrong at a logit of 0."""
    return torch.logaddexp(logits, torch.zeros_like(logits)) - logits * target


def close(
    head: Opened,
    terms: dict[str, Tensor],  # normalised already, except that cls is missing
    positives: list[Positive],
    labels: Tensor,  # [N]
    class_weights: list[float] | None = None,
    gains: dict[str, float] = GAINS,
) -> ReferenceLoss:
    """Classification over all anchors, gains, batch size and gradients. Mask terms share the gain of the box."""
    x = head.leaves["scores"].transpose(1, 2)
    target = torch.zeros_like(x)
    for p in positives:
        target[p.image, p.anchor, int(labels[p.row])] = p.score
    each = entropy(x, target)
    if class_weights is not None:
        each = each * torch.tensor(class_weights, dtype=torch.float64)
    terms = terms | {"cls": each.sum() / score_sum(positives)}
    gains = gains | {"seg": gains["box"], "sem": gains["box"]}
    terms = {name: value * gains[name] * len(x) for name, value in terms.items()}
    total = torch.stack(list(terms.values())).sum()
    gradients = torch.autograd.grad(total, list(head.leaves.values()), allow_unused=True, materialize_grads=True)
    return ReferenceLoss(
        {name: value.item() for name, value in terms.items()},
        dict(zip(head.leaves, gradients, strict=True)),
        positives,
        score_sum(positives),
    )


def _distribution(logits: Tensor, sides: Tensor) -> Tensor:
    """Cross-entropy `[P]` against each distance split over its two neighbouring bins (arXiv 2006.04388)."""
    bins = logits.shape[-1]
    sides = sides.clamp(0, bins - 1 - 0.01)
    log = logits.log_softmax(-1)
    result = torch.zeros(len(logits), dtype=torch.float64)
    for side in range(4):
        left = sides[:, side].floor().long()
        upper = sides[:, side] - left
        each = torch.arange(len(logits))
        result = result - (1 - upper) * log[each, side, left] - upper * log[each, side, left + 1]
    return result / 4
