"""Batches for the live comparison: random, from annotation files, and with a model's own output."""

import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tests.golden.oracle import Head
from tests.reference.batches import KEYS, KINDS, LAYOUTS, Batch, Raw, make_batch, make_predictions
from tests.reference.end_to_end import BRANCHES, Pair
from tests.reference.mask_batches import add_mask_predictions, add_masks, with_masks
from tests.reference.masks import nearest

COUNTS = (0, 0, 1, 2, 5, 12, 30, 80, 300)
Sizes = tuple[tuple[int, int], ...]
SIZES: Sizes = ((64, 64), (96, 128), (160, 160), (160, 224), (320, 320))


def random_batch(seed: int, head: Head, sizes: Sizes = SIZES) -> tuple[Batch, Raw | Pair]:
    """Everything about the batch follows from the seed."""
    draw = random.Random(seed)
    size, images = draw.choice(sizes), draw.choice((1, 2, 4))
    counts = tuple(draw.choice(COUNTS) for _ in range(images))
    if seed % 20 == 0 and sizes == SIZES:
        size, counts = (640, 640), counts[:2]
    keypoints = head.kpt_shape[0] if head.kpt_shape else 0
    batch = make_batch(
        seed,
        layout=draw.choice(LAYOUTS),
        counts=counts,
        size=size,
        num_classes=head.num_classes,
        num_keypoints=keypoints,
        keypoint_values=draw.choice((2, 3)),
        oriented=head.oriented,
    )
    return predictions_for(seed, batch, head)


def labelled_batch(seed: int, head: Head, labels: dict, sizes: Sizes = SIZES) -> tuple[Batch, Raw | Pair]:
    """Four pictures' rows of a COCO annotation file, in pixels of its pictures, scaled to a random size."""
    draw = random.Random(seed)
    size = (640, 640) if seed % 20 == 0 and sizes == SIZES else draw.choice(sizes)
    classes = {category["id"]: i for i, category in enumerate(labels["categories"])}
    count = head.kpt_shape[0] if head.kpt_shape else 0
    rows, masks = [], []
    for image, picture in enumerate(draw.sample(labels["images"], 4)):
        width, height = picture["width"], picture["height"]
        for a in (a for a in labels["annotations"] if a["image_id"] == picture["id"]):
            x, y, w, h = a["bbox"]
            x, y, w, h, *angle = a["rbox"] if head.oriented else (x + w / 2, y + h / 2, w, h)
            box = [x / width, y / height, w / width, h / height, *angle]
            flat = a.get("keypoints") or [0] * 51
            points = [[flat[i] / width, flat[i + 1] / height, flat[i + 2]] for i in range(0, len(flat), 3)]
            rows.append((image, classes[a["category_id"]] % head.num_classes, box, points[:count]))
            masks.append(_decoded(a["rle"]) if head.masks and "rle" in a else None)
    batch = Batch(
        size,
        4,
        torch.tensor([row[0] for row in rows], dtype=torch.int64),
        torch.tensor([row[1] for row in rows], dtype=torch.int64),
        torch.tensor([row[2] for row in rows]).reshape(-1, 5 if head.oriented else 4),
        torch.tensor([row[3] for row in rows]).reshape(-1, count, 3) if count else None,
    )
    if head.masks and rows and all(mask is not None for mask in masks):
        shape = (size[0] // head.mask_scale, size[1] // head.mask_scale)
        stack = torch.stack([nearest(mask, shape) for mask in masks if mask is not None])
        batch = with_masks(seed, batch, stack, num_classes=head.num_classes, stacked=head.stacked)
    return predictions_for(seed, batch, head)


def _decoded(rle: dict[str, Any]) -> Tensor:
    """`[H, W]` mask of run lengths down the columns, background first."""
    flat, at = torch.zeros(rle["size"][0] * rle["size"][1]), 0
    for i, count in enumerate(rle["counts"]):
        flat[at : at + count] = i % 2
        at += count
    return flat.view(rle["size"][1], rle["size"][0]).T


def draw_batches(
    first: int, number: int, head: Head, files: list[dict], sizes: Sizes = SIZES
) -> Iterator[tuple[str, Batch, Raw | Pair]]:
    """So many random batches, and as many of each file's rows."""
    for seed in range(first, first + number * (1 + len(files))):
        source = seed % (1 + len(files))
        drawn = labelled_batch(seed, head, files[source - 1], sizes) if source else random_batch(seed, head, sizes)
        yield f"seed {seed}", *drawn


def predictions_for(seed: int, batch: Batch, head: Head) -> tuple[Batch, Raw | Pair]:
    """The batch, with masks where the head has them, and what the head says about it."""
    if head.masks and batch.masks is None:
        options = {"num_classes": head.num_classes, "scale": head.mask_scale, "stacked": head.stacked}
        batch = add_masks(seed, batch, stray=seed % 3 == 0, **options)
    if head.end_to_end:
        return batch, Pair(_maps(seed + 1_000_000, batch, head), _maps(seed + 2_000_000, batch, head))
    return batch, _maps(seed + 1_000_000, batch, head)


def _maps(seed: int, batch: Batch, head: Head) -> Raw:
    keypoints, dims = head.kpt_shape or (0, 3)
    raw = make_predictions(
        seed,
        batch,
        kind=random.Random(seed - 1_000_000).choice(KINDS),
        num_classes=head.num_classes,
        reg_max=head.reg_max,
        num_keypoints=keypoints,
        keypoint_dims=dims,
        keypoint_sigmas=bool(keypoints) and head.version26,
    )
    if head.masks:
        return add_mask_predictions(seed, batch, raw, num_classes=head.num_classes, semantic=head.version26)
    return raw


def forward_batches(model: Any, head: Head) -> Iterator[tuple[str, Batch, Raw | Pair]]:
    """The model's own output for random images, in training and in evaluation."""
    count, size = head.kpt_shape[0] if head.kpt_shape else 0, (96, 128)
    batch = make_batch(1, size=size, num_classes=head.num_classes, num_keypoints=count, oriented=head.oriented)
    if head.masks:
        batch = add_masks(1, batch, num_classes=head.num_classes, scale=head.mask_scale, stacked=head.stacked)
    images = torch.rand(batch.batch_size, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        outputs = {"training": model.train()(images)}
        if not head.version26:  # in evaluation those lack the maps that only training needs
            outputs["evaluation"] = model.eval()(images)[1]
    for mode, preds in outputs.items():
        maps = Pair(*(_raw(preds[name]) for name in BRANCHES)) if head.end_to_end else _raw(preds)
        yield f"forward in {mode}", batch, maps


def _raw(preds: dict[str, Any]) -> Raw:
    maps = {name: preds[key] for name, key in KEYS.items() if key in preds}
    proto = preds.get("proto")
    if proto is not None:
        maps |= dict(zip(("prototypes", "semantic"), proto if isinstance(proto, tuple) else (proto,), strict=False))
    grid_sizes = tuple((x.shape[2], x.shape[3]) for x in preds["feats"])
    return Raw(**{"keypoints": None, "grid_sizes": grid_sizes, **maps})
