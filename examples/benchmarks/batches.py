"""The rows that all benchmarks draw from: batches as people have them, the same every time.

Rows are sorted by image, which the reference needs. Sides are fractions of the image, log-uniform.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compiled_loss import Targets, sources

BATCH, CLASSES, SIZE, STRIDES = 8, 80, 640, (8, 16, 32)
GRID_SIZES = tuple((SIZE // s, SIZE // s) for s in STRIDES)
MASK = SIZE // 4  # pixels a side of index maps and prototypes
KEYPOINTS = 17

# Shortest and longest side.
MIXED, COCO_LIKE, SMALL, TINY = (0.02, 0.95), (0.03, 0.6), (0.015, 0.06), (0.006, 0.025)
MOSAIC_IMAGES, MOSAIC_ROWS = 16, 450  # four pictures of COCO hold about 28 objects
DRAWN = 8  # pictures to choose each quarter from
SMALLEST = STRIDES[1]  # pixels: shorter sides are as long as this when candidates are sought


class Case(NamedTuple):
    """A batch of a table."""

    name: str
    targets: Targets
    images: int = BATCH


def rows_of(count: int, sides: tuple[float, float]) -> Targets:
    """Boxes of random images, each inside its image."""
    dice = torch.Generator().manual_seed(count)
    shortest, longest = sides
    size = shortest * (longest / shortest) ** torch.rand(count, 2, generator=dice)
    boxes = torch.cat([size / 2 + torch.rand(count, 2, generator=dice) * (1 - size), size], 1)
    image = torch.randint(0, BATCH, (count,), generator=dice).sort().values
    return Targets(image, torch.randint(0, CLASSES, (count,), generator=dice), boxes, is_sorted=True)


def small_and_wide(count: int) -> Targets:
    """Small boxes, and in each image one that fills it."""
    small = rows_of(count, SMALL)
    image, order = torch.cat([small.batch_idx, torch.arange(BATCH)]).sort(stable=True)
    labels = torch.cat([small.labels, torch.zeros(BATCH, dtype=torch.int64)])
    boxes = torch.cat([small.boxes, torch.tensor([[0.5, 0.5, 1.0, 1.0]]).expand(BATCH, 4)])
    return Targets(image, labels[order], boxes[order], is_sorted=True)


def mosaic(files: Sequence[Path]) -> Targets:
    """The labels of four pictures in the quarters of every image.

    Of a few pictures drawn at random, each quarter takes the one that brings the batch nearest to its number of rows.
    """
    pictures = [picture for file in files for picture in _pictures(json.loads(file.read_text()))]
    dice = torch.Generator().manual_seed(0)
    images, boxes, labels, count = [], [], [], 0
    for quarter in range(4 * MOSAIC_IMAGES):
        wanted = (MOSAIC_ROWS - count) / (4 * MOSAIC_IMAGES - quarter)
        drawn = [pictures[int(i)] for i in torch.randint(0, len(pictures), (DRAWN,), generator=dice)]
        chosen = min(drawn, key=lambda picture: abs(len(picture.labels) - wanted))
        corner = torch.tensor([quarter % 2, quarter // 2 % 2, 0, 0])
        boxes.append((chosen.boxes + corner) / 2)
        labels.append(chosen.labels % CLASSES)
        images.append(torch.full_like(chosen.labels, quarter // 4))
        count += len(chosen.labels)
    return Targets(torch.cat(images), torch.cat(labels), torch.cat(boxes), is_sorted=True)


def _pictures(labels: dict[str, Any]) -> list[Targets]:
    """The rows of every picture that has any."""
    ids = sorted({a["category_id"] for a in labels["annotations"]})
    of_picture: dict[Any, list[dict[str, Any]]] = {picture["id"]: [] for picture in labels["images"]}
    for annotation in labels["annotations"]:
        of_picture[annotation["image_id"]].append(annotation)
    made = [
        sources.from_coco([of_picture[p["id"]]], (p["height"], p["width"]), category_ids=ids) for p in labels["images"]
    ]
    return [rows for rows in made if len(rows.labels)]


def detection_cases(label_files: Sequence[Path] = ()) -> list[Case]:
    """The batches of the detection tables; the mosaic where there are label files."""
    cases = [
        Case("no objects", rows_of(0, MIXED)),
        Case("48 rows, mixed", rows_of(48, MIXED)),
        Case("480 rows, mixed", rows_of(480, MIXED)),
        Case("480 small + 1 image-wide each", small_and_wide(480)),
        Case("3200 tiny", rows_of(3200, TINY)),
        Case("50 rows, COCO-like", rows_of(50, COCO_LIKE)),
    ]
    if label_files:
        targets = mosaic(label_files)
        cases.append(Case(f"mosaic of 16 images, {len(targets.labels)} rows", targets, MOSAIC_IMAGES))
    return cases


def add_fields(targets: Targets, task: str) -> Targets:
    """What the rows of a task have besides boxes: angles, keypoints in the box, or ellipses as an index map."""
    count, dice = len(targets.labels), torch.Generator().manual_seed(1)
    if task == "obb":
        return targets._replace(angles=torch.rand(count, generator=dice) * torch.pi)
    if task == "pose":
        places = torch.rand(count, KEYPOINTS, 2, generator=dice) - 0.5
        flags = torch.randint(0, 3, (count, KEYPOINTS, 1), generator=dice)
        return targets._replace(
            keypoints=torch.cat([targets.boxes[:, None, :2] + places * targets.boxes[:, None, 2:], flags], 2)
        )
    return targets._replace(index_map=_ellipses(targets)) if task == "segment" else targets


def _ellipses(targets: Targets) -> Tensor:
    """`[B, MASK, MASK]`; smaller objects lie over larger ones."""
    index_map = torch.zeros(BATCH, MASK, MASK, dtype=torch.int32)
    axis = (torch.arange(MASK) + 0.5) / MASK
    for b in range(BATCH):
        boxes = targets.boxes[targets.batch_idx == b]
        for i in boxes[:, 2:].prod(1).argsort(descending=True).tolist():
            x, y, w, h = boxes[i].tolist()
            inside = ((axis - x) * 2 / w)[None] ** 2 + ((axis - y) * 2 / h)[:, None] ** 2 < 1
            index_map[b][inside] = i + 1
    return index_map


def candidates(targets: Targets) -> int:
    """T: the anchors inside the boxes, all rows together, which is what a loss has to look at."""
    centre, half = targets.boxes[:, :2].double() * SIZE, (targets.boxes[:, 2:].double() * SIZE).clamp(min=SMALLEST) / 2
    total = 0
    for (cells, _), stride in zip(GRID_SIZES, STRIDES, strict=True):
        axis = (torch.arange(cells).double() + 0.5) * stride
        inside = torch.searchsorted(axis, centre + half) - torch.searchsorted(axis, centre - half, right=True)
        total += int(inside.clamp(min=0).prod(1).sum())
    return total
