"""Hard random batches and predictions, the same for the same seed.

    batch = make_batch(7, layout="crowded", counts=(0, 12, 3), size=(96, 128), num_classes=3, num_keypoints=5)
    raw = make_predictions(8, batch, kind="mixed", num_classes=3, num_keypoints=5)

Every tensor is float32, rows are sorted by image, and coordinates are fractions of the image.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .losses import anchor_grid

LAYOUTS = ("spread", "tiny", "crowded", "on_grid", "slender", "mixed")
KINDS = ("random", "truth", "mixed")


class Batch(NamedTuple):
    """Target rows of `B = len(counts)` images."""

    size: tuple[int, int]  # height, width in pixels
    batch_size: int
    batch_idx: Tensor  # [N] int64
    labels: Tensor  # [N] int64
    boxes: Tensor  # [N, 4] cxcywh, or [N, 5] with an angle in radians
    keypoints: Tensor | None  # [N, K, 2 or 3]
    masks: Tensor | None = None  # [B, H, W] index maps, integers, or [N, H, W] floats
    class_map: Tensor | None = None  # [B, H, W] class of every pixel


# What a model's head calls each map of `Raw`.
KEYS = {
    "boxes": "boxes",
    "scores": "scores",
    "keypoints": "kpts",
    "angles": "angle",
    "keypoint_sigmas": "kpts_sigma",
    "coefficients": "mask_coefficient",
}


class Raw(NamedTuple):
    """Raw predictions of a head."""

    boxes: Tensor  # [B, 4*R, A]
    scores: Tensor  # [B, C, A]
    grid_sizes: tuple[tuple[int, int], ...]
    keypoints: Tensor | None  # [B, K*D, A]
    angles: Tensor | None = None  # [B, 1, A] radians
    keypoint_sigmas: Tensor | None = None  # [B, K*2, A]
    coefficients: Tensor | None = None  # [B, nm, A]
    prototypes: Tensor | None = None  # [B, nm, H, W]
    semantic: Tensor | None = None  # [B, C, h, w]


def make_batch(
    seed: int,
    *,
    layout: str = "mixed",
    counts: tuple[int, ...] = (3, 0, 17, 1),
    size: tuple[int, int] = (96, 128),
    num_classes: int = 3,
    num_keypoints: int = 0,
    keypoint_values: int = 3,
    oriented: bool = False,
) -> Batch:
    """`counts[b]` objects on image b.

    Layouts: `spread`, `tiny` (down to a pixel), `crowded` (all about one spot of the image), `on_grid` (sides on
    multiples of 4 pixels, so through anchors, give or take a rounding step), `slender` (down to 1:20) and `mixed` (each
    row one of these). `oriented` boxes are turned about their centres, half of them by a multiple of a quarter turn or
    one float32 step off it.
    """
    generator = torch.Generator().manual_seed(seed)
    batch_idx = torch.tensor([image for image, n in enumerate(counts) for _ in range(n)], dtype=torch.int64)
    spots = torch.rand(len(counts), 2, generator=generator) * 0.6 + 0.2
    boxes = torch.zeros(len(batch_idx), 4)
    for n, image in enumerate(batch_idx.tolist()):
        kind = layout
        if layout == "mixed":
            kind = LAYOUTS[int(torch.randint(5, (), generator=generator))]
        boxes[n] = _box(kind, spots[image], size, generator)
    labels = torch.randint(num_classes, (len(batch_idx),), generator=generator)
    keypoints = None
    if num_keypoints:
        spread = torch.rand(len(batch_idx), num_keypoints, 2, generator=generator) - 0.5
        flags = torch.randint(3, (len(batch_idx), num_keypoints, 1), generator=generator)
        labelled = torch.rand(len(batch_idx), 1, 1, generator=generator) > 0.2  # some rows have no keypoint at all
        flags = flags * labelled
        xy = boxes[:, None, :2] + spread * boxes[:, None, 2:4]
        if keypoint_values == 3:
            xy = xy * (flags > 0)
        keypoints = torch.cat([xy, flags], 2)[..., :keypoint_values].contiguous()
    if oriented:
        boxes = torch.cat([boxes, _angles(len(boxes), generator)], 1)
    return Batch(size, len(counts), batch_idx, labels, boxes, keypoints)


def make_predictions(
    seed: int,
    batch: Batch,
    *,
    kind: str = "mixed",
    num_classes: int = 3,
    reg_max: int = 16,
    num_keypoints: int = 0,
    keypoint_dims: int = 3,
    keypoint_sigmas: bool = False,
    strides: tuple[int, ...] = (8, 16, 32),
) -> Raw:
    """A head's raw output: `random`, near the `truth` of a row at each anchor inside it, or `mixed` by anchors.

    With `keypoint_sigmas` keypoints are offsets from the anchor, else half the offsets from half a cell before it.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = batch.size
    grid_sizes = tuple((height // s, width // s) for s in strides)
    points, steps = (torch.from_numpy(x) for x in anchor_grid(grid_sizes, strides))
    shape = (batch.batch_size, len(points))

    def normal(*channels: int) -> Tensor:
        return torch.randn(*shape, *channels, generator=generator)

    logits = normal(4, reg_max) * 2 if reg_max > 1 else normal(4, 1).abs() * 3
    scores = normal(num_classes) * 2 - 2
    keypoints = normal(num_keypoints, keypoint_dims)
    angles = normal(1) if batch.boxes.shape[1] == 5 else None
    spreads = normal(num_keypoints * 2) if keypoint_sigmas else None
    pixels = torch.tensor([width, height], dtype=torch.float32)
    share = {"random": 0.0, "truth": 1.0, "mixed": 0.5}[kind]
    for n in torch.randperm(len(batch.batch_idx), generator=generator).tolist():
        centre, half = batch.boxes[n, :2] * pixels, batch.boxes[n, 2:4] * pixels / 2
        away = points * steps[:, None] - centre
        if batch.boxes.shape[1] == 5:
            cos, sin = batch.boxes[n, 4].cos(), batch.boxes[n, 4].sin()
            away = torch.stack([away[:, 0] * cos + away[:, 1] * sin, away[:, 1] * cos - away[:, 0] * sin], 1)
        near = (away.abs() < half.clamp(min=steps.max() / 4)).all(1)
        near &= torch.rand(len(points), generator=generator) < share
        at, image, count = near.nonzero()[:, 0], int(batch.batch_idx[n]), int(near.sum())
        sides = torch.cat([away[at] + half, half - away[at]], 1) / steps[at, None]
        sides = sides + torch.randn(count, 4, generator=generator) * 0.3
        if reg_max > 1:
            bins = torch.arange(reg_max)
            logits[image, at] = -((bins - sides[..., None].clamp(0, reg_max - 1)) ** 2) * 2
        else:
            logits[image, at] = sides[..., None]
        scores[image, at, int(batch.labels[n])] = torch.randn(count, generator=generator) + 1
        if num_keypoints and batch.keypoints is not None:
            grid_xy = batch.keypoints[n, None, :, :2] * pixels / steps[at, None, None]
            noise = torch.randn(count, num_keypoints, 2, generator=generator) * 0.2
            offset = grid_xy - points[at, None]
            keypoints[image, at, :, :2] = (offset if keypoint_sigmas else (offset + 0.5) / 2) + noise
        if angles is not None:
            angles[image, at] = batch.boxes[n, 4] + torch.randn(count, 1, generator=generator) * 0.2
    return Raw(
        logits.reshape(*shape, -1).transpose(1, 2).contiguous(),
        scores.transpose(1, 2).contiguous(),
        grid_sizes,
        keypoints.reshape(*shape, -1).transpose(1, 2).contiguous() if num_keypoints else None,
        None if angles is None else angles.transpose(1, 2).contiguous(),
        None if spreads is None else spreads.transpose(1, 2).contiguous(),
    )


def _box(kind: str, spot: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """One normalised cxcywh box that lies within the image."""
    draw = torch.rand(6, generator=generator)
    side = 0.08 + 0.8 * draw[2:4] ** 2
    if kind == "tiny":
        side = (1 + 11 * draw[2:4]) / torch.tensor([size[1], size[0]])
    elif kind == "crowded":
        side = 0.25 + 0.2 * draw[2:4]
    elif kind == "slender":
        long, thin = 0.4 + 0.5 * draw[2], 0.03 + 0.1 * draw[3]
        side = torch.stack([long, thin] if draw[4] < 0.5 else [thin, long])
    centre = side / 2 + draw[:2] * (1 - side)
    if kind == "crowded":
        centre = (spot + 0.05 * (draw[:2] - 0.5)).clamp(min=side / 2, max=1 - side / 2)
    if kind == "on_grid":
        cells = torch.tensor([size[1], size[0]]) / 4
        low = ((centre - side / 2) * cells).round()
        high = torch.maximum(((centre + side / 2) * cells).round(), low + 1)
        centre, side = (low + high) / 2 / cells, (high - low) / cells
        # The same box gets the same rounding: rows are then exact ties or clearly apart.
        return torch.nextafter(torch.cat([centre, side]), torch.cat([low, high]) % 2)
    return torch.cat([centre, side])


def _angles(count: int, generator: torch.Generator) -> Tensor:
    """`[count, 1]` radians from -pi to pi."""
    any_angle = (torch.rand(count, generator=generator) * 2 - 1) * math.pi
    quarters = torch.randint(-4, 5, (count,), generator=generator) * (math.pi / 4)
    step = torch.randint(-1, 2, (count,), generator=generator)
    quarters = torch.where(step == 0, quarters, torch.nextafter(quarters, step * 10.0))
    return torch.where(torch.rand(count, generator=generator) < 0.5, any_angle, quarters)[:, None]
