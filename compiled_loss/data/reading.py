"""Reads user input as tensors and sizes: numbers of any kind, and errors that name them. Host side.

Tensors stay on their device; lists become tensors on the host, regardless of the default device.

Letters: N rows, B images, n rows of one image.
"""

from __future__ import annotations

import numbers
import operator
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from compiled_loss.checks import check_shape, require, whole_number

ImageSizes = tuple[int, int] | Sequence[tuple[int, int]]

# The number of boxes, and the share outside the image, from which their appearance is not taken for chance.
_ENOUGH_BOXES, _LARGE_SHARE, _OUTSIDE = 4, 0.25, 1e-3


def plain(value: Any) -> Any:
    """Convert arrays and tensors to lists and Python numbers; anything else is unchanged."""
    return value.tolist() if hasattr(value, "tolist") else value


def is_number(value: Any) -> bool:
    """Whether this is a real number, including NumPy's; True and False are not."""
    return type(value) in (int, float) or (isinstance(value, numbers.Real) and not isinstance(value, bool))


def are_numbers(values: Sequence[Any]) -> bool:
    """Whether all values are numbers; fast, since outlines have many."""
    return {int, float}.issuperset(map(type, values)) or all(is_number(x) for x in values)


def is_list(value: Any) -> bool:
    """Whether this is a list or similar, and not text."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)


def sizes_of(image_sizes: ImageSizes, batch_size: int) -> list[tuple[int, int]]:
    """(height, width) of every image, given for each or once for all."""
    expected = f"one (height, width) or a list of {batch_size}"
    given = plain(image_sizes)
    require(is_list(given), "image_sizes", expected, given)
    sizes: list[Any] = [plain(size) for size in given]
    if len(sizes) == 2 and not any(is_list(side) for side in sizes):
        sizes = [tuple(sizes)] * batch_size
    require(len(sizes) == batch_size, "image_sizes", expected, len(sizes))
    for size in sizes:
        pair = is_list(size) and len(size) == 2 and all(is_number(side) for side in size)
        fits = pair and all(0 < side < 2**31 for side in size)
        require(fits, "image_sizes", "(height, width), both positive", size)
    return sizes


def field(mapping: Mapping[str, Any], key: str, name: str) -> Any:
    """The value of a required key."""
    require(isinstance(mapping, Mapping), name, "a dict", type(mapping).__name__)
    require(key in mapping, name, f"the key {key!r}", sorted(map(str, mapping)))
    return mapping[key]


def tensor_of(values: Any, name: str) -> Tensor:
    """A plain tensor of any shape and real dtype, without a tensor subclass."""
    try:
        x = values.as_subclass(Tensor) if isinstance(values, Tensor) else torch.as_tensor(values, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ValueError(f"{name}: expected numbers, got {values!r:.80}") from None
    require(not x.is_complex(), name, "real numbers", x.dtype)
    return x


def flat_numbers(values: Any, name: str, form: str) -> Tensor:
    """`[n]` float64 on the host, from a flat list of numbers."""
    given = plain(values)
    fits = is_list(given) and are_numbers(given)
    require(fits, name, f"numbers {form}", f"{values!r:.80}")
    try:
        return torch.tensor(given, dtype=torch.float64, device="cpu")
    except (OverflowError, RuntimeError, ValueError):
        raise ValueError(f"{name}: expected numbers {form}, got {values!r:.80}") from None


def row_of(values: Any, name: str, form: str, size: int) -> Tensor:
    """`[size]` float64, from exactly `size` numbers."""
    row = flat_numbers(values, name, form)
    require(len(row) == size, name, f"numbers {form}", values)
    return row


def keypoints_of(kept: list[tuple[str, Mapping[str, Any]]], num_keypoints: int | None) -> Tensor | None:
    """`[n, K, 3]` pixels, zeros for annotations without keypoints; None if no annotation has any."""
    flat = []
    for annotation, a in kept:
        name, values = f"{annotation}['keypoints']", a.get("keypoints")
        flat.append((name, flat_numbers(() if values is None else values, name, "x, y, flag, in one list")))
    length = max((len(row) for _, row in flat), default=0) if num_keypoints is None else 3 * num_keypoints
    if length == 0:
        return None
    for name, row in flat:
        fits = len(row) in (0, length) and length % 3 == 0
        require(fits, name, f"{length // 3} times x, y, flag", f"{len(row)} numbers")
    zeros = torch.zeros(length, dtype=torch.float64, device="cpu")
    rows = [row if len(row) else zeros for _, row in flat]
    return torch.stack(rows).reshape(len(rows), length // 3, 3) if rows else zeros.reshape(1, -1, 3)[:0]


def mask_size_of(given: Any) -> tuple[int, int] | None:
    """(H, W), checked, or None."""
    if given is None:
        return None
    pair = plain(given)
    require(is_list(pair) and len(pair) == 2, "mask_size", "(H, W), or None", given)
    height, width = (whole_number("mask_size", side) for side in pair)
    return height, width


def boxes_of(values: Any, name: str, *sizes: int) -> Tensor:
    """`[N, 4]`, or another allowed size; without rows any shape is accepted."""
    boxes = tensor_of(values, name)
    if boxes.numel() == 0:
        return boxes.reshape(0, boxes.shape[-1] if boxes.shape[-1] in sizes else sizes[0])
    expected = " or ".join(map(str, sizes))
    check_shape(name, boxes, ["N", sizes[0] if len(sizes) == 1 else expected])
    require(boxes.shape[1] in sizes, name, ["N", expected], tuple(boxes.shape))
    return boxes


def format_of(boxes: Any, default: str) -> str:
    """The `format` of boxes from torchvision's `tv_tensors`, such as "XYWH"; the default if they have none."""
    given = getattr(boxes, "format", default)
    return str(getattr(given, "value", given)).upper()


