"""Candidates, overlaps and the task-aligned assignment as whole `[N, A]` tables in float64, for many small batches.

The same definitions as the loops beside, without a loop over rows. `Rounding` stands for float32 in them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .assigner import pixel_boxes
from .geometry import ciou
from .masks import nearest, row_masks
from .parts import GAINS, Opened
from .pose26 import FIGURE
from .rotated import counted, decode, pixel_rboxes, probiou

UNIT = 2.0**-24  # a rounding of float32, relative
LEAST = 2.0**-126  # below it float32 has fewer digits, or none
PAGE = 64


@dataclass(frozen=True)
class Task:
    """What a loss of one branch is about."""

    kind: str  # detect, pose, residual, obb, segment
    strides: tuple[int, ...]
    top_k: int = 10
    keep: int | None = None
    alpha: float = 0.5
    beta: float = 6.0
    gains: dict[str, float] = field(default_factory=lambda: GAINS)
    class_weights: tuple[float, ...] | None = None
    sigmas: tuple[float, ...] = ()
    keypoint_dims: int = 3
    keypoint_weights: tuple[float, ...] = ()
    flow: Callable[[Tensor], Tensor] | None = None
    mask_overlap: bool = False


class Rows(NamedTuple):
    """Target rows, none of them padding."""

    image: Tensor  # [N]
    labels: Tensor  # [N]
    boxes: Tensor  # [N, 4 or 5] normalised
    keypoints: Tensor | None = None  # [N, K, 2 or 3]
    masks: Tensor | None = None  # [B, H, W] integers or [N, H, W] floats
    class_map: Tensor | None = None  # [B, H, W]


class Rounding:
    """Disturbs numbers at random by so many roundings of float32; without a seed it leaves them as they are."""

    def __init__(self, seed: int | None = None) -> None:
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)

    def __call__(self, x: Tensor, roundings: float, size: Tensor | float | None = None) -> Tensor:
        """`size` is the largest number on the way to `x`; None: `x` itself."""
        if self.generator is None:
            return x
        draw = torch.rand(x.shape, generator=self.generator, dtype=torch.float64) * 2 - 1
        return x + draw * roundings * UNIT * (x.detach().abs() if size is None else size)


class Matching(NamedTuple):
    """Of every row and anchor."""

    inside: np.ndarray  # [N, A] bool
    overlap: np.ndarray  # [N, A] 0 or more
    alignment: np.ndarray  # [N, A]
    overflow: int  # rows with more candidates than there are pages for
    seen: Tensor  # [B, A, ...] what overlaps are computed from


def match(
    task: Task, head: Opened, rows: Rows, *, pages: int | None = None, rounding: Rounding | None = None
) -> Matching:
    """Which anchors are candidates of a row, and how well each is aligned."""
    rounding = Rounding() if rounding is None else rounding
    small = task.strides[:2][-1]
    step = head.step[:, None]
    distances = rounding(head.distances, 4 + head.logits.shape[-1])
    around = (head.grid.abs().repeat(1, 2) + distances.abs()) * step
    if task.kind == "obb":
        targets = pixel_rboxes(rows.boxes, *head.size)
        inside = inside_turned(head.points, targets, small) & counted(targets)[:, None]
        angles = head.leaves["angles"][:, 0]
        boxes = decode(head.grid, distances, rounding(angles, 2, 1 + angles.abs())).detach().clone()
        boxes[..., :4] = rounding(boxes[..., :4] * step, 4, around.detach())
        overlap = probiou(torch.from_numpy(targets).double()[:, None], boxes[rows.image])
    else:
        targets = pixel_boxes(rows.boxes, *head.size)
        inside = inside_upright(head.points, targets, small)
        boxes = torch.cat([head.grid - distances[..., :2], head.grid + distances[..., 2:]], -1).detach() * step
        boxes = rounding(boxes, 4, around.detach())
        overlap = ciou(boxes[rows.image], torch.from_numpy(targets).double()[:, None])
    if task.kind == "residual":
        inside = fitting(inside, head.step.numpy().astype(np.float32), targets)
        similarity, visible = similarities(task, head, rows, targets, rounding)
        places = keypoint_places(task, head, Rounding())[1].detach() * head.step[:, None, None]
        boxes = torch.cat([boxes, places.flatten(2)], 2)
        overlap = torch.where(visible[:, None], similarity, overlap)
    inside, overflow = within_pages(inside, pages)
    overlap = rounding(overlap, 8, 1 + overlap.abs()).nan_to_num(nan=0.0).clamp(min=0)
    score = head.leaves["scores"].detach()[rows.image, rows.labels].sigmoid()  # [N, A]
    score = rounding(rounding(score, 8), 1 / UNIT, LEAST).clamp(min=0)
    if task.mask_overlap:
        aligned = align(score, overlap, task)
        # What float32 cannot tell from nothing comes in order of anchors.
        aligned = np.where(inside, np.where(aligned < LEAST, 0, aligned), -1)
        overlap = overlap / 2 + mask_overlaps(task, head, rows, boxes, aligned, rounding) / 2
    return Matching(inside, overlap.numpy(), np.where(inside, align(score, overlap, task), 0), overflow, boxes)


def align(score: Tensor, overlap: Tensor, task: Task) -> np.ndarray:
    """`score^alpha overlap^beta`, alike for like arguments."""
    root = score.sqrt() if task.alpha == 0.5 else score**task.alpha
    square = overlap * overlap
    power = square * square * square if task.beta == 6 else overlap**task.beta
    return np.where(overlap.numpy() > 0, (root * power).numpy(), 0)


def inside_upright(points: np.ndarray, boxes: np.ndarray, small: float) -> np.ndarray:
    """`[N, A]` anchors strictly inside; in float32, over centre and half sides, as in `assigner.candidates`."""
    centre, side = (boxes[:, :2] + boxes[:, 2:]) / np.float32(2), boxes[:, 2:] - boxes[:, :2]
    half = np.where(side < np.float32(small), np.float32(small), side) / np.float32(2)
    low, high = (centre - half)[:, None], (centre + half)[:, None]
    return np.all((points - low > np.float32(1e-9)) & (high - points > np.float32(1e-9)), axis=2)


def inside_turned(points: np.ndarray, boxes: np.ndarray, small: float) -> np.ndarray:
    """`[N, A]` anchors inside or on the sides; in float32, from a corner, as in `rotated.candidates`."""
    x, y, width, height, angle = torch.from_numpy(boxes).T
    width, height, cos, sin = width.clamp(min=small), height.clamp(min=small), angle.cos(), angle.sin()
    centre = torch.stack([x, y], 1)
    along, across = (
        torch.stack(v, 1) for v in ((width / 2 * cos, width / 2 * sin), (-height / 2 * sin, height / 2 * cos))
    )
    corner = centre + along + across
    inside = torch.ones(len(boxes), len(points), dtype=torch.bool)
    for other in (centre + along - across, centre - along + across):
        edge = (other - corner)[:, None]
        projection = ((torch.from_numpy(points) - corner[:, None]) * edge).sum(2)
        inside &= (projection >= 0) & (projection <= (edge * edge).sum(2))
    return inside.numpy()


def fitting(inside: np.ndarray, step: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Candidates on levels whose stride fits the row, all where these leave none: `assigner.level_gate`."""
    size = boxes[:, 2:] - boxes[:, :2]
    scale = np.sqrt(size[:, 0] * size[:, 1])[:, None]
    fits = (step == step.min()) | (2 * step <= scale)
    fits &= (step == step.max()) | (scale <= 12 * step)
    gated = inside & fits
    return np.where(gated.any(1)[:, None], gated, inside)


