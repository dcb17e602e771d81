"""Instance masks in float64 loops: overlap of masks, the mask-aware assigner, the segmentation loss."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .assigner import assign_overlaps, best_of, candidates, clamped, pixel_boxes, ranking_of
from .geometry import ciou
from .parts import GAINS, ReferenceLoss, by_row, close, distance_name, distance_term, entropy, open_head, score_sum


def nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    """`[..., H, W]` resized: output i shows input `floor(i * in / out)`."""
    rows = [i * x.shape[-2] // size[0] for i in range(size[0])]
    columns = [i * x.shape[-1] // size[1] for i in range(size[1])]
    return x[..., rows, :][..., columns]


def row_masks(masks: Tensor, batch_idx: list[int]) -> Tensor:
    """`[N, H, W]` float64, the mask of every row.

    `masks` are `[N, H, W]` floats in row order, or index maps: `[B, H, W]` integers, i+1 on the i-th row of the image.
    """
    if masks.is_floating_point():
        return masks.double()
    rows = []
    for n, image in enumerate(batch_idx):
        place = sum(other == image for other in batch_idx[:n])
        rows.append(masks[image] == place + 1)
    return torch.stack(rows).double() if rows else torch.zeros(0, *masks.shape[1:], dtype=torch.float64)


def covered(masks: Tensor, batch_idx: list[int], batch_size: int) -> Tensor:
    """`[B, H, W]` bool: where any instance is, an index without a row included."""
    if not masks.is_floating_point():
        return masks > 0
    cover = torch.zeros(batch_size, *masks.shape[1:], dtype=torch.bool)
    for n, image in enumerate(batch_idx):
        cover[image] |= masks[n] > 0
    return cover


def crop(box: Tensor, size: tuple[int, int]) -> Tensor:
    """`[H, W]` bool: pixels with `x1 <= column < x2` and `y1 <= row < y2`, the box in mask pixels."""
    row, column = torch.arange(size[0])[:, None], torch.arange(size[1])[None]
    return (column >= box[0]) & (column < box[2]) & (row >= box[1]) & (row < box[3])


def mask_iou(predicted: Tensor, true: Tensor) -> float:
    """Of two bool masks; 0 when both are empty."""
    union = int((predicted | true).sum())
    return int((predicted & true).sum()) / union if union else 0.0


def mask_overlaps(
    score: np.ndarray,  # [A] of the row's class
    inside: np.ndarray,  # [A] bool
    overlap: np.ndarray,  # [A] of the boxes, 0 or more
    boxes: Tensor,  # [A, 4] predicted, pixels
    coefficients: Tensor,  # [nm, A]
    prototypes: Tensor,  # [nm, H, W]
    true: Tensor,  # [H', W']
    *,
    stride: float,
    count: int,
    alpha: float = 0.5,
    beta: float = 6.0,
    oracle_ties: bool = False,
) -> np.ndarray:  # [A]
    """Half the box overlap plus half the mask overlap, which only the `count` best-aligned candidates have."""
    size = (prototypes.shape[1], prototypes.shape[2])
    true = nearest(true, size) > 0.5 if true.shape != size else true > 0.5
    ranking = ranking_of(score, overlap, alpha, beta)
    ranking = np.where(inside, ranking + np.float32(1e-9) if oracle_ties else ranking, 0 if oracle_ties else -1)
    result = np.where(inside, overlap, 0) / 2
    for anchor in best_of(ranking, count, oracle_ties=oracle_ties):
        if inside[anchor]:
            logits = (coefficients[:, anchor, None, None] * prototypes).sum(0)
            predicted = (logits > 0) & crop(boxes[anchor] / stride, size)
            result[anchor] += mask_iou(predicted, true) / 2
    return result


def segmentation_loss(
    boxes: Tensor,  # [B, 4*R, A]
    scores: Tensor,  # [B, C, A]
    coefficients: Tensor,  # [B, nm, A]
    prototypes: Tensor,  # [B, nm, H, W]
    grid_sizes: tuple[tuple[int, int], ...],
    batch_idx: Tensor,  # [N]
    labels: Tensor,  # [N]
    target_boxes: Tensor,  # [N, 4] normalised cxcywh
    masks: Tensor,  # [B, H', W'] integers or [N, H', W'] floats
    semantic: Tensor | None = None,  # [B, C, h, w] logits
    class_map: Tensor | None = None,  # [B, H', W'] integers
    *,
    strides: tuple[int, ...] = (8, 16, 32),
    class_weights: list[float] | None = None,
    gains: dict[str, float] = GAINS,
    mask_overlap: bool = False,
    oracle_ties: bool = False,
    top_k: int = 10,
    **options,
) -> ReferenceLoss:
    """Box, mask, class, distance and semantic terms; with `mask_overlap` the assigner sees masks too."""
    maps = {"boxes": boxes, "scores": scores, "coefficients": coefficients, "prototypes": prototypes}
    head = open_head(maps | {"semantic": semantic}, grid_sizes, strides)
    images = batch_idx.tolist()
    predicted = torch.cat([head.grid - head.distances[..., :2], head.grid + head.distances[..., 2:]], -1)
    pixels = (predicted * head.step[:, None]).detach()
    probabilities = head.leaves["scores"].detach().sigmoid().transpose(1, 2)
    targets = pixel_boxes(target_boxes, *head.size)
    truth = row_masks(masks, images)

    inside = np.zeros((len(images), len(head.step)), bool)
    overlap = np.zeros((len(images), len(head.step)))
    for n, image in enumerate(images):
        inside[n] = candidates(head.points, targets[n], strides[:2][-1])
        overlap[n] = clamped(ciou(pixels[image], torch.from_numpy(targets[n]).double()))
        if mask_overlap:
            overlap[n] = mask_overlaps(
                np.nan_to_num(probabilities[image, :, int(labels[n])].numpy(), nan=0.0),
                inside[n],
                overlap[n],
                pixels[image],
                head.leaves["coefficients"][image].detach(),
                head.leaves["prototypes"][image].detach(),
                truth[n],
                stride=head.size[0] / prototypes.shape[2],
                count=3 * top_k,
                oracle_ties=oracle_ties,
            )
    positives = assign_overlaps(
        probabilities, inside, overlap, images, labels.tolist(), top_k=top_k, oracle_ties=oracle_ties, **options
    )

    zero = torch.zeros((), dtype=torch.float64)
    sums = dict.fromkeys(("box", distance_name(head)), zero)
    mask_sum = zero
    for row, image, at, weight in by_row(positives):
        true = torch.from_numpy(targets[row]).double() / head.step[at, None]
        sides = torch.cat([head.grid[at] - true[:, :2], true[:, 2:] - head.grid[at]], 1)
        name = distance_name(head)
        sums["box"] = sums["box"] + (weight * (1 - ciou(predicted[image, at], true))).sum()
        sums[name] = sums[name] + (weight * distance_term(head, image, at, sides)).sum()
        basis = _resized(head.leaves["prototypes"][image], (truth.shape[1], truth.shape[2]))
        for anchor in at.tolist():
            logits = (head.leaves["coefficients"][image, :, anchor, None, None] * basis).sum(0)
            mask_sum = mask_sum + _mask_error(logits, truth[row], targets[row], head.size)
    terms = {name: value / score_sum(positives) for name, value in sums.items()}
    terms |= {"seg": mask_sum / max(len(positives), 1), "sem": zero}
    if semantic is not None and positives:
        cover = covered(masks, images, len(boxes))
        assert class_map is not None
        terms["sem"] = semantic_error(head.leaves["semantic"], class_map, cover)
    return close(head, terms, positives, labels, class_weights, gains)


def semantic_error(logits: Tensor, class_map: Tensor, cover: Tensor) -> Tensor:
    """Half the mean binary cross-entropy plus half the mean Dice loss of every image and class."""
    batch, classes, height, width = logits.shape
    target = torch.zeros(batch, classes, *class_map.shape[1:], dtype=torch.float64)
    for c in range(classes):
        target[:, c] = ((class_map == c) & cover).double()
    target = nearest(target, (height, width))
    dice = torch.zeros((), dtype=torch.float64)
    for b in range(batch):
        for c in range(classes):
            p, t = logits[b, c].sigmoid(), target[b, c]
            dice = dice + 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    return entropy(logits, target).mean() / 2 + dice / (batch * classes) / 2


def _resized(prototypes: Tensor, size: tuple[int, int]) -> Tensor:
    if prototypes.shape[1:] == size:
        return prototypes
    return F.interpolate(prototypes[None], size, mode="bilinear", align_corners=False)[0]


def _mask_error(logits: Tensor, true: Tensor, box: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Mean over all pixels of the cross-entropy inside the box, over the box's share of the image."""
    height, width = size
    share_of_image = box / np.array([width, height] * 2, np.float32)
    in_pixels = share_of_image * np.array([true.shape[1], true.shape[0]] * 2, np.float32)
    within = crop(torch.from_numpy(in_pixels), (true.shape[0], true.shape[1]))
    share = float((box[2] - box[0]) * (box[3] - box[1])) / (height * width)
    if not within.any():
        return torch.zeros((), dtype=torch.float64)
    return torch.where(within, entropy(logits, true), 0.0).mean() / share
