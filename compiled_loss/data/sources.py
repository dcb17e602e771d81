"""Targets from common label formats: YOLO-style batches, torchvision-style dicts, COCO annotations.

Everything here runs on the host and reads values. The result has float32 boxes and keypoints and int64 `labels`
and `batch_idx`, and has passed `Targets.validate`. `is_sorted` is set if the rows are in image order, and `rows` if
they form a batch, from a batch dict or from several images. A plan pads them; `PaddedTargets.from_rows` gives every
image slots of its own.

Letters: B images, N rows of the batch, n rows of one image, K keypoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from compiled_loss.checks import check_shape, require, whole_number
from compiled_loss.data.reading import (
    ImageSizes,
    boxes_of,
    check_crowds,
    class_of,
    classes_of,
    field,
    format_of,
    is_crowd,
    is_list,
    keypoints_of,
    look_like_corners,
    look_like_fractions,
    mask_size_of,
    read_dict,
    row_of,
    sizes_of,
    tensor_of,
    warn_once,
    whole_column,
    whole_numbers,
)
from compiled_loss.data.segmentations import draw, nearest
from compiled_loss.data.targets import Targets, out_of_order

Crowds = Literal["skip", "keep", "ignore"]

_CORNERS = "many boxes reach beyond their image, and all would be valid as corners (x1, y1, x2, y2); they are read as"
_FRACTIONS = "all boxes lie inside the first pixel of their image: are these fractions? They are read as pixels"


def from_yolo(batch: Mapping[str, Any], *, index_maps: bool = True) -> Targets:
    """Targets from a batch dict as collated by YOLO trainers: everything flat and normalised.

    Args:
        batch: `batch_idx` `[N]` or `[N, 1]`, integer or whole floats; `cls` `[N]` or `[N, 1]`, class ids, likewise;
            `bboxes` `[N, 4]`, (cx, cy, w, h) as fractions of the image, or `[N, 5]` with an angle in radians;
            optionally `keypoints` `[N, K, 2 or 3]`, x and y as fractions; `masks`, see `index_maps`, and with them
            `sem_masks` `[B, H, W]`, the class of every pixel. Other keys are ignored.
        index_maps: `masks` are `[B, H, W]`, whole numbers, i + 1 on the image's i-th row and 0 elsewhere (a trainer's
            `overlap_mask=True`). Otherwise they are `[N, H, W]`, one for each row.

    Returns:
        Targets with the rows in the order given.

    Raises:
        ValueError: for a missing key, boxes with another `format`, a `batch_idx` or `cls` that is not whole, a map
            that numbers more rows than its image has, or if `Targets.validate` finds a fault.

    Warns once if many boxes extend beyond their image and all would be valid as corners (x1, y1, x2, y2).

    Example:
        >>> import torch
        >>> batch = {"batch_idx": torch.tensor([0.0, 1.0]), "cls": torch.tensor([[3.0], [5.0]]),
        ...          "bboxes": torch.full((2, 4), 0.5)}
        >>> from_yolo(batch).labels
        tensor([3, 5])
    """
    batch_idx, labels, boxes = (field(batch, key, "batch") for key in ("batch_idx", "cls", "bboxes"))
    form, expected = format_of(boxes, "CXCYWH"), "(cx, cy, w, h) as fractions, or (cx, cy, w, h, angle) in radians"
    require(form == "CXCYWH", "batch['bboxes']", expected, f"boxes in the format {form}")
    keypoints, boxes = batch.get("keypoints"), boxes_of(boxes, "batch['bboxes']", 4, 5)
    targets = _targets(
        whole_column(batch_idx, "batch['batch_idx']"),
        whole_column(labels, "batch['cls']"),
        boxes,
        None if keypoints is None else tensor_of(keypoints, "batch['keypoints']"),
        whole=True,
    )
    if boxes.shape[1] == 4:
        real = targets.boxes[targets.batch_idx >= 0]
        if look_like_corners(real[:, :2], real):
            warn_once("from_yolo", f"{_CORNERS} (cx, cy, w, h)", stacklevel=3)
    if batch.get("masks") is None:
        return targets
    masks, class_map = tensor_of(batch["masks"], "batch['masks']"), batch.get("sem_masks")
    check_shape("batch['masks']", masks, ["B" if index_maps else "N", "H", "W"])
    if class_map is not None:
        class_map = whole_numbers(tensor_of(class_map, "batch['sem_masks']"), "batch['sem_masks']")
    maps = {"index_map": whole_numbers(masks, "batch['masks']")} if index_maps else {"masks": masks}
    targets = targets._replace(**maps, class_map=class_map).validate(len(masks) if index_maps else None)
    if index_maps and masks.numel() > 0:
        rows = torch.bincount(targets.batch_idx[targets.batch_idx >= 0], minlength=len(masks))
        for i, (most, count) in enumerate(zip(masks.flatten(1).amax(1).tolist(), rows.tolist(), strict=True)):
            require(most <= count, f"batch['masks'][{i}]", f"numbers up to the image's {count} rows", int(most))
    return targets


def from_torchvision(
    targets: Sequence[Mapping[str, Any]],
    image_sizes: ImageSizes,
    *,
    num_keypoints: int | None = None,
    crowds: Crowds = "skip",
    mask_size: tuple[int, int] | None = None,
) -> Targets:
    """Targets from a list of dicts, one per image, as used by torchvision's detection models.

    Labels are used unchanged. If class 0 is torchvision's background, subtract 1 from the labels first. Crowd regions
    (`iscrowd` 1) outline groups, not objects; `crowds` selects what to do with them.

    Args:
        targets: per image `boxes` `[n, 4]` in pixels, (x1, y1, x2, y2), or in the `format` of a `tv_tensors`
            `BoundingBoxes`, `XYXY`, `XYWH` or `CXCYWH`; `labels` `[n]`; optionally `keypoints` `[n, K, 3]`,
            (x, y, flag) in pixels, or `[n, K, 2]`, all labelled; `masks` `[n, height, width]`, 0 or 1; and `iscrowd`
            `[n]`. Images without keypoints get zeros with flag 0 if others have flags. Other keys are ignored.
        image_sizes: (height, width) in pixels of every image, or a list with one for each.
        num_keypoints: K, so that a batch in which no image has keypoints still gets `[N, K, 3]` zeros; None takes K
            from the first image that has keypoints.
        crowds: "skip" crowd regions, "keep" them as ordinary objects, or "ignore" them, as rows that set
            `Targets.ignore`, so that detections there do not count as false positives.
        mask_size: (H, W) to which masks are resampled, by nearest pixel; None leaves them as they are.

    Returns:
        Targets with the rows in image order.

    Raises:
        ValueError: for no images, a missing key, rotated boxes, a `canvas_size` other than the image's, shapes that do
            not match, masks of several sizes without a `mask_size`, or if `Targets.validate` finds a fault.

    Warns once if all boxes lie inside the first pixel.

    Example:
        >>> import torch
        >>> image = {"boxes": torch.tensor([[0.0, 0.0, 32.0, 16.0]]), "labels": torch.tensor([1])}
        >>> from_torchvision([image], (64, 64)).boxes
        tensor([[0.2500, 0.1250, 0.5000, 0.2500]])
    """
    require(is_list(targets), "targets", "a list of dicts, one per image", type(targets).__name__)
    sizes, mask_size = sizes_of(image_sizes, len(targets)), mask_size_of(mask_size)
    check_crowds(crowds)
    tables, masks, ignored = [], [], []
    for i, target in enumerate(targets):
        name = f"targets[{i}]"
        labels, boxes, keypoints, mask, ignore = read_dict(target, name, sizes[i], crowds)
        tables.append((name, labels, boxes, keypoints))
        ignored.append(ignore)
        masks.append(mask if mask is None or mask_size is None else nearest(mask, mask_size))
    done = _from_pixels("from_torchvision", "targets", tables, sizes, num_keypoints)
    if crowds == "ignore":
        done = done._replace(ignore=torch.cat(ignored))
    size = mask_size or next((mask.shape[1:] for mask in masks if mask is not None), None)
    if size is None or all(mask is None for mask in masks):
        return done
    for i, (mask, (name, labels, *_)) in enumerate(zip(masks, tables, strict=True)):
        if mask is None:
            require(len(labels) == 0, name, "masks, since other images have them", f"none for {len(labels)} boxes")
            masks[i] = torch.zeros(0, *size, dtype=torch.uint8, device=labels.device)
        else:
            expected = f"masks of one size for all images, {list(size)}; mask_size=(H, W) resizes them"
            require(mask.shape[1:] == tuple(size), f"{name}['masks']", expected, list(mask.shape[1:]))
    return done._replace(masks=torch.cat(masks)).validate()


def from_coco(
    annotations: Sequence[Sequence[Mapping[str, Any]]],
    image_sizes: ImageSizes,
    *,
    category_ids: Sequence[int] | None = None,
    num_keypoints: int | None = None,
    crowds: Crowds = "skip",
    oriented: bool = False,
    mask_size: tuple[int, int] | None = None,
) -> Targets:
    """Targets from COCO annotations, one list of annotation dicts per image.

    Crowd regions (`iscrowd` 1) outline groups, not objects; `crowds` selects what to do with them.

    Args:
        annotations: per image a list, empty if nothing is labelled, of dicts with `bbox` (x, y, width, height) in
            pixels; `category_id`; optionally `keypoints`, flat `x, y, flag` times K in pixels, and `iscrowd`.
            Annotations without keypoints get zeros with flag 0 if others have some.
        image_sizes: (height, width) in pixels of every image, or a list with one for each.
        category_ids: the data set's category ids in the order of the classes: the first is class 0. None means the
            ids are already classes, counted from 0.
        num_keypoints: K, so that a batch in which nothing has keypoints still gets `[N, K, 3]` zeros; None takes K
            from the first annotation that has keypoints.
        crowds: "skip" crowd regions, "keep" them as ordinary objects, or "ignore" them, as rows that set
            `Targets.ignore`, so that detections there do not count as false positives.
        oriented: read oriented boxes, `rbox` (cx, cy, width, height, angle) in pixels and radians, instead of `bbox`.
        mask_size: (H, W) of `masks`, drawn from each annotation's `segmentation`: polygons or run lengths in pixels of
            the image; an annotation without one gets an empty mask. None draws no masks. Polygons need `pycocotools`.

    Returns:
        Targets with the rows in image order.

    Raises:
        ValueError: for no images, a missing key, values that are not numbers, an unknown category id, lengths that do
            not match, an `iscrowd` that is neither 0 nor 1, outlines that `check_segmentation` rejects, or if
            `Targets.validate` finds a fault.
        ImportError: if polygons are to be drawn and `pycocotools` is missing.

    Warns once if many boxes extend beyond their image and all would be valid as corners (x1, y1, x2, y2), and once if
    all boxes lie inside the first pixel.

    Example:
        >>> dog = {"bbox": [0, 0, 32, 16], "category_id": 18}
        >>> t = from_coco([[], [dog]], (64, 64), category_ids=[1, 18])
        >>> t.batch_idx, t.labels, t.boxes
        (tensor([1]), tensor([1]), tensor([[0.2500, 0.1250, 0.5000, 0.2500]]))
    """
    require(is_list(annotations), "annotations", "a list of annotations for each image", type(annotations).__name__)
    classes, mask_size = classes_of(category_ids), mask_size_of(mask_size)
    check_crowds(crowds)
    tables, masks, ignored, sizes = [], [], [], sizes_of(image_sizes, len(annotations))
    key, form = ("rbox", "(cx, cy, width, height, angle)") if oriented else ("bbox", "(x, y, width, height)")
    for i, image in enumerate(annotations):
        several = is_list(image) and all(isinstance(a, Mapping) for a in image)
        require(several, f"annotations[{i}]", "a list of the image's annotations, each a dict", type(image).__name__)
        named = [(f"annotations[{i}][{j}]", a) for j, a in enumerate(image)]
        crowd = [is_crowd(a.get("iscrowd"), f"{name}['iscrowd']") for name, a in named]
        kept = [one for one, group in zip(named, crowd, strict=True) if crowds != "skip" or not group]
        ignored += crowd if crowds == "ignore" else []
        labels = [class_of(field(a, "category_id", name), classes, f"{name}['category_id']") for name, a in kept]
        rows = [row_of(field(a, key, name), f"{name}[{key!r}]", form, 5 if oriented else 4) for name, a in kept]
        boxes = torch.stack(rows) if rows else torch.zeros(0, 5 if oriented else 4, dtype=torch.float64, device="cpu")
        if not oriented:
            boxes[:, :2] += boxes[:, 2:] / 2
        keypoints = keypoints_of(kept, num_keypoints)
        tables.append((f"annotations[{i}]", torch.tensor(labels, dtype=torch.int64, device="cpu"), boxes, keypoints))
        if mask_size is not None:
            outlines = [(f"{name}['segmentation']", a.get("segmentation")) for name, a in kept]
            masks += [draw(outline, sizes[i], mask_size, name) for name, outline in outlines]
    targets = _from_pixels("from_coco", "annotations", tables, sizes, num_keypoints)
    if crowds == "ignore":
        targets = targets._replace(ignore=torch.tensor(ignored, dtype=torch.bool, device="cpu"))
    if not oriented:
        corner = targets.boxes[:, :2] - targets.boxes[:, 2:] / 2
        if look_like_corners(corner, targets.boxes):
            warn_once("from_coco", f"{_CORNERS} {form}", stacklevel=3)
    if mask_size is None:
        return targets
    none = torch.zeros(0, *mask_size, dtype=torch.uint8, device="cpu")
    return targets._replace(masks=torch.stack(masks) if masks else none).validate()


def _from_pixels(
    source: str,
    argument: str,
    # Per image: name, labels, boxes (cx, cy, w, h, perhaps with an angle), keypoints.
    tables: Sequence[tuple[str, Tensor, Tensor, Tensor | None]],
    sizes: Sequence[tuple[int, int]],
    num_keypoints: int | None,
) -> Targets:
    """Normalise in float64, so that float32 rounds once, and join the images."""
    require(len(tables) > 0, argument, "at least one image", "none")
    shape = next((tuple(points.shape[1:]) for *_, points in tables if points is not None), None)
    if num_keypoints is not None:
        shape = whole_number("num_keypoints", num_keypoints), 3 if shape is None else shape[1]
    batch_idx, labels, boxes, keypoints = [], [], [], []
    for i, ((name, label, box, points), (height, width)) in enumerate(zip(tables, sizes, strict=True)):
        batch_idx.append(torch.full_like(label, i))
        labels.append(label)
        boxes.append(box / box.new_tensor([width, height, width, height, 1])[: box.shape[1]])
        if shape is None:
            continue
        if points is None:
            # Without flags, zeros would be real keypoints in the corner of the image.
            told = f"none for {len(box)} boxes"
            require(shape[1] == 3 or len(box) == 0, f"{name}['keypoints']", [len(box), *shape], told)
            points = box.new_zeros(len(box), *shape)
        check_shape(f"{name}['keypoints']", points, [len(box), *shape])
        keypoints.append(points.double() / box.new_tensor([width, height, 1])[: shape[1]])
    if look_like_fractions(torch.cat([box[:, :4] for _, _, box, _ in tables])):
        warn_once(source, _FRACTIONS, stacklevel=4)
    points = torch.cat(keypoints) if keypoints else None
    return _targets(torch.cat(batch_idx), torch.cat(labels), torch.cat(boxes), points, whole=len(tables) > 1)


def _targets(batch_idx: Tensor, labels: Tensor, boxes: Tensor, keypoints: Tensor | None, *, whole: bool) -> Targets:
    """Rows of a whole batch, none of which may be lost, or of one image, a sample that may still be filtered."""
    return Targets(
        batch_idx,
        labels,
        boxes[:, :4].float(),
        None if keypoints is None else keypoints.float(),
        is_sorted=not out_of_order(batch_idx).any(),
        angles=boxes[:, 4].float() if boxes.shape[1] == 5 else None,
        rows=batch_idx.new_tensor(len(batch_idx)) if whole else None,
    ).validate()