def within_pages(inside: np.ndarray, pages: int | None) -> tuple[np.ndarray, int]:
    """The first candidates of the rows, for which there are pages of 64 each, and how many rows lack some."""
    if pages is None:
        return inside, 0
    needed = -(-inside.sum(1) // PAGE)
    ends = needed.cumsum()
    room = np.clip(pages - (ends - needed), 0, needed) * PAGE
    return inside & (inside.cumsum(1) <= room[:, None]), int(((ends > pages) & (needed > 0)).sum())


def keypoint_places(task: Task, head: Opened, rounding: Rounding) -> tuple[Tensor, Tensor]:
    """`[B, A, K, D]` raw keypoints and `[B, A, K, 2]` where they are, grid units."""
    raw = head.leaves["keypoints"].unflatten(1, (-1, task.keypoint_dims)).permute(0, 3, 1, 2)
    grid = head.grid[:, None]
    places = raw[..., :2] + grid if task.kind == "residual" else 2 * raw[..., :2] + grid - 0.5
    return raw, rounding(places, 4, (2 * raw[..., :2].detach().abs() + grid))


def similarities(
    task: Task, head: Opened, rows: Rows, targets: np.ndarray, rounding: Rounding
) -> tuple[Tensor, Tensor]:
    """`[N, A]` similarity of keypoints, and `[N]` whether a row has a visible one."""
    assert rows.keypoints is not None
    _, places = keypoint_places(task, head, rounding)
    pixels = places.detach() * head.step[:, None, None]
    flags = rows.keypoints[..., 2] > 0 if rows.keypoints.shape[2] == 3 else torch.ones(rows.keypoints.shape[:2]).bool()
    true = rows.keypoints[..., :2].double() * torch.tensor(head.size[::-1], dtype=torch.float64)
    area = FIGURE * torch.from_numpy((targets[:, 2] - targets[:, 0]) * (targets[:, 3] - targets[:, 1])).double()
    squared = ((pixels[rows.image] - rounding(true, 2)[:, None]) ** 2).sum(3)  # [N, A, K]
    spread = (2 * torch.tensor(task.sigmas, dtype=torch.float64)) ** 2
    error = rounding(squared / (spread * (area[:, None, None] + 1e-9) * 2), 12)
    each = torch.where(flags[:, None], torch.exp(-error), 0.0)
    return each.sum(2) / flags.sum(1)[:, None].clamp(min=1), flags.any(1)


def mask_overlaps(
    task: Task, head: Opened, rows: Rows, boxes: Tensor, aligned: np.ndarray, rounding: Rounding
) -> Tensor:
    """`[N, A]` overlap of masks, of each row's `3 top_k` best-aligned candidates alone."""
    assert rows.masks is not None
    prototypes, coefficients = head.leaves["prototypes"].detach(), head.leaves["coefficients"].detach()
    height, width = prototypes.shape[2:]
    true = nearest(row_masks(rows.masks, rows.image.tolist()), (height, width)) > 0.5  # [N, h, w]
    logits = torch.einsum("bca,bchw->bahw", coefficients, prototypes)
    logits = rounding(logits, 4, torch.einsum("bca,bchw->bahw", coefficients.abs(), prototypes.abs()))
    scale = torch.tensor([width / head.size[1], height / head.size[0]] * 2, dtype=torch.float64)
    left, top, right, bottom = rounding(boxes * scale, 4)[..., None, None].unbind(2)  # [B, A, 1, 1]
    row, column = torch.arange(height)[:, None], torch.arange(width)
    predicted = (logits > 0) & (column >= left) & (column < right) & (row >= top) & (row < bottom)
    predicted, true = predicted[rows.image].flatten(2).double(), true.flatten(1).double()  # [N, A, p], [N, p]
    joint = torch.einsum("nap,np->na", predicted, true)
    union = predicted.sum(2) + true.sum(1)[:, None] - joint
    order = np.argsort(-aligned, axis=1, kind="stable")[:, : 3 * task.top_k]
    best = np.zeros(aligned.shape, bool)
    np.put_along_axis(best, order, np.take_along_axis(aligned, order, 1) >= 0, 1)
    return torch.where(torch.from_numpy(best), joint / union.clamp(min=1), 0.0)


def assign(task: Task, matching: Matching, image: np.ndarray, batch: int) -> np.ndarray:
    """`[B, A]` row that each anchor is given to, or -1: ties go to the lowest anchor, and to the lowest row."""
    alignment = coarse(matching.alignment)
    contest = coarse(np.where(matching.inside, matching.overlap, 0))
    order = np.argsort(-alignment, axis=1, kind="stable")[:, : task.top_k]
    picked = np.zeros(alignment.shape, bool)
    np.put_along_axis(picked, order, np.take_along_axis(alignment, order, 1) > 0, 1)
    owner = np.full((batch, alignment.shape[1]), -1)
    for b in range(batch):
        rows = np.flatnonzero(image == b)
        if len(rows):
            claims = picked[rows].sum(0)
            winner = np.where(claims == 1, picked[rows].argmax(0), contest[rows].argmax(0))
            owner[b] = np.where(claims > 0, rows[winner], -1)
    if task.keep is not None and task.keep < task.top_k:
        for n, b in enumerate(image):
            held = np.flatnonzero(owner[b] == n)
            best = np.argsort(-alignment[n, held], kind="stable")[task.keep :]
            owner[b, held[best]] = -1
    return owner


def coarse(x: np.ndarray) -> np.ndarray:
    """Rounded to 40 bits, so that what is equal but for the last bits of float64 is equal; 0 where float32 is."""
    share, exponent = np.frexp(x)
    return np.where(x < 2.0**-150, 0, np.ldexp(np.round(share * 2.0**40), exponent - 40))
