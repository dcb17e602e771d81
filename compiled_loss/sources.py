"""Targets from the label formats in use: YOLO-style batches, torchvision-style dicts, COCO annotations.

Everything here runs on the host and reads values. The result has float32 boxes and keypoints and int64 `labels`
and `batch_idx`; it has passed `Targets.validate`; and `is_sorted` is set where the rows are in image order.

Letters: B images, N rows of the batch, n rows of one image, K keypoints.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from compiled_loss.checks import check_shape, require
from compiled_loss.reading import ImageSizes, boxes_of, field, sizes_of, tensor_of, whole_column, whole_numbers
from compiled_loss.segmentations import draw
from compiled_loss.targets import Targets, out_of_order


def from_yolo(batch: Mapping[str, Any], *, index_maps: bool = True) -> Targets:
    """Targets from a batch dict as YOLO trainers collate it: everything flat and normalised.

    Args:
        batch: `batch_idx` `[N]` or `[N, 1]`, integer or whole floats; `cls` `[N]` or `[N, 1]`, class ids, likewise;
            `bboxes` `[N, 4]`, (cx, cy, w, h) as fractions of the image, or `[N, 5]` with an angle in radians;
            optionally `keypoints` `[N, K, 2 or 3]`, x and y as fractions; `masks`, as `index_maps` says, and with them
            `sem_masks` `[B, H, W]`, the class of every pixel. Other keys are ignored.
        index_maps: `masks` are `[B, H, W]`, whole numbers, i + 1 on the image's i-th row and 0 elsewhere (a trainer's
            `overlap_mask=True`). Else they are `[N, H, W]`, one for each row.

    Returns:
        Targets with the rows in the order given.

    Raises:
        ValueError: for a missing key, a `batch_idx` or `cls` that is not whole, or what `Targets.validate` finds.

    Example:
        >>> import torch
        >>> batch = {"batch_idx": torch.tensor([0.0, 1.0]), "cls": torch.tensor([[3.0], [5.0]]),
        ...          "bboxes": torch.full((2, 4), 0.5)}
        >>> from_yolo(batch).labels
        tensor([3, 5])
    """
    batch_idx, labels, boxes = (field(batch, key, "batch") for key in ("batch_idx", "cls", "bboxes"))
    keypoints = batch.get("keypoints")
    targets = _targets(
        whole_column(batch_idx, "batch['batch_idx']"),
        whole_column(labels, "batch['cls']"),
        boxes_of(boxes, "batch['bboxes']", 4, 5),
        None if keypoints is None else tensor_of(keypoints, "batch['keypoints']"),
    )
    if batch.get("masks") is None:
        return targets
    masks, class_map = tensor_of(batch["masks"], "batch['masks']"), batch.get("sem_masks")
    return targets._replace(
        **{"index_map": whole_numbers(masks, "batch['masks']")} if index_maps else {"masks": masks},
        class_map=None
        if class_map is None
        else whole_numbers(tensor_of(class_map, "batch['sem_masks']"), "batch['sem_masks']"),
    ).validate()


def from_torchvision(
    targets: Sequence[Mapping[str, Any]],
    image_sizes: ImageSizes,
    *,
    num_keypoints: int | None = None,
) -> Targets:
    """Targets from a list of dicts, one an image, as torchvision's detection models take them.

    Labels are used as they are. Where class 0 is torchvision's background, subtract 1 from the labels first.

    Args:
        targets: per image `boxes` `[n, 4]`, (x1, y1, x2, y2) in pixels; `labels` `[n]`; optionally `keypoints`
            `[n, K, 3]`, (x, y, flag) in pixels. Images without keypoints, where others have some, get zeros, flag 0.
        image_sizes: (height, width) in pixels of every image, or a list with one for each.
        num_keypoints: K, so that a batch in which no image has keypoints still gets `[N, K, 3]` zeros; None takes K
            from the first image that has keypoints.

    Returns:
        Targets with the rows in image order.

    Raises:
        ValueError: for no images, a missing key, shapes that do not fit each other, or what `Targets.validate` finds.

    Example:
        >>> import torch
        >>> image = {"boxes": torch.tensor([[0.0, 0.0, 32.0, 16.0]]), "labels": torch.tensor([1])}
        >>> from_torchvision([image], (64, 64)).boxes
        tensor([[0.2500, 0.1250, 0.5000, 0.2500]])
    """
    tables = []
    for i, target in enumerate(targets):
        name = f"targets[{i}]"
        boxes = boxes_of(field(target, "boxes", name), f"{name}['boxes']", 4).double()
        labels = whole_column(field(target, "labels", name), f"{name}['labels']")
        keypoints = target.get("keypoints")
        if keypoints is not None:
            keypoints = tensor_of(keypoints, f"{name}['keypoints']")
            check_shape(f"{name}['keypoints']", keypoints, ["n", "K", 3])
        cxcywh = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)
        tables.append((name, labels, cxcywh, keypoints))
    return _from_pixels("targets", tables, image_sizes, num_keypoints)


def from_coco(
    annotations: Sequence[Sequence[Mapping[str, Any]]],
    image_sizes: ImageSizes,
    *,
    category_ids: Sequence[int] | None = None,
    num_keypoints: int | None = None,
    keep_crowd: bool = False,
    oriented: bool = False,
    mask_size: tuple[int, int] | None = None,
) -> Targets:
    """Targets from COCO annotations, one list of annotation dicts per image.

    Crowd regions (`iscrowd` 1) outline groups, not objects, and are skipped unless `keep_crowd` is set.

    Args:
        annotations: per image a list, empty where nothing is labelled, of dicts with `bbox` (x, y, width, height) in
            pixels; `category_id`; optionally `keypoints`, flat `x, y, flag` times K in pixels, and `iscrowd`.
            Annotations without keypoints, where others have some, get zeros with flag 0.
        image_sizes: (height, width) in pixels of every image, or a list with one for each.
        category_ids: the data set's category ids in the order of the classes: the first is class 0. None: the ids
            are classes already, counted from 0.
        num_keypoints: K, so that a batch in which nothing has keypoints still gets `[N, K, 3]` zeros; None takes K
            from the first annotation that has keypoints.
        keep_crowd: keep crowd regions as ordinary objects.
        oriented: take oriented boxes, `rbox` (cx, cy, width, height, angle) in pixels and radians, in place of `bbox`.
        mask_size: (H, W) of `masks`, drawn from each annotation's `segmentation`: polygons or run lengths in pixels of
            the image; without one a mask is empty. None draws none. Needs `pycocotools`.

    Returns:
        Targets with the rows in image order.

    Raises:
        ValueError: for no images, a missing key, an unknown category id, lengths that do not fit each other, or
            what `Targets.validate` finds.
        ImportError: for a `mask_size` without `pycocotools`.

    Example:
        >>> dog = {"bbox": [0, 0, 32, 16], "category_id": 18}
        >>> t = from_coco([[], [dog]], (64, 64), category_ids=[1, 18])
        >>> t.batch_idx, t.labels, t.boxes
        (tensor([1]), tensor([1]), tensor([[0.2500, 0.1250, 0.5000, 0.2500]]))
    """
    classes = None if category_ids is None else {category: i for i, category in enumerate(category_ids)}
    require(len(classes or ()) == len(category_ids or ()), "category_ids", "every id once", category_ids)
    tables, masks, sizes = [], [], sizes_of(image_sizes, len(annotations))
    pair = mask_size is None or (isinstance(mask_size, Sequence) and len(mask_size) == 2)
    require(pair, "mask_size", "(H, W), or None", mask_size)
    for i, image in enumerate(annotations):
        several = isinstance(image, Sequence) and all(isinstance(a, Mapping) for a in image)
        require(several, f"annotations[{i}]", "a list of the image's annotations, each a dict", type(image).__name__)
        kept = [(f"annotations[{i}][{j}]", a) for j, a in enumerate(image) if keep_crowd or not a.get("iscrowd", 0)]
        labels = [_class_of(field(a, "category_id", name), classes, name) for name, a in kept]
        key, form = ("rbox", "(cx, cy, width, height, angle)") if oriented else ("bbox", "(x, y, width, height)")
        size = 5 if oriented else 4
        rows = [tensor_of(field(a, key, name), f"{name}[{key!r}]").double() for name, a in kept]
        for (name, a), row in zip(kept, rows, strict=True):
            require(row.shape == (size,), f"{name}[{key!r}]", form, a[key])
        boxes = torch.stack(rows) if rows else torch.zeros(0, size, dtype=torch.float64)
        if not oriented:
            boxes = torch.cat([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], dim=1)
        keypoints = _coco_keypoints(kept, num_keypoints)
        tables.append((f"annotations[{i}]", torch.tensor(labels, dtype=torch.int64), boxes, keypoints))
        if mask_size is not None:
            outlines = [(f"{name}['segmentation']", a.get("segmentation")) for name, a in kept]
            masks += [draw(outline, sizes[i], mask_size, name) for name, outline in outlines]
    targets = _from_pixels("annotations", tables, image_sizes, num_keypoints)
    if mask_size is None:
        return targets
    none = torch.zeros(0, *mask_size, dtype=torch.uint8)
    return targets._replace(masks=torch.stack(masks) if masks else none).validate()


def _class_of(category: Any, classes: dict[int, int] | None, name: str) -> int:
    if classes is None:
        require(hasattr(category, "__index__"), f"{name}['category_id']", "a whole number", repr(category))
        return operator.index(category)
    require(category in classes, f"{name}['category_id']", f"one of the category_ids {list(classes)}", repr(category))
    return classes[category]


def _coco_keypoints(kept: list[tuple[str, Mapping[str, Any]]], num_keypoints: int | None) -> Tensor | None:
    """`[n, K, 3]` pixels, zeros for annotations without keypoints; None when no annotation has any."""
    flat = [(name, () if a.get("keypoints") is None else a["keypoints"]) for name, a in kept]
    length = max((len(values) for _, values in flat), default=0) if num_keypoints is None else 3 * num_keypoints
    if length == 0:
        return None
    for name, values in flat:
        fits = len(values) in (0, length) and length % 3 == 0
        require(fits, f"{name}['keypoints']", f"{length // 3} times x, y, flag", f"{len(values)} numbers")
    zeros = torch.zeros(length, dtype=torch.float64)
    rows = [tensor_of(x, f"{name}['keypoints']").double() if len(x) else zeros for name, x in flat]
    return torch.stack(rows).reshape(len(rows), length // 3, 3) if rows else zeros.reshape(1, -1, 3)[:0]


def _from_pixels(
    argument: str,
    tables: Sequence[
        tuple[str, Tensor, Tensor, Tensor | None]
    ],  # per image: name, labels, cxcywh (with an angle), keypoints
    image_sizes: ImageSizes,
    num_keypoints: int | None,
) -> Targets:
    """Normalise in float64, so that float32 rounds once, and join the images."""
    require(len(tables) > 0, argument, "at least one image", "none")
    sizes = sizes_of(image_sizes, len(tables))
    count = num_keypoints or next((k.shape[1] for *_, k in tables if k is not None), None)
    batch_idx, labels, boxes, keypoints = [], [], [], []
    for i, ((name, label, box, points), (height, width)) in enumerate(zip(tables, sizes, strict=True)):
        require(len(label) == len(box), name, f"{len(box)} labels as boxes", len(label))
        batch_idx.append(torch.full_like(label, i))
        labels.append(label)
        boxes.append(box / box.new_tensor([width, height, width, height, 1])[: box.shape[1]])
        if count is None:
            continue
        if points is None:
            points = box.new_zeros(len(box), count, 3)
        check_shape(f"{name}['keypoints']", points, [len(box), count, 3])
        keypoints.append(points.double() / box.new_tensor([width, height, 1]))
    return _targets(
        torch.cat(batch_idx),
        torch.cat(labels),
        torch.cat(boxes),
        torch.cat(keypoints) if keypoints else None,
    )


def _targets(batch_idx: Tensor, labels: Tensor, boxes: Tensor, keypoints: Tensor | None) -> Targets:
    return Targets(
        batch_idx,
        labels,
        boxes[:, :4].float(),
        None if keypoints is None else keypoints.float(),
        is_sorted=not out_of_order(batch_idx).any(),
        angles=boxes[:, 4].float() if boxes.shape[1] == 5 else None,
    ).validate()
