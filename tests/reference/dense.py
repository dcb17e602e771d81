"""Every loss over whole tensors in float64, gradients by autograd: the loops beside, for many small batches."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .assigner import pixel_boxes
from .dense_match import UNIT, Matching, Rounding, Rows, Task, assign, keypoint_places, match
from .geometry import ciou
from .masks import covered, row_masks, semantic_error
from .parts import Opened, distance_name, distance_term, entropy, open_head
from .rotated import _angle_error, decode, encode, pixel_rboxes, probiou


class Answer(NamedTuple):
    """Terms times gain times batch size, the gradient of their sum, and what was matched."""

    terms: dict[str, float]
    gradients: dict[str, Tensor]
    owner: np.ndarray  # [B, A] row of every anchor, -1 on background
    matching: Matching


class Positives(NamedTuple):
    """`[P]` each, in order of image and anchor."""

    image: Tensor
    anchor: Tensor
    row: Tensor
    score: Tensor


def dense_loss(
    task: Task,
    maps: dict[str, Tensor],
    grid_sizes: tuple[tuple[int, int], ...],
    rows: Rows,
    *,
    pages: int | None = None,
    owner: np.ndarray | None = None,
    seed: int | None = None,
) -> Answer:
    """The loss of one branch.

    Args:
        task: the loss.
        maps: raw output of a head.
        grid_sizes: of its levels.
        rows: targets.
        pages: of candidates, or None for as many as there are.
        owner: a given assignment, to be weighted and summed; None assigns.
        seed: disturb every intermediate number by float32 roundings drawn from it.
    """
    rounding = Rounding(seed)
    head = open_head(dict(maps), grid_sizes, task.strides)
    with torch.no_grad():
        matching = match(task, head, rows, pages=pages, rounding=rounding)
    if owner is None:
        owner = assign(task, matching, rows.image.numpy(), len(maps["scores"]))
    positives = positives_of(owner, matching)
    normaliser = max(1.0, float(positives.score.sum()))
    errors, means = terms_of(task, head, rows, positives, rounding)
    count = max(len(positives.row), 1)
    terms = {name: (rounding(positives.score * x, 8)).sum() / normaliser for name, x in errors.items()}
    terms |= {name: x.sum() / count for name, x in means.items()}
    terms["cls"] = classification(task, head, rows, positives, rounding) / normaliser
    if task.kind == "residual":
        terms["rle"] = likelihood(task, head, rows, positives, rounding)
    if task.kind == "segment":
        terms["sem"] = torch.zeros((), dtype=torch.float64)
        if "semantic" in maps and len(positives.row):
            assert rows.masks is not None
            assert rows.class_map is not None
            cover = covered(rows.masks, rows.image.tolist(), len(maps["scores"]))
            terms["sem"] = rounding(semantic_error(head.leaves["semantic"], rows.class_map, cover), 16)
    gains = task.gains | {"seg": task.gains["box"], "sem": task.gains["box"]}
    terms = {name: rounding(x * gains[name] * len(maps["scores"]), 8) for name, x in terms.items()}
    leaves = list(head.leaves.values())
    found = torch.autograd.grad(sum(terms.values()), leaves, allow_unused=True, materialize_grads=True)  # type: ignore[arg-type]
    gradients = dict(zip(head.leaves, found, strict=True))
    return Answer({name: x.item() for name, x in terms.items()}, gradients, owner, matching)


def positives_of(owner: np.ndarray, matching: Matching) -> Positives:
    """Every positive with its target score: its alignment over the row's largest, times the row's largest overlap."""
    image, anchor = np.nonzero(owner >= 0)
    row = owner[image, anchor]
    aligned, overlap = matching.alignment[row, anchor], matching.overlap[row, anchor]
    largest = np.zeros((2, len(matching.alignment)))
    np.maximum.at(largest[0], row, aligned)
    np.maximum.at(largest[1], row, overlap)
    score = aligned * largest[1, row] / (largest[0, row] + 1e-9)
    return Positives(*(torch.from_numpy(x) for x in (image, anchor, row, score)))


def terms_of(
    task: Task, head: Opened, rows: Rows, positives: Positives, rounding: Rounding
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """`[P]` errors that are weighted by the target scores, and others whose mean over positives counts."""
    image, at, row, _ = positives
    grid, step = head.grid[at], head.step[at]
    distances = rounding(head.distances[image, at], 4 + head.logits.shape[-1])
    size = (grid.abs().repeat(1, 2) + distances.abs()).detach()
    name, means = distance_name(head), {}
    if task.kind == "obb":
        targets = torch.from_numpy(pixel_rboxes(rows.boxes, *head.size)).double()
        true = torch.cat([targets[row, :4] / step[:, None], targets[row, 4:]], 1)
        # Sines and cosines are rounded too, those of whole quarters to less than there is.
        true = torch.cat([rounding(true[:, :4], 2), rounding(true[:, 4:], 2, 1 + true[:, 4:].abs())], 1)
        angles = head.leaves["angles"][image, 0, at]
        angles = rounding(angles, 2, 1 + angles.detach().abs())
        guess = decode(grid, distances, angles)
        guess = torch.cat([rounding(guess[:, :4], 4, size), guess[:, 4:]], 1)
        sides = rounding(
            encode(grid, true), 4, grid.abs().sum(1, keepdim=True) + true[:, :4].abs().sum(1, keepdim=True)
        )
        overlap = probiou(guess, true, 0.01)
        return {
            "box": 1 - rounding(overlap, 8, 1.0),
            name: rounding(_distance(head, image, at, distances, sides, rounding), 8),
            "angle": rounding(_angle_error(guess[:, 4], true), 8),
        }, {}
    targets = torch.from_numpy(pixel_boxes(rows.boxes, *head.size)).double()
    true = rounding(targets[row] / step[:, None], 2)
    guess = rounding(torch.cat([grid - distances[:, :2], grid + distances[:, 2:]], 1), 4, size)
    sides = torch.cat([grid - true[:, :2], true[:, 2:] - grid], 1)
    sides = rounding(sides, 2, grid.abs().repeat(1, 2) + true.abs())
    overlap = ciou(guess, true)
    errors = {
        "box": 1 - rounding(overlap, 8, 1 + overlap.detach().abs()),
        name: rounding(_distance(head, image, at, distances, sides, rounding), 8),
    }
    if task.kind in ("pose", "residual"):
        means = keypoint_means(task, head, rows, positives, true, rounding)
    if task.kind == "segment":
        means = {"seg": mask_errors(head, rows, positives, rounding)}
    return errors, means


def _distance(head: Opened, image: Tensor, at: Tensor, distances: Tensor, sides: Tensor, rounding: Rounding) -> Tensor:
    """`distance_term` of disturbed distances and logits."""
    if rounding.generator is None:
        return distance_term(head, image, at, sides)  # type: ignore[arg-type]
    bins = head.logits.shape[-1]
    if bins > 1:  # a distance beyond the last bin is cut, and then rounded
        sides = rounding(sides.clamp(0, bins - 1.01) - 2 * UNIT * bins, 2, bins)
    whole, logits = head.distances.clone(), rounding(head.logits, 2, head.logits.detach().abs() + 1)
    whole[image, at] = distances
    return distance_term(head._replace(distances=whole, logits=logits), image, at, sides)  # type: ignore[arg-type]


def keypoint_means(
    task: Task, head: Opened, rows: Rows, positives: Positives, true: Tensor, rounding: Rounding
) -> dict[str, Tensor]:
    """`[P]` mean over keypoints of the location error and of the visibility error."""
    assert rows.keypoints is not None
    image, at, row, _ = positives
    raw, places = keypoint_places(task, head, rounding)
    raw, places = raw[image, at], places[image, at]
    flags = visible(rows)[row]
    area = (true[:, 2] - true[:, 0]) * (true[:, 3] - true[:, 1])
    goal = rows.keypoints[row, :, :2].double() * torch.tensor(head.size[::-1], dtype=torch.float64)
    squared = ((places - rounding(goal / head.step[at, None, None], 2)) ** 2).sum(2)
    spread = (2 * torch.tensor(task.sigmas, dtype=torch.float64)) ** 2
    error = rounding(squared / (spread * (area[:, None] + 1e-9) * 2), 12)
    count = flags.shape[1]
    location = torch.where(flags, 1 - rounding(torch.exp(-error), 4, 1.0), 0.0) * (
        count / (flags.sum(1, keepdim=True) + 1e-9)
    )
    visibility = torch.zeros(len(row), dtype=torch.float64)
    if task.keypoint_dims == 3:
        visibility = _entropy(raw[..., 2], flags.double(), rounding).mean(1)
    return {"pose": location.mean(1), "kobj": visibility}


def visible(rows: Rows) -> Tensor:
    """`[N, K]` bool: flags other than 0; without flags all."""
    assert rows.keypoints is not None
    points = rows.keypoints
    return points[..., 2] != 0 if points.shape[2] == 3 else torch.ones(points.shape[:2]).bool()


def likelihood(task: Task, head: Opened, rows: Rows, positives: Positives, rounding: Rounding) -> Tensor:
    """Mean over visible keypoints of the negative log-likelihood, at least 0; 0 without a flow."""
    assert rows.keypoints is not None
    image, at, row, _ = positives
    flags = visible(rows)[row]
    if task.flow is None or "keypoint_sigmas" not in head.leaves or not flags.any():
        return torch.zeros((), dtype=torch.float64)
    _, places = keypoint_places(task, head, rounding)
    spread = head.leaves["keypoint_sigmas"].unflatten(1, (-1, 2)).permute(0, 3, 1, 2).sigmoid()[image, at][flags]
    goal = rows.keypoints[row, :, :2].double() * torch.tensor(head.size[::-1], dtype=torch.float64)
    goal = rounding(goal / head.step[at, None, None], 2)[flags]
    errors = rounding((places[image, at][flags] - goal) / (rounding(spread, 4) + 1e-9), 4).clamp(-100, 100)
    each = (2 * rounding(spread.log(), 4) + math.log(2) + errors.abs()).sum(1) - 2 * rounding(task.flow(errors), 8)
    weights = torch.tensor(task.keypoint_weights, dtype=torch.float64).expand(flags.shape)[flags]
    return (weights * rounding(each, 8)).mean().clamp(min=0)


def mask_errors(head: Opened, rows: Rows, positives: Positives, rounding: Rounding) -> Tensor:
    """`[P]` mean over all pixels of the cross-entropy inside the box, over the box's share of the image."""
    assert rows.masks is not None
    image, at, row, _ = positives
    truth = row_masks(rows.masks, rows.image.tolist())
    basis, size = head.leaves["prototypes"], (truth.shape[1], truth.shape[2])
    if basis.shape[2:] != size:
        basis = F.interpolate(basis, size, mode="bilinear", align_corners=False)
    own = head.leaves["coefficients"][image, :, at]
    logits = torch.einsum("pc,pchw->phw", own, basis[image])
    logits = rounding(logits, 8, torch.einsum("pc,pchw->phw", own.abs(), basis[image].abs()).detach())
    height, width = head.size
    boxes = pixel_boxes(rows.boxes, height, width)
    shares = boxes / np.array([width, height] * 2, np.float32)
    pixels = shares * np.array([size[1], size[0]] * 2, np.float32)
    left, top, right, bottom = torch.from_numpy(pixels)[row][..., None, None].unbind(1)
    down, across = torch.arange(size[0])[:, None], torch.arange(size[1])
    within = (across >= left) & (across < right) & (down >= top) & (down < bottom)
    area = torch.from_numpy((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / (height * width)).double()[row]
    error = torch.where(within, _entropy(logits, truth[row], rounding), 0.0).mean((1, 2))
    return torch.where(area > 0, error / torch.where(area > 0, area, 1.0), 0.0)


def classification(task: Task, head: Opened, rows: Rows, positives: Positives, rounding: Rounding) -> Tensor:
    """Cross-entropy summed over all anchors and classes."""
    scores = head.leaves["scores"]
    target = torch.zeros_like(scores)
    target[positives.image, rows.labels[positives.row], positives.anchor] = positives.score
    each = _entropy(scores, target, rounding)
    if task.class_weights is not None:
        each = each * torch.tensor(task.class_weights, dtype=torch.float64)[:, None]
    return each.sum()


def _entropy(logits: Tensor, target: Tensor, rounding: Rounding) -> Tensor:
    """Cross-entropy, as `softplus(x) - t x`, of which both may be large."""
    return rounding(entropy(logits, target), 8, (logits.detach().abs() * (1 + target) + 1))