def whole_column(values: Any, name: str) -> Tensor:
    """`[N]` int64 from `[N]` or `[N, 1]` integers or whole floats."""
    x = tensor_of(values, name)
    if x.dim() == 2 and x.shape[1] == 1:
        x = x[:, 0]
    require(x.dim() == 1, name, "shape [N] or [N, 1]", tuple(x.shape))
    return whole_numbers(x, name)


def whole_numbers(x: Tensor, name: str) -> Tensor:
    """Convert whole numbers of any shape to int64."""
    whole = x.to(torch.int64)
    broken = whole.to(x.dtype) != x
    if broken.any():
        place = broken.nonzero()[0].tolist()
        at = f"row {place[0]}" if len(place) == 1 else f"place {place}"
        raise ValueError(f"{name}: expected whole numbers, got {x[tuple(place)].item()} in {at}")
    return whole


def is_crowd(flag: Any, name: str) -> bool:
    """Read COCO's `iscrowd`: 0 or 1 as any kind of number, True or False, or None if it is missing."""
    given = plain(flag)
    known = given is None or isinstance(given, bool) or (is_number(given) and given in (0, 1))
    require(known, name, "0 or 1", repr(given))
    return bool(given)


def check_crowds(crowds: str) -> None:
    """Check that the handling of crowd regions is one of the three options."""
    ways = ("skip", "keep", "ignore")
    require(crowds in ways, "crowds", f"one of {', '.join(map(repr, ways))}", repr(crowds))


def class_of(category: Any, classes: Mapping[Any, int] | None, name: str) -> int:
    """The class of a category id; without `classes`, the ids are classes already."""
    given = plain(category)
    if classes is None:
        whole = hasattr(given, "__index__") and not isinstance(given, bool) and abs(given) < 2**31
        require(whole, name, "a whole number", repr(given))
        return operator.index(given)
    known = (is_number(given) or isinstance(given, str)) and given in classes
    require(known, name, f"one of the category_ids {list(classes)}", f"{given!r:.80}")
    return classes[given]


def classes_of(category_ids: Any) -> dict[Any, int] | None:
    """The class of each category id, in the order given."""
    if category_ids is None:
        return None
    ids = [plain(one) for one in category_ids] if is_list(plain(category_ids)) else []
    fits = all(is_number(one) or isinstance(one, str) for one in ids) and 0 < len(ids) == len(set(ids))
    require(fits, "category_ids", "a list of ids, every id once", f"{category_ids!r:.80}")
    return {one: i for i, one in enumerate(ids)}


def read_dict(
    target: Mapping[str, Any], name: str, size: tuple[int, int], crowds: str
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor]:
    """Labels, boxes (cx, cy, w, h) in float64, keypoints and masks of one image's dict, and which are ignore rows."""
    given = {key: field(target, key, name) for key in ("boxes", "labels")}
    given |= {key: target[key] for key in ("keypoints", "masks", "iscrowd") if target.get(key) is not None}
    for key, values in given.items():
        canvas = plain(getattr(values, "canvas_size", size))
        same = is_list(canvas) and list(canvas) == list(size)
        require(same, f"{name}[{key!r}]", f"a canvas_size {tuple(size)} as the image_sizes say", canvas)
    boxes = _centred(given["boxes"], f"{name}['boxes']")
    labels = whole_column(given["labels"], f"{name}['labels']")
    require(len(labels) == len(boxes), name, f"{len(boxes)} labels, one per box", len(labels))
    keypoints, masks = (
        tensor_of(given[key], f"{name}[{key!r}]") if key in given else None for key in ("keypoints", "masks")
    )
    if keypoints is not None:
        check_shape(f"{name}['keypoints']", keypoints, shape := [len(boxes), "K", "2 or 3"])
        require(keypoints.shape[2] in (2, 3), f"{name}['keypoints']", shape, tuple(keypoints.shape))
    if masks is not None:
        check_shape(f"{name}['masks']", masks, [len(boxes), *size])
    if "iscrowd" not in given or crowds == "keep":
        return labels, boxes, keypoints, masks, torch.zeros_like(labels, dtype=torch.bool)
    crowd = whole_column(given["iscrowd"], f"{name}['iscrowd']")
    require(len(crowd) == len(boxes), f"{name}['iscrowd']", [len(boxes)], tuple(crowd.shape))
    require(bool(((crowd == 0) | (crowd == 1)).all()), f"{name}['iscrowd']", "0 or 1 for each box", crowd.tolist())
    crowd = crowd == 1
    kept = torch.ones_like(crowd) if crowds == "ignore" else ~crowd
    keypoints, masks = (None if x is None else x[kept] for x in (keypoints, masks))
    return labels[kept], boxes[kept], keypoints, masks, crowd[kept]


def _centred(values: Any, name: str) -> Tensor:
    """`[n, 4]` (cx, cy, w, h) of boxes in their own `format`, or corners if they have none."""
    form = format_of(values, "XYXY")
    known = form in ("XYXY", "XYWH", "CXCYWH")
    hint = "XYXY, XYWH or CXCYWH (rotated boxes: from_coco(oriented=True), or from_yolo with an angle, in radians)"
    require(known, name, f"the format {hint}", form)
    first, second = boxes_of(values, name, 4).double().split(2, dim=1)
    if form == "XYXY":
        second = second - first
    return torch.cat([first if form == "CXCYWH" else first + second / 2, second], dim=1)


def look_like_corners(first: Tensor, boxes: Tensor) -> bool:
    """Whether boxes look like corners (x1, y1, x2, y2) that were read as something else.

    Corners are in order and inside their image; read as a point and a size, many extend beyond it.

    Args:
        first: `[N, 2]` the first two numbers of each box, as fractions of the image; the last two are its size.
        boxes: `[N, 4]` (cx, cy, w, h) as they were read.
    """
    if len(boxes) < _ENOUGH_BOXES:
        return False
    second = boxes[:, 2:]
    ordered = (first >= -_OUTSIDE) & (second >= first - _OUTSIDE) & (second <= 1 + _OUTSIDE)
    outside = ((boxes[:, :2] - 0.5).abs() + second / 2).amax(1) > 0.5 + _OUTSIDE
    return bool(ordered.all()) and bool(outside.double().mean() >= _LARGE_SHARE)


def look_like_fractions(boxes: Tensor) -> bool:
    """Whether all of many boxes `[N, 4]`, (cx, cy, w, h) in pixels, lie inside the first pixel of their image."""
    inside = (boxes[:, :2] - 0.5).abs() + boxes[:, 2:] / 2 <= 0.5
    return len(boxes) >= _ENOUGH_BOXES and bool(inside.all() & (boxes[:, 2:] > 0).all())


def warn_once(source: str, message: str, stacklevel: int) -> None:
    """Warn once of something that looks wrong but may be right; `stacklevel` as for `warnings.warn` called here."""
    if (source, message) not in _warned:
        _warned.add((source, message))
        warnings.warn(f"{source}: {message}. This warning appears once.", stacklevel=stacklevel)


_warned: set[tuple[str, str]] = set()
